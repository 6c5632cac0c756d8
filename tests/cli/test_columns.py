"""What mcp-exec shows on a terminal of 80 columns and 24 lines, with long and wide words and many servers."""

import re
import unicodedata

import pytest

from command_line import ESCAPE
from service import PYTHON, REPO

LONG = "a-server-with-a-name-that-is-much-longer-than-those-of-others"
DESCRIPTION = "The weather: 天気予報 of any city, from the stations that are nearest,\nwith all that one would like to know about it"


def columns(line):
    return sum(0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


@pytest.fixture
def wide(service):
    service.server("wide", PYTHON, REPO / "tests/cli/wide.py", description=DESCRIPTION)
    service.server(LONG, PYTHON, REPO / "tests/cli/wide.py", description="Long")
    service.server("off", "x", disabled=True)


def shown(cli, *arguments):
    """The lines on the terminal. None is wider than that, but for words that can't be broken."""
    terminal = cli.on_terminal(*arguments)
    assert terminal.wait() == 0, terminal.text
    lines = ESCAPE.sub("", terminal.text).splitlines()
    for line in lines:
        assert columns(line) <= 80 or max(map(len, line.split())) > 60, line
        assert line == line.rstrip() or line.endswith("  "), line
    return lines


def row(lines, name):
    return next(index for index, line in enumerate(lines) if line.split()[:1] == [name])


def test_a_long_name_is_whole_and_takes_no_room_from_others(cli, wide):
    lines = shown(cli, "list")
    assert lines[row(lines, LONG)] == LONG and lines[row(lines, LONG) + 1].split() == ["inactive", "Long"]
    assert lines[row(lines, "wide")].startswith("wide    inactive  The weather: 天気予報 of any city, from") and lines[row(lines, "wide")].endswith("…")
    lines = shown(cli, "tools", "wide")
    name = "browser_navigate_and_take_a_screenshot_of_the_whole_page"
    assert lines[row(lines, name)] == name and lines[row(lines, name) + 1] == "          Navigates"
    assert columns(lines[row(lines, "tenki")]) >= 78 and lines[row(lines, "tenki")].endswith("…")
    cli("start", LONG)
    lines = shown(cli, "status")
    assert lines[row(lines, LONG) + 1].split()[:2] == ["active", "1"]


def test_descriptions_are_wrapped_between_words(cli, wide):
    text = "\n".join(shown(cli, "tools", "wide", "forecast"))
    assert "days, from the stations that are\nnearest to it.\n\nArgs:\n    city: the city" in text
    assert "that it has to be\n    wrapped, below its own beginning\n" in text
    assert "\n    https://example.org/a/word/that/is/longer/than/a/line/of/a/terminal/and/has/to/stay/whole/for/copying\n" in text
    assert re.search(r"\ncity {6}string {10}required  The city .*\n {36}\S", text)
    assert "\nan_argument_with_a_name_that_is_longer_than_those_of_others\n          number or null            How many\n" in text
    assert "Line one line two" in text and re.search(r"; one of\s+摂氏, 華氏", text)
    wrapped = shown(cli, "tools", "wide", "tenki")
    assert all(columns(line) <= 80 for line in wrapped) and "".join(wrapped).count("。") == 4


def test_a_pipe_gets_whole_lines(cli, wide):
    out = cli("tools", "wide", "forecast").out
    assert "with its country behind a comma where several are named so\n" in out
    assert LONG + "  inactive" in cli("list").out


def test_status_of_a_server(cli, wide):
    cli("start", "wide")
    lines = shown(cli, "status", "wide")
    assert lines[0].startswith("● wide - The weather: 天気予報") and lines[1].startswith("  ") and "about it" in lines[1]
    assert "   Speaks: 2025-11-25" in "\n".join(lines)


def test_status_of_a_failing_server_says_what_to_type(service, cli):
    service.server("broken", "sh", "-c", "exit 3", restart={"burst": 1, "interval": 30})
    for _ in range(3):
        cli("start", "broken")
    text = "\n".join(shown(cli, "status", "broken"))
    assert "State: failing" in text and "mcp-exec restart broken" in text
    assert "exited with status 3" in cli("tools", "broken").err
    assert cli("restart", "broken").status == 0


def test_describe_wraps_lists(service, cli):
    service.obedient(description="Two\nlines", env={f"A_LONG_VARIABLE_NAME_{i}": "x" for i in range(6)})
    text = "\n".join(shown(cli, "describe", "obedient"))
    assert "description: Two\n        lines\n" in text
    assert re.search(r'environment: \["PATH", .*,\n        "A_LONG', text)


def test_help_fits(cli):
    for words in (["--help"], ["help"]):
        assert all(len(line) <= 80 for line in cli(*words).out.splitlines())


def test_top_shows_those_that_work_on_one_screen(service, cli, wide):
    for i in range(40):
        service.echo(f"echo-{i}")
    service.obedient("zzz")
    cli("start", "zzz", LONG)
    terminal = cli.on_terminal("top")
    terminal.wait_for(r"zzz(.|\n)* more\n(.|\n)* more\n")
    terminal.type("q")
    assert terminal.wait() == 0
    for picture in ESCAPE.sub("", terminal.text.replace("\x1b[H\x1b[J", "\f")).split("\f")[1:]:
        lines = picture.splitlines()
        assert len(lines) <= 24 and all(columns(line) <= 80 for line in lines), picture
        assert [line.split()[0] for line in lines[3:5]] == ["a-server-wi…", "zzz"], picture


def test_monitor_tells_what_it_means(service, cli, wide):
    service.obedient()
    cli("call", "obedient", "pid")
    terminal = cli.on_terminal("monitor", "--color=never")
    terminal.wait_for("watching")
    cli("start", "wide")
    terminal.wait_for(r"\n[\d:.]{12} wide         active\n")
    cli("stop", "obedient")
    terminal.wait_for(r"obedient     worker \w{8} (stopping|exited)\n")
    service.echo()
    terminal.wait_for(r"echo         configured: inactive\n")
    terminal.type("\x03")
    terminal.wait()
    assert re.search(r"wide         worker \w{8} starting \(process \d+\)\n", terminal.text)
    assert re.search(r"wide         worker \w{8} ready \(A server with a long name for.*…\n", terminal.text)
    assert len(re.findall(r"wide         active\n", terminal.text)) == 1, "what doesn't change is no news"
    assert all(columns(line) <= 80 for line in terminal.text.splitlines())
