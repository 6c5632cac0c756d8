"""What `meson install` puts in place: that it is enough, valid, and no more than is needed."""

import os
import re
import xml.etree.ElementTree as ElementTree
from contextlib import contextmanager
from pathlib import Path

import dbus
import pytest

from caller import NAME, CallFailed, fails
from machine import (BROKER, CALL, CONFIG, DENIED, LAUNCHER, PREFIX, SOCKET, active, connect_socket, drop_in, exposure, in_units,
                     main_process, python_text, run, run_as, show, systemctl, uid, uid_of, unit_of, worker_processes, worker_units)
from processes import Process, _read
from waiting import eventually

PRINT = '{"code":"print(2+2)"}'


def test_one_busctl_call_of_a_member_answers(machine):
    assert not active(BROKER)
    said = run_as("alice", *CALL, "CallTool", "sss", "python", "run", PRINT).stdout
    assert '\\"stdout\\":\\"4\\\\n\\"' in said
    assert active(BROKER)
    assert len(worker_units()) == 1


def test_a_stranger_is_denied(machine):
    said = run_as("carol", *CALL, "CallTool", "sss", "python", "run", PRINT, check=False, timeout=15)
    assert said.returncode != 0
    assert re.search("denied|not allowed|authentication is required|authorization", said.stderr, re.IGNORECASE)
    assert not worker_units()


def test_a_stranger_is_told_so_by_name(carol):
    with fails(DENIED):
        carol.call_tool("python", "run", {"code": "1"})


def test_units_are_valid():
    said = run("systemd-analyze", "verify", "--man=no", BROKER, SOCKET, LAUNCHER)
    assert "mcp-exec" not in said.stdout + said.stderr
    said = run("systemd-analyze", "verify", "--man=no", "--user", PREFIX / "lib/systemd/user/mcp-exec.service",
               env={**os.environ, "XDG_RUNTIME_DIR": "/run"})
    assert "mcp-exec" not in said.stdout + said.stderr


def test_the_broker_has_what_is_its_own(machine):
    """Its runtime directory is closed to others; the folders of configuration and socket aren't its to write."""
    machine.root.list_servers()
    broker = Path("/run/mcp-exec/broker").stat()
    assert (broker.st_uid, broker.st_mode & 0o777) == (uid("mcp-exec"), 0o700)
    for folder in ("/run/mcp-exec", "/etc/mcp-exec", "/etc/mcp-exec/servers.d"):
        status = Path(folder).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, 0, 0o755), folder
    assert Path("/run/mcp-exec/bus").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("unit", [BROKER, LAUNCHER])
def test_exposure_is_low(unit):
    assert exposure(unit) <= 1.0


def test_exposure_of_a_default_worker_is_low(machine, alice):
    machine.echo(access={"users": ["alice"]})
    alice.call_tool("echo", "echo", {"message": "hi"})
    python_text(alice, "")
    for server in ("echo", "python"):
        assert exposure(unit_of(machine.worker(server, "alice"))) <= 1.0, server


def ours():
    """Every process of the service: what runs in its units, and what runs its programs."""
    found = in_units(r"/mcp-exec[^/]*\.service", r"/mcpexec\.slice")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if _read(int(pid), "cmdline").startswith(f"{PREFIX}/libexec/mcp-exec"):
            found.append(Process.of(int(pid)))
    return [process for process in found if process and process.alive()]


def test_nothing_but_the_launcher_is_root_and_that_leaves(machine, alice):
    systemctl("stop", LAUNCHER)
    start = f"ExecStart=\nExecStart={PREFIX}/libexec/mcp-exec-launcher"
    with drop_in(LAUNCHER, f"[Service]\n{start} --idle-timeout=2\n"):
        python_text(alice, "")
        launcher = main_process(LAUNCHER)
        assert launcher, "the launcher has left at once"
        as_root = {process.pid: process.command() for process in ours() if uid_of(process.pid) == 0}
        assert set(as_root) == {launcher.pid}, as_root
        assert uid_of(machine.broker().pid) == uid("mcp-exec")

        # Its time passes whatever its workers do meanwhile.
        eventually(lambda: not launcher.alive(), "the launcher has left")
        eventually(lambda: show(LAUNCHER, "ActiveState") == "inactive", "and is inactive")
        assert show(LAUNCHER, "Result") == "success"
        assert worker_processes()
        assert not [process for process in ours() if uid_of(process.pid) == 0]
    # And it comes back when it is wanted.
    machine.echo(access={"users": ["alice"]})
    alice.call_tool("echo", "echo", {"message": "hi"})


def request_name(caller, name):
    """What the bus says to one who wants that name."""
    return caller.bus.call_blocking("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName",
                                    "su", (name, 4))


@pytest.mark.parametrize("user, name", [
    ("alice", NAME), ("root", NAME), ("alice", f"{NAME}.Launcher"), ("mcp-exec", f"{NAME}.Launcher"),
])
def test_the_names_are_for_their_users_alone(machine, user, name):
    with pytest.raises(dbus.DBusException) as error:
        request_name(machine.caller(user), name)
    assert error.value.get_dbus_name().endswith(".AccessDenied")


@pytest.mark.parametrize("user", ["alice", "carol"])
def test_the_bus_keeps_others_from_the_launcher(machine, user):
    caller = machine.caller(user)
    caller.name = f"{NAME}.Launcher"
    with fails("org.freedesktop.DBus.Error.AccessDenied"):
        caller.invoke("Stop", "s", "0" * 32, path="/org/example/McpExec/Launcher", interface=f"{NAME}.Launcher")


def test_the_bus_policy_is_by_destination_alone():
    """As Debian's lintian wants it: nothing is opened for others' services, nothing by interface, nothing at_console."""
    policies = sorted((PREFIX / "share/dbus-1/system.d").glob("org.example.McpExec*.conf"))
    assert len(policies) == 2
    for path in policies:
        for policy in ElementTree.parse(path).getroot():
            assert policy.tag == "policy" and set(policy.attrib) in ({"user"}, {"context"}), path
            for rule in policy:
                if rule.attrib.get("send_destination") == "org.freedesktop.DBus":
                    assert rule.tag == "allow" and policy.attrib == {"user": "mcp-exec"}, path
                    assert rule.attrib["send_member"] == "GetConnectionStats", path
                    continue
                if rule.tag == "deny" and rule.attrib.pop("min_fds", None):
                    assert set(rule.attrib) == {"send_destination"}, path
                assert set(rule.attrib) in ({"own"}, {"send_destination"}), path
                assert all(value.startswith(NAME) for value in rule.attrib.values()), path
                if rule.tag == "allow" and "own" in rule.attrib:
                    assert policy.attrib.get("user") in ("mcp-exec", "root"), path


def test_the_broker_is_in_its_sandbox(machine):
    """As the kernel sees it: no capability, no way to more, a filter, a network of its own."""
    machine.root.list_servers()
    pid = machine.broker().pid
    status = dict(line.split(":\t", 1) for line in _read(pid, "status").splitlines() if ":\t" in line)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def test_the_installed_python_server_is_an_executor(machine):
    described = machine.root.describe("python")
    assert described["executor"] is True
    assert described["launcher"] == "unit"


def test_unknown_server_is_no_secret_but_an_error(alice):
    with fails("NoSuchServer"):
        alice.call_tool("no-such-server", "run")
    with pytest.raises(CallFailed):
        alice.call_tool("a\nb\x1b[31m", "run")


@contextmanager
def masked(unit):
    systemctl("mask", "--runtime", "--now", unit)
    try:
        yield
    finally:
        systemctl("unmask", "--runtime", unit)


def test_what_an_administrator_closes_is_closed(machine, alice):
    """As docs/security.md has it: a server, the private socket, the whole service."""
    with masked(SOCKET):
        with pytest.raises(OSError):
            connect_socket()
        assert python_text(alice, "print(1)") == "1"
    (CONFIG / "servers.d/python.json").symlink_to("/dev/null")
    machine.root.reload()
    with fails("NoSuchServer"):
        alice.call_tool("python", "run", {"code": "1"})
    with masked(BROKER), pytest.raises(CallFailed):
        alice.list_servers()
    systemctl("start", SOCKET)
