"""Workers that take too much: they end alone, and their callers are told why."""

import os
import re
from pathlib import Path

import pytest

from caller import CallFailed, fails
from machine import (cgroup_of, in_units, main_process, python_json, python_text, show, unit_of, worker_processes,
                     worker_units)
from waiting import eventually

# Where cgroups are of version 1 (tests/with-systemd --limits, on such a machine) systemd isn't told of such kills.
COUNTS_KILLS = Path("/sys/fs/cgroup/cgroup.controllers").exists()


@pytest.mark.limits
def test_who_eats_memory_dies_alone(machine, alice, bob):
    machine.python("small", access={"groups": ["mcp-exec"]}, sandbox={"MemoryMax": "64M", "MemorySwapMax": 0})
    python_text(alice, "kept = 1")
    python_text(bob, "kept = 2", "small")
    others = {machine.broker().pid, machine.worker("python", "alice")["Pid"], machine.worker("small", "bob")["Pid"]}

    with fails("WorkerDied", "oom-kill"):
        alice.call_tool("small", "run", {"code": "x = [bytearray(1 << 20) for _ in range(200)]"})
    assert all(os.path.exists(f"/proc/{pid}") for pid in others)
    assert python_text(alice, "print(kept)") == "1"
    assert python_text(bob, "print(kept)", "small") == "2"
    # And a new one serves.
    assert python_text(alice, "print(3)", "small") == "3"


def test_an_oom_kill_is_told(machine, alice):
    """What systemd makes of one, brought about as systemd-oomd does it, so that it needs no memory controller."""
    if not COUNTS_KILLS:
        pytest.skip("systemd knows of such kills on cgroup2 alone")
    call = alice.begin_tool("python", "run", {"code": "import time; time.sleep(60)"})
    unit = eventually(worker_units, "its unit")[0]
    process = eventually(lambda: main_process(unit), "its process")
    cgroup = f"/sys/fs/cgroup{cgroup_of(process.pid).strip().rpartition('::')[2]}"
    eventually(lambda: machine.root.property("CallsInFlight") == 1 and machine.worker("python")["InFlight"] == 1, "the call")
    for name in ("user.oomd_ooms", "user.oomd_kill"):
        os.setxattr(cgroup, name, b"1")
    process.kill()
    with fails("WorkerDied", "oom-kill"):
        call.wait(10)


BOMB = """
import os, signal, time
started = 0
for _ in range(400):  # bounded, should the limit not hold
    try:
        pid = os.fork()
    except OSError:
        break
    if pid == 0:
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(120)
        finally:
            os._exit(0)
    started += 1
answer = started
"""


@pytest.mark.limits
def test_a_fork_bomb_ends_with_its_worker(machine, alice, bob):
    """It gets no further than TasksMax, and all of it goes."""
    machine.python("small", access={"groups": ["mcp-exec"]}, sandbox={"TasksMax": 30})
    python_text(bob, "kept = 2", "small")
    assert 0 < python_json(alice, BOMB, "small") < 30
    unit = unit_of(machine.worker("small", "alice"))
    bomb = in_units(re.escape(unit))
    assert 10 < len(bomb) <= 30
    machine.root.stop_server("python")
    assert python_text(bob, "print(kept)", "small") == "2"

    main_process(unit).kill()
    eventually(lambda: not any(process.alive() for process in bomb), "all of it is gone")
    assert python_text(bob, "print(kept)", "small") == "2"

    def answered():
        try:
            return python_text(alice, "print(3)", "small") == "3"
        except CallFailed as error:
            # Somebody else's kill: until systemd has told of it the broker has a worker.
            assert error.name == "WorkerDied"

    eventually(answered, "another worker answers")


def test_what_a_worker_leaves_goes_with_it(machine, alice):
    """Processes in sessions of their own, deaf to SIGTERM, and their children."""
    python_json(alice, BOMB.replace("range(400)", "range(5)"))
    assert len(worker_processes()) == 6
    machine.root.stop_server("python")
    eventually(lambda: not worker_processes(), "all of it is gone")


def test_default_limits_are_set(machine, alice):
    python_text(alice, "")
    unit = unit_of(machine.worker("python"))
    assert 0 < int(show(unit, "TasksMax")) <= 4096
    assert 0 < int(show(unit, "MemoryMax")) <= 8 * 1024 ** 3
