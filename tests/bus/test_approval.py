"""A server whose file approves of its tools: others are none that anybody can call."""

import re

import pytest
from caller import CallFailed, fails
from service import PYTHON, REPO
from session import Session, refused
from waiting import eventually

HOSTILE = REPO / "tests/workers/hostile.py"


def digest_of(caller, server):
    """What the error says that the file would have to say."""
    with pytest.raises(CallFailed) as failed:
        caller.list_tools(server)
    assert failed.value.name == "Unavailable"
    return re.search(r"digest is ([0-9a-f]{64})", failed.value.message).group(1)


@pytest.fixture
def digest(service, caller):
    service.obedient("one", tools_digest=["none yet"])
    found = digest_of(caller, "one")
    service.obedient("one", tools_digest=["of another version", found])
    caller.reload()
    return found


def test_tools_that_arent_approved(service, caller):
    service.obedient("one", tools_digest=["0" * 64])
    with fails("Unavailable", "server one", "approves of", "tools_digest"):
        caller.call_tool("one", "echo", {"message": "x"})
    with fails("Unavailable", "tools_digest"):
        caller.call("one", "tools/list")
    assert "approves of" in service.log_text()


def test_tools_that_are_approved(service, caller, digest):
    assert caller.tool_text("one", "echo", {"message": "x"}) == "x"
    assert digest in caller.describe("one")["tools_digest"]


def test_another_command_with_the_same_tools(service, caller, digest):
    service.server("two", PYTHON, REPO / "tests/bus/obedient_worker.py", tools_digest=[digest])
    caller.reload()
    assert caller.tool_text("two", "echo", {"message": "x"}) == "x"


def test_tools_on_several_pages(service, caller):
    service.obedient("paged", "--tools", 25, "--page", 7, tools_digest=["?"])
    whole = digest_of(caller, "paged")
    service.obedient("paged", "--tools", 25, "--page", 9, tools_digest=[whole])
    caller.reload()
    assert len(caller.list_tools("paged")) > 25


def test_a_server_that_changes_its_tools_is_stopped(service, caller, digest):
    before = caller.tool_text("one", "pid")
    def pid():
        try:
            return caller.tool_text("one", "pid")
        except CallFailed as error:
            assert error.name in ("Unavailable", "WorkerDied"), error
            return before

    try:
        caller.call_tool("one", "learn", {"name": "learnt"})
    except CallFailed as error:
        assert error.name in ("Unavailable", "WorkerDied"), error
    eventually(lambda: pid() != before, "another worker", 30)
    assert "learnt" not in [name for name, _, _ in caller.list_tools("one")]
    assert "approves of" in service.log_text()


def test_calls_that_wait_fail_together(service, caller):
    service.obedient("slow", "--delay", 1, tools_digest=["0" * 64])
    calls = [caller.begin_tool("slow", "echo", {"message": "x"}) for _ in range(20)]
    for call in calls:
        with fails("Unavailable", "approves of"):
            call.wait()


def test_a_server_that_cant_list_isnt_approved(service, caller):
    service.server("mute", PYTHON, HOSTILE, "endless-pages", tools_digest=["0" * 64])
    with fails("Unavailable", "longer than"):
        caller.call_tool("mute", "echo", {"message": "x"})


def test_a_session_is_refused_as_well(service, caller):
    service.obedient("one", tools_digest=["0" * 64])
    session = Session.open(caller, "one")
    with refused(-32000, "approves of"):
        session.initialize()
        session.tool("echo", message="x")
    session.close()


def test_a_process_for_each_call_cant_be_looked_at(service, caller):
    service.obedient("one", keep_alive=False, tools_digest=["0" * 64])
    assert "more than one call" in str(caller.reload())
