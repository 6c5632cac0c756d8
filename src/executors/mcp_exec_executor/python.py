"""The Python executor."""

from . import own_builtins as __builtins__  # noqa: F401

import sys
from _signal import SIGCONT, SIGXCPU
from os import kill

from .program import (EXCEPTION_OR_NULL, EXIT_CODE, FLAG, LEFT_BEHIND, MAX_OUTPUT, SECONDS, SIGNAL, STDIN, TEXT,
                      TRUNCATED, Program, make_tool, timeout_error)
from .setup import ORIGINAL_ARGV, Setup

ARGUMENTS = {
    "code": {**TEXT, "description": "The Python code"},
    "stdin": {**STDIN, "description": "What the code reads from its standard input"},
    "timeout": {**SECONDS, "description": "Seconds after which the code is interrupted; no limit if left out"},
    "cpu_time": {**SECONDS, "description": "Seconds of CPU time after which it is; no limit if left out"},
    "max_output": MAX_OUTPUT,
}
RESULT = {
    "stdout": TEXT,
    "stderr": TEXT,
    "value": {"type": ["string", "null"], "description": "repr() of the last expression's value; null if it has none"},
    "exception": EXCEPTION_OR_NULL,
    "exit_code": EXIT_CODE,
    "signal": SIGNAL,
    "truncated": TRUNCATED,
    "timed_out": FLAG,
    "left_behind": LEFT_BEHIND,
}
SHARED = "Calls that reach the same interpreter share its variables, functions and imports."
ALONE = "Each call begins anew: nothing is left of the calls before it."


class Python(Program):
    name, title = "mcp-exec-python", "Python"

    def __init__(self, isolation):
        state = SHARED if isolation == "shared" else ALONE
        self.instructions = f"Runs Python code. {state}"
        self.tool = make_tool(
            "Run Python code",
            "Runs Python code and returns what it printed, the value of its last expression, and the exception if it "
            f"raised one. {state}", ARGUMENTS, ["code"], RESULT)

    # -- For calls in other processes

    def interrupt(self, pid):
        kill(pid, SIGXCPU)
        kill(pid, SIGCONT)

    def take_end(self, call):
        if call.timed_out:
            call.exception = timeout_error(call)
        elif not call.signal:
            call.note = "the code ended its process"


def main(own_paths):
    try:
        setup = Setup(own_paths)
    except ValueError as error:
        sys.exit(f"mcp-exec-python: {error}")
    if len(sys.argv) == 3 and sys.argv[1] == "--nursery":
        from .forked import PythonChild
        from .nursery import Nursery

        return Nursery(Python.name, int(sys.argv[2]), lambda nursery: PythonChild(setup, nursery)).serve()
    program = Python(setup.isolation)
    if setup.isolation == "fork":
        from .forking import ForkingSupervisor

        return ForkingSupervisor(program, setup.concurrency, ORIGINAL_ARGV, setup.environ).serve()
    setup.provide_site()
    from .live import Live

    Live(program, setup).serve()

