#!/usr/bin/python3
"""An MCP server whose tools answer with every kind of content, and one that tells its arguments."""

import base64
import json
import sys

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256))).decode()
STRING, NUMBER, FLAG = {"type": "string"}, {"type": "number"}, {"type": "boolean"}
KINDS = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "Any text"},
        "number": {"type": "number", "description": "How much"},
        "integer": {"type": "integer"},
        "flag": FLAG,
        "tags": {"type": "array", "items": STRING},
        "numbers": {"type": "array", "items": NUMBER},
        "object": {"type": "object", "properties": {"inner": NUMBER, "deep": {"$ref": "#/$defs/deep"}}},
        "either": {"anyOf": [NUMBER, {"type": "null"}]},
        "loose": {},
        "text_or_number": {"type": ["string", "number"]},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "The scale"},
        "dotted.name": STRING,
    },
    "$defs": {"deep": {"type": "object", "properties": {"flag": FLAG}}},
}
NEEDED = {"type": "object", "properties": {"city": {"type": "string", "description": "Where"}}, "required": ["city"],
          "additionalProperties": False}
OPEN = {"type": "object", "properties": {"known": NUMBER}, "additionalProperties": True}

TOOLS = {
    "arguments": ("Tells its arguments", KINDS, lambda a: [{"type": "text", "text": json.dumps(a)}]),
    "weather": ("Wants a city", NEEDED, lambda a: [{"type": "text", "text": a["city"]}]),
    "open": ("Takes anything", OPEN, lambda a: [{"type": "text", "text": json.dumps(a)}]),
    "picture": ("An image with a caption", {"type": "object"}, lambda a: [
        {"type": "text", "text": "a caption"}, {"type": "image", "data": PIXEL, "mimeType": "image/png"}]),
    "pictures": ("Two images", {"type": "object"}, lambda a: [
        {"type": "image", "data": PIXEL, "mimeType": "image/png"},
        {"type": "audio", "data": base64.b64encode(b"sound").decode(), "mimeType": "audio/wav"}]),
    "blob": ("A resource of bytes", {"type": "object"}, lambda a: [
        {"type": "resource", "resource": {"uri": "x:y", "blob": base64.b64encode(b"\0\1\2").decode()}}]),
    "resource": ("A resource of text", {"type": "object"}, lambda a: [
        {"type": "resource", "resource": {"uri": "x:y", "text": "the resource"}},
        {"type": "resource_link", "uri": "file:///etc/motd", "name": "motd"}]),
    "evil": ("Says \x1b[31mred\x1b[0m", {"type": "object"}, lambda a: [
        {"type": "text", "text": "\x1b]0;title\x07\x1b[2Jgone \u009b31m, tab\there"}]),
    "broken": ("Bad base64", {"type": "object"}, lambda a: [{"type": "image", "data": "!!!", "mimeType": "image/png"}]),
    "strange": ("An unknown kind", {"type": "object"}, lambda a: [{"type": "hologram", "depth": 3}]),
    "steps": ("Tells how far it is", OPEN, lambda a: [{"type": "text", "text": "arrived"}]),
    "nothing": ("No content", {"type": "object"}, lambda a: []),
    "$(touch oops)": ("A name for shells", {"type": "object"}, lambda a: []),
}


def answer(method, params):
    if method == "initialize":
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "shows", "version": "1"}}
    if method == "tools/list":
        return {"tools": [{"name": name, "description": text, "inputSchema": schema}
                          for name, (text, schema, _) in TOOLS.items()]}
    if method == "tools/call" and params["name"] == "steps" and "progressToken" in params.get("_meta", {}):
        for step in ({"progress": 1, "total": 4, "message": "warming \x1b[31mup"}, {"progress": 2, "total": 4}, {"progress": 3}):
            step["progressToken"] = params["_meta"]["progressToken"]
            print(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": step}), flush=True)
    if method == "tools/call" and params["name"] in TOOLS:
        result = {"content": TOOLS[params["name"]][2](params.get("arguments", {}))}
        return {**result, "structuredContent": {"answer": 42}} if params["name"] == "nothing" else result
    if method == "tools/call":  # as many servers say it
        return {"content": [{"type": "text", "text": "Unknown tool"}], "isError": True}
    return None


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = answer(message["method"], message.get("params", {}))
    reply = {"result": result} if result is not None else {"error": {"code": -32601, "message": "Method not found"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}), flush=True)
