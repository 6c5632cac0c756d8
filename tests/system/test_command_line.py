"""mcp-exec as it is installed: which way it takes to the service, who may do what, and the journal."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

from command_line import Terminal  # noqa: E402
from machine import DENIED, PREFIX, run, run_as, systemctl, uid  # noqa: E402
from waiting import SLOWNESS, eventually  # noqa: E402

# Nobody here has a session bus.
CLEAN = ("env", "-u", "DBUS_SESSION_BUS_ADDRESS", "-u", "XDG_RUNTIME_DIR")


def mcp_exec(*arguments, user=None, check=True):
    words = (*CLEAN, "mcp-exec", *arguments)
    return run_as(user, *words, check=check) if user else run(*words, check=check)


def test_the_private_socket_is_taken_by_itself(machine):
    machine.echo()
    assert mcp_exec("call", "echo", "echo", "message=x").stdout == "x\n"
    assert "on /run/mcp-exec/bus:" in mcp_exec("status").stdout
    assert "on the system bus:" in mcp_exec("--address=unix:path=/run/dbus/system_bus_socket", "status").stdout.replace(
        "unix:path=/run/dbus/system_bus_socket", "the system bus")
    assert mcp_exec("--address=unix:path=/run/mcp-exec/bus", "call", "echo", "echo", "message=y").stdout == "y\n"


def test_without_the_private_socket_the_system_bus(machine):
    machine.echo()
    systemctl("stop", "mcp-exec.socket")
    try:
        assert mcp_exec("call", "echo", "echo", "message=x").stdout == "x\n"
        assert "on the system bus:" in mcp_exec("--system", "status").stdout
    finally:
        systemctl("stop", "mcp-exec.service")  # the socket isn't opened anew beside it
        systemctl("start", "mcp-exec.socket")


def test_4_denied(machine):
    machine.python("python")
    assert mcp_exec("run", "python", "-c", "print(1)", user="alice").stdout == "1\n"
    result = mcp_exec("run", "python", "-c", "print(1)", user="carol", check=False)
    assert result.returncode == 4 and result.stdout == "" and result.stderr.startswith("mcp-exec: "), result
    assert mcp_exec("stop", "python", user="carol", check=False).returncode == 4
    assert json.loads(mcp_exec("--json", "stop", "python", user="carol", check=False).stderr)["status"] == 4


def test_a_stranger_is_asked_on_a_terminal(machine):
    """By polkit's agent, which goes with the call."""
    machine.python("python")
    terminal = Terminal(["runuser", "-u", "carol", "--", *CLEAN, "mcp-exec", "run", "python", "-c", "print(1)"], dict(os.environ))
    try:
        terminal.wait_for("Password: ")
        assert "Authentication is" in terminal.text or "AUTHENTICATING FOR" in terminal.text
        terminal.type("no such password\r")
        assert terminal.wait() == 4, terminal.text
    finally:
        terminal.close()
    eventually(lambda: subprocess.run(["pgrep", "pkttyagent"]).returncode == 1, "the agent has gone")


def test_status_has_the_log_and_the_workers_own(machine):
    machine.obedient("obedient", access={"users": ["carol"]})
    mcp_exec("call", "obedient", "write", '{"stderr": "words of the server\\n"}', user="carol")
    eventually(lambda: "words of the server" in mcp_exec("logs", "obedient").stdout, "they are in the journal")
    said = mcp_exec("status", "obedient").stdout
    assert "words of the server" in said and re.search(r"started", said)
    worker = json.loads(mcp_exec("--json", "status", "obedient").stdout)["workers"][0]
    assert worker["owner"] == f"uid:{uid('carol')}" and worker["memory"] > 1_000_000
    assert json.loads(mcp_exec("--json", "status", "obedient", user="bob").stdout)["workers"] == [], "another's"


def test_monitor_sees_what_its_user_may(machine, tmp_path):
    machine.obedient("obedient", access={"users": ["carol", "bob"]})
    news = {user: tmp_path / user for user in ("carol", "bob")}
    watching = [subprocess.Popen(["runuser", "-u", user, "--", *CLEAN, "mcp-exec", "monitor", "--json"],
                                 stdout=file.open("wb"), stderr=subprocess.DEVNULL) for user, file in news.items()]
    try:
        def look():
            mcp_exec("restart", "obedient")
            mcp_exec("call", "obedient", "pid", user="carol")
            return "InterfacesAdded" in news["carol"].read_text()

        eventually(look, "carol sees her worker", timeout=20)
        assert "worker/" not in news["bob"].read_text()
    finally:
        for process in watching:
            process.terminate()
            process.wait()


class Client:
    """mcp-exec stdio on pipes"""

    def __init__(self, server, user=None):
        words = [*CLEAN, "mcp-exec", "stdio", server]
        self.process = subprocess.Popen(["runuser", "-u", user, "--", *words] if user else words, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask(self, number, method, **params):
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        print(json.dumps(message), file=self.process.stdin, flush=True)
        while (answer := json.loads(self.process.stdout.readline())).get("id") != number:
            pass
        return answer

    def hello(self):
        return self.ask("hello", "initialize", protocolVersion="2025-11-25", capabilities={},
                        clientInfo={"name": "test", "version": "1"})

    def end(self):
        out, err = self.process.communicate(timeout=30 * SLOWNESS)
        return self.process.returncode, out, err

    def close(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def stdio():
    made = []

    def make(*words, **options):
        made.append(Client(*words, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.mark.parametrize("user", [None, "carol"])
def test_stdio(machine, stdio, user):
    """The service is another user: it can't open what is theirs, and bytes are copied. Each has workers of its own."""
    machine.obedient("obedient", access={"users": ["carol"]})
    client = stdio("obedient", user=user)
    assert client.hello()["result"]["serverInfo"]
    for i in range(3):
        answer = client.ask(i, "tools/call", name="echo", arguments={"message": f"{i} " + "x" * 100_000})
        assert answer["result"]["content"][0]["text"] == f"{i} " + "x" * 100_000
    assert machine.worker("obedient", owner=user or "root")["Calls"] >= 3
    assert client.end() == (0, "", "")


def test_stdio_that_is_denied(machine, stdio):
    machine.python("python")
    client = stdio("python", user="carol")
    answer = client.hello()
    assert answer["error"]["code"] == -32000 and answer["error"]["data"]["source"] == "mcp-exec"
    assert answer["error"]["data"]["error"] in DENIED
    status, _, err = client.end()
    assert status == 4 and err.startswith("mcp-exec: ")


def test_stdio_after_the_end_of_the_service(machine, stdio):
    machine.obedient("obedient", access={"users": ["carol"]})
    clients = [stdio("obedient", user=user) for user in (None, "carol")]
    for client in clients:
        client.hello()
    machine.broker().kill()
    for client in clients:
        client.process.wait(30 * SLOWNESS)
        status, out, err = client.end()
        assert (status, out) == (7, "") and "session" in err
    machine.may_fail = True


def test_check_and_import_for_the_system(machine, tmp_path):
    (tmp_path / "client.json").write_text('{"mcpServers": {"Time": {"command": "/bin/true"}}}')
    assert mcp_exec("--system", "import", tmp_path / "client.json").stdout == "time: /etc/mcp-exec/servers.d/time.json\n"
    assert "server time" in mcp_exec("--system", "check").stdout
    eventually(lambda: '"time"' in mcp_exec("list", "--json").stdout, "the service has read it")


@pytest.mark.parametrize("path", ["share/bash-completion/completions/mcp-exec", "share/zsh/site-functions/_mcp-exec"])
def test_completion_is_installed(path):
    assert "__complete" in (PREFIX / path).read_text()


def test_manual_pages_are_installed():
    for page in ("man1/mcp-exec.1", "man5/mcp-exec.json.5", "man8/mcp-execd.8"):
        assert (PREFIX / "share/man" / page).exists(), page
