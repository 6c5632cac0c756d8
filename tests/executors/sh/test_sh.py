"""The bundled executor of shell commands, driven through its pipes."""

import os

import pytest
from driver import META, is_alive, wait_for


@pytest.fixture
def shell(start):
    return start("fork", "sh", concurrency=4)


def test_protocol(start):
    shell = start("fork", "sh", greet=False)
    assert shell.result("server/discover", {"_meta": META})["resultType"] == "complete"
    result = shell.initialize()
    assert result["serverInfo"]["name"] == "mcp-exec-sh"
    (tool,) = shell.result("tools/list")["tools"]
    assert set(tool["inputSchema"]["properties"]) == {"argv", "script", "stdin", "env", "cwd", "timeout", "cpu_time", "max_output"}
    assert set(tool["outputSchema"]["required"]) == shell.types.keys()
    result = shell.result("tools/call", {"name": "run", "arguments": {"script": "echo a; echo b >&2; exit 3"}})
    assert result["content"][0]["text"] == "a\n[stderr]\nb\n[exit status 3]\n"
    assert shell.end() == (0, "")


@pytest.mark.parametrize("arguments, stdout, status", [
    ({"script": "echo a | tr a b"}, "b\n", 0),
    ({"argv": ["echo", "a b", "$HOME", "'"]}, "a b $HOME '\n", 0),
    ({"argv": ["/bin/sh", "-c", "exit 7"]}, "", 7),
    ({"argv": ["cat"], "stdin": "in\0put"}, "in\0put", 0),
    ({"argv": ["cat"]}, "", 0),
    ({"script": "read x; echo $x; cat", "stdin": "1\n2"}, "1\n2", 0),
    ({"script": "echo $A$B", "env": {"A": "x y", "B": "ä"}}, "x yä\n", 0),
    ({"argv": ["pwd"], "cwd": "/usr"}, "/usr\n", 0),
    ({"script": "printf 'a\\377b'"}, "a\ufffdb", 0),
    ({"script": "echo x > file; cat file"}, "x\n", 0),
    ({"script": ""}, "", 0),
    ({"script": "exec echo $#"}, "0\n", 0),
])
def test_results(shell, arguments, stdout, status):
    result = shell.call(**arguments)
    assert (result["stdout"], result["stderr"], result["exit_code"], result["signal"]) == (stdout, "", status, None)
    assert not result["truncated"] and not result["timed_out"] and result["left_behind"] is None


@pytest.mark.parametrize("arguments, status, said", [
    ({"argv": ["does-not-exist"]}, 127, "mcp-exec-sh: does-not-exist: No such file or directory\n"),
    ({"argv": ["/etc/passwd"]}, 126, "mcp-exec-sh: /etc/passwd: Permission denied\n"),
    ({"argv": ["pwd"], "cwd": "/does/not/exist"}, 127, "mcp-exec-sh: /does/not/exist: No such file or directory\n"),
    ({"argv": ["pwd"], "cwd": "/etc/passwd"}, 127, "mcp-exec-sh: /etc/passwd: Not a directory\n"),
    ({"argv": ["echo", "x" * 200_000]}, 126, "mcp-exec-sh: echo: Argument list too long\n"),
])
def test_what_cannot_be_started(shell, arguments, status, said):
    result = shell.call(**arguments)
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("", said, status)
    assert shell.call(script="echo 1")["stdout"] == "1\n"


@pytest.mark.parametrize("arguments", [
    {}, {"argv": ["a"], "script": "b"}, {"argv": []}, {"argv": [""]}, {"argv": "echo"}, {"argv": [1]}, {"script": 1}, {"argv": ["a\0b"]},
    {"script": "a\0b"}, {"script": "", "env": []}, {"script": "", "env": {"A": 1}}, {"script": "", "env": {"A=B": "1"}},
    {"script": "", "env": {"": "1"}}, {"script": "", "cwd": 1}, {"script": "", "cwd": "a\0"}, {"script": "", "timeout": 0},
    {"script": "", "max_output": 1.5}, {"script": "", "max_output": 1 << 40}, {"script": "", "unknown": 1},
])
def test_bad_arguments(shell, arguments):
    assert shell.error("tools/call", {"name": "run", "arguments": arguments})["code"] == -32602


def test_the_environment_is_the_executors(start):
    shell = start("fork", "sh", PLANTED="1")
    names = {line.partition("=")[0] for line in shell.call(argv=["env"])["stdout"].splitlines()}
    assert "PLANTED" in names and "PATH" in names and not any(name.startswith("MCP_EXEC") for name in names)
    assert shell.call(argv=["sh", "-c", "kill -PIPE $$"])["signal"] == "SIGPIPE"  # not ignored, as Python has it


def test_no_descriptors_but_the_usual(shell):
    assert shell.call(script="ls /proc/$$/fd")["stdout"].split() == ["0", "1", "2"]


def test_signals_and_timeouts(shell):
    result = shell.call(script="echo a; kill -SEGV $$")
    assert (result["stdout"], result["signal"], result["exit_code"]) == ("a\n", "SIGSEGV", None)
    result = shell.call(script="echo a; sleep 1000", timeout=0.5)
    assert result["timed_out"] and (result["stdout"], result["signal"]) == ("a\n", "SIGTERM")
    result = shell.call(script="trap 'echo bye; exit 5' TERM; echo a; while :; do sleep 0.01; done", timeout=0.5)
    assert result["timed_out"] and (result["stdout"], result["exit_code"]) == ("a\nbye\n", 5)
    result = shell.call(script="trap '' TERM; echo a; while :; do sleep 1; done", timeout=0.5)
    assert result["timed_out"] and (result["stdout"], result["signal"]) == ("a\n", "SIGKILL")
    result = shell.call(script="kill -STOP $$", timeout=0.1)
    assert result["timed_out"]
    result = shell.call(script="while :; do :; done", cpu_time=0.2)
    assert result["timed_out"]


def test_output(shell):
    result = shell.call(script="yes", timeout=0.5, max_output=10)
    assert result["timed_out"] and result["truncated"]
    assert result["stdout"].startswith("y\ny\n") and "bytes left out" in result["stdout"]
    result = shell.call(script="head -c 3000000 /dev/zero | tr '\\0' x; echo end", max_output=4_000_000)
    assert len(result["stdout"]) == 3_000_004 and not result["truncated"]
    result = shell.call(script="exec >&- 2>&-; sleep 0.01")
    assert (result["stdout"], result["exit_code"]) == ("", 0)


@pytest.mark.parametrize("script", [
    "sleep 1000 & sleep 1000 & echo done",
    "setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) & echo done; sleep 0.1",
    "nohup sleep 1000 >/dev/null 2>&1 & echo done",
])
def test_everything_ends_with_the_call(shell, script):
    result = shell.call(script=script, env={"PLANTED": "sh"})
    assert result["stdout"].endswith("done\n") and result["left_behind"]["processes"] >= 1
    assert planted() == []


def planted():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if b"PLANTED=sh" in file.read().split(b"\0") and is_alive(pid):
                    found.append(pid)
        except OSError:
            pass
    return found


def test_interleaved_calls(shell, tmp_path):
    ids = [shell.start_call({"script": f"while ! [ -e go ]; do sleep 0.01; done; echo {n}"}) for n in range(4)]
    queued = shell.start_call({"script": "echo queued"})
    assert shell.result("ping") == {}
    (tmp_path / "go").touch()
    answers = [shell.receive() for _ in range(5)]
    assert {answer["id"] for answer in answers} == {*ids, queued}
    for answer in answers:
        expected = "queued" if answer["id"] == queued else str(ids.index(answer["id"]))
        assert shell.check_run(answer)["stdout"] == expected + "\n"


def test_cancel(shell, tmp_path):
    call = shell.start_call({"script": "sleep 1000 & echo $! > pid; wait"})
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    shell.cancel(call)
    assert shell.call(script="echo 1")["stdout"] == "1\n"
    wait_for(lambda: not is_alive(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize("script", ["kill -9 $PPID", "kill -9 -$PPID", "kill -STOP $PPID"])
def test_its_parent_is_of_no_use(shell, script):
    for _ in range(3):
        result = shell.call(script=f"{script}; echo still here")
        assert result["stdout"] == "still here\n"
        assert shell.call(script="echo 1")["stdout"] == "1\n"


def test_temporary_files_go(shell):
    first = shell.call(script="mktemp")["stdout"].strip()
    assert "mcp-exec-" in first
    wait_for(lambda: not os.path.exists(first))
    assert shell.call(script="ls -A $TMPDIR")["stdout"] == ""
    folder = os.path.dirname(os.path.dirname(first))
    shell.call(script="mkdir -p $TMPDIR/a/b; chmod 0 $TMPDIR/a")
    assert os.path.exists(folder)
    shell.end()
    wait_for(lambda: not os.path.exists(folder))
