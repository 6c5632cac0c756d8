"""Runs docs/clients.md: its programs, its shell commands, and what its clients' files start.

Each program is called as `call SERVER TOOL ARGUMENTS...`, and has to do what the document says of all of them.
"""

import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from caller import ALICE
from document import expected, sections
from mock_polkit import CALL
from real_servers import npm_folder
from service import BUILD, PYTHON, REPO
from waiting import SLOWNESS

DOCUMENT = REPO / "docs/clients.md"
SECTIONS = sections(DOCUMENT.read_text())
FILES = {name: text for section in SECTIONS for _, name, text in section.of("file")}
PROGRAMS = ["call.c", "call-jeepney.py", "call-dasbus.py", "call-dbus.py", "call.js", "call.cjs", "call.go", "main.rs"]
CONFIGURATIONS = ["claude_desktop_config.json", "mcp.json", "settings.json", "config.toml", "time.yaml", "config.yaml", "opencode.json",
                  "several.json"]
NAME = "org.example.McpExec.Error."


def needs(*commands):
    for command in commands:
        if not shutil.which(command):
            pytest.skip(f"{command} is not installed")


def run(command, **options):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=options.pop("timeout", 100) * SLOWNESS,
                          **options)


def compile_(command, **options):
    done = run(command, timeout=600, **options)
    assert done.returncode == 0, done.stderr


def build(name, folder):
    """How the program is run, built in that folder."""
    source = folder / name
    source.write_text(FILES[name])
    if name == "call.c":
        needs("cc", "pkg-config")
        flags = run(["pkg-config", "--cflags", "--libs", "libsystemd"]).stdout.split()
        compile_(["cc", "-Wall", "-Wextra", "-Werror", "-o", folder / "call", source, *flags])
        return [folder / "call"]
    if name.endswith(".py"):
        module = {"call-jeepney.py": "jeepney", "call-dasbus.py": "dasbus", "call-dbus.py": "dbus"}[name]
        if run([PYTHON, "-c", f"import {module}"]).returncode:
            pytest.skip(f"python3-{module} is not installed")
        return [PYTHON, source]
    if name == "call.js":
        needs("gjs")
        return ["gjs", "-m", source]
    if name == "call.cjs":
        needs("node")
        if not npm_folder() or not (npm_folder() / "node_modules/dbus-next").is_dir():
            pytest.skip("dbus-next of tests/npm is not installed (npm ci)")
        (folder / "node_modules").symlink_to(npm_folder() / "node_modules")
        return ["node", source]

    if name == "call.go":
        needs("go")
        if not (GODBUS / "go.mod").exists():
            pytest.skip("golang-dbus-dev is not installed")
        # Debian's copy, so that nothing is downloaded.
        environment = {**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOCACHE": str(folder / "cache"), "GOPATH": str(folder / "go")}
        for command in (["go", "mod", "init", "call"], ["go", "mod", "edit", "-require=github.com/godbus/dbus/v5@v5.1.0",
                                                        f"-replace=github.com/godbus/dbus/v5={GODBUS}"], ["go", "build", "-o", "call"]):
            compile_(command, cwd=folder, env=environment)
        return [folder / "call"]
    if not os.environ.get("MCP_EXEC_TEST_TOOLCHAINS"):
        pytest.skip("MCP_EXEC_TEST_TOOLCHAINS is not set")
    needs("cargo")
    (folder / "src").mkdir()
    source.rename(folder / "src/main.rs")
    (folder / "Cargo.toml").write_text('[package]\nname = "call"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n'
                                       'zbus = { version = "5", features = ["blocking-api"] }\nserde_json = "1"\n')
    compile_(["cargo", "build"], cwd=folder, env={**os.environ, "CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR", str(folder / "target"))})
    return [Path(os.environ.get("CARGO_TARGET_DIR", folder / "target")) / "debug/call"]


GODBUS = Path("/usr/share/gocode/src/github.com/godbus/dbus")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """How a program is run, by its name; built once."""
    found = {}

    def find(name):
        if name not in found:
            found[name] = build(name, tmp_path_factory.mktemp("program"))
        return found[name]

    return find


@pytest.fixture(params=PROGRAMS)
def program(request, built):
    return built(request.param)


def environment_of(service):
    """On the system's service: the program's session bus is that."""
    settings = {key: value for key, value in service.environment().items() if key != "MCP_EXEC_TEST"}
    return {"PATH": os.environ["PATH"], "HOME": str(service.folder), "LC_ALL": "C.UTF-8", "DBUS_SESSION_BUS_ADDRESS": service.bus.address, **settings}


@pytest.fixture
def call(service, program):
    service.obedient(scope="client", timeouts={"call": 60})
    service.start_bus()
    return lambda *arguments, **options: run([*program, *arguments], env=environment_of(service), **options)


def test_a_program_prints_the_text_of_results(call):
    done = call("obedient", "echo", json.dumps({"message": "grüße"}), json.dumps({"message": "again"}))
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert "grüße" in first and "again" in second


def test_all_calls_are_made_on_one_connection(call):
    """The server's scope is client."""
    done = call("obedient", "pid", "{}", "{}", "{}")
    assert done.returncode == 0 and len(set(done.stdout.splitlines())) == 1, done


def test_a_tool_that_fails_is_told_from_a_call_that_fails(call, program):
    done = call("obedient", "fail", '{"message": "no luck"}')
    assert "no luck" in done.stdout and done.stderr == ""
    assert done.returncode == (0 if Path(program[0]).name == "call" and '"isError"' in done.stdout else 1)


@pytest.mark.parametrize("arguments, error", [
    (["obediant", "echo", "{}"], "NoSuchServer: No server is named obediant: did you mean obedient?"),
    (["obedient", "echo", "{"], "InvalidJson: "),
    (["obedient", "refuse", '{"message": "not me"}'], "Remote: "),
], ids=["NoSuchServer", "InvalidJson", "Remote"])
def test_errors_have_their_name_and_text(call, arguments, error):
    done = call(*arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith(NAME + error), done


def test_the_service_isnt_there(program, tmp_path):
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"}
    done = run([*program, "obedient", "echo", "{}"], env=environment)
    assert done.returncode != 0 and done.stderr != ""


@pytest.mark.slow
def test_no_library_gives_up_before_the_service_does(service, built):
    """25 s are what most wait by themselves. All wait at once."""
    service.obedient(timeouts={"call": 60})
    service.start_bus()
    running = {}
    for name in PROGRAMS:
        try:
            command = built(name)
        except pytest.skip.Exception:
            continue
        running[name] = subprocess.Popen([*command, "obedient", "sleep", '{"seconds": 26, "message": "woken"}'], env=environment_of(service),
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running
    for name, process in running.items():
        out, err = process.communicate(timeout=60 * SLOWNESS)
        assert (process.returncode, err) == (0, "") and "woken" in out, (name, out, err)


def test_a_person_may_be_asked(system_service, make_polkit, program):
    """polkit wants a confirmation, asks for it as the call's flag allows, and gets it or not."""
    system_service.echo()
    polkit = make_polkit(lambda question: "yes" if question.interactive else "challenge")
    arguments = [*program, "echo", "echo", '{"message": "hello"}']
    open_to_others(program)

    def call():
        return run(arguments, env=environment_of(system_service), user=ALICE, group=ALICE, extra_groups=[], cwd="/")

    done = call()
    assert done.returncode == 0 and "hello" in done.stdout, done
    assert [question.interactive for question in polkit.asked(CALL)] in ([True], [False, True])

    polkit.rule = "no"
    done = call()
    assert done.returncode == 2 and done.stderr.startswith("org.freedesktop.DBus.Error.AccessDenied: "), done


def open_to_others(program):
    """pytest's folders are its user's own; the program's have to be reached by all."""
    for part in program:
        path = Path(part)
        if path.is_absolute() and "pytest-of" in str(path):
            for folder in path.parents:
                if folder.stat().st_uid == os.getuid() and folder not in (Path("/"), Path("/tmp")):
                    folder.chmod(folder.stat().st_mode | 0o011)
            path.chmod(path.stat().st_mode | 0o044)


# The shell, and import

def commands():
    return [pytest.param(section, id=section.title) for section in SECTIONS if section.of("command")]


@pytest.mark.parametrize("section", commands())
def test_shell(service, section, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    for name, text in FILES.items():
        if name == "config.json":
            (home / name).write_text(text)
    sums = next(text for part in sections((REPO / "docs/servers.md").read_text()) for _, name, text in part.of("file") if name.endswith("/sums"))
    (home / "sums").write_text(sums)
    service.server("sums", PYTHON, home / "sums")
    service.start_bus()

    for _, command, output in section.of("command"):
        environment = {**environment_of(service), "HOME": str(home), "PATH": f"{BUILD / 'src'}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              cwd=home, timeout=60 * SLOWNESS, env=environment)
        printed = done.stdout.rstrip("\n")
        assert expected(output).fullmatch(printed), f"$ {command}\n{printed}\n--- is not ---\n" + "\n".join(output)


# The clients' files

def entries(name):
    """The commands that a client starts by that file."""
    text = FILES[name]
    if name.endswith(".toml"):
        tomllib = pytest.importorskip("tomllib")
        tree = tomllib.loads(text)
    elif name.endswith(".yaml"):
        tree = pytest.importorskip("yaml").safe_load(text)
    else:
        tree = json.loads(text)
    key = next(key for key in ("mcpServers", "servers", "context_servers", "mcp_servers", "extensions", "mcp") if key in tree)
    servers = tree[key] if isinstance(tree[key], list) else tree[key].values()
    for server in servers:
        command = server.get("command") or server["cmd"]
        yield command if isinstance(command, list) else [command, *server["args"]]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_clients_file_starts_the_bridge(service, name):
    service.obedient("time")
    service.obedient("everything")
    service.start_bus()
    found = list(entries(name))
    assert found and all(command[:2] == ["mcp-exec", "stdio"] for command in found)
    if "stdio" not in run([BUILD / "src/mcp-exec", "--help"]).stdout:
        pytest.skip("mcp-exec has no stdio")
    for command in found:
        tools = tools_over(command, environment_of(service))
        assert ("echo" if len(command) == 3 else "time__echo") in tools


def tools_over(command, environment):
    """The names of the tools that a client of the legacy era is told."""
    bridge = subprocess.Popen([BUILD / "src" / command[0], *command[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    watch = threading.Timer(60 * SLOWNESS, bridge.kill)
    watch.start()
    try:
        def ask(number, method, params):
            bridge.stdin.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n")
            bridge.stdin.flush()
            while True:
                message = json.loads(bridge.stdout.readline())
                if message.get("id") == number:
                    return message["result"]

        ask(1, "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}})
        bridge.stdin.write('{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        return [tool["name"] for tool in ask(2, "tools/list", {})["tools"]]
    finally:
        bridge.stdin.close()
        bridge.wait(30 * SLOWNESS)
        watch.cancel()
        bridge.stdout.close()


def test_nothing_is_left_out():
    """Each block is a program, a client's file, or a command, and is run."""
    assert set(FILES) == {*PROGRAMS, *CONFIGURATIONS, "config.json"}
    text = DOCUMENT.read_text()
    assert "```" not in text and "\t" not in text


def test_each_error_is_explained():
    real = re.findall(r'X\(\w+, "(\w+)"\)', (REPO / "src/worker/failure.h").read_text())
    table = DOCUMENT.read_text().partition("| error | what to do |")[2].partition("\n\n")[0]
    assert [name for name in real if not re.search(rf"\b{name}\b", table)] == []


def test_the_private_socket_will_do(make_service, program):
    """A program's session bus is that."""
    service = make_service(private=True)
    service.obedient()
    service.run_directly()
    environment = {**environment_of(service), "DBUS_SESSION_BUS_ADDRESS": service.private_address}
    done = run([*program, "obedient", "echo", '{"message": "one"}', '{"message": "two"}'], env=environment)
    assert done.returncode == 0 and "one" in done.stdout and "two" in done.stdout, done
