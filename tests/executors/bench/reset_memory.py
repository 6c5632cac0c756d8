#!/usr/bin/python3
"""Does isolation reset keep its memory and its behaviour, over 100,000 calls?

usage: tests/executors/bench/reset_memory.py [CALLS] [--every N]

Each call changes sys.path, modules, environment, working directory, signal handlers and more, and leaves a thread that
is about to end; each Nth (default: 1000th) leaves one that doesn't, so that the process begins anew. Says every so often
what the process has in memory, and ends with PASS or FAIL: the last tenth may not take more than the second by 1 MB, and
no call may have seen anything of another.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from driver import Executor  # noqa: E402

LOOK = ("import sys, os, signal, threading, random, json, gc\n"
        "clean = ('/planted' not in sys.path, 'planted' not in sys.modules, 'PLANTED' not in os.environ, os.getcwd() != '/',\n"
        "         'planted' not in globals(), json.dumps([]) == '[]', signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,\n"
        "         threading.active_count() == 1, not gc.callbacks, not hasattr(os, 'planted'))\n")
CHANGE = ("sys.path.insert(0, '/planted'); sys.modules['planted'] = os; os.environ['PLANTED'] = '1'; os.chdir('/')\n"
          "planted = [[i] for i in range(200)]; planted.append(planted); json.dumps = None; os.planted = planted\n"
          "signal.signal(signal.SIGUSR1, print); gc.callbacks.append(lambda *_: None); random.seed(1)\n"
          "class Planted: pass\nPlanted.me = Planted()\nfile = open('/dev/null')\n")
SHORT = "threading.Thread(target=lambda: None).start()\n"
LASTING = "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"


def memory(executor):
    with open(f"/proc/{executor.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calls", nargs="?", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=1000)
    options = parser.parse_args()
    executor = Executor(pathlib.Path(tempfile.gettempdir()), MCP_EXEC_ISOLATION="reset")
    executor.initialize()
    begun, sizes, unclean, pids = time.monotonic(), [], 0, set()
    for number in range(1, options.calls + 1):
        thread = LASTING if number % options.every == 0 else SHORT
        result = executor.run(LOOK + CHANGE + thread + "all(clean) or clean")
        unclean += result["value"] != "True"
        pids.add(executor.process.pid)
        if number % max(1, options.calls // 20) == 0:
            sizes.append(memory(executor))
            print(f"{number:8} calls  {sizes[-1]:6} KiB  {number / (time.monotonic() - begun):6.0f}/s", flush=True)
    grown = max(sizes[-2:]) - max(sizes[1:4])
    good = grown <= 1024 and not unclean and executor.process.poll() is None
    print(f"{'PASS' if good else 'FAIL'}: {grown} KiB more at the end than at the start, {unclean} calls saw something of another")
    executor.leave()
    sys.exit(not good)


if __name__ == "__main__":
    main()
