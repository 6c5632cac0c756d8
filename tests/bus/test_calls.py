"""Calls that work: what goes in reaches the worker, what comes out is its answer."""

import json
import time

from caller import ROOT, fails, text_of


def test_the_first_call_starts_service_and_worker(service, caller):
    service.echo()
    assert caller.service_pid() is None
    assert caller.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    assert caller.service_pid() is not None


def test_the_second_call_reuses_the_worker(service, caller):
    service.echo()
    assert caller.tool_text("echo", "pid") == caller.tool_text("echo", "pid")


def test_two_callers_share_a_worker(service, caller):
    service.echo()
    assert caller.tool_text("echo", "pid") == service.caller().tool_text("echo", "pid")


def test_params_reach_the_worker_byte_for_byte(service, caller):
    service.echo()
    params = r'{"big":12345678901234567890.000,"escape":"\u0041\/\ud83d\ude00","order":{"z":1,"a":[]},"text":"é 😀"}'
    assert caller.call("echo", "echo/params", params) == '{"params":' + params + "}"


def test_white_space_between_tokens_is_allowed(service, caller):
    service.echo()
    assert caller.tool_text("echo", "echo", ' {\r\n\t"message" :\n "hi" }\n') == "hi"


def test_no_params_means_none(service, caller):
    service.obedient()
    assert json.loads(caller.call("obedient", "test/params")) == {"params": "none"}


def test_no_arguments_means_an_empty_object(service, caller):
    service.echo()
    assert caller.tool_text("echo", "pid", "").isdigit()
    assert caller.tool_text("echo", "pid", "{}").isdigit()


def test_a_result_of_nearly_the_inline_limit(service, caller):
    service.echo()
    message = "0123456789abcdef" * 62500
    assert caller.tool_text("echo", "echo", {"message": message}) == message


def test_a_failed_tool_is_a_result(service, caller):
    """isError is for the model to see: no D-Bus error."""
    service.obedient()
    result = json.loads(caller.call_tool("obedient", "fail", {"message": "the disk is full"}))
    assert result == {"content": [{"type": "text", "text": "the disk is full"}], "isError": True}


def test_a_slow_call_does_not_hold_up_a_quick_one(service, caller):
    service.obedient()
    caller.call_tool("obedient", "pid")
    slow = caller.begin_tool("obedient", "sleep", {"seconds": 1.0, "message": "slow"})
    quick = caller.begin_tool("obedient", "sleep", {"seconds": 0.0, "message": "quick"})
    assert text_of(quick.wait()) == "quick"
    assert not slow.done
    assert text_of(slow.wait()) == "slow"


def test_answers_out_of_order_reach_their_own_callers(service):
    service.obedient()
    callers = [service.caller() for _ in range(8)]
    pending = [caller.begin_tool("obedient", "sleep", {"seconds": 0.4 - n * 0.05, "message": f"answer {n}"})
               for n, caller in enumerate(callers)]
    assert [text_of(one.wait()) for one in pending] == [f"answer {n}" for n in range(8)]


def test_each_call_has_one_answer(service, caller):
    service.obedient()
    pending = [caller.begin_tool("obedient", "echo", {"message": str(n)}) for n in range(16)]
    assert [text_of(one.wait()) for one in pending] == [str(n) for n in range(16)]
    caller.call_tool("obedient", "pid")
    assert all(one.answers == 1 for one in pending)


def test_batch_answers_stand_in_order(service, caller):
    service.obedient()
    results = caller.call_batch("obedient", *(
        ("tools/call", {"name": "sleep", "arguments": {"seconds": 0.3 - n * 0.1, "message": f"answer {n}"}})
        for n in range(4)))
    assert [ok for ok, _ in results] == [True] * 4
    assert [text_of(result) for _, result in results] == [f"answer {n}" for n in range(4)]


def test_batch_runs_concurrently(service, caller):
    service.obedient()
    caller.call_tool("obedient", "pid")
    started = time.monotonic()
    caller.call_batch("obedient", *[("tools/call", {"name": "block", "arguments": {"seconds": 1.0}})] * 5)
    assert time.monotonic() - started < 4


def test_one_failure_does_not_spoil_a_batch(service, caller):
    service.obedient()
    results = caller.call_batch(
        "obedient",
        ("tools/call", {"name": "echo", "arguments": {"message": "before"}}),
        ("tools/call", {"name": "refuse", "arguments": {"code": -32001, "message": "not today"}}),
        ("tools/call", '{"name": "echo", "arguments": }'),
        ("no/such/method", ""),
        ("tools/call", {"name": "echo", "arguments": {"message": "after"}}))
    assert [ok for ok, _ in results] == [True, False, False, False, True]
    assert text_of(results[0][1]) == "before" and text_of(results[4][1]) == "after"
    assert results[1][1].startswith("org.example.McpExec.Error.Remote: ")
    assert "not today" in results[1][1] and "-32001" in results[1][1]
    assert results[2][1].startswith("org.example.McpExec.Error.InvalidJson: ")
    assert results[3][1].startswith("org.example.McpExec.Error.Remote: ") and "-32601" in results[3][1]


def test_a_batch_has_a_cap(service, caller):
    """Past it nothing of it is sent; with it, it is more than the pool's queue holds."""
    journal = service.folder / "journal"
    service.obedient("obedient", "--journal", journal)
    item = ("tools/call", {"name": "echo", "arguments": {"message": "batched"}})
    with fails("LimitsExceeded", "at most 256 items"):
        caller.call_batch("obedient", *[item] * 257)
    assert not journal.exists() or "batched" not in journal.read_text()
    results = caller.call_batch("obedient", *[item] * 256)
    assert [ok for ok, _ in results] == [True] * 256 and journal.read_text().count("batched") == 256


def test_an_empty_batch(service, caller):
    service.echo()
    assert caller.call_batch("echo") == []


def test_a_batch_to_an_unknown_server(service, caller):
    service.echo()
    with fails("NoSuchServer", "nowhere"):
        caller.call_batch("nowhere", ("tools/list", ""))


def test_notify_reaches_the_worker(service, caller):
    service.obedient()
    caller.notify("obedient", "notifications/roots/list_changed")
    caller.notify("obedient", "notifications/test", {"key": "value"})
    heard = [entry for entry in caller.tool_json("obedient", "notifications")
             if entry["method"] != "notifications/initialized"]
    assert heard == [{"method": "notifications/roots/list_changed", "params": None},
                     {"method": "notifications/test", "params": {"key": "value"}}]


def test_a_workers_ping_is_answered(service, caller):
    service.obedient()
    assert caller.tool_json("obedient", "ask", {"method": "ping"}) == {"result": {}}


def test_a_workers_other_requests_are_refused(service, caller):
    """Until there are sessions nobody could answer them."""
    service.obedient()
    for method in ("roots/list", "sampling/createMessage", "elicitation/create", "what/is/this"):
        answer = caller.tool_json("obedient", "ask", {"method": method, "params": {}})
        assert answer["error"]["code"] == -32601, method


def test_the_handshake_is_made_once_and_tells_who_asks(service, caller):
    service.obedient()
    greeting = caller.tool_json("obedient", "greeting")
    assert greeting["clientInfo"]["name"] and greeting["clientInfo"]["version"]
    assert greeting["protocolVersion"] == "2025-11-25"
    caller.call_tool("obedient", "pid")
    heard = caller.tool_json("obedient", "notifications")
    assert [entry["method"] for entry in heard].count("notifications/initialized") == 1


def test_a_worker_is_started_clean(service, caller):
    """Nothing of the daemon's is handed on: environment, fds, signal mask, session."""
    service.obedient("obedient", env={"TOKEN": "from the file"})
    service.echo()
    around = caller.tool_json("obedient", "surroundings")
    assert set(around["env"]) <= {"PATH", "LANG", "HOME", "TOKEN", "MCP_EXEC_TEST", "LC_CTYPE", "INVOCATION_ID"}
    assert around["env"]["TOKEN"] == "from the file"
    fds = {number: target for number, target in around["fds"].items() if not target.startswith("/proc/")}
    assert set(fds) == {"0", "1", "2"}, fds
    assert around["sid"] == around["pgid"] == around["pid"]
    _, blocked, _, ignored = caller.tool_text("echo", "signals").split()
    # glibc's posix_spawn() leaves its own two, 32 and 33, ignored.
    assert int(blocked, 16) == 0 and int(ignored, 16) & ~0x180000000 == 0


def test_the_working_directory_is_the_files(service, caller, tmp_path):
    service.obedient("obedient", cwd=str(tmp_path))
    assert caller.tool_json("obedient", "surroundings")["cwd"] == str(tmp_path)


def test_arguments_are_not_for_a_shell(service, caller):
    service.obedient("obedient", "--journal", f"{service.folder}/$(id) `id`; *")
    around = caller.tool_json("obedient", "surroundings")
    assert around["argv"][-1] == f"{service.folder}/$(id) `id`; *"


def test_wrong_signatures_are_refused(service, caller):
    service.echo()
    with fails("org.freedesktop.DBus.Error.InvalidArgs"):
        caller.invoke("CallTool", "s", "echo", interface=ROOT)
    with fails(("org.freedesktop.DBus.Error.InvalidArgs", "org.freedesktop.DBus.Error.UnknownMethod")):
        caller.invoke("NoSuchMethod", "s", "echo")
    assert caller.tool_text("echo", "echo", {"message": "still there"}) == "still there"
