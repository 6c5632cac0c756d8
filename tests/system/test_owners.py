"""Two users and one server: what is one's is never the other's, and is not even there for the other."""

import re

import pytest

from caller import OBJECT_MANAGER, PATH, PROPERTIES, WORKER, CallFailed, fails
from machine import DENIED, python_json, python_text, run, run_as, tool_json, uid, uid_of
from waiting import eventually, settle

OWN_PID = "import os; answer = os.getpid()"
UNKNOWN_PATH = f"{PATH}/worker/{'0' * 32}"


def test_never_the_same_worker(machine, alice, bob):
    python_text(alice, "secret = 'of alice'")
    python_text(bob, "secret = 'of bob'")
    workers = machine.root.workers("python")
    assert {worker["Owner"] for worker in workers} == {f"uid:{uid('alice')}", f"uid:{uid('bob')}"}
    assert len({worker["Pid"] for worker in workers}) == 2
    # Whatever the order, and from whatever connection of theirs
    for caller, name in ((alice, "alice"), (bob, "bob"), (machine.caller("bob"), "bob"), (machine.caller("alice"), "alice")):
        assert python_text(caller, "print(secret)") == f"of {name}"


def test_never_a_variable_of_the_other(alice, bob):
    python_text(alice, "secret = 42")
    assert python_text(bob, "print('secret' in globals())") == "False"


def test_many_calls_side_by_side_reach_their_own(machine, alice, bob):
    python_text(alice, "name = 'alice'")
    python_text(bob, "name = 'bob'")
    calls = [(name, caller.begin_tool("python", "run", {"code": f"print(name, {number})"}))
             for number in range(20) for name, caller in (("alice", alice), ("bob", bob))]
    for number, (name, call) in enumerate(calls):
        assert f'"stdout":"{name} {number // 2}\\n"' in call.wait()


def test_owners_never_share_a_uid(machine, alice, bob):
    """Four owners, two of them connections of one user: four uids that are nobody else's."""
    machine.python("mine", scope="client", access={"users": ["alice"]})
    machine.python("ours", scope="shared", access={"users": ["alice"]})
    second = machine.caller("alice")
    for caller, server in ((alice, "python"), (bob, "python"), (alice, "mine"), (second, "mine"), (alice, "ours")):
        python_text(caller, "", server)
    workers = machine.root.workers()
    uids = {worker["Owner"]: uid_of(worker["Pid"]) for worker in workers}
    assert len(workers) == len(uids) == len(set(uids.values())) == 5
    assert not set(uids.values()) & {0, uid("mcp-exec"), uid("alice"), uid("bob"), uid("nobody")}
    assert all(61184 <= number <= 65519 for number in uids.values()), "not uids that systemd keeps for this"


def test_who_owns_is_what_the_bus_says(machine, alice):
    """No argument says it: what a caller claims is a parameter like any other."""
    alice.call("python", "tools/call", {"name": "run", "arguments": {"code": "mine = 1"},
                                        "_meta": {"uid": 0, "owner": f"uid:{uid('bob')}"}})
    assert [worker["Owner"] for worker in machine.root.workers()] == [f"uid:{uid('alice')}"]


def test_a_shared_server_is_shared(machine, alice, bob):
    machine.python("ours", scope="shared", access={"groups": ["mcp-exec"]})
    assert python_json(alice, OWN_PID, "ours") == python_json(bob, OWN_PID, "ours")
    assert machine.worker("ours")["Owner"] == "shared"


def test_objects_of_another_are_not_listed(machine, alice, bob, carol):
    python_text(alice, "")
    python_text(bob, "")
    for caller, name in ((alice, "alice"), (bob, "bob")):
        assert [worker["Owner"] for worker in caller.workers()] == [f"uid:{uid(name)}"]
        assert caller.property("WorkersRunning") == 1
    assert carol.workers() == []
    assert carol.property("WorkersRunning") == 0
    assert len(machine.root.workers()) == 2


def test_an_object_of_another_is_as_one_that_is_not_there(machine, alice, bob):
    """The same error with the same text, whatever is asked of it."""
    python_text(bob, "")
    path = machine.worker("python", "bob")["path"]
    for member, signature, arguments, interface in (
            ("GetAll", "s", (WORKER,), PROPERTIES),
            ("Get", "ss", (WORKER, "Pid"), PROPERTIES),
            ("Introspect", "", (), "org.freedesktop.DBus.Introspectable"),
            ("Anything", "", (), WORKER)):
        answers = []
        for target in (path, UNKNOWN_PATH):
            try:
                answers.append(re.sub(r"[0-9a-f]{32}|_[0-9a-f]{2}", "ID", str(
                    alice.invoke(member, signature, *arguments, path=target, interface=interface))))
            except CallFailed as error:
                answers.append(str(error).replace(target, "PATH"))
        assert answers[0] == answers[1], member
    assert bob.property("Pid", path, WORKER) == machine.worker("python", "bob")["Pid"]


def test_introspection_lists_no_object_of_another(machine, alice, bob):
    python_text(bob, "")
    path = machine.worker("python", "bob")["path"]
    seen = alice.invoke("Introspect", "", path=f"{PATH}/worker", interface="org.freedesktop.DBus.Introspectable")
    assert path.rpartition("/")[2] not in seen
    tree = run_as("alice", "busctl", "tree", "--list", "org.example.McpExec").stdout
    assert path not in tree
    assert path in run("busctl", "tree", "--list", "org.example.McpExec").stdout


def test_signals_about_another_are_not_heard(machine, alice, bob):
    """Objects that come and go, properties that change, and what a worker says; those about oneself are."""
    machine.obedient(access={"groups": ["mcp-exec"]})
    tool_json(alice, "obedient", "count")
    heard = {}
    for name, caller in (("alice", alice), ("bob", bob)):
        heard[name] = [caller.signals("InterfacesAdded", OBJECT_MANAGER), caller.signals("InterfacesRemoved", OBJECT_MANAGER),
                       caller.signals("PropertiesChanged", PROPERTIES), caller.signals("Notification")]
        caller.list_servers()
    tool_json(bob, "obedient", "count")
    path = machine.worker("obedient", "bob")["path"]
    bob.call_tool("obedient", "say", {"params": {"data": "a word to bob"}})

    eventually(lambda: any("a word to bob" in str(said) for said in heard["bob"][3].seen), "bob's notification")
    machine.root.stop_server("obedient")
    eventually(lambda: any(path in str(said) for said in heard["bob"][1].seen), "bob's worker is gone")
    settle(0.3)
    assert any(path in str(said) for said in heard["bob"][0].seen)
    for signals in heard["alice"]:
        assert path not in str(signals.seen)
        assert "a word to bob" not in str(signals.seen)


def test_properties_tell_nothing_of_another(alice, bob):
    """Counts and states are those of what one sees."""
    before = alice.properties(), alice.server("python")
    python_text(bob, "")
    call = bob.begin_tool("python", "run", {"code": "import time; time.sleep(1)"})
    settle(0.2)
    assert (alice.properties(), alice.server("python")) == before
    assert alice.property("CallsInFlight") == 0
    call.wait()


def test_another_call_is_not_cancelled_by_leaving(machine, alice, bob):
    call = bob.begin_tool("python", "run", {"code": "import time; time.sleep(1); print('done')"})
    pending = alice.begin_tool("python", "run", {"code": "import time; time.sleep(30)"})
    eventually(lambda: len(machine.root.workers("python")) == 2, "two workers")
    assert not pending.done
    alice.close()
    assert "done" in call.wait()


def test_what_everybody_sees(machine, carol):
    """What servers there are; how one is configured only who may call it."""
    machine.echo(description="for bob", access={"users": ["bob"]})
    assert {("echo", "for bob"), ("python", "Runs Python code; variables last from call to call")} <= {
        (name, description) for name, description, _ in carol.list_servers()}
    with fails(DENIED):
        carol.describe("echo")
    assert machine.caller("bob").describe("echo")["name"] == "echo"


@pytest.mark.parametrize("limit", ["calls_per_user", "workers_per_user"])
def test_what_one_uses_up_is_not_the_others(machine, alice, bob, limit):
    machine.write("mcp-exec.json", f'{{"limits": {{"{limit}": 2}}}}')
    machine.obedient("first", access={"groups": ["mcp-exec"]}, pool={"max": 2, "concurrency": 1, "queue": 1})
    machine.obedient("second", access={"groups": ["mcp-exec"]}, pool={"max": 2, "concurrency": 1, "queue": 0})
    calls = [alice.begin_tool("first", "sleep", {"seconds": 1, "message": "done"}) for _ in range(2)]
    eventually(lambda: machine.root.property("CallsInFlight") == 2, "two calls under way")
    with fails("LimitsExceeded"):
        alice.call_tool("second", "sleep", {"message": "more"})
    assert bob.tool_text("second", "sleep", {"message": "mine"}) == "mine"
    for call in calls:
        assert "done" in call.wait()
