"""The bundled Python executor, driven through its pipes as the broker drives it."""

import json
import os
import re
import signal
import time

import pytest
from driver import META, MODERN, PATIENCE, PROGRAMS, RESULT_TYPES, SOURCE, Executor, is_alive, wait_for

LEGACY = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]


# -- The protocol


@pytest.mark.parametrize("version", LEGACY)
def test_initialize_agrees_to_each_legacy_version(fresh, version):
    result = fresh.initialize(version)
    assert result["protocolVersion"] == version
    assert result["capabilities"] == {"tools": {}}
    assert result["serverInfo"]["name"] == "mcp-exec-python"
    assert fresh.run("2+2")["value"] == "4"


@pytest.mark.parametrize("version", ["1999-01-01", MODERN, ""])
def test_initialize_offers_the_latest_legacy_version_otherwise(fresh, version):
    assert fresh.initialize(version)["protocolVersion"] == "2025-11-25"


def test_initialize_wants_a_version(fresh):
    assert fresh.error("initialize", {"protocolVersion": 1})["code"] == -32602
    assert fresh.error("initialize")["code"] == -32602


def test_legacy_requests(executor):
    assert executor.result("ping") == {}
    assert executor.result("ping", {"_meta": {"progressToken": 1}}) == {}
    result = executor.result("tools/list")
    assert result.keys() == {"tools"}
    (tool,) = result["tools"]
    assert tool["name"] == "run"
    assert tool["inputSchema"]["required"] == ["code"]
    assert set(tool["inputSchema"]["properties"]) == {"code", "stdin", "timeout", "cpu_time", "max_output"}
    assert set(tool["outputSchema"]["required"]) == RESULT_TYPES["python"].keys()
    assert "resultType" not in executor.result("tools/call", {"name": "run", "arguments": {"code": "1"}})


def test_ping_needs_no_initialize(fresh):
    assert fresh.result("ping") == {}


def test_discover(fresh):
    result = fresh.result("server/discover", {"_meta": META})
    assert result["resultType"] == "complete"
    assert result["supportedVersions"] == [MODERN]
    assert result["capabilities"] == {"tools": {}}
    assert result["ttlMs"] >= 0 and result["cacheScope"] == "public"
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "mcp-exec-python"


def test_stateless_requests(fresh):
    result = fresh.result("tools/list", {"_meta": META})
    assert result["resultType"] == "complete"
    assert [tool["name"] for tool in result["tools"]] == ["run"]
    assert result["ttlMs"] >= 0 and result["cacheScope"] == "public"
    result = fresh.result("tools/call", {"_meta": META, "name": "run", "arguments": {"code": "print(2+2)"}})
    assert result["resultType"] == "complete"
    assert result["structuredContent"]["stdout"] == "4\n"
    assert "ttlMs" not in result and "cacheScope" not in result


@pytest.mark.parametrize("method", ["server/discover", "tools/list", "tools/call"])
@pytest.mark.parametrize("missing", ["protocolVersion", "clientCapabilities", "both", "_meta"])
def test_stateless_requests_need_their_meta(fresh, method, missing):
    meta = {key: value for key, value in META.items() if missing != "both" and not key.endswith(missing)}
    if missing == "both":
        meta = {"progressToken": 1}
    params = {"name": "run", "arguments": {"code": "1"}}
    if missing != "_meta":
        params["_meta"] = meta
    assert fresh.error(method, params)["code"] == -32602


@pytest.mark.parametrize("version", ["1900-01-01", "2025-11-25", "2099-01-01"])
def test_unsupported_version(fresh, version):
    meta = {**META, "io.modelcontextprotocol/protocolVersion": version}
    for method in "server/discover", "tools/list", "tools/call":
        error = fresh.error(method, {"_meta": meta})
        assert error["code"] == -32022
        assert error["data"] == {"supported": [MODERN], "requested": version}


def test_methods_of_the_other_era(executor):
    assert executor.error("ping", {"_meta": META})["code"] == -32601
    assert executor.error("server/discover")["code"] == -32602
    assert executor.result("server/discover", {"_meta": META})["resultType"] == "complete"
    assert executor.result("tools/list", {"_meta": META})["resultType"] == "complete"


@pytest.mark.parametrize("method", ["prompts/list", "logging/setLevel", "", "tools/cal", "__init__"])
def test_unknown_method(executor, method):
    assert executor.error(method)["code"] == -32601
    assert executor.error(method, {"_meta": META})["code"] == -32601


@pytest.mark.parametrize(
    "params",
    [
        [],
        {},
        {"name": "walk", "arguments": {"code": "1"}},
        {"name": 1, "arguments": {"code": "1"}},
        {"name": "run"},
        {"name": "run", "arguments": []},
        {"name": "run", "arguments": {"stdin": ""}},
        {"name": "run", "arguments": {"code": 1}},
        {"name": "run", "arguments": {"code": None}},
        {"name": "run", "arguments": {"code": "1", "stdin": 1}},
        {"name": "run", "arguments": {"code": "1", "stdin": None}},
        {"name": "run", "arguments": {"code": "1", "timeout": "1"}},
        {"name": "run", "arguments": {"code": "1", "timeout": 0}},
        {"name": "run", "arguments": {"code": "1", "timeout": -1}},
        {"name": "run", "arguments": {"code": "1", "timeout": 1e300}},
        {"name": "run", "arguments": {"code": "1", "timeout": True}},
        {"name": "run", "arguments": {"code": "1", "tiemout": 1}},
        {"name": "run", "arguments": {"code": "1"}, "_meta": []},
    ],
)
def test_bad_params(executor, params):
    assert executor.error("tools/call", params)["code"] == -32602
    assert executor.run("1")["value"] == "1"


def test_bad_cursor(executor):
    assert executor.error("tools/list", {"cursor": "x"})["code"] == -32602


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"hello",
        b'{"jsonrpc":"2.0","id":1,"method":"ping"} x',
        b'{"jsonrpc":"2.0","id":1,"method":"p\xff"}',
        b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
        b"[" * 100000,
        b"\0",
        b"1" * 10000,
    ],
)
def test_parse_error(executor, line):
    executor.write(line + b"\n")
    answer = executor.receive()
    assert answer["id"] is None and answer["error"]["code"] == -32700
    assert executor.result("ping") == {}


@pytest.mark.parametrize(
    "message, answer_id",
    [
        ([], None),
        ([{"jsonrpc": "2.0", "id": 1, "method": "ping"}], None),
        (1, None),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, None),
        ({"jsonrpc": "2.0", "id": 1.5, "method": "ping"}, None),
        ({"jsonrpc": "2.0", "id": True, "method": "ping"}, None),
        ({"jsonrpc": "2.0", "id": {}, "method": "ping"}, None),
        ({"jsonrpc": "2.0", "id": "a", "method": 1}, "a"),
        ({"jsonrpc": "2.0", "id": "a"}, "a"),
        ({"jsonrpc": "1.0", "id": 7, "method": "ping"}, 7),
        ({"id": 7, "method": "ping"}, 7),
        ({"jsonrpc": "2.0"}, None),
    ],
)
def test_invalid_request(executor, message, answer_id):
    executor.send(message)
    answer = executor.receive()
    assert answer["id"] == answer_id and answer["error"]["code"] == -32600
    assert executor.result("ping") == {}


@pytest.mark.parametrize(
    "message",
    [
        {"method": "notifications/initialized"},
        {"method": "notifications/unheard-of", "params": {"a": 1}},
        {"method": "notifications/cancelled"},
        {"method": "notifications/cancelled", "params": []},
        {"method": "notifications/cancelled", "params": {"requestId": 4711}},
        {"method": "notifications/cancelled", "params": {"requestId": []}},
        {"id": 1, "result": {}},
        {"id": 1, "error": {"code": 1, "message": ""}},
    ],
)
def test_notifications_and_answers_are_not_answered(executor, message):
    executor.send({"jsonrpc": "2.0", **message})
    executor.write(b"\n")
    assert executor.result("ping") == {}


def test_string_ids(executor):
    executor.send({"jsonrpc": "2.0", "id": "ä/1\n", "method": "ping"})
    assert executor.receive()["id"] == "ä/1\n"


def test_framing(executor):
    ping = b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n'
    executor.write(b"".join(ping % number for number in range(500)))
    assert [executor.receive()["id"] for _ in range(500)] == list(range(500))
    for byte in ping % 1:
        executor.write(bytes([byte]))
    assert executor.receive()["id"] == 1


def test_large_request_and_answer(executor):
    code = "x = '" + "ä" * 3_000_000 + "'\nlen(x)"
    assert executor.run(code)["value"] == "3000000"
    assert executor.run("len(input())", stdin="y" * 5_000_000)["value"] == "5000000"


def test_calls_run_in_order(executor):
    ids = [executor.start_run(f"print({number}); {number}") for number in range(20)]
    answers = [executor.receive() for _ in ids]
    assert [answer["id"] for answer in answers] == ids
    assert [executor.check_run(answer)["stdout"] for answer in answers] == [f"{number}\n" for number in range(20)]


def test_ids_in_use_are_refused(executor, tmp_path):
    executor.wait_until_running("input()", tmp_path / "running", stdin="")  # ends at once
    executor.receive()
    used = executor.wait_until_running("while True: pass", tmp_path / "looping")
    executor.send(
        {"jsonrpc": "2.0", "id": used, "method": "tools/call", "params": {"name": "run", "arguments": {"code": ""}}}
    )
    assert executor.receive()["error"]["code"] == -32600
    executor.cancel(used)
    assert executor.run("1")["value"] == "1"


def test_server_file():
    text = (SOURCE / "python" / "python.json").read_text()
    server = json.loads(text.replace("@libexecdir@", "/usr/libexec"))
    assert server["command"] == f"/usr/libexec/{PROGRAMS['python'].name}"
    assert server["protocol"] == "mcp"
    assert server["isolation"] == "shared" and server["scope"] == "user"
    assert server["pool"]["concurrency"] == 1


# -- Results


@pytest.mark.parametrize(
    "code, stdout, value",
    [
        ("print(2+2)", "4\n", None),
        ("2+2", "", "4"),
        ("print(1); 'a'", "1\n", "'a'"),
        ("None", "", None),
        ("x = 1", "", None),
        ("", "", None),
        ("# nothing", "", None),
        ("'docstring'", "", "'docstring'"),
        ("for i in range(2): print(i, end='')", "01", None),
        ("import sys; print('e', file=sys.stderr)\n[1,\n 2]", "", "[1, 2]"),
        ("print('ä\\u20ac\\U0001f40d')", "ä€🐍\n", None),
        ("'ä€🐍'", "", "'ä€🐍'"),
        ("__name__", "", "'__main__'"),
        ("import sys; sys.argv", "", "['']"),
        ("from __future__ import annotations\ndef f(x: y): pass\nf.__annotations__", "", "{'x': 'y'}"),
    ],
)
def test_results(executor, code, stdout, value):
    result = executor.run(code)
    assert (result["stdout"], result["value"], result["exception"]) == (stdout, value, None)
    assert not result["truncated"] and not result["timed_out"]


def text_of(executor, code):
    return executor.result("tools/call", {"name": "run", "arguments": {"code": code}})["content"][0]["text"]


def test_text_for_people(executor):
    assert text_of(executor, "print(2+2)") == "4\n"
    assert text_of(executor, "2+2") == "4\n"
    assert text_of(executor, "x = 1") == "(no output)\n"
    text = text_of(executor, "import sys; print('out', end=''); print('err', file=sys.stderr)\n1/0")
    assert text.startswith("out\n[stderr]\nerr\nTraceback (most recent call last):\n")
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_state_lasts(executor):
    executor.run("import math\ndef f(x): return x + offset\noffset = 1")
    executor.run("offset = 2")
    assert executor.run("f(math.floor(3.5))")["value"] == "5"


def test_main_module_is_the_state(executor):
    executor.run("class Point: pass\nimport pickle, __main__")
    assert executor.run("type(pickle.loads(pickle.dumps(Point()))) is Point")["value"] == "True"
    assert executor.run("__main__.Point is Point")["value"] == "True"
    assert executor.run("hasattr(__main__, 'Executor')")["value"] == "False"


def test_modules_of_the_working_directory(executor, tmp_path):
    for name in "mine", "traceback", "linecache", "json", "tokenize", "select":
        (tmp_path / f"{name}.py").write_text("value = 7")
    assert executor.run("import mine; mine.value")["value"] == "7"
    exception = executor.run("1/0")["exception"]
    assert exception["type"] == "ZeroDivisionError" and "1/0" in exception["traceback"]


def test_light_start(executor):
    heavy = "{'asyncio', 'inspect', 'typing', 'dataclasses', 'ctypes', 'socket', 'subprocess', 'logging'}"
    assert executor.run(f"import sys; {heavy} & sys.modules.keys()")["value"] == "set()"


def test_stdin(executor):
    assert executor.run("input(), input()", stdin="a\nä€\n")["value"] == "('a', 'ä€')"
    assert executor.run("import sys; sys.stdin.read()", stdin="x\0y\r\n")["value"] == r"'x\x00y\n'"
    assert executor.run("import os; os.read(0, 9)", stdin="raw")["value"] == "b'raw'"
    assert executor.run("import subprocess; subprocess.run('cat').returncode", stdin="child")["stdout"] == "child"


def test_stdin_ends_with_the_call(executor):
    assert executor.run("input()", stdin="one\ntwo\n")["value"] == "'one'"
    assert executor.run("input()")["exception"]["type"] == "EOFError"
    assert executor.run("import sys; sys.stdin.read()")["value"] == "''"
    assert executor.run("input()", stdin="three")["value"] == "'three'"


# -- Exceptions


def test_exception_that_cannot_be_described(executor):
    executor.run("import traceback; traceback.TracebackException = None")
    exception = executor.run("1/0")["exception"]
    assert exception == {"type": "ZeroDivisionError", "message": "", "traceback": "ZeroDivisionError: \n"}
    assert executor.run("2+2")["value"] == "4"


def test_traceback_shows_the_code_alone(executor):
    executor.run("def outer():\n    return inner()  # the outer line")
    executor.run("def inner():\n    return 1/0  # the inner line")
    exception = executor.run("1\nouter()  # the call")["exception"]
    assert exception["type"] == "ZeroDivisionError" and exception["message"] == "division by zero"
    lines = exception["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.strip() for line in lines if "#" in line] == [
        "outer()  # the call",
        "return inner()  # the outer line",
        "return 1/0  # the inner line",
    ]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "mcp-exec-python" not in exception["traceback"]
    assert re.findall(r'File "(.*?)"', exception["traceback"]) == ["<run-3>", "<run-1>", "<run-2>"]


def test_chained_and_grouped_exceptions(executor):
    code = "try:\n    1/0\nexcept ArithmeticError as error:\n    raise ValueError('second') from error"
    traceback = executor.run(code)["exception"]["traceback"]
    assert "division by zero" in traceback and "direct cause" in traceback and "second" in traceback
    exception = executor.run("raise ExceptionGroup('many', [ValueError('a'), TypeError('b')])")["exception"]
    assert exception["type"] == "ExceptionGroup"
    assert "ValueError: a" in exception["traceback"] and "TypeError: b" in exception["traceback"]


def test_syntax_error(executor):
    exception = executor.run("x = 1\nx = = 2")["exception"]
    assert exception["type"] == "SyntaxError"
    assert 'File "<run-1>", line 2' in exception["traceback"] and "x = = 2" in exception["traceback"]


@pytest.mark.parametrize(
    "code, kind, message",
    [
        ("import sys; sys.exit()", "SystemExit", ""),
        ("raise SystemExit(3)", "SystemExit", "3"),
        ("exit('bye')", "SystemExit", "bye"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)\nwhile True: pass", "KeyboardInterrupt", ""),
        ("def f(): f()\nf()", "RecursionError", "maximum recursion depth exceeded"),
        ("b'x' * (1 << 60)", "MemoryError", ""),
        ("raise GeneratorExit", "GeneratorExit", ""),
        ("raise BaseException('base')", "BaseException", "base"),
        ("import json; json.loads('{')", "json.decoder.JSONDecodeError", None),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "E", "<its str() failed>"),
        ("class V:\n    def __repr__(self): return 1/0\nV()", "ZeroDivisionError", "division by zero"),
        ("class V:\n    def __repr__(self): return 1\nV()", "TypeError", None),
        ("10 ** 10000", "ValueError", None),
        ("'\\0'\0", "SyntaxError", None),
        ("x = '\ud800'", "UnicodeEncodeError", None),
        ("(" * 1000 + ")" * 1000, None, None),
        ("raise Exception('\\ud800')", "Exception", "?"),
        ("class E(Exception): pass\nE.__module__ = 5\nraise E('odd')", None, None),
        ("deep = []\nfor _ in range(100000): deep = [deep]\ndeep", "RecursionError", None),
        ("import sys; sys.setrecursionlimit(60)\n1/0", "ZeroDivisionError", "division by zero"),
        ("import sys; sys.settrace(lambda *_: 1/0)\n2/0", "ZeroDivisionError", "division by zero"),
    ],
)
def test_exceptions(executor, code, kind, message):
    exception = executor.run(code)["exception"]
    assert exception
    if kind:
        # Older Pythons refuse NUL with a ValueError.
        assert exception["type"] == kind or kind == "SyntaxError" and exception["type"] == "ValueError"
    if message is not None:
        assert exception["message"] == message
    assert executor.run("2+2")["value"] == "4"


def test_exception_while_printing(executor):
    result = executor.run("print('before')\n1/0")
    assert result["stdout"] == "before\n" and result["exception"]["type"] == "ZeroDivisionError"


# -- Capture


def test_every_way_to_write_is_captured_in_order(executor):
    code = """
import ctypes, os, subprocess, sys
print("print")
os.write(1, b"write\\n")
libc = ctypes.CDLL(None)
libc.printf(b"printf\\n"); libc.fflush(None)
subprocess.run(["echo", "child"])
os.system("echo shell; echo error >&2; echo device > /dev/stderr")
sys.stdout.write("unfinished")
"""
    result = executor.run(code)
    assert result["stdout"] == "print\nwrite\nprintf\nchild\nshell\nunfinished"
    assert result["stderr"] == "error\ndevice\n"


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.stdout.close()\nprint('lost')",
        "import sys; sys.stderr.close(); sys.stdin.close()",
        "import sys; sys.stdout = None; sys.stderr = 5",
        "import sys; del sys.stdout, sys.stderr, sys.stdin",
        "import sys; del sys.__stdout__",
        "import sys, io; sys.stdout = io.StringIO(); print('elsewhere')",
        "import sys, io; sys.stdout = io.TextIOWrapper(sys.stdout.buffer); print('through')",
        "import sys; raw = sys.stdout.detach()",
        "import sys; sys.stdout.buffer.close()",
        "import os\nfor fd in 0, 1, 2: os.close(fd)",
        "import os; os.closerange(0, 3); print('x' * 100000)",
        "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('full')",
        "import os; os.dup2(os.pipe()[1], 1); print('no reader')",
        "class Out:\n    def flush(self): 1/0\n    def write(self, text): 1/0\nimport sys; sys.stdout = Out()",
    ],
)
def test_streams_are_restored(executor, code):
    executor.run(code)
    result = executor.run("import sys, os\nprint('out'); print('err', file=sys.stderr); os.write(1, b'raw')")
    assert (result["stdout"], result["stderr"], result["value"]) == ("out\nraw", "err\n", "3")
    assert executor.run("input()", stdin="in")["value"] == "'in'"
    assert executor.run("print(1, file=sys.__stdout__)")["stdout"] == "1\n"


def test_losing_a_stream_is_no_exception(executor):
    for code in "del sys.stdout", "sys.stdout = None", "sys.stderr.close()", "sys.stdin.close()", "os.close(1)":
        assert executor.run(f"import os, sys; {code}")["exception"] is None


def test_what_was_printed_before_stdout_was_lost_is_kept(executor):
    code = "import sys, os; sys.stdout.write('kept'); os.close(1)"
    assert executor.run(code)["stdout"] == "kept"
    result = executor.run("import sys; print('kept'); sys.stdout.close(); print('lost')")
    assert result["stdout"] == "kept\n" and result["exception"]["type"] == "ValueError"
    code = "import sys, io; sys.stdout = io.TextIOWrapper(sys.stdout.buffer); print('through')"
    assert executor.run(code)["stdout"] == "through\n"


def test_kept_references_to_streams_work(executor):
    executor.run("import logging, sys; logging.basicConfig(stream=sys.stdout, format='%(message)s')")
    executor.run("say = print; out = sys.stdout")
    assert executor.run("logging.warning('logged'); out.write('x\\n'); None")["stdout"] == "logged\nx\n"


@pytest.mark.parametrize(
    "code, stdout",
    [
        (r"import sys; sys.stdout.buffer.write(b'a\xff\xfeb\n'); None", "a\ufffd\ufffdb\n"),
        (r"print('a\0b')", "a\0b\n"),
        (r"print('\x1b[31m\x7f\r')", "\x1b[31m\x7f\r\n"),
        (r"print('\ud800')", "\\ud800\n"),
        (r"print('\u2028\u2029\x85')", "\u2028\u2029\x85\n"),
    ],
)
def test_odd_bytes(executor, code, stdout):
    assert executor.run(code)["stdout"] == stdout


def test_surrogates_are_replaced(executor):
    code = r"class V:" "\n" r"    def __repr__(self): return 'a\udc80b'" "\nV()"
    assert executor.run(code)["value"] == "a?b"


def test_long_output_keeps_start_and_end(executor):
    result = executor.run("print('start')\nfor i in range(1000000): print(i)\nprint('end')")
    stdout = result["stdout"]
    assert result["truncated"] and result["exception"] is None
    assert stdout.startswith("start\n0\n1\n") and stdout.endswith("999999\nend\n")
    (left_out,) = re.findall(r"\n\[\.\.\. (\d+) bytes left out \.\.\.\]\n", stdout)
    marker = len(f"\n[... {left_out} bytes left out ...]\n")
    assert len(stdout) - marker + int(left_out) == 6 + sum(len(str(i)) + 1 for i in range(1000000)) + 4
    assert len(stdout) < 300_000


def test_output_up_to_the_limit_is_whole(executor):
    result = executor.run("print('x' * (256 * 1024 - 1))")
    assert result["stdout"] == "x" * (256 * 1024 - 1) + "\n" and not result["truncated"]
    assert executor.run("print('x' * (256 * 1024))")["truncated"]


@pytest.mark.parametrize(
    "code",
    [
        "import sys; print('o' * 10**7); print('e' * 10**7, file=sys.stderr); 'v' * 10**7",
        "import sys, os; b = bytes(range(256)) * 40000; sys.stdout.buffer.write(b); sys.stderr.buffer.write(b); b",
        "import sys; print('\\0' * 10**6); print('\\1' * 10**6, file=sys.stderr); raise ValueError('\\2' * 10**6)",
        "'🐍' * 10**6",
    ],
)
def test_answers_fit_an_inline_reply(executor, code):
    executor.start_run(code)
    line = executor.read_line()
    assert len(line) <= 1_000_000
    assert executor.check_run(json.loads(line))["truncated"]


def peak_memory(executor):
    with open(f"/proc/{executor.process.pid}/status") as file:
        return int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) * 1024


@pytest.mark.parametrize("code", ["import os; os.system('yes')", "while True: print('x' * 1000)"])
def test_runaway_printer_fills_no_memory(executor, code):
    executor.run("1")
    before = peak_memory(executor)
    result = executor.run(code, timeout=0.7)
    assert result["timed_out"] and result["truncated"]
    assert peak_memory(executor) - before < 64 * 1024 * 1024
    assert executor.run("print(1)")["stdout"] == "1\n"


def test_child_left_behind_neither_hangs_nor_writes_later(executor):
    result = executor.run("import subprocess; p = subprocess.Popen('yes'); p.pid")
    pid = int(result["value"])
    wait_for(lambda: not is_alive(pid))
    assert executor.run("p.wait()")["value"] == str(-signal.SIGPIPE)
    assert executor.run("print(1)")["stdout"] == "1\n"


def test_quiet_child_left_behind(executor):
    pid = int(executor.run("import subprocess; p = subprocess.Popen(['sleep', '1000']); p.pid")["value"])
    assert executor.run("print(1)")["stdout"] == "1\n"
    assert is_alive(pid)
    executor.run("p.kill(); p.wait()")


def test_thread_left_behind_cannot_speak_protocol(executor):
    code = """
import os, sys, threading
def chatter():
    while not stop.is_set():
        print("noise")
        os.write(1, b"noise\\n")
        sys.stderr.write("noise\\n")
stop = threading.Event()
thread = threading.Thread(target=chatter, daemon=True)
thread.start()
"""
    executor.run(code)
    for _ in range(20):
        assert executor.result("ping") == {}
        assert executor.run("2+2")["value"] == "4"
    executor.run("stop.set(); thread.join()")
    assert executor.run("print(1)")["stdout"] == "1\n"


def test_own_thread_is_not_the_codes(executor):
    assert executor.run("import threading; threading.enumerate() == [threading.main_thread()]")["value"] == "True"
    assert executor.run("threading.current_thread() is threading.main_thread()")["value"] == "True"


# -- Descriptors and processes


def test_descriptors_of_the_code(executor):
    assert executor.run("import os; os.open('/dev/null', 0)")["value"] == "3"
    inherited = executor.run("os.system('ls /proc/self/fd')")["stdout"].split()
    assert [int(fd) for fd in inherited if int(fd) > 3] == []
    before = executor.run("len(os.listdir('/proc/self/fd'))")["value"]
    for _ in range(20):
        executor.run("print(input())", stdin="x")
    assert executor.run("len(os.listdir('/proc/self/fd'))")["value"] == before


def test_closing_the_usual_descriptors(executor):
    executor.run("import os; os.closerange(3, 256)")
    assert executor.run("print(1)")["stdout"] == "1\n"


def test_closing_all_descriptors_ends_the_process(executor):
    executor.start_run("import os; os.closerange(3, 65536)")
    assert executor.read_line() is None
    assert executor.end(close=False)[0] == 1


def test_closing_the_protocol_ends_the_process_with_a_word(executor):
    inode = os.fstat(executor.process.stdout.fileno()).st_ino
    executor.start_run(
        "import os\n"
        "for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "    try: os.fstat(fd).st_ino == %d and os.close(fd)\n"
        "    except OSError: pass" % inode
    )
    assert executor.read_line() is None
    status, said = executor.end(close=False)
    assert status == 1
    assert said.startswith("mcp-exec-python: cannot go on with the descriptors") and said.count("\n") == 1


def test_forked_child_speaks_no_protocol(executor):
    assert executor.run("import os\npid = os.fork()\npid > 0")["value"] == "True"
    assert executor.run("os.waitpid(pid, 0)[1]")["value"] == "0"
    code = "if os.fork() == 0: print('child')\nelse: print('parent', os.wait()[1])"
    assert executor.run(code)["stdout"] == "child\nparent 0\n"
    assert executor.result("ping") == {}


@pytest.mark.parametrize(
    "ending, status", [("1/0", 1), ("raise SystemExit(3)", 3), ("raise SystemExit('x')", 1), ("os._exit(4)", 4)]
)
def test_forked_child_ends_as_a_program(executor, ending, status):
    code = f"import os\npid = os.fork()\nif pid == 0:\n    {ending}\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    result = executor.run(code)
    assert result["value"] == str(status)
    assert ("ZeroDivisionError" in result["stderr"]) is (ending == "1/0")
    assert result["exception"] is None


def test_fork_does_not_keep_the_protocol_open(executor, tmp_path):
    marker = tmp_path / "pid"
    child = f"open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    executor.run(f"import os, time\nif os.fork() == 0: {child}")
    wait_for(lambda: marker.exists() and marker.read_text())
    try:
        executor.process.kill()
        assert executor.read_line() is None
    finally:
        os.kill(int(marker.read_text()), signal.SIGKILL)


def test_multiprocessing(executor):
    executor.run("import multiprocessing; context = multiprocessing.get_context('fork')")
    result = executor.run("with context.Pool(2) as pool: print(pool.map(abs, [-1, -2]))")
    assert (result["stdout"], result["stderr"], result["exception"]) == ("[1, 2]\n", "", None)


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.setrecursionlimit(60)",
        "import sys; sys.settrace(lambda *_: 1/0)",
        "import sys; sys.setprofile(lambda *_: None)",
        "import os, json, time, signal; os.read = os.write = os.dup2 = os.pipe2 = json.dumps = time.monotonic = None",
        "import select, fcntl; select.poll = fcntl.fcntl = None",
        "import os, shutil, tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
        "import os; os.environ.clear()",
        "import sys; sys.path.clear(); sys.modules.pop('json', None); sys.modules.pop('__main__')",
        "import gc; gc.disable(); gc.collect()",
        "globals().clear()",
        "print = len = open = None",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN); signal.signal(signal.SIGIO, signal.SIG_DFL)",
        "import signal; signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)",
        "import faulthandler; faulthandler.disable()",
        "import sys; sys.stdout.reconfigure(encoding='latin-1'); sys.stdout.close()",
        "import linecache, tracemalloc; linecache.clearcache()",
    ],
)
def test_the_next_call_works_and_can_be_stopped(executor, code, tmp_path):
    assert executor.run(code)["exception"] is None
    assert executor.run("import sys\nsys.stdout.write(str(2+2))")["stdout"] == "4"
    assert executor.run("1/0")["exception"]["type"] == "ZeroDivisionError"
    assert executor.run("while True: pass", timeout=0.05)["timed_out"]
    executor.run("del open" if "open = None" in code else "")
    executor.cancel(executor.wait_until_running("while True: pass", tmp_path / "running"))
    assert executor.run("3")["value"] == "3"


def test_sources_are_not_kept_for_ever(executor):
    for _ in range(600):
        executor.start_run("1")
    for _ in range(600):
        executor.receive()
    assert int(executor.run("import linecache; len(linecache.cache)")["value"]) <= 510
    for _ in range(8):
        executor.run("#" * 1_000_000)
    kept = executor.run("sum(entry[0] for entry in linecache.cache.values() if len(entry) > 1)")["value"]
    assert int(kept) < 5_000_000


# -- Timeouts


STUCK = [
    "while True: pass",
    "import time; time.sleep(1000)",
    "import threading; threading.Lock().acquire() and threading.Event().wait()",
    "import subprocess; subprocess.run(['sleep', '1000'])",
    "import os; os.system('sleep 1000')",
    "import os; os.popen('sleep 1000').read()",
    "import os; os.read(os.pipe()[0], 1)",
    "import asyncio; asyncio.run(asyncio.sleep(1000))",
    "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "import select; select.select([], [], [])",
    "import ctypes; ctypes.CDLL(None).pause()",
    "class V:\n    def __repr__(self):\n        while True: pass\nV()",
    "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
    "class Out:\n    def flush(self):\n        while True: pass\nimport sys; sys.stdout = Out()",
    "import os\nif os.fork() == 0: os.execlp('sleep', 'sleep', '1000')\nos.wait()",
]


@pytest.mark.parametrize("code", STUCK)
def test_timeout(executor, code):
    result = executor.run(f"print('begun')\nx = 7\n{code}", timeout=0.5)
    assert result["timed_out"]
    assert result["stdout"] == "begun\n"
    if "def " not in code:
        assert result["exception"]["type"] == "TimeoutError"
        assert "0.5 s" in result["exception"]["message"]
        assert 'File "<run-1>", line ' in result["exception"]["traceback"]
        assert "mcp-exec-python" not in result["exception"]["traceback"]
    assert executor.run("x")["value"] == "7"


def test_timeout_not_reached(executor):
    assert executor.run("2+2", timeout=2)["value"] == "4"
    result = executor.run("import time; time.sleep(2.2); 'slept'")
    assert result["value"] == "'slept'" and not result["timed_out"]


@pytest.mark.parametrize("timeout", [86400, 3600.5])
def test_long_timeout(executor, timeout):
    assert executor.run("2+2", timeout=timeout)["value"] == "4"


def test_timeouts_shorter_than_any_code(executor):
    for timeout in 1e-300, 1e-9, 1e-6, 1e-5, 2e-5, 5e-5:
        for _ in range(20):
            assert executor.run("while True: pass", timeout=timeout)["timed_out"]
    assert executor.run("2+2")["value"] == "4"


@pytest.mark.parametrize("swallow", ["except:", "except BaseException:", "except KeyboardInterrupt:"])
def test_swallowed_timeout_comes_again(executor, swallow):
    code = f"import time\nfor caught in range(3):\n    try:\n        time.sleep(1000)\n    {swallow} pass\ncaught"
    result = executor.run(code, timeout=0.05)
    assert result["timed_out"] and result["exception"] is None and result["value"] == "2"
    assert executor.run("caught")["value"] == "2"


def test_code_that_never_stops_is_answered_and_ends_the_process(executor):
    code = "import time\nprint('begun')\nwhile True:\n    try:\n        time.sleep(1000)\n    except: pass"
    result = executor.run(code, timeout=0.5)
    assert result["timed_out"] and result["stdout"] == "begun\n"
    assert result["exception"]["type"] == "TimeoutError"
    assert 'File "<run-1>", line ' in result["exception"]["traceback"]
    assert executor.read_line() is None
    status, said = executor.end(close=False)
    assert status == 1
    assert said == "mcp-exec-python: the code ran longer than 0.5 s and did not stop within 3 s\n"


def test_native_code_that_keeps_the_lock_ends_the_process(executor):
    executor.start_run("import itertools; sum(itertools.repeat(0))", timeout=0.05)
    assert executor.read_line() is None
    status, said = executor.end(close=False)
    assert status == 1
    assert "Timeout" in said and '"<run-1>", line 1' in said


def test_alarms_of_the_code(executor):
    code = """
import signal, time
class Alarm(Exception): pass
def on_alarm(*_): raise Alarm
signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.02)
try: time.sleep(1000)
except Alarm: print("rang")
"""
    assert executor.run(code)["stdout"] == "rang\n"
    assert executor.run("while True: pass", timeout=0.05)["timed_out"]


def test_alarm_of_the_code_does_not_undo_the_timeout(executor):
    assert executor.run("import signal; signal.alarm(0)\nwhile True: pass", timeout=0.05)["timed_out"]
    code = "signal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile True: pass"
    assert executor.run(code, timeout=0.1)["timed_out"]
    assert executor.run("1")["value"] == "1"


def test_alarm_left_behind_is_off(executor):
    executor.run("import signal; signal.signal(signal.SIGALRM, signal.SIG_DFL)")
    executor.run("signal.signal(signal.SIGALRM, signal.SIG_DFL); signal.setitimer(signal.ITIMER_REAL, 0.05)")
    time.sleep(0.1)
    assert executor.run("1")["value"] == "1"


# -- Cancellation


@pytest.mark.parametrize("code", STUCK)
def test_cancel(executor, code, tmp_path):
    request_id = executor.wait_until_running(code, tmp_path / "running")
    executor.cancel(request_id)
    assert executor.run("2+2")["value"] == "4"  # the cancelled call was not answered
    assert executor.result("ping") == {}


def test_swallowed_cancel_comes_again(executor, tmp_path):
    code = "import time\nfor i in range(3):\n    try:\n        time.sleep(1000)\n    except: pass\ncaught = True"
    executor.cancel(executor.wait_until_running(code, tmp_path / "running"))
    assert executor.run("caught")["value"] == "True"


def test_cancel_with_timeout(executor, tmp_path):
    executor.cancel(executor.wait_until_running("while True: pass", tmp_path / "running", timeout=100))
    assert not executor.run("2+2", timeout=100)["timed_out"]


def test_cancelled_code_that_never_stops_ends_the_process(executor, tmp_path):
    code = "import time\nwhile True:\n    try:\n        time.sleep(1000)\n    except: pass"
    executor.cancel(executor.wait_until_running(code, tmp_path / "running"))
    assert executor.read_line() is None
    assert executor.end(close=False) == (1, "mcp-exec-python: the call was cancelled and did not stop within 3 s\n")


def test_waiting_call_is_cancelled(executor, tmp_path):
    running = executor.wait_until_running("while True: pass", tmp_path / "running")
    waiting = executor.start_run("touched = True")
    executor.cancel(waiting)
    executor.cancel(running)
    assert executor.run("'touched' in globals()")["value"] == "False"


def test_cancel_of_an_answered_call(executor):
    executor.run("1")
    executor.cancel(executor.last_id)
    assert executor.run("import time; time.sleep(0.01); 2")["value"] == "2"


def test_cancel_right_after_the_request(executor):
    for _ in range(200):
        executor.cancel(executor.start_run("2+2"))
    request_id = executor.start_run("3")
    while (answer := executor.receive())["id"] != request_id:
        assert executor.check_run(answer)["value"] == "4"
    assert executor.check_run(answer)["value"] == "3"
    assert executor.run("import time; time.sleep(0.01); 4")["value"] == "4"


def test_cancel_while_native_code_begins(executor):
    executor.run("import re, time")
    for delay in 0, 0, 0, 0.0001, 0.0002, 0.0005, 0.001, 0.005:
        request_id = executor.start_run("re.match('(a+)+$', 'a' * 60 + 'b')")
        time.sleep(delay)
        executor.cancel(request_id)
        assert executor.run("2+2")["value"] == "4"


def test_requests_are_answered_while_code_runs(executor, tmp_path):
    request_id = executor.wait_until_running("while True: pass", tmp_path / "running")
    assert executor.result("ping") == {}
    assert executor.result("tools/list")["tools"]
    assert executor.error("nothing")["code"] == -32601
    executor.cancel(request_id)
    assert executor.run("1")["value"] == "1"


# -- The end


def test_end_of_input(executor):
    executor.run("1")
    assert executor.end() == (0, "")


def test_end_of_input_at_once(fresh):
    assert fresh.end() == (0, "")


def test_end_of_input_without_newline(fresh):
    fresh.write(b'{"jsonrpc"')
    assert fresh.end() == (0, "")


def test_end_of_input_runs_exit_handlers(executor, tmp_path):
    executor.run("import atexit; file = open('unflushed', 'w'); file.write('a')")
    executor.run("atexit.register(open('handler', 'w').write, 'b')")
    assert executor.end() == (0, "")
    assert (tmp_path / "unflushed").read_text() == "a"
    assert (tmp_path / "handler").read_text() == "b"


@pytest.mark.parametrize(
    "code",
    [
        "import threading; threading.Thread(target=threading.Event().wait).start()",
        "import atexit, time; atexit.register(time.sleep, 1000)",
        "import sys; sys.stdout.close(); sys.stdout = None",
        "import subprocess; p = subprocess.Popen(['sleep', '5'])",
    ],
)
def test_end_of_input_whatever_the_code_left(executor, code):
    executor.run(code)
    assert executor.end()[0] == 0


@pytest.mark.parametrize(
    "code", ["while True: pass", "import time; time.sleep(1000)", "import os; os.system('sleep 60')"]
)
def test_end_of_input_while_code_runs(executor, code, tmp_path):
    executor.wait_until_running(code, tmp_path / "running")
    begun = time.monotonic()
    assert executor.end() == (0, "")
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_signals_end_an_idle_process(executor, number, status):
    executor.run("1")
    executor.process.send_signal(number)
    assert executor.end(close=False)[0] == status


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_inherited_signal_settings_do_not_count(tmp_path, number, status):
    executor = Executor(tmp_path, ["env", "--ignore-signal=INT,TERM", "--block-signal=INT,TERM,ALRM"])
    try:
        executor.initialize()
        assert executor.run("while True: pass", timeout=0.05)["timed_out"]
        executor.process.send_signal(number)
        assert executor.end(close=False)[0] == status
    finally:
        executor.leave()


def test_sigterm_ends_running_code(executor, tmp_path):
    executor.wait_until_running("import itertools; sum(itertools.repeat(0))", tmp_path / "running")
    executor.process.terminate()
    assert executor.end(close=False) == (-signal.SIGTERM, "")


@pytest.mark.parametrize("method, params", [("ping", {}), ("tools/call", {"name": "run", "arguments": {"code": "1"}})])
def test_broken_pipe(executor, method, params):
    executor.process.stdout.close()
    executor.start(method, params)
    assert executor.end(close=False) == (0, "")


def test_crash_says_where(executor):
    executor.start_run("import ctypes\ndef crash(): ctypes.string_at(0)\ncrash()")
    assert executor.read_line() is None
    status, said = executor.end(close=False)
    assert status == -signal.SIGSEGV
    assert "Segmentation fault" in said and '"<run-1>", line 2 in crash' in said
