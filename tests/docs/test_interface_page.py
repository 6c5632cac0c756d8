"""org.example.McpExec(5) has all that the XML in dbus/ has, and the XML explains all that it names."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.dom import minidom

import pytest

REPO = Path(__file__).resolve().parents[2]
BUILD_FILE = (REPO / "dbus/meson.build").read_text()
INTERFACES = [REPO / "dbus" / name for name in re.findall(r"'([\w.]+\.xml)'", BUILD_FILE)]
TITLES = {"method": "METHODS", "property": "PROPERTIES", "signal": "SIGNALS"}


@pytest.fixture(scope="module")
def page():
    return subprocess.run([sys.executable, REPO / "docs/make-interface-page", *INTERFACES], capture_output=True, text=True, check=True,
                          timeout=60).stdout


def words(text):
    """Text as a reader reads it, whatever markup and line breaks are in it."""
    return re.sub(r"[^\w./]+", " ", text.replace("\\", "")).strip()


def members():
    return [(interface, member) for path in INTERFACES for interface in ElementTree.parse(path).iter("interface")
            for member in interface if member.tag in TITLES]


def section(page, interface, title):
    return page.partition(f"# INTERFACE {interface}\n")[2].partition("\n# ")[0].partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_each_interface_is_there_and_installed():
    assert {path.name for path in (REPO / "dbus").glob("*.xml")} == {path.name for path in INTERFACES}


@pytest.mark.parametrize("interface, member", members(), ids=lambda node: node.get("name"))
def test_each_member_is_in_the_page_and_explained(page, interface, member):
    text = section(page, interface.get("name"), TITLES[member.tag])
    entry = re.search(rf"^\*{member.get('name')}\*(.*)\n\t(.+)", text, re.MULTILINE)
    assert entry, f"{member.get('name')} is not in the page"
    assert len(words(entry[2]).split()) >= 3, "its XML comment says too little"
    if member.tag == "property":
        assert entry[1] == f" {member.get('type')}"
    for argument in member.iter("arg"):
        assert f"{argument.get('type')} _{argument.get('name')}_" in entry[1]


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_no_comment_is_left_out(page, path):
    def comments(node):
        for child in node.childNodes:
            if child.nodeType == child.COMMENT_NODE:
                yield child.data
            yield from comments(child)

    said = words(page)
    for comment in comments(minidom.parse(str(path))):
        for paragraph in re.split(r"\n\s*\n", comment):
            assert words(paragraph) in said, paragraph


def test_each_error_is_explained(page):
    """Those that the service has, and no other."""
    real = re.findall(r'X\(\w+, "(\w+)"\)', (REPO / "src/worker/failure.h").read_text())
    explained = re.findall(r"^\*(\w+)\*$", page.partition("# ERRORS\n")[2].partition("\n# ")[0], re.MULTILINE)
    assert real and sorted(explained) == sorted(real)


def test_each_object_is_named(page):
    """The paths below the root object, as the service's table of objects has them."""
    source = "".join(path.read_text() for path in (REPO / "src/bus").glob("*.[ch]"))
    for path in set(re.findall(r'PREFIX BUS_PATH "(/\w+)', source)):
        assert f"*/org/example/McpExec{path}/" in page, path
