"""Clients and servers of both eras, in all four combinations: what the one has and the other hasn't is translated."""

import json

import pytest
from real_servers import everything, stateless
from session import META, MODERN, refused
from test_sessions_questions import EVERYTHING, SAMPLED, answering, text_of


def meta(level=None, **capabilities):
    return {META + "protocolVersion": MODERN, META + "clientCapabilities": capabilities,
            META + "clientInfo": {"name": "test", "version": "1"}, **({META + "logLevel": level} if level else {})}


class Modern:
    """A stateless client on a session."""

    def __init__(self, session, **capabilities):
        self.session, self.capabilities = session, capabilities

    def begin(self, method, _level=None, id=None, **params):
        return self.session.begin(method, {**params, "_meta": {**meta(_level, **self.capabilities), **params.get("_meta", {})}},
                                  id)

    def request(self, method, **params):
        return self.session.wait(self.begin(method, **params))

    def tool(self, name, /, **arguments):
        return self.request("tools/call", name=name, arguments=arguments)


# A modern client

@pytest.fixture(params=["legacy", "modern"])
def modern(request, service, open_session):
    """A modern client, on a legacy and on a modern server."""
    if request.param == "legacy":
        service.obedient("any")
    else:
        stateless(service, "any", "--modern")
    return Modern(open_session("any", raw=True))


def test_a_modern_client_discovers_lists_and_calls(modern):
    found = modern.request("server/discover")
    assert found["resultType"] == "complete" and MODERN in found["supportedVersions"]
    assert "ttlMs" in found and "cacheScope" in found
    listed = modern.request("tools/list")
    assert listed["resultType"] == "complete" and "ttlMs" in listed
    result = modern.tool("echo", message="hello")
    assert result["resultType"] == "complete" and text_of(result) == "hello"


def test_a_modern_client_needs_no_discovery(modern):
    assert text_of(modern.tool("echo", message="hello")) == "hello"


def test_a_modern_client_that_says_too_little(modern):
    session = modern.session
    with refused(-32602):
        session.request("server/discover")
    with refused(-32602, "clientCapabilities"):
        session.request("tools/list", {"_meta": {META + "protocolVersion": MODERN}})
    with refused(-32022) as refusal:
        session.request("tools/list", {"_meta": {**meta(), META + "protocolVersion": "2099-01-01"}})
    assert MODERN in refusal.error.data["supported"] and refusal.error.data["requested"] == "2099-01-01"
    with refused(-32601):
        modern.request("ping")
    with refused(-32601):
        modern.request("resources/subscribe", uri="x://y")
    with refused(-32601):
        modern.request("no/such/method")


def test_a_client_may_try_both_ways(service, open_session):
    service.obedient()
    session = open_session(raw=True)
    Modern(session).request("server/discover")
    assert session.initialize()["protocolVersion"] == "2025-11-25"
    assert session.tool_text("echo", message="x") == "x"


def test_a_modern_client_hears_of_changed_lists(modern):
    session = modern.session
    listening = modern.begin("subscriptions/listen", notifications={"toolsListChanged": True})
    acknowledged = session.until(lambda: session.notices)[0]
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["_meta"][META + "subscriptionId"] == str(listening) or \
        acknowledged["params"]["_meta"][META + "subscriptionId"] == listening
    assert acknowledged["params"]["notifications"]["toolsListChanged"] is True
    names = {tool["name"] for tool in modern.request("tools/list")["tools"]}
    modern.tool("change" if "change" in names else "learn", **({} if "change" in names else {"name": "more"}))
    changed = session.until(lambda: [message for message in session.notices if "list_changed" in message["method"]])[0]
    assert changed["params"]["_meta"][META + "subscriptionId"] == \
        acknowledged["params"]["_meta"][META + "subscriptionId"]

    # Who listens no more hears no more; and whose id it is can be used again.
    session.notify("notifications/cancelled", {"requestId": listening})
    heard = len(session.notices)
    modern.tool("change" if "change" in names else "learn", **({} if "change" in names else {"name": "even-more"}))
    modern.request("tools/list")
    assert len(session.notices) == heard
    modern.begin("subscriptions/listen", id=listening, notifications={"toolsListChanged": True})
    session.until(lambda: len(session.notices) > heard)


def test_a_legacy_server_asks_a_modern_client(service, open_session):
    service.obedient()
    modern = Modern(open_session(raw=True), sampling={}, elicitation={})
    params = {"name": "ask", "arguments": {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}}
    first = modern.request("tools/call", **params)
    assert first["resultType"] == "input_required"
    (key, asked), = first["inputRequests"].items()
    assert asked["method"] == "sampling/createMessage" and asked["params"]["maxTokens"] == 1

    # Without an answer it is asked once more.
    again = modern.request("tools/call", **params, requestState=first["requestState"], inputResponses={})
    assert again["resultType"] == "input_required" and list(again["inputRequests"]) == [key]

    last = modern.request("tools/call", **params, requestState=again["requestState"], inputResponses={key: SAMPLED})
    assert last["resultType"] == "complete"
    assert json.loads(text_of(last))["result"]["content"] == SAMPLED["content"]
    with refused(-32602, "requestState"):
        modern.request("tools/call", **params, requestState=first["requestState"], inputResponses={key: SAMPLED})


def test_a_modern_client_that_never_comes_again_costs_only_itself(service, open_session):
    service.obedient(pool={"max": 1, "concurrency": 2})
    modern = Modern(open_session(raw=True), sampling={})
    params = {"name": "ask", "arguments": {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}}
    assert modern.request("tools/call", **params)["resultType"] == "input_required"
    modern.session.close()
    other = Modern(open_session(raw=True), sampling={})
    assert text_of(other.tool("echo", message="x")) == "x"


def test_a_modern_server_asks_a_modern_client(service, open_session):
    stateless(service, "stateless", "--modern")
    modern = Modern(open_session("stateless", raw=True), elicitation={"form": {}})
    first = modern.tool("greet")
    assert first["resultType"] == "input_required" and first["requestState"].startswith("greet-")
    last = modern.request("tools/call", name="greet", arguments={}, requestState=first["requestState"],
                          inputResponses={"name": {"action": "accept", "content": {"name": "Bo"}}})
    assert text_of(last).startswith("hello Bo")


# A legacy client on a modern server

def test_a_legacy_client_on_a_modern_server(service, open_session):
    stateless(service, "stateless", "--modern")
    session = open_session("stateless", raw=True)
    greeting = session.initialize()
    assert greeting["protocolVersion"] == "2025-11-25" and greeting["serverInfo"]["name"] == "stateless"
    assert "tools" in greeting["capabilities"] and "resultType" not in greeting
    listed = session.request("tools/list")
    assert "resultType" not in listed and "ttlMs" not in listed
    result = session.tool("echo", message="hello")
    assert text_of(result) == "hello" and "resultType" not in result
    assert session.request("ping") == {}
    with refused(-32601):
        session.request("server/discover")


def test_a_modern_server_asks_a_legacy_client(service, open_session):
    stateless(service, "stateless", "--modern")
    session = open_session("stateless", answer=answering("me"), **EVERYTHING)
    assert text_of(session.tool("greet")).startswith("hello me, state greet-")
    assert session.requests[0]["method"] == "elicitation/create"

    refusing = open_session("stateless", answer=lambda _: {"action": "decline"}, **EVERYTHING)
    refusing.begin_tool("greet")
    refusing.until(lambda: len(refusing.requests) >= 2, "it asks again and again")
    refusing.close()

    unable = open_session("stateless")
    with refused(-32021):
        unable.tool("greet")


def test_progress_in_every_combination(service, open_session):
    everything(service)
    stateless(service, "stateless", "--modern")
    for server, tool, arguments in (("everything", "trigger-long-running-operation", {"duration": 0.5, "steps": 2}),
                                    ("stateless", "work", {"steps": 2, "ms": 10})):
        session = open_session(server)
        session.tool(tool, _meta={"progressToken": "mine"}, **arguments)
        heard = [message["params"] for message in session.notices if message["method"] == "notifications/progress"]
        assert len(heard) == 2 and {params["progressToken"] for params in heard} == {"mine"}

        modern = Modern(open_session(server, raw=True))
        modern.request("tools/call", name=tool, arguments=arguments, _meta={"progressToken": 7})
        heard = [message["params"] for message in modern.session.notices if message["method"] == "notifications/progress"]
        assert len(heard) == 2 and {params["progressToken"] for params in heard} == {7}


def test_a_legacy_client_hears_of_changed_lists_of_a_modern_server(service, open_session):
    stateless(service, "stateless", "--modern")
    session = open_session("stateless")
    session.tool("change")
    session.until(lambda: any(message["method"] == "notifications/tools/list_changed" for message in session.notices))
    assert "_meta" not in session.notices[0].get("params", {})
