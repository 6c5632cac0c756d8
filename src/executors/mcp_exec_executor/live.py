"""Calls in the executor's own process, one after the other: isolation shared, reset and fresh.

The main thread runs the code, because only there can a signal interrupt it. The reader thread owns the protocol's
input: it answers everything but tools/call, also while code runs, drains what the code prints, and ends a call that
does not stop. Nothing here trusts the state in which the code leaves the process.
"""

from . import own_builtins as __builtins__  # noqa: F401

import _thread
import atexit
import faulthandler
import os
import sys
# By name, so that code which patches these modules does not reach what the threads below use.
from _queue import SimpleQueue
from _signal import (ITIMER_REAL, SIG_BLOCK, SIG_DFL, SIG_SETMASK, SIG_UNBLOCK, SIGALRM, SIGINT, SIGIO, SIGKILL, SIGTERM,
                     default_int_handler, pthread_sigmask, setitimer, siginterrupt, signal)
from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl
from os import O_ASYNC, _exit, close, dup2, getpid, kill, read, sched_yield, write
from select import POLLIN, poll
from time import monotonic, process_time, sleep

from .interpreter import Interrupted, Streams, Tracebacks, brief, evaluate, leave_fork
from .output import PIPE_SIZE, Call, Capture, answer_line
from .processes import end_strangers, list_children
from .protocol import Endpoint
from .scratch import Scratch
from .standard import import_standard

INTERRUPT_AGAIN = 0.5  # seconds until code that swallowed an interrupt gets the next
CHILDREN_GRACE = 0.5  # seconds until the children that it may be waiting for are killed
STOP_GRACE = 3.0  # seconds until the process is given up
INPUT_GRACE = 1.0  # seconds for the reader thread to deal with input, should it have to wait for the client itself
EXIT_GRACE = 1.0  # seconds for exit handlers and threads once stdin has ended

OWN_PID = getpid()
MAIN_THREAD = _thread.get_ident()
OWN_SIGNALS = {SIGALRM, SIGIO, SIGINT}
run_exit_handlers = atexit._run_exitfuncs
Module = type(sys)


class Live:
    run_exit_handlers = staticmethod(run_exit_handlers)

    def __init__(self, program, setup):
        self.program, self.setup, self.isolation = program, setup, setup.isolation
        self.endpoint = Endpoint(program, self)
        self.endpoint.initialized = setup.resumed.get("initialized", False)
        self.input, self.output, self.errors = self.setup.protocol_fds()
        self.streams = Streams()
        self.streams.detach()
        self.own_fds = [self.input, self.output, self.errors, self.streams.null]
        faulthandler.enable(self.errors)
        os.register_at_fork(after_in_child=self.forked)

        self.queue = SimpleQueue()
        self.calls = {}  # by request id: waiting and running
        self.lock = _thread.allocate_lock()  # held to change running, and what belongs to it
        self.input_lock = _thread.allocate_lock()  # held by the reader thread while it deals with what it has read
        self.begun = []  # what has been read of a line that isn't complete
        self.running = None
        self.interruptible = False
        self.reading = False  # whether the reader thread deals with something, and does not wait
        self.output_lock = _thread.allocate_lock()

        self.captures = self.make_captures()
        self.tracebacks = Tracebacks(late=self.isolation == "fresh")
        self.count = 0
        self.main_module = Module("__main__")
        self.scratch = None if self.isolation == "shared" else Scratch()
        if self.scratch and self.scratch.path:
            os.environ["TMPDIR"] = self.scratch.path
        self.reset = self.make_reset = None
        if self.isolation == "reset":
            from .reset import Reset

            self.make_reset = Reset
        self.setup.hide_own_modules()

    def preload(self):
        for capture in self.captures:
            capture.attach()  # the streams are made for pipes
        self.streams.renew()
        dup2(self.errors, 2)
        problem = self.setup.preload_modules()
        self.streams.detach()
        if problem:
            self.die(problem)
        if self.make_reset:
            self.reset = self.make_reset(self)

    def make_captures(self):
        # Native code that prints more than that without letting the interpreter lock go blocks for good.
        return Capture(1, PIPE_SIZE), Capture(2, PIPE_SIZE)

    def capture_fds(self):
        return [end for capture in self.captures for end in (capture.reader, capture.writer)]

    def serve(self):
        self.guard(self.preload)
        sys.modules["__main__"] = self.main_module
        if sys.version_info >= (3, 12):
            # The reader thread alone would make every fork() warn. Nothing that it locks is used in a child.
            import warnings

            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        self.unread = poll()
        self.unread.register(self.input, POLLIN)
        self.input_flags = fcntl(self.input, F_GETFL)
        fcntl(self.input, F_SETOWN, OWN_PID)
        # A background job of a shell, for one, inherits SIGINT ignored.
        signal(SIGINT, default_int_handler)
        signal(SIGTERM, SIG_DFL)
        pthread_sigmask(SIG_SETMASK, ())
        self.take_signals()
        # Not a threading.Thread: code that joins all threads would wait for it.
        _thread.start_new_thread(self.guard, (self.read_input,))
        self.guard(self.serve_calls)

    def guard(self, function):
        try:
            function()
        except BrokenPipeError:
            self.leave(0)
        except OSError as error:
            self.die(f"cannot go on with the descriptors that the code has left: {error}")
        except KeyboardInterrupt:
            self.leave(128 + SIGINT)
        except BaseException as error:
            self.die(f"internal error:\n{self.tracebacks.module and self.tracebacks.module.format_exc() or repr(error)}")

    def die(self, message):
        try:
            write(self.errors, f"{self.program.name}: {message}\n".encode("utf-8", "replace"))
        finally:
            self.leave(1)

    def leave(self, status):
        try:
            if self.isolation != "shared":
                end_strangers(all_threads=True)
                self.scratch.remove()
        finally:
            _exit(status)

    def send(self, line):
        data = memoryview(line)
        with self.output_lock:
            while data:
                data = data[write(self.output, data) :]

    # -- The main thread: calls

    def serve_calls(self):
        while call := self.queue.get():
            if not call.cancelled:
                self.run(call)
            self.calls.pop(call.id, None)
            if not call.cancelled:
                self.send(answer_line(self.endpoint, call))
            if call.captures:
                for capture in call.captures:
                    capture.close()
                if self.reset:
                    sched_yield()  # where both share one CPU: first the client
                    self.main_module = self.reset.restore()
                self.captures = self.make_captures()  # for the next call: nobody waits now
        if self.isolation != "shared":
            self.leave(0)  # the exit handlers have run

    def run(self, call):
        self.take_signals()
        call.captures = self.captures
        for capture in call.captures:
            capture.kept = call.kept
            capture.attach()
        self.streams.renew()
        self.count += 1
        filename = f"<run-{self.count}>"
        self.tracebacks.remember(filename, call.arguments["code"])
        if call.arguments.get("stdin"):
            self.streams.give_stdin(call.arguments["stdin"])
        limits = call.cpu_limit and self.limit_cpu(call)
        timeout = call.arguments.get("timeout")
        with self.lock:
            self.running = call
            fcntl(self.input, F_SETFL, self.input_flags | O_ASYNC)
            if timeout:
                call.stop_at = min(call.stop_at, monotonic() + timeout)
                setitimer(ITIMER_REAL, timeout, INTERRUPT_AGAIN)
                # Its thread needs no interpreter lock: for code that never lets it go.
                faulthandler.dump_traceback_later(timeout + STOP_GRACE + 1, exit=True, file=self.errors)
        try:
            try:
                self.interruptible = True
                # What came before this point had no effect.
                self.on_alarm()
                self.on_input()
                self.evaluate(call, filename)
            finally:
                self.interruptible = False
        except BaseException as error:
            call.exception = call.exception or brief(error, call)
            call.exit_code = call.exit_code or 1
        if getpid() != OWN_PID:
            leave_fork(call)
        if limits:
            self.restore_cpu(limits)
        self.finish(call, timeout)

    def evaluate(self, call, filename):
        namespace = self.main_module.__dict__
        if self.isolation == "shared":
            evaluate(call, filename, namespace, self.tracebacks)
        elif self.reset:
            self.reset.run(evaluate, call, filename, namespace, self.tracebacks, self.reset.at_exit)
            self.reset.count_left_behind(call)
        else:
            evaluate(call, filename, namespace, self.tracebacks, run_exit_handlers)

    def finish(self, call, timeout):
        for capture in call.captures:
            capture.attach()  # the code may have closed or redirected it
        self.streams.renew()
        with self.lock:
            self.running = None
            setitimer(ITIMER_REAL, 0)
            if timeout:
                faulthandler.cancel_dump_traceback_later()
            fcntl(self.input, F_SETFL, self.input_flags)
            for capture in call.captures:
                capture.drain()
        self.streams.detach()

    def take_signals(self):
        """Takes our signals back from the code of earlier calls."""
        signal(SIGALRM, self.on_alarm)
        signal(SIGIO, self.on_input)
        siginterrupt(SIGIO, False)
        pthread_sigmask(SIG_UNBLOCK, OWN_SIGNALS)

    def limit_cpu(self, call):
        """Has the kernel end the process, should the code keep the interpreter lock: the reader thread, which looks after
        the limit, can't run then."""
        (resource,) = import_standard("resource")
        limits = resource.getrlimit(resource.RLIMIT_CPU)
        call.cpu_stop = process_time() + call.cpu_limit
        try:
            seconds = int(call.cpu_stop + STOP_GRACE + 2)
            resource.setrlimit(resource.RLIMIT_CPU, (min(seconds, limits[1]) if limits[1] >= 0 else seconds, limits[1]))
        except (OSError, ValueError):
            pass
        return resource, limits

    def restore_cpu(self, limits):
        try:
            limits[0].setrlimit(limits[0].RLIMIT_CPU, limits[1])
        except Exception:
            pass

    def forked(self):
        """In a fork of the code's: leaves the protocol to the parent, also for good once the parent has ended."""
        for fd in [*self.own_fds, *self.capture_fds()]:
            try:
                close(fd)
            except OSError:
                pass

    # -- Signals, in the main thread between two steps of the code

    def on_alarm(self, *_):
        call = self.running
        if self.reset and self.reset.restoring:
            self.reset.overdue()
        if not self.interruptible:
            return
        left = call.stop_at - monotonic()
        if left <= 0:
            call.timed_out = not call.cancelled
            raise Interrupted
        if call.arguments.get("timeout"):  # the code's own alarm, which took our timer's place
            setitimer(ITIMER_REAL, left, INTERRUPT_AGAIN)

    def on_input(self, *_):
        # Some C code, such as a search by re, keeps the interpreter lock for minutes and yet handles signals: lend the
        # lock to the reader thread until it has dealt with its input, which may be a cancellation.
        patience = monotonic() + INPUT_GRACE
        while self.interruptible and (self.reading or self.unread.poll(0)) and monotonic() < patience:
            sleep(0.0002)

    # -- The reader thread

    def read_input(self):
        pthread_sigmask(SIG_BLOCK, OWN_SIGNALS)
        watched = None
        with self.input_lock:
            self.take_input(self.setup.resumed.get("unread", b""))
        while True:
            ready = self.wait(watched)
            watched = self.supervise()
            if not ready:
                continue
            with self.input_lock:
                data = read(self.input, 65536)
                if not data:
                    return self.stop()
                self.take_input(data)

    def take_input(self, data):
        *lines, rest = data.split(b"\n")
        for line in lines:
            self.endpoint.receive(b"".join(self.begun) + line)
            self.begun.clear()
        if rest:
            self.begun.append(rest)

    def wait(self, watched):
        """Waits for input, or for what a call prints. Most calls end before they are watched. Returns whether there
        is input."""
        sources = poll()
        sources.register(self.input, POLLIN)
        if watched:
            for capture in watched.captures:
                sources.register(capture.reader, POLLIN)
        timeout = None if not self.calls else 50 if watched else 10
        self.reading = False
        events = sources.poll(timeout)
        self.reading = True
        return any(fd == self.input for fd, _ in events)

    def supervise(self):
        """Drains the running call's output and sees to it that it stops in time. Returns the call, if there is one."""
        with self.lock:
            call = self.running
            if not call:
                return None
            for capture in call.captures:
                capture.drain()
            if call.cpu_limit and not call.reason and process_time() > call.cpu_stop:
                call.reason = call.why_cpu()
                call.stop_at = min(call.stop_at, monotonic())
                self.interrupt()
            overdue = monotonic() - call.stop_at
            if overdue > STOP_GRACE:
                self.give_up(call)
            if overdue > CHILDREN_GRACE and not call.children_killed:
                call.children_killed = True
                self.kill_children()
                self.interrupt()
            return call

    def interrupt(self):
        setitimer(ITIMER_REAL, 0.000001, INTERRUPT_AGAIN)

    def kill_children(self):
        """Kills what os.system() waits for: no signal interrupts that."""
        for pid in list_children():
            try:
                kill(pid, SIGKILL)
            except OSError:
                pass

    def give_up(self, call):
        """Answers for code that cannot be stopped, and ends the process. The lock is held."""
        if not call.cancelled:
            call.timed_out = True
            frame = sys._current_frames().get(MAIN_THREAD)
            error = TimeoutError(f"{call.why()} and could not be stopped: its interpreter was ended")
            call.exception = self.tracebacks.describe(error, call, frame)
            call.exit_code = None
            self.send(answer_line(self.endpoint, call))
        self.die(f"{call.why()} and did not stop within {STOP_GRACE:g} s")

    def stop(self):
        """Stdin has ended. A waiting main thread runs the exit handlers, which flush files; code that runs is left."""
        if not self.calls:
            self.queue.put(None)
            sleep(EXIT_GRACE)
        self.leave(0)

    # -- What the endpoint wants

    def is_open(self, request_id):
        return request_id in self.calls

    def start(self, request_id, modern, arguments, line):
        call = self.calls[request_id] = Call(request_id, modern, arguments, line)
        self.queue.put(call)

    def cancel(self, request_id):
        with self.lock:
            call = self.calls.get(request_id)
            if not call:
                return
            call.cancelled = True
            call.stop_at = min(call.stop_at, monotonic())
            if call is self.running:
                self.interrupt()
