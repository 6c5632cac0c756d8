"""What polkit is asked, and what its answers do, with the stand-in for it of polkit_stand_in.py."""

import dbus.lowlevel
import pytest

from caller import NAME, OBJECT_MANAGER, PATH, ROOT, WORKER, CallFailed, fails
from machine import DENIED, worker_units
from polkit_stand_in import ASK, DENIAL, NO, POLKIT, YES
from waiting import eventually, settle

WAITING = 64  # messages of one connection


def call(caller, server, tool="echo", arguments={"message": "hi"}):
    """A call that is waited for while the stand-in answers: they have one main loop."""
    return caller.begin_tool(server, tool, arguments).wait()


def begin_interactively(caller, member, signature, *arguments):
    """A call that allows that its user is asked; returns a list that gets the answer."""
    message = dbus.lowlevel.MethodCallMessage(NAME, PATH, ROOT, member)
    message.append(signature=signature, *arguments)
    message.set_allow_interactive_authorization(True)
    answers = []
    caller.bus.send_message_with_reply(message, answers.append, 60)
    caller.bus.flush()
    return answers


def test_the_subject_is_the_connection(machine, mock, carol):
    """Never a process id, which another process may have by the time of the answer."""
    machine.echo()
    pending = carol.begin_tool("echo", "echo", {"message": "hi"})
    question = mock.asked()
    kind, details = question.subject
    assert (kind, dict(details)) == ("system-bus-name", {"name": carol.unique_name})
    assert question.action == f"{NAME}.call"
    assert question.details == {"server": "echo", "method": "tools/call", "tool": "echo"}
    assert question.flags == 0
    assert question.cancellation
    assert not pending.done
    question.answer(*YES)
    assert "hi" in pending.wait()


def test_code_and_network_are_actions_of_their_own(machine, mock, carol):
    machine.python("networked", sandbox={"PrivateNetwork": False})
    mock.answers = {"execute-code": YES}
    pending = carol.begin_call("networked", "ping")
    question = mock.asked(2)
    assert [asked.action for asked in mock.questions] == [f"{NAME}.execute-code", f"{NAME}.use-network"]
    assert question.details == {"server": "networked", "method": "ping"}
    question.answer(*NO)
    with fails(DENIAL, "use-network"):
        pending.wait()
    assert not worker_units()


@pytest.mark.parametrize("member, arguments, details", [
    ("StopServer", ("s", "python"), {"server": "python", "method": "StopServer"}),
    ("RestartServer", ("s", "python"), {"server": "python", "method": "RestartServer"}),
    ("Reload", ("",), {"method": "Reload"}),
])
def test_managing_is_another(mock, carol, member, arguments, details):
    pending = carol.begin(member, *arguments)
    question = mock.asked()
    assert (question.action, question.details) == (f"{NAME}.manage", details)
    question.answer(*YES)
    pending.wait()


@pytest.mark.parametrize("answer, error", [
    (lambda question: question.answer(*NO), DENIAL),
    (lambda question: question.answer(*ASK), "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"),
    (lambda question: question.fail(), DENIAL),
    (lambda question: question.fail("org.freedesktop.DBus.Error.NoReply"), DENIAL),
    (lambda question: question.fail(f"{POLKIT}.Error.NotAuthorized"), DENIAL),
])
def test_every_other_answer_is_a_denial(mock, carol, answer, error):
    pending = carol.begin_tool("python", "run", {"code": "1"})
    answer(mock.asked())
    with fails(error):
        pending.wait()
    assert not worker_units()


def test_an_answer_of_another_form_is_a_denial(machine, mock, carol):
    """Each to a connection of its own, as a verdict is kept for one."""
    body = []

    def reply(_, message):
        if message.get_member() != "CheckAuthorization":
            return dbus.lowlevel.HANDLER_RESULT_NOT_YET_HANDLED
        answer = dbus.lowlevel.MethodReturnMessage(message)
        for signature, value in body:
            answer.append(value, signature=signature)
        mock.bus.send_message(answer)
        return dbus.lowlevel.HANDLER_RESULT_HANDLED

    mock.bus.add_message_filter(reply)
    for body[:] in ([("s", "yes")], [("b", True)], [("(bb)", (True, False))], [], [("(bbs)", (True, False, ""))],
                    [("b", True), ("b", False)], [("(uu)", (1, 0))]):
        with fails(DENIAL):
            call(machine.caller("carol"), "python", "run", {"code": "1"})
    assert not worker_units()


def test_silence_is_a_denial_and_the_question_is_withdrawn(mock, carol, bob):
    """Unless people may be asked: it takes a while to type a password."""
    patient = begin_interactively(bob, "Call", "sss", "python", "tools/list", "")
    asked = mock.asked()
    assert asked.flags == 1
    pending = carol.begin_tool("python", "run", {"code": "1"})
    question = mock.asked(2)
    with fails(DENIAL):
        pending.wait(8)
    eventually(lambda: question.cancelled, "the question is withdrawn")
    # An answer that comes after all changes nothing.
    question.answer(*YES)
    settle(0.3)
    assert pending.answers == 1
    assert not worker_units()

    assert not patient and not asked.cancelled
    asked.answer(*YES)
    answer = eventually(lambda: patient, "the answer")[0]
    assert not isinstance(answer, dbus.lowlevel.ErrorMessage), answer.get_args_list()


def test_many_held_calls_hurt_nobody_else(machine, mock, carol, bob):
    """Those beyond what one connection may have wait are refused, and everything is answered."""
    machine.echo(access={"users": ["bob"]})
    calls = [carol.begin_tool("python", "run", {"code": str(number)}) for number in range(100)]
    question = mock.asked()
    assert call(bob, "echo")
    assert carol.property("Version"), "what it sent before has been read"
    eventually(lambda: sum(pending.done for pending in calls) == 100 - WAITING, "the rest is refused", timeout=4)
    question.answer(*NO)
    names = set()
    for pending in calls:
        with fails((DENIAL, "LimitsExceeded")) as caught:
            pending.wait()
        names.add(caught[0].name)
    assert names == {DENIAL, "LimitsExceeded"}
    assert len(mock.questions) == 1, "they all ask the same"


def test_a_caller_that_leaves_has_its_question_withdrawn(machine, mock, carol):
    carol.begin_tool("python", "run", {"code": "1"})
    question = mock.asked()
    carol.close()
    eventually(lambda: question.cancelled, "the question is withdrawn", timeout=3)
    question.answer(*YES)
    settle(0.3)
    assert not worker_units()
    assert machine.root.property("CallsInFlight") == 0


def test_a_verdict_is_one_connections_and_one_servers(machine, mock, carol):
    """It spares an agent's next calls the question, and nobody else's."""
    machine.echo()
    mock.answers = {"call": YES}
    for _ in range(5):
        call(carol, "echo")
    assert len(mock.questions) == 1
    call(machine.caller("carol"), "echo")
    assert len(mock.questions) == 2
    call(machine.caller("bob"), "echo")
    assert len(mock.questions) == 3
    machine.echo("other")
    call(carol, "other")
    assert len(mock.questions) == 4


def test_a_verdict_is_kept_for_seconds_alone(machine, mock, carol):
    machine.echo()
    mock.answers = {"call": YES}
    call(carol, "echo")
    mock.answers = {"call": NO}

    def denied():
        try:
            call(carol, "echo")
        except CallFailed as error:
            return error.name in DENIED
        settle(0.5)
        return False

    eventually(denied, "the verdict is forgotten", timeout=12)


def test_nobody_is_asked_about_who_may_anyway(machine, mock):
    machine.echo(access={"users": ["carol"]})
    call(machine.caller("carol"), "echo")
    machine.root.begin("StopServer", "s", "echo").wait()
    call(machine.caller("mcp-exec"), "python", "run", {"code": "1"})
    assert not mock.questions


def test_looking_at_objects_asks_quietly(machine, mock, bob):
    """Whether one sees what is others'; a no shows less and is no error, and nobody is bothered."""
    def seen():
        objects = machine.caller("alice").begin("GetManagedObjects", "", interface=OBJECT_MANAGER).wait()
        return [path for path, interfaces in objects.items() if WORKER in interfaces]

    mock.answers = {"execute-code": YES, "manage": NO}
    call(bob, "python", "run", {"code": "1"})
    assert seen() == []
    assert {question.flags for question in mock.questions} == {0}
    mock.answers["manage"] = YES
    assert len(seen()) == 1
