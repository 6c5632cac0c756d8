"""The n-th allocation fails, for all n: nobody crashes or hangs, the call has one answer, and the next one is as ever.

MCP_EXEC_TEST_ALLOCATIONS=all tries every n; otherwise the first ones and a sample of the rest, another in each run.
MCP_EXEC_TEST_SEED repeats one.
"""

import os
import random
import time

import pytest

from caller import ERROR, CallFailed, check_failure, text_of
from session import Closed, Refused, Session
from waiting import SLOWNESS, eventually

ALL = os.environ.get("MCP_EXEC_TEST_ALLOCATIONS") == "all"
SEED = int(os.environ.get("MCP_EXEC_TEST_SEED", time.time_ns() % 1_000_000))
SAMPLE = 40

# What may be seen by whose call met the failure. NoReply: the service has left in good order, which libsystemd wants
# when it can't do with a connection what it has to.
MEANWHILE = ("Unavailable", "LaunchFailed", "HandshakeFailed", "LimitsExceeded", "WorkerDied", "Timeout", "ProtocolError",
             "org.freedesktop.DBus.Error.NoMemory", "org.freedesktop.DBus.Error.NoReply",
             "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
             "org.freedesktop.DBus.Error.LimitsExceeded", "org.freedesktop.DBus.Error.AccessDenied", "NoSuchServer",
             "org.freedesktop.DBus.Error.UnknownObject", "InvalidArguments", "Cancelled")


def numbers(total):
    """Which allocations fail, one after the other."""
    if ALL or total <= SAMPLE:
        return range(1, total + 1)
    draw = random.Random(SEED)
    return sorted({*range(1, SAMPLE // 4), *draw.sample(range(1, total + 1), SAMPLE)})


class Sweep:
    """Runs one action again and again."""

    def __init__(self, service, faults):
        self.service = service
        self.faults = faults
        self.daemon = None
        self.losses = 0
        self.failures = {}
        self.starts = 0
        self.patience = 8

    def start(self):
        self.daemon = self.service.run_directly()
        self.starts += 1
        self.caller = self.service.caller()
        self.caller.patience = self.patience
        self.caller.call_tool("echo", "echo", {"message": "warm"})

    def alive(self):
        """Whether the daemon is as it was. If not, it must have ended by its own decision, and a new one serves."""
        if self.daemon.poll() is None:
            return True
        assert self.daemon.returncode in (0, 1), f"the daemon ended by {self.daemon.returncode}"
        self.losses += 1
        eventually(lambda: self.service.worker_processes() == [], "nothing is left of it", 20)
        self.caller.close()
        self.start()
        return False

    def __call__(self, action, settled=lambda caller: True):
        """action(caller): the call; settled(caller): whether all that came of it is over."""
        self.start()
        action(self.caller)
        self.faults.fail_allocations(0)
        action(self.caller)
        eventually(lambda: settled(self.caller), "it is over")
        total = self.faults.stop_failing()[1]
        assert total > 0
        for number in numbers(total + total // 10 + 2):
            self.once(number, action, settled)
        print(f"seed {SEED}: {total} allocations, {self.losses} times the service left; {self.failures}")

    def once(self, number, action, settled):
        try:
            self.faults.fail_allocations(number)
            try:
                action(self.caller)
                time.sleep(0.002)
            except CallFailed as error:
                self.failures[error.name] = self.failures.get(error.name, 0) + 1
                check_failure(error, MEANWHILE)
                if error.name.endswith("NoReply"):
                    eventually(lambda: self.daemon.poll() is not None, "the service has left, that it has no answer", 3)
            finally:
                self.faults.stop_failing()
            if self.alive():
                self.works(settled)
        except (AssertionError, CallFailed) as error:
            raise AssertionError(f"allocation {number} (seed {SEED}): {error}") from error


    def works(self, settled):
        try:
            eventually(lambda: settled(self.caller), "it is over")
            assert self.caller.tool_text("echo", "echo", {"message": "after"}) == "after"
            assert self.caller.property("CallsInFlight") == 0
            assert [name for name, _, _ in self.caller.list_servers()] == ["echo", "obedient"]
        except CallFailed as error:
            # It was about to leave.
            assert error.name.endswith(("NoReply", "ServiceUnknown")), error
            eventually(lambda: self.daemon.poll() is not None, "the service has left, that it has no answer", 3)
            self.alive()


@pytest.fixture
def sweep(service, faults):
    short = {"timeouts": {"start": 3, "call": 2, "stop": 0.3}, "restart": {"burst": 0}}
    service.echo("echo", **short)
    service.obedient("obedient", **short)
    service.activated = False
    return Sweep(service, faults)


def test_a_call(sweep):
    sweep(lambda caller: caller.call_tool("echo", "echo", {"message": "hi"}))


def test_a_call_of_another_user_of_its_own(sweep):
    """The first call of a connection, whose credentials are asked for."""

    def first(_):
        caller = sweep.service.caller()
        caller.patience = 8
        try:
            caller.call_tool("echo", "echo", {"message": "hi"})
        finally:
            caller.close()

    sweep(first)


def test_a_batch(sweep):
    sweep(lambda caller: caller.call_batch("echo", *[("tools/call", {"name": "echo", "arguments": {"message": "hi"}})] * 4))


def test_a_listing(sweep):
    descriptions = []

    def listing(caller):
        assert [name for name, _, _ in caller.list_servers()] == ["echo", "obedient"]
        caller.list_tools("echo")
        caller.objects()
        descriptions.append(caller.describe("echo"))
        assert descriptions[-1] == descriptions[0], "a description is whole"

    sweep(listing)


def test_errors(sweep):
    """Libsystemd (252) drops the error that a handler returns where it has no memory to send it: ours send theirs."""
    def errors(caller):
        for member, *args in (("CallTool", "sss", "nowhere", "echo", ""), ("CallTool", "sss", "echo", "echo", "{"),
                              ("CallTool", "sss", "echo", "nothing", "{}"), ("Describe", "s", "nowhere"),
                              ("StartJob", "sssa{sv}", "echo", "any", "{", {})):
            with pytest.raises(CallFailed) as caught:
                caller.invoke(member, *args)
            check_failure(caught.value, (*MEANWHILE, "InvalidJson", "Remote"))
            if caught.value.name.endswith("NoReply"):
                raise caught.value

    sweep(errors)


def test_a_session(sweep):
    """Opened, asked and closed: what it asks has one answer, or it ends."""
    def session(caller):
        session = Session.open(caller, "echo")
        try:
            session.initialize()
            assert session.tool_text("echo", message="hi") == "hi"
        except Refused as refused:
            assert refused.data.get("error", "").removeprefix(ERROR) in MEANWHILE or "memory" in refused.message, (refused, refused.data)
        except (Closed, BrokenPipeError):
            pass
        finally:
            session.close()

    sweep(session, lambda caller: caller.property("SessionsOpen") == 0)


def test_a_job(sweep):
    """Started, waited for, read and forgotten; one that is left is found among all."""
    def job(caller):
        try:
            path = caller.start_tool_job("echo", "echo", {"message": "hi"})
            if caller.job_done(path)["State"] == "succeeded":
                assert text_of(caller.job_text(path)) == "hi"
        finally:
            for path in caller.jobs():
                caller.cancel_job(path)

    def settled(caller):
        for path, found in caller.jobs().items():
            if found["State"] != "running":
                caller.cancel_job(path)
        return not caller.jobs()

    sweep(job, settled)


def test_a_workers_start_and_end(sweep):
    def life(caller):
        try:
            caller.start_server("obedient")
        finally:
            caller.stop_server("obedient")

    sweep(life, lambda caller: caller.workers("obedient") == [])


def test_a_workers_death(sweep):
    def death(caller):
        with pytest.raises(CallFailed) as caught:
            caller.call_tool("echo", "die", {})
        if caught.value.name.endswith("NoReply"):
            raise caught.value
        check_failure(caught.value, (*MEANWHILE, "Remote"))

    def killed(caller):
        for worker in caller.workers("echo"):
            os.kill(worker["Pid"], 9)
        death(caller)

    sweep(killed, lambda caller: len(caller.workers("echo")) <= 1)


def test_a_reload(sweep):
    texts = ["one", "two"]

    def reload(caller):
        texts.reverse()
        sweep.service.echo("echo", description=texts[0], timeouts={"start": 3, "call": 2, "stop": 0.3}, restart={"burst": 0})
        sweep.service.write("servers.d/wrong.json", "{")
        sweep.service.settings(limits={"calls": 500})
        caller.reload()

    sweep(reload, lambda caller: len(caller.workers("echo")) <= 1)


@pytest.mark.slow
def test_the_start(service, faults):
    """It serves, or says that it can't and ends."""
    service.echo("echo")
    service.activated = False
    faults.fail_allocations(0)
    daemon = service.run_directly()
    total = faults.stop_failing()[1]
    daemon.terminate()
    daemon.wait(20 * SLOWNESS)
    served, refused = 0, 0
    for number in numbers(total):
        faults.fail_allocations(number)
        daemon = service.run_directly()
        faults.stop_failing()
        if daemon.poll() is None:
            caller = service.caller()
            try:
                assert caller.tool_text("echo", "echo", {"message": "hi"}) == "hi", f"allocation {number}"
                served += 1
            except CallFailed as error:
                # Without the memory for a file, that file is as one that can't be read.
                check_failure(error, (*MEANWHILE, "NoSuchServer"))
            caller.close()
            daemon.terminate()
            daemon.wait(20 * SLOWNESS)
        else:
            refused += 1
            assert daemon.returncode == 1, f"allocation {number}: {daemon.returncode} (seed {SEED})\n{service.log_text()}"
        assert daemon.returncode in (0, 1), f"allocation {number}: {daemon.returncode} (seed {SEED})\n{service.log_text()}"
    print(f"seed {SEED}: {total} allocations, {served} times it served, {refused} times it ended")
    assert served + refused > 0
