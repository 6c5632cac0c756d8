"""The SDKs' own clients see through mcp-exec stdio what they see of the server directly, step by step."""

import difflib
import json
import os
import subprocess
from pathlib import Path

import pytest

from command_line import PROGRAM
from real_servers import NODE, needs_npm, npm_folder
from waiting import SLOWNESS

HERE = Path(__file__).resolve().parent

# What the eras have of their own: compared only where both sides speak the same.
ERA_KEYS = {"ttlMs", "cacheScope", "resultType", "elicitationId", "execution", "io.modelcontextprotocol/serverInfo"}


def everything_command():
    return [NODE, npm_folder() / "node_modules/@modelcontextprotocol/server-everything/dist/index.js", "stdio"]


def modern_command():
    return [NODE, HERE / "modern-server.mjs"]


def start(client, *command, environment=None):
    env = {**(environment or {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}), "MCP_EXEC_TEST_NPM": str(npm_folder())}
    return subprocess.Popen([NODE, *map(str, client), *map(str, command)], env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def transcript(process):
    try:
        out, err = process.communicate(timeout=180 * SLOWNESS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err[-5000:]
    return json.loads(out)


def without(value, keys):
    if isinstance(value, dict):
        rest = {key: without(member, keys) for key, member in value.items() if key not in keys}
        return {key: member for key, member in rest.items() if not (key == "_meta" and not member)}
    return [without(element, keys) for element in value] if isinstance(value, list) else value


def compare(direct, through):
    """Every difference at once, each step on a line."""
    def lines(steps):
        return [f"{name}: {json.dumps(value, sort_keys=True)[:3000]}" for name, value in steps]

    differences = list(difflib.unified_diff(lines(direct), lines(through), "directly", "through mcp-exec", lineterm="", n=0))
    assert not differences, "\n".join(differences)


def configure(service):
    needs_npm()
    service.server("everything", *everything_command(), pool={"max": 1})
    service.server("modern", *modern_command(), env={"MCP_EXEC_TEST_NPM": str(npm_folder())}, pool={"max": 1})


SDK = [HERE / "sdk-client.mjs"]
LEGACY, MODERN = ([HERE / "client.mjs", era] for era in ("legacy", "modern"))


@pytest.mark.parametrize("client, name, keys", [
    pytest.param([*SDK, "everything"], "everything", set(), id="sdk 1.x, server-everything"),
    pytest.param([*LEGACY, "everything"], "everything", set(), id="client 2.x, server-everything"),
    pytest.param([*MODERN, "modern"], "modern", set(), id="client 2.x stateless, stateless server"),
    pytest.param([*LEGACY, "modern"], "modern", ERA_KEYS, id="client 2.x legacy, stateless server"),
    pytest.param([*SDK, "modern"], "modern", ERA_KEYS, id="sdk 1.x, stateless server"),
])
def test_the_same_as_directly(service, cli, client, name, keys):
    configure(service)
    command = everything_command() if name == "everything" else modern_command()
    direct = start(client, *command)
    through = start(client, PROGRAM, "stdio", name, environment=cli.environment)
    direct, through = transcript(direct), transcript(through)
    compare(without(direct, keys), without(through, keys))


def test_a_stateless_client_on_a_legacy_server(service, cli):
    """Directly there is nothing of the kind: it is compared with a legacy client, in what both eras have."""
    configure(service)
    direct = start([*LEGACY, "across"], *everything_command())
    through = start([*MODERN, "across"], PROGRAM, "stdio", "everything", environment=cli.environment)
    compare(without(transcript(direct), ERA_KEYS), without(transcript(through), ERA_KEYS))
