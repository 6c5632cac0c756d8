"""A client without a D-Bus library, for messages that no library would send, and for what no library would do."""

import os
import select
import socket
import struct

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


def auth_line(uid=None):
    return b"\0AUTH EXTERNAL " + str(os.geteuid() if uid is None else uid).encode().hex().encode() + b"\r\n"


class RawConnection:
    """A connection of which nothing was said yet: neither who calls, nor Hello."""

    def __init__(self, address):
        path = address.removeprefix("unix:path=").split(",")[0]
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self._serial = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def authenticate(self, fds=False):
        """fds: messages may bring file descriptors."""
        self.send(auth_line())
        self.server_id = self.line().split()[-1].decode()
        if fds:
            self.send(b"NEGOTIATE_UNIX_FD\r\n")
            self.line()
        self.send(b"BEGIN\r\n")

    def line(self):
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self.socket.recv(1)
            if not byte:
                raise ConnectionError("closed while authenticating")
            line += byte
        return line

    def send(self, data):
        self.socket.sendall(data)

    def is_closed(self):
        """Whether the other end has closed it; what comes in meanwhile is dropped."""
        try:
            while self.waits():
                if not self.socket.recv(65536):
                    return True
            return False
        except ConnectionError:
            return True

    def begin(self, destination, path, interface, member, *strings, **header):
        """Call with string arguments, as bytes of any kind, not waited for. Returns the call's serial."""
        self._serial += 1
        self.send(message(METHOD_CALL, self._serial, destination, path, interface, member, *strings, **header))
        return self._serial

    def begin_with_fds(self, fds, *args, **header):
        """The same, with file descriptors, which string arguments don't mention."""
        self._serial += 1
        socket.send_fds(self.socket, [message(METHOD_CALL, self._serial, *args, unix_fds=len(fds), **header)], fds)
        return self._serial

    def send_signal(self, destination, path, interface, member, *strings):
        """A signal to one receiver."""
        self._serial += 1
        self.send(message(SIGNAL, self._serial, destination, path, interface, member, *strings))

    def send_reply(self, destination, serial, signature, body):
        """Answers a call, though nobody has called."""
        self._serial += 1
        self.send(message(METHOD_RETURN, self._serial, destination, None, None, None, reply_serial=serial,
                          signature=signature, body=body))

    def answer(self, serial):
        """Returns (type, error name or None, body)."""
        while True:
            kind, fields, body = self.receive()
            if kind in (METHOD_RETURN, ERROR) and fields.get(5) == serial:
                return kind, fields.get(4), body

    def call(self, *args, **header):
        return self.answer(self.begin(*args, **header))

    def hello(self):
        """Returns the unique name."""
        kind, _, body = self.call(*DBUS, "Hello")
        assert kind == METHOD_RETURN
        return text(body)

    def receive(self):
        """The next message: its type, its header's fields by number, its body."""
        head = self._exactly(16)
        _, kind, _, _, body_length, _, fields_length = struct.unpack("<cBBBIII", head)
        fields = self._exactly(fields_length + -fields_length % 8)[:fields_length]
        return kind, _parse_fields(fields), self._exactly(body_length)

    def waits(self, seconds=0.0):
        """Whether something is there to be received."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the bus closed the connection")
            data += more
        return data


class RawBus(RawConnection):
    """One that has greeted."""

    def __init__(self, address, fds=False):
        super().__init__(address)
        self.authenticate(fds)
        self.unique_name = self.hello()


def message(kind, serial, destination, path, interface, member, *strings, sender=None, reply_serial=None, error=None,
            unix_fds=None, body=b"", signature=None):
    """A message with string arguments, or with a body of this signature."""
    for value in strings:
        body += b"\0" * (-len(body) % 4)
        body += struct.pack("<I", len(value)) + value + b"\0"
    fields = [(1, b"o", path), (2, b"s", interface), (3, b"s", member), (6, b"s", destination), (7, b"s", sender),
              (5, b"u", reply_serial), (4, b"s", error), (9, b"u", unix_fds),
              (8, b"g", signature or "s" * len(strings) or None)]
    array = b""
    for code, signature, value in fields:
        if value is None:
            continue
        array += b"\0" * (-len(array) % 8)
        array += struct.pack("<BB", code, 1) + signature + b"\0"
        if signature == b"u":
            array += struct.pack("<I", value)
        else:
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


def text(body):
    """The string that a body begins with."""
    length = struct.unpack_from("<I", body)[0]
    return body[4:4 + length].decode()


error_text = text
