"""Callers on the bus that don't read their answers: dbus-daemon would stop reading from the service for them."""

import os
import signal
import time
from contextlib import suppress

import pytest

import private_bus
from caller import ALICE, BOB, JOB, NAME, PATH, ROOT, CallFailed, another_user, fails, text_of
from private_bus import LIMITS
from processes import Process
from raw_connection import DBUS, ERROR, METHOD_CALL, METHOD_RETURN, RawBus, error_text
from waiting import SLOWNESS, eventually

MIB = 1 << 20
DEAF = 220  # connections: a system's bus gives 256 to a user
DEAF_USERS = [ALICE, 3, 4]  # not BOB
CALLS = 120  # of a MiB each: more than dbus-daemon takes for all

DAEMON = private_bus.chosen() == "daemon"
daemon_only = pytest.mark.skipif(not DAEMON, reason="dbus-broker has limits of its own")


@pytest.fixture
def service(service):
    service.settings(limits={"calls_per_connection": 1000, "calls_per_user": 1000, "calls": 1000})
    service.obedient(pool={"queue": 1000})
    return service


def test_one_that_reads_is_never_refused(service, caller):
    """Also where much is under way at a time, and where it reads only while it waits."""
    text = "x" * (900 * 1024)
    for _ in range(60):
        assert text_of(caller.call_tool("obedient", "big", {"size": len(text)})) == text
    for _ in range(3):
        pending = [caller.begin_tool("obedient", "big", {"size": len(text)}) for _ in range(30)]
        for one in pending:
            assert text_of(one.wait()) == text


@daemon_only
def test_one_that_does_not_read_is_refused(service, caller):
    other = service.caller()
    other.tool_text("obedient", "pid")
    deaf = service.caller()
    pending = []
    # Nobody turns the loop in which its answers are read: only blocking calls of others follow, on connections of their own.
    for _ in range(CALLS):
        pending.append(deaf.begin_tool("obedient", "big", {"size": 900 * 1024}))
        started = time.monotonic()
        assert other.tool_text("obedient", "echo", {"message": "hi"}) == "hi"
        assert time.monotonic() - started < 10
    # Those that are held until it has read are refused when that was too long.
    until = time.monotonic() + 6 * SLOWNESS
    while time.monotonic() < until:
        other.tool_text("obedient", "pid")
    # Now it reads, and finds that some were answered, and others refused; and is served again.
    errors = []
    for one in pending:
        try:
            one.wait()
        except Exception as error:
            errors.append(error)
    assert 0 < len(errors) < CALLS
    assert all(error.name == "LimitsExceeded" and "wait on the bus to be read" in error.message for error in errors)
    assert len(text_of(deaf.call_tool("obedient", "big", {"size": 900 * 1024}))) == 900 * 1024


@pytest.fixture
def crowd(make_service):
    """A system's service, another user's caller, and many connections of ALICE that read nothing, on a bus with the limits of a system's."""
    if os.getuid() != 0:
        pytest.skip("only root can be several users")
    service = make_service(system=True, bus_limits="")
    service.obedient(access={"users": [ALICE, BOB]}, pool={"max": 1, "queue": 1000})
    service.run_directly()
    service.let_others_in()
    bob = service.caller(uid=BOB)
    bob.tool_text("obedient", "pid")
    with another_user(ALICE):
        deaf = [RawBus(service.bus.address) for _ in range(DEAF)]
    yield service, bob, deaf
    for raw in deaf:
        raw.close()


@daemon_only
def test_little_for_each_of_many_is_much(crowd):
    """No connection has more than a MiB to read."""
    service, bob, deaf = crowd
    root = service.caller()
    for raw in deaf:
        eventually(lambda: root.property("CallsInFlight") < 20, "there is room for one more", 60)
        raw.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"big", b'{"size":900000}')
        assert bob.tool_text("obedient", "echo", {"message": "hi"}) == "hi"
    alice = service.caller(uid=ALICE)

    def refused_for_it():
        try:
            alice.tool_text("obedient", "pid")
        except CallFailed as error:
            return "this user's connections" in error.message and "limits.unread_bytes_per_user " in error.message
        return False

    # Before the last ones are done, their number may be what is too much.
    eventually(refused_for_it, "what isn't read is too much", 60)
    assert bob.tool_text("obedient", "echo", {"message": "hi"}) == "hi"
    for raw in deaf:
        raw.close()
    eventually(lambda: served(alice), "who has read is served")


@pytest.mark.slow
def test_signals_that_nobody_reads(crowd):
    """All of a user's connections are told of his jobs."""
    service, bob, deaf = crowd
    for raw in deaf:
        raw.call(NAME, PATH, ROOT, "ListServers")
    alice = service.caller(uid=ALICE)
    for n in range(1000):
        alice.cancel_job(alice.start_tool_job("obedient", "echo", {"message": "hi"}))
        if n % 10 == 0:
            assert bob.tool_text("obedient", "echo", {"message": "hi"}) == "hi"


@daemon_only
def test_the_keys_of_the_limits_count(service):
    service.settings(limits={"calls_per_connection": 1000, "calls_per_user": 1000, "calls": 1000, "unread_bytes_per_connection": 4 * MIB})
    deaf = service.caller()
    pending = [deaf.begin_tool("obedient", "big", {"size": 900 * 1024}) for _ in range(8)]
    other = service.caller()
    answered(other, 8)
    pending.append(deaf.begin_tool("obedient", "pid"))
    # Nobody turns the loop in which its answers are read while another one calls.
    until = time.monotonic() + 6 * SLOWNESS
    while time.monotonic() < until:
        other.tool_text("obedient", "pid")
    for one in pending[:-1]:
        one.wait()
    with fails("LimitsExceeded", f"the limit is {4 * MIB}", "limits.unread_bytes_per_connection "):
        pending[-1].wait()


@pytest.fixture
def frozen(make_service):
    """A system's service, on a bus with the limits of a system's, and a function that has a user's worker wait."""
    if os.getuid() != 0:
        pytest.skip("only root can be several users")
    service = make_service(system=True, bus_limits="")
    service.obedient(access={"users": [*DEAF_USERS, BOB]}, pool={"max": 1, "queue": 1000, "concurrency": 100}, timeouts={"call": 300})
    service.run_directly()
    service.let_others_in()
    stopped = []

    def freeze(uid):
        process = Process.of(int(service.caller(uid=uid).tool_text("obedient", "pid")))
        process.kill(signal.SIGSTOP)
        stopped.append(process)
        return process

    yield service, freeze
    for process in stopped:
        process.kill(signal.SIGCONT)


def test_results_under_way_are_no_more_than_the_bus_takes(frozen):
    """Three users have as many calls under way as they may, all of which are answered at once, and read nothing."""
    service, freeze = frozen
    root, bob = service.caller(), service.caller(uid=BOB)
    bob.tool_text("obedient", "pid")
    workers = [freeze(uid) for uid in DEAF_USERS]
    deaf = []
    for uid in DEAF_USERS:
        with another_user(uid):
            deaf += [RawBus(service.bus.address) for _ in range(2)]
    serials = {raw: [raw.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"big", b'{"size":1000000}') for _ in range(32)] for raw in deaf}
    eventually(lambda: root.property("CallsInFlight") == 32 * len(deaf), "all are under way", 60)
    for worker in workers:
        worker.kill(signal.SIGCONT)

    while root.property("CallsInFlight") > 0:
        assert bob.tool_text("obedient", "echo", {"message": "hi"}) == "hi"
    if not DAEMON:
        return  # which throws out who doesn't read
    assert statistics(root)["IncomingBytes"] < 80 * MIB
    # Those that waited for room are errors in the end, and everybody has one answer to each call.
    until = time.monotonic() + 6 * SLOWNESS
    while time.monotonic() < until:
        assert bob.tool_text("obedient", "echo", {"message": "hi"}) == "hi"
        large = [bob.begin_tool("obedient", "big", {"size": 1_040_000}) for _ in range(4)]
        assert all(len(text_of(one.wait())) == 1_040_000 for one in large)
    kinds = []
    for raw in deaf:
        answers = {}
        while len(answers) < 32:
            kind, fields, body = raw.receive()
            if fields.get(5) in serials[raw]:
                assert fields[5] not in answers
                answers[fields[5]] = kind
                if kind == ERROR:
                    assert "limits.unread_bytes " in error_text(body) and fields[4].endswith("LimitsExceeded")
        kinds += answers.values()
        raw.close()
    assert 40 <= kinds.count(METHOD_RETURN) < len(kinds)


def test_who_reads_gets_all_that_is_under_way(frozen):
    """Also where it comes at once, and is more than the bus may have of what isn't read."""
    service, freeze = frozen
    root = service.caller()
    workers = [freeze(uid) for uid in DEAF_USERS]
    callers = [service.caller(uid=uid) for uid in DEAF_USERS for _ in range(2)]
    pending = [caller.begin_tool("obedient", "big", {"size": 1_000_000}) for caller in callers for _ in range(32)]
    eventually(lambda: root.property("CallsInFlight") == len(pending), "all are under way", 60)
    for worker in workers:
        worker.kill(signal.SIGCONT)
    for one in pending:
        assert len(text_of(one.wait())) == 1_000_000


def test_descriptors_that_nobody_reads(frozen):
    """The bus has room for few of them: who leaves them there would stop all."""
    service, _ = frozen
    bob, alice = service.caller(uid=BOB), service.caller(uid=ALICE)
    job = alice.start_tool_job("obedient", "echo", {"message": "hi"})
    alice.job_done(job)
    with another_user(ALICE):
        deaf = [RawBus(service.bus.address, fds=True) for _ in range(4)]
    for raw in deaf:
        raw.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"big", b'{"size":900000}')
        eventually(lambda: not DAEMON or statistics(alice, raw.unique_name)["OutgoingBytes"] > 0, "its socket is full")
    for _ in range(30):
        for raw in deaf:
            with suppress(OSError):  # dbus-broker throws it out
                raw.begin(NAME, job, JOB, "GetResult")
        assert bob.tool_text("obedient", "echo", {"message": "hi"}) == "hi"
    assert b"hi" in bob.call_fd("obedient", "tools/call", b'{"name":"echo","arguments":{"message":"hi"}}')
    assert not DAEMON or 0 < statistics(service.caller())["IncomingFDs"] < 40
    for raw in deaf:
        raw.close()


@pytest.fixture
def untold(make_service):
    """A service on a bus that tells nothing."""
    service = make_service(bus_limits=LIMITS + '''
  <policy context="mandatory">
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
  </policy>
''')
    service.settings(limits={"unread_bytes_per_connection": 4 * MIB})
    service.obedient()
    return service


@daemon_only
def test_who_answers_a_ping_has_read(untold):
    caller = untold.caller()
    text = "x" * (900 * 1024)
    for _ in range(20):
        assert text_of(caller.begin_tool("obedient", "big", {"size": len(text)}).wait()) == text
    assert "they are asked themselves" in untold.log_text()


@daemon_only
def test_who_answers_no_ping_is_refused(untold):
    other = untold.caller()
    with RawBus(untold.bus.address) as deaf:
        for _ in range(8):
            serial = deaf.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"big", b'{"size":900000}')
        answered(other, 5)
        until = time.monotonic() + 12 * SLOWNESS
        while time.monotonic() < until:
            # It turns its loop meanwhile, in which it answers pings.
            other.begin_tool("obedient", "pid").wait()
        serial = deaf.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"pid", b"")
        kind, name, body = deaf.answer(serial)
        assert (kind, name) == (ERROR, "org.example.McpExec.Error.LimitsExceeded")
        assert "limits.unread_bytes_per_connection " in error_text(body)
        # What it is asked is answered now, and it is served again.
        pings = []
        while not pings:
            deaf.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"pid", b"")
            kind, fields, _ = deaf.receive()
            pings += [fields] if kind == METHOD_CALL else []


def test_broadcasts_that_nobody_reads(service):
    """One who listens, and has never called, isn't known: what the bus keeps for it is bounded all the same."""
    caller = service.caller()
    service.settings(limits={"unread_bytes": MIB})
    caller.reload()
    name = str(caller.bus.get_name_owner(NAME))
    with RawBus(service.bus.address) as deaf:
        deaf.call(*DBUS, "AddMatch", f"type='signal',sender='{NAME}'".encode())
        for round_ in range(12):
            for i in range(16):
                service.obedient(f"server-{i}", description=f"{round_} " + "x" * 20_000)
            caller.reload()
            assert len(caller.list_servers()) == 17
        assert not DAEMON or 100_000 < statistics(caller, name)["IncomingBytes"] < 2 * MIB
    eventually(lambda: not DAEMON or statistics(caller, name)["IncomingBytes"] < 100_000, "what was kept for it is gone")
    # Others are told again.
    changes = caller.signals("ServerChanged")

    def told():
        service.obedient("server-1", description=f"{time.monotonic()}")
        caller.reload()
        return changes.seen
    eventually(told, "news come again")


def answered(caller, number):
    """Waits until so many calls are, without the loop being turned in which others read."""
    deadline = time.monotonic() + 30 * SLOWNESS
    while caller.property("CallsInFlight") > 0 or sum(worker["Calls"] for worker in caller.workers()) < number:
        assert time.monotonic() < deadline, "they aren't answered"
        time.sleep(0.02)


def statistics(caller, name=None):
    name = name or str(caller.bus.get_name_owner(NAME))
    return caller.bus.call_blocking(*DBUS[:2], "org.freedesktop.DBus.Debug.Stats", "GetConnectionStats", "s", (name,))


def served(caller):
    try:
        return caller.tool_text("obedient", "pid")
    except CallFailed:
        return False
