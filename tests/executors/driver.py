"""Drives a bundled executor through its pipes as the broker drives it."""

import json
import os
import pathlib
import select
import subprocess
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "src" / "executors"
WRAPPER = os.environ.get("MCP_EXEC_TEST_PYTHON", "").split()  # to try other interpreters of Python than the scripts'
PROGRAMS = {name: SOURCE / name / f"mcp-exec-{name}" for name in ("python", "sh", "node")}
PATIENCE = 30  # seconds; only a failing test waits as long
MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
TEXT_OR_NONE, NUMBER_OR_NONE, OBJECT_OR_NONE = (str, type(None)), (int, type(None)), (dict, type(None))
TYPES = {"stdout": str, "stderr": str, "exit_code": NUMBER_OR_NONE, "signal": TEXT_OR_NONE, "truncated": bool, "timed_out": bool}
CODE_TYPES = {"value": TEXT_OR_NONE, "exception": OBJECT_OR_NONE}
RESULT_TYPES = {
    "python": {**TYPES, **CODE_TYPES, "left_behind": OBJECT_OR_NONE},
    "sh": {**TYPES, "left_behind": OBJECT_OR_NONE},
    "node": {**TYPES, **CODE_TYPES, "context_lost": bool},
}


class Executor:
    def __init__(self, cwd, wrapper=(), name="python", **environment):
        self.types = RESULT_TYPES[name]
        self.process = subprocess.Popen(
            [*wrapper, *(WRAPPER if name != "node" else ()), PROGRAMS[name]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            bufsize=0,
            env={**os.environ, **environment},
        )
        self.received = b""
        self.last_id = 0

    def write(self, data):
        while data:
            data = data[self.process.stdin.write(data) :]

    def send(self, message):
        self.write(json.dumps(message).encode() + b"\n")

    def read_line(self, patience=PATIENCE):
        """Returns the next line; None at the end of the output."""
        deadline = time.monotonic() + patience
        while b"\n" not in self.received:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("no line from the executor")
            data = self.process.stdout.read(1 << 20)
            if not data:
                assert self.received == b""
                return None
            self.received += data
        line, _, self.received = self.received.partition(b"\n")
        return line

    def receive(self, patience=PATIENCE):
        line = self.read_line(patience)
        assert line is not None, "the executor ended"
        message = json.loads(line.decode())  # strictly UTF-8
        assert message["jsonrpc"] == "2.0"
        return message

    def start(self, method, params=None):
        self.last_id += 1
        message = {"jsonrpc": "2.0", "id": self.last_id, "method": method}
        self.send(message if params is None else {**message, "params": params})
        return self.last_id

    def request(self, method, params=None):
        request_id = self.start(method, params)
        answer = self.receive()
        assert answer["id"] == request_id
        return answer

    def result(self, method, params=None):
        answer = self.request(method, params)
        assert "result" in answer, answer
        return answer["result"]

    def error(self, method, params=None):
        answer = self.request(method, params)
        assert "error" in answer, answer
        return answer["error"]

    def initialize(self, version="2025-11-25"):
        info = {"name": "test", "version": "1"}
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": info}
        result = self.result("initialize", params)
        self.notify("notifications/initialized")
        return result

    def notify(self, method, params=None):
        self.send({"jsonrpc": "2.0", "method": method, "params": params or {}})

    def cancel(self, request_id):
        self.notify("notifications/cancelled", {"requestId": request_id, "reason": "test"})

    def start_call(self, arguments):
        return self.start("tools/call", {"name": "run", "arguments": arguments})

    def start_run(self, code, **arguments):
        return self.start_call({"code": code, **arguments})

    def check_run(self, answer):
        """Holds an answer of `run` against the tool's promises and returns its structured content."""
        result = answer["result"]
        content = result["structuredContent"]
        assert content.keys() == self.types.keys()
        for key, types in self.types.items():
            assert isinstance(content[key], types), key
        exception = content.get("exception")
        if exception is not None:
            assert exception.keys() == {"type", "message", "traceback"}
            assert all(isinstance(text, str) for text in exception.values())
        assert content["exit_code"] is None or 0 <= content["exit_code"] <= 255
        failed = exception is not None or content["timed_out"] or content["exit_code"] or content["signal"]
        assert result["isError"] is bool(failed)
        assert [block["type"] for block in result["content"]] == ["text"]
        assert result["content"][0]["text"]
        return content

    def call(self, **arguments):
        request_id = self.start_call(arguments)
        answer = self.receive()
        assert answer["id"] == request_id, answer
        return self.check_run(answer)

    def run(self, code, **arguments):
        return self.call(code=code, **arguments)

    def wait_until_running(self, code, marker, **arguments):
        """Starts code that makes the file marker, and returns once it has."""
        request_id = self.start_run(f"open({str(marker)!r}, 'w').close()\n{code}", **arguments)
        wait_for(marker.exists)
        return request_id

    def end(self, close=True):
        """Returns the exit status and what the executor said on stderr."""
        if close:
            self.process.stdin.close()
        status = self.process.wait(PATIENCE)
        return status, self.process.stderr.read().decode()

    def leave(self):
        self.process.kill()
        self.process.wait(PATIENCE)
        for stream in self.process.stdin, self.process.stdout, self.process.stderr:
            stream.close()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
