"""Faults around sessions and jobs that no other suite breaks; see the table for those that others do."""

import json
import os
import resource
import signal
import time

import pytest

from caller import ALICE, BOB, ERROR, JOB, CallFailed, check_failure, fails, read_fd
from processes import Process
from service import SANITIZED
from session import Closed, Session, refused
from waiting import SLOWNESS, eventually, settle

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


def test_a_worker_that_is_replaced_stays_for_the_result_of_a_task(service, onlooker, open_session):
    """Which is done, and wasn't asked for."""
    service.obedient("faulty", keep_alive={"check_interval": 0})
    onlooker()
    session, caller = open_session("faulty"), service.caller()
    worker = Process.of(int(session.tool_text("pid")))
    task = session.request("tools/call", {"name": "pid", "arguments": {}, "task": {}})["task"]["taskId"]
    assert session.request("tasks/get", {"taskId": task})["status"] == "completed"
    caller.restart_server("faulty")
    assert session.tool_text("pid") != str(worker.pid)
    assert task in session.request("tasks/result", {"taskId": task})["content"][0]["text"]
    eventually(lambda: not worker.alive(), "it leaves then", 20)


# Callers

def test_a_client_that_reads_nothing_has_its_time(service, onlooker, open_session):
    """unread_timeout: the session goes, also where its client has said that it asks no more."""
    service.settings(unread_timeout=1)
    service.obedient()
    seen = onlooker()
    deaf, half_deaf = open_session(), open_session()
    for session in (deaf, half_deaf):
        session.begin_tool("big", size=2 << 20)
    half_deaf.finish()
    eventually(lambda: seen.caller.property("SessionsOpen") == 0, "both are closed", 30)
    assert "its client doesn't read (unread_timeout)" in service.log_text()
    for session in (deaf, half_deaf):
        session.until_closed()


@pytest.mark.slow
def test_a_client_that_reads_slowly_gets_all(service, onlooker, open_session):
    """In pieces, for longer than unread_timeout."""
    timeout = 6 * SLOWNESS
    service.settings(unread_timeout=timeout)
    service.obedient()
    onlooker()
    session = open_session()
    id = session.begin_tool("big", size=6 << 20)
    begun = time.monotonic()
    while time.monotonic() - begun < timeout + 3:
        session.turn(0.05)
        settle(0.1)
    assert len(session.text(id)) == 6 << 20


def test_a_flood_of_notifications(service, onlooker, open_session):
    """A session that doesn't read them loses some, and nothing else; others don't mind."""
    service.obedient(limits={"message": 1 << 20})
    seen = onlooker()
    deaf, other = open_session(), open_session()
    memory = service.private_memory()
    for _ in range(20):
        assert other.tool_text("flood", count=1000, size=1000) == "1000"
        other.notices.clear()
        seen.look()
    assert SANITIZED or service.private_memory() - memory < 24 << 20
    assert "notifications are left out" in service.log_text()
    assert deaf.tool_text("echo", message="hi") == "hi"
    assert len(deaf.notices) < 20_000
    for session in (deaf, other):
        session.close()


def test_a_thousand_sessions(make_service):
    """At once: each has its own answers; afterwards nothing is left of them."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = min(1000, (hard - 200) // 4)
    service = make_service(fds=4 * count + 200)
    service.settings(limits={"sessions_per_user": count, "sessions": 2 * count, "calls_per_user": 512, "calls": 1024})
    service.obedient(pool={"max": 1, "concurrency": 64, "queue": 512})
    caller = service.caller()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(2 * count + 200, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard))
    caller.tool_text("obedient", "pid")
    fds = len(service.open_fds())
    sessions = [Session.open(caller, "obedient") for _ in range(count)]
    assert caller.property("SessionsOpen") == count
    for session in sessions:
        session.begin("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}})
    for session in sessions:
        session.wait(1)
        session.notify("notifications/initialized")
    asked = [(session, session.begin_tool("echo", message=f"<{n}>")) for n, session in enumerate(sessions)]
    for n, (session, id) in enumerate(asked):
        assert session.text(id) == f"<{n}>"
    assert caller.tool_text("obedient", "echo", {"message": "beside"}) == "beside"
    for session in sessions:
        session.close()
    eventually(lambda: caller.property("SessionsOpen") == 0, "all are gone", 60)
    eventually(lambda: len(service.open_fds()) <= fds, "and their descriptors", 30)
    assert caller.property("CallsInFlight") == 0


# Jobs

def test_a_job_whose_cancel_is_ignored(service, onlooker):
    """It is cancelled for its caller at once; the worker that goes on is replaced, and what it says later is nobody's."""
    gate = service.folder / "gate"
    service.obedient("faulty", timeouts={"stop": 0.3}, keep_alive={"check_interval": 0}, restart={"burst": 100, "interval": 1})
    onlooker()
    caller = service.caller()
    process = Process.of(int(caller.tool_text("faulty", "pid")))
    path = caller.start_tool_job("faulty", "until", {"path": str(gate)})
    eventually(lambda: caller.server("faulty")["CallsInFlight"] == 1, "it is under way")
    caller.cancel_job(path)
    assert caller.job_done(path)["State"] == "cancelled"
    settle(0.8)  # longer than timeouts.stop
    gate.touch()
    eventually(lambda: not process.alive(), "the worker is replaced", 20)
    assert caller.tool_text("faulty", "pid") != str(process.pid)
    with fails("Cancelled"):
        caller.job_text(path)
    caller.cancel_job(path)
    with fails(UNKNOWN):
        caller.job_text(path)


def test_a_result_is_read_again_and_again(service, onlooker):
    """By each connection of its user, from the start, until it is forgotten; what was handed out stays."""
    service.obedient()
    onlooker()
    caller, other = service.caller(), service.caller()
    path = caller.start_tool_job("obedient", "big", {"size": 100_000})
    caller.job_done(path)
    results = [one.job_result(path) for one in (caller, other, caller, other)]
    assert len(set(results)) == 1 and len(results[0]) > 100_000
    fd = other.raw("GetResult", "", path=path, interface=JOB).take()
    caller.cancel_job(path)
    with fails(UNKNOWN):
        other.job_result(path)
    assert read_fd(fd) == results[0]


# Callers that are many, or never read

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
    highest = max(service.open_fds())
    free = sum(1 for fd in range(highest + 1) if fd not in service.open_fds())
    pid, limits = service.pid, resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 - free + room if room < free else highest + 1 + room - free, limits[1]))
    try:
        try:
            Session.open(caller, "obedient").close()
            assert room > 1, "a session's socket has two ends"
        except CallFailed as error:
            check_failure(error, ("Unavailable", "LimitsExceeded", "org.freedesktop.DBus.Error.LimitsExceeded"),
                          "file|descriptor|open")
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
        # What the bus hands to the one that was killed, until it hears of it, is lost.
        eventually(lambda: caller.service_pid() != daemon.pid, "the bus has heard of it")
        # The next service doesn't know of it: it isn't run again by itself.
        with fails(UNKNOWN):
            caller.job_text(path)
    else:
        service.wait_gone(daemon)
        service.restart_bus()
