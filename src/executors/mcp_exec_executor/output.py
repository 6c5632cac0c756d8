"""What a call prints, and the answer that is made of it."""

from . import own_builtins as __builtins__  # noqa: F401

from fcntl import F_SETPIPE_SZ, fcntl
from os import O_CLOEXEC, close, dup2, pipe2, read, set_blocking

from .descriptors import take

STREAM_KEPT = 256 * 1024  # bytes of each stream: half from its start, half from its end
STREAM_KEPT_MAX = 4 * 1024 * 1024
PIPE_SIZE = 1024 * 1024
CHUNK = 64 * 1024
ANSWER_MAX = 1000 * 1000  # an inline D-Bus reply holds 1 MiB
LARGE_ANSWER_MAX = 15 * 1000 * 1000  # for who asked for more than is usual: a worker's line holds 16 MiB
SMALLEST_LIMIT = 4 * 1024
LEFT_NAMES = {"threads": ("thread", "threads"), "processes": ("process", "processes"),
              "handles": ("timer or handle", "timers or handles")}


class Capture:
    """What is written to descriptor 1 or 2 during one call: a pipe, and the start and end of what came out of it.

    A pipe and not a file: in a shell, `> /dev/stderr` would wipe out what came before. A child that writes on after the
    call gets an error.
    """

    def __init__(self, fd, size=None, lifted=True):
        reader, writer = pipe2(O_CLOEXEC)
        self.fd, self.reader, self.writer = fd, take(reader) if lifted else reader, take(writer) if lifted else writer
        set_blocking(self.reader, False)
        if size:
            try:
                fcntl(self.writer, F_SETPIPE_SZ, size)
            except OSError:
                pass  # the user's pipe buffers are used up
        self.kept = STREAM_KEPT
        self.reset()

    def attach(self):
        dup2(self.writer, self.fd)

    def drain(self, rounds=2 * PIPE_SIZE // CHUNK):
        """Reads what there is; with an end, even if it is written as fast as this reads. Returns whether that is all
        that will ever come."""
        for _ in range(rounds):
            try:
                data = read(self.reader, CHUNK)
            except BlockingIOError:
                return False
            if not data:
                return True
            self.total += len(data)
            room = max(0, (self.kept + 1) // 2 - len(self.head))
            self.head += data[:room]
            self.tail += data[room:]
            del self.tail[: max(0, len(self.tail) - self.kept // 2)]
            if len(data) < CHUNK:
                break  # there was no more
        return False

    def reset(self):
        """Forgets what there was."""
        self.head, self.tail, self.total = bytearray(), bytearray(), 0

    def close_writer(self):
        if self.writer >= 0:
            close(self.writer)
            self.writer = -1

    def close(self):
        close(self.reader)
        self.close_writer()

    def text(self, limit):
        return shorten(self.head + self.tail, self.total, limit)


def shorten(kept, total, limit):
    """Returns at most about limit bytes of what is left of total, and whether anything is missing."""
    if len(kept) == total <= limit:
        return kept.decode("utf-8", "replace"), False
    head, tail = kept[: (limit + 1) // 2], kept[max(0, len(kept) - limit // 2) :]
    left_out = f"\n[... {total - len(head) - len(tail)} bytes left out ...]\n"
    return head.decode("utf-8", "replace") + left_out + tail.decode("utf-8", "replace"), True


class Call:
    """One tools/call, from its arrival to its answer."""

    def __init__(self, request_id, modern, arguments, line=b""):
        self.id, self.modern, self.arguments, self.line = request_id, modern, arguments, line
        self.stop_at = float("inf")  # when the code must stop: its deadline, or the moment of its cancellation
        self.cpu_limit = arguments.get("cpu_time")
        self.cancelled = self.timed_out = self.children_killed = self.cut = False
        self.captures = self.value = self.exception = self.signal = self.left_behind = self.note = None
        self.reason = None  # why it timed out, if not for its timeout
        self.exit_code = 0
        self.kept = arguments.get("max_output", STREAM_KEPT)

    def why(self):
        if self.reason:
            return self.reason
        if self.cancelled:
            return "the call was cancelled"
        return f"the code ran longer than {self.arguments['timeout']:g} s"

    def why_cpu(self):
        return f"the code used more than {self.cpu_limit:g} s of CPU time"

    def failed(self):
        return bool(self.exception is not None or self.timed_out or self.exit_code or self.signal)

    def result(self, fields, limit):
        """The result with the fields that the tool has, each text at most about limit bytes long."""
        truncated = self.cut

        def cut(text):
            nonlocal truncated
            data = text.encode("utf-8", "replace")
            text, cut_off = shorten(data, len(data), min(limit, STREAM_KEPT))
            truncated |= cut_off
            return text

        (stdout, stdout_cut), (stderr, stderr_cut) = (capture.text(min(limit, self.kept)) for capture in self.captures)
        value = None if self.value is None else cut(self.value)
        exception = self.exception and {key: cut(text) for key, text in self.exception.items()}
        everything = {
            "stdout": stdout,
            "stderr": stderr,
            "value": value,
            "exception": exception,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "truncated": truncated or stdout_cut or stderr_cut,
            "timed_out": self.timed_out,
            "left_behind": self.left_behind,
        }
        parts = [stdout, stderr and f"[stderr]\n{stderr}", value, exception and exception["traceback"], self.notes()]
        text = "".join(part if part.endswith("\n") else part + "\n" for part in parts if part)
        return {
            "content": [{"type": "text", "text": text or "(no output)\n"}],
            "structuredContent": {key: everything[key] for key in fields},
            "isError": self.failed(),
        }

    def notes(self):
        """For people: what stands in no other text."""
        notes = []
        if self.timed_out and not self.exception:
            notes.append(self.why())
        if self.signal:
            notes.append(f"ended by {self.signal}")
        elif self.exit_code and not self.exception:
            notes.append(f"exit status {self.exit_code}")
        if self.note:
            notes.append(self.note)
        if self.left_behind:
            left = [f"{number} {name[0] if number == 1 else name[1]}" for kind, name in LEFT_NAMES.items()
                    if (number := self.left_behind.get(kind))]
            notes.append(f"ended with the call, having been left behind: {' and '.join(left)}")
        return "".join(f"[{note}]\n" for note in notes)


def answer_line(endpoint, call):
    """The call's answer, its texts cut as far as it must be to be delivered."""
    fields = endpoint.program.tool["outputSchema"]["properties"]
    answer_max = ANSWER_MAX if call.kept <= STREAM_KEPT else LARGE_ANSWER_MAX
    limit = max(call.kept, STREAM_KEPT)
    while True:
        line = endpoint.result_line(call.id, call.modern, call.result(fields, limit))
        if len(line) <= answer_max or limit <= SMALLEST_LIMIT:
            return line
        limit //= 4
