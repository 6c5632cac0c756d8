"""Runs docs/executors.md, as documents.py says, with one service for all of it; and holds its server files against the installed ones."""

import json
import shutil

import pytest

from documents import check, make_home, sections, write
from service import REPO

DOCUMENT = REPO / "docs/executors.md"
PREAMBLE, *PARTS = sections(DOCUMENT.read_text())


@pytest.mark.parametrize("title", [section.title for section in PARTS if section.of("command")])
def test_a_section(service, title):
    if title == "JavaScript" and not shutil.which("node"):
        pytest.skip("no node")
    home = make_home(service)
    for section in PARTS:
        for _, name, text in section.of("file"):
            write(home, name, text)
    service.start_bus()
    assert service.caller().reload() == []
    check(service, PREAMBLE, next(section for section in PARTS if section.title == title))


def test_the_table_has_the_installed_servers():
    text = DOCUMENT.read_text()
    rows = dict(line.strip("| ").split(" | ")[::2] for line in text[: text.index("## ")].splitlines() if line.startswith("| `"))
    installed = {path.stem: json.loads(path.read_text()) for path in REPO.glob("src/executors/*/*.json")}
    assert rows.keys() == {f"`{name}`" for name in installed}
    for name, server in installed.items():
        assert rows[f"`{name}`"] == ("each call is a process" if name == "sh" else f"`{server['isolation']}`")
