"""A process that runs calls, as its supervisor sees it."""

from . import own_builtins as __builtins__  # noqa: F401

import _socket
import marshal
from os import close, pidfd_open, read, set_blocking, urandom, write

from .codec import decode
from .frame import FRAME_MAX, LENGTH_SIZE
from .output import Capture

CHUNK = 64 * 1024  # a larger buffer would be mapped and unmapped each time


class Runner:
    """Has a channel, on which it is given a call and answers with a frame: the call's secret, a length, JSON. The code can
    write there, too, and what it writes is passed over: it isn't told the secret."""

    def __init__(self, number):
        self.number = number
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self.channel, self.theirs = ours.detach(), theirs.detach()
        set_blocking(self.channel, False)
        self.captures = None
        self.pid = self.pidfd = None
        self.call = self.secret = None
        self.folder = None, None
        self.unsent = b""
        self.received = bytearray()
        self.ending = self.answered = self.killed = False
        self.unread = False  # whether its process has ended without reading what it was given
        self.own_child = False  # of the supervisor itself
        self.made = 0.0  # when it was asked for
        self.new_captures()

    def new_captures(self):
        self.close_captures()
        self.captures = Capture(1, lifted=False), Capture(2, lifted=False)

    def fds_for_child(self):
        return [self.theirs, *(capture.writer for capture in self.captures)]

    def close_child_fds(self):
        if self.theirs >= 0:
            close(self.theirs)
            self.theirs = -1
        for capture in self.captures:
            capture.close_writer()

    def started(self, pid):
        self.pid = pid
        try:
            self.pidfd = pidfd_open(pid)
        except OSError:
            self.pidfd = None  # it is gone already: its channel tells
        return self.pidfd

    def give(self, call, message):
        """Hands it the call; message is what it needs to know. What doesn't fit now is left in `unsent`."""
        self.call, self.secret = call, urandom(16)
        self.received.clear()
        self.unsent = self.pack(message)
        self.send()

    def pack(self, message):
        data = marshal.dumps({**message, "secret": self.secret})
        return len(data).to_bytes(4, "little") + data

    def send(self):
        try:
            while self.unsent:
                self.unsent = self.unsent[write(self.channel, self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.unsent, self.unread = b"", True  # it is gone

    def receive(self):
        """Reads its channel. Returns a frame once it is complete, and whether anything can still come."""
        for _ in range(64):
            frame = self.received and self.find_frame()
            if frame:
                return frame, True
            try:
                data = read(self.channel, CHUNK)
            except BlockingIOError:
                return None, True
            except ConnectionResetError:
                self.unread, data = True, b""
            except OSError:
                data = b""
            if not data:
                return None, False
            self.received += data
        return None, True

    def find_frame(self):
        if not self.secret:
            self.received.clear()
            return None
        begin = len(self.secret) + LENGTH_SIZE
        while True:
            start = self.received.find(self.secret)
            if start < 0:
                del self.received[: max(0, len(self.received) - len(self.secret) + 1)]
                return None
            del self.received[:start]
            if len(self.received) < begin:
                return None
            try:
                length = int(self.received[len(self.secret) : begin], 16)
                if not 0 <= length <= FRAME_MAX:
                    raise ValueError
                if len(self.received) < begin + length:
                    return None
                frame = decode(self.received[begin : begin + length].decode("utf-8", "replace"))
                if not isinstance(frame, dict) or not frame:
                    raise ValueError
                del self.received[: begin + length]
                return frame
            except (ValueError, RecursionError):
                del self.received[: len(self.secret)]  # the code has read it in its memory

    def was_read(self):
        """Whether what it was given has been read, now that nobody has the other end any more."""
        self.receive()
        return not self.unread

    def drain(self):
        for capture in self.captures:
            capture.drain()

    def close_captures(self):
        for capture in self.captures or ():
            capture.close()
        self.captures = None

    def close(self):
        self.close_child_fds()
        self.close_captures()
        close(self.channel)
        if self.pidfd is not None:
            close(self.pidfd)
