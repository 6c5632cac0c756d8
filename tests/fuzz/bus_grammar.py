"""What the D-Bus fuzzer sends: calls made from the live introspection data, right and wrong in every part."""

import json
import struct
import xml.etree.ElementTree

BASIC = "ybnqiuxtdsogh"
FIXED = {"y": ("B", 1), "b": ("I", 4), "n": ("h", 2), "q": ("H", 2), "i": ("i", 4), "u": ("I", 4), "x": ("q", 8), "t": ("Q", 8),
         "d": ("d", 8), "h": ("I", 4)}
ALIGN = {**{code: size for code, (_, size) in FIXED.items()}, "s": 4, "o": 4, "g": 1, "a": 4, "(": 8, "{": 8, "v": 1}

NAMES = ["echo", "helper", "secret", "gone", "", "echo\n", "../echo", "e" * 64, "e" * 65, "ECHO", "\U0001f4a9", "echo\x1b[31m", "%s%n", "a" * 5000]
METHODS = ["tools/call", "tools/list", "ping", "echo/params", "initialize", "notifications/cancelled", "notifications/x", "",
           "resources/read", "a" * 300, "x/\x01", "tools/call\n", "server/discover", "subscriptions/listen"]
TOOLS = ["echo", "pid", "sleep", "big", "work", "ask", "say", "end", "refuse", "nothing", "", "a" * 2000, "\u2028", "echo\\u0000"]
TEXTS = ["", "{}", "{", "[]", "null", "0", '"', '{"message":"hi"}', '{"message":"hi"', '{"name":"echo","arguments":{"message":"hi"}}',
         '{"name":"echo","name":"pid"}', '{"_meta":{}}', '{"_meta":5}', '{"_meta":{"progressToken":1}}', '{"a":1,}', "\ufeff{}",
         '{"a":"\\ud800"}', '{"a":"\\u0000"}', '{"a":1e999999}', '{"a":-0}', '{"\\u006eame":"echo"}', "{}{}", "{} \n", "\n{}\n",
         '{"a":' * 70 + "1" + "}" * 70, "[" * 5000, '{"message":"' + "x" * 5000 + '"}', '{"bytes":100}', '{"seconds":0.01}',
         '{"size":70000}', '{"size":400000}', '{"steps":3,"pause":0.01}', '{"method":"roots/list","patience":0.1}', '{"status":3}', '{"ms":1}', '{"message":"\uffff"}', '{"name":"sleep","arguments":{"ms":5}}']
# What works, by member: the strings that it begins with
GOOD = {
    "Call": [("echo", "tools/call", '{"name":"echo","arguments":{"message":"hi"}}'), ("helper", "tools/list", ""),
             ("helper", "tools/call", '{"name":"work","arguments":{"steps":2,"pause":0.01},"_meta":{"progressToken":1}}')],
    "CallTool": [("echo", "echo", '{"message":"hi"}'), ("helper", "work", '{"steps":2,"pause":0.01}'), ("helper", "big", '{"size":70000}'), ("helper", "pid", "")],
    "CallFd": [("echo", "tools/call"), ("echo", "echo/params"), ("helper", "tools/list"), ("helper", "tools/call")],
    "StartJob": [("echo", "tools/call", '{"name":"echo","arguments":{"message":"hi"}}'), ("helper", "tools/call", '{"name":"sleep","arguments":{"seconds":0.2}}'),
                 ("helper", "tools/call", '{"name":"work","arguments":{"steps":2,"pause":0.01}}'), ("helper", "tools/list", ""),
                 ("helper", "tools/call", '{"name":"big","arguments":{"size":400000}}'), ("helper", "tools/call", '{"name":"end"}')],
    "OpenSession": [("echo",), ("helper",), ("",)],
    "AttachSession": [("echo",), ("helper",), ("",)],
    "ListTools": [("echo",), ("helper",)],
    "Describe": [("echo",)], "StartServer": [("echo",), ("helper",)], "StopServer": [("echo",), ("helper",)], "RestartServer": [("echo",), ("helper",)],
}
PATHS = ["/", "/org", "/org/example", "/org/example/McpExec", "/org/example/McpExec/server", "/org/example/McpExec/server/echo",
         "/org/example/McpExec/server/no", "/org/example/McpExec/worker/" + "0" * 32, "/org/example/McpExec/worker/_",
         "/org/example/McpExec/job", "/org/example/McpExec/job/" + "_30" * 32, "/org/example/McpExec/job/_", "/org/example/McpExec/job/a/b",
         "/org/freedesktop/DBus", "/a" * 100]
INTERFACES = ["org.example.McpExec", "org.example.McpExec.Server", "org.example.McpExec.Worker", "org.example.McpExec.Job",
              "org.freedesktop.DBus.Properties",
              "org.freedesktop.DBus.ObjectManager", "org.freedesktop.DBus.Introspectable", "org.freedesktop.DBus.Peer",
              "org.freedesktop.DBus", "a.b", None]
NUMBERS = [0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63]


def members_of(text):
    """Of introspection data: methods, as (interface, member, signature of its arguments), and properties, as (interface, member)."""
    node = xml.etree.ElementTree.fromstring(text)
    methods, properties = [], []
    for interface in node.findall("interface"):
        for method in interface.findall("method"):
            signature = "".join(arg.get("type") for arg in method.findall("arg") if arg.get("direction", "in") == "in")
            methods.append((interface.get("name"), method.get("name"), signature))
        properties += [(interface.get("name"), prop.get("name")) for prop in interface.findall("property")]
    return methods, properties


def split(signature):
    """The complete types that a signature is made of."""
    types, at = [], 0
    while at < len(signature):
        end = _end(signature, at)
        types.append(signature[at:end])
        at = end
    return types


def _end(signature, at):
    if signature[at] == "a":
        return _end(signature, at + 1)
    if signature[at] not in "({":
        return at + 1
    depth = 0
    for end in range(at, len(signature)):
        depth += (signature[end] in "({") - (signature[end] in ")}")
        if depth == 0:
            return end + 1
    raise ValueError(signature)


class Grammar:
    """draw: a random.Random, on which alone all depends. properties: as members_of() finds them."""

    def __init__(self, draw, properties=()):
        self.draw = draw
        self.properties = properties
        self.n_fds = 0  # file descriptors that come with the message

    # Values

    def signature(self, depth=0):
        """Any valid one."""
        return "".join(self._type(depth) for _ in range(self.draw.choice([0, 1, 1, 2, 3, 5])))

    def _type(self, depth):
        kind = self.draw.random()
        if depth > 3 or kind < 0.6:
            return self.draw.choice(BASIC)
        if kind < 0.75:
            return "a" + self._type(depth + 1)
        if kind < 0.85:
            return "(" + self._type(depth + 1) + self._type(depth + 1) + ")"
        return "v" if kind < 0.95 else "a{" + self.draw.choice(BASIC) + self._type(depth + 1) + "}"

    def text(self):
        draw = self.draw
        kind = draw.random()
        if kind < 0.3:
            return draw.choice(NAMES)
        if kind < 0.4:
            return draw.choice(METHODS)
        if kind < 0.5:
            return draw.choice(TOOLS)
        if kind < 0.7:
            return draw.choice(TEXTS)
        if kind < 0.9:
            return self.broken_json()
        if kind < 0.92:
            return '{"message":"' + "x" * draw.choice([1_048_000, 1_048_576, 1_500_000]) + '"}'
        return "".join(chr(draw.choice([draw.randrange(1, 128), draw.randrange(0xA0, 0xD7FF), draw.randrange(0x10000, 0x10FFFF)]))
                       for _ in range(draw.randrange(20)))

    def broken_json(self):
        """One that was good, after some accidents."""
        draw = self.draw
        text = list(draw.choice(TEXTS) or json.dumps({"name": "echo", "arguments": {"message": self.draw.choice(NAMES)}}))
        for _ in range(draw.randrange(4)):
            at = draw.randrange(len(text) + 1)
            kind = draw.random()
            if kind < 0.4 and at < len(text):
                text[at] = draw.choice('{}[]":,\\0eu\x7f \t\n')
            elif kind < 0.7:
                text[at:at] = draw.choice(['"', "{", "}", "\\", "\\u", "\\ud83d", "null", ",", ":", "1e5"])
            else:
                del text[at:at + draw.randrange(1, 9)]
        return "".join(text)

    # Marshalling

    def append(self, body, kind):
        """Append a value of this complete type."""
        draw, code = self.draw, kind[0]
        body += b"\0" * (-len(body) % ALIGN[code])
        if code == "b":
            body += struct.pack("<I", draw.choice([0, 1]))
        elif code == "d":
            body += struct.pack("<d", draw.choice([0.0, -1.5, float("inf"), float("nan"), 1e308]))
        elif code == "h" and draw.random() < 0.9:
            body += struct.pack("<I", draw.randrange(max(self.n_fds, 1)))
        elif code in FIXED:
            letter, size = FIXED[code]
            bits = draw.choice(NUMBERS) & ((1 << 8 * size) - 1)
            body += bits.to_bytes(size, "little")
        elif code in "so":
            data = (draw.choice(PATHS) if code == "o" else self.text()).replace("\0", "").encode(errors="replace")
            body += struct.pack("<I", len(data)) + data + b"\0"
        elif code == "g":
            data = self.signature(2).encode()
            data = data if len(data) < 200 else b"s"
            body += struct.pack("<B", len(data)) + data + b"\0"
        elif code == "v":
            inner = self._type(3)
            body += struct.pack("<B", len(inner)) + inner.encode() + b"\0"
            self.append(body, inner)
        elif code == "a":
            self._append_array(body, kind[1:])
        else:  # a struct or a dict's entry
            for inner in split(kind[1:-1]):
                self.append(body, inner)

    def _append_array(self, body, kind):
        at = len(body)
        body += b"\0\0\0\0"
        body += b"\0" * (-len(body) % ALIGN[kind[0]])
        start = len(body)
        most = self.draw.choice([4_000_000] + 9 * [50_000])
        for _ in range(self.draw.choice([0, 1, 2, 5, 40, 300] if len(kind) < 6 else [0, 1, 2])):
            if len(body) - start > most:
                break
            self.append(body, kind)
        struct.pack_into("<I", body, at, len(body) - start)

    def body(self, signature):
        body = bytearray()
        for kind in split(signature):
            self.append(body, kind)
        return bytes(body)

    def likely_body(self, member, signature):
        """Arguments that come far: names that are there, texts that could be meant."""
        draw, body = self.draw, bytearray()
        pools = {"Call": [NAMES[:2], METHODS, TEXTS], "CallTool": [NAMES[:3], TOOLS, TEXTS], "Notify": [NAMES[:1], METHODS, TEXTS],
                 "StartJob": [NAMES[:3], METHODS[:6], TEXTS], "CallFd": [NAMES[:2], METHODS[:6]], "OpenSession": [["echo", "echo", "helper", "", "secret"]],
                 "AttachSession": [["echo", "echo", "helper", "", "secret"]]}
        pool = pools.get(member, [NAMES] * 3)
        if member in ("Get", "Set") and self.properties:
            interface, name = draw.choice(self.properties)
            pool = [[interface], [name]]
        good = draw.random() < 0.5 and member in GOOD
        if good:
            pool = [[string] for string in draw.choice(GOOD[member])]
        next_fd = 0
        for n, kind in enumerate(split(signature)):
            if kind == "s" and n < len(pool):
                self._append_text(body, self.broken_json() if n == 2 and not good and draw.random() < 0.5 else draw.choice(pool[n]))
            elif kind == "h":
                body += b"\0" * (-len(body) % 4) + struct.pack("<I", next_fd)
                next_fd += draw.random() < 0.9
            elif kind == "a{sv}":
                self._append_options(body, member)
            else:
                self.append(body, kind)
        return bytes(body)

    def _append_text(self, body, text):
        data = text.replace("\0", "").encode(errors="replace")
        body += b"\0" * (-len(body) % 4)
        body += struct.pack("<I", len(data)) + data + b"\0"

    def _append_options(self, body, member):
        draw = self.draw
        known = {"StartJob": ["timeout", "tool", "cancel_on_disconnect"], "CallFd": ["timeout", "tool"]}.get(member, ["servers"])
        body += b"\0" * (-len(body) % 4)
        at = len(body)
        body += b"\0\0\0\0" + b"\0" * (-(at + 4) % 8)
        start = len(body)
        for _ in range(draw.choice([0, 0, 0, 1, 1, 2, 3])):
            name = draw.choice(known) if draw.random() < 0.9 else draw.choice(["", "Timeout", "x" * 300, "servers", "tool"])
            kind = {"timeout": "t", "tool": "s", "cancel_on_disconnect": "b", "servers": "as"}.get(name, "s")
            kind = kind if draw.random() < 0.9 else self._type(2)
            body += b"\0" * (-len(body) % 8)
            self._append_text(body, name)
            body += struct.pack("<B", len(kind)) + kind.encode() + b"\0"
            if kind == "s" and draw.random() < 0.8:
                self._append_text(body, draw.choice(TOOLS))
            elif kind == "t" and draw.random() < 0.8:
                body += b"\0" * (-len(body) % 8) + struct.pack("<Q", draw.choice([0, 1, 1000, 20_000, 1_000_000, 1 << 62]))
            else:
                self.append(body, kind)
        struct.pack_into("<I", body, at, len(body) - start)
