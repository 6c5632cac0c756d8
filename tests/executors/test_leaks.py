"""What a call can leave for the next one: with fork and fresh nothing, with reset little."""

import pytest
from driver import wait_for
from leaks import FIND, LEAKS

# What reset does not put back, as docs/executors.md says.
NOT_RESET = {"a function's code", "an abstract class's registry"}
MORE = {
    "a function's code": ("import shlex; shlex.quote.__code__ = (lambda s: 'planted').__code__", "import shlex; shlex.quote('a')"),
    "an abstract class's registry": ("import numbers; numbers.Number.register(str)",
                                     "import numbers; isinstance('', numbers.Number)"),
}


def prepared(code, marker):
    """The processes that a leak leaves are told from those of another test by a marker in their environment."""
    code = FIND if code == "FIND" else code
    return code.replace("MARKER", repr(f"={marker}".encode())).replace("{'PLANTED': '", "{'PLANTED': '" + marker)


def look(executor, code):
    result = executor.run(code)
    return {key: result[key] for key in ("value", "stdout", "stderr", "exception")}


class EachFresh:
    """A process for each call, as the broker starts them."""

    def __init__(self, start):
        self.start = start

    def run(self, code):
        executor = self.start("fresh")
        result = executor.run(code)
        executor.process.stdin.close()
        executor.process.wait()
        return result


def check(executor, leaks, marker):
    remaining = []
    for name, (plant, sight) in leaks.items():
        sight, plant = prepared(sight, marker), prepared(plant, marker)
        before = look(executor, sight)
        executor.run(plant)
        if look(executor, sight) != before:
            remaining.append(name)
    return remaining


def test_there_are_forty_ways():
    assert len(LEAKS | MORE) >= 40


@pytest.mark.parametrize("part", range(4))
def test_shared_shows_them(start, part):
    """Or else this suite would show nothing."""
    leaks = dict(list(LEAKS.items())[part::4])
    found = []
    for name, (plant, sight) in leaks.items():
        executor = start("shared")
        sight, plant = prepared(sight, f"s{part}"), prepared(plant, f"s{part}")
        before = look(executor, sight)
        executor.run(plant)
        if look(executor, sight) != before:
            found.append(name)
        executor.leave()
    # Each call has its streams anew, and its recursion limit, with any isolation.
    assert set(leaks) - set(found) <= {"replaced streams", "replaced descriptors", "the recursion limit",
                                       "a prepared folder for temporary files"}


def test_fork(start):
    executor = start("fork")
    assert check(executor, LEAKS | MORE, "fork") == []


@pytest.mark.parametrize("part", range(2))
def test_fresh(start, part):
    leaks = dict(list((LEAKS | MORE).items())[part::2])
    leaks.pop("a daemon", None)  # it is the broker that ends the process and all that belongs to it
    assert check(EachFresh(start), leaks, f"fresh{part}") == []


def test_reset(start):
    executor = start("reset")
    remaining = []
    for name, leak in LEAKS.items():
        if executor.process.poll() is not None:
            executor = start("reset")
        remaining += check_reset(start, executor, name, leak)
    assert remaining == []


def check_reset(start, executor, name, leak):
    plant, sight = (prepared(code, "reset") for code in leak)
    before = look(executor, sight)
    executor.run(plant)
    if name == "a hard limit":  # which nobody can raise again
        assert executor.end(close=False) == (0, "")
        executor = start("reset")
    return [] if look(executor, sight) == before else [name]


def test_what_reset_leaves(start):
    executor = start("reset")
    assert set(check(executor, MORE, "more")) <= NOT_RESET


def test_processes_are_gone_when_the_answer_is_there_or_soon(start):
    for isolation in "fork", "reset":
        executor = start(isolation)
        pid = int(executor.run("import subprocess; subprocess.Popen(['sleep', '1000']).pid")["value"])
        executor.run("1")
        wait_for(lambda: not __import__("pathlib").Path(f"/proc/{pid}").exists())
