"""How sessions begin and end, what they may take, and what outlives them."""

import json
import os
import signal
import socket

import dbus
import pytest
from caller import ALICE, BOB, DENIED, fails
from service import SANITIZED
from session import Session, refused
from waiting import eventually, settle


def attach(caller, server, their_input, their_output):
    return caller.invoke("AttachSession", "shha{sv}", server, dbus.types.UnixFd(their_input), dbus.types.UnixFd(their_output),
                         dbus.Dictionary({}, signature="sv"))


def test_what_was_asked_before_the_end_is_answered(service, open_session):
    service.obedient()
    session = open_session()
    calls = [session.begin_tool("sleep", seconds=0.3, message=str(number)) for number in range(5)]
    session.finish()
    assert [session.text(id) for id in calls] == ["0", "1", "2", "3", "4"]
    session.until_closed()


def test_a_closed_session_cancels_its_calls(service, open_session, caller):
    service.obedient(pool={"max": 1})
    session, other = open_session(), open_session()
    session.begin_tool("sleep", seconds=600)
    eventually(lambda: caller.property("CallsInFlight") == 1)
    session.close()
    eventually(lambda: caller.property("CallsInFlight") == 0)
    assert other.tool_json("notifications")[-1]["method"] == "notifications/cancelled"


def test_an_attached_session_ends_with_its_client_on_the_bus(service):
    service.obedient()
    leaving = service.caller()
    mine, theirs = socket.socketpair()
    attach(leaving, "obedient", theirs.fileno(), theirs.fileno())
    theirs.close()
    session = Session(mine)
    session.initialize()
    leaving.close()
    session.until_closed()
    session.close()


def test_an_attached_session_tells_its_end(service, caller):
    service.obedient()
    closed, other = caller.signals("SessionClosed"), service.caller().signals("SessionClosed")
    mine, theirs = socket.socketpair()
    id = attach(caller, "obedient", theirs.fileno(), theirs.fileno())
    theirs.close()
    session = Session(mine)
    session.initialize()
    session.finish()
    session.until_closed()
    eventually(lambda: closed.seen)
    assert [(seen[1], seen[2]) for seen in closed.seen] == [(id, "")], "its own wish is no reason"
    settle(0.1)
    assert not other.seen
    session.close()


def test_ends_that_will_not_do(service, caller, tmp_path):
    service.obedient()
    read_end, write_end = os.pipe()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    folder = os.open(tmp_path, os.O_PATH)
    zero = os.open("/dev/zero", os.O_RDWR)
    for ends in ((write_end, write_end), (read_end, read_end), (udp.fileno(), write_end), (folder, write_end),
                 (zero, write_end), (read_end, zero)):
        with fails("InvalidArguments", "pipes and Unix stream sockets"):
            attach(caller, "obedient", *ends)
    udp.close()
    for end in (read_end, write_end, folder, zero):
        os.close(end)


def test_the_pipes_of_a_client_stay_as_they_are(service, caller):
    """Whether they block is the client's own affair."""
    service.obedient()
    (their_input, my_output), (my_input, their_output) = os.pipe(), os.pipe()
    attach(caller, "obedient", their_input, their_output)
    assert all(os.get_blocking(end) for end in (their_input, their_output, my_input, my_output))
    for end in (their_input, their_output, my_input, my_output):
        os.close(end)


def test_servers_that_have_no_sessions(service, caller):
    service.server("cat", "/bin/cat", protocol="lines")
    service.obedient("off", disabled=True)
    service.server("broken", "/nonexistent")
    with fails("InvalidArguments", "its protocol is lines"):
        Session.open(caller, "cat")
    with fails("ServerDisabled"):
        Session.open(caller, "off")
    with fails("InvalidArguments", "no option"):
        Session.open(caller, "broken", shiny=True)
    # That it can't be started is said on the session, where initialize asks for it.
    session = Session.open(caller, "broken")
    with refused(-32000, "No such file") as refusal:
        session.initialize()
    assert refusal.error.data["error"] == "org.example.McpExec.Error.LaunchFailed"
    session.close()


def test_the_private_socket_passes_no_descriptors(make_service):
    service = make_service(private=True)
    service.obedient()
    service.run_directly()
    with fails("InvalidArguments", "on the bus"):
        Session.open(service.private_caller(), "obedient")


def test_so_many_sessions(service, caller):
    service.obedient()
    service.settings(limits={"sessions_per_user": 3})
    sessions = [Session.open(caller, "obedient") for _ in range(3)]
    with fails("LimitsExceeded", "sessions_per_user"):
        Session.open(caller, "obedient")
    sessions.pop().close()
    eventually(lambda: not fails_to_open(caller))
    for session in sessions:
        session.close()


def fails_to_open(caller):
    try:
        Session.open(caller, "obedient").close()
    except Exception:
        return True
    return False


def test_sessions_of_all_users_and_of_one(system_service):
    system_service.obedient(access={"users": [ALICE, BOB]})
    system_service.settings(limits={"sessions_per_user": 2, "sessions": 3})
    alice, bob = system_service.caller(uid=ALICE), system_service.caller(uid=BOB)
    sessions = [Session.open(alice, "obedient") for _ in range(2)]
    with fails("LimitsExceeded", "sessions_per_user"):
        Session.open(alice, "obedient")
    sessions.append(Session.open(bob, "obedient"))
    with fails("LimitsExceeded", r"limits\.sessions "):
        Session.open(bob, "obedient")
    for session in sessions:
        session.close()


def test_another_users_workers_are_others(system_service):
    system_service.obedient(access={"users": [ALICE, BOB]})
    pids = set()
    for uid in (ALICE, BOB, ALICE):
        session = Session.open(system_service.caller(uid=uid), "obedient")
        session.initialize()
        pids.add(session.tool_text("pid"))
        session.close()
    assert len(pids) == 2


def test_who_may_not_call_gets_no_session(system_service):
    system_service.obedient(access={"users": [ALICE]})
    with fails(DENIED):
        Session.open(system_service.caller(uid=BOB), "obedient")
    with fails("InvalidArguments", "OpenSession"):
        attach(system_service.caller(uid=ALICE), "obedient", 0, 0)


def test_polkit_is_asked_once_at_the_opening(system_service, make_polkit):
    system_service.obedient()
    polkit = make_polkit("yes")
    session = Session.open(system_service.caller(uid=BOB), "obedient")
    asked = len(polkit.questions)
    assert asked >= 1
    session.initialize()
    for _ in range(3):
        session.tool("echo", message="x")
    assert len(polkit.questions) == asked
    session.close()


def test_a_session_counts_as_a_client(service, open_session):
    """With scope client its worker is its own, and gone with it."""
    service.obedient(scope="client")
    one, other = open_session(), open_session()
    pid = int(one.tool_text("pid"))
    assert pid != int(other.tool_text("pid"))
    one.close()
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "its worker has ended")
    assert other.tool_text("echo", message="x") == "x"


def test_the_service_stays_for_a_session(make_service):
    service = make_service(idle_timeout=0.5)
    service.obedient(keep_alive={"enabled": True, "timeout": 1, "check_interval": 0})
    caller = service.caller()
    session = Session.open(caller, "obedient")
    session.initialize()
    daemon = service.daemon()
    eventually(lambda: not service.worker_processes(), "the worker was idle")
    settle(1.5)
    assert daemon.alive()
    assert session.tool_text("echo", message="there again") == "there again"
    session.close()
    service.wait_gone(daemon)


def test_a_service_that_is_stopped_answers_first(service, open_session):
    service.obedient()
    session = open_session()
    sleeping = session.begin_tool("sleep", seconds=1, message="slept")
    session.tool("echo", message="it is asleep")
    daemon = service.daemon()
    os.kill(daemon.pid, signal.SIGTERM)
    assert session.text(sleeping) == "slept"
    session.until_closed()
    service.wait_gone(daemon)


def test_a_worker_dies_and_the_session_goes_on(service, open_session):
    service.obedient()
    session = open_session()
    pid = session.tool_text("pid")
    with refused(-32000, "killed by signal SIGKILL"):
        session.tool("die")
    assert session.tool_text("pid") != pid


def test_a_restart_and_a_new_configuration_leave_sessions_open(service, open_session, caller):
    service.obedient()
    session = open_session()
    pid = session.tool_text("pid")
    caller.restart_server("obedient")
    eventually(lambda: session.tool_text("pid") != pid)
    pid = session.tool_text("pid")
    service.obedient(description="another")
    caller.reload()
    eventually(lambda: session.tool_text("pid") != pid)
    caller.stop_server("obedient")
    assert session.tool_text("echo", message="it is started again") == "it is started again"


@pytest.mark.parametrize("change", ["gone", "disabled", "scope"])
def test_a_server_that_goes_ends_its_sessions(service, open_session, caller, change):
    path = service.obedient()
    session = open_session()
    if change == "gone":
        path.unlink()
    elif change == "disabled":
        service.obedient(disabled=True)
    else:
        service.obedient(scope="shared")
    caller.reload()
    session.until_closed()


def test_requests_past_the_limit_wait(service, open_session):
    service.obedient(pool={"max": 1, "concurrency": 2, "queue": 0})
    service.settings(limits={"calls_per_connection": 4, "calls_per_user": 6})
    one, other = open_session(), open_session()
    calls = [(session, session.begin_tool("sleep", seconds=0.02, message=str(number))) for number in range(40)
             for session in (one, other)]
    for session, id in calls:
        session.text(id)


def test_a_request_that_waits_can_be_cancelled(service, open_session):
    service.obedient()
    service.settings(limits={"calls_per_connection": 1})
    session = open_session()
    first = session.begin_tool("sleep", seconds=1, message="first")
    second = session.begin_tool("echo", message="second")
    third = session.begin_tool("echo", message="third")
    session.notify("notifications/cancelled", {"requestId": second})
    assert session.request("ping") == {}
    assert session.text(third) == "third" and session.text(first) == "first"
    assert json.dumps(second) not in session.answers


def test_a_client_that_does_not_read_costs_only_itself(service, open_session, caller):
    service.obedient(limits={"message": 1 << 25})
    deaf, other = open_session(), open_session()
    for _ in range(12):
        deaf.begin_tool("big", size=4 << 20)
    assert other.tool_text("echo", message="x") == "x"
    eventually(lambda: caller.property("CallsInFlight") == 0, "its calls are over", 30)
    assert other.tool_text("echo", message="x") == "x"
    # It was given up, or its answers wait: never more than a bound.
    assert SANITIZED or service.private_memory() < 64 << 20
    deaf.close()
    assert other.tool_text("echo", message="x") == "x"


def test_a_client_that_reads_late_gets_all(service, open_session):
    service.obedient()
    session = open_session()
    calls = [session.begin_tool("big", size=300_000) for _ in range(10)]
    settle(0.5)
    for id in calls:
        assert len(session.text(id)) == 300_000


def test_large_requests_and_results(service, open_session):
    service.obedient()
    session = open_session()
    text = "ä" * 3_000_000
    assert session.tool_text("echo", message=text) == text


def test_twenty_clients_on_one_worker(service, open_session):
    service.obedient(pool={"max": 1})
    sessions = [open_session() for _ in range(20)]
    calls = [(session, number, round, session.begin_tool("echo", message=f"{number} {round}"))
             for round in range(10) for number, session in enumerate(sessions)]
    for session, number, round, id in calls:
        assert session.text(id) == f"{number} {round}"
    assert len({session.tool_text("pid") for session in sessions}) == 1
    assert not any(session.notices for session in sessions)
