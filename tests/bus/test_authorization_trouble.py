"""polkit is missing, silent, slow or mad; callers leave; the service is told to stop; there is too much of it."""

import os
import signal
import struct
import time

import dbus
import pytest

from caller import NAME, PATH, PROPERTIES, ROOT, CallFailed, another_user, fails, text_of
from mock_polkit import CALL, MANAGE, USE_NETWORK
from processes import peak_memory, processor_time
from raw_bus import METHOD_RETURN, RawBus
from service import SANITIZED
from waiting import SLOWNESS, eventually, settle

ALICE, BOB = 1, 2
DENIED = "org.freedesktop.DBus.Error.AccessDenied"
WAIT = 5.0  # for polkit
WAIT_ALL = 20.0  # for all its answers to what one message asks
WAITING = 64  # messages of one connection, and of one user


@pytest.fixture
def service(system_service):
    system_service.echo()
    system_service.obedient()
    return system_service


@pytest.fixture
def alice(service):
    return service.caller(uid=ALICE)


@pytest.fixture
def bob(service):
    return service.caller(uid=BOB)


@pytest.fixture
def root(service):
    """Somebody who isn't asked about, and is served all the while."""
    caller = service.caller()
    caller.call_tool("obedient", "pid")
    yield caller
    before = time.monotonic()
    assert caller.tool_text("obedient", "echo", {"message": "alive"}) == "alive"
    assert time.monotonic() - before < 1 * SLOWNESS


def alive(root):
    """The loop turns: another caller has its answer at once."""
    before = time.monotonic()
    assert root.tool_text("obedient", "echo", {"message": "hi"}) == "hi"
    assert time.monotonic() - before < 1 * SLOWNESS


def ran(service, server="echo"):
    return any(server in worker["Server"] for worker in service.caller().workers())


# Answers that are none

def test_without_polkit_calls_are_denied_at_once(service, root, alice):
    before = time.monotonic()
    for _ in range(3):
        with fails(DENIED, "polkit can't be asked"):
            alice.call_tool("echo", "pid")
    with fails(DENIED):
        alice.reload()
    assert time.monotonic() - before < 2 * SLOWNESS
    assert not ran(service)


@pytest.mark.parametrize("answer", [
    ("error", "org.freedesktop.PolicyKit1.Error.Failed", "no session"),
    ("error", "org.freedesktop.PolicyKit1.Error.NotAuthorized", ""),
    ("error", "a.b", "line\nfeed \x1b[31m red"),
    ("body", "()", ()),
    ("body", "(s)", ("yes",)),
    ("body", "(b)", (True,)),
    ("body", "(bba{ss})", (True, False, {})),
    ("body", "((bb))", ((True, False),)),
    ("body", "((bba{sv}))", ((True, False, {}),)),
    ("body", "((ssa{ss}))", (("1", "1", {}),)),
    ("body", "(av)", ([],)),
    "crash",
], ids=str)
def test_what_is_no_verdict_is_a_denial(service, polkit, root, alice, answer):
    polkit.rule = answer
    before = time.monotonic()
    with fails(DENIED, "server echo"):
        alice.call_tool("echo", "pid")
    assert time.monotonic() - before < 2 * SLOWNESS
    assert not ran(service)


@pytest.mark.parametrize("text", ["ü" * 400, "€" * 400, "x" * 200 + "𝄞" * 100, "x" * 100000], ids=["ü", "€", "𝄞", "x"])
def test_long_error_texts_lose_no_answer(service, polkit, alice, text):
    """What is cut in the middle of a character isn't UTF-8 any more, and never sent."""
    for size in range(4):
        polkit.rule = "error", "org.freedesktop.PolicyKit1.Error.Failed", "a" * size + text
        with fails(DENIED):
            alice.call_tool("echo", "pid", timeout=3)


def test_a_denial_wins_over_a_challenge(service, polkit, alice):
    polkit.rule = "body", "((bba{ss}))", ((False, True, {"polkit.result": "x"}),)
    with fails("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"):
        alice.call_tool("echo", "pid")


def test_a_silent_polkit_denies_in_time(service, polkit, root, alice):
    polkit.rule = "silence"
    pending = alice.begin_tool("echo", "pid")
    question = eventually(lambda: polkit.questions, "polkit is asked")[0]
    while not pending.done:
        alive(root)
        settle(0.3)
    with fails(DENIED, "polkit can't be asked"):
        pending.wait()
    assert WAIT - 0.5 < pending.elapsed < WAIT + 2 * SLOWNESS
    eventually(lambda: polkit.cancelled == [question.cancellation], "the question is withdrawn")
    polkit.answer(question, "yes")
    settle(0.3)
    assert not ran(service)
    polkit.rule = "yes"
    assert alice.tool_text("echo", "pid")


def test_a_late_grant_is_none(service, polkit, alice):
    """And it counts for no other call."""
    polkit.rule = "after", WAIT + 1, "yes"
    with fails(DENIED):
        alice.call_tool("echo", "pid")
    polkit.rule = "no"
    settle(1.5)
    with fails(DENIED):
        alice.call_tool("echo", "pid")
    assert not ran(service)


def test_a_slow_polkit_is_waited_for(polkit, root, alice):
    polkit.rule = "after", WAIT - 1.5, "yes"
    pending = alice.begin_tool("echo", "pid")
    settle(1)
    alive(root)
    assert pending.wait()


def test_a_batch_does_not_wait_for_ever(polkit, root, alice):
    """Each answer comes in time, all of them together don't."""
    polkit.rule = "after", WAIT - 1, "yes"
    before = time.monotonic()
    with fails(DENIED):
        alice.call_batch("echo", *(("tools/call", {"name": f"tool-{i}"}) for i in range(20)))
    assert time.monotonic() - before < WAIT_ALL + 2 * SLOWNESS


def test_polkit_comes_back(service, make_polkit, alice):
    first = make_polkit("crash")
    with fails(DENIED):
        alice.call_tool("echo", "pid")
    first.close()
    make_polkit("yes")
    assert alice.tool_text("echo", "pid")


def test_a_mad_polkit_keeps_nobody_from_looking(service, polkit, root, alice):
    """What others own isn't shown, and that is all."""
    for rule in ("crash", "silence"):
        polkit.rule = rule
        before = time.monotonic()
        assert alice.property("Version")
        assert alice.workers() == []
        assert [name for name, _, _ in alice.list_servers()] == ["echo", "obedient"]
        assert time.monotonic() - before < WAIT + 2 * SLOWNESS


def test_a_missing_polkit_is_not_started_to_be_cancelled(service, root, alice, tmp_path):
    """Each failed question would start it twice."""
    starts = tmp_path / "starts"
    script = tmp_path / "polkit"
    script.write_text(f"#!/bin/sh\necho started >>{starts}\nexit 1\n")
    script.chmod(0o755)
    service.bus.activate_by("org.freedesktop.PolicyKit1", str(script))
    root.bus.call_blocking("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig", "", ())
    with fails(DENIED):
        alice.call_tool("echo", "pid")
    settle(0.5)
    assert starts.read_text().count("started") == 1


# The caller leaves

def test_a_caller_that_leaves_withdraws_its_questions(service, polkit, root, alice):
    polkit.rule = "silence"
    for i in range(8):
        alice.begin_tool("echo", f"tool-{i}")
        alice.begin_tool("echo", f"tool-{i}")
    eventually(lambda: len(polkit.questions) == 8, "polkit is asked")
    alice.close()
    eventually(lambda: len(polkit.cancelled) == 8, "the questions are withdrawn")
    assert sorted(polkit.cancelled) == sorted(question.cancellation for question in polkit.questions)
    for question in polkit.questions:
        polkit.answer(question, "yes")
    settle(0.5)
    assert not ran(service)


def test_a_caller_leaves_in_the_moment_of_the_answer(service, polkit, root):
    """The grant and the news that the caller is gone come in one go, in either order."""
    service.obedient("counted", "--starts", str(service.folder / "starts"), pool={"max": 1})
    root.reload()
    polkit.rule = "silence"
    pid = service.pid
    for i in range(30):
        caller = service.caller(uid=ALICE)
        polkit.forget()
        for tool in ("a", "b"):
            caller.begin_tool("counted", tool)
        asked = eventually(lambda: polkit.asked(CALL, tool="b") and polkit.asked(CALL), "polkit is asked")
        os.kill(pid, signal.SIGSTOP)
        try:
            if i % 2:
                caller.close()
            for question in asked:
                polkit.answer(question, "yes")
            caller.close()
            settle(0.03)
        finally:
            os.kill(pid, signal.SIGCONT)
        alive(root)
    assert service.pid == pid
    # Only use-network is left to be asked, and nobody is there to be asked about.
    assert not (service.folder / "starts").exists()


def test_granted_and_gone_before_it_runs(service, polkit, root):
    """All is granted, and the message waits to be dispatched again, when the caller leaves."""
    polkit.rule = lambda question: "silence" if question.action == USE_NETWORK else "yes"
    pid = service.pid
    for _ in range(20):
        caller = service.caller(uid=ALICE)
        polkit.forget()
        caller.begin_tool("echo", "pid")
        question = eventually(lambda: polkit.asked(USE_NETWORK), "polkit is asked")[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            polkit.answer(question, "yes")
            settle(0.02)
            caller.close()
            settle(0.02)
        finally:
            os.kill(pid, signal.SIGCONT)
        alive(root)
    assert service.pid == pid
    eventually(lambda: root.property("CallsInFlight") == 0, "no call is left")


def test_a_stranger_that_leaves_asks_nothing(service, polkit, root):
    polkit.rule = "yes"
    pid = service.pid
    for _ in range(20):
        os.kill(pid, signal.SIGSTOP)
        try:
            caller = service.caller(uid=ALICE)
            caller.begin_tool("echo", "pid")
            settle(0.01)
            caller.close()
            settle(0.01)
        finally:
            os.kill(pid, signal.SIGCONT)
        alive(root)
    settle(0.2)
    assert not ran(service)


def test_nobody_else_can_say_that_a_caller_left(service, polkit, root, alice):
    """Nor can a signal that only looks like the bus's own end another's call."""
    polkit.rule = "silence"
    pending = alice.begin_tool("echo", "pid")
    question = eventually(lambda: polkit.questions, "polkit is asked")[0]
    with another_user(BOB), RawBus(service.bus.address) as raw:
        raw.signal(NAME, "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged",
                   alice.unique_name.encode(), alice.unique_name.encode(), b"")
    settle(0.5)
    assert polkit.cancelled == []
    polkit.rule = "yes"
    polkit.answer(question, "yes")
    assert pending.wait()


def test_nobody_else_can_answer_for_polkit(service, polkit, root, alice):
    polkit.rule = "silence"
    pending = alice.begin_tool("echo", "pid")
    eventually(lambda: polkit.questions, "polkit is asked")
    with another_user(BOB), RawBus(service.bus.address) as raw:
        for serial in range(1, 200):
            raw.reply(NAME, serial, "(bba{ss})", b"\1\0\0\0" + b"\0" * 12)
        raw.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")
    settle(0.5)
    assert not pending.done and not ran(service)
    with fails(DENIED):
        pending.wait()


# The service leaves

def test_sigterm_during_a_check_is_an_answer(service, polkit, alice):
    polkit.rule = "silence"
    pending = [alice.begin_tool("echo", f"tool-{i}") for i in range(4)]
    pending.append(alice.begin("Reload", ""))
    eventually(lambda: len(polkit.questions) == 5, "polkit is asked")
    daemon = service.daemon()
    before = time.monotonic()
    daemon.kill(signal.SIGTERM)
    service.wait_gone(daemon)
    assert time.monotonic() - before < 6 * SLOWNESS
    for one in pending:
        with fails(DENIED):
            one.wait()


def test_two_sigterms_during_a_check_too(service, polkit, alice):
    polkit.rule = "silence"
    pending = [alice.begin_tool("echo", f"tool-{i}") for i in range(4)]
    eventually(lambda: len(polkit.questions) == 4, "polkit is asked")
    daemon = service.daemon()
    daemon.kill(signal.SIGTERM)
    settle(0.2)
    daemon.kill(signal.SIGTERM)
    service.wait_gone(daemon, 3)
    for one in pending:
        with fails(DENIED, "leaving"):
            one.wait()
    eventually(lambda: len(polkit.cancelled) == 4, "the questions are withdrawn")


def test_what_is_granted_after_sigterm_is_served(service, polkit, alice):
    polkit.rule = "silence"
    pending = alice.begin_tool("obedient", "echo", {"message": "still"})
    question = eventually(lambda: polkit.questions, "polkit is asked")[0]
    daemon = service.daemon()
    daemon.kill(signal.SIGTERM)
    settle(0.3)
    polkit.rule = "yes"
    polkit.answer(question, "yes")
    assert text_of(pending.wait()) == "still"
    service.wait_gone(daemon, 5)


@pytest.fixture
def hasty(make_service):
    if os.getuid() != 0:
        pytest.skip("only root can be several users")
    service = make_service(system=True, idle_timeout=0.3)
    service.start_bus()
    service.let_others_in()
    service.echo("echo", keep_alive=False)
    return service


@pytest.fixture
def slow_polkit(hasty):
    from mock_polkit import MockPolkit
    polkit = MockPolkit(hasty.bus.address, ("after", 1.0, "yes"))
    yield polkit
    polkit.close()


def test_a_check_keeps_the_service(hasty, slow_polkit):
    alice = hasty.caller(uid=ALICE)
    pending = alice.begin_tool("echo", "echo", {"message": "late"})
    daemon = eventually(hasty.daemon, "it starts")
    assert text_of(pending.wait()) == "late"
    assert hasty.pid == daemon.pid
    hasty.wait_gone(daemon)


@pytest.mark.parametrize("member, args", [("Describe", ("s", "echo")), ("Reload", ("",)), ("StopServer", ("s", "echo")),
                                          ("CallTool", ("sss", "gone", "x", ""))])
@pytest.mark.parametrize("rule", [("after", 1.0, "yes"), ("after", 1.0, "no"), "silence"], ids=["yes", "no", "silence"])
def test_it_leaves_after_a_check_that_took_longer_than_its_idle_time(hasty, slow_polkit, member, args, rule):
    """Nothing else may be needed to remind it."""
    hasty.echo("gone")
    slow_polkit.rule = rule
    pending = hasty.caller(uid=ALICE).begin(member, *args)
    daemon = eventually(hasty.daemon, "it starts")
    eventually(lambda: slow_polkit.questions, "polkit is asked")
    (hasty.config / "servers.d/gone.json").unlink()
    try:
        pending.wait()
    except CallFailed:
        pass
    hasty.wait_gone(daemon, 5)


def test_a_server_that_is_gone_when_polkit_agrees(hasty, slow_polkit):
    hasty.echo("gone")
    alice = hasty.caller(uid=ALICE)
    pending = alice.begin_tool("gone", "pid")
    eventually(lambda: slow_polkit.questions, "polkit is asked")
    (hasty.config / "servers.d/gone.json").unlink()
    with fails("NoSuchServer", "gone"):
        pending.wait()
    hasty.wait_gone(hasty.daemon(), 5)


# Too much of it

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
        connections = [RawBus(service.bus.address) for _ in range(3)]
    with open("/dev/null", "rb") as null:
        for i in range(40):
            for raw in connections:
                raw.send(NAME, PATH, ROOT, "CallTool", b"echo", b"tool-%d" % i, b"", fds=[null.fileno()] * 16)
    alive(root)
    assert len(service.open_fds()) - before <= WAITING * 16 + 16
    for raw in connections:
        raw.__exit__()
    eventually(lambda: len(service.open_fds()) <= before, "they are closed")


def array_of(element, count, aligned, first=4):
    """An array as it is marshalled: elements of so many bytes start at multiples of aligned, the first one behind first."""
    data = element.ljust(len(element) + -len(element) % aligned, b"\0") * (count - 1) + element
    return struct.pack("<I", len(data)).ljust(first, b"\0") + data


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
                raw.send_body(NAME, PATH, PROPERTIES, "GetAll", signature, body)
                kind, error, _ = raw.call(NAME, PATH, PROPERTIES, "GetAll", b"x")
                assert processor_time(service.pid) - before < 0.15 * SLOWNESS


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
