"""Running Python code and saying how it went. Used in the executor's own process, and in forks."""

from . import own_builtins as __builtins__  # noqa: F401

import _ast
import builtins
import sys
from _collections import deque
from os import O_CLOEXEC, _exit, devnull, dup2, open as open_fd, write

from .descriptors import connect_stdin, take
from .standard import import_standard

SOURCES_KEPT, SOURCES_SIZE = 500, 4 * 1024 * 1024  # calls whose lines tracebacks can still show, and their characters
RECURSION_LIMIT = sys.getrecursionlimit()
OWN_FOLDER = __file__.rpartition("/")[0] + "/"
OWN_SCRIPT = sys.argv[0] if sys.argv else ""


class Interrupted(KeyboardInterrupt):
    """Raised in the code at its timeout or cancellation. Libraries let a KeyboardInterrupt through."""


class Tracebacks:
    """The module traceback, and the sources that it shows. Importing it takes a third of a start, and most calls raise
    nothing: with `late` it is done when it is needed."""

    def __init__(self, late=False):
        self.sources, self.sources_size = deque(), 0
        self.module = self.linecache = None
        self.waiting = [] if late else None  # sources for linecache, while that isn't imported
        if not late:
            self.load()

    def load(self):
        self.module, self.linecache = import_standard("traceback", "linecache")
        waiting, self.waiting = self.waiting, None
        for filename, code in waiting or ():
            self.show(filename, code)
        try:
            raise Exception
        except Exception as error:
            self.describe(error, None)  # which imports modules when first used: now, as long as they are Python's own

    def remember(self, filename, code):
        if self.waiting is not None:
            return self.waiting.append((filename, code))
        self.show(filename, code)

    def show(self, filename, code):
        self.show_once(filename, code)
        self.sources.append((filename, len(code)))
        self.sources_size += len(code)
        while len(self.sources) > SOURCES_KEPT or self.sources_size > SOURCES_SIZE and len(self.sources) > 1:
            oldest, size = self.sources.popleft()
            self.linecache.cache.pop(oldest, None)
            self.sources_size -= size

    def show_once(self, filename, code):
        self.linecache.cache[filename] = len(code), None, code.splitlines(True), filename

    def forget(self):
        for filename, _ in self.sources:
            self.linecache.cache.pop(filename, None)
        self.sources.clear()
        self.sources_size = 0

    def describe(self, error, call, stack=None):
        """Says what error is, with the frames and lines of the code alone."""
        if self.module is None:
            self.load()
        traceback = self.module
        if isinstance(error, Interrupted):
            error = TimeoutError(call.why()).with_traceback(error.__traceback__)
        kind = type(error)
        try:
            message = str(error)
        except Exception:
            message = "<its str() failed>"
        report = traceback.TracebackException(kind, error, error.__traceback__)
        if stack:
            report.stack = traceback.StackSummary.extract(traceback.walk_stack(stack))
            report.stack.reverse()
        pending = [report]
        while pending:
            part = pending.pop()
            part.stack[:] = [frame for frame in part.stack if not is_own_file(frame.filename)]
            part.stack = part.stack or None  # a SyntaxError of the code itself has no stack to head
            chained = (part.__cause__, part.__context__, *(part.exceptions or ()))
            pending.extend(other for other in chained if other)
        module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
        return {"type": module + kind.__qualname__, "message": message, "traceback": "".join(report.format())}


def is_own_file(name):
    return name.startswith(OWN_FOLDER) or name == OWN_SCRIPT


def brief(error, call):
    interrupted = isinstance(error, Interrupted)
    kind, message = ("TimeoutError", call.why()) if interrupted else (type(error).__name__, "")
    return {"type": kind, "message": message, "traceback": f"{kind}: {message}\n"}


def evaluate(call, filename, namespace, tracebacks, at_exit=None):
    """Runs the call's code and sets value, exception and exit_code. at_exit: run afterwards, as if a program ended."""
    code = call.arguments["code"]
    if "__builtins__" not in namespace:
        namespace["__builtins__"] = builtins  # exec() would provide ours
    try:
        try:
            tree = compile(code, filename, "exec", _ast.PyCF_ONLY_AST, True)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
            if tree.body:
                exec(compile(tree, filename, "exec", 0, True), namespace)
            if last:
                value = eval(compile(_ast.Expression(last.value), filename, "eval", 0, True), namespace)
                if value is not None:
                    call.value = repr(value)
        finally:
            # Here, and by nothing but built-in functions: any other call would be traced, or one too deep.
            sys.setrecursionlimit(RECURSION_LIMIT)
            sys.settrace(None)
            sys.setprofile(None)
    except BaseException as error:
        if isinstance(error, SystemExit):
            call.exit_code = error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
        else:
            call.exit_code = 1
        call.exception = brief(error, call)  # stays if the full description fails or is interrupted
        call.exception = tracebacks.describe(error, call)
    if at_exit:
        at_exit()
    for name in "stdout", "stderr":
        try:
            getattr(sys, name).flush()  # which may be the code's own
        except Exception:
            pass


class Streams:
    """sys.stdin, stdout and stderr, on descriptors 0, 1 and 2, which lead to /dev/null between the calls."""

    def __init__(self):
        self.null = take(open_fd(devnull, 2 | O_CLOEXEC))
        self.files = [None, None, None]

    def detach(self):
        for fd in 0, 1, 2:
            dup2(self.null, fd)

    def renew(self):
        """Puts them back, flushed, and makes those anew that the code has closed."""
        for fd, name, mode in (0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"):
            setattr(sys, name, None)  # first: a wrapper that the code made closes ours when it goes
            try:
                if fd:
                    self.files[fd].flush()
                usable = not self.files[fd].closed
            except Exception:
                usable = False
            if not usable:
                self.files[fd] = open(fd, mode, 1 if fd else -1, "utf-8", "backslashreplace", closefd=False)
            setattr(sys, name, self.files[fd])
            setattr(sys, f"__{name}__", self.files[fd])

    def give_stdin(self, text):
        connect_stdin(text)
        sys.stdin = open(0, "r", -1, "utf-8", "backslashreplace", closefd=False)


def leave_fork(call):
    """The end of the code in a process that the code has forked: that of a program."""
    try:
        if call.exception and call.exception["type"] != "SystemExit":
            write(2, call.exception["traceback"].encode("utf-8", "replace"))
    finally:
        _exit(call.exit_code & 0xFF)
