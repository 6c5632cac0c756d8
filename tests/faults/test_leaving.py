"""What comes in the moment in which the service leaves for being idle."""

import json
import os
import random
import socket
import threading
import time

import pytest

from caller import JOB, CallFailed, check_failure, fails, read_fd, text_of, variants
from raw_connection import RawBus
from service import SANITIZED
from session import Session
from waiting import eventually


class Manager:
    """Who is told by sd_notify(3), as systemd is; the service waits while it doesn't listen."""

    def __init__(self, name):
        self.end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.end.bind(f"\0{name}")
        self.end.settimeout(0.05)
        self.environment = {"NOTIFY_SOCKET": f"@{name}"}
        self.listening = threading.Event()
        self.over = False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        self.listening.set()

    def _run(self):
        while not self.over:
            if not self.listening.wait(0.05):
                continue
            try:
                self.end.recv(4096)
            except TimeoutError:
                pass

    def stop_listening(self):
        """From now on nobody comes through."""
        self.listening.clear()
        fresh = True
        while fresh:
            # Each sender may have so much under way; when a new one can't send at all the queue is full.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                other.settimeout(0.5)  # longer than the last recv() can take from it
                fresh = False
                try:
                    while True:
                        other.sendto(b"X=1", self.end.getsockname())
                        fresh = True
                except TimeoutError:
                    pass

    def close(self):
        self.listening.set()
        self.over = True
        self.thread.join()
        self.end.close()


@pytest.fixture
def manager():
    manager = Manager(f"mcp-exec-test-{random.getrandbits(64):x}")
    yield manager
    manager.close()


@pytest.fixture
def leaving(make_service, manager):
    """A service that has decided to leave, still has its name, and comes to nothing else before go() is called; a caller."""
    service = make_service(idle_timeout=0.1)
    service.more_environment = manager.environment
    gate, journal = service.folder / "gate", service.folder / "journal"
    service.obedient("obedient", "--journal", journal, keep_alive={"timeout": 0.1})
    caller = service.caller()
    call = caller.begin_tool("obedient", "until", {"path": str(gate)})
    eventually(lambda: caller.property("CallsInFlight") == 1, "it is under way")
    service.old, service.journal, service.other = service.daemon(), journal, service.caller()
    service.other.list_servers()
    manager.stop_listening()
    gate.touch()
    call.wait()
    eventually(lambda: "idle: leaving" in service.log_text(), "it leaves")

    def go():
        # The bus has handed on what was sent before it answers this.
        caller.bus.get_name_owner("org.freedesktop.DBus")
        manager.listening.set()

    service.go = go
    return service, caller


@pytest.mark.parametrize("bound", [False, True])
def test_a_job_is_the_next_services(leaving, bound):
    service, caller = leaving
    finished = caller.signals("Finished", JOB)
    started = caller.begin("StartJob", "sssa{sv}", "obedient", "tools/call", '{"name":"sleep","arguments":{"seconds":0.3,"message":"hi"}}',
                           variants({"cancel_on_disconnect": bound}))
    service.go()
    path = started.wait()
    assert caller.job_done(path)["State"] == "succeeded"
    assert text_of(caller.job_text(path)) == "hi"
    eventually(lambda: [one for one in finished.seen if one[:2] == (path, "succeeded")], "its caller is told")
    service.wait_gone(service.old)
    assert "is left to the next service" in service.log_text()
    assert service.journal.read_text().count('"sleep"') == 1, "it ran once"
    assert list((service.runtime / "mcp-exec/jobs").iterdir()) == []
    caller.cancel_job(path)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_job_that_ends_with_its_caller_does_so_at_the_next_service(leaving, when):
    """Whether the next service begins before or after that."""
    service, caller = leaving
    other, looker = service.other, service.caller()
    gate = str(service.folder / "never")
    started = other.begin("StartJob", "sssa{sv}", "obedient", "tools/call", json.dumps({"name": "until", "arguments": {"path": gate}}),
                          variants({"cancel_on_disconnect": True}))
    other.bus.get_name_owner("org.freedesktop.DBus")
    if when == "before":
        other.close()
        service.go()
        eventually(lambda: [job for job in looker.jobs().values() if job["State"] == "cancelled"], "it is cancelled")
    else:
        service.go()
        path = started.wait()
        assert looker.job(path)["State"] == "running"
        other.close()
        assert looker.job_done(path)["State"] == "cancelled"
    for path in looker.jobs():
        looker.cancel_job(path)


def test_a_job_that_is_wrong_is_refused(leaving):
    service, caller = leaving
    started = caller.begin("StartJob", "sssa{sv}", "obedient", "tools/call", "{", {})
    service.go()
    with pytest.raises(Exception, match="InvalidJson"):
        started.wait()
    service.wait_gone(service.old)


def test_jobs_are_left_within_limits(leaving):
    """Nobody takes all that can be left: a user has what he has at a service that stays."""
    service, caller = leaving
    started = [caller.begin("StartJob", "sssa{sv}", "obedient", "tools/call", '{"name":"echo","arguments":{"message":"hi"}}', {}) for _ in range(40)]
    service.go()
    paths = [one.wait() for one in started[:32]]
    for one in started[32:]:
        with pytest.raises(CallFailed) as refused:
            one.wait()
        check_failure(refused.value, "LimitsExceeded", "32", "limits.jobs_per_user")
    for path in paths:
        assert caller.job_done(path)["State"] == "succeeded"
        caller.cancel_job(path)
    service.wait_gone(service.old)


def test_jobs_that_cant_be_left_are_charged_for_nothing(leaving):
    """Their files can't be written: each is refused for that, and none because others have taken its place."""
    service, caller = leaving
    jobs = service.runtime / "mcp-exec/jobs"
    if jobs.exists():
        jobs.rmdir()
    jobs.write_text("")
    started = [caller.begin("StartJob", "sssa{sv}", "obedient", "tools/call", '{"name":"echo","arguments":{"message":"hi"}}', {}) for _ in range(40)]
    service.go()
    for one in started:
        with fails("Unavailable"):
            one.wait()
    service.wait_gone(service.old)
    jobs.unlink()


@pytest.fixture
def leave(service, caller):
    """Leaves a job to a service that runs already, as one does that still reads what was sent to it before."""
    folder = service.runtime / "mcp-exec/jobs"
    with RawBus(service.bus.address) as raw:
        bus = raw.server_id

    def leave(message, bus=bus):
        job = f"a{random.getrandbits(124):031x}"  # a digit would be escaped in its path
        texts = [str(os.getuid()), caller.unique_name, "echo", "tools/call", "echo", "60000000", "", json.dumps({"message": message})]
        (folder / ".new").write_bytes(b"".join(text.encode() + b"\0" for text in texts))
        return (folder / ".new").rename(folder / f"{bus}-{job}"), f"/org/example/McpExec/job/{job}"

    service.echo("echo")
    caller.reload()
    return leave


def test_a_job_that_is_left_to_one_that_runs(service, caller, leave):
    """Where no systemd starts services, the next may be there before the last one has read all; it is told by the folder."""
    finished = caller.signals("Finished", JOB)
    file, path = leave("hi")
    eventually(lambda: [one for one in finished.seen if one[:2] == (path, "succeeded")], "its caller is told")
    assert text_of(caller.job_text(path)) == "hi"
    assert not file.exists()
    caller.cancel_job(path)


def test_a_job_that_is_asked_for_as_soon_as_it_is_left(service, caller, leave):
    for n in range(50):
        _, path = leave(f"<{n}>")
        assert caller.job(path)["State"] in ("running", "succeeded")
        assert caller.job_done(path)["State"] == "succeeded"
        assert text_of(caller.job_text(path)) == f"<{n}>"
        caller.cancel_job(path)


def test_jobs_of_another_bus_stay(service, caller, leave):
    """For an hour: then nobody comes for them."""
    file, path = leave("hi", bus="0123456789abcdef" * 2)
    old, _ = leave("hi", bus="0123456789abcdef" * 2)
    os.utime(old, (time.time() - 4000,) * 2)
    own, own_path = leave("own")
    assert caller.job_done(own_path)["State"] == "succeeded"
    assert path not in caller.jobs() and file.exists() and not own.exists()
    assert not old.exists()
    caller.cancel_job(own_path)


@pytest.mark.parametrize("way", ["call", "file", "session"])
def test_others_are_served(leaving, way):
    """By the one that leaves, which goes when they are done."""
    service, caller = leaving
    if way == "call":
        call = caller.begin_tool("obedient", "echo", {"message": "hi"})
        service.go()
        assert text_of(call.wait()) == "hi"
    elif way == "file":
        call = caller.begin_fd("obedient", "tools/call", b'{"message":"hi"}', tool="echo")
        service.go()
        assert text_of(read_fd(call.wait())) == "hi"
    else:
        opened = caller.begin("OpenSession", "sa{sv}", "obedient", {})
        opened.take = lambda value: value.take()
        service.go()
        session = Session(socket.socket(fileno=opened.wait()))
        session.initialize()
        assert session.tool_text("echo", message="hi") == "hi"
        assert service.old.alive()
        session.close()
    service.wait_gone(service.old)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_jobs_that_race_with_idle_exit(make_service):
    """None is refused, each runs once."""
    service = make_service(idle_timeout=0.005, log_level="info")
    service.echo("echo", keep_alive={"timeout": 0.004})
    caller = service.caller()
    daemons = set()
    for n in range(40 if SANITIZED else 200):
        path = caller.start_tool_job("echo", "echo", {"message": f"<{n}>"})
        assert caller.job_done(path)["State"] == "succeeded"
        assert text_of(caller.job_text(path)) == f"<{n}>"
        daemons.add(caller.service_pid())
        caller.cancel_job(path)
        time.sleep(random.uniform(0, 0.03))
    left = service.log_text().count("is left to the next service")
    print(f"{len(daemons)} services, {left} jobs were left to the next one")
    eventually(lambda: caller.service_pid() is None, "the last one leaves as well")
    eventually(lambda: service.started() == [], "nothing is left")
