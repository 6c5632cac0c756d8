"""Workers that aren't MCP servers on stdio: the protocols lines, control and once, the transports file and socket."""

import json
import os
import time

import pytest

from caller import fails
from processes import Process
from service import PYTHON, REPO
from waiting import SLOWNESS, eventually

CONTROL = str(REPO / "tests/workers/control.py")
LOOP = 'while IFS= read -r line; do printf "got %s\\n" "$line"; done'


def shell(service, name, script, **keys):
    return service.server(name, "sh", "-c", script, **keys)


def python(service, name, script, **keys):
    return service.server(name, PYTHON, "-u", "-c", script, **keys)


def call(caller, server, params="", method="any"):
    """The result of a request whose params are this JSON text"""
    return json.loads(caller.invoke("Call", "sss", server, method, params))


def begin(caller, server, params="", method="any"):
    return caller.begin("Call", "sss", server, method, params)


# lines

def test_a_loop_that_reads_lines(service, caller):
    shell(service, "loop", LOOP, protocol="lines")
    assert call(caller, "loop", '{"a": [1,\n 2]}') == 'got {"a": [1, 2]}'
    assert call(caller, "loop", '"plain text"') == "got plain text"
    assert call(caller, "loop", "") == "got "
    assert json.loads(caller.invoke("CallTool", "sss", "loop", "any", '{"x": 1}')) == 'got {"x": 1}'
    assert len(caller.workers()) == 1 and caller.workers()[0]["Calls"] == 4


def test_a_line_that_is_json_is_the_result_as_it_is(service, caller):
    service.server("cat", "cat", protocol="lines")
    assert call(caller, "cat", '{"a":1}') == {"a": 1}
    assert call(caller, "cat", '"12"') == 12


def test_lines_answers_are_in_order_and_one_at_a_time(service, caller):
    shell(service, "loop", LOOP, protocol="lines", pool={"max": 1, "queue": 64})
    pending = [begin(caller, "loop", json.dumps(str(i))) for i in range(20)]
    assert [json.loads(p.wait()) for p in pending] == [f"got {i}" for i in range(20)]


def test_a_text_of_two_lines_is_no_line(service, caller):
    service.server("cat", "cat", protocol="lines")
    with fails("InvalidArguments", "line break"):
        call(caller, "cat", json.dumps("two\nlines"))
    assert call(caller, "cat", '"1"') == 1


def test_a_worker_that_writes_two_lines_for_one_is_replaced(service, caller):
    shell(service, "twice", 'while read -r line; do printf "%s\\nextra\\n" "$$"; done', protocol="lines", pool={"max": 1})
    first = call(caller, "twice")
    second = eventually(lambda: (pid := call(caller, "twice")) != first and pid, "another worker answers")
    assert isinstance(second, int) and second != first
    eventually(lambda: "nothing asked for" in service.log_text(), "the log says why")


def test_the_second_line_answers_nobody(service, caller):
    """Two calls that wait: the first one's second line must not reach the second caller."""
    python(service, "twice", "import sys\nfor line in sys.stdin: sys.stdout.write(line + 'wrong\\n')", protocol="lines",
           pool={"max": 1, "queue": 64}, restart={"burst": 0})
    other = service.caller()
    pending = [(str(i), begin(c, "twice", json.dumps(f"own {i}"))) for i in range(10) for c in (caller, other)]
    for number, call_ in pending:
        try:
            assert json.loads(call_.wait()) == f"own {number}"
        except Exception as error:
            assert "wrong" in str(error) and getattr(error, "name", "") in ("ProtocolError", "WorkerDied")


def test_a_lines_worker_that_is_late_is_replaced(service, caller):
    python(service, "slow", "import sys, time\nfor n, line in enumerate(sys.stdin):\n"
           " time.sleep(30 if 'slow' in line else 0); print(n)", protocol="lines", timeouts={"call": 1.0 * SLOWNESS}, pool={"max": 1})
    assert call(caller, "slow") == 0
    with fails("Timeout"):
        call(caller, "slow", '"slow"')
    assert call(caller, "slow") == 0  # a new one counts from the start


def test_what_lines_and_once_do_not_have(service, caller):
    service.server("cat", "cat", protocol="lines")
    with fails("InvalidArguments", "lists no tools"):
        caller.invoke("ListTools", "s", "cat")
    with fails("InvalidArguments", "no notifications"):
        caller.invoke("Notify", "sss", "cat", "notifications/x", "")


# the queue

def test_callers_take_turns(service, caller):
    """One that has sent fifty calls delays another's one by one call, not by fifty."""
    python(service, "slow", "import sys, time\nfor line in sys.stdin: time.sleep(0.05); print(line, end='')", protocol="lines",
           pool={"max": 1, "queue": 64})
    service.settings(limits={"calls_per_connection": 64, "calls_per_user": 128})
    call(caller, "slow", '"warm"')
    other = service.caller()
    call(other, "slow", '"known"')
    many = [begin(caller, "slow", json.dumps(str(i))) for i in range(50)]
    eventually(lambda: caller.server("slow")["QueuedCalls"] > 40, "they wait")
    assert call(other, "slow", '"one"') == "one"
    assert sum(p.done for p in many) <= 10
    assert [json.loads(p.wait()) for p in many] == list(range(50))


def test_a_full_queue_makes_room_for_another_caller(service, caller):
    python(service, "slow", "import sys, time\nfor line in sys.stdin: time.sleep(0.1); print(line, end='')", protocol="lines",
           pool={"max": 1, "queue": 8})
    other = service.caller()
    call(caller, "slow", '"warm"')
    call(other, "slow", '"known"')
    many = [begin(caller, "slow", json.dumps(str(i))) for i in range(9)]
    eventually(lambda: caller.server("slow")["QueuedCalls"] == 8, "the queue is full")
    with fails("LimitsExceeded", "pool.queue"):
        call(caller, "slow", '"one more"')
    assert call(other, "slow", '"other"') == "other"
    assert [json.loads(p.wait()) for p in many[:8]] == list(range(8))
    with fails("LimitsExceeded", "made room"):
        many[8].wait()


# control

@pytest.fixture
def control(service, caller):
    service.server("control", PYTHON, CONTROL, protocol="control")
    return caller


def test_control_requests(control):
    assert call(control, "control", '{"a": 1}', "echo") == {"subtype": "echo", "a": 1}
    assert call(control, "control", "", "flat") == {"subtype": "flat"}
    assert control.invoke("CallTool", "sss", "control", "hammer", '{"n": 1}') == \
        '{"subtype": "tools/call", "name": "hammer", "arguments": {"n": 1}}'


def test_control_errors(control):
    with fails("Remote", "it can't be done"):
        call(control, "control", "", "fail")
    with fails("InvalidArguments", "object"):
        call(control, "control", "[]", "echo")


def test_control_noise_is_harmless_and_other_messages_are_notifications(control):
    seen = control.signals("Notification")
    assert call(control, "control", "", "noise") == "after the noise"
    assert eventually(lambda: [s for s in seen.seen if s[2] == "progress"], "the notification")[0][1] == "control"
    worker = control.workers()[0]
    assert worker["StrayLines"] == 1 and worker["LateAnswers"] == 1


def test_control_calls_run_side_by_side(control):
    began = time.monotonic()
    pending = [begin(control, "control", '{"seconds": 0.5}', "slow") for _ in range(8)]
    assert [json.loads(p.wait()) for p in pending] == ["slept"] * 8
    assert time.monotonic() - began < 3 * SLOWNESS
    assert len(control.workers()) == 1


def test_a_cancelled_control_request_is_told(service, control):
    other = service.caller()
    seen = control.signals("Notification")
    call(control, "control", "", "echo")
    begin(other, "control", '{"seconds": 30}', "slow")
    eventually(lambda: control.workers()[0]["InFlight"] == 1, "the call is under way")
    other.close()
    eventually(lambda: [s for s in seen.seen if s[2] == "cancelled"], "the worker was told")
    assert call(control, "control", "", "echo") == {"subtype": "echo"}
    assert len(control.workers()) == 1


# once

def test_once_gives_stdin_and_takes_all_of_stdout(service, caller):
    service.server("tr", "tr", "a-z", "A-Z", protocol="once")
    assert call(caller, "tr", json.dumps("two\nlines")) == "TWO\nLINES"
    assert call(caller, "tr", '{"a": 1}') == {"A": 1}
    assert call(caller, "tr") == ""


def test_once_is_a_process_per_call(service, caller):
    shell(service, "pid", "echo $$", protocol="once")
    pids = [call(caller, "pid") for _ in range(5)]
    assert len(set(pids)) == 5
    eventually(lambda: not any(Process.of(pid) for pid in pids), "each is gone")


def test_a_once_command_that_fails(service, caller):
    shell(service, "fails", "echo printed; echo why >&2; exit 3", protocol="once", restart={"burst": 2})
    for _ in range(5):  # also not a crash of the server, however often
        with fails("Remote", "exited with status 3", "why", "printed"):
            call(caller, "fails")


def test_a_once_command_that_is_killed(service, caller):
    shell(service, "killed", "kill -9 $$", protocol="once")
    with fails("WorkerDied", "SIGKILL"):
        call(caller, "killed")


def test_a_once_command_that_does_not_read_its_stdin(service, caller):
    shell(service, "deaf", "exec <&-; sleep 0.3; echo done", protocol="once")
    assert call(caller, "deaf", json.dumps("x" * 200000)) == "done\n"


def test_a_once_command_that_closes_its_stdout_early(service, caller):
    shell(service, "early", "echo out; exec >&-; sleep 0.5; exit 0", protocol="once")
    assert call(caller, "early") == "out\n"


def test_a_once_command_with_a_huge_stdout(service, caller):
    shell(service, "huge", "exec cat /dev/zero", protocol="once", limits={"message": 100000})
    with fails("TooLarge", "limits.message"):
        call(caller, "huge")
    eventually(lambda: not service.worker_processes(), "it was killed")


def test_a_once_command_that_does_not_end(service, caller):
    shell(service, "stuck", "sleep 100", protocol="once", timeouts={"call": 0.5})
    with fails("Timeout"):
        call(caller, "stuck")
    eventually(lambda: not service.worker_processes(), "it was killed")


def test_once_output_that_is_no_text(service, caller):
    shell(service, "bytes", r"printf 'a\000b\377'", protocol="once")
    assert call(caller, "bytes") == "a\0b\ufffd"


# transport file

COMPILER = r"""
import json, os, sys
print("compiling", flush=True)
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
source = json.load(open(args["--input"]))
if "fail" in source: sys.exit("error: line 1")
if "nothing" in source: sys.exit(0)
if "link" in source: os.symlink("/etc/passwd", args["--output"]); sys.exit(0)
if "slow" in source: import time; time.sleep(100)
open("scratch", "w").write("left behind")
json.dump({"folder": os.getcwd(), "files": sorted(os.listdir(".")), "source": source}, open(args["--output"], "w"))
"""


@pytest.fixture
def compiler(service, caller):
    service.server("compiler", PYTHON, "-c", COMPILER, "--input", "{input}", "--output", "{output}", protocol="once",
                   transport="file", timeouts={"call": 2 * SLOWNESS})
    return caller


def test_a_compiler_over_files(service, compiler):
    results = [call(compiler, "compiler", json.dumps({"n": i})) for i in range(3)]
    assert [r["source"]["n"] for r in results] == [0, 1, 2]
    assert results[0]["files"] == ["input", "scratch"]
    folders = [r["folder"] for r in results]
    assert len(set(folders)) == 3
    eventually(lambda: not any(os.path.exists(os.path.dirname(f)) for f in folders), "the folders are gone")
    assert "compiling" in service.log_text()


def test_a_compiler_that_fails_or_leaves_nothing(compiler):
    with fails("Remote", "status 1", "error: line 1"):
        call(compiler, "compiler", '{"fail": 1}')
    with fails("Remote", "no file at {output}"):
        call(compiler, "compiler", '{"nothing": 1}')
    with fails("Remote", "no file at {output}"):
        call(compiler, "compiler", '{"link": 1}')


def test_the_files_of_a_killed_compiler_are_gone(service, compiler):
    with fails("Timeout"):
        call(compiler, "compiler", '{"slow": 1}')
    eventually(lambda: not service.worker_processes(), "it was killed")
    eventually(lambda: not list(service.runtime.glob("mcp-exec-worker-*")), "its folder is gone")


def test_a_command_over_files_that_does_not_exist(service, caller):
    service.server("none", "no-such-compiler", "{output}", protocol="once", transport="file")
    with fails("LaunchFailed", "no-such-compiler", "not found"):
        call(caller, "none")


# transport socket

SOCKET = """
import os, socket, sys
assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_PID"] == str(os.getpid())
print("a stray print", flush=True)
connection = socket.socket(fileno=3).accept()[0]
for line in connection.makefile(): connection.sendall(line.upper().encode())
"""


def test_a_worker_at_a_socket(service, caller):
    python(service, "socket", SOCKET, protocol="lines", transport="socket")
    assert call(caller, "socket", '"text"') == "TEXT"
    assert call(caller, "socket", json.dumps("x" * 300000)) == "X" * 300000
    assert "a stray print" in service.log_text()
    assert caller.workers()[0]["StrayLines"] == 0


def test_a_socket_worker_that_dies(service, caller):
    python(service, "socket", SOCKET.replace("upper().encode())", "upper().encode()); os._exit(3)"), protocol="lines", transport="socket")
    assert call(caller, "socket", '"a"') == "A"
    eventually(lambda: not caller.workers(), "it has exited")
    assert call(caller, "socket", '"b"') == "B"


# configuration

@pytest.mark.parametrize("keys, words", [
    ({"transport": "file"}, "once alone"),
    ({"transport": "file", "protocol": "once"}, "{output}"),
    ({"transport": "socket", "protocol": "once"}, "one call"),
    ({"isolation": "fork"}, "executor"),
    ({"isolation": "reset"}, "executor"),
    ({"preload": ["a b"]}, "module's name"),
    ({"protocol": "lines", "pool": {"concurrency": 2}}, "only be 1"),
])
def test_what_does_not_go_together(service, caller, keys, words):
    service.server("bad", "cat", **keys)
    problems = caller.invoke("Reload", "")
    assert len(problems) == 1 and words in problems[0][1], problems
