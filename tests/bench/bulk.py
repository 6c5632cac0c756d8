#!/usr/bin/python3
"""What a GiB takes through CallFd, and through a bare pipe to the same worker.

usage: tests/bench/bulk.py BUILD [MIB] [ROUNDS]

The worker (tests/bus/bulk_worker.c) does nothing with what it reads, so that the pipe, and what is done beside it, is all that
there is. Both ways in turn, medians. The service checks what it passes on: UTF-8 and JSON, both ways.
"""

import fcntl
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUILD = Path(sys.argv[1] if len(sys.argv) > 1 else "build-bench").resolve()
SIZE = int(sys.argv[2] if len(sys.argv) > 2 else 1024) << 20
ROUNDS = int(sys.argv[3] if len(sys.argv) > 3 else 5)
os.environ["MCP_EXEC_BUILD"] = str(BUILD)
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import processes  # noqa: E402
from caller import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE  # noqa: E402
from service import BULK_WORKER, Service  # noqa: E402

MIB = 1 << 20


def payload(name, size):
    fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, b'{"name":"%s","arguments":{"size":%d,"padding":"' % (name, size))
    for _ in range(size // MIB if name == b"count" else 0):
        os.write(fd, b"p" * MIB)
    os.write(fd, b'"}}')
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    return fd


def bare(fd, keep):
    """The same line, written and read in blocks of 64 KiB, for more is in no pipe; what is read is kept in a memfd too, or isn't."""
    worker = subprocess.Popen([BULK_WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    data = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    view, block = memoryview(data), bytearray(64 * 1024)
    out = os.memfd_create("result")
    started = time.monotonic()
    os.write(worker.stdin.fileno(), b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":')
    for at in range(0, len(view), 64 * 1024):
        piece = view[at:at + 64 * 1024]
        while piece:
            piece = piece[os.write(worker.stdin.fileno(), piece):]
    os.write(worker.stdin.fileno(), b"}\n")
    while True:
        n = os.readv(worker.stdout.fileno(), [block])
        if keep:
            os.write(out, memoryview(block)[:n])
        if block[n - 1] == 10:
            break
    took = time.monotonic() - started
    os.close(out)
    view.release()
    worker.stdin.close()
    worker.wait()
    return took


def main():
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), log_level="warning")
        service.bulk(limits={"message": 2 * SIZE}, timeouts={"call": 120})
        service.settings(limits={"payload_bytes_per_user": 8 * SIZE, "payload_bytes": 8 * SIZE})
        caller = service.caller()
        caller.call("bulk", "ping")
        pid = service.pid
        print(f"{SIZE >> 20} MiB, medians of {ROUNDS}, seconds")
        for name, way in ((b"count", "to the worker"), (b"make", "from the worker")):
            fd = payload(name, SIZE)
            times = {"kept": [], "dropped": [], "CallFd": []}
            for _ in range(ROUNDS):
                times["kept"].append(bare(fd, keep=True))
                times["dropped"].append(bare(fd, keep=False))
                started = time.monotonic()
                os.close(caller.call_fd_raw("bulk", "tools/call", fd, patience=120))
                times["CallFd"].append(time.monotonic() - started)
            os.close(fd)
            print(f"{way:16}", "   ".join(f"{kind} {statistics.median(times[kind]):.2f}" for kind in times), end="   ")
            print("bare pipe / CallFd:", ", ".join(
                f"{kind} {statistics.median(pipe / call for pipe, call in zip(times[kind], times['CallFd'])):.2f}"
                for kind in ("kept", "dropped")))
        print(f"the service's memory, at most: {processes.peak_memory(pid) / MIB:.1f} MiB")
        service.close()


main()
