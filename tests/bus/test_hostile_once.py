"""Commands of the protocol once that do what they shouldn't, over files and sockets as well."""

import json
import time

import pytest

from caller import CallFailed, check_failure, fails
from processes import Process, children
from service import PYTHON
from steps import STEPS, begin, call, out, pid
from waiting import SLOWNESS, eventually, settle


def test_a_command_that_ends_before_it_reads(service, caller):
    """However fast it is: it is run once for each call, and what it wrote is the result."""
    journal = service.folder / "journal"
    service.server("fast", "sh", "-c", f'exec <&-; echo run >>"{journal}"; echo done', protocol="once")
    service.server("true", "true", protocol="once")
    for i in range(40):
        assert call(caller, "fast", json.dumps("x" * (i * 3000))) == "done\n"
        assert call(caller, "true", ["", '"x"'][i % 2]) == ""
    assert len(journal.read_text().split()) == 40


def test_many_fast_commands(service, caller):
    journal = service.folder / "journal"
    service.server("fast", "sh", "-c", f'echo run >>"{journal}"; echo done', protocol="once", pool={"max": 4, "queue": 64})
    pending = [begin(caller, "fast", '"unread"') for _ in range(32)]
    assert [json.loads(one.wait()) for one in pending] == ["done\n"] * 32
    assert len(journal.read_text().split()) == 32


def test_grandchildren_that_hold_the_pipes(service, caller):
    """The result is there when the command has exited, and nothing of it stays."""
    left = service.folder / "left"
    service.server("daemon", "sh", "-c", f'sleep 100 & echo $! >"{left}"; (setsid sleep 100 &); echo done', protocol="once")
    for _ in range(5):
        began = time.monotonic()
        assert call(caller, "daemon", '"x"') == "done\n"
        assert time.monotonic() - began < 5 * SLOWNESS
        eventually(lambda: not Process.of(int(left.read_text())), "its child is gone")
    eventually(lambda: not service.worker_processes(), "all are gone")


def test_grandchildren_that_write_without_end(service, caller):
    service.server("flood", "sh", "-c", "(setsid sh -c 'while :; do echo flood; done' &) ; echo done; sleep 0.1", protocol="once",
                   limits={"message": 1 << 20})
    for _ in range(3):
        try:
            assert "done" in call(caller, "flood")
        except CallFailed as error:
            check_failure(error, "TooLarge", "limits.message")
    eventually(lambda: not service.worker_processes(), "all are gone")


def test_once_bytes_and_nesting(once):
    caller = once()
    assert call(caller, "steps", out("a\0\xff\r\n\r\n")) == "a\0\ufffd\r\n\r\n"
    assert call(caller, "steps", out(" {\"a\":\r\n1}\r\n")) == {"a": 1}
    assert call(caller, "steps", out("{\"a\": 1}\n{\"b\": 2}\n")) == '{"a": 1}\n{"b": 2}\n'
    assert call(caller, "steps", out("[" * 70 + "]" * 70)) == "[" * 70 + "]" * 70


def test_once_drop_by_drop(once):
    caller = once()
    assert call(caller, "steps", [step for c in "drop" for step in ({"out": c}, {"sleep": 0.05})]) == "drop"


def test_once_that_closes_everything(once):
    caller = once(timeouts={"call": 20})
    began = time.monotonic()
    assert call(caller, "steps", [{"out": "1"}, {"close": 0}, {"close": 1}, {"close": 2}, {"sleep": 0.5}]) == 1
    assert 0.4 < time.monotonic() - began < 10 * SLOWNESS


def test_once_that_is_stopped(once, service):
    caller = once(timeouts={"call": 1 * SLOWNESS})
    with fails("Timeout"):
        call(caller, "steps", [{"stop": 1}])
    eventually(lambda: not service.worker_processes(), "it was killed")


def test_a_killed_command_says_what_it_printed(once):
    caller = once()
    with fails("Remote", "status 7", "half of it"):
        call(caller, "steps", [{"out": "half of it\0\x1b"}, {"exit": 7}])


def test_once_whose_caller_leaves(once, service):
    caller = once()
    leaver = service.caller()
    begin(leaver, "steps", [{"sleep": 30}])
    eventually(lambda: any(w["InFlight"] for w in caller.workers()), "it runs")
    leaver.close()
    eventually(lambda: not service.worker_processes(), "it was killed")


def test_spare_processes_are_ready_for_once(service, once):
    """pool.min with once: started ahead, each has one call."""
    caller = once(pool={"min": 2, "max": 4}, scope="shared")
    call(caller, "steps", out("1"))
    eventually(lambda: sum(w["State"] == "ready" for w in caller.workers()) == 2, "two spare ones")
    spare = {w["Pid"] for w in caller.workers()}
    assert pid(caller) in spare
    for _ in range(10):
        pid(caller)
    eventually(lambda: sum(w["State"] == "ready" for w in caller.workers()) == 2, "two spare ones again")
    assert not spare & {w["Pid"] for w in caller.workers() if w["State"] == "ready"}


@pytest.mark.parametrize("script", ["echo done", "exit 3", "exec <&- >&-; sleep 0.2", "cat /dev/zero | head -c 3000000"])
def test_spare_processes_that_do_not_wait(service, caller, script):
    """A command that doesn't wait for its stdin is started for each call only, and is no crash of the server."""
    runs = service.folder / "runs"
    service.server("eager", "sh", "-c", f'echo run >>"{runs}"; {script}', protocol="once", pool={"min": 2, "max": 4},
                   limits={"message": 100000}, restart={"burst": 2})
    outcomes = []
    for _ in range(8):
        try:
            outcomes.append(call(caller, "eager"))
        except CallFailed as error:
            check_failure(error, "TooLarge" if "zero" in script else "Remote")
            outcomes.append("")
    assert outcomes[-1] == ("done\n" if "echo" in script else "")
    eventually(lambda: "passed over" in service.log_text(), "the log says so")
    settle(0.2 * SLOWNESS)
    assert len(runs.read_text().split()) <= 8 + 4 and caller.server("eager")["State"] != "failing"


def test_spare_processes_that_are_killed(service, once):
    caller = once(pool={"min": 2, "max": 4}, restart={"burst": 0})
    call(caller, "steps", out("1"))
    for _ in range(3):
        ready = eventually(lambda: [w for w in caller.workers() if w["State"] == "ready"], "spare ones")
        for worker in ready:
            if process := Process.of(worker["Pid"]):
                process.kill()
        try:
            assert call(caller, "steps", out("2")) == 2
        except CallFailed as error:  # it was given to one that was dying
            check_failure(error, "WorkerDied", "SIGKILL")
    settle(0.3 * SLOWNESS)
    assert call(caller, "steps", out("3")) == 3


# file and socket

FILE = STEPS + "import sys; source = json.load(open(sys.argv[1])); run(source['steps']); open(sys.argv[2], 'w').write(source['result'])"


@pytest.fixture
def file(service, caller):
    def make(**keys):
        service.server("file", PYTHON, "-c", FILE, "{input}", "{output}", protocol="once", transport="file", **keys)
        return caller
    return make


def test_a_file_too_large(file, service):
    caller = file(limits={"message": 100000})
    with fails("TooLarge", "limits.message"):
        call(caller, "file", {"steps": [], "result": "x" * 200000})
    assert call(caller, "file", {"steps": [], "result": "x" * 1000}) == "x" * 1000
    eventually(lambda: not list(service.runtime.glob("mcp-exec-worker-*")), "its folder is gone")


def test_a_flood_on_the_stdout_of_a_command_over_files(file):
    caller = file()
    assert call(caller, "file", {"steps": [{"out": "y" * 100 + "\n"}] * 5000, "result": "42"}) == 42


def test_a_command_over_files_that_is_killed(file):
    caller = file()
    pending = begin(caller, "file", {"steps": [{"sleep": 30}], "result": ""})
    worker = eventually(lambda: [w for w in caller.workers("file") if w["InFlight"]], "it runs")[0]
    eventually(lambda: children(worker["Pid"]), "the command itself")[0].kill()
    with fails("WorkerDied", "SIGKILL"):
        pending.wait()


def test_spare_processes_for_files(file):
    caller = file(pool={"min": 2, "max": 4})
    for i in range(8):
        assert call(caller, "file", {"steps": [], "result": str(i)}) == i


def test_a_socket_worker_that_never_accepts(service, caller):
    service.server("socket", "sleep", "100", protocol="lines", transport="socket", timeouts={"call": 1 * SLOWNESS})
    with fails("Timeout"):
        call(caller, "socket", '"x"')


def test_a_socket_worker_that_closes_the_connection(service, caller):
    service.server("socket", PYTHON, "-c", "import socket, time\nc = socket.socket(fileno=3).accept()[0]\nc.recv(10)\nc.close()\ntime.sleep(100)",
                   protocol="lines", transport="socket")
    with fails("WorkerDied", "closed its std"):
        call(caller, "socket", '"x"')
