"""Workers of the protocol control that do what they shouldn't."""

import json
import signal

import pytest

from caller import fails
from processes import Process
from service import PYTHON, REPO
from steps import begin, call
from waiting import SLOWNESS, eventually, settle

CONTROL = str(REPO / "tests/workers/control.py")
MIB = 1 << 20


@pytest.fixture
def control(service, caller):
    def make(script=None, **keys):
        command = [CONTROL] if script is None else ["-u", "-c", script]
        service.server("control", PYTHON, *command, protocol="control", **keys)
        return caller
    return make


RESPOND = r"""
import json, os, sys, time
def respond(line, response, **more):
    m = json.loads(line)
    print(json.dumps({"type": "control_response", "response": {"subtype": "success", "request_id": m["request_id"], "response": response}, **more}))
"""


def test_control_lines_that_are_too_large(control):
    """The call whose answer it is gets an error at once; the worker, and its other calls, go on."""
    caller = control(RESPOND + "for line in sys.stdin: respond(line, 'x' * (1000000 if 'big' in line else 5))", limits={"message": 100000})
    for _ in range(3):
        with fails("TooLarge", "limits.message"):
            call(caller, "control", "", "big")
        assert call(caller, "control", "", "small") == "xxxxx"
    assert len(caller.workers()) == 1


def test_a_control_line_of_100_megabytes(control, service):
    caller = control("import sys\nfor line in sys.stdin:\n for _ in range(400): sys.stdout.write('x' * 262144)",
                     limits={"message": MIB})
    with fails("ProtocolError", "limits.message"):
        call(caller, "control")


def test_control_answers_that_are_no_json(control):
    """Cut, too deep, with bytes that are no text: the call fails at once, by its id."""
    caller = control(RESPOND + r"""
for line in sys.stdin:
    m = json.loads(line); what = m["request"]["subtype"]; i = m["request_id"]
    bad = {"deep": '[' * 100 + ']' * 100, "number": "01", "word": "nothing", "bytes": '"\udcff"', "nul": '"\0"', "good": '1'}[what]
    text = '{"type":"control_response","response":{"subtype":"success","request_id":"%s","response":%s}}\n' % (i, bad)
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape")); sys.stdout.flush()
""")
    for what in ("deep", "number", "word", "bytes", "nul"):
        with fails("ProtocolError", "no valid JSON"):
            call(caller, "control", "", what)
    assert call(caller, "control", "", "good") == 1
    assert len(caller.workers()) == 1


def test_a_control_answer_of_neither_kind(control):
    caller = control("import json, sys\nfor line in sys.stdin: print(json.dumps({'type': 'control_response', 'response':"
                     " {'subtype': 'maybe', 'request_id': json.loads(line)['request_id']}}))")
    with fails("ProtocolError", "maybe"):
        call(caller, "control")


def test_a_notification_is_nobodys_answer(control):
    """An oversized or broken message with id and result, as an MCP server's answer has them, is no answer here."""
    caller = control(RESPOND + r"""
for line in sys.stdin:
    print('{"type":"report","id":1,"result":01}'); print('{"type":"report","id":1,"result":"' + 'x' * 200000 + '"}')
    print('{"type":"report","request_id":"1","subtype":"success","x":01}')
    time.sleep(0.2); respond(line, "answer")
""", limits={"message": 100000})
    assert call(caller, "control") == "answer"


def test_control_that_is_stopped_is_replaced(control):
    """It can't be asked whether it lives: one that let a call time out, and has said nothing since, is taken for dead."""
    caller = control(timeouts={"call": 1 * SLOWNESS})
    assert call(caller, "control", "", "echo") == {"subtype": "echo"}
    first = caller.workers()[0]["Pid"]
    Process.of(first).kill(signal.SIGSTOP)
    pending = [begin(caller, "control", "", "echo") for _ in range(3)]
    for one in pending:
        with fails("Timeout"):
            one.wait()
    assert call(caller, "control", "", "echo") == {"subtype": "echo"}
    eventually(lambda: not Process.of(first), "the stopped one is gone")


def test_control_with_one_silent_call_stays(control):
    caller = control(timeouts={"call": 1 * SLOWNESS})
    assert call(caller, "control", "", "echo") == {"subtype": "echo"}
    first = caller.workers()[0]["Pid"]
    silent = begin(caller, "control", "", "silent")
    for _ in range(6):
        settle(0.25 * SLOWNESS)
        assert call(caller, "control", "", "echo") == {"subtype": "echo"}
    with fails("Timeout"):
        silent.wait()
    assert call(caller, "control", "", "echo") == {"subtype": "echo"}
    assert [w["Pid"] for w in caller.workers()] == [first]


def test_control_that_exits_in_the_middle(control):
    caller = control("import os, sys\nsys.stdin.readline(); sys.stdout.write('{\"type\":\"control_response\",\"resp'); sys.stdout.flush(); os._exit(4)",
                     restart={"burst": 0})
    for _ in range(3):
        with fails("WorkerDied", "status 4"):
            call(caller, "control")


@pytest.mark.parametrize("keys", [{"keep_alive": False}, {"isolation": "fresh"}])
def test_control_with_a_process_for_each_call(control, keys):
    caller = control("import json, os, sys\nfor line in sys.stdin: print(json.dumps({'type': 'control_response', 'response':"
                     " {'subtype': 'success', 'request_id': json.loads(line)['request_id'], 'response': os.getpid()}}))", **keys)
    pids = [call(caller, "control") for _ in range(4)]
    assert len(set(pids)) == 4


def test_control_answers_twice(control):
    caller = control(RESPOND + "for line in sys.stdin: respond(line, 1); respond(line, 2)", pool={"max": 1})
    for _ in range(20):
        assert call(caller, "control") == 1
    eventually(lambda: caller.workers()[0]["LateAnswers"] == 20, "the second ones are counted")


def test_control_restart_and_stop_while_calls_run(control):
    caller = control(timeouts={"stop": 0.2})
    pending = [begin(caller, "control", '{"seconds": 0.5}', "slow") for _ in range(4)]
    eventually(lambda: caller.server("control")["CallsInFlight"] == 4, "they run")
    caller.restart_server("control")
    assert [json.loads(one.wait()) for one in pending] == ["slept"] * 4
    pending = [begin(caller, "control", '{"seconds": 30}', "slow") for _ in range(4)]
    eventually(lambda: caller.server("control")["CallsInFlight"] == 4, "they run")
    caller.stop_server("control")
    for one in pending:
        with fails("Cancelled"):
            one.wait()


def test_an_idempotent_control_request(control, service):
    journal = service.folder / "journal"
    caller = control(f"import os, sys\nsys.stdin.readline(); open({str(journal)!r}, 'a').write('run\\n'); os._exit(1)", idempotent=True,
                     restart={"burst": 0})
    with fails("WorkerDied", "status 1"):
        call(caller, "control")
    assert journal.read_text() == "run\nrun\n"


def test_a_batch_over_control(control):
    caller = control()
    results = caller.call_batch("control", *[("echo" if i % 2 else "fail", {"n": i}) for i in range(50)])
    assert [good for good, _ in results] == [bool(i % 2) for i in range(50)]
