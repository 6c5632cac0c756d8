"""mcp-exec call, request and run: what goes in, what comes out, and the exit status."""

import json
import time

import pytest

from service import PYTHON


def told(result):
    """The arguments that the tool was given."""
    assert result.status == 0, result
    return json.loads(result.out)


def test_text_of_the_result_on_stdout(service, cli):
    service.echo()
    result = cli("call", "echo", "echo", '{"message":"hi there"}')
    assert (result.status, result.out, result.err) == (0, "hi there\n", "")


def test_json_is_the_whole_result(cli, showing):
    result = cli("--json", "call", "shows", "nothing")
    assert result.json == {"content": [], "structuredContent": {"answer": 42}}
    assert result.out.count("\n") == 1


def test_structured_content_where_there_is_no_other(cli, showing):
    assert json.loads(cli("call", "shows", "nothing").out) == {"answer": 42}


@pytest.mark.parametrize("word, expected", [
    ("text=5", {"text": "5"}),
    ("text=true", {"text": "true"}),
    ("text=a=b", {"text": "a=b"}),
    ("text=", {"text": ""}),
    ("text=grüße \"x\" \\", {"text": "grüße \"x\" \\"}),
    ("number=1.50", {"number": 1.5}),
    ("number=-3e2", {"number": -300.0}),
    ("integer=7", {"integer": 7}),
    ("flag=true", {"flag": True}),
    ("tags=[\"a\",\"b\"]", {"tags": ["a", "b"]}),
    ("tags=a", {"tags": ["a"]}),
    ("tags=5", {"tags": ["5"]}),
    ("numbers=5", {"numbers": [5]}),
    ('object={"inner": 1}', {"object": {"inner": 1}}),
    ("object.inner=1", {"object": {"inner": 1}}),
    ("object.deep.flag=false", {"object": {"deep": {"flag": False}}}),
    ("either=null", {"either": None}),
    ("either=2", {"either": 2}),
    ("loose=5", {"loose": "5"}),
    ("loose:=5", {"loose": 5}),
    ("text_or_number=5", {"text_or_number": 5}),
    ("text_or_number=x", {"text_or_number": "x"}),
    ("unit=celsius", {"unit": "celsius"}),
    ("dotted.name=x", {"dotted.name": "x"}),
])
def test_key_value_is_typed_by_the_schema(cli, showing, word, expected):
    assert told(cli("call", "shows", "arguments", word)) == expected


def test_many_words(cli, showing):
    assert told(cli("call", "shows", "arguments", "tags=a", "tags=b", "object.inner=1", "object.deep.flag=true", "flag=false")) \
        == {"tags": ["a", "b"], "object": {"inner": 1, "deep": {"flag": True}}, "flag": False}


def test_digits_are_kept(service, cli, showing):
    result = cli("--json", "request", "shows", "tools/call",
                 '{"name":"open","arguments":{"known":12345678901234567890123}}')
    assert "12345678901234567890123" in result.out
    assert "12345678901234567890123" in cli("call", "shows", "open", "known=12345678901234567890123").out


@pytest.mark.parametrize("words, hint", [
    (["numbr=1"], "did you mean number?"),
    (["zzzzzzzzz=1"], "only: text, number"),
    (["number=five"], "number wants number"),
    (["integer=1.5"], "integer wants integer"),
    (["flag=yes"], "true or false"),
    (["unit=celsus"], "did you mean unit=celsius?"),
    (["unit=kelvin"], "celsius, fahrenheit"),
    (["object=1"], "object.*KEY.SUB=VALUE"),
    (["object.innr=1"], "did you mean inner?"),
    (["number.x=1"], "number is no object"),
    (["number=1", "number=2"], "stands twice"),
    (["loose:=nope"], "no JSON"),
    (["word"], "KEY=VALUE"),
    (["=x"], "KEY=VALUE"),
    (['{"a":'], "line 1, column"),
    (["{}", "more"], "too much"),
    (["@/nowhere/at/all"], "can't be read: No such file"),
])
def test_mistakes_in_arguments_say_what_to_type(cli, showing, words, hint):
    import re
    result = cli("call", "shows", "arguments", *words)
    assert result.status == 2 and result.out == "", result
    assert re.search(hint, result.err, re.DOTALL), result.err


def test_what_is_required_is_asked_for(cli, showing):
    result = cli("call", "shows", "weather", "--", "town=Bonn")
    assert result.status == 2 and "only: city" in result.err
    assert cli("call", "shows", "weather", "city=Bonn").out == "Bonn\n"


def test_unknown_keys_where_the_schema_allows_them(cli, showing):
    assert told(cli("call", "shows", "open", "other=1", "known=2")) == {"other": "1", "known": 2}


def test_arguments_from_stdin_and_from_a_file(cli, showing, tmp_path):
    assert told(cli("call", "shows", "open", "-", stdin='{"a": 1}\n')) == {"a": 1}
    (tmp_path / "arguments.json").write_text('{\n"b": [1,\n2]}')
    assert told(cli("call", "shows", "open", f"@{tmp_path}/arguments.json")) == {"b": [1, 2]}
    (tmp_path / "bad.json").write_text('{\n"b": [1,\n2}')
    result = cli("call", "shows", "open", f"@{tmp_path}/bad.json")
    assert result.status == 2 and "bad.json: line 3, column 2" in result.err


# Exit statuses

def test_1_the_tool_says_that_it_failed(service, cli):
    service.obedient()
    result = cli("call", "obedient", "fail", '{"message":"no luck"}')
    assert (result.status, result.out, result.err) == (1, "", "no luck\n")


def test_3_no_such_server_or_tool(service, cli, showing):
    service.obedient()
    service.obedient("off", disabled=True)
    result = cli("call", "obediant", "echo")
    assert result.status == 3 and "did you mean obedient?" in result.err
    result = cli("call", "nothing-like-it", "echo")
    assert result.status == 3 and "mcp-exec list" in result.err
    for arguments in ([], ["{}"], ["message=x"]):
        result = cli("call", "obedient", "ecoh", *arguments)
        assert result.status == 3 and "did you mean echo?" in result.err, result
    result = cli("call", "shows", "wether")  # this one says so in a result
    assert result.status == 3 and "did you mean weather?" in result.err
    result = cli("call", "off", "echo")
    assert result.status == 3 and "disabled" in result.err


def test_5_timeout(service, cli):
    service.obedient(timeouts={"call": 0.3})
    service.obedient("slow")
    assert cli("call", "obedient", "sleep", '{"seconds": 20}').status == 5
    begun = time.monotonic()
    result = cli("--timeout=0.2", "call", "slow", "sleep", '{"seconds": 20}')
    assert result.status == 5 and "--timeout=0.2" in result.err and time.monotonic() - begun < 10


def test_the_own_timeout_is_longer_than_the_calls(service, cli):
    """Libraries give up after 25 s by themselves. --timeout can say less, nothing else does."""
    service.obedient()
    assert cli("call", "obedient", "sleep", '{"seconds": 26, "message": "woken"}').out == "woken\n"


def test_6_unreachable(cli):
    result = cli("list", DBUS_SESSION_BUS_ADDRESS="unix:path=/nowhere/bus")
    assert result.status == 6 and "--system" in result.err and "session bus: No such file" in result.err
    for option, hint in (("--user", "--system"), ("--address=unix:path=/nowhere", "unix:path=/run/mcp-exec/bus")):
        result = cli(option, "list", DBUS_SESSION_BUS_ADDRESS="unix:path=/nowhere/bus")
        assert result.status == 6 and hint in result.err
    assert cli("--system", "list").status == 6


def test_6_a_bus_without_the_service(cli, tmp_path):
    import private_bus
    bus = private_bus.PrivateBus(tmp_path / "other-bus")
    bus.start()
    try:
        for option in ([], ["--user"]):
            result = cli(*option, "list", DBUS_SESSION_BUS_ADDRESS=bus.address)
            assert result.status == 6 and "org.example.McpExec" in result.err, result
    finally:
        bus.stop()


def test_the_address_chooses_the_bus(service, cli):
    service.echo()
    cli.environment
    result = cli(f"--address={service.bus.address}", "call", "echo", "echo", "message=x",
                 DBUS_SESSION_BUS_ADDRESS="unix:path=/nowhere/bus")
    assert result.out == "x\n"


def test_7_the_server_failed(service, cli):
    service.obedient()
    service.server("absent", "/nowhere/at/all")
    service.server("silent", "/bin/true")
    result = cli("call", "obedient", "die")
    assert result.status == 7 and "SIGKILL" in result.err
    assert cli("call", "absent", "x").status == 7
    assert cli("call", "silent", "x").status == 7


def test_8_the_servers_own_error(service, cli):
    service.obedient()
    result = cli("call", "obedient", "refuse", '{"code": -32000, "message": "not today"}')
    assert result.status == 8 and "not today" in result.err
    assert cli("request", "obedient", "no/such").status == 8


def test_9_limits(service, cli):
    service.obedient(limits={"message": 2000000})
    result = cli("call", "obedient", "big", '{"size": 3000000}')
    assert result.status == 9 and "limits.message" in result.err


def test_errors_as_json(service, cli):
    service.obedient()
    error = json.loads(cli("--json", "call", "obediant", "echo").err)
    assert error["error"] == "NoSuchServer" and error["status"] == 3 and "obedient" in error["message"]
    assert json.loads(cli("call", "--json").err)["error"] == "Usage"
    assert json.loads(cli("--json", "--nope").err)["status"] == 2


# Content

def test_images_only_to_files(cli, showing):
    result = cli("call", "shows", "picture")
    assert result.status == 0 and result.out == "a caption\n"
    assert "image (image/png, 264 bytes) not shown: --output=FILE" in result.err
    assert cli("--quiet", "call", "shows", "picture").err == ""

    result = cli("call", "shows", "picture", "--output=p.png")
    assert result.status == 0 and result.out == "a caption\n" and "written to p.png" in result.err
    assert (cli.home / "p.png").read_bytes() == b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def test_several_files(cli, showing):
    assert cli("call", "shows", "pictures", "--output=out.d/x").status == 2
    (cli.home / "out.d").mkdir()
    assert cli("call", "shows", "pictures", "--output=out.d/x").status == 0
    assert (cli.home / "out.d/x-2").read_bytes() == b"sound"
    assert cli("--json", "call", "shows", "pictures", "--output=y.bin").json["content"]
    assert (cli.home / "y-2.bin").read_bytes() == b"sound"


def test_a_blob_to_stdout(cli, showing):
    result = cli("call", "shows", "blob", "--output=-")
    assert (result.status, result.out) == (0, "\0\1\2")
    assert "bytes) not shown" in cli("call", "shows", "blob").err


def test_resources_links_and_what_is_unknown(cli, showing):
    assert cli("call", "shows", "resource").out == "the resource\nfile:///etc/motd\n"
    assert json.loads(cli("call", "shows", "strange").out) == {"type": "hologram", "depth": 3}
    assert cli("call", "shows", "broken", "--output=x").status == 7


def test_output_without_anything_to_write_is_said(cli, showing):
    result = cli("call", "shows", "weather", "city=Bonn", "--output=x")
    assert result.status == 0 and "nothing was written to x" in result.err


# request

def test_request_sends_any_method(service, cli):
    service.obedient()
    assert cli("request", "obedient", "ping").json == {}
    assert cli("request", "obedient", "test/params", '{"a": [1, 2]}').json["params"]["a"] == [1, 2]
    assert cli("request", "obedient", "test/params", "-", stdin='{"b": 1}').json["params"]["b"] == 1
    result = cli("request", "obedient", "test/params", "[1]")
    assert result.status == 2 and "a JSON object is wanted" in result.err


# run

def test_run_code(cli, python):
    assert (lambda r: (r.status, r.out, r.err))(cli("run", "python", "-c", "print(1); 2 + 2")) == (0, "1\n4\n", "")
    assert cli("run", "python", "-", stdin="print('from stdin')").out == "from stdin\n"
    (cli.home / "x.py").write_text("import sys; print('to stderr', file=sys.stderr)")
    result = cli("run", "python", "x.py")
    assert (result.status, result.out, result.err) == (0, "", "to stderr\n")


def test_run_passes_stdin_on_request(cli, python):
    assert cli("run", "python", "--stdin", "-c", "print(input())", stdin="words\n").out == "words\n"


def test_exit_status_of_the_code(cli, python):
    result = cli("run", "python", "-c", "1/0")
    assert result.status == 1 and "ZeroDivisionError" in result.err and result.out == ""
    result = cli("run", "python", "-c", "raise SystemExit(5)")
    assert (result.status, result.err) == (5, "")
    assert cli("run", "python", "-c", "raise SystemExit").status == 0
    result = cli("run", "python", "-c", "raise SystemExit('why')")
    assert (result.status, result.err) == (1, "why\n")
    result = cli("--json", "run", "python", "-c", "raise SystemExit(5)")
    assert result.status == 5 and result.json["structuredContent"]["exception"]["type"] == "SystemExit"


def test_run_mistakes(service, cli, python):
    assert "-c CODE" in cli("run", "python").err
    assert cli("run", "python", "x.py", "-c", "1").status == 2
    assert cli("run", "python", "/nowhere.py").status == 2
    (cli.home / "latin1.py").write_bytes(b"print('\xe9')")
    assert "UTF-8" in cli("run", "python", "latin1.py").err
    service.echo()
    result = cli("run", "echo", "-c", "1")
    assert result.status == 3 and "no tool run" in result.err


def test_run_in_a_shell(cli, sh):
    result = cli("run", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.status, result.out, result.err) == (3, "out\n", "err\n")
    assert cli("run", "sh", "--stdin", "-c", "tr a-z A-Z", stdin="words").out == "WORDS"


def test_run_javascript(cli, node):
    assert (lambda r: (r.status, r.out, r.err))(cli("run", "node", "-c", "console.log(1); 2 + 2")) == (0, "1\n4\n", "")
    result = cli("run", "node", "-c", "throw new Error('why')")
    assert result.status == 1 and "why" in result.err
