"""The fault suite: the fixtures of the bus tests, and an onlooker who sees what a fault does to everybody else."""

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
system_service, alice, bob = bus_conftest.system_service, bus_conftest.alice, bus_conftest.bob
open_session = bus_conftest.open_session
pytest_configure, pytest_report_header = bus_conftest.pytest_configure, bus_conftest.pytest_report_header
pytest_collection_modifyitems = bus_conftest.pytest_collection_modifyitems
pytest_runtest_makereport = bus_conftest.pytest_runtest_makereport

from onlooker import Onlooker  # noqa: E402
from preload import Faults  # noqa: E402


@pytest.fixture
def onlooker(service):
    """Somebody else, with a worker of his own: at the end of the test he must have noticed nothing, and nothing may be left
    of the fault. Start it when all servers are configured."""
    made = []

    def start():
        made.append(Onlooker(service))
        return made[-1]

    yield start
    for one in made:
        one.verify()


@pytest.fixture
def faults(service):
    """The service runs with preload.c."""
    faults = Faults(service.folder / "faults")
    service.more_environment = {
        **faults.environment(),
        # The sanitizer's own library wants to be the first one, and isn't.
        "ASAN_OPTIONS": f"{service.environment()['ASAN_OPTIONS']}:verify_asan_link_order=0",
    }
    yield faults
    faults.close()
