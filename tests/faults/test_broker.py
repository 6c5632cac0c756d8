"""The broker itself is killed, told to leave, or told to read its files again, in the midst of things."""

import os
import signal
import time

import pytest

from caller import ERROR, CallFailed, check_failure, text_of
from hammering import check, hammer, report_of
from waiting import SLOWNESS, eventually, settle

CALLS = 4000
BUSY = {"calls_per_connection": 1000, "calls_per_user": 2000, "calls": 4000}


def test_killed_in_the_midst_of_calls(service, caller):
    """Each caller is told by the bus, no worker is left, and the next call starts another."""
    service.obedient()
    service.obedient("deaf", "--deaf")
    callers = [service.caller() for _ in range(4)]
    calls = [one.begin_tool(name, "block", {"seconds": 60}) for one in callers for name in ("obedient", "deaf")]
    eventually(lambda: caller.property("CallsInFlight") == len(calls), "all are under way")
    workers = service.worker_processes()
    service.daemon().kill(signal.SIGKILL)
    for call in calls:
        with pytest.raises(CallFailed) as caught:
            call.wait(10)
        check_failure(caught.value, "org.freedesktop.DBus.Error.NoReply")
    eventually(lambda: not any(process.alive() for process in workers), "no worker is left")
    assert caller.tool_text("obedient", "echo", {"message": "again"}) == "again"
    assert all(call.answers == 1 for call in calls)


def test_killed_again_and_again_under_load(service, caller):
    """Every call has one answer, its own or the bus's."""
    service.settings(limits=BUSY)
    service.echo("echo", pool={"max": 2, "concurrency": 64, "queue": 1024})
    caller.call_tool("echo", "pid")
    process = hammer(service, server="echo", tool="echo", callers=4, calls=CALLS, window=4, pause="0-4000", timeout=int(100 * SLOWNESS))
    kills = 0
    while process.poll() is None:
        settle(0.3)
        daemon = service.daemon()
        if daemon and kills < 5:
            daemon.kill(signal.SIGKILL)
            kills += 1
    report = report_of(process, 60)
    check(report)
    assert kills >= 2 and report["ok"] > 0
    for name in report["errors"]:
        assert name in ("org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.ServiceUnknown"), report["errors"]
    eventually(lambda: len(service.worker_processes()) <= 2, "no worker of one that was killed is left", 20)


def test_sigterm_under_load_drains(service, caller):
    """What it has taken is answered, what comes meanwhile starts another service: not one call is lost."""
    service.settings(limits=BUSY)
    service.obedient("echo", pool={"max": 2, "concurrency": 64, "queue": 1024})
    caller.call_tool("echo", "pid")
    process = hammer(service, server="echo", tool="sleep", extra='"seconds":0.02', callers=8, calls=CALLS // 4, window=2,
                     pause="0-20000", timeout=int(100 * SLOWNESS))
    daemons = {service.daemon()}
    while process.poll() is None:
        settle(0.4)
        daemon = service.daemon()
        if daemon and len(daemons) < 4:
            daemon.kill(signal.SIGTERM)
            eventually(lambda: not daemon.alive(), "it has left", 15)
            daemons.add(daemon)
    report = report_of(process, 60)
    check(report)
    assert report["failed"] == 0, report["errors"]
    assert len(daemons) >= 2


def test_a_storm_of_sighup(service, onlooker):
    """Under load: read again as often as wanted, answered all the same."""
    service.settings(limits=BUSY)
    service.echo("echo", pool={"max": 2, "concurrency": 64, "queue": 1024})
    seen = onlooker()
    process = hammer(service, server="echo", tool="echo", callers=4, calls=CALLS, window=4, pause="0-2000", timeout=int(100 * SLOWNESS))
    signals, daemon = 0, seen.daemon
    while process.poll() is None:
        for _ in range(20):
            os.kill(daemon.pid, signal.SIGHUP)
            signals += 1
            time.sleep(0.001)
        seen.look()
    report = report_of(process, 60)
    check(report)
    assert report["failed"] == 0, report["errors"]
    assert signals > 100
