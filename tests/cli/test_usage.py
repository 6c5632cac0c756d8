"""Mistakes on the command line, the terminal, and completion."""

import re
import shutil
import subprocess

import pytest

from command_line import ESCAPE, PROGRAM, Terminal
from service import REPO


@pytest.mark.parametrize("arguments, hint", [
    ([], "mcp-exec list"),
    (["lst"], "did you mean list?"),
    (["stats"], "did you mean status?"),
    (["frobnicate"], "mcp-exec --help"),
    (["list", "--jsn"], "did you mean --json?"),
    (["list", "--frobnicate"], "mcp-exec --help"),
    (["list", "-Z"], "unknown option -Z"),
    (["list", "--quiet=1"], "takes no value"),
    (["list", "--timeout"], "wants a value"),
    (["list", "--timeout=soon"], "as in --timeout=30"),
    (["list", "--timeout=0"], "as in --timeout=30"),
    (["list", "--color=blue"], "auto, always or never"),
    (["logs", "x", "-n", "0"], "--lines=10"),
    (["batch", "x", "--jobs=1000"], "from 1 to 32"),
    (["list", "--force"], "is for import, not for list"),
    (["list", "more"], "too much"),
    (["call", "server"], "mcp-exec call SERVER TOOL"),
    (["tools"], "mcp-exec tools SERVER"),
    (["ls"], "did you mean list?"),
    (["show", "x"], "did you mean status?"),
    (["exec", "x", "y"], "did you mean call?"),
    (["--list"], "did you mean mcp-exec list?"),
    (["list", "time"], "or mcp-exec tools time"),
    (["top", "time"], "or mcp-exec status time"),
    (["reload", "time"], "or mcp-exec restart time"),
    (["start"], "mcp-exec list shows the servers"),
    (["call", "time"], "mcp-exec tools time shows its tools"),
    (["call", "time__now"], "mcp-exec call time now"),
    (["call", "time/now"], "mcp-exec call time now"),
    (["call", "time", "now", "--zone=UTC"], "written zone=UTC, without dashes"),
    (["call", "time", "now", "{zone: 1}"], 'JSON is written {"key": "value"}'),
    (["run", "script.py"], "mcp-exec run python script.py"),
    (["run", "script"], "mcp-exec run script FILE"),
])
def test_mistakes_say_what_to_type(cli, arguments, hint):
    result = cli(*arguments)
    assert result.status == 2 and result.out == "" and hint in result.err, result
    assert result.err.startswith("mcp-exec: ")


@pytest.mark.parametrize("arguments, hint", [
    (["shows"], "did you mean mcp-exec tools shows?"),
    (["shows", "weather"], "did you mean mcp-exec call shows weather?"),
    (["tools", "SHOWS"], "did you mean shows?"),
    (["call", "shwos", "weather"], "did you mean shows?"),
    (["call", "shows", "Weather", "city=Bonn"], "did you mean weather?"),
    (["call", "shows", "weather", "Bonn"], "did you mean city=Bonn?"),
    (["call", "shows", "weather", "city", "Bonn"], "did you mean city=Bonn?"),
    (["call", "shows", "weather", "city"], "did you mean city=VALUE?"),
    (["call", "shows", "weather", "City=Bonn"], "did you mean city?"),
    (["call", "shows", "arguments", "tags=[1"], 'as in ["a", "b"] or KEY=A KEY=B'),
    (["call", "shows", "arguments", "unit=Celsius"], "did you mean unit=celsius?"),
    (["request", "shows", "tool/list"], "Did you mean tools/list?"),
    (["request", "shows", "toolslist"], "Did you mean tools/list?"),
])
def test_mistakes_are_held_against_the_live_service(cli, showing, arguments, hint):
    result = cli(*arguments)
    assert result.status in (2, 3, 8) and result.out == "" and hint in result.err, result


def test_a_tool_without_its_arguments(service, cli):
    service.obedient()
    result = cli("call", "obedient", "fail")
    assert result.status == 1 and result.err == "failed\nmcp-exec: fail wants message=string\n"
    assert cli("-q", "call", "obedient", "fail").err == "failed\n"


def test_help_and_version(cli):
    result = cli("--help")
    assert result.status == 0 and all(verb in result.out for verb in ("list", "call SERVER TOOL", "import", "--output=FILE"))
    assert "__complete" not in result.out
    assert re.match(r"mcp-exec \d", cli("--version").out)


def test_invalid_utf8_is_the_callers_mistake(service, cli):
    service.echo()
    for arguments in (["call", b"\xff", "echo"], ["call", "echo", b"\xff"], ["call", "echo", "echo", b'{"a":"\xff"}'],
                      ["describe", b"\xff"]):
        done = subprocess.run([PROGRAM, *arguments], env=cli.environment, capture_output=True, timeout=60)
        assert done.returncode in (2, 3), done


def test_a_full_disk_is_no_success(service, cli):
    service.echo()
    with open("/dev/full", "w") as full:
        done = subprocess.run([PROGRAM, "list"], env=cli.environment, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 2 and b"No space left" in done.stderr


# Terminals

def test_colors_only_on_a_terminal(service, cli):
    service.echo()
    cli("start", "echo")
    assert "\x1b" not in cli("list").out
    assert "\x1b[" in cli("list", "--color=always").out
    for arguments, environment, colored in ((["list"], {}, True), (["list", "--color=never"], {}, False),
                                            (["list"], {"NO_COLOR": "1"}, False), (["list"], {"TERM": "dumb"}, False)):
        terminal = cli.on_terminal(*arguments, **environment)
        assert terminal.wait() == 0 and ("\x1b[" in terminal.text) == colored, terminal.text


def test_tables_fit_into_80_columns(service, cli, showing):
    service.echo(description="A description that goes on and on, and would be wider than the terminal is, by far and wide")
    service.obedient("a-server-with-a-name-that-is-longer-than-others", description="Too")
    cli("start", "echo", "shows", "a-server-with-a-name-that-is-longer-than-others")
    for arguments in (["list"], ["tools", "shows"], ["status"], ["status", "echo"], ["tools", "shows", "weather"]):
        terminal = cli.on_terminal(*arguments)
        assert terminal.wait() == 0
        for line in ESCAPE.sub("", terminal.text).splitlines():
            assert len(line) <= 80 or "config/servers.d" in line or line.startswith("●"), line


def test_a_servers_escapes_are_harmless_on_a_terminal(cli, showing):
    cli("start", "shows")
    terminal = cli.on_terminal("call", "shows", "evil")
    assert terminal.wait() == 0
    assert "\\x1b]0;title\\x07\\x1b[2Jgone \\x9b31m, tab\there" in terminal.text
    assert "\x1b" not in terminal.text and "\x9b" not in terminal.text
    terminal = cli.on_terminal("--json", "tools", "shows", "evil")
    terminal.wait()
    assert "\x1b" not in terminal.text
    assert cli("call", "shows", "evil").out == "\x1b]0;title\x07\x1b[2Jgone \u009b31m, tab\there\n", "a pipe gets the bytes"


def test_json_is_indented_on_a_terminal(service, cli):
    service.echo()
    cli("list")
    terminal = cli.on_terminal("list", "--json")
    assert terminal.wait() == 0 and '[\n  {\n    "name": "echo",\n' in terminal.text


def test_binary_data_isnt_written_to_a_terminal(cli, showing):
    terminal = cli.on_terminal("call", "shows", "blob", "--output=-")
    assert terminal.wait() == 2 and "--output=FILE" in terminal.text


def test_progress_of_a_batch(service, cli):
    service.echo()
    (cli.home / "b.jsonl").write_text('{"server":"echo","tool":"echo","arguments":{"message":"x"}}\n' * 40)
    terminal = cli.on_terminal("batch", cli.home / "b.jsonl")
    assert terminal.wait() == 0
    assert "40/40" in terminal.text and "[####" in terminal.text and terminal.text.count('"ok":true') == 40


def test_progress_of_a_call(service, cli, showing):
    terminal = cli.on_terminal("call", "shows", "steps", "known=1")
    assert terminal.wait() == 0
    assert "\r\x1b[K[#######                       ] 1/4 warming \\x1b[31mup" in terminal.text
    assert terminal.text.endswith("\r\x1b[Karrived\n")
    for quiet in (["--quiet"], ["--json"]):
        terminal = cli.on_terminal("call", "shows", "steps", *quiet)
        assert terminal.wait() == 0 and "1/4" not in terminal.text
    assert cli("call", "shows", "steps").err == ""


def test_failures_are_told_the_same_where_progress_is_shown(service, cli, showing):
    service.obedient(timeouts={"call": 1})
    service.server("upper", "sh", "-c", "read -r line; echo \"got $line\"", protocol="once")
    for arguments, status, text in ((["call", "shows", "wether", "{}"], 3, "did you mean weather?"), (["call", "obedient", "fail"], 1, "failed"),
                                    (["call", "obedient", "sleep", '{"seconds": 9}'], 5, "timeouts.call"),
                                    (["call", "obedient", "sleep", '{"seconds": 9}', "--timeout=0.2"], 5, "0.2"),  # who says so, is a race
                                    (["call", "nobody", "x"], 3, "mcp-exec list")):
        terminal = cli.on_terminal(*arguments)
        assert terminal.wait() == status and text in terminal.text, terminal.text
    terminal = cli.on_terminal("request", "upper", "any", '{"a":1}')
    assert terminal.wait() == 0 and r'got {\u0022a\u0022:1}' in terminal.text
    terminal = cli.on_terminal("--color=never", "call", "upper", "any", '{"a":1}')
    terminal.wait()
    assert "progressToken" not in terminal.text, "only MCP has tokens"


def test_top_until_q(service, cli):
    service.echo()
    service.echo("a-server-with-a-name-that-is-longer-than-others")
    cli("start", "echo", "a-server-with-a-name-that-is-longer-than-others")
    terminal = cli.on_terminal("top")
    terminal.wait_for(r"CALLS/S(.|\n)*q quits")
    terminal.type("q")
    assert terminal.wait() == 0 and "\x1b[?25h" in terminal.text
    assert all(len(line) <= 80 for line in ESCAPE.sub("", terminal.text).splitlines())


# Completion

def candidates(cli, *words, **environment):
    result = cli("__complete", *words, **environment)
    assert (result.status, result.err) == (0, "")
    return [line.split("\t")[0] for line in result.out.splitlines()]


def test_candidates(service, cli, showing):
    service.echo()
    assert {"list", "logs"} <= set(candidates(cli, "l")) and "call" in candidates(cli, "")
    assert candidates(cli, "--js") == ["--json"]
    assert candidates(cli, "logs", "--fo") == ["--follow"] and candidates(cli, "list", "--fo") == []
    assert candidates(cli, "call", "") == ["echo", "shows"] and candidates(cli, "stop", "echo", "sh") == ["shows"]
    assert candidates(cli, "--user", "call", "sh") == ["shows"]
    assert candidates(cli, "call", "shows", "pic") == ["picture", "pictures"]
    assert candidates(cli, "call", "shows", "weather", "") == ["city="]
    assert candidates(cli, "call", "shows", "arguments", "num") == ["number=", "numbers="]
    assert candidates(cli, "call", "shows", "arguments", "number=1", "num") == ["numbers="]
    assert candidates(cli, "call", "shows", "arguments", "unit=") == ["unit=celsius", "unit=fahrenheit"]
    assert candidates(cli, "call", "shows", "arguments", "flag=t") == ["flag=true"]
    assert candidates(cli, "list", "") == [] and candidates(cli, "nothing", "") == []


def test_nothing_that_a_shell_would_run_is_offered(cli, showing):
    assert not [word for word in candidates(cli, "call", "shows", "") if "touch" in word]


def test_completion_is_silent_without_a_service(cli):
    assert candidates(cli, "call", "", DBUS_SESSION_BUS_ADDRESS="unix:path=/nowhere") == []


def test_completion_in_bash(service, cli, showing, tmp_path):
    """A real bash, with a terminal and the Tab key."""
    shutil.copy(PROGRAM, tmp_path / "mcp-exec")
    (tmp_path / "rc").write_text(f"PS1='> '\nPATH={tmp_path}:$PATH\nbind 'set enable-bracketed-paste off'\n"
                                 f"source {REPO}/src/mcp-exec/completion.bash\n")
    (cli.home / "arguments.json").write_text("{}")
    cli("tools", "shows")
    terminal = Terminal(["bash", "--noprofile", "--rcfile", str(tmp_path / "rc"), "-i"], cli.environment)
    try:
        terminal.wait_for("> ")
        for typed, completed in (("mcp-exec des\t", "mcp-exec describe "), ("sho\t", "shows "),
                                 ("\x15mcp-exec call sh\tweath\tci\tBonn", "mcp-exec call shows weather city=Bonn")):
            terminal.type(typed)
            terminal.wait_for(re.escape(completed))
        terminal.type("\r")
        terminal.wait_for("\nBonn\n")
        terminal.type("mcp-exec call shows arguments unit=cel\t\r")
        terminal.wait_for(re.escape('{"unit": "celsius"}'))
        for typed, completed in (("mcp-exec call shows arguments te\t\t\t", r"text=\s+text_or_number="),
                                 ("\x15mcp-exec call shows arguments text=1 text_\t2 fl\tt\t uni\t\t\t", r"celsius\s+fahrenheit"),
                                 ("f\t\r", re.escape('{"text": "1", "text_or_number": 2, "flag": true, "unit": "fahrenheit"}')),
                                 ("mcp-exec call --js\tshows wea\tci\t", re.escape("--json shows weather city=")),
                                 ("\x15mcp-exec call shows \"wea\t", r'"weather"?'),
                                 ("\x15mcp-exec logs -n 5 sh\t", "-n 5 shows "),
                                 ("\x15mcp-exec --color=ne\tsta\t", "--color=never sta"),
                                 ("\x15mcp-exec check \t", "arguments.json")):
            terminal.raw = b""
            terminal.type(typed)
            terminal.wait_for(completed)
    finally:
        terminal.close()


def test_completion_in_zsh(service, cli, showing, tmp_path):
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    shutil.copy(PROGRAM, tmp_path / "mcp-exec")
    functions = tmp_path / "functions"
    functions.mkdir()
    shutil.copy(REPO / "src/mcp-exec/completion.zsh", functions / "_mcp-exec")
    (tmp_path / ".zshrc").write_text(f"PS1='> '\nPATH={tmp_path}:$PATH\nfpath=({functions} $fpath)\n"
                                     f"autoload -U compinit && compinit -u -d {tmp_path}/dump\nunsetopt zle_bracketed_paste\n"
                                     "unset zle_bracketed_paste\n")
    cli("tools", "shows")
    terminal = Terminal(["zsh", "-i"], {**cli.environment, "ZDOTDIR": str(tmp_path)})
    try:
        terminal.wait_for("> ")
        terminal.type("mcp-exec call sh\tweath\tci\tBonn\r")
        terminal.wait_for("\nBonn\n")
        terminal.type("mcp-exec call shows arguments unit=cel\t number=1 fl\ttr\t\r")
        terminal.wait_for(re.escape('{"unit": "celsius", "number": 1, "flag": true}'))
        terminal.type("mcp-exec call shows arguments unit=\t")
        terminal.wait_for(r"unit=celsius(.|\n)*unit=fahrenheit")
        terminal.type("\x15mcp-exec l\t")
        terminal.wait_for(r"list  Show the servers")
    finally:
        terminal.close()
