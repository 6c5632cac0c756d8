"""What waits for polkit, or for the bus to say who sent it, is bounded for each user, and nobody else is disturbed."""

import os
import signal
import struct
import time

import dbus
import pytest

from caller import ALICE, DENIED, NAME, PATH, PROPERTIES, ROOT, another_user, fails, text_of
from mock_polkit import CALL
from processes import peak_memory, processor_time
from raw_connection import ERROR, RawBus
from service import SANITIZED
from waiting import SLOWNESS, eventually, settle

WAIT_ALL = 20.0  # for all of polkit's answers to what one message asks
WAITING = 64  # messages of one user


@pytest.fixture
def service(system_service):
    system_service.echo()
    system_service.obedient()
    return system_service


def alive(root):
    """The loop turns: another caller has its answer at once."""
    before = time.monotonic()
    assert root.tool_text("obedient", "echo", {"message": "hi"}) == "hi"
    assert time.monotonic() - before < 2 * SLOWNESS


@pytest.fixture
def root(service):
    """Somebody who isn't asked about, and is served all the while."""
    caller = service.caller()
    caller.call_tool("obedient", "pid")
    yield caller
    alive(caller)


def test_one_connection_can_have_so_many_waiting(service, polkit, root, alice, bob):
    polkit.rule = "silence"
    pending = [alice.begin_tool("echo", f"tool-{i}") for i in range(WAITING + 6)]
    eventually(lambda: sum(one.done for one in pending) == 6, "the rest is refused")
    for one in pending:
        if one.done:
            with fails("LimitsExceeded", str(WAITING)):
                one.wait()
    alive(root)
    polkit.rule = "yes"
    assert bob.tool_text("echo", "pid")


@pytest.mark.slow
def test_one_user_can_have_so_many_waiting(service, polkit, root, alice, bob):
    """However many connections it makes."""
    polkit.rule = lambda question: "yes" if question.subject[1]["name"] == bob.unique_name else "silence"
    callers = [service.caller(uid=ALICE) for _ in range(6)]
    pending = [caller.begin_tool("echo", f"tool-{i}") for i in range(20) for caller in callers]
    eventually(lambda: sum(one.done for one in pending) >= len(pending) - WAITING, "the rest is refused", timeout=3)
    refused = [one for one in pending if one.done]
    assert len(refused) == len(pending) - WAITING
    for one in refused:
        with fails("LimitsExceeded"):
            one.wait()
    assert bob.tool_text("echo", "pid")
    for one in pending:
        with fails((DENIED, "LimitsExceeded")):
            one.wait()
    assert max(one.elapsed for one in pending) < WAIT_ALL + 2 * SLOWNESS
    eventually(lambda: alice.property("Version"), "it can call again")
    polkit.rule = "yes"
    assert all(caller.tool_text("echo", "pid") for caller in callers)


def test_one_user_has_few_questions_open(service, polkit, root):
    """A bus allows few open calls (dbus-daemon: 128): no user may use them up and have others' calls denied."""
    polkit.rule = "silence"
    callers = [service.caller(uid=ALICE) for _ in range(4)]
    for i in range(16):
        for caller in callers:
            caller.begin_tool("echo", f"tool-{i}")
    settle(1)
    assert 8 <= len(polkit.questions) <= 16
    polkit.forget()
    for i in range(16):
        for caller in callers:
            caller.begin_tool("obedient", f"tool-{i}", interactive=True)
    settle(1)
    assert len(polkit.questions) <= 16


def test_what_waits_its_turn_is_asked_too(service, polkit, root, alice):
    polkit.rule = "after", 0.05, "yes"
    pending = [alice.begin_tool("obedient", "echo", {"message": str(i)}) for i in range(8)]
    pending += [alice.begin_tool("obedient", f"tool-{i}") for i in range(50)]
    assert [text_of(one.wait()) for one in pending[:8]] == [str(i) for i in range(8)]
    for one in pending[8:]:
        with fails(("Remote", "LimitsExceeded")):
            one.wait()
    assert len(polkit.asked(CALL)) == 51


@pytest.mark.skipif(SANITIZED, reason="memory says nothing under a sanitizer")
def test_held_messages_are_bounded(service, polkit, root):
    """No user piles up the service's memory while polkit thinks."""
    polkit.rule = "silence"
    callers = [service.caller(uid=ALICE) for _ in range(4)]
    before = peak_memory(service.pid)
    big = '{"x":"' + "x" * 900_000 + '"}'
    for i in range(20):
        for caller in callers:
            caller.begin_tool("echo", f"tool-{i}", big)
    eventually(lambda: root.property("Version"), "they are read")
    assert peak_memory(service.pid) - before < 32 * 1024 * 1024


@pytest.mark.skipif(SANITIZED, reason="memory says nothing under a sanitizer")
def test_messages_of_strangers_are_bounded(service, polkit):
    """What comes before the bus has said who it is."""
    polkit.rule = "silence"
    root = service.caller()
    root.reload()
    before = peak_memory(service.pid)
    callers = [service.caller(uid=ALICE) for _ in range(12)]
    big = '{"x":"' + "x" * 2_000_000 + '"}'
    os.kill(service.pid, signal.SIGSTOP)
    for caller in callers:
        for i in range(8):
            caller.begin_tool("echo", f"tool-{i}", big)
    os.kill(service.pid, signal.SIGCONT)
    eventually(lambda: root.property("Version"), "they are read")
    assert peak_memory(service.pid) - before < 90 * 1024 * 1024


def test_bytes_of_one_users_held_calls_are_limited(service, polkit, root, alice, bob):
    service.settings(limits={"queued_bytes_per_user": 1_000_000})
    root.reload()
    polkit.rule = lambda question: "yes" if question.subject[1]["name"] == bob.unique_name else "silence"
    big = '{"message":"' + "x" * 400_000 + '"}'
    pending = [alice.begin_tool("echo", f"tool-{i}", big) for i in range(3)]
    other = service.caller(uid=ALICE)
    with fails("LimitsExceeded", "queued_bytes_per_user"):
        other.call_tool("echo", "tool-x", big)
    assert bob.tool_text("obedient", "echo", big) == "x" * 400_000
    eventually(lambda: sum(one.done for one in pending) == 1, "one is refused")
    alice.close()
    polkit.rule = "yes"
    assert other.tool_text("obedient", "echo", big) == "x" * 400_000


def test_descriptors_that_come_along_are_bounded(service, polkit, root):
    """A service without descriptors loses its bus: what one user's messages bring stays far from LimitNOFILE= of the unit."""
    polkit.rule = "silence"
    before = len(service.open_fds())
    with another_user(ALICE):
        connections = [RawBus(service.bus.address, fds=True) for _ in range(3)]
    with open("/dev/null", "rb") as null:
        for i in range(40):
            for raw in connections:
                raw.begin_with_fds([null.fileno()] * 16, NAME, PATH, ROOT, "CallTool", b"echo", b"tool-%d" % i, b"")
    alive(root)
    refused = 0
    while refused < 120 - WAITING:
        for raw in eventually(lambda: [raw for raw in connections if raw.waits()], "what is too much is refused"):
            kind, fields, _ = raw.receive()
            refused += kind == ERROR and fields[4].endswith("LimitsExceeded")
    assert len(service.open_fds()) - before <= WAITING * 16 + 16
    for raw in connections:
        raw.close()
    eventually(lambda: len(service.open_fds()) <= before, "they are closed")


def array_of(element, count, aligned, first=4):
    """An array as it is marshalled: elements of so many bytes start at multiples of aligned, the first one behind first."""
    data = element.ljust(len(element) + -len(element) % aligned, b"\0") * (count - 1) + element
    return struct.pack("<I", len(data)).ljust(first, b"\0") + data


@pytest.mark.skipif(SANITIZED, reason="under a sanitizer reading takes longer than looking")
@pytest.mark.parametrize("signature, body", [
    ("av", array_of(b"\1y\0\1", 3_000_000, 1)), ("a(y)", array_of(b"\1", 1_500_000, 8, first=8)),
    ("as", array_of(b"\0" * 5, 1_500_000, 4)), ("aas", array_of(b"\0" * 4, 3_000_000, 4)),
    ("ay", array_of(b"x", 12_000_000, 1)),
], ids=["av", "a(y)", "as", "aas", "ay"])
def test_what_is_held_takes_no_time_to_measure(service, polkit, root, signature, body):
    """Nobody holds the loop up with a message that costs much to walk: neither as a stranger nor as one who is known."""
    for _ in range(2):
        with another_user(ALICE), RawBus(service.bus.address) as raw:
            before = processor_time(service.pid)
            for _ in range(2):
                raw.begin(NAME, PATH, PROPERTIES, "GetAll", signature=signature, body=body)
                kind, error, _ = raw.call(NAME, PATH, PROPERTIES, "GetAll", b"x")
                assert processor_time(service.pid) - before < 0.2 * SLOWNESS


def test_messages_of_all_shapes_are_held(service, polkit, root):
    """What no method takes is refused, whether its sender is known or not, and whatever polkit says."""
    polkit.rule = "yes"
    shapes = {"": (), "s": ("",), "ssv": ("", "", dbus.Array([dbus.Struct(("x", 1))])), "a{sv}": ({"x": dbus.Array([], "s")},),
              "(iai)": ((1, [2, 3]),), "aas": ([["x"], []],), "yd": (dbus.Byte(1), 2.0), "gov": ("s", "/", dbus.Int64(1)),
              "ai": ([],), "aai": ([],), "av": ([dbus.Struct((1, dbus.Array([b"x"], "ay")))],)}
    for signature, args in shapes.items():
        caller = service.caller(uid=ALICE)
        pending = [caller.begin(member, signature, *args, interface=interface)
                   for member, interface in (("CallTool", ROOT), ("Get", PROPERTIES), ("Nothing", ROOT))]
        for one in pending:
            with fails(("org.freedesktop.DBus.Error.InvalidArgs", "org.freedesktop.DBus.Error.UnknownMethod",
                        "org.freedesktop.DBus.Error.UnknownProperty")):
                one.wait()
