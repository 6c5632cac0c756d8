#!/usr/bin/python3
"""A worker of protocol control: its requests come as control_request, in JSON Lines.

Subtypes: echo (gives the request back), fail (an error), slow (answers after "seconds", unless it is cancelled), noise (stray
prints and messages of other types, then an answer), flat (answers without the inner object), silent (never answers), until
(answers when there is a file "path", or with an error when it is cancelled, unless it is "deaf"), pid.
"""

import json
import os
import sys
import threading
import time

lock = threading.Lock()
cancelled = set()


def say(message):
    with lock:
        print(json.dumps(message), flush=True)


def answer(request_id, response):
    say({"type": "control_response",
         "response": {"subtype": "success", "request_id": request_id, "response": response}})


def refuse(request_id, why):
    say({"type": "control_response", "response": {"subtype": "error", "request_id": request_id, "error": why}})


def slowly(request_id, seconds):
    event = threading.Event()
    for _ in range(int(seconds * 100)):
        event.wait(0.01)
        if request_id in cancelled:
            say({"type": "cancelled", "request": request_id})
            return
    answer(request_id, "slept")


def wait_for_file(request_id, path, deaf):
    while not os.path.exists(path):
        if request_id in cancelled and not deaf:
            refuse(request_id, "it was cancelled")
            return
        time.sleep(0.02)
    answer(request_id, "it is there")


def handle(message):
    request_id, request = message["request_id"], message["request"]
    subtype = request["subtype"]
    if subtype == "fail":
        refuse(request_id, "it can't be done")
    elif subtype == "pid":
        answer(request_id, os.getpid())
    elif subtype == "until":
        threading.Thread(target=wait_for_file, args=(request_id, request["path"], request.get("deaf")), daemon=True).start()
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
        say({"type": "told", "request": message["request_id"]})
