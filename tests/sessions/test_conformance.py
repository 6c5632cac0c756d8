"""The MCP conformance suite gives the same verdict, scenario by scenario, directly and through mcp-exec stdio."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from command_line import PROGRAM
from gateways import supergateway
from real_servers import NODE, needs_npm, npm_folder
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


EVERYTHING = ["node_modules/@modelcontextprotocol/server-everything/dist/index.js", "stdio"]
CONFORMANT = [Path(__file__).with_name("conformant-server.mjs")]


@pytest.mark.parametrize("script, passes", [(EVERYTHING, 10), (CONFORMANT, 28)], ids=["server-everything", "a conformant server"])
def test_the_same_verdict(service, cli, tmp_path, script, passes):
    """Of server-everything the suite wants tools that it doesn't have; the other one has them."""
    needs_npm()
    npm = {"MCP_EXEC_TEST_NPM": str(npm_folder())}
    direct = [NODE, npm_folder() / script[0], *script[1:]]
    service.server("served", *direct, env=npm, pool={"max": 1})
    found = {}
    for name, command, environment in (("direct", direct, {"PATH": os.environ["PATH"], **npm}),
                                       ("through", [PROGRAM, "stdio", "served"], cli.environment)):
        with supergateway(command, environment, tmp_path / f"{name}.log") as url:
            found[name] = verdicts(url, tmp_path / name)
    assert found["through"] == found["direct"]
    passed = [scenario for scenario, checks in found["direct"].items() if all(status == "SUCCESS" for _, status, _ in checks)]
    assert len(passed) >= passes, found["direct"]
    assert service.caller().workers("served"), "no worker was used"
