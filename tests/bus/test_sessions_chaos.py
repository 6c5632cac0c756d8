"""Sessions that do all they can at once, while workers die and the server is restarted: each call has one answer, its own."""

import json
import os
import random
import signal

import pytest
from session import META, MODERN, Closed, Session
from test_sessions_questions import EVERYTHING, SAMPLED, answering

ASK = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}
META_OF_MODERN = {META + "protocolVersion": MODERN, META + "clientCapabilities": {"sampling": {}}}


class Chaotic:
    """One client, with what it waits for."""

    def __init__(self, caller, number, dice):
        self.session = Session.open(caller, "obedient", answering(str(number)))
        self.number, self.dice, self.waiting = number, dice, {}
        self.modern = dice.random() < 0.3
        if not self.modern:
            self.session.begin("initialize", {"protocolVersion": "2025-11-25", "clientInfo": {},
                                              "capabilities": dice.choice(({}, EVERYTHING, {"sampling": {}}))}, id="hello")
            self.waiting["hello"] = None

    def call(self, tool, expected, **arguments):
        params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": self.number}}
        if self.modern:
            params["_meta"].update(META_OF_MODERN)
        self.waiting[self.session.begin("tools/call", params)] = expected

    def act(self):
        word = f"{self.number} {self.dice.random()}"
        what = self.dice.randrange(12)
        if what < 4:
            self.call("echo", word, message=word)
        elif what < 6:
            self.call("sleep", word, seconds=self.dice.random() / 10, message=word)
        elif what == 6:
            self.call("ask", None, **ASK)
        elif what == 7 and self.waiting:
            id = self.dice.choice([id for id in self.waiting])
            if id != "hello":
                self.session.notify("notifications/cancelled", {"requestId": id})
                del self.waiting[id]
        elif what == 8:
            self.call("learn", None, name=word)
        elif what == 9:
            self.call("big", None, size=self.dice.randrange(200_000))
        elif what == 10:
            self.session.write("nonsense\n")
        elif what == 11:
            self.session.notify("notifications/roots/list_changed")

    def collect(self):
        for id, expected in list(self.waiting.items()):
            answers = self.session.answers.pop(json.dumps(id), None)
            if not answers:
                continue
            assert len(answers) == 1
            del self.waiting[id]
            result = answers[0].get("result")
            if result and result.get("resultType") == "input_required":
                # Whichever of the client's calls has it: the answer finds its way.
                answered = {key: SAMPLED for key in result["inputRequests"]}
                self.waiting[self.session.begin("tools/call", {
                    "name": "echo", "arguments": {}, "_meta": META_OF_MODERN, "inputResponses": answered,
                    "requestState": result["requestState"]})] = expected
            elif expected and result:
                assert result["content"][0]["text"] == expected


@pytest.mark.parametrize("seed", range(3))
def test_chaos(service, caller, seed):
    dice = random.Random(seed)
    service.obedient(pool={"max": 3, "concurrency": 4, "queue": 8}, restart={"burst": 1000}, timeouts={"stop": 0.2})
    clients = [Chaotic(caller, number, dice) for number in range(8)]
    for round in range(120):
        client = dice.choice(clients)
        try:
            for _ in range(dice.randrange(6)):
                client.act()
            client.session.turn(0.001)
        except (Closed, BrokenPipeError):
            raise AssertionError("a session was closed") from None
        client.collect()
        fate = dice.random()
        if fate < 0.05:
            clients.remove(client)
            client.session.close()
            clients.append(Chaotic(caller, 100 + round, dice))
        elif fate < 0.09:
            workers = caller.workers("obedient")
            if workers and workers[0]["Pid"]:
                try:
                    os.kill(workers[0]["Pid"], signal.SIGKILL)
                except ProcessLookupError:
                    pass
        elif fate < 0.11:
            caller.restart_server("obedient")
        elif fate < 0.13:
            service.obedient(pool={"max": dice.randrange(1, 4), "concurrency": 4, "queue": 8}, restart={"burst": 1000},
                             timeouts={"stop": 0.2}, description=str(round))
        elif fate < 0.14:
            caller.stop_server("obedient")

    for client in clients:
        while client.waiting:
            client.session.turn(0.05)
            client.collect()
        if not client.modern:
            assert client.session.request("ping") == {}
        client.session.close()
