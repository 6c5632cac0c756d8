"""Large payloads that break midway: CallFd, in both directions."""

import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import tempfile
import threading

import pytest

from caller import ALICE, BOB, F_SEAL_SHRINK, F_SEAL_WRITE, JOB, CallFailed, fails, read_fd, sealed, text_of
from service import PYTHON, SANITIZED
from waiting import eventually, settle, turn_loop

MIB = 1 << 20
F_SEAL_FUTURE_WRITE = 0x10
ROOM = 64 * MIB

# Answers the first 8 MiB, and then nothing, unless it is asked for "short".
HALF_AN_ANSWER = f"""
import sys, time
for line in sys.stdin:
    if "short" not in line:
        sys.stdout.write("[1" + " " * {8 * MIB})
        sys.stdout.flush()
        time.sleep(1000)
    print('"short"', flush=True)
"""

# Reads its params a little at a time for a while, then the rest, and says how much it was.
SLOW_READER = """
import os, sys, time
begin, size = time.monotonic(), 0
while data := os.read(0, 1 << 16):
    size += len(data)
    if time.monotonic() < begin + float(sys.argv[1]):
        time.sleep(0.05)
print(size)
"""

@pytest.fixture
def half(service):
    """Servers of two protocols that stop in the midst of an answer, or of what they read."""
    service.settings(limits={"payload_bytes_per_user": ROOM, "payload_bytes": 2 * ROOM})
    limits = {"message": ROOM}
    service.server("half", PYTHON, "-c", HALF_AN_ANSWER, protocol="lines", limits=limits)
    service.server("deaf", PYTHON, "-c", "import time; time.sleep(1000)", protocol="once", limits=limits)
    service.bulk(limits=limits)
    return service

def kept(service):
    """Bytes in files that the service has"""
    total = 0
    for fd in service.open_fds():
        try:
            path = f"/proc/{service.pid}/fd/{fd}"
            if os.readlink(path).startswith("/memfd:mcp-exec"):
                total += os.stat(path).st_size
        except OSError:
            pass
    return total

def begin_out(service, caller):
    """A call of which half the answer is there"""
    pending = caller.begin_fd("half", "any", b"{}")
    eventually(lambda: kept(service) >= 7 * MIB, "half an answer is there", 30)
    return pending

def begin_in(service, caller):
    """A call of whose params the worker takes no more"""
    pending = caller.begin_fd("deaf", "any", json.dumps({"x": "x" * (20 * MIB)}).encode())
    eventually(lambda: any(worker["Server"] == "deaf" and worker["InFlight"] for worker in caller.workers()), "it has the call", 30)
    return pending

WAYS = {"to-the-worker": ("deaf", begin_in), "from-the-worker": ("half", begin_out)}
both_ways = pytest.mark.parametrize("way", WAYS)

def room_is_back(caller):
    """Nothing stays charged: almost all that a user may have goes through at once."""
    def goes():
        try:
            return len(text_of(caller.call_fd("bulk", "tools/call", b'{"size":%d}' % (ROOM - 2 * MIB), tool="make")))
        except CallFailed as error:
            assert "LimitsExceeded" in str(error)
            return 0
    eventually(lambda: goes() == ROOM - 2 * MIB, "the room is back", 30)

# What its caller can still change

def regular_file():
    file = tempfile.TemporaryFile(dir="/dev/shm")
    file.write(b'{"x":"' + b"x" * MIB + b'"}')
    file.flush()
    return os.dup(file.fileno())

def unsealed():
    return sealed(b'{"x":"' + b"x" * MIB + b'"}', 0)

@pytest.mark.parametrize("make", [regular_file, unsealed])
def test_a_file_that_is_cut_meanwhile(half, onlooker, make):
    """It is never read: neither SIGBUS nor a half request can come of it."""
    seen = onlooker()
    caller = half.caller()
    fd = make()
    over = threading.Event()

    def cut():
        while not over.wait(0.001):
            os.ftruncate(fd, 0)
            os.ftruncate(fd, MIB)

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        for _ in range(20):
            with fails("InvalidArguments", "no memfd|can still be changed"):
                caller.call_fd("bulk", "count", fd)
        seen.look()
    finally:
        over.set()
        thread.join()
        os.close(fd)

def test_a_file_that_is_written_through_an_old_mapping(half, onlooker):
    """F_SEAL_FUTURE_WRITE leaves mappings that are there as they are."""
    onlooker()
    caller = half.caller()
    fd = unsealed()
    with mmap.mmap(fd, 0) as mapping:

        fcntl.fcntl(fd, 1033, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK)
        mapping[10] = 0
        with fails("InvalidArguments", "can still be changed"):
            caller.call_fd("bulk", "count", fd)
    os.close(fd)

def test_a_sealed_file_cannot_be_cut_meanwhile(half, onlooker):
    onlooker()
    caller = half.caller()
    data = b'{"x":"' + b"x" * (20 * MIB) + b'"}'
    fd = sealed(data, F_SEAL_SHRINK | F_SEAL_WRITE)
    os.lseek(fd, 1000, os.SEEK_SET)  # which is nobody's business
    pending = caller.begin_fd("bulk", "count", fd)
    while not pending.done:
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        settle(0.001)
    assert json.loads(read_fd(pending.wait()))["size"] > len(data)
    os.close(fd)

# The worker, the caller

@both_ways
def test_the_worker_dies_midway(half, onlooker, way):
    server, begin = WAYS[way]
    onlooker()
    caller = half.caller()
    for _ in range(3):
        pending = begin(half, caller)
        for worker in caller.workers():
            if worker["Server"] == server:
                os.kill(worker["Pid"], signal.SIGKILL)
        with fails("WorkerDied", "SIGKILL|signal 9"):
            pending.wait()
        eventually(lambda: kept(half) == 0, "no half file is left")
    room_is_back(caller)

@both_ways
def test_the_caller_leaves_midway(half, onlooker, way):
    server, begin = WAYS[way]
    onlooker()
    caller = half.caller()
    for _ in range(3):
        leaving = half.caller()
        begin(half, leaving)
        leaving.close()
        eventually(lambda: caller.property("CallsInFlight") == 0, "its call is gone")
        eventually(lambda: server not in [worker["Server"] for worker in caller.workers()], "its worker is gone", 30)
        eventually(lambda: kept(half) == 0, "no half file is left")
    room_is_back(caller)

@both_ways
def test_the_time_is_over_midway(half, onlooker, way):
    _, begin = WAYS[way]
    onlooker()
    caller = half.caller()
    for name in ("half", "deaf"):
        path = half.config / "servers.d" / f"{name}.json"
        half.write(f"servers.d/{name}.json", json.dumps({**json.loads(path.read_text()), "timeouts": {"call": 2}}))
    caller.reload()
    pending = begin(half, caller)
    with fails("Timeout", "timeouts.call"):
        pending.wait()
    eventually(lambda: kept(half) == 0, "no half file is left")
    room_is_back(caller)

def test_a_job_is_cancelled_midway(half, onlooker):
    onlooker()
    caller = half.caller()
    path = caller.start_job("half", "any", "{}")
    eventually(lambda: kept(half) >= 7 * MIB, "half an answer is there", 30)
    caller.invoke("Cancel", "", path=path, interface="org.example.McpExec.Job")
    assert caller.job_done(path)["State"] == "cancelled"
    eventually(lambda: kept(half) == 0, "no half file is left")
    room_is_back(caller)

def test_a_result_in_the_making_counts(half, onlooker):
    """Before its end, which need never come."""
    onlooker()
    caller = half.caller()
    pending = begin_out(half, caller)
    with fails("LimitsExceeded", "limits.payload_bytes_per_user"):
        caller.call_fd("bulk", "tools/call", b'{"size":%d}' % (ROOM - 2 * MIB), tool="make")
    caller.stop_server("half")
    with pytest.raises(CallFailed):
        pending.wait()
    room_is_back(caller)

def test_params_that_are_read_slowly(half, onlooker):
    """For longer than timeouts.call in all, but never silent for so long: each piece that is taken is a sign of life."""
    half.server("slow", PYTHON, "-c", SLOW_READER, 8, protocol="once", limits={"message": ROOM}, timeouts={"call": 4})
    onlooker()
    caller = half.caller()
    params = json.dumps({"x": "x" * (20 * MIB)}).encode()
    assert int(caller.call_fd("slow", "any", params)) == len(params) + 1  # the end of its line

# The machine, the others

@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM], ids=errno.errorcode.get)
def test_no_space_for_the_result(half, faults, onlooker, error):
    """The answer is read to its end, and thrown away; the same worker serves the next call."""
    seen = onlooker()
    caller = half.caller()
    pid = caller.call("bulk", "ping") and caller.workers()[0]
    faults.fail_memfds(error)
    try:
        for _ in range(3):
            with fails("Unavailable", "can't be held", os.strerror(error)):
                caller.call_fd("bulk", "tools/call", b'{"size":3000000}', tool="make")
        seen.look()
    finally:
        faults.fail_memfds(0)
    assert pid
    room_is_back(caller)

@pytest.mark.parametrize("size, rounds", [(200_000, 20), (3_000_000, 3)], ids=["small", "large"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.ENOMEM], ids=errno.errorcode.get)
def test_space_ends_in_the_midst_of_the_result(half, faults, onlooker, error, size, rounds):
    """Neither half of it, nor the end of a worker. Small ones often enough that what stays charged is seen."""
    seen = onlooker()
    caller = half.caller()
    caller.call("bulk", "ping")
    workers = [worker["Pid"] for worker in caller.workers()]
    params = '{"name":"make","arguments":{"size":%d}}' % size
    faults.fail_writes(error, room=size // 2)
    try:
        for _ in range(rounds):
            with fails("Unavailable", "can't be held", os.strerror(error)):
                caller.call_fd("bulk", "tools/call", params.encode())
        for _ in range(rounds):
            path = caller.start_job("bulk", "tools/call", params)
            assert caller.job_done(path)["State"] == "failed"
            with fails("Unavailable", "can't be held", os.strerror(error)):
                caller.raw("GetResult", "", path=path, interface=JOB)
        seen.look()
    finally:
        faults.fail_writes(0)
    assert [worker["Pid"] for worker in caller.workers()] == workers
    eventually(lambda: kept(half) == 0, "no half file is left")
    room_is_back(caller)

def test_a_limit_on_the_size_of_files(half, onlooker):
    """SIGXFSZ would end who writes more."""
    seen = onlooker()
    caller = half.caller()
    limits = resource.prlimit(half.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(half.pid, resource.RLIMIT_FSIZE, (2 * MIB, limits[1]))
    try:
        for _ in range(3):
            with fails("Unavailable", "can't be held", os.strerror(errno.EFBIG)):
                caller.call_fd("bulk", "tools/call", b'{"size":3000000}', tool="make")
        seen.look()
        assert len(text_of(caller.call_fd("bulk", "tools/call", b'{"size":1000000}', tool="make"))) == 1000000
    finally:
        resource.prlimit(half.pid, resource.RLIMIT_FSIZE, limits)
    room_is_back(caller)

def test_files_are_looked_through_in_turn(half, onlooker):
    """A piece of each at a time: the short one that came behind a long one is done before it."""
    onlooker()
    caller = half.caller()
    caller.call("bulk", "ping")
    files = [sealed(b'{"a":[' + b'{"a":1},' * n) for n in (3 * MIB, 1 << 14)]
    # Both are there when the service begins to read.
    daemon = half.daemon()
    daemon.kill(signal.SIGSTOP)
    long, short = [caller.begin_fd("bulk", "count", fd) for fd in files]
    caller.bus.get_name_owner("org.freedesktop.DBus")
    daemon.kill(signal.SIGCONT)
    for pending, fd in zip((long, short), files):
        with fails("InvalidJson"):
            pending.wait()
        os.close(fd)
    assert short.finished < long.finished

def test_two_large_calls_beside_a_small_one(half, onlooker):
    seen = onlooker()
    callers = [half.caller() for _ in range(2)]
    data = sealed(json.dumps({"x": "x" * (25 * MIB)}).encode())
    for _ in range(4):
        pending = [callers[0].begin_fd("bulk", "tools/call", b'{"size":25000000}', tool="make"),
                   callers[1].begin_fd("bulk", "count", data)]
        while not all(one.done for one in pending):
            seen.look()
            turn_loop()
        for one in pending:
            os.close(one.wait())
    os.close(data)
    print(f"the slowest took {seen.slowest:.3f} s")


@pytest.fixture
def held():
    """File descriptors that are closed at the end; there is room for many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 20_000
    if before[0] < wanted:
        if os.getuid() != 0 and before[1] < wanted:
            pytest.skip("this test may not open so many files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(before[1], wanted)))
    held = []
    yield held
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def let_go(held):
    while held:
        os.close(held.pop())


def test_results_that_are_held_take_nothing_of_the_service(make_service, held):
    """Neither its descriptors nor room that another user has."""
    service = make_service(system=True, fds=256)
    service.settings(limits={"payload_bytes": 128 * MIB})
    service.echo(access={"users": [ALICE, BOB]})
    service.start_bus()
    service.let_others_in()
    alice, bob = service.caller(uid=ALICE), service.caller(uid=BOB)
    bob.call_fd("echo", "ping", b"{}")
    before = len(service.open_fds())
    with fails("LimitsExceeded", "limits.payload_bytes "):
        while True:
            held.append(alice.call_fd_raw("echo", "ping", b"{}"))
    assert len(held) == 1024, "of 64 KiB each half of what is for all"
    # The last one's params, and what else is under way
    eventually(lambda: len(service.open_fds()) <= before + 4, "they take no descriptors", 30)
    assert bob.call_fd("echo", "ping", b"{}") == b"{}"
    pid = service.pid
    let_go(held)
    assert alice.call_fd("echo", "ping", b"{}") == b"{}"
    assert service.pid == pid


def test_a_result_that_is_held_as_a_path_stays_charged(service, caller, held):
    """O_PATH: it reads nothing, but can be opened again."""
    service.bulk()
    service.settings(limits={"payload_bytes_per_user": 8 * MIB})
    fd = caller.call_fd_raw("bulk", "tools/call", b'{"size":%d}' % (5 * MIB), tool="make")
    held.append(os.open(f"/proc/self/fd/{fd}", os.O_PATH | os.O_CLOEXEC))
    os.close(fd)
    for _ in range(3):
        with fails("LimitsExceeded", "limits.payload_bytes_per_user"):
            caller.call_fd_raw("bulk", "tools/call", b'{"size":%d}' % (5 * MIB), tool="make")
    let_go(held)
    assert len(text_of(caller.call_fd("bulk", "tools/call", b'{"size":%d}' % (5 * MIB), tool="make"))) == 5 * MIB


@pytest.mark.slow
@pytest.mark.skipif(bool(SANITIZED), reason="it takes some thousand calls")
def test_more_are_let_go_than_there_are_news_of(service, caller, held):
    """The kernel keeps so many events that nobody has read, and each file makes two."""
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        queued = int(file.read())
    with open("/proc/sys/fs/inotify/max_user_watches") as file:
        watches = int(file.read())
    n = queued // 2 + 500
    if n > 15_000 or n + 1000 > watches:
        pytest.skip("the machine has other limits")
    service.echo(pool={"max": 1, "concurrency": 64, "queue": 64})
    service.settings(limits={"payload_bytes_per_user": (n + 64) << 16, "payload_bytes": (n + 64) << 17})
    while len(held) < n:
        held += [one.wait() for one in [caller.begin_fd("echo", "ping", b"{}") for _ in range(32)]]
    with fails("LimitsExceeded", "limits.payload_bytes_per_user"):
        while True:
            held.append(caller.call_fd_raw("echo", "ping", b"{}"))
    process = service.daemon()
    process.kill(signal.SIGSTOP)
    total = len(held)
    let_go(held)
    process.kill(signal.SIGCONT)
    # All of the room is there again, and not only that of the news that came.
    while len(held) < total:
        held += [one.wait() for one in [caller.begin_fd("echo", "ping", b"{}") for _ in range(min(32, total - len(held)))]]


def test_a_result_in_the_making_is_charged_to_who_waits_for_it(make_service):
    """Also in a pool that all share: one user's can't keep others from theirs."""
    service = make_service(system=True)
    service.settings(limits={"payload_bytes_per_user": 20 * MIB, "payload_bytes": 34 * MIB})
    access = {"users": [ALICE, BOB]}
    service.server("half", PYTHON, "-c", HALF_AN_ANSWER, protocol="lines", scope="shared", limits={"message": ROOM}, access=access,
                   pool={"max": 4})
    service.bulk(scope="shared", limits={"message": ROOM}, access=access)
    service.start_bus()
    service.let_others_in()
    alice, bob = service.caller(uid=ALICE), service.caller(uid=BOB)
    bob.call("bulk", "ping")
    for _ in range(4):
        alice.begin_fd("half", "any", b"{}")
    eventually(lambda: kept(service) >= 7 * MIB, "one of them has what she may have: what was refused is charged no longer", 30)
    settle(1)
    assert len(text_of(bob.call_fd("bulk", "tools/call", b'{"size":3000000}', tool="make"))) == 3_000_000
