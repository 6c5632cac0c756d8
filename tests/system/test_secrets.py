"""What a server's file says in "env" may be a secret: its worker alone gets it."""

import uuid

from machine import python_text, run, run_as, worker_units

TOKEN = uuid.uuid4().hex
SECRET = f'{TOKEN} "quoted" \\ $HOME `x` \n end'


def test_a_secret_reaches_its_worker_and_nobody_else(machine, alice, carol):
    machine.python("secretive", env={"PLANTED": SECRET, "OTHER": "x"})
    code = "import os; print(repr(os.environ['PLANTED']), os.environ['OTHER'])"
    assert python_text(alice, code, "secretive") == f"{SECRET!r} x"

    units = worker_units()
    assert units
    shown = [run_as("carol", *command, check=False).stdout for command in (
        ("systemctl", "show", *units), ("systemctl", "cat", *units),
        ("sh", "-c", "cat /run/systemd/transient/mcp-exec-worker-*"), ("sh", "-c", "cat /run/mcp-exec-launcher/*"))]
    assert units[0] in shown[0] and "ExecStart" in shown[1]
    shown += [alice.invoke("Describe", "s", "secretive"), run("journalctl", "--no-pager", "-o", "verbose").stdout]
    assert "PLANTED" in shown[4]
    assert not any(TOKEN in text for text in shown)
