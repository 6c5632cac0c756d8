"""A child of the nursery that runs Python code: one call, in a private copy of the warm interpreter."""

from . import own_builtins as __builtins__  # noqa: F401

import _thread
import atexit
import faulthandler
import gc
import marshal
import os
import sys
from _signal import SIGINT, SIGXCPU, default_int_handler, signal
from os import P_ALL, WEXITED, WNOHANG, WNOWAIT, _exit, close, dup2, getpid, putenv, waitid, write
from time import monotonic, sleep

from .descriptors import take
from .frame import frame_of
from .interpreter import Interrupted, Streams, Tracebacks, brief, evaluate, leave_fork
from .output import STREAM_KEPT, Call, Capture, shorten
from .nursery import Child
from .processes import PR_SET_DUMPABLE, is_running, limit_cpu, list_children
from .standard import import_standard

CPU_GRACE = 2  # seconds of CPU time until the kernel ends what the supervisor should have
SAMPLE = marshal.dumps({"arguments": {"code": "print(6 * 7)\n'value'"}, "secret": b""})
INFINITE = float("inf")
FILENAME = "<run-1>"
run_exit_handlers = atexit._run_exitfuncs
Module = type(sys)


class Lines:
    """An entry of linecache's cache: size, time, lines, name."""

    def __init__(self, child):
        self.child = child

    def __len__(self):
        return 4

    def __getitem__(self, index):
        source = self.child.source
        return (len(source), None, source.splitlines(True), FILENAME)[index]


class PythonChild(Child):
    def __init__(self, setup, nursery):
        super().__init__(nursery)
        self.setup = setup
        self.deadline, self.source = INFINITE, ""
        self.interruptible = False
        self.late = False  # whether the signal came before the code could be interrupted

    def prepare(self):
        self.setup.provide_site()
        captures = Capture(1), Capture(2)
        errors = take(os.dup(2))
        for capture in captures:
            capture.attach()  # the streams are made for pipes
        self.streams = Streams()
        self.streams.renew()
        dup2(errors, 2)
        self.tracebacks = Tracebacks()
        self.setup.hide_own_modules()
        if problem := self.setup.preload_modules():
            return problem
        faulthandler.enable(2)
        signal(SIGINT, default_int_handler)
        signal(SIGXCPU, self.on_signal)
        self.pid, self.threads = getpid(), _thread._count()
        # For tracebacks, and only made where one is shown.
        self.tracebacks.linecache.cache[FILENAME] = Lines(self)
        self.environment = os.environ._data
        self.own_folder = self.environment.get(b"TMPDIR")
        self.set_folder(self.own_folder or b"/tmp")  # so that a child changes little
        self.call, self.main = Call(None, False, {}), Module("__main__")
        sys.modules["__main__"] = self.main
        self.streams.detach()
        for _ in range(3):
            self.rehearse()
        close(errors)
        for capture in captures:
            capture.close()
        return None

    def run(self, rehearse, folder, channel, stdout, stderr):
        self.pid = getpid()
        if rehearse:
            self.rehearse()  # nobody waits: has the pages copied that a call will change
        self.connect(channel, stdout, stderr)
        if folder:
            self.set_folder(folder)
        elif self.own_folder is None:
            del os.environ["TMPDIR"]
        message = self.read_message()
        self.prctl(PR_SET_DUMPABLE, 1)
        gc.enable()
        self.send(self.run_call(message, self.call, self.main))
        # It will be killed: to leave at once would take time from the answer's way.
        sleep(1)
        _exit(self.call.exit_code & 0xFF)

    def set_folder(self, folder):
        """What os.environ does, in fewer steps."""
        self.environment[b"TMPDIR"] = folder
        putenv(b"TMPDIR", folder)

    def rehearse(self):
        """A call that leaves nothing; what it prints goes to /dev/null."""
        self.prctl(PR_SET_DUMPABLE, 0)
        self.run_call(marshal.loads(SAMPLE), self.call, self.main)
        self.call.value = None

    def run_call(self, message, call, main):
        call.arguments = arguments = message["arguments"]
        self.source = arguments["code"]
        if "timeout" in arguments:
            self.deadline = monotonic() + arguments["timeout"]
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()  # each child would have the same numbers
        if arguments.get("stdin"):
            self.streams.give_stdin(arguments["stdin"])
        if "cpu_time" in arguments:
            call.cpu_limit = arguments["cpu_time"]
            limit_cpu(*import_standard("resource"), call.cpu_limit + CPU_GRACE)
        try:
            try:
                self.interruptible = True
                if self.late:
                    self.on_signal()
                evaluate(call, FILENAME, main.__dict__, self.tracebacks, run_exit_handlers)
            finally:
                self.interruptible = False
        except BaseException as error:
            call.exception = call.exception or brief(error, call)
            call.exit_code = call.exit_code or 1
        if getpid() != self.pid:
            leave_fork(call)
        self.count_left_behind(call)
        return frame_of(message["secret"], self.report(call))

    def send(self, frame):
        try:
            sent = write(self.channel, frame)
            while sent < len(frame):
                sent += write(self.channel, memoryview(frame)[sent:])
        except OSError:
            _exit(self.call.exit_code & 0xFF)  # the code has closed it

    def report(self, call):
        cut = False

        def trim(text):
            nonlocal cut
            data = text.encode("utf-8", "replace")
            if len(data) <= STREAM_KEPT:
                return text
            cut = True
            return shorten(data, len(data), STREAM_KEPT - 100)[0]

        return {
            "value": None if call.value is None else trim(call.value),
            "exception": call.exception and {key: trim(text) for key, text in call.exception.items()},
            "truncated": cut,
            "exit_code": call.exit_code,
            "interrupted": call.timed_out,
            "left_behind": call.left_behind,
        }

    def count_left_behind(self, call):
        threads, processes = _thread._count() - self.threads, 0
        try:
            waitid(P_ALL, 0, WEXITED | WNOHANG | WNOWAIT)
            processes = sum(map(is_running, list_children(all_threads=True)))
        except ChildProcessError:
            pass
        if threads > 0 or processes:
            call.left_behind = {"threads": max(0, threads), "processes": processes}

    def on_signal(self, *_):
        """The supervisor's: the time is up."""
        if not self.interruptible:
            self.late = True
            return
        call = self.call
        if monotonic() < self.deadline and call.cpu_limit:
            call.reason = call.why_cpu()
        call.timed_out = True
        raise Interrupted
