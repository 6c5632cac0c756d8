"""Two users and one service: neither sees anything of the other's workers; who may manage sees all."""

import json
import re

import dbus
import pytest

from caller import ALICE, BOB, CAROL, OBJECT_MANAGER, PATH, PROPERTIES, ROOT, SERVER, WORKER, CallFailed, plain, text_of
from mock_polkit import MANAGE
from service import PYTHON, REPO
from waiting import eventually, settle

STATELESS = str(REPO / "tests/workers/stateless.py")
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"


class Everything:
    """All signals of the service that a connection gets, with match rules for all there is: (path, interface, member,
    arguments)."""

    def __init__(self, caller):
        self.seen = []
        settle(0.2)  # what was sent before isn't meant
        self._from = caller.bus.get_name_owner(caller.name)
        caller.bus.add_message_filter(self._take)
        for rule in ("type='signal'", "type='error'", "type='method_return'", "type='method_call'", ""):
            caller.bus.add_match_string(rule)

    def _take(self, _, message):
        if isinstance(message, dbus.lowlevel.SignalMessage) and message.get_sender() == self._from:
            self.seen.append((message.get_path(), message.get_interface(), message.get_member(),
                              *plain(message.get_args_list())))
        return dbus.lowlevel.HANDLER_RESULT_NOT_YET_HANDLED

    def members(self):
        return {member for _, _, member, *_ in self.seen}

    def named(self, member):
        return [signal for signal in self.seen if signal[2] == member]

    def text(self):
        return json.dumps(self.seen)


@pytest.fixture
def service(system_service):
    everybody = {"users": [ALICE, BOB, CAROL]}
    system_service.obedient("mine", access=everybody)
    system_service.obedient("private", access=everybody, scope="client")
    system_service.obedient("common", access=everybody, scope="shared")
    system_service.caller().list_servers()
    return system_service


@pytest.fixture
def alice(service, polkit):
    return service.caller(uid=ALICE)


@pytest.fixture
def bob(service, polkit):
    return service.caller(uid=BOB)


@pytest.fixture
def manager(service, polkit):
    """A user who may manage, and nothing else."""
    carol = service.caller(uid=CAROL)
    polkit.rule = lambda question: ("yes" if question.action == MANAGE and
                                    question.subject[1]["name"] == carol.unique_name else "no")
    return carol


def without_era(properties):
    return {name: value for name, value in properties.items() if name != "Era"}


def picture(caller):
    """All that a caller can read of the service; but for Era, which is known of a command, whoever has started it."""
    return {
        "root": caller.properties(),
        "objects": {path: without_era(interfaces.get(SERVER, interfaces)) for path, interfaces in caller.objects().items()},
        "servers": caller.list_servers(),
        "introspect": {path: caller.invoke("Introspect", "", path=path, interface=INTROSPECTABLE)
                       for path in (PATH, f"{PATH}/server", f"{PATH}/worker")},
        "each": {name: without_era(caller.properties(f"{PATH}/server/{name}", SERVER))
                 for name in ("mine", "private", "common")},
        "state": {name: caller.property("State", f"{PATH}/server/{name}", SERVER) for name in ("mine", "private", "common")},
        "workers": caller.property("WorkersRunning"),
    }


def ids(value):
    """The ids of workers in what a caller has read."""
    return set(re.findall(r"worker/(\w+)", json.dumps(value)))


# Objects and properties

def test_the_others_workers_change_nothing_in_the_picture(service, alice, bob):
    empty = picture(bob)
    assert empty["workers"] == 0 and not ids(empty)
    for server in ("mine", "private"):
        alice.call_tool(server, "pid")
    pending = [alice.begin_tool("mine", "block", {"seconds": 1.5}) for _ in range(3)]
    eventually(lambda: alice.property("CallsInFlight") == 3, "they are under way")
    assert picture(bob) == empty
    seen = picture(alice)
    assert len(ids(seen)) == 2 and seen["workers"] == 2 and seen["root"]["CallsInFlight"] == 3
    assert seen["state"] == {"mine": "active", "private": "active", "common": "inactive"}
    assert seen["each"]["mine"]["CallsInFlight"] == 3
    for one in pending:
        one.wait()


def test_each_sees_its_own(service, alice, bob):
    pids = {caller: int(caller.tool_text("mine", "pid")) for caller in (alice, bob)}
    for caller, uid in ((alice, ALICE), (bob, BOB)):
        worker, = caller.workers()
        assert (worker["Pid"], worker["Owner"]) == (pids[caller], f"uid:{uid}")
        assert caller.property("WorkersRunning") == 1
        assert caller.server("mine")["Workers"] == [worker["path"]]


def test_connections_of_one_user_see_each_others(service, alice):
    alice.call_tool("private", "pid")
    other = service.caller(uid=ALICE)
    other.call_tool("private", "pid")
    assert len(alice.workers()) == len(other.workers()) == 2


@pytest.mark.parametrize("member, interface, args", [
    ("GetAll", PROPERTIES, ("s", WORKER)), ("GetAll", PROPERTIES, ("s", "")), ("Get", PROPERTIES, ("ss", WORKER, "Pid")),
    ("Set", PROPERTIES, ("ssv", WORKER, "Pid", 1)), ("Introspect", INTROSPECTABLE, ("",)),
    ("GetManagedObjects", OBJECT_MANAGER, ("",)), ("Stop", WORKER, ("",)), ("Ping", "org.freedesktop.DBus.Peer", ("",)),
])
def test_anothers_worker_is_as_one_that_is_not_there(service, alice, bob, member, interface, args):
    alice.call_tool("mine", "pid")
    theirs = alice.workers()[0]["path"]
    nobodys = theirs[:-32] + "0" * 32 if not theirs.endswith("0" * 32) else theirs[:-32] + "1" * 32

    def said(path):
        try:
            return bob.invoke(member, *args, path=path, interface=interface)
        except CallFailed as error:
            return error.name, error.message.replace(path, "PATH")

    assert said(theirs) == said(nobodys)


def test_a_shared_pool_is_seen_by_both(service, alice, bob):
    pid = int(alice.tool_text("common", "pid"))
    assert int(bob.tool_text("common", "pid")) == pid
    for caller in (alice, bob):
        worker, = caller.workers()
        assert (worker["Pid"], worker["Owner"]) == (pid, "shared")
        assert caller.property("WorkersRunning") == 1
        assert caller.property("State", f"{PATH}/server/common", SERVER) == "active"


def test_who_may_manage_sees_all(service, manager, alice, bob):
    for caller in (alice, bob):
        caller.call_tool("mine", "pid")
    alice.call_tool("private", "pid")
    assert {worker["Owner"] for worker in manager.workers()} >= {"uid:1", "uid:2"}
    assert manager.property("WorkersRunning") == 3
    assert {name: state for name, _, state in manager.list_servers()} == {
        "mine": "active", "private": "active", "common": "inactive"}
    assert len(alice.workers()) == 2 and len(bob.workers()) == 1


def test_polkit_is_asked_once_for_a_look(service, polkit, alice, bob):
    """And not interactively: reading is no reason to ask somebody."""
    alice.call_tool("mine", "pid")
    picture(bob)
    question, = polkit.asked(MANAGE)
    assert question.subject[1]["name"] == bob.unique_name and not question.interactive
    assert question.details == {"method": "view"}


def test_looking_does_not_stand_for_managing(service, manager, alice, polkit):
    """What is kept of the one is no verdict on the other."""
    alice.call_tool("mine", "pid")
    carol = manager.unique_name
    polkit.rule = lambda question: ("yes" if question.subject[1]["name"] == carol and question.method == "view" else "no")
    assert manager.workers()
    with pytest.raises(CallFailed, match="AccessDenied"):
        manager.stop_server("mine")
    assert alice.property("WorkersRunning") == 1


def test_a_call_without_interface_looks_at_nothing(service, polkit, alice, bob):
    """sd-bus doesn't serve those: nothing is to be asked for them."""
    alice.call_tool("mine", "pid")
    for member, signature, args in (("GetManagedObjects", "", ()), ("CallTool", "sss", ("mine", "pid", ""))):
        message = dbus.lowlevel.MethodCallMessage(bob.name, PATH, None, member)
        message.append(*args, signature=signature)
        with pytest.raises(dbus.DBusException, match="Unknown(Method|Object)"):
            bob.bus.send_message_with_reply_and_block(message, 10)
    assert polkit.questions == []


# Signals

def bustle(alice):
    """All that makes signals."""
    for server in ("mine", "private"):
        alice.call_tool(server, "pid")
        alice.call_tool(server, "say", {"params": {"secret": "alice"}})
        alice.list_tools(server)
        alice.call_tool(server, "learn")
        alice.list_tools(server)
    for tool in ("freeze", "end"):
        try:
            alice.call_tool("mine", tool, {"status": 1} if tool == "end" else {})
        except CallFailed:
            pass


def test_nothing_of_it_is_broadcast(service, alice, bob):
    """Not to those who know the service, and not to those who only listen."""
    bob.call_tool("mine", "pid")
    listeners = [Everything(bob), Everything(service.caller(uid=CAROL))]
    mine = Everything(alice)
    bustle(alice)
    service.caller().stop_server("private")
    eventually(lambda: mine.members() >= {"InterfacesAdded", "InterfacesRemoved", "PropertiesChanged", "ServerChanged",
                                          "ToolsChanged", "Notification"}, "the own ones are heard")
    settle(0.5)
    for listener in listeners:
        assert listener.seen == []


def test_each_hears_of_its_own(service, alice, bob):
    heard = {caller: Everything(caller) for caller in (alice, bob)}
    for caller in (alice, bob):
        caller.call_tool("mine", "pid")
    eventually(lambda: all(one.named("InterfacesAdded") for one in heard.values()), "they are told")
    settle(0.3)
    for caller, one in heard.items():
        added, = one.named("InterfacesAdded")
        worker, = caller.workers()
        assert added[3] == worker["path"] and added[4][WORKER]["Owner"] == worker["Owner"]
        assert ids(one.seen) == ids(worker["path"])
        counts = [signal[4]["WorkersRunning"] for signal in one.named("PropertiesChanged") if "WorkersRunning" in signal[4]]
        assert counts and set(counts) == {1}
        states = [signal[4] for signal in one.named("PropertiesChanged") if signal[3] == SERVER]
        assert states[-1] == {"State": "active", "Workers": [worker["path"]]}


def test_who_may_manage_hears_of_all(service, manager, alice):
    heard = Everything(manager)
    alice.call_tool("common", "pid")
    manager.objects()
    alice.call_tool("mine", "pid")
    alice.call_tool("private", "pid")
    eventually(lambda: len(heard.named("InterfacesAdded")) == 3, "it is told")
    eventually(lambda: [signal[4] for signal in heard.named("PropertiesChanged") if signal[3] == ROOT][-1] ==
               {"WorkersRunning": 3}, "and of their number")


def test_all_hear_of_a_shared_pool(service, alice, bob):
    bob.call_tool("mine", "pid")
    listeners = [Everything(bob), Everything(service.caller(uid=CAROL))]
    alice.call_tool("common", "pid")
    for listener in listeners:
        eventually(lambda: listener.named("InterfacesAdded") and
                   any("WorkersRunning" in json.dumps(signal) for signal in listener.named("PropertiesChanged")), "it is told")
        assert listener.named("InterfacesAdded")[0][4][WORKER]["Owner"] == "shared"


def test_what_is_broadcast_is_true_for_all(service, alice, bob):
    """A number that counts the own workers is another one for each."""
    for caller in (alice, bob):
        caller.call_tool("mine", "pid")
    bob.call_tool("private", "pid")
    heard = {caller: Everything(caller) for caller in (alice, bob)}
    alice.call_tool("common", "pid")
    eventually(lambda: all("WorkersRunning" in one.text() and "Workers\"" in one.text() for one in heard.values()), "it is told")
    settle(0.2)
    for caller, one in heard.items():
        for _, _, _, interface, changed, invalidated in one.named("PropertiesChanged"):
            path = PATH if interface == ROOT else f"{PATH}/server/common"
            if interface in (ROOT, SERVER):
                now = caller.properties(path, interface)
                assert {name: now[name] for name in changed} == changed, (interface, changed, invalidated)


def test_notifications_go_to_those_who_share_the_worker(service, alice, bob):
    for server in ("mine", "common"):
        for caller in (alice, bob):
            caller.call_tool(server, "pid")
    heard = {caller: Everything(caller) for caller in (alice, bob)}
    stranger = Everything(service.caller(uid=CAROL))
    alice.call_tool("mine", "say", {"params": {"whose": "alice"}})
    alice.call_tool("common", "say", {"params": {"whose": "all"}})
    eventually(lambda: len(heard[alice].named("Notification")) == 2 and heard[bob].named("Notification"), "they are told")
    settle(0.3)
    assert [json.loads(signal[5]) for signal in heard[bob].named("Notification")] == [{"whose": "all"}]
    assert stranger.named("Notification") == []


def test_progress_goes_to_its_call(service, alice, bob):
    """Not even to others who share the worker."""
    heard = {caller: Everything(caller) for caller in (alice, bob)}
    for caller in (alice, bob):
        caller.call_tool("common", "pid")
    alice.call("common", "tools/call", {"name": "pid", "_meta": {"progressToken": "mine"}})
    settle(0.2)
    assert heard[bob].named("Notification") == []


# What servers say

def test_one_users_worker_writes_no_list_for_another(service, alice, bob):
    """A worker does what its owner makes it do: it may call its list of tools public, and that is no reason to show it to
    others."""
    service.server("liar", PYTHON, STATELESS, "--public", access={"users": [ALICE, BOB]})
    service.caller().reload()
    names = {caller: caller.list_tools("liar")[0][0] for caller in (alice, bob)}
    assert names[alice] != names[bob]
    again = service.caller(uid=ALICE)
    assert again.list_tools("liar")[0][0] == names[alice]


# Calls

def test_another_can_not_stop_or_cancel_anything(service, alice, bob):
    pending = alice.begin_tool("mine", "sleep", {"seconds": 1, "message": "slept"})
    eventually(lambda: alice.property("CallsInFlight") == 1, "it is under way")
    for method in ("StopServer", "RestartServer"):
        with pytest.raises(CallFailed, match="AccessDenied"):
            bob.invoke(method, "s", "mine")
    bob.close()
    assert text_of(pending.wait()) == "slept"


def test_variables_are_ones_own(service, alice, bob):
    alice.call_tool("mine", "remember", {"value": "secret"})
    assert bob.tool_text("mine", "recall") == "null"
    assert alice.tool_text("mine", "recall") == "secret"
