"""The private socket: D-Bus without a bus between. Whoever knows the bus's interface finds the same there."""

import json
import signal
import struct
import time

import dbus
import pytest
from gi.repository import Gio

from caller import NAME, OBJECT_MANAGER, PATH, PROPERTIES, ROOT, SERVER, WORKER, CallFailed, check_failure, fails, text_of
from other_user import can_be_others, run_as, worker_of
from processes import Process
from raw_connection import DBUS, ERROR, METHOD_RETURN, RawBus, RawConnection, auth_line, message, text
from test_clients import ANSWER, ARGUMENTS, answered, needs, run
from test_interface import contract, introspect, reference
from test_life_cycle import cancels
from waiting import SLOWNESS, eventually, settle


@pytest.fixture
def service(make_service):
    """With the servers echo and obedient; obedient's journal is in service.journal."""
    service = make_service(private=True)
    service.journal = service.folder / "journal"
    service.echo()
    service.obedient("obedient", "--journal", service.journal, timeouts={"stop": 0.3})
    return service


@pytest.fixture
def private(service):
    """A caller of the private socket."""
    service.run_directly()
    return service.private_caller()


def echo(raw, message_text=b"hi"):
    """Begins a call; its answer is in echoed()."""
    return raw.begin(NAME, PATH, ROOT, "CallTool", b"echo", b"echo", b'{"message":"' + message_text + b'"}')


def echoed(raw, serial):
    kind, _, body = raw.answer(serial)
    assert kind == METHOD_RETURN, text(body)
    return answered(text(body))


# Clients

def test_busctl(service, private):
    needs("busctl")
    busctl = ("busctl", f"--address={service.private_address}")
    done = run(service, *busctl, "--json=short", "call", NAME, PATH, ROOT, "CallTool", "sss", "echo", "echo", ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert answered(json.loads(done.stdout)["data"][0]) == ANSWER
    done = run(service, *busctl, "call", NAME, PATH, ROOT, "CallTool", "sss", "nowhere", "echo", "")
    assert done.returncode != 0 and "nowhere" in done.stderr
    done = run(service, *busctl, "get-property", NAME, PATH, ROOT, "WorkersRunning")
    assert done.stdout.split() == ["u", "1"]
    done = run(service, *busctl, "introspect", NAME, PATH, ROOT)
    assert ".CallTool" in done.stdout and "sss" in done.stdout
    done = run(service, *busctl, "tree", "--list", NAME)
    assert f"{PATH}/server/echo" in done.stdout.split(), done.stderr


def test_gdbus(service, private):
    needs("gdbus")
    gdbus = ("--address", service.private_address, "--dest", NAME, "--object-path", PATH)
    quoted = ARGUMENTS.replace("\\", "\\\\")
    done = run(service, "gdbus", "call", *gdbus, "--method", f"{ROOT}.CallTool", "echo", "echo", f"'{quoted}'")
    assert done.returncode == 0, done.stderr
    assert "hi," in done.stdout
    done = run(service, "gdbus", "call", *gdbus, "--method", f"{ROOT}.CallTool", "nowhere", "echo", "")
    assert done.returncode != 0 and "org.example.McpExec.Error.NoSuchServer" in done.stderr
    done = run(service, "gdbus", "introspect", *gdbus, "--recurse")
    assert done.returncode == 0 and "org.example.McpExec.Server" in done.stdout


@pytest.mark.parametrize("option", ["--bus", "--peer"])
def test_dbus_send(service, private, option):
    needs("dbus-send")
    done = run(service, "dbus-send", f"{option}={service.private_address}", "--print-reply=literal", f"--dest={NAME}", PATH,
               f"{ROOT}.CallTool", "string:echo", "string:echo", f"string:{ARGUMENTS}")
    assert done.returncode == 0, done.stderr
    assert answered(done.stdout.strip()) == ANSWER


def test_a_gio_proxy_hears_signals(service, private):
    """It minds whom they are from."""
    flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
    connection = Gio.DBusConnection.new_for_address_sync(service.private_address, flags, None, None)
    proxy = Gio.DBusProxy.new_sync(connection, Gio.DBusProxyFlags.NONE, None, NAME, PATH, ROOT, None)
    heard = []
    proxy.connect("g-signal", lambda _proxy, _sender, member, parameters: heard.append((member, parameters.unpack())))
    assert proxy.get_cached_property("Servers").unpack() == ["echo", "obedient"]
    private.call_tool("echo", "pid")
    eventually(lambda: ("ServerChanged", ("echo",)) in heard, "the signal")
    connection.close_sync(None)


def test_a_raw_client(service, private):
    with RawBus(service.private_address) as raw:
        assert echoed(raw, echo(raw)) == "hi"


def test_a_client_that_never_says_hello(service, private):
    """It knows that it talks to no bus."""
    with RawConnection(service.private_address) as raw:
        raw.authenticate()
        assert echoed(raw, echo(raw)) == "hi"


def test_nothing_comes_ahead_of_the_answer_to_hello(service, private):
    """A signal there is the end of the connection for sd-bus."""
    with RawConnection(service.private_address) as raw:
        raw.authenticate()
        settle(0.1)
        private.call_tool("echo", "pid")
        assert not raw.waits(0.1)
        serial = raw.begin(*DBUS, "Hello")
        kind, fields, _ = raw.receive()
        assert kind == METHOD_RETURN and fields[5] == serial
        private.call_tool("obedient", "pid")
        assert raw.waits(10), "signals afterwards"


@pytest.mark.parametrize("size", [2, 300_000])
def test_a_first_message_in_one_write_with_the_authentication(service, private, size):
    sent = b"x" * size
    with RawConnection(service.private_address) as raw:
        call = message(1, 1, NAME, PATH, ROOT, "CallTool", b"echo", b"echo", b'{"message":"' + sent + b'"}')
        raw.send(auth_line() + b"NEGOTIATE_UNIX_FD\r\nBEGIN\r\n" + call)
        assert raw.line().startswith(b"OK ")
        raw.line()
        assert echoed(raw, 1) == sent.decode()
        raw._serial = 1
        assert echoed(raw, echo(raw)) == "hi"


def test_a_hundred_messages_in_one_write_with_the_authentication(service, private):
    with RawConnection(service.private_address) as raw:
        calls = b"".join(message(1, serial, NAME, PATH, ROOT, "ListServers") for serial in range(1, 101))
        raw.send(auth_line() + b"BEGIN\r\n" + calls)
        raw.line()
        assert [raw.answer(serial)[0] for serial in range(1, 101)] == [METHOD_RETURN] * 100


@pytest.mark.parametrize("first", [1, 15, 16, 24, 100])
def test_a_message_in_pieces(service, private, first):
    """The first with the end of the authentication, and again later."""
    call = [message(1, serial, NAME, PATH, ROOT, "CallTool", b"echo", b"echo", b'{"message":"' + b"x" * 50000 + b'"}')
            for serial in (1, 2, 3)]
    with RawConnection(service.private_address) as raw:
        raw.send(auth_line())
        raw.line()
        raw.send(b"BEGIN\r\n" + call[0][:first])
        for serial in (1, 2, 3):
            time.sleep(0.05)
            raw.send(call[serial - 1][first:40000])
            time.sleep(0.05)
            raw.send(call[serial - 1][40000:])
            assert echoed(raw, serial) == "x" * 50000
            if serial < 3:
                raw.send(call[serial][:first])


# What a bus answers

def test_the_buss_own_methods(private):
    def ask(member, signature, *args):
        return private.bus.call_blocking(*DBUS, member, signature, args)

    mine = private.unique_name
    assert mine.startswith(":")
    names = {str(name) for name in ask("ListNames", "")}
    assert {DBUS[0], NAME, mine} <= names
    owner = str(ask("GetNameOwner", "s", NAME))
    assert owner in names and owner.startswith(":") and owner != mine
    assert str(ask("GetNameOwner", "s", mine)) == mine and str(ask("GetNameOwner", "s", DBUS[0])) == DBUS[0]
    assert all(ask("NameHasOwner", "s", name) for name in names)
    assert not ask("NameHasOwner", "s", "org.example.Nobody")
    assert ask("StartServiceByName", "su", NAME, dbus.UInt32(0)) == 2
    assert len(ask("GetId", "")) == 32
    ask("AddMatch", "s", "type='signal'")
    ask("RemoveMatch", "s", "type='signal'")
    with pytest.raises(dbus.DBusException, match="NameHasNoOwner"):
        ask("GetNameOwner", "s", ":1.1")
    with pytest.raises(dbus.DBusException, match="UnknownMethod"):
        ask("RequestName", "su", "org.example.Mine", dbus.UInt32(0))
    with pytest.raises(dbus.DBusException):
        ask("GetNameOwner", "u", dbus.UInt32(0))


def test_clients_have_names_of_their_own(service, private):
    names = {private.unique_name, *(service.private_caller().unique_name for _ in range(5))}
    assert len(names) == 6


# The same as on the bus

def test_calls_and_errors_are_the_same(service, private):
    public = service.caller()
    attempts = [
        ("Call", "sss", "echo", "echo/params", '{"big":12345678901234567890.000,"text":"é 😀"}'),
        ("CallTool", "sss", "echo", "echo", '{"message":"hi"}'),
        ("CallTool", "sss", "obedient", "refuse", '{"code":-32001,"message":"not today"}'),
        ("CallTool", "sss", "obedient", "fail", '{"message":"the disk is full"}'),
        ("CallTool", "sss", "nowhere", "echo", ""),
        ("CallTool", "sss", "echo", "echo", "{"),
        ("CallTool", "sss", "echo", "", ""),
        ("Call", "sss", "obedient", "no/such/method", ""),
        ("Call", "sss", "echo", "initialize", ""),
        ("Call", "sss", "echo", "echo/params", '{"a":"' + "x" * 1024 * 1024 + '"}'),
        ("CallTool", "s", "echo"),
        ("NoSuchMethod", ""),
        ("ListServers", ""),
        ("ListTools", "s", "obedient"),
        ("Describe", "s", "echo"),
        ("Notify", "sss", "obedient", "notifications/test", ""),
    ]
    for member, signature, *args in attempts:
        outcomes = []
        for caller in (public, private):
            try:
                outcomes.append(caller.invoke(member, signature, *args))
            except CallFailed as error:
                outcomes.append((error.name, error.message))
        assert outcomes[0] == outcomes[1], member
    assert private.tool_text("echo", "pid") == public.tool_text("echo", "pid")


def test_batches_are_the_same(service, private):
    requests = [("tools/call", {"name": "echo", "arguments": {"message": str(n)}}) for n in range(40)]
    requests.insert(7, ("no/such/method", ""))
    results = private.call_batch("obedient", *requests)
    assert results == service.caller().call_batch("obedient", *requests)
    assert [ok for ok, _ in results].count(False) == 1 and not results[7][0]
    assert text_of(results[40][1]) == "39"


def test_big_payloads(private):
    for size in (1000, 100_000, 1_000_000):
        big = "0123456789abcdef" * (size // 16)
        assert private.tool_text("echo", "echo", {"message": big}) == big


def test_objects_are_the_same(service, private):
    public = service.caller()
    private.call_tool("echo", "pid")
    assert private.objects() == public.objects()
    assert sum(WORKER in interfaces for interfaces in private.objects().values()) == 1
    assert private.properties() == public.properties()
    assert private.property("WorkersRunning") == 1
    path = private.workers()[0]["path"]
    assert private.property("Pid", path, WORKER) == int(private.tool_text("echo", "pid"))
    with fails(("org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.UnknownInterface")):
        private.properties(f"{PATH}/server/nowhere", SERVER)
    with fails(("org.freedesktop.DBus.Error.PropertyReadOnly", "org.freedesktop.DBus.Error.AccessDenied")):
        private.invoke("Set", "ssv", ROOT, "Version", dbus.String("9", variant_level=1), interface=PROPERTIES)


def test_introspection_is_the_same(service, private):
    private.call_tool("echo", "pid")
    paths = [PATH, private.server("echo")["path"], private.workers()[0]["path"]]
    for path, name in zip(paths, (ROOT, SERVER, WORKER)):
        assert contract(introspect(private, path)[name]) == contract(reference(name)[name])


def test_peer_is_answered(private):
    assert private.invoke("Ping", "", interface="org.freedesktop.DBus.Peer") is None
    assert len(private.invoke("GetMachineId", "", interface="org.freedesktop.DBus.Peer")) == 32


def test_servers_are_managed(service, private):
    private.start_server("echo")
    first = private.tool_text("echo", "pid")
    private.restart_server("echo")
    second = private.tool_text("echo", "pid")
    assert first != second
    private.stop_server("echo")
    eventually(lambda: private.server("echo")["State"] == "inactive", "it is stopped")
    service.echo("third")
    (service.config / "servers.d/broken.json").write_text("{")
    assert [file.rsplit("/", 1)[1] for file, _ in private.reload()] == ["broken.json"]
    assert private.tool_text("third", "echo", {"message": "hi"}) == "hi"


def test_twenty_four_connections_at_once(service, private):
    private.call_tool("obedient", "pid")
    callers = [service.private_caller() for _ in range(24)]
    pending = [caller.begin_tool("obedient", "sleep", {"seconds": 0.2, "message": f"{n}.{call}"})
               for n, caller in enumerate(callers) for call in range(2)]
    assert [text_of(one.wait()) for one in pending] == [f"{n}.{call}" for n in range(24) for call in range(2)]
    assert all(one.answers == 1 for one in pending)


def test_many_calls_of_one_connection(private):
    private.call_tool("echo", "pid")
    for round_number in range(20):
        pending = [private.begin_tool("echo", "echo", {"message": f"{round_number}.{n}" * 200}) for n in range(16)]
        assert [text_of(one.wait()) for one in pending] == [f"{round_number}.{n}" * 200 for n in range(16)]


# Signals

def test_signals_of_servers_and_workers(service, private):
    changed = private.signals("ServerChanged")
    added = private.signals("InterfacesAdded", OBJECT_MANAGER)
    removed = private.signals("InterfacesRemoved", OBJECT_MANAGER)
    properties = private.signals("PropertiesChanged", PROPERTIES)
    public = service.caller()
    pid = int(public.tool_text("echo", "pid"))
    eventually(lambda: [server for _, server in changed.seen if server == "echo"], "ServerChanged")
    _, path, interfaces = eventually(lambda: [seen for seen in added.seen if WORKER in seen[2]], "InterfacesAdded")[0]
    assert interfaces[WORKER]["Server"] == "echo" and interfaces[WORKER]["Pid"] in (pid, 0)
    eventually(lambda: [seen for seen in properties.seen if seen[1] == SERVER and seen[2].get("State") == "active"],
               "PropertiesChanged")
    service.echo("other")
    public.reload()
    eventually(lambda: [seen for seen in added.seen if SERVER in seen[2] and seen[1].endswith("/other")], "a new server")
    public.stop_server("echo")
    eventually(lambda: [seen for seen in removed.seen if seen[1] == path and WORKER in seen[2]], "InterfacesRemoved")


def test_notifications_reach_those_who_use_the_server(service, private):
    other = service.private_caller()
    other.list_servers()
    mine, theirs = private.signals("Notification"), other.signals("Notification")
    private.call_tool("obedient", "say", {"method": "notifications/message", "params": {"data": "hello"}})
    _, server, method, params = eventually(lambda: mine.seen, "Notification")[0]
    assert (server, method, json.loads(params)) == ("obedient", "notifications/message", {"data": "hello"})
    other.list_servers()
    assert theirs.seen == []


# Whose is what

def test_scope_client_is_a_worker_per_connection(service):
    service.obedient("mine", scope="client")
    service.run_directly()
    one, two = service.private_caller(), service.private_caller()
    first, second = (Process.of(int(caller.tool_text("mine", "pid"))) for caller in (one, two))
    assert first != second
    one.call_tool("mine", "remember", {"value": "one"})
    two.call_tool("mine", "remember", {"value": "two"})
    assert one.tool_text("mine", "recall") == "one"
    two.close()
    eventually(lambda: not second.alive(), "the worker is gone with its client")
    assert first.alive() and one.tool_text("mine", "recall") == "one"


def test_a_caller_that_leaves_cancels_its_calls(service, private):
    pid = private.tool_text("obedient", "pid")
    leaving = service.private_caller()
    for _ in range(3):
        leaving.begin_tool("obedient", "sleep", {"seconds": 30})
    staying = private.begin_tool("obedient", "sleep", {"seconds": 1, "message": "stayed"})
    eventually(lambda: private.server("obedient")["CallsInFlight"] == 4, "four calls are under way")
    leaving.close()
    eventually(lambda: cancels(service.journal) == 3, "the worker is told, three times")
    assert text_of(staying.wait()) == "stayed"
    assert private.tool_text("obedient", "pid") == pid
    assert private.property("CallsInFlight") == 0


def test_with_user_only_that_user_may_connect(service, private):
    if not can_be_others():
        pytest.skip("only root can be several users")
    service.let_others_in()
    with pytest.raises(CallFailed):
        worker_of(65534, service.private_address, "echo")
    heard = run_as(65534, "raw = raw_bus.RawConnection(sys.argv[2])\n"
                          "try: raw.authenticate(); print(raw.hello())\nexcept ConnectionError: print('refused')",
                   service.private_address)
    assert heard.strip() == "refused"
    assert private.tool_text("echo", "echo", {"message": "hi"}) == "hi"


@pytest.fixture
def system_service(make_service):
    if not can_be_others():
        pytest.skip("only root can be several users")
    service = make_service(system=True, private=True)
    service.echo("echo", access={"users": [65534, 1]})
    service.echo("closed", access={"users": [1]})
    service.run_directly()
    service.let_others_in()
    return service


def test_users_are_told_apart(system_service):
    nobody, daemon = (worker_of(uid, system_service.private_address, "echo") for uid in (65534, 1))
    assert nobody != daemon
    assert worker_of(65534, system_service.bus.address, "echo") == nobody
    assert worker_of(1, system_service.private_address, "closed")
    with pytest.raises(CallFailed, match="AccessDenied"):
        worker_of(65534, system_service.private_address, "closed")


LOOK_AND_SEND = """
for attempt in range(20):
    with raw_bus.RawBus(sys.argv[2]) as raw:
        name, path, root = "org.example.McpExec", "/org/example/McpExec", "org.example.McpExec"
        big = raw_bus.message(1, 1000, name, path, root, "CallTool", b"echo", b"echo",
                              b'{"message":"' + b"x" * 1_000_000 + b'"}')
        look = raw_bus.message(1, 999, name, path, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        raw.send(look + big)
        kinds = set()
        while kinds != {999, 1000}:
            kind, fields, body = raw.receive()
            if kind in (2, 3):
                assert kind == 2, body
                kinds.add(fields[5])
print("answered")
"""


def test_a_call_that_was_held_among_large_ones(system_service):
    """What others' workers there are is asked of polkit, and the message waits for that while more comes in."""
    worker_of(1, system_service.private_address, "echo")
    assert run_as(65534, LOOK_AND_SEND, system_service.private_address).strip() == "answered"


# Coming and going

def test_the_daemon_is_activated_by_the_bus(service):
    service.caller().list_servers()
    private = service.private_caller()
    assert private.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    private.close()


def test_sigterm_answers_open_calls(service, private):
    private.call_tool("obedient", "pid")
    quick = private.begin_tool("obedient", "sleep", {"seconds": 0.2, "message": "quick"})
    slow = private.begin_tool("obedient", "block", {"seconds": 60})
    eventually(lambda: private.server("obedient")["CallsInFlight"] == 2, "both are under way")
    daemon = service.daemon()
    daemon.kill(signal.SIGTERM)
    assert text_of(quick.wait(20)) == "quick"
    with pytest.raises(CallFailed) as caught:
        slow.wait(20)
    check_failure(caught.value, ("Cancelled", "Unavailable", "WorkerDied"))
    service.wait_gone(daemon)


def test_an_open_connection_keeps_the_daemon(make_service):
    service = make_service(private=True, idle_timeout=0.3)
    service.echo("echo", keep_alive=False)
    daemon = service.run_directly()
    private = service.private_caller()
    settle(1.2)
    assert daemon.poll() is None
    assert private.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    private.close()
    assert daemon.wait(20 * SLOWNESS) == 0


def test_nobody_connects_in_vain(make_service):
    """A daemon that leaves as soon as it may, started by each connection that finds none, as systemd would."""
    service = make_service(private=True, idle_timeout=0.02)
    service.echo("echo", keep_alive=False)
    service.start_bus()
    with service.started_by_connections() as daemons:
        for number in range(30):
            with RawBus(service.private_address) as raw:
                sent = str(number).encode()
                assert echoed(raw, echo(raw, sent)) == sent.decode()
            time.sleep(0.01 * (number % 6))
    assert len(daemons) > 1


def test_a_reload_keeps_connections(service, private):
    daemon = service.daemon()
    daemon.kill(signal.SIGHUP)
    service.settings(idle_timeout=120)
    eventually(lambda: private.property("IdleTimeoutUSec") in (60_000_000, 120_000_000), "it answers")
    assert private.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    assert service.daemon() == daemon


def test_file_descriptors_come_back(service, private):
    private.call_tool("echo", "pid")
    before = len(service.open_fds())
    for _ in range(20):
        service.private_caller().close()
        with RawBus(service.private_address) as raw:
            raw.hello()
    eventually(lambda: len(service.open_fds()) <= before, "no fd is left open")
