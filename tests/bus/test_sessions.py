"""Sessions: MCP clients on a socket of their own, sharing warm workers."""

import json
import os

import dbus
import pytest
from caller import fails
from session import Session, refused
from waiting import eventually


def test_a_client_does_what_it_does_on_stdio(service, open_session):
    service.obedient()
    session = open_session(raw=True)
    greeting = session.initialize()
    assert greeting["serverInfo"]["name"] == "obedient"
    assert greeting["protocolVersion"] == "2025-11-25"
    assert session.request("ping") == {}
    assert "echo" in [tool["name"] for tool in session.request("tools/list")["tools"]]
    assert session.tool("echo", message="hö") == {"content": [{"type": "text", "text": "hö"}]}


def test_the_worker_is_shared_with_others(service, open_session, caller):
    service.obedient(pool={"max": 1})
    one, other = open_session(), open_session()
    pids = {one.tool_text("pid"), other.tool_text("pid"), caller.tool_text("obedient", "pid")}
    assert len(pids) == 1


def test_ids_come_back_as_they_were(service, open_session):
    service.obedient()
    session = open_session()
    for id in ("a", "", "ö\\\"", 0, -7, 2**63, "1", 123456789012345678901234567890):
        assert session.request("ping", id=id) == {}
        session.answers.clear()
        assert session.wait(session.begin("tools/call", {"name": "echo", "arguments": {"message": "x"}}, id=id))
        session.answers.clear()


def test_errors_of_the_server_come_as_it_wrote_them(service, open_session):
    service.obedient()
    session = open_session()
    with refused(-31999, "never") as refusal:
        session.tool("refuse", code=-31999, message="never", data={"why": [1, 2]})
    assert refusal.error.data == {"why": [1, 2]}
    with refused(-32601):
        session.request("no/such/method")


def test_errors_of_the_broker_say_whose_they_are(service, open_session):
    service.obedient()
    session = open_session()
    with refused(-32000, "killed by signal") as refusal:
        session.tool("die")
    assert refusal.error.data == {"source": "mcp-exec", "error": "org.example.McpExec.Error.WorkerDied"}
    assert session.tool_text("echo", message="and on") == "and on"


def test_progress_comes_with_the_clients_own_token(service, open_session):
    service.obedient()
    one, other = open_session(), open_session()
    for session, token in ((one, "mine"), (other, 7)):
        # The worker knows the token that the broker gave it.
        session.begin("test/params", {"_meta": {"progressToken": token}})
    assert one.wait(1 + 1)["params"]["_meta"]["progressToken"] != "mine"


def test_a_cancelled_call_has_no_answer(service, open_session):
    service.obedient()
    one, other = open_session(), open_session()
    sleeping = one.begin_tool("sleep", seconds=60)
    others = other.begin_tool("sleep", seconds=1, message="slept")
    # Whose id it isn't can't cancel it.
    other.notify("notifications/cancelled", {"requestId": sleeping + 1000})
    one.notify("notifications/cancelled", {"requestId": sleeping, "reason": "enough"})
    heard = one.tool_json("notifications")
    assert heard[-1]["method"] == "notifications/cancelled" and heard[-1]["params"]["reason"] == "enough"
    assert other.text(others) == "slept"
    assert not one.answers.get(json.dumps(sleeping))


def test_attached_pipes(service, caller):
    service.obedient()
    their_input, my_output = os.pipe()
    my_input, their_output = os.pipe()
    closed = caller.signals("SessionClosed")
    id = caller.invoke("AttachSession", "shha{sv}", "obedient", dbus.types.UnixFd(their_input),
                       dbus.types.UnixFd(their_output), dbus.Dictionary({}, signature="sv"))
    os.close(their_input)
    os.close(their_output)
    os.write(my_output, b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    assert json.loads(os.read(my_input, 4096)) == {"jsonrpc": "2.0", "id": 1, "result": {}}
    os.close(my_output)
    eventually(lambda: closed.seen, "SessionClosed")
    assert closed.seen[0][1] == id
    assert os.read(my_input, 4096) == b""
    os.close(my_input)


def test_files_cannot_be_attached(service, caller, tmp_path):
    service.obedient()
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    with fails("InvalidArguments", "neither a pipe nor a socket"):
        caller.invoke("AttachSession", "shha{sv}", "obedient", dbus.types.UnixFd(file), dbus.types.UnixFd(file),
                      dbus.Dictionary({}, signature="sv"))
    os.close(file)


def test_unknown_servers_and_options(service, caller):
    service.obedient()
    with fails("NoSuchServer", "obedient"):
        Session.open(caller, "obediant")
