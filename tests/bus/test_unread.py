"""Callers on the bus that don't read their answers: dbus-daemon would stop reading from the service for them."""

import time

import pytest

import private_bus
from caller import text_of

MIB = 1 << 20
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
