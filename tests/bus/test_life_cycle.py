"""The daemon comes with the first call and leaves when idle; calls are cancelled; nothing outlives its time."""

import os
import signal
import time

import pytest

from caller import NAME, CallFailed, check_failure, fails, text_of
from processes import Process, processor_time
from waiting import SLOWNESS, eventually, settle


def process_of(caller, server="obedient"):
    return Process.of(int(caller.tool_text(server, "pid")))


def cancels(journal):
    return journal.read_text().count('"notifications/cancelled"') if journal.exists() else 0


# Coming and going

def test_idle_exit_and_a_new_start(make_service):
    service = make_service(idle_timeout=0.3)
    service.echo("echo", keep_alive={"timeout": 0.2})
    caller = service.caller()
    assert caller.tool_text("echo", "echo", {"message": "one"}) == "one"
    first = service.daemon()
    service.wait_gone(first)
    eventually(lambda: service.started() == [], "nothing is left")
    assert caller.tool_text("echo", "echo", {"message": "two"}) == "two"
    assert service.pid != first.pid


def test_a_warm_worker_keeps_the_daemon(make_service):
    service = make_service(idle_timeout=0.2)
    service.echo()
    caller = service.caller()
    caller.call_tool("echo", "pid")
    daemon = service.daemon()
    settle(1)
    assert daemon.alive()


def test_a_call_keeps_the_daemon(make_service):
    service = make_service(idle_timeout=0.2)
    service.obedient("obedient", keep_alive=False)
    caller = service.caller()
    assert text_of(caller.call_tool("obedient", "block", {"seconds": 1.0})) == "blocked"


def test_reading_alone_lets_it_go(make_service):
    service = make_service(idle_timeout=0.3)
    caller = service.caller()
    caller.list_servers()
    service.wait_gone(service.daemon())


def test_an_idle_daemon_sleeps(service, caller):
    """Timers, not polling."""
    service.echo()
    caller.call_tool("echo", "pid")
    settle(0.3)
    before = processor_time(service.pid)
    settle(1.5)
    assert processor_time(service.pid) - before <= 0.02


def test_sigterm_takes_the_workers_along(service, caller):
    service.obedient("obedient", timeouts={"stop": 0.3})
    service.obedient("deaf", "--deaf", timeouts={"stop": 0.3})
    workers = [process_of(caller), process_of(caller, "deaf")]
    grandchild = Process.of(caller.tool_json("obedient", "grandchild", {"own_session": False}))
    daemon = service.daemon()
    daemon.kill(signal.SIGTERM)
    service.wait_gone(daemon)
    assert not any(process.alive() for process in [*workers, grandchild])
    eventually(lambda: service.started() == [], "nothing is left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_exit_status_is_zero(service, number):
    service.echo()
    daemon = service.run_directly()
    service.caller().call_tool("echo", "pid")
    daemon.send_signal(number)
    assert daemon.wait(20 * SLOWNESS) == 0


def test_the_exit_status_is_zero_after_idleness(make_service):
    service = make_service(idle_timeout=0.2)
    daemon = service.run_directly()
    assert daemon.wait(20 * SLOWNESS) == 0


def test_sigterm_in_the_middle_of_calls(service, caller):
    """They have an answer, whichever: their own if it comes in time, else that they were cancelled."""
    service.obedient("obedient", timeouts={"stop": 0.3})
    caller.call_tool("obedient", "pid")
    quick = caller.begin_tool("obedient", "sleep", {"seconds": 0.2, "message": "quick"})
    slow = caller.begin_tool("obedient", "block", {"seconds": 30})
    daemon = service.daemon()
    daemon.kill(signal.SIGTERM)
    for one in (quick, slow):
        try:
            one.wait(20)
        except CallFailed as error:
            check_failure(error, ("Cancelled", "Unavailable", "WorkerDied"))
    service.wait_gone(daemon)


def test_a_killed_daemon_leaves_no_worker(service, caller):
    service.obedient()
    service.echo()
    workers = [process_of(caller), process_of(caller, "echo")]
    service.daemon().kill(signal.SIGKILL)
    eventually(lambda: not any(process.alive() for process in workers), "the workers are gone")
    assert caller.tool_text("echo", "echo", {"message": "again"}) == "again"


def test_a_killed_daemon_leaves_no_deaf_worker(service, caller):
    """One that minds neither the end of its stdin nor SIGTERM."""
    service.obedient("deaf", "--deaf")
    worker = process_of(caller, "deaf")
    service.daemon().kill(signal.SIGKILL)
    eventually(lambda: not worker.alive(), "the worker is gone")


def test_the_end_of_the_bus_ends_it(service, caller):
    service.echo()
    worker = process_of(caller, "echo")
    daemon = service.daemon()
    service.bus.stop()
    service.wait_gone(daemon)
    eventually(lambda: not worker.alive(), "the worker is gone")
    service._started = False


def test_a_second_daemon_does_not_get_the_name(service):
    import subprocess
    service.echo()
    service.run_directly()
    second = subprocess.run(service.arguments(), env=service.environment(), capture_output=True, text=True,
                            timeout=20 * SLOWNESS)
    assert second.returncode != 0
    assert NAME in second.stderr or "name" in second.stderr
    assert service.caller().tool_text("echo", "echo", {"message": "hi"}) == "hi"


def test_wrong_arguments(service):
    import subprocess
    from service import DAEMON
    for arguments, status in ((["--no-such-option"], 1), (["--help"], 0), (["--version"], 0), (["--idle-timeout=soon"], 1),
                              (["--log-level=loud"], 1)):
        done = subprocess.run([DAEMON, *arguments], capture_output=True, text=True, timeout=20 * SLOWNESS,
                              env=service.environment())
        assert (done.returncode != 0) == (status != 0), arguments
        assert done.stdout if status == 0 else done.stderr, arguments


def test_no_bus_is_an_error(service):
    import subprocess
    done = subprocess.run(service.arguments(), env={**service.environment(), "DBUS_SESSION_BUS_ADDRESS": "unix:path=/no/bus"},
                          capture_output=True, text=True, timeout=20 * SLOWNESS)
    assert done.returncode != 0 and "bus" in done.stderr.lower()


def test_as_a_system_service(make_service):
    service = make_service(system=True)
    service.echo()
    assert service.caller().tool_text("echo", "echo", {"message": "hi"}) == "hi"


# Deadlines and cancelling

def test_a_deadline_cancels_the_call_at_the_worker(service, caller):
    journal = service.folder / "journal"
    service.obedient("obedient", "--journal", journal, timeouts={"call": 0.5})
    started = time.monotonic()
    with fails("Timeout", "obedient|0.5|500"):
        caller.call_tool("obedient", "sleep", {"seconds": 20})
    assert time.monotonic() - started < 5
    eventually(lambda: cancels(journal) == 1, "the worker is told")
    assert caller.tool_text("obedient", "echo", {"message": "hi"}) == "hi"


def test_a_caller_that_leaves_cancels_its_calls(service, caller):
    journal = service.folder / "journal"
    service.obedient("obedient", "--journal", journal)
    pid = caller.tool_text("obedient", "pid")
    leaving = service.caller()
    for _ in range(3):
        leaving.begin_tool("obedient", "sleep", {"seconds": 30})
    staying = caller.begin_tool("obedient", "sleep", {"seconds": 1, "message": "stayed"})
    eventually(lambda: caller.server("obedient")["CallsInFlight"] == 4, "four calls are under way")
    leaving.close()
    eventually(lambda: cancels(journal) == 3, "the worker is told, three times")
    assert text_of(staying.wait()) == "stayed"
    assert caller.tool_text("obedient", "pid") == pid
    assert caller.property("CallsInFlight") == 0


def test_a_caller_that_leaves_takes_its_queued_calls(service, caller):
    journal = service.folder / "journal"
    service.obedient("obedient", "--journal", journal, pool={"max": 1, "concurrency": 1, "queue": 16})
    caller.call_tool("obedient", "pid")
    leaving = service.caller()
    mine = caller.begin_tool("obedient", "block", {"seconds": 1})
    eventually(lambda: caller.server("obedient")["CallsInFlight"] >= 1, "one call is under way")
    for _ in range(5):
        leaving.begin_tool("obedient", "remember", {"value": "never"})
    eventually(lambda: caller.server("obedient")["QueuedCalls"] == 5, "five wait")
    leaving.close()
    eventually(lambda: caller.server("obedient")["QueuedCalls"] == 0, "none waits")
    mine.wait()
    caller.call_tool("obedient", "pid")
    assert "remember" not in journal.read_text()


def test_the_handshake_is_never_cancelled(service, caller):
    journal = service.folder / "journal"
    service.obedient("obedient", "--journal", journal, "--delay", "1")
    service.echo()
    caller.call_tool("echo", "pid")
    leaving = service.caller()
    leaving.begin_tool("obedient", "pid")
    eventually(lambda: caller.workers("obedient"), "it starts")
    leaving.close()
    settle(1.5)
    assert cancels(journal) == 0
    assert caller.tool_text("obedient", "echo", {"message": "hi"}) == "hi"


def test_a_start_that_takes_too_long(service, caller):
    service.obedient("obedient", "--delay", "20", timeouts={"start": 0.5, "stop": 0.2})
    started = time.monotonic()
    with fails("HandshakeFailed"):
        caller.call_tool("obedient", "pid")
    assert time.monotonic() - started < 8


def test_callers_that_wait_for_one_start_share_its_worker(service):
    service.obedient("obedient", "--starts", service.folder / "starts", "--delay", "0.5")
    pending = [service.caller().begin_tool("obedient", "pid") for _ in range(10)]
    assert len({text_of(one.wait()) for one in pending}) == 1
    assert len((service.folder / "starts").read_text().splitlines()) == 1


# By hand

def test_start_server(service, caller):
    service.echo()
    caller.start_server("echo")
    worker, = eventually(lambda: caller.workers("echo"), "a worker")
    eventually(lambda: caller.server("echo")["State"] == "active", "it is ready")
    assert caller.tool_text("echo", "pid") == str(worker["Pid"])


def test_start_server_says_why_it_cannot(service, caller):
    service.server("absent", "/no/such/program")
    with fails("LaunchFailed", "No such file"):
        caller.start_server("absent")


def test_stop_server(service, caller):
    service.obedient()
    worker = process_of(caller)
    caller.stop_server("obedient")
    eventually(lambda: not worker.alive(), "its worker is gone")
    eventually(lambda: caller.server("obedient")["State"] == "inactive", "the server is inactive")
    assert process_of(caller).pid != worker.pid


def test_stop_server_ends_its_calls(service, caller):
    service.obedient("obedient", timeouts={"stop": 0.3})
    caller.call_tool("obedient", "pid")
    pending = caller.begin_tool("obedient", "block", {"seconds": 20})
    eventually(lambda: caller.server("obedient")["CallsInFlight"] == 1, "the call is under way")
    service.caller().stop_server("obedient")
    try:
        pending.wait(30)
    except CallFailed as error:
        check_failure(error, ("Cancelled", "WorkerDied"))


def test_stopping_what_does_not_run(service, caller):
    service.echo()
    caller.stop_server("echo")
    assert caller.tool_text("echo", "echo", {"message": "hi"}) == "hi"


def test_restart_server(service, caller):
    service.obedient()
    worker = process_of(caller)
    caller.restart_server("obedient")
    assert process_of(caller).pid != worker.pid
    eventually(lambda: not worker.alive(), "the old worker is gone")


def test_file_descriptors_come_back(service, caller):
    service.echo("echo", keep_alive=False)
    caller.call_tool("echo", "pid")
    before = len(service.open_fds())
    for _ in range(20):
        caller.call_tool("echo", "pid")
    eventually(lambda: len(service.open_fds()) <= before, "no fd is left open")


@pytest.mark.slow
def test_sigterm_ends_a_daemon_that_is_stuck(service):
    """The guard gives it 10 s."""
    service.obedient()
    guard = service.run_directly()
    caller = service.caller()
    pid = int(caller.tool_text("obedient", "pid"))
    os.kill(service.pid, signal.SIGSTOP)
    guard.terminate()
    guard.wait(timeout=30)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "its worker is gone")
