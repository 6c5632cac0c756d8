"""Running mcp-exec, with pipes or on a terminal."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time

from service import BUILD
from waiting import SLOWNESS

PROGRAM = os.environ.get("MCP_EXEC", str(BUILD / "src/mcp-exec"))
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"[{self.status}] out: {self.out!r} err: {self.err!r}"


class Terminal:
    """mcp-exec on a terminal of 80 columns."""

    def __init__(self, command, environment):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(command, env=environment, cwd=environment["HOME"], stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        os.set_blocking(self.master, False)
        self.raw = b""

    def read(self):
        try:
            data = os.read(self.master, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False  # the program has closed it
        self.raw += data
        return bool(data)

    @property
    def text(self):
        return self.raw.decode(errors="replace").replace("\r\n", "\n")

    def type(self, keys):
        os.write(self.master, keys.encode())

    def wait_for(self, pattern, timeout=20):
        deadline = time.monotonic() + timeout * SLOWNESS
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline and (self.read() or re.search(pattern, self.text)), \
                f"no {pattern!r} in {self.text!r}"
            time.sleep(0.01)

    def wait(self, timeout=30):
        deadline = time.monotonic() + timeout * SLOWNESS
        while self.read() or self.process.poll() is None:
            if time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"mcp-exec does not end: {self.text!r}")
            time.sleep(0.01)
        return self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.master)


class CommandLine:
    def __init__(self, service, home):
        self.service, self.home = service, home
        self._terminals = []

    @property
    def environment(self):
        self.service.start_bus()
        settings = {key: value for key, value in self.service.environment().items() if key != "MCP_EXEC_TEST"}
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8", "TERM": "xterm",
                "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere/system", **settings}

    def __call__(self, *arguments, stdin="", timeout=60, **environment):
        """Run it to its end; its output has no terminal."""
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        done = subprocess.run([PROGRAM, *map(str, arguments)], env={**self.environment, **environment}, input=data,
                              capture_output=True, timeout=timeout * SLOWNESS, cwd=self.home)
        return Result(done.returncode, done.stdout.decode(errors="surrogateescape"),
                      done.stderr.decode(errors="surrogateescape"))

    def start(self, *arguments):
        return subprocess.Popen([PROGRAM, *map(str, arguments)], env=self.environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.home)

    def on_terminal(self, *arguments, **environment):
        terminal = Terminal([PROGRAM, *map(str, arguments)], {**self.environment, **environment})
        self._terminals.append(terminal)
        return terminal

    def close(self):
        for terminal in self._terminals:
            terminal.close()
