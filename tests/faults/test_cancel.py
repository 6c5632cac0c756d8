"""A call is given up in each state that it can be in, in each way: its worker hears of it where it has it, and not otherwise."""

import json

import pytest

from caller import CallFailed
from session import Session
from waiting import eventually, settle

CANCEL = '"notifications/cancelled"'


class Leave:
    """Its caller leaves the bus."""

    def __init__(self, service):
        self.caller = service.caller()
        self.caller.list_servers()

    def begin(self, tool, **arguments):
        self.call = self.caller.begin_tool("obedient", tool, arguments)

    def answered(self):
        return self.call.done

    def give_up(self):
        self.caller.close()


class CancelJob(Leave):
    """Its job is cancelled."""

    def begin(self, tool, **arguments):
        self.path = self.caller.start_tool_job("obedient", tool, arguments)

    def answered(self):
        return self.caller.job(self.path)["State"] == "succeeded"

    def give_up(self):
        running = self.caller.job(self.path)["State"] == "running"
        self.caller.cancel_job(self.path)
        if running:
            assert self.caller.job(self.path)["State"] == "cancelled"
            self.caller.cancel_job(self.path)


class CancelRequest(Leave):
    """A session's notifications/cancelled; it goes on."""

    def __init__(self, service):
        super().__init__(service)
        self.session = Session.open(self.caller, "obedient")

    def begin(self, tool, **arguments):
        if not self.session.answers:
            # Its server is up, or on its way: this waits for nothing.
            self.session.begin("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}})
        self.id = self.session.begin_tool(tool, _meta={"progressToken": "mine"}, **arguments)

    def answered(self):
        self.session.turn()
        return json.dumps(self.id) in self.session.answers

    def give_up(self):
        self.answered_before = self.answered()
        self.session.notify("notifications/cancelled", {"requestId": self.id})
        assert self.session.request("ping") == {}
        assert self.answered() == self.answered_before, "a cancelled request has no answer"


class CloseSession(CancelRequest):
    """Its session is closed."""

    def give_up(self):
        self.session.close()


@pytest.fixture(params=[Leave, CancelJob, CancelRequest, CloseSession])
def way(request):
    return request.param


@pytest.fixture
def obedient(service, onlooker):
    """Starts the server, and says what its worker has heard; caller: somebody who looks."""
    class Obedient:
        gate, journal = service.folder / "gate", service.folder / "journal"

        def start(self, *args, **keys):
            service.obedient("obedient", "--journal", self.journal, *args, keep_alive={"check_interval": 0}, timeouts={"stop": 60}, **keys)
            onlooker()
            self.caller = service.caller()

        def heard(self, text):
            return self.journal.read_text().count(text) if self.journal.exists() else 0

        def ends_well(self):
            assert "fine" in self.caller.call_tool("obedient", "echo", {"message": "fine"})
            eventually(lambda: self.caller.property("CallsInFlight") == 0, "no call is left")

    return Obedient()


def test_while_it_is_queued(service, obedient, way):
    """It is never sent."""
    obedient.start(pool={"max": 1, "concurrency": 1, "queue": 8})
    blocker = obedient.caller.begin_tool("obedient", "until", {"path": str(obedient.gate)})
    eventually(lambda: obedient.caller.server("obedient")["CallsInFlight"] == 1, "another one is under way")
    one = way(service)
    one.begin("sleep", seconds=600)
    eventually(lambda: obedient.caller.property("CallsInFlight") == 2, "it waits")
    one.give_up()
    eventually(lambda: obedient.caller.property("CallsInFlight") == 1, "it waits no more")
    obedient.gate.touch()
    assert "it is there" in blocker.wait()
    obedient.ends_well()
    assert obedient.heard('"sleep"') == 0 and obedient.heard(CANCEL) == 0


def test_while_its_worker_starts(service, obedient, way):
    """It is never sent; the worker serves the next one."""
    obedient.start("--start-gate", obedient.gate, pool={"max": 1})
    one = way(service)
    one.begin("sleep", seconds=600)
    eventually(lambda: [worker["State"] for worker in obedient.caller.workers("obedient")] == ["starting"], "its worker starts")
    one.give_up()
    eventually(lambda: obedient.caller.property("CallsInFlight") == 0, "it waits no more")
    obedient.gate.touch()
    obedient.ends_well()
    assert obedient.heard('"sleep"') == 0 and obedient.heard(CANCEL) == 0


def test_while_its_worker_has_it(service, obedient, way):
    obedient.start()
    one = way(service)
    one.begin("sleep", seconds=600)
    eventually(lambda: obedient.heard('"sleep"') == 1, "its worker has it")
    one.give_up()
    eventually(lambda: obedient.heard(CANCEL) == 1, "its worker is told")
    obedient.ends_well()


def test_while_it_says_how_far_it_is(service, obedient, way):
    obedient.start()
    one = way(service)
    one.begin("work", steps=100_000, pause=0.02)
    eventually(lambda: obedient.heard('"work"') == 1, "its worker has it")
    settle(0.2)
    one.give_up()
    eventually(lambda: obedient.heard(CANCEL) == 1, "its worker is told")
    obedient.ends_well()


def test_when_it_is_answered(service, obedient, way):
    """There is nothing to cancel."""
    obedient.start()
    one = way(service)
    one.begin("echo", message="hi")
    eventually(one.answered, "it is answered")
    one.give_up()
    obedient.ends_well()
    assert obedient.heard(CANCEL) == 0
