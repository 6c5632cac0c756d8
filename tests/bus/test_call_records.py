"""Each call leaves one record in the log, which says who called what, and what became of it."""

import re

import pytest

from caller import ALICE, CallFailed
from waiting import eventually, settle

RECORD = re.compile(r"^mcp-execd: uid (\d+): (\S*) (.*): (\w+) in (\d+\.\d+) ms$")


@pytest.fixture
def service(system_service):
    access = {"users": [ALICE]}
    system_service.settings(log_calls="info")
    system_service.echo("echo", access=access)
    system_service.obedient("obedient", access=access)
    system_service.obedient("closed")
    return system_service


@pytest.fixture
def alice(service, polkit):
    return service.caller(uid=ALICE)


def records(service):
    """(uid, server, method and tool, outcome) of each, in order."""
    lines = [RECORD.match(line) for line in service.log_text().split("\n")]
    return [(int(m[1]), *m.group(2, 3, 4)) for m in lines if m]


def recorded(service, call):
    """The records that a call leaves."""
    before = len(records(service))
    try:
        call()
    except CallFailed:
        pass
    eventually(lambda: len(records(service)) > before, "there is a record")
    settle(0.1)
    return records(service)[before:]


def test_a_call_leaves_one_record(service, alice):
    for call, words in [
        (lambda: alice.call("echo", "tools/list"), "tools/list"),
        (lambda: alice.call_tool("echo", "pid"), "tools/call pid"),
        (lambda: alice.call("echo", "tools/call", {"name": "pid"}), "tools/call pid"),
        (lambda: alice.notify("echo", "notifications/x"), "notifications/x"),
    ]:
        assert recorded(service, call) == [(ALICE, "echo", words, "success")]


def test_each_item_of_a_batch_leaves_one(service, alice):
    assert recorded(service, lambda: alice.call_batch("obedient", ("tools/call", {"name": "pid"}), ("no/such", ""),
                                                      ("tools/call", "{"))) == [
        (ALICE, "obedient", "tools/call", "InvalidJson"),
        (ALICE, "obedient", "tools/call pid", "success"),
        (ALICE, "obedient", "no/such", "Remote"),
    ] or sorted(records(service)[-3:]) == [(ALICE, "obedient", "no/such", "Remote"),
                                           (ALICE, "obedient", "tools/call", "InvalidJson"),
                                           (ALICE, "obedient", "tools/call pid", "success")]


def test_an_item_that_waits_leaves_one_too(service, alice):
    """A limit that is reached isn't its end: it is started when another one is done."""
    service.settings(log_calls="info", limits={"calls_per_connection": 2})
    service.caller().reload()
    assert recorded(service, lambda: alice.call_batch("obedient", *6 * [("tools/call", {"name": "pid"})])) == 6 * [
        (ALICE, "obedient", "tools/call pid", "success")]


def test_starting_leaves_one(service, alice):
    assert recorded(service, lambda: alice.start_server("echo")) == [(ALICE, "echo", "StartServer", "success")]


def test_the_time_of_a_denial_is_what_it_took(service, alice, polkit):
    polkit.rule = ("after", 0.3, "no")
    recorded(service, lambda: alice.call_tool("closed", "pid"))
    line = next(line for line in service.log_text().split("\n") if "AccessDenied" in line)
    assert 300 <= float(RECORD.match(line)[5]) < 3000


def test_the_time_is_the_calls(service, alice):
    alice.call_tool("obedient", "pid")
    alice.call_tool("obedient", "block", {"seconds": 0.3})
    line = eventually(lambda: [line for line in service.log_text().split("\n") if "block" in line], "there is a record")[0]
    assert 300 <= float(RECORD.match(line)[5]) < 3000


FAILURES = {
    "NoSuchServer": lambda alice: alice.call_tool("nowhere", "x"),
    "ServerDisabled": lambda alice: alice.call_tool("off", "x"),
    "InvalidArguments": lambda alice: alice.call_tool("echo", ""),
    "InvalidJson": lambda alice: alice.call_tool("echo", "x", "{"),
    "TooLarge": lambda alice: alice.call_tool("echo", "x", '{"x":"' + "x" * 1200000 + '"}'),
    "LaunchFailed": lambda alice: alice.call_tool("missing", "x"),
    "HandshakeFailed": lambda alice: alice.call_tool("mute", "x"),
    "WorkerDied": lambda alice: alice.call_tool("obedient", "end"),
    "Timeout": lambda alice: alice.call_tool("impatient", "sleep", {"seconds": 5}),
    "LimitsExceeded": lambda alice: alice.call_tool("narrow", "x"),
    "Remote": lambda alice: alice.call_tool("obedient", "refuse"),
    "AccessDenied": lambda alice: alice.call_tool("closed", "x"),
}


@pytest.mark.parametrize("outcome", FAILURES)
def test_each_kind_of_failure(service, alice, outcome):
    access = {"users": [ALICE]}
    service.echo("off", disabled=True, access=access)
    service.server("missing", "/nonexistent/program", access=access)
    service.server("mute", "/bin/sleep", "100", era="legacy", timeouts={"start": 0.3}, access=access)
    service.obedient("impatient", timeouts={"call": 0.3}, access=access)
    service.obedient("narrow", "--delay", "3", pool={"queue": 1, "max": 1, "concurrency": 1}, access=access)
    if outcome == "LimitsExceeded":
        service.settings(log_calls="info", limits={"calls_per_connection": 1})
        alice.begin_tool("narrow", "pid")
    (uid, _, _, said), = recorded(service, lambda: FAILURES[outcome](alice))
    assert (uid, said) == (ALICE, outcome)


def test_a_caller_that_leaves(service, alice):
    alice.begin_tool("obedient", "sleep", {"seconds": 5})
    eventually(lambda: service.caller().property("CallsInFlight") == 1, "it is under way")
    assert recorded(service, alice.close) == [(ALICE, "obedient", "tools/call sleep", "Cancelled")]


def test_a_caller_that_leaves_while_polkit_is_asked(service, alice, polkit):
    polkit.rule = "silence"
    alice.begin_tool("closed", "pid")
    eventually(lambda: polkit.questions, "polkit is asked")
    assert recorded(service, alice.close) == [(ALICE, "closed", "tools/call pid", "Cancelled")]


@pytest.mark.parametrize("rule, outcome", [("no", "AccessDenied"), ("challenge", "AccessDenied"), ("crash", "AccessDenied"),
                                           ("yes", "success")])
def test_what_polkit_decides(service, alice, polkit, rule, outcome):
    polkit.rule = rule
    assert recorded(service, lambda: alice.call_tool("closed", "pid")) == [(ALICE, "closed", "tools/call pid", outcome)]


def test_a_call_that_runs_leaves_no_second_one(service, alice, polkit):
    polkit.rule = ("after", 0.2, "yes")
    assert recorded(service, lambda: alice.call("closed", "tools/call", {"name": "pid"})) == [
        (ALICE, "closed", "tools/call pid", "success")]


@pytest.mark.parametrize("call, words", [
    (lambda alice: alice.stop_server("echo"), (ALICE, "echo", "StopServer", "AccessDenied")),
    (lambda alice: alice.restart_server("echo"), (ALICE, "echo", "RestartServer", "AccessDenied")),
    (lambda alice: alice.reload(), (ALICE, "", "Reload", "AccessDenied")),
    (lambda alice: alice.list_tools("closed"), (ALICE, "closed", "tools/list", "AccessDenied")),
    (lambda alice: alice.describe("closed"), (ALICE, "closed", "Describe", "AccessDenied")),
    (lambda alice: alice.start_server("closed"), (ALICE, "closed", "StartServer", "AccessDenied")),
    (lambda alice: alice.notify("closed", "notifications/x"), (ALICE, "closed", "notifications/x", "AccessDenied")),
    (lambda alice: alice.call_batch("closed", ("a", ""), ("b", "")), (ALICE, "closed", "a", "AccessDenied")),
])
def test_each_denial_leaves_one(service, alice, call, words):
    assert recorded(service, lambda: call(alice)) == [words]


def test_ambiguous_tools_leave_one(service, alice):
    assert recorded(service, lambda: alice.call("closed", "tools/call", '{"name":"a","Name":"b"}')) == [
        (ALICE, "closed", "tools/call", "InvalidArguments")]


def test_looking_leaves_none(service, alice, polkit):
    alice.objects()
    alice.properties()
    alice.list_servers()
    settle(0.2)
    assert records(service) == []


NASTY = ["a\nmcp-execd: uid 0: echo tools/call: success in 0.1 ms", "a\r\x1b[2J\x1b]0;title\x07", "a\u0085b\u009b31m",
         "a\u2028mcp-execd: uid 0: echo x: success in 0.1 ms", "a\u2029b", "a\u202eb", "a\u2066b", "\ufeffa", "a\x7fb", "%s%n%d",
         "ü" * 500]


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
@pytest.mark.parametrize("server", ["echo", "closed", "nowhere\n\x1b[0m"])
def test_what_callers_write_forges_nothing(service, alice, server, text):
    for call in (lambda: alice.call(server, text), lambda: alice.call_tool(server, text),
                 lambda: alice.call(server, "tools/call", {"name": text})):
        before = len(service.log_text())
        record, = recorded(service, call)
        assert record[0] == ALICE
        added = service.log_text()[before:]
        if before == 0:  # the service has just started, and said how it starts workers
            added = added.split("\n", 1)[1]
        lines = [line for line in added.splitlines() if not re.match(r"mcp-execd: (debug: )?echo\[\d+\]: ", line)]
        assert len(lines) == 1 and RECORD.match(lines[0])
        assert not any(not c.isprintable() for c in added.replace("\n", "")), ascii(added)
        assert len(lines[0]) < 1200
