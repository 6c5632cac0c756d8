#!/usr/bin/python3
"""An MCP server whose words are long, wide, and of several lines."""

import json
import sys

FORECAST = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "The city whose weather is wanted, with its country behind a comma where several are named so"},
        "an_argument_with_a_name_that_is_longer_than_those_of_others": {"type": ["number", "null"], "description": "How many"},
        "単位": {"type": "string", "enum": ["摂氏", "華氏"], "description": "温度の単位、摂氏または華氏。これはとても長い説明です。それでも読めるはずです。"},
        "lines": {"type": "array", "description": "Line one\nline two"},
    },
    "required": ["city"],
}
DESCRIPTION = """Returns the weather of a city for so many days, from the stations that are nearest to it.

Args:
    city: the city, with a description that is so long that it has to be wrapped, below its own beginning
    https://example.org/a/word/that/is/longer/than/a/line/of/a/terminal/and/has/to/stay/whole/for/copying"""
TOOLS = [
    {"name": "forecast", "description": DESCRIPTION, "inputSchema": FORECAST},
    {"name": "browser_navigate_and_take_a_screenshot_of_the_whole_page", "description": "Navigates", "inputSchema": {"type": "object"}},
    {"name": "tenki", "description": "天気予報を返します。都市名と日数を指定してください。最大十四日間まで対応しています。それ以上は無理です。", "inputSchema": {"type": "object"}},
    {"name": "emoji", "description": "\U0001f326\ufe0f weather \U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301", "inputSchema": {"type": "object"}},
]


def answer(method, params):
    if method == "initialize":
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "A server with a long name for its implementation", "version": "1.2.3"}}
    return {"tools": TOOLS} if method == "tools/list" else None


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = answer(message["method"], message.get("params"))
        reply = {"result": result} if result is not None else {"error": {"code": -32601, "message": "Method not found"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}), flush=True)
