"""Workers are kept, shared, limited and replaced as the server's file says."""

import os
import signal
import time

import pytest

from caller import CallFailed, check_failure, fails, text_of
from other_user import can_be_others, worker_of
from processes import Process
from service import OBEDIENT_WORKER, PYTHON, REPO
from waiting import SLOWNESS, eventually, settle

HOSTILE = str(REPO / "tests/workers/hostile.py")


def pid_of(caller, server="obedient"):
    return int(caller.tool_text(server, "pid"))


def blocked(caller, count, seconds=1.0, server="obedient"):
    return [caller.begin_tool(server, "block", {"seconds": seconds}) for _ in range(count)]


# keep_alive

def test_an_idle_worker_leaves_after_its_timeout(service, caller):
    service.echo("echo", keep_alive={"timeout": 0.5})
    process = Process.of(pid_of(caller, "echo"))
    eventually(lambda: not process.alive(), "the idle worker has left", 5)
    eventually(lambda: caller.workers() == [], "its object is gone")
    assert caller.server("echo")["State"] == "inactive"
    assert caller.tool_text("echo", "echo", {"message": "again"}) == "again"


def test_each_call_restarts_the_clock(service, caller):
    timeout = 1.5 * SLOWNESS
    service.echo("echo", keep_alive={"timeout": timeout})
    process = Process.of(pid_of(caller, "echo"))
    for _ in range(6):
        settle(timeout / 3)
        assert pid_of(caller, "echo") == process.pid
    eventually(lambda: not process.alive(), "it leaves in the end")


def test_a_call_under_way_keeps_its_worker(service, caller):
    service.obedient("obedient", keep_alive={"timeout": 0.2})
    assert text_of(caller.call_tool("obedient", "block", {"seconds": 1.0})) == "blocked"


def test_keep_alive_false_is_a_process_per_call(service, caller):
    service.echo("echo", keep_alive=False)
    pids = [pid_of(caller, "echo") for _ in range(4)]
    assert len(set(pids)) == 4
    eventually(lambda: not any(Process.of(pid) for pid in pids), "each is gone after its call")
    eventually(lambda: caller.workers() == [], "so is its object")


def test_keep_alive_disabled_by_its_key(service, caller):
    service.echo("echo", keep_alive={"enabled": False})
    assert pid_of(caller, "echo") != pid_of(caller, "echo")


def test_a_frozen_idle_worker_is_replaced(service, caller):
    service.obedient("obedient", keep_alive={"check_interval": 0.3}, timeouts={"call": 5, "stop": 0.2})
    process = Process.of(pid_of(caller))
    process.kill(signal.SIGSTOP)
    eventually(lambda: not process.alive(), "the frozen worker is gone", 30)
    assert pid_of(caller) != process.pid


def test_a_worker_that_answers_its_pings_stays(service, caller):
    service.obedient("obedient", "--journal", service.folder / "journal", keep_alive={"check_interval": 0.2})
    pid = pid_of(caller)
    journal = service.folder / "journal"
    eventually(lambda: journal.read_text().count('"ping"') >= 3, "it is pinged")
    assert pid_of(caller) == pid


def test_a_worker_deaf_to_pings_is_replaced_though_it_answers_calls(service, caller):
    service.server("deaf", PYTHON, HOSTILE, "ping-deaf", keep_alive={"check_interval": 0.3}, timeouts={"stop": 0.2})
    process = Process.of(pid_of(caller, "deaf"))
    eventually(lambda: not process.alive(), "it is replaced", 30)
    assert pid_of(caller, "deaf") != process.pid


# pool

def test_one_worker_as_long_as_it_has_room(service, caller):
    service.obedient("obedient", pool={"max": 4, "concurrency": 8})
    caller.call_tool("obedient", "pid")
    pending = blocked(caller, 8, 0.5)
    for one in pending:
        one.wait()
    assert len(caller.workers()) == 1


def test_more_workers_when_one_is_full(service, caller):
    service.obedient("obedient", pool={"max": 3, "concurrency": 1, "queue": 16})
    pending = [caller.begin_tool("obedient", "block", {"seconds": 1.0}) for _ in range(3)]
    eventually(lambda: len(caller.workers()) == 3, "three workers")
    for one in pending:
        one.wait()


def test_never_more_workers_than_max(service, caller):
    service.obedient("obedient", pool={"max": 2, "concurrency": 1, "queue": 16})
    pending = blocked(caller, 8, 0.3)
    most = 0
    while not all(one.done for one in pending):
        most = max(most, len(caller.workers()))
        settle(0.02)
    assert most == 2
    assert [text_of(one.wait()) for one in pending] == ["blocked"] * 8


def test_concurrency_one_is_one_after_another(service, caller):
    service.obedient("obedient", pool={"max": 1, "concurrency": 1, "queue": 16})
    caller.call_tool("obedient", "pid")
    started = time.monotonic()
    for one in blocked(caller, 4, 0.3):
        one.wait()
    assert time.monotonic() - started >= 1.2


def test_a_full_queue_refuses(service, caller):
    service.obedient("obedient", pool={"max": 1, "concurrency": 1, "queue": 2})
    caller.call_tool("obedient", "pid")
    pending = blocked(caller, 8, 0.5)
    refused = 0
    for one in pending:
        try:
            assert text_of(one.wait()) == "blocked"
        except CallFailed as error:
            check_failure(error, "LimitsExceeded", "queue", "2")
            refused += 1
    assert refused == 5  # one runs, two wait
    assert text_of(caller.call_tool("obedient", "block")) == "blocked"


def test_queued_calls_are_counted(service, caller):
    service.obedient("obedient", pool={"max": 1, "concurrency": 1, "queue": 8})
    caller.call_tool("obedient", "pid")
    pending = blocked(caller, 4, 0.5)
    eventually(lambda: (caller.server("obedient")["CallsInFlight"], caller.server("obedient")["QueuedCalls"]) in ((1, 3), (4, 3)),
               "three calls wait")
    for one in pending:
        one.wait()
    assert caller.server("obedient")["QueuedCalls"] == 0


def ready(caller):
    return {w["Pid"] for w in caller.workers() if w["State"] == "ready"}


def test_min_workers_are_there_after_the_first_call(service, caller):
    service.obedient("obedient", pool={"min": 2, "max": 4})
    caller.call_tool("obedient", "pid")
    first = eventually(lambda: len(pids := ready(caller)) == 2 and pids, "two workers")
    os.kill(min(first), signal.SIGKILL)
    eventually(lambda: len(pids := ready(caller)) == 2 and min(first) not in pids, "two workers again")
    assert max(first) in ready(caller)


def test_min_workers_of_a_shared_server_start_with_the_service(service, caller):
    service.obedient("obedient", pool={"min": 2, "max": 4}, scope="shared")
    service.echo()
    caller.call_tool("echo", "echo", {"message": "hi"})
    eventually(lambda: sum(w["State"] == "ready" and w["Server"] == "obedient" for w in caller.workers()) == 2, "two workers")


def test_a_queued_call_moves_when_the_worker_dies_before_it_was_sent(service, caller):
    """None of its bytes were written, so it is nobody's mistake."""
    service.obedient("obedient", pool={"max": 1, "concurrency": 1, "queue": 8}, restart={"burst": 100, "interval": 1})
    pid = pid_of(caller)
    running = caller.begin_tool("obedient", "block", {"seconds": 5})
    waiting = [caller.begin_tool("obedient", "pid") for _ in range(3)]
    eventually(lambda: caller.server("obedient")["QueuedCalls"] == 3, "three calls wait")
    os.kill(pid, signal.SIGKILL)
    with fails("WorkerDied"):
        running.wait()
    pids = {text_of(one.wait()) for one in waiting}
    assert len(pids) == 1 and str(pid) not in pids


def test_a_call_is_delivered_at_most_once(service, caller):
    journal = service.folder / "journal"
    service.obedient("obedient", "--journal", journal, restart={"burst": 100, "interval": 1})
    caller.call_tool("obedient", "pid")
    with fails("WorkerDied"):
        caller.call_tool("obedient", "end", {"status": 1})
    caller.call_tool("obedient", "pid")
    assert journal.read_text().count('"end"') == 1


# recycle

def test_recycle_after_calls(service, caller):
    service.echo("echo", recycle={"calls": 10})
    pids = []
    for _ in range(60):
        pids.append(pid_of(caller, "echo"))
        time.sleep(0.01)  # a worker goes on until its successor is ready
    assert 4 <= len(set(pids)) <= 9  # 10 calls each, a tenth more or less
    assert caller.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    eventually(lambda: len(caller.workers()) <= 2, "those that were replaced are gone")


def test_no_call_waits_for_a_recycle(service, caller):
    """While the successor isn't ready, the worn out one goes on."""
    go = service.folder / "go"
    script = f'[ -e "{service.folder}/first" ] && while [ ! -e "{go}" ]; do sleep 0.05; done; : >"{service.folder}/first"; exec "$@"'
    service.server("slow", "sh", "-c", script, "sh", PYTHON, OBEDIENT_WORKER, recycle={"calls": 5}, pool={"max": 2})
    first = pid_of(caller, "slow")
    assert [pid_of(caller, "slow") for _ in range(20)] == [first] * 20
    assert {w["State"] for w in caller.workers()} == {"ready", "starting"}
    go.touch()
    eventually(lambda: pid_of(caller, "slow") != first, "the successor answers")
    eventually(lambda: len(caller.workers()) == 1, "its predecessor is gone")


def test_recycle_after_lifetime(service, caller):
    service.echo("echo", recycle={"lifetime": 1})
    process = Process.of(pid_of(caller, "echo"))
    eventually(lambda: not process.alive(), "it is replaced", 8)
    assert pid_of(caller, "echo") != process.pid


def test_recycle_spares_calls_under_way(service, caller):
    service.obedient("obedient", recycle={"calls": 2}, pool={"max": 2, "concurrency": 16, "queue": 64})
    pending = blocked(caller, 20, 0.3)
    assert [text_of(one.wait()) for one in pending] == ["blocked"] * 20


# restart

def test_a_crash_loop_is_refused_with_the_time(service, caller):
    starts = service.folder / "starts"
    service.obedient("obedient", "--starts", starts, restart={"burst": 3, "interval": 20})
    for _ in range(3):
        with fails("WorkerDied"):
            caller.call_tool("obedient", "end", {"status": 5, "stderr": "broken pipe dream\n"})
    started = time.monotonic()
    with fails("Unavailable", r"\d+ ?s|second"):
        caller.call_tool("obedient", "pid")
    assert time.monotonic() - started < 10
    assert caller.server("obedient")["State"] == "failing"
    assert len(starts.read_text().splitlines()) in (3, 4)


def test_a_server_that_cannot_start_is_not_tried_for_ever(service, caller):
    starts = service.folder / "starts"
    service.server("broken", "/bin/sh", "-c", f"echo >> {starts}; echo no database >&2; exit 3", restart={"burst": 3, "interval": 20})
    errors = []
    for _ in range(8):
        with pytest.raises(CallFailed) as caught:
            caller.call_tool("broken", "pid")
        errors.append(caught.value)
    check_failure(errors[0], ("HandshakeFailed", "LaunchFailed"), "no database")
    check_failure(errors[-1], "Unavailable", r"\d+ ?s|second", "no database|status 3")
    assert len(starts.read_text()) <= 8  # a start may be tried once in each era


def test_stop_and_start_forget_the_crashes(service, caller):
    service.obedient("obedient", restart={"burst": 1, "interval": 60})
    with fails("WorkerDied"):
        caller.call_tool("obedient", "end", {"status": 5})
    with fails("Unavailable"):
        caller.call_tool("obedient", "pid")
    caller.restart_server("obedient")
    assert pid_of(caller)


def test_another_server_is_not_held_back(service, caller):
    service.obedient("obedient", restart={"burst": 1, "interval": 60})
    service.echo()
    with fails("WorkerDied"):
        caller.call_tool("obedient", "end", {"status": 5})
    assert caller.tool_text("echo", "echo", {"message": "hi"}) == "hi"


# scope

def as_user(service, uid, server):
    return worker_of(uid, service.bus.address, server)


OTHERS = {"users": [65534, 1]}


def test_scope_user_is_a_worker_per_user(system_service):
    system_service.echo("echo", scope="user", access=OTHERS)
    nobody = as_user(system_service, 65534, "echo")
    daemon = as_user(system_service, 1, "echo")
    assert nobody != daemon
    assert as_user(system_service, 65534, "echo") == nobody
    assert {worker["Owner"] for worker in system_service.caller().workers()} == {"uid:65534", "uid:1"}


def test_scope_user_is_the_default(system_service):
    system_service.echo("echo", access=OTHERS)
    assert as_user(system_service, 65534, "echo") != as_user(system_service, 1, "echo")


def test_scope_shared_is_one_worker_for_all(system_service):
    system_service.echo("echo", scope="shared", access=OTHERS)
    assert as_user(system_service, 65534, "echo") == as_user(system_service, 1, "echo")
    assert [worker["Owner"] for worker in system_service.caller().workers()] == ["shared"]


def test_a_system_service_lets_nobody_in_who_is_not_named(system_service):
    system_service.echo("echo", access={"users": [1]})
    assert as_user(system_service, 1, "echo")
    with pytest.raises(CallFailed, match="AccessDenied"):
        as_user(system_service, 65534, "echo")


def test_with_user_only_that_user_may_call(service):
    if not can_be_others():
        pytest.skip("only root can be several users")
    service.echo()
    caller = service.caller()
    service.let_others_in()
    assert caller.tool_text("echo", "pid")
    with pytest.raises(CallFailed, match="AccessDenied"):
        as_user(service, 65534, "echo")


def test_scope_client_is_a_worker_per_connection(service, caller):
    service.obedient("obedient", scope="client")
    other = service.caller()
    assert pid_of(caller) == pid_of(caller) != pid_of(other)
    caller.call_tool("obedient", "remember", {"value": "mine"})
    other.call_tool("obedient", "remember", {"value": "theirs"})
    assert caller.tool_text("obedient", "recall") == "mine"
    assert other.tool_text("obedient", "recall") == "theirs"


def test_a_clients_worker_goes_with_its_connection(service, caller):
    service.obedient("obedient", scope="client")
    other = service.caller()
    mine, theirs = Process.of(pid_of(caller)), Process.of(pid_of(other))
    other.close()
    eventually(lambda: not theirs.alive(), "the worker is gone with its client")
    assert mine.alive() and pid_of(caller) == mine.pid


def test_a_clients_worker_goes_though_it_was_starting(service, caller):
    service.obedient("obedient", "--delay", "2", scope="client")
    service.echo()
    caller.call_tool("echo", "pid")
    other = service.caller()
    other.begin_tool("obedient", "pid")
    worker = eventually(lambda: caller.workers("obedient"), "it starts")[0]
    other.close()
    eventually(lambda: caller.workers("obedient") == [], "it is stopped")
    eventually(lambda: Process.of(worker["Pid"]) is None, "its process is gone")


@pytest.mark.slow
def test_a_stable_run_ends_the_distrust_of_a_pool(service, caller):
    """Also when it isn't the stable worker that crashes next."""
    service.obedient(restart={"burst": 2, "interval": 1}, pool={"max": 2, "concurrency": 1})
    for _ in range(2):
        with fails("WorkerDied"):
            caller.call_tool("obedient", "die")
    with fails("Unavailable", "the next try is in"):
        caller.call_tool("obedient", "pid")

    def opened():
        try:
            return pid_of(caller)
        except CallFailed:
            return None

    stable = eventually(opened, "the next try", 40)
    settle(1.2)
    busy = caller.begin_tool("obedient", "sleep", {"seconds": 1000})
    with fails("WorkerDied"):
        caller.call_tool("obedient", "die")
    assert pid_of(caller) != stable, "one crash is no loop"
    assert not busy.done
