"""What must be seen after every fault, whatever it was: nothing."""

import time

from service import SANITIZED
from waiting import SLOWNESS, eventually

MIB = 1024 * 1024


class Onlooker:
    """Another caller of another server, and what the service had open before."""

    def __init__(self, service):
        self.service = service
        service.obedient("steady")
        self.caller = service.caller()
        self.caller.reload()
        self.pid = self.caller.tool_text("steady", "pid")
        self.daemon = service.daemon()
        self.fds = len(service.open_fds())
        self.memory = service.private_memory()
        self.slowest = 0.0

    def look(self, within=5.0):
        """A small call has its answer in time."""
        before = time.monotonic()
        assert self.caller.tool_text("steady", "echo", {"message": "hi"}) == "hi"
        took = time.monotonic() - before
        self.slowest = max(self.slowest, took)
        assert took < within * SLOWNESS, f"a small call of somebody else took {took:.2f} s"

    def verify(self):
        caller, service = self.caller, self.service
        self.look()
        assert caller.tool_text("steady", "pid") == self.pid, "another server's worker was replaced"
        assert service.daemon() == self.daemon, "the daemon was replaced"
        eventually(lambda: caller.property("CallsInFlight") == 0, "no call is left")
        for worker in caller.workers():
            if worker["Server"] != "steady":
                caller.stop_server(worker["Server"])
        eventually(lambda: len(caller.workers()) == 1, "no worker is left", 30)
        eventually(lambda: len(service.open_fds()) <= self.fds, f"the fds are {self.fds} again", 30)
        if not SANITIZED:
            eventually(lambda: service.private_memory() < self.memory + 8 * MIB, "the memory is given back", 30)
