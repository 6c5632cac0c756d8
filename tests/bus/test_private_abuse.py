"""Clients of the private socket that mean harm, or are broken: closed, bounded, and nobody else notices."""

import array
import os
import select
import signal
import socket
import struct
import time

import pytest

from caller import NAME, PATH, ROOT, text_of
from other_user import can_be_others, run_as, worker_of
from processes import processor_time
from raw_connection import DBUS, ERROR, METHOD_RETURN, SIGNAL, RawBus, RawConnection, auth_line, message, text
from service import SANITIZED
from test_private_socket import echo, echoed, private, service, system_service  # noqa: F401 fixtures
from waiting import SLOWNESS, eventually, settle

MIB = 1024 * 1024


def works(caller):
    assert caller.tool_text("echo", "echo", {"message": "still there"}) == "still there"


def gone(raw, timeout=5.0):
    eventually(raw.is_closed, "the connection is closed", timeout)


# Who they say they are

@pytest.mark.parametrize("line", [auth_line(4242), b"\0AUTH ANONYMOUS\r\n", b"\0AUTH EXTERNAL 2d31\r\n", b"\0AUTH\r\n",
                                  b"\0AUTH DBUS_COOKIE_SHA1 726f6f74\r\n", b"\0AUTH EXTERNAL zz\r\n"])
def test_a_false_identity_is_rejected(service, private, line):
    with RawConnection(service.private_address) as raw:
        raw.send(line)
        answer = raw.line()
        assert not answer.startswith(b"OK"), answer
        raw.send(b"BEGIN\r\n" + message(1, 1, NAME, PATH, ROOT, "ListServers"))
        settle(0.2)
        try:
            while raw.waits():
                assert not raw.line().startswith((b"OK", b"l"))
        except ConnectionError:
            pass
    works(private)


def test_forged_senders(service, private):
    """What a connection may and has goes by the connection."""
    service.obedient("mine", scope="client")
    private.reload()
    pid = private.tool_text("mine", "pid")
    with RawBus(service.private_address) as raw:
        assert raw.unique_name != private.unique_name
        for sender in (private.unique_name, ":1.1", NAME, "org.freedesktop.DBus"):
            kind, _, body = raw.call(NAME, PATH, ROOT, "CallTool", b"mine", b"pid", b"", sender=sender)
            assert kind == METHOD_RETURN and pid not in text(body)
    assert private.tool_text("mine", "pid") == pid


LOCAL = ("/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local")


def test_forged_news_of_the_bus(service, private):
    """The ends of connections, answers, and who has which name are believed of the bus alone."""
    public = service.caller()
    victims = [caller.begin_tool("obedient", "sleep", {"seconds": 1.5, "message": "hi"}) for caller in (private, public)]
    eventually(lambda: private.server("obedient")["CallsInFlight"] == 2, "both are under way")
    with RawBus(service.private_address) as forger:
        for number, caller in enumerate((private, public)):
            name = caller.unique_name.encode()
            forger.send(message(SIGNAL, 100 + number, None, DBUS[1], DBUS[2], "NameOwnerChanged", name, name, b"",
                                sender=DBUS[0]))
        forger.send(message(SIGNAL, 110, None, DBUS[1], DBUS[2], "NameLost", NAME.encode(), sender=DBUS[0]))
        for serial in range(1, 20):  # 0 would be no message
            forger.send(message(METHOD_RETURN, 200 + serial, NAME, None, None, None, reply_serial=serial))
            forger.send(message(ERROR, 300 + serial, NAME, None, None, None, reply_serial=serial, error="a.b"))
        assert echoed(forger, echo(forger)) == "hi"
    for member in ("Connected", "Disconnected"):
        with RawBus(service.private_address) as forger:
            forger.send(message(SIGNAL, 120, None, *LOCAL, member))
            settle(0.1)
    assert [text_of(one.wait()) for one in victims] == ["hi", "hi"]
    works(private)


# What they send

GREETING = auth_line() + b"BEGIN\r\n"
JUNK = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ff": b"\xff" * 500,
    "endless": b"\0" + b"A" * 70000,
    "no-message": GREETING + b"x" * 1000,
    "no-size": GREETING + b"l\1\0\1" + b"\xff" * 99,
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_garbage_instead_of_a_greeting(service, private, junk):
    with RawConnection(service.private_address) as raw:
        try:
            raw.send(junk)
        except ConnectionError:
            pass
        gone(raw, 20)
    works(private)


def header(body, fields=b""):
    return struct.pack("<cBBBIII", b"l", 1, 0, 1, body, 1, len(fields)) + fields


BAD_MESSAGES = {
    "ff": b"\xff" * 100,
    "version": b"l\1\0\7" + struct.pack("<III", 0, 1, 8) + b"\0" * 8,
    "serial": b"l\1\0\1" + struct.pack("<III", 8, 0, 8) + b"\xff" * 16,
    "fields": header(0, b"\xff" * 64),
    "no-fields": message(1, 7, None, None, None, None),
    "signature": message(1, 7, NAME, PATH, ROOT, "ListServers", body=b"\xff" * 8, signature="((((("),
    "path": message(1, 7, NAME, "no/path", ROOT, "ListServers"),
}


@pytest.mark.parametrize("bad", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_garbage_instead_of_a_message(service, private, bad):
    """Closed, or dropped and not minded."""
    with RawBus(service.private_address) as raw:
        raw.send(bad)
        eventually(lambda: raw.is_closed() or _still_answers(raw), "closed, or it still answers", 5)
    works(private)


def _still_answers(raw):
    try:
        return raw.call(NAME, PATH, ROOT, "ListServers")[0] == METHOD_RETURN
    except (ConnectionError, ValueError):
        return False


HUGE = {
    "body": header(100 * MIB),
    "fields": struct.pack("<cBBBIII", b"l", 1, 0, 1, 0, 1, 100 * MIB),
    "big-endian": struct.pack(">cBBBIII", b"B", 1, 0, 1, 100 * MIB, 1, 8),
    "more-than-there-is": struct.pack("<cBBBIII", b"l", 1, 0, 1, 0xffffffff, 1, 0xffffffff),
}


@pytest.mark.parametrize("huge", HUGE.values(), ids=HUGE)
def test_a_message_that_announces_too_much(service, private, huge):
    """Closed at once: not a second is waited, nor a byte of it taken."""
    before = service.private_memory()
    with RawBus(service.private_address) as raw:
        assert echoed(raw, echo(raw)) == "hi"
        raw.send(huge)
        gone(raw)
    with RawBus(service.private_address) as raw:
        raw.send(message(1, 5, NAME, PATH, ROOT, "ListServers") * 3 + huge)
        gone(raw)
    if not SANITIZED:
        assert service.private_memory() < before + 2 * MIB
    works(private)


@pytest.mark.parametrize("begin", ["authentication", "header", "rubbish"])
def test_a_message_whose_size_cannot_be_seen(service, private, begin):
    """Closed when so much of it has come in: the header came with the authentication, in two parts, or behind something
    that sd-bus dropped."""
    before = service.private_memory()
    large = header(24 * MIB)
    with RawConnection(service.private_address) as raw:
        if begin == "authentication":
            raw.send(auth_line() + b"BEGIN\r\n" + large)
        else:
            raw.authenticate()
            raw.hello()
        if begin == "header":
            raw.send(large[:15])
            settle(0.2)
            raw.send(large[15:])
        elif begin == "rubbish":
            raw.send(struct.pack("<cBBBIII", b"l", 1, 0, 1, 8, 0, 8) + b"\xff" * 16 + large)
        with pytest.raises(ConnectionError):
            for _ in range(23 * 16):
                raw.send(b"x" * 65536)
            for _ in range(300):
                settle(0.1 * SLOWNESS)
                raw.send(b"x")
        gone(raw)
    if not SANITIZED:
        eventually(lambda: service.private_memory() < before + 2 * MIB, "its memory is free again")
    works(private)


def test_many_large_messages_that_do_not_end(service, private):
    """What all connections of a user have sent of them is bounded, not what each has alone."""
    before = service.private_memory()
    started = [RawBus(service.private_address) for _ in range(8)]
    highest = 0
    for raw in started:
        try:
            raw.send(header(15 * MIB) + b"x" * (14 * MIB))
        except ConnectionError:
            pass
        highest = max(highest, service.private_memory())
    if not SANITIZED:
        assert highest < before + 80 * MIB
    works(private)
    for raw in started:
        raw.close()
    if not SANITIZED:
        eventually(lambda: service.private_memory() < before + 8 * MIB, "the memory is free again")


@pytest.mark.slow
@pytest.mark.parametrize("half", [4, 16, 60])
def test_half_a_message(service, private, half):
    call = message(1, 5, NAME, PATH, ROOT, "CallTool", b"echo", b"echo", b'{"message":"hi"}')
    with RawBus(service.private_address) as raw, RawBus(service.private_address) as slow:
        raw.send(call[:half])
        slow.send(call[:half])
        for byte in range(half, len(call) - 1):  # one that gives a sign of life doesn't get more time for it
            settle(20 / len(call))
            slow.send(call[byte:byte + 1])
            assert not raw.is_closed()
        eventually(lambda: raw.is_closed() and slow.is_closed(), "both are closed", 40)
    works(private)


@pytest.mark.slow
def test_whole_messages_may_be_far_apart(service, private):
    with RawBus(service.private_address) as raw, RawConnection(service.private_address) as silent:
        silent.authenticate()
        for _ in range(2):
            assert echoed(raw, echo(raw)) == "hi"
            settle(33)
        assert echoed(raw, echo(raw)) == "hi"
        assert echoed(silent, echo(silent)) == "hi"


@pytest.mark.slow
def test_clients_that_never_authenticate(service, private):
    silent, half, dribbling = (RawConnection(service.private_address) for _ in range(3))
    half.send(auth_line())
    half.line()
    started = time.monotonic()
    dribbling.send(b"\0AUTH ")
    while time.monotonic() - started < 8:
        dribbling.send(b"E")
        settle(0.5)
    assert not silent.is_closed() and not half.is_closed()
    for raw in (silent, half, dribbling):
        gone(raw, 20)
        raw.close()
    works(private)


def send_with_fds(raw, data, fds):
    raw.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def test_file_descriptors_are_not_collected(service, private):
    """No method takes any; they could be heaped up with a message that never ends."""
    private.list_servers()
    call = message(1, 5, NAME, PATH, ROOT, "ListServers", unix_fds=200)
    before = len(service.open_fds())
    null = os.open("/dev/null", os.O_RDONLY)
    for negotiate in (b"", b"NEGOTIATE_UNIX_FD\r\n"):
        with RawConnection(service.private_address) as raw:
            raw.send(auth_line() + negotiate)
            raw.line()
            if negotiate:
                raw.line()
            raw.send(b"BEGIN\r\n")
            raw.hello()
            try:
                for byte in range(8):
                    send_with_fds(raw, call[byte:byte + 1], [null] * 200)
                    time.sleep(0.02)
            except ConnectionError:
                pass
            assert len(service.open_fds()) < before + 50
            gone(raw)
    os.close(null)
    eventually(lambda: len(service.open_fds()) <= before, "nothing is left open")
    works(private)


# How many, how much

def test_more_connections_than_a_user_may_have(service, private):
    held = [RawBus(service.private_address) for _ in range(63)]
    for _ in range(3):
        with pytest.raises(ConnectionError):
            RawBus(service.private_address)
    works(private)
    works(service.caller())
    held.pop().close()
    works(eventually(lambda: _caller_or_none(service), "a place is free again"))
    for raw in held:
        raw.close()


def _caller_or_none(service):
    import dbus
    try:
        return service.private_caller()
    except dbus.DBusException:
        return None


def test_connections_of_one_user_leave_room_for_others(system_service):
    held = []
    with pytest.raises(ConnectionError):
        while len(held) < 100:
            held.append(RawBus(system_service.private_address))
    assert len(held) == 64
    assert worker_of(65534, system_service.private_address, "echo")
    for raw in held:
        raw.close()


def test_connections_in_a_storm(service, private):
    """Opened and closed without a word, or with half of one."""
    for number in range(600):
        with RawConnection(service.private_address) as raw:
            if number % 3 == 1:
                raw.send(b"\0AUTH EXTERNAL")
            elif number % 3 == 2:
                raw.send(auth_line() + b"BEGIN\r\n" + message(1, 1, NAME, PATH, ROOT, "ListServers")[:60])
    works(private)
    daemon = service.pid
    settle(0.3)
    before = processor_time(daemon)
    settle(1)
    assert processor_time(daemon) - before < 0.1


def test_few_file_descriptors(make_service):
    """Connections don't take those that workers need, and what can't be accepted doesn't keep the daemon busy."""
    service = make_service(private=True, fds=64)
    service.echo()
    service.echo("later")
    service.run_directly()
    public = service.caller()
    works(public)
    held = []
    for _ in range(100):
        raw = RawConnection(service.private_address)
        held.append(raw)
        try:
            raw.send(auth_line() + b"BEGIN\r\n" + message(1, 1, *DBUS, "Hello"))
        except ConnectionError:
            pass
    assert public.tool_text("later", "echo", {"message": "hi"}) == "hi"
    eventually(lambda: sum(raw.is_closed() for raw in held) > 50, "most were turned away")
    settle(0.3)
    before = processor_time(service.pid)
    settle(1)
    assert processor_time(service.pid) - before < 0.1
    assert len(service.open_fds()) < 60
    for raw in held:
        raw.close()
    works(eventually(lambda: _caller_or_none(service), "there is room again"))


def flood(raw, calls, seconds):
    """Send the calls without reading, as long as they are taken; returns how many bytes were."""
    data, sent, deadline = memoryview(calls), 0, time.monotonic() + seconds
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    while sent < len(data) and time.monotonic() < deadline:
        if select.select([], [raw.socket], [], 0.05)[1]:
            try:
                sent += raw.socket.send(data[sent:sent + 1024])
            except ConnectionError:
                break
    return sent


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_client_that_never_reads(service, private, size):
    """While it sends thousands of calls: it is closed, the others are answered, and no answers are heaped up."""
    works(private)
    before = service.private_memory()
    call = b'{"message":"' + b"x" * size + b'"}'
    count = 5000 if size < 1000 else 1500
    calls = b"".join(message(1, serial, NAME, PATH, ROOT, "CallTool", b"echo", b"echo", call)
                     for serial in range(10, count))
    with RawBus(service.private_address) as raw:
        flood(raw, calls, 20 * SLOWNESS)
        works(private)
        works(service.caller())
        if not SANITIZED:
            assert service.private_memory() < before + 40 * MIB
        gone(raw, 20) if size > 1000 else None
    if not SANITIZED:
        eventually(lambda: service.private_memory() < before + 8 * MIB, "the memory is free again")


@pytest.mark.parametrize("connections", [1, 20])
def test_answers_that_nobody_reads(service, private, connections):
    """Those to batches have 8 MB each; what is held of them is bounded for a connection, and for a user."""
    works(private)
    private.call_tool("obedient", "pid")
    before = highest = service.private_memory()
    deaf = [RawBus(service.private_address) for _ in range(connections)]
    request = b'{"name":"big","arguments":{"size":1000000}}'
    for raw in deaf:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for number in range(60):
        raw = deaf[number % connections]
        try:
            raw.send(batch(100 + number, b"obedient", [(b"tools/call", request)] * 8))
        except ConnectionError:
            pass
        settle(0.01)
        eventually(lambda: private.property("CallsInFlight") == 0, "the batch has ended", 60)
        highest = max(highest, service.private_memory())
    works(private)
    for raw in deaf:
        raw.close()
    print("MiB at most:", (highest - before) // MIB)
    if not SANITIZED:
        assert highest - before < (40 if connections == 1 else 100) * MIB
        eventually(lambda: service.private_memory() < before + 16 * MIB, "the memory is free again")


def batch(serial, server, requests):
    """A CallBatch."""
    def string(value):
        return struct.pack("<I", len(value)) + value + b"\0"

    items = b""
    for method, params in requests:
        items += b"\0" * (-len(items) % 8) + string(method)
        items += b"\0" * (-len(items) % 4) + string(params)
    body = string(server)
    body += b"\0" * (-len(body) % 4) + struct.pack("<I", len(items))
    body += b"\0" * (-len(body) % 8) + items
    return message(1, serial, NAME, PATH, ROOT, "CallBatch", body=body, signature="sa(ss)")


def test_one_that_stops_reading_does_not_stop_signals_to_others(service, private):
    deaf = RawBus(service.private_address)
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    changed = private.signals("ServerChanged")
    for _ in range(20):
        private.start_server("echo")
        private.stop_server("echo")
    eventually(lambda: len(changed.seen) >= 20, "the signals")
    deaf.close()
    works(private)


def test_a_client_that_is_stopped_in_the_middle(service, private):
    """SIGTERM doesn't wait for a client that doesn't read."""
    works(private)
    calls = b"".join(message(1, serial, NAME, PATH, ROOT, "CallTool", b"echo", b"echo",
                             b'{"message":"' + b"x" * 100_000 + b'"}') for serial in range(10, 40))
    with RawBus(service.private_address) as raw:
        flood(raw, calls, 10 * SLOWNESS)
        daemon = service.daemon()
        daemon.kill(signal.SIGTERM)
        service.wait_gone(daemon, 10)


def test_the_log_of_what_was_refused_is_short(service, private):
    """A storm of bad clients is no storm of lines, where debug isn't asked for."""
    assert "mcp-execd: debug:" in service.log_text()
    lines = len([line for line in service.log_text().splitlines() if ": debug:" not in line])
    for _ in range(50):
        with RawConnection(service.private_address) as raw:
            raw.send(b"\xff" * 100)
    works(private)
    assert len([line for line in service.log_text().splitlines() if ": debug:" not in line]) < lines + 10
