"""Many clients share one process, and see nothing of each other."""

import subprocess
from pathlib import Path

from command_line import PROGRAM
from real_servers import NODE, everything, needs_npm, npm_folder
from waiting import SLOWNESS, eventually


def test_20_clients_on_one_process(service, cli, caller):
    needs_npm()
    # Where a call that is cancelled goes on for longer than timeouts.stop, as it does there, its process would be replaced.
    everything(service, pool={"max": 1, "queue": 200}, timeouts={"stop": 600})
    clients = subprocess.Popen([NODE, Path(__file__).with_name("many-clients.mjs"), "20", PROGRAM, "stdio", "everything"],
                               env={**cli.environment, "MCP_EXEC_TEST_NPM": str(npm_folder())}, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = clients.stdout.readline()
        assert said == "in order\n", clients.communicate()[1][-5000:]
        assert len(caller.workers("everything")) == 1
        assert len(service.worker_processes()) == 1
        assert clients.communicate(timeout=60 * SLOWNESS)[1] == ""
        assert clients.returncode == 0
    finally:
        clients.kill()
        clients.wait()
    eventually(lambda: caller.property("CallsInFlight") == 0, "nothing is under way")
