"""The node executor: JavaScript in a process of Node.js that lasts for many calls, or for as long as it can be put back."""

from . import own_builtins as __builtins__  # noqa: F401

import os
import sys
from _signal import SIGCONT, SIGINT
from os import MFD_CLOEXEC, close, ftruncate, kill, lseek, memfd_create, posix_spawn, urandom, write

from .codec import encode
from .processes import is_running, list_children, list_children_of
from .program import (EXCEPTION_OR_NULL, EXIT_CODE, FLAG, LEFT_BEHIND, MAX_OUTPUT, SECONDS, SIGNAL, STDIN, TEXT,
                      TRUNCATED, Program, make_tool, timeout_error)
from .runner import Runner
from .setup import Setup
from .supervisor import Supervisor

RUNNER = __file__.rpartition("/")[0] + "/runner.js"
STARTS_MAX = 3  # in a row that end before they take a call
ARGUMENTS = {
    "code": {**TEXT, "description": "The JavaScript code"},
    "stdin": {**STDIN, "description": "What the code reads from its standard input"},
    "timeout": {**SECONDS, "description": "Seconds after which the code is interrupted; no limit if left out"},
    "cpu_time": {**SECONDS, "description": "Seconds of CPU time after which it is; no limit if left out"},
    "max_output": MAX_OUTPUT,
}
RESULT = {
    "stdout": TEXT,
    "stderr": TEXT,
    "value": {"type": ["string", "null"], "description": "util.inspect() of the last statement's value, or of what it "
                                                         "promises; null if that is undefined"},
    "exception": EXCEPTION_OR_NULL,
    "exit_code": EXIT_CODE,
    "signal": SIGNAL,
    "truncated": TRUNCATED,
    "timed_out": FLAG,
    "left_behind": LEFT_BEHIND,
}
SHARED = "Calls that reach the same process share its variables and modules."
ALONE = "Each call begins anew: nothing is left of the calls before it."


class Node(Program):
    name, title = "mcp-exec-node", "Node.js"

    def __init__(self, isolation):
        self.isolation = isolation
        state = SHARED if isolation == "shared" else ALONE
        self.instructions = f"Runs JavaScript code in Node.js. {state}"
        self.tool = make_tool(
            "Run JavaScript code",
            "Runs JavaScript code in Node.js and returns what it printed, the value of its last statement (awaited, if it "
            f"is a promise), and the exception if it threw one. {state}", ARGUMENTS, ["code"], RESULT)

    def message(self, call, runner):
        return {"code": call.arguments["code"]}

    def interrupt(self, pid):
        kill(pid, SIGINT)
        kill(pid, SIGCONT)

    def take_frame(self, call, frame):
        super().take_frame(call, frame)
        if call.timed_out:
            call.exception = timeout_error(call)
        if frame.get("spent") is True:
            self.tell_of_end(call, "the code closed its standard streams, and its process was ended")

    def take_end(self, call):
        if call.timed_out:
            call.exception = timeout_error(call)
        self.tell_of_end(call, "its process was ended" if call.signal else "the code ended its process")

    def tell_of_end(self, call, text):
        call.note = text + (", and with it what earlier calls had left" if self.isolation == "shared" else "")


class NodeRunner(Runner):
    """Lasts for many calls. Its standard input is a file that is filled for each."""

    def __init__(self, number):
        super().__init__(number)
        self.own_child, self.ready = True, False
        self.secret = urandom(16)  # for the word that it is ready
        self.has_children = False
        self.calls = 0
        self.stdin = memfd_create("stdin", MFD_CLOEXEC)

    def pack(self, message):
        return encode({**message, "secret": self.secret.hex()}).encode("utf-8", "replace") + b"\n"

    def fill_stdin(self, text):
        ftruncate(self.stdin, 0)
        lseek(self.stdin, 0, os.SEEK_SET)
        data = text.encode("utf-8", "replace")
        while data:
            data = data[write(self.stdin, data) :]
        lseek(self.stdin, 0, os.SEEK_SET)  # its own position, too

    def close(self):
        close(self.stdin)
        super().close()


class NodeSupervisor(Supervisor):
    def __init__(self, program, setup, node):
        super().__init__(program, 1)
        self.isolation, self.environment, self.node = setup.isolation, setup.environ, node
        self.runner = None
        self.failed_starts = 0

    def prepare(self):
        super().prepare()
        if self.isolation != "shared" and self.scratch.path:
            self.environment[b"TMPDIR"] = os.fsencode(self.scratch.path)

    def tend(self):
        if not self.runner:
            self.start_runner()

    def start_runner(self):
        self.count += 1
        runner = self.runner = NodeRunner(self.count)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number)
                   for number, fd in enumerate([runner.stdin, *runner.fds_for_child()[1:], runner.theirs])]
        pid = posix_spawn(self.node, [self.node, RUNNER, self.isolation, runner.secret.hex()], self.environment, file_actions=actions,
                          setsid=True, setsigmask=(), setsigdef=range(1, 32))
        runner.close_child_fds()
        self.runners.add(runner)
        self.watch(runner.started(pid), lambda events: self.on_exit(runner))
        self.watch(runner.channel, lambda events: self.on_channel(runner, events))
        for capture in runner.captures:
            self.watch(capture.reader, lambda events, capture=capture: self.on_print(runner, capture))

    def on_print(self, runner, capture):
        """All the time: what is printed between calls must not fill the pipe."""
        self.on_output(capture)
        if not runner.call and runner.ready:
            capture.reset()

    def assign(self):
        runner = self.runner
        if self.waiting and runner and runner.ready and not runner.ending:
            for capture in runner.captures:
                capture.drain()
                capture.reset()
            call = self.waiting.pop(0)
            runner.ready, runner.answered = False, False
            runner.calls += 1
            runner.fill_stdin(call.arguments.get("stdin", ""))
            self.give(runner, call)
            call.watched = True

    def cancel_running(self, runner):
        if runner.call.interrupted_at is None:
            self.interrupt(runner, runner.call.begun)

    def on_frame(self, runner, frame):
        if "ready" not in frame:
            if self.isolation == "reset" and runner.call and not runner.answered:
                self.count_children(runner, frame)
            return super().on_frame(runner, frame)
        self.failed_starts = 0
        if frame["ready"] is True and not runner.call and not runner.has_children:
            runner.ready = True
            self.assign()
        else:
            self.end(runner)  # it can't be put back: the next one is started

    def count_children(self, runner, frame):
        """Those that have lost their parent are ours."""
        orphans = set(list_children()) - {runner.pid}
        running = [pid for pid in [*list_children_of(runner.pid), *orphans] if is_running(pid)]
        if running:
            left = frame.get("left_behind")
            frame["left_behind"] = {**(left if isinstance(left, dict) else {}), "processes": len(running)}
        runner.has_children = bool(running)

    def release(self, runner):
        runner.call = None
        if self.isolation == "reset":
            self.scratch.empty()

    def on_channel(self, runner, events):
        super().on_channel(runner, events)
        while runner.received and not runner.ending:
            before = len(runner.received)
            super().on_channel(runner, events)
            if len(runner.received) == before:
                break

    def forget(self, runner):
        super().forget(runner)
        self.runner = None
        if not runner.calls:
            self.failed_starts += 1
            if self.failed_starts >= STARTS_MAX:
                runner.drain()
                said = runner.captures[1].text(4096)[0]
                self.die(f"{self.node} does not start:\n{said}".rstrip())


def find_node(environment):
    for folder in os.fsdecode(environment.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin")).split(":"):
        for name in "node", "nodejs":
            if folder and os.access(f"{folder}/{name}", os.X_OK):
                return f"{folder}/{name}"
    return None


def main(own_paths):
    try:
        setup = Setup(own_paths, isolations=("shared", "reset", "fresh"))
    except ValueError as error:
        sys.exit(f"mcp-exec-node: {error}")
    node = find_node(setup.environ)
    if not node:
        sys.exit("mcp-exec-node: PATH has neither node nor nodejs: install Node.js 18 or newer")
    for name in [name for name in setup.environ if name.startswith(b"MCP_EXEC_")]:
        del setup.environ[name]
    NodeSupervisor(Node(setup.isolation), setup, node).serve()
