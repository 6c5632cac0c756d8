"""mcp-exec stdio: what becomes of standard input and output, how it ends, and what is said when it can't begin."""

import json
import os
import select
import signal
import socket
import subprocess
import time

import pytest

from command_line import PROGRAM
from service import PYTHON, REPO
from waiting import SLOWNESS, eventually

INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


def line(number, method, **params):
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


def call(number, tool, **arguments):
    return line(number, "tools/call", name=tool, arguments=arguments)


HELLO = line(0, "initialize", **INITIALIZE) + b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'


def answers(output):
    return {message["id"]: message for message in map(json.loads, output.splitlines()) if "id" in message}


def text(answer):
    return answer["result"]["content"][0]["text"]


class Client:
    """mcp-exec stdio with a pipe or a socket on either side"""

    def __init__(self, cli, *arguments, kind="pipe", **environment):
        if kind == "pipe":
            stdin, self.input = os.pipe()
            self.output, stdout = os.pipe()
        elif kind == "sockets":  # as Node starts its children
            ends = [socket.socketpair() for _ in range(2)]
            stdin, self.input = ends[0][0].detach(), ends[0][1].detach()
            stdout, self.output = ends[1][0].detach(), ends[1][1].detach()
        else:
            ours, theirs = socket.socketpair()
            stdin = stdout = theirs.detach()
            self.input = self.output = ours.detach()
        self.process = subprocess.Popen([PROGRAM, "stdio", *arguments], env={**cli.environment, **environment}, stdin=stdin,
                                        stdout=stdout, stderr=subprocess.PIPE, text=True)
        for fd in {stdin, stdout}:
            os.close(fd)
        self.rest = b""

    def write(self, data):
        os.write(self.input, data)

    def read(self, timeout=30):
        """The next message; None at the end"""
        while b"\n" not in self.rest:
            assert select.select([self.output], [], [], timeout * SLOWNESS)[0], f"nothing came: {self.rest!r}"
            data = os.read(self.output, 65536)
            if not data:
                return None
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\n")
        return json.loads(message)

    def ask(self, message):
        self.write(message)
        number = json.loads(message.splitlines()[0])["id"]
        while (answer := self.read()) is not None and answer.get("id") != number:
            pass
        return answer

    def end(self):
        """The status, and what was said, after the end of input"""
        if self.input == self.output:
            with socket.socket(fileno=os.dup(self.input)) as one:
                one.shutdown(socket.SHUT_WR)
        else:
            os.close(self.input)
            self.input = -1
        return self.wait()

    def wait(self):
        err = self.process.communicate(timeout=60 * SLOWNESS)[1]
        return self.process.returncode, err

    def close(self):
        self.process.kill()
        self.process.communicate()
        for fd in {self.input, self.output} - {-1}:
            os.close(fd)


@pytest.fixture
def client(service, cli):
    made = []

    def make(*arguments, **keys):
        made.append(Client(cli, *arguments, **keys))
        return made[-1]

    yield make
    for one in made:
        one.close()


def has_streams(process, *names):
    """Whether the process still holds its parent's end of them"""
    return [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in (0, 1)] != ["/dev/null"] * 2


@pytest.mark.parametrize("kind", ["pipe", "sockets", "one socket"])
def test_the_service_takes_the_streams_over(service, client, kind):
    service.obedient()
    one = client("obedient", kind=kind)
    assert one.ask(HELLO)["result"]["serverInfo"]["name"]
    assert text(one.ask(call(1, "echo", message="hi"))) == "hi"
    eventually(lambda: not has_streams(one.process), "mcp-exec has let go of its streams")
    assert one.end() == (0, "")
    assert one.read() is None


def test_what_was_asked_before_the_end_is_answered(service, client):
    service.obedient()
    one = client("obedient")
    one.write(HELLO + call(1, "sleep", seconds=0.5, message="woken"))
    assert one.end() == (0, "")
    assert one.read()["id"] == 0
    assert text(one.read()) == "woken"


def test_the_end_of_the_client_is_the_end_of_the_session(service, client):
    service.obedient()
    one = client("obedient")
    one.ask(HELLO)
    os.close(one.output)
    os.close(one.input)
    one.input = one.output = -1
    assert one.wait() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_signals_end_it(service, client, caller, number):
    service.obedient()
    one = client("obedient")
    one.ask(HELLO)
    one.write(call(1, "sleep", seconds=600))
    eventually(lambda: caller.property("CallsInFlight") == 1, "the call is under way")
    one.process.send_signal(number)
    assert one.wait()[0] == -number
    assert one.read() is None, "the service has closed what it was given"
    eventually(lambda: caller.property("CallsInFlight") == 0, "its call is cancelled")


def test_the_end_of_the_service(service, client):
    service.obedient()
    one = client("obedient")
    one.ask(HELLO)
    daemon = service.daemon()
    daemon.kill(signal.SIGKILL)
    status, err = one.wait()
    assert (status, one.read()) == (7, None) and "the service has left or crashed" in err


def test_a_service_that_is_told_to_leave(service, client):
    service.obedient()
    one = client("obedient")
    one.ask(HELLO)
    service.daemon().kill(signal.SIGTERM)
    status, err = one.wait()
    assert (status, one.read()) == (7, None) and "the service" in err


def test_the_end_of_the_bus(service, client):
    service.obedient()
    one = client("obedient")
    one.ask(HELLO)
    service.daemon()
    service.bus.stop()
    status, err = one.wait()
    assert status in (6, 7) and err, "whoever is told first, the session is over"
    assert one.read() is None
    service.bus.start()


# Copied, because the service can't use them

def copied(cli, tmp_path, *arguments, stdin, stdout=subprocess.PIPE):
    return subprocess.run([PROGRAM, "stdio", *arguments], env=cli.environment, stdin=stdin, stdout=stdout,
                          stderr=subprocess.PIPE, timeout=60 * SLOWNESS)


def test_input_from_a_file(service, cli, tmp_path):
    service.obedient()
    (tmp_path / "input").write_bytes(HELLO + call(1, "echo", message="from a file"))
    with open(tmp_path / "input") as stdin:
        done = copied(cli, tmp_path, "obedient", stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    assert text(answers(done.stdout)[1]) == "from a file"


def test_output_into_a_file(service, cli, tmp_path):
    service.obedient()
    (tmp_path / "input").write_bytes(HELLO + b"".join(call(i, "big", size=100_000) for i in range(1, 31)))
    with open(tmp_path / "input") as stdin, open(tmp_path / "output", "wb") as stdout:
        done = copied(cli, tmp_path, "obedient", stdin=stdin, stdout=stdout)
    assert (done.returncode, done.stderr) == (0, b"")
    found = answers((tmp_path / "output").read_bytes())
    assert sorted(found) == list(range(31)) and all(len(text(found[i])) == 100_000 for i in range(1, 31))


def test_no_input(service, cli, tmp_path):
    service.obedient()
    done = copied(cli, tmp_path, "obedient", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_full_disk(service, cli, tmp_path):
    service.obedient()
    (tmp_path / "input").write_bytes(HELLO)
    with open(tmp_path / "input") as stdin, open("/dev/full", "wb") as stdout:
        done = copied(cli, tmp_path, "obedient", stdin=stdin, stdout=stdout)
    assert done.returncode == 2 and b"No space left" in done.stderr


def test_on_a_terminal(service, cli):
    service.obedient()
    terminal = cli.on_terminal("stdio", "obedient")
    terminal.type(HELLO.decode() + call(1, "echo", message="typed").decode())
    terminal.wait_for('"text": ?"typed"')
    terminal.type("\x04")
    assert terminal.wait() == 0


def test_a_reader_that_leaves_while_bytes_are_copied(service, cli, tmp_path):
    service.obedient()
    master, slave = os.openpty()
    output, stdout = os.pipe()
    process = subprocess.Popen([PROGRAM, "stdio", "obedient"], env=cli.environment, stdin=slave, stdout=stdout,
                               stderr=subprocess.PIPE)
    os.close(slave)
    os.close(stdout)
    try:
        os.write(master, HELLO)
        assert os.read(output, 10)
        os.close(output)
        assert (process.wait(60 * SLOWNESS), process.stderr.read()) == (0, b"")
    finally:
        process.kill()
        process.communicate()
        os.close(master)


def test_backpressure_while_bytes_are_copied(service, cli, tmp_path):
    """Who doesn't read isn't read from, and gets everything once it reads."""
    service.obedient()
    count = 200
    (tmp_path / "input").write_bytes(HELLO + b"".join(call(i, "big", size=50_000) for i in range(1, count + 1)))
    with open(tmp_path / "input") as stdin:
        process = subprocess.Popen([PROGRAM, "stdio", "obedient"], env=cli.environment, stdin=stdin, stdout=subprocess.PIPE)
    time.sleep(0.5)  # nothing is waited for: it only has more time to do wrong
    out, _ = process.communicate(timeout=60 * SLOWNESS)
    assert process.returncode == 0
    assert sorted(answers(out)) == list(range(count + 1))


# What can't begin

@pytest.mark.parametrize("servers, status, error, hint", [
    (["obediant"], 3, "org.example.McpExec.Error.NoSuchServer", "did you mean obedient?"),
    (["off"], 3, "org.example.McpExec.Error.ServerDisabled", "disabled"),
    (["lines"], 2, "org.example.McpExec.Error.InvalidArguments", "MCP servers"),
])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_errors_are_said_and_answered(service, cli, client, tmp_path, servers, status, error, hint, kind):
    service.obedient()
    service.obedient("off", disabled=True)
    service.server("lines", PYTHON, REPO / "tests/workers/echo.py", protocol="lines")
    if kind == "file":
        (tmp_path / "input").write_bytes(HELLO)
        with open(tmp_path / "input") as stdin:
            done = copied(cli, tmp_path, *servers, stdin=stdin)
        answer, found, err = json.loads(done.stdout), done.returncode, done.stderr.decode()
    else:
        one = client(*servers)
        answer = one.ask(HELLO)
        found, err = one.wait()
    assert found == status and hint in err
    assert answer["id"] == 0 and answer["error"]["code"] == -32000 and hint in answer["error"]["message"]
    assert answer["error"]["data"] == {"source": "mcp-exec", "error": error}


def test_no_service(cli, client):
    one = client("x", DBUS_SESSION_BUS_ADDRESS="unix:path=/nowhere/bus")
    answer = one.ask(line("first", "server/discover"))
    assert answer["id"] == "first" and "can't be reached" in answer["error"]["message"]
    assert one.wait()[0] == 6


def test_errors_where_nothing_is_asked(service, cli):
    """A notification has no answer, nor has the end of input."""
    service.obedient()
    for data in (b"", b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n', b"no JSON\n", b"x" * 1_000_000 + b"\n"):
        result = cli("stdio", "none", stdin=data)
        assert (result.status, result.out) == (3, ""), result


def test_completion_names_servers(service, cli):
    service.obedient()
    assert cli("__complete", "stdio", "obe").out.split() == ["obedient"]
    assert cli("__complete", "stdio", "obedient", "").out.split() == ["obedient"]
