#!/usr/bin/python3
"""What a GiB takes through CallFd, and through a bare pipe to the same worker.

usage: meson setup build-release --buildtype=release && ninja -C build-release
       tests/bench/bulk.py build-release [MIB] [ROUNDS]

On a machine with at least two CPUs, nothing else to do, and room for three times as much memory (3 GiB). 1024 MiB and 5 rounds take
half a minute. The last figures of each line are shares of a bare pipe's speed: 0.50 is half as fast. Medians of rounds in which
all take turns, so that what else the machine does is the same for each.

The worker (tests/bus/bulk_worker.c) does nothing with what it reads, so that the pipe, and what is done beside it, is all that
there is. The service checks what it passes on, UTF-8 and JSON, and keeps a result in a memfd. Of the two readers of the bare pipe
one does that as well (kept), the other forgets what it reads (dropped): the memory that a result takes is most of the difference.
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
from waiting import eventually  # noqa: E402

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


def nothing_kept(pid):
    """Waits until the service has given back the last result: it looks after a second whether somebody has it open."""
    eventually(lambda: not any("/memfd:mcp-exec" in path for path in processes.open_fds(pid).values()), "it is given back", 30)


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
                nothing_kept(pid)
            os.close(fd)
            print(f"{way:16}", "   ".join(f"{kind} {statistics.median(times[kind]):.2f}" for kind in times), end="   ")
            print("bare pipe / CallFd:", ", ".join(
                f"{kind} {statistics.median(pipe / call for pipe, call in zip(times[kind], times['CallFd'])):.2f}"
                for kind in ("kept", "dropped")))
        print(f"the service's memory, at most: {processes.peak_memory(pid) / MIB:.1f} MiB")
        service.close()


main()
