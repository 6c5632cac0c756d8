"""mcp-exec list, tools, describe, start, stop, restart, reload, status, top, logs, monitor, and batch."""

import json
import os
import signal
import subprocess

import pytest

from command_line import PROGRAM
from waiting import eventually


def test_list(service, cli):
    assert cli("list").status == 0
    service.echo(description="Says it again\nand again")
    service.obedient("other")
    cli("reload")
    result = cli("list")
    assert result.status == 0 and "\x1b" not in result.out
    assert [line.split()[:2] for line in result.out.splitlines()] == [["SERVER", "STATE"], ["echo", "inactive"], ["other", "inactive"]]
    assert "Says it again" in result.out and "and again" not in result.out
    assert cli("list", "--json").json == [
        {"name": "echo", "description": "Says it again\nand again", "state": "inactive"},
        {"name": "other", "description": "", "state": "inactive"}]


def test_no_servers_says_what_to_do(cli):
    result = cli("list")
    assert (result.status, result.out) == (0, "") and "import" in result.err
    assert cli("list", "--json").json == []


def test_tools(cli, showing):
    result = cli("tools", "shows")
    assert result.status == 0 and "weather" in result.out and "Wants a city" in result.out
    assert "\x1b" not in result.out, "escapes in a table are harmless everywhere"
    tools = {tool["name"]: tool for tool in cli("tools", "shows", "--json").json}
    assert tools["weather"]["inputSchema"]["required"] == ["city"]


def test_one_tool_with_its_arguments(cli, showing):
    result = cli("tools", "shows", "weather")
    assert result.status == 0
    assert "city" in result.out and "string" in result.out and "required" in result.out and "Where" in result.out
    assert cli("tools", "shows", "weather", "--json").json["name"] == "weather"
    result = cli("tools", "shows", "wether")
    assert result.status == 3 and "did you mean weather?" in result.err


def test_describe(service, cli):
    service.echo(timeouts={"call": 12.5}, env={"TOKEN": "secret-value"})
    result = cli("describe", "echo")
    assert "timeouts.call: 12.5" in result.out and "TOKEN" in result.out and "secret-value" not in result.out
    assert cli("describe", "echo", "--json").json["timeouts"]["call"] == 12.5
    assert cli("describe", "ehco").status == 3


def test_start_stop_restart(service, cli):
    service.obedient()
    service.echo()
    assert (lambda r: (r.status, r.out, r.err))(cli("start", "obedient", "echo")) == (0, "", "")
    first = {worker["pid"] for server in cli("status", "--json").json["servers"] for worker in server["workers"]}
    assert len(first) == 2
    assert cli("restart", "obedient").status == 0
    eventually(lambda: (workers := cli("status", "obedient", "--json").json["workers"]) and workers[0]["pid"] not in first,
               "another worker")
    assert cli("stop", "obedient", "echo").status == 0
    eventually(lambda: cli("status", "--json").json["workersRunning"] == 0, "all are gone")


def test_all_that_are_named_are_started_where_one_fails(service, cli):
    service.echo()
    result = cli("start", "ehco", "echo")
    assert result.status == 3 and "did you mean echo?" in result.err
    assert cli("status", "echo", "--json").json["state"] == "active"


def test_reload_tells_problems(service, cli):
    service.echo()
    assert cli("reload").status == 0
    service.write("servers.d/bad.json", '{"command": "x",\n  "argz": []}')
    result = cli("reload")
    assert result.status == 1 and "bad.json:2:" in result.err and "did you mean args?" in result.err
    problems = cli("reload", "--json").json
    assert problems[0]["file"].endswith("bad.json") and problems[0]["problem"].startswith("2:")


def test_status(service, cli):
    service.obedient(description="Does it")
    cli("call", "obedient", "pid")
    result = cli("status")
    assert result.status == 0 and "1 server, 1 worker" in result.out and "on the session bus" in result.out
    row = next(line.split() for line in result.out.splitlines() if line.startswith("obedient"))
    assert row[1] == "active" and int(row[5]) >= 1

    result = cli("status", "obedient")
    assert result.status == 0, result
    pid = cli("call", "obedient", "pid").out.strip()
    for words in ("obedient - Does it", "State: active", "Scope: user", "Era: legacy", pid, "ready", "uid:"):
        assert words in result.out, words
    state = cli("status", "obedient", "--json").json
    assert state["workers"][0]["pid"] == int(pid) and state["workers"][0]["calls"] >= 2

    result = cli("status", "obediant")
    assert result.status == 3 and "did you mean obedient?" in result.err


def test_calls_in_flight_are_shown(service, cli):
    service.obedient()
    call = cli.start("call", "obedient", "sleep", '{"seconds": 30}')
    try:
        eventually(lambda: cli("status", "obedient", "--json").json["inFlight"] == 1, "the call is under way")
        assert "1 in flight" in cli("status", "obedient").out
    finally:
        call.terminate()
        call.communicate()
    eventually(lambda: cli("status", "obedient", "--json").json["inFlight"] == 0, "it went with its caller")


def test_top_is_one_snapshot_without_a_terminal(service, cli):
    service.echo()
    cli("start", "echo")
    result = cli("top")
    assert result.status == 0 and "\x1b" not in result.out and "CALLS/S" in result.out
    assert next(line.split() for line in result.out.splitlines() if line.startswith("echo"))[4] == "0.0"
    assert cli("top", "--json").json["servers"][0]["name"] == "echo"


def test_what_a_workers_children_take_counts(service, cli):
    service.obedient()
    before = cli("status", "obedient", "--json").json["workers"] or cli("start", "obedient") and \
        cli("status", "obedient", "--json").json["workers"]
    cli("call", "obedient", "grandchild", "{}")
    after = cli("status", "obedient", "--json").json["workers"]
    assert after[0]["memory"] > before[0]["memory"] > 1_000_000 and after[0]["callTimeUSec"] > 0


def test_rates_of_top(service, cli):
    service.obedient()
    call = cli.start("call", "obedient", "sleep", '{"seconds": 30}')
    busy = subprocess.Popen(["bash", "-c", f"while :; do '{PROGRAM}' -q call obedient sleep '{{\"seconds\": 0.05}}' || exit; done"],
                            env=cli.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        def rates():
            row = next(line for line in cli("top").out.splitlines() if line.startswith("obedient"))
            # SERVER STATE PROCS CALLS CALLS/S CPU LATENCY (with its unit) BUSY QUEUE MEMORY
            return row.split() if " ms" in row else None
        row = eventually(rates, "there are rates")
        assert float(row[4]) > 0 and 50 <= float(row[6]) < 5000 and int(row[8]) >= 1, row
    finally:
        os.killpg(busy.pid, signal.SIGTERM)  # with the call that it is at, which would start the service again
        for process in (busy, call):
            process.terminate()
            process.communicate()
        eventually(lambda: not group_is_there(busy.pid), "the loop and its calls have ended")


def group_is_there(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_monitor(service, cli):
    service.echo()
    cli("list")
    monitor = cli.start("monitor", "--json")
    try:
        import threading
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(iter(monitor.stdout.readline, "")), daemon=True)
        reader.start()
        eventually(lambda: cli("restart", "echo").status == 0 and cli("start", "echo").status == 0 and
                   any('"ServerChanged"' in line for line in lines), "a signal is shown")
        eventually(lambda: cli("restart", "echo").status == 0 and any('"InterfacesAdded"' in line for line in lines), "a worker is shown")
        news = [json.loads(line) for line in list(lines)]
        assert any(n["signal"] == "ServerChanged" and n["server"] == "echo" and n["timestamp"] > 0 for n in news)
    finally:
        monitor.terminate()
        monitor.wait()


def test_logs(service, cli):
    if not os.path.isdir("/run/systemd/system"):
        pytest.skip("no systemd runs here, so no journal")
    name = f"words-{os.getpid()}"
    for words in ("first", "\x1b[31msecond", "third"):
        subprocess.run(["systemd-cat", "-t", f"mcp-exec/{name}", "printf", "%s\n", words], check=True, timeout=30)
    result = eventually(lambda: (r := cli("logs", name)) and "third" in r.out and r, "the lines are in the journal")
    assert [line.split()[-1] for line in result.out.splitlines()][0] == "first"
    assert cli("logs", name, "-n", "1").out.count("\n") == 1
    assert json.loads(cli("logs", name, "-n", "1", "--json").out)["message"] == "third"
    terminal = cli.on_terminal("logs", name, "--color=never", "-f")
    terminal.wait_for("third")
    assert "\x1b" not in terminal.text and "\\x1b[31msecond" in terminal.text
    subprocess.run(["systemd-cat", "-t", f"mcp-exec/{name}", "echo", "fourth"], check=True, timeout=30)
    terminal.wait_for("fourth")


def test_logs_of_a_server_without_any(service, cli):
    service.echo("a-silent-one")
    result = cli("logs", "a-silent-one")
    assert (result.status, result.out) == (0, "") and "no lines" in result.err
    result = cli("logs", "a-silnt-one")
    assert result.status == 3 and "did you mean a-silent-one?" in result.err
    assert cli("logs", "No Server").status == 3


# batch

def batch(cli, *lines, arguments=(), **options):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
    return cli("batch", "-", *arguments, stdin=text, **options)


def test_batch_results_in_order(service, cli):
    service.obedient(pool={"concurrency": 16})
    lines = [{"server": "obedient", "tool": "sleep", "id": i, "arguments": {"seconds": 0.05 * (i % 3), "message": str(i)}}
             for i in range(60)]
    result = batch(cli, *lines)
    assert result.status == 0 and result.err == ""
    answers = [json.loads(line) for line in result.out.splitlines()]
    assert [answer["id"] for answer in answers] == list(range(60))
    assert [answer["result"]["content"][0]["text"] for answer in answers] == [str(i) for i in range(60)]


def test_batch_failures_are_lines_too(service, cli):
    service.obedient()
    result = batch(cli, {"tool": "echo", "arguments": {"message": "x"}}, "", {"tool": "fail", "id": "a"},
                   {"method": "no/such"}, {"server": "none", "method": "x"}, arguments=["obedient"])
    assert result.status == 1 and "3 of 4 failed" in result.err
    answers = [json.loads(line) for line in result.out.splitlines()]
    assert [answer["ok"] for answer in answers] == [True, False, False, False]
    assert answers[1]["id"] == "a" and answers[1]["result"]["isError"]
    assert [answer["error"]["name"] for answer in answers[2:]] == ["Remote", "NoSuchServer"]


@pytest.mark.parametrize("line, hint", [
    ("{", "-:2:2:"),
    ("[]", "tool or method"),
    ('{"tool": "a", "method": "b", "server": "c"}', "tool or method"),
    ('{"tool": "a"}', "server is missing"),
    ('{"tool": "a", "params": {}, "server": "c"}', "arguments, not params"),
    ('{"tool": 5, "server": "c"}', "has to be a string"),
    ('{"tol": "a", "server": "c"}', "is no key"),
])
def test_batch_mistakes_are_found_before_anything_is_sent(service, cli, line, hint):
    service.obedient("obedient", "--starts", service.folder / "starts")
    result = batch(cli, {"server": "obedient", "tool": "echo"}, line)
    assert result.status == 2 and hint in result.err and result.out == "", result
    assert not (service.folder / "starts").exists()


def test_batch_of_nothing(cli):
    assert (lambda r: (r.status, r.out, r.err))(cli("batch", "-")) == (0, "", "")
    assert cli("batch", "/nowhere.jsonl").status == 2
