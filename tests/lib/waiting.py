"""Waiting for something to become true, while the main loop of the callers turns."""

import os
import time

from gi.repository import GLib

# Under a sanitizer, or beside other work on a small machine, everything takes longer.
SLOWNESS = float(os.environ.get("MCP_EXEC_TEST_SLOWNESS", "1"))


def turn_loop(seconds=0.0):
    """Deliver what has arrived for the callers of this thread; wait at most so long for more."""
    context = GLib.MainContext.default()
    if context.iteration(False) or seconds <= 0:
        return
    source = GLib.timeout_source_new(max(1, int(seconds * 1000)))
    source.set_callback(lambda _: False)
    source.attach(context)
    context.iteration(True)
    source.destroy()


def eventually(predicate, what="the condition", timeout=10.0):
    """Return the predicate's first true value; fail if there is none in time."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout * SLOWNESS:g} s (last: {value!r})")
        turn_loop(0.01)


def settle(seconds):
    """Let time pass, with the loop turning, for tests that something does not happen."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        turn_loop(min(left, 0.02))
