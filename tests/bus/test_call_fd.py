"""CallFd: params and results in files, of any size, and none of it held."""

import fcntl
import json
import os
import socket
import struct
import tempfile

import dbus
import pytest

import processes
from caller import (ALICE, DENIED, F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, NAME, PATH, ROOT,
                    fails, read_fd, sealed, text_of)
from raw_connection import METHOD_RETURN, RawBus
from waiting import eventually, settle, turn_loop

MIB = 1 << 20
LARGE = 3 * MIB  # is streamed


def tool(name, **arguments):
    return json.dumps({"name": name, "arguments": arguments}, separators=(",", ":")).encode()


def padded(size, **members):
    """An object of about that size."""
    return json.dumps({**members, "padding": "p" * size}).encode()


def test_small_params_and_result(service, caller):
    service.echo()
    assert caller.call_fd("echo", "echo/params", b'{"a": [1, 2]}') == b'{"params":{"a": [1, 2]}}'
    assert text_of(caller.call_fd("echo", "tools/call", tool("echo", message="hi"))) == "hi"
    assert text_of(caller.call_fd("echo", "tools/call", b'{"message":"hi"}', tool="echo")) == "hi"


def test_nobody_can_change_the_result(service, caller):
    """Nor cut it, nor add to it, nor seal it further: others may have it as well."""
    service.bulk()
    all_seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL
    for size in (1, LARGE):
        fd = caller.call_fd_raw("bulk", "tools/call", tool("make", size=size))
        assert fcntl.fcntl(fd, F_GET_SEALS) & all_seals == all_seals
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        os.close(fd)


@pytest.mark.parametrize("text", [
    b'{"a":1,"padding":"PAD"}',
    b' {\n\t"padding" : "PAD" ,\r\n "a":[1,\n2]}\n',
    b'{"_meta":{"x":1},"padding":"PAD"}',
    b'{"padding":"PAD","_meta":{"x":"\\"}"}}',
    b'{"a" : 1 , "_meta" : {"x":[{}]} , "padding":"PAD"}',
    b'{"a":1,"_meta":{"progressToken":"mine","x":1},"padding":"PAD","z":{"_meta":2,"name":3}}',
    b'{"_meta":{},"padding":"PAD"}',
    b'{"_meta":\n{"x":\n1},"padding":"PAD"}',
    '{"padding":"PADé😀\\n\\u0000","a":12345678901234567890.0}'.encode(),
], ids=range(9))
@pytest.mark.parametrize("method", ["echo/params", "tools/call"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_large_params_reach_the_worker_as_they_are(service, caller, text, method, era):
    """What arrives is what a Call has sent, but for the padding."""
    service.echo("echo", *(["--modern"] if era == "modern" else []), era=era)
    service.echo("plain", *(["--modern"] if era == "modern" else []), era=era)
    if method == "tools/call":
        text = text.rstrip().replace(b"{", b'{"name":"params",', 1)
    small, large = text.replace(b"PAD", b"p"), text.replace(b"PAD", b"p" * LARGE)
    expected = json.loads(caller.call("plain", "echo/params", small.decode()))["params"]
    if method == "tools/call":
        with fails("Remote"):  # it has no such tool; the line was understood, or the error would be another
            caller.call_fd("echo", method, large)
        return
    got = json.loads(caller.call_fd("echo", method, large))["params"]
    assert got.pop("padding").startswith("p" * LARGE)
    expected.pop("padding")
    for params in (expected, got):
        if "progressToken" in params.get("_meta", {}):
            params["_meta"]["progressToken"] = isinstance(params["_meta"]["progressToken"], int)
    assert got == expected


def test_large_arguments_of_a_tool(service, caller):
    service.echo()
    message = "x" * LARGE + "é\n"
    arguments = json.dumps({"message": message}, ensure_ascii=False).encode()
    assert text_of(caller.call_fd("echo", "tools/call", arguments, tool="echo")) == message
    assert text_of(caller.call_fd("echo", "tools/call", json.dumps({"name": "echo", "arguments": {"message": message}},
                                                                   indent=1).encode())) == message


@pytest.mark.parametrize("id_last", [False, True])
def test_large_results_wherever_the_id_stands(service, caller, id_last):
    service.echo("echo", *(["--id-last"] if id_last else []))
    message = "0123456789abcdef" * (LARGE // 16)
    assert text_of(caller.call_fd("echo", "tools/call", tool("echo", message=message))) == message
    # And what else comes by meanwhile, over and under the limit of an inline reply
    text = "y" * (600 * 1024)
    pending = [caller.begin_fd("echo", "tools/call", tool("echo", message=message)) for _ in range(3)]
    inline = [caller.begin_tool("echo", "echo", {"message": text}) for _ in range(3)]
    assert [text_of(one.wait()) for one in inline] == [text] * 3
    for one in pending:
        assert text_of(read_fd(one.wait())) == message


def test_a_call_that_is_not_large_has_no_file(service, caller):
    """While large answers are looked for, one that is too large for a message says so."""
    service.obedient()
    slow = caller.begin_fd("obedient", "tools/call", tool("sleep", seconds=1.5, message="slow"))
    caller.tool_text("obedient", "pid")
    with fails("TooLarge", "inline reply", "CallFd"):
        caller.call_tool("obedient", "big", {"size": 3 * MIB})
    assert text_of(read_fd(slow.wait())) == "slow"


@pytest.mark.parametrize("text, error, patterns", [
    (b"", "InvalidJson", []),
    (b'{"a":', "InvalidJson", ["text ends"]),
    (b"[1]", "InvalidArguments", ["has to be an object"]),
    (b'{"a":1}}', "InvalidJson", ["byte 7"]),
    (b'{"a":"\xff"}', "InvalidJson", ["byte 6", "UTF-8"]),
    (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "InvalidJson", ["limits.depth", "byte 68"]),
    (b'{"name":"a","name":"b"}', "InvalidArguments", ["name stands twice"]),
    (b'{"_meta":{},"_meta":{}}', "InvalidArguments", ["_meta stands twice"]),
    (b'{"_meta":1}', "InvalidArguments", ["_meta has to be an object"]),
])
@pytest.mark.parametrize("large", [False, True])
def test_what_is_no_json(service, caller, text, error, patterns, large):
    service.echo()
    if large:
        text = text + b" " * LARGE
        patterns = [pattern for pattern in patterns if pattern != "text ends"]
        error = {b"": "InvalidJson"}.get(text.strip(), error)
    if not text:
        pytest.skip("no params at all")
    with fails(error, *patterns):
        caller.call_fd("echo", "echo/params", text)
    assert not service.worker_processes()


def test_an_error_of_the_server(service, caller):
    service.obedient()
    with fails("Remote", "not today"):
        caller.call_fd("obedient", "tools/call", tool("refuse", code=-32001, message="not today", data="x" * LARGE))
    with fails("NoSuchServer"):
        caller.call_fd("nowhere", "ping", b"{}")
    with fails("InvalidArguments", "option tool"):
        caller.call_fd("obedient", "ping", b"{}", tool="echo")
    with fails("InvalidArguments", "no option fish"):
        caller.call_fd("obedient", "ping", b"{}", fish=1)


# The file

def unsealed():
    return sealed(b"{}", 0)


def half_sealed():
    return sealed(b"{}", F_SEAL_WRITE)


def fixed_size():
    return sealed(b"{}", F_SEAL_SHRINK | F_SEAL_GROW)


def regular():
    with tempfile.TemporaryFile() as file:
        file.write(b"{}")
        file.flush()
        return os.dup(file.fileno())


def pipe():
    read, write = os.pipe()
    os.close(write)
    return read


def fifo():
    """Nobody writes into it, and reading it would wait for that."""
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(f"{folder}/fifo")
        return os.open(f"{folder}/fifo", os.O_RDWR)


def write_only():
    fd = sealed(b"{}")
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    finally:
        os.close(fd)


def path_of_a_memfd():
    fd = sealed(b"{}")
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_PATH)
    finally:
        os.close(fd)


def huge_pages():
    """It has the seals, but what reading it does goes by what the machine has free."""
    try:
        fd = os.memfd_create("huge", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
        os.ftruncate(fd, 2 * MIB)
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK)
    except OSError as error:
        pytest.skip(f"no huge pages: {error}")
    return fd


def sparse():
    with tempfile.TemporaryFile() as file:
        file.truncate(100 << 30)
        return os.dup(file.fileno())


def terminal():
    main, other = os.openpty()
    os.close(other)
    return main


def tcp():
    return socket.socket().detach()


@pytest.mark.parametrize("make, reason", [
    (unsealed, "can still be changed"),
    (half_sealed, "can still be changed"),
    (fixed_size, "can still be changed"),
    (regular, "no memfd|can still be changed"),
    (pipe, "no memfd"),
    (tcp, "no memfd"),
    (lambda: os.open("/", os.O_RDONLY), "no memfd"),
    (lambda: os.open("/etc/passwd", os.O_PATH), "no memfd"),
    (lambda: os.open("/dev/zero", os.O_RDONLY), "no memfd"),
    (lambda: os.open("/dev/null", os.O_RDWR), "no memfd"),
    (lambda: os.open("/proc/self/mem", os.O_RDONLY), "no memfd"),
    (fifo, "no memfd"),
    (write_only, "can't be read"),
    (path_of_a_memfd, "no memfd"),
    (huge_pages, "no memfd"),
    (sparse, "no memfd|can still be changed"),
    (terminal, "no memfd"),
    (lambda: os.open("/dev/full", os.O_RDWR), "no memfd"),
    (lambda: os.eventfd(0), "no memfd"),
    (lambda: os.pidfd_open(os.getpid()), "no memfd"),
    (lambda: os.open("/etc/shadow", os.O_RDONLY), "no memfd"),
], ids=["unsealed", "half", "size", "regular", "pipe", "socket", "folder", "path", "zero", "null", "proc", "fifo", "write-only",
        "path-of-memfd", "huge-pages", "sparse", "terminal", "full", "eventfd", "pidfd", "of-another-user"])
def test_hostile_files_are_refused(service, caller, make, reason):
    """None is read: another call, of the same connection, has its answer at once."""
    service.echo()
    caller.call("echo", "ping")
    before = service.open_fds()
    fd = make()
    with fails("InvalidArguments", reason):
        caller.call_fd("echo", "ping", fd)
    assert caller.call("echo", "ping") == "{}"
    os.close(fd)
    eventually(lambda: service.open_fds() == before, "nothing is left open")


def arguments(*strings, index):
    """ssha{sv}, without options"""
    body = b""
    for value in strings:
        body += b"\0" * (-len(body) % 4) + struct.pack("<I", len(value)) + value + b"\0"
    body += b"\0" * (-len(body) % 4) + struct.pack("<II", index, 0)
    return body + b"\0" * (-len(body) % 8)


@pytest.mark.parametrize("n, index, works", [(1, 0, True), (2, 1, True), (16, 3, True), (0, 0, False), (1, 1, False), (2, 1 << 31, False)])
def test_more_descriptors_than_one_and_fewer(service, caller, n, index, works):
    """What comes along is closed, and a descriptor that isn't there is no other one."""
    service.echo()
    caller.call("echo", "ping")
    before = service.open_fds()
    files = [sealed(b'{"n":%d}' % i) for i in range(n)]
    raw = RawBus(service.bus.address, fds=True)
    header = {"signature": "ssha{sv}", "body": arguments(b"echo", b"echo/params", index=index)}
    call = (NAME, PATH, ROOT, "CallFd")
    for _ in range(3):
        serial = raw.begin_with_fds(files, *call, **header) if files else raw.begin(*call, **header)
        kind, error, _ = raw.answer(serial)
        assert (kind == METHOD_RETURN) == works, error
    raw.close()
    for fd in files:
        os.close(fd)
    assert caller.call("echo", "ping") == "{}"
    eventually(lambda: service.open_fds() == before, "nothing is left open")


def test_two_descriptors_where_one_is_wanted(service, caller):
    service.echo()
    caller.call("echo", "ping")
    before = service.open_fds()
    fds = [sealed(b"{}") for _ in range(2)]
    with fails("org.freedesktop.DBus.Error.InvalidArgs"):
        caller.invoke("CallFd", "sshha{sv}", "echo", "ping", *(dbus.types.UnixFd(fd) for fd in fds), {})
    for fd in fds:
        os.close(fd)
    eventually(lambda: service.open_fds() == before, "nothing is left open")


def test_a_hundred_gibibytes_of_nothing(service, caller):
    service.echo("large", limits={"message": 1 << 32})
    service.settings(limits={"payload_bytes_per_user": 1 << 33, "payload_bytes": 1 << 34})
    service.echo()
    for size, error in ((100 << 30, "TooLarge"), (1 << 32, "InvalidJson")):
        fd = os.memfd_create("holes", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK)
        with fails(error, "limits.message" if error == "TooLarge" else "byte 0"):
            caller.call_fd("large", "ping", fd)
        with fails("TooLarge", "limits.message"):
            caller.call_fd("echo", "ping", fd)
        os.close(fd)


def test_a_file_of_holes(service, caller):
    service.echo()
    fd = os.memfd_create("holes", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 8 * MIB)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK)
    with fails("InvalidJson", "byte 0"):
        caller.call_fd("echo", "ping", fd)
    os.close(fd)


def test_the_size_is_looked_at_first(service, caller):
    service.echo(limits={"message": 2 * MIB})
    fd = os.memfd_create("large", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 40)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK)
    with fails("TooLarge", str(1 << 40), str(2 * MIB), "limits.message"):
        caller.call_fd("echo", "ping", fd)
    os.close(fd)


def test_growing_it_changes_nothing(service, caller):
    service.echo()
    fd = sealed(b'{"a":1}', F_SEAL_WRITE | F_SEAL_SHRINK)
    assert caller.call_fd("echo", "echo/params", fd) == b'{"params":{"a":1}}'
    os.ftruncate(fd, 100)
    os.close(fd)


# Limits

def test_a_result_over_the_servers_limit(service, caller):
    service.bulk(limits={"message": 2 * MIB})
    with fails("TooLarge", "limits.message", str(2 * MIB)):
        caller.call_fd("bulk", "tools/call", tool("make", size=3 * MIB))
    assert len(text_of(caller.call_fd("bulk", "tools/call", tool("make", size=MIB)))) == MIB
    with fails("TooLarge", "limits.message"):
        caller.call_fd("bulk", "tools/call", tool("make", size=3 * MIB, id_last=True))


def test_files_of_a_user_are_limited(service, caller):
    service.bulk()
    service.settings(limits={"payload_bytes_per_user": 4 * MIB})
    first = caller.call_fd_raw("bulk", "tools/call", tool("make", size=2 * MIB))
    with fails("LimitsExceeded", "limits.payload_bytes_per_user", str(4 * MIB)):
        caller.call_fd("bulk", "tools/call", tool("make", size=3 * MIB))
    with fails("LimitsExceeded", "limits.payload_bytes_per_user"):
        caller.call_fd("bulk", "count", padded(3 * MIB))
    os.close(first)
    assert len(text_of(caller.call_fd("bulk", "tools/call", tool("make", size=2 * MIB)))) == 2 * MIB
    for _ in range(5):
        assert json.loads(caller.call_fd("bulk", "count", padded(2 * MIB)))["size"] > 2 * MIB


def test_the_limit_on_all_files(service, caller):
    service.bulk()
    service.settings(limits={"payload_bytes": 2 * MIB})
    with fails("LimitsExceeded", "limits.payload_bytes "):
        caller.call_fd("bulk", "tools/call", tool("make", size=3 * MIB))
    assert len(text_of(caller.call_fd("bulk", "tools/call", tool("make", size=MIB // 2)))) == MIB // 2


# Trouble

def test_a_worker_that_stops_while_it_reads(service, caller):
    service.obedient(timeouts={"call": 1, "call_max": 60, "stop": 0.2}, pool={"max": 1, "concurrency": 1})
    pid = caller.tool_json("obedient", "freeze")
    settle(0.3)
    with fails(("Timeout", "WorkerDied")):
        caller.call_fd("obedient", "tools/call", tool("echo", message="x" * LARGE))
    eventually(lambda: pid not in [process.pid for process in service.worker_processes()], "it was replaced", 20)
    assert caller.tool_text("obedient", "echo", {"message": "hi"}) == "hi"


def test_a_caller_that_leaves_while_its_file_is_written(service, caller):
    service.bulk(pool={"max": 1})
    caller.call("bulk", "ping")
    pid = service.worker_processes()[0].pid
    before = service.open_fds()
    for _ in range(5):
        other = service.caller()
        for _ in range(3):
            other.begin_fd("bulk", "count", padded(8 * MIB))
        other.close()
    assert json.loads(caller.call("bulk", "count"))["size"] < 200
    eventually(lambda: service.open_fds() == before, "nothing is left open")
    eventually(lambda: caller.property("CallsInFlight") == 0, "no call is left")
    assert [process.pid for process in service.worker_processes()] == [pid]


def test_a_worker_that_dies_while_it_is_answering(service, caller):
    service.obedient()
    before = caller.call("obedient", "ping") and len(service.open_fds())
    half = '{"jsonrpc":"2.0","id":%d,"result":{"x":"' + "y" * 400000
    call = caller.begin_fd("obedient", "tools/call", tool("sleep", seconds=1000))
    caller.tool_text("obedient", "write", {"stderr": "hello\n"})
    dying = caller.begin_tool("obedient", "write", {"stdout": half % 1})
    settle(0.2)
    os.kill(service.worker_processes()[0].pid, 9)
    with fails("WorkerDied"):
        call.wait()
    with fails("WorkerDied"):
        dying.wait()
    caller.call("obedient", "ping")
    eventually(lambda: len(service.open_fds()) == before, "nothing is left open")


@pytest.mark.parametrize("line, error, patterns", [
    ('{"jsonrpc":"2.0","id":%d,"result":{"x":"PAD\\q"}}', "ProtocolError", ["unknown escape"]),
    ('{"jsonrpc":"2.0","result":{"x":"PAD\x01"},"id":%d}', "ProtocolError", ["control character"]),
    ('{"jsonrpc":"2.0","result":{"x":"PAD"},"id":%d,}', "ProtocolError", ["no valid JSON"]),
    ('{"jsonrpc":"2.0","id":%d,"result":{"x":"PAD"},"result":1}', "ProtocolError", ["neither a result nor an error"]),
    ('{"jsonrpc":"2.0","id":%d,"result":"PAD","error":{"code":1,"message":"x"}}', "ProtocolError", ["neither"]),
    ('{"jsonrpc":"2.0","id":%d,"error":{"code":1,"message":"PAD"}}', "Remote", ["error 1"]),
    ('{"jsonrpc":"2.0","id":%d,"method":"ping","result":"PAD"}', None, []),
])
def test_answers_that_are_none(service, caller, line, error, patterns):
    """The worker writes the answer itself, in place of its own."""
    service.obedient(timeouts={"call": 3})
    call = caller.begin_fd("obedient", "tools/call", tool("sleep", seconds=1000), timeout=3)
    caller.tool_text("obedient", "pid")
    request = max(json.loads(caller.tool_text("obedient", "requests"))) - 2
    caller.begin_tool("obedient", "write", {"stdout": (line % request).replace("PAD", "p" * 400000) + "\n"})
    with fails(error or "Timeout", *patterns):
        call.wait()
    assert caller.tool_text("obedient", "echo", {"message": "hi"}) == "hi"


def test_many_at_once_each_with_its_own(service):
    service.echo()
    service.settings(limits={"payload_bytes_per_user": 512 * MIB})
    callers = [service.caller() for _ in range(4)]
    pending = [(n, callers[n % 4].begin_fd("echo", "tools/call", tool("echo", message=f"{n:03}" * (MIB // 3))))
               for n in range(16)]
    for n, one in pending:
        assert text_of(read_fd(one.wait())) == f"{n:03}" * (MIB // 3)


@pytest.mark.parametrize("method, params", [("count", padded(8 * MIB)), ("tools/call", tool("make", size=8 * MIB))],
                         ids=["to-the-worker", "from-the-worker"])
def test_pipes_are_wide_for_a_while_only(service, caller, method, params):
    """All pipes of a user have 64 MiB, his other programs' as well."""
    service.bulk()
    caller.call("bulk", "ping")
    pid = service.worker_processes()[0].pid

    def sizes():
        ends = [os.open(f"/proc/{pid}/fd/{number}", flags | os.O_NONBLOCK) for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY))]
        found = [fcntl.fcntl(end, fcntl.F_GETPIPE_SZ) for end in ends]
        for end in ends:
            os.close(end)
        return found

    before = sizes()
    for _ in range(3):
        os.close(caller.call_fd_raw("bulk", method, params))
        eventually(lambda: sizes() == before, "they are as they were")


def test_another_call_does_not_wait_for_a_large_one(service, caller):
    service.bulk(limits={"message": 512 * MIB})
    service.settings(limits={"payload_bytes_per_user": 1 << 30})
    service.echo()
    caller.tool_text("echo", "pid")
    most = 0
    for _ in range(5):  # beside other load this program may have few turns in such a short time
        large = caller.begin_fd("bulk", "count", padded(192 * MIB), patience=120)
        answered = 0
        while not large.done:
            assert caller.tool_text("echo", "echo", {"message": "hi"}) == "hi"
            answered += 1
            turn_loop()
        assert json.loads(read_fd(large.wait()))["size"] > 192 * MIB
        most = max(most, answered)
        if most > 10:
            break
    assert most > 10


@pytest.mark.slow
def test_a_gibibyte_through_little_memory(service, caller):
    service.bulk(limits={"message": 2 << 30}, timeouts={"call": 120})
    service.settings(limits={"payload_bytes_per_user": 4 << 30, "payload_bytes": 8 << 30})
    caller.call("bulk", "ping")
    fd = os.memfd_create("large", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    head, tail = b'{"name":"make","arguments":{"size":1073741824,"padding":"', b'"}}'
    os.write(fd, head)
    for _ in range(1024):
        os.write(fd, b"p" * MIB)
    os.write(fd, tail)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    pid = service.pid
    pending = caller.begin_fd("bulk", "tools/call", fd, patience=240)
    most = 0
    while not pending.done:
        settle(0.02)
        most = max(most, processes.private_memory(pid), processes.resident(pid))
    result = pending.wait()
    os.close(fd)
    assert os.fstat(result).st_size > 1 << 30
    assert os.pread(result, 40, 0).startswith(b'{"content":[{"type":"text","text":"mmmm')
    assert os.pread(result, 40, os.fstat(result).st_size - 6) == b'mm"}]}'
    os.close(result)
    print(f"the service took {most / MIB:.1f} MiB")
    assert most < 32 * MIB


# Others

def test_polkit_is_told_the_tool(system_service, polkit):
    system_service.echo()
    polkit.rule = lambda question: "no" if question.details.get("tool") == "pid" else "yes"
    alice = system_service.caller(uid=ALICE)
    assert text_of(alice.call_fd("echo", "tools/call", b'{"message":"hi"}', tool="echo")) == "hi"
    with fails(DENIED, "server echo"):
        alice.call_fd("echo", "tools/call", b"{}", tool="pid")
    with fails("InvalidArguments", "option tool"):
        alice.call_fd("echo", "tools/call", tool("pid"))
    assert alice.call_fd("echo", "ping", b"{}") == b"{}"


def test_one_users_files_are_not_anothers_limit(system_service, polkit):
    polkit.rule = "yes"
    system_service.bulk()
    system_service.bulk("shared", scope="shared")
    system_service.settings(limits={"payload_bytes_per_user": 2 * MIB})
    alice, root = system_service.caller(uid=ALICE), system_service.caller()
    held = alice.call_fd_raw("bulk", "tools/call", b'{"size":1500000}', tool="make")
    for server in ("bulk", "shared"):
        with fails("LimitsExceeded", "payload_bytes_per_user"):
            alice.call_fd(server, "tools/call", b'{"size":1500000}', tool="make")
        assert len(text_of(root.call_fd(server, "tools/call", b'{"size":1500000}', tool="make"))) == 1500000
    os.close(held)
    assert len(text_of(alice.call_fd("shared", "tools/call", b'{"size":1500000}', tool="make"))) == 1500000
