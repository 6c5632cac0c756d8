"""What an executor is: its names, its one tool, and the arguments and results that all of them share."""

from .output import STREAM_KEPT, STREAM_KEPT_MAX

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
LEFT_BEHIND = {"type": ["object", "null"], "description": "Threads and processes that ran on and were ended",
               "properties": {"threads": {"type": "integer"}, "processes": {"type": "integer"}}}
ANNOTATIONS = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True}


class Program:
    version = VERSION
    name = title = instructions = tool = None

    def check(self, arguments):
        """Raises a Refusal for arguments that don't go together."""


def make_tool(title, description, arguments, required, result):
    return {
        "name": "run",
        "title": title,
        "description": description,
        "inputSchema": {"type": "object", "properties": arguments, "required": required, "additionalProperties": False},
        "outputSchema": {"type": "object", "properties": result, "required": list(result)},
        "annotations": ANNOTATIONS,
    }
