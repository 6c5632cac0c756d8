"""Sessions whose clients, or servers, say what makes no sense: the error that the specification names, and others unharmed."""

import json
import time

import pytest
from service import SANITIZED
from session import META, MODERN, Session, refused
from test_sessions_questions import EVERYTHING
from waiting import eventually


def said(session, line):
    """What is answered to a line: the next message that comes."""
    got = []
    session.take, taken = lambda line: got.append(json.loads(line)), session.take
    try:
        session.write(line if line.endswith((b"\n" if isinstance(line, bytes) else "\n")) else
                      line + (b"\n" if isinstance(line, bytes) else "\n"))
        session.until(lambda: got, f"an answer to {line[:80]!r}")
    finally:
        session.take = taken
    return got[0]


def request(**members):
    return json.dumps({"jsonrpc": "2.0", "method": "ping", **members})


@pytest.mark.parametrize("line, code, id", [
    ("garbage", -32700, None),
    ("{", -32700, None),
    ('{"jsonrpc":"2.0","id":1,"method":"ping"', -32700, None),
    ('{"jsonrpc":"2.0","id":1,"method":"ping",}', -32700, 1),
    (b'{"jsonrpc":"2.0","id":"x","method":"\xff"}', -32700, "x"),
    ("\0", -32700, None),
    ("[]", -32600, None),
    ("1", -32600, None),
    ("null", -32600, None),
    ('"ping"', -32600, None),
    ("{}", -32600, None),
    (request(id=None), -32600, None),
    (request(id=1.5), -32600, None),
    (request(id=True), -32600, None),
    (request(id=[1]), -32600, None),
    (request(id={}), -32600, None),
    (request(id="x" * 2000), -32600, None),
    (request(id=1, jsonrpc="1.0"), -32600, 1),
    ('{"id":1,"method":"ping"}', -32600, 1),
    ('{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32600, 2),
    (request(id=1, method=7), -32600, 1),
    (request(id=1, params=[]), -32602, 1),
    (request(id=1, params="x"), -32602, 1),
    (request(id=1, params={"_meta": 1}), -32602, 1),
    (request(id=1, method="x" * 300), -32601, 1),
    (request(id=1, method="no/such"), -32601, 1),
    (request(id=1, method=""), -32601, 1),
    (request(id=1, method="tools/call\n\0"), -32601, 1),
    (request(id=1, method="initialize"), (-32600, -32602), 1),
    (request(id=1, method="tasks/get", params={"taskId": 7}), -32602, 1),
    (request(id=1, method="tasks/get", params={"taskId": "another's"}), -32602, 1),
    ("[" * 5000, (-32700, -32600), None),
    (request(id=1, params={"x": json.loads("[" * 100 + "]" * 100)}), -32600, 1),
])
def test_bad_lines(service, open_session, line, code, id):
    service.obedient()
    session, other = open_session(), open_session()
    answer = said(session, line)
    codes = code if isinstance(code, tuple) else (code,)
    assert answer["error"]["code"] in codes, answer
    assert answer.get("id") == id, answer
    assert session.request("ping", id="after") == {} and other.tool_text("echo", message="x") == "x"


@pytest.mark.parametrize("line", ["", " ", "\r", "\t\r", '{"jsonrpc":"2.0","method":"notifications/cancelled"}',
                                  '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[]}}',
                                  '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":77}}',
                                  '{"jsonrpc":"2.0","method":"notifications/cancelled","params":[]}',
                                  '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}',
                                  '{"jsonrpc":"2.0","method":"no/such"}', '{"jsonrpc":"2.0","method":"notifications/\\u0000"}',
                                  '{"jsonrpc":"2.0","id":1,"result":{}}', '{"jsonrpc":"2.0","id":"x","error":{}}',
                                  '{"jsonrpc":"2.0","id":99999999999999999999999,"result":1}',
                                  '{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}'])
def test_lines_that_have_no_answer(service, open_session, line):
    service.obedient()
    session = open_session()
    assert said(session, line + "\n" + request(id="after"))["id"] == "after"


def test_before_initialize(service, open_session):
    service.obedient()
    session = open_session(raw=True)
    assert session.request("ping") == {}
    with refused(-32600, "initialize"):
        session.request("tools/list")
    with refused(-32602):
        session.request("initialize", {})
    session.initialize()
    with refused(-32600, "already"):
        session.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})
    assert session.tool_text("echo", message="x") == "x"


def test_requests_sent_together_with_initialize(service, open_session):
    service.obedient("slow", "--delay", "0.3")
    session = open_session("slow", raw=True)
    greeting = session.begin("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {}})
    session.notify("notifications/initialized")
    calls = [session.begin_tool("echo", message=str(number)) for number in range(5)]
    assert session.wait(greeting)["protocolVersion"] == "2025-06-18"
    assert [session.text(id) for id in calls] == list("01234")


def test_an_id_twice(service, open_session):
    service.obedient()
    session = open_session()
    session.begin("tools/call", {"name": "sleep", "arguments": {"seconds": 0.3, "message": "slept"}}, id=5)
    assert said(session, request(id=5))["error"]["code"] == -32600
    session.answers.clear()
    assert session.text(5) == "slept"


def test_a_batch_is_answered_one_by_one(service, open_session):
    service.obedient()
    session = open_session()
    session.write(" [" + ",".join([request(id="a"), '{"jsonrpc":"2.0","method":"notifications/x"}', "1",
                                   request(id="b"), "[]"]) + "]\n")
    assert session.wait("a") == {} and session.wait("b") == {}


def test_lines_without_their_end(service, open_session):
    service.obedient()
    session = open_session()
    for piece in (request(id=1)[:10], request(id=1)[10:], "\n"):
        session.write(piece)
        time.sleep(0.02)
    session.answers.clear()
    session.write(request(id="last"))
    session.finish()
    assert session.wait("last") == {}
    session.until_closed()


def test_a_line_past_the_limit(service, open_session):
    service.obedient(limits={"message": 1 << 20})
    session, other = open_session(), open_session()
    head = '{"jsonrpc":"2.0","id":"big","method":"tools/call","params":{"name":"echo","arguments":{"message":"'
    session.write(head + "x" * (8 << 20) + '"}}}\n')
    with refused(-32600, "limits.message"):
        session.wait("big")
    session.write("x" * (2 << 20) + "\n")
    assert session.request("ping") == {} and other.tool_text("echo", message="x") == "x"


@pytest.mark.slow
def test_a_hundred_megabytes_without_a_line_end(service, open_session):
    service.obedient()
    session, other = open_session(), open_session()
    memory = service.private_memory()
    for _ in range(100):
        session.write(b"x" * (1 << 20))
        assert SANITIZED or service.private_memory() - memory < 40 << 20
    assert other.tool_text("echo", message="x") == "x"
    session.write("\n")
    assert session.request("ping") == {}


def test_a_flood_of_nonsense(service, open_session):
    service.obedient()
    session, other = open_session(), open_session()
    session.end.setblocking(False)
    sent = 0
    try:
        for _ in range(2000):
            sent += session.end.send(b"nonsense\n" * 500)
    except BlockingIOError:
        pass  # its errors aren't read: neither is what it says
    assert other.tool_text("echo", message="x") == "x"
    session.close()
    assert other.tool_text("echo", message="x") == "x"


def test_a_flood_of_requests_that_are_held(service, open_session):
    service.obedient(pool={"max": 1, "concurrency": 1})
    session, other = open_session(), open_session()
    session.begin_tool("sleep", seconds=600)
    session.end.setblocking(False)
    line = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": {"name": "x" * 1000}}) + "\n"
    sent = 0
    memory = service.private_memory()
    try:
        for number in range(20000):
            sent += session.end.send(line.replace('"id": 0', f'"id": {1000 + number}').encode())
    except BlockingIOError:
        pass
    assert SANITIZED or service.private_memory() - memory < 16 << 20
    session.close()
    assert other.tool_text("echo", message="x") == "x"


def test_cancelling_and_asking_like_mad(service, open_session):
    service.obedient()
    session = open_session()
    for number in range(300):
        id = session.begin_tool("sleep", seconds=0.01)
        if number % 3:
            session.notify("notifications/cancelled", {"requestId": id})
    assert session.tool_text("echo", message="x") == "x"


def test_a_server_that_asks_without_end(service, open_session):
    service.obedient(pool={"concurrency": 256})
    service.settings(limits={"calls_per_connection": 200, "calls_per_user": 200})
    session = open_session(**EVERYTHING)
    for _ in range(100):
        session.begin_tool("ask", method="sampling/createMessage", params={"messages": [], "maxTokens": 1})
    session.until(lambda: len(session.answers) > 30, "those past a bound are refused")
    assert len(session.requests) <= 64
    assert session.request("ping", id="x") == {}


def test_a_server_that_asks_nobody(service, open_session, caller):
    service.obedient()
    session = open_session()
    assert caller.tool_json("obedient", "ask", {"method": "elicitation/create"})["error"]["code"] in (-32601, -32000)
    assert not session.requests


def test_odd_questions(service, open_session):
    service.obedient()
    session = open_session(answer=lambda _: {}, **EVERYTHING)
    for method, params in (("no/such", {}), ("tasks/get", {"taskId": "x"}), ("tasks/list", {}), ("initialize", {}),
                           ("tools/call", {})):
        assert "error" in session.tool_json("ask", method=method, params=params), method
    assert not session.requests
    for params in ([], "x", 7):
        session.tool("ask", method="sampling/createMessage", params=params)


def test_odd_notifications(service, open_session):
    service.obedient()
    session = open_session()
    for method, params in (("notifications/message", {}), ("notifications/message", {"level": 7}),
                           ("notifications/resources/updated", {}), ("notifications/resources/updated", {"uri": 7}),
                           ("notifications/progress", {}), ("notifications/progress", {"progressToken": 1}),
                           ("notifications/tasks/status", {"taskId": "another's"}),
                           ("notifications/cancelled", {"requestId": 7}), ("notifications/elicitation/complete", {}),
                           ("notifications/custom", {"x": "ö\ufffe"})):
        session.tool("say", method=method, params=params)
    assert session.request("ping") == {}
    heard = [message["method"] for message in session.notices]
    assert "notifications/custom" in heard and "notifications/tasks/status" not in heard
    assert "notifications/resources/updated" not in heard


def test_a_modern_client_that_repeats_odd_things(service, open_session):
    service.obedient()
    session = open_session(raw=True)
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {"sampling": {}}}
    call = {"name": "echo", "arguments": {"message": "x"}, "_meta": meta}
    # A legacy server gives no states, so that one which isn't the broker's is nobody's.
    for extra in ({"requestState": "unknown"}, {"requestState": ""}, {"requestState": 7}, {"inputResponses": []}):
        with refused(-32602):
            session.request("tools/call", {**call, **extra})
    for extra in ({"inputResponses": {}}, {"inputResponses": {"q1": 7}}):
        assert session.request("tools/call", {**call, **extra})["content"]
    for notifications in ([], {"toolsListChanged": 7}, {"resourceSubscriptions": "x"}, {"resourceSubscriptions": [7]}):
        with refused(-32602):
            session.request("subscriptions/listen", {"notifications": notifications, "_meta": meta})
    for _ in range(40):
        session.begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}, "_meta": meta})
    session.until(lambda: session.answers, "there is a limit")
    assert session.request("tools/call", call)["content"]


def test_sessions_that_come_and_go(service, caller, open_session):
    service.obedient()
    open_session().tool("echo", message="warm")
    fds = len(service.open_fds())
    for number in range(60):
        session = Session.open(caller, "obedient")
        if number % 4:
            session.begin("initialize", {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}} if number % 8 == 1 else {},
                                         "clientInfo": {}})
        if number % 4 > 1:
            session.begin_tool("sleep", seconds=100)
        if number % 4 > 2:
            session.write('{"jsonrpc":')
        session.close()
    # One more worker's pipes, and no session's ends
    eventually(lambda: caller.property("CallsInFlight") == 0 and len(service.open_fds()) <= fds + 8, "all are closed", 30)
