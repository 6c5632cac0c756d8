"""Runs docs/servers.md: every server file in it is written, every call is made, and every answer has to be the one there.

Each section has a service of its own, whose user has a home of its own.
"""

import re
import subprocess
from pathlib import Path

import pytest

from document import expected, sections
from real_servers import needs_npm, npm_folder
from service import BUILD, REPO
from waiting import SLOWNESS

DOCUMENT = REPO / "docs/servers.md"
SETTINGS = "~/.config/mcp-exec"

# No Docker engine runs where the tests do. This stands for its client: it takes no arguments but those of the document, in a
# container of that name, and executes the command that would run inside.
DOCKER = """#!/bin/sh
[ "$1 $2 $3" = "exec -i tools" ] && [ $# -gt 3 ] || { echo "docker: unexpected: $*" >&2; exit 125; }
shift 3
exec "$@"
"""


SECTIONS = sections(DOCUMENT.read_text())
PREAMBLE, PARTS = SECTIONS[0], [section for section in SECTIONS[1:] if section.steps]


@pytest.fixture
def home(service):
    """The home of the service's user, by which its processes are known afterwards."""
    folder = service.folder / service.token
    (folder / ".local/bin").mkdir(parents=True)
    (folder / ".config/mcp-exec/servers.d").mkdir(parents=True)
    environment = service.environment()
    service.environment = lambda: {**environment, "HOME": str(folder)}
    service.config_dirs = [folder / ".config/mcp-exec"]
    return folder


def write(home, name, text):
    path = Path((name if name.startswith("~/") else f"{SETTINGS}/{name}").replace("~", str(home), 1))
    path.write_text(text)
    path.chmod(0o755 if text.startswith("#!") else 0o644)


def run(service, home, command):
    preamble = "\n".join(command for _, command, _ in PREAMBLE.of("command"))
    done = subprocess.run(["bash", "-c", f"{preamble}\n{command}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60 * SLOWNESS,
                          env={**service.environment(), "PATH": f"{BUILD / 'src'}:/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    return done.stdout.rstrip("\n")


@pytest.mark.parametrize("section", PARTS, ids=[section.title for section in PARTS])
def test_a_section(service, home, section):
    if "npx" in "".join(text for _, _, text in section.of("file")):
        # npx finds what is installed in its working directory, which is the home, and downloads nothing.
        needs_npm()
        (home / "node_modules").symlink_to(npm_folder() / "node_modules")
        (home / "package.json").write_text('{"private": true}')
    write(home, "~/.local/bin/docker", DOCKER)
    for others in PARTS:  # what one section installs, another may run
        for _, name, text in others.of("file"):
            if name.startswith("~/.local/bin/"):
                write(home, name, text)

    for _, name, text in section.of("file"):
        write(home, name, text)
    service.start_bus()
    assert service.caller().reload() == []

    for _, command, output in section.of("command"):
        printed = run(service, home, command)
        assert expected(output).fullmatch(printed), f"$ {command}\n{printed}\n--- is not ---\n" + "\n".join(output)


def test_every_server_is_called():
    for section in PARTS:
        called = {command.split()[1] for _, command, _ in section.of("command") if command.split()[0] in ("call", "tool")}
        files = {Path(name).stem for _, name, _ in section.of("file") if name.startswith("servers.d/")}
        assert files == called, section.title


def test_nothing_is_left_out():
    """All that looks like a file or a call is one that runs, and no kind of worker is missing."""
    text = DOCUMENT.read_text()
    assert "```" not in text and "\t" not in text
    assert len(re.findall(r"(?m)^ *\$ ", text)) == sum(len(section.of("command")) for section in SECTIONS)
    files = "".join(text for section in PARTS for _, _, text in section.of("file"))
    for kind in ("npx", "docker", '"lines"', '"control"', '"once"', '"file"', '"socket"', "while IFS= read", "An MCP server with"):
        assert kind in files, kind
