"""Isolation reset: what a call has changed is put back after it has been answered.

Where that can't be done, because a thread still runs or something has been changed that nothing changes back, the
process starts itself anew, by exec: same process, same pipes, a new interpreter, no call lost that has been sent
meanwhile. Where even that would leave something (a hard limit that was lowered, another user id) it ends, status 0.

Python's own modules are imported before any code runs, so that their picture shows them as they were made: those that
a call was the first to import, in the start that follows it.
"""

from . import own_builtins as __builtins__  # noqa: F401

import _thread
import atexit
import builtins  # noqa: F401
import codecs
import faulthandler
import gc
import locale  # noqa: F401
import os
import sys
from _contextvars import copy_context
from _locale import LC_ALL, setlocale
from _signal import (ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, SIG_BLOCK, SIG_SETMASK, SIGALRM, SIGINT, SIGIO,
                     getsignal, pthread_sigmask,
                     set_wakeup_fd, setitimer, signal, valid_signals)
from _socket import getdefaulttimeout, setdefaulttimeout
from atexit import _clear as clear_exit_handlers
from faulthandler import enable as enable_faulthandler
from marshal import dump
from gc import collect, enable as gc_enable, garbage, set_debug, set_threshold
from os import (O_CLOEXEC, O_DIRECTORY, O_RDONLY, O_WRONLY, P_ALL, PRIO_PROCESS, WEXITED, WNOHANG, WNOWAIT, close, execve, fchdir, fstat,
                getpgid, getpriority, getsid, listdir, memfd_create, open as open_fd, sched_getaffinity,
                read, sched_setaffinity, set_inheritable, setpriority, stat, umask, waitid, write)
from sys import (set_asyncgen_hooks, set_coroutine_origin_tracking_depth, set_int_max_str_digits, setdlopenflags,
                 setswitchinterval)
from time import monotonic, sleep, tzset

from .descriptors import take
from .namespaces import Namespaces
from .parked import Parked
from .processes import PR_SET_CHILD_SUBREAPER, end_strangers, is_running, list_children, load_prctl
from .setup import ORIGINAL_ARGV, RESUME
from .standard import is_standard, import_standard

CLEAN, RENEW, EXIT = range(3)
OWN_SIGNALS = {SIGALRM, SIGIO, SIGINT}  # Live.take_signals() looks after them
THREADS_GRACE = 0.05  # seconds until a thread counts as one that stays
RESTORE_TIME = 1.0  # seconds for everything, with the finalizers of the code's objects
NEVER_LEARNED = {"this", "antigravity", "turtle", "ctypes", "_ctypes", "__main__"}
NOT_TO_LEARN = "test.", "idlelib", "lib2to3", "tkinter", "distutils", "__"
# What has an effect that can't be seen, or not be taken back.
WATCHED = {
    RENEW: {sys: ["addaudithook"], codecs: ["register", "register_error"], faulthandler: ["register"],
            os: ["register_at_fork"]},
    EXIT: {os: ["chroot", "initgroups", "setegid", "seteuid", "setgid", "setgroups", "setns", "setregid", "setresgid",
                "setresuid", "setreuid", "setsid", "setuid", "unshare"]},
}
STANDARD_NAMES = sys.stdlib_module_names
Module = type(sys)
MODULES = sys.modules  # the interpreter's own, whatever sys.modules says


class Reset:
    def __init__(self, live):
        self.live = live
        self.verdict, self.restoring = CLEAN, False
        self.learned = list(live.setup.resumed.get("learned", ()))
        load_prctl()(PR_SET_CHILD_SUBREAPER, 1)
        (self.resource,) = import_standard("resource")
        for name in self.learned:
            try:
                __import__(name)
            except Exception:
                pass
        self.watch()
        self.park(live.setup)
        atexit._clear()
        if logging := self.all.get("logging"):
            self.logging_shutdown = logging.shutdown
        self.touched = set()
        self.watch_environment()
        finalize = getattr(self.all.get("weakref"), "finalize", None)
        if finalize:
            finalize._registered_with_atexit = False
        self.remember_process()
        self.remember_interpreter()
        self.namespaces = Namespaces([module for module in self.all.values() if type(module) is Module])
        gc.collect()
        gc.freeze()
        self.own_fds = self.list_fds() - set(live.capture_fds())

    logging_shutdown = None

    def park(self, setup):
        self.all = {name: module for name, module in MODULES.items() if name != "__main__"}
        hidden = {name: module for name, module in self.all.items() if name not in setup.visible}
        self.parked = Parked(hidden)
        sys.meta_path.insert(0, self.parked)
        shown = setup.visible | self.parked.with_needs(need for name in setup.preload for need in [name, *self.needs_of(name)])
        self.visible = {name: module for name, module in self.all.items() if name in shown}
        for name in hidden:
            if name not in shown:
                del MODULES[name]

    def needs_of(self, name):
        return self.parked.find_needs(self.all[name]) if name in self.all else ()

    def watch(self):
        """Notes the use of functions whose effect stays."""
        for verdict, modules in WATCHED.items():
            for module, names in modules.items():
                for name in names:
                    if hasattr(module, name):
                        self.replace(module, name, self.make_watcher(getattr(module, name), verdict))

    def replace(self, module, name, function):
        for place in (module, MODULES.get("posix") if module is os else MODULES.get(f"_{module.__name__}")):
            if place is not None and hasattr(place, name):
                setattr(place, name, function)

    def make_watcher(self, function, verdict):
        def watcher(*arguments, **named):
            self.verdict = max(self.verdict, verdict)
            return function(*arguments, **named)

        return watcher

    def watch_environment(self):
        """Notes which variables have been set by putenv(): not all of that can be seen in os.environ."""
        self.environment = dict(os.environb)
        self.putenv, self.unsetenv, fsencode = os.putenv, os.unsetenv, os.fsencode

        def putenv(name, value, /):
            self.touched.add(fsencode(name))
            self.putenv(name, value)

        def unsetenv(name, /):
            self.touched.add(fsencode(name))
            self.unsetenv(name)

        self.replace(os, "putenv", putenv)
        self.replace(os, "unsetenv", unsetenv)

    def remember_process(self):
        self.cwd = take(open_fd(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC))
        self.mask = umask(0o077)
        umask(self.mask)
        names = sorted(name for name in dir(self.resource) if name.startswith("RLIMIT_"))
        self.limits = {number: self.resource.getrlimit(number) for number in {getattr(self.resource, n) for n in names}}
        self.name, self.oom_score = read_text("/proc/self/comm"), read_text("/proc/self/oom_score_adj")
        self.priority, self.affinity = getpriority(PRIO_PROCESS, 0), sched_getaffinity(0)
        self.identity = self.get_identity()

    def get_identity(self):
        root = stat("/")
        return getpgid(0), getsid(0), root.st_dev, root.st_ino

    def remember_interpreter(self):
        self.threads = _thread._count() + 1  # the reader thread, which comes later
        self.handlers = {number: getsignal(number) for number in map(int, valid_signals()) if number not in OWN_SIGNALS}
        self.locale = setlocale(LC_ALL, None)
        self.gc_threshold = gc.get_threshold()
        self.switch_interval, self.dlopen_flags = sys.getswitchinterval(), sys.getdlopenflags()
        self.digits = sys.get_int_max_str_digits()
        self.specials = [make(self.all[name]) for name, make in SPECIALS.items() if name in self.all]

    # -- Beside a call

    def run(self, function, *arguments):
        """In a context of its own: context variables that it sets are gone with it."""
        copy_context().run(function, *arguments)

    def at_exit(self):
        self.live.run_exit_handlers()
        if self.logging_shutdown and "logging" in MODULES:
            self.logging_shutdown()

    def count_left_behind(self, call):
        threads, processes = _thread._count() - self.threads, 0
        try:
            waitid(P_ALL, 0, WEXITED | WNOHANG | WNOWAIT)
            processes = sum(map(is_running, list_children(all_threads=True)))
        except ChildProcessError:
            pass
        if threads > 0 or processes:
            call.left_behind = {"threads": max(0, threads), "processes": processes}

    # -- After a call

    def overdue(self):
        """An alarm while it is being put back: finalizers of the code's take too long."""
        self.verdict = max(self.verdict, RENEW)
        raise TimeoutError

    def restore(self):
        """Returns the next call's __main__, or doesn't return."""
        self.restoring = True
        try:
            self.live.take_signals()
            setitimer(ITIMER_REAL, RESTORE_TIME, RESTORE_TIME)
            self.put_back()
        except BaseException:
            self.verdict = max(self.verdict, RENEW)
        self.restoring = False
        setitimer(ITIMER_REAL, 0)
        if self.verdict != CLEAN:
            self.renew()
        self.parked.given.clear()
        MODULES["__main__"] = main = Module("__main__")
        return main

    def put_back(self):
        for timer in ITIMER_VIRTUAL, ITIMER_PROF:
            setitimer(timer, 0)
        if not end_strangers(all_threads=True)[1]:
            self.verdict = EXIT
        self.put_back_process()
        self.wait_for_threads()
        self.sort_out_modules()
        if self.verdict != CLEAN:
            return
        self.live.main_module = None
        self.put_back_interpreter()
        collect()  # before what its finalizers may change is put back
        for _ in range(4):
            self.put_back_environment()
            if not self.namespaces.restore():
                break
        else:
            self.verdict = RENEW
        for special in self.specials:
            special(self.parked.given)
        collect(0)
        self.live.tracebacks.forget()
        self.live.count = 0
        if "warnings" in self.all:
            mutated = getattr(MODULES.get("_warnings"), "_filters_mutated", None)
            if mutated:
                mutated()
        for fd in self.list_fds() - self.own_fds:
            close(fd)
        self.live.scratch.empty()

    def wait_for_threads(self):
        deadline = monotonic() + THREADS_GRACE
        while _thread._count() > self.threads:
            if monotonic() > deadline:
                self.verdict = max(self.verdict, RENEW)
                return
            sleep(0.0005)

    def sort_out_modules(self):
        for name, module in list(MODULES.items()):
            if name in self.visible or name == "__main__" or name in self.parked.given:
                continue
            origin = getattr(getattr(module, "__spec__", None), "origin", None) or getattr(module, "__file__", None)
            top = name.partition(".")[0]
            if origin and is_standard(module) and top in STANDARD_NAMES:
                self.verdict = max(self.verdict, RENEW)
                if name not in NEVER_LEARNED and not name.startswith(NOT_TO_LEARN):
                    self.learned.append(name)
            elif origin and str(origin).endswith(".so"):
                self.verdict = max(self.verdict, RENEW)  # its state is its own: preload it
        if "_ctypes" in self.parked.given:
            self.verdict = max(self.verdict, RENEW)  # whatever it has been used for
        MODULES.clear()
        MODULES.update(self.visible)

    def put_back_process(self):
        """Returns nothing; the verdict says whether it can't be done."""
        try:
            fchdir(self.cwd)
            umask(self.mask)
            for number, limits in self.limits.items():
                if self.resource.getrlimit(number) != limits:
                    self.resource.setrlimit(number, limits)
            if getpriority(PRIO_PROCESS, 0) != self.priority:
                setpriority(PRIO_PROCESS, 0, self.priority)
            if sched_getaffinity(0) != self.affinity:
                sched_setaffinity(0, self.affinity)
            for path, text in ("/proc/self/comm", self.name), ("/proc/self/oom_score_adj", self.oom_score):
                if read_text(path) != text:
                    write_text(path, text)
        except (OSError, ValueError):
            self.verdict = EXIT
        if self.get_identity() != self.identity:
            self.verdict = EXIT
        set_wakeup_fd(-1)
        for number, handler in self.handlers.items():
            if getsignal(number) is not handler and handler is not None:
                signal(number, handler)
        pthread_sigmask(SIG_SETMASK, ())

    def put_back_interpreter(self):
        setswitchinterval(self.switch_interval)
        setdlopenflags(self.dlopen_flags)
        set_int_max_str_digits(self.digits)
        set_asyncgen_hooks(None, None)
        set_coroutine_origin_tracking_depth(0)
        gc_enable()
        set_debug(0)
        set_threshold(*self.gc_threshold)
        garbage.clear()
        clear_exit_handlers()
        if setlocale(LC_ALL, None) != self.locale:
            setlocale(LC_ALL, self.locale)
        if getdefaulttimeout() is not None:
            setdefaulttimeout(None)
        enable_faulthandler(self.live.errors)

    def put_back_environment(self):
        for name in self.touched:
            if name in self.environment:
                self.putenv(name, self.environment[name])
            else:
                self.unsetenv(name)
        if b"TZ" in self.touched:
            tzset()
        self.touched.clear()

    def list_fds(self):
        fds = {int(name) for name in listdir("/proc/self/fd")}
        return {fd for fd in fds if self.is_open(fd)}  # the list itself was open, too

    @staticmethod
    def is_open(fd):
        try:
            fstat(fd)
            return True
        except OSError:
            return False

    # -- Where it can't be put back

    def renew(self):
        """Starts this program anew in this process, with what has been read and not been dealt with."""
        live = self.live
        if self.verdict == EXIT:
            live.leave(0)
        live.input_lock.acquire()  # now the reader thread waits, or is about to
        lines = []
        while not live.queue.empty():
            call = live.queue.get()
            if call and not call.cancelled:
                lines.append(call.line + b"\n")
        state = {"initialized": live.endpoint.initialized, "learned": self.learned,
                 "unread": b"".join([*lines, *live.begun]), "fds": (live.input, live.output, live.errors)}
        try:
            fd = memfd_create("resume", 0)
            with open(fd, "wb", closefd=False) as file:
                dump(state, file)
                file.seek(0)
            # Not as 0, 1 and 2: a thread of the code's may still be writing there.
            for other in self.list_fds() - {0, 1, 2, fd}:
                set_inheritable(other, other in state["fds"])
            live.scratch.remove()
            pthread_sigmask(SIG_BLOCK, ())
            execve("/proc/self/exe", ORIGINAL_ARGV, {**live.setup.environ, RESUME.encode(): b"%d" % fd})
        finally:
            live.leave(0)


def read_text(path):
    fd = open_fd(path, O_RDONLY | O_CLOEXEC)
    try:
        return read(fd, 4096)
    finally:
        close(fd)


def write_text(path, text):
    fd = open_fd(path, O_WRONLY | O_CLOEXEC)
    try:
        write(fd, text)
    finally:
        close(fd)


# -- State that no dict shows. Each is made with the module, and is told which modules the call has imported.


def reset_random(module):
    seed = module._inst.seed
    return lambda given: seed() if "random" in given or "random" in MODULES else None


def reset_numpy(module):
    return lambda given: module.seed()


def reset_threading(module):
    count = type(module._counter.__self__)
    picture = module.__dict__

    def restore(given):
        picture["_counter"] = count(1).__next__

    return restore


def reset_decimal(module):
    contexts = [(context, context.copy()) for context in
                (module.DefaultContext, module.BasicContext, module.ExtendedContext)]

    def restore(given):
        if "decimal" not in given:
            return
        for context, before in contexts:
            for name in "prec", "rounding", "Emin", "Emax", "capitals", "clamp":
                setattr(context, name, getattr(before, name))
            context.clear_flags()
            context.clear_traps()
            for trap, on in before.traps.items():
                context.traps[trap] = on

    return restore


def reset_logging(module):
    loggers = {name: (logger, vars(logger).copy(), list(logger.handlers), list(logger.filters))
               for name, logger in module.root.manager.loggerDict.items() if isinstance(logger, module.Logger)}

    def restore(given):
        for logger, variables, handlers, filters in loggers.values():
            vars(logger).clear()
            vars(logger).update(variables)
            logger.handlers[:], logger.filters[:] = handlers, filters
            vars(logger)["_cache"] = {}
        vars(module.root)["_cache"] = {}

    return restore


def reset_csv(module):
    limit, dialects = module.field_size_limit(), set(module.list_dialects())

    def restore(given):
        module.field_size_limit(limit)
        for name in set(module.list_dialects()) - dialects:
            module.unregister_dialect(name)

    return restore


def reset_asyncio(module):
    return lambda given: module._set_running_loop(None)


def reset_tracemalloc(module):
    return lambda given: module.stop()


SPECIALS = {"random": reset_random, "numpy.random": reset_numpy, "threading": reset_threading,
            "decimal": reset_decimal, "logging": reset_logging, "csv": reset_csv, "_asyncio": reset_asyncio,
            "_tracemalloc": reset_tracemalloc}
