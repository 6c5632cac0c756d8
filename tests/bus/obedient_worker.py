#!/usr/bin/python3
"""An MCP server (legacy era, standard library only) that does what its calls tell it to do.

Each call runs in a thread of its own. Options:
    --journal FILE    append every line that is read
    --starts FILE     append a line at each start
    --tools N         offer N further tools, named extra-0 ...
    --page N          N tools on a page of tools/list
    --delay SECONDS   before the answer to initialize
    --ping-delay SECONDS   before the answer to a ping
    --results FOLDER  a task has its result when there is a file there with its name
    --deaf            ignore the end of stdin and SIGTERM
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time

TEXT = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
output_lock = threading.Lock()
cancelled = {}
answers = {}
tokens = {}
heard = []
memory = {}
hello = {}
tools = []
options = None
calls = 0


def send(message):
    line = json.dumps(message, ensure_ascii=False, separators=(",", ":")) + "\n"
    with output_lock:
        sys.stdout.write(line)
        sys.stdout.flush()


def tool(function):
    tools.append({"name": function.__name__, "description": function.__doc__ or "", "inputSchema": TEXT})
    return function


class Refusal(Exception):
    """A JSON-RPC error."""


class Failed(Exception):
    """A result with isError."""


@tool
def echo(_, message=""):
    """Answer with the message."""
    return message


@tool
def pid(_):
    """This process's id."""
    return os.getpid()


@tool
def sleep(request, seconds=0.0, message=""):
    """Wait, then answer with the message; no answer if it is cancelled meanwhile."""
    if cancelled[request].wait(seconds):
        return None
    return message


@tool
def work(request, steps=3, pause=0.1, message="done"):
    """Tell progress so many times, as long apart; then answer with the message; no answer if it is cancelled meanwhile."""
    for step in range(steps):
        send({"jsonrpc": "2.0", "method": "notifications/progress",
              "params": {"progressToken": tokens[request], "progress": step + 1, "total": steps, "message": f"step {step + 1}"}})
        if cancelled[request].wait(pause):
            return None
    return message


@tool
def block(_, seconds=0.0):
    """Wait, whether it is cancelled or not; then answer."""
    time.sleep(seconds)
    return "blocked"


@tool
def until(request, path, progress=False, fails=False):
    """Wait for a file, whether the call is cancelled or not; then answer, if need be with an error."""
    step = 0
    while not os.path.exists(path):
        step += 1
        if progress:
            send({"jsonrpc": "2.0", "method": "notifications/progress",
                  "params": {"progressToken": tokens[request], "progress": step}})
        time.sleep(0.02)
    if fails:
        raise Refusal({"code": -32800, "message": "cancelled"})
    return "it is there"


@tool
def spell(request, path, line, size=0):
    """Wait for a file, whether the call is cancelled or not; then write this line: ID stands for the call's id, XX for so many x.
    No answer besides if it is cancelled."""
    while not os.path.exists(path):
        time.sleep(0.02)
    with output_lock:
        sys.stdout.write(line.replace("ID", json.dumps(request)).replace("XX", "x" * size) + "\n")
        sys.stdout.flush()


@tool
def surroundings(_):
    """Environment, arguments, working directory, open fds, session and process group."""
    fds = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            fds[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass
    mask = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("SigBlk"))
    ignored = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("SigIgn"))
    return {"env": dict(os.environ), "argv": sys.argv, "cwd": os.getcwd(), "fds": fds, "pid": os.getpid(),
            "sid": os.getsid(0), "pgid": os.getpgid(0), "uid": os.getuid(), "blocked": mask, "ignored": ignored}


@tool
def end(_, status=0, stderr=""):
    """Leave with this exit status, without an answer."""
    sys.stderr.write(stderr)
    sys.stderr.flush()
    os._exit(status)


@tool
def die(_, number=9, stderr=""):
    """Die by this signal, without an answer."""
    sys.stderr.write(stderr)
    sys.stderr.flush()
    os.kill(os.getpid(), number)
    time.sleep(10)


@tool
def write(_, stdout="", stderr=""):
    """Write this to stdout and stderr, then answer."""
    with output_lock:
        sys.stdout.write(stdout)
        sys.stdout.flush()
    sys.stderr.write(stderr)
    sys.stderr.flush()
    return "written"


@tool
def freeze(_):
    """Stop (SIGSTOP) a moment after the answer."""
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGSTOP)).start()
    return os.getpid()


@tool
def remember(_, value=None):
    """Keep a value in this process."""
    memory["value"] = value
    return "remembered"


@tool
def recall(_):
    """The value that was kept."""
    return memory.get("value")


@tool
def notifications(_):
    """Every notification that was heard."""
    return heard


@tool
def greeting(_):
    """The params of initialize."""
    return hello


@tool
def count(_):
    """How many requests this process has got."""
    return calls


@tool
def requests(_):
    """The ids of all requests that this process has got."""
    return list(cancelled)


@tool
def refuse(_, code=-32000, message="no", data=None):
    """Answer with this JSON-RPC error."""
    raise Refusal({"code": code, "message": message, **({"data": data} if data is not None else {})})


@tool
def grandchild(_, own_session=False):
    """Start a process that goes on by itself, holding this one's pipes; answer with its pid."""
    return subprocess.Popen(["/bin/sleep", "1000"], start_new_session=own_session).pid


@tool
def learn(_, name="learnt", announce=True):
    """Offer one more tool."""
    tools.append({"name": name, "description": "learnt", "inputSchema": TEXT})
    if announce:
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    return "learnt"


@tool
def ask(_, method="ping", params=None, patience=10):
    """Send the client a request; answer with its answer."""
    number = f"ask-{time.monotonic_ns()}"
    answers[number] = threading.Event(), []
    send({"jsonrpc": "2.0", "id": number, "method": method, **({"params": params} if params is not None else {})})
    event, got = answers[number]
    return got[0] if event.wait(patience) else "no answer"


@tool
def say(_, method="notifications/message", params=None):
    """Send the client a notification."""
    send({"jsonrpc": "2.0", "method": method, "params": params or {}})
    return "said"


@tool
def flood(_, count=1000, size=1000):
    """Say so many notifications of that size."""
    for _ in range(count):
        send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "x" * size}})
    return str(count)


@tool
def fail(_, message="failed"):
    """A result that says that the tool failed."""
    raise Failed(message)


@tool
def big(_, size=0):
    """A text of so many bytes."""
    return "x" * size


@tool
def quit_reading(_):
    """Close stdin; go on living."""
    threading.Timer(0.05, lambda: os.close(0)).start()
    return "closed"


def make_task(request, status="working"):
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"taskId": f"task-{request}", "status": status, "ttl": None, "createdAt": now, "lastUpdatedAt": now}


def call_tool(request, params):
    if "task" in params:
        return {"task": make_task(request)}
    function = {entry["name"]: globals().get(entry["name"]) for entry in tools}.get(params.get("name"))
    if function is None:
        raise Refusal({"code": -32602, "message": f"Unknown tool: {params.get('name')}"})
    try:
        value = function(request, **params.get("arguments", {}))
    except Failed as failure:
        return {"content": [{"type": "text", "text": str(failure)}], "isError": True}
    except TypeError as error:
        raise Refusal({"code": -32602, "message": str(error)}) from None
    if cancelled[request].is_set() and value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return {"content": [{"type": "text", "text": text}]}


def list_tools(params):
    start = int(params.get("cursor", "at-0").removeprefix("at-"))
    page = {"tools": tools[start:start + options.page] if options.page else tools[start:]}
    if options.page and start + options.page < len(tools):
        page["nextCursor"] = f"at-{start + options.page}"
    return page


def answer(message):
    method, params, request = message["method"], message.get("params", {}), message["id"]
    try:
        if method == "initialize":
            time.sleep(options.delay)
            while options.start_gate and not os.path.exists(options.start_gate):
                time.sleep(0.02)
            hello.update(params)
            result = {"protocolVersion": params.get("protocolVersion"), "capabilities": {"tools": {"listChanged": True}},
                      "serverInfo": {"name": "obedient", "version": "1"}}
        elif method == "ping":
            time.sleep(options.ping_delay)
            result = {}
        elif method == "tools/list":
            result = list_tools(params)
        elif method == "tools/call":
            result = call_tool(request, params)
        elif method == "tasks/get":
            result = make_task(params["taskId"].removeprefix("task-"), "completed")
        elif method == "tasks/result":
            while options.results and not os.path.exists(f"{options.results}/{params['taskId']}"):
                time.sleep(0.02)
            result = {"content": [{"type": "text", "text": f"the result of {params['taskId']}"}]}
        elif method == "test/params":
            result = {"params": message.get("params", "none")}
        else:
            raise Refusal({"code": -32601, "message": f"Method not found: {method}"})
    except Refusal as refusal:
        send({"jsonrpc": "2.0", "id": request, "error": refusal.args[0]})
        return
    if result is not None:
        send({"jsonrpc": "2.0", "id": request, "result": result})


def receive(line):
    global calls
    if options.journal:
        with open(options.journal, "a") as journal:
            journal.write(line)
    message = json.loads(line)
    if "method" not in message:
        event, got = answers.get(message.get("id"), (None, None))
        if event:
            got.append({key: message[key] for key in ("result", "error") if key in message})
            event.set()
    elif "id" not in message:
        heard.append({"method": message["method"], "params": message.get("params")})
        if message["method"] == "notifications/cancelled":
            cancelled.get(message.get("params", {}).get("requestId"), threading.Event()).set()
    else:
        calls += 1
        cancelled[message["id"]] = threading.Event()
        tokens[message["id"]] = ((message.get("params") or {}).get("_meta") or {}).get("progressToken")
        threading.Thread(target=answer, args=(message,), daemon=True).start()


def main():
    global options
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal")
    parser.add_argument("--starts")
    parser.add_argument("--tools", type=int, default=0)
    parser.add_argument("--page", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--start-gate")
    parser.add_argument("--ping-delay", type=float, default=0)
    parser.add_argument("--results")
    parser.add_argument("--deaf", action="store_true")
    options = parser.parse_args()
    if options.starts:
        with open(options.starts, "a") as starts:
            starts.write(f"{os.getpid()}\n")
    for number in range(options.tools):
        tools.append({"name": f"extra-{number}", "description": f"Number {number}", "inputSchema": TEXT})
    if options.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        for line in sys.stdin:
            receive(line)
    except OSError:
        time.sleep(1000)
    if options.deaf:
        time.sleep(1000)


main()
