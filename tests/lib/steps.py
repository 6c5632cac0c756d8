"""Workers of the protocols lines and once that do what the params of their calls say, and calls of them."""

import json

# Does what its params say: a list of steps, {"out": TEXT}, {"sleep": SECONDS}, {"exit": STATUS}, {"close": FD}, {"stop": 1}.
STEPS = r"""
import json, os, signal, sys, time
def run(steps):
    for step in steps:
        for what, value in step.items():
            if what == "out": os.write(1, value.encode("latin-1"))
            elif what == "sleep": time.sleep(value)
            elif what == "exit": os._exit(value)
            elif what == "close": os.close(value)
            elif what == "stop": os.kill(os.getpid(), signal.SIGSTOP)
            elif what == "pid": os.write(1, b"%d\n" % os.getpid())
"""
LINES = STEPS + "for line in sys.stdin: run(json.loads(line))"
ONCE = STEPS + "run(json.load(sys.stdin))"


def call(caller, server, params="", method="any"):
    return json.loads(caller.invoke("Call", "sss", server, method, params if isinstance(params, str) else json.dumps(params)))


def begin(caller, server, params="", method="any"):
    return caller.begin("Call", "sss", server, method, params if isinstance(params, str) else json.dumps(params))


def out(text):
    return [{"out": text}]


def pid(caller):
    return call(caller, "steps", [{"pid": 1}])
