"""What the bus's policy, as it is installed, does for the service: few descriptors with a message, and what isn't read is known.
And descriptors of others that are under way when ours are to be passed on."""

import array
import socket
import time

import pytest

from caller import NAME, PATH, ROOT, fails
from machine import BROKER, LAUNCHER, SYSTEM_BUS, drop_in, identity, main_process, systemctl
from private_bus import chosen
from processes import open_fds
from raw_connection import ERROR, METHOD_RETURN, RawBus
from waiting import SLOWNESS, eventually

HELD = 4 * 2048  # descriptors of one user's messages that wait


@pytest.fixture
def null():
    with open("/dev/null", "rb") as file:
        yield file.fileno()


def raw_bus(user):
    with identity(user):
        return RawBus(SYSTEM_BUS, fds=True)


def test_a_message_brings_four_descriptors(machine, alice, null):
    machine.echo(access={"groups": ["mcp-exec"]})
    alice.list_servers()
    with raw_bus("alice") as raw:
        for count in (1, 2, 4):
            assert raw.answer(raw.begin_with_fds([null] * count, NAME, PATH, ROOT, "ListServers"))[0] == METHOD_RETURN
        owner = str(alice.bus.get_name_owner(NAME))
        for destination in (NAME, owner):
            for count in (5, 16):
                kind, name, _ = raw.answer(raw.begin_with_fds([null] * count, destination, PATH, ROOT, "ListServers"))
                assert (kind, name) == (ERROR, "org.freedesktop.DBus.Error.AccessDenied")
    assert b"hi" in alice.call_fd("echo", "tools/call", b'{"name":"echo","arguments":{"message":"hi"}}')


def test_descriptors_by_the_thousands(machine, alice, bob, null):
    """They are open in the service while their messages wait: no more than it has room for, and others' come through."""
    machine.echo(access={"groups": ["mcp-exec"]})
    call = lambda: bob.call_fd("echo", "tools/call", b'{"name":"echo","arguments":{"message":"hi"}}')
    call()
    broker = main_process(BROKER).pid
    before, most = len(open_fds(broker)), 0
    with raw_bus("alice") as raw, raw_bus("alice") as other:
        for round_ in range(60):
            for i in range(50):
                for connection in (raw, other):
                    connection.begin_with_fds([null] * 16, NAME, PATH, ROOT, "ListServers")
                    connection.begin_with_fds([null] * 4, NAME, PATH, ROOT, "ListServers")
                    # Or else the bus has none of its messages read for too long.
                    while connection.waits():
                        connection.receive()
            most = max(most, len(open_fds(broker)))
            assert b"hi" in call()
    assert most - before <= HELD + 100
    eventually(lambda: len(open_fds(broker)) <= before + 5, "they are closed", 30)
    assert main_process(BROKER).pid == broker


@pytest.mark.skipif(chosen() != "daemon", reason="dbus-broker has limits of its own")
def test_the_service_may_ask_what_is_not_read(machine, alice, bob):
    machine.write("mcp-exec.json", '{"limits": {"unread_bytes_per_connection": 4194304}}')
    machine.obedient("obedient", access={"groups": ["mcp-exec"]})
    bob.tool_text("obedient", "pid")
    with raw_bus("alice") as deaf:
        for _ in range(8):
            deaf.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"big", b'{"size":1000000}')
        eventually(lambda: sum(worker["Calls"] for worker in machine.root.workers("obedient")) > 5 and
                   machine.root.property("CallsInFlight") == 0, "they are answered", 60)
        last = deaf.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"pid", b"")
        until = time.monotonic() + 6 * SLOWNESS
        while time.monotonic() < until:
            assert bob.tool_text("obedient", "echo", {"message": "hi"}) == "hi"
        kind, name, body = deaf.answer(last)
        assert (kind, name) == (ERROR, "org.example.McpExec.Error.LimitsExceeded")
        assert b"limits.unread_bytes_per_connection " in body
    said = " ".join(str(record.get("MESSAGE")) for record in machine.journal())
    assert "success" in said and "may hold up all" not in said and "they are asked themselves" not in said


@pytest.fixture
def under_way(null):
    """under_way(count) sends so many descriptors of root to a socket that nobody reads, until its result is called."""
    pairs = []

    def begin(count):
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        pairs.extend(pair)
        for i in range(-(-count // 250)):
            if i % 8 == 7:
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                pairs.extend(pair)
            pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 250))])
        return end

    def end():
        while pairs:
            pairs.pop().close()

    yield begin
    end()


def test_pipes_are_passed_on_when_others_have_read_theirs(machine, alice, under_way):
    """The kernel counts what is under way between all processes of root, of which the launcher is one without privilege."""
    machine.obedient(access={"users": ["alice"]}, env={"GIVEN": "value"})
    systemctl("stop", LAUNCHER)
    with drop_in(LAUNCHER, "[Service]\nLimitNOFILE=4096\n"):
        end = under_way(5000)
        call = alice.begin_tool("obedient", "pid")
        time.sleep(1)
        assert machine.worker("obedient")["State"] == "starting" and not call.done
        end()
        assert call.wait() and machine.worker("obedient")["State"] == "ready"
        machine.root.invoke("StopServer", "s", "obedient")

        under_way(5000)
        with fails("LaunchFailed", r"pipes can't be passed.*LimitNOFILE="):
            alice.tool_text("obedient", "pid")
    systemctl("stop", LAUNCHER)
