"""What servers say unasked: each session hears what concerns it. And tasks, which outlive the call that made them."""

import json

from real_servers import everything
from session import refused
from test_sessions_questions import EVERYTHING, answering, text_of
from waiting import eventually


def said(session, method):
    return [message["params"] for message in session.notices if message["method"] == method]


def test_changed_lists_are_told_to_all_of_the_pool(service, open_session):
    service.obedient(pool={"max": 1})
    one, other = open_session(), open_session()
    one.tool("learn", name="more")
    for session in (one, other):
        session.until(lambda: any("tools/list_changed" in message["method"] for message in session.notices))


def test_log_messages_by_each_ones_level(service, open_session):
    everything(service)
    one, other = open_session("everything"), open_session("everything")
    one.request("logging/setLevel", {"level": "debug"})
    other.request("logging/setLevel", {"level": "emergency"})
    one.tool("toggle-simulated-logging")
    one.until(lambda: len(said(one, "notifications/message")) >= 2, timeout=60)
    other.request("ping")
    assert {params["level"] for params in said(other, "notifications/message")} <= {"emergency"}
    with refused(-32602):
        one.request("logging/setLevel", {"level": "loud"})


def test_updates_of_resources_go_to_subscribers(service, open_session):
    everything(service)
    one, other = open_session("everything"), open_session("everything")
    uri = "demo://resource/dynamic/text/1"
    assert one.request("resources/subscribe", {"uri": uri}) == {}
    one.tool("toggle-subscriber-updates")
    one.until(lambda: said(one, "notifications/resources/updated"), timeout=60)
    other.request("ping")
    assert {params["uri"] for params in said(one, "notifications/resources/updated")} == {uri}
    assert not said(other, "notifications/resources/updated")
    assert one.request("resources/unsubscribe", {"uri": uri}) == {}
    with refused(-32602):
        one.request("resources/subscribe", {})


def test_subscriptions_survive_their_worker(service, open_session, caller):
    everything(service)
    session = open_session("everything")
    uri = "demo://resource/dynamic/text/1"
    session.request("resources/subscribe", {"uri": uri})
    before = caller.workers("everything")[0]
    caller.restart_server("everything")
    eventually(lambda: [worker["Pid"] for worker in caller.workers("everything") if worker["State"] == "ready"] not in
               ([], [before["Pid"]]) and len(caller.workers("everything")) == 1, "another worker has come", 30)
    session.tool("toggle-subscriber-updates")
    session.until(lambda: said(session, "notifications/resources/updated"), timeout=60)


def research(session, **arguments):
    result = session.request("tools/call", {"name": "simulate-research-query", "arguments": {"topic": "x", **arguments},
                                            "task": {"ttl": 60000}, "_meta": {"progressToken": "mine"}})
    return result["task"]["taskId"]


def test_tasks_are_their_sessions_own(service, open_session):
    everything(service)
    one, other = (open_session("everything", answer=answering(name), **EVERYTHING) for name in ("one", "other"))
    task = research(one)
    assert one.request("tasks/get", {"taskId": task})["taskId"] == task
    assert [entry["taskId"] for entry in one.request("tasks/list")["tasks"]] == [task]
    assert other.request("tasks/list")["tasks"] == []
    for method in ("tasks/get", "tasks/result", "tasks/cancel"):
        with refused(-32602):
            other.request(method, {"taskId": task})
    mine = research(other, ambiguous=True)
    assert [entry["taskId"] for entry in other.request("tasks/list")["tasks"]] == [mine]
    assert text_of(one.request("tasks/result", {"taskId": task}))
    # What a task asks is asked of the one whose task it is.
    other.request("tasks/result", {"taskId": mine})
    assert [message["method"] for message in other.requests if message["method"] != "roots/list"] == ["elicitation/create"]
    assert not [message for message in one.requests if message["method"] != "roots/list"]
    assert {params["taskId"] for params in said(one, "notifications/tasks/status")} <= {task}


def test_a_task_that_the_client_runs(service, open_session):
    """A server's sampling as a task: the client answers with a task, which the server asks about."""
    everything(service)
    state = {"asked": 0}
    sampled = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "later"}}

    def answer(message):
        method = message["method"]
        if method == "roots/list":
            return {"roots": []}
        task = {"taskId": "client-task", "status": "completed" if state["asked"] > 1 else "working", "ttl": 60000,
                "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z", "pollInterval": 50}
        if method == "sampling/createMessage":
            return {"task": task}
        if method == "tasks/get":
            state["asked"] += 1
            return task
        if method == "tasks/result":
            return sampled
        return {"error": {"code": -32601, "message": method}}

    session = open_session("everything", answer=answer, **EVERYTHING)
    result = session.tool("trigger-sampling-request-async", prompt="x", maxTokens=10)
    assert "later" in text_of(result), result
    assert state["asked"] > 1


def test_a_worker_with_a_task_is_not_let_go(service, open_session):
    everything(service, keep_alive={"enabled": True, "timeout": 1, "check_interval": 0})
    session = open_session("everything", answer=answering(), **EVERYTHING)
    task = research(session)
    session.until(lambda: session.request("tasks/get", {"taskId": task})["status"] == "completed", "it is done", 30)
    assert text_of(session.request("tasks/result", {"taskId": task}))


def test_a_task_ends_with_its_session(service, open_session, caller):
    journal = service.folder / "journal"
    everything(service)
    session = open_session("everything", answer=answering(), **EVERYTHING)
    research(session)
    session.close()
    eventually(lambda: caller.stop_server("everything") is None or True)
    assert not journal.exists()
