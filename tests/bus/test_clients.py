"""Clients that others wrote: busctl, gdbus, dbus-send, python3-dbus by introspection, dasbus, dbus-next."""

import json
import os
import shutil
import subprocess

import pytest

from caller import NAME, PATH, ROOT
from service import PYTHON

ARGUMENTS = '{"message":"hi, \\"you\\" é"}'
ANSWER = 'hi, "you" é'


def run(service, *command):
    service.start_bus()
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "DBUS_SESSION_BUS_ADDRESS": service.bus.address,
                   "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def needs(program):
    if not shutil.which(program, path="/usr/local/bin:/usr/bin:/bin"):
        pytest.skip(f"{program} is not installed")


def needs_module(name):
    if subprocess.run([PYTHON, "-c", f"import {name}"], capture_output=True).returncode:
        pytest.skip(f"Python's {name} is not installed")


def answered(text):
    """The text of a tools/call result."""
    return json.loads(text)["content"][0]["text"]


def test_busctl(service):
    needs("busctl")
    service.echo()
    call = ("busctl", "--user", "call", NAME, PATH, ROOT)
    done = run(service, *call, "CallTool", "sss", "echo", "echo", ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert "hi," in done.stdout
    done = run(service, "busctl", "--user", "--json=short", "call", NAME, PATH, ROOT, "CallTool", "sss", "echo", "echo", ARGUMENTS)
    assert answered(json.loads(done.stdout)["data"][0]) == ANSWER
    done = run(service, *call, "CallTool", "sss", "nowhere", "echo", "")
    assert done.returncode != 0 and "nowhere" in done.stderr
    done = run(service, "busctl", "--user", "get-property", NAME, PATH, ROOT, "WorkersRunning")
    assert done.stdout.split() == ["u", "1"]
    done = run(service, "busctl", "--user", "introspect", NAME, PATH, ROOT)
    assert ".CallTool" in done.stdout and "sss" in done.stdout
    done = run(service, "busctl", "--user", "tree", "--list", NAME)
    assert f"{PATH}/server/echo" in done.stdout.split()


def test_gdbus(service):
    needs("gdbus")
    service.echo()
    call = ("gdbus", "call", "--session", "--dest", NAME, "--object-path", PATH)
    quoted = ARGUMENTS.replace("\\", "\\\\")  # gdbus takes its arguments for GVariant text
    done = run(service, *call, "--method", f"{ROOT}.CallTool", "echo", "echo", f"'{quoted}'")
    assert done.returncode == 0, done.stderr
    assert "hi," in done.stdout
    done = run(service, *call, "--method", f"{ROOT}.CallBatch", "echo", '[("ping", ""), ("no/method", "")]')
    assert "(true, '{}')" in done.stdout and "(false, 'org.example.McpExec.Error.Remote: " in done.stdout, done.stdout
    done = run(service, *call, "--method", f"{ROOT}.CallTool", "nowhere", "echo", "")
    assert done.returncode != 0 and "org.example.McpExec.Error.NoSuchServer" in done.stderr
    done = run(service, "gdbus", "introspect", "--session", "--dest", NAME, "--object-path", PATH, "--recurse")
    assert done.returncode == 0 and "org.example.McpExec.Server" in done.stdout


def test_dbus_send(service):
    needs("dbus-send")
    service.echo()
    done = run(service, "dbus-send", "--session", "--print-reply=literal", f"--dest={NAME}", PATH, f"{ROOT}.CallTool",
               "string:echo", "string:echo", f"string:{ARGUMENTS}")
    assert done.returncode == 0 and answered(done.stdout.strip()) == ANSWER


PYTHON_DBUS = """
import dbus, sys
proxy = dbus.SessionBus().get_object("org.example.McpExec", "/org/example/McpExec")
service = dbus.Interface(proxy, "org.example.McpExec")
print(service.CallTool("echo", "echo", sys.argv[1]))
assert [bool(ok) for ok, _ in service.CallBatch("echo", [("ping", ""), ("no/method", "")])] == [True, False]
assert service.ListServers()[0][0] == "echo"
try:
    service.CallTool("nowhere", "echo", "")
except dbus.DBusException as error:
    assert error.get_dbus_name() == "org.example.McpExec.Error.NoSuchServer"
else:
    raise AssertionError
"""

DASBUS = """
import sys
from dasbus.connection import SessionMessageBus
from dasbus.error import DBusError
service = SessionMessageBus().get_proxy("org.example.McpExec", "/org/example/McpExec")
print(service.CallTool("echo", "echo", sys.argv[1]))
assert [ok for ok, _ in service.CallBatch("echo", [("ping", ""), ("no/method", "")])] == [True, False]
assert service.Servers and service.WorkersRunning == 1
try:
    service.CallTool("nowhere", "echo", "")
except DBusError as error:
    assert "nowhere" in str(error)
else:
    raise AssertionError
"""

DBUS_NEXT = """
import asyncio, sys
from dbus_next.aio import MessageBus
from dbus_next.errors import DBusError

async def main():
    bus = await MessageBus().connect()
    introspection = await bus.introspect("org.example.McpExec", "/org/example/McpExec")
    proxy = bus.get_proxy_object("org.example.McpExec", "/org/example/McpExec", introspection)
    service = proxy.get_interface("org.example.McpExec")
    answers = await asyncio.gather(*(service.call_call_tool("echo", "echo", sys.argv[1]) for _ in range(8)))
    assert len(set(answers)) == 1
    print(answers[0])
    assert await service.get_workers_running() == 1
    try:
        await service.call_call_tool("nowhere", "echo", "")
    except DBusError as error:
        assert error.type == "org.example.McpExec.Error.NoSuchServer"
    else:
        raise AssertionError

asyncio.run(main())
"""


@pytest.mark.parametrize("module, script", [("dbus", PYTHON_DBUS), ("dasbus", DASBUS), ("dbus_next", DBUS_NEXT)],
                         ids=["python3-dbus", "dasbus", "dbus-next"])
def test_python_libraries(service, module, script):
    needs_module(module)
    service.echo()
    done = run(service, PYTHON, "-c", script, ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert answered(done.stdout) == ANSWER
