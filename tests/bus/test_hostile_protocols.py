"""Workers of the protocols lines, control and once that do what they shouldn't, and callers who do it to them."""

import json
import os
import signal
import time

import pytest

from caller import ERROR, CallFailed, check_failure, fails
from processes import Process, children
from service import PYTHON, REPO
from waiting import SLOWNESS, eventually, settle

CONTROL = str(REPO / "tests/workers/control.py")
MIB = 1 << 20
# Does what its params say: a list of steps, {"out": TEXT}, {"sleep": SECONDS}, {"exit": STATUS}, {"close": FD}, {"stop": 1}.
STEPS = r"""
import json, os, signal, sys, time
def run(steps):
    for step in steps:
        for what, value in step.items():
            if what == "out": os.write(1, value.encode("latin-1"))
            elif what == "sleep": time.sleep(value)
            elif what == "exit": os._exit(value)
            elif what == "close": os.close(value)
            elif what == "stop": os.kill(os.getpid(), signal.SIGSTOP)
            elif what == "pid": os.write(1, b"%d\n" % os.getpid())
"""
LINES = STEPS + "for line in sys.stdin: run(json.loads(line))"
ONCE = STEPS + "run(json.load(sys.stdin))"


def call(caller, server, params="", method="any"):
    return json.loads(caller.invoke("Call", "sss", server, method, params if isinstance(params, str) else json.dumps(params)))


def begin(caller, server, params="", method="any"):
    return caller.begin("Call", "sss", server, method, params if isinstance(params, str) else json.dumps(params))


def out(text):
    return [{"out": text}]


@pytest.fixture
def lines(service, caller):
    """A worker of protocol lines that does what its calls say."""
    def make(**keys):
        service.server("steps", PYTHON, "-c", LINES, protocol="lines", **{"pool": {"max": 1, "queue": 64}, **keys})
        return caller
    return make


@pytest.fixture
def once(service, caller):
    def make(**keys):
        service.server("steps", PYTHON, "-c", ONCE, protocol="once", **keys)
        return caller
    return make


def pid(caller):
    return call(caller, "steps", [{"pid": 1}])


# lines: what is in a line

def test_bytes_that_are_no_text(lines):
    caller = lines()
    assert call(caller, "steps", out("a\0b\xff\xfe\x1b[1m\n")) == "a\0b\ufffd\ufffd\x1b[1m"
    assert call(caller, "steps", out("\0\n")) == "\0"
    assert call(caller, "steps", out("\n")) == ""
    assert call(caller, "steps", out("\r\n")) == ""
    assert call(caller, "steps", out("a\rb\r\n")) == "a\rb"
    assert call(caller, "steps", out("\xef\xbf\xbf\n")) == "\uffff"
    assert call(caller, "steps", out('"\xef\xbf\xbf"\n')) == "\uffff"
    assert len(caller.workers()) == 1


def test_what_is_almost_json_is_text(lines):
    caller = lines()
    for text in ('{"a":1', "{'a': 1}", "01", "NaN", '"\\ud800', "1 2", "[" * 65 + "]" * 65, "\xef\xbb\xbf1"):
        assert call(caller, "steps", out(text + "\n")) == text.encode("latin-1").decode("utf-8", "replace")
    assert call(caller, "steps", out("[" * 64 + "]" * 64 + "\n"))


def test_deep_params_are_refused(lines):
    caller = lines()
    with fails("InvalidJson", "deep"):
        call(caller, "steps", "[" * 65 + "]" * 65)
    assert call(caller, "steps", out("1\n")) == 1


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_of_100_megabytes(service, lines, end):
    caller = lines()
    service.server("big", PYTHON, "-c", "import sys\nfor line in sys.stdin:\n"
                   f" for _ in range(100): sys.stdout.write('x' * {MIB})\n sys.stdout.write({end!r}); sys.stdout.flush()",
                   protocol="lines")
    with fails("TooLarge", "limits.message"):
        call(caller, "big")
    assert call(caller, "steps", out("1\n")) == 1
    with fails("TooLarge", "limits.message"):
        call(caller, "big")


def test_a_line_that_has_no_end_is_no_answer(lines):
    """What a worker was about to write when it ended may be half of it."""
    caller = lines()
    with fails("WorkerDied", "status 3", "half an answer"):
        call(caller, "steps", [{"out": '"half an answer'}, {"exit": 3}])
    with fails("WorkerDied", "half an answer"):
        call(caller, "steps", [{"out": "half an answer"}, {"exit": 0}])
    with fails("WorkerDied", "stdout"):
        call(caller, "steps", [{"out": "half an answer"}, {"close": 1}, {"sleep": 30}])
    assert call(caller, "steps", out("whole\n")) == "whole"


def test_a_line_drop_by_drop(lines):
    caller = lines()
    drops = [step for c in "drop by drop\r\n" for step in ({"out": c}, {"sleep": 0.01})]
    assert call(caller, "steps", drops) == "drop by drop"
    assert call(caller, "steps", out("1\n")) == 1
    assert len(caller.workers()) == 1


# lines: more than was asked for

def test_the_beginning_of_a_second_line(lines):
    """It must not keep the next call waiting; nor be put in front of its answer, unless that call was written already."""
    caller = lines(restart={"burst": 0})
    for gap in ([], [{"sleep": 0.05}]) * 5:
        pending = [begin(caller, "steps", [{"out": "one\n"}, *gap, {"out": "prompt> "}]), begin(caller, "steps", out("two\n"))]
        assert json.loads(pending[0].wait()) == "one"
        try:
            assert json.loads(pending[1].wait(10)) in ("two", "prompt> two")
        except CallFailed as error:
            check_failure(error, "ProtocolError", "nothing asked for", "prompt> ")


def test_a_prompt_is_told_from_an_answer(lines, service):
    caller = lines()
    assert call(caller, "steps", [{"out": "one\n"}, {"sleep": 0.05}, {"out": "> "}]) == "one"
    eventually(lambda: "nothing asked for" in service.log_text(), "the log says so")
    assert call(caller, "steps", out("two\n")) == "two"


def test_a_line_before_the_first_call_answers_it(service, caller):
    """It can't be told apart, see docs/servers.md; unless it is seen before the call is written, which is rare."""
    service.server("greets", "sh", "-c", 'echo welcome; while read -r line; do echo "$line"; done', protocol="lines", pool={"max": 1})
    try:
        assert call(caller, "greets", '"first"') == "welcome"
    except CallFailed as error:
        check_failure(error, "Unavailable", "nothing asked for: welcome")


def test_two_lines_for_one_where_each_call_has_its_process(service, caller):
    """Nobody else can get the second one: it is harmless, and no crash."""
    service.server("fresh", "sh", "-c", 'while read -r line; do printf "%s\\nextra\\nmore" "$line"; done', protocol="lines",
                   keep_alive=False, restart={"burst": 2})
    for i in range(6):
        assert call(caller, "fresh", json.dumps(f"n{i}")) == f"n{i}"


@pytest.mark.parametrize("keys", [{"keep_alive": False}, {"isolation": "fresh"}])
def test_lines_with_a_process_for_each_call(service, lines, keys):
    caller = lines(**keys)
    pids = [pid(caller) for _ in range(5)]
    assert len(set(pids)) == 5
    eventually(lambda: not any(Process.of(p) for p in pids), "each is gone")


# lines: the ends of its pipes

def test_lines_stdout_closed(lines):
    caller = lines()
    with fails("WorkerDied", "stdout"):
        call(caller, "steps", [{"close": 1}, {"sleep": 30}])
    assert call(caller, "steps", out("1\n")) == 1


def test_lines_stdin_closed(lines):
    """It can answer what it has read, and then it is replaced."""
    caller = lines()
    first = pid(caller)
    assert call(caller, "steps", [{"close": 0}, {"out": "last\n"}, {"sleep": 30}]) == "last"
    assert pid(caller) != first


def test_a_lines_worker_that_exits_between_calls(lines):
    caller = lines(restart={"burst": 0})
    for i in range(5):
        assert call(caller, "steps", [{"out": f"{i}\n"}, {"exit": i}]) == i
        eventually(lambda: not caller.workers(), "it is gone")


def test_a_lines_worker_that_exits_behind_its_answer(lines):
    """The next call, sent at once, has an answer, or an error that says why where it was written already."""
    caller = lines(restart={"burst": 0})
    for i in range(20):
        try:
            assert call(caller, "steps", [{"out": f"{i}\n"}, {"exit": 0}]) == i
        except CallFailed as error:
            check_failure(error, "WorkerDied", "status 0", "may have run")


def test_a_lines_worker_that_is_stopped(lines):
    caller = lines(timeouts={"call": 1 * SLOWNESS})
    first = pid(caller)
    Process.of(first).kill(signal.SIGSTOP)
    with fails("Timeout"):
        pid(caller)
    assert pid(caller) != first
    eventually(lambda: not Process.of(first), "the stopped one is gone")


def test_lines_that_does_not_read(service, caller):
    service.server("deaf", "sleep", "100", protocol="lines", pool={"max": 1}, timeouts={"call": 1, "start": 1})
    pending = [begin(caller, "deaf", json.dumps("x" * 500_000)) for _ in range(3)]
    for one in pending:
        with fails("Timeout"):
            one.wait()


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


# once

def test_a_command_that_ends_before_it_reads(service, caller):
    """However fast it is: it is run once for each call, and what it wrote is the result."""
    journal = service.folder / "journal"
    service.server("fast", "sh", "-c", f'exec <&-; echo run >>"{journal}"; echo done', protocol="once")
    service.server("true", "true", protocol="once")
    for i in range(40):
        assert call(caller, "fast", json.dumps("x" * (i * 3000))) == "done\n"
        assert call(caller, "true", ["", '"x"'][i % 2]) == ""
    assert len(journal.read_text().split()) == 40


def test_many_fast_commands(service, caller):
    journal = service.folder / "journal"
    service.server("fast", "sh", "-c", f'echo run >>"{journal}"; echo done', protocol="once", pool={"max": 4, "queue": 64})
    pending = [begin(caller, "fast", '"unread"') for _ in range(32)]
    assert [json.loads(one.wait()) for one in pending] == ["done\n"] * 32
    assert len(journal.read_text().split()) == 32


def test_grandchildren_that_hold_the_pipes(service, caller):
    """The result is there when the command has exited, and nothing of it stays."""
    left = service.folder / "left"
    service.server("daemon", "sh", "-c", f'sleep 100 & echo $! >"{left}"; (setsid sleep 100 &); echo done', protocol="once")
    for _ in range(5):
        began = time.monotonic()
        assert call(caller, "daemon", '"x"') == "done\n"
        assert time.monotonic() - began < 5 * SLOWNESS
        eventually(lambda: not Process.of(int(left.read_text())), "its child is gone")
    eventually(lambda: not service.worker_processes(), "all are gone")


def test_grandchildren_that_write_without_end(service, caller):
    service.server("flood", "sh", "-c", "(setsid sh -c 'while :; do echo flood; done' &) ; echo done; sleep 0.1", protocol="once",
                   limits={"message": 1 << 20})
    for _ in range(3):
        try:
            assert "done" in call(caller, "flood")
        except CallFailed as error:
            check_failure(error, "TooLarge", "limits.message")
    eventually(lambda: not service.worker_processes(), "all are gone")


def test_once_bytes_and_nesting(once):
    caller = once()
    assert call(caller, "steps", out("a\0\xff\r\n\r\n")) == "a\0\ufffd\r\n\r\n"
    assert call(caller, "steps", out(" {\"a\":\r\n1}\r\n")) == {"a": 1}
    assert call(caller, "steps", out("{\"a\": 1}\n{\"b\": 2}\n")) == '{"a": 1}\n{"b": 2}\n'
    assert call(caller, "steps", out("[" * 70 + "]" * 70)) == "[" * 70 + "]" * 70


def test_once_drop_by_drop(once):
    caller = once()
    assert call(caller, "steps", [step for c in "drop" for step in ({"out": c}, {"sleep": 0.05})]) == "drop"


def test_once_that_closes_everything(once):
    caller = once(timeouts={"call": 20})
    began = time.monotonic()
    assert call(caller, "steps", [{"out": "1"}, {"close": 0}, {"close": 1}, {"close": 2}, {"sleep": 0.5}]) == 1
    assert 0.4 < time.monotonic() - began < 10 * SLOWNESS


def test_once_that_is_stopped(once, service):
    caller = once(timeouts={"call": 1 * SLOWNESS})
    with fails("Timeout"):
        call(caller, "steps", [{"stop": 1}])
    eventually(lambda: not service.worker_processes(), "it was killed")


def test_a_killed_command_says_what_it_printed(once):
    caller = once()
    with fails("Remote", "status 7", "half of it"):
        call(caller, "steps", [{"out": "half of it\0\x1b"}, {"exit": 7}])


def test_once_whose_caller_leaves(once, service):
    caller = once()
    leaver = service.caller()
    begin(leaver, "steps", [{"sleep": 30}])
    eventually(lambda: any(w["InFlight"] for w in caller.workers()), "it runs")
    leaver.close()
    eventually(lambda: not service.worker_processes(), "it was killed")


def test_spare_processes_are_ready_for_once(service, once):
    """pool.min with once: started ahead, each has one call."""
    caller = once(pool={"min": 2, "max": 4}, scope="shared")
    call(caller, "steps", out("1"))
    eventually(lambda: sum(w["State"] == "ready" for w in caller.workers()) == 2, "two spare ones")
    spare = {w["Pid"] for w in caller.workers()}
    assert pid(caller) in spare
    for _ in range(10):
        pid(caller)
    eventually(lambda: sum(w["State"] == "ready" for w in caller.workers()) == 2, "two spare ones again")
    assert not spare & {w["Pid"] for w in caller.workers() if w["State"] == "ready"}


def test_spare_processes_that_are_killed(service, once):
    caller = once(pool={"min": 2, "max": 4}, restart={"burst": 0})
    call(caller, "steps", out("1"))
    for _ in range(3):
        ready = eventually(lambda: [w for w in caller.workers() if w["State"] == "ready"], "spare ones")
        for worker in ready:
            if process := Process.of(worker["Pid"]):
                process.kill()
        try:
            assert call(caller, "steps", out("2")) == 2
        except CallFailed as error:  # it was given to one that was dying
            check_failure(error, "WorkerDied", "SIGKILL")
    settle(0.3 * SLOWNESS)
    assert call(caller, "steps", out("3")) == 3


# control

@pytest.fixture
def control(service, caller):
    def make(script=None, **keys):
        command = [CONTROL] if script is None else ["-u", "-c", script]
        service.server("control", PYTHON, *command, protocol="control", **keys)
        return caller
    return make


RESPOND = r"""
import json, os, sys, time
def respond(line, response, **more):
    m = json.loads(line)
    print(json.dumps({"type": "control_response", "response": {"subtype": "success", "request_id": m["request_id"], "response": response}, **more}))
"""


def test_control_lines_that_are_too_large(control):
    """The call whose answer it is gets an error at once; the worker, and its other calls, go on."""
    caller = control(RESPOND + "for line in sys.stdin: respond(line, 'x' * (1000000 if 'big' in line else 5))", limits={"message": 100000})
    for _ in range(3):
        with fails("TooLarge", "limits.message"):
            call(caller, "control", "", "big")
        assert call(caller, "control", "", "small") == "xxxxx"
    assert len(caller.workers()) == 1


def test_a_control_line_of_100_megabytes(control, service):
    caller = control("import sys\nfor line in sys.stdin:\n for _ in range(400): sys.stdout.write('x' * 262144)",
                     limits={"message": MIB})
    with fails("ProtocolError", "limits.message"):
        call(caller, "control")


def test_control_answers_that_are_no_json(control):
    """Cut, too deep, with bytes that are no text: the call fails at once, by its id."""
    caller = control(RESPOND + r"""
for line in sys.stdin:
    m = json.loads(line); what = m["request"]["subtype"]; i = m["request_id"]
    bad = {"deep": '[' * 100 + ']' * 100, "number": "01", "word": "nothing", "bytes": '"\udcff"', "nul": '"\0"', "good": '1'}[what]
    text = '{"type":"control_response","response":{"subtype":"success","request_id":"%s","response":%s}}\n' % (i, bad)
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape")); sys.stdout.flush()
""")
    for what in ("deep", "number", "word", "bytes", "nul"):
        with fails("ProtocolError", "no valid JSON"):
            call(caller, "control", "", what)
    assert call(caller, "control", "", "good") == 1
    assert len(caller.workers()) == 1


def test_a_control_answer_of_neither_kind(control):
    caller = control("import json, sys\nfor line in sys.stdin: print(json.dumps({'type': 'control_response', 'response':"
                     " {'subtype': 'maybe', 'request_id': json.loads(line)['request_id']}}))")
    with fails("ProtocolError", "maybe"):
        call(caller, "control")


def test_a_notification_is_nobodys_answer(control):
    """An oversized or broken message with id and result, as an MCP server's answer has them, is no answer here."""
    caller = control(RESPOND + r"""
for line in sys.stdin:
    print('{"type":"report","id":1,"result":01}'); print('{"type":"report","id":1,"result":"' + 'x' * 200000 + '"}')
    print('{"type":"report","request_id":"1","subtype":"success","x":01}')
    time.sleep(0.2); respond(line, "answer")
""", limits={"message": 100000})
    assert call(caller, "control") == "answer"


def test_control_that_is_stopped_is_replaced(control):
    """It can't be asked whether it lives: one that let a call time out, and has said nothing since, is taken for dead."""
    caller = control(timeouts={"call": 1 * SLOWNESS})
    assert call(caller, "control", "", "echo") == {"subtype": "echo"}
    first = caller.workers()[0]["Pid"]
    Process.of(first).kill(signal.SIGSTOP)
    pending = [begin(caller, "control", "", "echo") for _ in range(3)]
    for one in pending:
        with fails("Timeout"):
            one.wait()
    assert call(caller, "control", "", "echo") == {"subtype": "echo"}
    eventually(lambda: not Process.of(first), "the stopped one is gone")


def test_control_with_one_silent_call_stays(control):
    caller = control(timeouts={"call": 1 * SLOWNESS})
    assert call(caller, "control", "", "echo") == {"subtype": "echo"}
    first = caller.workers()[0]["Pid"]
    silent = begin(caller, "control", "", "silent")
    for _ in range(6):
        settle(0.25 * SLOWNESS)
        assert call(caller, "control", "", "echo") == {"subtype": "echo"}
    with fails("Timeout"):
        silent.wait()
    assert call(caller, "control", "", "echo") == {"subtype": "echo"}
    assert [w["Pid"] for w in caller.workers()] == [first]


def test_control_that_exits_in_the_middle(control):
    caller = control("import os, sys\nsys.stdin.readline(); sys.stdout.write('{\"type\":\"control_response\",\"resp'); sys.stdout.flush(); os._exit(4)",
                     restart={"burst": 0})
    for _ in range(3):
        with fails("WorkerDied", "status 4"):
            call(caller, "control")


@pytest.mark.parametrize("keys", [{"keep_alive": False}, {"isolation": "fresh"}])
def test_control_with_a_process_for_each_call(control, keys):
    caller = control("import json, os, sys\nfor line in sys.stdin: print(json.dumps({'type': 'control_response', 'response':"
                     " {'subtype': 'success', 'request_id': json.loads(line)['request_id'], 'response': os.getpid()}}))", **keys)
    pids = [call(caller, "control") for _ in range(4)]
    assert len(set(pids)) == 4


def test_control_answers_twice(control):
    caller = control(RESPOND + "for line in sys.stdin: respond(line, 1); respond(line, 2)", pool={"max": 1})
    for _ in range(20):
        assert call(caller, "control") == 1
    eventually(lambda: caller.workers()[0]["LateAnswers"] == 20, "the second ones are counted")


def test_control_restart_and_stop_while_calls_run(control):
    caller = control(timeouts={"stop": 0.2})
    pending = [begin(caller, "control", '{"seconds": 0.5}', "slow") for _ in range(4)]
    eventually(lambda: caller.server("control")["CallsInFlight"] == 4, "they run")
    caller.restart_server("control")
    assert [json.loads(one.wait()) for one in pending] == ["slept"] * 4
    pending = [begin(caller, "control", '{"seconds": 30}', "slow") for _ in range(4)]
    eventually(lambda: caller.server("control")["CallsInFlight"] == 4, "they run")
    caller.stop_server("control")
    for one in pending:
        with fails("Cancelled"):
            one.wait()


def test_an_idempotent_control_request(control, service):
    journal = service.folder / "journal"
    caller = control(f"import os, sys\nsys.stdin.readline(); open({str(journal)!r}, 'a').write('run\\n'); os._exit(1)", idempotent=True,
                     restart={"burst": 0})
    with fails("WorkerDied", "status 1"):
        call(caller, "control")
    assert journal.read_text() == "run\nrun\n"


def test_a_batch_over_control(control):
    caller = control()
    results = caller.call_batch("control", *[("echo" if i % 2 else "fail", {"n": i}) for i in range(50)])
    assert [good for good, _ in results] == [bool(i % 2) for i in range(50)]


# file and socket

FILE = STEPS + "import sys; source = json.load(open(sys.argv[1])); run(source['steps']); open(sys.argv[2], 'w').write(source['result'])"


@pytest.fixture
def file(service, caller):
    def make(**keys):
        service.server("file", PYTHON, "-c", FILE, "{input}", "{output}", protocol="once", transport="file", **keys)
        return caller
    return make


def test_a_file_too_large(file, service):
    caller = file(limits={"message": 100000})
    with fails("TooLarge", "limits.message"):
        call(caller, "file", {"steps": [], "result": "x" * 200000})
    assert call(caller, "file", {"steps": [], "result": "x" * 1000}) == "x" * 1000
    eventually(lambda: not list(service.runtime.glob("mcp-exec-worker-*")), "its folder is gone")


def test_a_flood_on_the_stdout_of_a_command_over_files(file):
    caller = file()
    assert call(caller, "file", {"steps": [{"out": "y" * 100 + "\n"}] * 5000, "result": "42"}) == 42


def test_a_command_over_files_that_is_killed(file):
    caller = file()
    pending = begin(caller, "file", {"steps": [{"sleep": 30}], "result": ""})
    worker = eventually(lambda: [w for w in caller.workers("file") if w["InFlight"]], "it runs")[0]
    eventually(lambda: children(worker["Pid"]), "the command itself")[0].kill()
    with fails("WorkerDied", "SIGKILL"):
        pending.wait()


def test_spare_processes_for_files(file):
    caller = file(pool={"min": 2, "max": 4})
    for i in range(8):
        assert call(caller, "file", {"steps": [], "result": str(i)}) == i


def test_a_socket_worker_that_never_accepts(service, caller):
    service.server("socket", "sleep", "100", protocol="lines", transport="socket", timeouts={"call": 1 * SLOWNESS})
    with fails("Timeout"):
        call(caller, "socket", '"x"')


def test_a_socket_worker_that_closes_the_connection(service, caller):
    service.server("socket", PYTHON, "-c", "import socket, time\nc = socket.socket(fileno=3).accept()[0]\nc.recv(10)\nc.close()\ntime.sleep(100)",
                   protocol="lines", transport="socket")
    with fails("WorkerDied", "closed its std"):
        call(caller, "socket", '"x"')
