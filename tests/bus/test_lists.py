"""What there is to call: ListServers and ListTools."""

import json

import pytest

from caller import CallFailed, fails
from service import PYTHON, REPO
from waiting import eventually

HOSTILE = str(REPO / "tests/workers/hostile.py")


def starts(service):
    """How often a worker was started with --starts."""
    file = service.folder / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


def obedient(service, *args, **keys):
    return service.obedient("obedient", "--starts", service.folder / "starts", *args, **keys)


def test_servers_with_description_and_state(service, caller):
    service.echo("echo", description="Says it again")
    service.obedient("other")
    servers = {name: (description, state) for name, description, state in caller.list_servers()}
    assert set(servers) == {"echo", "other"}
    assert servers["echo"] == ("Says it again", "inactive")
    caller.call_tool("echo", "pid")
    assert {name: state for name, _, state in caller.list_servers()} == {"echo": "active", "other": "inactive"}
    assert caller.property("Servers")


def test_no_servers_at_all(service, caller):
    assert caller.list_servers() == []


def test_listing_servers_starts_none(service, caller):
    obedient(service)
    caller.list_servers()
    assert starts(service) == 0 and caller.workers() == []


def test_tools_with_description_and_schema(service, caller):
    service.echo()
    tools = {name: (description, json.loads(schema)) for name, description, schema in caller.list_tools("echo")}
    assert tools["echo"] == ("Returns its message", {"type": "object", "properties": {"message": {"type": "string"}}})


def test_tools_of_an_unknown_server(service, caller):
    with fails("NoSuchServer", "nowhere"):
        caller.list_tools("nowhere")


def test_paged_tools_are_joined(service, caller):
    service.obedient("obedient", "--tools", 25, "--page", 7)
    names = [name for name, _, _ in caller.list_tools("obedient")]
    assert [name for name in names if name.startswith("extra-")] == [f"extra-{n}" for n in range(25)]
    assert "echo" in names and len(names) == len(set(names))


def test_odd_cursors_and_empty_pages(service, caller):
    service.server("paged", PYTHON, HOSTILE, "paged-tools")
    assert [name for name, _, _ in caller.list_tools("paged")] == ["echo", "pid", "last"]


def test_endless_pages_end(service, caller):
    service.server("endless", PYTHON, HOSTILE, "endless-pages", timeouts={"call": 20})
    service.echo()
    try:
        assert len(caller.list_tools("endless")) < 100_000
    except CallFailed as error:
        assert error.name in ("ProtocolError", "TooLarge", "LimitsExceeded", "Timeout"), error
    assert caller.tool_text("echo", "echo", {"message": "alive"}) == "alive"


def test_tools_are_cached(service, caller):
    obedient(service, "--journal", service.folder / "journal")
    first = caller.list_tools("obedient")
    assert caller.list_tools("obedient") == first
    assert service.caller().list_tools("obedient") == first
    assert (service.folder / "journal").read_text().count('"tools/list"') == 1


def test_cached_tools_need_no_worker(service, caller):
    obedient(service)
    first = caller.list_tools("obedient")
    assert starts(service) == 1
    caller.stop_server("obedient")
    assert caller.list_tools("obedient") == first
    assert starts(service) == 1
    eventually(lambda: caller.workers("obedient") == [], "no worker is started for it")


def test_a_changed_list_is_read_again(service, caller):
    obedient(service)
    assert "learnt" not in [name for name, _, _ in caller.list_tools("obedient")]
    caller.call_tool("obedient", "learn", {"name": "learnt"})
    eventually(lambda: "learnt" in [name for name, _, _ in caller.list_tools("obedient")], "the new tool is listed")


def test_tools_changed_is_signalled(service, caller):
    service.server("changing", PYTHON, HOSTILE, "list-changes")
    other = service.caller()
    signals = other.signals("ToolsChanged")
    caller.list_tools("changing")
    caller.call_tool("changing", "change")
    eventually(lambda: ("/org/example/McpExec", "changing") in signals.seen, "ToolsChanged")


@pytest.mark.parametrize("mood", ["early-notification", "roots-at-once"])
def test_servers_that_talk_early(service, caller, mood):
    service.server("early", PYTHON, HOSTILE, mood)
    assert "echo" in [name for name, _, _ in caller.list_tools("early")]
    assert caller.tool_text("early", "echo", {"message": "hi"}) == "hi"
