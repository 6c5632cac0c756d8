"""MCP servers that others wrote (tests/npm), of both eras, and the bundled python executor."""

import json
import signal

import pytest

from caller import fails, text_of
from processes import Process
from real_servers import everything, stateless
from service import ECHO_WORKER, PYTHON, REPO
from waiting import eventually

EXECUTOR = REPO / "src/executors/python/mcp-exec-python"


def test_server_everything_echoes_and_stays(service, caller):
    everything(service)
    assert caller.tool_text("everything", "echo", {"message": "hi"}) == "Echo: hi"
    worker, = caller.workers("everything")
    assert (worker["Era"], worker["ProtocolVersion"]) == ("legacy", "2025-11-25")
    assert caller.tool_text("everything", "echo", {"message": "again"}) == "Echo: again"
    assert [again["Pid"] for again in caller.workers("everything")] == [worker["Pid"]]


def test_server_everything_lists(service, caller):
    everything(service)
    names = [name for name, _, _ in caller.list_tools("everything")]
    assert "echo" in names and len(names) > 5
    assert json.loads(caller.call("everything", "resources/list"))["resources"]
    assert json.loads(caller.call("everything", "prompts/list"))["prompts"]


def test_server_everything_concurrently(service):
    everything(service)
    callers = [service.caller() for _ in range(4)]
    pending = [(f"{n}-{i}", caller.begin_tool("everything", "echo", {"message": f"{n}-{i}"}))
               for n, caller in enumerate(callers) for i in range(8)]
    for message, one in pending:
        assert text_of(one.wait()) == f"Echo: {message}"
    assert len(callers[0].workers("everything")) <= 4


def test_server_everything_says_what_is_wrong(service, caller):
    everything(service)
    answer = None
    try:
        answer = json.loads(caller.call_tool("everything", "no-such-tool"))
    except Exception as error:
        assert error.name == "Remote" and "no-such-tool" in error.message, error
    assert answer is None or answer["isError"]
    with fails("Remote", "-32601"):
        caller.call("everything", "no/such/method")


def test_server_everything_cancelled_by_a_deadline(service, caller):
    """After the cancel its progress goes on."""
    everything(service, timeouts={"call": 1, "call_max": 1})
    tool = next((name for name, _, _ in caller.list_tools("everything") if "long" in name.lower()), None)
    if not tool:
        pytest.skip("no long running tool")
    with fails("Timeout"):
        caller.call("everything", "tools/call", {"name": tool, "arguments": {"duration": 5, "steps": 25},
                                                 "_meta": {"progressToken": 1}})
    assert caller.tool_text("everything", "echo", {"message": "hi"}) == "Echo: hi"


def test_a_stateless_server(service, caller):
    stateless(service)
    assert caller.tool_text("stateless", "echo", {"message": "hi"}) == "hi"
    assert caller.tool_text("stateless", "add", {"a": 2, "b": 3}) == "5"
    worker, = caller.workers("stateless")
    assert (worker["Era"], worker["ProtocolVersion"]) == ("modern", "2026-07-28")
    assert caller.tool_text("stateless", "pid") == str(worker["Pid"])
    assert [name for name, _, _ in caller.list_tools("stateless")][:3] == ["echo", "add", "pid"]


def test_a_stateless_only_server(service, caller):
    stateless(service, "modern", "--modern")
    assert caller.tool_text("modern", "echo", {"message": "hi"}) == "hi"
    assert caller.workers("modern")[0]["Era"] == "modern"


def test_a_stateless_server_forced_to_be_legacy(service, caller):
    stateless(service, era="legacy")
    assert caller.tool_text("stateless", "echo", {"message": "hi"}) == "hi"
    assert caller.workers("stateless")[0]["Era"] == "legacy"


def test_the_wrong_era_is_an_error(service, caller):
    stateless(service, "modern", "--modern", era="legacy")
    with fails("HandshakeFailed", "-32022|2026-07-28|version"):
        caller.call_tool("modern", "echo", {"message": "hi"})
    everything(service, era="modern")
    caller.reload()
    with fails("HandshakeFailed", "discover|modern|stateless|-32601"):
        caller.call_tool("everything", "echo", {"message": "hi"})


def test_a_callers_own_meta_is_kept(service, caller):
    service.echo("modern", "--modern")
    result = json.loads(caller.call("modern", "echo/params", '{"_meta":{"com.example/mine":[1]},"a":1}'))["params"]
    assert result["a"] == 1
    assert result["_meta"]["com.example/mine"] == [1]
    assert result["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


def test_input_required_comes_back_as_it_is(service, caller):
    """A caller that says what it can be asked for is asked, and asks again with the answers."""
    stateless(service)
    with fails("Remote", "-32021", "elicitation"):
        caller.call_tool("stateless", "greet")
    able = {"_meta": {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}}
    first = json.loads(caller.call("stateless", "tools/call", {"name": "greet", "arguments": {}, **able}))
    assert first["resultType"] == "input_required" and "name" in first["inputRequests"]
    second = caller.call("stateless", "tools/call", {
        "name": "greet", "arguments": {}, "requestState": first["requestState"],
        "inputResponses": {"name": {"action": "accept", "content": {"name": "Ada"}}}, **able})
    assert text_of(second).startswith("hello Ada")


def test_a_stateless_servers_tools_change(service, caller):
    stateless(service)
    signals = caller.signals("ToolsChanged")
    before = [name for name, _, _ in caller.list_tools("stateless")]
    caller.call_tool("stateless", "change")
    eventually(lambda: signals.seen, "ToolsChanged")
    after = eventually(lambda: (names := [name for name, _, _ in caller.list_tools("stateless")]) != before and names, "a new list")
    assert set(after) - set(before) == {"added-1"}


@pytest.mark.parametrize("mood", ["echo", "dies-on-discover", "mute-after-discover"])
def test_the_era_is_asked_for_once(service, caller, mood):
    """However a server takes the question, the next process of the same command isn't asked."""
    if mood == "echo":
        service.obedient("asked", "--journal", service.folder / "journal")
    else:
        service.server("asked", "/bin/sh", "-c", f'tee -a "{service.folder}/journal" | exec "$0" "$@"', PYTHON,
                       REPO / "tests/workers/hostile.py", mood)
    for _ in range(3):
        assert caller.tool_text("asked", "echo", {"message": "hi"}) == "hi"
        caller.restart_server("asked")
    eventually(lambda: (service.folder / "journal").read_text().count('"server/discover"') == 1, "asked once", 3)


def test_the_era_is_remembered_by_the_next_daemon(service, caller):
    journal = service.folder / "journal"
    service.obedient("asked", "--journal", journal)
    assert caller.tool_text("asked", "echo", {"message": "hi"}) == "hi"
    daemon = service.daemon()
    daemon.kill(signal.SIGTERM)
    service.wait_gone(daemon)
    assert caller.tool_text("asked", "echo", {"message": "hi"}) == "hi"
    assert service.pid != daemon.pid
    assert journal.read_text().count('"server/discover"') == 1


@pytest.mark.parametrize("before, after", [("", "--modern"), ("--modern", "")], ids=["legacy to modern", "modern to legacy"])
def test_a_command_that_speaks_another_era_now(service, caller, before, after):
    """An upgrade: what was remembered is wrong, and is found out."""
    script = service.folder / "server"
    service.server("upgraded", script)
    for options in (before, after):
        script.write_text(f'#!/bin/sh\nexec "{ECHO_WORKER}" {options}\n')
        script.chmod(0o755)
        caller.restart_server("upgraded")
        assert caller.tool_text("upgraded", "echo", {"message": "hi"}) == "hi"
        assert caller.workers("upgraded")[-1]["Era"] == ("modern" if options else "legacy")


def test_a_server_through_a_shell_goes_as_a_tree(service, caller):
    """npx starts sh starts node: killing the first leaves the rest."""
    service.server("wrapped", "/bin/sh", "-c", f"{PYTHON} {REPO}/tests/bus/obedient_worker.py --deaf; true", timeouts={"stop": 0.2})
    inner = Process.of(int(caller.tool_text("wrapped", "pid")))
    assert inner.pid != caller.workers("wrapped")[0]["Pid"]
    caller.stop_server("wrapped")
    eventually(lambda: not inner.alive(), "the inner process is gone")


# The python executor

@pytest.fixture
def python(service, caller):
    """The executor as it stands in the source tree."""
    service.server("python", EXECUTOR, pool={"max": 4, "concurrency": 1})
    return caller


def test_python_runs_code(python):
    result = python.call_tool("python", "run", {"code": "print(2 + 2)"})
    assert "4" in result


def test_python_remembers(python):
    python.call_tool("python", "run", {"code": "import math\nradius = 3"})
    assert "28.27" in python.call_tool("python", "run", {"code": "print(math.pi * radius ** 2)"})


def test_python_returns_the_last_value(python):
    assert "42" in python.call_tool("python", "run", {"code": "x = 6\nx * 7"})


def test_python_shows_the_exception(python):
    result = python.call_tool("python", "run", {"code": "def f():\n    1 / 0\nf()"})
    assert "ZeroDivisionError" in result and "Traceback" in result


def test_python_survives_stray_output(python):
    code = "import os, subprocess\nos.write(1, b'raw\\n')\nsubprocess.run(['echo', 'child'])\nprint('done')"
    result = python.call_tool("python", "run", {"code": code})
    assert "raw" in result and "child" in result and "done" in result
    assert python.workers("python")[0]["StrayLines"] == 0


def test_python_reads_stdin(python):
    assert "tupni" in python.call_tool("python", "run", {"code": "print(input()[::-1])", "stdin": "input\n"})
