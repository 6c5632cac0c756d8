"""Several users want everything at once: each gets his share, and one who comes late finds something."""

import ctypes
import errno
import fcntl
import json
import os
import signal
import struct
import termios
import time

import pytest

import private_bus
from caller import ALICE, BOB, CAROL, CallFailed, check_failure, text_of
from hammering import check, hammer, report_of
from session import Session
from waiting import SLOWNESS, eventually

USERS = [ALICE, BOB, CAROL]
ACCESS = {"users": USERS}
SYS_pidfd_open, SYS_pidfd_getfd = 434, 438  # on every architecture
libc = ctypes.CDLL(None, use_errno=True)
MANY = {"calls_per_connection": 500, "calls_per_user": 1000, "calls": 4000}


def journal_of(path):
    """What the worker was told, in order: the params of its calls."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["params"]["arguments"] for line in lines if line.get("method") == "tools/call"]


@pytest.fixture
def journal(system_service):
    """Of a worker that all share; others write into its folder as whoever it runs as."""
    return system_service.folder / "journal"


@pytest.mark.slow
def test_one_with_ten_connections_gets_what_others_get(system_service, journal):
    """All three have calls waiting all the time. What is counted is what the worker was given, not how long it took."""
    service = system_service
    service.settings(limits=MANY)
    service.obedient("shared", "--journal", journal, scope="shared", access=ACCESS, pool={"max": 1, "concurrency": 4, "queue": 500})
    service.caller().call_tool("shared", "pid")
    # Each user's calls are known by how long they take.
    seconds = {ALICE: 0.021, BOB: 0.022, CAROL: 0.023}
    calls = {ALICE: 400, BOB: 120, CAROL: 120}
    processes = [hammer(service, uid=uid, address=service.bus.address, server="shared", tool="sleep", extra=f'"seconds":{seconds[uid]}',
                        callers=10 if uid == ALICE else 1, calls=calls[uid], window=8 if uid == ALICE else 32,
                        timeout=int(100 * SLOWNESS)) for uid in USERS]
    for process in processes:
        report = report_of(process, 150 * SLOWNESS)
        check(report)
        assert report["failed"] == 0, report["errors"]

    whose = {value: uid for uid, value in seconds.items()}
    served = [whose[arguments["seconds"]] for arguments in journal_of(journal) if "seconds" in arguments]
    begin = max(served.index(uid) for uid in USERS)
    end = min(len(served) - served[::-1].index(uid) for uid in USERS)
    # Those who are done first had so many under way at the end, and nothing behind them.
    shares = [served[begin:end - 40].count(uid) for uid in USERS]
    print(f"served of {end - 40 - begin}: {shares}")
    assert sum(shares) > 100 and max(shares) < 2 * min(shares), shares


def test_jobs_of_a_user_are_one_user(system_service, journal):
    """However many one has waiting, another's calls have every second place."""
    service = system_service
    service.settings(limits=MANY)
    service.obedient("shared", "--journal", journal, scope="shared", access=ACCESS, pool={"max": 1, "concurrency": 1, "queue": 100})
    root, alice, bob = service.caller(), service.caller(uid=ALICE), service.caller(uid=BOB)
    first = alice.start_tool_job("shared", "sleep", {"seconds": 1000})
    jobs = [alice.start_tool_job("shared", "echo", {"message": f"alice {n}"}) for n in range(24)]
    calls = [bob.begin_tool("shared", "echo", {"message": f"bob {n}"}) for n in range(8)]
    eventually(lambda: root.property("CallsInFlight") == 33, "all wait")
    alice.cancel_job(first)
    for number, call in enumerate(calls):
        assert text_of(call.wait()) == f"bob {number}"
    for path in jobs:
        assert alice.job_done(path)["State"] == "succeeded"

    order = [arguments["message"] for arguments in journal_of(journal) if "message" in arguments]
    assert len(order) == 32
    for number in range(8):
        assert order.index(f"bob {number}") <= 2 * number + 1, order


def test_callers_of_a_user_take_turns_in_what_he_gets(system_service, journal):
    service = system_service
    service.settings(limits=MANY)
    service.obedient("shared", "--journal", journal, scope="shared", access=ACCESS, pool={"max": 1, "concurrency": 1, "queue": 100})
    root, busy, other, bob = service.caller(), service.caller(uid=ALICE), service.caller(uid=ALICE), service.caller(uid=BOB)
    first = busy.start_tool_job("shared", "sleep", {"seconds": 1000})
    eventually(lambda: root.property("CallsInFlight") == 1, "it is under way")
    calls = []
    for caller, name, count in ((busy, "busy", 20), (bob, "bob", 20), (other, "other", 5)):
        calls += [caller.begin_tool("shared", "echo", {"message": f"{name} {n}"}) for n in range(count)]
        eventually(lambda: root.property("CallsInFlight") == 1 + len(calls), "all wait")
    busy.cancel_job(first)
    for call in calls:
        call.wait()

    order = [arguments["message"] for arguments in journal_of(journal) if "message" in arguments]
    assert len(order) == 45
    for number in range(5):
        assert order.index(f"bob {number}") <= 2 * number + 1, order
        # A quarter of all is his, and he came last.
        assert order.index(f"other {number}") <= 4 * number + 4, order
    for name, count in (("busy", 20), ("bob", 20), ("other", 5)):
        assert [text for text in order if text.startswith(name)] == [f"{name} {n}" for n in range(count)]


# What is limited for all

class Kind:
    """One user, and something that he takes again and again; take() raises where no more is to be had."""

    def __init__(self, caller):
        self.caller = caller
        self.n_calls = 0

    def call(self, server, tool, **arguments):
        """Refused, or under way."""
        pending = self.caller.begin_tool(server, tool, arguments)
        self.n_calls += 1
        eventually(lambda: pending.done or self.caller.property("CallsInFlight") == self.n_calls, "refused, or under way")
        if pending.done:
            pending.wait()


class Calls(Kind):
    limits = {"calls_per_connection": 12, "calls_per_user": 12, "calls": 12}
    key = "calls"

    def take(self):
        self.call("blocking", "sleep", seconds=1000)


class QueuedBytes(Kind):
    limits = {"queued_bytes_per_user": 1200_000, "queued_bytes": 1200_000}
    key = "queued_bytes"

    def take(self):
        self.call("blocking", "sleep", seconds=1000, message="x" * 99_000)


class Workers(Kind):
    """A server each: where a pool has a worker calls wait for it."""

    limits = {"workers_per_user": 12, "workers": 12}
    key = "workers"

    def take(self):
        server = f"one-{self.n_calls}"
        pending = self.caller.begin_tool(server, "sleep", {"seconds": 1000})
        self.n_calls += 1
        eventually(lambda: pending.done or any(worker["InFlight"] for worker in self.caller.workers(server)), "refused, or under way")
        if pending.done:
            pending.wait()


class Jobs(Kind):
    limits = {"jobs_per_user": 12, "jobs": 12}
    key = "jobs"

    def take(self):
        self.caller.start_tool_job("blocking", "sleep", {"seconds": 1000})


class PayloadBytes(Kind):
    limits = {"payload_bytes_per_user": 1200_000, "payload_bytes": 1200_000}
    key = "payload_bytes"

    def take(self):
        path = self.caller.start_tool_job("blocking", "big", {"size": 99_000})
        if self.caller.job_done(path)["State"] != "succeeded":
            self.caller.job_text(path)


class Sessions(Kind):
    limits = {"sessions_per_user": 12, "sessions": 12}
    key = "sessions"

    def __init__(self, caller):
        super().__init__(caller)
        self.open = []

    def take(self):
        self.open.append(Session.open(self.caller, "blocking"))


@pytest.mark.parametrize("kind", [Calls, QueuedBytes, Workers, Jobs, PayloadBytes, Sessions])
def test_who_comes_late_finds_something(system_service, kind):
    """One after the other takes all that he gets, up to what there is for all."""
    service = system_service
    service.settings(limits=kind.limits)
    service.obedient("blocking", access=ACCESS, pool={"max": 1, "concurrency": 200})
    for number in range(13):
        service.obedient(f"one-{number}", access=ACCESS, pool={"max": 1, "concurrency": 1})
    have = []
    users = [kind(service.caller(uid=uid)) for uid in USERS]
    for user in users:
        count = 0
        with pytest.raises(CallFailed) as caught:
            while count <= 12:
                user.take()
                count += 1
        check_failure(caught.value, "LimitsExceeded", rf"limits\.{kind.key} ", "12", "left are for others|the limit is")
        have.append(count)
    print(f"{kind.key}: {have}")
    assert all(have), have
    assert 4 <= have[0] <= 7 and sum(have) <= 12, have


def test_sessions_of_a_user_take_turns(service, open_session):
    """At what the limit on all of the user's calls lets through."""
    journal = service.folder / "journal"
    service.settings(limits={"calls_per_user": 2})
    service.obedient("obedient", "--journal", journal, pool={"max": 1, "concurrency": 8})
    greedy, modest = open_session(), open_session()
    for _ in range(300):
        greedy.begin_tool("sleep", seconds=0.01, message="greedy")
    greedy.until(lambda: greedy.answers, "it has begun")
    for number in range(5):
        assert modest.tool_text("echo", message=str(number)) == str(number)
    assert sum(arguments.get("message") == "greedy" for arguments in journal_of(journal)) < 250


def waits_in_sockets(pid):
    """Bytes that have come in for the process, and that it hasn't read."""
    size = 0
    process = libc.syscall(SYS_pidfd_open, pid, 0)
    assert process >= 0, os.strerror(ctypes.get_errno())
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                continue
            fd = libc.syscall(SYS_pidfd_getfd, process, int(name), 0)
            assert fd >= 0, os.strerror(ctypes.get_errno())
            try:
                size += struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
            except OSError as error:
                assert error.errno == errno.EINVAL  # it listens
            finally:
                os.close(fd)
    finally:
        os.close(process)
    return size


@pytest.fixture
def way(request, make_service):
    """A system's service, and what makes a caller that goes by the bus, or by the private socket."""
    if os.getuid() != 0:
        pytest.skip("only root can be several users")
    if request.param == "bus" and private_bus.chosen() == "broker":
        pytest.skip("dbus-broker keeps messages itself: which the service finds is up to the scheduler")
    service = make_service(system=True, private=True)
    service.run_directly()
    service.let_others_in()
    return service, service.caller if request.param == "bus" else service.private_caller


@pytest.mark.parametrize("users", [(ALICE, BOB), (ALICE, ALICE)], ids=["users", "connections"])
@pytest.mark.parametrize("way", ["bus", "private"], indirect=True)
def test_who_sends_little_waits_for_few_of_who_sends_much(way, users):
    """All of it lies in the service's sockets when it comes to read."""
    service, connect = way
    journal = service.folder / "journal"
    service.settings(limits=MANY)
    service.obedient("shared", "--journal", journal, scope="shared", access=ACCESS, pool={"max": 1, "concurrency": 200, "queue": 100})
    service.caller().reload()
    much, little = (connect(uid=uid) for uid in users)
    for caller in (much, little):
        caller.call_tool("shared", "pid")
    daemon = service.daemon()
    daemon.kill(signal.SIGSTOP)
    try:
        calls = []
        for caller, name, count in ((much, "much", 40), (little, "little", 6)):  # few enough for the socket
            before = waits_in_sockets(daemon.pid)
            calls.append(caller.begin_tool("shared", "echo", {"message": f"{name} 0"}))
            one = eventually(lambda: waits_in_sockets(daemon.pid) - before, "the first has come")
            calls += [caller.begin_tool("shared", "echo", {"message": f"{name} {n}"}) for n in range(1, count)]
            eventually(lambda: waits_in_sockets(daemon.pid) >= before + count * one, "all have come")
    finally:
        daemon.kill(signal.SIGCONT)
    for call in calls:
        call.wait()

    order = [arguments["message"] for arguments in journal_of(journal) if "message" in arguments]
    assert len(order) == 46
    print(f"the last of the six: {order.index('little 5')}")
    assert order.index("little 5") < 30, order


@pytest.mark.parametrize("way", ["bus"], indirect=True)
def test_who_floods_rests_while_another_calls(way):
    """1 ms behind each of what is more than he may have under way: so long a bus keeps the rest to itself."""
    service, connect = way
    service.echo(access=ACCESS)
    service.caller().reload()
    much, little, daemon = connect(uid=ALICE), connect(uid=BOB), service.daemon()
    took = []
    for _ in range(7):
        for caller in (much, little):
            caller.call_tool("echo", "echo", {"message": "hi"})
        daemon.kill(signal.SIGSTOP)
        try:
            before = waits_in_sockets(daemon.pid)
            calls = [little.begin_tool("echo", "echo", {"message": "hi"})]
            calls += [much.begin_tool("echo", "echo", {"message": str(n)}) for n in range(100)]
            eventually(lambda: waits_in_sockets(daemon.pid) - before > 100 * 128, "all have come")
        finally:
            daemon.kill(signal.SIGCONT)
        begun = time.monotonic()
        while not all(call.done for call in calls):
            little.begin_tool("echo", "echo", {"message": "hi"}).wait()
        took.append(time.monotonic() - begun)
    print(f"100 calls took {', '.join(f'{seconds:.3f} s' for seconds in took)}")
    assert sorted(took)[3] > 0.05
