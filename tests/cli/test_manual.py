"""The manual pages say what the programs do."""

import re
import subprocess

import pytest

from command_line import PROGRAM
from service import BUILD, DAEMON, REPO


def page(name):
    return (REPO / "docs" / name).read_text()


def options(program):
    text = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=30).stdout
    return text, set(re.findall(r"--[a-z-]+", text))


def test_every_verb_and_option_of_mcp_exec():
    text, names = options(PROGRAM)
    manual = page("mcp-exec.1.scd")
    verbs = re.findall(r"^  ([a-z]+) ", text, re.MULTILINE)
    assert len(verbs) == 21 and names
    for verb in verbs:
        assert re.search(rf"^\*{verb}\*", manual, re.MULTILINE), verb
    for name in names:
        assert f"*{name}" in manual, name
    assert set(re.findall(r"\*(--[a-z-]+)", manual)) <= names


def test_every_exit_status():
    numbers = re.findall(r"^\s+STATUS_\w+ = (\d+),", (REPO / "src/mcp-exec/cli.h").read_text(), re.MULTILINE)
    assert re.findall(r"^\*(\d)\*$", page("mcp-exec.1.scd"), re.MULTILINE) == numbers


def test_every_option_of_mcp_execd():
    _, names = options(DAEMON)
    assert names == set(re.findall(r"\*(--[a-z-]+)", page("mcp-execd.8.scd")))


def test_pages_are_built():
    if not (BUILD / "docs/mcp-exec.1").exists():
        pytest.skip("scdoc is not installed, so no manual pages were built")
    assert ".TH" in (BUILD / "docs/mcp-exec.1").read_text()
    configuration = (BUILD / "docs/mcp-exec.json.5").read_text()
    for key in ("keep_alive", "MemoryMax", "idle_timeout", "2776100ad71a41ed8ebfd63fbede6d14"):
        assert key in configuration
    interface = (BUILD / "docs/org.example.McpExec.5").read_text()
    for name in ("CallTool", "LaunchFailed", "QueuedCalls", "StrayLines", "ToolsChanged"):
        assert name in interface
