"""The XML in dbus/ is the reference of the interface: it has to be what the service introspects."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import dbus
import pytest

from caller import NAME, PATH

FOLDER = Path(__file__).resolve().parents[2] / "dbus"
STANDARD = "org.freedesktop.DBus."


def contract(interface):
    """What an <interface> promises, whatever order it stands in: {(kind, name): details}"""
    promises = {}
    for member in interface:
        if not isinstance(member.tag, str) or member.tag == "annotation":
            continue
        arguments = tuple((arg.get("name"), arg.get("type"), arg.get("direction", "out")) for arg in member.iter("arg"))
        annotations = frozenset((a.get("name"), a.get("value")) for a in member.iter("annotation"))
        promises[member.tag, member.get("name")] = (member.get("type"), member.get("access"), arguments, annotations)
    return promises


def introspect(caller, path):
    text = caller.bus.call_blocking(NAME, path, STANDARD + "Introspectable", "Introspect", "", ())
    return {i.get("name"): i for i in ElementTree.fromstring(text).iter("interface")
            if not i.get("name").startswith(STANDARD)}


def reference(name):
    return {i.get("name"): i for i in ElementTree.parse(FOLDER / f"{name}.xml").iter("interface")}


@pytest.mark.parametrize("name", ["org.example.McpExec", "org.example.McpExec.Server", "org.example.McpExec.Worker",
                                  "org.example.McpExec.Job"])
def test_xml_is_what_the_service_introspects(service, caller, name):
    service.echo()
    caller.tool_text("echo", "pid")
    path = {"Server": caller.server("echo")["path"], "Worker": caller.workers()[0]["path"],
            "Job": caller.start_job("echo", "ping")}.get(name.split(".")[-1], PATH)

    described, real = reference(name), introspect(caller, path)
    assert set(described) == set(real) == {name}
    assert contract(described[name]) == contract(real[name])


def test_every_member_is_explained():
    """Each method and signal of the root object has a comment before it."""
    lines = (FOLDER / "org.example.McpExec.xml").read_text().splitlines()
    for before, line in zip(lines, lines[1:]):
        if line.strip().startswith(("<method", "<signal")):
            assert before.strip().endswith("-->"), line
