"""Faults around sessions and jobs that no other suite breaks; see the table for those that others do."""

import json
import os
import resource
import signal
import time

import pytest

from caller import ALICE, BOB, ERROR, JOB, CallFailed, check_failure, fails
from processes import Process
from session import Closed, Session, refused
from waiting import SLOWNESS, eventually

UNKNOWN = ("org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.UnknownMethod")


# Workers

def test_a_worker_of_many_sessions_is_killed(service, onlooker, open_session):
    """Each call has its error once; the next ones have a new worker, in the same sessions."""
    service.obedient(pool={"max": 1, "concurrency": 64})
    seen = onlooker()
    sessions = [open_session() for _ in range(5)]
    pid = int(sessions[0].tool_text("pid"))
    calls = [(session, session.begin_tool("sleep", seconds=1000)) for session in sessions for _ in range(3)]
    eventually(lambda: seen.caller.server("obedient")["CallsInFlight"] == len(calls), "all are under way")
    Process.of(pid).kill()
    for session, id in calls:
        with refused(-32000, "SIGKILL", "may have run") as caught:
            session.wait(id)
        assert caught.error.data["error"] == ERROR + "WorkerDied"
    assert len({session.tool_text("pid") for session in sessions}) == 1
    assert sessions[0].tool_text("pid") != str(pid)
    for session in sessions:
        assert all(len(answers) == 1 for answers in session.answers.values())
        session.close()


def test_a_worker_of_sessions_is_stopped(service, onlooker, open_session):
    """Timeout for each; it is replaced."""
    service.obedient(pool={"max": 1}, timeouts={"call": 1, "stop": 0.3})
    onlooker()
    one, other = open_session(), open_session()
    worker = Process.of(int(one.tool_text("pid")))
    worker.kill(signal.SIGSTOP)
    for session, id in [(session, session.begin_tool("echo", message="hi")) for session in (one, other)]:
        with refused(-32000, "timeouts.call") as caught:
            session.wait(id)
        assert caught.error.data["error"] == ERROR + "Timeout"
    eventually(lambda: not worker.alive(), "it is replaced", 30)
    for session in (one, other):
        assert session.tool_text("echo", message="again") == "again"
        session.close()


def test_what_was_not_sent_is_not_said_to_have_run(service, onlooker, open_session):
    """A worker reads no more, and dies: the call of which a part was written may have run. One that waits moves, and one that
    only this worker could serve, for it is about a task there, was not sent."""
    service.obedient("faulty", keep_alive={"check_interval": 0}, pool={"max": 1}, restart={"burst": 100, "interval": 1})
    seen = onlooker()
    session = open_session("faulty")
    task = session.request("tools/call", {"name": "pid", "arguments": {}, "task": {}})["task"]["taskId"]
    assert session.request("tasks/get", {"taskId": task})["taskId"] == task
    worker = Process.of(int(session.tool_text("pid")))
    worker.kill(signal.SIGSTOP)
    written = session.begin_tool("echo", message="x" * 500_000)  # more than a pipe takes
    pinned, moves = session.begin("tasks/get", {"taskId": task}), session.begin_tool("pid")
    eventually(lambda: seen.caller.server("faulty")["QueuedCalls"] == 2, "two wait")
    worker.kill()
    with refused(-32000, "SIGKILL", "the call may have run"):
        session.wait(written)
    with refused(-32000, "the call was not sent") as caught:
        session.wait(pinned)
    assert caught.error.data["error"] == ERROR + "WorkerDied" and "may have" not in caught.error.message
    assert session.text(moves) != str(worker.pid)


# Callers

@pytest.mark.slow
def test_ten_thousand_requests_at_once(service, onlooker, open_session):
    """In one session, which reads nothing meanwhile: another one's small calls don't wait for them."""
    service.obedient(pool={"max": 2, "concurrency": 16, "queue": 16})
    onlooker()
    flooding, other = open_session(), open_session()
    lines = b"".join(b'{"jsonrpc":"2.0","id":"f%d","method":"tools/call","params":{"name":"echo","arguments":{"message":"f%d"}}}\n' % (n, n)
                     for n in range(10_000))
    flooding.end.setblocking(False)
    view, slowest, answered = memoryview(lines), 0.0, 0
    while answered < 10_000:
        for _ in range(20):
            try:
                view = view[flooding.end.send(view[:1 << 16]):] if view else view
            except BlockingIOError:
                break
        before = time.monotonic()
        assert other.tool_text("echo", message="hi") == "hi"
        slowest = max(slowest, time.monotonic() - before)
        flooding.turn(0.001)
        flooding.end.setblocking(False)
        answered = sum(id.startswith('"f') for id in flooding.answers)
    print(f"the slowest call of the other session took {slowest * 1e3:.0f} ms")
    assert slowest < 5 * SLOWNESS
    assert all(answers[0]["result"]["content"][0]["text"] == json.loads(id) for id, answers in flooding.answers.items() if "f" in id)
    flooding.close()
    other.close()


def test_a_storm_of_jobs_that_are_cancelled(system_service):
    """One user starts and cancels without waiting for answers; another's small calls and jobs come through."""
    service = system_service
    service.obedient(access={"users": [ALICE, BOB]})
    service.echo(access={"users": [ALICE, BOB]})
    alice, bob = service.caller(uid=ALICE), service.caller(uid=BOB)
    bob.tool_text("echo", "pid")
    slowest = 0.0
    for _ in range(40):
        started = [alice.begin("StartJob", "sssa{sv}", "obedient", "tools/call", '{"name":"sleep","arguments":{"seconds":1000}}', {})
                   for _ in range(40)]
        before = time.monotonic()
        assert bob.tool_text("echo", "echo", {"message": "hi"}) == "hi"
        slowest = max(slowest, time.monotonic() - before)
        for one in started:
            try:
                alice.begin("Cancel", "", path=one.wait(), interface=JOB)
            except CallFailed as error:
                check_failure(error, "LimitsExceeded", r"limits\.jobs_per_user|pool\.queue")
    path = bob.start_tool_job("echo", "echo", {"message": "hi"})
    assert bob.job_done(path)["State"] == "succeeded"
    assert slowest < 5 * SLOWNESS, slowest
    eventually(lambda: service.caller().property("CallsInFlight") == 0, "none is left")


def test_a_caller_that_never_reads_progress(service, onlooker):
    """Its job ends, and is there for others of its user; nobody else waits."""
    service.obedient(pool={"max": 1})
    seen = onlooker()
    deaf = service.caller()
    path = deaf.start_tool_job("obedient", "work", {"steps": 20000, "pause": 0})
    for _ in range(5):
        seen.look()
    assert seen.caller.job_done(path)["State"] == "succeeded"
    deaf.close()
    seen.caller.cancel_job(path)


# Machine

@pytest.mark.parametrize("room", range(4))
def test_no_descriptors_for_a_session(service, onlooker, room):
    """Refused, and the next one is opened when there are some again."""
    service.obedient()
    seen = onlooker()
    caller = service.caller()
    caller.tool_text("obedient", "pid")
    highest, free = max(service.open_fds()), None
    free = sum(1 for fd in range(highest + 1) if fd not in service.open_fds())
    pid, limits = service.pid, resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 - free + room if room < free else highest + 1 + room - free, limits[1]))
    try:
        try:
            Session.open(caller, "obedient").close()
            assert room > 1, "a session's socket has two ends"
        except CallFailed as error:
            check_failure(error, ("Unavailable", "LimitsExceeded", "org.freedesktop.DBus.Error.LimitsExceeded",
                                  "System.Error.EMFILE"), "file|descriptor|open")
        seen.look()
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    session = Session.open(caller, "obedient")
    session.initialize()
    assert session.tool_text("echo", message="hi") == "hi"
    session.close()


@pytest.mark.parametrize("fault", ["broker", "bus"])
def test_sessions_and_jobs_when_all_ends(service, caller, open_session, fault):
    """The end of a session's socket tells its client, the bus the owner of a job; no worker is left."""
    service.obedient()
    sessions = [open_session() for _ in range(3)]
    for session in sessions:
        session.begin_tool("sleep", seconds=1000)
    path = caller.start_tool_job("obedient", "sleep", {"seconds": 1000})
    eventually(lambda: caller.property("CallsInFlight") == 4, "all are under way")
    workers, daemon = service.worker_processes(), service.daemon()
    if fault == "broker":
        daemon.kill(signal.SIGKILL)
    else:
        service.bus.stop(signal.SIGKILL)
    for session in sessions:
        session.until_closed()
    eventually(lambda: not any(worker.alive() for worker in workers), "no worker is left", 20)
    if fault == "broker":
        # The next service doesn't know of it: it isn't run again by itself.
        with fails(UNKNOWN):
            caller.job_text(path)
    else:
        service.wait_gone(daemon)
        service.restart_bus()
