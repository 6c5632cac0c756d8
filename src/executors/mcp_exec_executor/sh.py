"""The shell executor: commands and scripts, each a process with all that it starts."""

from . import own_builtins as __builtins__  # noqa: F401

import os
import sys
from _signal import SIG_DFL, SIG_SETMASK, SIGCONT, SIGPIPE, SIGTERM, pthread_sigmask, signal, valid_signals
from os import _exit, chdir, execvpe, killpg, write

from .descriptors import connect_stdin
from .nursery import Child, Nursery
from .processes import PR_SET_DUMPABLE, limit_cpu
from .program import EXIT_CODE, FLAG, LEFT_BEHIND, MAX_OUTPUT, SECONDS, SIGNAL, STDIN, TEXT, TRUNCATED, Program, make_tool
from .protocol import INVALID_PARAMS, Refusal
from .setup import ORIGINAL_ARGV, read_concurrency

SHELL = "/bin/sh"
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells have it

ARGUMENTS = {
    "argv": {"type": "array", "items": TEXT, "minItems": 1,
             "description": "The command and its arguments, as they are: no shell reads them"},
    "script": {**TEXT, "description": "A script for /bin/sh, instead of argv"},
    "stdin": {**STDIN, "description": "What it reads from its standard input"},
    "env": {"type": "object", "additionalProperties": TEXT, "description": "Variables added to its environment"},
    "cwd": {**TEXT, "description": "The folder that it runs in; a relative one counts from where it would otherwise run"},
    "timeout": {**SECONDS, "description": "Seconds after which it is ended; no limit if left out"},
    "cpu_time": {**SECONDS, "description": "Seconds of CPU time of one process after which it is; no limit if left out"},
    "max_output": MAX_OUTPUT,
}
RESULT = {
    "stdout": TEXT,
    "stderr": TEXT,
    "exit_code": EXIT_CODE,
    "signal": SIGNAL,
    "truncated": TRUNCATED,
    "timed_out": FLAG,
    "left_behind": LEFT_BEHIND,
}
ABOUT = ("Runs a command (argv) or a script for /bin/sh (script) and returns what it printed and its exit status. "
         "With its end everything that it has started is ended.")


class Shell(Program):
    name, title, instructions = "mcp-exec-sh", "Shell", ABOUT
    tool = make_tool("Run a command or script", ABOUT, ARGUMENTS, [], RESULT)

    def check(self, arguments):
        if ("argv" in arguments) == ("script" in arguments):
            raise Refusal(INVALID_PARAMS, "one of argv and script is wanted")
        if not arguments.get("argv", SHELL)[0]:
            raise Refusal(INVALID_PARAMS, "argv names no command")
        texts = [*arguments.get("argv", ()), arguments.get("script", ""), arguments.get("cwd", "")]
        texts += [text for pair in arguments.get("env", {}).items() for text in pair]
        if any("\0" in text for text in texts):
            raise Refusal(INVALID_PARAMS, "no argument but stdin can have a NUL")
        if any(not name or "=" in name for name in arguments.get("env", ())):
            raise Refusal(INVALID_PARAMS, "env has a name that is empty or has a '='")

    def interrupt(self, pid):
        killpg(pid, SIGTERM)
        killpg(pid, SIGCONT)


class ShellChild(Child):
    """It becomes the command."""

    def prepare(self):
        import resource

        self.resource = resource
        return None

    def run(self, rehearse, folder, channel, stdout, stderr):
        self.connect(channel, stdout, stderr)
        arguments = self.read_message()["arguments"]
        self.prctl(PR_SET_DUMPABLE, 1)
        environment = dict(os.environ)
        if folder:
            environment["TMPDIR"] = os.fsdecode(folder)
        environment.update(arguments.get("env", {}))
        if "stdin" in arguments:
            connect_stdin(arguments["stdin"])
        argv = arguments.get("argv") or [SHELL, "-c", arguments["script"]]
        what = "cwd"
        try:
            if "cwd" in arguments:
                chdir(arguments["cwd"])
            if "cpu_time" in arguments:
                limit_cpu(self.resource, arguments["cpu_time"] + 1)
            for number in valid_signals():
                try:
                    signal(number, SIG_DFL)
                except (OSError, ValueError):
                    pass
            pthread_sigmask(SIG_SETMASK, ())
            what = argv[0]
            execvpe(argv[0], argv, environment)
        except (OSError, ValueError) as error:
            text = f"mcp-exec-sh: {arguments['cwd'] if what == 'cwd' else what}: {getattr(error, 'strerror', 0) or error}\n"
            write(2, text.encode("utf-8", "backslashreplace"))
            _exit(NOT_FOUND if isinstance(error, (FileNotFoundError, NotADirectoryError)) else NOT_EXECUTABLE)


def main(own_paths):
    if len(sys.argv) == 3 and sys.argv[1] == "--nursery":
        return Nursery(Shell.name, int(sys.argv[2]), ShellChild).serve()
    from .forking import ForkingSupervisor

    concurrency = read_concurrency()
    environment = {name: value for name, value in os.environb.items() if not name.startswith(b"MCP_EXEC_")}
    ForkingSupervisor(Shell(), concurrency, ORIGINAL_ARGV, environment).serve()
