"""What the isolations of the Python executor promise, each by itself. test_leaks.py has what they keep apart."""

import json
import os
import signal

import pytest
from driver import META, MODERN, PROGRAMS, SOURCE, is_alive, wait_for

EACH = pytest.mark.parametrize("isolation", ["shared", "reset", "fork", "fresh"])


@EACH
def test_protocol(start, isolation):
    executor = start(isolation, greet=False)
    assert executor.result("server/discover", {"_meta": META})["supportedVersions"] == [MODERN]
    result = executor.result("tools/call", {"_meta": META, "name": "run", "arguments": {"code": "print(2+2)\n'value'"}})
    assert result["resultType"] == "complete"
    assert result["content"][0]["text"] == "4\n'value'\n"
    executor.initialize()
    assert executor.result("ping") == {}
    (tool,) = executor.result("tools/list")["tools"]
    assert set(tool["outputSchema"]["required"]) == executor.types.keys()
    assert ("share" in tool["description"]) is (isolation == "shared")
    assert executor.error("tools/call", {"name": "run", "arguments": {}})["code"] == -32602
    assert executor.error("tools/call", {"name": "run", "arguments": {"code": "1", "max_output": -1}})["code"] == -32602
    assert executor.error("tools/call", {"name": "run", "arguments": {"code": "1", "cpu_time": 0}})["code"] == -32602
    assert executor.end() == (0, "")


@EACH
def test_results(start, isolation):
    executor = start(isolation)
    assert executor.run("import sys; print('out'); print('err', file=sys.stderr); input()", stdin="in") == {
        "stdout": "out\n", "stderr": "err\n", "value": "'in'", "exception": None, "exit_code": 0, "signal": None,
        "truncated": False, "timed_out": False, "left_behind": None}
    result = executor.run("def f():\n    1/0  # here\nf()")
    assert result["exception"]["type"] == "ZeroDivisionError" and result["exit_code"] == 1
    assert "# here" in result["exception"]["traceback"] and "mcp_exec" not in result["exception"]["traceback"]
    assert executor.run("import sys; sys.exit(7)")["exit_code"] == 7
    assert executor.run("exit('bye')")["exit_code"] == 1
    assert executor.run("exit()")["exit_code"] == 0
    assert executor.run("import traceback\ntry: 1/0  # seen\nexcept Exception: traceback.print_exc()")["stderr"].count("# seen") == 1
    assert executor.run("__name__, __import__('sys').argv")["value"] == "('__main__', [''])"
    assert executor.run("import __main__; __main__.__dict__ is globals()")["value"] == "True"


@EACH
def test_state(start, isolation):
    executor = start(isolation)
    executor.run("x = 1")
    assert executor.run("'x' in globals()")["value"] == str(isolation in ("shared", "fresh"))  # fresh: the broker's part


@EACH
def test_max_output(start, isolation):
    executor = start(isolation)
    result = executor.run("print('x' * 100)\n'y' * 100", max_output=10)
    assert result["stdout"] == "xxxxx\n[... 91 bytes left out ...]\nxxxx\n" and result["truncated"]
    assert result["value"] == repr("y" * 100)
    assert executor.run("print('x')", max_output=0)["stdout"] == "\n[... 2 bytes left out ...]\n"
    result = executor.run("print('x' * 2_000_000)", max_output=4_000_000)
    assert len(result["stdout"]) == 2_000_001 and not result["truncated"]
    result = executor.run("'z' * 10_000_000")
    assert result["truncated"] and len(result["value"]) < 300_000


@EACH
def test_timeout(start, isolation):
    executor = start(isolation)
    for code in "while True: pass", "import time; time.sleep(1000)":
        result = executor.run("print('before')\n" + code, timeout=0.5)
        assert result["timed_out"] and result["stdout"] == "before\n"
        assert result["exception"]["type"] == "TimeoutError" and "longer than 0.5 s" in result["exception"]["message"]
    assert executor.run("2+2", timeout=1000)["value"] == "4"


@EACH
def test_cpu_time(start, isolation):
    executor = start(isolation)
    result = executor.run("print('before')\nwhile True: pass", cpu_time=0.2)
    assert result["timed_out"] and result["stdout"] == "before\n"
    assert "more than 0.2 s of CPU time" in result["exception"]["message"]
    assert not executor.run("import time; time.sleep(0.4)", cpu_time=0.2)["timed_out"]
    assert executor.run("1", cpu_time=0.2)["value"] == "1"


@EACH
def test_cancel(start, isolation, tmp_path):
    executor = start(isolation)
    executor.cancel(executor.wait_until_running("import time; time.sleep(1000)", tmp_path / "running"))
    assert executor.run("2+2")["value"] == "4"


@pytest.mark.parametrize("isolation", ["reset", "fork", "fresh"])
def test_exit_handlers_run_with_the_call(start, isolation):
    executor = start(isolation)
    code = "import atexit, tempfile, os; atexit.register(print, 'bye'); d = tempfile.TemporaryDirectory(); d.name"
    result = executor.run(code)
    assert result["stdout"] == "bye\n" and not os.path.exists(eval(result["value"]))
    assert executor.run("print('next')")["stdout"] == "next\n"


@pytest.mark.parametrize("isolation", ["reset", "fork"])
def test_left_behind_is_told(start, isolation):
    executor = start(isolation)
    assert executor.run("import threading, time; threading.Thread(target=time.sleep, args=(9,)).start()")[
        "left_behind"] == {"threads": 1, "processes": 0}
    assert executor.run("import subprocess\nfor _ in 1, 2: subprocess.Popen(['sleep', '1000'])")[
        "left_behind"] == {"threads": 0, "processes": 2}
    result = executor.result("tools/call", {"name": "run", "arguments": {"code": "import os\nif not os.fork(): os.execlp('sleep', 'sleep', '9')"}})
    assert result["content"][0]["text"] == "[ended with the call, having been left behind: 1 process]\n"
    assert executor.run("1")["left_behind"] is None


@pytest.mark.parametrize("isolation", ["shared", "reset", "fork"])
def test_preload(start, tmp_path, isolation):
    (tmp_path / "loaded.py").write_text("import os\nopen('count', 'a').write('x')\nprint('noise')\nvalue = []")
    executor = start(isolation, MCP_EXEC_PRELOAD="loaded,textwrap")
    for _ in range(3):
        assert executor.run("import sys; 'loaded' in sys.modules, 'textwrap' in sys.modules")["value"] == "(True, True)"
        assert executor.run("import loaded; loaded.value.append(1); len(loaded.value)")["value"] in (
            "1" if isolation != "shared" else "123")
    assert (tmp_path / "count").read_text() == "x"


@pytest.mark.parametrize("isolation", ["shared", "reset", "fork"])
def test_preload_that_fails(start, isolation):
    executor = start(isolation, greet=False, MCP_EXEC_PRELOAD="does_not_exist")
    status, said = executor.end(close=False)
    assert status == 1
    assert "cannot preload does_not_exist: ModuleNotFoundError" in said


@pytest.mark.parametrize("variable, value", [("MCP_EXEC_ISOLATION", "loose"), ("MCP_EXEC_CONCURRENCY", "many")])
def test_bad_settings(start, variable, value):
    executor = start(greet=False, **{variable: value})
    status, said = executor.end(close=False)
    assert status == 1 and said.startswith("mcp-exec-python: ") and said.count("\n") == 1


SETTINGS = ["MCP_EXEC_ISOLATION", "MCP_EXEC_CONCURRENCY", "MCP_EXEC_PRELOAD"]


def test_settings_are_not_the_codes(start):
    for isolation in "shared", "reset", "fork":
        executor = start(isolation, MCP_EXEC_PRELOAD="os")
        assert executor.run(f"import os; [name for name in os.environ if name in {SETTINGS}]")["value"] == "[]"
        assert executor.run("import sys; [name for name in sys.modules if 'mcp_exec' in name]")["value"] == "[]"


# -- fork


def test_fork_does_not_show_the_protocol(start):
    executor = start("fork")
    streams = {os.fstat(stream.fileno()).st_ino for stream in (executor.process.stdin, executor.process.stdout, executor.process.stderr)}
    code = "import os; [os.stat(f'/proc/self/fd/{fd}').st_ino for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')]"
    assert not streams & set(eval(executor.run(code)["value"]))
    for _ in range(20):
        assert executor.run("import os; os.open('/dev/null', 0)")["value"] == "3"


def test_fork_protects_the_protocol_from_its_user(start):
    if os.getuid() == 0:
        pytest.skip("root may open everything")
    executor = start("fork")
    code = f"import os; os.listdir('/proc/{executor.process.pid}/fd')"
    assert executor.run(code)["exception"]["type"] == "PermissionError"


def test_interleaved_calls(start, tmp_path):
    executor = start("fork", concurrency=3)
    slow = executor.wait_until_running("import time; time.sleep(1000)", tmp_path / "slow")
    waits = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.005)\nos.getpid()"
    first, second = executor.start_run(waits), executor.start_run(waits)
    last = executor.start_run("'queued'")  # three run: it waits
    assert executor.result("ping") == {}
    (tmp_path / "go").touch()
    answers = {}
    for _ in range(3):
        answer = executor.receive()
        answers[answer["id"]] = executor.check_run(answer)["value"]
    assert answers.keys() == {first, second, last} and answers[last] == "'queued'" and answers[first] != answers[second]
    executor.cancel(slow)
    assert executor.run("5")["value"] == "5"


def test_concurrent_calls_do_not_end_each_others_daemons(start, tmp_path):
    executor = start("fork", concurrency=2)
    daemon = ("import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(1000)\n"
              "    os._exit(0)\nos.wait()\n"
              "pid = open(f'/proc/self/task/{os.getpid()}/children').read()\nopen('pid', 'w').write(pid)\n"
              "while not os.path.exists('go'): time.sleep(0.005)\nos.path.exists('/proc/' + pid.strip())")
    first = executor.start_run(daemon)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    for _ in range(5):
        assert executor.run("import subprocess; subprocess.Popen(['sleep', '1000']); 1")["value"] == "1"
    (tmp_path / "go").touch()
    answer = executor.receive()
    assert answer["id"] == first
    result = executor.check_run(answer)
    assert result["value"] == "True" and result["left_behind"] == {"threads": 0, "processes": 1}
    wait_for(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_cancelled_calls_processes_are_ended(start, tmp_path):
    executor = start("fork")
    code = "import subprocess\np = subprocess.Popen(['sleep', '1000'])\nopen('child', 'w').write(str(p.pid))\np.wait()"
    call = executor.start_run(code)
    wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    executor.cancel(call)
    wait_for(lambda: not is_alive(int((tmp_path / "child").read_text())))
    assert executor.run("1")["value"] == "1"


def test_cancel_while_waiting_or_right_away(start):
    executor = start("fork")
    for _ in range(50):
        executor.cancel(executor.start_run("2+2"))
    last = executor.start_run("3")
    while (answer := executor.receive())["id"] != last:
        assert executor.check_run(answer)["value"] == "4"
    assert executor.check_run(answer)["value"] == "3"
    assert executor.run("4")["value"] == "4"


def children_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def family(executor):
    """All processes below it."""
    pending, found = [executor.process.pid], []
    while pending:
        children = children_of(pending.pop())
        found += children
        pending += children
    return found


@pytest.mark.parametrize("end", ["close", "kill", "terminate"])
def test_nothing_outlives_it(start, tmp_path, end):
    executor = start("fork", concurrency=2)
    executor.wait_until_running("import subprocess; subprocess.run(['sleep', '1000'])", tmp_path / "running")
    executor.run("1")
    pids = family(executor)
    assert len(pids) >= 3
    if end == "close":
        executor.end()
    else:
        getattr(executor.process, end)()
    wait_for(lambda: not any(map(is_alive, pids)))


def nursery_of(executor, dead=()):
    """The parent of the calls' processes; that of one whose nursery is dead is the executor."""
    for _ in range(1000):
        answer = executor.request("tools/call", {"name": "run", "arguments": {"code": "import os; os.getppid()"}})
        if "error" in answer:
            assert "may have run" in answer["error"]["message"]
        elif (parent := int(executor.check_run(answer)["value"])) not in (executor.process.pid, *dead):
            return parent
    raise AssertionError("no other nursery was started")


def test_a_killed_nursery_is_replaced(start, tmp_path):
    executor, dead = start("fork", concurrency=2), []
    executor.run("1")
    for _ in range(3):
        running = executor.start_run("import os, time\nwhile not os.path.exists('go'): time.sleep(0.005)\n'survived'")
        dead.append(nursery_of(executor, dead))
        os.kill(dead[-1], signal.SIGKILL)
        # A call that was given to a process of which nothing is known any more may have run: it isn't run again unasked.
        executor.start_run("3")
        answer = executor.receive()
        if "error" in answer:
            assert "may have run" in answer["error"]["message"]
            assert executor.run("3")["value"] == "3"
        else:
            assert executor.check_run(answer)["value"] == "3"
        (tmp_path / "go").touch()
        answer = executor.receive()
        assert answer["id"] == running and executor.check_run(answer)["value"] == "'survived'"
        (tmp_path / "go").unlink()


def test_a_killed_nursery_s_calls_are_not_strangers(start, tmp_path):
    """They are the executor's of a sudden, which at that moment ends what an earlier call has left."""
    executor = start("fork", concurrency=2)
    wait = "import os, time\nopen('began-{0}', 'w').close()\nwhile not os.path.exists('go-{0}'): time.sleep(0.005)\n{1}"
    orphan = executor.start_run(wait.format(1, "os._exit(7)"))
    nursery = nursery_of(executor)
    os.kill(nursery, signal.SIGKILL)
    nursery = nursery_of(executor, [nursery])
    running = executor.start_run(wait.format(2, "'survived'"))
    wait_for((tmp_path / "began-2").exists)
    orphans = set(children_of(executor.process.pid)) - {nursery}
    executor.process.send_signal(signal.SIGSTOP)
    (tmp_path / "go-1").touch()
    wait_for(lambda: not any(map(is_alive, orphans)))
    os.kill(nursery, signal.SIGKILL)
    wait_for(lambda: not is_alive(nursery))
    executor.process.send_signal(signal.SIGCONT)
    answer = executor.receive()
    assert answer["id"] == orphan and executor.check_run(answer)["exit_code"] == 7
    (tmp_path / "go-2").touch()
    answer = executor.receive()
    assert answer["id"] == running and executor.check_run(answer)["value"] == "'survived'"


def test_spares_are_kept_ahead(start):
    executor = start("fork", concurrency=4)
    for _ in range(3):
        ids = [executor.start_run("import time; time.sleep(0.1)") for _ in range(4)]
        assert {executor.receive()["id"] for _ in ids} == set(ids)
    wait_for(lambda: 3 <= len(family(executor)) <= 5)  # the nursery and some spares


def test_random_numbers_differ(start):
    executor = start("fork", MCP_EXEC_PRELOAD="random,uuid")
    values = {executor.run("import random, uuid; random.random(), uuid.uuid4()")["value"] for _ in range(5)}
    assert len(values) == 5


def test_large_messages(start):
    executor = start("fork")
    code = "x = '" + "ä" * 3_000_000 + "'\nlen(x), len(input())"
    assert executor.run(code, stdin="y" * 5_000_000)["value"] == "(3000000, 5000000)"


def test_many_calls_leave_no_descriptors(start):
    executor = start("fork", concurrency=2)
    for _ in range(150):
        executor.run("print(1)")
    # Each process that waits for a call has four, and there may be several.
    wait_for(lambda: len(os.listdir(f"/proc/{executor.process.pid}/fd")) < 40)


# -- reset


def test_reset_keeps_the_process(start):
    executor = start("reset")
    pids = {executor.run("import os; os.getpid()")["value"] for _ in range(5)}
    pids |= {executor.run("import json, threading, os\nthreading.Thread(target=open, args=('x', 'w')).start(); os.getpid()")["value"]
             for _ in range(5)}
    assert pids == {str(executor.process.pid)}


def test_reset_loses_no_call_when_it_begins_anew(start):
    executor = start("reset")
    ids = [executor.start_run(f"import threading, time; threading.Thread(target=time.sleep, args=(9,)).start(); {n}") for n in range(8)]
    ping = executor.start("ping")
    answers = [executor.receive() for _ in range(9)]
    assert [answer["id"] for answer in answers if answer["id"] != ping] == ids
    assert executor.run("1")["value"] == "1"
    assert executor.error("server/discover")["code"] == -32602  # it remembers that it was initialized


def test_reset_ends_where_it_cannot_begin_anew(start):
    executor = start("reset")
    assert executor.run("import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); 'last'")["value"] == "'last'"
    assert executor.end(close=False) == (0, "")


@pytest.mark.parametrize("finalizer", ["while True: pass", "import time; time.sleep(1000)", "raise KeyboardInterrupt"])
def test_reset_is_not_held_up(start, finalizer):
    executor = start("reset")
    executor.run(f"class V:\n    def __del__(self):\n        {finalizer}\nv = V(); v.self = v")
    assert executor.run("1")["value"] == "1"


def test_reset_forgets_imports_of_the_code(start, tmp_path):
    executor = start("reset")
    for value in range(3):
        (tmp_path / "changing.py").write_text(f"value = {value}{'#' * value}")
        assert executor.run("import changing; changing.value")["value"] == str(value)


def test_reset_imports_are_what_they_are_elsewhere(start):
    executor = start("reset")
    code = ("import sys, json, asyncio, decimal, logging, pickle, re, copy, dataclasses, enum, collections.abc, inspect\n"
            "@dataclasses.dataclass\nclass Point:\n    x: int = 1\n"
            "async def f(): await asyncio.sleep(0.001); return 5\n"
            "pickle.loads(pickle.dumps(re.compile('a'))), asyncio.run(f()), inspect.getsource(json.dumps)[:9], "
            "copy.deepcopy(Point()), json.__spec__.name, json.__spec__.loader is not None, sys.modules['re'] is re")
    values = {executor.run(code)["value"] for _ in range(4)}
    assert values == {"(re.compile('a'), 5, 'def dumps', Point(x=1), 'json', True, True)"}


def test_reset_keeps_its_memory(start):
    executor = start("reset")
    code = ("import sys, os, json, random, threading, logging\nsys.path.append('/x'); os.environ['A'] = 'b'; os.chdir('/')\n"
            "sys.modules['m'] = sys; data = [[i] for i in range(1000)]; data.append(data)\nclass C: pass\nC.c = C\n"
            "threading.Thread(target=len, args=('x',)).start(); logging.getLogger('x').addHandler(logging.NullHandler())")
    sizes = []
    for _ in range(4):
        for _ in range(100):
            assert executor.run(code)["exception"] is None
        with open(f"/proc/{executor.process.pid}/statm") as file:
            sizes.append(int(file.read().split()[1]) * 4)
    assert sizes[-1] - sizes[0] < 512, sizes  # KiB


# -- What is installed


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*/*.json")), ids=lambda path: path.stem)
def test_server_files(path):
    server = json.loads(path.read_text().replace("@libexecdir@", "/usr/libexec"))
    name = path.parent.name
    assert f"/usr/libexec/{PROGRAMS[name].name}" in (server["command"], *server.get("args", ()))
    assert server["executor"] is True and server["protocol"] == "mcp" and server["scope"] == "user"
    assert server["isolation"] in ("shared", "fork")
    assert server["pool"]["max"] == 1
    assert (server["pool"]["concurrency"] == 1) is (server["isolation"] == "shared")
