"""A short run of the D-Bus fuzzer (fuzz/bus_fuzzer.py), another one each time; a longer one is a command of its own.

MCP_EXEC_TEST_FUZZ says the seconds, MCP_EXEC_TEST_SEED the seed.
"""

import os
import sys
import time

import pytest

from caller import ALICE
from service import REPO
from waiting import SLOWNESS

sys.path.insert(0, str(REPO / "tests/fuzz"))
from bus_fuzzer import run, serve  # noqa: E402

SECONDS = float(os.environ.get("MCP_EXEC_TEST_FUZZ", "5"))
SEED = int(os.environ.get("MCP_EXEC_TEST_SEED", time.time_ns() % 1_000_000))


@pytest.mark.timeout(60 * SLOWNESS + 10 * SECONDS)
@pytest.mark.parametrize("uid", [None, ALICE], ids=["root", "user"])
@pytest.mark.parametrize("way", ["bus", "private"])
def test_fuzzed(tmp_path, way, uid):
    if os.getuid() != 0:
        pytest.skip("only root can be several users")
    folder = tmp_path / "service"
    folder.mkdir()
    service = serve(folder, way)
    try:
        fuzzer = run(service, SEED, SECONDS, None, way, uid)
    finally:
        service.close()
    print(f"seed {SEED}: {fuzzer.rounds} rounds, {fuzzer.calls} calls; {fuzzer.answers}")
    assert fuzzer.calls > 20 and fuzzer.answers
