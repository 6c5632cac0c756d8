"""The broker itself is killed, told to leave, or told to read its files again, in the midst of things."""

import os
import re
import signal
import subprocess
import time

import pytest

from caller import ERROR, CallFailed, check_failure, text_of
from hammering import check, hammer, report_of
from service import BUILD, REPO
from session import Refused, Session
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


def test_killed_under_a_job_of_the_command_line(service, caller):
    """mcp-exec call --job says that it may have run; mcp-exec result, that there is none of that name."""
    service.obedient()
    command, environment = [str(BUILD / "src/mcp-exec"), "--user"], {**os.environ, **service.environment(), "LC_ALL": "C.UTF-8"}

    def mcp_exec(*args):
        done = subprocess.run([*command, *args], env=environment, capture_output=True, text=True, timeout=60 * SLOWNESS)
        return done.returncode, done.stdout, done.stderr

    service.start_bus()
    process = subprocess.Popen([*command, "call", "--job", "obedient", "sleep", '{"seconds":1000}'], env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    shown = process.stderr.readline().split()[-1]
    eventually(lambda: caller.property("CallsInFlight") == 1, "it is under way")
    service.daemon().kill(signal.SIGKILL)
    out, err = process.communicate(timeout=60 * SLOWNESS)
    assert (process.returncode, out) == (6, "") and "left or crashed" in err and "may have been done" in err, err
    status, out, err = mcp_exec("result", shown)
    assert (status, out) == (3, "") and f"no job is named {shown}" in err, err
    assert mcp_exec("call", "--job", "--quiet", "obedient", "echo", "message=again")[:2] == (0, "again\n")


LIMITS = sorted(set(re.findall(r"`limits\.(\w+)`", (REPO / "docs/configuration.md").read_text().partition("mcp-exec.json")[2])) - {"depth"})
LOWEST = {"message": 1024, "unread_bytes": 1 << 20, "unread_bytes_per_user": 1 << 20, "unread_bytes_per_connection": 1 << 20}


@pytest.mark.slow
def test_limits_that_change_while_they_are_in_use(service, open_session):
    """Each falls to its least and comes back: what is over it is refused, and says so, until it is back; nothing is counted wrongly."""
    service.echo()
    service.obedient(pool={"max": 4})
    caller = service.caller()
    session = open_session("echo")

    def change(limits):
        before = service.log_text().count("the configuration was read again")
        service.settings(limits=limits)
        os.kill(service.pid, signal.SIGHUP)
        eventually(lambda: service.log_text().count("the configuration was read again") > before, "it is read")

    def uses():
        yield lambda: caller.call_tool("echo", "echo", {"message": "x" * 5000})
        yield lambda: caller.call_batch("echo", *[("tools/call", {"name": "echo", "arguments": {"message": "hi"}})] * 4)
        yield lambda: caller.call_fd("echo", "tools/call", b'{"message":"hi"}', tool="echo")
        yield lambda: caller.job_done(caller.start_tool_job("echo", "echo", {"message": "hi"}))
        yield lambda: Session.open(caller, "echo").close()

    held = [caller.begin_tool("obedient", "until", {"path": str(service.folder / "gate")}) for _ in range(8)]
    job = caller.start_tool_job("obedient", "until", {"path": str(service.folder / "gate")})
    eventually(lambda: caller.property("CallsInFlight") == 9, "some are under way")
    assert len(LIMITS) >= 18
    for key in LIMITS:
        change({key: LOWEST.get(key, 1)})
        waiting, refused = session.begin_tool("echo", message="waited"), 0
        for use in uses():
            try:
                use()
            except (CallFailed, Refused) as error:
                refused += 1
                assert "limits." in error.message, (key, error)
        change({})
        try:
            assert session.text(waiting) == "waited"
        except Refused as error:
            assert "limits." in error.message, (key, error)
        for use in uses():
            use()
        print(f"{key}: {refused} refused")
    assert not any(one.done for one in held)
    (service.folder / "gate").touch()
    for one in held:
        assert "it is there" in one.wait()
    assert caller.job_done(job)["State"] == "succeeded"
    eventually(lambda: caller.property("CallsInFlight") == 0, "no call is left")
    for path in caller.jobs():
        caller.cancel_job(path)
