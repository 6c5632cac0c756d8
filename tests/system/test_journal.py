"""What the service leaves in the journal: for people, for programs, and against forgers."""

import json
import re

import pytest

from caller import fails
from machine import BROKER, CONFIG, python_text, run, tool_json, uid
from waiting import eventually

FORGED = "x\nNov 21 00:00:00 host sudo[1]: root : all is well\x1b[31m\x1b]0;title\x07\x00"
HARMLESS = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\x80-\x9f]*")
STARTED, EXITED = "6c97e5c1a0f74b0387fcb1f8f3a08236", "dbf5da595cb941da9c0d8ed8ab41d955"
CRASH_LOOP, CALLED = "0abdc9a233d64f8092978e9a0c46250c", "2776100ad71a41ed8ebfd63fbede6d14"


def records(machine, number, *matches):
    """So many records with those fields, when they are there."""
    return eventually(lambda: (found := machine.journal(*matches)) and len(found) >= number and found,
                      f"{number} records {matches}")


def calls(machine, number, **fields):
    """The records of calls with those fields."""
    return records(machine, number, f"MESSAGE_ID={CALLED}", *(f"MCP_EXEC_{name}={value}" for name, value in fields.items()))


def test_one_record_a_call(machine, alice):
    machine.echo(access={"users": ["alice"]})
    for number in range(3):
        alice.call_tool("echo", "echo", {"message": str(number)})
    alice.call("echo", "tools/list")
    found = calls(machine, 4, UID=uid("alice"), SERVER="echo")
    assert len(found) == 4
    assert [record["MCP_EXEC_METHOD"] for record in found] == ["tools/call"] * 3 + ["tools/list"]
    assert [record.get("MCP_EXEC_TOOL") or "" for record in found] == ["echo"] * 3 + [""]
    for record in found:
        assert record["MCP_EXEC_OUTCOME"] == "success"
        assert 0 < int(record["MCP_EXEC_DURATION_USEC"]) < 60_000_000
        assert record["_SYSTEMD_UNIT"] == BROKER
        assert int(record["PRIORITY"]) == 6


def test_the_record_says_how_it_ended(machine, alice, carol):
    machine.obedient(access={"users": ["alice"]}, timeouts={"call": 0.5})
    for tool, arguments, outcome in (("end", {"status": 1}, "WorkerDied"), ("refuse", {}, "Remote"),
                                     ("sleep", {"seconds": 5}, "Timeout")):
        with fails(outcome):
            alice.call_tool("obedient", tool, arguments)
        found = calls(machine, 1, SERVER="obedient", OUTCOME=outcome, TOOL=tool)
        assert [record["MCP_EXEC_UID"] for record in found] == [str(uid("alice"))]
    with fails(("org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired")):
        carol.call_tool("obedient", "count")
    found = calls(machine, 1, UID=uid("carol"), OUTCOME="AccessDenied")
    assert [record["MCP_EXEC_TOOL"] for record in found] == ["count"]


def test_calls_are_left_out_by_setting(machine, alice):
    machine.write("mcp-exec.json", json.dumps({"log_calls": "debug"}))
    machine.echo(access={"users": ["alice"]})
    alice.call_tool("echo", "echo", {"message": "hi"})
    records(machine, 1, f"MESSAGE_ID={STARTED}")
    assert not machine.journal(f"MESSAGE_ID={CALLED}")


def test_a_workers_start_and_end_are_known_by_id(machine, alice):
    machine.obedient(access={"users": ["alice"]})
    tool_json(alice, "obedient", "count")
    worker = machine.worker("obedient")
    with fails("WorkerDied"):
        alice.call_tool("obedient", "end", {"status": 7})
    for message_id in (STARTED, EXITED):
        found = records(machine, 1, f"MESSAGE_ID={message_id}", "MCP_EXEC_SERVER=obedient")
        assert len(found) == 1
        assert found[0]["MCP_EXEC_WORKER"] == worker["Id"]
        assert found[0]["MCP_EXEC_OWNER"] == f"uid:{uid('alice')}"
        assert found[0]["MCP_EXEC_WORKER_PID"] == str(worker["Pid"])
    assert "7" in found[0]["MESSAGE"]


def test_a_crash_loop_is_known_by_id(machine, alice):
    machine.obedient(access={"users": ["alice"]}, restart={"burst": 2, "interval": 30})
    for _ in range(4):
        with fails(("WorkerDied", "Unavailable")):
            alice.call_tool("obedient", "end", {"status": 1})
    found = records(machine, 1, f"MESSAGE_ID={CRASH_LOOP}")
    assert len(found) == 1
    assert found[0]["MCP_EXEC_SERVER"] == "obedient"
    assert int(found[0]["PRIORITY"]) <= 4


def test_the_ids_are_explained(machine):
    for message_id in (STARTED, EXITED, CRASH_LOOP, CALLED):
        run("journalctl", "--update-catalog")
        assert "McpExec" in run("journalctl", "--dump-catalog", message_id).stdout


def test_stderr_is_under_the_servers_own_identifier(machine, alice):
    machine.obedient(access={"users": ["alice"]})
    alice.call_tool("obedient", "write", {"stderr": "first line\nsecond line\n"})
    found = records(machine, 2, "SYSLOG_IDENTIFIER=mcp-exec/obedient")
    assert [record["MESSAGE"].partition(": ")[2] for record in found[-2:]] == ["first line", "second line"]
    assert {record["MCP_EXEC_SERVER"] for record in found} == {"obedient"}


def test_stderr_forges_no_record(machine, alice):
    """A worker's line is its own line: no other identifier, unit or field, and nothing that a terminal obeys."""
    machine.obedient(access={"users": ["alice"]})
    forged = FORGED + "\nMCP_EXEC_UID=0\n<0>kernel panic\nSYSLOG_IDENTIFIER=sudo\n"
    alice.call_tool("obedient", "write", {"stderr": forged})
    found = records(machine, 5, "SYSLOG_IDENTIFIER=mcp-exec/obedient")
    assert all(isinstance(record["MESSAGE"], str) and HARMLESS.fullmatch(record["MESSAGE"]) for record in found)
    assert not any("MCP_EXEC_UID" in record for record in found)
    assert min(int(record["PRIORITY"]) for record in found) >= 3
    assert not [record for record in machine.journal("SYSLOG_IDENTIFIER=sudo") if "MCP_EXEC_SERVER" in record]


def all_harmless(machine):
    """Nothing that this service has logged holds a line break or an escape sequence."""
    for record in machine.journal(f"_SYSTEMD_UNIT={BROKER}") + machine.journal("_SYSTEMD_UNIT=mcp-exec-launcher.service"):
        for name, value in record.items():
            if not name.startswith("_"):
                assert isinstance(value, str) and HARMLESS.fullmatch(value), f"{name} = {value!r}"


def test_names_in_calls_are_harmless(machine, alice):
    machine.obedient(access={"users": ["alice"]})
    name = FORGED.replace("\x00", "")
    for invoke in (lambda: alice.call_tool("obedient", name), lambda: alice.call("obedient", name),
                   lambda: alice.call_tool(name, "run"), lambda: alice.call_tool("python", name), lambda: alice.describe(name),
                   lambda: alice.call_tool("obedient", "count", name), lambda: alice.notify("obedient", name),
                   lambda: machine.root.stop_server(name), lambda: machine.root.call_tool("obedient", name)):
        with pytest.raises(Exception) as error:
            invoke()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", str(error.value)), str(error.value)
    calls(machine, 1, SERVER="obedient")
    all_harmless(machine)


def test_names_of_files_are_harmless(machine):
    name = "bad" + FORGED.replace("\x00", "").replace("/", "") + ".json"
    problems = machine.write(f"servers.d/{name}", '{"command": 1}')
    assert problems and all(text.isprintable() for problem in problems for text in problem), problems
    (CONFIG / "servers.d/unreadable.json").write_text("{\n\"a\x1b[31m\": 1}")
    problems = machine.root.reload()
    assert len({file for file, _ in problems}) == 2, problems
    assert all(text.isprintable() for problem in problems for text in problem), problems
    all_harmless(machine)


def test_what_a_worker_says_of_itself_is_harmless(machine, alice):
    """Its name, its errors, its last words."""
    machine.obedient(access={"users": ["alice"]})
    for tool, arguments in (("end", {"status": 1, "stderr": FORGED.replace("\x00", "")}), ("refuse", {"message": FORGED})):
        with pytest.raises(Exception) as error:
            alice.call_tool("obedient", tool, arguments)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", str(error.value)), str(error.value)
    alice.call_tool("obedient", "write", {"stdout": FORGED + "\n"})
    python_text(alice, "import sys; sys.stderr.write('\\x1b[31m')")
    all_harmless(machine)


def test_a_record_a_call_also_under_load(machine, alice):
    """None is lost, none is doubled."""
    machine.echo(access={"users": ["alice"]})
    pending = [alice.begin_tool("echo", "echo", {"message": str(number)}) for number in range(30)]
    for call in pending:
        call.wait()
    assert len(calls(machine, 30, UID=uid("alice"))) == 30
