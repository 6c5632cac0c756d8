"""What servers ask of the clients of sessions, and whom: sampling, elicitation, roots; tasks, which go on by themselves."""

import json

import pytest
from real_servers import everything
from session import Closed, Refused, Session, refused
from waiting import eventually

SAMPLED = {"role": "assistant", "model": "test", "content": {"type": "text", "text": "sampled"}, "stopReason": "endTurn"}
EVERYTHING = {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {"form": {}, "url": {}},
              "tasks": {"list": {}, "cancel": {}, "requests": {"sampling": {"createMessage": {}}, "elicitation": {"create": {}}}}}


def answering(name="one"):
    """A client that answers all that it is asked, in its own name."""
    def answer(message):
        if message["method"] == "roots/list":
            return {"roots": [{"uri": f"file:///{name}", "name": name}]}
        if message["method"] == "sampling/createMessage":
            return {**SAMPLED, "content": {"type": "text", "text": f"sampled by {name}"}}
        if message["method"] == "elicitation/create":
            return {"action": "accept", "content": {"name": name, "check": True}}
        return {"error": {"code": -32601, "message": "Method not found"}}
    return answer


def text_of(result):
    return "\n".join(item.get("text", "") for item in result["content"])


def test_a_server_asks_the_one_who_called(service, open_session):
    service.obedient(pool={"max": 1})
    one, other = (open_session(answer=answering(name), **EVERYTHING) for name in ("one", "other"))
    for session, name in ((one, "one"), (other, "other"), (one, "one")):
        answer = session.tool_json("ask", method="sampling/createMessage", params={"messages": [], "maxTokens": 1})
        assert answer["result"]["content"]["text"] == f"sampled by {name}"
    assert len(one.requests) == 2 and len(other.requests) == 1


def test_an_error_of_the_client_reaches_the_server(service, open_session):
    service.obedient()
    session = open_session(answer=lambda _: {"error": {"code": -1, "message": "I won't", "data": [1]}}, **EVERYTHING)
    answer = session.tool_json("ask", method="sampling/createMessage", params={"messages": [], "maxTokens": 1})
    assert answer["error"] == {"code": -1, "message": "I won't", "data": [1]}


def test_what_a_client_does_not_declare_it_is_not_asked(service, open_session, caller):
    service.obedient()
    session = open_session(answer=answering(), roots={})
    answer = session.tool_json("ask", method="sampling/createMessage", params={"messages": [], "maxTokens": 1})
    assert answer["error"]["code"] == -32601
    assert not session.requests
    assert session.tool_json("greeting")["capabilities"] == {"roots": {}}
    # Nobody is asked for calls of the bus.
    assert caller.tool_json("obedient", "ask", {"method": "roots/list"})["error"]["code"] == -32601


def test_clients_that_can_the_same_share_a_worker(service, open_session, caller):
    service.obedient(pool={"max": 1})
    pids = [open_session(**capabilities).tool_text("pid")
            for capabilities in ({}, {"sampling": {}}, {"roots": {}}, {"sampling": {}}, {})]
    assert pids[0] == pids[4] == caller.tool_text("obedient", "pid")
    assert pids[1] == pids[3] and len(set(pids)) == 3


def test_two_callers_of_a_tool_that_asks_take_turns(service, open_session):
    service.obedient(pool={"max": 1})
    one, other = (open_session(answer=answering(name), **EVERYTHING) for name in ("one", "other"))
    asking = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"type": "object"}}}
    one.tool("ask", **asking)  # so that it is known to ask
    calls = [(session, name, session.begin_tool("ask", **asking)) for _ in range(4)
             for session, name in ((one, "one"), (other, "other"))]
    pending = {(session, id): name for session, name, id in calls}
    while pending:
        for (session, id), name in list(pending.items()):
            session.turn(0.01)
            if session.answers.get(json.dumps(id)):
                assert json.loads(session.text(id))["result"]["content"]["name"] == name
                del pending[session, id]


def test_where_it_cannot_be_told_who_is_asked_nobody_is(service, open_session):
    service.obedient(pool={"max": 1})
    one, other = (open_session(answer=answering(name), **EVERYTHING) for name in ("one", "other"))
    sleeping = other.begin_tool("sleep", seconds=3, message="slept")
    eventually(lambda: other.tool_text("echo", message="it is asleep"))
    answer = one.tool_json("ask", method="sampling/createMessage", params={"messages": [], "maxTokens": 1})
    assert answer["error"]["code"] == -32000 and not one.requests and not other.requests
    assert other.text(sleeping) == "slept"


def test_a_question_has_time(service, open_session):
    """While its client is asked, a call's clock stands still."""
    service.obedient(timeouts={"call": 1})
    session = open_session(**EVERYTHING)
    asking = session.begin_tool("ask", method="sampling/createMessage", params={"messages": [], "maxTokens": 1})
    question = session.until(lambda: session.requests)[0]
    slept = session.begin_tool("sleep", seconds=1.5)
    with refused(-32000, "no answer within 1 s"):
        session.wait(slept)
    session.send({"id": question["id"], "result": SAMPLED})
    assert json.loads(session.text(asking))["result"] == SAMPLED


def test_a_client_that_leaves_refuses(service, open_session):
    service.obedient(pool={"max": 1})
    journal = service.folder / "journal"
    service.obedient("journal", "--journal", journal)
    session = open_session("journal", **EVERYTHING)
    session.begin_tool("ask", method="sampling/createMessage", params={"messages": [], "maxTokens": 1})
    session.until(lambda: session.requests)
    session.close()
    eventually(lambda: "the session has ended" in journal.read_text(), "the worker has an answer")


def test_a_server_takes_a_question_back(service, open_session):
    service.obedient()
    session = open_session(**EVERYTHING)
    asking = session.begin_tool("ask", method="sampling/createMessage", params={"messages": [], "maxTokens": 1})
    question = session.until(lambda: session.requests)[0]
    stderr = session.tool_text("write", stdout="")
    assert stderr == "written"
    # Whose ids it doesn't know it can't take back.
    session.tool("say", method="notifications/cancelled", params={"requestId": "unknown"})
    session.send({"id": question["id"], "result": SAMPLED})
    assert session.text(asking)
    # A late answer is nobody's.
    session.send({"id": question["id"], "result": SAMPLED})
    session.send({"id": "unknown", "result": SAMPLED})
    assert session.request("ping") == {}


def test_changed_roots_are_asked_of_whose_they_are(service, open_session):
    everything(service, pool={"max": 1})
    one, other = (open_session("everything", answer=answering(name), **EVERYTHING) for name in ("one", "other"))
    running = other.begin_tool("trigger-long-running-operation", duration=3, steps=3)
    other.tool("echo", message="it runs")
    seen, others = len(one.requests), len(other.requests)
    one.notify("notifications/roots/list_changed")
    one.until(lambda: [message for message in one.requests[seen:] if message["method"] == "roots/list"])
    assert other.wait(running) and len(other.requests) == others


def test_everything_asks(service, open_session):
    everything(service)
    session = open_session("everything", answer=answering("me"), **EVERYTHING)
    session.until(lambda: any(message["method"] == "roots/list" for message in session.requests), "it asks for roots")
    tools = {tool["name"] for tool in session.request("tools/list")["tools"]}
    assert {"trigger-sampling-request", "trigger-elicitation-request", "get-roots-list",
            "trigger-sampling-request-async"} <= tools
    assert "sampled by me" in text_of(session.tool("trigger-sampling-request", prompt="x", maxTokens=10))
    assert "me" in text_of(session.tool("trigger-elicitation-request"))
    assert "file:///me" in text_of(session.tool("get-roots-list"))
