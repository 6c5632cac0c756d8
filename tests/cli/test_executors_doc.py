"""Runs what docs/executors.md shows, with the executors of the source tree."""

import json
import os
import re
import shutil
import subprocess

import pytest

from command_line import PROGRAM
from document import expected, sections
from service import REPO
from waiting import SLOWNESS

SECTIONS = sections((REPO / "docs/executors.md").read_text())
EXECUTORS = REPO / "src/executors"


@pytest.fixture
def installed(service):
    """The servers' files as they are installed, with the programs where they are."""
    for path in EXECUTORS.glob("*/*.json"):
        keys = json.loads(path.read_text().replace("@libexecdir@/mcp-exec-" + path.parent.name, str(EXECUTORS / path.parent.name / f"mcp-exec-{path.parent.name}")))
        service.server(path.stem, keys.pop("command"), *keys.pop("args", []), **keys)


def test_what_is_shown(service, cli, installed):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    shown = [step for section in SECTIONS for step in section.steps]
    assert len([step for step in shown if step[0] == "command"]) > 8
    functions = ""
    for kind, name, content in shown:
        if kind == "file":
            keys = json.loads(re.sub("/usr/libexec/mcp-exec-(python|sh|node)", rf"{EXECUTORS}/\1/mcp-exec-\1", content))
            service.server(name.removeprefix("servers.d/").removesuffix(".json"), keys.pop("command"), *keys.pop("args", []), **keys)
            assert cli("reload").status == 0
            continue
        if "() {" in name:
            functions += f"{name}\n"
            continue
        environment = {**cli.environment, "PATH": f"{os.path.dirname(PROGRAM)}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", functions + name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              cwd=cli.home, env=environment, timeout=60 * SLOWNESS)
        printed = done.stdout.rstrip("\n")
        assert expected(content).fullmatch(printed), f"$ {name}\n{printed}\n--- is not ---\n" + "\n".join(content)


@pytest.mark.parametrize("server", ["python", "sh", "node"])
def test_every_argument_and_result_is_explained(service, cli, installed, server):
    """In the executor's section, or where that says "as with Python"."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    parts = (REPO / "docs/executors.md").read_text().split("\n## ")
    text = next(part for part in parts if part.startswith({"python": "Python", "sh": "Shell", "node": "JavaScript"}[server]))
    schema = cli("tools", server, "run", "--json").json["inputSchema"]
    arguments = {"script": "true"} if server == "sh" else {"code": "1"}
    result = cli("--json", "call", server, "run", json.dumps(arguments)).json["structuredContent"]
    for name in [*schema["properties"], *result]:
        assert f"`{name}`" in text, name


def test_the_table_has_the_installed_servers():
    text = (REPO / "docs/executors.md").read_text()
    rows = dict(line.strip("| ").split(" | ")[::2] for line in text[: text.index("## ")].splitlines() if line.startswith("| `"))
    servers = {path.stem: json.loads(path.read_text()) for path in EXECUTORS.glob("*/*.json")}
    assert rows.keys() == {f"`{name}`" for name in servers}
    for name, server in servers.items():
        assert rows[f"`{name}`"] == ("each call is a process" if name == "sh" else f"`{server['isolation']}`")
