#!/usr/bin/python3
"""One user who does his worst, until he is killed:  attacker.py MOOD ADDRESS [endless]

Writes a line when it has begun. Each mood is a function below. endless: those that wait for their answers before they begin
again don't.
"""

import fcntl
import os
import random
import select
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

from caller import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE  # noqa: E402
from raw_connection import DBUS, ERROR, METHOD_RETURN, RawBus, RawConnection, message  # noqa: E402

NAME, PATH, ROOT = "org.example.McpExec", "/org/example/McpExec", "org.example.McpExec"
MOODS = {}
ENDLESS = sys.argv[3:] == ["endless"]
address = None


def mood(function):
    MOODS[function.__name__.replace("_", "-")] = function
    return function


def call(serial, member, *strings, **header):
    return message(1, serial, NAME, PATH, ROOT, member, *strings, **header)


def echo(serial, text=b"hi"):
    return call(serial, "CallTool", b"echo", b"echo", b'{"message":"' + text + b'"}')


def pump(raw, data, read=True):
    """Send all of it, reading meanwhile."""
    view = memoryview(data)
    raw.socket.setblocking(False)
    while view:
        readable, writable, _ = select.select([raw.socket] if read else [], [raw.socket], [], 5)
        if readable and not raw.socket.recv(1 << 20):
            raise ConnectionError("thrown out")
        if writable:
            view = view[raw.socket.send(view[:1 << 18]):]
    raw.socket.setblocking(True)


def drain(raw):
    """Read until nothing has come for a moment."""
    while not ENDLESS and raw.waits(0.2):
        if not raw.socket.recv(1 << 20):
            raise ConnectionError("thrown out")


def again(function):
    """Whoever is thrown out comes back."""
    while True:
        try:
            function()
        except OSError:
            pass


@mood
def ten_thousand_calls():
    """On one connection, all at once, and again when they are answered."""
    data = b"".join(echo(serial) for serial in range(10, 10_010))

    def flood():
        with RawBus(address) as raw:
            started()
            while True:
                pump(raw, data)
                drain(raw)

    again(flood)


@mood
def a_thousand_connections():
    """Each with a call of its own, then all gone, over and over."""

    def flood():
        held = []
        for _ in range(1000):
            raw = RawConnection(address)
            raw.authenticate()
            raw.send(message(1, 1, *DBUS, "Hello") + echo(2))
            held.append(raw)
            if len(held) == 50:
                started()
        for raw in held:
            raw.close()

    again(flood)


@mood
def never_reads():
    """Asks for results of 500 KB and reads none."""
    request = b'{"message":"' + b"x" * 500_000 + b'"}'

    def flood():
        with RawBus(address) as raw:
            for serial in range(10, 1000):
                pump(raw, call(serial, "CallTool", b"echo", b"echo", request), read=False)
                if serial == 20:
                    started()
            select.select([], [], [], 5)

    again(flood)


@mood
def wrong_signatures():
    """Every method with arguments of other types, or none."""
    bodies = [("", b""), ("u", struct.pack("<I", 7)), ("as", struct.pack("<I", 0)), ("ay", struct.pack("<I", 4) + b"abcd"),
              ("v", b"\1u\0\0" + struct.pack("<I", 7))]
    members = ["Call", "CallTool", "CallBatch", "Notify", "ListTools", "StartServer", "StopServer", "Describe", "Nothing"]
    data = b"".join(call(10 + serial, members[serial % len(members)], signature=bodies[serial % 5][0], body=bodies[serial % 5][1])
                    for serial in range(2000))

    def flood():
        with RawBus(address) as raw:
            started()
            while True:
                pump(raw, data)
                drain(raw)

    again(flood)


@mood
def hostile_values():
    """Strings that nobody should send, as every argument."""
    draw = random.Random(1)
    values = [b"", b"echo", b"../../etc/passwd", b"x" * 1000, b"\x1b[31m", "\U0001f4a9".encode(), b"{", b"[" * 60_000, b'{"a":' * 60,
              b'{"name":"echo","name":"pid"}', b"%s%n", b"1e999999", b'"\\ud800"', b'{"_meta":5}', b"null"]
    data = b"".join(call(10 + serial, draw.choice(["Call", "CallTool", "Notify"]), *(draw.choice(values) for _ in range(3)))
                    for serial in range(1000))

    def flood():
        with RawBus(address) as raw:
            started()
            while True:
                pump(raw, data)

    again(flood)


@mood
def vanishes():
    """Comes, calls, and is gone before the answer, over and over."""

    def flood():
        for number in range(1_000_000):
            raw = RawBus(address)
            raw.send(b"".join(call(serial, "CallTool", b"slow", b"sleep", b'{"seconds":5}') for serial in range(10, 20)))
            raw.close()
            if number == 5:
                started()

    again(flood)


@mood
def large_calls():
    """Each as large as it may be."""
    data = b"".join(echo(serial, b"x" * 1_000_000) for serial in range(10, 14))

    def flood():
        with RawBus(address) as raw:
            started()
            while True:
                pump(raw, data)

    again(flood)


@mood
def crashes_workers():
    """Each call ends a worker of his."""

    def flood():
        with RawBus(address) as raw:
            started()
            while True:
                raw.call(NAME, PATH, ROOT, "CallTool", b"crashing", b"end", b'{"status":1}')

    again(flood)


@mood
def descriptors():
    """Each call brings as many as the bus lets through, by connections that are known and by new ones."""
    null = os.open("/dev/null", os.O_RDONLY)

    def flood():
        with RawBus(address, fds=True) as known:
            while True:
                with RawBus(address, fds=True) as new:
                    for raw in (known, new):
                        for count in (4, 4, 4, 16):
                            raw.begin_with_fds([null] * count, NAME, PATH, ROOT, "CallTool", b"echo", b"echo", b'{"message":"hi"}')
                            while raw.waits():
                                if not raw.socket.recv(1 << 20):
                                    raise ConnectionError("thrown out")
                    started()

    again(flood)


@mood
def large_files():
    """Eight calls at a time whose params are in files, of what takes longest to check, and wrong at its end."""
    fd = os.memfd_create("params", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        file.write(b'{"a":[' + b'{"a":1},' * (15 << 17) + b"1]")
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    body = b"\4\0\0\0echo\0" + b"\0" * 3 + b"\12\0\0\0tools/call\0" + b"\0"  # server and method
    body += struct.pack("<III", 0, 0, 0)  # the descriptor's index; no options, which begin at a multiple of 8

    def flood():
        with RawBus(address, fds=True) as raw:
            for number in range(1_000_000):
                raw.begin_with_fds([fd], NAME, PATH, ROOT, "CallFd", signature="ssha{sv}", body=body)
                if number < 8:
                    continue
                started()
                while raw.receive()[0] not in (METHOD_RETURN, ERROR):
                    pass

    again(flood)


def started():
    global started
    os.write(1, b"begun\n")
    started = lambda: None  # noqa: E731


if __name__ == "__main__":
    address = sys.argv[2]
    MOODS[sys.argv[1]]()
