"""The machine that tests/with-systemd has booted: its units, users, configuration, callers and journal.

Everything here acts on the whole system, so nothing of it may run on a machine that is to be kept: see conftest.py.
"""

import grp
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import processes
from caller import Caller, text_of
from processes import Process
from waiting import SLOWNESS, eventually

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MCP_EXEC_BUILD", REPO / "build"))
PREFIX = Path("/usr")
CONFIG = Path("/etc/mcp-exec")
TOOLS = Path("/usr/local/lib/mcp-exec-tests")  # where workers can read: the clone may be below /home
EXECUTOR = PREFIX / "libexec/mcp-exec-python"
BROKER, SOCKET, LAUNCHER = "mcp-exec.service", "mcp-exec.socket", "mcp-exec-launcher.service"
SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
CALL = ("busctl", "call", "org.example.McpExec", "/org/example/McpExec", "org.example.McpExec")
# Errors of those who may not, and of those who might if somebody could be asked
DENIED = ("org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired")


def run(*command, check=True, timeout=30, **options):
    """Run a command; its result has text in stdout and stderr."""
    result = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            errors="replace", timeout=timeout * SLOWNESS, **options)
    assert not check or result.returncode == 0, f"{command}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result


def run_as(user, *command, **options):
    return run("runuser", "-u", user, "--", *command, **options)


# Units


def systemctl(*words, **options):
    return run("systemctl", *words, **options)


def show(unit, name):
    return systemctl("show", "-P", name, unit).stdout.strip()


def active(unit):
    return show(unit, "ActiveState") == "active"


def main_process(unit):
    """The unit's main process, or None."""
    return Process.of(int(show(unit, "MainPID")))


def worker_units():
    """Names of the workers' units, of whatever state."""
    listed = systemctl("list-units", "--all", "--plain", "--no-legend", "--full", "mcp-exec-worker-*").stdout
    return [line.split()[0] for line in listed.splitlines() if line.strip()]


def unit_of(worker):
    """The name of the unit of a worker's object."""
    return f"mcp-exec-worker-{worker['Id']}.service"


def cgroup_of(pid):
    return processes._read(pid, "cgroup")


def in_units(*patterns):
    """Running processes whose cgroup matches one of the patterns."""
    found = []
    for pid in processes.all_pids():
        cgroup = cgroup_of(pid)
        if any(re.search(pattern, cgroup) for pattern in patterns):
            process = Process.of(pid)
            if process and process.alive():
                found.append(process)
    return found


def worker_processes():
    """All that runs in workers' units."""
    return in_units(r"mcp-exec-worker-")


def uid_of(pid):
    """Its effective uid, or None."""
    found = re.search(r"^Uid:\s+\d+\s+(\d+)", processes._read(pid, "status"), re.MULTILINE)
    return int(found[1]) if found else None


def reset_failed():
    """Forget failures and how often units were started, which systemd would soon refuse to go on with."""
    systemctl("reset-failed", BROKER, SOCKET, LAUNCHER, check=False)


@contextmanager
def drop_in(unit, text):
    """Change a unit for a while."""
    path = Path(f"/run/systemd/system/{unit}.d/test.conf")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    systemctl("daemon-reload")
    try:
        yield
    finally:
        path.unlink()
        systemctl("daemon-reload")


def exposure(unit):
    """What systemd-analyze security says of it."""
    said = run("systemd-analyze", "security", "--no-pager", unit).stdout
    return float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)[1])


# The journal


def journal(*matches, since=0.0):
    """Records, oldest first, as dictionaries. Fields that are no text are lists of bytes there."""
    run("journalctl", "--sync")
    said = run("journalctl", "--no-pager", "--all", "-o", "json", f"--since=@{since:.6f}", *matches).stdout
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


# Users


@contextmanager
def identity(user):
    """Be that user for a while, as far as sockets see it that are connected meanwhile."""
    record = pwd.getpwnam(user)
    groups = os.getgroups()
    os.setgroups(os.getgrouplist(user, record.pw_gid))
    os.setegid(record.pw_gid)
    os.seteuid(record.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def uid(user):
    return pwd.getpwnam(user).pw_uid


def gid(group):
    return grp.getgrnam(group).gr_gid


class Machine:
    """What one test does to the machine, so that it can be undone."""

    def __init__(self):
        self.callers = []
        self.started = time.time()
        self.may_fail = False  # set by a test that leaves a unit failed on purpose

    # Callers

    def caller(self, user):
        """A connection of that user to the system bus."""
        with identity(user):
            caller = Caller(SYSTEM_BUS)
        self.callers.append(caller)
        return caller

    @property
    def root(self):
        """A caller who may do everything."""
        for caller in self.callers:
            if not caller.closed and getattr(caller, "is_root", False):
                return caller
        caller = self.caller("root")
        caller.is_root = True
        return caller

    # Configuration

    def write(self, name, text):
        """Put a file below /etc/mcp-exec in one step, as an editor does. Returns what Reload says about the files."""
        path = CONFIG / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(text)
        part.chmod(0o644)
        part.replace(path)
        return self.root.reload()

    def server(self, name, command, *args, **keys):
        """A server that starts that command; keys are those of the file."""
        keys = {"command": str(command), "args": [str(arg) for arg in args], **keys}
        problems = self.write(f"servers.d/{name}.json", json.dumps(keys, indent=2))
        assert not problems, problems

    def python(self, name, **keys):
        """An executor of Python code as the bundled one, but for the keys."""
        self.server(name, EXECUTOR, **{"executor": True, "pool": {"max": 1, "concurrency": 1, "queue": 64}, **keys})

    def echo(self, name="echo", **keys):
        """A server that answers at once, and runs nothing of its callers'."""
        self.server(name, TOOLS / "echo-worker", **keys)

    def obedient(self, name="obedient", *args, **keys):
        """A server that does what its calls say: see tests/bus/obedient_worker.py."""
        self.server(name, "/usr/bin/python3", TOOLS / "obedient_worker.py", *args, **keys)

    # The broker

    def broker(self):
        """Its process, or None; doesn't start it."""
        return main_process(BROKER)

    def worker(self, server, owner=None):
        """The one worker of that server and user."""
        tag = owner and f"uid:{uid(owner)}"
        found = [worker for worker in self.root.workers(server) if worker["Owner"] == tag or not tag]
        assert len(found) == 1, f"not one worker of {server} for {owner}: {found}"
        return found[0]

    def journal(self, *matches):
        """What the journal got since the test began."""
        return journal(*matches, since=self.started)

    # The end

    def restore(self):
        """Undo it all. Fails if the test left a unit failed, or if a worker outlives the broker."""
        for caller in self.callers:
            caller.close()
        failed = systemctl("--failed", "--plain", "--no-legend", "list-units", "mcp-exec*").stdout
        for path in CONFIG.rglob("*"):
            if not path.is_dir() or path.is_symlink():
                path.unlink()
        systemctl("stop", BROKER)
        left = []
        try:
            eventually(lambda: not worker_processes(), "no worker outlives the broker", timeout=2)
        except AssertionError:
            left = worker_processes()
            systemctl("kill", "--signal=KILL", "mcpexec.slice", check=False)
        reset_failed()
        assert not left, f"workers outlive the broker: {', '.join(str(process) for process in left)}"
        assert self.may_fail or not failed, f"failed units: {failed}"


def python_text(caller, code, server="python", **options):
    """What the code prints, run by an executor for that caller."""
    content = json.loads(caller.call_tool(server, "run", {"code": code}, **options))["structuredContent"]
    assert content["exception"] is None, content["exception"]
    return content["stdout"].removesuffix("\n")


def python_json(caller, code, server="python", **options):
    """What the code leaves in the variable `answer`."""
    return json.loads(python_text(caller, f"{code}\nimport json\nprint(json.dumps(answer))", server, **options))


def tool_json(caller, server, tool, arguments=""):
    return json.loads(text_of(caller.call_tool(server, tool, arguments)))


def connect_socket():
    """A raw connection to the private socket."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10 * SLOWNESS)
    connection.connect("/run/mcp-exec/bus")
    return connection


# Installation


def booted():
    """Whether this is a throwaway systemd, and not somebody's machine."""
    return os.environ.get("container") == "with-systemd" and Path("/proc/1/comm").read_text().strip() == "systemd"


def install():
    """As the README says, from the build on: and users alice and bob, who are in group mcp-exec, and carol, who isn't."""
    assert booted(), "this changes the whole system: run it in tests/with-systemd"
    folder = BUILD / "system"
    if not (folder / "build.ninja").exists():
        run("meson", "setup", folder, REPO, "--prefix=/usr", timeout=120)
    run("ninja", "-C", folder, "build.ninja", timeout=120)
    targets = json.loads(run("meson", "introspect", "--targets", folder, timeout=60).stdout)
    wanted = [os.path.relpath(name, folder) for target in targets for name in target["filename"]
              if target["installed"] or target["name"] == "echo-worker"]
    run("ninja", "-C", folder, *wanted, timeout=500)
    run("meson", "install", "-C", folder, "--no-rebuild", timeout=60)
    run("systemd-sysusers")
    run("systemd-tmpfiles", "--create", check=False)
    systemctl("daemon-reload")
    systemctl("reload", "dbus")
    systemctl("enable", "--now", SOCKET)

    for user in ("alice", "bob"):
        run("useradd", "--create-home", "--groups", "mcp-exec", user)
    run("useradd", "--create-home", "carol")
    TOOLS.mkdir(parents=True)
    shutil.copy(folder / "tests/workers/echo-worker", TOOLS)
    shutil.copy(REPO / "tests/bus/obedient_worker.py", TOOLS)
    systemctl("start", "polkit.service")
