"""Calls that last, and large ones: mcp-exec call --job, jobs, result, cancel."""

import json
import re
import signal

from waiting import SLOWNESS, eventually


def test_large_arguments_and_results(service, cli):
    service.echo()
    text = "x" * (3 << 20)
    result = cli("call", "echo", "echo", "-", stdin=json.dumps({"message": text}))
    assert (result.status, result.err) == (0, "")
    assert result.out == text + "\n"


def test_a_job_that_is_waited_for(service, cli):
    service.echo()
    result = cli("call", "--job", "echo", "echo", "message=hi")
    assert (result.status, result.out) == (0, "hi\n")
    assert re.fullmatch(r"mcp-exec: job [0-9a-f]{32}\n", result.err)
    assert cli("jobs").err == "mcp-exec: no jobs\n"


def test_progress_on_a_terminal(service, cli, caller):
    service.obedient()
    terminal = cli.on_terminal("call", "obedient", "work", '{"steps":4,"pause":0.2,"message":"finished"}')
    terminal.wait_for("2/4 step 2")
    assert terminal.wait() == 0
    assert terminal.text.endswith("\x1b[Kfinished\n")
    eventually(lambda: caller.jobs() == {}, "it is forgotten")


def test_without_a_terminal_there_is_none(service, cli):
    service.obedient()
    result = cli("call", "obedient", "work", '{"steps":2}')
    assert (result.out, result.err) == ("done\n", "")


def test_who_leaves_cancels_his_call(service, cli, caller):
    service.obedient()
    terminal = cli.on_terminal("call", "obedient", "sleep", '{"seconds":1000}')
    eventually(lambda: caller.jobs(), "it has begun")
    terminal.process.send_signal(signal.SIGINT)
    eventually(lambda: [job["State"] for job in caller.jobs().values()] == ["cancelled"], "it is cancelled")


def test_unless_it_is_to_go_on(service, cli, caller):
    service.obedient()
    # Longer than the four commands that see it run.
    process = cli.start("call", "--job", "obedient", "sleep", json.dumps({"seconds": 4 * SLOWNESS, "message": "later"}))
    shown = process.stderr.readline().split()[-1]
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert [job["Id"] for job in caller.jobs().values()] == [shown]
    listed = cli("--json", "jobs").json
    assert [(job["id"], job["state"], job["server"], job["tool"]) for job in listed] == [
        (shown, "running", "obedient", "sleep")]
    assert "running" in cli("jobs").out and shown[:12] in cli("jobs").out
    early = cli("result", shown[:12])
    assert early.status == 7 and "still under way" in early.err
    eventually(lambda: cli("--json", "jobs").json[0]["state"] == "succeeded", "it is done")
    assert cli("result", shown[:12]).out == "later\n"
    assert cli("cancel", shown).status == 0
    assert cli("jobs", "-q").out == ""
    missing = cli("result", shown)
    assert missing.status == 3 and "mcp-exec jobs shows them" in missing.err


def test_a_long_timeout_is_the_servers_too(service, cli):
    service.obedient(timeouts={"call": 0.5, "call_max": 3600})
    assert cli("call", "--timeout=60", "obedient", "sleep", '{"seconds":1.5,"message":"slow"}').out == "slow\n"
    assert cli("call", "--timeout=7200", "obedient", "echo", "message=hi").out == "hi\n"


def test_the_timeout_of_a_job(service, cli, caller):
    service.obedient()
    result = cli("call", "--job", "--timeout=1", "obedient", "sleep", '{"seconds":1000}')
    assert result.status == 5 and "1" in result.err


def test_errors_of_a_job(service, cli):
    service.obedient()
    assert cli("call", "--job", "nowhere", "echo").status == 3
    refused = cli("call", "--job", "obedient", "refuse")
    assert refused.status == 8 and "-32000" in refused.err
    assert cli("call", "--job", "obedient", "fail").status == 1
    assert cli("call", "--job", "obedient", "die").status == 7
