"""The private socket /run/mcp-exec/bus: the same rights, asked for by what the socket itself says of its caller."""

import os
import subprocess

import dbus
import pytest

from caller import NAME, PATH, ROOT, Caller, fails
from machine import identity, run_as, uid, worker_units
from polkit_stand_in import DENIAL, NO, YES
from service import REPO
from waiting import eventually, turn_loop

ADDRESS = "unix:path=/run/mcp-exec/bus"
CALL = ("call", NAME, PATH, ROOT, "CallTool", "sss", "python", "run")


@pytest.fixture
def connect(machine):
    def connect(user):
        """A private connection that says it is that user's, from this process."""
        with identity(user):
            caller = Caller(ADDRESS)
        machine.callers.append(caller)
        return caller

    return connect


def busctl(user, *words, **options):
    return run_as(user, "busctl", f"--address={ADDRESS}", *words, **options)


def test_who_is_in_the_group_is_answered(machine):
    assert '42' in busctl("alice", *CALL, '{"code": "print(6 * 7)"}').stdout
    assert machine.root.workers("python")[0]["Owner"] == f"uid:{uid('alice')}"


def test_who_is_not_is_denied(machine):
    denied = busctl("carol", *CALL, '{"code": "print(6 * 7)"}', check=False)
    assert denied.returncode != 0 and "denied" in denied.stderr.lower()
    assert not worker_units()


def test_bus_and_socket_share_a_users_worker(machine, alice):
    busctl("alice", *CALL, '{"code": "x = 42"}')
    assert '"stdout":"42\\n"' in alice.call_tool("python", "run", {"code": "print(x)"})
    assert len(machine.root.workers("python")) == 1


def test_others_workers_are_not_there(machine, bob):
    bob.call_tool("python", "run", {"code": ""})
    worker = machine.root.workers("python")[0]["path"]
    assert worker.rpartition("/")[2] not in busctl("alice", "tree", NAME).stdout
    assert worker.rpartition("/")[2] in busctl("bob", "tree", NAME).stdout
    shown = busctl("alice", "get-property", NAME, worker, f"{ROOT}.Worker", "Pid", check=False)
    assert shown.returncode != 0


def test_the_subject_is_the_process_by_its_pidfd(machine, mock, connect):
    """With the uid that the socket knows: a pid alone could be another process's by now."""
    machine.echo()
    caller = connect("carol")
    pending = caller.begin_tool("echo", "echo", {"message": "hi"})
    question = mock.asked()
    kind, details = question.subject
    assert kind == "unix-process" and set(details) == {"pid", "start-time", "uid", "pidfd"}
    assert (details["pid"], details["uid"]) == (os.getpid(), uid("carol"))
    assert isinstance(details["pidfd"], dbus.types.UnixFd)
    with open(f"/proc/self/fdinfo/{(fd := details['pidfd'].take())}") as info:
        assert f"Pid:\t{os.getpid()}\n" in info.read()
    os.close(fd)
    assert (question.action, question.details) == (f"{NAME}.call", {"server": "echo", "method": "tools/call", "tool": "echo"})
    question.answer(*YES)
    assert "hi" in pending.wait()


def test_a_denial(machine, mock, connect):
    mock.answers = {"execute-code": NO}
    with fails(DENIAL):
        connect("carol").begin_tool("python", "run", {"code": ""}).wait()
    assert not worker_units()


# Connects, and leaves the connection to another process, which makes the call.
PASSED_ON = f"""
import os, sys
sys.path.insert(0, {str(REPO / "tests/lib")!r})
from raw_connection import RawBus, error_text
connection = RawBus({ADDRESS!r})
if os.fork() == 0:
    kind, name, body = connection.call({NAME!r}, {PATH!r}, {ROOT!r}, "CallTool", b"echo", b"echo", b'{{"message": "hi"}}')
    print(name, error_text(body), flush=True)
"""


def test_a_process_that_exits_during_the_check_is_denied(machine, mock):
    """Somebody else holds its connection then, and may not have what it was granted."""
    machine.echo()
    with subprocess.Popen(["/usr/bin/python3", "-c", PASSED_ON], user="carol", cwd="/", stdout=subprocess.PIPE, text=True) as process:
        question = mock.asked()
        assert process.wait(10) == 0
        question.answer(*YES)
        turn_loop(0.1)
        said = process.stdout.read()
    assert "AccessDenied" in said and "exited" in said
    assert not worker_units()


def test_a_caller_that_leaves_takes_its_question_back(machine, mock, connect):
    machine.echo()
    caller = connect("carol")
    caller.begin_tool("echo", "echo", {"message": "hi"})
    question = mock.asked()
    caller.close()
    eventually(lambda: question.cancelled, "the question is taken back")
    assert not worker_units()
