#!/usr/bin/python3
"""A worker of protocol control: its requests come as control_request, in JSON Lines.

Subtypes: echo (gives the request back), fail (an error), slow (answers after "seconds", unless it is cancelled), noise (stray
prints and messages of other types, then an answer), flat (answers without the inner object), silent (never answers).
"""

import json
import sys
import threading

lock = threading.Lock()
cancelled = set()


def say(message):
    with lock:
        print(json.dumps(message), flush=True)


def answer(request_id, response):
    say({"type": "control_response",
         "response": {"subtype": "success", "request_id": request_id, "response": response}})


def slowly(request_id, seconds):
    event = threading.Event()
    for _ in range(int(seconds * 100)):
        event.wait(0.01)
        if request_id in cancelled:
            say({"type": "cancelled", "request": request_id})
            return
    answer(request_id, "slept")


def handle(message):
    request_id, request = message["request_id"], message["request"]
    subtype = request["subtype"]
    if subtype == "fail":
        say({"type": "control_response",
             "response": {"subtype": "error", "request_id": request_id, "error": "it can't be done"}})
    elif subtype == "slow":
        threading.Thread(target=slowly, args=(request_id, request["seconds"]), daemon=True).start()
    elif subtype == "noise":
        print("a stray print", flush=True)
        say({"type": "progress", "percent": 50})
        say({"type": "control_response",
             "response": {"subtype": "success", "request_id": "99999", "response": "nobody's"}})
        answer(request_id, "after the noise")
    elif subtype == "flat":
        say({"type": "control_response", "subtype": "success", "request_id": request_id, "response": request})
    elif subtype != "silent":
        answer(request_id, request)


for line in sys.stdin:
    message = json.loads(line)
    if message["type"] == "control_request":
        handle(message)
    elif message["type"] == "control_cancel_request":
        cancelled.add(message["request_id"])
