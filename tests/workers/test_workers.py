"""Proves, through plain pipes, that the workers do what the broker's tests rely on.

    ECHO_WORKER=build/tests/workers/echo-worker /usr/bin/python3 -m pytest tests/workers/test_workers.py

Without ECHO_WORKER the echo worker's tests are skipped, and without tests/npm/node_modules (`npm ci`) those of node."""

import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
NPM = pathlib.Path(os.environ.get("MCP_EXEC_TEST_NPM", HERE.parent / "npm"))
EVERYTHING = NPM / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
PATIENCE = 20
QUIET = 0.3
MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}

sys.path.insert(0, str(HERE))
import hostile  # noqa: E402


class Worker:
    """A worker process and its three pipes. Every wait is bounded."""

    def __init__(self, *command):
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, bufsize=0)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.buffer = bytearray()
        self.ended = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

    @property
    def pid(self):
        return self.process.pid

    def write(self, data):
        """Writes while reading, as a pipe's two directions may both be full."""
        data, until = memoryview(data), time.monotonic() + PATIENCE
        os.set_blocking(self.process.stdin.fileno(), False)
        while data:
            assert time.monotonic() < until, "the worker reads nothing"
            readable, writable, _ = select.select([] if self.ended else [self.process.stdout], [self.process.stdin], [], 1)
            if readable:
                self.read()
            if writable:
                data = data[os.write(self.process.stdin.fileno(), data[:65536]):]

    def read(self):
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        self.buffer += data
        self.ended = not data

    def line(self, patience=PATIENCE):
        """The next line without its newline; None at the end of stdout or after so many seconds of silence."""
        until, searched = time.monotonic() + patience, 0
        while (newline := self.buffer.find(b"\n", searched)) < 0:
            searched = len(self.buffer)
            left = until - time.monotonic()
            if self.ended or left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return None
            self.read()
        line = bytes(self.buffer[:newline])
        del self.buffer[: newline + 1]
        return line

    def message(self, patience=PATIENCE):
        line = self.line(patience)
        return None if line is None else json.loads(line)

    def quiet(self):
        return self.line(QUIET) is None

    def send(self, *messages):
        self.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def request(self, request_id, method, **params):
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})

    def initialize(self, version="2025-11-25"):
        self.request("init", "initialize", protocolVersion=version, capabilities={}, clientInfo={"name": "t", "version": "1"})

    def handshake(self):
        self.initialize()
        answer = self.message()
        assert answer["id"] == "init" and answer["result"]["protocolVersion"] == "2025-11-25"
        self.initialized()
        return answer

    def initialized(self):
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, request_id, tool, **arguments):
        self.request(request_id, "tools/call", name=tool, arguments=arguments)

    def cancel(self, request_id):
        self.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}})

    def text(self, request_id, tool, **arguments):
        self.call(request_id, tool, **arguments)
        return text_of(self.message(), request_id)

    def alive(self):
        assert self.text("alive", "echo", message="still here") == "still here"

    def end(self, patience=PATIENCE):
        return self.process.wait(patience)

    def stderr(self):
        return self.process.stderr.read()


def text_of(answer, request_id):
    assert answer["id"] == request_id and "error" not in answer
    return answer["result"]["content"][0]["text"]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def moody(name, *arguments):
    return Worker(HERE / "hostile.py", name, *arguments)


def shaken(name, *arguments):
    worker = moody(name, *arguments)
    worker.handshake()
    return worker


# The echo worker


@pytest.fixture
def echo():
    if not os.environ.get("ECHO_WORKER"):
        pytest.skip("ECHO_WORKER names no echo worker")
    workers = []

    def start(*options):
        workers.append(Worker(os.environ["ECHO_WORKER"], *options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.__exit__()


def modern_request(worker, request_id, method, meta=META, **params):
    worker.request(request_id, method, **params, _meta=meta)
    return worker.message()


def test_echo_legacy(echo):
    worker = echo()
    for asked, answered in (("2024-11-05", "2024-11-05"), ("2025-06-18", "2025-06-18"), ("1999-01-01", "2025-11-25")):
        worker.initialize(asked)
        assert worker.message()["result"]["protocolVersion"] == answered
    worker.initialized()
    worker.request(1, "ping")
    assert worker.line() == b'{"jsonrpc":"2.0","id":1,"result":{}}'
    worker.request("two", "server/discover", _meta=META)
    assert worker.message() == {"jsonrpc": "2.0", "id": "two", "error": {"code": -32601, "message": "Method not found"}}
    worker.request(3, "tools/list")
    tools = {tool["name"] for tool in worker.message()["result"]["tools"]}
    assert {"echo", "pid", "sleep", "crash", "exit", "big", "sink"} <= tools
    assert worker.text(4, "pid") == str(worker.pid)
    worker.call(5, "nothing")
    assert worker.message()["error"]["code"] == -32602
    worker.process.stdin.close()
    assert worker.end() == 0


def test_echo_returns_raw_bytes(echo):
    worker = echo()
    for id_, string in ((b'"a\\"]}\\\\"', rb'"\u00e9\ud800\\\" id: \/ {[,\u0000"'), (b"-12345678901234567890123", '"é\u2028"'.encode())):
        worker.write(b'{"params": {"arguments": {"x": [{"message": 1}], "message": ' + string + b'}, "name": "echo"}, "method"'
                     b': "tools/call", "id" :\t' + id_ + b', "z": {"id": 7, "method": "ping"}, "jsonrpc": "2.0"} \r\n')
        assert worker.line() == (b'{"jsonrpc":"2.0","id":' + id_ + b',"result":{"content":[{"type":"text","text":' + string
                                 + b"}]}}")
    params = b'{ "b":1.0e5 , "a":[ "\\u0041", {} ], "b":2 }'
    worker.write(b'{"id":1,"method":"echo/params","params":' + params + b'}\n{"id":2,"method":"echo/params"}\n')
    assert worker.line() == b'{"jsonrpc":"2.0","id":1,"result":{"params":' + params + b"}}"
    assert worker.line() == b'{"jsonrpc":"2.0","id":2,"result":{"params":null}}'


def test_echo_id_last(echo):
    worker = echo("--id-last")
    worker.call(1, "echo", message="x")
    assert worker.line() == b'{"result":{"content":[{"type":"text","text":"x"}]},"jsonrpc":"2.0","id":1}'


def test_echo_survives_bad_lines(echo):
    worker = echo()
    bad = [b"", b"x", b"[]", b"{", b'{"id":1', b'{"id":1,"method":"ping"', b'{"id":1,"method":"ping"}}', b'{"id":1,"method":"pi',
           b'{"id":1,"method":"ping\\', b'{"id":1 "method":"ping"}', b'{"id":"a\0b","method":"ping"}', b'{"a":[}', b'{"id":}',
           b'{"id":null,"method":"ping"}', b'{"id":[1],"method":"ping"}', b'{"id":true,"method":"ping"}', b'{,"id":1}']
    for line in bad:
        worker.write(line + b"\n")
        answer = worker.message()
        assert answer["id"] is None and answer["error"]["code"] in (-32700, -32600), line
    for ignored in (b"{}", b'{"method":"ping"}', b'{"id":1,"result":{}}', b'{"method":"notifications/cancelled"}'):
        worker.write(ignored + b"\n")
    worker.alive()


def test_echo_pipelined(echo):
    worker = echo()
    count = 20000
    worker.write(b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"message":"m%d"}}}\n'
                          % (n, n) for n in range(count)))
    for n in range(count):
        assert text_of(worker.message(), n) == f"m{n}"
    # byte by byte
    for byte in b'{"id":"slow","method":"ping"}\n':
        worker.write(bytes([byte]))
    assert worker.message()["id"] == "slow"


def test_echo_writes_once_per_batch(echo):
    worker = echo()
    worker.write(b'{"id":1,"method":"ping"}\n' * 100)
    answers = len(b'{"jsonrpc":"2.0","id":1,"result":{}}\n') * 100
    select.select([worker.process.stdout], [], [], PATIENCE)
    assert len(os.read(worker.process.stdout.fileno(), 1 << 20)) == answers


def test_echo_large_lines(echo):
    worker = echo()
    for size in (1 << 16, 1 << 20, (32 << 20) - 200):
        message = "y" * size
        assert worker.text(size, "echo", message=message) == message
    assert worker.text("big", "big", bytes=33 << 20) == "x" * (33 << 20)
    worker.call("bigger", "big", bytes=1 << 30)
    assert worker.message()["error"]["code"] == -32602
    worker.alive()
    with pytest.raises(BrokenPipeError):
        worker.write(b"z" * (34 << 20))
    assert worker.end() == 1


def test_echo_sleeps_without_blocking(echo):
    def call(request_id, tool, **arguments):
        return {"id": request_id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}

    worker = echo()
    started = time.monotonic()
    worker.send(call("long", "sleep", ms=600), call("short", "sleep", ms=300), call("cancelled", "sleep", ms=100),
                call("none", "sleep", ms=0), call("now", "echo", message="now"), call("sunk", "sink"),
                {"method": "notifications/cancelled", "params": {"requestId": "cancelled"}})
    assert [worker.message()["id"] for _ in range(3)] == ["now", "none", "short"]
    assert time.monotonic() - started >= 0.3
    assert text_of(worker.message(), "long") == "slept"
    assert time.monotonic() - started >= 0.6
    assert worker.quiet()
    for wrong in ({}, {"ms": -1}, {"ms": "1"}, {"ms": 1e12}):
        worker.call("wrong", "sleep", **wrong)
        assert worker.message()["error"]["code"] == -32602


@pytest.mark.parametrize("tool, arguments, status", [("crash", {}, -signal.SIGABRT), ("exit", {"status": 9}, 9)])
def test_echo_dies_after_its_answers(echo, tool, arguments, status):
    worker = echo()
    worker.send({"id": 1, "method": "ping"},
                {"id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}},
                {"id": 3, "method": "ping"})
    assert worker.message()["id"] == 1
    assert worker.line() is None
    assert worker.end() == status


def test_echo_tells_its_signals(echo):
    assert echo().text(1, "signals").startswith("blocked 0000000000000000 ignored 000000")


def test_echo_modern(echo):
    worker = echo("--modern")
    worker.initialize()
    error = worker.message()["error"]
    assert error["code"] == -32022 and error["data"] == {"supported": [MODERN], "requested": "2025-11-25"}

    discovered = modern_request(worker, "d", "server/discover")["result"]
    assert discovered["resultType"] == "complete" and discovered["supportedVersions"] == [MODERN]
    assert "tools" in discovered["capabilities"] and discovered["ttlMs"] == 60000 and discovered["cacheScope"] == "public"

    listed = modern_request(worker, 1, "tools/list")["result"]
    assert listed["resultType"] == "complete" and listed["ttlMs"] == 60000 and listed["cacheScope"] == "public"

    assert modern_request(worker, 2, "tools/call", name="echo", arguments={"message": "hi"})["result"] == {
        "resultType": "complete", "content": [{"type": "text", "text": "hi"}]}
    assert modern_request(worker, 3, "echo/params", a=1)["result"] == {
        "resultType": "complete", "params": {"a": 1, "_meta": META}}
    assert modern_request(worker, 4, "ping")["error"]["code"] == -32601

    for missing in ("io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities"):
        meta = {key: value for key, value in META.items() if key != missing}
        for method in ("server/discover", "tools/list", "unknown"):
            assert modern_request(worker, 5, method, meta)["error"]["code"] == -32602
    worker.request(6, "tools/list")
    assert worker.message()["error"]["code"] == -32602

    error = modern_request(worker, 7, "tools/list", {**META, "io.modelcontextprotocol/protocolVersion": "1900-01-01"})["error"]
    assert error["code"] == -32022 and error["data"] == {"supported": [MODERN], "requested": "1900-01-01"}


# Hostile workers: one test for each mood, by its name


def test_every_mood_is_tested():
    tests = [name for name in globals() if name.startswith("test_mood_")]
    assert sorted(hostile.MOODS) == sorted(name[len("test_mood_"):].replace("_", "-") for name in tests)
    assert all(function.__doc__ for function in hostile.MOODS.values())


def test_mood_correct():
    with moody("correct") as worker:
        worker.request(0, "server/discover", _meta=META)
        assert worker.message()["error"]["code"] == -32602
        worker.initialize()
        assert worker.message()["id"] == "init"
        worker.call(1, "echo", message="too early")
        assert worker.message()["error"]["code"] == -32602
        worker.initialized()
        worker.alive()
        assert worker.text(2, "pid") == str(worker.pid)
        worker.request(3, "tools/list")
        assert {tool["name"] for tool in worker.message()["result"]["tools"]} == {"echo", "pid"}
        worker.request(4, "ping")
        assert worker.message() == {"jsonrpc": "2.0", "id": 4, "result": {}}
        worker.request(5, "server/discover", _meta=META)
        assert worker.message()["error"]["code"] == -32601
        worker.process.stdin.close()
        assert worker.end() == 0


def test_mood_exit_now():
    with moody("exit-now") as worker:
        assert worker.end() == 3
        assert worker.stderr().count(b"\n") == 2
        assert worker.line() is None


def test_mood_no_handshake():
    with moody("no-handshake") as worker:
        worker.initialize()
        worker.request(1, "ping")
        assert worker.quiet()
        worker.process.stdin.close()
        assert worker.end() == 0


def test_mood_slow_start():
    with moody("slow-start", "400") as worker:
        worker.initialize()
        assert worker.quiet()
        assert worker.message()["id"] == "init"
        worker.initialized()
        worker.alive()


def test_mood_refuses_initialize():
    with moody("refuses-initialize") as worker:
        worker.initialize()
        assert worker.message()["error"] == {"code": -32000, "message": "No licence", "data": {"days": 0}}


def test_mood_dies_on_discover():
    with moody("dies-on-discover") as worker:
        worker.request(1, "server/discover", _meta=META)
        assert worker.end() == 1
        assert worker.line() is None
    with shaken("dies-on-discover") as worker:
        worker.alive()


def test_mood_silent_on_discover():
    with moody("silent-on-discover") as worker:
        worker.request(1, "server/discover", _meta=META)
        assert worker.quiet()
        worker.handshake()
        worker.alive()


def test_mood_mute_after_discover():
    with moody("mute-after-discover") as worker:
        worker.request(1, "server/discover", _meta=META)
        worker.initialize()
        assert worker.quiet()
    with shaken("mute-after-discover") as worker:
        worker.request(1, "server/discover", _meta=META)
        assert worker.message()["error"]["code"] == -32601
        worker.alive()


def test_mood_serves_before_initialize():
    with moody("serves-before-initialize") as worker:
        worker.alive()
        worker.handshake()
        worker.alive()


def test_mood_wrong_version():
    with moody("wrong-version") as worker:
        worker.initialize()
        assert worker.message()["result"]["protocolVersion"] == "1999-01-01"


def test_mood_early_notification():
    with moody("early-notification") as worker:
        worker.initialize()
        assert worker.message() == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        assert worker.message()["id"] == "init"


def test_mood_roots_at_once():
    with shaken("roots-at-once") as worker:
        assert worker.message() == {"jsonrpc": "2.0", "id": 0, "method": "roots/list", "params": {}}
        worker.call(1, "roots")
        answer = {"jsonrpc": "2.0", "id": 0, "result": {"roots": []}}
        worker.send(answer)
        assert [json.loads(line) for line in json.loads(text_of(worker.message(), 1))] == [answer]
    with shaken("roots-at-once") as worker:
        worker.line()
        assert json.loads(worker.text(1, "roots")) == []


def test_mood_pings():
    with shaken("pings") as worker:
        answers = []
        for request_id in hostile.PING_IDS:
            ping = worker.message()
            assert ping["method"] == "ping" and ping["id"] == request_id and type(ping["id"]) is type(request_id)
            answers.append(json.dumps({"jsonrpc": "2.0", "id": ping["id"], "result": {}}))
        worker.write("\n".join([*answers, ""]).encode())
        assert json.loads(worker.text(1, "pongs")) == answers


def test_mood_asks():
    with shaken("asks") as worker:
        worker.call(1, "ask", method="sampling/createMessage")
        asked = worker.message()
        assert asked["method"] == "sampling/createMessage"
        answer = {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}
        worker.send(answer)
        assert json.loads(json.loads(text_of(worker.message(), 1))) == answer


def test_mood_garbage():
    with moody("garbage") as worker:
        worker.initialize()
        worker.initialized()
        worker.call(1, "echo", message="found")
        lines = [worker.line() for _ in range(2 * (2 * len(hostile.STRAY_LINES) + 1))]
        assert worker.quiet()
    assert b"" in lines and b"[1, 2, 3]" in lines and b"42" in lines

    def parsed(line):
        try:
            return json.loads(line)
        except ValueError:
            return None

    whole = [message for message in map(parsed, lines) if isinstance(message, dict) and "id" in message and "result" in message]
    assert [message["id"] for message in whole] == ["init", 1]
    assert sum(b'"id":1,' in line and b'"stray":true' in line for line in lines) >= 8


def test_mood_garbage_only():
    with shaken("garbage-only") as worker:
        worker.call(1, "echo", message="x")
        assert not worker.line().startswith(b"{")
        assert worker.quiet()
        worker.request(2, "ping")
        assert worker.message()["id"] == 2


def test_mood_crlf():
    with shaken("crlf") as worker:
        worker.call(1, "echo", message="x")
        line = worker.line()
        assert line.startswith(b" \t{") and line.endswith(b"}\x20\r") and text_of(json.loads(line), 1) == "x"


def test_mood_half_line():
    with shaken("half-line") as worker:
        worker.call(1, "echo", message="x")
        assert worker.line() is None
        assert worker.buffer.startswith(b'{"jsonrpc"')
        assert worker.end() == 0


@pytest.mark.parametrize("id_first", [True, False])
def test_mood_huge_line(id_first):
    with shaken("huge-line") as worker:
        for size in (200, 1000, 3_000_000, 17 << 20):
            worker.call(size, "huge", bytes=size, id_first=id_first)
            line = worker.line()
            assert len(line) == size
            assert (line.index(b'"id"') < 30) is id_first
            assert text_of(json.loads(line), size).strip("x") == ""
        worker.alive()


def test_mood_huge_endless():
    with shaken("huge-endless") as worker:
        worker.call(1, "echo", message="x")
        until = time.monotonic() + PATIENCE
        while len(worker.buffer) < 40 << 20:
            assert time.monotonic() < until and not worker.ended
            select.select([worker.process.stdout], [], [], 1)
            worker.read()
        assert b"\n" not in worker.buffer


def test_mood_duplicate():
    with shaken("duplicate") as worker:
        worker.call(1, "echo", message="x")
        first, second = worker.message(), worker.message()
        assert text_of(first, 1) == text_of(second, 1) == "x"
        assert "second" not in first["result"] and second["result"]["second"]


def test_mood_unknown_id():
    with shaken("unknown-id") as worker:
        worker.call(5, "echo", message="mine")
        lines = [worker.line() for _ in range(16)]
        assert worker.quiet()
    assert text_of(json.loads(lines[-1]), 5) == "mine"
    unknown = [json.loads(line) for line in lines[:-1]]
    assert all(message["result"]["unknown"] for message in unknown)
    ids = [message.get("id", "absent") for message in unknown]
    assert 5 not in ids and {"5", None, 5.5, -6, 5 + 2**64, "absent"} <= {i for i in ids if not isinstance(i, (list, dict))}


def test_mood_string_id():
    with shaken("string-id") as worker:
        assert worker.request(1, "ping") or worker.message()["id"] == 1
        worker.call(2, "echo", message="x")
        assert worker.message()["id"] == "2"


def test_mood_no_jsonrpc():
    with shaken("no-jsonrpc") as worker:
        worker.call(1, "echo", message="x")
        answer = worker.message()
        assert "jsonrpc" not in answer and text_of(answer, 1) == "x"


def test_mood_two_results():
    with shaken("two-results") as worker:
        worker.call(1, "echo", message="x")
        assert {"id", "result", "error"} <= worker.message().keys()


def test_mood_no_result():
    with shaken("no-result") as worker:
        worker.call(1, "echo", message="x")
        assert worker.message() == {"jsonrpc": "2.0", "id": 1}


def test_mood_error():
    with shaken("error") as worker:
        worker.call(1, "fail")
        line = worker.line()
        assert rb"\n" in line and rb"\u001b" in line and rb"\ud800" in line and json.loads(line)["error"]["code"] == -32000
        worker.call(2, "fail", code=-32042, message="m", data={"k": [1]})
        assert worker.message()["error"] == {"code": -32042, "message": "m", "data": {"k": [1]}}
        worker.call(3, "fail-raw", error="a string")
        assert worker.message()["error"] == "a string"
        worker.alive()


def test_mood_invalid_utf8():
    with shaken("invalid-utf8") as worker:
        for tool, member in (("invalid", b'"result"'), ("invalid-error", b'"error"')):
            worker.call(1, tool)
            line = worker.line()
            assert member in line
            with pytest.raises(UnicodeDecodeError):
                line.decode()
        worker.alive()


def test_mood_nul():
    with shaken("nul") as worker:
        worker.call(1, "raw")
        assert b"before\0after" in worker.line()
        assert worker.text(2, "escaped") == "before\0after"


def test_mood_deep():
    with shaken("deep") as worker:
        worker.call(1, "deep", depth=3)
        assert worker.message()["result"]["deep"] == [[[]]]
        worker.call(2, "deep", depth=100000)
        assert worker.line().count(b"[" * 100000 + b"]" * 100000) == 1
        worker.alive()


def test_mood_late():
    with shaken("late") as worker:
        started = time.monotonic()
        worker.call(1, "late", ms=300)
        worker.cancel(1)
        worker.alive()
        assert text_of(worker.message(), 1) == "late" and time.monotonic() - started > 0.29


def test_mood_drip():
    with moody("drip") as worker:
        worker.handshake()
        started = time.monotonic()
        worker.request(1, "tools/call", name="echo", arguments={"message": "hi"})
        assert worker.message()["result"]["content"][0]["text"] == "hi"
        assert time.monotonic() - started > 2  # 0.05 s a byte


def test_mood_ignores_cancel():
    with moody("ignores-cancel") as worker:
        worker.handshake()
        worker.request(1, "tools/call", name="later", arguments={"seconds": 0.2, "message": "mine"})
        worker.request(2, "tools/call", name="hog", arguments={"seconds": 0.6})
        worker.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}})
        assert [worker.message()["id"] for _ in range(2)] == [1, 2]


def test_mood_progress():
    with shaken("progress") as worker:
        worker.request(1, "tools/call", name="work", arguments={"steps": 3, "ms": 10}, _meta={"progressToken": "tok"})
        for step in (1, 2, 3):
            assert worker.message()["params"] == {"progressToken": "tok", "progress": step, "total": 3}
        assert json.loads(text_of(worker.message(), 1)) == {"token": "tok", "steps": 3}

        assert json.loads(worker.text(2, "work", steps=3, ms=1)) == {"token": None, "steps": 3}

        worker.request(3, "tools/call", name="work", arguments={"steps": 500, "ms": 30}, _meta={"progressToken": 7})
        worker.message()
        worker.cancel(3)
        seen = 0
        while message := worker.message(QUIET):
            assert message["method"] == "notifications/progress"
            seen += 1
        assert 3 <= seen < 100
        worker.alive()


def test_mood_ping_deaf():
    with shaken("ping-deaf") as worker:
        worker.request(1, "ping")
        worker.alive()
        assert worker.quiet()


def test_mood_list_changes():
    with shaken("list-changes") as worker:
        for added in (["added-1"], ["added-1", "added-2"]):
            worker.call(1, "change")
            assert worker.message()["method"] == "notifications/tools/list_changed"
            assert text_of(worker.message(), 1) == added[-1]
            worker.request(2, "tools/list")
            assert [tool["name"] for tool in worker.message()["result"]["tools"]][3:] == added


def test_mood_paged_tools():
    with shaken("paged-tools") as worker:
        tools, pages, cursor = [], 0, {}
        while cursor is not None and pages < 10:
            worker.request(1, "tools/list", **cursor)
            result = worker.message()["result"]
            tools += [tool["name"] for tool in result["tools"]]
            cursor = {"cursor": result["nextCursor"]} if "nextCursor" in result else None
            pages += 1
        assert pages == 3 and tools == ["echo", "pid", "last"]
        worker.request(2, "tools/list", cursor="made up")
        assert worker.message()["error"]["code"] == -32602


def test_mood_endless_pages():
    with shaken("endless-pages") as worker:
        cursor = {}
        for page in range(300):
            worker.request(page, "tools/list", **cursor)
            result = worker.message()["result"]
            assert result["tools"][0]["name"] == f"tool-{page}"
            cursor = {"cursor": result["nextCursor"]}


def test_mood_closes_stdin():
    with shaken("closes-stdin") as worker:
        worker.alive()
        with pytest.raises(BrokenPipeError):
            worker.call(2, "echo", message="x")
        assert worker.quiet() and not worker.ended and worker.process.poll() is None


def test_mood_closes_stdout():
    with shaken("closes-stdout") as worker:
        worker.call(1, "echo", message="x")
        assert worker.line() is None and worker.ended
        worker.call(2, "echo", message="x")
        assert worker.process.poll() is None
        worker.process.stdin.close()
        assert worker.end() == 0


def test_mood_unread():
    with shaken("unread") as worker:
        worker.call(1, "echo", message="x")
        assert worker.quiet()
        stdin = worker.process.stdin.fileno()
        os.set_blocking(stdin, False)
        with pytest.raises(BlockingIOError):
            for _ in range(1000):
                os.write(stdin, b"z" * 4096)
        worker.process.terminate()
        assert worker.end() == -signal.SIGTERM


def test_mood_stderr_flood():
    with shaken("stderr-flood") as worker:
        worker.call(1, "flood", bytes=300000)
        assert worker.quiet(), "the pipe should be full"
        left = 300000
        while left > 0 and select.select([worker.process.stderr], [], [], PATIENCE)[0]:
            left -= len(os.read(worker.process.stderr.fileno(), left))
        assert left == 0
        assert text_of(worker.message(), 1) == "flooded"


def test_mood_stderr_last_words():
    with shaken("stderr-last-words") as worker:
        worker.call(1, "echo", message="x")
        assert worker.end() == 7 and worker.line() is None
        words = worker.stderr()
        assert b"\x1b[31m" in words and b"\0" in words and b"\xff\xfe" in words and not words.endswith(b"\n")


def test_mood_crash_on_call():
    with shaken("crash-on-call") as worker:
        worker.call(1, "echo", message="x")
        assert worker.end() == -signal.SIGSEGV


def test_mood_stops_itself():
    with shaken("stops-itself") as worker:
        worker.call(1, "freeze")
        assert worker.quiet()
        with open(f"/proc/{worker.pid}/stat") as stat:
            assert stat.read().rpartition(")")[2].split()[0] == "T"
        worker.process.send_signal(signal.SIGCONT)
        assert text_of(worker.message(), 1) == "thawed"


def test_mood_ignores_term():
    with shaken("ignores-term") as worker:
        worker.alive()
        worker.process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            worker.process.send_signal(number)
        time.sleep(QUIET)
        assert worker.process.poll() is None
        worker.process.kill()
        assert worker.end() == -signal.SIGKILL


def test_mood_grandchild():
    with shaken("grandchild") as worker:
        children = json.loads(worker.text(1, "children"))
        try:
            assert sorted(children) == ["daemon", "group", "session"] and all(map(alive, children.values()))
            assert os.getpgid(children["group"]) == children["group"]
            assert os.getsid(children["group"]) == os.getsid(worker.pid)
            assert os.getsid(children["session"]) == children["session"]
            assert os.getsid(children["daemon"]) not in (os.getsid(worker.pid), worker.pid)
            with open(f"/proc/{children['daemon']}/status") as status:
                assert f"PPid:\t{worker.pid}\n" not in status.read()
            worker.process.stdin.close()
            assert worker.end() == 0
            assert all(map(alive, children.values()))
            assert worker.line(QUIET) is None and not worker.ended, "the child should hold stdout open"
        finally:
            for pid in children.values():
                os.kill(pid, signal.SIGKILL)


def test_mood_env(tmp_path):
    with shaken("env") as worker:
        told = json.loads(worker.text(1, "env"))
        assert told["pid"] == worker.pid and told["ppid"] == os.getpid() and told["cwd"] == os.getcwd()
        assert told["environ"]["PATH"] == os.environ["PATH"] and told["argv"][-1] == "env"
        assert set(told["fds"]) == {"0", "1", "2"} and told["fds"]["0"].startswith("pipe:")
        assert int(told["status"]["SigBlk"], 16) == 0 and "SigIgn" in told["status"]
        assert told["sid"] == os.getsid(0) and told["pgid"] == os.getpgrp() and "Max open files" in told["limits"]


def test_mood_count():
    with shaken("count") as worker:
        for n in (1, 2, 3):
            assert json.loads(worker.text(n, "count")) == {"count": n, "pid": worker.pid}


# Real servers on node


@pytest.fixture
def node():
    if not EVERYTHING.exists() or not shutil.which("node"):
        pytest.skip("the npm packages are not installed")
    workers = []

    def start(*command):
        workers.append(Worker("node", *command))
        return workers[-1]

    yield start
    for worker in workers:
        worker.__exit__()


def test_everything_is_legacy(node):
    worker = node(EVERYTHING, "stdio")
    worker.request(0, "server/discover", _meta=META)
    assert worker.message()["error"]["code"] == -32601
    worker.handshake()
    assert worker.message()["method"] == "notifications/tools/list_changed"
    assert worker.text(1, "echo", message="hi") == "Echo: hi"


def test_stateless_serves_modern(node):
    worker = node(HERE / "stateless.mjs")
    assert modern_request(worker, "d", "server/discover")["result"]["supportedVersions"] == [MODERN]
    assert text_of(modern_request(worker, 1, "tools/call", name="add", arguments={"a": 2, "b": 3}), 1) == "5"

    able = {**META, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
    asked = modern_request(worker, 2, "tools/call", able, name="greet", arguments={})["result"]
    assert asked["resultType"] == "input_required" and asked["requestState"] == f"greet-{worker.pid}"
    answered = modern_request(worker, 3, "tools/call", able, name="greet", arguments={}, requestState=asked["requestState"],
                              inputResponses={"name": {"action": "accept", "content": {"name": "Bo"}}})
    assert text_of(answered, 3) == f"hello Bo, state greet-{worker.pid}"

    worker.initialize()
    assert worker.message()["error"]["code"] == -32022


def test_stateless_notifies_subscribers(node):
    worker = node(HERE / "stateless.mjs", "--modern")
    ack = modern_request(worker, "sub", "subscriptions/listen", notifications={"toolsListChanged": True})
    assert ack["method"] == "notifications/subscriptions/acknowledged"
    assert ack["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "sub"
    changed = modern_request(worker, 1, "tools/call", name="change", arguments={})
    assert changed["method"] == "notifications/tools/list_changed"
    assert changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "sub"
    assert text_of(worker.message(), 1) == "added-1"


def test_stateless_reports_progress_until_cancelled(node):
    worker = node(HERE / "stateless.mjs", "--modern")
    worker.request(1, "tools/call", name="work", arguments={"steps": 1000, "ms": 50}, _meta={**META, "progressToken": "t"})
    assert worker.message()["params"] == {"progressToken": "t", "progress": 1, "total": 1000}
    worker.cancel(1)
    while message := worker.message(QUIET):
        assert message["method"] == "notifications/progress" and message["params"]["progress"] < 300


def test_stateless_serves_legacy_too(node):
    worker = node(HERE / "stateless.mjs")
    assert "result" in modern_request(worker, "d", "server/discover")
    worker.handshake()
    assert worker.text(1, "echo", message="hi") == "hi"
    assert modern_request(worker, 2, "server/discover")["error"]["code"] == -32601


def test_stateless_modern_refuses_initialize(node):
    worker = node(HERE / "stateless.mjs", "--modern")
    worker.initialize()
    error = worker.message()["error"]
    assert error["code"] == -32022 and error["data"]["supported"] == [MODERN]
    assert "result" in modern_request(worker, "d", "server/discover")
