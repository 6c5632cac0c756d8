"""mcp-exec check and import: configuration, without the service."""

import json
import os
import re
import stat

import pytest

from service import REPO


@pytest.fixture(autouse=True)
def no_bus(cli, monkeypatch):
    """Neither needs one."""
    monkeypatch.setattr(type(cli), "environment",
                        property(lambda self: {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8"}))


def test_check_of_good_files(cli):
    (cli.home / "good.json").write_text('{"command": "/bin/true"}')
    (cli.home / "mcp-exec.json").write_text('{"idle_timeout": 5}')
    result = cli("check", "good.json", "mcp-exec.json")
    assert result.status == 0 and "1 server, no problems" in result.out and result.err == ""
    assert cli("check", "good.json", "--json").json == []


def test_check_tells_line_and_column(cli):
    (cli.home / "bad.json").write_text('{\n  "command": "x",\n  "argz": [],\n  "pool": {"max": 0}\n}')
    result = cli("check", "bad.json")
    assert result.status == 1
    assert "bad.json:3:3: unknown key argz (did you mean args?)" in result.err and "bad.json:4:" in result.err
    problems = cli("check", "bad.json", "--json").json
    assert [problem["file"] for problem in problems] == ["bad.json", "bad.json"] and problems[0]["problem"].startswith("3:3: ")
    (cli.home / "broken.json").write_text('{\n"a": }')
    assert "broken.json:2:" in cli("check", "broken.json").err
    (cli.home / "mcp-exec.json").write_text('{"limits": {"call": 5}}')
    assert "did you mean calls?" in cli("check", "mcp-exec.json").err


def test_check_of_a_folder_and_of_the_own_configuration(cli):
    folder = cli.home / ".config/mcp-exec/servers.d"
    folder.mkdir(parents=True)
    (folder / "one.json").write_text('{"command": "/bin/true"}')
    result = cli("check")
    assert "one.json: server one" in result.out
    assert cli("check", cli.home / ".config/mcp-exec").status == 0
    (folder / "two.json").write_text("{}")
    assert cli("check").status == 1 and "two.json" in cli("check").err
    assert cli("check", cli.home / "nowhere").status == 2


def test_check_warns_of_a_command_that_isnt_there(cli):
    (cli.home / "a.json").write_text('{"command": "no-such-command-here"}')
    (cli.home / "b.json").write_text('{"command": "/nowhere/at/all"}')
    result = cli("check", "a.json", "b.json")
    assert result.status == 0 and result.err.count("warning") == 2 and "2 servers, 2 warnings\n" in result.out
    assert "in the PATH of workers, ~/.local/bin:/usr/local/bin" in result.err
    assert "1 server, 1 warning\n" in cli("check", "a.json").out
    assert "~" not in cli("check", "--system", "a.json").err


def test_the_examples_of_the_reference_are_right(cli):
    text = (REPO / "docs/configuration.md").read_text()
    blocks = [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n)+", text)]
    assert len(blocks) >= 3
    for block in blocks:
        (cli.home / "example.json").write_text(block)
        assert cli("check", "example.json").status == 0, block


CLIENT = {
    "theme": "dark",
    "mcpServers": {
        "time": {"command": "uvx", "args": ["mcp-server-time"], "env": {"TOKEN": "12"}, "autoApprove": ["x"]},
        "My Files (beta)": {"command": "npx", "args": ["-y", "files"]},
    },
}


def test_import(cli):
    (cli.home / "client.json").write_text(json.dumps(CLIENT))
    result = cli("import", "client.json")
    assert result.status == 0, result
    assert '"autoApprove" of time is left out' in result.err
    folder = cli.home / ".config/mcp-exec/servers.d"
    time = folder / "time.json"
    assert json.loads(time.read_text()) == {"command": "uvx", "args": ["mcp-server-time"], "env": {"TOKEN": "12"}}
    assert stat.S_IMODE(time.stat().st_mode) == 0o600, "its environment may hold secrets"
    assert json.loads((folder / "my-files-beta.json").read_text())["command"] == "npx"
    assert sorted(os.listdir(folder)) == ["my-files-beta.json", "time.json"]
    assert cli("check", "--quiet").status == 0


def test_import_overwrites_nothing(cli):
    (cli.home / "client.json").write_text(json.dumps(CLIENT))
    folder = cli.home / ".config/mcp-exec/servers.d"
    folder.mkdir(parents=True)
    (folder / "time.json").write_text('{"command": "mine"}')
    result = cli("import", "client.json")
    assert result.status == 1 and "--force" in result.err
    assert json.loads((folder / "time.json").read_text()) == {"command": "mine"}
    assert (folder / "my-files-beta.json").exists(), "the others are taken"
    assert cli("import", "client.json", "--force").status == 0
    assert json.loads((folder / "time.json").read_text())["command"] == "uvx"
    assert sorted(os.listdir(folder)) == ["my-files-beta.json", "time.json"]


@pytest.mark.parametrize("text, status, hint", [
    ("{", 2, "is no JSON: line 1, column 2"),
    ('{"mcpServers": {}, // a comment\n /* and */ "a": "//" 5}', 2, "line 2, column 22"),
    ("{}", 2, "mcpServers"),
    ('{"mcpServers": []}', 2, "mcpServers"),
    ('{"mcpServers": {"a": {"url": "https://x"}}}', 1, "only programs of this machine"),
    ('{"mcpServers": {"a": {"command": 5}}}', 1, "server a can't be taken"),
    ('{"mcpServers": {"a": []}}', 1, "no object"),
    ('{"mcpServers": {"???": {"command": "x"}}}', 1, "can't name a server"),
])
def test_import_mistakes(cli, text, status, hint):
    result = cli("import", "-", stdin=text)
    assert result.status == status and hint in result.err, result
    folder = cli.home / ".config/mcp-exec/servers.d"
    assert not folder.exists() or not os.listdir(folder)


def test_import_takes_files_of_editors(cli):
    """With comments and commas that JSON doesn't have."""
    text = """// Settings
    {
        "theme": "// no comment, \\" /* neither */",
        /* all
           servers */
        "context_servers": {
            "one": {"command": "one", "args": ["a,]", "b", ], }, // the first
            "two": {"command": "two", "cwd": "/srv//x,}",},
        },
    }
    // the end"""
    result = cli("import", "-", stdin=text)
    assert result.status == 0, result
    folder = cli.home / ".config/mcp-exec/servers.d"
    assert json.loads((folder / "one.json").read_text()) == {"command": "one", "args": ["a,]", "b"]}
    assert json.loads((folder / "two.json").read_text()) == {"command": "two", "cwd": "/srv//x,}"}
    assert cli("import", "-", stdin='{"a": 1} /* never closed').status == 2


def test_import_doesnt_take_itself(cli):
    """A server that called mcp-exec would call itself."""
    servers = {"time": {"command": "/usr/bin/mcp-exec", "args": ["stdio", "time"]}, "other": {"command": "other"}}
    result = cli("import", "-", stdin=json.dumps({"mcpServers": servers}))
    assert result.status == 0 and "time is left out" in result.err
    assert os.listdir(cli.home / ".config/mcp-exec/servers.d") == ["other.json"]


def test_import_as_json(cli):
    result = cli("import", "-", "--json", stdin=json.dumps(CLIENT))
    assert [server["name"] for server in result.json] == ["time", "my-files-beta"]
