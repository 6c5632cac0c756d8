"""Calls in other processes, several at a time: the protocol, limits and answers. What runs them has no way to its pipes.

One thread, one loop. A call's process is given its call through a channel, and answers through it; or it ends, and its
status tells. What it prints comes through pipes, and is read as it comes: it is there, however the process ends.
"""

from . import own_builtins as __builtins__  # noqa: F401

import _signal
import os
from _signal import SIG_DFL, SIG_IGN, SIG_SETMASK, SIGINT, SIGKILL, SIGPIPE, SIGTERM, pthread_sigmask, signal
from os import WEXITSTATUS, WIFEXITED, WTERMSIG, _exit, close, kill, read, sched_yield, set_blocking, write
from select import POLLIN, POLLOUT, poll
from time import clock_gettime, monotonic

from .descriptors import lift
from .output import Call, answer_line
from .processes import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, end_child, end_strangers, load_prctl
from .protocol import INTERNAL_ERROR, Endpoint, to_line
from .scratch import Folders, Scratch

KILL_GRACE = 0.5  # seconds for code that was interrupted to answer, until it is killed
WATCH_DELAY = 0.002  # seconds until it is read what a call prints: most calls have ended by then
CPU_CLOCK = 2  # CPUCLOCK_SCHED: see clock_getcpuclockid(3)

ALIASES = "SIGCLD", "SIGIOT", "SIGPOLL", "SIGRTMAX", "SIGRTMIN"
SIGNAL_NAMES = {getattr(_signal, name): name for name in dir(_signal)
                if name.startswith("SIG") and name[3] != "_" and name not in ALIASES
                and isinstance(getattr(_signal, name), int)}


class Supervisor:
    def __init__(self, program, concurrency):
        self.program, self.concurrency = program, concurrency
        self.endpoint = Endpoint(program, self)
        self.input, self.output, self.errors = (lift(fd) for fd in (0, 1, 2))
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in 0, 1, 2:
            os.dup2(null, fd)
        close(null)
        set_blocking(self.output, False)
        self.poll = poll()
        self.handlers = {}
        self.watch(self.input, self.on_input)
        self.begun, self.unsent = [], bytearray()
        self.calls = {}  # by request id: waiting and running
        self.waiting = []  # calls
        self.runners, self.to_end, self.left = set(), [], []
        self.count = 0
        self.deadline = None  # when check_times() has something to do
        self.quiet_until = 0.0  # all work that nobody waits for has time until then

    def serve(self):
        signal(SIGINT, SIG_DFL)
        signal(SIGTERM, SIG_DFL)
        signal(SIGPIPE, SIG_IGN)
        pthread_sigmask(SIG_SETMASK, ())
        try:
            self.prepare()
            self.tend()
            while True:
                self.step()
        except BrokenPipeError:
            self.leave(0)
        except Exception:
            import traceback

            self.die(f"internal error:\n{traceback.format_exc()}")

    def prepare(self):
        prctl = load_prctl()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_DUMPABLE, 0)  # code of the same user can't open our pipes through /proc
        self.scratch = Scratch()
        self.folders = Folders(self.scratch)

    def step(self):
        timeout = None if self.deadline is None else max(0, (self.deadline - monotonic()) * 1000 + 1)
        for fd, events in self.poll.poll(timeout):
            handler = self.handlers.get(fd)
            if handler:
                handler(events)
        if self.deadline is not None and monotonic() >= self.deadline:
            self.deadline = None
            self.check_times()
        if monotonic() < self.quiet_until:
            return self.remind(self.quiet_until)
        self.tend()
        for runner in self.to_end:  # after the next ones were ordered: by then these have gone
            self.end(runner)
        self.to_end.clear()
        for runner in self.left:  # now that none of its descriptors is in a list of events
            runner.close()
            self.folders.give_back(*runner.folder)
        self.left.clear()

    def watch(self, fd, handler, events=POLLIN):
        self.poll.register(fd, events)
        self.handlers[fd] = handler

    def unwatch(self, fd):
        if self.handlers.pop(fd, None):
            self.poll.unregister(fd)

    def remind(self, time):
        if self.deadline is None or time < self.deadline:
            self.deadline = time

    def die(self, message):
        try:
            write(self.errors, f"{self.program.name}: {message}\n".encode("utf-8", "replace"))
        finally:
            self.leave(1)

    def leave(self, status):
        try:
            for runner in self.runners:
                if runner.pid:
                    send_signal(-runner.pid, SIGKILL)
            end_strangers()
            self.scratch.remove()
        finally:
            _exit(status)

    # -- The protocol

    def on_input(self, events):
        data = read(self.input, 65536)
        if not data:
            self.leave(0)
        *lines, rest = data.split(b"\n")
        for line in lines:
            self.endpoint.receive(b"".join(self.begun) + line)
            self.begun.clear()
        if rest:
            self.begun.append(rest)

    def send(self, line):
        self.unsent += line
        self.flush()

    def flush(self, events=0):
        try:
            while self.unsent:
                del self.unsent[: write(self.output, self.unsent)]
            self.unwatch(self.output)
            sched_yield()  # where all share one CPU: first the client, then what is done ahead of its next call
        except BlockingIOError:
            if self.output not in self.handlers:
                self.watch(self.output, self.flush, POLLOUT)

    def is_open(self, request_id):
        return request_id in self.calls

    def start(self, request_id, modern, arguments, line):
        call = self.calls[request_id] = Call(request_id, modern, arguments)
        self.waiting.append(call)
        self.assign()

    def cancel(self, request_id):
        call = self.calls.get(request_id)
        if not call:
            return
        call.cancelled = True
        if call in self.waiting:
            self.waiting.remove(call)
            del self.calls[request_id]
            return
        for runner in self.runners:
            if runner.call is call:
                self.cancel_running(runner)

    def cancel_running(self, runner):
        self.end(runner)

    def answer(self, call):
        del self.calls[call.id]
        if not call.cancelled:
            self.send(answer_line(self.endpoint, call))

    def refuse(self, call, message):
        del self.calls[call.id]
        if not call.cancelled:
            self.send(to_line(call.id, error={"code": INTERNAL_ERROR, "message": message}))

    # -- Runners

    def release(self, runner):
        """Its call has been answered."""

    def running(self):
        return sum(1 for runner in self.runners if runner.call and not runner.answered)

    def assign(self):
        """Gives waiting calls to runners."""

    def tend(self):
        """Has new ones made, once there is nothing more urgent."""

    def give(self, runner, call):
        call.interrupted_at, call.watched = None, False
        call.begun = float("inf")
        call.captures = runner.captures
        for capture in runner.captures:
            capture.kept = call.kept
        runner.give(call, self.program.message(call, runner))
        if runner.unsent:
            self.watch(runner.channel, lambda events: self.on_channel(runner, events), POLLIN | POLLOUT)
        if runner.pid:
            self.begin(call)

    def begin(self, call):
        """Its clock starts, now that there is a process for it."""
        call.begun = now = monotonic()
        self.remind(now + WATCH_DELAY)
        if timeout := call.arguments.get("timeout"):
            call.stop_at = now + timeout
            self.remind(call.stop_at)
        if call.cpu_limit:
            self.remind(now + call.cpu_limit)

    def watch_output(self, call):
        call.watched = True
        for capture in call.captures:
            self.watch(capture.reader, lambda events, capture=capture: self.on_output(capture))

    def on_output(self, capture):
        if capture.drain(rounds=4):
            self.unwatch(capture.reader)  # everybody has closed it

    def on_channel(self, runner, events):
        if runner.unsent:
            runner.send()
            if not runner.unsent:
                self.watch(runner.channel, lambda events: self.on_channel(runner, events))
        if events & ~POLLOUT:
            frame, more = runner.receive()
            if not more:
                self.closed(runner)
            if frame is not None:
                self.on_frame(runner, frame)

    def closed(self, runner):
        """By the code, or its process has ended, of which we shall hear."""
        self.unwatch(runner.channel)

    def on_frame(self, runner, frame):
        """The code has come to its end."""
        call = runner.call
        if not call or runner.answered:
            return
        call.timed_out = bool(frame.get("interrupted")) and call.interrupted_at is not None
        self.program.take_frame(call, frame)
        runner.drain()
        runner.answered = True
        self.answer(call)
        self.release(runner)

    def on_exit(self, runner):
        """Its process has ended, before or after it has answered."""
        self.unwatch(runner.pidfd)
        if runner.call and not runner.answered:
            frame, _ = runner.receive()
            if frame is not None:
                return self.on_frame(runner, frame)
        self.end(runner)

    def end(self, runner):
        """Ends what is left of it; ended() follows."""
        if not runner.ending:
            runner.ending = True
            self.unwatch(runner.channel)
            if runner.pidfd is not None:
                self.unwatch(runner.pidfd)
            self.end_process(runner)

    def own_children(self):
        """Those of the runners, each of which is ended by itself. What made them may have ended a moment ago: then they are
        ours, even if we don't know it yet."""
        return {runner.pid for runner in self.runners}

    def end_process(self, runner):
        status, count, clean = end_child(runner.pid, self.own_children())
        self.ended(runner, status, count)
        if not clean:
            self.die("processes of a call can't be ended")

    def ended(self, runner, status, count):
        """Nothing of it is left."""
        call = runner.call
        if call and not runner.answered:
            runner.drain()
            self.take_status(call, status, count)
            self.answer(call)
        self.forget(runner)

    def take_status(self, call, status, count):
        if WIFEXITED(status):
            call.exit_code = WEXITSTATUS(status)
        else:
            call.exit_code = None
            call.signal = SIGNAL_NAMES.get(WTERMSIG(status), f"signal {WTERMSIG(status)}")
        call.timed_out = call.interrupted_at is not None
        if count:
            call.left_behind = {"threads": 0, "processes": count}
        self.program.take_end(call)

    def forget(self, runner):
        self.runners.discard(runner)
        for capture in runner.captures:
            self.unwatch(capture.reader)
        self.unwatch(runner.channel)
        if runner.pidfd is not None:
            self.unwatch(runner.pidfd)
        self.left.append(runner)

    # -- Limits

    def check_times(self):
        now = monotonic()
        for runner in list(self.runners):
            call = runner.call
            if not call or not runner.pid or runner.ending or runner.answered:
                continue
            if not call.watched:
                if now >= call.begun + WATCH_DELAY:
                    self.watch_output(call)
                else:
                    self.remind(call.begun + WATCH_DELAY)
            if call.interrupted_at is None and call.cpu_limit:
                left = call.cpu_limit - cpu_time(runner.pid)
                if left <= 0:
                    call.reason = call.why_cpu()
                    self.interrupt(runner, now)
                else:
                    # Several threads use more of it than time goes by.
                    self.remind(now + max(0.005, min(left, 0.1)))
            if call.interrupted_at is None and now >= call.stop_at:
                self.interrupt(runner, now)
            if call.interrupted_at is None:
                if call.stop_at < float("inf"):
                    self.remind(call.stop_at)
            elif now >= call.interrupted_at + KILL_GRACE:
                self.end(runner)
            else:
                self.remind(call.interrupted_at + KILL_GRACE)

    def interrupt(self, runner, now):
        """Lets the code end itself, and say where it was. Where it doesn't, check_times() ends it."""
        runner.call.interrupted_at = now
        self.remind(now + KILL_GRACE)
        try:
            self.program.interrupt(runner.pid)
        except OSError:
            pass


def send_signal(pid, number):
    try:
        kill(pid, number)
    except OSError:
        pass


def cpu_time(pid):
    try:
        return clock_gettime((~pid << 3) | CPU_CLOCK)
    except OSError:
        return 0.0
