"""mcp-exec on a private bus with the service: the fixtures of the bus tests, and one that runs the command line."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
spec = importlib.util.spec_from_file_location("bus_conftest", HERE.parent / "bus/conftest.py")
bus_conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bus_conftest)
make_service, service, caller = bus_conftest.make_service, bus_conftest.service, bus_conftest.caller
pytest_configure, pytest_report_header = bus_conftest.pytest_configure, bus_conftest.pytest_report_header
pytest_collection_modifyitems = bus_conftest.pytest_collection_modifyitems
pytest_runtest_makereport = bus_conftest.pytest_runtest_makereport

from command_line import CommandLine  # noqa: E402
from service import PYTHON, REPO  # noqa: E402


@pytest.fixture
def cli(service, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    command_line = CommandLine(service, home)
    yield command_line
    command_line.close()


@pytest.fixture
def showing(service):
    """A server named shows whose tools answer with every kind of content: shows.py."""
    service.server("shows", PYTHON, REPO / "tests/cli/shows.py", description="Shows all kinds of content")


@pytest.fixture
def python(service):
    service.server("python", PYTHON, REPO / "src/executors/python/mcp-exec-python", executor=True,
                   pool={"max": 1, "concurrency": 1, "queue": 64})


@pytest.fixture
def sh(service):
    service.server("sh", REPO / "src/executors/sh/mcp-exec-sh", executor=True)


@pytest.fixture
def node(service):
    service.server("node", REPO / "src/executors/node/mcp-exec-node", executor=True)
