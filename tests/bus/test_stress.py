"""Promises under load: every call has exactly one answer, its own, whatever dies meanwhile."""

import os
import random
import time

import pytest

import processes
from caller import ERROR
from hammering import check, hammer, report_of
from service import SANITIZED
from waiting import SLOWNESS, eventually

CALLS = int(os.environ.get("MCP_EXEC_TEST_CALLS", "10000"))
RACES = int(os.environ.get("MCP_EXEC_TEST_RACES", "2000"))
MIB = 1024 * 1024
LIMITS = {"calls_per_connection": 1000, "calls_per_user": 2000, "calls": 4000, "workers_per_user": 64}


def paced(seconds):
    """For hammer: sixteen callers' pauses, so that all calls take about so long."""
    return f"0-{int(2e6 * seconds * SLOWNESS * 16 / CALLS)}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tool, extra, pause, succeed", [
    ("echo", "", paced(6), 0.9),  # most kills meet an idle worker
    ("sleep", '"seconds":0.02', "0-0", 0.002),  # each kill meets dozens of calls
], ids=["idle", "busy"])
def test_every_call_has_one_answer_while_workers_are_killed(service, caller, tool, extra, pause, succeed):
    service.settings(limits=LIMITS)
    configure = service.echo if tool == "echo" else service.obedient
    configure("echo", pool={"max": 2, "concurrency": 64, "queue": 1024}, restart={"burst": 100_000, "interval": 1},
              timeouts={"start": 60, "call": 60})
    caller.call_tool("echo", "pid")
    caller.call_batch("echo", *[("ping", "")] * 32)
    daemon = service.daemon()
    fds, memory = len(service.open_fds()), service.private_memory()

    process = hammer(service, server="echo", tool=tool, extra=extra, callers=16, calls=CALLS, window=4, pause=pause,
                     timeout=int(240 * SLOWNESS))
    kills, deadline = 0, time.monotonic() + 300 * SLOWNESS
    try:
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1 * SLOWNESS)
            workers = processes.children(daemon.pid)
            if workers:
                random.choice(workers).kill()
                kills += 1
    finally:
        report = report_of(process, 60)
    print(f"{kills} kills")

    check(report)
    assert kills >= 3
    assert report["ok"] >= report["calls"] * succeed
    for name in report["errors"]:
        assert name.removeprefix(ERROR) in ("WorkerDied", "LaunchFailed", "HandshakeFailed"), report["errors"]
    assert service.daemon() == daemon, "the daemon was replaced"

    eventually(lambda: caller.property("CallsInFlight") == 0, "no call is left")
    eventually(lambda: len(service.worker_processes()) <= 2, "no process is left")
    caller.stop_server("echo")
    eventually(lambda: service.worker_processes() == [], "no process is left")
    caller.call_tool("echo", "pid")
    eventually(lambda: len(service.open_fds()) <= fds, f"the fds are {fds} again")
    eventually(lambda: service.private_memory() <= memory + (64 if SANITIZED else 2) * MIB, "the memory is given back")


@pytest.mark.timeout(600)
def test_calls_that_race_with_idle_exit(make_service):
    service = make_service(idle_timeout=0.005, log_level="warning")
    service.echo("echo", keep_alive={"timeout": 0.004})
    caller = service.caller()
    process = hammer(service, server="echo", tool="echo", callers=2, calls=RACES, window=1, pause="0-30000",
                     timeout=int(400 * SLOWNESS))
    daemons = set()
    try:
        deadline = time.monotonic() + 420 * SLOWNESS
        while process.poll() is None and time.monotonic() < deadline:
            daemons.add(caller.service_pid())
            time.sleep(0.005)
    finally:
        report = report_of(process, 60)
    print(f"{len(daemons)} daemons were seen")
    check(report)
    assert report["failed"] == 0, report["errors"]
    assert len(daemons - {None}) > RACES / 100, "too few exits for a race"
    eventually(lambda: caller.service_pid() is None, "the last one leaves as well")
    eventually(lambda: service.started() == [], "nothing is left")


@pytest.mark.timeout(300)
def test_idle_with_sixteen_warm_workers_is_small(service, caller):
    if SANITIZED:
        pytest.skip("memory says nothing under a sanitizer")
    service.settings(limits=LIMITS)
    for n in range(4):
        service.echo(f"echo-{n}", pool={"min": 4, "max": 4, "concurrency": 1})
    for n in range(4):
        caller.call_tool(f"echo-{n}", "pid")
    eventually(lambda: caller.property("WorkersRunning") == 16, "sixteen workers")
    eventually(lambda: service.private_memory() < 4 * MIB, f"private memory is {service.private_memory() / MIB:.1f} MiB")


@pytest.mark.timeout(300)
def test_memory_and_fds_stay_flat(service, caller):
    service.settings(limits=LIMITS)
    service.echo("echo", pool={"max": 1, "concurrency": 64, "queue": 1024})
    service.echo("fresh", keep_alive=False)
    sizes = []
    for _ in range(4):
        check(report_of(hammer(service, server="echo", tool="echo", callers=4, calls=CALLS // 2, window=8), 120 * SLOWNESS))
        for _ in range(30):
            caller.call_tool("fresh", "pid")
        eventually(lambda: len(caller.workers()) == 1, "one worker is left")
        sizes.append((service.private_memory(), len(service.open_fds())))
    print(sizes)
    assert sizes[-1][0] <= sizes[0][0] + (32 if SANITIZED else 1) * MIB
    assert sizes[-1][1] <= sizes[0][1]


@pytest.mark.timeout(300)
def test_one_busy_caller_does_not_starve_another(service, caller):
    """A small call of another connection comes through while somebody keeps everything busy."""
    service.settings(limits=LIMITS)
    service.echo("echo", pool={"max": 1, "concurrency": 64, "queue": 1024})
    caller.call_tool("echo", "pid")
    process = hammer(service, server="echo", tool="echo", callers=8, calls=CALLS, window=4)
    slowest = 0
    while process.poll() is None:
        started = time.monotonic()
        caller.call_tool("echo", "pid")
        slowest = max(slowest, time.monotonic() - started)
    check(report_of(process, 60))
    assert slowest < 2 * SLOWNESS
