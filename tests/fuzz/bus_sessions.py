"""Sessions that the D-Bus fuzzer opens: sound and hostile lines, and a ledger of the answers."""

import json
import os
import random
import socket

META = "io.modelcontextprotocol/"
MODERN = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}, META + "clientInfo": {"name": "fuzz", "version": "1"}}
CAPABILITIES = [{}, {"roots": {"listChanged": True}}, {"sampling": {}, "elicitation": {}}, {"tasks": {}, "x": None}]
REQUESTS = [
    ("ping", None), ("tools/list", {}), ("tools/list", {"cursor": "x"}), ("tools/call", {"name": "echo", "arguments": {"message": "hi"}}),
    ("tools/call", {"name": "echo__echo", "arguments": {"message": "hi"}}), ("tools/call", {"name": "work", "arguments": {"steps": 2, "pause": 0.01}}),
    ("tools/call", {"name": "ask", "arguments": {"method": "roots/list", "patience": 0.1}}), ("tools/call", {"name": "helper__end"}),
    ("tools/call", {"arguments": 5}), ("tools/call", {"name": "big", "arguments": {"size": 70_000}}), ("resources/list", {}),
    ("resources/templates/list", {}), ("resources/read", {"uri": "a:b"}), ("resources/subscribe", {"uri": "a:b"}), ("prompts/list", {}),
    ("prompts/get", {"name": "echo__x"}), ("completion/complete", {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {}}),
    ("logging/setLevel", {"level": "debug"}), ("logging/setLevel", {"level": 7}), ("tasks/get", {"taskId": "x"}), ("tasks/list", {}),
    ("tasks/cancel", {"taskId": "1"}), ("server/discover", {}), ("initialize", {}), ("unheard/of", {"a": [[[]]]}), ("echo/params", {"_meta": {}}),
]
NOTIFICATIONS = [("notifications/initialized", None), ("notifications/roots/list_changed", {}), ("notifications/unheard/of", {"a": 1}),
                 ("notifications/progress", {"progressToken": 1, "progress": 1})]
RAW = [b"", b"\r", b"{}", b"[]", b"[[]]", b"null", b"5", b"\0", b"\xff\xfe", b'{"jsonrpc":"2.0"}', b"[" * 200, b'{"jsonrpc":"2.0","id":"r"}',
       b'{"jsonrpc":"2.0","id":1,"result":{}}', b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}', b'{"jsonrpc":"2.0","id":"r","result":',
       b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}', b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
       b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', b'{"jsonrpc":"2.0","id":{},"method":"ping"}', b'{"jsonrpc":"2.0","id":"r","method":5}',
       b'{"id":"r","method":"ping"}', b'{"jsonrpc":"2.0","id":"' + b"i" * 5000 + b'","method":"ping"}', b'{"jsonrpc":"2.0","id":"\xf0\x9f","method":"ping"}',
       b'[{"jsonrpc":"2.0","id":"r","method":"ping"},{"jsonrpc":"2.0","id":"r","method":"ping"},5]']


class Wrong(Exception):
    pass


class FuzzedSession:
    """One, from outside. read_fd and write_fd: ours, of one socket the same. kept: it isn't closed but by its client's end. Each step
    depends on its seed alone."""

    def __init__(self, number, read_fd, write_fd, kept):
        self.number, self.read_fd, self.write_fd, self.kept = number, read_fd, write_fd, kept
        for fd in (read_fd, write_fd):
            os.set_blocking(fd, False)
        self.deaf = number % 5 == 4
        self.sound = not self.deaf  # all that was written are whole lines that any client could write, and it reads
        self.finished = False  # nothing more is written
        self.over = False
        self.last_id = 0
        self.asked = {}  # id → whether it was answered
        self.partial = b""

    def close(self):
        if self.over:
            return
        self.over = True
        os.close(self.read_fd)
        if self.write_fd not in (self.read_fd, None):
            os.close(self.write_fd)

    def finish(self):
        """Nothing more is asked."""
        if self.over or self.finished:
            return
        self.finished = True
        self.deaf = False
        if self.write_fd == self.read_fd:
            end = socket.socket(fileno=os.dup(self.read_fd))
            try:
                end.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the other side has gone
            end.close()
        else:
            os.close(self.write_fd)
            self.write_fd = None

    def step(self, seed):
        """Some lines, or an end."""
        draw = random.Random(seed)
        kind = draw.random()
        if self.over or self.finished:
            pass
        elif kind < 0.55:
            self._write(b"".join(self._sound_line(draw) for _ in range(draw.choice([1, 1, 2, 5, 40]))))
        elif kind < 0.75:
            self.sound = False
            self._write(self._hostile(draw))
        elif kind < 0.82:
            self.finish()
        elif kind < 0.90:
            self.close()
        if not self.deaf:
            self.read()

    def _write(self, data):
        while data:
            try:
                data = data[os.write(self.write_fd, data):]
            except BlockingIOError:
                self.sound = False  # the rest is lost
                return
            except OSError:
                return  # the other side has gone

    def _sound_line(self, draw):
        if draw.random() < 0.1:
            method, params = draw.choice(NOTIFICATIONS)
            return self._line(None, method, params)
        method, params = draw.choice(REQUESTS)
        self.last_id += 1
        number = self.last_id if draw.random() < 0.5 else f"s{self.last_id}"
        self.asked[number] = False
        if method == "initialize" or self.last_id == 1 and draw.random() < 0.6:
            return self._line(number, "initialize", {"protocolVersion": draw.choice(["2025-11-25", "2024-11-05", "1999-01-01"]),
                                                     "capabilities": draw.choice(CAPABILITIES), "clientInfo": {"name": "fuzz", "version": "1"}})
        if self.number % 3 == 0 and params is not None:
            params = {**params, "_meta": MODERN}
        return self._line(number, method, params)

    @staticmethod
    def _line(number, method, params):
        message = {"jsonrpc": "2.0", **({"id": number} if number is not None else {}), "method": method, **({"params": params} if params is not None else {})}
        return json.dumps(message).encode() + b"\n"

    def _hostile(self, draw):
        kind = draw.random()
        if kind < 0.3:
            return draw.choice(RAW) + draw.choice([b"\n", b"\n", b"\r\n", b""])
        if kind < 0.4:
            return draw.randbytes(draw.choice([1, 20, 3000])) + b"\n"
        if kind < 0.5:
            return self._line(None, "notifications/cancelled", {"requestId": draw.choice([*self.asked, 0])})
        if kind < 0.55:
            return b'{"jsonrpc":"2.0","id":"long","method":"ping","params":{"a":"' + b"x" * draw.choice([70_000, 1_100_000, 17_000_000]) + b'"}}\n'
        line = bytearray(self._line(f"hostile-{draw.randrange(1000)}", *draw.choice(REQUESTS)))
        for _ in range(draw.randrange(1, 5)):
            at = draw.randrange(len(line))
            line[at:at + draw.choice([0, 1, 1, 5])] = draw.choice([b"", b"\0", b"\xc3", b'"', b"{", b"}", b"\\", b"\n", b"[", b",", b"\\ud800"])
        return bytes(line) + b"\n"

    def read(self):
        """All that is there. Raises Wrong."""
        while not self.over:
            try:
                data = os.read(self.read_fd, 1 << 20)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._ended()
                return
            *lines, self.partial = (self.partial + data).split(b"\n")
            for line in lines:
                self._take(line)

    def _ended(self):
        self.close()
        if self.partial:
            raise Wrong(f"a session's last line has no end: {self.partial[:300]!r}")
        if self.sound and self.finished and self.kept and not all(self.asked.values()):
            raise Wrong(f"a session has no answer to {[number for number, answered in self.asked.items() if not answered][:9]}")
        if self.sound and self.kept and not self.finished:
            raise Wrong("a session was closed that nobody has ended")

    def _take(self, line):
        try:
            message = json.loads(line)
            good = message["jsonrpc"] == "2.0"
        except (ValueError, TypeError, KeyError):
            good = False
        if not good:
            raise Wrong(f"a session says {line[:300]!r}")
        number = message.get("id")
        if "method" in message or not isinstance(number, (str, int)) or number not in self.asked:
            if self.sound and "method" not in message:
                raise Wrong(f"a session answers what nobody asked: {line[:300]!r}")
            return
        if self.asked[number]:
            raise Wrong(f"a session answers twice: {line[:300]!r}")
        self.asked[number] = True
