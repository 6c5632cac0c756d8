"""The fixture that most tests start from: a service on a private bus."""

import os
import re
import sys
from pathlib import Path

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))
os.environ.pop("DBUS_SESSION_BUS_ADDRESS", None)

import private_bus  # noqa: E402
from caller import ALICE, BOB  # noqa: E402
from mock_polkit import MockPolkit  # noqa: E402
from service import DAEMON, ECHO_WORKER, PYTHON, Service  # noqa: E402
from session import Session  # noqa: E402
from steps import LINES, ONCE  # noqa: E402


def pytest_configure():
    for program in (DAEMON, ECHO_WORKER):
        if not os.access(program, os.X_OK):
            pytest.exit(f"{program} is not there: build it, or set MCP_EXEC_BUILD, MCP_EXECD, ECHO_WORKER", returncode=2)


def pytest_report_header():
    return f"bus: dbus-{private_bus.chosen()}"


def pytest_collection_modifyitems(items):
    if os.environ.get("MCP_EXEC_TEST_QUICK"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="MCP_EXEC_TEST_QUICK is set"))

    # Each process of pytest-xdist begins with a run of neighbours: one that is slow stands at the beginning of each.
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    first_share = max(len(items) // (4 * int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))), 2)
    for n, item in enumerate(slow):
        rest.insert(n * first_share, item)
    items[:] = rest


@pytest.fixture
def make_service(tmp_path):
    """Service(...) with the options given, on a bus of its own; at the end nothing of it may be left."""
    made = []

    def make(**options):
        folder = tmp_path / f"service{len(made)}"
        folder.mkdir()
        made.append(Service(folder, **options))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def service(make_service):
    return make_service()


@pytest.fixture
def caller(service):
    """A caller of the service. Write the service's configuration before the first call."""
    return service.caller()


@pytest.fixture
def system_service(make_service):
    """A system service's daemon, which callers of any uid can reach: service.caller(uid=...)."""
    if os.getuid() != 0:
        pytest.skip("only root can be several users")
    service = make_service(system=True)
    service.start_bus()
    service.let_others_in()
    return service


@pytest.fixture
def make_polkit(system_service):
    made = []

    def make(rule="no"):
        made.append(MockPolkit(system_service.bus.address, rule))
        return made[-1]

    yield make
    for polkit in made:
        polkit.close()


@pytest.fixture
def polkit(make_polkit):
    """A polkit on the system service's bus, which says no to all that its rule doesn't allow."""
    return make_polkit()


@pytest.fixture
def alice(service):
    """A caller of another user: the service has to be a system_service."""
    return service.caller(uid=ALICE)


@pytest.fixture
def bob(service):
    return service.caller(uid=BOB)


@pytest.fixture
def lines(service, caller):
    """A worker of protocol lines that does what its calls say: see steps.py."""
    def make(**keys):
        service.server("steps", PYTHON, "-c", LINES, protocol="lines", **{"pool": {"max": 1, "queue": 64}, **keys})
        return caller
    return make


@pytest.fixture
def once(service, caller):
    """Likewise a command of protocol once."""
    def make(**keys):
        service.server("steps", PYTHON, "-c", ONCE, protocol="once", **keys)
        return caller
    return make


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of the daemon's log."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed and "make_service" in getattr(item, "funcargs", {}):
        for log in sorted(Path(item.funcargs["tmp_path"]).glob("service*/mcp-execd.log")):
            text = re.sub(r"[^\x20-\x7e\n]", "?", log.read_text(errors="replace"))
            report.sections.append((str(log), text[-8000:]))


@pytest.fixture
def open_session(service, caller):
    """Sessions on the service's servers; initialized unless raw."""
    opened = []

    def make(server="obedient", answer=None, raw=False, **capabilities):
        session = Session.open(caller, server, answer)
        opened.append(session)
        if not raw:
            session.initialize(**capabilities)
        return session

    yield make
    for session in opened:
        session.close()
