"""The MCP conformance suite gives the same verdict, scenario by scenario, directly and through mcp-exec stdio."""

import json
import os
import re
import subprocess

from command_line import PROGRAM
from gateways import mcp_proxy
from real_servers import NODE, everything, needs_npm, npm_folder
from waiting import SLOWNESS

SUITE = "node_modules/@modelcontextprotocol/conformance/dist/index.js"


def verdicts(url, folder):
    """{scenario: [[check, status, what was wrong], ...]}"""
    done = subprocess.run([NODE, npm_folder() / SUITE, "server", "--url", url, "--suite", "all", "--output-dir", str(folder)],
                          env={"PATH": os.environ["PATH"]}, cwd=folder.parent, capture_output=True, text=True,
                          timeout=120 * SLOWNESS)
    result = {}
    for checks in folder.glob("*/checks.json"):
        scenario = re.fullmatch(r"(?:server-)?(.*)-\d{4}-\d\d-\d\dT.*", checks.parent.name)[1]
        result[scenario] = sorted([one["id"], one["status"], one.get("errorMessage") or ""]
                                  for one in json.loads(checks.read_text()))
    assert len(result) > 20, done.stdout[-3000:] + done.stderr[-3000:]
    return result


def test_the_same_verdict(service, cli, tmp_path):
    needs_npm()
    everything(service, pool={"max": 1})
    direct = [NODE, npm_folder() / "node_modules/@modelcontextprotocol/server-everything/dist/index.js", "stdio"]
    found = {}
    for name, command, environment in (("direct", direct, {"PATH": os.environ["PATH"]}),
                                       ("through", [PROGRAM, "stdio", "everything"], cli.environment)):
        with mcp_proxy(command, environment, tmp_path / f"{name}.log") as url:
            found[name] = verdicts(url, tmp_path / name)
    assert found["through"] == found["direct"]
    assert sum(all(status == "SUCCESS" for _, status, _ in checks) for checks in found["direct"].values()) >= 10
    assert service.caller().workers("everything"), "no worker was used"
