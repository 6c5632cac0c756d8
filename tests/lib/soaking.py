"""Calls of all kinds by many callers, a fault every few seconds, and the ledger at the end."""

import json
import os
import random
import signal
import time

from caller import ERROR, CallFailed
from hammering import check, hammer, report_of
from processes import Process
from raw_connection import RawBus, RawConnection, message
from service import SANITIZED
from waiting import SLOWNESS, eventually, settle

MIB = 1024 * 1024
CALLERS = 16
LIMITS = {"calls_per_connection": 1000, "calls_per_user": 2000, "calls": 4000, "workers_per_user": 64}
FAULTS = {}

# What a fault may cost a call that it meets; mistakes are refused as such.
ALLOWED = {"WorkerDied", "Timeout", "LaunchFailed", "HandshakeFailed", "Cancelled", "InvalidJson", "Unavailable"}


def fault(function):
    """function(soak) does one, and leaves nothing behind."""
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


def some_worker(soak):
    workers = [worker for worker in soak.caller.workers("echo") if worker["Pid"]]
    return Process.of(soak.draw.choice(workers)["Pid"]) if workers else None


@fault
def kill_a_worker(soak):
    if process := some_worker(soak):
        process.kill()


@fault
def stop_a_worker(soak):
    """Until it is replaced, or for a moment."""
    if process := some_worker(soak):
        process.kill(signal.SIGSTOP)
        if soak.draw.random() < 0.8:
            settle(0.3)
            process.kill(signal.SIGCONT)


@fault
def restart_the_server(soak):
    soak.caller.restart_server("echo")


@fault
def stop_the_server(soak):
    soak.caller.stop_server("echo")


@fault
def change_its_file(soak):
    soak.configure(description=str(soak.draw.random()))
    soak.caller.reload()


@fault
def break_its_file(soak):
    """And mend it."""
    soak.service.write("servers.d/echo.json", "{")
    soak.caller.reload()
    soak.configure()
    soak.caller.reload()


@fault
def send_sighup(soak):
    for _ in range(20):
        os.kill(soak.daemon.pid, signal.SIGHUP)


@fault
def callers_vanish(soak):
    for _ in range(10):
        with RawBus(soak.service.bus.address) as raw:
            for serial in range(100, 110):
                raw.send(message(1, serial, "org.example.McpExec", "/org/example/McpExec", "org.example.McpExec", "CallTool", b"echo",
                                 b"sleep", b'{"ms":200}'))


@fault
def half_a_message_on_the_private_socket(soak):
    for size in (1, 20, 100):
        with RawConnection(soak.service.private_address) as raw:
            raw.authenticate()
            raw.send(message(1, 1, "org.example.McpExec", "/org/example/McpExec", "org.example.McpExec", "ListServers")[:size])


@fault
def a_server_that_fails(soak):
    for _ in range(5):
        soak.caller.begin_tool("broken", "echo", {})


class Soak:
    def __init__(self, service, calls, seed, pause="0-0", every=(1.0, 3.0), say=lambda text: None):
        self.service = service
        self.calls = calls
        self.draw = random.Random(seed)
        self.pause = pause
        self.every = every
        self.say = say
        self.done = {}

    def configure(self, **keys):
        self.service.echo("echo", pool={"max": 3, "concurrency": 64, "queue": 1024}, restart={"burst": 100_000, "interval": 1},
                          timeouts={"start": 30, "call": 5, "stop": 0.5}, **keys)

    def settled(self):
        """Memory and descriptors when nothing runs."""
        self.caller.stop_server("echo")
        eventually(lambda: self.service.worker_processes() == [], "no process is left", 30)
        eventually(lambda: self.caller.property("CallsInFlight") == 0, "no call is left", 30)
        return len(self.service.open_fds()), self.service.private_memory()

    def warm_up(self):
        """All that is made once, and kept, is there before the first measurement."""
        report = report_of(hammer(self.service, server="echo", tool="echo", mix=True, callers=CALLERS, calls=2000, window=8,
                                  timeout=int(100 * SLOWNESS)), 150 * SLOWNESS)
        check(report)
        for function in FAULTS.values():
            function(self)
            settle(0.1)
            try:
                self.caller.call_tool("echo", "pid")
            except CallFailed:
                pass  # it met the fault

    def run(self):
        """Returns the ledger; fails where it doesn't balance."""
        service = self.service
        service.settings(limits=LIMITS)
        self.configure()
        service.server("broken", "/bin/false", restart={"burst": 0})
        service.run_directly()
        self.caller = service.caller()
        self.daemon = service.daemon()
        self.caller.call_tool("echo", "pid")
        self.warm_up()
        fds, memory = self.settled()
        started = time.monotonic()
        limit = int(60 + self.calls / 500 * SLOWNESS)
        process = hammer(service, server="echo", tool="echo", mix=True, callers=CALLERS, calls=self.calls, window=4, pause=self.pause,
                         timeout=limit)
        try:
            while process.poll() is None and time.monotonic() - started < limit + 30:
                settle(self.draw.uniform(*self.every))
                name = self.draw.choice(sorted(FAULTS))
                if process.poll() is None:
                    self.done[name] = self.done.get(name, 0) + 1
                    FAULTS[name](self)
                    self.say(f"{time.monotonic() - started:6.0f} s: {name}")
        finally:
            report = report_of(process, 60)
        fds_after, memory_after = self.settled()
        ledger = {
            "calls": report["calls"], "answered": report["ok"] + report["failed"], "own results": report["ok"], "errors": {
                name: error["count"] for name, error in report["errors"].items()},
            "wrong": report["wrong"], "twice": report["stray"], "never": report["unanswered"], "kinds": report["kinds"],
            "faults": self.done, "seconds": round(report["seconds"], 1), "calls a second": round(report["calls"] / report["seconds"]),
            "slowest": report["slowest"], "median": report["median"],
            "fds": [fds, fds_after], "memory": [memory, memory_after],
        }
        self.say(json.dumps(ledger, indent=1))
        check(report)
        for name in report["errors"]:
            assert name.removeprefix(ERROR) in ALLOWED, f"{name}: {report['errors'][name]}"
        assert service.daemon() == self.daemon, "the daemon was replaced"
        assert fds_after <= fds, f"{fds} descriptors were open, and are {fds_after}"
        assert SANITIZED or memory_after <= memory + 2 * MIB, f"{memory} bytes of memory were used, and are {memory_after}"
        return ledger


def failed_calls(ledger):
    """Those that met a fault."""
    return sum(count for name, count in ledger["errors"].items() if not name.endswith("InvalidJson"))
