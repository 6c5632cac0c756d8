"""When the broker runs, and what becomes of its workers when it doesn't."""

import json
import pwd
import shutil
import signal
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from caller import CallFailed, fails
from machine import (BROKER, CALL, CONFIG, LAUNCHER, active, connect_socket, main_process, python_text, run_as, show,
                     systemctl, tool_json, worker_processes, worker_units)
from waiting import SLOWNESS, eventually


def inactive():
    return show(BROKER, "ActiveState") == "inactive"


def test_contact_through_the_socket_starts_the_broker(machine):
    assert not active(BROKER)
    with connect_socket():
        eventually(lambda: active(BROKER), "the broker runs")


def test_idle_means_inactive_and_the_next_call_starts_it(machine, alice):
    machine.echo(keep_alive={"timeout": 0.3}, access={"users": ["alice"]})
    machine.write("mcp-exec.json", json.dumps({"idle_timeout": 0.5}))
    for _ in range(2):
        alice.call_tool("echo", "echo", {"message": "hi"})
        broker = machine.broker()
        eventually(inactive, "the broker has left")
        assert show(BROKER, "Result") == "success"
        assert not broker.alive()
        assert active("mcp-exec.socket")


def test_no_call_is_lost_to_a_broker_that_leaves(machine, alice):
    """Calls at the very time of its exit, again and again: each has an answer."""
    machine.echo(keep_alive={"timeout": 0.05}, access={"users": ["alice"]})
    machine.write("mcp-exec.json", json.dumps({"idle_timeout": 0.05}))
    brokers = set()
    for turn in range(10):
        alice.call_tool("echo", "echo", {"message": "hi"})
        brokers.add(machine.broker())
        time.sleep(0.02 * turn)
        # More starts a minute than a service may have that isn't told to leave at once.
        systemctl("reset-failed", BROKER)
    assert len(brokers) > 2, "it never left"


def test_no_job_is_lost_to_a_broker_that_leaves(machine, alice):
    """Likewise; and one that the last broker left, as it does in the moment of its exit, is the next one's."""
    machine.echo(keep_alive={"timeout": 0.05}, access={"users": ["alice"]})
    machine.write("mcp-exec.json", json.dumps({"idle_timeout": 0.05}))
    brokers = set()
    for turn in range(10):
        path = alice.start_tool_job("echo", "echo", {"message": f"<{turn}>"})
        assert alice.job_done(path)["State"] == "succeeded"
        brokers.add(machine.broker())
        assert f"<{turn}>" in alice.job_text(path)
        alice.cancel_job(path)
        time.sleep(0.02 * turn)
        systemctl("reset-failed", BROKER)
    assert len(brokers) > 2, "it never left"

    eventually(inactive, "the last one has left")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/dbus/system_bus_socket")
        connection.sendall(b"\0AUTH EXTERNAL 30\r\n")
        bus = connection.recv(100).decode().split()[1]
    uid, job = pwd.getpwnam("alice").pw_uid, "0123456789abcdef" * 2
    file = Path(f"/run/mcp-exec/broker/jobs/{bus}-{job}")
    texts = [uid, alice.unique_name, "echo", "tools/call", "echo", 0, "", '{"message":"left"}']
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"".join(str(text).encode() + b"\0" for text in texts))
    for path in (file.parent, file):
        shutil.chown(path, "mcp-exec", "mcp-exec")
    path = "/org/example/McpExec/job/_30" + job[1:]
    assert alice.job_done(path)["State"] == "succeeded"
    assert "left" in alice.job_text(path)
    assert list(file.parent.iterdir()) == []
    alice.cancel_job(path)


def test_no_worker_outlives_a_killed_broker(machine, alice, bob):
    """Nor does what workers started, in sessions of their own; and the next call works."""
    machine.obedient(access={"groups": ["mcp-exec"]})
    for caller in (alice, bob):
        python_text(caller, "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
        tool_json(caller, "obedient", "grandchild", {"own_session": True})
    assert len(worker_units()) == 4
    processes = worker_processes()
    assert len(processes) >= 8
    old = machine.broker()

    old.kill()
    killed = time.monotonic()
    while any(process.alive() for process in processes):
        assert time.monotonic() - killed < 5 * SLOWNESS, [str(process) for process in processes if process.alive()]
        time.sleep(0.01)

    def works():
        try:
            return python_text(alice, "print(1)") == "1"
        except CallFailed as error:
            # dbus-broker takes the end of the old one for that of the new one where it hears of it late.
            assert "unit failed" in str(error), error
            return False

    eventually(works, "the next call works")
    assert machine.broker() != old


def test_callers_of_a_killed_broker_are_told(machine, alice):
    call = alice.begin_tool("python", "run", {"code": "import time; time.sleep(60)"})
    eventually(worker_processes, "the worker runs")
    machine.broker().kill()
    with fails(("org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected")):
        call.wait(10)


def test_no_worker_outlives_a_stopped_broker(machine, alice):
    python_text(alice, "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
    systemctl("stop", BROKER)
    assert not worker_processes()
    assert show(BROKER, "Result") == "success"


def test_the_watchdog_restarts_a_hung_broker(machine, alice):
    python_text(alice, "")
    old, processes = machine.broker(), worker_processes()
    restarts = int(show(BROKER, "NRestarts"))
    old.kill(signal.SIGSTOP)
    eventually(lambda: main_process(BROKER) not in (None, old) and active(BROKER), "another broker runs", timeout=25)
    assert not old.alive()
    assert int(show(BROKER, "NRestarts")) == restarts + 1
    eventually(lambda: not any(process.alive() for process in processes), "its workers are gone", timeout=2)
    assert python_text(alice, "print(1)") == "1"


def test_reload_reads_the_configuration(machine):
    machine.echo()
    file = CONFIG / "servers.d/echo.json"
    old = machine.broker()
    file.write_text(file.read_text().replace("{", '{"description": "changed",', 1))
    systemctl("reload", BROKER)
    eventually(lambda: machine.root.describe("echo")["description"] == "changed", "the new description")
    assert machine.broker() == old


@pytest.mark.parametrize("tool, arguments, said", [
    ("end", {"status": 7, "stderr": "last words\n"}, "status 7.*last words"),
    ("die", {"number": 9}, "SIGKILL"),
    ("die", {"number": 11}, "SIGSEGV"),
])
def test_how_a_worker_ended_is_told(machine, alice, tool, arguments, said):
    machine.obedient(access={"users": ["alice"]})
    with fails("WorkerDied", said):
        alice.call_tool("obedient", tool, arguments)
    # Nothing of it is left, not even in systemd's list.
    eventually(lambda: not worker_units(), "its unit is gone")


def test_a_command_that_does_not_run_is_told(machine):
    machine.server("missing", "/usr/bin/there-is-no-such-program")
    with fails("LaunchFailed", "there-is-no-such-program"):
        machine.root.call_tool("missing", "echo")
    machine.server("folder", "/usr", restart={"burst": 0})
    with fails("LaunchFailed"):
        machine.root.call_tool("folder", "echo")


def test_stop_and_restart_end_units(machine, alice):
    python_text(alice, "x = 1")
    first = worker_units()
    machine.root.stop_server("python")
    eventually(lambda: not worker_units(), "its unit is gone")
    python_text(alice, "x = 1")
    machine.root.restart_server("python")
    eventually(lambda: not set(worker_units()) & set(first) and python_text(alice, "print('x' in globals())") == "False",
               "a new one serves")


def test_many_units_at_once(machine, alice):
    """Eight workers of one user start side by side, and each is a unit of its own."""
    machine.obedient("many", access={"users": ["alice"]}, pool={"max": 4, "concurrency": 1})
    machine.obedient("others", access={"users": ["alice"]}, pool={"max": 4, "concurrency": 1})
    calls = [alice.begin_tool(server, "sleep", {"seconds": 1, "message": "done"})
             for server in ("many", "others") for _ in range(4)]
    eventually(lambda: len(worker_units()) == 8, "eight units")
    for call in calls:
        assert "done" in call.wait()
    assert len({worker["Pid"] for worker in machine.root.workers()}) == 8


def test_the_caller_of_busctl_sees_an_error_not_silence(machine):
    said = run_as("alice", *CALL, "CallTool", "sss", "python", "run", '{"code":"import os; os._exit(3)"}', check=False)
    assert said.returncode != 0
    assert "status 3" in said.stderr


def test_scope_client_ends_with_its_connection(machine, alice):
    machine.python("mine", scope="client", access={"users": ["alice"]})
    python_text(alice, "", "mine")
    processes = worker_processes()
    assert processes
    alice.close()
    eventually(lambda: not any(process.alive() for process in processes), "its worker is gone")


@contextmanager
def masked_launcher():
    systemctl("mask", "--runtime", "--now", LAUNCHER)
    try:
        yield
    finally:
        systemctl("unmask", "--runtime", LAUNCHER)


@contextmanager
def hung_launcher():
    systemctl("start", LAUNCHER)
    process = main_process(LAUNCHER)
    process.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        process.kill(signal.SIGCONT)


@pytest.mark.parametrize("absent", [masked_launcher, hung_launcher])
def test_without_the_launcher_calls_fail_in_bounded_time(machine, alice, bob, absent):
    """And workers that are there go on."""
    machine.echo(access={"users": ["bob"]})
    bob.call_tool("echo", "echo", {"message": "warm"})
    machine.python("quick", access={"users": ["alice"]}, timeouts={"start": 2})
    with absent():
        call = alice.begin_tool("quick", "run", {"code": "1"})
        assert bob.tool_text("echo", "echo", {"message": "hi"}) == "hi"
        with fails(("LaunchFailed", "HandshakeFailed", "Timeout")):
            call.wait(15)
    eventually(lambda: not [unit for unit in worker_units() if "quick" in show(unit, "Description")], "it was withdrawn")
    assert python_text(alice, "print(1)", "quick") == "1"
