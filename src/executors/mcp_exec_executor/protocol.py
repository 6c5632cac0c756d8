"""MCP over stdio as a server with one tool speaks it, both eras: lines in, lines out. Knows nothing of what the tool does."""

from . import own_builtins as __builtins__  # noqa: F401

from .codec import decode, encode

MODERN_VERSIONS = ["2026-07-28"]
LEGACY_VERSIONS = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
METHODS = {
    "legacy": {"initialize", "ping", "tools/list", "tools/call"},
    "modern": {"server/discover", "tools/list", "tools/call"},
}
CAPABILITIES = {"tools": {}}

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR, UNSUPPORTED_VERSION = -32603, -32022

META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META_SERVER = "io.modelcontextprotocol/serverInfo"


class Refusal(Exception):
    """A JSON-RPC error."""

    def __init__(self, code, message, data=None):
        self.error = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


def to_line(request_id, **outcome):
    return encode({"jsonrpc": "2.0", "id": request_id, **outcome}).encode("utf-8", "replace") + b"\n"


def is_id(value):
    return isinstance(value, (str, int)) and not isinstance(value, bool)


class Endpoint:
    """Answers everything but tools/call itself. The handler has `send(line)`, `is_open(id)`: whether a call of that id
    waits or runs, `start(id, modern, arguments, line)` and `cancel(id)`."""

    def __init__(self, program, handler):
        self.program, self.handler = program, handler
        self.server_info = {"name": program.name, "title": program.title, "version": program.version}
        self.initialized = False

    def receive(self, line):
        if not line.strip():
            return
        request_id = None
        try:
            try:
                message = decode(line.decode())
            except (ValueError, RecursionError) as error:
                raise Refusal(PARSE_ERROR, f"parse error: {error}") from None
            if not isinstance(message, dict):
                raise Refusal(INVALID_REQUEST, "not one JSON-RPC message")
            method, params = message.get("method"), message.get("params", {})
            if method is None and ("result" in message or "error" in message):
                return  # an answer: nothing was asked
            if "id" in message:
                if not is_id(message["id"]):
                    raise Refusal(INVALID_REQUEST, "the id is neither a string nor an integer")
                request_id = message["id"]
            if message.get("jsonrpc") != "2.0":
                raise Refusal(INVALID_REQUEST, "jsonrpc is not 2.0")
            if not isinstance(method, str):
                raise Refusal(INVALID_REQUEST, "the method is not a string")
            if "id" not in message:
                self.notified(method, params)
            elif not isinstance(params, dict):
                raise Refusal(INVALID_PARAMS, "params is not an object")
            else:
                self.handle(request_id, method, params, line)
        except Refusal as refusal:
            self.handler.send(to_line(request_id, error=refusal.error))

    def notified(self, method, params):
        if method == "notifications/cancelled" and isinstance(params, dict) and is_id(params.get("requestId")):
            self.handler.cancel(params["requestId"])

    def handle(self, request_id, method, params, line):
        modern = self.is_modern(method, params)
        if method not in METHODS["modern" if modern else "legacy"]:
            raise Refusal(METHOD_NOT_FOUND, f"no such method: {method}")
        if method == "tools/call":
            if self.handler.is_open(request_id):
                raise Refusal(INVALID_REQUEST, "the id belongs to a call that runs or waits")
            return self.handler.start(request_id, modern, self.check_call(params), line)
        if method == "tools/list":
            if "cursor" in params:
                raise Refusal(INVALID_PARAMS, "no such cursor: the list has one page")
            result = {"tools": [self.program.tool]}
        elif method == "server/discover":
            result = {"supportedVersions": MODERN_VERSIONS, "capabilities": CAPABILITIES,
                      "instructions": self.program.instructions}
        elif method == "initialize":
            result = self.initialize(params)
        else:
            result = {}
        if modern:
            result.update(ttlMs=3600000, cacheScope="public")
        self.handler.send(self.result_line(request_id, modern, result))

    def result_line(self, request_id, modern, result):
        if modern:
            result = {"resultType": "complete", **result, "_meta": {META_SERVER: self.server_info}}
        return to_line(request_id, result=result)

    def is_modern(self, method, params):
        """Tells the era by the request alone, except that after initialize one without the fields of the stateless era
        is a legacy one."""
        if method not in METHODS["legacy"] | METHODS["modern"]:
            raise Refusal(METHOD_NOT_FOUND, f"no such method: {method}")
        meta = params.get("_meta", {})
        if not isinstance(meta, dict):
            raise Refusal(INVALID_PARAMS, "_meta is not an object")
        if META_VERSION not in meta and META_CAPABILITIES not in meta:
            if method in ("initialize", "ping") or self.initialized and method != "server/discover":
                return False
        if not isinstance(meta.get(META_VERSION), str) or not isinstance(meta.get(META_CAPABILITIES), dict):
            raise Refusal(INVALID_PARAMS, f"_meta lacks {META_VERSION} or {META_CAPABILITIES}")
        if meta[META_VERSION] not in MODERN_VERSIONS:
            data = {"supported": MODERN_VERSIONS, "requested": meta[META_VERSION]}
            raise Refusal(UNSUPPORTED_VERSION, "unsupported protocol version", data)
        return True

    def initialize(self, params):
        version = params.get("protocolVersion")
        if not isinstance(version, str):
            raise Refusal(INVALID_PARAMS, "protocolVersion is not a string")
        self.initialized = True
        version = version if version in LEGACY_VERSIONS else LEGACY_VERSIONS[0]
        return {"protocolVersion": version, "serverInfo": self.server_info, "capabilities": CAPABILITIES,
                "instructions": self.program.instructions}

    def check_call(self, params):
        if params.get("name") != self.program.tool["name"]:
            raise Refusal(INVALID_PARAMS, f"unknown tool: {params.get('name')}")
        arguments = params.get("arguments", {})
        if not isinstance(arguments, dict):
            raise Refusal(INVALID_PARAMS, "arguments is not an object")
        schema = self.program.tool["inputSchema"]
        for name, value in arguments.items():
            if name not in schema["properties"]:
                raise Refusal(INVALID_PARAMS, f"unknown argument: {name}")
            check_value(name, value, schema["properties"][name])
        for name in schema["required"]:
            if name not in arguments:
                raise Refusal(INVALID_PARAMS, f"{name} is missing")
        self.program.check(arguments)
        return arguments


def is_text(value):
    return isinstance(value, str)


def is_number(value, *kinds):
    return isinstance(value, kinds or (int, float)) and not isinstance(value, bool)


def check_value(name, value, schema):
    """Holds an argument against as much of JSON Schema as the tools' own schemas use."""
    kind = schema["type"]
    if kind == "string" and not is_text(value):
        raise Refusal(INVALID_PARAMS, f"{name} is not a string")
    if kind == "number":
        if not is_number(value) or not schema["exclusiveMinimum"] < value <= schema["maximum"]:
            raise Refusal(INVALID_PARAMS, f"{name} is not a number of seconds above {schema['exclusiveMinimum']}, "
                                          f"at most {schema['maximum']}")
    if kind == "integer":
        if not is_number(value, int) or not schema["minimum"] <= value <= schema["maximum"]:
            raise Refusal(INVALID_PARAMS, f"{name} is not a whole number from {schema['minimum']} to {schema['maximum']}")
    if kind == "array" and not (isinstance(value, list) and value and all(map(is_text, value))):
        raise Refusal(INVALID_PARAMS, f"{name} is not an array of at least one string")
    if kind == "object" and not (isinstance(value, dict) and all(map(is_text, value.values()))):
        raise Refusal(INVALID_PARAMS, f"{name} is not an object of strings")
