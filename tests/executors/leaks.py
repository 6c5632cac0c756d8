"""Ways to leave something for the next call: code that leaves it, and code whose value tells whether it is there.

A value is compared with what the same code said before anything was left.
"""

LEAKS = {
    # The interpreter
    "a variable": ("planted = 1", "'planted' in globals()"),
    "a function in builtins": ("import builtins; builtins.planted = 1", "'planted' in dir(__builtins__)"),
    "a replaced built-in function": ("import builtins; builtins.len = lambda _: 5", "len('ab')"),
    "the search path": ("import sys; sys.path.insert(0, '/planted')", "import sys; sys.path"),
    "a forged module": ("import sys; sys.modules['planted'] = sys", "import sys; 'planted' in sys.modules"),
    "a module of the working directory": (
        "open('planted.py', 'w').write('value = 1\\n'); import planted; planted.value = 2\nimport os; os.unlink('planted.py')",
        "try:\n    import planted\n    value = planted.value\nexcept ImportError:\n    value = None\nvalue"),
    "an import hook": ("import sys; sys.meta_path.insert(0, type('P', (), {'find_spec': lambda *_: None})())",
                       "import sys; len([f for f in sys.meta_path if 'P' == type(f).__name__])"),
    "a patched function": ("import os; os.getcwd = lambda: 'planted'", "import os; os.getcwd() == 'planted'"),
    "a patched class": ("import json; json.JSONEncoder.encode = lambda *_: 'planted'", "import json; json.dumps({'a': []})"),
    "a patched method of an instance": ("import random; random._inst.planted = 1; random.random = lambda: 4",
                                        "import random; hasattr(random._inst, 'planted'), random.random() == 4"),
    "a module's settings": ("import json; json.decoder.planted = 1; import textwrap; textwrap._whitespace = 'x'",
                            "import json, textwrap; hasattr(json.decoder, 'planted'), textwrap._whitespace"),
    "the state of random": ("import random; random.seed(5)", "import random; random.random() == random.Random(5).random()"),
    "the decimal context": ("import decimal; decimal.getcontext().prec = 3; decimal.DefaultContext.prec = 4",
                            "import decimal; decimal.getcontext().prec, decimal.DefaultContext.prec"),
    "a context variable": (
        "import contextvars, builtins; v = contextvars.ContextVar('planted'); v.set(1); import os; os.planted = v",
        "import contextvars; [v.name for v in contextvars.copy_context() if v.name == 'planted']"),
    "the recursion limit": ("import sys; sys.setrecursionlimit(500)", "import sys; sys.getrecursionlimit()"),
    "the switch interval": ("import sys; sys.setswitchinterval(1)", "import sys; sys.getswitchinterval()"),
    "the limit of digits": ("import sys; sys.set_int_max_str_digits(0)", "import sys; sys.get_int_max_str_digits()"),
    "a trace function": (
        "import sys, threading; threading.settrace(print); sys.settrace(lambda *_: None)",
        "import sys, threading; str(sys.gettrace()), str(threading._trace_hook)"),
    "hooks": ("import sys; sys.excepthook = sys.displayhook = sys.unraisablehook = print",
              "import sys; sys.excepthook is print, sys.displayhook is print, sys.unraisablehook is print"),
    "replaced streams": ("import sys, io; sys.stdout = sys.stderr = io.StringIO(); sys.stdin = None",
                         "import sys; print('seen'); type(sys.stdin).__name__"),
    "garbage collection": (
        "import gc; gc.disable(); gc.set_threshold(5); gc.callbacks.append(print); gc.set_debug(gc.DEBUG_SAVEALL)",
        "import gc; gc.isenabled(), gc.get_threshold(), len(gc.callbacks), gc.get_debug()"),
    "an exit handler": ("import atexit; atexit.register(print, 'planted')", "import atexit; atexit._ncallbacks()"),
    "warnings filters": ("import warnings; warnings.simplefilter('error')", "import warnings; len(warnings.filters)"),
    "logging": (
        "import logging; logging.basicConfig(level=5); logging.getLogger('planted'); logging.disable(40); "
        "logging.addLevelName(3, 'x')",
        "import logging; logging.root.level, logging.root.handlers, list(logging.root.manager.loggerDict), "
        "logging.root.manager.disable, logging.getLevelName(3)"),
    "an event loop and its policy": (
        "import asyncio; asyncio.set_event_loop(asyncio.new_event_loop())\n"
        "asyncio.set_event_loop_policy(type('P', (asyncio.DefaultEventLoopPolicy,), {})())",
        "import asyncio; type(asyncio.get_event_loop_policy()).__name__, asyncio.get_event_loop_policy()._local.__dict__"),
    "a codec": ("import codecs; codecs.register(lambda name: codecs.lookup('utf-8') if name == 'planted' else None)",
                "try: seen = 'a'.encode('planted')\nexcept LookupError: seen = None\nseen"),
    "an audit hook": (
        "import sys, os; os.planted = []; sys.addaudithook(lambda e, a: hasattr(os, 'planted') and e == 'open' and print('heard'))",
        "open('/dev/null').close()"),
    "a pickle reduction": ("import copyreg; copyreg.pickle(complex, lambda c: (complex, (0, 0)))",
                           "import pickle; pickle.loads(pickle.dumps(1j))"),
    "tracemalloc": ("import tracemalloc; tracemalloc.start()", "import tracemalloc; tracemalloc.is_tracing()"),
    "the default timeout of sockets": ("import socket; socket.setdefaulttimeout(5)", "import socket; socket.getdefaulttimeout()"),
    "csv's settings": ("import csv; csv.field_size_limit(1); csv.register_dialect('planted')",
                       "import csv; csv.field_size_limit(), csv.list_dialects()"),
    # The process
    "an environment variable": ("import os; os.environ['PLANTED'] = '1'", "import os; os.environ.get('PLANTED')"),
    "a variable that os.environ does not show": ("import os; os.putenv('PLANTED', '1')", "import os; os.system('echo $PLANTED')"),
    "the time zone": ("import os, time; os.environ['TZ'] = 'UTC-5'; time.tzset()", "import time; time.localtime(0).tm_hour"),
    "the working directory": ("import os; os.chdir('/')", "import os; os.getcwd()"),
    "the umask": ("import os; os.umask(0o777)", "import os; m = os.umask(0); os.umask(m); m"),
    "signal handlers": ("import signal; signal.signal(signal.SIGUSR1, print); signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
                        "import signal; str(signal.getsignal(signal.SIGUSR1)), str(signal.getsignal(signal.SIGCHLD))"),
    "blocked signals": ("import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])",
                        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [])"),
    "timers": ("import signal; signal.signal(signal.SIGVTALRM, print); signal.setitimer(signal.ITIMER_VIRTUAL, 1000); "
               "signal.setitimer(signal.ITIMER_PROF, 1000); signal.alarm(1000)",
               "import signal; [signal.getitimer(n)[0] > 500 for n in range(3)]"),
    "the locale": ("import locale; locale.setlocale(locale.LC_ALL, 'C')", "import locale; locale.setlocale(locale.LC_ALL)"),
    "an open descriptor": ("import os; fd = os.open('/etc/passwd', 0); os.set_inheritable(fd, True); os.dup2(fd, 50)",
                           "import os; [n for n in range(3, 100) if os.path.exists(f'/proc/self/fd/{n}')]"),
    "replaced descriptors": ("import os\nfor fd in 0, 1, 2: os.dup2(os.open('/dev/null', 2), fd)",
                             "import os; os.write(1, b'out'), os.write(2, b'err'), os.read(0, 1)"),
    "a soft limit": ("import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (500, r.getrlimit(r.RLIMIT_NOFILE)[1]))",
                     "import resource; resource.getrlimit(resource.RLIMIT_NOFILE)"),
    "a hard limit": ("import resource as r; r.setrlimit(r.RLIMIT_CORE, (0, 0))",
                     "import resource; resource.getrlimit(resource.RLIMIT_CORE)"),
    "its priority": ("import os; os.nice(5)", "import os; os.getpriority(os.PRIO_PROCESS, 0)"),
    "its processors": ("import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
                       "import os; os.sched_getaffinity(0)"),
    "its name": ("open('/proc/self/comm', 'w').write('planted')", "open('/proc/self/comm').read() == 'planted\\n'"),
    "a thread": ("import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()",
                 "import threading, os; threading.active_count(), len(threading._active)"),
    "a daemon thread that prints": (
        "import threading, os, time\ndef chat():\n    while True: os.write(1, b'planted'); time.sleep(0.001)\n"
        "threading.Thread(target=chat, daemon=True).start()",
        "import time; time.sleep(0.2)"),
    "a child": ("import subprocess; subprocess.Popen(['sleep', '1000'], env={'PLANTED': 'child'})", "FIND"),
    "a daemon": (
        # The pipe ends when the new program runs: only then its environment is to be found.
        "import os\nreading, writing = os.pipe()\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.execve('/bin/sleep', ['sleep', '1000'], {'PLANTED': 'daemon'})\n    os._exit(0)\n"
        "os.close(writing); os.read(reading, 1); os.close(reading); os.wait()", "FIND"),
    "a dead child": ("import os\nif os.fork() == 0: os._exit(0)\nos.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)", "import os\ntry: seen = os.waitpid(-1, os.WNOHANG)[0] > 0\nexcept OSError: seen = False\nseen"),
    # Files
    "a temporary file": ("import tempfile; tempfile.mkstemp(prefix='planted'); tempfile.mkdtemp()",
                         "import os, tempfile; os.listdir(tempfile.gettempdir())"),
    "another place for temporary files": ("import tempfile; tempfile.tempdir = '/'", "import tempfile; tempfile.gettempdir() == '/'"),
    "a prepared folder for temporary files": (
        "import os, tempfile; os.chmod(tempfile.gettempdir(), 0o777)",
        "import os, tempfile; oct(os.stat(tempfile.gettempdir()).st_mode)"),
}

FIND = """
import os
found = []
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        with open(f'/proc/{pid}/environ', 'rb') as file:
            environment = file.read()
        with open(f'/proc/{pid}/stat') as file:
            state = file.read().rpartition(')')[2].split()[0]
    except OSError:
        continue
    if b'PLANTED=' in environment and MARKER in environment and state not in 'ZX':
        found.append(pid)
found
"""
