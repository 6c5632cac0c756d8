"""CallFd and jobs with servers that don't speak MCP on stdio: params and results of any size, in files all the same."""

import fcntl
import json
import os
import random

import pytest

from caller import F_GET_SEALS, F_SEAL_SHRINK, F_SEAL_WRITE, JOB, fails, read_fd
from service import PYTHON, REPO
from waiting import eventually

MIB = 1 << 20
LARGE = 20 * MIB  # is over what is held of a line
LIMITS = {"message": 64 * MIB}
CONTROL = str(REPO / "tests/workers/control.py")

COPY = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"
OVER_A_SOCKET = """
import json, socket
connection = socket.socket(fileno=3).accept()[0].makefile("rwb")
for line in connection:
    connection.write(line)
    connection.flush()
"""
SERVERS = {
    "lines": (["/bin/cat"], {"protocol": "lines"}),
    "once": (["/bin/cat"], {"protocol": "once"}),
    "file": ([PYTHON, "-c", COPY, "{input}", "{output}"], {"protocol": "once", "transport": "file"}),
    "socket": ([PYTHON, "-c", OVER_A_SOCKET], {"protocol": "lines", "transport": "socket"}),
}
every_server = pytest.mark.parametrize("kind", SERVERS)


@pytest.fixture
def roomy(service):
    service.settings(limits={"payload_bytes_per_user": 512 * MIB, "payload_bytes": 512 * MIB})
    return service


def start(service, kind, **keys):
    argv, more = SERVERS[kind]
    service.server(kind, *argv, **{"limits": LIMITS, **more, **keys})


@every_server
def test_a_value_goes_and_comes_as_it_is(roomy, caller, kind):
    start(roomy, kind)
    value = {"a": [1, "é\n\"\\"], "padding": "p" * LARGE}
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        assert json.loads(caller.call_fd(kind, "any", text.encode())) == value


@every_server
def test_a_string_goes_as_its_text(roomy, caller, kind):
    """What comes back is no JSON, and a string again. Escapes are cut anywhere by the pieces in which they go."""
    start(roomy, kind)
    some = random.Random(1)
    text = "".join(some.choice(["plain text " * 3, "é", "😀", '"', "\\", "\t", "ÿ€"]) for _ in range(MIB // 4))
    for ascii_only in (True, False):
        got = json.loads(caller.call_fd(kind, "any", json.dumps(text, ensure_ascii=ascii_only).encode()))
        assert got == text


@every_server
def test_the_servers_limit_is_the_bound(roomy, caller, kind):
    start(roomy, kind, limits={"message": 2 * MIB})
    with fails("TooLarge", str(2 * MIB), "limits.message of the server"):
        caller.call_fd(kind, "any", json.dumps("x" * (2 * MIB + 1)).encode())
    # The text fits, and takes more as JSON.
    with fails("TooLarge", "limits.message"):
        caller.call_fd(kind, "any", json.dumps("x" + '"' * 900000).encode())
    assert len(json.loads(caller.call_fd(kind, "any", json.dumps("x" * MIB).encode()))) == MIB


@every_server
def test_nothing_is_left_charged_or_open(service, caller, kind):
    start(service, kind)
    service.settings(limits={"payload_bytes_per_user": 7 * MIB})
    for _ in range(6):
        assert len(caller.call_fd(kind, "any", json.dumps("x" * (2 * MIB)).encode())) >= 2 * MIB
    with fails("LimitsExceeded", "limits.payload_bytes_per_user"):
        caller.call_fd(kind, "any", json.dumps({"x": "x" * (5 * MIB)}).encode())
    for _ in range(3):
        assert len(caller.call_fd(kind, "any", json.dumps("x" * (2 * MIB)).encode())) >= 2 * MIB
    eventually(lambda: caller.property("CallsInFlight") == 0, "no call is left")


def test_a_line_has_no_line_break(roomy, caller):
    start(roomy, "lines")
    for text in ('"%s\\n"', '"\\u000a%s"', '"%s\\u000D"'):
        with fails("InvalidArguments", "line break"):
            caller.call_fd("lines", "any", (text % ("x" * MIB)).encode())


def test_a_text_without_utf8(roomy, caller):
    roomy.server("bytes", PYTHON, "-c", "import sys; sys.stdin.read(); sys.stdout.buffer.write(b'a\\xff\\xc3' * 1000000)",
                 protocol="once", limits=LIMITS)
    assert json.loads(caller.call_fd("bytes", "any", b"1")) == "a\ufffd\ufffd" * 1000000


@pytest.mark.parametrize("size", [2 * MIB, LARGE])
def test_what_begins_as_json(roomy, caller, size):
    """It is a text, unless that is found out late: then the whole would have to be written again."""
    roomy.server("log", PYTHON, "-c", f"print('[\"' + 'x' * {size} + '\"] and more')", protocol="once", limits=LIMITS)
    if size < LARGE:
        assert json.loads(caller.call_fd("log", "any", b"1")) == '["' + "x" * size + '"] and more\n'
    else:
        with fails("ProtocolError", "JSON up to byte"):
            caller.call_fd("log", "any", b"1")


def test_once_says_how_it_ended(roomy, caller):
    roomy.server("fails", PYTHON, "-c", f"print('beginning' * {MIB}); raise SystemExit(3)", protocol="once", limits=LIMITS)
    roomy.server("dies", PYTHON, "-c", f"import os; print('x' * {MIB}, flush=True); os.abort()", protocol="once", limits=LIMITS)
    with fails("Remote", "status 3", "beginning"):
        caller.call_fd("fails", "any", b"1")
    with fails("WorkerDied", "SIGABRT|signal 6"):
        caller.call_fd("dies", "any", b"1")


def test_once_need_not_read(roomy, caller):
    roomy.server("true", PYTHON, "-c", "print('{}')", protocol="once", limits=LIMITS)
    assert caller.call_fd("true", "any", json.dumps("x" * LARGE).encode()).strip() == b"{}"


def test_a_line_that_is_cut_off_is_no_answer(roomy, caller):
    roomy.server("cut", PYTHON, "-c", f"import sys; sys.stdin.readline(); sys.stdout.write('x' * {3 * MIB})", protocol="lines",
                 limits=LIMITS)
    with fails("WorkerDied"):
        caller.call_fd("cut", "any", b"1")


# control

@pytest.fixture
def control(roomy, caller):
    roomy.server("control", PYTHON, CONTROL, protocol="control", limits=LIMITS, timeouts={"call": 60})
    return caller


@pytest.mark.parametrize("text", ['{"padding":"PAD"}', ' {"a" : 1,\n"_meta":{"x":1}, "padding":"PAD"} ', '{"subtype2":1,"padding":"PAD\\n\\u00e9"}'],
                         ids=range(3))
def test_control_members_and_results(control, text):
    text = text.replace("PAD", "p" * LARGE)
    assert json.loads(control.call_fd("control", "echo", text.encode())) == {"subtype": "echo", **json.loads(text)}
    arguments = json.loads(text)
    assert json.loads(control.call_fd("control", "tools/call", text.encode(), tool="hammer")) == \
        {"subtype": "tools/call", "name": "hammer", "arguments": arguments}


def test_control_subtype_is_the_methods(control):
    with fails("InvalidArguments", "subtype"):
        control.call_fd("control", "echo", json.dumps({"padding": "p" * MIB, "subtype": "fail"}).encode())


def test_control_flat_answers_are_held(control):
    value = {"padding": "p" * (2 * MIB), "response": {"x": ["y" * MIB]}, "z": 1}
    assert json.loads(control.call_fd("control", "flat", json.dumps(value).encode())) == {"subtype": "flat", **value}
    with fails("TooLarge"):
        control.call_fd("control", "flat", json.dumps({"padding": "p" * LARGE}).encode())
    with fails("TooLarge"):
        control.call_fd("control", "flat", json.dumps({"response": "p" * LARGE}).encode())
    assert json.loads(control.call("control", "echo", '{"a": 1}')) == {"subtype": "echo", "a": 1}


def test_control_others_are_served_beside(control):
    pending = [control.begin_fd("control", "echo", json.dumps({"n": n, "padding": "p" * (2 * MIB)}).encode()) for n in range(3)]
    for n in range(20):
        assert json.loads(control.call("control", "echo", json.dumps({"n": n}))) == {"subtype": "echo", "n": n}
    assert [json.loads(read_fd(one.wait()))["n"] for one in pending] == [0, 1, 2]


# Jobs

@every_server
def test_a_job_has_a_large_result(roomy, caller, kind):
    start(roomy, kind)
    roomy.server("large", PYTHON, "-c", f"print('y' * {LARGE})", protocol="once", limits=LIMITS)
    path = caller.start_job("large", "any", "1")
    assert caller.job_done(path)["State"] == "succeeded"
    fd = caller.raw("GetResult", "", path=path, interface=JOB).take()
    assert fcntl.fcntl(fd, F_GET_SEALS) & (F_SEAL_WRITE | F_SEAL_SHRINK) == F_SEAL_WRITE | F_SEAL_SHRINK
    assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    assert json.loads(read_fd(fd)) == "y" * LARGE + "\n"
    path = caller.start_job(kind, "any", json.dumps("z" * (MIB // 2)))
    assert caller.job_done(path)["State"] == "succeeded"
    assert len(json.loads(read_fd(caller.raw("GetResult", "", path=path, interface=JOB).take()))) == MIB // 2


# The bundled executors speak MCP, whatever their isolation is.

@pytest.mark.parametrize("isolation", ["shared", "reset", "fork", "fresh"])
def test_executors(roomy, caller, isolation):
    roomy.server("python", PYTHON, REPO / "src/executors/python/mcp-exec-python", isolation=isolation, executor=True,
                 limits=LIMITS, env={"PYTHONPATH": str(REPO / "src/executors")})
    result = json.loads(caller.call_fd("python", "tools/call", json.dumps({
        "code": "import sys; text = sys.stdin.read(); print(text[:3000000]); len(text)",
        "stdin": "x" * LARGE, "max_output": 4 * MIB}).encode(), tool="run"))["structuredContent"]
    assert result["value"] == str(LARGE) and len(result["stdout"]) == 3000001, result.get("exception")
