"""Workers of the protocol lines that do what they shouldn't."""

import json
import signal

import pytest

from caller import CallFailed, check_failure, fails
from processes import Process
from service import PYTHON
from steps import begin, call, out, pid
from waiting import SLOWNESS, eventually

MIB = 1 << 20


# what is in a line

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


# more than was asked for

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


# the ends of its pipes

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
