"""Several servers as one, for the SDKs' own clients: npm's server-everything under two names, and a stateless server."""

import pytest

from command_line import PROGRAM
from real_servers import everything, stateless
from test_sdk_clients import HERE, start, transcript

CLIENTS = [pytest.param("1", id="sdk 1.x"), pytest.param("legacy", id="client 2.x"), pytest.param("modern", id="client 2.x stateless")]


@pytest.mark.parametrize("servers", [["first", "second", "third"], []], ids=["named", "all"])
@pytest.mark.parametrize("kind", CLIENTS)
def test_three_servers_as_one(service, cli, kind, servers):
    everything(service, "first")
    everything(service, "second", description="The second one")
    stateless(service, "third")
    seen = transcript(start([HERE / "joined.mjs", kind], PROGRAM, "stdio", *servers, environment=cli.environment))

    assert seen["server"] == "mcp-exec" and "# second\nThe second one" in seen["instructions"]
    assert {name.split("__")[0] for name in seen["tools"]} == {"first", "second", "third"}
    assert {name.split("__")[0] for name in seen["prompts"]} >= {"first", "second"}
    for key in ("tools", "prompts", "resources", "templates"):
        assert seen[key] and len(seen[key]) == len(set(seen[key]))
    echoed = {name: text.removeprefix("Echo: ") for name, text in seen["echoes"].items()}
    assert echoed == {name: name for name in ("first__echo", "second__echo", "third__echo")}
    assert seen["read"] and seen["prompt"]
