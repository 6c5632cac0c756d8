#!/usr/bin/python3
"""An MCP server of the stateless era (2026-07-28), standard library only, with one tool that is named after its process.

--public: says that its list of tools is the same for everybody.
"""

import json
import os
import sys

VERSION = "2026-07-28"


def answer(method):
    if method == "server/discover":
        return {"resultType": "complete", "supportedVersions": [VERSION], "capabilities": {"tools": {}},
                "serverInfo": {"name": "stateless", "version": "1"}, "ttlMs": 3600000, "cacheScope": "public"}
    if method == "tools/list":
        return {"resultType": "complete", "tools": [{"name": f"tool-{os.getpid()}", "inputSchema": {"type": "object"}}],
                "ttlMs": 3600000, "cacheScope": "public" if "--public" in sys.argv else "private"}
    return {"resultType": "complete", "content": [{"type": "text", "text": str(os.getpid())}]}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message["method"])}), flush=True)
