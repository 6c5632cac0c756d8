"""The processes that code leaves behind: found, also those that have left their group and session, and ended."""

from . import own_builtins as __builtins__  # noqa: F401

from os import (O_CLOEXEC, O_RDONLY, WNOHANG, WTERMSIG, WIFSIGNALED, close, getpgid, getpgrp, getpid, kill, killpg,
                listdir, open as open_fd, read, waitpid)
from _signal import SIGKILL
from time import monotonic, sleep

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
PATIENCE = 2.0  # seconds for killed processes to go


def load_prctl():
    """Returns prctl(option, value). Where there is no ctypes it does nothing: what has left its session then stays until
    the broker, or systemd, ends it."""
    try:
        import ctypes

        function = ctypes.CDLL(None).prctl
        nothing = ctypes.c_ulong(0)
        values = [ctypes.c_ulong(value) for value in range(2)]
    except Exception:
        return lambda option, value: -1
    return lambda option, value: function(option, values[value], nothing, nothing, nothing)


def limit_cpu(resource, seconds):
    """Has the kernel end this process, or one that it starts, when it has used so much CPU time."""
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        limit = int(seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit if hard < 0 else min(limit, hard), hard))
    except (OSError, ValueError):
        pass


def read_children(task, process="self"):
    try:
        fd = open_fd(f"/proc/{process}/task/{task}/children", O_RDONLY | O_CLOEXEC)
    except OSError:
        return []  # the thread is gone, or the kernel has no such list
    try:
        text = b""
        while data := read(fd, 65536):
            text += data
        return [int(pid) for pid in text.split()]
    finally:
        close(fd)


def list_children(all_threads=False):
    if not all_threads:
        return read_children(getpid())
    return [pid for task in listdir("/proc/self/task") for pid in read_children(task)]


def list_children_of(pid):
    try:
        return [child for task in listdir(f"/proc/{pid}/task") for child in read_children(task, pid)]
    except OSError:
        return []


def is_running(pid):
    """Whether it is there, and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def kill_group(pid):
    """Kills a child of ours and, if it leads one, its group."""
    try:
        kill(pid, SIGKILL)
        if (group := getpgid(pid)) != getpgrp():
            killpg(group, SIGKILL)
    except OSError:
        pass


def end_child(pid, known):
    """Ends a child that leads a group, its group, and whatever of its own has found its way to us. Returns its status, how
    many others still ran, and whether all are gone."""
    try:
        try:
            killpg(pid, SIGKILL)
        except ProcessLookupError:
            kill(pid, SIGKILL)  # it was about to make its group
        status = waitpid(pid, 0)[1]
    except (ProcessLookupError, ChildProcessError):
        status = SIGKILL
    return status, *end_strangers(known)


def end_strangers(known=(), all_threads=False):
    """Ends all children but the known ones, and all of theirs: an orphan's next parent is a subreaper, which we are.
    Returns how many still ran, and whether none is left."""
    deadline, killed, ended = monotonic() + PATIENCE, set(), 0
    while strangers := [pid for pid in list_children(all_threads) if pid not in known]:
        for pid in strangers:
            if pid not in killed:
                killed.add(pid)
                kill_group(pid)
        gone = 0
        for pid in strangers:
            try:
                pid, status = waitpid(pid, WNOHANG)
            except ChildProcessError:
                continue
            if pid:
                gone += 1
                ended += WIFSIGNALED(status) and WTERMSIG(status) == SIGKILL
                killed.discard(pid)
        if not gone:
            if monotonic() > deadline:
                return ended, False
            sleep(0.0002)
    return ended, True
