"""The bundled executor of JavaScript, driven through its pipes."""

import os
import shutil
import time

import pytest
from driver import META, is_alive, wait_for

pytestmark = pytest.mark.skipif(not (shutil.which("node") or shutil.which("nodejs")), reason="there is no Node.js")
EACH = pytest.mark.parametrize("isolation", ["shared", "reset", "fresh"])


@pytest.fixture
def node(start):
    return start("shared", "node")


@EACH
def test_protocol(start, isolation):
    node = start(isolation, "node", greet=False)
    result = node.result("tools/call", {"_meta": META, "name": "run", "arguments": {"code": "console.log(1); 'two'"}})
    assert result["content"][0]["text"] == "1\n'two'\n"
    assert node.initialize()["serverInfo"]["name"] == "mcp-exec-node"
    (tool,) = node.result("tools/list")["tools"]
    assert set(tool["inputSchema"]["properties"]) == {"code", "stdin", "timeout", "cpu_time", "max_output"}
    assert ("share" in tool["description"]) is (isolation == "shared")
    assert node.error("tools/call", {"name": "run", "arguments": {}})["code"] == -32602
    assert node.end() == (0, "")


@pytest.mark.parametrize("code, stdout, value", [
    ("1 + 1", "", "2"),
    ("console.log('a', {b: [1]}); undefined", "a { b: [ 1 ] }\n", None),
    ("process.stdout.write('x'); null", "x", "null"),
    ("({a: 'ä', f() {}})", "", "{ a: 'ä', f: [Function: f] }"),
    ("Promise.resolve([1, 2])", "", "[ 1, 2 ]"),
    ("await new Promise(r => setTimeout(r, 5)); return 'awaited'", "", "'awaited'"),
    ("require('path').join('a', 'b')", "", "'a/b'"),
    ("require('fs').readFileSync(0, 'utf8')", "", "'stdin'"),
    ("let text = ''; process.stdin.on('data', d => text += d); await new Promise(r => process.stdin.on('end', r)); return text", "", "'stdin'"),
    ("import('node:os').then(os => typeof os.cpus)", "", "'function'"),
    ("import('./local.mjs').then(m => m.value)", "", "5"),
    ("require('./local.cjs')", "", "6"),
    ("typeof fetch + typeof URL + typeof Buffer + typeof structuredClone + typeof global.setTimeout", "", "'functionfunctionfunctionfunctionfunction'"),
    ("[] instanceof Array && new Error() instanceof Error", "", "true"),
    ("require('child_process').execSync('echo child').toString()", "", "'child\\n'"),
    ("require('child_process').spawnSync('echo', ['out'], {stdio: 'inherit'}).status", "out\n", "0"),
    ("", "", None),
    ("require('timers/promises').setTimeout(3, 'slept')", "", "'slept'"),
    ("require('util').promisify(setTimeout)(3).then(() => 'slept')", "", "'slept'"),
])
@EACH
def test_results(start, tmp_path, isolation, code, stdout, value):
    (tmp_path / "local.mjs").write_text("export const value = 5;")
    (tmp_path / "local.cjs").write_text("module.exports = 6;")
    node = start(isolation, "node")
    result = node.run(code, stdin="stdin")
    assert (result["stdout"], result["stderr"], result["value"], result["exception"]) == (stdout, "", value, None)


def test_exceptions(node):
    result = node.run("function f() {\n    throw new TypeError('bad');\n}\nf()")
    assert result["exception"]["type"] == "TypeError" and result["exception"]["message"] == "bad"
    assert "<run-1>:2" in result["exception"]["traceback"] and "runner.js" not in result["exception"]["traceback"]
    assert result["exit_code"] == 1
    assert node.run("(")["exception"]["type"] == "SyntaxError"
    assert node.run("throw 5")["exception"] == {"type": "number", "message": "5", "traceback": "Uncaught 5\n"}
    assert node.run("Promise.reject(new RangeError('later'))")["exception"]["type"] == "RangeError"
    assert node.run("(function f() { f() })()")["exception"]["type"] == "RangeError"
    assert node.run("throw {get name() { throw 1 }, get stack() { throw 2 }}")["exception"]
    assert node.run("throw Object.assign(new Error('x'), {get name() { throw 1 }})")["exception"]
    assert node.run("new Proxy({}, {get() { throw new Error('trap') }})")["exit_code"] in (0, 1)
    assert node.run("1")["value"] == "1"


def test_state(start):
    for isolation, seen in ("shared", "'number number'"), ("reset", "'undefined undefined'"):
        node = start(isolation, "node")
        node.run("var a = 1; globalThis.b = 2; const c = 3; function f() {}")
        assert node.run("typeof a + ' ' + typeof b")["value"] == seen
        assert node.run("const c = 4; c")["value"] == (None if isolation == "shared" else "4")


def test_limits(start):
    for isolation in "shared", "reset":
        node = start(isolation, "node")
        node.run("var kept = 1")
        for code in "while (true);", "new Promise(() => {})", "console.log('a'); for (;;) {}":
            result = node.run(code, timeout=0.2)
            assert result["timed_out"] and result["exception"]["type"] == "TimeoutError"
        assert node.run("typeof kept")["value"] == ("'number'" if isolation == "shared" else "'undefined'")
        begun = time.monotonic()
        result = node.run("console.log('a'); setTimeout(() => { while (true); }); new Promise(() => {})", timeout=0.2)
        assert result["timed_out"] and result["stdout"] == "a\n" and result["signal"] == "SIGKILL"
        assert time.monotonic() - begun < 5
        assert node.run("1")["value"] == "1"
        result = node.run("for (;;) {}", cpu_time=0.2)
        assert result["timed_out"] and "CPU time" in result["exception"]["message"]
    result = node.run("console.log('x'.repeat(100))", max_output=10)
    assert result["truncated"] and result["stdout"].startswith("xxxxx\n[...")
    assert node.run("console.log('x'.repeat(5e6)); 'y'.repeat(1e7)")["truncated"]


def test_cancel(start, tmp_path):
    node = start("shared", "node")
    node.run("var kept = 1")
    call = node.start_run("require('fs').writeFileSync('running', ''); while (true);")
    wait_for((tmp_path / "running").exists)
    node.cancel(call)
    assert node.run("kept")["value"] == "1"


@pytest.mark.parametrize("code, expected", [
    ("process.exit(3)", {"exit_code": 3}),
    ("process.exitCode = 4", {"exit_code": 4, "value": "4"}),
    ("process.reallyExit(5)", {"exit_code": 5}),
    ("process.abort()", {"signal": "SIGABRT"}),
    ("console.log('a'); process.kill(process.pid, 'SIGKILL')", {"signal": "SIGKILL", "stdout": "a\n"}),
    ("process.kill(process.ppid, 'SIGCONT')", {"value": "true"}),
    ("const fs = require('fs'); for (const fd of [0, 1, 2]) fs.closeSync(fd); 1", {}),
    ("const fs = require('fs'); for (let fd = 3; fd < 100; fd++) try { fs.writeSync(fd, 'forged\\n') } catch {}; 1", {}),
    ("const fs = require('fs'); for (let fd = 3; fd < 100; fd++) try { fs.closeSync(fd) } catch {}; 1", {}),
    ("process.stdout.end(); process.stderr.destroy(); 1", {}),
    ("process.stdout.write(Buffer.from([97, 255, 0, 98]))", {"stdout": "a\ufffd\0b"}),
    ("while (true) console.log('x'.repeat(1000))", {"timed_out": True}),
    ("JSON.stringify = Buffer.concat = process.getActiveResourcesInfo = Promise.race = null; 1", {}),
    ("process.removeAllListeners(); 1", {"value": "1"}),
    ("Object.prototype.then = 1; Object.prototype.toString = null; delete Object.prototype.then; 1", {"value": "1"}),
    ("const a = []; for (;;) a.push(new Array(1e6).fill(a.length))", {}),
])
@pytest.mark.parametrize("isolation", ["shared", "reset"])
def test_hostile(start, isolation, code, expected):
    node = start(isolation, "node")
    result = node.run(code, timeout=4 if "1e6" in code else 0.5)
    for key, value in expected.items():
        assert result[key] == value, result
    for _ in range(2):
        result = node.run("console.log('out'); console.error('err'); 2 + 2")
        if isolation == "reset" or "null" not in code:
            assert (result["stdout"], result["value"]) == ("out\n", "4"), result


LEAKS = {
    "a variable": ("globalThis.planted = 1", "typeof planted"),
    "a global of the process": ("process.planted = 1; require('vm').runInThisContext('globalThis.planted = 1')", "[process.planted, require('vm').runInThisContext('typeof planted')]"),
    "a patched module": ("require('fs').readFileSync = 1; require('path').sep = 'x'; require('os').planted = 1", "[typeof require('fs').readFileSync, require('path').sep, require('os').planted]"),
    "a patched prototype": ("Buffer.prototype.planted = 1; require('events').prototype.planted = 1", "[Buffer.from('a').planted, process.planted]"),
    "an environment variable": ("process.env.PLANTED = '1'; delete process.env.PATH", "[process.env.PLANTED, typeof process.env.PATH]"),
    "the working directory": ("process.chdir('/')", "process.cwd()"),
    "the umask": ("process.umask(0o777)", "process.umask()"),
    "a listener": ("process.on('exit', () => 1); process.on('SIGUSR2', () => 1)", "[process.listenerCount('exit'), process.listenerCount('SIGUSR2')]"),
    "a module of the code": ("require('fs').writeFileSync('own.js', 'exports.value = 1'); require('./own').value = 2", "require('./own').value"),
    "a timer": ("setInterval(() => console.log('planted'), 1)", "new Promise(r => setTimeout(r, 20))"),
    "a timer of the module": ("require('timers').setInterval(() => console.log('planted'), 1).unref()", "new Promise(r => setTimeout(r, 20))"),
    "a server": ("require('net').createServer().listen('\\0mcp-exec-node-' + process.ppid); 1", "new Promise(r => require('net').connect('\\0mcp-exec-node-' + process.ppid).on('error', e => r(e.code)).on('connect', () => r('there')))"),
    "a child": ("require('child_process').spawn('sleep', ['1000'], {env: {PLANTED: 'NODE'}})", "FIND"),
    "a detached child": ("require('child_process').spawn('sleep', ['1000'], {env: {PLANTED: 'NODE'}, detached: true, stdio: 'ignore'}).unref()", "FIND"),
    "an open file": ("require('fs').openSync('/etc/passwd')", "require('fs').readdirSync('/proc/self/fd').length"),
    "a worker": ("new (require('worker_threads').Worker)('setInterval(() => 1, 1000)', {eval: true}); 1", "process.getActiveResourcesInfo().filter(n => n == 'MessagePort').length"),
    "the exit status": ("process.exitCode = 3", "String(process.exitCode)"),
    "a stack limit": ("require('vm').runInThisContext('Error').stackTraceLimit = 1", "require('vm').runInThisContext('Error').stackTraceLimit"),
    "a temporary file": ("require('fs').mkdtempSync(require('os').tmpdir() + '/planted')", "require('fs').readdirSync(require('os').tmpdir())"),
}
FIND = ("const fs = require('fs'); fs.readdirSync('/proc').filter(pid => { try { return fs.readFileSync(`/proc/${pid}/environ`, 'latin1')"
        ".split('\\0').includes('PLANTED=NODE') && !/\\) [ZX]/.test(fs.readFileSync(`/proc/${pid}/stat`, 'latin1')) } catch { return false } }).length")


def test_what_reset_puts_back(start, tmp_path):
    node, remaining = start("reset", "node"), []
    for name, (plant, sight) in LEAKS.items():
        if name == "a module of the code":
            (tmp_path / "own.js").write_text("exports.value = 1")
        sight = (FIND if sight == "FIND" else sight).replace("NODE", str(os.getpid()))
        before = node.run(sight)
        node.run(plant.replace("NODE", str(os.getpid())))
        after = node.run(sight)
        if (before["value"], before["stdout"]) != (after["value"], after["stdout"]):
            remaining.append((name, before["value"], after["value"]))
    assert remaining == []


def test_left_behind_is_told(start):
    node = start("reset", "node")
    assert node.run("setTimeout(() => {}, 10000); 1")["left_behind"] == {"handles": 1}
    assert node.run("require('child_process').spawn('sleep', ['1000'], {stdio: 'ignore'}); 1")["left_behind"]["processes"] == 1
    assert node.run("1")["left_behind"] is None


def test_a_detached_child_ends_with_the_executor(start):
    node = start("shared", "node")
    pid = int(node.run("require('child_process').spawn('sleep', ['1000'], {detached: true, stdio: 'ignore'}).pid")["value"])
    assert is_alive(pid)
    node.end()
    wait_for(lambda: not is_alive(pid))


def test_timers_go_on_between_calls(node):
    node.run("var ticks = 0; setInterval(() => { ticks++; console.log('x'.repeat(10000)) }, 1); 1")
    time.sleep(0.1)
    assert int(node.run("ticks")["value"]) > 10
    assert node.run("ticks")["value"] != "0"


def test_unhandled_errors_are_told(node):
    result = node.run("setTimeout(() => { throw new Error('unhandled') }); Promise.reject(new Error('rejected')); 0;\n"
                      "await new Promise(r => setTimeout(r, 20))")
    assert "unhandled" in result["stderr"] and "rejected" in result["stderr"]
    assert node.run("1")["value"] == "1"


def test_reset_keeps_its_memory(start):
    node = start("reset", "node")
    pids = {node.run("var x = Array.from({length: 1000}, (_, i) => [i]); process.pid")["value"] for _ in range(60)}
    assert len(pids) == 1


def test_without_node(start, tmp_path):
    (tmp_path / "python3").symlink_to(shutil.which("python3"))
    node = start("shared", "node", greet=False, PATH=str(tmp_path))
    status, said = node.end(close=False)
    assert status == 1 and said == "mcp-exec-node: PATH has neither node nor nodejs: install Node.js 18 or newer\n"


def test_node_that_does_not_start(start, tmp_path):
    (tmp_path / "node").write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    (tmp_path / "node").chmod(0o755)
    node = start("shared", "node", greet=False, PATH=f"{tmp_path}:/usr/bin:/bin")
    status, said = node.end(close=False)
    assert status == 1 and "does not start" in said and "broken" in said


def test_fork_is_refused(start):
    node = start("fork", "node", greet=False)
    status, said = node.end(close=False)
    assert status == 1 and said == "mcp-exec-node: MCP_EXEC_ISOLATION is none of shared, reset, fresh\n"
