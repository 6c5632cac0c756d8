"""Workers that break in the midst of a call. What they say wrongly is in bus/test_hostile_workers.py; see table.py."""

import os
import signal
import time
from dataclasses import dataclass, field

import pytest

from caller import CallFailed, check_failure, fails
from processes import Process
from service import PYTHON, REPO
from waiting import SLOWNESS, eventually, settle

HOSTILE = str(REPO / "tests/workers/hostile.py")
SHORT = {"start": 5, "call": 2, "stop": 0.3}


@dataclass
class Fault:
    """One call of a tool of a worker, broken by itself, or by what is done to its process meanwhile."""

    tool: str
    arguments: dict = field(default_factory=dict)
    mood: str = ""  # of hostile.py; otherwise it is obedient_worker.py
    hurt: object = None  # called with the worker's Process while the call is under way
    errors: tuple = ()  # one of them must be seen; none: the call has its result
    patterns: tuple = ()  # in its text
    replaced: bool = True  # the next call has another process
    seconds: float = 15  # within which it is told
    keys: dict = field(default_factory=dict)


def signal_by(number):
    return lambda process: process.kill(number)


BLOCK = {"seconds": 60}
SERIAL = {"pool": {"max": 1, "concurrency": 1, "queue": 8}}
PATIENT = {"timeouts": {**SHORT, "stop": 60}}

FAULTS = {
    "killed": Fault("block", BLOCK, hurt=signal_by(signal.SIGKILL), errors=("WorkerDied",),
                    patterns=("SIGKILL|signal 9", "may have run"), seconds=5),
    "terminated": Fault("block", BLOCK, hurt=signal_by(signal.SIGTERM), errors=("WorkerDied",),
                        patterns=("SIGTERM|signal 15", "may have run"), seconds=5),
    "exits-with-0": Fault("end", {"status": 0, "stderr": "last words\n"}, errors=("WorkerDied",),
                          patterns=("status 0", "last words", "may have run"), seconds=5),
    "aborts": Fault("die", {"number": 6, "stderr": "assertion failed\n"}, errors=("WorkerDied",),
                    patterns=("SIGABRT|signal 6", "assertion failed"), seconds=5),
    # What doesn't answer a ping either is replaced: 5 s for the ping.
    "stopped": Fault("block", BLOCK, hurt=signal_by(signal.SIGSTOP), errors=("Timeout",), patterns=("timeouts.call",),
                     keys=SERIAL),
    "stopped-among-others": Fault("block", BLOCK, hurt=signal_by(signal.SIGSTOP), errors=("Timeout",),
                                  patterns=("timeouts.call",)),
    "drips-within-time": Fault("echo", {"message": "hi"}, mood="drip", keys={"timeouts": {**SHORT, "call": 20}}, replaced=False,
                               seconds=20),
    "drips-for-ever": Fault("echo", {"message": "x" * 1000}, mood="drip", errors=("Timeout",), patterns=("timeouts.call",)),
    # It may have answered before it read that it needn't: for so long as timeouts.stop.
    "late": Fault("late", {"ms": 2500}, mood="late", errors=("Timeout",), replaced=False, keys=PATIENT),
    "late-in-turn": Fault("late", {"ms": 2500}, mood="late", errors=("Timeout",), replaced=False, keys={**SERIAL, **PATIENT}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(service, onlooker, name):
    fault = FAULTS[name]
    keys = {"timeouts": SHORT, "restart": {"burst": 100, "interval": 1}, **fault.keys}
    if fault.mood:
        service.server("faulty", PYTHON, HOSTILE, fault.mood, **keys)
    else:
        service.obedient("faulty", **keys)
    seen = onlooker()
    caller = service.caller()
    process = Process.of(int(caller.tool_text("faulty", "pid")))

    call = caller.begin_tool("faulty", fault.tool, fault.arguments)
    if fault.hurt:
        eventually(lambda: caller.server("faulty")["CallsInFlight"] == 1, "the call is under way")
        fault.hurt(process)
    while not call.done and time.monotonic() - call.started < fault.seconds * SLOWNESS:
        seen.look()
        settle(0.05)

    try:
        call.wait(fault.seconds)
        assert not fault.errors, f"no error; {fault.errors} was expected"
    except CallFailed as error:
        check_failure(error, fault.errors, *fault.patterns)
    assert call.elapsed < fault.seconds * SLOWNESS

    # The next call comes through: with the same process, or when it was replaced.
    after = Process.of(int(caller.tool_text("faulty", "pid", timeout=30)))
    assert (after != process) == fault.replaced
    if fault.replaced:
        eventually(lambda: not process.alive(), "the old one is gone", 20)
    assert call.answers == 1


# What comes back, and what doesn't

ENDS = {
    "killed": lambda caller: Process.of(int(caller.tool_text("faulty", "pid"))).kill(),
    "exits": lambda caller: pytest.raises(CallFailed, caller.call_tool, "faulty", "end", {"status": 3}),
    "stopped": lambda caller: caller.tool_text("faulty", "pid") and caller.stop_server("faulty"),
}


@pytest.mark.parametrize("way", ENDS)
def test_the_place_of_one_that_ended_is_free(service, onlooker, way):
    """Again and again, more often than there are places."""
    service.settings(limits={"workers_per_user": 4})
    service.obedient("faulty", restart={"burst": 0})
    onlooker()
    caller = service.caller()
    for _ in range(8):
        ENDS[way](caller)
        eventually(lambda: not caller.workers("faulty"), "its end is known")
    assert caller.tool_text("faulty", "pid")



def test_an_idempotent_call_is_sent_once_more(service, onlooker):
    """And no third time."""
    journal = service.folder / "journal"
    service.obedient("faulty", "--journal", journal, idempotent=True, restart={"burst": 100, "interval": 1})
    onlooker()
    caller = service.caller()
    call = caller.begin_tool("faulty", "sleep", {"seconds": 1.0, "message": "again"})
    eventually(lambda: journal.exists() and '"sleep"' in journal.read_text(), "it has arrived")
    Process.of(caller.workers("faulty")[0]["Pid"]).kill()
    assert "again" in call.wait()
    assert journal.read_text().count('"sleep"') == 2

    try:
        caller.call_tool("faulty", "die", {"number": 9})
    except CallFailed as error:
        check_failure(error, "WorkerDied", "may have run")
    assert journal.read_text().count('"die"') == 2


@pytest.mark.parametrize("calls, sent_again", [(3, 3), (10, 3), (30, 6)])
def test_few_are_sent_again_at_a_time(service, onlooker, calls, sent_again):
    """The retry budget: a fifth of what is under way, or three. A server that breaks under its load isn't given it twice."""
    journal = service.folder / "journal"
    service.obedient("faulty", "--journal", journal, idempotent=True, restart={"burst": 100, "interval": 1},
                     pool={"max": 1, "concurrency": 64, "queue": 64})
    onlooker()
    caller = service.caller()
    caller.call_tool("faulty", "pid")
    pending = [caller.begin_tool("faulty", "sleep", {"seconds": 2.0, "message": f"<{n}>"}) for n in range(calls)]
    eventually(lambda: journal.read_text().count('"sleep"') == calls, "all have arrived")
    Process.of(caller.workers("faulty")[0]["Pid"]).kill()
    good = 0
    for n, call in enumerate(pending):
        try:
            assert f"<{n}>" in call.wait()
            good += 1
        except CallFailed as error:
            check_failure(error, "WorkerDied", "may have run")
    assert good == sent_again
    assert journal.read_text().count('"sleep"') == calls + sent_again


def test_a_call_that_can_be_sent_no_second_time_says_that_it_may_have_run(service, onlooker):
    """Its server is idempotent, but no other worker comes up. It had been sent: it isn't one that waited for a worker all the time."""
    gate, journal = service.folder / "gate", service.folder / "journal"
    gate.touch()
    service.obedient("faulty", "--journal", journal, "--start-gate", gate, idempotent=True, timeouts={"start": 60, "call": 5, "stop": 0.3},
                     restart={"burst": 100, "interval": 1})
    onlooker()
    caller = service.caller()
    process = Process.of(int(caller.tool_text("faulty", "pid")))
    gate.unlink()
    call = caller.begin_tool("faulty", "sleep", {"seconds": 600})
    eventually(lambda: '"sleep"' in journal.read_text(), "it has arrived")
    process.kill()
    with fails("Timeout", "its worker died", "may have run", "timeouts.call") as caught:
        call.wait()
    assert "timeouts.start" not in caught[0].message
    assert journal.read_text().count('"sleep"') == 1
    gate.touch()


def test_the_time_of_the_next_try_is_said_and_kept(service, onlooker):
    """Closed after a burst of crashes, for a time that is told; an administrator's restart opens it."""
    starts = service.folder / "starts"
    service.obedient("faulty", "--starts", starts, restart={"burst": 2, "interval": 20})
    onlooker()
    caller = service.caller()
    for _ in range(2):
        with pytest.raises(CallFailed):
            caller.call_tool("faulty", "end", {"status": 3})
    count = len(starts.read_text().splitlines())
    for _ in range(20):
        with pytest.raises(CallFailed) as caught:
            caller.call_tool("faulty", "pid")
        check_failure(caught.value, "Unavailable", r"next try is in (2\d|30) s", "status 3")
    assert len(starts.read_text().splitlines()) == count, "nothing was started meanwhile"
    caller.restart_server("faulty")
    assert caller.tool_text("faulty", "pid")


def test_crashes_of_what_was_started_before_the_pool_closed_count_once(service, onlooker):
    """They tell nothing new: the pool is closed for no longer than by the first of them."""
    service.obedient("faulty", pool={"max": 4, "concurrency": 1, "queue": 8}, restart={"burst": 2, "interval": 60})
    onlooker()
    caller = service.caller()
    calls = [caller.begin_tool("faulty", "sleep", {"seconds": 600}) for _ in range(4)]
    eventually(lambda: len([one for one in caller.workers("faulty") if one["State"] == "ready" and one["InFlight"]]) == 4, "all are busy", 30)
    for worker in caller.workers("faulty"):
        Process.of(worker["Pid"]).kill()
    for call in calls:
        with fails("WorkerDied"):
            call.wait()
    with fails("Unavailable", "failed 2 times", r"next try is in ([12]?\d|30) s"):
        caller.call_tool("faulty", "pid")


def test_a_stable_run_forgets_the_crashes(service, onlooker):
    service.obedient("faulty", restart={"burst": 2, "interval": 1})
    onlooker()
    caller = service.caller()
    for _ in range(4):
        pid = int(caller.tool_text("faulty", "pid"))
        time.sleep(1.1 * SLOWNESS)  # it has run for restart.interval
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not caller.workers("faulty"), "its end is known")
    assert caller.tool_text("faulty", "pid")
