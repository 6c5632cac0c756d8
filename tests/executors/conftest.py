import os

import pytest
from driver import Executor


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """An installed executor is compiled; that of the source tree is compiled once, to another place."""
    before = {name: os.environ.pop(name, None) for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}
    os.environ["PYTHONPYCACHEPREFIX"] = str(tmp_path_factory.mktemp("compiled"))
    yield
    del os.environ["PYTHONPYCACHEPREFIX"]
    os.environ.update({name: value for name, value in before.items() if value is not None})


@pytest.fixture
def start(tmp_path):
    """Starts executors: start("fork"), start("shared", "node"), ..., with the variables that the broker would set."""
    started = []

    def start(isolation="shared", name="python", concurrency=1, greet=True, **environment):
        environment = {"MCP_EXEC_ISOLATION": isolation, "MCP_EXEC_CONCURRENCY": str(concurrency), **environment}
        executor = Executor(tmp_path, (), name, **environment)
        started.append(executor)
        if greet:
            executor.initialize()
        return executor

    yield start
    for executor in started:
        executor.leave()


@pytest.fixture
def fresh(tmp_path):
    executor = Executor(tmp_path)
    yield executor
    executor.leave()


@pytest.fixture
def executor(fresh):
    fresh.initialize()
    return fresh
