"""mcp-execd on a private bus: its configuration, its process, and what it leaves behind."""

import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import processes
from caller import NAME, Caller
from hand_over import ListeningSocket
from private_bus import LIMITS, PrivateBus
from processes import Process
from waiting import SLOWNESS, eventually

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MCP_EXEC_BUILD", REPO / "build"))
DAEMON = os.environ.get("MCP_EXECD", str(BUILD / "src/mcp-execd"))
ECHO_WORKER = os.environ.get("ECHO_WORKER", str(BUILD / "tests/workers/echo-worker"))
BULK_WORKER = str(BUILD / "tests/bus/bulk-worker")
PYTHON = "/usr/bin/python3"
# Under a sanitizer memory says nothing: it is not given back at once.
SANITIZED = Path(DAEMON).exists() and b"__asan_init" in Path(DAEMON).read_bytes()
OBEDIENT_WORKER = str(REPO / "tests/bus/obedient_worker.py")
HAND_OVER = str(REPO / "tests/lib/hand_over.py")


class Service:
    """One bus, one configuration, and the daemons that run on them one after another.

    The bus starts the daemon at the first call. Everything that is started carries a token in its
    environment, which is how close() finds what was left behind.

    private: the daemon is handed the listening socket behind private_address, as systemd would, however it is started.
    fds: its RLIMIT_NOFILE. bus_limits: see PrivateBus.
    """

    def __init__(self, folder, idle_timeout=60, log_level="debug", system=False, kind=None, private=False, fds=None, bus_limits=LIMITS):
        self.folder = folder
        self.idle_timeout = idle_timeout
        self.log_level = log_level
        self.system = system
        self.token = f"mcp-exec-test-{uuid.uuid4().hex}"
        self.config = folder / "config"
        self.config_dirs = [self.config]
        self.runtime = folder / "runtime"
        self.cache = folder / "cache"
        self.log_file = folder / "mcp-execd.log"
        self.leaves_behind = False  # set by a test that expects to find something afterwards
        (self.config / "servers.d").mkdir(parents=True)
        self.runtime.mkdir(mode=0o700)
        self.cache.mkdir(mode=0o700)
        folder.chmod(0o755)
        self.config.chmod(0o755)
        self.bus = PrivateBus(folder / "private-bus", kind, bus_limits)
        self.private = ListeningSocket(folder) if private else None
        self.fds = fds
        self.activated = True  # by the bus, at the first call; otherwise by run_directly() alone
        self.more_environment = {}  # for the daemon; set it before the bus is started
        self._start_script = folder / "start"
        self._callers = []
        self._private_callers = []
        self._daemons = {}
        self._direct = []
        self._started = False
        self._open_folder = None
        self._private_is_open = False

    # Configuration

    def server(self, name, command, *args, folder=None, **keys):
        """Write servers.d/NAME.json; keys are those of the file."""
        keys["env"] = {"MCP_EXEC_TEST": self.token, **keys.get("env", {})}
        text = json.dumps({"command": str(command), "args": [str(arg) for arg in args], **keys}, indent=2)
        return self.write(f"servers.d/{name}.json", text, folder)

    def obedient(self, name="obedient", *args, **keys):
        """A server that does what its calls say: see obedient_worker.py."""
        return self.server(name, PYTHON, OBEDIENT_WORKER, *args, **keys)

    def echo(self, name="echo", *args, **keys):
        """A server that answers at once."""
        return self.server(name, ECHO_WORKER, *args, **keys)

    def bulk(self, name="bulk", *args, **keys):
        """A server for large payloads: see bulk_worker.c."""
        return self.server(name, BULK_WORKER, *args, **keys)

    def settings(self, **keys):
        return self.write("mcp-exec.json", json.dumps(keys))

    def write(self, name, text, folder=None):
        """Put a file into a configuration folder, in one step as an editor does."""
        path = (folder or self.config) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        if isinstance(text, bytes):
            part.write_bytes(text)
        else:
            part.write_text(text)
        part.chmod(0o644)
        part.replace(path)
        return path

    def add_config_dir(self, name):
        """A further --config-dir, of lower precedence than those before."""
        path = self.folder / name
        (path / "servers.d").mkdir(parents=True)
        self.config_dirs.append(path)
        self._write_start_script()
        return path

    # The bus and the daemon

    def arguments(self):
        before = ["/usr/bin/prlimit", f"--nofile={self.fds}"] if self.fds else []
        before += [PYTHON, HAND_OVER, self.private.counter] if self.private else []
        return [*before, DAEMON, *([] if self.system else ["--user"]), *(f"--config-dir={path}" for path in self.config_dirs),
                f"--idle-timeout={self.idle_timeout}", f"--log-level={self.log_level}"]

    def environment(self):
        variable = "DBUS_SYSTEM_BUS_ADDRESS" if self.system else "DBUS_SESSION_BUS_ADDRESS"
        return {
            variable: self.bus.address,
            "MCP_EXEC_TEST": self.token,
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_CACHE_HOME": str(self.cache),
            "CACHE_DIRECTORY": str(self.cache / "mcp-exec"),
            "ASAN_OPTIONS": f"log_path={self.folder}/sanitizer:abort_on_error=0:detect_leaks=1",
            "UBSAN_OPTIONS": f"log_path={self.folder}/sanitizer:print_stacktrace=1",
            **self.more_environment,
        }

    def start_bus(self):
        if self._started:
            return
        self._started = True
        self._write_start_script()
        if self.activated:
            self.bus.activate_by(NAME, str(self._start_script))
        self.bus.start()

    def restart_bus(self):
        """Another bus at the address of the one that was stopped. Connections to that one are of no use any more."""
        for caller in self._callers:
            caller.close()
        self.bus.start()

    def _write_start_script(self):
        """What the bus runs to start the daemon."""
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in self.environment().items())
        command = f"exec {shlex.join(self.arguments())} 2>>{shlex.quote(str(self.log_file))}"
        self._start_script.write_text(f"#!/bin/sh\n{exports}{command}\n")
        self._start_script.chmod(0o755)

    def let_others_in(self):
        """Make the bus's socket, and the rest, reachable for other users: the temporary folders above are closed to them.
        The socket gets a second path, for every pytest that starts closes the folder that it shares with this one."""
        self._open_folder = self._open_folder or Path(tempfile.mkdtemp(prefix="mcp-exec-test-"))
        self._open_folder.chmod(0o711)
        try:
            os.link(self.bus.socket, self._open_folder / "bus")
            self.bus.address = f"unix:path={self._open_folder}/bus"
            if self.private:
                os.link(self.private.path, self._open_folder / "private")
                self._private_is_open = True
        except OSError:
            pass  # another file system: the first path has to do
        for folder in [self.bus.folder, *self.bus.folder.parents]:
            if folder.stat().st_uid == os.getuid() and folder != Path(tempfile.gettempdir()) and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)

    def _spawn(self, user=None):
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **self.environment()}
        with open(self.log_file, "ab") as log:
            daemon = subprocess.Popen(self.arguments(), env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                      stderr=log, start_new_session=True, user=user, group=user,
                                      extra_groups=None if user is None else [])
        self._direct.append(daemon)
        return daemon

    def run_directly(self, user=None):
        """Start the daemon without activation, as another user if one is named, and wait until it has its name.
        Returns the Popen."""
        self.start_bus()
        if user is not None:
            self.folder.chmod(0o777)  # for what a sanitizer has to say
        daemon = self._spawn(user)
        try:
            eventually(lambda: self.daemon() or daemon.poll() is not None, "the daemon has its name")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_text()[-3000:]}") from None
        return daemon

    @contextmanager
    def started_by_connections(self):
        """Start a daemon whenever one connects to the private socket and none is there, as systemd does. Yields the list of
        those that were started."""
        daemons, over = [], threading.Event()

        def activate():
            while not over.is_set():
                waiting = select.select([self.private.socket], [], [], 0.05)[0]
                if waiting and (not daemons or daemons[-1].poll() is not None):
                    daemons.append(self._spawn())
                time.sleep(0.005)

        thread = threading.Thread(target=activate)
        thread.start()
        try:
            yield daemons
        finally:
            over.set()
            thread.join()

    def caller(self, uid=None, groups=()):
        """A new connection to the bus, of another user if one is named (let_others_in() first)."""
        self.start_bus()
        caller = Caller(self.bus.address, uid=uid, groups=groups)
        self._callers.append(caller)
        return caller

    @property
    def private_address(self):
        return f"unix:path={self._open_folder / 'private' if self._private_is_open else self.private.path}"

    def private_caller(self, uid=None):
        """A new connection to the private socket, without the bus between. The daemon has to be running."""
        caller = Caller(self.private_address, uid=uid)
        self._private_callers.append(caller)
        return caller

    def _watch(self):
        if not self._callers or self._callers[0].closed:
            self._callers.insert(0, Caller(self.bus.address))
        return self._callers[0]

    def daemon(self):
        """The daemon that owns the name now, or None; does not start it."""
        pid = self._watch().service_pid()
        process = Process.of(pid) if pid else None
        if process:
            self._daemons[process.pid, process.started] = process
        return process

    @property
    def pid(self):
        """The running daemon's pid; fails where there is none."""
        daemon = self.daemon()
        assert daemon, f"no daemon is running\n{self.log_text()[-3000:]}"
        return daemon.pid

    def wait_gone(self, daemon, timeout=15):
        eventually(lambda: not daemon.alive(), f"daemon {daemon.pid} has left", timeout)

    def started(self):
        """Every process that this service started and that still runs, daemons included."""
        return processes.marked(self.token)

    def worker_processes(self):
        daemons = {(process.pid, process.started) for process in self._daemons.values()}
        return [process for process in self.started()
                if (process.pid, process.started) not in daemons and DAEMON not in process.command()]

    def open_fds(self):
        return processes.open_fds(self.pid)

    def private_memory(self):
        return processes.private_memory(self.pid)

    def log_text(self):
        """What the daemon logged, to stderr or to the journal."""
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        if os.path.exists("/run/systemd/journal/socket"):
            for pid, _ in self._daemons:
                text += subprocess.run(["journalctl", "--output=export", "--no-pager", f"_PID={pid}"], capture_output=True,
                                       text=True, errors="replace", timeout=60).stdout
        return text

    def sanitizer_reports(self):
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("sanitizer.*"))

    # The end

    def close(self):
        """Stop everything; fail if something was left behind or a sanitizer had something to say."""
        problems = []
        if self._started:
            try:
                self.daemon()
            except Exception as error:
                problems.append(f"the bus does not answer: {error}")
            for caller in self._callers + self._private_callers:
                caller.close()
            problems += self._stop_daemons()
            problems += self._kill_leftovers()
            self.bus.stop()
        if self._open_folder:
            shutil.rmtree(self._open_folder)
        if self.private:
            self.private.close()
        reports = self.sanitizer_reports()
        if reports:
            problems.append(f"sanitizer reports:\n{reports[:20000]}")
        assert not problems, "\n".join(problems)

    def _stop_daemons(self):
        problems = []
        running = [process for process in self.started() if DAEMON in process.command()]
        for process in running:
            process.kill(signal.SIGCONT)
            process.kill(signal.SIGTERM)
        deadline = time.monotonic() + 20 * SLOWNESS
        for process in running:
            while process.alive() and time.monotonic() < deadline:
                self._reap()
                time.sleep(0.005)
            if process.alive():
                where = {name: Path(f"/proc/{process.pid}/{name}").read_text(errors="replace").strip()[:600]
                         for name in ("wchan", "syscall", "status") if Path(f"/proc/{process.pid}/{name}").exists()}
                problems.append(f"SIGTERM does not stop the daemon {process}: {where}\n{self.log_text()[-3000:]}")
                process.kill()
        self._reap()
        return problems

    def _reap(self):
        for daemon in self._direct:
            daemon.poll()

    def _kill_leftovers(self):
        """What is dying may take a moment to be gone, no more."""
        deadline = time.monotonic() + 1 * SLOWNESS
        while (left := self.started()) and time.monotonic() < deadline:
            time.sleep(0.01)
        for process in left:
            process.kill(signal.SIGCONT)
            process.kill()
        if left and not self.leaves_behind:
            return ["left behind: " + ", ".join(str(process) for process in left)]
        return []
