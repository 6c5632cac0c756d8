"""Callers on the bus that don't read their answers: dbus-daemon would stop reading from the service for them."""

import os
import time

import pytest

import private_bus
from caller import ALICE, BOB, NAME, PATH, ROOT, CallFailed, another_user, fails, text_of
from raw_connection import RawBus
from waiting import SLOWNESS, eventually

MIB = 1 << 20
DEAF = 220  # connections: a system's bus gives 256 to a user
CALLS = 120  # of a MiB each: more than dbus-daemon takes for all

pytestmark = pytest.mark.skipif(private_bus.chosen() != "daemon", reason="dbus-broker has limits of its own")


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


def test_little_for_each_of_many_is_much(crowd):
    """No connection has more than a MiB to read."""
    service, bob, deaf = crowd
    root = service.caller()
    for raw in deaf:
        eventually(lambda: root.property("CallsInFlight") < 20, "there is room for one more", 60)
        raw.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"big", b'{"size":900000}')
        assert bob.tool_text("obedient", "echo", {"message": "hi"}) == "hi"
    alice = service.caller(uid=ALICE)
    with fails("LimitsExceeded", "this user's connections", "limits.unread_bytes_per_user "):
        alice.tool_text("obedient", "pid")
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


def test_the_keys_of_the_limits_count(service):
    service.settings(limits={"calls_per_connection": 1000, "calls_per_user": 1000, "calls": 1000, "unread_bytes_per_connection": 4 * MIB})
    deaf = service.caller()
    pending = [deaf.begin_tool("obedient", "big", {"size": 900 * 1024}) for _ in range(8)]
    other = service.caller()
    eventually(lambda: sum(worker["Calls"] for worker in other.workers()) == 8 and other.property("CallsInFlight") == 0, "they are answered")
    pending.append(deaf.begin_tool("obedient", "pid"))
    # Nobody turns the loop in which its answers are read while another one calls.
    until = time.monotonic() + 6 * SLOWNESS
    while time.monotonic() < until:
        other.tool_text("obedient", "pid")
    for one in pending[:-1]:
        one.wait()
    with fails("LimitsExceeded", f"the limit is {4 * MIB}", "limits.unread_bytes_per_connection "):
        pending[-1].wait()


def served(caller):
    try:
        return caller.tool_text("obedient", "pid")
    except CallFailed:
        return False
