"""polkit is missing, silent, slow or mad; callers leave; the service is told to stop."""

import os
import signal
import time

import pytest

from caller import ALICE, BOB, DENIED, NAME, CallFailed, another_user, fails, text_of
from mock_polkit import CALL, USE_NETWORK, MockPolkit
from raw_connection import RawBus
from waiting import SLOWNESS, eventually, settle

WAIT = 5.0  # for polkit
WAIT_ALL = 20.0  # for all its answers to what one message asks


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


@pytest.mark.slow
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
        raw.send_signal(NAME, "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged",
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
            raw.send_reply(NAME, serial, "(bba{ss})", b"\1\0\0\0" + b"\0" * 12)
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
