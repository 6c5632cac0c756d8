#!/usr/bin/python3
"""An MCP server of the stateless era (2026-07-28, standard library only) that does what its calls tell it to do: the
modern brother of obedient_worker.py. It answers in the order in which it is asked, one after the other."""

import json
import os
import sys
import time

VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"
ARRAY = {"type": "array"}
TOOLS = ["echo", "pid", "params", "ask", "answer", "log", "progress", "work", "sleep", "refuse", "change"]
listening = {}  # what subscriptions/listen asked for, by its id


class Refusal(Exception):
    """A JSON-RPC error."""


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False), flush=True)


def text(value):
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}


def call(params):
    name, arguments, meta = params["name"], params.get("arguments", {}), params["_meta"]
    if name == "echo":
        return text(arguments.get("message", ""))
    if name == "pid":
        return text(os.getpid())
    if name == "params":
        return text(params)
    if name == "answer":
        return arguments["result"]
    if name == "refuse":
        raise Refusal(arguments["error"])
    if name == "log":
        if META + "logLevel" in meta:
            send({"method": "notifications/message", "params": {"level": arguments["level"], "data": "log"}})
        return text("logged")
    if name == "progress":
        send({"method": "notifications/progress", "params": {"progressToken": meta["progressToken"], "progress": 1}})
        return text("done")
    if name == "work":
        for step in range(arguments["steps"]):
            send({"method": "notifications/progress", "params": {"progressToken": meta["progressToken"], "progress": step + 1}})
            time.sleep(arguments["pause"])
        return text(arguments.get("message", "done"))
    if name == "sleep":
        time.sleep(arguments["seconds"])
        return text("slept")
    if name == "change":
        for number, wanted in listening.items():
            if wanted.get("toolsListChanged"):
                send({"method": "notifications/tools/list_changed", "params": {"_meta": {META + "subscriptionId": number}}})
            if arguments.get("uri") in wanted.get("resourceSubscriptions", ()):
                send({"method": "notifications/resources/updated",
                      "params": {"uri": arguments["uri"], "_meta": {META + "subscriptionId": number}}})
        return text("changed")

    # ask: so many rounds of these requests; the state counts them
    assert name == "ask", name
    done = int(params.get("requestState", "0"))
    if "requests" not in arguments or (done >= arguments.get("rounds", 1) and
                                       ("inputResponses" in params or not arguments["requests"])):
        return text({"responses": params.get("inputResponses"), "state": params.get("requestState")})
    return {"resultType": "input_required", "requestState": str(done + 1),
            **({"inputRequests": arguments["requests"]} if arguments["requests"] else {})}


def answer(message):
    method, params = message["method"], message.get("params", {})
    meta = params.get("_meta", {})
    if META + "protocolVersion" not in meta or META + "clientCapabilities" not in meta:
        raise Refusal({"code": -32602, "message": "_meta is missing"})
    if method == "server/discover":
        return {"supportedVersions": [VERSION], "instructions": "Ask me.",
                "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}},
                "_meta": {META + "serverInfo": {"name": "stateless", "version": "1"}},
                "ttlMs": 60000, "cacheScope": "public"}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"},
                           **({"outputSchema": ARRAY} if name == "answer" else {})} for name in TOOLS],
                "ttlMs": 60000, "cacheScope": "public"}
    if method == "resources/list":
        return {"resources": [{"name": "r", "uri": "test://r"}], "ttlMs": 5, "cacheScope": "private"}
    if method == "resources/read":
        return {"contents": [{"uri": params["uri"], "text": "r"}], "ttlMs": 5, "cacheScope": "private"}
    if method == "tools/call":
        return call(params)
    if method == "completion/complete":  # wants what no answer to it may want
        return {"resultType": "input_required", "inputRequests": {"r": {"method": "roots/list"}}, "requestState": "1"}
    raise Refusal({"code": -32601, "message": "Method not found"})


def main():
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "notifications/cancelled":
            listening.pop(message["params"]["requestId"], None)
        if "id" not in message:
            continue
        if message["method"] == "subscriptions/listen":
            listening[message["id"]] = message["params"]["notifications"]
            send({"method": "notifications/subscriptions/acknowledged",
                  "params": {"_meta": {META + "subscriptionId": message["id"]},
                             "notifications": message["params"]["notifications"]}})
            continue
        try:
            send({"id": message["id"], "result": {"resultType": "complete", **answer(message)}})
        except Refusal as refusal:
            send({"id": message["id"], "error": refusal.args[0]})


if __name__ == "__main__":
    main()
