"""Whatever a worker does, each method ends in its time, and says why; see also test_workers.py."""

import signal
import time

import pytest

from caller import CallFailed, check_failure, fails, text_of
from processes import Process
from waiting import SLOWNESS, eventually

SHORT = {"start": 2, "call": 2, "stop": 0.5}
KEYS = {"timeouts": SHORT, "keep_alive": {"check_interval": 0}, "restart": {"burst": 100, "interval": 1}}
ENOUGH = 30  # seconds: far more than any of these times, and less than anybody would wait


def timed(function, *args):
    """How long it took; the result, or the error"""
    begun = time.monotonic()
    try:
        result = function(*args)
    except CallFailed as error:
        result = error
    assert time.monotonic() - begun < ENOUGH * SLOWNESS
    return result


@pytest.fixture
def hung(service, onlooker):
    """A caller, and the process of its worker, which is stopped."""
    service.obedient("hung", **KEYS)
    seen = onlooker()
    caller = service.caller()
    process = Process.of(int(caller.tool_text("hung", "pid")))
    process.kill(signal.SIGSTOP)
    yield caller, process
    seen.look()


@pytest.mark.parametrize("ask", [
    lambda caller: caller.list_tools("hung"),
    lambda caller: caller.call("hung", "resources/list"),
    lambda caller: caller.call_fd("hung", "tools/call", b"{}", tool="pid"),
    lambda caller: caller.call_batch("hung", ("tools/call", {"name": "pid", "arguments": {}}), ("ping", {})),
], ids=["ListTools", "Call", "CallFd", "CallBatch"])
def test_what_a_hung_worker_is_asked(hung, ask):
    caller, process = hung
    answer = timed(ask, caller)
    if isinstance(answer, list):
        assert [good for good, _ in answer] == [False, False] and all("timeouts.call" in text for _, text in answer), answer
    else:
        check_failure(answer, "Timeout", "timeouts.call")
    eventually(lambda: not process.alive(), "it is replaced", 30)
    assert caller.tool_text("hung", "pid") != str(process.pid)


@pytest.mark.parametrize("member", ["StopServer", "RestartServer", "StartServer", "Describe"])
def test_what_is_done_with_a_hung_worker(hung, member):
    """At once: nothing of it waits for the worker, which is killed when its time is over."""
    caller, process = hung
    result = timed(caller.invoke, member, "s", "hung")
    assert not isinstance(result, CallFailed), result
    if member in ("StopServer", "RestartServer"):
        eventually(lambda: not process.alive(), "it is gone", 30)
        assert caller.tool_text("hung", "pid") != str(process.pid)
    else:
        process.kill(signal.SIGCONT)


def test_a_reload_beside_a_hung_worker(service, hung):
    """What it was changed to counts for the next call; the hung one goes in its time."""
    caller, process = hung
    call = caller.begin_tool("hung", "pid")
    service.obedient("hung", description="another", **KEYS)
    assert timed(caller.reload) == []
    assert caller.tool_text("hung", "pid") != str(process.pid)
    with fails("Timeout"):
        call.wait()
    eventually(lambda: not process.alive(), "it is gone", 30)


@pytest.mark.parametrize("ask", [
    lambda caller: caller.start_server("slow"),
    lambda caller: caller.list_tools("slow"),
    lambda caller: caller.call_tool("slow", "pid"),
], ids=["StartServer", "ListTools", "CallTool"])
def test_a_start_that_hangs(service, onlooker, ask):
    """It is waited for timeouts.start, and stopped at once when that is wanted."""
    service.obedient("slow", "--start-gate", service.folder / "never", era="legacy", **KEYS)
    seen = onlooker()
    caller = service.caller()
    check_failure(timed(ask, caller), ("HandshakeFailed", "LaunchFailed"), "timeouts.start")
    seen.look()


def test_a_start_that_hangs_is_stopped(service, onlooker):
    service.obedient("slow", "--start-gate", service.folder / "never", era="legacy", **{**KEYS, "timeouts": {"start": 600, "stop": 0.5}})
    onlooker()
    caller = service.caller()
    waiting = [caller.begin("StartServer", "s", "slow"), caller.begin_tool("slow", "pid"), caller.begin("ListTools", "s", "slow")]
    eventually(lambda: [worker["State"] for worker in caller.workers("slow")] == ["starting"], "it starts")
    assert not isinstance(timed(caller.stop_server, "slow"), CallFailed)
    for one in waiting:
        with fails("Cancelled"):
            one.wait()
    eventually(lambda: not caller.workers("slow"), "it is gone", 30)


def test_notifications_to_one_that_reads_nothing(service, onlooker):
    """What the pipe takes is sent, the rest waits for its time; no more than pool.queue does."""
    service.obedient("hung", **KEYS, pool={"max": 1, "concurrency": 1, "queue": 8})
    seen = onlooker()
    caller = service.caller()
    process = Process.of(int(caller.tool_text("hung", "pid")))
    process.kill(signal.SIGSTOP)
    text = '{"text":"' + "x" * 60_000 + '"}'
    pending = [caller.begin("Notify", "sss", "hung", "notifications/test", text) for _ in range(30)]
    sent, failed = 0, set()
    for one in pending:
        try:
            one.wait(ENOUGH)
            sent += 1
        except CallFailed as error:
            check_failure(error, ("Timeout", "LimitsExceeded"), r"timeouts\.start and timeouts\.call|pool\.queue")
            failed.add(error.name)
    assert sent > 0 and failed == {"Timeout", "LimitsExceeded"}
    seen.look()
    process.kill(signal.SIGCONT)
    assert text_of(caller.call_tool("hung", "echo", {"message": "hi"})) == "hi"
