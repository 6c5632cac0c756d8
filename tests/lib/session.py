"""A program that speaks MCP on a session's socket, a line at a time."""

import json
import socket
import time

import dbus
from caller import PATH, ROOT, CallFailed
from waiting import SLOWNESS, turn_loop

PATIENCE = 60.0
LEGACY = "2025-11-25"
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"


class Refused(Exception):
    """A JSON-RPC error."""

    def __init__(self, error):
        super().__init__(json.dumps(error))
        self.code, self.message, self.data = error["code"], error["message"], error.get("data")


class Closed(Exception):
    """The other side writes no more, or reads no more."""


class refused:
    """The block ends in this JSON-RPC error, whose text has each of the patterns."""

    def __init__(self, code, *patterns):
        self.code, self.patterns = code, patterns

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        assert kind is Refused, f"no error, {self.code} was expected" if kind is None else error
        assert error.code == self.code, error
        for pattern in self.patterns:
            assert pattern in error.message, error
        self.error = error
        return True


class Session:
    """answer: called with each request of the server, returns its result; None: leaves it unanswered."""

    def __init__(self, end, answer=None):
        self.end = end
        self.answer = answer
        self.last_id = 0
        self.answers = {}   # by id
        self.notices = []   # notifications, in order
        self.requests = []  # of the server, in order
        self.partial = b""
        self.over = False

    @classmethod
    def open(cls, caller, server, answer=None, **options):
        try:
            fd = caller.bus.call_blocking(caller.name, PATH, ROOT, "OpenSession", "sa{sv}",
                                          (server, dbus.Dictionary(options, signature="sv")), timeout=PATIENCE * SLOWNESS)
        except dbus.DBusException as error:
            raise CallFailed.of(error) from None
        return cls(socket.socket(fileno=fd.take()), answer)

    def close(self):
        self.end.close()

    def finish(self):
        """Say that nothing more will be asked."""
        self.end.shutdown(socket.SHUT_WR)

    # Lines

    def write(self, text):
        self.end.settimeout(PATIENCE * SLOWNESS)
        try:
            self.end.sendall(text if isinstance(text, bytes) else text.encode())
        except BrokenPipeError as error:
            raise Closed from error

    def send(self, message):
        self.write(json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False) + "\n")

    def take(self, line):
        message = json.loads(line)
        assert message["jsonrpc"] == "2.0", line
        if "method" not in message:
            # An id is answered once; what is no request has none.
            assert "id" not in message or self._key(message["id"]) not in self.answers, line
            self.answers.setdefault(self._key(message.get("id")), []).append(message)
        elif "id" in message:
            self.requests.append(message)
            result = self.answer(message) if self.answer else None
            if result is not None:
                self.send({"id": message["id"], **(result if "error" in result else {"result": result})})
        else:
            self.notices.append(message)

    def turn(self, seconds=0.0):
        """Read what there is, once, or wait for it so long."""
        self.end.settimeout(max(seconds, 0.001))
        try:
            piece = self.end.recv(1 << 16)
        except (TimeoutError, BlockingIOError):
            turn_loop()
            return
        except ConnectionResetError:
            piece = b""
        if not piece:
            self.over = True
            raise Closed
        *lines, self.partial = (self.partial + piece).split(b"\n")
        for line in lines:
            self.take(line)

    def until(self, predicate, what="the condition", timeout=PATIENCE):
        deadline = time.monotonic() + timeout * SLOWNESS
        while not (value := predicate()):
            assert time.monotonic() < deadline, f"{what}: not in time"
            self.turn(0.05)
        return value

    def until_closed(self):
        try:
            while True:
                self.until(lambda: False, "the end of the session")
        except Closed:
            pass

    # Messages

    @staticmethod
    def _key(number):
        return json.dumps(number)

    def begin(self, method, params=None, id=None):
        if id is None:
            self.last_id += 1
            id = self.last_id
        self.send({"id": id, "method": method, **({} if params is None else {"params": params})})
        return id

    def wait(self, id):
        message = self.until(lambda: self.answers.get(self._key(id)), f"an answer to {id}")[0]
        if "error" in message:
            raise Refused(message["error"])
        return message["result"]

    def request(self, method, params=None, id=None):
        return self.wait(self.begin(method, params, id))

    def notify(self, method, params=None):
        self.send({"method": method, **({} if params is None else {"params": params})})

    def initialize(self, version=LEGACY, **capabilities):
        result = self.request("initialize", {"protocolVersion": version, "capabilities": capabilities,
                                             "clientInfo": {"name": "test", "version": "1"}})
        self.notify("notifications/initialized")
        return result

    def tool(self, name, /, _meta=None, **arguments):
        return self.wait(self.begin_tool(name, _meta, **arguments))

    def begin_tool(self, name, /, _meta=None, **arguments):
        return self.begin("tools/call", {"name": name, "arguments": arguments, **({"_meta": _meta} if _meta else {})})

    def text(self, id):
        return self.wait(id)["content"][0]["text"]

    def tool_text(self, name, /, _meta=None, **arguments):
        return self.text(self.begin_tool(name, _meta, **arguments))

    def tool_json(self, name, /, _meta=None, **arguments):
        return json.loads(self.tool_text(name, _meta, **arguments))
