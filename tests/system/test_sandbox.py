"""What code in a worker can reach, seen from inside: run by the Python executor as its callers run theirs."""

import json
import os
import re
import socket
from contextlib import closing
from pathlib import Path

import pytest

from caller import fails
from machine import (CONFIG, cgroup_of, main_process, python_json, python_text, show, tool_json, uid, uid_of, unit_of,
                     worker_units)
from waiting import eventually

# In the worker: what an attempt ends in, as a word.
ATTEMPT = """
def attempt(action, *arguments):
    try:
        return action(*arguments)
    except OSError as error:
        return type(error).__name__
    except Exception as error:
        return str(error)
"""
CLOSED = ("FileNotFoundError", "PermissionError")


def attempt(caller, expression, server="python"):
    """What the expression is in the worker, or the name of the OSError that it ends in."""
    return python_json(caller, f"{ATTEMPT}\nimport os\nanswer = attempt(lambda: {expression})", server)


def test_its_uid_is_its_own(alice):
    ids = python_json(alice, "import os; answer = [*os.getresuid(), *os.getresgid()]")
    assert len(set(ids)) == 1
    assert 61184 <= ids[0] <= 65519
    assert python_json(alice, "import os; answer = os.getgroups()") in ([], [ids[0]])


@pytest.mark.parametrize("path", ["/home/alice/secret", "/root/secret", "/run/user/0/secret"])
def test_it_cannot_read_homes(machine, alice, path):
    """Not even what their users have opened for all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.parent.stat().st_mode
    path.parent.chmod(0o755)
    path.write_text("a secret")
    path.chmod(0o644)
    try:
        assert attempt(alice, f"open({str(path)!r}).read()") in CLOSED
        listed = attempt(alice, f"os.listdir({str(path.parent)!r})")
        assert listed in CLOSED or listed == []
    finally:
        path.unlink()
        path.parent.chmod(old)


def test_it_cannot_reach_the_brokers_memory(machine, alice):
    python_text(alice, "")
    broker = machine.broker().pid
    for name in ("mem", "maps", "environ", "fd", "root", "cwd"):
        read = "os.listdir" if name == "fd" else "os.readlink" if name in ("root", "cwd") else "open"
        said = attempt(alice, f"str({read}('/proc/{broker}/{name}'))")
        assert said in CLOSED, (name, said)
    assert attempt(alice, f"os.kill({broker}, 0)") in ("PermissionError", "ProcessLookupError")
    traced = python_json(alice, f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
answer = [libc.ptrace(16, {broker}, 0, 0), ctypes.get_errno()]
""") if attempt(alice, "__import__('ctypes') and 1") == 1 else [-1, 1]
    assert traced[0] == -1


def test_it_sees_no_process_but_its_own(machine, alice, bob):
    python_text(bob, "")
    seen = python_json(alice, "import os; answer = [int(name) for name in os.listdir('/proc') if name.isdigit()]")
    own = machine.worker("python", "alice")["Pid"]
    assert own in seen
    assert machine.broker().pid not in seen
    assert machine.worker("python", "bob")["Pid"] not in seen
    assert 1 not in seen


def test_it_cannot_reach_another_workers_files(machine, alice, bob):
    """Wherever the other could write one: its home, its working directory, its temporary folders."""
    written = python_json(alice, """
import os, tempfile
answer = []
for folder in {os.environ.get("HOME", "/"), os.getcwd(), tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm", "/run"}:
    path = os.path.join(folder, "secret-of-alice")
    try:
        with open(path, "w") as file:
            file.write("a secret")
        os.chmod(path, 0o644)
        answer.append(path)
    except OSError:
        pass
""")
    assert written, "it can write nowhere"
    other = machine.worker("python", "alice")["Pid"]
    python_text(bob, "")
    for path in written:
        assert attempt(bob, f"open({path!r}).read()") in CLOSED, path
        assert attempt(bob, f"open('/proc/{other}/root{path}').read()") in CLOSED, path
    assert attempt(bob, f"os.kill({other}, 0)") in ("PermissionError", "ProcessLookupError")
    # And nothing of it is left for a later worker.
    machine.root.stop_server("python")
    eventually(lambda: not worker_units(), "the workers are gone")
    for path in written:
        assert attempt(alice, f"open({path!r}).read()") == "FileNotFoundError", path
        assert not Path(path).exists()


CONNECT = "socket.create_connection(('127.0.0.1', {port}), timeout=3)"


def test_it_has_no_network(machine, alice):
    """Where root's own server may have one, which shows that there is something to be kept from."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, \
            closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as abstract:
        abstract.bind(f"\0mcp-exec-test-{os.getpid()}")
        abstract.listen()
        port = listener.getsockname()[1]
        code = f"{ATTEMPT}\nimport socket\nanswer = attempt(lambda: {CONNECT.format(port=port)} and 'connected')"
        assert python_json(alice, code) != "connected"
        name = f"\\0mcp-exec-test-{os.getpid()}"
        said = attempt(alice, f"__import__('socket').socket(1, 1).connect('{name}')")
        assert said in ("ConnectionRefusedError", "PermissionError", "OSError"), said
        machine.python("networked", sandbox={"PrivateNetwork": False})
        assert python_json(machine.root, code, "networked") == "connected"
    links = python_json(alice, "answer = [line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line]")
    assert links in ([], ["lo"])


def test_it_has_no_privilege_and_no_way_to_one(machine, alice):
    lines = python_json(alice, "answer = open('/proc/self/status').read().splitlines()")
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for expression in ("os.setuid(0)", "os.mount", "os.unshare(0x10000000)", "os.chroot('/')"):
        said = attempt(alice, expression)
        assert said in ("PermissionError", "OSError") or "no attribute" in said, (expression, said)


def test_it_writes_nowhere_else(alice):
    for folder in ("/usr", "/etc", "/etc/mcp-exec/servers.d", "/run", "/run/mcp-exec", "/run/mcp-exec/broker", "/var/lib", "/boot",
                   "/sys/fs/cgroup", "/proc/sys/kernel", "/"):
        said = attempt(alice, f"open('{folder}/mcp-exec-test', 'w') and 'written'")
        assert said in ("PermissionError", "OSError", "FileNotFoundError"), (folder, said)
        assert not Path(folder, "mcp-exec-test").exists()


def test_it_inherits_three_pipes_and_a_clean_environment(machine, alice):
    machine.obedient(access={"users": ["alice"]}, env={"GIVEN": "value"})
    seen = tool_json(alice, "obedient", "surroundings")
    assert seen["env"]["GIVEN"] == "value"
    allowed = {"GIVEN", "PATH", "LANG", "HOME", "INVOCATION_ID", "USER", "LOGNAME", "SHELL", "TMPDIR", "LC_CTYPE",
               "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "SYSTEMD_EXEC_PID", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE"}
    assert set(seen["env"]) <= allowed, set(seen["env"]) - allowed
    led = {number: re.sub(r"\d+", "N", path) for number, path in seen["fds"].items() if not path.startswith("/proc/")}
    assert led == {"0": "pipe:[N]", "1": "pipe:[N]", "2": "pipe:[N]"}
    broker = {os.readlink(path) for path in Path(f"/proc/{machine.broker().pid}/fd").iterdir()}
    assert {seen["fds"][number] for number in "012"} <= broker


def test_its_unit_is_as_described(machine, alice):
    """A transient unit in the slice, bound to the broker, with the limits that Describe shows."""
    python_text(alice, "")
    unit = unit_of(machine.worker("python"))
    assert unit in worker_units()
    assert f"/mcpexec.slice/{unit}" in cgroup_of(main_process(unit).pid)
    assert "mcp-exec.service" in show(unit, "BindsTo").split()
    for name, value in (("DynamicUser", "yes"), ("PrivateNetwork", "yes"), ("NoNewPrivileges", "yes"), ("ProtectHome", "yes"),
                        ("ProtectSystem", "strict"), ("CollectMode", "inactive-or-failed"), ("Transient", "yes")):
        assert show(unit, name) == value, name
    for name in ("MemoryMax", "TasksMax"):
        assert show(unit, name) not in ("infinity", ""), name


def test_keys_of_the_sandbox_change_the_unit(machine, alice):
    machine.python("small", access={"users": ["alice"]}, sandbox={"MemoryMax": "100M", "TasksMax": 7, "Nice": 5})
    python_text(alice, "", "small")
    unit = unit_of(machine.worker("small"))
    assert (show(unit, "MemoryMax"), show(unit, "TasksMax"), show(unit, "Nice")) == (str(100 * 1024 * 1024), "7", "5")
    described = machine.root.describe("small")
    assert described["launcher"] == "unit"
    assert described["sandbox"]["TasksMax"] == 7


FORBIDDEN = [
    ("User", "root"), ("DynamicUser", False), ("ExecStartPre", "/bin/true"), ("AmbientCapabilities", "CAP_SYS_ADMIN"),
    ("CapabilityBoundingSet", "CAP_SYS_ADMIN"), ("NoNewPrivileges", False), ("NoSuchProperty", 1), ("BindsTo", ""),
    ("SupplementaryGroups", ["shadow"]), ("MemoryMax", "a lot"), ("TasksMax", -1), ("PrivateNetwork", "perhaps"),
    ("ProtectSystem", "a\nb\x1b[31m"), ("a\nb\x1b[31m", 1), ("Environment", "LD_PRELOAD=/tmp/x"), ("RootDirectory", "/tmp"),
    ("Slice", "system.slice"), ("StandardInputFileDescriptor", 0), ("OnFailure", "poweroff.target"), ("Group", "shadow"),
    ("Delegate", True),
]


def test_forbidden_keys_are_named_with_their_line(machine):
    """And their servers aren't there, rather than there without a sandbox."""
    lines = {}
    for number, (key, value) in enumerate(FORBIDDEN):
        text = json.dumps({"command": "/bin/cat", "sandbox": {key: value}}, indent=1)
        lines[number] = next(line for line, one in enumerate(text.split("\n"), 1) if json.dumps(key) in one)
        (CONFIG / f"servers.d/bad-{number}.json").write_text(text)
    problems = dict(machine.root.reload())
    for number, (key, _) in enumerate(FORBIDDEN):
        problem = problems[str(CONFIG / f"servers.d/bad-{number}.json")]
        assert problem.startswith(f"{lines[number]}:"), problem
        assert problem.isprintable()
        assert key in problem or not key.isprintable()
        with fails("NoSuchServer"):
            machine.root.call(f"bad-{number}", "ping")


def test_others_cannot_put_a_server_there(machine, alice):
    """A file that somebody else than root can write isn't read: neither by the broker nor by the launcher."""
    machine.echo()
    for owner, mode in ((uid("alice"), 0o644), (0, 0o666), (uid("mcp-exec"), 0o644)):
        file = CONFIG / "servers.d/planted.json"
        file.write_text(json.dumps({"command": "/usr/bin/id"}))
        os.chown(file, owner, 0)
        file.chmod(mode)
        problems = machine.root.reload()
        file.unlink()
        assert problems or owner == uid("mcp-exec")
        if owner == uid("mcp-exec") and not problems:
            # The broker trusts itself; root doesn't trust the broker.
            with fails(("LaunchFailed", "NoSuchServer")):
                machine.root.call("planted", "ping")
        else:
            with fails("NoSuchServer"):
                machine.root.call("planted", "ping")


def test_a_secret_is_never_shown(machine, alice):
    """Not in Describe, errors, the journal, nor in what others can read of the unit."""
    secret = "hunter2-is-the-secret"
    machine.obedient(access={"users": ["alice"]}, env={"TOKEN": secret})
    assert tool_json(alice, "obedient", "surroundings")["env"]["TOKEN"] == secret
    assert secret not in json.dumps(machine.root.describe("obedient"))
    with fails("WorkerDied") as caught:
        alice.call_tool("obedient", "end", {"status": 3})
    assert secret not in str(caught[0])
    assert secret not in json.dumps(machine.journal())


def test_the_broker_itself_is_no_way_in(machine, alice):
    """The worker's uid can neither connect to the broker's folder nor signal the broker nor trace it."""
    python_text(alice, "")
    worker = machine.worker("python")
    assert uid_of(worker["Pid"]) != uid_of(machine.broker().pid)
    assert attempt(alice, "os.listdir('/run/mcp-exec/broker')") in CLOSED
