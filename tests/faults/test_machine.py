"""The machine runs out of what it has, its clock jumps, its bus dies."""

import errno
import os
import resource
import signal
import time

import pytest

from caller import CallFailed, check_failure, fails, text_of
from processes import Process
from service import PYTHON, REPO
from waiting import SLOWNESS, eventually, settle


# Descriptors

@pytest.mark.parametrize("room", range(0, 8))
def test_no_descriptors_are_left(service, onlooker, room):
    """A worker can't be started, whichever descriptor it is that can't be had; those that run go on."""
    service.echo("later", restart={"burst": 0}, timeouts={"start": 3, "call": 3})
    seen = onlooker()
    caller = service.caller()
    caller.list_servers()
    highest = max(service.open_fds())
    pid, limits = service.pid, resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    free = sum(1 for fd in range(highest + 1) if fd not in service.open_fds())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 - free + room if room < free else highest + 1 + room - free, limits[1]))
    try:
        try:
            pid = caller.tool_text("later", "pid")
            assert room > 3, "three pipes need more"
        except CallFailed as error:
            check_failure(error, ("LaunchFailed", "HandshakeFailed", "WorkerDied"), "file|descriptor|open")
        seen.look()
        caller.reload()
        seen.look()
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, limits)
    caller.reload()
    assert caller.tool_text("later", "echo", {"message": "hi"}) == "hi"


@pytest.mark.parametrize("size", [2, 200_000])
@pytest.mark.parametrize("room", range(1, 7))
def test_files_when_no_descriptors_are_left(service, onlooker, room, size):
    """A call that brings a file and wants one, whichever of the service's own can't be had: an error of the service says so."""
    service.echo()
    seen = onlooker()
    caller = service.caller()
    params = b'{"name":"echo","arguments":{"message":"' + b"x" * size + b'"}}'
    caller.call_fd("echo", "tools/call", params)
    eventually(lambda: not any("memfd" in to for to in service.open_fds().values()), "the files are closed", 10)
    before = service.open_fds()
    pid, limits = service.pid, resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    highest = max(before)
    free = sum(1 for fd in range(highest + 1) if fd not in before)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 - free + room if room < free else highest + 1 + room - free, limits[1]))
    try:
        try:
            assert b"x" * size in caller.call_fd("echo", "tools/call", params)
            assert room > 1, "the file that came is one"
        except CallFailed as error:
            check_failure(error, ("Unavailable", "LimitsExceeded"), "file|descriptor|open")
            assert room < 5
        seen.look()
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert b"x" * size in caller.call_fd("echo", "tools/call", params)
    eventually(lambda: service.open_fds() == before, "nothing of it is left", 10)


def test_what_could_not_be_read_is_read_later(service, onlooker):
    """By itself: nothing tells that there are descriptors again."""
    onlooker()
    caller = service.caller()
    caller.list_servers()
    taken = service.open_fds()
    free = next(fd for fd in range(len(taken) + 1) if fd not in taken)
    limits = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        service.echo("later")
        assert any(os.strerror(errno.EMFILE) in what for _, what in caller.reload())
        assert "later" not in [name for name, *_ in caller.list_servers()]
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, limits)
    eventually(lambda: "later" in [name for name, *_ in caller.list_servers()], "it is read", 30)


# Space

def test_no_space_for_what_is_remembered(service, onlooker):
    """The verdicts on eras can't be written: calls don't mind, and no half file is left."""
    folder = service.runtime / "mcp-exec"
    folder.mkdir(mode=0o700)
    (folder / "eras.new").symlink_to("/dev/full")
    service.echo()
    seen = onlooker()
    # Now, for the next one is written well: what couldn't be was /dev/full, and would be here as that.
    assert not os.path.lexists(folder / "eras")
    caller = service.caller()
    assert caller.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    assert (folder / "eras").is_file() and (folder / "eras").read_text().endswith("\n")
    seen.look()
    service.echo("other", "--modern")
    caller.reload()
    assert caller.tool_text("other", "echo", {"message": "hi"}) == "hi"
    assert not (folder / "eras.new").exists()


def test_nothing_can_be_written_at_all(service, onlooker):
    """The folder for what is remembered is gone."""
    service.echo()
    seen = onlooker()
    caller = service.caller()
    (service.runtime / "mcp-exec").rename(service.runtime / "away")
    (service.runtime / "mcp-exec").write_text("in its place")
    assert caller.tool_text("echo", "echo", {"message": "hi"}) == "hi"
    seen.look()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM], ids=errno.errorcode.get)
def test_no_memfds(service, faults, onlooker, error):
    """Calls with their payload in the message need none."""
    service.echo()
    seen = onlooker()
    caller = service.caller()
    faults.fail_memfds(error)
    try:
        assert caller.tool_text("echo", "echo", {"message": "x" * 900_000}) == "x" * 900_000
        seen.look()
    finally:
        faults.fail_memfds(0)


# Time

@pytest.mark.parametrize("seconds", [86400 * 365, -86400 * 365, 3], ids=["a-year-on", "a-year-back", "a-bit-on"])
def test_the_wall_clock_jumps(service, faults, onlooker, seconds):
    """No deadline, idle time or back-off goes by it."""
    service.echo("echo", keep_alive={"timeout": 60, "check_interval": 1})
    seen = onlooker()
    caller = service.caller()
    pid = caller.tool_text("echo", "pid")
    sleeping = caller.begin_tool("steady", "sleep", {"seconds": 1.0, "message": "slept"})
    eventually(lambda: caller.server("steady")["CallsInFlight"] == 1, "it is under way")
    faults.set_wall_clock(seconds)
    try:
        seen.look()
        assert text_of(sleeping.wait(5)) == "slept"
        settle(1.5)
        assert caller.tool_text("echo", "pid") == pid, "its worker stays"
        worker, = caller.workers("echo")
        assert abs(worker["LastActiveTimestamp"] / 1e6 - time.time() - seconds) < 60, "what is told goes by it"
    finally:
        faults.set_wall_clock(0)
    seen.look()


a_year = pytest.mark.parametrize("seconds", [86400 * 365, -86400 * 365], ids=["on", "back"])


@a_year
def test_a_crash_loop_ends_at_its_time(service, faults, onlooker, seconds):
    starts = service.folder / "starts"
    service.obedient("faulty", "--starts", starts, restart={"burst": 2, "interval": 20})
    onlooker()
    caller = service.caller()
    for _ in range(2):
        with fails("WorkerDied"):
            caller.call_tool("faulty", "end", {"status": 3})
    count = len(starts.read_text().splitlines())
    faults.set_wall_clock(seconds)
    try:
        with fails("Unavailable", r"next try is in ([1-9]|[12]\d|30) s"):
            caller.call_tool("faulty", "pid")
        assert len(starts.read_text().splitlines()) == count, "nothing was started"
    finally:
        faults.set_wall_clock(0)


@a_year
def test_a_job_is_kept_for_its_time(service, faults, onlooker, seconds):
    """Not one that has long to go is forgotten with one whose time is over, which isn't kept for longer."""
    service.echo()
    service.settings(keep_jobs=1000)
    onlooker()
    caller = service.caller()
    long = caller.start_job("echo", "ping")
    caller.job_done(long)
    service.settings(keep_jobs=3)
    caller.reload()
    short = caller.start_job("echo", "ping")
    eventually(lambda: caller.jobs().get(short, {"State": "forgotten"})["State"] != "running", "it is done")
    faults.set_wall_clock(seconds)
    try:
        eventually(lambda: short not in caller.jobs(), "its time is over", 30)
        assert long in caller.jobs()
    finally:
        faults.set_wall_clock(0)
    caller.cancel_job(long)


@a_year
def test_an_idle_service_leaves_at_its_time(service, faults, seconds):
    service.idle_timeout = 3
    before = time.monotonic()
    caller = service.caller()
    caller.list_servers()
    daemon = service.daemon()
    faults.set_wall_clock(seconds)
    service.wait_gone(daemon)
    assert time.monotonic() - before >= 3


@a_year
def test_what_is_kept_without_an_end_minds_no_clock(service, faults, seconds):
    """A static list needs no worker, and tools that changed are told, whatever time the next service has."""
    starts, script = service.folder / "starts", service.folder / "server.py"

    def write(description):
        script.write_text((REPO / "tests/workers/stateless.py").read_text().replace(
            '{"name": f"tool-{os.getpid()}", ', f'{{"name": "tool", "description": "{description}", '))

    write("Adds numbers")
    service.server("adds", PYTHON, script, era="modern", scope="client")
    service.obedient("static", "--starts", starts, lists="static")
    caller = service.caller()
    tools = caller.list_tools("static")
    caller.list_tools("adds")
    daemon = service.daemon()
    daemon.kill(signal.SIGTERM)
    service.wait_gone(daemon)
    faults.set_wall_clock(seconds)
    write("Subtracts numbers")
    assert caller.list_tools("static") == tools
    assert len(starts.read_text().splitlines()) == 1
    caller.list_tools("adds")
    eventually(lambda: "when they were last listed: defined otherwise: tool" in service.log_text(), "it is told")


# The bus

def bus_ends(service, number):
    service.bus.stop(number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_the_bus_is_killed(service, caller, number):
    """In the midst of a call. Service and workers go; nothing hangs on."""
    service.obedient()
    worker = Process.of(int(caller.tool_text("obedient", "pid")))
    caller.begin_tool("obedient", "block", {"seconds": 60})
    settle(0.2)
    daemon = service.daemon()
    service.bus.stop(number)
    service.wait_gone(daemon)
    eventually(lambda: not worker.alive(), "the worker is gone")
    service.restart_bus()


def test_the_bus_is_restarted(service, caller):
    """The next call on the new bus starts another service, with all that was configured."""
    service.echo()
    service.obedient()
    caller.call_tool("echo", "pid")
    daemon = service.daemon()
    for _ in range(3):
        service.bus.stop(signal.SIGKILL)
        service.wait_gone(daemon)
        eventually(lambda: service.worker_processes() == [], "no worker is left")
        service.restart_bus()
        again = service.caller()
        assert again.tool_text("echo", "echo", {"message": "hi"}) == "hi"
        assert service.daemon() != daemon
        daemon = service.daemon()


# The configuration

@pytest.mark.timeout(200)
def test_the_configuration_is_replaced_every_10_ms(service, onlooker):
    """Under load, by good files and wrong ones: no call notices."""
    text = service.echo("echo", pool={"max": 2, "concurrency": 8, "queue": 64}).read_text()
    seen = onlooker()
    caller = service.caller()
    running, calls = [], 0
    deadline, number = time.monotonic() + 4 * SLOWNESS, 0
    while time.monotonic() < deadline:
        number += 1
        service.write("servers.d/echo.json", "{" if number % 7 == 3 else text.replace('"args"', f'"description": "{number}",\n"args"'))
        if number % 5 == 0:
            service.settings(limits={"calls": 500 + number % 2})
        running = [call for call in running if not (call.done and text_of(call.wait()).startswith("<"))]
        while len(running) < 8:
            running.append(caller.begin_tool("echo", "echo", {"message": f"<{calls}>"}))
            calls += 1
        settle(0.01)
        if number % 20 == 0:
            seen.look()
    for call in running:
        assert text_of(call.wait()).startswith("<")
    assert number > 50 and calls > 50
    service.write("servers.d/echo.json", text)
    assert caller.reload() == []
    eventually(lambda: len(caller.workers("echo")) <= 2, "the workers of the last one are left", 30)
