"""The session's own service, under a user manager: no launcher, no root, the same units."""

import json
import os
import re
import signal
import time

import pytest

from machine import in_units, run, systemctl, uid, uid_of
from waiting import SLOWNESS, eventually

NAMES = ("org.example.McpExec", "/org/example/McpExec", "org.example.McpExec")


class Session:
    """What a user sees of it."""

    def __init__(self, user):
        self.user = user
        self.runtime = f"/run/user/{uid(user)}"

    def run(self, *command, **options):
        return run("runuser", "-u", self.user, "--", "env", f"XDG_RUNTIME_DIR={self.runtime}",
                   f"DBUS_SESSION_BUS_ADDRESS=unix:path={self.runtime}/bus", *command, **options)

    def call(self, member, *arguments, **options):
        return self.run("busctl", "--user", "--json=short", "call", *NAMES, member, *arguments, **options)

    def python(self, code):
        said = self.call("CallTool", "sss", "python", "run", json.dumps({"code": code})).stdout
        content = json.loads(json.loads(said)["data"][0])["structuredContent"]
        assert content["exception"] is None
        return content["stdout"].strip()

    def show(self, unit, name):
        return self.run("systemctl", "--user", "show", "-P", name, unit).stdout.strip()

    def units(self):
        listed = self.run("systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "--full", "mcp-exec-worker-*")
        return [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]

    def processes(self):
        return in_units(rf"user@{uid(self.user)}\.service/.*mcp-exec-worker-")


@pytest.fixture(scope="module")
def manager(installed_system):
    unit = f"user@{uid('alice')}.service"
    systemctl("start", unit, timeout=60)
    session = Session("alice")
    eventually(lambda: os.path.exists(f"{session.runtime}/bus"), "the session's bus")
    yield session
    systemctl("stop", unit, timeout=60)
    assert not in_units(rf"user@{uid('alice')}\.service")


@pytest.fixture
def session(manager):
    yield manager
    manager.run("systemctl", "--user", "stop", "mcp-exec.service")
    eventually(lambda: not manager.processes(), "no worker outlives the broker")
    failed = manager.run("systemctl", "--user", "--failed", "--plain", "--no-legend", "list-units", "mcp-exec*").stdout
    manager.run("systemctl", "--user", "reset-failed")
    assert not failed


def test_the_first_call_starts_it_as_a_unit(session):
    assert session.show("mcp-exec.service", "ActiveState") == "inactive"
    assert session.python("print(2 + 2)") == "4"
    assert session.show("mcp-exec.service", "ActiveState") == "active"
    assert session.show("mcp-exec.service", "StatusErrno") == "0"
    assert session.show("mcp-exec.service", "Type") == "notify"


def test_workers_are_units_of_the_users_own_systemd(session):
    session.python("")
    units = session.units()
    assert len(units) == 1 and re.fullmatch(r"mcp-exec-worker-[0-9a-f]{32}\.service", units[0])
    pid = int(session.python("import os; print(os.getpid())"))
    assert int(session.show(units[0], "MainPID")) == pid
    assert "mcp-exec.service" in session.show(units[0], "BindsTo").split()
    assert uid_of(pid) == uid("alice")
    described = json.loads(json.loads(session.call("Describe", "s", "python").stdout)["data"][0])
    assert described["launcher"] == "unit"
    # The system's launcher has nothing to do with it.
    assert systemctl("is-active", "mcp-exec.service", check=False).stdout.strip() == "inactive"


def test_it_keeps_what_was_said(session):
    session.python("x = 42")
    assert session.python("print(x)") == "42"


def test_no_worker_outlives_it(session):
    session.python("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
    processes = session.processes()
    assert len(processes) == 2
    os.kill(int(session.show("mcp-exec.service", "MainPID")), signal.SIGKILL)
    killed = time.monotonic()
    while any(process.alive() for process in processes):
        assert time.monotonic() - killed < 5 * SLOWNESS
        time.sleep(0.01)

    def works():
        try:
            return session.python("print(1)") == "1"
        except AssertionError as error:
            # dbus-broker takes the end of the old one for that of the new one where it hears of it late.
            assert "unit failed" in str(error), error
            return False

    eventually(works, "the next call works")


def test_the_end_of_a_worker_is_told(session):
    said = session.call("CallTool", "sss", "python", "run", '{"code":"import os; os._exit(3)"}', check=False)
    assert said.returncode != 0
    assert "status 3" in said.stderr


def test_others_have_no_way_in(session):
    session.python("")
    said = run("runuser", "-u", "bob", "--", "env", f"DBUS_SESSION_BUS_ADDRESS=unix:path={session.runtime}/bus",
               "busctl", "--user", "call", *NAMES, "ListServers", check=False)
    assert said.returncode != 0
