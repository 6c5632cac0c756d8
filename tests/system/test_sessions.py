"""Sessions on the system bus: authorised when they are opened, with workers of their user's own."""

import socket

import dbus
import pytest

from caller import fails
from machine import BROKER, DENIED, systemctl, uid, worker_units
from session import Session
from waiting import eventually


@pytest.fixture
def open_session():
    opened = []

    def make(caller, server="python"):
        session = Session.open(caller, server)
        opened.append(session)
        session.initialize()
        return session

    yield make
    for session in opened:
        session.close()


def text(session, code):
    return session.tool("run", code=code)["structuredContent"]["stdout"]


def test_a_member_has_a_session_and_shares_its_worker(machine, alice, open_session):
    session = open_session(alice)
    assert text(session, "x = 42; print(x)") == "42\n"
    assert '"stdout":"42\\n"' in alice.call_tool("python", "run", {"code": "print(x)"})
    worker, = machine.root.workers("python")
    assert worker["Owner"] == f"uid:{uid('alice')}"


def test_another_users_session_has_another_worker(alice, bob, open_session):
    mine, his = open_session(alice), open_session(bob)
    text(mine, "secret = 1")
    assert text(his, "print('secret' in globals())") == "False\n"


def test_who_may_not_call_has_no_session(machine, open_session):
    carol = machine.caller("carol")
    with fails(DENIED):
        open_session(carol)
    assert machine.root.property("SessionsOpen") == 0


def test_a_session_is_its_users_to_see(machine, alice, bob, open_session):
    open_session(alice)
    assert alice.property("SessionsOpen") == machine.root.property("SessionsOpen") == 1
    assert bob.property("SessionsOpen") == 0


def test_another_users_pipes_are_refused(alice):
    mine, theirs = socket.socketpair()
    with fails("InvalidArguments", "OpenSession"):
        alice.invoke("AttachSession", "shha{sv}", "python", dbus.types.UnixFd(theirs.fileno()),
                     dbus.types.UnixFd(theirs.fileno()), dbus.Dictionary({}, signature="sv"))


def test_the_service_is_stopped_with_a_session_open(machine, alice, open_session):
    session = open_session(alice)
    systemctl("stop", BROKER)
    session.until_closed()
    eventually(lambda: not worker_units(), "no worker is left")
