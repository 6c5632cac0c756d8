"""Who may do what, with the real polkit: there, stopped, hung, or missing."""

import json
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from caller import fails
from machine import DENIED, active, main_process, python_text, run, systemctl, uid, gid, worker_units
from waiting import SLOWNESS, eventually, settle

POLKIT = "polkit.service"
ACTIVATION = Path("/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service")
DENIAL = "org.freedesktop.DBus.Error.AccessDenied"
BOUND = 5 + 3  # seconds that polkit has, and some that a busy machine needs


@contextmanager
def masked():
    systemctl("mask", "--runtime", "--now", POLKIT)
    try:
        yield
    finally:
        systemctl("unmask", "--runtime", POLKIT)
        systemctl("start", POLKIT)


@contextmanager
def missing():
    """As where the package isn't installed: nobody has the name, and nobody can be started for it."""
    def reload():
        run("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig")

    text = ACTIVATION.read_text()
    with masked():
        ACTIVATION.unlink()
        reload()
        try:
            yield
        finally:
            ACTIVATION.write_text(text)
            reload()


@contextmanager
def hung():
    polkit = main_process(POLKIT)
    polkit.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        polkit.kill(signal.SIGCONT)


@pytest.fixture(autouse=True)
def polkit(installed_system):
    systemctl("start", POLKIT)
    yield
    assert active(POLKIT)


@pytest.mark.parametrize("absent", [masked, missing, hung])
def test_without_polkit_it_is_a_denial_in_bounded_time(machine, alice, carol, absent):
    """And others, who needn't be asked about, are served meanwhile."""
    machine.echo(access={"users": ["bob"]})
    bob = machine.caller("bob")
    bob.call_tool("echo", "echo", {"message": "warm"})
    with absent():
        began = time.monotonic()
        calls = [caller.begin_tool(server, "run", {"code": "1"}) for caller in (alice, carol) for server in ("python", "echo")]
        for turn in range(20):
            before = time.monotonic()
            assert bob.tool_text("echo", "echo", {"message": f"turn {turn}"}) == f"turn {turn}"
            assert machine.root.property("CallsInFlight") <= 1
            assert time.monotonic() - before < 1 * SLOWNESS
        for call in calls:
            with fails(DENIAL):
                call.wait(BOUND)
        assert time.monotonic() - began < BOUND * SLOWNESS
        assert all("python" not in worker["Server"] for worker in machine.root.workers())
    # What it could not say is not remembered as what it said.
    eventually(lambda: active(POLKIT), "polkit is back")
    assert python_text(alice, "print(1)") == "1"


def test_a_stopped_polkit_is_started_by_the_question(machine, alice):
    systemctl("stop", POLKIT)
    assert python_text(alice, "print(1)") == "1"
    assert active(POLKIT)


def test_a_caller_that_vanishes_during_the_check(machine, alice):
    with hung():
        call = alice.begin_tool("python", "run", {"code": "1"})
        settle(0.3)
        assert not call.done
        alice.close()
        settle(0.2)
        assert machine.root.property("CallsInFlight") == 0
    settle(0.5)
    assert not worker_units()
    assert python_text(machine.caller("alice"), "print(1)") == "1"


def test_members_of_the_group_call_and_run_code(machine, alice):
    machine.echo()
    assert alice.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    assert python_text(alice, "print(1)") == "1"


@pytest.mark.parametrize("server", ["echo", "python"])
def test_strangers_do_not(machine, carol, server):
    machine.echo()
    with fails(DENIED):
        carol.call(server, "tools/list")
    for method in (carol.start_server, carol.list_tools):
        with fails(DENIED):
            method(server)
    with fails(DENIED):
        carol.notify(server, "notifications/roots/list_changed")
    assert not worker_units()


def test_strangers_are_denied_whole_batches(carol):
    with fails(DENIED):
        carol.call_batch("python", ("tools/list", "{}"), ("ping", "{}"))
    assert not worker_units()


@pytest.mark.parametrize("member", ["StopServer", "RestartServer", "Reload"])
def test_members_do_not_manage(alice, member):
    python_text(alice, "x = 1")
    with fails(DENIED):
        alice.invoke(member, *(("s", "python") if member != "Reload" else ("",)))
    assert python_text(alice, "print(x)") == "1"


def test_members_do_not_reach_the_network(machine, alice):
    """Neither through a server nor through an executor that has one."""
    machine.python("networked", sandbox={"PrivateNetwork": False})
    machine.echo("remote", sandbox={"PrivateNetwork": False})
    for server in ("networked", "remote"):
        with fails(DENIED, "use-network"):
            alice.call(server, "tools/list")
    assert not worker_units()
    assert python_text(machine.root, "print(1)", "networked") == "1"


def test_root_and_the_broker_are_not_asked_about(machine):
    with masked():
        assert python_text(machine.root, "print(1)") == "1"
        assert python_text(machine.caller("mcp-exec"), "print(1)") == "1"


def test_access_answers_without_polkit(machine, carol):
    """By names and by numbers; also for code and the network: the file's owner has said so."""
    lists = [{"users": ["carol"]}, {"users": [uid("carol")]}, {"groups": ["carol"]}, {"groups": [gid("carol")]}]
    for number, access in enumerate(lists):
        machine.python(f"open-{number}", access=access, sandbox={"PrivateNetwork": False})
    machine.python("closed", access={"users": ["bob"]})
    with masked():
        for number in range(len(lists)):
            assert python_text(carol, "print(1)", f"open-{number}") == "1"
        with fails(DENIAL):
            carol.call("closed", "tools/list")
        with fails(DENIAL):
            carol.stop_server("open-0")


def test_access_can_be_taken_away(machine, carol):
    machine.echo(access={"users": ["carol"]})
    assert carol.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    machine.echo(access={"users": ["bob"]})
    with fails(DENIED):
        carol.call_tool("echo", "echo", {"message": "hi"})


def test_a_rule_of_the_administrator_opens_one_server(machine, carol):
    """As docs/security.md has it: for one user and one server, and for managing."""
    rule = Path("/etc/polkit-1/rules.d/40-test.rules")
    rule.write_text("""
        polkit.addRule(function(action, subject) {
            if (subject.user == "carol" && action.lookup("server") == "echo" &&
                (action.id == "org.example.McpExec.call" || action.id == "org.example.McpExec.manage"))
                return polkit.Result.YES;
        });
    """)
    rule.chmod(0o644)
    systemctl("restart", POLKIT)
    try:
        machine.echo()
        machine.echo("other")
        assert carol.tool_text("echo", "echo", {"message": "hi"}) == "hi"
        carol.stop_server("echo")
        for server in ("other", "python"):
            with fails(DENIED):
                carol.call(server, "tools/list")
        with fails(DENIED):
            carol.stop_server("other")
    finally:
        rule.unlink()
        systemctl("restart", POLKIT)


def test_a_rule_of_the_administrator_closes_the_group(machine, alice):
    rule = Path("/etc/polkit-1/rules.d/40-test.rules")
    rule.write_text("""
        polkit.addRule(function(action, subject) {
            if (action.id == "org.example.McpExec.execute-code")
                return polkit.Result.NO;
        });
    """)
    rule.chmod(0o644)
    systemctl("restart", POLKIT)
    try:
        machine.echo()
        assert alice.tool_text("echo", "echo", {"message": "hi"}) == "hi"
        with fails(DENIAL, "execute-code"):
            alice.call_tool("python", "run", {"code": "1"})
    finally:
        rule.unlink()
        systemctl("restart", POLKIT)


def test_the_actions_are_known_to_polkit():
    said = run("busctl", "--json=short", "call", "org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority",
               "org.freedesktop.PolicyKit1.Authority", "EnumerateActions", "s", "").stdout
    # id, description, message, vendor, url, icon, implicit any, inactive, active (0 no, 2 admin, 4 admin for a while, 5 yes)
    known = {action[0]: action for action in json.loads(said)["data"][0] if action[0].startswith("org.example.McpExec.")}
    defaults = {name.rpartition(".")[2]: tuple(action[6:9]) for name, action in known.items()}
    assert defaults == {"call": (2, 2, 5), "execute-code": (2, 2, 5), "use-network": (2, 2, 4), "manage": (4, 4, 4)}
    for action in known.values():
        assert action[9] == {"org.freedesktop.policykit.owner": "unix-user:mcp-exec"}


def test_a_worker_is_no_caller(machine, alice):
    """What runs for a member of the group isn't one itself: it can't go on to other servers, also where it gets to a bus."""
    code = """
import subprocess
words = ["busctl", "call", "org.example.McpExec", "/org/example/McpExec", "org.example.McpExec", "CallTool", "sss",
         "echo", "echo", '{"message":"hi"}']
done = subprocess.run(words, capture_output=True, text=True, timeout=20)
print(done.returncode, done.stdout, done.stderr)
"""
    machine.echo()
    machine.python("connected", access={"users": ["alice"]}, sandbox={"BindPaths": ["/run/dbus", "/run/mcp-exec"]})
    assert "connect" in python_text(alice, code)
    # dbus-daemon doesn't even take the connection of a uid that has no name.
    assert not python_text(alice, code, "connected").startswith("0 ")
    said = python_text(alice, code.replace('"call",', '"--address=unix:path=/run/mcp-exec/bus", "call",'), "connected")
    assert said.startswith("1 ") and ("denied" in said or "uthori" in said), said
    denied = machine.journal("MCP_EXEC_OUTCOME=AccessDenied", "MCP_EXEC_SERVER=echo")
    assert denied and all(int(record["MCP_EXEC_UID"]) >= 61184 for record in denied)
    assert not machine.journal("MCP_EXEC_OUTCOME=success", "MCP_EXEC_SERVER=echo")
