"""A short soak; the long one is tests/soak."""

import os
import time

import pytest

from soaking import CALLERS, Soak, failed_calls
from waiting import SLOWNESS

CALLS = int(os.environ.get("MCP_EXEC_TEST_CALLS", "10000"))
SEED = int(os.environ.get("MCP_EXEC_TEST_SEED", time.time_ns() % 1_000_000))
SECONDS = 6


@pytest.mark.slow
@pytest.mark.timeout(300 * SLOWNESS)
def test_the_ledger_balances(make_service):
    service = make_service(private=True, log_level="error")
    pause = f"0-{int(2e6 * SECONDS * SLOWNESS * CALLERS / CALLS)}"
    ledger = Soak(service, CALLS, SEED, pause=pause, every=(0.2, 0.8), say=print).run()
    print(f"seed {SEED}")
    assert sum(ledger["faults"].values()) >= 5
    assert failed_calls(ledger) < CALLS / 2
