"""What is logged where there is a journal: needs a booted systemd, which the run on dbus-broker has."""

import json
import os
import subprocess

import pytest

from service import PYTHON, REPO
from waiting import eventually

pytestmark = pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="no systemd runs here, so no journal")
HOSTILE = str(REPO / "tests/workers/hostile.py")


def journal(**matches):
    text = subprocess.run(["journalctl", "--no-pager", "-o", "json", "--all", *(f"{k}={v}" for k, v in matches.items())],
                          capture_output=True, text=True, timeout=30).stdout
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_stderr_is_in_the_journal_with_server_and_pid(service):
    """And a newline or an escape sequence in it forges no other record."""
    name = f"words-{os.getpid()}"
    service.server(name, PYTHON, HOSTILE, "stderr-last-words")
    service.start_bus()
    unit = f"mcp-exec-test-{os.getpid()}"
    settings = [f"--setenv={key}={value}" for key, value in service.environment().items()]
    subprocess.run(["systemd-run", f"--unit={unit}", "--quiet", *settings, *service.arguments()], check=True, timeout=30)
    try:
        eventually(service.daemon, "the daemon has its name")
        caller = service.caller()
        caller.invoke("StartServer", "s", name)
        pid = caller.workers()[0]["Pid"]
        with pytest.raises(Exception, match="WorkerDied"):
            caller.call_tool(name, "echo", {"message": "hi"})

        records = eventually(lambda: [r for r in journal(MCP_EXEC_SERVER=name) if "exited with status 7" in r["MESSAGE"]],
                             "its end is in the journal")
        assert {r["MCP_EXEC_WORKER_PID"] for r in records} == {str(pid)}
        assert all(isinstance(r["MESSAGE"], str) and r["MESSAGE"].isprintable() for r in journal(MCP_EXEC_SERVER=name))
        assert {r["_SYSTEMD_UNIT"] for r in records} == {f"{unit}.service"}
    finally:
        subprocess.run(["systemctl", "stop", unit], timeout=30)
