"""Lists that outlive the service, in its cache directory; and what the journal says of tools that changed."""

import json
import stat
from pathlib import Path

from machine import BROKER, show, systemctl, uid, worker_units
from waiting import eventually

FOLDER = Path("/var/cache/mcp-exec/lists")


def message_id():
    header = Path(__file__).resolve().parents[2] / "src/broker/message-ids.h"
    line = next(line for line in header.read_text().splitlines() if "MESSAGE_TOOLS_CHANGED" in line)
    return line.split('"')[1]


def leave():
    """The broker ends, and with it its workers; the next call starts another."""
    systemctl("stop", BROKER)
    eventually(lambda: show(BROKER, "ActiveState") == "inactive" and not worker_units(), "nothing runs")
    systemctl("reset-failed", BROKER)


def test_a_static_list_outlives_the_broker(machine, alice):
    machine.obedient(lists="static", access={"users": ["alice"]})
    before = alice.list_tools("obedient")
    leave()
    assert alice.list_tools("obedient") == before
    assert worker_units() == []


def test_nobody_but_the_broker_can_read_what_is_kept(machine, alice):
    machine.obedient(lists="static", access={"users": ["alice"]})
    alice.list_tools("obedient")
    files = list(FOLDER.iterdir())
    assert files and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert {file.stat().st_uid for file in files} == {uid("mcp-exec")}
    assert stat.S_IMODE(FOLDER.parent.stat().st_mode) == 0o700


def test_what_one_user_was_told_isnt_kept_for_another(machine, alice, bob):
    machine.obedient(lists="static", access={"users": ["alice", "bob"]})
    alice.list_tools("obedient")
    leave()
    bob.list_tools("obedient")
    assert len(worker_units()) == 1, "bob's own worker was asked"


def test_the_journal_tells_of_tools_that_changed(machine, alice):
    machine.obedient(access={"users": ["alice"]})
    alice.list_tools("obedient")
    alice.call_tool("obedient", "learn", json.dumps({"name": "learnt"}))
    eventually(lambda: "learnt" in [name for name, _, _ in alice.list_tools("obedient")], "the new tool")
    records = eventually(lambda: machine.journal(f"MESSAGE_ID={message_id()}"), "a record")
    assert records[-1]["MCP_EXEC_SERVER"] == "obedient" and records[-1]["MCP_EXEC_OWNER"] == f"uid:{uid('alice')}"
    assert "new: learnt" in records[-1]["MESSAGE"]
