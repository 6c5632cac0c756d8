"""Workers as units of systemd: the root launcher, the sandbox, ends of all kinds, and a user's own systemd.

Run from outside, this installs a build and runs itself again in a throwaway systemd (tests/with-systemd), on each bus
and once with the machine's cgroup controllers.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests/lib"))

import real_servers  # noqa: E402
from caller import Caller, CallFailed, fails  # noqa: E402

INSIDE = os.environ.get("MCP_EXEC_INSIDE")  # "system", "limits" or nothing
BUILD = Path(os.environ.get("MCP_EXEC_BUILD", REPO / "build"))
SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
PYTHON = "/usr/libexec/mcp-exec-python"
LAUNCHER = "org.example.McpExec.Launcher"
LAUNCHER_PATH = "/org/example/McpExec/Launcher"
SERVERS = Path("/etc/mcp-exec/servers.d")
PROGRAMS = Path("/usr/local/lib/test-programs")

UID = 4711

# Until the project installs them, and never in place of what it installs.
FILES = {
    "/usr/lib/systemd/system/mcp-exec.service": """
[Service]
Type=notify
BusName=org.example.McpExec
User=mcp-exec
ExecStart=/usr/libexec/mcp-execd --launcher=unit
""",
    "/usr/lib/systemd/system/mcp-exec-launcher.service": """
[Service]
Type=notify
BusName=org.example.McpExec.Launcher
ExecStart=/usr/libexec/mcp-exec-launcher
""",
    "/usr/share/dbus-1/system-services/org.example.McpExec.Launcher.service": """
[D-BUS Service]
Name=org.example.McpExec.Launcher
Exec=/bin/false
User=root
SystemdService=mcp-exec-launcher.service
""",
    "/usr/share/dbus-1/system.d/org.example.McpExec.Launcher.conf": """<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN" "https://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
    <policy user="root"><allow own="org.example.McpExec.Launcher"/></policy>
    <policy context="default"><deny send_destination="org.example.McpExec.Launcher"/></policy>
    <policy user="mcp-exec"><allow send_destination="org.example.McpExec.Launcher"/></policy>
</busconfig>
""",
    "/usr/lib/systemd/user/mcp-exec.service": """
[Service]
Type=notify
ExecStart=/usr/libexec/mcp-execd --user
""",
}
OPEN_POLICY = """\
<busconfig><policy context="mandatory"><allow send_destination="org.example.McpExec.Launcher"/></policy></busconfig>"""


# Outside

@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A build for /usr: MCP_EXEC_BUILD where it is one, or a new one."""
    if os.environ.get("MCP_EXEC_BUILD"):
        options = json.loads(run("meson", "introspect", "--buildoptions", str(BUILD)))
        if any(option["name"] == "prefix" and option["value"] == "/usr" for option in options):
            return BUILD
    folder = tmp_path_factory.mktemp("launcher")
    folder.chmod(0o755)
    subprocess.run(["meson", "setup", folder, REPO, "--prefix=/usr"], check=True, timeout=120, capture_output=True)
    subprocess.run(["ninja", "-C", folder, "src/mcp-execd", "src/mcp-exec-launcher"], check=True, timeout=300,
                   capture_output=True)
    return folder


def run_inside(build, kind, *options):
    arguments = [REPO / "tests/with-systemd", *options, "--bind", REPO, "--bind", build, "--",
                 "env", f"MCP_EXEC_INSIDE={kind}", f"MCP_EXEC_BUILD={build}", "PYTHONDONTWRITEBYTECODE=1",
                 f"MCP_EXEC_TEST_NPM={os.environ.get('MCP_EXEC_TEST_NPM', '')}",
                 sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider",
                 "--rootdir", REPO / "tests/system", __file__]
    inside = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert inside.returncode == 0, inside.stdout[-20000:] + inside.stderr[-4000:]


def where(kind):
    """Collect the tests so marked in that place only."""
    return lambda function: function if INSIDE == kind else None


system, limits, outside = where("system"), where("limits"), where(None)
root = pytest.mark.skipif(os.geteuid() != 0, reason="booting a systemd needs root")


@outside
@root
@pytest.mark.parametrize("bus", ["daemon", "broker"])
def test_in_a_booted_systemd(build, bus):
    run_inside(build, "system", "--bus", bus)


@outside
@root
def test_in_a_booted_systemd_with_limits(build):
    run_inside(build, "limits", "--limits")


# Inside

def run(*command, check=True, **options):
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60, **options).stdout


def wait_for(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session")
def installed():
    """Instead of conftest.py's, which all tests of this folder use, also those that run outside: nothing is installed
    there."""
    if not INSIDE:
        return
    assert os.environ.get("container") == "with-systemd", "this installs into /usr: only in a throwaway systemd"
    run("meson", "install", "-C", str(BUILD), "--no-rebuild")
    for name, text in FILES.items():
        if not Path(name).exists():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text.lstrip())
    activation = Path("/usr/share/dbus-1/system-services/org.example.McpExec.service")
    if "SystemdService" not in activation.read_text():
        activation.write_text("[D-BUS Service]\nName=org.example.McpExec\nExec=/bin/false\nUser=mcp-exec\n"
                              "SystemdService=mcp-exec.service\n")
    # As systemd itself does where it isn't in a container: credentials don't come to where services see them otherwise.
    run("mount", "--make-rshared", "/")
    SERVERS.mkdir(parents=True, exist_ok=True)
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    for unit in ("mcp-exec.service", "mcp-exec-launcher.service"):
        folder = Path(f"/etc/systemd/system/{unit}.d")
        folder.mkdir(parents=True, exist_ok=True)
        # The tests kill and start them more often than is allowed in earnest.
        (folder / "test.conf").write_text("[Unit]\nStartLimitIntervalSec=0\n")
    run("systemd-sysusers")
    run("systemd-tmpfiles", "--create", check=False)
    run("systemctl", "daemon-reload")
    reload_bus()


def reload_bus():
    run("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig")


def server(name, command=PYTHON, **keys):
    path = SERVERS / f"{name}.json"
    path.write_text(json.dumps({"command": command, **keys}))
    return path


def program(name, text):
    path = PROGRAMS / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def caller(installed):
    caller = Caller(SYSTEM_BUS)
    yield caller
    caller.close()


@pytest.fixture
def broker(caller):
    caller.reload()
    return caller


def python(caller, name, code):
    result = json.loads(caller.call_tool(name, "run", {"code": code}))
    assert not result.get("isError"), result
    return result["structuredContent"]["stdout"].strip()


def workers():
    lines = run("systemctl", "list-units", "--all", "--no-legend", "--plain", "mcp-exec-worker-*").splitlines()
    return [line.split()[0] for line in lines]


def show(unit, name):
    return run("systemctl", "show", "-P", name, unit).strip()


def as_user(user, address=SYSTEM_BUS, **options):
    """A connection of that user's."""
    uid = int(run("id", "-u", user))
    os.seteuid(uid)
    try:
        return Caller(address, **options)
    finally:
        os.seteuid(0)


class Pipes:
    """A worker's three pipes: its ends to give away, the others to use."""

    def __init__(self):
        self.theirs, self.ours = [], []
        for reading in (True, False, False):
            r, w = os.pipe()
            self.theirs.append(r if reading else w)
            self.ours.append(w if reading else r)

    def give(self):
        import dbus
        return [dbus.types.UnixFd(fd) for fd in self.theirs]

    def close_theirs(self):
        for fd in self.theirs:
            os.close(fd)
        self.theirs = []

    def ask(self, text):
        os.write(self.ours[0], text.encode())
        return os.read(self.ours[1], 65536).decode()


ARGUMENTS = ["$HOME", "${PATH}", "$", "$$", "a$b${", "%n", "%%", "a b", "", "\"", "'", "\\n",
             "new\nline\x1b", "ä", ";", "-x"]
ID = "0123456789abcdef0123456789abcd%02x"


@pytest.fixture
def launcher(installed):
    run("systemctl", "start", "mcp-exec.service")
    launcher = as_user("mcp-exec", name=LAUNCHER)
    yield launcher
    launcher.close()


def start(launcher, server, owner, id, fds, **options):
    return launcher.invoke("Start", "ssshhh", server, owner, id, *fds, path=LAUNCHER_PATH, interface=LAUNCHER,
                           **options)


@system
def test_only_the_broker_may_ask(installed):
    for user in ("root", "nobody"):
        other = as_user(user, name=LAUNCHER)
        with fails("org.freedesktop.DBus.Error.AccessDenied"):
            other.invoke("Stop", "s", ID % 0, path=LAUNCHER_PATH, interface=LAUNCHER)
        other.close()


@system
def test_only_the_broker_may_ask_whatever_the_policy_says(installed):
    policy = Path("/etc/dbus-1/system.d/zz-open.conf")
    policy.write_text(OPEN_POLICY)
    reload_bus()
    try:
        for user in ("root", "nobody"):
            other = as_user(user, name=LAUNCHER)
            pipes = Pipes()
            for member, signature, arguments in (("Stop", "s", [ID % 0]), ("Kill", "si", [ID % 0, 9]),
                                                 ("Start", "ssshhh", ["python", "shared", ID % 0, *pipes.give()])):
                with fails("org.freedesktop.DBus.Error.AccessDenied", "Only the user mcp-exec"):
                    other.invoke(member, signature, *arguments, path=LAUNCHER_PATH, interface=LAUNCHER)
            other.close()
    finally:
        policy.unlink()
        reload_bus()


@system
def test_names_owners_and_ids_are_checked(launcher):
    pipes = Pipes()
    for name in ("", "Upper", "../python", "py thon", "python\n", "x" * 65, "%n"):
        with fails("org.freedesktop.DBus.Error.InvalidArgs", "a server's name"):
            start(launcher, name, "shared", ID % 0, pipes.give())
    for owner in ("", "root", "uid:", "uid:-1", "uid:0x1", "uid:12345678901", "client:", "client:a b", "client:\n",
                  "client:" + "x" * 256, "shared\n", "Uid:1"):
        with fails("org.freedesktop.DBus.Error.InvalidArgs", "an owner is"):
            start(launcher, "python", owner, ID % 0, pipes.give())
    for id in ("", "x", ID % 0 + "0", (ID % 0).upper(), "../" + ID % 0, (ID % 0)[:-1] + "\n"):
        with fails("org.freedesktop.DBus.Error.InvalidArgs", "32 digits"):
            start(launcher, "python", "shared", id, pipes.give())
        for member, signature, arguments in (("Stop", "s", [id]), ("Kill", "si", [id, 9])):
            with fails("org.freedesktop.DBus.Error.InvalidArgs", "32 digits"):
                launcher.invoke(member, signature, *arguments, path=LAUNCHER_PATH, interface=LAUNCHER)
    for number in (0, -1, 65, 1000):
        with fails("org.freedesktop.DBus.Error.InvalidArgs", "no signal"):
            launcher.invoke("Kill", "si", ID % 0, number, path=LAUNCHER_PATH, interface=LAUNCHER)
    with fails("Error.LaunchFailed".removeprefix("Error."), "not loaded"):
        launcher.invoke("Stop", "s", ID % 0, path=LAUNCHER_PATH, interface=LAUNCHER)


@system
def test_other_files_than_pipes_are_refused(launcher, tmp_path):
    import dbus
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    a, b = socket.socketpair()
    good = Pipes()
    wrong = {
        "a directory": os.open("/", os.O_RDONLY),
        "a device": os.open("/dev/zero", os.O_RDWR),
        "a FIFO that has a name": os.open(fifo, os.O_RDWR),
        "a socket": a.fileno(),
        "a file": os.open(__file__, os.O_RDONLY),
        "O_PATH": os.open("/etc/passwd", os.O_PATH),
        "another kind": os.eventfd(0),
    }
    for reason, fd in wrong.items():
        for place in range(3):
            fds = good.give()
            fds[place] = dbus.types.UnixFd(fd)
            with fails("org.freedesktop.DBus.Error.InvalidArgs", ("stdin", "stdout", "stderr")[place], reason):
                start(launcher, "python", "shared", ID % 0, fds)
    # The pipe's end itself by O_PATH, and the wrong end
    path = os.open(f"/proc/self/fd/{good.theirs[0]}", os.O_PATH)
    with fails("org.freedesktop.DBus.Error.InvalidArgs", "O_PATH"):
        start(launcher, "python", "shared", ID % 0, [dbus.types.UnixFd(path), *good.give()[1:]])
    with fails("org.freedesktop.DBus.Error.InvalidArgs", "stdin has to be the end of a pipe for reading"):
        start(launcher, "python", "shared", ID % 0, [good.give()[1], *good.give()[1:]])
    with fails("org.freedesktop.DBus.Error.InvalidArgs", "stderr has to be the end of a pipe for writing"):
        start(launcher, "python", "shared", ID % 0, [*good.give()[:2], good.give()[0]])
    both = os.open(f"/proc/self/fd/{good.theirs[0]}", os.O_RDWR)
    with fails("org.freedesktop.DBus.Error.InvalidArgs", "for reading"):
        start(launcher, "python", "shared", ID % 0, [dbus.types.UnixFd(both), *good.give()[1:]])
    assert workers() == []


@system
def test_only_what_is_configured_is_started(launcher):
    pipes = Pipes()
    with fails("NoSuchServer", "No server is named nothing"):
        start(launcher, "nothing", "shared", ID % 0, pipes.give())
    server("off", disabled=True)
    with fails("ServerDisabled", "off is disabled in /etc/mcp-exec"):
        start(launcher, "off", "shared", ID % 0, pipes.give())
    server("loose").chmod(0o666)
    with fails("NoSuchServer", "loose.json: refused: it can be written by others"):
        start(launcher, "loose", "shared", ID % 0, pipes.give())
    (SERVERS / "loose.json").unlink()
    stray = server("stray")
    os.chown(stray, 65534, 65534)
    with fails("NoSuchServer", "stray"):
        start(launcher, "stray", "shared", ID % 0, pipes.give())
    stray.unlink()
    server("gone", command="no-such-command")
    with fails("LaunchFailed", "no-such-command: not found in PATH"):
        start(launcher, "gone", "shared", ID % 0, pipes.give())
    server("loud", sandbox={"User": "root"})
    with fails("NoSuchServer", "sandbox: User is none"):
        start(launcher, "loud", "shared", ID % 0, pipes.give())
    (SERVERS / "loud.json").unlink()
    assert workers() == []


@system
def test_a_worker_is_started_signalled_and_stopped(launcher):
    program("cat-args", "#!/bin/sh\nprintf '[%s]' \"$@\"\nexec cat\n")
    server("args", command=str(PROGRAMS / "cat-args"), args=ARGUMENTS)
    pipes = Pipes()
    start(launcher, "args", "client::1.5", ID % 1, pipes.give())
    pipes.close_theirs()
    assert os.read(pipes.ours[1], 4096).decode() == "".join(f"[{argument}]" for argument in ARGUMENTS)
    assert pipes.ask("hello\n") == "hello\n"
    [unit] = workers()
    assert unit == f"mcp-exec-worker-{ID % 1}.service"
    assert show(unit, "Description") == "McpExec worker of args for client::1.5"
    assert show(unit, "Slice") == "mcpexec.slice" and "mcp-exec.service" in show(unit, "BindsTo")
    assert show(unit, "KillSignal") == "9" and show(unit, "NoNewPrivileges") == "yes"
    run("systemctl", "daemon-reload")
    assert show(unit, "LoadState") == "loaded" and "mcp-exec.service" in show(unit, "BindsTo")
    with fails("LaunchFailed", "already"):
        start(launcher, "args", "shared", ID % 1, Pipes().give())

    launcher.invoke("Kill", "si", ID % 1, signal.SIGUSR1, path=LAUNCHER_PATH, interface=LAUNCHER)
    wait_for(lambda: workers() == [])
    pipes = Pipes()
    start(launcher, "args", "uid:4294967294", ID % 2, pipes.give())
    launcher.invoke("Stop", "s", ID % 2, path=LAUNCHER_PATH, interface=LAUNCHER)
    wait_for(lambda: workers() == [])


@system
def test_what_its_caller_leaves_behind_is_stopped(launcher):
    other = as_user("mcp-exec", name=LAUNCHER)
    pipes = Pipes()
    start(other, "args", "shared", ID % 3, pipes.give())
    assert len(workers()) == 1
    other.close()
    wait_for(lambda: workers() == [], 2)


@system
def test_the_launcher_leaves_without_losing_a_call(launcher):
    drop = Path("/etc/systemd/system/mcp-exec-launcher.service.d/idle.conf")
    drop.write_text("[Service]\nExecStart=\nExecStart=/usr/libexec/mcp-exec-launcher --idle-timeout=0.002\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "stop", "mcp-exec-launcher.service")
    try:
        for i in range(60):
            with fails("LaunchFailed", "not loaded"):
                launcher.invoke("Stop", "s", ID % 0, path=LAUNCHER_PATH, interface=LAUNCHER, timeout=20)
            time.sleep(i % 10 / 1000)
    finally:
        drop.unlink()
        run("systemctl", "daemon-reload")
    wait_for(lambda: show("mcp-exec-launcher.service", "ActiveState") == "inactive")
    assert show("mcp-exec-launcher.service", "Result") == "success"


@system
def test_a_worker_is_in_its_sandbox(broker):
    secret = Path("/home/secret")
    secret.write_text("x")
    Path("/run/a-service").mkdir(exist_ok=True)
    facts = json.loads(python(broker, "python", """
import json, os, pwd, socket
def attempt(f, *a):
    try:
        f(*a)
        return "done"
    except OSError as e:
        return e.strerror
s = socket.socket(socket.AF_UNIX)
print(json.dumps({
    "uid": os.getuid(), "groups": os.getgroups(), "cwd": os.getcwd(),
    "environment": sorted(name for name in os.environ if not name.startswith("MCP_EXEC_")),
    "home": os.environ["HOME"], "fds": sorted(os.listdir("/proc/self/fd")), "run": os.listdir("/run"),
    "secret": attempt(open, "/home/secret"), "etc": attempt(open, "/etc/x", "w"), "tmp": attempt(open, "/tmp/x", "w"),
    "inet": attempt(socket.socket, socket.AF_INET), "bus": attempt(s.connect, "/run/dbus/system_bus_socket"),
    "abstract": attempt(s.connect, chr(0) + "test-abstract"),
    "configuration": attempt(os.listdir, "/etc/mcp-exec"), "one": attempt(os.listdir, "/proc/1/fd"),
    "processes": [p for p in os.listdir("/proc") if p.isdigit()], "links": os.listdir("/sys/class/net"),
    "mount": attempt(os.chroot, "/"), "status": open("/proc/self/status").read(),
    "limits": open("/proc/self/limits").read(), "score": open("/proc/self/oom_score_adj").read(),
    "journal": attempt(s.connect, "/run/systemd/journal/stdout"), "log": attempt(s.connect, "/dev/log"),
    "name": pwd.getpwuid(os.getuid()).pw_name, "userdb": os.listdir("/run/systemd/userdb"),
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
}))
"""))
    [unit] = workers()
    pid = int(show(unit, "MainPID"))
    [worker] = broker.workers("python")
    assert worker["Pid"] == pid
    assert facts["uid"] == os.stat(f"/proc/{pid}").st_uid
    assert facts["uid"] >= 61184 and facts["uid"] not in (0, int(run("id", "-u", "mcp-exec")))
    assert facts["cwd"] == facts["home"] == "/tmp"
    assert facts["environment"] == ["HOME", "INVOCATION_ID", "LANG", "PATH"]
    assert set(facts["run"]) <= {"systemd"} and facts["userdb"] == ["io.systemd.DynamicUser"] and facts["name"]
    assert facts["etc"] == "Read-only file system" and facts["tmp"] == "done"
    assert facts["inet"] == "Address family not supported by protocol"
    for place in ("bus", "journal", "log", "secret", "configuration", "one", "abstract", "mount"):
        assert facts[place] != "done", place
    assert str(os.getpid()) not in facts["processes"] and len(facts["processes"]) < 5
    assert "NoNewPrivs:\t1" in facts["status"] and "CapBnd:\t0000000000000000" in facts["status"]
    assert "Seccomp:\t2" in facts["status"] and facts["score"].strip() == "500"
    assert facts["shm"] == 64 << 20
    assert exposure(unit) <= 1.0


@system
def test_node_runs_in_the_sandbox(broker):
    npm = real_servers.npm_folder()
    if not npm or not real_servers.NODE:
        pytest.skip("the servers of tests/npm are not installed (npm ci)")
    shutil.copytree(npm / "node_modules", PROGRAMS / "node_modules")
    server("everything", command=real_servers.NODE,
           args=[str(PROGRAMS / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"), "stdio"])
    broker.reload()
    assert "hello" in broker.call_tool("everything", "echo", {"message": "hello"})
    assert "5" in broker.call_tool("everything", "get-sum", {"a": 2, "b": 3})
    unit = next(unit for unit in workers() if "of everything for" in show(unit, "Description"))
    assert exposure(unit) <= 1.0


def exposure(unit):
    level = run("systemd-analyze", "security", "--no-pager", unit).split("Overall exposure level")[1]
    return float(level.split(":")[1].split()[0])


@system
def test_each_worker_has_a_uid_of_its_own(broker):
    server("two", scope="client", pool={"max": 1, "concurrency": 1})
    broker.reload()
    other = Caller(SYSTEM_BUS)
    code = "import os; open('/tmp/mine', 'w').close(); print(os.getuid(), os.listdir('/tmp'))"
    first, second = python(broker, "two", code), python(other, "two", code)
    assert first.split()[0] != second.split()[0]
    other.close()


@system
def test_describe_shows_what_is_in_force(broker):
    server("described", sandbox={"MemoryMax": "64M", "PrivateNetwork": False})
    broker.reload()
    described = broker.describe("described")
    assert described["launcher"] == "unit"
    if "DynamicUser" not in described["sandbox"]:
        pytest.skip("the bus object still calls config_describe()")
    assert described["sandbox"]["MemoryMax"] == "64M" and described["sandbox"]["PrivateNetwork"] is False


@system
def test_every_key_of_a_sandbox_is_taken_by_systemd(broker):
    Path("/srv/open").mkdir(exist_ok=True)
    Path("/etc/token").write_text("s3cret")
    keys = {
        "MemoryMax": "64M", "MemoryHigh": "60M", "MemorySwapMax": 0, "TasksMax": 20, "CPUQuota": "150%",
        "CPUWeight": 50, "IOWeight": 50, "RuntimeMaxSec": 600, "Nice": 5, "OOMScoreAdjust": 900, "LimitAS": "4G",
        "LimitCORE": 0, "LimitCPU": 100, "LimitDATA": "infinity", "LimitFSIZE": "1M", "LimitMEMLOCK": 0,
        "LimitMSGQUEUE": 0, "LimitNOFILE": 100, "LimitNPROC": 50, "LimitSTACK": "8M", "PrivateNetwork": False,
        "PrivateUsers": False, "PrivateDevices": True, "PrivateIPC": True, "PrivateTmp": True, "ProtectClock": True,
        "ProtectControlGroups": True, "ProtectHostname": True, "ProtectKernelLogs": True, "ProtectKernelModules": True,
        "ProtectKernelTunables": True, "ProtectHome": "read-only", "ProtectSystem": "full", "ProtectProc": "noaccess",
        "ProcSubset": "pid", "LockPersonality": True, "MemoryDenyWriteExecute": True, "RestrictNamespaces": True,
        "RestrictRealtime": True, "RestrictSUIDSGID": True, "ReadOnlyPaths": ["/srv", "-/none"],
        "ReadWritePaths": ["/srv/open"], "InaccessiblePaths": ["-/mnt"], "ExecPaths": ["/usr"],
        "NoExecPaths": ["/tmp"], "BindPaths": ["/srv/open:/opt"], "BindReadOnlyPaths": ["-/none", "/etc:/media"],
        "TemporaryFileSystem": ["/var/lib:ro,size=1M"], "LoadCredential": ["token:/etc/token"],
        "RestrictAddressFamilies": ["AF_UNIX", "AF_INET"], "IPAddressAllow": ["localhost", "10.0.0.0/8", "fe80::/10"],
        "IPAddressDeny": ["any"], "SystemCallFilter": ["@mount", "~chown"],
    }
    server("all", sandbox=keys)
    assert broker.reload() == []
    assert python(broker, "all", "import os; print(open(os.environ['CREDENTIALS_DIRECTORY'] + '/token').read())"
                  ) == "s3cret"
    assert python(broker, "all", "print(os.path.exists('/opt'), os.listdir('/var/lib'), os.getpriority(0, 0))"
                  ) == "True [] 5"
    unit = next(unit for unit in workers() if "of all for" in show(unit, "Description"))
    shown = {name: show(unit, name) for name in (*keys, "CPUQuotaPerSecUSec", "RuntimeMaxUSec", "LimitNOFILESoft")}
    assert shown["MemoryMax"] == str(64 << 20) and shown["MemorySwapMax"] == "0" and shown["TasksMax"] == "20"
    assert shown["CPUQuotaPerSecUSec"] == "1.500000s" and shown["RuntimeMaxUSec"] == "10min"
    assert shown["LimitNOFILE"] == shown["LimitNOFILESoft"] == "100" and shown["LimitDATA"] == "infinity"
    assert shown["ProtectHome"] == "read-only" and shown["ProtectSystem"] == "strict" and shown["ProcSubset"] == "pid"
    assert shown["PrivateNetwork"] == shown["PrivateUsers"] == "no" and shown["MemoryDenyWriteExecute"] == "yes"
    assert "/srv/open:/opt" in shown["BindPaths"] and "/etc:/media" in shown["BindReadOnlyPaths"]
    assert "-/mnt" in shown["InaccessiblePaths"] and "-/etc/mcp-exec" in shown["InaccessiblePaths"]
    assert shown["RestrictAddressFamilies"].split() == ["AF_INET", "AF_UNIX"]
    assert "10.0.0.0/8" in shown["IPAddressAllow"] and "fe80::/10" in shown["IPAddressAllow"]
    assert "mount" in shown["SystemCallFilter"].split() and "chown" not in shown["SystemCallFilter"].split()
    assert "read" in shown["SystemCallFilter"].split() and "reboot" not in shown["SystemCallFilter"].split()


@system
def test_the_network_is_opened_by_name(broker):
    server("net", sandbox={"PrivateNetwork": False})
    broker.reload()
    assert python(broker, "net", "import socket; print(socket.socket(socket.AF_INET) and 1)") == "1"
    unit = next(unit for unit in workers() if "of net for" in show(unit, "Description"))
    assert show(unit, "IPAddressDeny") == ""


def failure(caller, name):
    with pytest.raises(CallFailed) as caught:
        caller.call_tool(name, "run", {"code": "1"})
    return caught.value


@system
def test_what_cannot_be_executed_is_explained(broker):
    server("lost", command="/nowhere/at-all")
    server("no-interpreter", command=program("no-interpreter", "#!/nowhere/python\n"))
    Path(program("private", "#!/bin/sh\n")).chmod(0o700)
    server("private", command=str(PROGRAMS / "private"))
    home = Path("/home/tool")
    home.write_text("#!/bin/sh\n")
    home.chmod(0o755)
    server("at-home", command=str(home))
    server("no-cwd", cwd="/nowhere")
    server("no-path", sandbox={"ReadWritePaths": ["/nowhere"]})
    server("no-credential", sandbox={"LoadCredential": ["a:/nowhere"]})
    broker.reload()
    for name, words in {
        "lost": ["Can't start /nowhere/at-all", "No such file"],
        "no-interpreter": ["Can't start /usr/local/lib/test-programs/no-interpreter", "interpreter", "203"],
        "private": ["Can't start", "203"],
        "at-home": ["Can't start /home/tool"],
        "no-cwd": ["Can't start", "working directory", "cwd", "200"],
        "no-path": ["Can't start", "sandbox can't be set up", "226"],
        "no-credential": ["Can't start", "credential", "243"],
    }.items():
        error = failure(broker, name)
        assert error.name == "LaunchFailed", error
        for word in words:
            assert word in error.message, error
    assert wait_for(lambda: not any("failed" in line for line in workers()))


@system
def test_how_a_worker_ended_is_told(broker):
    server("ends", pool={"max": 1, "concurrency": 1}, restart={"burst": 0})
    broker.reload()
    for code, words in {"os._exit(203)": "exited with status 203", "os.kill(os.getpid(), 9)": "SIGKILL",
                        "os.kill(os.getpid(), 15)": "SIGTERM", "os.abort()": "SIGABRT"}.items():
        with fails("WorkerDied", words):
            broker.call_tool("ends", "run", {"code": "import os; " + code})
    server("short", sandbox={"RuntimeMaxSec": 1}, restart={"burst": 0})
    broker.reload()
    with fails("WorkerDied", "timeout"):
        broker.call_tool("short", "run", {"code": "import time; time.sleep(20)"})


@system
def test_a_whole_tree_goes(broker):
    server("tree", pool={"max": 1, "concurrency": 1}, restart={"burst": 0})
    broker.reload()
    pid = python(broker, "tree", "import subprocess; p = subprocess.Popen(['setsid', 'sleep', '1000'],"
                                 " stdin=-3, stdout=-3, stderr=-3); print(p.pid)")
    assert Path(f"/proc/{pid}").exists()
    broker.stop_server("tree")
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    wait_for(lambda: not any("of tree for" in show(unit, "Description") for unit in workers()))


@system
def test_signals_from_others_count_for_nothing(broker):
    import dbus.lowlevel
    assert python(broker, "python", "x = 5; print(x)") == "5"
    [worker] = broker.workers("python")
    unit = f"mcp-exec-worker-{worker['Id']}.service"
    target = run("busctl", "--json=short", "list", "--unique", "--no-legend")
    names = [entry["name"] for entry in json.loads(target)] if target.startswith("[") else []
    names = names or [line.split()[0] for line in run("busctl", "list", "--unique", "--no-legend").splitlines()]
    nobody = as_user("nobody")
    path = "/org/freedesktop/systemd1/unit/" + unit.replace("-", "_2d").replace(".", "_2e")
    for name in names:
        for interface, values in (("Service", {"ExecMainCode": dbus.Int32(2), "ExecMainStatus": dbus.Int32(11)}),
                                  ("Unit", {"ActiveState": "failed"})):
            message = dbus.lowlevel.SignalMessage(path, "org.freedesktop.DBus.Properties", "PropertiesChanged")
            message.set_destination(name)
            message.append("org.freedesktop.systemd1." + interface,
                           dbus.Dictionary(values, signature="sv"), dbus.Array([], signature="s"), signature="sa{sv}as")
            nobody.bus.send_message(message)
        message = dbus.lowlevel.SignalMessage("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
                                              "UnitRemoved")
        message.set_destination(name)
        message.append(unit, dbus.ObjectPath(path), signature="so")
        nobody.bus.send_message(message)
    nobody.bus.flush()
    time.sleep(0.2)
    assert python(broker, "python", "print(x)") == "5"
    nobody.close()


@system
@pytest.mark.parametrize("verb", ["daemon-reload", "daemon-reexec"])
def test_a_restart_of_systemd_changes_nothing(broker, verb):
    server("kept", pool={"max": 1, "concurrency": 1}, restart={"burst": 0})
    broker.reload()
    assert python(broker, "kept", "x = 7; print(x)") == "7"
    run("systemctl", verb)
    assert python(broker, "kept", "print(x)") == "7"
    with fails("WorkerDied", "SIGSEGV"):
        broker.call_tool("kept", "run", {"code": "import os; os.kill(os.getpid(), 11)"})
    assert python(broker, "kept", "print(1)") == "1"
    run("systemctl", verb)
    assert {show(unit, "LoadState") for unit in workers()} == {"loaded"}
    run("systemctl", "restart", "mcp-exec.service")
    assert workers() == []


def kill_broker():
    pid = show("mcp-exec.service", "MainPID")
    os.kill(int(pid), signal.SIGKILL)
    return lambda: show("mcp-exec.service", "MainPID") != pid and \
        show("mcp-exec.service", "ActiveState") != "deactivating"


def reload_when_there(caller):
    """dbus-broker refuses to start a service whose unit is just about to fail."""
    def reload():
        try:
            return [caller.reload()]
        except CallFailed as error:
            assert "NameHasNoOwner" in error.name, error
    wait_for(reload)


@system
def test_no_worker_outlives_the_broker(broker):
    python(broker, "python", "print(1)")
    assert workers()
    settled = kill_broker()
    wait_for(lambda: workers() == [], 1)
    wait_for(settled)
    # Also one whose start is under way
    for delay in (0, 0.005, 0.02, 0.05):
        name = f"slow-{int(delay * 1000)}"
        server(name, command="sleep", args=["1000"])
        reload_when_there(broker)
        broker.begin_tool(name, "x")
        time.sleep(delay)
        settled = kill_broker()
        time.sleep(0.5)
        assert workers() == [], delay
        wait_for(settled)
    reload_when_there(broker)


@system
def test_what_an_earlier_broker_has_left_is_killed(broker):
    run("systemctl", "stop", "mcp-exec.service")
    unit = f"mcp-exec-worker-{ID % 9}.service"
    run("systemd-run", f"--unit={unit}", "--collect", "-p", "BindsTo=mcp-exec.service", "-p", "After=mcp-exec.service",
        "sleep", "1000", check=False)
    wait_for(lambda: show("mcp-exec.service", "ActiveState") == "active" and workers() == [])


@system
def test_one_that_closes_its_pipes_is_found_out(broker):
    """systemd keeps the other ends of a worker's pipes, so that only its silence tells."""
    server("mute", command="sh", args=["-c", "exec >&- 2>&-; sleep 1000"], timeouts={"start": 1, "stop": 0.2})
    server("deaf", command="sh", args=["-c", "exec <&-; sleep 1000"], timeouts={"start": 1, "stop": 0.2})
    broker.reload()
    for name in ("mute", "deaf"):
        assert failure(broker, name).name in ("HandshakeFailed", "LaunchFailed")
    wait_for(lambda: not any(f"of {name} for" in show(unit, "Description")
                             for unit in workers() for name in ("mute", "deaf")))


# A user's own systemd

@pytest.fixture(scope="session")
def user(installed):
    run("useradd", "-m", "-u", str(UID), "-s", "/bin/bash", "tester")
    run("systemctl", "start", f"user@{UID}.service")
    folder = Path("/home/tester/.config/mcp-exec/servers.d")
    run("runuser", "-u", "tester", "--", "mkdir", "-p", str(folder))
    return folder


def user_systemctl(*arguments, check=True):
    return run("runuser", "-u", "tester", "--", "env", f"XDG_RUNTIME_DIR=/run/user/{UID}",
               f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{UID}/bus", "systemctl", "--user", *arguments,
               check=check)


@system
def test_workers_of_a_users_own_systemd(user):
    (user / "mine.json").write_text(json.dumps({"command": PYTHON}))
    (user / "closed.json").write_text(json.dumps(
        {"command": PYTHON, "sandbox": {"PrivateNetwork": True, "ProtectHome": "tmpfs", "ProtectSystem": "strict",
                                        "PrivateTmp": True, "TasksMax": 10, "ReadOnlyPaths": ["/srv"]}}))
    (user / "refused.json").write_text(json.dumps({"command": PYTHON, "sandbox": {"IPAddressDeny": ["any"]}}))
    user_systemctl("set-environment", "SECRET_OF_SESSION=x")
    user_systemctl("start", "mcp-exec.service")
    caller = as_user("tester", f"unix:path=/run/user/{UID}/bus")
    assert caller.describe("mine")["launcher"] == "unit"
    facts = json.loads(python(caller, "mine", """
import json, os
print(json.dumps({"uid": os.getuid(), "home": os.listdir(os.environ["HOME"]) is not None, "cwd": os.getcwd(),
                  "environment": sorted(name for name in os.environ if not name.startswith("MCP_EXEC_")),
                  "status": open("/proc/self/status").read(),
                  "cgroup": open("/proc/self/cgroup").read(), "tasks": 0}))
"""))
    assert facts["uid"] == UID and facts["cwd"] == "/home/tester"
    assert facts["environment"] == ["HOME", "INVOCATION_ID", "LANG", "PATH"]
    assert "NoNewPrivs:\t1" in facts["status"] and "mcpexec.slice/mcp-exec-worker-" in facts["cgroup"]

    closed = json.loads(python(caller, "closed", """
import json, os
def attempt(f, *a):
    try:
        f(*a)
        return "done"
    except OSError as e:
        return e.strerror
print(json.dumps({"links": [l.split(":")[0].strip() for l in open("/proc/net/dev").readlines()[2:]],
                  "home": os.listdir("/home"), "etc": attempt(open, "/etc/x", "w"), "srv": attempt(open, "/srv/x", "w"),
                  "tmp": os.listdir("/tmp"), "user": os.readlink("/proc/self/ns/user")}))
"""))
    assert closed["links"] in (["lo"], []) and closed["home"] == []
    assert closed["srv"] == "Read-only file system" and closed["etc"] == "Read-only file system"
    assert closed["tmp"] == [] and closed["user"] != os.readlink("/proc/self/ns/user")
    error = failure(caller, "refused")
    assert error.name == "LaunchFailed" and "IPAddressDeny works on the system bus only" in error.message

    units = user_systemctl("list-units", "--no-legend", "--plain", "mcp-exec-worker-*").split()
    assert sum(unit.startswith("mcp-exec-worker-") for unit in units) == 2
    pid = int(user_systemctl("show", "-P", "MainPID", "mcp-exec.service"))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: "mcp-exec-worker" not in user_systemctl("list-units", "--no-legend", "mcp-exec-worker-*"), 1)
    caller.close()


# Memory and tasks, where the machine's controllers are there

@limits
def test_a_worker_that_takes_too_much_memory_dies_alone(broker):
    server("eater", sandbox={"MemoryMax": "64M"}, pool={"max": 1, "concurrency": 1})
    broker.reload()
    python(broker, "python", "x = 1")
    with fails("WorkerDied", "oom-kill"):
        broker.call_tool("eater", "run", {"code": "x = bytearray(500 << 20)"})
    assert python(broker, "python", "print(x)") == "1"
    assert python(broker, "eater", "print(2)") == "2"


@limits
def test_memory_is_weighed_by_the_cgroup(broker):
    server("heavy", recycle={"memory": 50 << 20}, pool={"max": 1, "concurrency": 1})
    broker.reload()
    python(broker, "heavy", "1")
    [before] = [worker["Id"] for worker in broker.workers("heavy")]
    time.sleep(1.1)
    python(broker, "heavy", "x = bytearray(80 << 20)")
    wait_for(lambda: before not in [worker["Id"] for worker in broker.workers("heavy")], 10)


@limits
def test_a_fork_bomb_ends_with_its_worker(broker):
    server("bomb", sandbox={"TasksMax": 20}, pool={"max": 1, "concurrency": 1})
    broker.reload()
    out = python(broker, "bomb", """
import os, time
n = 0
try:
    while n < 100:
        if os.fork() == 0:
            time.sleep(1000)
        n += 1
except OSError as e:
    print(e.strerror, n)
""")
    assert out.startswith("Resource temporarily unavailable") and int(out.split()[-1]) < 20
    unit = next(unit for unit in workers() if "of bomb for" in show(unit, "Description"))
    broker.stop_server("bomb")
    wait_for(lambda: unit not in workers(), 10)
