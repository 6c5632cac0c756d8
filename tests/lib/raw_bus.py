"""A client without a D-Bus library, for messages that no library would send."""

import os
import socket
import struct

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4


class RawBus:
    def __init__(self, address):
        path = address.removeprefix("unix:path=").split(",")[0]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(path)
        uid = str(os.geteuid()).encode().hex().encode()
        self._socket.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\n")
        self._line()
        self._socket.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        self._line()
        self._socket.sendall(b"BEGIN\r\n")
        self._serial = 0
        self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def _line(self):
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self._socket.recv(1)
            if not byte:
                raise ConnectionError("closed while authenticating")
            line += byte
        return line

    def call(self, destination, path, interface, member, *strings):
        """Call with string arguments, as bytes of any kind. Returns (type, error name or None, body)."""
        self._send(METHOD_CALL, destination, path, interface, member, *strings)
        while True:
            kind, fields, body = self._receive()
            if kind in (METHOD_RETURN, ERROR) and fields.get(5) == self._serial:
                return kind, fields.get(4), body

    def send(self, destination, path, interface, member, *strings, fds=()):
        """Call without waiting for the answer, with file descriptors that the arguments don't mention."""
        self._send(METHOD_CALL, destination, path, interface, member, *strings, fds=fds)

    def send_body(self, destination, path, interface, member, signature, body):
        """Call without waiting for the answer, with a body that was marshalled elsewhere."""
        self._serial += 1
        fields = [(1, b"o", path), (2, b"s", interface), (3, b"s", member), (6, b"s", destination), (8, b"g", signature)]
        self._socket.sendall(_message(METHOD_CALL, self._serial, fields, body))

    def signal(self, destination, path, interface, member, *strings):
        """A signal to one receiver, with string arguments."""
        self._send(SIGNAL, destination, path, interface, member, *strings)

    def reply(self, destination, serial, signature, body):
        """Answer a call, though nobody has called."""
        self._serial += 1
        fields = [(5, b"u", serial), (6, b"s", destination), (8, b"g", signature)]
        self._socket.sendall(_message(METHOD_RETURN, self._serial, fields, body))

    def _send(self, kind, destination, path, interface, member, *strings, fds=()):
        self._serial += 1
        body = b""
        for value in strings:
            body += b"\0" * (-len(body) % 4)
            body += struct.pack("<I", len(value)) + value + b"\0"
        fields = [(1, b"o", path), (2, b"s", interface), (3, b"s", member), (6, b"s", destination)]
        if strings:
            fields.append((8, b"g", "s" * len(strings)))
        if fds:
            fields.append((9, b"u", len(fds)))
        socket.send_fds(self._socket, [_message(kind, self._serial, fields, body)], fds)

    def _receive(self):
        head = self._exactly(16)
        _, kind, _, _, body_length, _, fields_length = struct.unpack("<cBBBIII", head)
        fields = self._exactly(fields_length + -fields_length % 8)[:fields_length]
        return kind, _parse_fields(fields), self._exactly(body_length)

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the bus closed the connection")
            data += more
        return data


def _message(kind, serial, fields, body):
    array = b""
    for code, signature, value in fields:
        array += b"\0" * (-len(array) % 8)
        array += struct.pack("<BB", code, 1) + signature + b"\0"
        if signature == b"u":
            array += struct.pack("<I", value)
            continue
        data = value.encode()
        array += struct.pack("<B" if signature == b"g" else "<I", len(data)) + data + b"\0"
    head = struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), serial, len(array)) + array
    return head + b"\0" * (-len(head) % 8) + body


def _parse_fields(array):
    fields, at = {}, 0
    while at < len(array):
        at += -at % 8
        code = array[at]
        signature = array[at + 2:at + 2 + array[at + 1]]
        at += 3 + array[at + 1]
        if signature in (b"s", b"o"):
            at += -at % 4
            length = struct.unpack_from("<I", array, at)[0]
            fields[code] = array[at + 4:at + 4 + length].decode()
            at += 5 + length
        elif signature == b"u":
            at += -at % 4
            fields[code] = struct.unpack_from("<I", array, at)[0]
            at += 4
        elif signature == b"g":
            fields[code] = array[at + 1:at + 1 + array[at]].decode()
            at += 2 + array[at]
        else:
            raise ValueError(f"header field {code} of type {signature!r}")
    return fields


def error_text(body):
    length = struct.unpack_from("<I", body)[0]
    return body[4:4 + length].decode()
