"""Clients of one era on servers of the other: what becomes of each part of what they say."""

import json
from pathlib import Path

import pytest
from real_servers import everything, stateless
from service import PYTHON
from session import LEGACY, META, MODERN, Refused, refused
from waiting import eventually

STATELESS_WORKER = Path(__file__).with_name("stateless_worker.py")
FORM = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
ELICIT = {"method": "elicitation/create", "params": FORM}
ROOTS = {"method": "roots/list"}
SAMPLE = {"method": "sampling/createMessage",
          "params": {"messages": [{"role": "user", "content": {"type": "text", "text": "?"}}], "maxTokens": 9}}
SAMPLED = {"role": "assistant", "content": {"type": "text", "text": "!"}, "model": "m"}
ASKED_ALL = {"roots": {}, "sampling": {}, "elicitation": {}}


class Modern:
    """A client of the stateless era on a session."""

    def __init__(self, session, **capabilities):
        self.session = session
        self.capabilities = capabilities

    def params(self, params=None, meta=None):
        return {**(params or {}), "_meta": {META + "protocolVersion": MODERN, META + "clientCapabilities": self.capabilities,
                                            META + "clientInfo": {"name": "modern", "version": "1"}, **(meta or {})}}

    def begin(self, method, params=None, meta=None, id=None):
        return self.session.begin(method, self.params(params, meta), id)

    def request(self, method, params=None, meta=None):
        return self.session.wait(self.begin(method, params, meta))

    def tool(self, name, /, meta=None, **arguments):
        return self.request("tools/call", {"name": name, "arguments": arguments}, meta)

    def again(self, name, result, responses, /, **arguments):
        """The call once more, with what it asked for."""
        more = {"requestState": result["requestState"]} if "requestState" in result else {}
        return self.request("tools/call", {"name": name, "arguments": arguments, "inputResponses": responses, **more})


@pytest.fixture
def legacy(open_session):
    """A client of the stateful era, initialized; answer as Session's."""
    def make(server, answer=None, version=LEGACY, **capabilities):
        session = open_session(server, answer, raw=True)
        session.greeting = session.initialize(version, **capabilities)
        return session

    return make


@pytest.fixture
def modern(open_session):
    def make(server, **capabilities):
        return Modern(open_session(server, raw=True), **capabilities)

    return make


@pytest.fixture
def stateless_server(service):
    service.server("stateless", PYTHON, STATELESS_WORKER)
    return "stateless"


@pytest.fixture
def obedient(service):
    service.obedient()
    return "obedient"


def text(result):
    return result["content"][0]["text"]


def error_of(session, id):
    with pytest.raises(Refused) as caught:
        session.wait(id)
    return caught.value


# Who they are

@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_a_legacy_client_is_greeted_in_its_version(stateless_server, legacy, version):
    greeting = legacy(stateless_server, version=version).greeting
    assert greeting == {"protocolVersion": version, "serverInfo": {"name": "stateless", "version": "1"},
                        "instructions": "Ask me.",
                        "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}}}


def test_a_modern_client_discovers_a_legacy_server(obedient, modern):
    result = modern(obedient).request("server/discover")
    assert result["resultType"] == "complete" and result["supportedVersions"] == [MODERN]
    assert result["ttlMs"] == 0 and result["cacheScope"] == "private"
    assert result["_meta"][META + "serverInfo"]["name"] == "obedient"
    assert "tools" in result["capabilities"] and "protocolVersion" not in result


def test_a_modern_client_discovers_a_modern_server(stateless_server, modern):
    result = modern(stateless_server).request("server/discover")
    assert result["ttlMs"] == 60000 and result["cacheScope"] == "public"
    assert result["_meta"][META + "serverInfo"] == {"name": "stateless", "version": "1"}


@pytest.mark.parametrize("server", ["obedient", "stateless_server"])
def test_what_every_modern_request_carries_is_checked(request, server, open_session):
    session = open_session(request.getfixturevalue(server), raw=True)
    wrong = [({META + "protocolVersion": MODERN}, -32602), ({META + "protocolVersion": 7}, -32602),
             ({META + "protocolVersion": "2030-01-01", META + "clientCapabilities": {}}, -32022),
             ({META + "protocolVersion": MODERN, META + "clientCapabilities": [],}, -32602)]
    for meta, code in wrong:
        error = error_of(session, session.begin("tools/list", {"_meta": meta}))
        assert error.code == code, error
        if code == -32022:
            assert error.data == {"supported": [MODERN, *["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]],
                                  "requested": "2030-01-01"}


@pytest.mark.parametrize("server", ["obedient", "stateless_server"])
def test_methods_that_are_gone(request, server, modern):
    client = modern(request.getfixturevalue(server))
    for method in ("ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/list"):
        assert error_of(client.session, client.begin(method)).code == -32601, method


def test_methods_that_a_legacy_client_doesnt_have(stateless_server, legacy):
    session = legacy(stateless_server)
    assert session.request("ping") == {}
    for method in ("server/discover", "subscriptions/listen", "tasks/get", "tasks/update", "x/unknown"):
        assert error_of(session, session.begin(method, {})).code == -32601, method


# Requests and results

def test_a_legacy_client_on_a_modern_server(stateless_server, legacy):
    session = legacy(stateless_server, roots={"listChanged": True}, sampling={"tools": {}})
    assert session.tool("echo", message="hö") == {"content": [{"type": "text", "text": "hö"}]}

    params = session.tool_json("params", _meta={"com.example/x": 1})
    assert params["_meta"][META + "protocolVersion"] == MODERN
    assert params["_meta"][META + "clientCapabilities"] == {"roots": {}, "sampling": {"tools": {}}}
    assert params["_meta"][META + "clientInfo"] == {"name": "test", "version": "1"}
    assert params["_meta"]["com.example/x"] == 1 and META + "logLevel" not in params["_meta"]

    tools = session.request("tools/list")
    assert set(tools) == {"tools"} and all("outputSchema" not in tool for tool in tools["tools"])
    assert set(session.request("resources/read", {"uri": "test://r"})) == {"contents"}


def test_a_modern_client_on_a_legacy_server(obedient, modern):
    client = modern(obedient, sampling={})
    result = client.tool("echo", message="hö")
    assert text(result) == "hö" and result["resultType"] == "complete"
    assert result["_meta"][META + "serverInfo"]["name"] == "obedient"

    tools = client.request("tools/list")
    assert tools["resultType"] == "complete" and tools["ttlMs"] == 0 and tools["cacheScope"] == "private"
    # The server is told what the client can do in its own era's words.
    assert json.loads(text(client.tool("greeting")))["capabilities"] == {"sampling": {}}


def test_results_that_a_legacy_client_cant_have(stateless_server, legacy):
    session = legacy(stateless_server)
    assert session.tool("answer", result={"content": [], "structuredContent": [1]}) == {"content": []}
    assert session.tool("answer", result={"content": [], "structuredContent": {"a": 1}})["structuredContent"] == {"a": 1}
    for result in ({"resultType": "task", "taskId": "t"}, {"resultType": "com.example/other"},
                   {"resultType": "input_required"}, {"resultType": "input_required", "inputRequests": {"a": {}}}):
        error = error_of(session, session.begin_tool("answer", result=result))
        assert error.code == -32000 and error.data["source"] == "mcp-exec", error
    assert session.tool_text("echo", message="on") == "on"


def test_errors_get_the_code_of_the_clients_era(obedient, modern, legacy):
    missing = {"code": -32002, "message": "no such resource", "data": {"uri": "x:y"}}
    client = modern(obedient)
    error = error_of(client.session, client.begin("tools/call", {"name": "refuse", "arguments": missing}))
    assert (error.code, error.message, error.data) == (-32602, "no such resource", {"uri": "x:y"})
    session = legacy(obedient)
    assert error_of(session, session.begin_tool("refuse", **missing)).code == -32002


def test_progress_has_the_clients_token(stateless_server, legacy):
    session = legacy(stateless_server)
    session.tool("progress", _meta={"progressToken": "mine"})
    assert [notice["params"] for notice in session.notices] == [{"progressToken": "mine", "progress": 1}]


def test_levels(stateless_server, legacy):
    session = legacy(stateless_server)
    session.tool("log", level="error")
    assert session.notices == []
    session.request("logging/setLevel", {"level": "warning"})
    assert session.tool_json("params")["_meta"][META + "logLevel"] == "warning"
    session.tool("log", level="error")
    session.until(lambda: session.notices, "the message")
    assert session.notices[0]["params"] == {"level": "error", "data": "log"}


def test_what_is_logged_for_one_client_isnt_told_to_others(stateless_server, legacy, modern):
    session, idle, quiet = legacy(stateless_server), legacy(stateless_server), modern(stateless_server)
    loud = modern(stateless_server)
    for other in (session, idle):
        other.request("logging/setLevel", {"level": "debug"})
    quiet.tool("echo", message="x")
    loud.tool("log", {META + "logLevel": "debug"}, level="info")
    loud.session.until(lambda: loud.session.notices, "the message")
    session.tool("log", level="info")
    assert len(session.notices) == 1
    for other in (idle, quiet.session):
        other.tool("echo", message="behind it") if other is idle else quiet.tool("echo", message="behind it")
        assert other.notices == []


# Subscriptions

def test_a_legacy_client_hears_of_changes_of_a_modern_server(stateless_server, legacy):
    session = legacy(stateless_server)
    assert session.request("resources/subscribe", {"uri": "test://r"}) == {}

    def told():
        session.tool("change", uri="test://r")
        return {notice["method"] for notice in session.notices} >= {"notifications/tools/list_changed",
                                                                    "notifications/resources/updated"}

    session.until(told, "both notifications")
    assert all(META + "subscriptionId" not in notice.get("params", {}).get("_meta", {}) for notice in session.notices)


def test_a_modern_client_hears_of_changes_of_a_legacy_server(obedient, modern):
    client = modern(obedient)
    listen = client.begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id="listen-1")
    session = client.session
    session.until(lambda: session.notices, "the acknowledgement")
    assert session.notices[0]["method"] == "notifications/subscriptions/acknowledged"
    assert session.notices[0]["params"]["_meta"] == {META + "subscriptionId": listen}

    client.tool("learn", name="more")
    session.until(lambda: len(session.notices) > 1, "the notification")
    assert session.notices[1]["method"] == "notifications/tools/list_changed"
    assert session.notices[1]["params"]["_meta"] == {META + "subscriptionId": listen}


# A modern server asks a legacy client

def answers(message):
    return {"elicitation/create": {"action": "accept", "content": {"name": "Ada"}},
            "roots/list": {"roots": [{"uri": "file:///r"}]}, "sampling/createMessage": SAMPLED}[message["method"]]


def test_a_legacy_client_is_asked_for_input(stateless_server, legacy):
    session = legacy(stateless_server, answers, **ASKED_ALL)
    got = session.tool_json("ask", requests={"e": ELICIT, "r": ROOTS, "s": SAMPLE})
    assert got == {"state": "1", "responses": {"e": answers(ELICIT), "r": answers(ROOTS), "s": SAMPLED}}
    assert {request["method"]: request.get("params") for request in session.requests} == \
        {"elicitation/create": FORM, "roots/list": None, "sampling/createMessage": SAMPLE["params"]}
    assert len({request["id"] for request in session.requests}) == 3


def test_several_rounds(stateless_server, legacy):
    session = legacy(stateless_server, answers, **ASKED_ALL)
    assert session.tool_json("ask", requests={"e": ELICIT}, rounds=5)["state"] == "5"
    assert len(session.requests) == 5
    # A state alone needs nobody.
    assert session.tool_json("ask", requests={}, rounds=3)["state"] == "3"
    assert len(session.requests) == 5


def test_a_server_that_never_has_enough(stateless_server, legacy):
    session = legacy(stateless_server, answers, **ASKED_ALL)
    assert error_of(session, session.begin_tool("ask", requests={"r": ROOTS}, rounds=10**6)).code == -32000
    assert error_of(session, session.begin_tool("ask", requests={}, rounds=10**6)).code == -32000
    assert session.tool_text("echo", message="on") == "on"


def test_a_client_that_refuses(stateless_server, legacy):
    session = legacy(stateless_server, lambda message: {"error": {"code": -1, "message": "not today"}}, **ASKED_ALL)
    got = session.tool_json("ask", requests={"e": ELICIT, "r": ROOTS})
    assert got["responses"] == {"e": {"action": "cancel"}, "r": {"roots": []}}
    # There is no word for it where a model was to be asked.
    error = error_of(session, session.begin_tool("ask", requests={"s": SAMPLE}))
    assert error.code == -32000 and "sampling/createMessage" in error.message and "not today" in error.message


def test_what_a_client_doesnt_declare_isnt_asked(stateless_server, legacy):
    session = legacy(stateless_server, answers, roots={})
    error = error_of(session, session.begin_tool("ask", requests={"e": ELICIT}))
    assert error.code == -32000 and session.requests == []


def test_input_for_a_request_that_needs_none(stateless_server, legacy):
    session = legacy(stateless_server, answers, **ASKED_ALL)
    params = {"ref": {"type": "ref/prompt", "name": "p" * 5000}, "argument": {"name": "a", "value": ""}}
    assert error_of(session, session.begin("completion/complete", params)).code == -32000
    assert session.requests == []


def test_url_elicitations_get_the_id_that_they_need(stateless_server, legacy):
    session = legacy(stateless_server, lambda message: {"action": "accept"}, elicitation={"url": {}})
    asked = {"method": "elicitation/create", "params": {"mode": "url", "url": "https://example.com", "message": "m"}}
    session.tool("ask", requests={"u": asked})
    params = session.requests[0]["params"]
    assert isinstance(params.pop("elicitationId"), str) and params == asked["params"]


def test_a_call_that_is_cancelled_while_its_client_is_asked(stateless_server, legacy):
    session = legacy(stateless_server, **ASKED_ALL)
    call = session.begin_tool("ask", requests={"e": ELICIT})
    session.until(lambda: session.requests, "the question")
    session.notify("notifications/cancelled", {"requestId": call})
    session.until(lambda: session.notices, "the question to be taken back")
    assert session.notices[0]["method"] == "notifications/cancelled"
    assert session.notices[0]["params"]["requestId"] == session.requests[0]["id"]
    # An answer all the same is nobody's.
    session.send({"id": session.requests[0]["id"], "result": {"action": "accept"}})
    assert session.tool_text("echo", message="on") == "on"
    assert session._key(call) not in session.answers


def test_a_client_that_answers_out_of_order_and_twice(stateless_server, legacy):
    session = legacy(stateless_server, **ASKED_ALL)
    calls = [session.begin_tool("ask", requests={"r": ROOTS, "x": ROOTS}) for _ in range(3)]
    session.until(lambda: len(session.requests) == 6, "six questions")
    for number, request in reversed(list(enumerate(session.requests))):
        for _ in range(2):
            session.send({"id": request["id"], "result": {"roots": [{"uri": f"file:///{number}"}]}})
    for index, call in enumerate(calls):
        got = json.loads(session.text(call))["responses"]
        assert [got[key]["roots"][0]["uri"] for key in "rx"] == [f"file:///{2 * index}", f"file:///{2 * index + 1}"]


def test_a_client_that_ends_while_it_is_asked(stateless_server, legacy):
    session = legacy(stateless_server, **ASKED_ALL)
    call = session.begin_tool("ask", requests={"e": ELICIT})
    session.until(lambda: session.requests, "the question")
    session.finish()
    assert error_of(session, call).code == -32000
    session.until_closed()


def test_a_client_that_never_answers(service, legacy):
    service.server("stateless", PYTHON, STATELESS_WORKER, timeouts={"call": 5, "call_max": 5})
    session = legacy("stateless", **ASKED_ALL)
    error = error_of(session, session.begin_tool("ask", requests={"e": ELICIT}))
    assert error.code == -32000
    session.until(lambda: session.notices, "the question to be taken back")
    assert session.notices[0]["params"]["requestId"] == session.requests[0]["id"]


# A legacy server asks a modern client

def asked_by(client, **arguments):
    result = client.tool("ask", **arguments)
    assert result["resultType"] == "input_required" and set(result) <= {"resultType", "inputRequests", "requestState",
                                                                       "_meta"}, result
    (key, request), = result["inputRequests"].items()
    return result, key, request


def test_a_modern_client_comes_again(obedient, modern):
    client = modern(obedient, **ASKED_ALL)
    for asked, response in ((ELICIT, {"action": "accept", "content": {"name": "Ada"}}), (SAMPLE, SAMPLED),
                            (ROOTS, {"roots": []})):
        result, key, request = asked_by(client, **asked, patience=100)
        assert request == asked
        result = client.again("ask", result, {key: response}, **asked)
        assert result["resultType"] == "complete" and json.loads(text(result))["result"] == response
    assert client.session.requests == []


def test_what_only_the_old_era_has_isnt_in_the_question(obedient, modern):
    client = modern(obedient, elicitation={"url": {}})
    params = {"mode": "url", "message": "m", "url": "https://example.com", "elicitationId": "e-1",
              "_meta": {"progressToken": 1}}
    result, key, request = asked_by(client, method="elicitation/create", params=params, patience=100)
    assert request["params"] == {"mode": "url", "message": "m", "url": "https://example.com"}
    client.again("ask", result, {key: {"action": "accept"}})


def test_a_modern_client_isnt_asked_what_it_doesnt_declare(obedient, modern):
    client = modern(obedient, roots={})
    result = client.tool("ask", **ELICIT)
    assert result["resultType"] == "complete" and "error" in json.loads(text(result))


def test_a_client_that_comes_without_what_was_asked_is_asked_again(obedient, modern):
    client = modern(obedient, **ASKED_ALL)
    result, key, request = asked_by(client, **ELICIT, patience=100)
    again = client.again("ask", result, {"other": {}})
    assert again["resultType"] == "input_required" and again["inputRequests"] == {key: request}
    assert again["requestState"] != result["requestState"]
    # The state of before is no more.
    with refused(-32602, "requestState"):
        client.again("ask", result, {key: {"action": "decline"}})
    final = client.again("ask", again, {key: {"action": "decline"}, "more": 1})
    assert json.loads(text(final))["result"] == {"action": "decline"}


def test_a_state_is_good_for_its_own_call_and_session_only(obedient, modern):
    client, other = modern(obedient, **ASKED_ALL), modern(obedient, **ASKED_ALL)
    result, key, _ = asked_by(client, **ELICIT, patience=100)
    responses = {key: {"action": "accept"}}
    for wrong in (lambda: other.again("ask", result, responses), lambda: client.again("echo", result, responses),
                  lambda: client.again("ask", {"requestState": "guess"}, responses),
                  lambda: client.request("prompts/get", {"name": "ask", "requestState": result["requestState"]})):
        with refused(-32602, "requestState"):
            wrong()
    assert json.loads(text(client.again("ask", result, responses)))["result"] == {"action": "accept"}


def test_wrong_types_in_what_comes_again(obedient, modern):
    client = modern(obedient, **ASKED_ALL)
    for more in ({"requestState": 7}, {"inputResponses": []}, {"inputResponses": "x", "requestState": "y"}):
        error = error_of(client.session, client.begin("tools/call", {"name": "echo", "arguments": {}, **more}))
        assert error.code == -32602, more


def test_other_calls_go_on_while_one_is_held(obedient, modern):
    client = modern(obedient, **ASKED_ALL)
    held = [asked_by(client, **ELICIT, patience=100) for _ in range(3)]
    assert text(client.tool("echo", message="on")) == "on"
    for number, (result, key, _) in reversed(list(enumerate(held))):
        got = client.again("ask", result, {key: {"action": "accept", "content": {"name": str(number)}}})
        assert json.loads(text(got))["result"]["content"] == {"name": str(number)}


def test_a_server_that_goes_while_its_client_is_asked(obedient, modern, caller):
    client = modern(obedient, **ASKED_ALL)
    result, key, _ = asked_by(client, **ELICIT, patience=100)
    pid = int(text(client.tool("pid")))
    client.begin("tools/call", {"name": "die", "arguments": {}})
    eventually(lambda: not Path(f"/proc/{pid}").exists() or None, "the worker's end")
    with pytest.raises(Refused) as caught:
        client.again("ask", result, {key: {"action": "accept"}})
    assert caught.value.code == -32000 and caught.value.data["error"].endswith("WorkerDied")
    assert text(client.tool("echo", message="on")) == "on"


def test_a_client_that_comes_after_the_servers_patience(obedient, modern):
    client = modern(obedient, **ASKED_ALL)
    # It doesn't wait at all: nearly always it has answered the call before its question is.
    for _ in range(10):
        result, key, _ = asked_by(client, **ELICIT, patience=0)
        got = client.again("ask", result, {key: {"action": "accept"}})
        assert text(got) == "no answer" or json.loads(text(got))["result"] == {"action": "accept"}


def test_a_client_that_never_comes_again(service, modern):
    service.obedient(timeouts={"call": 5, "call_max": 5})
    client = modern("obedient", **ASKED_ALL)
    result, key, _ = asked_by(client, **ELICIT, patience=100)
    # Its time is over: the server is told so. What it says then is of a call that is no more, or was too late.
    eventually(lambda: "notifications/cancelled" in text(client.tool("notifications")), "the end of the call")
    with pytest.raises(Refused) as caught:
        client.again("ask", result, {key: {"action": "accept"}})
    assert caught.value.code in (-32000, -32602)
    assert text(client.tool("echo", message="on")) == "on"


def test_a_client_that_ends_while_its_call_is_held(obedient, modern):
    client = modern(obedient, **ASKED_ALL)
    asked_by(client, **ELICIT, patience=100)
    client.session.finish()
    client.session.until_closed()


def test_the_error_that_asks_for_urls_becomes_a_question(obedient, modern):
    client = modern(obedient, elicitation={"url": {}})
    elicitation = {"mode": "url", "elicitationId": "e", "url": "https://example.com", "message": "m"}
    result = client.tool("refuse", code=-32042, message="first", data={"elicitations": [elicitation]})
    assert result["resultType"] == "input_required"
    (key, request), = result["inputRequests"].items()
    assert request["method"] == "elicitation/create" and "elicitationId" not in request["params"]
    # The call is simply made again.
    again = client.request("tools/call", {"name": "echo", "arguments": {"message": "x"},
                                          "inputResponses": {key: {"action": "accept"}}})
    assert text(again) == "x"


# Tasks

def test_tasks_need_the_extension(stateless_server, obedient, modern):
    for server, code in ((stateless_server, -32021), (obedient, -32601)):
        client = modern(server)
        error = error_of(client.session, client.begin("tasks/get", {"taskId": "t"}))
        assert error.code == code
        if code == -32021:
            assert error.data == {"requiredCapabilities": {"extensions": {META + "tasks": {}}}}
    able = modern(stateless_server, extensions={META + "tasks": {}})
    assert error_of(able.session, able.begin("tasks/get", {"taskId": "t"})).code == -32602


# Within an era

def test_a_modern_client_on_a_modern_server_has_the_servers_own_state(stateless_server, modern):
    client = modern(stateless_server, **ASKED_ALL)
    result = client.tool("ask", requests={"e": ELICIT})
    assert result["requestState"] == "1" and result["inputRequests"] == {"e": ELICIT}
    got = client.again("ask", result, {"e": {"action": "accept"}}, requests={"e": ELICIT})
    assert json.loads(text(got)) == {"state": "1", "responses": {"e": {"action": "accept"}}}
    assert got["resultType"] == "complete"


# Somebody else's servers

def test_the_sdks_stateless_server_for_a_legacy_client(service, legacy):
    stateless(service, "sdk", "--modern")
    session = legacy("sdk", lambda message: {"action": "accept", "content": {"name": "Ada"}}, elicitation={})
    assert session.tool_text("echo", message="x") == "x"
    assert session.tool_text("greet").startswith("hello Ada, state greet-")
    ids = session.begin_tool("work", _meta={"progressToken": 5}, steps=3, ms=1)
    assert session.text(ids) == "worked 3"
    assert [notice["params"]["progressToken"] for notice in session.notices][:3] == [5, 5, 5]


def test_server_everything_for_a_modern_client(service, modern):
    everything(service)
    client = modern("everything", sampling={}, elicitation={"form": {}})
    discovered = client.request("server/discover")
    assert discovered["_meta"][META + "serverInfo"]["name"].startswith("mcp-servers/everything")
    tools = {tool["name"] for tool in client.request("tools/list")["tools"]}
    assert {"echo", "trigger-sampling-request", "trigger-elicitation-request"} <= tools
    assert text(client.tool("echo", message="x")) == "Echo: x"

    result = client.tool("trigger-sampling-request", prompt="p", maxTokens=9)
    assert result["resultType"] == "input_required"
    (key, request), = result["inputRequests"].items()
    assert request["method"] == "sampling/createMessage"
    final = client.again("trigger-sampling-request", result, {key: SAMPLED}, prompt="p", maxTokens=9)
    assert final["resultType"] == "complete" and "!" in json.dumps(final["content"])

    result = client.tool("trigger-elicitation-request")
    (key, request), = result["inputRequests"].items()
    assert request["method"] == "elicitation/create"
    final = client.again("trigger-elicitation-request", result, {key: {"action": "decline"}})
    assert "declin" in json.dumps(final["content"])
