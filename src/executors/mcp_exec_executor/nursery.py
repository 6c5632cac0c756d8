"""The warm process of isolation fork: forks a child ahead of each call, and ends everything that a call leaves.

It is a process of its own, started by the supervisor, so that its memory holds nothing of any call and few of its pages
change; code that kills its parent kills this one, and the supervisor starts another. Requests come on a socket, one a
message: "fork NUMBER FOLDER", with the child's ends of its channel and pipes, or "prepare NUMBER FOLDER" if no call waits
for it yet, answered by "forked NUMBER PID" from the child itself; and "end PID ", answered by "ended PID STATUS COUNT" once the child, its group
and its orphans are gone.
"""

from . import own_builtins as __builtins__  # noqa: F401

import _socket
import gc
from _signal import SIG_DFL, SIG_IGN, SIG_SETMASK, SIGKILL, SIGPIPE, SIGTERM, pthread_sigmask, signal
from _socket import MSG_CMSG_CLOEXEC
from _struct import Struct
from marshal import loads
from os import (O_CLOEXEC, O_RDONLY, _exit, close, devnull, dup2, fork, getpid, killpg, open as open_fd, pread,
                read, setsid, waitpid, write)

from .descriptors import lift, take
from .processes import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, end_child, end_strangers, load_prctl

MESSAGE_MAX = 4096
FIRST_READ = 4000  # more than most calls have; a buffer of much more would be mapped and unmapped each time
CHILDREN_MAX = 400  # bytes of a list of children
FDS = Struct("3i")
FDS_SPACE = _socket.CMSG_SPACE(FDS.size)


class Child:
    """What runs in a child. `prepare()` is called in the nursery and returns what went wrong; `run()` in the child."""

    def __init__(self, nursery):
        self.prctl = nursery.prctl
        self.channel = take(open_fd(devnull, O_RDONLY))  # its number is what a child's channel gets

    def connect(self, channel, stdout, stderr):
        dup2(channel, self.channel, False)
        dup2(stdout, 1)
        dup2(stderr, 2)
        close(channel)
        close(stdout)
        close(stderr)
        self.prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans are this call's, and not another's

    def read_message(self):
        data = read(self.channel, FIRST_READ)
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
            more = data and read(self.channel, 1 << 20)
            if not more:
                _exit(0)  # no call will come
            data += more
        return loads(data[4:])


class Nursery:
    """`make_child(nursery)` makes the Child whose copies run the calls."""

    def __init__(self, name, control, make_child):
        self.name = name
        self.control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fileno=lift(control))
        close(control)
        self.errors = lift(2)
        self.prctl = load_prctl()
        self.known = set()
        self.child = make_child(self)

    def serve(self):
        signal(SIGTERM, SIG_DFL)
        signal(SIGPIPE, SIG_IGN)
        pthread_sigmask(SIG_SETMASK, ())
        setsid_quietly()
        self.prctl(PR_SET_CHILD_SUBREAPER, 1)
        prefer_for_oom()
        self.children = open_quietly("/proc/thread-self/children", O_RDONLY)
        # The children that wait inherit it: code of the same user can't look into them, or change them.
        self.prctl(PR_SET_DUMPABLE, 0)
        if problem := self.child.prepare():
            write(self.errors, f"{self.name}: {problem}\n".encode("utf-8", "replace"))
            _exit(1)
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            self.control.send(b"ready")
            self.control_fd = self.control.fileno()
            self.loop(self.control.recvmsg, self.control_fd)
        except OSError:
            pass  # the supervisor is gone
        except Exception as error:
            write(self.errors, f"{self.name}: internal error: {error!r}\n".encode("utf-8", "replace"))
        finally:
            self.leave()

    def loop(self, recvmsg, control):
        """Few objects are used here, and in what a child does first: a fork lets both processes copy each page that they
        change, and to use an object is to change it."""
        unpack, known = FDS.unpack, self.known
        while True:
            text, ancillary, _, _ = recvmsg(MESSAGE_MAX, FDS_SPACE, MSG_CMSG_CLOEXEC)
            if not text:
                return
            command, number, folder = text.split(b" ", 2)
            if not ancillary:
                self.end(int(number))
                continue
            try:
                pid = fork()
            except OSError as error:
                pid = -error.errno
            channel, stdout, stderr = unpack(ancillary[0][2])
            if pid == 0:
                try:
                    setsid()
                    write(control, b"forked %b %d" % (number, getpid()))
                    close(control)
                    close(self.errors)
                    self.child.run(command == b"prepare", folder, channel, stdout, stderr)
                finally:
                    _exit(1)
            close(channel)
            close(stdout)
            close(stderr)
            if pid > 0:
                known.add(pid)
            else:
                write(control, b"forked %b %d" % (number, pid))

    def end(self, pid):
        known = self.known
        known.discard(pid)
        try:
            killpg(pid, SIGKILL)
            status, count, clean = waitpid(pid, 0)[1], 0, True
            if self.children is None or pread(self.children, CHILDREN_MAX, 0).count(b" ") != len(known):
                count, clean = end_strangers(known)
        except OSError:  # it was about to make its group
            status, count, clean = end_child(pid, known)
        write(self.control_fd, b"ended %d %d %d" % (pid, status, count))
        if not clean:
            _exit(1)

    def leave(self):
        try:
            end_strangers()
        finally:
            _exit(0)


def setsid_quietly():
    try:
        setsid()
    except OSError:
        pass


def prefer_for_oom():
    """Where memory runs out, the code's process goes, and not the supervisor."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            score = int(file.read())
            file.seek(0)
            file.write(str(max(score, 500)))
    except (OSError, ValueError):
        pass


def open_quietly(path, flags):
    try:
        return take(open_fd(path, flags | O_CLOEXEC))
    except OSError:
        return None
