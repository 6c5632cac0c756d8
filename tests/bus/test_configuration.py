"""What the files in servers.d may say, who wins, and what is said about mistakes."""

import json
import os
import re
import signal

import pytest

from caller import fails
from processes import Process
from service import ECHO_WORKER
from waiting import eventually, settle


def echo_file(service, **keys):
    return json.dumps({"command": ECHO_WORKER, "env": {"MCP_EXEC_TEST": service.token}, **keys})


def names(caller):
    return [name for name, _, _ in caller.list_servers()]


def pid_of(caller, server="echo"):
    return int(caller.tool_text(server, "pid"))


def problem(caller, name):
    """What Reload says about the file of that name: one problem."""
    said = [text for file, text in caller.reload() if file.endswith(f"/{name}")]
    assert len(said) >= 1, f"nothing is said about {name}: {caller.reload()}"
    return said[0]


# The two forms

def test_a_file_for_a_server(service, caller):
    service.write("servers.d/echo.json", echo_file(service, description="One"))
    assert caller.list_servers() == [("echo", "One", "inactive")]


def test_the_name_may_stand_in_the_file(service, caller):
    service.write("servers.d/file.json", echo_file(service, name="other"))
    assert names(caller) == ["other"]


def test_the_form_that_clients_use(service, caller):
    service.write("servers.d/clients.json", json.dumps({"mcpServers": {
        "one": {"command": ECHO_WORKER, "args": [], "env": {"MCP_EXEC_TEST": service.token}},
        "two": {"command": ECHO_WORKER, "env": {"MCP_EXEC_TEST": service.token}},
        "off": {"command": ECHO_WORKER, "disabled": True},
    }}))
    assert {"one", "two"} <= set(names(caller))
    assert pid_of(caller, "one") != pid_of(caller, "two")
    with fails("ServerDisabled", "off"):
        caller.call_tool("off", "pid")


def test_other_files_are_left_alone(service, caller):
    service.echo()
    for name in ("README", "echo.json.bak", ".hidden.json", "echo.json~"):
        service.write(f"servers.d/{name}", "this is no JSON")
    (service.config / "servers.d/folder.json").mkdir()
    assert names(caller) == ["echo"]
    assert all("folder.json" in file for file, _ in caller.reload())


# Precedence

def test_the_earlier_folder_wins(service, caller):
    later = service.add_config_dir("later")
    service.write("servers.d/echo.json", echo_file(service, description="earlier"))
    service.write("servers.d/echo.json", echo_file(service, description="later"), later)
    service.write("servers.d/only.json", echo_file(service, description="only"), later)
    assert {(name, description) for name, description, _ in caller.list_servers()} == {("echo", "earlier"), ("only", "only")}


def test_a_link_to_dev_null_masks(service, caller):
    later = service.add_config_dir("later")
    service.write("servers.d/echo.json", echo_file(service), later)
    service.write("servers.d/other.json", echo_file(service), later)
    (service.config / "servers.d/echo.json").symlink_to("/dev/null")
    assert names(caller) == ["other"]
    assert caller.reload() == []


def test_an_earlier_file_that_is_wrong_still_masks(service, caller):
    """A typo in /etc must not bring back what the distribution ships."""
    later = service.add_config_dir("later")
    service.write("servers.d/echo.json", "{")
    service.write("servers.d/echo.json", echo_file(service, description="shipped"), later)
    assert names(caller) == []


def test_two_files_for_one_name(service, caller):
    service.write("servers.d/a.json", echo_file(service, name="same", description="first"))
    service.write("servers.d/b.json", echo_file(service, name="same", description="second"))
    assert [name for name, _, _ in caller.list_servers()] == ["same"]
    assert any("same" in text for _, text in caller.reload())


# Mistakes

@pytest.mark.parametrize("text, place, patterns", [
    ('{\n  "command": "/bin/true",\n  "colour": "red"\n}', "3:3", ["unknown key", "colour"]),
    ('{"command": "/bin/true", "pool": {"min": 0, "maximum": 4}}', "1:45", ["unknown key", "maximum"]),
    ('{\n  "command": 5\n}', "2:3|2:14", ["command", "string"]),
    ('{"command": "/bin/true", "args": "x"}', "1:26|1:34", ["args", "array"]),
    ('{"command": "/bin/true", "args": ["x", 5]}', "1:26|1:40", ["args", "string"]),
    ('{"command": "/bin/true", "pool": {"max": "four"}}', "1:35|1:42", ["max", "number|integer"]),
    ('{"command": "/bin/true", "pool": {"max": -1}}', "1:35|1:42", ["max"]),
    ('{"command": "/bin/true", "pool": {"max": 1.5}}', "1:35|1:42", ["max"]),
    ('{"command": "/bin/true", "protocol": "lines",\n "pool": {"answers_cancel": true}}', "2:2|2:11", ["answers_cancel", "lines"]),
    ('{"command": "/bin/true", "protocol": "once",\n "pool": {"answers_cancel": true}}', "2:2|2:11", ["answers_cancel", "once"]),
    ('{"command": "/bin/true", "scope": "planet"}', "1:26|1:35", ["scope", "planet"]),
    ('{"command": "/bin/true", "keep_alive": "yes"}', "1:26|1:40", ["keep_alive"]),
    ('{"command": "/bin/true",\n "timeouts": {"call": -5}}', "2:15|2:23", ["call"]),
    ('{\n  "command": "/bin/true",\n}', "3:1", []),
    ('{\n  "command": "/bin/true"\n', "3:1|2:26|2:25", ["end|unfinished|expected|closed|missing"]),
    ('{"command": "/bin/true"} tail', "1:26", []),
    ('{"command": "/bin/true",\n "command": "/bin/false"}', "2:2", ["command", "twice|duplicate|again"]),
    ('{"command": "/bin/true", "env": {"A": "1",\n"A": "2"}}', "2:1", ["A", "twice|duplicate|again"]),
    ('{"command": "/bin/true", "env": {"A=B": "1"}}', "1:34", ["A=B"]),
    ('{"command": "/bin/true", "env": {"A": 1}}', "1:34|1:39", ["A", "string"]),
    ('{"command": "/bin/\\u0000true"}', "1:13|1:19|1:14", []),
    ('{"command": "bin/true"}', "1:2|1:13", ["command|path|absolute"]),
    ('{"command": ""}', "1:2|1:13", ["command|empty"]),
    ('{"description": "no command"}', "1:1", ["command"]),
    ('{"command": "/bin/true", "name": "No Good"}', "1:26|1:34", ["name", "a-z"]),
    ('{"mcpServers": {"No Good": {"command": "/bin/true"}}}', "1:17", ["No Good", "a-z"]),
    ('{"mcpServers": {"ok": {"command": 1}}}', "1:24|1:35", ["command", "string"]),
    ('{"mcpServers": {"web": {"url": "x"}}}', "1:25", ["url|command"]),
    ("[]", "1:1", ["object"]),
    ("", "1:1", []),
    ('{"command": "/bin/tr\xff"}'.encode("latin-1"), "1:21", ["UTF-8"]),
    ("[" * 100_000, "", ["deep|nest|object"]),
], ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_mistakes_are_said_with_their_place(service, caller, text, place, patterns):
    service.echo()
    service.write("servers.d/wrong.json", text)
    said = problem(caller, "wrong.json")
    assert not place or any(re.search(rf"\b{one}\b", said) for one in place.split("|")), f"{place} in {said!r}"
    for pattern in patterns:
        assert re.search(pattern, said, re.IGNORECASE), f"{pattern} in {said!r}"
    assert "echo" in names(caller) and "wrong" not in names(caller)
    assert pid_of(caller)


def test_a_mistake_spares_other_files(service, caller):
    service.write("servers.d/both.json", json.dumps({"mcpServers": {
        "good": {"command": ECHO_WORKER, "env": {"MCP_EXEC_TEST": service.token}}, "bad": {"command": 5}}}))
    service.echo()
    assert "echo" in names(caller)
    assert "bad" not in names(caller)


def test_mistakes_in_the_brokers_own_settings(service, caller):
    service.echo()
    service.write("mcp-exec.json", '{\n "no_such_setting": 1\n}')
    said = problem(caller, "mcp-exec.json")
    assert "2:2" in said and "no_such_setting" in said
    assert pid_of(caller)


def test_the_last_good_version_stays(service, caller):
    service.echo("echo", description="good")
    pid = pid_of(caller)
    service.write("servers.d/echo.json", '{"command": ')
    assert "echo.json" in caller.reload()[0][0]
    assert caller.list_servers() == [("echo", "good", "active")]
    assert pid_of(caller) == pid


def test_a_mistake_is_logged(service, caller):
    service.write("servers.d/wrong.json", '{"colour": 1}')
    caller.list_servers()
    eventually(lambda: "colour" in service.log_text(), "the mistake is in the log")


@pytest.mark.parametrize("mode", [0o666, 0o646, 0o664])
def test_files_that_others_can_write_are_refused(service, caller, mode):
    service.echo("echo").chmod(mode)
    said = problem(caller, "echo.json")
    assert "writ" in said, said
    assert names(caller) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_files_of_another_user_are_refused(service, caller):
    os.chown(service.echo("echo"), 65534, 65534)
    assert "own" in problem(caller, "echo.json")
    assert names(caller) == []


def test_a_fifo_does_not_hang(service, caller):
    service.echo()
    os.mkfifo(service.config / "servers.d/fifo.json")
    assert names(caller) == ["echo"]
    assert problem(caller, "fifo.json")


def test_a_dangling_link(service, caller):
    service.echo()
    (service.config / "servers.d/dangling.json").symlink_to("/no/such/file")
    assert names(caller) == ["echo"]
    assert "No such file" in problem(caller, "dangling.json")


def test_a_huge_file_is_refused(service, caller):
    service.echo()
    service.write("servers.d/huge.json", '{"description": "' + "x" * (64 * 1024 * 1024) + '"}')
    assert names(caller) == ["echo"]
    assert problem(caller, "huge.json")


# Reload

def test_reload_finds_new_and_removed_servers(service, caller):
    service.echo("one")
    assert names(caller) == ["one"]
    service.echo("two")
    (service.config / "servers.d/one.json").unlink()
    assert caller.reload() == []
    assert names(caller) == ["two"]
    with fails("NoSuchServer"):
        caller.call_tool("one", "pid")


def test_sighup_reloads(service, caller):
    service.echo("one")
    assert names(caller) == ["one"]
    service.echo("two")
    os.kill(service.pid, signal.SIGHUP)
    eventually(lambda: names(caller) == ["one", "two"], "the new server")


def test_changes_are_noticed(service, caller):
    service.echo("one")
    assert names(caller) == ["one"]
    service.echo("two")
    eventually(lambda: names(caller) == ["one", "two"], "the new server")
    path = service.config / "servers.d/two.json"
    path.write_text(path.read_text().replace("{", '{"description": "rewritten in place",', 1))
    eventually(lambda: ("two", "rewritten in place", "inactive") in caller.list_servers(), "the rewritten file")
    (service.config / "servers.d/one.json").unlink()
    eventually(lambda: names(caller) == ["two"], "the removed server")


def test_a_folder_that_appears_is_noticed(service, caller):
    (service.config / "servers.d").rmdir()
    assert names(caller) == []
    service.echo()
    eventually(lambda: names(caller) == ["echo"], "the new folder's server")


def test_server_changed_is_signalled(service, caller):
    service.echo("one")
    assert names(caller) == ["one"]
    signals = service.caller().signals("ServerChanged")
    service.echo("two")
    caller.reload()
    eventually(lambda: ("/org/example/McpExec", "two") in signals.seen, "ServerChanged")


def test_an_unchanged_server_keeps_its_worker(service, caller):
    service.echo("same")
    service.echo("other")
    pid = pid_of(caller, "same")
    service.echo("other", description="changed")
    service.echo("same")
    caller.reload()
    settle(0.3)
    assert pid_of(caller, "same") == pid


def test_a_changed_server_is_replaced(service, caller):
    service.obedient("obedient")
    before = caller.tool_json("obedient", "surroundings")
    service.obedient("obedient", env={"NEW": "yes"})
    caller.reload()
    after = caller.tool_json("obedient", "surroundings")
    assert after["pid"] != before["pid"] and after["env"]["NEW"] == "yes"
    eventually(lambda: len(caller.workers()) == 1, "the old worker has left")


def test_a_changed_server_lets_its_calls_finish(service, caller):
    service.obedient("obedient")
    old = Process.of(caller.tool_json("obedient", "pid"))
    slow = caller.begin_tool("obedient", "sleep", {"seconds": 1.0, "message": "finished"})
    service.obedient("obedient", env={"NEW": "yes"})
    caller.reload()
    assert caller.tool_json("obedient", "pid") != old.pid
    assert "finished" in slow.wait()
    eventually(lambda: not old.alive(), "the old worker has left")


def test_a_removed_server_lets_its_calls_finish(service, caller):
    service.obedient("obedient")
    old = Process.of(caller.tool_json("obedient", "pid"))
    slow = caller.begin_tool("obedient", "sleep", {"seconds": 1.0, "message": "finished"})
    service.echo("other")
    (service.config / "servers.d/obedient.json").unlink()
    caller.reload()
    assert "finished" in slow.wait()
    eventually(lambda: not old.alive(), "its worker has left")


def test_reload_under_load_loses_no_call(service, caller):
    service.obedient("obedient", pool={"max": 2, "concurrency": 16, "queue": 64})
    caller.call_tool("obedient", "pid")
    pending = []
    for n in range(6):
        service.obedient("obedient", env={"N": str(n)}, pool={"max": 2, "concurrency": 16, "queue": 64})
        pending.append(caller.begin_tool("obedient", "sleep", {"seconds": 0.2, "message": f"answer {n}"}))
        caller.reload()
    for n, one in enumerate(pending):
        assert f"answer {n}" in one.wait()


# Describe

def test_describe_tells_what_would_run(service, caller):
    service.echo("echo", "--id-last", env={"TOKEN": "secret-4711"}, pool={"max": 2}, description="Says it again")
    text = caller.invoke("Describe", "s", "echo")
    assert "secret-4711" not in text and "TOKEN" in text
    described = json.loads(text)
    assert ECHO_WORKER in text and "--id-last" in text
    assert described["pool"]["max"] == 2 and described["pool"]["concurrency"] == 16
    assert described["timeouts"]["call"] == 60


def test_rarer_keys_are_read(service, caller):
    for key, value in (("protocol", "lines"), ("transport", "socket"), ("executor", True), ("preload", ["json"]), ("sandbox", {"MemoryMax": "1G"}),
                       ("access", {"users": ["root"]}), ("idempotent", True), ("era", "legacy")):
        service.echo(key.replace("_", "-"), **{key: value})
    assert caller.reload() == []


def test_idle_timeout_stands_in_the_settings(make_service):
    service = make_service(idle_timeout=60)
    caller = service.caller()
    assert caller.property("IdleTimeoutUSec") == 60_000_000
