"""The bundled Node executor, driven through its pipes as the broker drives it."""

import json
import os
import pathlib
import re
import shutil
import signal

import pytest
from driver import META, MODERN, RESULT_TYPES, Executor, is_alive, wait_for

SOURCE = pathlib.Path(__file__).resolve().parents[3] / "src" / "executors" / "node"
PROGRAM = SOURCE / "mcp-exec-node"
NODE = os.environ.get("MCP_EXEC_TEST_NODE") or shutil.which("node")  # to try other versions

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node in PATH")


class NodeExecutor(Executor):
    def __init__(self, cwd, isolation=None, **environment):
        if isolation:
            environment["MCP_EXEC_ISOLATION"] = isolation
        super().__init__(cwd, (NODE,), "node", **environment)

    def value(self, code, **arguments):
        result = self.run(code, **arguments)
        assert result["exception"] is None, result
        return result["value"]

    def wait_until_running(self, code, marker, **arguments):
        """Starts code that makes the file marker, and returns once it has."""
        request_id = self.start_run(f"require('fs').writeFileSync({json.dumps(str(marker))}, '');\n{code}", **arguments)
        wait_for(marker.exists)
        return request_id


def make(tmp_path_factory, isolation, initialized=True):
    executor = NodeExecutor(tmp_path_factory.mktemp("cwd"), isolation)
    if initialized:
        executor.initialize()
    return executor


# A start takes long, so that tests that leave no trace share one.


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    executor = make(tmp_path_factory, "shared")
    yield executor
    executor.leave()


@pytest.fixture(scope="module")
def reset(tmp_path_factory):
    executor = make(tmp_path_factory, "reset")
    yield executor
    executor.leave()


@pytest.fixture(scope="module", params=["shared", "reset"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def new(tmp_path):
    executor = NodeExecutor(tmp_path)
    yield executor
    executor.leave()


@pytest.fixture
def executor(new):
    new.initialize()
    return new


# -- The protocol


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "1999-01-01", MODERN, ""])
def test_initialize(shared, version):
    result = shared.initialize(version)
    assert result["protocolVersion"] == (version if version.startswith("202") and version != MODERN else "2025-11-25")
    assert result["capabilities"] == {"tools": {}}
    assert result["serverInfo"]["name"] == "mcp-exec-node"


def test_before_initialize(new):
    assert new.error("initialize", {"protocolVersion": 1})["code"] == -32602
    assert new.error("initialize")["code"] == -32602
    assert new.result("ping") == {}
    result = new.result("server/discover", {"_meta": META})
    assert result["resultType"] == "complete"
    assert result["supportedVersions"] == [MODERN]
    assert result["ttlMs"] >= 0 and result["cacheScope"] == "public"
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "mcp-exec-node"
    result = new.result("tools/list", {"_meta": META})
    assert [tool["name"] for tool in result["tools"]] == ["run"]
    result = new.result("tools/call", {"_meta": META, "name": "run", "arguments": {"code": "console.log(2+2)"}})
    assert result["resultType"] == "complete" and result["structuredContent"]["stdout"] == "4\n"
    assert "ttlMs" not in result
    for method in "server/discover", "tools/list", "tools/call":
        for missing in "protocolVersion", "clientCapabilities":
            meta = {key: value for key, value in META.items() if not key.endswith(missing)}
            assert new.error(method, {"_meta": meta, "name": "run", "arguments": {"code": "1"}})["code"] == -32602
        assert new.error(method, {})["code"] == -32602
        for version in "1900-01-01", "2025-11-25":
            error = new.error(method, {"_meta": {**META, "io.modelcontextprotocol/protocolVersion": version}})
            assert error["code"] == -32022 and error["data"] == {"supported": [MODERN], "requested": version}


def test_legacy_requests(shared):
    assert shared.result("ping") == {}
    (tool,) = shared.result("tools/list")["tools"]
    assert set(tool["inputSchema"]["properties"]) == {"code", "timeout", "stdin", "max_output"}
    assert set(tool["outputSchema"]["required"]) == RESULT_TYPES["node"].keys()
    assert shared.error("ping", {"_meta": META})["code"] == -32601
    assert shared.error("server/discover")["code"] == -32602
    for method in "prompts/list", "", "__proto__", "constructor":
        assert shared.error(method)["code"] == -32601


@pytest.mark.parametrize(
    "params",
    [
        [],
        {},
        {"name": "walk", "arguments": {"code": "1"}},
        {"name": "run"},
        {"name": "run", "arguments": []},
        {"name": "run", "arguments": None},
        {"name": "run", "arguments": {"stdin": ""}},
        {"name": "run", "arguments": {"code": 1}},
        {"name": "run", "arguments": {"code": "1", "stdin": None}},
        {"name": "run", "arguments": {"code": "1", "timeout": "1"}},
        {"name": "run", "arguments": {"code": "1", "timeout": 0}},
        {"name": "run", "arguments": {"code": "1", "timeout": 1e300}},
        {"name": "run", "arguments": {"code": "1", "timeout": True}},
        {"name": "run", "arguments": {"code": "1", "max_output": -1}},
        {"name": "run", "arguments": {"code": "1", "max_output": 1.5}},
        {"name": "run", "arguments": {"code": "1", "tiemout": 1}},
        {"name": "run", "arguments": {"code": "1", "__proto__": 1}},
        {"name": "run", "arguments": {"code": "1"}, "_meta": []},
    ],
)
def test_bad_params(shared, params):
    assert shared.error("tools/call", params)["code"] == -32602


@pytest.mark.parametrize(
    "line", [b"{", b"hello", b'{"jsonrpc":"2.0","id":1,"method":"ping"} x', b'{"a":"p\xff"}', b"[" * 100000, b"\0", b"NaN"]
)
def test_parse_error(shared, line):
    shared.write(line + b"\n")
    answer = shared.receive()
    assert answer["id"] is None and answer["error"]["code"] == -32700


@pytest.mark.parametrize(
    "message, answer_id",
    [
        ([], None),
        (1, None),
        (None, None),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, None),
        ({"jsonrpc": "2.0", "id": 1.5, "method": "ping"}, None),
        ({"jsonrpc": "2.0", "id": 2**60 + 1, "method": "ping"}, None),
        ({"jsonrpc": "2.0", "id": {}, "method": "ping"}, None),
        ({"jsonrpc": "2.0", "id": "a", "method": 1}, "a"),
        ({"id": 7, "method": "ping"}, 7),
        ({"__proto__": {"jsonrpc": "2.0", "method": "ping", "id": 1}}, None),
    ],
)
def test_invalid_request(shared, message, answer_id):
    shared.send(message)
    answer = shared.receive()
    assert answer["id"] == answer_id and answer["error"]["code"] == -32600


def test_what_is_not_answered(shared):
    for message in (
        {"method": "notifications/unheard-of", "params": {"a": 1}},
        {"method": "notifications/cancelled", "params": []},
        {"method": "notifications/cancelled", "params": {"requestId": 4711}},
        {"id": 1, "result": {}},
    ):
        shared.send({"jsonrpc": "2.0", **message})
    shared.write(b"\n \n")
    shared.send({"jsonrpc": "2.0", "id": "ä/1\n", "method": "ping"})
    assert shared.receive()["id"] == "ä/1\n"


def test_framing(shared):
    ping = b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n'
    shared.write(b"".join(ping % number for number in range(500)))
    assert [shared.receive()["id"] for _ in range(500)] == list(range(500))
    for byte in ping % 1:
        shared.write(bytes([byte]))
    assert shared.receive()["id"] == 1


def test_large_request(shared):
    assert shared.value("'" + "ä" * 2_000_000 + "'.length") == "2000000"
    assert shared.value("stdin.length", stdin="y" * 3_000_000) == "3000000"


def test_calls_run_in_order(either):
    ids = [either.start_run(f"console.log({number}); {number}") for number in range(20)]
    answers = [either.receive() for _ in ids]
    assert [answer["id"] for answer in answers] == ids
    assert [either.check_run(answer)["stdout"] for answer in answers] == [f"{number}\n" for number in range(20)]


def test_server_file():
    server = json.loads((SOURCE / "node.json").read_text().replace("@libexecdir@", "/usr/libexec"))
    assert server["command"] == "node" and server["args"] == [f"/usr/libexec/{PROGRAM.name}"]
    assert server["executor"] is True and server["isolation"] == "shared" and server["pool"]["concurrency"] == 1


@pytest.mark.parametrize("isolation", ["fork", "none"])
def test_isolation_that_is_not_offered(tmp_path, isolation):
    executor = NodeExecutor(tmp_path, isolation)
    assert executor.end() == (
        1,
        f"mcp-exec-node: isolation {isolation} is not offered for Node, only shared, reset, fresh\n",
    )
    executor.leave()


# -- Results


@pytest.mark.parametrize(
    "code, stdout, value",
    [
        ("console.log(2+2)", "4\n", None),
        ("2+2", "", "4"),
        ("'a'", "", "'a'"),
        ("var x = 1", "", None),
        ("", "", None),
        ("{a: 1}", "", "{ a: 1 }"),
        ("{ let y = 2; y }", "", "2"),
        ("for (const i of [0, 1]) console.log('%d', i)", "0\n1\n", "undefined"),
        ("console.log({a: [1, 'ä€🐍']})", "{ a: [ 1, 'ä€🐍' ] }\n", None),
        ("new Map([[1, {b: 2}]])", "", "Map(1) { 1 => { b: 2 } }"),
        ("Promise.resolve(7)", "", "7"),
        ("await Promise.resolve(8)", "", "8"),
        ("const a1 = await 1; const b1 = await 2;\na1 +\n b1", "", "3"),
        ("for (const v of [1]) await v", "", None),
        ("typeof setTimeout(() => {}, 1)", "", "'object'"),
        ("await new Promise(r => setTimeout(r, 1, 'later'))", "", "'later'"),
        ("require('path').join('a', 'b')", "", "'a/b'"),
        ("(await import('path')).join('a', 'b')", "", "'a/b'"),
        ("process.stdout.write('raw'); Buffer.from('ab')", "raw", "<Buffer 61 62>"),
        ("require('fs').writeSync(1, 'w'); require('child_process').execSync('echo x', {stdio: 'inherit'})", "wx\n", "null"),
        ("stdin", "", "''"),
    ],
)
def test_results(either, code, stdout, value):
    result = either.run(code)
    assert (result["stdout"], result["exception"], result["exit_code"]) == (stdout, None, 0)
    assert result["value"] == value or value == "undefined" and result["value"] is None
    assert not result["truncated"] and not result["timed_out"] and not result["context_lost"]


def test_text_for_people(shared):
    def text_of(code):
        return shared.result("tools/call", {"name": "run", "arguments": {"code": code}})["content"][0]["text"]

    assert text_of("console.log(2+2)") == "4\n"
    assert text_of("undefined") == "(no output)\n"
    text = text_of("process.stdout.write('out'); console.error('err')\nnull.x")
    assert text.startswith("out\n[stderr]\nerr\nTypeError: Cannot read properties of null")


def test_state_lasts(executor):
    executor.run("let kept = 1; const f = () => kept + 1; class C {}; var v = 5; function g() { return v }")
    assert executor.value("kept += 1; [f(), g(), C.name]") == "[ 3, 5, 'C' ]"
    executor.run("const {p, q: [r]} = await Promise.resolve({p: 1, q: [2]}); let s = 3; async function t() { return 4 }")
    assert executor.value("[p, r, s, await t()]") == "[ 1, 2, 3, 4 ]"


def test_stdin(either):
    assert either.value("stdin.split('\\n')", stdin="a\nä\0") == r"[ 'a', 'ä\x00' ]"
    assert either.value("stdin") == "''"


def test_preload(tmp_path):
    (tmp_path / "node_modules" / "mine").mkdir(parents=True)
    (tmp_path / "node_modules" / "mine" / "index.js").write_text("exports.value = 7")
    executor = NodeExecutor(tmp_path, MCP_EXEC_PRELOAD="mine,fs")
    executor.initialize()
    assert executor.value("[Object.keys(require.cache).length, require('mine').value]") == "[ 1, 7 ]"
    assert executor.value("(await import('mine')).default.value") == "7"
    executor.leave()
    executor = NodeExecutor(tmp_path, MCP_EXEC_PRELOAD="missing")
    status, said = executor.end(close=False)
    assert status == 1 and said.startswith("mcp-exec-node: cannot preload missing: Cannot find module 'missing'")
    executor.leave()


@pytest.mark.parametrize(
    "code, name, message",
    [
        ("throw new RangeError('r')", "RangeError", "r"),
        ("throw 'text'", "string", "'text'"),
        ("throw null", "object", "null"),
        ("x = = 1", "SyntaxError", "Unexpected token '='"),
        ("await x = = 1", "SyntaxError", None),
        ("await Promise.reject(new TypeError('t'))", "TypeError", "t"),
        ("Promise.reject(1); 2", "number", "1"),
        ("(async () => { throw new Error('late') })(); 1", "Error", "late"),
        ("setTimeout(() => { throw new Error('timer') }, 1); await new Promise(() => {})", "Error", "timer"),
        ("function f() { f() } f()", "RangeError", "Maximum call stack size exceeded"),
        ("({get [Symbol.toStringTag]() { throw new Error('tag') }})", "Error", "tag"),
        ("throw Object.create(null, {stack: {get() { throw 1 }}})", "Error", "<it cannot be described>"),
        ("throw new Proxy({}, {get() { throw 1 }, has() { throw 2 }})", "Error", "<it cannot be described>"),
        ("new Array(-1)", "RangeError", "Invalid array length"),
        ("let d = []; for (let i = 0; i < 1e5; i++) d = [d]; JSON.stringify(d)", "RangeError", None),
    ],
)
def test_exceptions(either, code, name, message):
    result = either.run(code)
    exception = result["exception"]
    assert exception and exception["type"] == name and result["exit_code"] == 1
    assert message is None or exception["message"] == message
    assert "mcp-exec" not in exception["traceback"] and "node:" not in exception["traceback"]
    result = either.run("2+2")
    assert (result["value"], result["exception"], result["context_lost"]) == ("4", None, False)


def test_stack_shows_the_code_alone(shared):
    stack = shared.run("1;\nfunction inner() { null.x }\ninner()")["exception"]["traceback"].splitlines()
    assert re.match(r"    at inner \(<run-\d+>:2:\d+\)", stack[1]) and re.match(r"    at <run-\d+>:3:1", stack[2])
    assert len(stack) == 3


def test_output_is_kept_from_both_ends(either):
    result = either.run("console.log('start'); for (let i = 0; i < 100000; i++) console.log(i); console.log('end')")
    assert result["truncated"] and result["stdout"].startswith("start\n0\n") and result["stdout"].endswith("99999\nend\n")
    (left_out,) = re.findall(r"\n\[\.\.\. (\d+) bytes left out \.\.\.\]\n", result["stdout"])
    marker = len(f"\n[... {left_out} bytes left out ...]\n")
    assert len(result["stdout"]) - marker + int(left_out) == 10 + sum(len(str(i)) + 1 for i in range(100000))
    assert len(result["stdout"]) < 300_000


def test_max_output(either):
    result = either.run("console.log('x'.repeat(9)); console.error('abcdefgh')", max_output=8)
    assert result["stdout"] == "xxxx\n[... 2 bytes left out ...]\nxxx\n" and result["truncated"]
    assert result["stderr"] == "abcd\n[... 1 bytes left out ...]\nfgh\n"
    result = either.run("console.log('x'.repeat(7))", max_output=8)
    assert result["stdout"] == "xxxxxxx\n" and not result["truncated"]
    assert either.run("console.log('x'); 1", max_output=0)["stdout"] == "\n[... 2 bytes left out ...]\n"
    assert len(either.run("console.log('x'.repeat(3e6))", max_output=4_000_000)["stdout"]) == 3_000_001


@pytest.mark.parametrize(
    "code",
    [
        "console.log('o'.repeat(1e7)); console.error('e'.repeat(1e7)); 'v'.repeat(1e7)",
        "console.log('\\0'.repeat(1e6)); throw new Error('\\x01'.repeat(1e6))",
        "'🐍'.repeat(1e6)",
    ],
)
def test_answers_fit_an_inline_reply(either, code):
    either.start_run(code)
    line = either.read_line()
    assert len(line) <= 1_000_000
    assert either.check_run(json.loads(line))["truncated"]


def test_odd_bytes(either):
    assert either.run(r"process.stdout.write(Buffer.from([97, 255, 0, 98]))")["stdout"] == "a\ufffd\0b"
    assert either.run(r"console.log('\ud800\u2028')")["stdout"] == "\ufffd\u2028\n"


# -- Timeouts and cancellation


STUCK = [
    "while (true);",
    "await new Promise(() => {})",
    "(async () => { while (true) await null })()",
    "require('child_process').execSync('sleep 1000')",
    "process.on('SIGTERM', () => {}); setInterval(() => {}, 1); await new Promise(() => {})",
    "/(a+)+$/.test('a'.repeat(60) + 'b')",
    "({get [Symbol.toStringTag]() { while (true); }})",
    "require('child_process').spawn('yes', {stdio: 'inherit'}); while (true);",
    "while (true) console.log('x'.repeat(1000))",
]


@pytest.mark.parametrize("code", STUCK)
def test_timeout(either, code):
    either.run("var x = 7")
    result = either.run(f"console.log('begun');\n{code}", timeout=0.5)
    assert result["timed_out"] and result["stdout"].startswith("begun\n")
    assert result["exception"]["type"] == "TimeoutError" and "0.5 s" in result["exception"]["message"]
    assert (result["exit_code"], result["signal"]) == (None, "SIGKILL")
    is_shared = either.value("1") and result["context_lost"]
    result = either.run("typeof x")
    assert (result["value"], result["context_lost"], result["stdout"]) == ("'undefined'", False, "")
    assert is_shared in (True, False)


def test_timeouts_not_reached(either):
    for timeout in 5, 86400, 3600.5:
        assert either.value("2+2", timeout=timeout) == "4"


@pytest.mark.parametrize("code", STUCK[:4])
def test_cancel(executor, code, tmp_path):
    executor.cancel(executor.wait_until_running(code, tmp_path / "running"))
    result = executor.run("2+2")  # the cancelled call was not answered
    assert result["value"] == "4" and result["context_lost"]
    assert not executor.run("3")["context_lost"]


def test_while_code_runs(executor, tmp_path):
    running = executor.wait_until_running("while (true);", tmp_path / "running")
    assert executor.result("ping") == {}
    assert executor.error("nothing")["code"] == -32601
    same_id = {"jsonrpc": "2.0", "id": running, "method": "tools/call"}
    executor.send({**same_id, "params": {"name": "run", "arguments": {"code": ""}}})
    assert executor.receive()["error"]["code"] == -32600
    waiting = executor.start_run("globalThis.touched = true")
    executor.cancel(waiting)
    executor.cancel(running)
    assert executor.value("typeof touched") == "'undefined'"
    executor.cancel(executor.last_id)  # answered long ago
    assert executor.value("4") == "4"


# -- Hostile code


HOSTILE = {
    "exit": ("process.exit(3)", {"exit_code": 3}),
    "reallyExit": ("process.reallyExit(4)", {"exit_code": 4}),
    "abort": ("process.abort()", {"signal": "SIGABRT"}),
    "kill itself": ("process.kill(process.pid, 'SIGKILL'); while (true);", {"signal": "SIGKILL"}),
    "kill its group": ("process.kill(0, 'SIGKILL'); while (true);", {"signal": "SIGKILL"}),
    "exit status": ("process.exitCode = 5; 1", {"exit_code": 5, "value": "1"}),
    "close the standard descriptors": ("for (const fd of [0, 1, 2]) require('fs').closeSync(fd); 1", {"value": "1"}),
    "throw in a timer left behind": ("setTimeout(() => { throw new Error('late') }, 5); 1", {"value": "1"}),
    "reject later": ("setTimeout(() => Promise.reject(1), 5); 1", {"value": "1"}),
    "leave a timer": ("setInterval(() => console.log('noise'), 1); 1", {"value": "1"}),
    "leave a socket": ("require('net').createServer().listen(0); 1", {"value": "1"}),
    "leave a child": ("require('child_process').spawn('yes', {stdio: 'inherit'}); 1", {"value": "1"}),
    "leave a thread": (
        "new (require('worker_threads').Worker)(\"setInterval(() => require('fs').writeSync(1, 'noise'), 1)\", {eval: true}); 1",
        {"value": "1"},
    ),
    "deep recursion": ("let d = 0; function f() { d++; f() } try { f() } catch {} d > 100", {"value": "true"}),
    "pollute its prototypes": ("Object.prototype.toJSON = () => 'forged'; Array.prototype.push = null; 1", {"value": "1"}),
    "a thenable prototype": ("Object.prototype.then = function (r) { r(666) }; 1", {"value": "1"}),
    "replace its globals": ("for (const k of Reflect.ownKeys(globalThis)) try { delete globalThis[k] } catch {}", {}),
    "patch its promises": ("Promise.prototype.then = () => { while (true); }; 1", {"value": "1"}),
}
FD3 = [
    "for (let fd = 3; fd < 64; fd++) try { fs.writeSync(fd, '%s\\n') } catch {}" % text
    for text in ("x", "ready", "touched", '{"jsonrpc":"2.0","id":1,"result":{}}', "00000000000000000000000000000000{}")
]


@pytest.mark.parametrize("code, expected", HOSTILE.values(), ids=HOSTILE)
def test_hostile_code_in_reset(reset, code, expected):
    result = reset.run(code, timeout=20)
    assert {key: result[key] for key in expected} == expected
    for _ in range(3):
        result = reset.run("console.log(Object.keys(Object.prototype)); await new Promise(r => setTimeout(r, 5)); 2+2")
        assert (result["stdout"], result["stderr"], result["value"]) == ("[]\n", "", "4")
        assert result["exception"] is None and not result["context_lost"]


@pytest.mark.parametrize("code, expected", HOSTILE.values(), ids=HOSTILE)
def test_hostile_code_in_shared(executor, code, expected):
    executor.run("var before = 1")
    result = executor.run(code, timeout=20)
    assert {key: result[key] for key in expected} == expected
    ended = result["signal"] is not None or result["exit_code"] in (3, 4)
    assert result["context_lost"] is ended
    assert executor.value("2+2") == "4"
    assert executor.result("ping") == {}


@pytest.mark.parametrize("isolation", ["shared", "reset"])
def test_writing_to_every_descriptor(request, isolation):
    """The code can end its own process by it, nothing else."""
    executor = request.getfixturevalue(isolation)
    for code in FD3:
        executor.run(f"const fs = require('fs'); {code}; 'mine'", timeout=20)
        assert executor.value("2+2") == "4"
    assert executor.result("ping") == {}


def test_closing_every_descriptor(either):
    either.run("const fs = require('fs'); for (let fd = 0; fd < 64; fd++) try { fs.closeSync(fd) } catch {}", timeout=3)
    assert either.value("2+2") == "4"


def test_memory_bomb(tmp_path):
    executor = NodeExecutor(tmp_path, "reset", NODE_OPTIONS="--max-old-space-size=48")
    executor.initialize()
    result = executor.run("console.log('begun'); const a = []; while (true) a.push(new Array(1e5).fill(1.5))", timeout=25)
    assert result["stdout"] == "begun\n" and result["signal"] == "SIGABRT"
    assert executor.value("2+2") == "4"
    executor.leave()


ESCAPES = {
    "polluted by require": "require('fs').constructor.prototype.polluted = 1",
    "by an error from outside": """
        let other;
        Error.prepareStackTrace = (e, s) => s;
        const f = n => { try { new Error().stack; f() } catch (e) { if (!(e instanceof Error)) other = e } };
        f();
        const root = other && Object.getPrototypeOf(Object.getPrototypeOf(Object.getPrototypeOf(other)));
        if (root) root.polluted = 1""",
    "constructor.constructor": "process.constructor.constructor('Object.prototype.polluted = 1')()",
    "by import": "const p = import('fs'); p.constructor.prototype.polluted = p.constructor.polluted = 1",
    "environment": "process.env.POLLUTED = '1'; process.chdir('/'); process.umask(0o777)",
    "listeners": "process.on('exit', () => {}); process.on('unhandledRejection', () => {}); process.on('SIGUSR2', () => {})",
    "modules": "require('fs').readFileSync = () => 'forged'; require('util').inspect = () => 'forged'",
    "inspect": "[{[Symbol.for('nodejs.util.inspect.custom')](d, o, i) { i.constructor.prototype.polluted = i.polluted = 1 }}]",
    "console": "console.dir({[Symbol.for('nodejs.util.inspect.custom')](d, o, i) { i.polluted = 1 }}, {customInspect: true})",
    "console groups": "console.group(); console.count(); console.time('t')",
    "finalizer": "new FinalizationRegistry(() => { while (true); }).register({}, 1); 1",
    "Buffer": "Buffer.prototype.polluted = 1; Buffer.from = null",
    "internals": "process.binding('fs').polluted = 1; process._getActiveHandles().forEach(h => { h.polluted = 1 })",
    "stack limit": "process.emitWarning; process.on.constructor.constructor('Error.stackTraceLimit = 0')()",
}
LOOK = """
const of = (o) => { const r = []; for (let p = o; p; p = Object.getPrototypeOf(p)) r.push('polluted' in p); return r.includes(true) };
JSON.stringify([
    of({}), of(Function), of(process), of(require), of(Buffer), of(import('path')), of(import('path').constructor),
    of(require('util').inspect), process.env.POLLUTED, process.cwd() === '/', process.umask(),
    process.listenerCount('exit'), process.listenerCount('unhandledRejection'), process.listenerCount('SIGUSR2'),
    require('util').inspect({a: 1}), require('fs').readFileSync('/proc/self/comm', 'utf8'), typeof Buffer.from,
    process._getActiveHandles().some(of), of(process.binding('fs')), process.constructor.constructor('return Error.stackTraceLimit')(),
]) """


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    executor = make(tmp_path_factory, "fresh")
    yield executor
    executor.leave()


def check_that_nothing_is_left(executor, code):
    clean = executor.value(LOOK)
    for _ in range(2):
        executor.run(code, timeout=20)
        assert executor.run("console.log(1)")["stdout"] == "1\n"
    executor.run(code, timeout=20)
    assert executor.value(LOOK) == clean


@pytest.mark.parametrize("code", ESCAPES.values(), ids=ESCAPES)
def test_nothing_of_a_call_reaches_the_next(reset, code):
    check_that_nothing_is_left(reset, code)


@pytest.mark.parametrize("name", ["constructor.constructor", "environment"])
def test_nothing_reaches_the_next_call_of_a_fresh_process(fresh, name):
    """The broker gives each call a process; should it not, the executor does."""
    check_that_nothing_is_left(fresh, ESCAPES[name])


def test_pure_code_keeps_its_process_and_other_code_does_not(reset):
    pid = "process.pid"
    assert reset.value(pid) != reset.value(pid)
    reset.run("1")
    for _ in range(3):
        reset.run("console.log([1].map(x => x)); setTimeout(() => {}, 1000); let a = await 1; class A {}; a")
    assert reset.value("typeof a + typeof A") == "'undefinedundefined'"


WALK = """
let foreign = [];
const seen = new Set();
const look = (value, where) => {
    if (value === null || typeof value !== 'object' && typeof value !== 'function' || seen.has(value)) return;
    seen.add(value);
    let top = value;
    for (let next; next = Object.getPrototypeOf(top); top = next);
    if (top !== Object.prototype && value !== top) foreign.push(where);
    look(Object.getPrototypeOf(value), where + '.__proto__');
    for (const key of Reflect.ownKeys(value)) {
        const {value: inner, get, set} = Reflect.getOwnPropertyDescriptor(value, key);
        for (const part of [inner, get, set]) look(part, where + '.' + String(key));
    }
};
look(globalThis, 'globalThis');
const {log, dir} = console;
const sites = (where) => {
    Error.prepareStackTrace = (error, all) => {
        look(all, where);
        for (const site of all) { look(site, where + '.site'); look(site.getFunction(), where + '.f'); look(site.getThis(), where + '.this') }
        return 'x';
    };
    new Error().stack;
};
sites('main');
look(setTimeout(() => {}, 1), 'timer');
for (const call of [() => setTimeout(1), () => console.log(1n, Symbol(), {get [Symbol.toStringTag]() { sites('tag'); throw new Error('x') }}),
    () => console.log({__proto__: {constructor: {get name() { sites('name') }}}}), () => console.table(5), () => console.log('%d', {valueOf() { sites('valueOf') }}),
    () => console.time(Symbol()), () => console.group({toString() { sites('group'); throw 1 }}), () => queueMicrotask(1),
    () => console.dir({}, {get depth() { sites('dir') }}), () => console.log('%s', new Proxy({}, {get() { sites('proxy') }})), () => eval('('), () => new Function('('),
    () => setTimeout(() => {}, {valueOf() { throw new Error('v') }}), () => console.assert(false, Symbol()), () => console.log(new Array(1e9))]) {
    try { look(call(), 'result of ' + call) } catch (error) { look(error, 'error of ' + call) }
}
let caught;
const deep = (act) => { try { act(); deep(act) } catch (error) { caught = error } };
for (const act of [() => {}, () => console.log(), () => clearTimeout(setTimeout(() => {}, 1)), () => queueMicrotask(() => {})]) {
    deep(act);
    look(caught, 'deep ' + act);
}
await new Promise(resolve => setTimeout(function () { look(this, 'this'); sites('timer'); resolve() }, 1));
await new Promise(resolve => queueMicrotask(function () { sites('microtask'); resolve() }));
delete Error.prepareStackTrace;
'foreign ' + foreign.join()
"""


def test_pure_code_meets_no_object_from_outside(reset):
    result = reset.run(WALK)
    assert result["value"] == "'foreign '", result["value"]


# Here one is met: V8 formats a stack by a function from outside, which itself runs out of stack.
ERROR_FROM_OUTSIDE = """
let other;
const f = () => { try { new Error().stack; f() } catch (error) {
    try { if (!(error instanceof Error)) other = error; error.stack } catch (another) { if (!(another instanceof Error)) other = another }
} };
for (let i = 0; i < 20 && !other; i++) f();
"""


def runners(executor):
    children = pathlib.Path(f"/proc/{executor.process.pid}/task/{executor.process.pid}/children").read_text().split()
    return {pid for pid in children if is_alive(int(pid))}


@pytest.mark.parametrize(
    "code",
    [
        "other.constructor.constructor('return process')().env.POLLUTED = 1",
        "Object.getPrototypeOf(Object.getPrototypeOf(Object.getPrototypeOf(other))).polluted = 1",
        "Object.getPrototypeOf(other).constructor = 1",
        "Object.getPrototypeOf(other).name = 1",
        "Object.setPrototypeOf(Object.getPrototypeOf(other), null); 1",
    ],
)
def test_what_is_done_to_an_object_from_outside_goes_with_the_runner(reset, code):
    clean = reset.value(LOOK)
    reset.run("1")
    before = runners(reset)
    assert reset.value(f"{ERROR_FROM_OUTSIDE}; {code}") == "1"
    assert reset.value("2+2") == "4"
    wait_for(lambda: before - runners(reset))
    assert reset.value(LOOK) == clean


def test_pure_code_leaves_the_runner(reset):
    reset.run("1")
    before = runners(reset)
    for _ in range(3):
        reset.run("console.log([1]); setTimeout(() => {}, 1000); let a = await 1; class A {}; a")
    assert runners(reset) == before
    reset.run("process")
    reset.run("1")
    assert runners(reset) != before


def test_pollution_of_a_context_ends_with_it(reset):
    reset.run("Object.prototype.p = 1; globalThis.g = 1; Math.random = () => 4; delete globalThis.JSON; let l = 1")
    assert reset.value("[({}).p, typeof g, Math.random() === 4, typeof JSON, typeof l]") == (
        "[ undefined, 'undefined', false, 'object', 'undefined' ]"
    )


@pytest.mark.parametrize("isolation", ["reset", "shared"])
def test_children_that_left_the_group_are_killed(request, isolation):
    executor = request.getfixturevalue(isolation)
    code = """
        const child = require('child_process').spawn('sleep', ['1000'], {detached: true, stdio: 'ignore'});
        console.log(child.pid);"""
    result = executor.run(f"{code} while (true);", timeout=1)
    assert result["timed_out"]
    pid = int(result["stdout"])
    wait_for(lambda: not is_alive(pid))


def test_forged_messages_of_an_idle_runner(executor):
    runner = int(executor.value("setTimeout(() => { require('fs').writeSync(3, 'forged\\n') }, 50); process.pid"))
    wait_for(lambda: not is_alive(runner))
    result = executor.run("2+2")
    assert result["value"] == "4" and result["context_lost"]


# -- The end


def test_end_of_input(executor, tmp_path):
    executor.run("process.on('exit', () => require('fs').writeFileSync('handler', 'b'))")
    assert executor.end() == (0, "")
    assert (tmp_path / "handler").read_text() == "b"


def test_end_of_input_at_once(new):
    assert new.end() == (0, "")


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGINT])
def test_end_while_code_runs(executor, tmp_path, number):
    executor.wait_until_running(
        "require('fs').writeFileSync('pid', String(process.pid)); while (true);", tmp_path / "running"
    )
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    if number:
        executor.process.send_signal(number)
    assert executor.end(close=not number) == (-number if number else 0, "")
    wait_for(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_broken_pipe(executor):
    executor.process.stdout.close()
    executor.start("ping")
    assert executor.end(close=False) == (0, "")
