"""A program that uses McpExec, on a bus connection of its own (python3-dbus)."""

import fcntl
import json
import os
import re
import time
from contextlib import contextmanager

import dbus
import dbus.bus
import dbus.lowlevel
from dbus.mainloop.glib import DBusGMainLoop

from waiting import SLOWNESS, eventually, turn_loop

NAME = "org.example.McpExec"
PATH = "/org/example/McpExec"
ROOT = "org.example.McpExec"
SERVER = "org.example.McpExec.Server"
WORKER = "org.example.McpExec.Worker"
JOB = "org.example.McpExec.Job"
ERROR = "org.example.McpExec.Error."
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

ALICE, BOB, CAROL = 1, 2, 3  # uids of other users
DENIED = "org.freedesktop.DBus.Error.AccessDenied"

# Longer than any deadline of the service that a test waits for.
PATIENCE = 60.0


class CallFailed(Exception):
    """A D-Bus error: its name, without McpExec's own prefix, and its text."""

    def __init__(self, name, message):
        super().__init__(f"{name}: {message}")
        self.name = name.removeprefix(ERROR)
        self.message = message

    @classmethod
    def of(cls, error):
        return cls(error.get_dbus_name() or "", error.get_dbus_message() or "")


def plain(value):
    """A D-Bus value as Python's own types."""
    if isinstance(value, (dbus.Array, list)):
        return [plain(item) for item in value]
    if isinstance(value, (dbus.Dictionary, dict)):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (dbus.Struct, tuple)):
        return tuple(plain(item) for item in value)
    if isinstance(value, dbus.Boolean):
        return bool(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    return value


@contextmanager
def fails(name, *patterns):
    """The block ends in this error, whose text has a match for each pattern. Yields a list that gets the error."""
    caught = []
    try:
        yield caught
    except CallFailed as error:
        caught.append(error)
        check_failure(error, name, *patterns)
    else:
        raise AssertionError(f"no error, {name} was expected")


def check_failure(error, name, *patterns):
    names = (name,) if isinstance(name, str) else name
    assert error.name in names, f"{error.name} instead of {' or '.join(names)}: {error.message}"
    for pattern in patterns:
        assert re.search(pattern, error.message, re.IGNORECASE | re.DOTALL), f"no {pattern!r} in {error.message!r}"
    assert not any(ord(c) < 32 and c not in "\n\t" for c in error.message), f"control characters: {error.message!r}"


class Pending:
    """A call that is under way."""

    def __init__(self, interactive=False):
        self.interactive = interactive
        self.done = False
        self.answers = 0
        self.finished = None
        self.started = time.monotonic()
        self.take = plain
        self._result = self._error = None

    def succeed(self, *result):
        self._end()
        self._result = result[0] if len(result) == 1 else result

    def fail(self, error):
        self._end()
        self._error = CallFailed.of(error)

    def _end(self):
        self.done = True
        self.answers += 1
        self.finished = time.monotonic()

    def wait(self, timeout=PATIENCE):
        deadline = time.monotonic() + timeout * SLOWNESS
        while not self.done:
            if time.monotonic() > deadline:
                raise AssertionError(f"no answer within {timeout * SLOWNESS:g} s")
            turn_loop(0.05)
        if self._error:
            raise self._error
        return self.take(self._result)

    @property
    def elapsed(self):
        return self.finished - self.started


class Signals:
    """What a signal said, each time: a list of argument tuples."""

    def __init__(self, match):
        self._match = match
        self.seen = []

    def stop(self):
        self._match.remove()


# The main loop may still deliver to a connection that was closed: none may be collected before.
_connections = []


@contextmanager
def another_user(uid, groups=()):
    """Connections made in the block are those of that user, as the bus sees it: only root can do that."""
    if uid is None:
        yield
        return
    mine = os.getgroups()
    os.setgroups(groups)
    os.setegid(groups[0] if groups else uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(mine)


class Caller:
    def __init__(self, address, name=NAME, uid=None, groups=()):
        self.name = name
        with another_user(uid, groups):
            self.bus = dbus.bus.BusConnection(address, mainloop=DBusGMainLoop())
        _connections.append(self.bus)
        self.bus.set_exit_on_disconnect(False)
        self.closed = False
        self.patience = PATIENCE

    @property
    def unique_name(self):
        return str(self.bus.get_unique_name())

    def close(self):
        if not self.closed:
            self.closed = True
            self.bus.close()

    # Any method

    def invoke(self, member, signature, *args, path=PATH, interface=ROOT, timeout=None):
        """One method call, waited for."""
        timeout = timeout or self.patience
        try:
            return plain(self.bus.call_blocking(self.name, path, interface, member, signature, args,
                                                timeout=timeout * SLOWNESS))
        except dbus.DBusException as error:
            raise CallFailed.of(error) from None

    def raw(self, member, signature, *args, path=PATH, interface=ROOT, timeout=PATIENCE):
        """The same, and the result as it is: file descriptors aren't taken."""
        try:
            return self.bus.call_blocking(self.name, path, interface, member, signature, args, timeout=timeout * SLOWNESS)
        except dbus.DBusException as error:
            raise CallFailed.of(error) from None

    def begin(self, member, signature, *args, path=PATH, interface=ROOT, timeout=PATIENCE, interactive=False):
        """One method call, not waited for; interactive: its caller may be asked for a password."""
        pending = Pending(interactive)
        message = dbus.lowlevel.MethodCallMessage(self.name, path, interface, member)
        message.append(*args, signature=signature)
        message.set_allow_interactive_authorization(interactive)

        def answered(reply):
            if isinstance(reply, dbus.lowlevel.ErrorMessage):
                text = "".join(str(arg) for arg in reply.get_args_list()[:1])
                pending.fail(dbus.DBusException(text, name=reply.get_error_name()))
            else:
                pending.succeed(*reply.get_args_list())

        self.bus.send_message_with_reply(message, answered, timeout * SLOWNESS, require_main_loop=True)
        self.bus.flush()
        return pending

    # McpExec's own methods

    def call(self, server, method, params="", **options):
        return self.invoke("Call", "sss", server, method, _json(params), **options)

    def call_tool(self, server, tool, arguments="", **options):
        return self.invoke("CallTool", "sss", server, tool, _json(arguments), **options)

    def begin_call(self, server, method, params="", **options):
        return self.begin("Call", "sss", server, method, _json(params), **options)

    def begin_tool(self, server, tool, arguments="", **options):
        return self.begin("CallTool", "sss", server, tool, _json(arguments), **options)

    def call_batch(self, server, *requests, **options):
        requests = dbus.Array([(method, _json(params)) for method, params in requests], signature="(ss)")
        return self.invoke("CallBatch", "sa(ss)", server, requests, **options)

    def call_fd(self, server, method, params, **options):
        """The bytes of the result. params: bytes, or a file descriptor."""
        return read_fd(self.call_fd_raw(server, method, params, **options))

    def call_fd_raw(self, server, method, params, patience=PATIENCE, **options):
        """The result's file descriptor."""
        return self.begin_fd(server, method, params, patience, **options).wait(patience)

    def begin_fd(self, server, method, params, patience=PATIENCE, **options):
        made = sealed(params) if isinstance(params, bytes) else None
        try:
            pending = self.begin("CallFd", "ssha{sv}", server, method, dbus.types.UnixFd(params if made is None else made),
                                 variants(options), timeout=patience)
        finally:
            if made is not None:
                os.close(made)
        pending.take = lambda value: value.take()
        return pending

    def start_job(self, server, method, params="", **options):
        """The job's path. timeout: in seconds."""
        return self.invoke("StartJob", "sssa{sv}", server, method, _json(params), variants(options))

    def start_tool_job(self, server, tool, arguments="", **options):
        return self.start_job(server, "tools/call", arguments, tool=tool, **options)

    def job(self, path):
        return self.properties(path, JOB)

    def job_done(self, path):
        """The job's properties once it is done."""
        return eventually(lambda: (job := self.job(path))["State"] != "running" and job, f"{path} is done", PATIENCE)

    def jobs(self):
        return {path: interfaces[JOB] for path, interfaces in self.objects().items() if JOB in interfaces}

    def job_result(self, path):
        """The bytes of the memfd that GetResult returns."""
        return read_fd(self.raw("GetResult", "", path=path, interface=JOB).take())

    def job_text(self, path):
        return self.invoke("GetResultText", "", path=path, interface=JOB)

    def cancel_job(self, path):
        self.invoke("Cancel", "", path=path, interface=JOB)

    def notify(self, server, method, params=""):
        return self.invoke("Notify", "sss", server, method, _json(params))

    def list_servers(self):
        return self.invoke("ListServers", "")

    def list_tools(self, server):
        return self.invoke("ListTools", "s", server)

    def start_server(self, server):
        return self.invoke("StartServer", "s", server)

    def stop_server(self, server):
        return self.invoke("StopServer", "s", server)

    def restart_server(self, server):
        return self.invoke("RestartServer", "s", server)

    def reload(self):
        return self.invoke("Reload", "")

    def describe(self, server):
        return json.loads(self.invoke("Describe", "s", server))

    # Tools that answer with one text

    def tool_text(self, server, tool, arguments="", **options):
        return text_of(self.call_tool(server, tool, arguments, **options))

    def tool_json(self, server, tool, arguments="", **options):
        return json.loads(self.tool_text(server, tool, arguments, **options))

    # Objects

    def properties(self, path=PATH, interface=ROOT):
        return self.invoke("GetAll", "s", interface, path=path, interface=PROPERTIES)

    def property(self, name, path=PATH, interface=ROOT):
        return self.invoke("Get", "ss", interface, name, path=path, interface=PROPERTIES)

    def objects(self):
        return self.invoke("GetManagedObjects", "", interface=OBJECT_MANAGER)

    def workers(self, server=None):
        """Properties of the workers there are, with their object's path as "path", oldest first."""
        found = []
        for path, interfaces in self.objects().items():
            worker = interfaces.get(WORKER)
            if worker and (server is None or worker["Server"] == server):
                found.append({**worker, "path": path})
        return sorted(found, key=lambda worker: (worker["StartedTimestamp"], worker["path"]))

    def server(self, name):
        """Properties of a server's object, with its path as "path"."""
        for path, interfaces in self.objects().items():
            if interfaces.get(SERVER, {}).get("Name") == name:
                return {**interfaces[SERVER], "path": path}
        raise AssertionError(f"no object for server {name}")

    def signals(self, member, interface=ROOT, path=None):
        """Record a signal of the service from now on."""
        signals = Signals(None)
        signals._match = self.bus.add_signal_receiver(
            lambda *args, sender_path=None: signals.seen.append((sender_path, *plain(args))),
            signal_name=member, dbus_interface=interface, path=path, path_keyword="sender_path")
        # The match is in force when the bus has answered something that was sent after it.
        self.bus.get_name_owner("org.freedesktop.DBus")
        return signals

    # The bus itself

    def service_pid(self):
        """The daemon's pid, or None where there is none; does not start it."""
        try:
            return int(self.bus.call_blocking("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                              "GetConnectionUnixProcessID", "s", (self.name,)))
        except dbus.DBusException:
            return None


def variants(options):
    """Options as a{sv}; a timeout in seconds."""
    types = {float: lambda value: dbus.UInt64(value * 1e6), int: lambda value: dbus.UInt64(value * 1e6), bool: dbus.Boolean}
    return dbus.Dictionary({key: types.get(type(value), lambda value: value)(value) for key, value in options.items()},
                           signature="sv")


F_ADD_SEALS, F_GET_SEALS = 1033, 1034
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8


def sealed(data=b"", seals=F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE):
    """A memfd with these bytes."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]
    fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


def read_fd(fd):
    """All of a file, from its start; closes it."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()


def _json(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def text_of(result):
    """The text of a tools/call result that has one text."""
    result = json.loads(result)
    texts = [item["text"] for item in result["content"] if item["type"] == "text"]
    assert len(texts) == 1, result
    return texts[0]
