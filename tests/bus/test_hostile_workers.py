"""Workers that misbehave (tests/workers/hostile.py, one mood a row): their caller is told, nobody else notices."""

import json
import time

import pytest

from caller import CallFailed, check_failure, fails, text_of
from processes import Process
from service import PYTHON, REPO, SANITIZED
from waiting import eventually

HOSTILE = str(REPO / "tests/workers/hostile.py")
MIB = 1024 * 1024
SHORT = {"start": 4, "call": 3, "stop": 0.3}


@pytest.fixture
def steady(service):
    """Another caller of another server, whose worker stays through the test."""
    service.obedient("steady")
    other = service.caller()
    pid = other.tool_text("steady", "pid")
    daemon = service.pid
    yield other
    assert other.tool_text("steady", "pid") == pid
    assert service.pid == daemon, "the daemon was replaced"


@pytest.fixture
def hostile(service, steady):
    """hostile(mood, ...) configures a server of that name; returns a caller."""
    caller = service.caller()

    def configure(mood, *args, **keys):
        service.server(mood, PYTHON, HOSTILE, mood, *args,
                       **{"timeouts": SHORT, "restart": {"burst": 100, "interval": 1}, **keys})
        assert caller.reload() == []
        return caller

    return configure


def echoes(caller, mood):
    return caller.tool_text(mood, "echo", {"message": "hi"}) == "hi"


# The start

STARTS_ALL_THE_SAME = ["correct", "dies-on-discover", "silent-on-discover", "mute-after-discover", "serves-before-initialize",
                       "early-notification", "slow-start", "crlf", "ping-deaf"]


@pytest.mark.parametrize("mood", STARTS_ALL_THE_SAME)
def test_works_all_the_same(hostile, mood):
    caller = hostile(mood, timeouts={"start": 20, "call": 10, "stop": 0.3})
    assert echoes(caller, mood)
    assert echoes(caller, mood)
    assert len(caller.workers(mood)) == 1


@pytest.mark.parametrize("mood, patterns", [
    ("exit-now", ["status 3|code 3", "cannot open the database", "giving up"]),
    ("no-handshake", ["initialize|handshake|discover|answer"]),
    ("refuses-initialize", ["No licence", "-32000"]),
    ("wrong-version", ["1999-01-01"]),
])
def test_cannot_be_started(hostile, mood, patterns):
    caller = hostile(mood)
    started = time.monotonic()
    with fails(("HandshakeFailed", "LaunchFailed"), *patterns):
        echoes(caller, mood)
    assert time.monotonic() - started < 20
    eventually(lambda: caller.workers(mood) == [], "no worker is left")


# What it asks

def test_roots_at_once_with_id_zero(hostile):
    caller = hostile("roots-at-once")
    answers = [json.loads(line) for line in caller.tool_json("roots-at-once", "roots")]
    assert [(answer["id"], answer["error"]["code"]) for answer in answers] == [(0, -32601)]


def test_pings_with_ids_of_many_kinds(hostile):
    caller = hostile("pings")
    answers = [json.loads(line) for line in caller.tool_json("pings", "pongs")]
    assert len(answers) >= 10  # an id of 300 bytes need not be served
    assert all(answer["result"] == {} for answer in answers)
    assert [answer["id"] for answer in answers][:5] == [0, 1, 2, -1, 9007199254740993]
    assert [type(answer["id"]) for answer in answers][6:8] == [str, str]


# What it answers

def test_garbage_around_answers_is_skipped_and_counted(hostile, service):
    caller = hostile("garbage")
    for n in range(5):
        assert caller.tool_text("garbage", "echo", {"message": f"answer {n}"}) == f"answer {n}"
    worker, = caller.workers("garbage")
    assert worker["StrayLines"] > 50
    eventually(lambda: "Listening on stdio" in service.log_text(), "stray lines are logged")


@pytest.mark.parametrize("mood", ["garbage-only", "string-id"])
def test_an_answer_that_is_none(hostile, mood):
    """Nothing can be told from such a line but that it isn't the answer."""
    caller = hostile(mood)
    with fails(("Timeout", "ProtocolError")):
        echoes(caller, mood)


@pytest.mark.parametrize("mood", ["no-jsonrpc", "two-results"])
def test_an_answer_that_is_half_right(hostile, mood):
    caller = hostile(mood)
    try:
        assert echoes(caller, mood)
    except CallFailed as error:
        check_failure(error, ("ProtocolError", "Remote"))
    assert caller.call(mood, "ping") == "{}"


def test_half_a_line_then_the_end(hostile):
    caller = hostile("half-line")
    for _ in range(2):
        with fails(("WorkerDied", "ProtocolError"), "status 0|code 0"):
            echoes(caller, "half-line")


@pytest.mark.parametrize("id_first", [True, False])
def test_a_line_of_a_hundred_megabytes(hostile, service, id_first):
    caller = hostile("huge-line", timeouts={"start": 10, "call": 60, "stop": 1})
    assert echoes(caller, "huge-line")
    before = service.private_memory()
    with fails(("TooLarge", "ProtocolError"), "16777216|16 MiB|message"):
        caller.call_tool("huge-line", "huge", {"bytes": 100 * MIB, "id_first": id_first})
    assert echoes(caller, "huge-line")
    if not SANITIZED:
        eventually(lambda: service.private_memory() - before < 8 * MIB, "the memory is given back")


def test_a_line_within_the_limit_but_too_large_for_the_bus(hostile):
    caller = hostile("huge-line", timeouts={"start": 10, "call": 60, "stop": 1})
    with fails("TooLarge", "1048576|1 MiB", "limit"):
        caller.call_tool("huge-line", "huge", {"bytes": 15 * MIB})
    assert echoes(caller, "huge-line")


def test_a_lower_limit_for_lines(hostile):
    caller = hostile("huge-line", limits={"message": 100_000}, timeouts={"start": 10, "call": 60, "stop": 1})
    assert len(caller.call_tool("huge-line", "huge", {"bytes": 90_000})) > 80_000
    with fails(("TooLarge", "ProtocolError"), "100000|message"):
        caller.call_tool("huge-line", "huge", {"bytes": 110_000})
    assert echoes(caller, "huge-line")


def test_a_line_without_end(hostile, service):
    caller = hostile("huge-endless")
    with fails(("TooLarge", "ProtocolError", "Timeout")):
        echoes(caller, "huge-endless")
    assert SANITIZED or service.private_memory() < 100 * MIB


def test_two_answers_to_one_id(hostile):
    caller = hostile("duplicate")
    for n in range(5):
        result = json.loads(caller.call_tool("duplicate", "echo", {"message": f"answer {n}"}))
        assert result["content"][0]["text"] == f"answer {n}" and "second" not in result
    eventually(lambda: caller.workers("duplicate")[0]["LateAnswers"] >= 5, "they are counted")


def test_answers_to_ids_never_asked(hostile):
    caller = hostile("unknown-id")
    for n in range(5):
        result = json.loads(caller.call_tool("unknown-id", "echo", {"message": f"answer {n}"}))
        assert result["content"][0]["text"] == f"answer {n}" and "unknown" not in result
    worker, = caller.workers("unknown-id")
    assert worker["LateAnswers"] + worker["StrayLines"] > 0


def test_errors_of_the_server(hostile):
    caller = hostile("error")
    with fails("Remote", "-32007", "paper", "tray"):
        caller.call_tool("error", "fail", {"code": -32007, "message": "out of paper", "data": {"tray": 2}})
    with fails("Remote", "-32000"):  # newline, ESC and half a surrogate in the text: fails() looks for them
        caller.call_tool("error", "fail", {"code": -32000})
    for value in ('"text"', "42", "null", "[]", "{}", '{"code":"x"}', '{"message":5,"code":1.5}'):
        with fails(("Remote", "ProtocolError")):
            caller.call_tool("error", "fail-raw", {"error": json.loads(value)})
    assert echoes(caller, "error")


@pytest.mark.parametrize("tool", ["invalid", "invalid-error"])
def test_invalid_utf8(hostile, tool):
    caller = hostile("invalid-utf8")
    with fails(("ProtocolError", "Remote", "Timeout")):
        caller.call_tool("invalid-utf8", tool)
    assert echoes(caller, "invalid-utf8")


def test_nul(hostile):
    caller = hostile("nul")
    with fails(("ProtocolError", "Timeout")):
        caller.call_tool("nul", "raw")
    assert echoes(caller, "nul")
    result = caller.call_tool("nul", "escaped")
    assert r"before\u0000after" in result and text_of(result) == "before\0after"


def test_deep_results(hostile):
    caller = hostile("deep")
    assert json.loads(caller.call_tool("deep", "deep", {"depth": 20}))["deep"]
    for depth in (10_000, 1_000_000):
        with fails(("ProtocolError", "Timeout", "TooLarge"), "deep|depth|nest"):
            caller.call_tool("deep", "deep", {"depth": depth})
    assert echoes(caller, "deep")


# Time

def test_a_late_answer_is_dropped(hostile):
    caller = hostile("late", timeouts={"start": 5, "call": 0.5, "stop": 5})
    with fails("Timeout"):
        caller.call_tool("late", "late", {"ms": 1000})
    for n in range(10):
        assert caller.tool_text("late", "echo", {"message": f"answer {n}"}) == f"answer {n}"
    eventually(lambda: caller.workers("late")[0]["LateAnswers"] == 1, "the late answer is counted")


def test_progress_after_the_end_does_no_harm(hostile):
    caller = hostile("progress", timeouts={"start": 5, "call": 1, "call_max": 1, "stop": 0.3})
    with fails("Timeout"):
        caller.call("progress", "tools/call", {"name": "work", "arguments": {"steps": 50, "ms": 100}})
    assert echoes(caller, "progress")


def test_progress_restarts_the_deadline(hostile):
    caller = hostile("progress", timeouts={"start": 5, "call": 0.8, "call_max": 30, "stop": 0.3})
    result = caller.call("progress", "tools/call", {"name": "work", "arguments": {"steps": 10, "ms": 200},
                                                    "_meta": {"progressToken": "mine"}})
    assert json.loads(text_of(result))["steps"] == 10


# The process

def test_stdin_closed_only(hostile):
    caller = hostile("closes-stdin")
    caller.call_tool("closes-stdin", "echo", {"message": "hi"})
    for _ in range(3):
        try:
            assert echoes(caller, "closes-stdin")
        except CallFailed as error:
            check_failure(error, ("WorkerDied", "Timeout"))


def test_stdout_closed_only(hostile):
    caller = hostile("closes-stdout")
    with fails(("WorkerDied", "ProtocolError"), "stdout|output"):
        echoes(caller, "closes-stdout")
    eventually(lambda: caller.workers("closes-stdout") == [], "the worker is gone")


def test_a_worker_that_never_reads(hostile, service):
    """Its pipe fills: the callers have their deadline, and what was queued is bounded."""
    caller = hostile("unread", pool={"max": 1, "concurrency": 16, "queue": 16})
    pending = [caller.begin_tool("unread", "echo", {"message": "x" * 100_000}) for _ in range(20)]
    for one in pending:
        with fails(("Timeout", "LimitsExceeded", "WorkerDied", "Unavailable")):
            one.wait()
    assert SANITIZED or service.private_memory() < 60 * MIB


def test_a_flood_on_stderr(hostile):
    caller = hostile("stderr-flood", timeouts={"start": 5, "call": 60, "stop": 0.3})
    assert caller.tool_text("stderr-flood", "flood", {"bytes": 4 * MIB}) == "flooded"
    assert echoes(caller, "stderr-flood")


def test_last_words(hostile):
    caller = hostile("stderr-last-words")
    with fails("WorkerDied", "status 7|code 7", "fatal", "last words") as caught:
        echoes(caller, "stderr-last-words")
    assert "\x1b" not in caught[0].message and "\x00" not in caught[0].message


def test_a_crash(hostile):
    caller = hostile("crash-on-call")
    with fails("WorkerDied", "SIGSEGV|signal 11"):
        echoes(caller, "crash-on-call")


def test_a_worker_that_stops_itself(hostile):
    caller = hostile("stops-itself")
    with fails("Timeout"):
        caller.call_tool("stops-itself", "freeze")
    caller.restart_server("stops-itself")
    assert echoes(caller, "stops-itself")


def test_a_worker_that_ignores_sigterm(hostile):
    caller = hostile("ignores-term")
    process = Process.of(int(caller.tool_text("ignores-term", "pid")))
    caller.stop_server("ignores-term")
    eventually(lambda: not process.alive(), "SIGKILL ends it")


def test_grandchildren_go_with_their_worker(hostile):
    caller = hostile("grandchild")
    children = [Process.of(pid) for pid in caller.tool_json("grandchild", "children").values()]
    assert len(children) == 3 and all(child.alive() for child in children)
    caller.stop_server("grandchild")
    eventually(lambda: not any(child.alive() for child in children),
               f"the whole tree is gone: {[str(child) for child in children if child.alive()]}")


def test_grandchildren_go_when_their_worker_dies(hostile):
    caller = hostile("grandchild")
    children = [Process.of(pid) for pid in caller.tool_json("grandchild", "children").values()]
    Process.of(int(caller.tool_text("grandchild", "pid"))).kill()
    eventually(lambda: not any(child.alive() for child in children),
               f"the whole tree is gone: {[str(child) for child in children if child.alive()]}")
    assert echoes(caller, "grandchild")
