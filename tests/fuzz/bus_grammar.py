"""What the D-Bus fuzzer sends: calls made from the live introspection data, right and wrong in every part."""

import json
import struct
import xml.etree.ElementTree

BASIC = "ybnqiuxtdsog"
FIXED = {"y": ("B", 1), "b": ("I", 4), "n": ("h", 2), "q": ("H", 2), "i": ("i", 4), "u": ("I", 4), "x": ("q", 8), "t": ("Q", 8),
         "d": ("d", 8), "h": ("I", 4)}
ALIGN = {**{code: size for code, (_, size) in FIXED.items()}, "s": 4, "o": 4, "g": 1, "a": 4, "(": 8, "{": 8, "v": 1}

NAMES = ["echo", "secret", "gone", "", "echo\n", "../echo", "e" * 64, "e" * 65, "ECHO", "\U0001f4a9", "echo\x1b[31m", "%s%n", "a" * 5000]
METHODS = ["tools/call", "tools/list", "ping", "echo/params", "initialize", "notifications/cancelled", "notifications/x", "",
           "resources/read", "a" * 300, "x/\x01", "tools/call\n", "server/discover", "subscriptions/listen"]
TOOLS = ["echo", "pid", "sleep", "big", "signals", "nothing", "", "a" * 2000, "\u2028", "echo\\u0000"]
TEXTS = ["", "{}", "{", "[]", "null", "0", '"', '{"message":"hi"}', '{"message":"hi"', '{"name":"echo","arguments":{"message":"hi"}}',
         '{"name":"echo","name":"pid"}', '{"_meta":{}}', '{"_meta":5}', '{"_meta":{"progressToken":1}}', '{"a":1,}', "\ufeff{}",
         '{"a":"\\ud800"}', '{"a":"\\u0000"}', '{"a":1e999999}', '{"a":-0}', '{"\\u006eame":"echo"}', "{}{}", "{} \n", "\n{}\n",
         '{"a":' * 70 + "1" + "}" * 70, "[" * 5000, '{"message":"' + "x" * 5000 + '"}', '{"bytes":100}', '{"seconds":0.01}',
         '{"ms":1}', '{"message":"\uffff"}', '{"name":"sleep","arguments":{"ms":5}}']
PATHS = ["/", "/org", "/org/example", "/org/example/McpExec", "/org/example/McpExec/server", "/org/example/McpExec/server/echo",
         "/org/example/McpExec/server/no", "/org/example/McpExec/worker/" + "0" * 32, "/org/example/McpExec/worker/_",
         "/org/freedesktop/DBus", "/a" * 100]
INTERFACES = ["org.example.McpExec", "org.example.McpExec.Server", "org.example.McpExec.Worker", "org.freedesktop.DBus.Properties",
              "org.freedesktop.DBus.ObjectManager", "org.freedesktop.DBus.Introspectable", "org.freedesktop.DBus.Peer",
              "org.freedesktop.DBus", "a.b", None]
NUMBERS = [0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63]


def methods_of(text):
    """(interface, member, signature of its arguments), and the names of child nodes, of introspection data."""
    node = xml.etree.ElementTree.fromstring(text)
    found = []
    for interface in node.findall("interface"):
        for method in interface.findall("method"):
            signature = "".join(arg.get("type") for arg in method.findall("arg") if arg.get("direction", "in") == "in")
            found.append((interface.get("name"), method.get("name"), signature))
    return found, [child.get("name") for child in node.findall("node") if child.get("name")]


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
    """draw: a random.Random, on which alone all depends."""

    def __init__(self, draw):
        self.draw = draw

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
        for _ in range(self.draw.choice([0, 1, 2, 5, 40, 300] if len(kind) < 6 else [0, 1, 2])):
            if len(body) - start > 4_000_000:
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
        pools = {"Call": [NAMES[:1], METHODS, TEXTS], "CallTool": [NAMES[:2], TOOLS, TEXTS], "Notify": [NAMES[:1], METHODS, TEXTS]}
        pool = pools.get(member, [NAMES] * 3)
        for n, kind in enumerate(split(signature)):
            if kind == "s" and n < len(pool):
                data = (self.broken_json() if n == 2 and draw.random() < 0.5 else draw.choice(pool[n])).replace("\0", "").encode(errors="replace")
                body += b"\0" * (-len(body) % 4)
                body += struct.pack("<I", len(data)) + data + b"\0"
            else:
                self.append(body, kind)
        return bytes(body)
