"""Calls that take many times timeouts.call: they go on for as long as they say that they do.

MCP_EXEC_TEST_PROGRESS_SECONDS=600 has them report progress for ten minutes, with the timeouts that a server has by default.
"""

import os

import pytest

from caller import JOB, CallFailed, check_failure, text_of
from service import PYTHON, REPO
from session import LEGACY, META, MODERN, Refused, Session
from waiting import SLOWNESS, eventually

SECONDS = float(os.environ.get("MCP_EXEC_TEST_PROGRESS_SECONDS", 8 * SLOWNESS))
STEPS = 60
CALL = min(SECONDS / 4, 60.0)  # timeouts.call
META_OF_MODERN = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}


class ByJob:
    """A call as a job: what is heard of it are signals."""

    def __init__(self, service, server, arguments, tool):
        self.caller = service.caller()
        self.progress = self.caller.signals("Progress", interface=JOB)
        self.finished = self.caller.signals("Finished", interface=JOB)
        self.path = self.caller.start_tool_job(server, tool, arguments)

    def steps(self):
        return [progress for _, progress, *_ in self.progress.seen]

    def text(self):
        eventually(lambda: self.finished.seen, "Finished", 2 * SECONDS + 60)
        assert len(self.finished.seen) == 1
        return text_of(self.caller.job_text(self.path))


class BySession:
    """A call of a session, whose client gave a token for its progress."""

    version = LEGACY

    def __init__(self, service, server, arguments, tool):
        self.session = Session.open(service.caller(), server)
        meta = {"progressToken": "mine"}
        if self.version == LEGACY:
            self.session.initialize()
        else:
            meta.update(META_OF_MODERN)
        self.id = self.session.begin_tool(tool, meta, **arguments)

    def steps(self):
        notices = [notice["params"] for notice in self.session.notices if notice["method"] == "notifications/progress"]
        assert all(params["progressToken"] == "mine" for params in notices)
        return [params["progress"] for params in notices]

    def text(self):
        self.session.until(lambda: self.session.answers, "an answer", 2 * SECONDS + 60)
        try:
            return self.session.text(self.id)
        except Refused as error:
            assert error.code == -32000 and error.data["source"] == "mcp-exec"
            raise CallFailed(error.data["error"], error.message) from None
        finally:
            self.session.close()


class ByModernSession(BySession):
    version = MODERN


WAYS = [ByJob, BySession, ByModernSession]


@pytest.fixture(params=["legacy", "modern"])
def server(request, service):
    """Write a server of each era: obedient workers, who say how far they are when they are told to work."""
    def make(**keys):
        pool = {"max": 3, "concurrency": 1}  # the modern one does one thing at a time
        if request.param == "legacy":
            service.obedient("any", pool=pool, **keys)
        else:
            service.server("any", PYTHON, REPO / "tests/bus/stateless_worker.py", pool=pool, **keys)
        return "any"
    return make


@pytest.mark.slow
@pytest.mark.timeout(SECONDS * 2 + 180)
def test_progress_for_many_times_the_timeout(service, server):
    """All ways at once: each call ends well, with what it said of itself in order."""
    name = server(timeouts={"call": CALL, "call_max": 3600})
    arguments = {"steps": STEPS, "pause": SECONDS / STEPS, "message": "done"}
    calls = [way(service, name, arguments, "work") for way in WAYS]
    for call in calls:
        assert call.text() == "done", type(call).__name__
    for call in calls:
        steps = call.steps()
        # A job's are told a few times a second: the last ones may be left out.
        assert steps == sorted(steps) and len(steps) >= 2, type(call).__name__
        assert isinstance(call, ByJob) or steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("way", WAYS)
def test_silence_is_a_timeout(service, server, way):
    name = server(timeouts={"call": 1, "call_max": 3600})
    call = way(service, name, {"seconds": 1000}, "sleep")
    with pytest.raises(CallFailed) as caught:
        call.text()
    check_failure(caught.value, "Timeout", r"within 1 s \(timeouts.call\)")


@pytest.mark.parametrize("way", WAYS)
def test_progress_has_its_end_too(service, server, way):
    name = server(timeouts={"call": 60, "call_max": 2})
    call = way(service, name, {"steps": 100000, "pause": 0.05}, "work")
    with pytest.raises(CallFailed) as caught:
        call.text()
    check_failure(caught.value, "Timeout", "timeouts.call_max")
    assert call.steps()
