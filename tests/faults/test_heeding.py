"""Calls that are cancelled: a worker that heeds it stays, one that doesn't is replaced. How it is told is in test_cancel.py."""

import time

import pytest

from caller import fails
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


def leave(service, begin, told):
    """A call that its caller leaves, which its worker is told."""
    leaver, caller = service.caller(), service.caller()
    others = caller.server("faulty")["CallsInFlight"]
    begin(leaver)
    eventually(lambda: caller.server("faulty")["CallsInFlight"] > others, "it is under way")
    leaver.close()
    eventually(told, "the worker is told")


def give_up(service, begin, told):
    """The same, longer ago than it may go on with it."""
    leave(service, begin, told)
    settle(GRACE + 0.5)


@pytest.fixture
def obedient(service, onlooker):
    """An obedient worker that answers pings whatever it does; files that a call waits for; what it has heard."""
    def start(*args, stop=GRACE, **keys):
        service.obedient("faulty", "--journal", start.journal, *args, timeouts={"start": 5, "call": 60, "stop": stop},
                         **{**NO_PINGS, **keys})
        onlooker()
        return service.caller()

    start.journal = service.folder / "journal"
    start.heard = lambda text: start.journal.read_text().count(text) if start.journal.exists() else 0
    start.cancels = lambda: start.heard('"notifications/cancelled"')
    start.gate, start.other_gate = service.folder / "gate", service.folder / "other-gate"
    return start


def pid_of(caller):
    return Process.of(int(caller.tool_text("faulty", "pid", timeout=30)))


@pytest.mark.parametrize("keys", [{}, SERIAL], ids=["side-by-side", "in-turn"])
def test_a_worker_whose_answer_shows_that_it_minded_no_cancel_is_replaced(service, obedient, keys):
    caller = obedient(**keys)
    process = pid_of(caller)
    give_up(service, lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate)}), obedient.cancels)
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
    give_up(service, lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate), "progress": True}),
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
        give_up(service, lambda one: one.begin_tool("faulty", "sleep", {"seconds": 600}), obedient.cancels)
    else:
        give_up(service, lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate), "fails": True}),
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
    give_up(service, lambda one: one.begin_tool("faulty", "sleep", {"seconds": 600}), obedient.cancels)
    assert pid_of(caller) != process
    eventually(lambda: not process.alive(), "it is gone", 20)
    eventually(lambda: "didn't end a call that was cancelled" in service.log_text(), "the log says why")


def test_others_of_a_worker_that_is_silent_after_a_cancel_have_their_answers(service, obedient):
    caller = obedient(**ANSWERS_CANCEL)
    process = pid_of(caller)
    other = caller.begin_tool("faulty", "until", {"path": str(obedient.other_gate)})
    eventually(lambda: caller.server("faulty")["CallsInFlight"] == 1, "another's call is under way")
    give_up(service, lambda one: one.begin_tool("faulty", "sleep", {"seconds": 600}), obedient.cancels)
    eventually(lambda: pid_of(caller) != process, "another one has the calls")
    assert process.alive() and not other.done
    obedient.other_gate.touch()
    assert "it is there" in other.wait()
    eventually(lambda: not process.alive(), "it is gone", 20)


def test_a_worker_that_answers_what_was_cancelled_stays(service, obedient):
    """Its calls run one at a time: the next one waits for that answer."""
    caller = obedient(stop=60, **ANSWERS_IN_TURN)
    process = pid_of(caller)
    give_up(service, lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate), "fails": True}), obedient.cancels)
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
    give_up(service, lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate)}), obedient.cancels)
    assert caller.tool_text("faulty", "pid", timeout=30)
    eventually(lambda: not caller.workers("faulty"), "both processes are gone", 20)


@pytest.mark.parametrize("line, size", [
    ('{"jsonrpc":"2.0","id":ID,"error":{"code":1,"message":"x" nonsense}}', 0),
    ('{"jsonrpc":"2.0","id":ID}', 0),
    ('{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"XX"}]}}', 200_000),
], ids=["bad-json", "neither-result-nor-error", "too-long"])
def test_an_odd_answer_to_what_was_cancelled_is_its_end(service, obedient, line, size):
    """The next call waits for no other."""
    caller = obedient(stop=60, limits={"message": 100_000}, **ANSWERS_IN_TURN)
    process = pid_of(caller)
    leave(service, lambda one: one.begin_tool("faulty", "spell", {"path": str(obedient.gate), "line": line, "size": size}), obedient.cancels)
    following = caller.begin_tool("faulty", "pid", {})
    obedient.gate.touch()
    assert str(process.pid) in following.wait(30)
    assert pid_of(caller) == process


def test_a_ping_without_an_answer_ends_none_that_owes_one(service, obedient):
    """It has timeouts.stop, however much shorter the time for a ping is."""
    caller = obedient("--ping-delay", 5.5, stop=60 * SLOWNESS, **ANSWERS_IN_TURN)
    process = pid_of(caller)
    leave(service, lambda one: one.begin_tool("faulty", "until", {"path": str(obedient.gate), "fails": True}), obedient.cancels)
    following = caller.begin_tool("faulty", "pid", {})
    settle(7 * SLOWNESS)  # a ping has 5 s; it is answered now
    assert not following.done and process.alive()
    obedient.gate.touch()
    assert str(process.pid) in following.wait()


def test_more_are_cancelled_than_are_remembered(service, obedient):
    """The one that is never answered is among those that aren't: so the worker is replaced."""
    caller = obedient(stop=60, pool={"max": 1, "concurrency": 64, "queue": 8, "answers_cancel": True})
    process = pid_of(caller)
    until = "until", {"path": str(obedient.gate), "fails": True}
    told = 0
    for calls in [[until], [("sleep", {"seconds": 600})], [until] * 20, [until] * 20]:
        leaver = service.caller()
        for tool, arguments in calls:
            leaver.begin_tool("faulty", tool, arguments)
        eventually(lambda: caller.server("faulty")["CallsInFlight"] == len(calls), "they are under way")
        leaver.close()
        told += len(calls)
        eventually(lambda: obedient.cancels() == told, "the worker is told")
    obedient.gate.touch()
    eventually(lambda: pid_of(caller) != process, "another one has the calls", 30)
    eventually(lambda: not process.alive(), "it is gone", 20)
    eventually(lambda: "didn't end calls that were cancelled" in service.log_text(), "the log says why")


# Pings meanwhile

def test_a_ping_that_is_answered_while_the_worker_is_stopped_puts_nothing_off(service, obedient):
    """Neither SIGTERM nor SIGKILL, without which this one doesn't go."""
    caller = obedient("--deaf", "--ping-delay", 1, stop=2)
    process = pid_of(caller)
    leave(service, lambda one: one.begin_tool("faulty", "sleep", {"seconds": 600}), obedient.cancels)
    eventually(lambda: obedient.heard('"ping"'), "it is asked")
    caller.stop_server("faulty")
    eventually(lambda: not process.alive(), "it is gone", 30)


def test_cancels_that_come_faster_than_pings_are_answered_end_no_worker(service, obedient):
    """For so long as each is answered in its time, which is 5 s."""
    caller = obedient("--ping-delay", 1)
    process = pid_of(caller)
    end = time.monotonic() + 7
    while time.monotonic() < end:
        path = caller.start_tool_job("faulty", "sleep", {"seconds": 600})
        caller.cancel_job(path)
        caller.cancel_job(path)
        settle(0.1)
    assert obedient.cancels() > 1
    assert pid_of(caller) == process


def test_cancelled_calls_of_what_answers_no_pings_close_no_pool(service, onlooker):
    """It was asked too much by one; the others have its next workers."""
    service.server("faulty", PYTHON, HOSTILE, "ignores-cancel", pool={"max": 3, "concurrency": 1, "queue": 8},
                   restart={"burst": 3, "interval": 60}, timeouts={"start": 20, "call": 60, "stop": 0.3})
    onlooker()
    caller, leaver = service.caller(), service.caller()
    for _ in range(3):
        leaver.begin_tool("faulty", "hog", {"seconds": 600})
    eventually(lambda: len([one for one in caller.workers("faulty") if one["State"] == "ready" and one["InFlight"]]) == 3, "all are busy", 30)
    processes = [Process.of(one["Pid"]) for one in caller.workers("faulty")]
    leaver.close()
    pids = {process.pid for process in processes}
    eventually(lambda: not any(one["Pid"] in pids for one in caller.workers("faulty")), "they are gone", 30)
    # One that was started before the pool closed would still serve; behind it none would be started.
    process = pid_of(caller)
    process.kill()
    eventually(lambda: process.pid not in [one["Pid"] for one in caller.workers("faulty")], "that it crashed is known")
    assert pid_of(caller) != process


# Tasks, which sessions find at the one worker that has them

def make_task(session):
    return session.request("tools/call", {"name": "pid", "arguments": {}, "task": {}})["task"]["taskId"]


@pytest.fixture
def tasks(obedient, service):
    """Its tasks have results when there are files in this folder."""
    tasks = service.folder / "tasks"
    tasks.mkdir()
    return tasks


def test_a_draining_worker_has_its_tasks_after_a_cancel(obedient, tasks, open_session):
    """It is asked nothing else any more, so it needn't show that it is free."""
    caller = obedient("--results", tasks, **SERIAL)
    session, process = open_session("faulty"), pid_of(caller)
    task = make_task(session)
    caller.restart_server("faulty")
    asked = session.begin("tasks/result", {"taskId": task})
    eventually(lambda: obedient.heard('"tasks/result"'), "it has arrived")
    session.notify("notifications/cancelled", {"requestId": asked})
    eventually(obedient.cancels, "the worker is told")
    assert session.request("tasks/get", {"taskId": task})["taskId"] == task
    (tasks / task).touch()
    assert task in session.request("tasks/result", {"taskId": task})["content"][0]["text"]
    eventually(lambda: not process.alive(), "it is gone", 20)


@pytest.mark.parametrize("keys", [ANSWERS_CANCEL, ANSWERS_IN_TURN], ids=["side-by-side", "in-turn"])
def test_a_worker_that_is_silent_after_a_cancel_stays_for_its_tasks(service, obedient, open_session, keys):
    caller = obedient(**keys)
    session, process = open_session("faulty"), pid_of(caller)
    task = make_task(session)
    leave(service, lambda one: one.begin_tool("faulty", "sleep", {"seconds": 600}), obedient.cancels)
    eventually(lambda: pid_of(caller) != process, "another one has the calls", 20)
    assert session.request("tasks/get", {"taskId": task})["taskId"] == task
    assert task in session.request("tasks/result", {"taskId": task})["content"][0]["text"]
    eventually(lambda: not process.alive(), "it is gone", 20)


def test_the_next_call_waits_for_all_that_were_cancelled(service, obedient, tasks, open_session):
    """Two about tasks that are there run side by side, also where others run one at a time."""
    caller = obedient("--results", tasks, stop=60, **ANSWERS_IN_TURN)
    session, process = open_session("faulty"), pid_of(caller)
    first, second = make_task(session), make_task(session)
    asked = [session.begin("tasks/result", {"taskId": task}) for task in (first, second)]
    eventually(lambda: obedient.heard('"tasks/result"') == 2, "they have arrived")
    for n, id in enumerate(asked):
        session.notify("notifications/cancelled", {"requestId": id})
        eventually(lambda: obedient.cancels() == n + 1, "the worker is told")
    following = caller.begin_tool("faulty", "pid", {})
    for task in first, second:
        settle(0.5)
        assert not following.done
        (tasks / task).touch()
    assert str(process.pid) in following.wait()
    assert pid_of(caller) == process


# Protocol control: what answers a call that was cancelled has ended it.

@pytest.fixture
def control(service, onlooker):
    """A worker of protocol control, its signals, and a file that a call waits for."""
    def start(concurrency, **pool):
        service.server("faulty", PYTHON, str(REPO / "tests/workers/control.py"), protocol="control",
                       pool={"max": 1, "concurrency": concurrency, "queue": 8, **pool},
                       timeouts={"start": 5, "call": start.call, "stop": start.grace}, restart={"burst": 100, "interval": 1})
        onlooker()
        caller = service.caller()
        seen = caller.signals("Notification")
        start.told = lambda: [one for one in seen.seen if one[2] == "told"]
        start.pid = lambda: Process.of(int(caller.call("faulty", "pid")))
        return caller

    start.gate, start.grace, start.call = service.folder / "gate", GRACE, 60
    return start


def test_a_control_worker_in_turn_that_ignores_a_cancel_is_replaced(service, control):
    """It is told, has timeouts.stop, and goes."""
    control(1)
    process = control.pid()
    give_up(service, lambda one: one.begin_call("faulty", "until", {"path": str(control.gate), "deaf": True}), control.told)
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
    give_up(service, lambda one: one.begin_call("faulty", "until", {"path": str(control.gate), "deaf": True}), control.told)
    assert control.pid() == process
    control.gate.touch()
    eventually(lambda: control.pid() != process, "another one has the calls")
    eventually(lambda: not process.alive(), "it is gone", 20)


def test_a_control_worker_that_was_silent_has_its_time_to_answer_a_cancel(control):
    """With others' calls beside it: what it has to answer isn't cut short because it said nothing before."""
    control.grace, control.call = 60, 3
    caller = control(8, answers_cancel=True)
    process = control.pid()
    with fails("Timeout", "timeouts.call"):
        caller.call("faulty", "until", {"path": str(control.gate)})
    eventually(control.told, "it is told")
    assert control.pid() == process
