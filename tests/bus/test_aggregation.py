"""A session on several servers, which are one to its client."""

import json

import dbus
import pytest
from caller import fails
from real_servers import everything, needs_npm, stateless
from service import PYTHON, REPO
from session import Session, refused
from waiting import eventually

HOSTILE = REPO / "tests/workers/hostile.py"
UNAVAILABLE = "org.example.McpExec/unavailable"


@pytest.fixture
def join(service, caller):
    """Sessions on the servers named, or on all; initialized unless raw."""
    opened = []

    def make(*servers, answer=None, raw=False, by=None, **capabilities):
        options = {"servers": dbus.Array(servers, signature="s")} if servers else {}
        session = Session.open(by or caller, "", answer, **options)
        opened.append(session)
        if not raw:
            session.initialize(**capabilities)
        return session

    yield make
    for session in opened:
        session.close()


def listed(session, method, key, name="name"):
    """All pages of a list."""
    found, cursor = [], None
    while True:
        page = session.request(method, {"cursor": cursor} if cursor else {})
        found += [item[name] for item in page[key]]
        cursor = page.get("nextCursor")
        if not cursor:
            return found


def tools(session):
    return listed(session, "tools/list", "tools")


def learn(session, server, tool):
    session.request("tools/call", {"name": f"{server}__learn", "arguments": {"name": tool}})


def test_tools_of_all_are_listed_and_called(service, join):
    service.echo("one")
    service.obedient("two")
    session = join()
    assert {"one__echo", "one__pid", "two__echo", "two__pid"} <= set(tools(session))
    assert session.tool_text("one__echo", message="1") == "1"
    assert session.tool_text("two__echo", message="2") == "2"
    assert session.tool_text("one__pid") != session.tool_text("two__pid")


def test_those_named_alone(service, join):
    for name in ("one", "two", "three"):
        service.echo(name)
    assert {name.split("__")[0] for name in tools(join("three", "one"))} == {"one", "three"}


def test_greeting_starts_nothing(service, join, caller):
    service.echo("one", description="Echoes")
    service.obedient("two")
    session = join(raw=True)
    greeting = session.initialize()
    assert greeting["serverInfo"]["name"] == "mcp-exec"
    assert "# one\nEchoes" in greeting["instructions"]
    assert greeting["capabilities"]["tools"] == {"listChanged": True}
    assert session.request("ping") == {}
    assert caller.workers() == []


def test_listing_what_is_static_starts_nothing(service, join, caller):
    service.obedient("one", lists="static")
    service.echo("two", lists="static")
    before = tools(join())
    for name in ("one", "two"):
        caller.stop_server(name)
    eventually(lambda: caller.workers() == [], "no workers")
    assert tools(join()) == before
    assert caller.workers() == []


def test_the_worker_is_shared_with_others(service, join, caller):
    service.obedient("one", pool={"max": 1})
    session = join("one")
    assert session.tool_text("one__pid") == caller.tool_text("one", "pid")


def test_one_that_fails_doesnt_spoil_the_others(service, join):
    service.echo("good")
    service.server("bad", "/bin/false")
    session = join()
    page = session.request("tools/list")
    assert {tool["name"].split("__")[0] for tool in page["tools"]} == {"good"}
    assert "bad" in page["_meta"][UNAVAILABLE]
    assert session.tool_text("good__echo", message="x") == "x"
    with refused(-32000):
        session.tool("bad__echo", message="x")


def test_all_that_fail_are_an_error(service, join):
    service.server("bad", "/bin/false")
    with refused(-32000, "/bin/false"):
        join().request("tools/list")


@pytest.mark.parametrize("name", ["echo", "nobody__echo", "one__", "__echo", ""])
def test_names_that_are_none(service, join, name):
    service.echo("one")
    session = join()
    with refused(-32602, "SERVER__NAME"):
        session.tool(name)
    with refused(-32602):
        session.request("prompts/get", {"name": name})


def test_unknown_methods(service, join, caller):
    service.echo("one")
    session = join()
    with refused(-32601):
        session.request("nothing/such")
    assert caller.workers() == []


def test_a_tool_whose_name_has_underscores(service, join):
    service.obedient("one")
    session = join()
    learn(session, "one", "a__b")
    session.until(lambda: "one__a__b" in tools(session), "the new tool")


def test_pages(service, join):
    service.obedient("one", "--tools", 3000)
    service.obedient("two", "--tools", 3000)
    session = join()
    first = session.request("tools/list")
    assert first["nextCursor"] and len(first["tools"]) < 6000
    names = tools(session)
    assert len(names) == len(set(names)) > 6000


def test_many_lists_at_once(service, join):
    """More than are collected at a time: the others wait, and so does what comes behind them."""
    service.obedient("one", "--tools", 500)
    service.obedient("slow", "--delay", 1)
    session = join()
    ids = [session.begin("tools/list") for _ in range(40)]
    last = session.begin("ping")
    for id in ids:
        assert len(session.wait(id)["tools"]) > 500
    assert session.wait(last) == {}


def test_resources_are_wanted_while_calls_wait(service, caller, join):
    """That nobody has any is known at once: such a request isn't tried once more behind those that wait, and so on for ever."""
    service.obedient("one")
    session = join()
    assert session.tool_text("one__echo", message="x") == "x"
    calls = [session.begin_tool("one__sleep", seconds=0.3, message=str(number)) for number in range(40)]
    reads = [session.begin(f"resources/{what}", {"uri": "a:b"}) for what in ("read", "subscribe", "read")]
    assert caller.tool_text("one", "echo", {"message": "x"}) == "x"
    assert [session.text(id) for id in calls] == [str(number) for number in range(40)]
    for id in reads:
        with refused(-32002, "a:b"):
            session.wait(id)


@pytest.mark.parametrize("cursor", ["", "x", "0.0.one", "00000000.1.one", 7, None, {}])
def test_cursors_that_are_none(service, join, cursor):
    service.echo("one")
    with refused(-32602, "cursor"):
        join().request("tools/list", {"cursor": cursor})


def test_a_cursor_of_another_session(service, join):
    service.obedient("one", "--tools", 4000)
    cursor = join().request("tools/list")["nextCursor"]
    with refused(-32602, "cursor"):
        join().request("tools/list", {"cursor": cursor})


def test_calls_run_in_parallel(service, join):
    for name in ("one", "two", "three"):
        service.obedient(name)
    session = join()
    slow = session.begin_tool("one__sleep", seconds=60)
    quick = [session.begin_tool(f"{name}__echo", message=name) for name in ("two", "three", "one")]
    assert [session.text(id) for id in quick] == ["two", "three", "one"]
    session.notify("notifications/cancelled", {"requestId": slow})
    assert session.request("ping") == {}


def test_servers_come_and_go(service, join, caller):
    service.echo("one")
    session = join()
    assert {name.split("__")[0] for name in tools(session)} == {"one"}

    service.echo("two")
    session.until(lambda: {"method": "notifications/tools/list_changed", "jsonrpc": "2.0"} in session.notices, "list_changed")
    assert session.tool_text("two__echo", message="x") == "x"
    assert {name.split("__")[0] for name in tools(session)} == {"one", "two"}

    session.notices.clear()
    (service.config / "servers.d/one.json").unlink()
    session.until(lambda: session.notices, "list_changed")
    assert {name.split("__")[0] for name in tools(session)} == {"two"}
    with refused(-32602):
        session.tool("one__echo", message="x")

    session.notices.clear()
    service.echo("one")
    session.until(lambda: session.notices, "list_changed")
    assert session.tool_text("one__echo", message="x") == "x"


def test_others_dont_join_those_named(service, join, caller):
    service.echo("one")
    session = join("one")
    service.echo("two")
    eventually(lambda: "two" in [name for name, _, _ in caller.list_servers()], "the new server")
    assert {name.split("__")[0] for name in tools(session)} == {"one"}


def test_a_change_of_a_members_list_is_told(service, join):
    service.obedient("one")
    session = join()
    tools(session)
    session.notices.clear()
    learn(session, "one", "learnt")
    session.until(lambda: [n for n in session.notices if n["method"] == "notifications/tools/list_changed"], "list_changed")
    assert "one__learnt" in tools(session)


def test_no_server_at_all(service, join):
    session = join()
    assert tools(session) == []
    with refused(-32602):
        session.tool("one__echo")


def test_options_that_are_none(service, caller):
    service.echo("one")
    with fails("InvalidArguments", "no option"):
        Session.open(caller, "", colour="red")
    with fails("InvalidArguments", "array of strings"):
        Session.open(caller, "", servers="one")
    with fails("InvalidArguments", "several"):
        Session.open(caller, "one", servers=dbus.Array(["one"], signature="s"))
    with fails("InvalidArguments", "twice"):
        Session.open(caller, "", servers=dbus.Array(["one", "one"], signature="s"))
    with fails("NoSuchServer", "did you mean one"):
        Session.open(caller, "", servers=dbus.Array(["onee"], signature="s"))


def test_a_server_that_is_no_mcp(service, caller, join):
    service.server("cat", "/bin/cat", protocol="lines")
    service.echo("one")
    with fails("InvalidArguments", "protocol is lines"):
        Session.open(caller, "", servers=dbus.Array(["cat"], signature="s"))
    assert {name.split("__")[0] for name in tools(join())} == {"one"}


def test_a_request_is_answered_after_the_end_of_input(service, join):
    service.echo("one")
    session = join()
    id = session.begin("tools/list")
    session.finish()
    assert session.wait(id)["tools"]
    session.until_closed()


def test_sessions_that_leave_while_lists_are_fetched(service, join, caller):
    service.obedient("slow", "--delay", 1)
    for _ in range(5):
        session = join(raw=True)
        session.initialize()
        session.begin("tools/list")
        session.begin("resources/read", {"uri": "x:y"})
        session.close()
    assert "slow__echo" in tools(join())


def test_a_cancelled_list_isnt_answered(service, join):
    service.obedient("slow", "--delay", 1)
    session = join()
    id = session.begin("tools/list")
    session.notify("notifications/cancelled", {"requestId": id})
    assert "slow__echo" in tools(session)
    assert json.dumps(id) not in session.answers


def test_two_requests_of_one_id(service, join):
    service.obedient("slow", "--delay", 1)
    session = join()
    session.begin("tools/list", id=77)
    session.begin("tools/list", id=77)
    session.until(lambda: len(session.answers.get("77", [])) > 0, "an answer")
    assert session.answers["77"][0]["error"]["code"] == -32600


# Real servers


def test_two_of_one_and_another(service, join):
    """npm's server-everything twice under two names, and one of the stateless era."""
    everything(service, "first")
    everything(service, "second")
    stateless(service)
    session = join()
    names = tools(session)
    assert {"first__echo", "second__echo", "stateless__echo"} <= set(names)
    assert session.tool("first__echo", message="a") == session.tool("second__echo", message="a")
    assert session.tool_text("stateless__add", a=1, b=2) == "3"

    prompts = listed(session, "prompts/list", "prompts")
    assert {name.split("__")[0] for name in prompts} >= {"first", "second"}
    prompt = next(name for name in prompts if name == "second__simple-prompt" or name.startswith("second__simple"))
    assert session.request("prompts/get", {"name": prompt})["messages"]


def test_resources_of_real_servers(service, join):
    everything(service, "first")
    everything(service, "second")
    session = join()
    uris = listed(session, "resources/list", "resources", "uri")
    assert uris and len(uris) == len(set(uris))
    assert session.request("resources/read", {"uri": uris[0]})["contents"]
    templates = listed(session, "resources/templates/list", "resourceTemplates", "uriTemplate")
    assert templates and len(templates) == len(set(templates))
    assert "that one's count" in service.log_text()


def test_a_resource_is_found_by_a_template_unlisted(service, join):
    """The first thing that is asked for: nothing was listed before."""
    everything(service, "first")
    everything(service, "second")
    service.echo("other")
    session = join()
    assert "text" in session.request("resources/read", {"uri": "demo://resource/dynamic/text/1"})["contents"][0]
    with refused(-32002, "nobody://has/this"):
        session.request("resources/read", {"uri": "nobody://has/this"})


def test_completion_of_real_servers(service, join):
    everything(service, "first")
    session = join()
    prompts = session.request("prompts/list")["prompts"]
    completable = [prompt for prompt in prompts if "complet" in prompt["name"]]
    assert completable
    name = completable[0]["name"]
    argument = completable[0]["arguments"][0]["name"]
    result = session.request("completion/complete", {"ref": {"type": "ref/prompt", "name": name},
                                                     "argument": {"name": argument, "value": ""}})
    assert isinstance(result["completion"]["values"], list)
