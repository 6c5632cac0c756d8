"""What the documents name is there: tests, files, and sections of other documents."""

import ast
import re
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
SECURITY = (REPO / "docs/security.md").read_text()
THREATS = [line for line in SECURITY.partition("## Threats")[2].partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]


def functions(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def named_tests(text):
    """PATH::NAME, or the PATH of a program, below tests/."""
    return re.findall(r"`((?:base|bus|broker|executors|fuzz|launcher|system|wire|worker)/[\w/.-]+)(?:::(\w+))?`", text)


@pytest.mark.parametrize("path, name", sorted(set(named_tests(SECURITY))))
def test_a_test_that_is_named_is_there(path, name):
    file = REPO / "tests" / path
    assert file.is_file()
    assert bool(name) == (file.suffix == ".py")
    assert not name or name.startswith("test_") and name in functions(file)


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_each_threat_has_a_control_and_a_test(row):
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 3 and all(cells)
    assert named_tests(cells[2])
    # And nothing else there that looks like one.
    assert len(named_tests(cells[2])) == cells[2].count("`") // 2


def test_there_are_threats():
    assert len(THREATS) > 15


# Reliability: the rows of the fault suite

sys.path.insert(0, str(REPO / "tests/faults"))
from table import ROWS  # noqa: E402

RELIABILITY = (REPO / "docs/reliability.md").read_text()
PROMISES = [line for line in RELIABILITY.partition("## Promises")[2].partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_fault_has_a_test_and_a_promise(row):
    path, _, name = row.test.partition("::")
    assert name.partition("[")[0] in functions(REPO / "tests" / path)
    assert all(row) and any(f"`{row.name}`" in promise for promise in PROMISES)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.split("|")[1].strip()[:40])
def test_each_promise_has_rows_that_are_there(promise):
    cells = [cell.strip() for cell in promise.strip("|").split("|")]
    named = re.findall(r"`([\w-]+)`", cells[2])
    assert len(cells) == 3 and named and set(named) <= {row.name for row in ROWS}


def test_rows_have_names_of_their_own():
    assert len({row.name for row in ROWS}) == len(ROWS) > 50


def anchors(document):
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not target.startswith(("http:", "https:")):
            path, _, anchor = target.partition("#")
            file = (document.parent / path).resolve() if path else document
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target
