"""What polkit is asked about callers of the private socket: there the connection is the caller, and its process the subject."""

import os
import signal
import socket
import time

import pytest

from caller import ALICE, BOB, DENIED, NAME, PATH, ROOT, another_user, fails, text_of
from mock_polkit import CALL, MANAGE, USE_NETWORK, MockPolkit
from raw_connection import ERROR, METHOD_RETURN, RawConnection, text
from waiting import SLOWNESS, eventually, settle


@pytest.fixture
def service(make_service):
    if os.getuid() != 0:
        pytest.skip("only root can be several users")
    service = make_service(system=True, private=True)
    service.start_bus()
    service.let_others_in()
    service.echo()
    service.obedient()
    service.run_directly()
    return service


@pytest.fixture
def polkit(service):
    polkit = MockPolkit(service.bus.address)
    yield polkit
    polkit.close()


@pytest.fixture
def connect(service):
    return lambda uid: service.private_caller(uid)


def test_the_subject_is_the_process_that_connected(polkit, connect):
    polkit.rule = "yes"
    alice = connect(ALICE)
    assert alice.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    assert [question.action for question in polkit.questions] == [CALL, USE_NETWORK]
    for question in polkit.questions:
        kind, details = question.subject
        assert kind == "unix-process" and details["pid"] == os.getpid() and details["uid"] == ALICE
        assert "pidfd" in details
    polkit.forget()
    alice.call_tool("echo", "pid")
    alice.call_tool("echo", "pid")
    assert len(polkit.questions) == 2


def test_a_denied_one_is_denied(service, polkit, connect):
    with fails(DENIED, "uid 1", CALL):
        connect(ALICE).call_tool("echo", "pid")
    with fails(DENIED, MANAGE):
        connect(ALICE).reload()
    assert not service.worker_processes()


def test_root_is_not_asked(polkit, connect):
    assert connect(None).tool_text("echo", "echo", {"message": "hi"}) == "hi"
    assert polkit.questions == []


def test_each_connection_is_asked_for(polkit, connect):
    """Though it is the same process."""
    polkit.rule = "yes"
    connect(ALICE).call_tool("echo", "pid")
    polkit.rule = "no"
    with fails(DENIED):
        connect(ALICE).call_tool("echo", "pid")


def test_a_caller_that_leaves_withdraws_its_questions(service, polkit, connect):
    polkit.rule = "silence"
    alice = connect(ALICE)
    for i in range(6):
        alice.begin_tool("echo", f"tool-{i}")
    eventually(lambda: len(polkit.questions) == 6, "polkit is asked")
    alice.close()
    eventually(lambda: len(polkit.cancelled) == 6, "the questions are withdrawn")
    for question in polkit.questions:
        polkit.answer(question, "yes")
    settle(0.3)
    assert not service.worker_processes()


def test_limits_hold_for_both_ways_in(service, polkit, connect):
    """A user can't have more waiting by coming by the socket as well."""
    polkit.rule = "silence"
    callers = [connect(ALICE), service.caller(uid=ALICE)]
    pending = [caller.begin_tool("echo", f"tool-{i}") for i in range(40) for caller in callers]
    eventually(lambda: sum(one.done for one in pending) == 16, "the rest is refused")
    polkit.rule = lambda question: "yes" if question.tool == "pid" else "no"
    assert connect(BOB).tool_text("obedient", "pid")


def connected_by(service):
    """A connection that a process of ALICE's has opened, and this one uses; and what ends that process."""
    raw = RawConnection.__new__(RawConnection)
    raw.socket, raw._serial = socket.socket(socket.AF_UNIX), 0
    raw.socket.settimeout(30)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(ALICE)
        os.setuid(ALICE)
        raw.socket.connect(service.private_address.removeprefix("unix:path="))
        os.read(read, 1)
        os._exit(0)

    def end():
        os.write(write, b"x")
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)

    time.sleep(0.2)
    with another_user(ALICE):
        raw.authenticate()
    raw.hello()
    return raw, end


def test_a_process_that_has_exited_is_granted_nothing(service, polkit):
    """Its number may be another's by now."""
    polkit.rule = "silence"
    raw, end = connected_by(service)
    serial = raw.begin(NAME, PATH, ROOT, "CallTool", b"echo", b"pid", b"")
    question = eventually(lambda: polkit.questions, "polkit is asked")[0]
    end()
    polkit.answer(question, "yes")
    kind, error, body = raw.answer(serial)
    assert (kind, error) == (ERROR, DENIED) and "exited" in text(body)
    assert not service.worker_processes()
    raw.close()


def test_one_that_lives_is(service, polkit):
    polkit.rule = "yes"
    raw, end = connected_by(service)
    kind, _, body = raw.call(NAME, PATH, ROOT, "CallTool", b"echo", b"echo", b'{"message":"hi"}')
    assert kind == METHOD_RETURN and text_of(text(body)) == "hi"
    end()
    raw.close()


def test_sigterm_during_a_check_is_an_answer(service, polkit, connect):
    polkit.rule = "silence"
    alice = connect(ALICE)
    pending = [alice.begin_tool("echo", f"tool-{i}") for i in range(4)]
    eventually(lambda: len(polkit.questions) == 4, "polkit is asked")
    daemon = service.daemon()
    before = time.monotonic()
    daemon.kill(signal.SIGTERM)
    for one in pending:
        with fails(DENIED):
            one.wait()
    service.wait_gone(daemon)
    assert time.monotonic() - before < 7 * SLOWNESS
