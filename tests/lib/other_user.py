"""Callers with another uid, for which the tests have to be run by root."""

import os
import subprocess
from pathlib import Path

from caller import CallFailed
from service import PYTHON
from waiting import SLOWNESS

# What is imported first need not be readable for that user.
BECOME = """
import dbus, dbus.bus, json, os, sys, time
import raw_connection as raw_bus
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
"""
CALL = """
bus = dbus.bus.BusConnection(sys.argv[2])
result = bus.call_blocking("org.example.McpExec", "/org/example/McpExec", "org.example.McpExec", "CallTool", "sss",
                           (sys.argv[3], "pid", ""))
print(json.loads(result)["content"][0]["text"])
"""


def can_be_others():
    return os.getuid() == 0


def run_as(uid, script, *arguments):
    """What a Python script prints that runs as this user. Its arguments are sys.argv[2:]."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parent),
                   "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([PYTHON, "-c", BECOME + script, str(uid), *arguments], capture_output=True, text=True,
                          timeout=60 * SLOWNESS, cwd="/", env=environment)
    if done.returncode:
        raise CallFailed("", done.stderr)
    return done.stdout


def worker_of(uid, address, server):
    """The pid of the worker that a caller of that uid gets."""
    return int(run_as(uid, CALL, address, server))
