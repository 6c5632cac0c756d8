"""Each limit of mcp-exec.json is reached, and what is said then names the limit, its value, and the key that changes it."""

import fcntl
import json
import os
import re
import signal
import socket
import struct
import termios
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import dbus
import pytest

from caller import ALICE, BOB, NAME, PATH, ROOT, CallFailed, another_user, check_failure, fails
from mock_polkit import MockPolkit
from raw_connection import ERROR, RawBus, error_text
from service import PYTHON, REPO
from session import Session
from waiting import eventually, settle

CALL = b'{"name":"echo","arguments":{"message":"hi"}}'
LIMIT = "org.example.McpExec.Error.LimitsExceeded"

# What isn't reached below: the test that reaches it, or why there is no error.
ELSEWHERE = {
    "unread_bytes_per_connection": "test_unread.py::test_the_keys_of_the_limits_count",
    "unread_bytes_per_user": "test_unread.py::test_little_for_each_of_many_is_much",
    "unread_bytes": "test_unread.py::test_results_under_way_are_no_more_than_the_bus_takes",
    "finished_jobs_per_user": "test_jobs.py::test_no_more_than_so_many_are_kept",
}


def limits_of_the_source():
    text = (REPO / "src/broker/config-file.c").read_text()
    table = text[text.index("static const ConfigKey limits[]"):text.index("limits_section")]
    return set(re.findall(r'\{ "([a-z_]+)", config_read', table))


def refused(error, key, value):
    check_failure(error, "LimitsExceeded", rf"limits\.{key} ", rf"\b{value}\b")


def one_more(begin):
    """Begins what is held for long, until one is refused."""
    pending = []
    while len(pending) < 10:
        pending.append(begin(len(pending)))
        try:
            if pending[-1].done or eventually(lambda: pending[-1].done, "an answer", 0.3):
                pending[-1].wait()
        except CallFailed as error:
            return error
        except AssertionError:
            pass  # it is under way
    raise AssertionError("nothing is refused")


def busy(service, stack, server="obedient", make=None):
    callers = []

    def begin(_):
        callers.append(make() if make else callers[0] if callers else service.caller())
        return callers[-1].begin_tool(server, "sleep", {"seconds": 20})
    return one_more(begin)


def call_of_bytes(service, stack):
    return _error(lambda: service.caller().tool_text("obedient", "echo", {"message": "x" * 5000}))


def _error(act):
    try:
        act()
    except CallFailed as error:
        return error
    raise AssertionError("it isn't refused")


def workers(service, stack):
    names = [f"other-{i}" for i in range(4)]
    for name in names:
        service.obedient(name)
    caller = service.caller()
    return one_more(lambda i: caller.begin_tool(names[i], "sleep", {"seconds": 20}))


def sessions(service, stack):
    caller = service.caller()

    def open_all():
        for _ in range(5):
            stack.callback(Session.open(caller, "obedient").close)
    return _error(open_all)


def jobs(service, stack):
    caller = service.caller()
    return _error(lambda: [caller.start_tool_job("obedient", "sleep", {"seconds": 20}) for _ in range(5)])


def payload(service, stack):
    return _error(lambda: service.caller().call_fd("obedient", "tools/call", json.dumps(
        {"name": "echo", "arguments": {"message": "x" * 200_000}}).encode()))


def batch(service, stack):
    return _error(lambda: service.caller().call_batch("obedient", *[("ping", "")] * 10))


def session_on_many(service, stack):
    for i in range(4):
        service.obedient(f"other-{i}")
    service.caller().reload()
    return _error(lambda: Session.open(service.caller(), "", servers=dbus.Array([f"other-{i}" for i in range(4)], signature="s")))


SUBSCRIBABLE = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = {"protocolVersion": "2025-06-18", "capabilities": {"resources": {"subscribe": True}},
                  "serverInfo": {"name": "s", "version": "1"}} if message["method"] == "initialize" else {}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def subscriptions(service, stack):
    service.server("pages", PYTHON, "-c", SUBSCRIBABLE, era="legacy")
    service.caller().reload()
    session = Session.open(service.caller(), "pages")
    stack.callback(session.close)
    session.initialize()
    for i in range(5):
        try:
            session.request("resources/subscribe", {"uri": f"page://{i}"})
        except Exception as error:
            return CallFailed(LIMIT, str(error.message))
    raise AssertionError("nothing is refused")


def together(service, times, make_callers):
    """The refusal of one of many calls that lie in the service's socket before any of them is read. That they do can't be seen, on a bus
    that takes its time: then they come once more."""
    service.caller().tool_text("obedient", "pid")
    for _ in range(20):
        callers = make_callers()
        os.kill(service.pid, signal.SIGSTOP)
        pending = [caller.begin("ListServers", "") for _ in range(times) for caller in callers]
        for caller in callers:
            caller.bus.get_name_owner(NAME)  # the bus has taken what came before
        settle(0.2)
        os.kill(service.pid, signal.SIGCONT)
        for one in pending:
            try:
                one.wait()
            except CallFailed as error:
                return error
    raise AssertionError("nothing is refused")


def waiting(service, stack):
    # More than the socket should have in it for all to be served as they come, and than is served at once
    caller = service.caller()
    caller.list_servers()
    return together(service, 300, lambda: [caller])


def new_connections(service, stack):
    return together(service, 1, lambda: [service.caller() for _ in range(8)])


def calls_of_a_new_connection(service, stack):
    return together(service, 10, lambda: [service.caller()])


def checks(service, stack):
    """polkit doesn't answer."""
    caller = service.caller(uid=ALICE)
    error = one_more(lambda i: caller.begin_tool("obedient", f"tool-{i}"))
    caller.close()
    return error


def unread_by_the_peer(raw):
    return struct.unpack("i", fcntl.ioctl(raw.socket, termios.TIOCOUTQ, b"\0" * 4))[0]


def unread_answers(service, stack):
    with RawBus(service.private_address) as raw:
        # sd-bus has up to 16 MiB in the socket itself.
        serials = [raw.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"big", b'{"size":1000000}') for _ in range(28)]
        root = service.caller()
        eventually(lambda: sum(worker["Calls"] for worker in root.workers()) == len(serials) and
                   root.property("CallsInFlight") == 0, "they are answered")
        last = raw.begin(NAME, PATH, ROOT, "CallTool", b"obedient", b"pid", b"")
        eventually(lambda: unread_by_the_peer(raw) == 0, "the last one was read")
        kind, name, body = raw.answer(last)
        assert (kind, name) == (ERROR, LIMIT)
        return CallFailed(name, error_text(body))


# key: value, how it is reached
ROWS = {
    "calls_per_connection": (2, busy),
    "calls_per_user": (2, lambda service, stack: busy(service, stack, make=service.caller)),
    "calls": (2, busy),
    "workers_per_user": (2, workers),
    "workers": (2, workers),
    "sessions_per_user": (2, sessions),
    "sessions": (2, sessions),
    "queued_bytes_per_user": (4000, call_of_bytes),
    "queued_bytes": (4000, call_of_bytes),
    "jobs_per_user": (2, jobs),
    "jobs": (2, jobs),
    "payload_bytes_per_user": (100_000, payload),
    "payload_bytes": (100_000, payload),
    "waiting_messages_per_user": (3, waiting),
    "waiting_messages": (3, waiting),
    "polkit_checks_per_user": (3, checks),
    "polkit_checks": (3, checks),
    "new_connections": (2, new_connections),
    "calls_per_new_connection": (3, calls_of_a_new_connection),
    "unread_answers_per_connection": (2, unread_answers),
    "batch_items": (3, batch),
    "servers_per_session": (2, session_on_many),
    "subscriptions_per_session": (2, subscriptions),
    "subscriptions_per_server": (3, subscriptions),
}


def served(caller):
    try:
        return caller.list_servers()
    except CallFailed:
        return None


@pytest.mark.parametrize("key", ROWS)
def test_a_limit_is_named(make_service, key, request):
    value, reach = ROWS[key]
    system = reach is checks
    if system and os.getuid() != 0:
        pytest.skip("only root can be several users")
    service = make_service(system=system, private=reach is unread_answers)
    service.obedient()
    service.settings(limits={"unread_bytes_per_connection": 100 << 20, key: value})
    if system:
        service.start_bus()
        service.let_others_in()
        polkit = MockPolkit(service.bus.address, "silence")
        request.addfinalizer(polkit.close)
    if service.private:
        service.run_directly()
    with ExitStack() as stack:
        refused(reach(service, stack), key, value)
        # Who has reached it has harmed nobody for long.
        eventually(lambda: served(service.caller()), "the next call is served", 30)


@pytest.mark.parametrize("key", ["private_connections_per_user", "private_connections"])
def test_a_limit_of_the_private_socket_is_in_the_log(make_service, key):
    """Who isn't let in can't be told."""
    service = make_service(private=True, log_level="notice")
    service.settings(limits={key: 3})
    service.run_directly()
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(RawBus(service.private_address))
        with pytest.raises(ConnectionError):
            RawBus(service.private_address)
    eventually(lambda: re.search(rf"the limit is 3 \(limits\.{key} in mcp-exec\.json", service.log_text()), "the log says so")


def test_the_limit_of_a_message_is_named(service, caller):
    service.obedient()
    service.settings(limits={"message": 2000})
    error = _error(lambda: caller.tool_text("obedient", "big", {"size": 3000}))
    check_failure(error, "TooLarge", r"limits\.message ", r"\b2000\b")


def test_what_a_queue_refuses_is_charged_to_nobody(service, caller):
    """More is refused than a user may have; neither the next refusal nor what comes then is told another reason."""
    service.obedient(pool={"max": 1, "concurrency": 1, "queue": 1})
    service.settings(limits={"calls_per_user": 8, "jobs_per_user": 4})
    caller.tool_text("obedient", "pid")
    gate = service.folder / "gate"
    held = [caller.begin_tool("obedient", "until", {"path": str(gate)}) for _ in range(2)]
    for refused_one in (caller.tool_text, caller.start_tool_job):
        for _ in range(12):
            with fails("LimitsExceeded", "pool.queue"):
                refused_one("obedient", "pid")
    assert caller.property("CallsInFlight") == len(held)
    gate.touch()
    for call in held:
        call.wait()
    assert caller.tool_text("obedient", "pid")
    assert caller.job_done(caller.start_tool_job("obedient", "pid"))["State"] == "succeeded"


def test_every_limit_has_a_test():
    reached = set(ROWS) | set(ELSEWHERE) | {"private_connections_per_user", "private_connections", "message"}
    assert reached == limits_of_the_source()
    for key, place in ELSEWHERE.items():
        file, _, name = place.partition("::")
        text = (Path(__file__).parent / file).read_text()
        body = text[text.index(f"def {name}("):]
        assert key in body[:body.index("\n\n\n")], place


def test_every_limit_is_documented():
    text = (REPO / "docs/configuration.md").read_text()
    text = text[text.index("## mcp-exec.json"):]
    assert set(re.findall(r"`limits\.([a-z_]+)`", text[:text.index("## The journal")])) == limits_of_the_source()


def test_every_refusal_of_the_source_names_its_key():
    """Or is one of those that nothing changes: docs/architecture.md says why."""
    unchangeable = ("Out of memory", "too many arguments", "LimitNOFILE=", "more than %d calls")
    for path in sorted((REPO / "src").rglob("*.c")):
        if "mcp-exec" in path.parent.name:
            continue  # the command line, which doesn't refuse anything
        for statement in re.findall(r'(?:failure_set\(|bus_error_setf?\()[^;]*LIMITS?_?EXCEEDED[^;]*;', path.read_text(), re.IGNORECASE):
            text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', statement))
            assert "(limits." in text or "(pool.queue" in text or any(word in text for word in unchangeable), f"{path}: {text}"


@pytest.mark.parametrize("known", [True, False], ids=["known", "strangers"])
def test_descriptors_of_messages_that_wait(make_service, known):
    """Nothing tells how many come along with a message. They are open for as long as it waits, and no caller may leave the service
    without any: it would lose the bus. (The policy that is installed lets four through with a message; this bus, all that it can.)"""
    if os.getuid() != 0:
        pytest.skip("only root can be several users")
    service = make_service(system=True, fds=1024)
    service.echo(access={"users": [ALICE, BOB]})
    service.start_bus()
    service.let_others_in()
    bob = service.caller(uid=BOB)
    bob.call_fd("echo", "tools/call", CALL)
    pid, before, over = service.pid, len(service.open_fds()), threading.Event()

    def through():
        """The bus refuses by itself, for a moment, where many descriptors are on their way to the service."""
        try:
            return b"hi" in bob.call_fd("echo", "tools/call", CALL)
        except CallFailed as error:
            assert error.name.endswith("LimitsExceeded"), error
            return False

    def flood(raws, null):
        with suppress(OSError, IndexError):
            while not over.is_set():
                raw = raws[0] if known else raws.pop()
                for _ in range(40):
                    raw.begin_with_fds([null] * 16, NAME, PATH, ROOT, "ListServers")

    with ExitStack() as stack, open("/dev/null", "rb") as null:
        with another_user(ALICE):
            raws = [stack.enter_context(RawBus(service.bus.address, fds=True)) for _ in range(120)]
        if known:
            for raw in raws:
                raw.call(NAME, PATH, ROOT, "ListServers")
        threads = [threading.Thread(target=flood, args=(raws[i::3], null.fileno())) for i in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(30):
                eventually(through, "a call comes through", 30)
        finally:
            over.set()
            for raw in raws:
                with suppress(OSError):
                    raw.socket.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
    eventually(lambda: len(service.open_fds()) <= before, "they are closed", 30)
    assert service.pid == pid
