"""The hammer (tests/bus/hammer.c): many calls by many callers, and what became of each."""

import json
import os
import subprocess

from service import BUILD

HAMMER = os.environ.get("MCP_EXEC_HAMMER", str(BUILD / "tests/bus/hammer"))


def hammer(service, uid=None, address=None, **options):
    """Start it; see hammer.c; an option that is True has no value. uid: as another user; address: of another bus than the service's, or its private socket."""
    service.start_bus()
    environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": address or service.bus.address}
    arguments = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
    return subprocess.Popen([HAMMER, *arguments], env=environment, stdout=subprocess.PIPE, text=True, user=uid, group=uid,
                            extra_groups=None if uid is None else [])


def report_of(process, timeout):
    try:
        text, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    report = json.loads(text)
    print(json.dumps(report, indent=1))
    return report


def check(report):
    """Exactly one answer each, none of them somebody else's."""
    assert report["trouble"] == "", report
    assert report["unanswered"] == 0 and report["wrong"] == 0 and report["stray"] == 0, report
    assert report["ok"] + report["failed"] == report["calls"]
