"""File descriptors that the D-Bus fuzzer passes: such as are meant, and every other kind."""

import fcntl
import json
import os
import select
import socket
import stat
import tempfile
from collections import deque

ADD_SEALS, GET_SEALS = 1033, 1034
SEAL, SHRINK, GROW, WRITE = 1, 2, 4, 8
SEALED = SEAL | SHRINK | GROW | WRITE
KEPT_MAX = 32


def sealed(data, size=None, seals=SHRINK | WRITE):
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]
    if size is not None:
        os.ftruncate(fd, size)
    fcntl.fcntl(fd, ADD_SEALS, seals)
    return fd


def opened_as(fd, flags):
    """The same file once more, opened otherwise; the first one is closed."""
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    finally:
        os.close(fd)


class Files:
    """draw: a random.Random. The other ends of pipes and sockets stay open for a while, or are closed at once."""

    def __init__(self, draw):
        self.draw = draw
        self.kept = deque()

    def close(self):
        while self.kept:
            os.close(self.kept.popleft())

    def _keep(self, fd):
        self.kept.append(fd)
        while len(self.kept) > KEPT_MAX:
            os.close(self.kept.popleft())

    def params(self, text):
        """A file of params as it is wanted, with this text or a larger one around it."""
        draw = self.draw
        data = text.encode(errors="replace")
        if draw.random() < 0.3:
            data = json.dumps({"message": "x" * draw.choice([65_000, 66_000, 300_000, 2_000_000])}).encode()
        if draw.random() < 0.1:
            data = b" \n" * draw.choice([1, 40_000]) + data
        if draw.random() < 0.1:
            data = data[:draw.randrange(len(data) + 1)] + draw.choice([b"\0", b"\xff", b"\xe2\x82", b"\n"]) + data
        return sealed(data, seals=draw.choice([SHRINK | WRITE, SHRINK | WRITE | GROW, SEALED]))

    def any(self):
        """Any kind but that."""
        return getattr(self, "_" + self.draw.choice(self.KINDS))()

    KINDS = ("empty unsealed half_sealed write_only path_only sparse zeros huge_text pipe_read pipe_write pipe_closed pipe_full fifo directory "
             "zero null regular stream datagram listening event epoll terminal").split()

    def _empty(self):
        return sealed(b"")

    def _unsealed(self):
        fd = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(fd, b"{}")
        self._keep(os.dup(fd))
        return fd

    def _half_sealed(self):
        return sealed(b"{}", seals=self.draw.choice([SEAL, SHRINK, GROW, WRITE, GROW | WRITE, SHRINK | GROW | SEAL]))

    def _write_only(self):
        fd = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(fd, b"{}")
        return opened_as(fd, os.O_WRONLY)

    def _path_only(self):
        return opened_as(sealed(b"{}"), os.O_PATH)

    def _sparse(self):
        return sealed(b"", size=1 << self.draw.choice([24, 31, 32, 40, 62]))

    def _zeros(self):
        return sealed(self.draw.choice([b"", b'{"message":"', b"[" * 60]), size=self.draw.choice([100_000, 16 * 1024 * 1024]))

    def _huge_text(self):
        return sealed(b'{"message":"' + b"x" * 15_000_000 + b'"}')

    def _pipe(self, end):
        ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._keep(ends[1 - end])
        return ends[end]

    def _pipe_read(self):
        return self._pipe(0)

    def _pipe_write(self):
        return self._pipe(1)

    def _pipe_closed(self):
        ends = os.pipe2(os.O_CLOEXEC)
        end = self.draw.randrange(2)
        os.close(ends[1 - end])
        return ends[end]

    def _pipe_full(self):
        fd = self._pipe(self.draw.randrange(2))
        try:
            os.write(self.kept[-1], b"{" * 65536)
        except OSError:
            pass  # that end reads
        return fd

    def _fifo(self):
        with tempfile.TemporaryDirectory() as folder:
            os.mkfifo(f"{folder}/fifo")
            return os.open(f"{folder}/fifo", self.draw.choice([os.O_RDWR, os.O_RDONLY | os.O_NONBLOCK]))

    def _directory(self):
        return os.open(self.draw.choice(["/", "/proc/self", "/dev/shm"]), os.O_RDONLY | os.O_DIRECTORY)

    def _zero(self):
        return os.open("/dev/zero", self.draw.choice([os.O_RDONLY, os.O_RDWR]))

    def _null(self):
        return os.open("/dev/null", self.draw.choice([os.O_RDONLY, os.O_WRONLY, os.O_RDWR]))

    def _regular(self):
        with tempfile.TemporaryFile() as file:
            file.write(b"{}")
            file.flush()
            return os.dup(file.fileno())

    def _socket(self, kind):
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        self._keep(ours.detach())
        return theirs.detach()

    def _stream(self):
        return self._socket(socket.SOCK_STREAM)

    def _datagram(self):
        return self._socket(self.draw.choice([socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]))

    def _listening(self):
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("")  # a name of the kernel's choice, in no file system
        listening.listen()
        return listening.detach()

    def _event(self):
        return os.eventfd(0, os.EFD_CLOEXEC)

    def _epoll(self):
        epoll = select.epoll()
        fd = os.dup(epoll.fileno())
        epoll.close()
        return fd

    def _terminal(self):
        ours, theirs = os.openpty()
        self._keep(ours)
        return theirs


def check_result(fd):
    """What is wrong with a file that the service gave as a result, or None."""
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode):
        return f"a result is a file of mode {state.st_mode:o}"
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
        return "a result can be written"
    if fcntl.fcntl(fd, GET_SEALS) & (SHRINK | GROW | WRITE) != SHRINK | GROW | WRITE:
        return "a result is not sealed"
    try:
        json.loads(os.pread(fd, state.st_size, 0))
    except ValueError as error:
        return f"a result is no JSON: {error}"
    return None
