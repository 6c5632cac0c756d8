"""The system tests: the installed service in a throwaway systemd with a real system bus, polkit and journal.

    tests/with-systemd --bus broker --bind "$PWD" -- python3 -m pytest -c tests/system/pytest.ini tests/system

They install into /usr, make users and stop services, and so refuse to run anywhere else.
"""

import os
import re
import sys
from pathlib import Path

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import machine as the_machine  # noqa: E402
import polkit_stand_in  # noqa: E402

# That one boots its own, from outside.
names = {path.name for path in Path(__file__).parent.glob("test_*.py")}
collect_ignore = {"test_launcher.py"} if the_machine.booted() else names - {"test_launcher.py"}


def has_controller(name):
    """Whether the booted systemd can limit that."""
    for path in (f"/sys/fs/cgroup/{name}/cgroup.procs", "/sys/fs/cgroup/cgroup.controllers"):
        if os.path.exists(path):
            return path.endswith("procs") or name in Path(path).read_text().split()
    return False


def pytest_collection_modifyitems(items):
    if has_controller("memory") and has_controller("pids"):
        return
    for item in items:
        if item.get_closest_marker("limits"):
            item.add_marker(pytest.mark.skip(reason="systemd has no controllers for memory and tasks here"))


@pytest.fixture(scope="session")
def installed_system():
    the_machine.install()


@pytest.fixture(autouse=True)
def installed_first(request):
    """For all tests but those that boot a systemd of their own, and install there."""
    if request.path.name != "test_launcher.py":
        request.getfixturevalue("installed_system")


@pytest.fixture
def machine(installed_system):
    machine = the_machine.Machine()
    yield machine
    machine.restore()


@pytest.fixture
def alice(machine):
    """A member of group mcp-exec."""
    return machine.caller("alice")


@pytest.fixture
def bob(machine):
    """Another one."""
    return machine.caller("bob")


@pytest.fixture
def carol(machine):
    """Nobody in particular."""
    return machine.caller("carol")


@pytest.fixture
def mock(machine):
    """A stand-in in polkit's place. Afterwards the real one is started by the next question."""
    the_machine.systemctl("stop", "polkit.service")
    mock = polkit_stand_in.StandIn()
    yield mock
    mock.leave()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the journal got meanwhile."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and "machine" in getattr(item, "funcargs", {}):
        said = the_machine.run("journalctl", "--no-pager", "-o", "short-monotonic", "-n", "80", check=False,
                               *[f"--since=@{item.funcargs['machine'].started:.3f}"]).stdout
        report.sections.append(("journal", re.sub(r"[^\x20-\x7e\n]", "?", said)))
