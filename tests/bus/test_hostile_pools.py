"""Workers of the protocols lines and once that come and go, and callers who do it to them."""

import json

import pytest

from caller import ERROR, CallFailed, check_failure, fails
from steps import begin, call, out, pid
from waiting import eventually

# idempotent

def test_an_idempotent_line_is_sent_once_more(service, caller):
    journal = service.folder / "journal"
    service.server("dies", "sh", "-c", f'while read -r line; do echo "$line" >>"{journal}"; kill -9 $$; done', protocol="lines",
                   idempotent=True, restart={"burst": 0})
    with fails("WorkerDied", "SIGKILL"):
        call(caller, "dies", '"again"')
    assert journal.read_text() == "again\nagain\n"


@pytest.mark.parametrize("params", ["", '"again"'])
def test_an_idempotent_command_is_run_once_more(service, caller, params):
    journal = service.folder / "journal"
    service.server("dies", "sh", "-c", f'cat >/dev/null; echo run >>"{journal}"; kill -9 $$', protocol="once", idempotent=True)
    with fails("WorkerDied", "SIGKILL"):
        call(caller, "dies", params)
    assert journal.read_text() == "run\nrun\n"


@pytest.mark.parametrize("params", ["", '"again"'])
def test_an_idempotent_command_that_writes_too_much_is_run_no_oftener(service, caller, params):
    journal = service.folder / "journal"
    service.server("huge", "sh", "-c", f'echo run >>"{journal}"; exec cat /dev/zero', protocol="once", idempotent=True,
                   limits={"message": 100000})
    with fails("TooLarge", "limits.message"):
        call(caller, "huge", params)
    assert len(journal.read_text().split()) <= 2


def test_without_idempotent_nothing_is_sent_twice(service, caller):
    journal = service.folder / "journal"
    service.server("dies", "sh", "-c", f'echo run >>"{journal}"; kill -9 $$', protocol="once")
    for i in range(10):
        with fails("WorkerDied", "SIGKILL"):
            call(caller, "dies", '"not again"')
    assert len(journal.read_text().split()) == 10


# batches

def test_a_batch_over_lines(lines):
    caller = lines(pool={"max": 3, "queue": 4})
    results = caller.call_batch("steps", *[("any", out(f"{i}\n")) for i in range(100)])
    assert results == [(True, str(i)) for i in range(100)]


def test_a_batch_over_once(once):
    caller = once(pool={"max": 2, "queue": 2})
    steps = [[{"exit": 3}] if i % 5 == 4 else out(f"{i}") for i in range(15)]
    results = caller.call_batch("steps", *[("any", step) for step in steps])
    for i, (good, text) in enumerate(results):
        assert (good, text) == (True, str(i)) if i % 5 != 4 else (not good and text.startswith(ERROR + "Remote: ") and "status 3" in text)


def test_a_batch_with_a_line_that_is_none(lines):
    caller = lines()
    results = caller.call_batch("steps", ("any", out("1\n")), ("any", json.dumps("two\nlines")), ("any", "{"), ("any", out("4\n")))
    assert [good for good, _ in results] == [True, False, False, True]
    assert results[1][1].startswith(ERROR + "InvalidArguments: ") and results[2][1].startswith(ERROR + "InvalidJson: ")


# the queue

def test_a_call_that_is_cancelled_while_it_waits(service, lines):
    """Its caller leaves: it is never sent, and those behind it are."""
    caller = lines()
    journal = service.folder / "journal"
    service.server("slow", "sh", "-c", f'while read -r line; do echo "$line" >>"{journal}"; sleep 0.3; echo "$line"; done',
                   protocol="lines", pool={"max": 1})
    first = begin(caller, "slow", '"first"')
    eventually(lambda: journal.exists(), "the first is under way")
    leaver = service.caller()
    begin(leaver, "slow", '"never"')
    eventually(lambda: caller.server("slow")["QueuedCalls"] == 1, "it waits")
    last = begin(caller, "slow", '"last"')
    leaver.close()
    assert [json.loads(first.wait()), json.loads(last.wait())] == ["first", "last"]
    assert journal.read_text() == "first\nlast\n"


def test_a_call_that_is_cancelled_under_way(service, lines):
    """What can't be told to give up is replaced; what waits behind it gets another worker."""
    caller = lines()
    first = pid(caller)
    leaver = service.caller()
    begin(leaver, "steps", [{"sleep": 30}, {"out": "late\n"}])
    eventually(lambda: caller.workers()[0]["InFlight"] == 1, "it is under way")
    waiting = begin(caller, "steps", out("mine\n"))
    leaver.close()
    assert json.loads(waiting.wait()) == "mine"
    assert pid(caller) != first


def test_everyone_is_served_from_a_full_queue(service, lines):
    """Eight callers, each with more calls than the queue has places: each gets through, none is starved."""
    caller = lines(pool={"max": 2, "queue": 8})
    assert call(caller, "steps", out("warm\n")) == "warm"
    callers = [service.caller() for _ in range(8)]
    pending = {c: [begin(c, "steps", [{"sleep": 0.05}, {"out": "done\n"}]) for _ in range(6)] for c in callers}
    for c, calls in pending.items():
        results = []
        for one in calls:
            try:
                results.append(json.loads(one.wait()))
            except CallFailed as error:
                check_failure(error, "LimitsExceeded", "pool.queue")
        assert "done" in results, "a caller got nothing"
    assert call(caller, "steps", out("after\n")) == "after"


# stop, restart, reload

@pytest.mark.parametrize("protocol", ["lines", "once"])
def test_stopping_while_calls_run(lines, once, protocol):
    caller = {"lines": lines, "once": once}[protocol](pool={"max": 2, "queue": 8}, timeouts={"stop": 0.2})
    pending = [begin(caller, "steps", [{"sleep": 30}]) for _ in range(5)]
    eventually(lambda: caller.server("steps")["CallsInFlight"] >= 2, "they run")
    caller.stop_server("steps")
    for one in pending:
        with fails("Cancelled"):
            one.wait()
    eventually(lambda: not caller.workers(), "they are gone")
    assert call(caller, "steps", out("1\n")) in (1, "1\n")


@pytest.mark.parametrize("protocol", ["lines", "once"])
@pytest.mark.parametrize("how", ["restart", "reload"])
def test_replacing_while_calls_run(service, lines, once, protocol, how):
    make = {"lines": lines, "once": once}[protocol]
    caller = make(pool={"max": 2, "queue": 16})
    pending = [begin(caller, "steps", [{"sleep": 0.3}, {"out": f"{i}\n"}]) for i in range(6)]
    eventually(lambda: caller.server("steps")["CallsInFlight"] >= 2, "they run")
    if how == "restart":
        caller.restart_server("steps")
    else:
        make(pool={"max": 2, "queue": 16}, description="another one")
        assert caller.reload() == []
    assert [json.loads(one.wait()) for one in pending] == list(range(6))
    assert call(caller, "steps", out("7\n")) == 7


def test_lines_workers_are_recycled_between_calls(lines):
    caller = lines(recycle={"calls": 10}, pool={"max": 2, "queue": 64})
    pending = [begin(caller, "steps", [{"pid": 1}]) for _ in range(30)]
    pending += [begin(caller, "steps", [{"pid": 1}]) for p in pending if p.wait() is not None]
    pids = [p.wait() for p in pending]
    assert 4 <= len(set(pids)) <= 12 and max(pids.count(p) for p in pids) <= 20


def test_once_has_nothing_to_recycle(once):
    caller = once(recycle={"calls": 1, "lifetime": 0.05, "memory": 1})
    assert [call(caller, "steps", [{"sleep": 0.1}, {"out": f"{i}"}]) for i in range(5)] == list(range(5))
