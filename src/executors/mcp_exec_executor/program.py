"""What an executor is: its names, its one tool, and the arguments and results that all of them share."""

from . import own_builtins as __builtins__  # noqa: F401

from .output import LEFT_NAMES, STREAM_KEPT, STREAM_KEPT_MAX

VERSION = "1.1"
TIMEOUT_MAX = 86400

TEXT, FLAG = {"type": "string"}, {"type": "boolean"}
SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MAX}
STDIN = {**TEXT, "default": ""}
MAX_OUTPUT = {"type": "integer", "minimum": 0, "maximum": STREAM_KEPT_MAX, "default": STREAM_KEPT,
              "description": "Bytes kept of stdout, and of stderr: the first and the last ones"}

EXCEPTION = {"type": TEXT, "message": TEXT, "traceback": TEXT}
EXCEPTION_OR_NULL = {"type": ["object", "null"], "properties": EXCEPTION, "required": list(EXCEPTION)}
EXIT_CODE = {"type": ["integer", "null"], "description": "The exit status; null if a signal or the executor ended it"}
SIGNAL = {"type": ["string", "null"], "description": "The signal that ended it, such as SIGSEGV"}
TRUNCATED = {**FLAG, "description": "Whether parts of the texts were left out"}
LEFT_BEHIND = {"type": ["object", "null"], "description": "What ran on and was ended: threads, processes, ...",
               "properties": {kind: {"type": "integer"} for kind in LEFT_NAMES}}
ANNOTATIONS = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True}


class Program:
    version = VERSION
    name = title = instructions = tool = None

    def check(self, arguments):
        """Raises a Refusal for arguments that don't go together."""

    # -- For calls in other processes: see supervisor.py

    def message(self, call, runner):
        return {"arguments": call.arguments}

    def interrupt(self, pid):
        """Has the code end itself: its time is up."""

    def take_frame(self, call, frame):
        """What the child says of itself. It may not be the child that says it: nothing here is believed."""
        call.value = text_or_none(frame.get("value"))
        exception = frame.get("exception")
        if isinstance(exception, dict):
            call.exception = {key: str(exception.get(key, "")) for key in ("type", "message", "traceback")}
        code, left = frame.get("exit_code"), frame.get("left_behind")
        call.exit_code = code if isinstance(code, int) and 0 <= code <= 255 else 1
        call.cut = frame.get("truncated") is True
        if isinstance(left, dict):
            call.left_behind = {key: left[key] for key in LEFT_NAMES if isinstance(left.get(key), int)}

    def take_end(self, call):
        """The process has ended without a word; exit_code, signal and timed_out are set."""


def timeout_error(call):
    return {"type": "TimeoutError", "message": call.why(), "traceback": f"TimeoutError: {call.why()}\n"}


def text_or_none(value):
    return None if value is None else str(value)


def make_tool(title, description, arguments, required, result):
    return {
        "name": "run",
        "title": title,
        "description": description,
        "inputSchema": {"type": "object", "properties": arguments, "required": required, "additionalProperties": False},
        "outputSchema": {"type": "object", "properties": result, "required": list(result)},
        "annotations": ANNOTATIONS,
    }
