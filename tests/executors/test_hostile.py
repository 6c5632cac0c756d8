"""Code that means harm, or is merely unlucky: a result that says so, and a next call that notices nothing."""

import os
import shutil
import signal
import subprocess
import time
from importlib.machinery import EXTENSION_SUFFIXES

import pytest
from driver import is_alive, wait_for

ANY = pytest.mark.parametrize("isolation", ["shared", "reset", "fork", "fresh"])


def check_next(executor):
    result = executor.run("import sys\nprint('out'); print('err', file=sys.stderr)\n2 + 2")
    assert (result["stdout"], result["stderr"], result["value"]) == ("out\n", "err\n", "4")
    assert executor.run("input()", stdin="in")["value"] == "'in'"
    assert executor.run("import time; time.sleep(1000)", timeout=0.05)["timed_out"]


# Code, arguments, and what its result shows.
EVERYWHERE = {
    "prints without end": ("while True: print('x' * 1000)", {"timeout": 0.5}, {"timed_out": True, "truncated": True}),
    "prints to stderr without end": (
        "import sys\nwhile True: sys.stderr.write('x' * 1000)", {"timeout": 0.5}, {"timed_out": True, "truncated": True}),
    "recurses": ("def f(): f()\nf()", {}, {"exception": "RecursionError"}),
    "recurses in repr": ("class V:\n    def __repr__(self): return repr(self)\nV()", {}, {"exception": "RecursionError"}),
    "exits": ("import sys; sys.exit(3)", {}, {"exit_code": 3, "exception": "SystemExit"}),
    "closes stdout": ("import sys; print('a', flush=True); sys.stdout.close()", {}, {"stdout": "a\n", "exit_code": 0}),
    "closes 0, 1 and 2": ("import os; print('a', flush=True); os.closerange(0, 3)", {}, {"stdout": "a\n", "exit_code": 0}),
    "closes the usual descriptors": ("import os; os.closerange(3, 256); 5", {}, {"value": "5"}),
    "sleeps past its limit": ("import time; time.sleep(1000)", {"timeout": 0.1}, {"timed_out": True}),
    "swallows the interrupt once": (
        "import time\ntry: time.sleep(1000)\nexcept: pass\n'woken'", {"timeout": 0.1}, {"value": "'woken'"}),
    "waits for a child": ("import os; os.system('sleep 1000')", {"timeout": 0.1}, {"timed_out": True}),
    "prints invalid UTF-8": (r"import os; os.write(1, b'a\xff\xc3(\xed\xa0\x80'); None", {}, {"stdout": "a\ufffd\ufffd(\ufffd\ufffd\ufffd"}),
    "prints NUL": (r"print('a\0b')", {}, {"stdout": "a\0b\n"}),
    "prints JSON-RPC": ("print('{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}')", {}, {"exit_code": 0}),
    "returns surrogates": (r"'\udc80'.join(['a', 'b'])", {}, {"value": r"'a\udc80b'"}),
    "raises odd things": ("class E(BaseException):\n    def __str__(self): 1/0\nraise E", {}, {"exception": "E"}),
    "takes memory": ("x = []\nx.append(b'x' * (1 << 60))", {}, {"exception": "MemoryError"}),
    "replaces built-in functions": ("import builtins\nbuiltins.len = builtins.print = builtins.getattr = None", {}, {"exit_code": 0}),
    "deletes every module": ("import sys; sys.modules.clear(); 1", {}, {"value": "1"}),
    "breaks what it runs on": (
        "import os, signal, time, select, _json, marshal\n"
        "for m in os, signal, time, select, _json, marshal:\n    for n in list(vars(m)):\n        if n[0] != '_': setattr(m, n, None)",
        {}, {"exit_code": 0}),
    "ignores every signal": (
        "import signal\nfor n in signal.valid_signals():\n    try: signal.signal(n, signal.SIG_IGN)\n    except OSError: pass", {},
        {"exit_code": 0}),
}

# What ends the process of a call, or can't be interrupted.
FORK = {
    "leaves at once": ("import os; print('a', flush=True); os._exit(3)", {}, {"exit_code": 3, "stdout": "a\n"}),
    "leaves at once without a complaint": ("import os; os._exit(0)", {}, {"exit_code": 0, "value": None}),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", {}, {"signal": "SIGKILL", "exit_code": None}),
    "kills its group": ("import os; os.killpg(0, 9)", {}, {"signal": "SIGKILL"}),
    "kills its parent's group": ("import os; os.killpg(os.getpgid(os.getppid()), 9); 'still here'", {}, {"value": "'still here'"}),
    "stops its parent": ("import os, signal; os.kill(os.getppid(), signal.SIGSTOP); 1", {}, {"value": "1"}),
    "stops itself": ("import os, signal; print('a', flush=True); os.kill(os.getpid(), signal.SIGSTOP)", {"timeout": 0.5},
                     {"timed_out": True, "stdout": "a\n"}),
    "crashes": ("import ctypes; print('a', flush=True); ctypes.string_at(0)", {}, {"signal": "SIGSEGV", "stdout": "a\n"}),
    "aborts": ("import os; os.abort()", {}, {"signal": "SIGABRT"}),
    "overflows the C stack": ("import sys; sys.setrecursionlimit(10**9)\nf = lambda: f()\nclass C:\n    __repr__ = lambda s: str([s])\nC()\nx=0\nfor _ in range(10**6): x = (x,)\nhash(x) or 1", {}, {}),
    "writes to every descriptor": (
        "import os\nfor fd in range(3, 1024):\n    try: os.write(fd, b'forged\\n' * 1000)\n    except OSError: pass\n'done'", {},
        {"value": "'done'"}),
    "closes every descriptor": ("import os; print('a', flush=True); os.closerange(0, 70000); 1", {}, {"stdout": "a\n"}),
    "reads every descriptor": (
        "import os\nfor fd in range(3, 1024):\n    try: os.set_blocking(fd, False); os.read(fd, 1000)\n    except OSError: pass\n1", {}, {"value": "1"}),
    "swallows interrupts": ("import time\nprint('a', flush=True)\nwhile True:\n    try: time.sleep(1000)\n    except BaseException: pass",
                            {"timeout": 0.5}, {"timed_out": True, "stdout": "a\n", "signal": "SIGKILL"}),
    "keeps the interpreter lock": ("import re; print('a', flush=True); re.match('(a+)+$', 'a' * 60 + 'b')", {"timeout": 0.5},
                                   {"timed_out": True, "stdout": "a\n"}),
    "sleeps in C": ("import ctypes; ctypes.CDLL(None).pause()", {"timeout": 0.1}, {"timed_out": True}),
    "sleeps in C for ever": ("import ctypes\nl = ctypes.CDLL(None)\nwhile True: l.pause()", {"timeout": 0.1}, {"timed_out": True}),
    "replaces itself": ("import os; os.execv('/bin/echo', ['echo', 'replaced'])", {}, {"stdout": "replaced\n", "exit_code": 0}),
    "forks and both go on": ("import os\npid = os.fork()\nprint('x', flush=True)\nif pid: os.wait()\nbool(pid)", {},
                             {"stdout": "x\nx\n", "value": "True"}),
    "leaves a session": ("import os\npid = os.fork()\nif not pid:\n    os.setsid()\n    if os.fork(): os._exit(0)\n    os.execvp('sleep', ['sleep', '1000'])\nos.wait()", {},
                         {"left_behind": {"threads": 0, "processes": 1}}),
    "forks and forks": ("import os, time\nfor _ in range(6): os.fork()\ntime.sleep(1000)", {"timeout": 0.3}, {"timed_out": True}),
    "uses up its processor time": ("while True: pass", {"cpu_time": 0.1}, {"timed_out": True}),
    "opens all descriptors": ("import os\ntry:\n    while True: os.open('/dev/null', 0)\nexcept OSError: pass\n1", {}, {"value": "1"}),
    "limits itself": ("import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (4, 4)); print(1)", {}, {"stdout": "1\n"}),
    "answers itself": ("import gc\nmessages = [o for o in gc.get_objects() if isinstance(o, dict) and 'secret' in o]\n1", {}, {"value": "1"}),
}


# With shared, what they do stays, as is its promise.
LASTING = {"replaces built-in functions", "deletes every module", "breaks what it runs on", "ignores every signal"}


def check(executor, code, arguments, expected):
    result = executor.run(code, **arguments)
    for key, value in expected.items():
        seen = result[key]["type"].rpartition(".")[2] if key == "exception" and result[key] else result[key]
        assert seen == value, (key, result)


@ANY
@pytest.mark.parametrize("name", EVERYWHERE)
def test_everywhere(start, isolation, name):
    executor = start(isolation)
    check(executor, *EVERYWHERE[name])
    if name in LASTING and isolation in ("shared", "fresh"):
        assert executor.run("2 + 2")["value"] == "4"
        assert executor.run("while True: pass", timeout=0.05)["timed_out"]
    else:
        check_next(executor)


def test_fork(start):
    """One executor for all of it."""
    executor = start("fork")
    for name, case in FORK.items():
        try:
            check(executor, *case)
            check_next(executor)
        except BaseException as error:
            raise AssertionError(name) from error
    assert executor.process.poll() is None


@pytest.mark.parametrize("isolation", ["shared", "reset", "fresh"])
@pytest.mark.parametrize("code, status", [
    ("import os; os._exit(3)", 3),
    ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    ("import os; os.closerange(0, 70000)", 1),
])
def test_the_end_of_the_interpreter_is_that_of_the_worker(start, isolation, code, status):
    executor = start(isolation)
    executor.start_run(code)
    assert executor.read_line() is None
    assert executor.end(close=False)[0] == status


@pytest.mark.parametrize("isolation", ["shared", "reset", "fresh"])
def test_code_that_cannot_be_stopped_is_answered_and_ends_the_worker(start, isolation):
    executor = start(isolation)
    code = "import time\nprint('a', flush=True)\nwhile True:\n    try: time.sleep(1000)\n    except BaseException: pass"
    result = executor.run(code, timeout=0.5)
    assert result["timed_out"] and result["stdout"] == "a\n" and result["exit_code"] is None
    assert executor.end(close=False)[0] == 1


@pytest.mark.parametrize("isolation", ["reset", "fork"])
def test_threads_and_children_end_with_the_call(start, isolation, tmp_path):
    executor = start(isolation)
    code = ("import os, subprocess, threading, time\n"
            "def write():\n    while True:\n        open('alive', 'a').write('x'); time.sleep(0.005)\n"
            "threading.Thread(target=write, daemon=True).start()\n"
            "child = subprocess.Popen(['sh', '-c', 'while :; do echo x; sleep 0.01; done'])\nchild.pid")
    pid = int(executor.run(code)["value"])
    assert executor.run("1")["stdout"] == ""
    wait_for(lambda: not is_alive(pid))
    size = os.path.getsize(tmp_path / "alive")
    time.sleep(0.05)
    assert os.path.getsize(tmp_path / "alive") == size


def test_a_crashing_extension(start, tmp_path):
    """A module in C whose import crashes; in fork the call alone is lost, otherwise its worker."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    name = tmp_path / f"crashing{EXTENSION_SUFFIXES[0]}"
    source = "void *PyInit_crashing(void) { *(volatile int *)0 = 1; return 0; }"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", name], input=source, text=True, check=True)
    executor = start("fork")
    result = executor.run("print('before', flush=True)\nimport crashing")
    assert (result["signal"], result["stdout"]) == ("SIGSEGV", "before\n") and "Segmentation fault" in result["stderr"]
    check_next(executor)
    for isolation in "shared", "reset", "fresh":
        executor = start(isolation)
        executor.start_run("import crashing")
        assert executor.read_line() is None
        assert executor.end(close=False)[0] == -signal.SIGSEGV


def test_a_crash_says_where(start):
    executor = start("fork")
    result = executor.run("import ctypes\ndef crash(): ctypes.string_at(0)\ncrash()")
    assert "Segmentation fault" in result["stderr"] and '"<run-1>", line 2 in crash' in result["stderr"]


def test_forged_frames_are_passed_over(start):
    """The code can write to its channel, and read the secret in its memory: it deceives itself at most."""
    executor = start("fork")
    code = """
import os, sys
channel = max(int(fd) for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd)
              and os.readlink('/proc/self/fd/' + fd).startswith('socket:'))
frame = sys._getframe()
while 'message' not in frame.f_locals: frame = frame.f_back
secret = frame.f_locals['message']['secret']
for data in FORGED:
    os.write(channel, secret + data)
'true'
"""
    for forged, value in [("[b'00000002{}', b'zzzzzzzz', b'ffffffff', b'00000003[1]']", "'true'"),
                          ("[b'0000001c{\"value\":[],\"exit_code\":9999}']", "'true'"),
                          ("[b'00000010{\"value\":\"mine\"}']", "mine")]:
        result = executor.run(code.replace("FORGED", forged))
        assert result["value"] in (value, "[]")
        check_next(executor)
