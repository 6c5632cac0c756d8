"""Everything at once: users that call, look, manage, confirm and leave, a polkit in all its moods, a configuration that
changes. At the end the service is whole, owes nobody an answer, and leaves when it is idle."""

import os
import random
import time

import pytest

from caller import CallFailed
from mock_polkit import MockPolkit
from waiting import settle, turn_loop

USERS = (1, 2, 3)
WAIT_ALL = 20  # for polkit
MOODS = ["yes"] * 8 + ["no", "no", "challenge", ("error", "a.b", "é" * 300), ("body", "(s)", ("yes",)),
                       ("after", 0.02, "yes"), ("after", 0.2, "yes"), ("after", 0.2, "no"), "silence"]
LEGAL = {"AccessDenied", "InteractiveAuthorizationRequired", "LimitsExceeded", "NoSuchServer", "Remote", "Cancelled",
         "InvalidArguments", "InvalidJson", "Unavailable", "ServerDisabled", "WorkerDied", "NoReply", "Disconnected"}


def requests(caller, dice):
    tool = f"tool-{dice.randrange(40)}"
    server = dice.choice(["echo", "mine", "common", "changing", "nowhere"])
    yield "CallTool", "sss", server, dice.choice([tool, "pid"]), ""
    yield "Call", "sss", server, "tools/call", dice.choice(['{"name":"%s"}' % tool, '{"name":"a","Name":"b"}', "{", "[]"])
    yield "CallBatch", "sa(ss)", server, [("tools/call", '{"name":"t-%d"}' % dice.randrange(60)) for _ in range(dice.randrange(1, 30))]
    yield "Notify", "sss", server, "notifications/x", ""
    yield "Describe", "s", server
    yield "ListTools", "s", server
    yield "ListServers", ""
    if dice.random() < 0.2:
        yield dice.choice([("StopServer", "s", server), ("RestartServer", "s", server), ("Reload", "")])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_chaos(make_service, seed):
    if os.getuid() != 0:
        pytest.skip("only root can be several users")
    service = make_service(system=True, idle_timeout=8, log_level="error", private=True)
    service.start_bus()
    service.let_others_in()
    dice = random.Random(seed)
    keep_alive = {"timeout": 0.5}
    service.echo("echo", keep_alive=keep_alive)
    service.echo("mine", scope="client", keep_alive=keep_alive)
    service.echo("common", scope="shared", keep_alive=keep_alive)
    polkits = [MockPolkit(service.bus.address, lambda _: dice.choice(MOODS))]
    service.caller().list_servers()

    def connect():
        return dice.choice([service.caller, service.private_caller])(uid=dice.choice(USERS))

    callers = [connect() for _ in range(6)]
    pid = service.pid
    pending = []
    end = time.monotonic() + 6
    while time.monotonic() < end:
        at = dice.randrange(len(callers))
        for member, signature, *args in requests(callers[at], dice):
            if dice.random() < 0.5:
                interactive = dice.random() < 0.1
                pending.append((callers[at], callers[at].begin(member, signature, *args, interactive=interactive)))
        if dice.random() < 0.1:
            pending.append((callers[at], callers[at].begin("GetManagedObjects", "",
                                                           interface="org.freedesktop.DBus.ObjectManager")))
        if dice.random() < 0.05:
            callers[at].close()
            callers[at] = connect()
        if dice.random() < 0.02:
            service.echo("changing", keep_alive=keep_alive, executor=dice.random() < 0.5, access=dice.choice(["polkit", {"users": [1]}]))
        if dice.random() < 0.02:
            polkits.pop().close()
            polkits.append(MockPolkit(service.bus.address, lambda _: dice.choice(MOODS)))
        turn_loop(0.005)
    polkits[0].rule = "no"
    settle(1)
    for caller, one in pending:
        if caller.closed or one.interactive and not one.done:
            continue
        try:
            one.wait(WAIT_ALL)
        except CallFailed as error:
            assert error.name.rpartition(".")[2] in LEGAL, error
        assert one.answers == 1
    assert service.pid == pid
    daemon = service.daemon()
    for caller in callers:
        caller.close()
    service.wait_gone(daemon, 30)
    for polkit in polkits:
        polkit.close()
