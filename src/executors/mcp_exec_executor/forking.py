"""Calls in children of a nursery, each for one call, that are forked ahead of it."""

from . import own_builtins as __builtins__  # noqa: F401

import _socket
import array
import os
from _signal import SIGCONT, SIGKILL
from os import close, posix_spawn
from time import monotonic

from .descriptors import take
from .runner import Runner
from .supervisor import Supervisor, send_signal

FORK_DELAY = 0.02  # seconds after which a call no longer keeps the next child from being made
ANSWER_DELAY = 0.001  # seconds for an answer to reach its caller, until what has to be done behind it is
SPARES_MAX = 4  # more don't make calls faster: their children have to be forked all the same
SPARES_KEPT = 1.0  # seconds until one spare child less is kept, if so many weren't wanted
PREPARATION = 0.002  # seconds that a child needs until it is ready for a call
NURSERY_STARTS, NURSERY_INTERVAL = 20, 10.0  # more of them in so many seconds, and it is given up


class ForkingSupervisor(Supervisor):
    """The runners are children of a nursery, each for one call."""

    def __init__(self, program, concurrency, nursery_command, environment):
        super().__init__(program, concurrency)
        self.nursery_command, self.nursery_environment = nursery_command, environment
        self.control = None
        self.nursery_pid = None
        self.ready = False
        self.starts = []
        self.spares_wanted, self.wanted_at = 1, monotonic()
        self.by_number = {}

    def prepare(self):
        self.start_nursery()  # it takes longer than the rest
        super().prepare()

    def leave(self, status):
        if self.nursery_pid:
            send_signal(self.nursery_pid, SIGKILL)  # what it has comes to us
        super().leave(status)

    # -- The nursery

    def own_children(self):
        return super().own_children() | {self.nursery_pid}

    def start_nursery(self):
        now = monotonic()
        self.starts = [time for time in self.starts if time > now - NURSERY_INTERVAL] + [now]
        if len(self.starts) > NURSERY_STARTS:
            self.die("its warm process ends again and again")
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        fd = take(theirs.detach())
        actions = [(os.POSIX_SPAWN_DUP2, fd, 3), (os.POSIX_SPAWN_DUP2, self.errors, 2)]
        self.nursery_pid = posix_spawn("/proc/self/exe", [*self.nursery_command, "--nursery", "3"],
                                       self.nursery_environment, file_actions=actions, setsid=True)
        close(fd)
        self.control, self.ready = _socket.socket(fileno=take(ours.detach())), False
        self.watch(self.control.fileno(), self.on_control)

    def on_control(self, events=0):
        try:
            message = self.control.recv(256, _socket.MSG_DONTWAIT)
        except (BlockingIOError, ConnectionResetError):
            return  # it has ended with orders unread: what it has said before comes after this
        except OSError:
            message = b""
        if not message:
            return self.nursery_ended()
        kind, *numbers = message.split()
        if kind == b"ready":
            self.ready = True
        elif kind == b"forked":
            number, pid = map(int, numbers)
            runner = self.by_number.get(number)
            if runner:
                self.forked(runner, pid)
        elif kind == b"ended":
            pid, status, count = map(int, numbers)
            for runner in self.runners:
                if runner.pid == pid and not runner.own_child:
                    return self.ended(runner, status, count)

    def nursery_ended(self):
        """By the code, since nothing else ends it. Its children are ours now, and the calls in them go on."""
        self.unwatch(self.control.fileno())
        self.control.close()
        os.waitpid(self.nursery_pid, 0)
        self.nursery_pid = None
        if not self.ready:
            self.die("its warm process could not be started")
        self.control = None
        for runner in self.runners:
            runner.own_child = True
        for runner in list(self.runners):
            if runner.pid is None:
                self.lost(runner)
            elif not runner.call or runner.ending:
                self.end_process(runner)
        self.start_nursery()
        self.assign()

    def lost(self, runner):
        """Its process has ended before it could say which it is, or was never made."""
        call, runner.call = runner.call, None
        if call and not runner.was_read():
            self.waiting.insert(0, call)
        elif call:
            self.refuse(call, "the call's process was lost: it may have run")
        self.forget(runner)

    def order(self, message, fds=()):
        if not self.control:
            return
        send_signal(self.nursery_pid, SIGCONT)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self.control.sendmsg([message], ancillary, _socket.MSG_DONTWAIT)
        except OSError:
            send_signal(self.nursery_pid, SIGKILL)  # its end is seen by its control

    # -- Runners

    def make_runner(self, urgent=False):
        self.count += 1
        runner = Runner(self.count)
        runner.made = monotonic()
        self.runners.add(runner)
        self.by_number[runner.number] = runner
        runner.folder = self.folders.take()
        order = b"fork" if urgent else b"prepare"
        self.order(b"%b %d %b" % (order, runner.number, os.fsencode(runner.folder[0] or "")), runner.fds_for_child())
        runner.close_child_fds()
        self.watch(runner.channel, lambda events: self.on_channel(runner, events))
        return runner

    def on_channel(self, runner, events):
        while runner.pid is None and self.control and self.has_news():
            self.on_control()  # a child says which it is before it says anything else
        if runner in self.runners:
            super().on_channel(runner, events)

    def has_news(self):
        try:
            self.control.recv(1, _socket.MSG_DONTWAIT | _socket.MSG_PEEK)
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True

    def closed(self, runner):
        super().closed(runner)
        if runner.pid is None:
            self.lost(runner)

    def forked(self, runner, pid):
        if pid < 0:
            self.by_number.pop(runner.number)
            call, runner.call = runner.call, None
            self.forget(runner)
            if call:
                self.refuse(call, f"cannot fork: {os.strerror(-pid)}")
            return
        pidfd = runner.started(pid)
        if pidfd is None or runner.call and runner.call.cancelled:
            return self.end(runner)
        self.watch(pidfd, lambda events: self.on_exit(runner))
        if runner.call:
            self.begin(runner.call)

    def cancel_running(self, runner):
        if runner.pid:
            self.end(runner)

    def release(self, runner):
        if runner.call.left_behind:
            return self.end(runner)  # no other call begins before that is done
        self.to_end.append(runner)
        now = monotonic()
        if self.is_hurried(now):
            self.kill_answered()
        else:
            self.quiet_until = now + ANSWER_DELAY

    def kill_answered(self):
        for runner in self.to_end:
            if not runner.killed and not runner.ending:
                runner.killed = True
                send_signal(-runner.pid, SIGKILL)

    def is_hurried(self, now):
        """Whether calls come as fast as children can be made."""
        return now < self.wanted_at + FORK_DELAY

    def spares(self):
        return [runner for runner in self.runners if not runner.call and not runner.ending]

    def assign(self):
        if any(runner.ending and runner.answered and runner.call.left_behind for runner in self.runners):
            return
        while self.waiting and self.running() < self.concurrency:
            self.kill_answered()
            spares, now = self.spares(), monotonic()
            if not spares:
                if not self.control:
                    return
                spares = [self.make_runner(urgent=True)]
            ready = [runner for runner in spares if runner.pid and now >= runner.made + PREPARATION]
            if ready:
                runner = max(ready, key=lambda runner: runner.number)  # its memory is the most likely to be at hand
            else:
                # More than one is kept where calls come faster than children.
                runner = min(spares, key=lambda runner: runner.number)
                self.spares_wanted, self.wanted_at = min(self.spares_wanted + 1, SPARES_MAX), now
            self.give(runner, self.waiting.pop(0))

    def end_process(self, runner):
        if not runner.own_child:
            return self.order(b"end %d " % runner.pid)
        while self.control and self.has_news():
            self.on_control()  # which children there are: those that aren't known are ended as well
        if runner in self.runners:
            super().end_process(runner)

    def forget(self, runner):
        super().forget(runner)
        self.by_number.pop(runner.number, None)
        self.assign()

    def tend(self):
        """Has children made ahead of the calls, while no answer is about to leave that this would delay."""
        self.kill_answered()
        if not self.control:
            return
        now, spares = monotonic(), len(self.spares())
        if self.spares_wanted > 1 and now - self.wanted_at > SPARES_KEPT:
            self.spares_wanted, self.wanted_at = self.spares_wanted - 1, now
        if spares >= self.spares_wanted:
            return
        if spares or self.spares_wanted == 1:
            for runner in self.runners:
                if runner.call and not runner.answered and now < runner.call.begun + FORK_DELAY:
                    return self.remind(min(runner.call.begun, now) + FORK_DELAY)
        hurried = self.is_hurried(now)
        for _ in range(self.spares_wanted - spares):
            self.make_runner(urgent=hurried)
