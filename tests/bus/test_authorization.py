"""What polkit is asked on the system bus, what its answers mean, and what becomes of a call meanwhile."""

import pytest

from caller import ALICE, BOB, DENIED, CallFailed, check_failure, fails, text_of
from mock_polkit import CALL, EXECUTE_CODE, MANAGE, USE_NETWORK
from waiting import eventually, settle

ASK_FIRST = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
UNREADABLE = "org.freedesktop.DBus.Error.InconsistentMessage"  # sd-bus takes no noncharacters
WAIT = 5.0  # for polkit


@pytest.fixture
def service(system_service):
    system_service.echo()
    system_service.obedient()
    return system_service


def started(service):
    """Whether any worker is there."""
    return bool(service.worker_processes())


# The question

def test_the_subject_is_the_callers_unique_name(polkit, alice):
    polkit.rule = "yes"
    assert alice.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    assert [question.subject for question in polkit.questions] == 2 * [("system-bus-name", {"name": alice.unique_name})]


def test_a_call_asks_for_the_call_and_for_the_network(polkit, alice):
    """Workers that are plain processes reach the network."""
    polkit.rule = "yes"
    alice.call("echo", "tools/list")
    assert [question.action for question in polkit.questions] == [CALL, USE_NETWORK]
    assert all(question.details == {"server": "echo", "method": "tools/list"} for question in polkit.questions)
    assert not any(question.interactive for question in polkit.questions)
    assert len({question.cancellation for question in polkit.questions}) == 2


def test_an_executor_asks_for_execute_code(service, polkit, alice):
    service.echo("runner", executor=True)
    polkit.rule = "yes"
    alice.call_tool("runner", "echo", {"message": "hi"})
    assert [question.action for question in polkit.questions] == [EXECUTE_CODE, USE_NETWORK]


@pytest.mark.parametrize("denied", [CALL, USE_NETWORK])
def test_each_of_them_is_needed(service, polkit, alice, denied):
    polkit.rule = lambda question: "no" if question.action == denied else "yes"
    with fails(DENIED, "uid 1", "server echo", denied):
        alice.call_tool("echo", "echo", {"message": "hi"})
    assert not started(service)


def test_the_details_of_each_method(service, polkit, alice):
    polkit.rule = "yes"
    seen = {}
    for name, call in {
        "Call": lambda: alice.call("echo", "test/params"),
        "Call tools/call": lambda: alice.call("echo", "tools/call", {"arguments": {}, "name": "echo"}),
        "CallTool": lambda: alice.call_tool("echo", "e\u0301cho \n\"", {}),
        "Notify": lambda: alice.notify("echo", "notifications/x"),
        "StartServer": lambda: alice.start_server("echo"),
        "ListTools": lambda: alice.list_tools("echo"),
        "Describe": lambda: alice.describe("echo"),
    }.items():
        polkit.forget()
        try:
            call()
        except CallFailed as error:
            assert error.name == "Remote"
        seen[name] = {tuple(sorted(question.details.items())) for question in polkit.questions}
    assert seen == {
        "Call": {(("method", "test/params"), ("server", "echo"))},
        "Call tools/call": {(("method", "tools/call"), ("server", "echo"), ("tool", "echo"))},
        "CallTool": {(("method", "tools/call"), ("server", "echo"), ("tool", "e\u0301cho \n\""))},
        "Notify": {(("method", "notifications/x"), ("server", "echo"))},
        "StartServer": {(("method", "StartServer"), ("server", "echo"))},
        "ListTools": {(("method", "tools/list"), ("server", "echo"))},
        "Describe": {(("method", "Describe"), ("server", "echo"))},
    }


def test_a_batch_asks_for_each_tool_once(polkit, alice):
    polkit.rule = "yes"
    items = [("tools/call", {"name": name}) for name in ("echo", "pid", "echo", "sleep")]
    results = alice.call_batch("obedient", *items, ("tools/list", ""))
    assert [ok for ok, _ in results] == 5 * [True]
    assert [question.tool for question in polkit.asked(CALL)] == ["echo", "pid", "sleep", None]
    assert len(polkit.asked(USE_NETWORK)) == 4


def test_one_denied_item_denies_the_batch(service, polkit, alice):
    polkit.rule = lambda question: "no" if question.tool == "pid" else "yes"
    with fails(DENIED, "server obedient"):
        alice.call_batch("obedient", ("tools/call", {"name": "echo", "arguments": {"message": "x"}}),
                         ("tools/call", {"name": "pid"}))
    assert not started(service)


def test_an_empty_batch_asks_nothing(polkit, alice):
    assert alice.call_batch("echo") == []
    assert polkit.questions == []


HIDDEN_TOOL = [
    '{"name":"echo","name":"pid"}',
    '{"name":"pid","name":"echo"}',
    r'{"name":"echo","n\u0061me":"pid"}',
    '{"name":"echo","Name":"pid"}',
    '{"NAME":"pid","name":"echo"}',
    r'{"name":"echo","name\u0000":"pid"}',
    '{"Name":"pid"}',
    '{"name":["pid"]}',
    '{"name":null}',
    r'{"name":"pid\u0000"}',
    r'{"name":"pid\ud800"}',
    '{"name":"pid\ufffe"}',
    '{"arguments":{"name":"echo"}}',
    '{}',
    '',
    '[]',
]


@pytest.mark.parametrize("params", HIDDEN_TOOL)
def test_a_tool_that_could_be_read_in_two_ways_is_refused(service, polkit, alice, params):
    """What polkit is told has to be what the server will find, whatever library reads it there."""
    polkit.rule = lambda question: "yes" if question.tool in ("echo", None) else "no"
    with fails(("InvalidArguments", UNREADABLE)):
        alice.call("obedient", "tools/call", params)
    try:
        (ok, text), = alice.call_batch("obedient", ("tools/call", params))
        assert not ok and "InvalidArguments" in text
    except CallFailed as error:
        check_failure(error, ("InvalidArguments", UNREADABLE))
    assert not started(service)


def test_params_that_are_no_json_are_refused(service, polkit, alice):
    polkit.rule = "yes"
    with fails("InvalidJson"):
        alice.call("obedient", "tools/call", '{"name":"echo"')
    assert not started(service)


def test_long_texts_are_refused_unasked(polkit, alice):
    polkit.rule = "yes"
    with fails("InvalidArguments"):
        alice.call("echo", "m" * 1025)
    with fails("InvalidArguments"):
        alice.call_tool("echo", "t" * 1025)
    assert polkit.questions == []


# Who isn't asked

def test_root_is_not_asked(service, polkit):
    assert service.caller().tool_text("echo", "echo", {"message": "hi"}) == "hi"
    service.caller().reload()
    assert polkit.questions == []


def test_the_services_own_user_is_not_asked(service, polkit, alice):
    """And others are, when the service isn't root."""
    service.run_directly(user=ALICE)
    assert alice.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    alice.stop_server("echo")
    assert polkit.questions == []
    with fails(DENIED):
        service.caller(uid=BOB).call("echo", "tools/list")
    assert polkit.questions[0].action == CALL
    assert service.caller().tool_text("echo", "echo", {"message": "root"}) == "root"


@pytest.mark.parametrize("access, groups", [({"users": [ALICE]}, ()), ({"groups": [777]}, (1, 777)), ({"groups": [777]}, (777,))])
def test_access_answers_without_polkit(service, polkit, access, groups):
    service.echo("open", access=access)
    caller = service.caller(uid=ALICE, groups=groups)
    assert caller.tool_text("open", "echo", {"message": "hi"}) == "hi"
    assert caller.call_batch("open", ("tools/list", ""))[0][0]
    caller.list_tools("open")
    assert polkit.questions == []
    for other in (service.caller(uid=BOB), service.caller(uid=BOB, groups=(778,))):
        with fails(DENIED):
            other.call("open", "tools/list")
    with fails(DENIED, MANAGE):
        caller.stop_server("open")
    with fails(DENIED):
        caller.call("echo", "tools/list")


# Verdicts that are kept

def test_a_grant_is_kept_for_a_moment(polkit, alice):
    polkit.rule = "yes"
    for _ in range(5):
        alice.call_tool("echo", "pid")
    assert len(polkit.questions) == 2
    settle(WAIT + 0.3)
    alice.call_tool("echo", "pid")
    assert len(polkit.questions) == 4


def test_a_grant_is_for_one_client_server_method_and_tool(service, polkit, alice):
    service.echo("second")
    service.echo("runner", executor=True)
    polkit.rule = "yes"
    other = service.caller(uid=ALICE)
    alice.call_tool("echo", "pid")
    for caller, server, method, params in [
        (alice, "echo", "tools/call", {"name": "echo", "arguments": {"message": "x"}}),
        (alice, "second", "tools/call", {"name": "pid"}),
        (alice, "runner", "tools/call", {"name": "pid"}),
        (alice, "echo", "tools/list", ""),
        (other, "echo", "tools/call", {"name": "pid"}),
    ]:
        polkit.forget()
        caller.call(server, method, params)
        assert len(polkit.questions) == 2, (server, method, params)
    polkit.forget()
    alice.call("echo", "tools/call", {"name": "pid"})
    assert polkit.questions == []


def test_a_grant_does_not_cover_the_next_connection(service, polkit, alice):
    polkit.rule = "yes"
    alice.call_tool("echo", "pid")
    alice.close()
    polkit.rule = "no"
    with fails(DENIED):
        service.caller(uid=ALICE).call_tool("echo", "pid")


def test_a_denial_is_not_kept(polkit, alice):
    with fails(DENIED):
        alice.call_tool("echo", "pid")
    polkit.rule = "yes"
    assert alice.call_tool("echo", "pid")


def test_a_grant_to_call_is_none_to_manage(polkit, alice):
    polkit.rule = lambda question: "no" if question.action == MANAGE else "yes"
    alice.start_server("echo")
    for method in ("StopServer", "RestartServer"):
        with fails(DENIED, MANAGE):
            alice.invoke(method, "s", "echo")
    with fails(DENIED, MANAGE):
        alice.reload()


def test_an_executor_needs_its_own_grant_after_a_reload(service, polkit, alice):
    """What was granted while a call was held is not what it needs when it goes on."""
    polkit.rule = lambda question: "silence" if question.action == USE_NETWORK else "yes" if question.action == CALL else "no"
    pending = alice.begin_tool("echo", "pid")
    question = eventually(lambda: polkit.asked(USE_NETWORK), "polkit is asked")[0]
    service.echo(executor=True)
    service.caller().reload()
    polkit.answer(question, "yes")
    with fails(DENIED, EXECUTE_CODE):
        pending.wait()
    assert not started(service)


# Many at once

def test_sixteen_at_once_ask_once(polkit, alice):
    polkit.rule = ("after", 0.3, "yes")
    pending = [alice.begin_tool("echo", "echo", {"message": str(i)}) for i in range(16)]
    assert [text_of(one.wait()) for one in pending] == [str(i) for i in range(16)]
    assert [question.action for question in polkit.questions] == [CALL, USE_NETWORK]


def test_sixteen_at_once_are_denied_by_one(service, polkit, alice):
    polkit.rule = ("after", 0.3, "no")
    pending = [alice.begin_tool("echo", "echo", {"message": str(i)}) for i in range(16)]
    for one in pending:
        with fails(DENIED):
            one.wait()
    assert [question.action for question in polkit.questions] == [CALL]
    assert not started(service)


def test_many_different_ones_at_once(polkit, alice, bob):
    """Each has its own verdict, in whatever order polkit answers."""
    polkit.rule = lambda question: ("after", 0.05 * (9 - int(question.tool) % 10),
                                    "yes" if int(question.tool) % 3 else "no")
    pending = [(caller, i, caller.begin_tool("echo", str(i))) for i in range(30) for caller in (alice, bob)]
    for caller, i, one in pending:
        with fails("Remote" if i % 3 else DENIED):
            one.wait()
    asked = [(question.subject[1]["name"], question.tool) for question in polkit.asked(CALL)]
    assert sorted(asked) == sorted((caller.unique_name, str(i)) for caller, i, _ in pending)


def test_two_clients_verdicts_are_not_mixed_up(polkit, alice, bob):
    names = {alice.unique_name: "yes", bob.unique_name: "no"}
    polkit.rule = lambda question: ("after", 0.2, names[question.subject[1]["name"]])
    mine, theirs = alice.begin_tool("echo", "pid"), bob.begin_tool("echo", "pid")
    with fails(DENIED):
        theirs.wait()
    assert mine.wait()


# Somebody may be asked

def test_the_interactive_flag_is_passed_on(polkit, alice):
    polkit.rule = "yes"
    alice.begin_tool("echo", "pid", interactive=True).wait()
    assert [question.flags for question in polkit.questions] == [1, 1]


def test_a_challenge_is_said_to_those_who_could_be_asked(polkit, alice):
    polkit.rule = "challenge"
    with fails(ASK_FIRST, CALL):
        alice.call_tool("echo", "pid")
    with fails(DENIED, CALL):
        alice.begin_tool("echo", "pid", interactive=True).wait()


def test_an_interactive_question_is_another_one(polkit, alice):
    """Those who may not be asked don't wait for a password."""
    polkit.rule = lambda question: "silence" if question.interactive else "challenge"
    patient = alice.begin_tool("echo", "pid", interactive=True)
    eventually(lambda: polkit.questions, "polkit is asked")
    with fails(ASK_FIRST):
        alice.call_tool("echo", "pid")
    assert not patient.done
    settle(WAIT + 0.5)
    assert not patient.done and polkit.cancelled == []
    polkit.rule = "yes"
    polkit.answer(polkit.asked(CALL)[0], "yes")
    assert patient.wait()


# Managing

def test_managing_asks_for_manage(service, polkit, alice):
    polkit.rule = "yes"
    for method, details in {"StopServer": ("s", "echo"), "RestartServer": ("s", "echo"), "Reload": ("",)}.items():
        polkit.forget()
        alice.invoke(method, *details)
        question, = polkit.questions
        assert question.action == MANAGE
        assert question.details == {"method": method, **({"server": "echo"} if method != "Reload" else {})}


def test_who_may_not_manage_changes_nothing(service, polkit, alice):
    root = service.caller()
    pid = root.tool_text("obedient", "pid")
    for method in ("StopServer", "RestartServer"):
        with fails(DENIED, MANAGE):
            alice.invoke(method, "s", "obedient")
    service.echo("late")
    with fails(DENIED, MANAGE):
        alice.reload()
    assert root.tool_text("obedient", "pid") == pid
