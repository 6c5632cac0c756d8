"""A polkit that answers as a test tells it to (python3-gi for the messages; sockets and a thread of its own).

    polkit = MockPolkit(address)
    polkit.rule = lambda question: "yes" if question.tool == "add" else "no"

A rule returns one of these, or is one:
    "yes", "no", "challenge"        verdicts
    ("error", name, text)           a D-Bus error
    ("body", signature, value)      an answer with another body than it should have
    "silence"                       nothing; answer() may be called later
    ("after", seconds, what)        one of the above, late
    "crash"                         polkit leaves the bus
"""

import os
import select
import socket
import threading
import time
from dataclasses import dataclass, field

from gi.repository import Gio, GLib

NAME = "org.freedesktop.PolicyKit1"
AUTHORITY = "org.freedesktop.PolicyKit1.Authority"
CALL, EXECUTE_CODE, USE_NETWORK, MANAGE = (f"org.example.McpExec.{action}"
                                           for action in ("call", "execute-code", "use-network", "manage"))
FDS = Gio.DBusCapabilityFlags.UNIX_FD_PASSING


@dataclass
class Question:
    """One CheckAuthorization."""

    subject: tuple
    action: str
    details: dict
    flags: int
    cancellation: str
    when: float = field(default_factory=time.monotonic)
    message: Gio.DBusMessage = None

    @property
    def server(self):
        return self.details.get("server")

    @property
    def method(self):
        return self.details.get("method")

    @property
    def tool(self):
        return self.details.get("tool")

    @property
    def interactive(self):
        return self.flags == 1


class MockPolkit:
    def __init__(self, address, rule="no"):
        self.rule = rule
        self.questions = []
        self.cancelled = []
        self.problems = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(address.removeprefix("unix:path=").split(",")[0])
        self._serial = 0
        self._lock = threading.Lock()
        self._timers = []
        self._wake, self._woken = os.pipe()
        self._data = b""
        self._authenticate()
        self._bus("Hello")
        assert self._bus("RequestName", GLib.Variant("(su)", (NAME, 4))) == (1,), "another polkit is there"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # What was asked

    def asked(self, action=None, **details):
        """The questions about this action with (at least) these details."""
        return [question for question in list(self.questions)
                if action in (None, question.action) and details.items() <= question.details.items()]

    def forget(self):
        self.questions.clear()
        self.cancelled.clear()

    def answer(self, question, what):
        """Answer a question that silence was kept on."""
        with self._lock:
            self._answer(question, what)

    def close(self):
        if self._woken >= 0:
            os.write(self._woken, b"x")
            self._thread.join(10)
            os.close(self._wake)
            os.close(self._woken)
            self._wake = self._woken = -1
        self._socket.close()
        assert not self.problems, self.problems

    # The bus

    def _authenticate(self):
        uid = str(os.geteuid()).encode().hex().encode()
        for line in (b"\0AUTH EXTERNAL " + uid, b"NEGOTIATE_UNIX_FD"):
            self._socket.sendall(line + b"\r\n")
            while not self._data.endswith(b"\r\n"):
                self._data += self._socket.recv(1000)
            self._data = b""
        self._socket.sendall(b"BEGIN\r\n")

    def _bus(self, member, body=None):
        message = Gio.DBusMessage.new_method_call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                                  member)
        if body:
            message.set_body(body)
        serial = self._send(message)
        while True:
            for reply in self._messages():
                if reply.get_reply_serial() == serial:
                    return reply.get_body().unpack()
            self._receive()

    def _send(self, message):
        self._serial += 1
        message.set_serial(self._serial)
        self._socket.sendall(message.to_blob(FDS))
        return self._serial

    def _receive(self):
        data, fds, _, _ = socket.recv_fds(self._socket, 65536, 16)
        for fd in fds:
            os.close(fd)
        if not data:
            raise ConnectionError("the bus closed the connection")
        self._data += data

    def _messages(self):
        while len(self._data) >= 16 and len(self._data) >= (size := Gio.DBusMessage.bytes_needed(self._data[:16])):
            blob, self._data = self._data[:size], self._data[size:]
            yield Gio.DBusMessage.new_from_blob(blob, FDS)

    # The thread

    def _run(self):
        try:
            while True:
                timeout = max(0, min(self._timers)[0] - time.monotonic()) if self._timers else None
                readable, _, _ = select.select([self._socket, self._wake], [], [], timeout)
                if self._wake in readable:
                    return
                if self._socket in readable:
                    self._receive()
                with self._lock:
                    for message in self._messages():
                        if not self._handle(message):
                            self._socket.close()
                            return
                    self._answer_late()
        except (ConnectionError, OSError):
            pass  # the bus has left
        except Exception as error:
            self.problems.append(repr(error))
            raise

    def _answer_late(self):
        due = [timer for timer in self._timers if timer[0] <= time.monotonic()]
        self._timers = [timer for timer in self._timers if timer not in due]
        for _, _, question, what in due:
            self._answer(question, what)

    def _handle(self, message):
        """False: the connection is to be closed."""
        if message.get_message_type() != Gio.DBusMessageType.METHOD_CALL:
            return True
        body = message.get_body()
        if message.get_interface() != AUTHORITY or message.get_path() != "/org/freedesktop/PolicyKit1/Authority":
            self.problems.append(f"called: {message.get_path()} {message.get_interface()}")
        elif message.get_member() == "CancelCheckAuthorization":
            self.cancelled.append(body.unpack()[0])
        elif body.get_type_string() != "((sa{sv})sa{ss}us)":
            self.problems.append(f"the question's type is {body.get_type_string()}")
        else:
            question = Question(*body.unpack(), message=message)
            what = self.rule(question) if callable(self.rule) else self.rule
            self.questions.append(question)
            return self._answer(question, what)
        return True

    def _answer(self, question, what):
        verdicts = {"yes": (True, False, {}), "no": (False, False, {}), "challenge": (False, True, {})}
        if what == "crash":
            return False
        if what == "silence":
            return True
        if isinstance(what, str):
            what = "body", "((bba{ss}))", (verdicts[what],)
        kind, *rest = what
        if kind == "after":
            self._timers.append((time.monotonic() + rest[0], len(self.questions), question, rest[1]))
        elif kind == "error":
            self._send(Gio.DBusMessage.new_method_error_literal(question.message, *rest))
        else:
            reply = question.message.new_method_reply()
            if rest[0] != "()":
                reply.set_body(GLib.Variant(*rest))
            self._send(reply)
        return True
