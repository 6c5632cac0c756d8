"""Servers and workers as objects on the bus, with properties that live."""

import re
import time

from caller import OBJECT_MANAGER, PATH, PROPERTIES, ROOT, SERVER, WORKER, CallFailed, fails, text_of
from waiting import eventually


def test_a_server_is_an_object(service, caller):
    service.echo("echo", description="Says it again")
    server = caller.server("echo")
    assert server["path"] == "/org/example/McpExec/server/echo"
    assert (server["Name"], server["Description"], server["State"]) == ("echo", "Says it again", "inactive")
    assert (server["Workers"], server["CallsInFlight"], server["QueuedCalls"]) == ([], 0, 0)


def test_names_are_escaped_in_paths(service, caller):
    service.echo("two-words")
    service.echo("3d")
    paths = {caller.server("two-words")["path"], caller.server("3d")["path"]}
    assert paths == {"/org/example/McpExec/server/two_2dwords", "/org/example/McpExec/server/_33d"}


def test_a_worker_is_an_object(service, caller):
    service.echo()
    before = time.time() * 1e6
    pid = int(caller.tool_text("echo", "pid"))
    worker, = caller.workers()
    assert worker["path"] == f"/org/example/McpExec/worker/{worker['Id']}" or worker["path"].startswith("/org/example/McpExec/worker/")
    assert worker["Pid"] == pid and worker["Server"] == "echo"
    assert worker["Owner"].startswith("uid:")
    assert (worker["Era"], worker["ProtocolVersion"]) == ("legacy", "2025-11-25")
    assert worker["State"] in ("ready", "active", "idle")
    assert before - 5e6 < worker["StartedTimestamp"] <= worker["LastActiveTimestamp"] <= time.time() * 1e6 + 5e6
    assert (worker["Calls"], worker["InFlight"], worker["LateAnswers"], worker["StrayLines"]) == (1, 0, 0, 0)
    assert 0 < worker["CallTimeUSec"] < 10_000_000
    assert caller.server("echo")["Workers"] == [worker["path"]]


def test_properties_are_live(service, caller):
    service.obedient()
    caller.call_tool("obedient", "pid")
    path = caller.workers()[0]["path"]
    pending = [caller.begin_tool("obedient", "block", {"seconds": 0.5}) for _ in range(2)]
    eventually(lambda: caller.property("InFlight", path, WORKER) == 2, "two are under way")
    assert caller.property("CallsInFlight") == 2
    assert caller.property("WorkersRunning") == 1
    for one in pending:
        one.wait()
    assert caller.property("InFlight", path, WORKER) == 0
    assert caller.property("Calls", path, WORKER) == 3
    assert caller.property("CallsInFlight") == 0


def test_last_active_moves(service, caller):
    service.echo()
    caller.call_tool("echo", "pid")
    first = caller.workers()[0]["LastActiveTimestamp"]
    time.sleep(0.01)
    caller.call_tool("echo", "pid")
    assert caller.workers()[0]["LastActiveTimestamp"] > first


def test_root_properties(service, caller):
    service.echo("b")
    service.echo("a")
    properties = caller.properties()
    assert re.fullmatch(r"\d+(\.\d+)*.*", properties["Version"])
    assert sorted(str(name) for name in properties["Servers"]) in (["a", "b"], [
        "/org/example/McpExec/server/a", "/org/example/McpExec/server/b"])
    assert properties["WorkersRunning"] == 0 and properties["CallsInFlight"] == 0
    assert properties["IdleTimeoutUSec"] == 60_000_000


def test_properties_cannot_be_written(service, caller):
    service.echo()
    import dbus
    with fails(("org.freedesktop.DBus.Error.PropertyReadOnly", "org.freedesktop.DBus.Error.AccessDenied")):
        caller.invoke("Set", "ssv", ROOT, "Version", dbus.String("9", variant_level=1), interface=PROPERTIES)
    with fails("org.freedesktop.DBus.Error.PropertyReadOnly"):
        caller.invoke("Set", "ssv", SERVER, "Description", dbus.String("x", variant_level=1),
                      path=caller.server("echo")["path"], interface=PROPERTIES)


def test_managed_objects(service, caller):
    service.echo()
    caller.call_tool("echo", "pid")
    objects = caller.objects()
    assert PATH not in objects
    assert sum(SERVER in interfaces for interfaces in objects.values()) == 1
    assert sum(WORKER in interfaces for interfaces in objects.values()) == 1


def test_introspection_names_the_children(service, caller):
    service.echo()
    caller.call_tool("echo", "pid")
    worker = caller.workers()[0]["path"].rsplit("/", 1)[1]
    introspect = {"interface": "org.freedesktop.DBus.Introspectable"}
    assert '<node name="server' in caller.invoke("Introspect", "", **introspect)
    assert "echo" in caller.invoke("Introspect", "", path=f"{PATH}/server", **introspect)
    assert worker in caller.invoke("Introspect", "", path=f"{PATH}/worker", **introspect)
    assert WORKER in caller.invoke("Introspect", "", path=f"{PATH}/worker/{worker}", **introspect)


def test_objects_that_do_not_exist(service, caller):
    service.echo()
    for path, interface in ((f"{PATH}/server/nowhere", SERVER), (f"{PATH}/worker/nobody", WORKER), (f"{PATH}/nothing", ROOT)):
        try:
            caller.properties(path, interface)
        except CallFailed as error:
            assert error.name in ("org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.UnknownInterface"), error
        else:
            raise AssertionError(f"{path} answers")


def test_workers_come_and_go_with_signals(service, caller):
    service.echo("echo", keep_alive={"timeout": 0.3})
    watcher = service.caller()
    watcher.list_servers()
    added = watcher.signals("InterfacesAdded", OBJECT_MANAGER)
    removed = watcher.signals("InterfacesRemoved", OBJECT_MANAGER)
    pid = int(caller.tool_text("echo", "pid"))
    _, path, interfaces = eventually(lambda: [seen for seen in added.seen if WORKER in seen[2]], "InterfacesAdded")[0]
    assert path.startswith(f"{PATH}/worker/")
    assert interfaces[WORKER]["Pid"] == pid and interfaces[WORKER]["Server"] == "echo"
    _, gone, names = eventually(lambda: [seen for seen in removed.seen if WORKER in seen[2]], "InterfacesRemoved")[0]
    assert gone == path and WORKER in names


def test_servers_come_and_go_with_signals(service, caller):
    service.echo()
    caller.list_servers()
    added = caller.signals("InterfacesAdded", OBJECT_MANAGER)
    removed = caller.signals("InterfacesRemoved", OBJECT_MANAGER)
    service.echo("other")
    caller.reload()
    eventually(lambda: [path for _, path, interfaces in added.seen if SERVER in interfaces] == [f"{PATH}/server/other"],
               "InterfacesAdded")
    (service.config / "servers.d/other.json").unlink()
    caller.reload()
    eventually(lambda: [path for _, path, names in removed.seen if SERVER in names] == [f"{PATH}/server/other"],
               "InterfacesRemoved")


def test_properties_changed_is_signalled(service, caller):
    service.echo("echo", keep_alive={"timeout": 0.3})
    watcher = service.caller()
    watcher.list_servers()
    changed = watcher.signals("PropertiesChanged", PROPERTIES, f"{PATH}/server/echo")
    caller.call_tool("echo", "pid")

    def states():
        return [properties["State"] for _, interface, properties, _ in changed.seen
                if interface == SERVER and "State" in properties]

    eventually(lambda: "active" in states() and states()[-1] == "inactive", "active, then inactive")


def test_a_server_that_fails_says_so(service, caller):
    service.obedient("obedient", restart={"burst": 1, "interval": 60})
    try:
        caller.call_tool("obedient", "end", {"status": 1})
    except CallFailed:
        pass
    try:
        caller.call_tool("obedient", "pid")
    except CallFailed:
        pass
    assert caller.server("obedient")["State"] == "failing"
    assert ("obedient", "", "failing") in caller.list_servers()


def test_a_disabled_server_says_so(service, caller):
    service.echo("off", disabled=True)
    assert caller.server("off")["State"] == "disabled"
    with fails("ServerDisabled", "off"):
        caller.call_tool("off", "pid")
    with fails("ServerDisabled", "off"):
        caller.start_server("off")


def test_a_starting_server_says_so(service, caller):
    service.obedient("obedient", "--delay", "1")
    pending = caller.begin_tool("obedient", "echo", {"message": "hi"})
    eventually(lambda: caller.server("obedient")["State"] == "starting", "it starts")
    assert text_of(pending.wait()) == "hi"
    assert caller.server("obedient")["State"] == "active"


def test_notifications_of_a_worker_are_signalled(service, caller):
    service.obedient()
    signals = caller.signals("Notification")
    caller.call_tool("obedient", "say", {"method": "notifications/message", "params": {"level": "info", "data": "hello"}})
    _, server, method, params = eventually(lambda: signals.seen, "Notification")[0]
    assert (server, method) == ("obedient", "notifications/message")
    assert params.replace(" ", "") == '{"level":"info","data":"hello"}'
