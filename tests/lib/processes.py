"""Processes as /proc shows them: who is there, whose child, with which fds and memory."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process that is not mistaken for a later one of the same pid."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid):
        """The process that has this pid now, or None."""
        fields = _stat(pid)
        return cls(pid, int(fields[19])) if fields else None

    def alive(self):
        """Running: neither gone nor a zombie, nor (X) one that is being reaped just now."""
        fields = _stat(self.pid)
        return bool(fields) and int(fields[19]) == self.started and fields[0] not in "ZX"

    def state(self):
        """The letter of /proc/PID/stat (R, S, T, Z, ...), or None."""
        fields = _stat(self.pid)
        return fields[0] if fields and int(fields[19]) == self.started else None

    def kill(self, number=signal.SIGKILL):
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def command(self):
        return _read(self.pid, "cmdline").replace("\0", " ").strip()

    def __str__(self):
        return f"{self.pid} ({self.command() or '?'})"


def _read(pid, name):
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _stat(pid):
    """The fields of /proc/PID/stat after the command's name."""
    text = _read(pid, "stat")
    return text.rpartition(") ")[2].split() if text else None


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def marked(token):
    """The running processes that have the token in their environment or command line."""
    found = []
    for pid in all_pids():
        if pid == os.getpid():
            continue
        if token in _read(pid, "environ") or token in _read(pid, "cmdline"):
            process = Process.of(pid)
            if process and process.alive():
                found.append(process)
    return found


def children(pid):
    """The direct children of a process, as Process."""
    found = []
    for task in _tasks(pid):
        for child in _read(pid, f"task/{task}/children").split():
            process = Process.of(int(child))
            if process:
                found.append(process)
    return found


def descendants(pid):
    found = []
    for child in children(pid):
        found.append(child)
        found.extend(descendants(child.pid))
    return found


def _tasks(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def open_fds(pid):
    """fd number → what it leads to."""
    found = {}
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for number in numbers:
        try:
            found[int(number)] = os.readlink(f"/proc/{pid}/fd/{number}")
        except OSError:
            pass
    return found


def private_memory(pid):
    """Bytes of memory that only this process uses."""
    total = 0
    for line in _read(pid, "smaps_rollup").splitlines():
        key, _, value = line.partition(":")
        if key in ("Private_Clean", "Private_Dirty"):
            total += int(value.split()[0]) * 1024
    return total


def peak_memory(pid):
    """The most bytes of memory that the process has ever had."""
    line = next(line for line in _read(pid, "status").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def processor_time(pid):
    """Seconds of user and system time that the process has used."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def resident(pid):
    """Bytes of memory that a process has in use, mapped files and all."""
    return int((_read(pid, "statm") or "0 0").split()[1]) * os.sysconf("SC_PAGE_SIZE")
