"""Joined sessions: both eras, what servers ask and say unasked, and servers that come and go meanwhile."""

import json

import pytest
from real_servers import everything, stateless
from session import META, MODERN, refused
from test_aggregation import join, tools  # noqa: F401, a fixture
from test_sessions_eras import Modern
from test_sessions_news import said
from test_sessions_questions import EVERYTHING, answering, text_of
from waiting import eventually


@pytest.fixture
def modern(service, join):  # noqa: F811
    """A modern client on a legacy server and a modern one."""
    service.obedient("old")
    stateless(service, "new", "--modern")
    return Modern(join(raw=True), elicitation={"form": {}})


def test_a_modern_client_discovers_without_a_start(modern, caller):
    found = modern.request("server/discover")
    assert found["resultType"] == "complete" and MODERN in found["supportedVersions"]
    assert found["capabilities"]["tools"] and "two underscores" in found["instructions"]
    assert caller.workers() == []


def test_a_modern_client_lists_and_calls(modern):
    listed = modern.request("tools/list")
    assert listed["resultType"] == "complete" and "ttlMs" in listed and "cacheScope" in listed
    assert {"old__echo", "new__echo"} <= {tool["name"] for tool in listed["tools"]}
    for name in ("old", "new"):
        result = modern.tool(f"{name}__echo", message=name)
        assert result["resultType"] == "complete" and text_of(result) == name
    with refused(-32601):
        modern.request("ping")


def test_a_modern_client_is_asked_for_input(modern):
    """By a server of its own era: the second call finds the way by the tool's name."""
    asked = modern.tool("new__greet")
    assert asked["resultType"] == "input_required"
    done = modern.request("tools/call", name="new__greet", arguments={}, requestState=asked["requestState"],
                          inputResponses={"name": {"action": "accept", "content": {"name": "Ada"}}})
    assert "hello Ada" in text_of(done)


def test_a_modern_client_hears_of_changed_lists(service, modern):
    session = modern.session
    listening = modern.begin("subscriptions/listen", notifications={"toolsListChanged": True})
    session.until(lambda: said(session, "notifications/subscriptions/acknowledged"))
    service.echo("later")
    told = session.until(lambda: said(session, "notifications/tools/list_changed"))
    assert told[0]["_meta"][META + "subscriptionId"] in (listening, str(listening))
    assert text_of(modern.tool("later__echo", message="x")) == "x"


def test_a_modern_client_subscribes_at_a_legacy_server(service, join):  # noqa: F811
    everything(service)
    service.echo("other")
    session = join(raw=True)
    modern = Modern(session)
    uri = "demo://resource/dynamic/text/1"
    modern.request("resources/read", uri=uri)
    modern.begin("subscriptions/listen", notifications={"resourceSubscriptions": [uri]})
    session.until(lambda: said(session, "notifications/subscriptions/acknowledged"))
    modern.tool("everything__toggle-subscriber-updates")
    session.until(lambda: said(session, "notifications/resources/updated"), timeout=60)
    assert said(session, "notifications/resources/updated")[0]["uri"] == uri


def test_a_legacy_client_on_a_modern_server(service, join):  # noqa: F811
    stateless(service, "new", "--modern")
    service.echo("old")
    session = join(answer=answering("Ada"), elicitation={"form": {}})
    assert {"new__echo", "old__echo"} <= set(tools(session))
    assert session.tool_text("new__add", a=2, b=3) == "5"
    assert "hello Ada" in session.tool_text("new__greet")


def test_each_server_asks_the_client(service, join):  # noqa: F811
    for name in ("one", "two"):
        service.obedient(name)
    session = join(answer=answering("me"), **EVERYTHING)
    for name in ("one", "two"):
        answer = session.tool_json(f"{name}__ask", method="sampling/createMessage", params={"messages": [], "maxTokens": 1})
        assert answer["result"]["content"]["text"] == "sampled by me"


def test_subscriptions_of_a_legacy_client(service, join):  # noqa: F811
    everything(service)
    service.echo("other")
    one, other = join(), join()
    uri = "demo://resource/dynamic/text/1"
    assert one.request("resources/subscribe", {"uri": uri}) == {}
    one.tool("everything__toggle-subscriber-updates")
    one.until(lambda: said(one, "notifications/resources/updated"), timeout=60)
    other.request("ping")
    assert not said(other, "notifications/resources/updated")
    assert one.request("resources/unsubscribe", {"uri": uri}) == {}


def test_the_level_is_that_of_all_servers(service, join, caller):  # noqa: F811
    everything(service)
    session = join()
    assert session.request("logging/setLevel", {"level": "debug"}) == {}
    assert caller.workers() == []
    session.tool("everything__toggle-simulated-logging")
    session.until(lambda: said(session, "notifications/message"), timeout=60)
    with refused(-32602):
        session.request("logging/setLevel", {"level": "loud"})


def test_progress_comes_with_the_clients_token(service, join):  # noqa: F811
    everything(service, "one")
    everything(service, "two")
    session = join()
    ids = [session.begin_tool(f"{name}__trigger-long-running-operation", {"progressToken": name}, duration=1, steps=3)
           for name in ("one", "two")]
    for id in ids:
        session.wait(id)
    assert {params["progressToken"] for params in said(session, "notifications/progress")} == {"one", "two"}


def test_a_slow_start_holds_nobody_up(service, join):  # noqa: F811
    service.obedient("slow", "--delay", 5)
    service.echo("quick")
    session = join()
    slow = session.begin_tool("slow__echo", message="slow")
    assert session.tool_text("quick__echo", message="quick") == "quick"
    assert json.dumps(slow) not in session.answers
    assert session.text(slow) == "slow"


def test_a_server_that_goes_fails_its_calls_alone(service, join):  # noqa: F811
    for name in ("one", "two"):
        service.obedient(name)
    session = join()
    lost, kept = (session.begin_tool(f"{name}__sleep", seconds=seconds) for name, seconds in (("one", 60), ("two", 1)))
    session.tool("one__echo", message="x")
    (service.config / "servers.d/one.json").unlink()
    with refused(-32000, "configuration"):
        session.wait(lost)
    session.wait(kept)
    assert session.tool_text("two__echo", message="x") == "x"


def test_a_server_that_goes_while_it_starts(service, join):  # noqa: F811
    service.obedient("slow", "--delay", 30)
    session = join()
    calls = [session.begin_tool("slow__echo", message="x") for _ in range(3)]
    listing = session.begin("tools/list")
    eventually(lambda: service.worker_processes(), "its start")
    (service.config / "servers.d/slow.json").unlink()
    for call in calls:
        with refused(-32602):
            session.wait(call)
    session.until(lambda: session.answers.get(json.dumps(listing)), "an answer to the list")


def test_the_end_of_a_worker_harms_only_its_calls(service, join, caller):  # noqa: F811
    for name in ("one", "two"):
        service.obedient(name)
    session = join()
    session.tool("one__echo", message="x")
    slow = session.begin_tool("two__sleep", seconds=1)
    died = session.begin_tool("one__end", status=3)
    with refused(-32000):
        session.wait(died)
    session.wait(slow)
    assert session.tool_text("one__echo", message="again") == "again"


def test_a_task_of_a_member(service, join):  # noqa: F811
    everything(service)
    service.echo("other")
    session = join(answer=answering(), **EVERYTHING)
    tools(session)
    made = session.request("tools/call", {"name": "everything__simulate-research-query", "arguments": {"topic": "bees"},
                                          "task": {"ttl": 60000}})
    id = made["task"]["taskId"]
    assert session.request("tasks/get", {"taskId": id})["taskId"] == id
    assert session.request("tasks/result", {"taskId": id})["content"]
    with refused(-32602):
        session.request("tasks/get", {"taskId": "nobody's"})
