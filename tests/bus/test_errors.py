"""Bad input: each mistake has its error, says what is wrong and where, and disturbs nobody else."""

import os
import time

import pytest

from caller import NAME, PATH, ROOT, fails, text_of
from raw_connection import ERROR, RawBus, error_text
from service import PYTHON
from waiting import eventually

MIB = 1024 * 1024


@pytest.fixture
def bystander(service):
    """Another caller, whose call is under way during the test and has its answer at the end."""
    service.obedient("steady")
    other = service.caller()
    pid = other.tool_text("steady", "pid")
    pending = other.begin_tool("steady", "sleep", {"seconds": 0.5, "message": "undisturbed"})
    daemon = service.pid
    yield other
    assert text_of(pending.wait()) == "undisturbed"
    assert other.tool_text("steady", "pid") == pid
    assert service.pid == daemon


@pytest.fixture
def victim(service, bystander):
    """The caller that makes the mistakes, with a server echo."""
    service.echo()
    caller = service.caller()
    caller.reload()
    return caller


# Names

@pytest.mark.parametrize("name", ["nowhere", "", "ECHO", "../echo", "echo\n", "e" * 65, "écho", "/etc/passwd"])
def test_unknown_server(victim, name):
    with fails(("NoSuchServer", "InvalidArguments")) as caught:
        victim.call_tool(name, "echo")
    assert caught[0].name == "NoSuchServer" or not name.isascii() or not name.isalpha()
    assert victim.tool_text("echo", "echo", {"message": "hi"}) == "hi"


def test_unknown_server_is_named(victim):
    with fails("NoSuchServer", "nowhere"):
        victim.call("nowhere", "tools/list")
    with fails("NoSuchServer", "did you mean echo"):
        victim.call("ehco", "tools/list")
    for method in (victim.start_server, victim.stop_server, victim.restart_server, victim.describe):
        with fails("NoSuchServer", "nowhere"):
            method("nowhere")
    with fails("NoSuchServer", "nowhere"):
        victim.notify("nowhere", "notifications/x")


def test_unknown_tool(victim):
    with fails("Remote", "echo", "-32602", "Unknown tool"):
        victim.call_tool("echo", "no-such-tool")


def test_unknown_method(victim):
    with fails("Remote", "-32601", "Method not found"):
        victim.call("echo", "no/such/method")


@pytest.mark.parametrize("method", ["", "a\nb", "x\x1b[31m", 'quo"te', "back\\slash"])
def test_odd_method_names_stay_one_method(victim, method):
    """Whatever the name is, it is quoted: it neither breaks the line nor becomes another member."""
    with fails(("Remote", "InvalidArguments")):
        victim.call("echo", method)
    assert victim.tool_text("echo", "echo", {"message": "hi"}) == "hi"


def test_the_servers_own_error_is_recognisable(service, caller):
    service.obedient()
    with fails("Remote", "obedient", "-32042", "out of paper", "tray.{1,6}2"):
        caller.call_tool("obedient", "refuse", {"code": -32042, "message": "out of paper", "data": {"tray": 2}})


# JSON

@pytest.mark.parametrize("text, offset", [
    ("nonsense", 0), ('{"a":1', 6), ('{"a" 1}', 5), ("{'a':1}", 1), ('{"a":01}', 6), ('{"a":1,}', 7), ('{"a":1} x', 8),
    ('{"a":+1}', 5), ('{"a":NaN}', 5), ('{"a":"\\x"}', 6), ('{"a":"\\u12"}', 6), ('{"a":tru}', 5), ('{"a":1.}', 5),
    ('{"a":[1,2}', 9), ('{"a":"tab\there"}', 9), ('{"a":"new\nline"}', 9), ('{"a":"', 6), ("{", 1), (" ", 1), ("{}{}", 2),
])
def test_arguments_that_are_not_json(victim, text, offset):
    """The offset may name the start of the broken token or the byte in it that breaks it."""
    with fails("InvalidJson") as caught:
        victim.call_tool("echo", "echo", text)
    numbers = [int(word) for word in "".join(c if c.isdigit() else " " for c in caught[0].message).split()]
    assert any(offset <= number <= offset + 5 for number in numbers), caught[0].message
    assert victim.tool_text("echo", "echo", {"message": "hi"}) == "hi"


@pytest.mark.parametrize("text", ["[]", "42", '"text"', "null", "true", '[{"message":"hi"}]'])
def test_arguments_that_are_no_object(victim, text):
    with fails(("InvalidArguments", "InvalidJson"), "object"):
        victim.call_tool("echo", "echo", text)
    with fails(("InvalidArguments", "InvalidJson"), "object"):
        victim.call("echo", "echo/params", text)


def test_a_raw_newline_in_a_string_does_not_make_a_second_line(victim, service):
    with fails("InvalidJson", "offset|byte|character|position"):
        victim.call_tool("echo", "echo", '{"message":"one\n{\\"jsonrpc\\":\\"2.0\\"}"}')


def test_ten_megabytes(victim):
    with fails("TooLarge", "1048576|1 MiB", "limit"):
        victim.call_tool("echo", "echo", {"message": "x" * (10 * MIB)})
    assert victim.tool_text("echo", "echo", {"message": "hi"}) == "hi"


def test_ten_megabytes_in_a_batch(victim):
    results = victim.call_batch("echo", ("ping", ""), ("echo/params", {"message": "x" * (10 * MIB)}))
    assert [ok for ok, _ in results] == [True, False]
    assert results[1][1].startswith("org.example.McpExec.Error.TooLarge: ")


def test_a_result_that_is_too_large(victim):
    with fails("TooLarge", "1048576|1 MiB", "limit"):
        victim.call_tool("echo", "big", {"bytes": 2 * MIB})
    assert victim.tool_text("echo", "echo", {"message": "hi"}) == "hi"


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_nested_ten_thousand_deep(victim, opening, closing):
    with fails(("InvalidJson", "TooLarge", "InvalidArguments"), "deep|depth|nest"):
        victim.call_tool("echo", "echo", '{"message":' + opening * 10000 + "1" + closing * 10000 + "}")
    with fails(("InvalidJson", "TooLarge", "InvalidArguments"), "deep|depth|nest"):
        victim.call("echo", "echo/params", '{"message":' + opening * 10000)


def test_nesting_within_the_limit(victim):
    assert victim.call("echo", "echo/params", '{"a":' + "[" * 50 + "]" * 50 + "}")


@pytest.mark.parametrize("text", [b'{"message":"caf\xe9"}', b'{"message":"\xed\xa0\x80"}', b'{"message":"\xc0\xaf"}', b"\xff"])
def test_arguments_that_are_not_utf8(victim, service, text):
    """A bus that checks throws such a caller off; one that doesn't leaves it to the service."""
    try:
        with RawBus(service.bus.address) as raw:
            kind, name, body = raw.call(NAME, PATH, ROOT, "CallTool", b"echo", b"echo", text)
            assert kind == ERROR, body
            assert error_text(body)
            assert name.startswith("org.example.McpExec.Error.") or name.startswith("org.freedesktop.DBus.Error."), name
    except ConnectionError:
        pass
    assert victim.tool_text("echo", "echo", {"message": "hi"}) == "hi"


def test_escaped_surrogates_and_nul_do_no_harm(victim):
    for message in (r"\ud800", r"\udc00\ud800", r"a\u0000b"):
        try:
            assert victim.call_tool("echo", "echo", '{"message":"' + message + '"}')
        except Exception as error:
            assert error.name == "InvalidJson", error
        assert victim.tool_text("echo", "echo", {"message": "hi"}) == "hi"


# Commands

def start_fails(service, caller, name, *patterns, command=None, args=(), error="LaunchFailed", **keys):
    service.server(name, command, *args, **keys)
    caller.reload()
    with fails(error, *patterns):
        caller.call_tool(name, "echo", {"message": "hi"})


def test_a_command_that_does_not_exist(service, victim):
    start_fails(service, victim, "absent", "/no/such/program", "No such file or directory", command="/no/such/program")
    start_fails(service, victim, "unfound", "no-such-program", "No such file|not found", command="no-such-program")


def test_a_command_that_is_not_executable(service, victim):
    file = service.folder / "plain"
    file.write_text("#!/bin/sh\n")
    start_fails(service, victim, "plain", str(file), "Permission denied|not executable", command=file)
    start_fails(service, victim, "folder", "Permission denied|not executable|directory", command="/tmp")


def test_a_command_of_a_wrong_format(service, victim):
    file = service.folder / "wrong"
    file.write_bytes(b"\0\1\2\3 this is no program")
    file.chmod(0o755)
    start_fails(service, victim, "wrong", "Exec format|exited|ended", command=file, error=("LaunchFailed", "HandshakeFailed"))
    file = service.folder / "interpreter"
    file.write_text("#!/no/such/interpreter\n")
    file.chmod(0o755)
    start_fails(service, victim, "interpreter", "No such file", command=file, error=("LaunchFailed", "HandshakeFailed"))


def test_a_working_directory_that_does_not_exist(service, victim):
    start_fails(service, victim, "nodir", "/no/such/folder", command=PYTHON, cwd="/no/such/folder")


def test_a_command_that_exits_at_once(service, victim):
    start_fails(service, victim, "exits", "status 3|code 3", "cannot open the database", "giving up", command="/bin/sh",
                args=("-c", "echo cannot open the database >&2; echo giving up >&2; exit 3"),
                error=("LaunchFailed", "HandshakeFailed"))


def test_a_command_that_dies_by_a_signal_at_once(service, victim):
    start_fails(service, victim, "killed", "SIGKILL|signal 9|Killed", command="/bin/sh", args=("-c", "kill -9 $$"),
                error=("LaunchFailed", "HandshakeFailed"))


def test_a_command_that_never_answers_the_handshake(service, victim):
    started = time.monotonic()
    start_fails(service, victim, "silent", "initialize|handshake|discover", "listening in vain", command="/bin/sh",
                args=("-c", "echo listening in vain >&2; exec sleep 100"), error="HandshakeFailed",
                timeouts={"start": 1, "stop": 1})
    assert time.monotonic() - started < 15
    eventually(lambda: victim.workers("silent") == [], "the silent worker is gone")


def test_terminal_escapes_of_a_worker_stay_harmless(service, victim):
    service.server("rude", "/bin/sh", "-c", r"printf 'a\033[31mred\007\377\000tail' >&2; exit 1")
    victim.reload()
    with fails(("LaunchFailed", "HandshakeFailed"), "red", "tail") as caught:
        victim.call_tool("rude", "echo")
    assert "\x1b" not in caught[0].message and "\x07" not in caught[0].message


def test_a_worker_that_dies_in_a_call(service, victim):
    for tool, arguments, how in (("end", {"status": 7, "stderr": "out of disk\n"}, "status 7|code 7"),
                                 ("end", {"status": 0, "stderr": "out of disk\n"}, "status 0|code 0"),
                                 ("die", {"number": 11, "stderr": "out of disk\n"}, "SIGSEGV|signal 11"),
                                 ("die", {"number": 9, "stderr": "out of disk\n"}, "SIGKILL|signal 9")):
        service.obedient("mortal", restart={"burst": 100, "interval": 1})
        victim.reload()
        with fails("WorkerDied", how, "out of disk", "may have|might have|have run|was sent"):
            victim.call_tool("mortal", tool, arguments)
        assert victim.tool_text("mortal", "echo", {"message": "again"}) == "again"


def test_a_frozen_call_ends_at_its_deadline(service, victim):
    service.obedient("slow", timeouts={"call": 1})
    victim.reload()
    started = time.monotonic()
    with fails("Timeout"):
        victim.call_tool("slow", "block", {"seconds": 8})
    assert 0.9 < time.monotonic() - started < 6


# Configuration folders

def test_a_config_folder_that_is_missing(make_service):
    service = make_service()
    service.config_dirs = [service.folder / "absent"]
    caller = service.caller()
    assert caller.list_servers() == []
    with fails("NoSuchServer"):
        caller.call_tool("echo", "echo")


@pytest.mark.skipif(os.getuid() == 0, reason="root can read every folder")
def test_a_config_folder_that_is_unreadable(service, caller):
    (service.config / "servers.d").chmod(0)
    try:
        assert caller.list_servers() == []
        assert any("servers.d" in file for file, _ in caller.reload())
    finally:
        (service.config / "servers.d").chmod(0o755)


def test_a_config_folder_that_is_a_file(service, caller):
    (service.config / "servers.d").rmdir()
    (service.config / "servers.d").write_text("no folder")
    assert caller.list_servers() == []
    assert any("servers.d" in file for file, _ in caller.reload())
