"""Calls that are cancelled: a worker that heeds it stays, one that doesn't is replaced. How it is told is in test_cancel.py."""

import time

import pytest

from processes import Process
from service import PYTHON, REPO
from waiting import SLOWNESS, eventually, settle

HOSTILE = str(REPO / "tests/workers/hostile.py")
SERIAL = {"pool": {"max": 1, "concurrency": 1, "queue": 8}}


def test_others_of_a_worker_that_ignores_a_cancel_have_their_answers(service, onlooker):
    """It is replaced once they are done."""
    service.server("faulty", PYTHON, HOSTILE, "ignores-cancel", timeouts={"start": 5, "call": 60, "stop": 0.3},
                   restart={"burst": 100, "interval": 1})
    onlooker()
    caller, leaver = service.caller(), service.caller()
    process = Process.of(int(caller.tool_text("faulty", "pid")))
    # A thread has the other call; the one that is given up keeps all that is read waiting.
    other = caller.begin_tool("faulty", "later", {"seconds": 9 * SLOWNESS, "message": "mine"})
    eventually(lambda: caller.server("faulty")["CallsInFlight"] == 1, "it is under way")
    leaver.begin_tool("faulty", "hog", {"seconds": 60})
    eventually(lambda: caller.server("faulty")["CallsInFlight"] == 2, "both are")
    leaver.close()

    settle(6 * SLOWNESS)  # it is given 5 s to answer a ping
    assert caller.tool_text("faulty", "pid", timeout=30) != str(process.pid), "new calls go elsewhere"
    assert "mine" in other.wait(30)
    eventually(lambda: not process.alive(), "it is replaced", 20)


def test_a_worker_in_turn_that_ignores_a_cancel_is_replaced(service, onlooker):
    service.server("faulty", PYTHON, HOSTILE, "ignores-cancel", timeouts={"start": 5, "call": 60, "stop": 0.3}, **SERIAL)
    onlooker()
    caller, leaver = service.caller(), service.caller()
    process = Process.of(int(caller.tool_text("faulty", "pid")))
    leaver.begin_tool("faulty", "hog", {"seconds": 60})
    eventually(lambda: caller.server("faulty")["CallsInFlight"] == 1, "it is under way")
    leaver.close()
    before = time.monotonic()
    assert caller.tool_text("faulty", "pid", timeout=30) != str(process.pid)
    assert time.monotonic() - before < 8 * SLOWNESS
    eventually(lambda: not process.alive(), "it is gone")


GRACE = 0.3  # timeouts.stop: it may go on for so long with a call that is cancelled
NO_PINGS = {"keep_alive": {"check_interval": 0}, "restart": {"burst": 100, "interval": 1}}


def give_up(service, server, begin, told):
    """A call that its caller leaves, told to its worker longer ago than it may go on with it."""
    leaver, caller = service.caller(), service.caller()
    others = caller.server(server)["CallsInFlight"]
    begin(leaver)
    eventually(lambda: caller.server(server)["CallsInFlight"] > others, "it is under way")
    leaver.close()
    eventually(told, "the worker is told")
    settle(GRACE + 0.5)


@pytest.fixture
def obedient(service, onlooker):
    """An obedient worker that answers pings whatever it does; files that a call waits for; what it has heard."""
    def start(stop=GRACE, **keys):
        service.obedient("faulty", "--journal", journal, timeouts={"start": 5, "call": 60, "stop": stop}, **NO_PINGS, **keys)
        onlooker()
        return service.caller()

    journal = service.folder / "journal"
    start.cancels = lambda: journal.exists() and journal.read_text().count('"notifications/cancelled"')
    start.gate, start.other_gate = service.folder / "gate", service.folder / "other-gate"
    return start


def pid_of(caller):
    return Process.of(int(caller.tool_text("faulty", "pid", timeout=30)))


@pytest.mark.parametrize("keys", [{}, SERIAL], ids=["side-by-side", "in-turn"])
def test_a_worker_whose_answer_shows_that_it_minded_no_cancel_is_replaced(service, obedient, keys):
    caller = obedient(**keys)
    process = pid_of(caller)
    give_up(service, "faulty", lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate)}), obedient.cancels)
    # It answers pings, and has said nothing yet: it may be that it has given up.
    assert pid_of(caller) == process
    obedient.gate.touch()
    eventually(lambda: pid_of(caller) != process, "another one has the calls")
    eventually(lambda: not process.alive(), "it is gone", 20)
    eventually(lambda: "went on with a call that was cancelled" in service.log_text(), "the log says why")


def test_a_worker_that_goes_on_with_what_was_cancelled_is_replaced_when_its_others_are_done(service, obedient):
    caller = obedient(pool={"max": 2, "concurrency": 8, "queue": 8})
    process = pid_of(caller)
    other = caller.begin_tool("faulty", "until", {"path": str(obedient.other_gate)})
    eventually(lambda: caller.server("faulty")["CallsInFlight"] == 1, "another's call is under way")
    give_up(service, "faulty", lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate), "progress": True}),
            obedient.cancels)
    eventually(lambda: pid_of(caller) != process, "another one has the calls")
    assert process.alive() and not other.done
    obedient.other_gate.touch()
    assert "it is there" in other.wait()
    eventually(lambda: not process.alive(), "it is gone", 20)


@pytest.mark.parametrize("keys", [{}, SERIAL], ids=["side-by-side", "in-turn"])
@pytest.mark.parametrize("way", ["silent", "with-an-error"])
def test_a_worker_that_heeds_a_cancel_stays(service, obedient, keys, way):
    caller = obedient(**keys)
    process = pid_of(caller)
    if way == "silent":
        give_up(service, "faulty", lambda one: one.begin_tool("faulty", "sleep", {"seconds": 600}), obedient.cancels)
    else:
        give_up(service, "faulty", lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate), "fails": True}),
                obedient.cancels)
        obedient.gate.touch()
        eventually(lambda: caller.workers("faulty")[0]["LateAnswers"] == 1, "its error came")
    assert pid_of(caller) == process
    settle(0.5)
    assert pid_of(caller) == process and len(caller.workers("faulty")) == 1


ANSWERS_CANCEL = {"pool": {"max": 2, "concurrency": 8, "queue": 8, "answers_cancel": True}}
ANSWERS_IN_TURN = {"pool": {"max": 1, "concurrency": 1, "queue": 8, "answers_cancel": True}}


@pytest.mark.parametrize("keys", [ANSWERS_CANCEL, ANSWERS_IN_TURN], ids=["side-by-side", "in-turn"])
def test_silence_after_a_cancel_is_no_answer(service, obedient, keys):
    """Where a server is said to answer what was cancelled: pings prove nothing then."""
    caller = obedient(**keys)
    process = pid_of(caller)
    give_up(service, "faulty", lambda one: one.begin_tool("faulty", "sleep", {"seconds": 600}), obedient.cancels)
    assert pid_of(caller) != process
    eventually(lambda: not process.alive(), "it is gone", 20)
    eventually(lambda: "didn't end a call that was cancelled" in service.log_text(), "the log says why")


def test_others_of_a_worker_that_is_silent_after_a_cancel_have_their_answers(service, obedient):
    caller = obedient(**ANSWERS_CANCEL)
    process = pid_of(caller)
    other = caller.begin_tool("faulty", "until", {"path": str(obedient.other_gate)})
    eventually(lambda: caller.server("faulty")["CallsInFlight"] == 1, "another's call is under way")
    give_up(service, "faulty", lambda one: one.begin_tool("faulty", "sleep", {"seconds": 600}), obedient.cancels)
    eventually(lambda: pid_of(caller) != process, "another one has the calls")
    assert process.alive() and not other.done
    obedient.other_gate.touch()
    assert "it is there" in other.wait()
    eventually(lambda: not process.alive(), "it is gone", 20)


def test_a_worker_that_answers_what_was_cancelled_stays(service, obedient):
    """Its calls run one at a time: the next one waits for that answer."""
    caller = obedient(stop=60, **ANSWERS_IN_TURN)
    process = pid_of(caller)
    give_up(service, "faulty", lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate), "fails": True}), obedient.cancels)
    following = caller.begin_tool("faulty", "pid", {})
    settle(0.5)
    assert not following.done
    obedient.gate.touch()
    assert str(process.pid) in following.wait()
    assert pid_of(caller) == process


@pytest.mark.parametrize("silent", [0, 1], ids=["the-first", "the-last"])
def test_each_that_was_cancelled_has_to_be_answered(service, obedient, silent):
    """An answer to one doesn't stand for that to the other."""
    caller = obedient(stop=2, **ANSWERS_CANCEL)
    process = pid_of(caller)
    leavers = [service.caller() for _ in range(2)]
    leavers[silent].begin_tool("faulty", "sleep", {"seconds": 600})
    leavers[1 - silent].begin_tool("faulty", "until", {"path": str(obedient.gate), "fails": True})
    eventually(lambda: caller.server("faulty")["CallsInFlight"] == 2, "both are under way")
    for n, leaver in enumerate(leavers):
        leaver.close()
        eventually(lambda: obedient.cancels() == n + 1, "the worker is told")
    obedient.gate.touch()
    eventually(lambda: pid_of(caller) != process, "another one has the calls")
    eventually(lambda: not process.alive(), "it is gone", 20)


def test_a_process_of_one_call_is_told_that_it_is_cancelled(service, obedient):
    """And then stopped as any other."""
    caller = obedient(isolation="fresh", pool={"max": 1, "queue": 8})
    give_up(service, "faulty", lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate)}), obedient.cancels)
    assert caller.tool_text("faulty", "pid", timeout=30)
    eventually(lambda: not caller.workers("faulty"), "both processes are gone", 20)


# Protocol control: what answers a call that was cancelled has ended it.

@pytest.fixture
def control(service, onlooker):
    """A worker of protocol control, its signals, and a file that a call waits for."""
    def start(concurrency):
        service.server("faulty", PYTHON, str(REPO / "tests/workers/control.py"), protocol="control",
                       pool={"max": 1, "concurrency": concurrency, "queue": 8},
                       timeouts={"start": 5, "call": 60, "stop": start.grace}, restart={"burst": 100, "interval": 1})
        onlooker()
        caller = service.caller()
        seen = caller.signals("Notification")
        start.told = lambda: [one for one in seen.seen if one[2] == "told"]
        start.pid = lambda: Process.of(int(caller.call("faulty", "pid")))
        return caller

    start.gate, start.grace = service.folder / "gate", GRACE
    return start


def test_a_control_worker_in_turn_that_ignores_a_cancel_is_replaced(service, control):
    """It is told, has timeouts.stop, and goes."""
    control(1)
    process = control.pid()
    give_up(service, "faulty", lambda one: one.begin_call("faulty", "until", {"path": str(control.gate), "deaf": True}), control.told)
    assert control.pid() != process
    eventually(lambda: not process.alive(), "it is gone", 20)
    eventually(lambda: "didn't end a call that was cancelled" in service.log_text(), "the log says why")


def test_a_control_worker_in_turn_that_answers_a_cancel_stays(service, control):
    control.grace = 60
    caller = control(1)
    process = control.pid()
    leaver = service.caller()
    leaver.begin_call("faulty", "until", {"path": str(control.gate)})
    eventually(lambda: caller.server("faulty")["CallsInFlight"] == 1, "it is under way")
    leaver.close()
    assert control.pid() == process
    eventually(control.told, "it is told")
    assert control.pid() == process


def test_a_control_worker_whose_answer_shows_that_it_minded_no_cancel_is_replaced(service, control):
    control(8)
    process = control.pid()
    give_up(service, "faulty", lambda one: one.begin_call("faulty", "until", {"path": str(control.gate), "deaf": True}), control.told)
    assert control.pid() == process
    control.gate.touch()
    eventually(lambda: control.pid() != process, "another one has the calls")
    eventually(lambda: not process.alive(), "it is gone", 20)
