#!/usr/bin/python3
"""A misbehaving MCP server on stdin and stdout.

    hostile.py MOOD [ARGUMENT]
    hostile.py --list

Apart from its mood it is a correct and strict legacy server with the tools `echo` {"message"} and `pid`: a request before
`notifications/initialized` is an error (-32602), also server/discover; a line that is no JSON ends it with a traceback, and
the end of stdin with status 0. Each mood is a function below that changes the one thing its docstring says. SIGALRM ends
every worker after an hour, whatever became of its test.
"""

import heapq
import json
import os
import resource
import select
import signal
import sys
import threading
import time

LIFETIME = 3600
VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
ANSWERS_WAIT = 2.0


class RemoteError(Exception):
    """Becomes the JSON-RPC error {"code", "message", "data"?} of the request that is being handled."""

    def __init__(self, **error):
        super().__init__(error)
        self.error = error


def text(string):
    return {"content": [{"type": "text", "text": string}]}


class Server:
    """A correct server. Moods replace its tools, its request handlers, and the two ways in and out of a tool call."""

    def __init__(self):
        self.tools = {
            "echo": lambda request, arguments: arguments.get("message", ""),
            "pid": lambda request, arguments: str(os.getpid()),
        }
        self.requests = {
            "initialize": self.initialize,
            "ping": lambda request: {},
            "tools/list": self.list_tools,
            "tools/call": self.call_tool,
        }
        self.early = {"initialize", "ping"}
        self.version = None
        self.initialized = False
        self.on_first = lambda message: None
        self.on_initialized = lambda: None
        self.on_cancelled = lambda request_id: None
        self.on_call = lambda request: None
        self.answer_call = self.answer
        self.answers = []
        self.reading = True
        self.timers = []
        self.timers_made = 0

    # Out

    def write(self, data):
        view = memoryview(data)
        while view:
            view = view[os.write(1, view):]

    def send(self, message):
        self.write(json.dumps(message).encode() + b"\n")

    def notify(self, method, **params):
        self.send({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})

    def ask(self, request_id, method, **params):
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})

    def answer(self, request, result):
        self.send({"jsonrpc": "2.0", "id": request["id"], "result": result})

    def answer_error(self, request, error):
        self.send({"jsonrpc": "2.0", "id": request["id"], "error": error})

    # Time

    def after(self, seconds, function):
        self.timers_made += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.timers_made, function))

    def when(self, condition, function, seconds=ANSWERS_WAIT):
        """Calls the function once the condition holds, or after so many seconds."""
        if condition() or seconds <= 0:
            function()
        else:
            self.after(0.01, lambda: self.when(condition, function, seconds - 0.01))

    # Requests

    def initialize(self, request):
        asked = request["params"]["protocolVersion"]
        return {
            "protocolVersion": self.version or (asked if asked in VERSIONS else VERSIONS[-1]),
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "hostile", "version": "1.0.0"},
        }

    def list_tools(self, request):
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in self.tools]}

    def call_tool(self, request):
        self.on_call(request)
        params = request["params"]
        tool = self.tools.get(params["name"])
        if tool is None:
            raise RemoteError(code=-32602, message=f"Unknown tool {params['name']}")
        self.finish_call(request, tool(request, params.get("arguments", {})))

    def finish_call(self, request, result):
        """A tool returns a text or a whole result; or None, and calls this later or never."""
        if result is not None:
            self.answer_call(request, text(result) if isinstance(result, str) else result)

    def handle_request(self, request):
        method = request["method"]
        if not self.initialized and method not in self.early:
            raise RemoteError(code=-32602, message="Received request before initialization was complete")
        if method not in self.requests:
            raise RemoteError(code=-32601, message="Method not found")

        result = self.requests[method](request)
        if result is not None:
            self.answer(request, result)

    def handle(self, line):
        message = json.loads(line)
        on_first, self.on_first = self.on_first, lambda message: None
        on_first(message)

        if "method" not in message:
            self.answers.append(line.decode())
        elif "id" in message:
            try:
                self.handle_request(message)
            except RemoteError as e:
                self.answer_error(message, e.error)
        elif message["method"] == "notifications/initialized":
            self.initialized = True
            self.on_initialized()
        elif message["method"] == "notifications/cancelled":
            self.on_cancelled(message["params"]["requestId"])

    def run(self):
        received = bytearray()
        while True:
            while self.timers and self.timers[0][0] <= time.monotonic():
                heapq.heappop(self.timers)[2]()

            timeout = self.timers[0][0] - time.monotonic() if self.timers else None
            readable, _, _ = select.select([0] if self.reading else [], [], [], timeout and max(timeout, 0))
            if not readable:
                continue

            data = os.read(0, 1 << 20)
            if not data:
                return
            received += data
            if b"\n" in data:
                *lines, received = received.split(b"\n")
                for line in lines:
                    self.handle(line)


MOODS = {}


def mood(name):
    def add(function):
        MOODS[name] = function
        return function

    return add


def say(line):
    print(line, file=sys.stderr, flush=True)


# Moods of the start


@mood("correct")
def correct(server):
    """Has no mood: the server that the others are compared with."""


@mood("exit-now")
def exit_now(server):
    """Prints two lines to stderr and exits with status 3, before reading anything."""
    say("hostile: cannot open the database")
    say("hostile: giving up")
    sys.exit(3)


@mood("no-handshake")
def no_handshake(server):
    """Reads everything and never answers."""
    server.handle = lambda line: None


@mood("slow-start")
def slow_start(server):
    """Answers initialize only after ARGUMENT milliseconds (default 1000)."""
    delay = float(sys.argv[2]) / 1000 if len(sys.argv) > 2 else 1.0
    initialize = server.initialize
    server.requests["initialize"] = lambda request: server.after(delay, lambda: server.answer(request, initialize(request)))


@mood("refuses-initialize")
def refuses_initialize(server):
    """Answers initialize with the JSON-RPC error -32000 "No licence"."""

    def refuse(request):
        raise RemoteError(code=-32000, message="No licence", data={"days": 0})

    server.requests["initialize"] = refuse


@mood("dies-on-discover")
def dies_on_discover(server):
    """Exits with status 1 if its first message is anything but initialize."""

    def first(message):
        if message.get("method") != "initialize":
            say("hostile: expected initialize")
            sys.exit(1)

    server.on_first = first


@mood("silent-on-discover")
def silent_on_discover(server):
    """Never answers server/discover; all else, initialize after it included, works."""
    server.early.add("server/discover")
    server.requests["server/discover"] = lambda request: None


@mood("mute-after-discover")
def mute_after_discover(server):
    """Never answers anything once its first message was server/discover; if that was initialize, all works."""

    def first(message):
        if message.get("method") == "server/discover":
            server.write = lambda data: None

    server.on_first = first


@mood("serves-before-initialize")
def serves_before_initialize(server):
    """Serves tools/list and tools/call also before, and without, a handshake."""
    server.early.update(("tools/list", "tools/call"))


@mood("wrong-version")
def wrong_version(server):
    """Answers initialize with the protocol version 1999-01-01."""
    server.version = "1999-01-01"


@mood("early-notification")
def early_notification(server):
    """Sends notifications/tools/list_changed before the initialize result."""
    initialize = server.initialize

    def early(request):
        server.notify("notifications/tools/list_changed")
        return initialize(request)

    server.requests["initialize"] = early


# Moods that ask the client


def asks_at_once(server, tool, asks):
    """Asks after the handshake; the tool returns the lines that came as answers, as JSON, once all are there or after 2 s."""

    def ask():
        for request_id, method in asks:
            server.ask(request_id, method)

    def returns_answers(request, arguments):
        server.when(lambda: len(server.answers) >= len(asks),
                    lambda: server.finish_call(request, json.dumps(server.answers)))

    server.on_initialized = ask
    server.tools[tool] = returns_answers


@mood("roots-at-once")
def roots_at_once(server):
    """Asks roots/list with id 0 right after initialized. Tool `roots`: the raw answer lines it got, a JSON list."""
    asks_at_once(server, "roots", [(0, "roots/list")])


PING_IDS = (0, 1, 2, -1, 9007199254740993, 1.5, "0", "1", "", "p\u00efng \"quoted\" \\ \n end", "x" * 300)


@mood("pings")
def pings(server):
    """Pings with ids of several types right after initialized, some equal to ids that the client uses. Tool `pongs`: the
    raw answer lines it got, a JSON list in their order."""
    asks_at_once(server, "pongs", [(request_id, "ping") for request_id in PING_IDS])


@mood("asks")
def asks(server):
    """Tool `ask` {"method"}: sends that request to the client in the middle of the call and returns the raw answer line, or
    null if none came in 2 s."""

    def ask(request, arguments):
        request_id = f"ask-{request['id']}"
        server.ask(request_id, arguments["method"])
        answers = lambda: [line for line in server.answers if json.loads(line).get("id") == request_id]
        server.when(answers, lambda: server.finish_call(request, json.dumps((answers() or [None])[0])))

    server.tools["ask"] = ask


# Moods of the answer line

STRAY_LINES = (
    b"Listening on stdio...",
    b"",
    b"   \t ",
    b"\xff\xfe invalid \xc3\x28 utf-8",
    b"[1, 2, 3]",
    b"[]",
    b'[{"jsonrpc":"2.0","id":%(id)s,"result":{"content":[],"stray":true}}]',
    b"42",
    b"null",
    b'"text"',
    b"{}",
    b'{"jsonrpc":"2.0"}',
    b'{"jsonrpc":"2.0","id":%(id)s,"result":{"content":[],"stray":true}',
    b'{"jsonrpc":"2.0","id":%(id)s,"result":{"content":[],"stray":true}} trailing',
    b'DEBUG {"jsonrpc":"2.0","id":%(id)s,"result":{"content":[],"stray":true}}',
    b'{"log":{"jsonrpc":"2.0","id":%(id)s,"result":{"content":[],"stray":true}}}',
    b'{"text":"\\"id\\":%(id)s,\\"result\\":{}"}',
    b"{'id': %(id)s, 'result': {}}",
)


@mood("garbage")
def garbage(server):
    """Prints stray lines before and after every answer: text, blank lines, invalid UTF-8, arrays, numbers, cut JSON. Some
    hold the very id of the request where it is no answer, with "stray": true in what would be the result."""
    answer = server.answer

    def litter(request, result):
        stray = b"\n".join(STRAY_LINES).replace(b"%(id)s", json.dumps(request["id"]).encode()) + b"\n"
        server.write(stray)
        answer(request, result)
        server.write(stray)

    server.answer = server.answer_call = litter


@mood("garbage-only")
def garbage_only(server):
    """Answers every tools/call with one line that is no JSON, and nothing else."""
    server.answer_call = lambda request, result: server.write(b"Traceback (most recent call last):\n")


@mood("crlf")
def crlf(server):
    """Ends its lines with CR LF and puts white space between all tokens: unusual, but valid."""

    def send(message):
        spaced = json.dumps(message, separators=(" ,\t", " : "))
        server.write(b" \t" + spaced.encode() + b" \r\n")

    server.send = send


@mood("half-line")
def half_line(server):
    """Prints the first half of the answer to a tools/call, without a newline, and exits with status 0."""

    def half(request, result):
        line = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result})
        server.write(line[: len(line) // 2].encode())
        sys.exit(0)

    server.answer_call = half


@mood("huge-line")
def huge_line(server):
    """Tool `huge` {"bytes", "id_first"}: answers with a line of exactly so many bytes, its newline not counted, the id at the
    front or at the end; then goes on working."""

    def huge(request, arguments):
        request_id = json.dumps(request["id"])
        head, tail = '"result": {"content": [{"type": "text", "text": "', '"}]}'
        if arguments.get("id_first", True):
            head = f'{{"jsonrpc": "2.0", "id": {request_id}, {head}'
            tail += "}"
        else:
            head = f"{{{head}"
            tail += f', "jsonrpc": "2.0", "id": {request_id}}}'

        left = min(int(arguments["bytes"]), 1 << 31) - len(head) - len(tail)
        server.write(head.encode())
        for size in [1 << 20] * (left >> 20) + [max(left, 0) & 0xFFFFF]:
            server.write(b"x" * size)
        server.write(tail.encode() + b"\n")

    server.tools["huge"] = huge


@mood("huge-endless")
def huge_endless(server):
    """Answers a tools/call with bytes that hold no newline, without end (at 64 GiB it stops)."""

    def endless(request, result):
        for _ in range(1 << 16):
            server.write(b"x" * (1 << 20))

    server.answer_call = endless


@mood("duplicate")
def duplicate(server):
    """Answers each tools/call twice; the second answer has "second": true in its result."""

    def twice(request, result):
        server.answer(request, result)
        server.answer(request, {**result, "second": True})

    server.answer_call = twice


@mood("unknown-id")
def unknown_id(server):
    """Before each right answer to a tools/call come answers to ids that nobody asked, with "unknown": true in the result:
    larger, negative, strings, null, fractional, past 2^64, other types, none."""

    def unknown(request, result):
        n = request["id"] if isinstance(request["id"], int) else 0
        ids = [str(n + 1000000), str(-n - 1), f'"{n}"', '"nobody"', '""', "null", f"{n}.5", str(n + 2**32), str(n + 2**63),
               str(n + 2**64), "1e400", "true", f"[{n}]", f'{{"id": {n}}}']
        for unknown_id in ids:
            server.write(b'{"jsonrpc": "2.0", "id": %s, "result": {"unknown": true}}\n' % unknown_id.encode())
        server.write(b'{"jsonrpc": "2.0", "result": {"unknown": true}}\n')
        server.answer(request, result)

    server.answer_call = unknown


@mood("string-id")
def string_id(server):
    """Answers each tools/call with its id made a string."""
    server.answer_call = lambda request, result: server.answer({"id": json.dumps(request["id"])}, result)


@mood("no-jsonrpc")
def no_jsonrpc(server):
    """Leaves "jsonrpc" out of its answers to tools/call."""
    server.answer_call = lambda request, result: server.send({"id": request["id"], "result": result})


@mood("two-results")
def two_results(server):
    """Answers each tools/call with a result and an error in one message."""
    server.answer_call = lambda request, result: server.send(
        {"jsonrpc": "2.0", "id": request["id"], "result": result, "error": {"code": -32000, "message": "Both"}})


@mood("no-result")
def no_result(server):
    """Answers each tools/call with its id, but with neither a result nor an error."""
    server.answer_call = lambda request, result: server.send({"jsonrpc": "2.0", "id": request["id"]})


@mood("error")
def error(server):
    """Tool `fail` {"code", "message", "data"?}: that JSON-RPC error; the default message has a newline, ESC and an escaped
    lone surrogate. Tool `fail-raw` {"error"}: any value, verbatim, as the error, whatever its type."""

    def fail(request, arguments):
        data = {"data": arguments["data"]} if "data" in arguments else {}
        raise RemoteError(code=arguments.get("code", -32000),
                          message=arguments.get("message", "first line\nsecond \x1b[31mred\x1b[0m \ud800 end"), **data)

    server.tools["fail"] = fail
    server.tools["fail-raw"] = lambda request, arguments: server.answer_error(request, arguments["error"])


def raw_text(server, request, string):
    """Answers with bytes between the quotes of a text."""
    server.write(b'{"jsonrpc": "2.0", "id": %s, "result": {"content": [{"type": "text", "text": "%s"}]}}\n'
                 % (json.dumps(request["id"]).encode(), string))


@mood("invalid-utf8")
def invalid_utf8(server):
    """Tool `invalid`: a result that holds invalid UTF-8 bytes. Tool `invalid-error`: an error whose message does."""

    def invalid_error(request, arguments):
        server.write(b'{"jsonrpc": "2.0", "id": %s, "error": {"code": -32000, "message": "caf\xe9 \xff \xed\xa0\x80"}}\n'
                     % json.dumps(request["id"]).encode())

    server.tools["invalid"] = lambda request, arguments: raw_text(server, request, b"caf\xe9 \xc3\x28 \xff \xed\xa0\x80 end")
    server.tools["invalid-error"] = invalid_error


@mood("nul")
def nul(server):
    """Tool `raw`: a raw NUL byte inside the answer's text. Tool `escaped`: the escape \\u0000 there, which is valid."""
    server.tools["raw"] = lambda request, arguments: raw_text(server, request, b"before\0after")
    server.tools["escaped"] = lambda request, arguments: raw_text(server, request, b"before\\u0000after")


@mood("deep")
def deep(server):
    """Tool `deep` {"depth"}: a result with the member "deep" that is so many arrays within each other."""

    def nested(request, arguments):
        depth = min(int(arguments["depth"]), 10_000_000)
        server.write(b'{"jsonrpc": "2.0", "id": %s, "result": {"content": [], "deep": %s%s}}\n'
                     % (json.dumps(request["id"]).encode(), b"[" * depth, b"]" * depth))

    server.tools["deep"] = nested


# Moods of time


@mood("late")
def late(server):
    """Tool `late` {"ms"}: answers after so long, even if it was cancelled meanwhile."""
    server.tools["late"] = lambda request, arguments: server.after(
        arguments["ms"] / 1000, lambda: server.finish_call(request, "late"))


@mood("drip")
def drip(server):
    """Once `echo` was called, writes twenty bytes a second."""
    write, left, started = server.write, bytearray(), []

    def byte():
        if left:
            write(bytes([left.pop(0)]))
        server.after(0.05, byte)

    def start(request):
        if request["params"]["name"] == "echo" and not started:
            started.append(True)
            server.write = left.extend
            byte()

    server.on_call = start


@mood("ignores-cancel")
def ignores_cancel(server):
    """Minds no cancellation. Tool `hog` {"seconds"}: does nothing else meanwhile, pings included. Tool `later` {"seconds",
    "message"}: answers after so long, also while another call hogs it."""

    def later(request, arguments):
        line = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": text(arguments["message"])}).encode() + b"\n"
        threading.Timer(arguments["seconds"], server.write, [line]).start()

    server.tools["hog"] = lambda request, arguments: time.sleep(arguments["seconds"]) or "done"
    server.tools["later"] = later


@mood("progress")
def progress(server):
    """Tool `work` {"steps", "ms"}: every so many milliseconds a notifications/progress with the request's own token, then an
    answer whose text is {"token", "steps"}. Once cancelled: three more of them, then nothing, no answer."""
    cancelled = set()

    def work(request, arguments):
        token = request["params"].get("_meta", {}).get("progressToken")
        steps, pause = min(int(arguments["steps"]), 10000), arguments["ms"] / 1000

        def step(number, more):
            if request["id"] in cancelled:
                if more == 0:
                    return
                more -= 1
            elif number > steps:
                server.finish_call(request, json.dumps({"token": token, "steps": steps}))
                return
            if token is not None:
                server.notify("notifications/progress", progressToken=token, progress=number, total=steps)
            server.after(pause, lambda: step(number + 1, more))

        server.after(pause, lambda: step(1, 3))

    server.tools["work"] = work
    server.on_cancelled = cancelled.add


@mood("ping-deaf")
def ping_deaf(server):
    """Answers calls, but never a ping."""
    server.requests["ping"] = lambda request: None


# Moods of lists


@mood("list-changes")
def list_changes(server):
    """Tool `change`: adds a tool `added-N`, sends notifications/tools/list_changed, and returns the new tool's name."""

    def change(request, arguments):
        name = f"added-{len(server.tools) - 2}"
        server.tools[name] = lambda request, arguments: name
        server.notify("notifications/tools/list_changed")
        return name

    server.tools["change"] = change


@mood("paged-tools")
def paged_tools(server):
    """Lists its tools in three pages, of two, none and one, with cursors that look odd; refuses any other cursor (-32602)."""
    server.tools["last"] = lambda request, arguments: "last"
    pages = {
        None: (["echo", "pid"], "\"page\" 2 \u00e9\n\\"),
        "\"page\" 2 \u00e9\n\\": ([], " "),
        " ": (["last"], None),
    }

    def list_tools(request):
        cursor = request.get("params", {}).get("cursor")
        if cursor not in pages:
            raise RemoteError(code=-32602, message="Invalid cursor")
        names, following = pages[cursor]
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names],
                **({"nextCursor": following} if following else {})}

    server.requests["tools/list"] = list_tools


@mood("endless-pages")
def endless_pages(server):
    """Every page of tools/list has one new tool and one more nextCursor, for ever."""

    def list_tools(request):
        page = int(request.get("params", {}).get("cursor", 0))
        return {"tools": [{"name": f"tool-{page}", "inputSchema": {"type": "object"}}], "nextCursor": str(page + 1)}

    server.requests["tools/list"] = list_tools


# Moods of the process


@mood("closes-stdin")
def closes_stdin(server):
    """Closes its stdin at the first tools/call, answers that one, and lives on with its stdout open."""

    def close(request):
        if server.reading:
            os.close(0)
        server.reading = False

    server.on_call = close


@mood("closes-stdout")
def closes_stdout(server):
    """Closes its stdout at the first tools/call, without an answer, and reads on until its stdin ends."""

    def close(request):
        server.on_call = lambda request: None
        server.write = lambda data: None
        os.close(1)

    server.on_call = close


@mood("unread")
def unread(server):
    """Stops reading its stdin after the handshake, so that the pipe fills; no call is answered."""

    def stop():
        while True:
            signal.pause()

    server.on_initialized = stop


@mood("stderr-flood")
def stderr_flood(server):
    """Tool `flood` {"bytes"}: writes so many bytes to stderr, in lines of 100, then answers."""

    def flood(request, arguments):
        left = min(int(arguments["bytes"]), 1 << 32)
        lines = (b"e" * 99 + b"\n") * 1000
        while left > 0:
            left -= os.write(2, lines[:left])
        return "flooded"

    server.tools["flood"] = flood


@mood("stderr-last-words")
def stderr_last_words(server):
    """At the first tools/call writes control characters, ESC, invalid UTF-8 and an unfinished line to stderr, then exits with
    status 7."""

    def last_words(request):
        os.write(2, b"fatal: \x1b[31mred\x1b[0m \x07bell \x00nul \xff\xfe caf\xe9\r\nlast words\twithout a newline")
        os._exit(7)

    server.on_call = last_words


@mood("crash-on-call")
def crash_on_call(server):
    """Dies of SIGSEGV at the first tools/call, without a core file."""

    def crash(request):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), signal.SIGSEGV)

    server.on_call = crash


@mood("stops-itself")
def stops_itself(server):
    """Tool `freeze`: stops itself with SIGSTOP; answers "thawed" once somebody continues it."""

    def freeze(request, arguments):
        os.kill(os.getpid(), signal.SIGSTOP)
        return "thawed"

    server.tools["freeze"] = freeze


@mood("ignores-term")
def ignores_term(server):
    """Ignores SIGTERM, SIGINT, SIGHUP and the end of its stdin: only SIGKILL ends it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    run = server.run

    def run_on():
        run()
        while True:
            signal.pause()

    server.run = run_on


@mood("grandchild")
def grandchild(server):
    """Starts three processes `sleep 1000` before the handshake, which outlive it: `group` in a process group of its own, with
    this server's stdin, stdout and stderr; `session` in a session of its own; `daemon` forked twice, its parent gone.
    Tool `children`: their pids, as a JSON object."""
    import subprocess

    command = ["sleep", "1000"]
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    group = subprocess.Popen(command, process_group=0)
    session = subprocess.Popen(command, start_new_session=True, **silent)

    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.setsid()
        daemon = subprocess.Popen(command, **silent)
        os.write(writer, str(daemon.pid).encode())
        os._exit(0)
    os.waitpid(middle, 0)
    daemon_pid = int(os.read(reader, 32))
    os.close(reader)
    os.close(writer)

    children = {"group": group.pid, "session": session.pid, "daemon": daemon_pid}
    server.tools["children"] = lambda request, arguments: json.dumps(children)


@mood("env")
def env(server):
    """Tool `env`: how it was started, as a JSON object: environ, cwd, argv, fds (number: link), pid, ppid, pgid, sid, umask,
    nice, limits, and the lines of /proc/self/status, SigBlk and SigIgn among them (SIGPIPE and SIGXFSZ are ignored there by
    Python itself: the echo worker's tool `signals` tells the truth about those)."""

    def read(name):
        with open(f"/proc/self/{name}", "rb") as file:
            return file.read().decode(errors="backslashreplace")

    def open_fds():
        fds = {}
        for number in os.listdir("/proc/self/fd"):
            try:
                fds[number] = os.readlink(f"/proc/self/fd/{number}")
            except FileNotFoundError:
                pass  # the folder itself
        return fds

    def tell(request, arguments):
        umask = os.umask(0o077)
        os.umask(umask)
        return json.dumps({
            "environ": dict(entry.partition("=")[::2] for entry in read("environ").split("\0") if entry),
            "cwd": os.getcwd(),
            "argv": read("cmdline").split("\0")[:-1],
            "fds": open_fds(),
            "status": {key: value.strip() for key, _, value in (line.partition(":") for line in read("status").splitlines())},
            "pid": os.getpid(), "ppid": os.getppid(), "pgid": os.getpgrp(), "sid": os.getsid(0),
            "umask": umask, "nice": os.nice(0), "limits": read("limits"),
        })

    server.tools["env"] = tell


@mood("count")
def count(server):
    """Tool `count`: counts its calls in this process; the text is {"count", "pid"}."""
    calls = 0

    def next_count(request, arguments):
        nonlocal calls
        calls += 1
        return json.dumps({"count": calls, "pid": os.getpid()})

    server.tools["count"] = next_count


def main():
    if sys.argv[1:] == ["--list"]:
        for name, function in MOODS.items():
            print(f"{name}: {' '.join(function.__doc__.split())}")
        return
    if len(sys.argv) < 2 or sys.argv[1] not in MOODS:
        sys.exit("usage: hostile.py MOOD [ARGUMENT], or --list; moods: " + " ".join(MOODS))

    signal.alarm(LIFETIME)
    server = Server()
    MOODS[sys.argv[1]](server)
    try:
        server.run()
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
