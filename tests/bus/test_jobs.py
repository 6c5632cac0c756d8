"""Jobs: calls that outlast a bus timeout, and their caller's connection."""

import fcntl
import json
import os
import time

import pytest

from caller import ALICE, BOB, DENIED, F_GET_SEALS, F_SEAL_WRITE, JOB, fails, text_of
from mock_polkit import MANAGE
from service import SANITIZED
from waiting import eventually, settle

UNKNOWN = ("org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.UnknownMethod")



def test_a_job_has_its_result(service, caller):
    service.echo()
    path = caller.start_tool_job("echo", "echo", {"message": "hi"})
    job = caller.job_done(path)
    assert (job["State"], job["Error"], job["Tool"]) == ("succeeded", ("", ""), "echo")
    assert job["Server"] == "echo" and job["Method"] == "tools/call" and job["Owner"] == os.getuid()
    assert 0 < job["StartedTimestamp"] <= job["FinishedTimestamp"]
    assert text_of(caller.job_text(path)) == "hi"
    result = caller.job_result(path)
    assert result.decode() == caller.job_text(path) and len(result) == job["ResultSize"]


def test_nobody_can_change_a_result(service, caller):
    service.echo()
    path = caller.start_tool_job("echo", "echo", {"message": "hi"})
    caller.job_done(path)
    fd = caller.raw("GetResult", "", path=path, interface=JOB).take()
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    assert fcntl.fcntl(fd, F_GET_SEALS) & F_SEAL_WRITE
    os.close(fd)


def test_any_method_can_be_a_job(service, caller):
    service.echo()
    path = caller.start_job("echo", "tools/call", {"name": "echo", "arguments": {"message": "hi"}})
    caller.job_done(path)
    assert text_of(caller.job_text(path)) == "hi"
    path = caller.start_job("echo", "ping")
    caller.job_done(path)
    assert caller.job_text(path) == "{}"


def test_progress_and_end_are_told_to_its_owner_alone(service, caller):
    service.obedient()
    other = service.caller()
    heard = [{name: one.signals(name, interface=JOB) for name in ("Progress", "Finished")} for one in (caller, other)]
    path = caller.start_tool_job("obedient", "work", {"steps": 3, "pause": 0.01})
    eventually(lambda: heard[0]["Finished"].seen, "the job is done")
    assert heard[0]["Progress"].seen == [(path, float(n), 3.0, f"step {n}") for n in (1, 2, 3)]
    assert heard[0]["Finished"].seen == [(path, "succeeded", "", "")]
    assert caller.job(path)["LastProgress"] == (3.0, 3.0, "step 3")
    settle(0.2)
    assert not heard[1]["Progress"].seen and not heard[1]["Finished"].seen


def test_a_flood_of_progress_is_thinned_out(service, caller):
    service.obedient()
    heard, finished = (caller.signals(name, interface=JOB) for name in ("Progress", "Finished"))
    started = time.monotonic()
    path = caller.start_tool_job("obedient", "work", {"steps": 3000, "pause": 0})
    eventually(lambda: finished.seen, "the job is done", 60)
    assert 20 <= len(heard.seen) <= 20 * (time.monotonic() - started + 2)
    assert caller.job(path)["LastProgress"] == (3000.0, 3000.0, "step 3000")


def test_a_flood_of_progress_of_a_call_is_thinned_out(service, caller):
    service.obedient()
    heard = caller.signals("Notification")
    started = time.monotonic()
    params = {"name": "work", "arguments": {"steps": 3000, "pause": 0}, "_meta": {"progressToken": 7}}
    assert text_of(caller.begin_call("obedient", "tools/call", params).wait()) == "done"
    assert 20 <= len(heard.seen) <= 20 * (time.monotonic() - started + 2)


def test_a_method_of_another_name_is_asked_for_progress_too(service, caller):
    service.obedient()
    path = caller.start_job("obedient", "test/params", {"a": 1})
    caller.job_done(path)
    params = json.loads(caller.job_text(path))["params"]
    assert params["a"] == 1 and isinstance(params["_meta"]["progressToken"], int)


def test_objects_come_and_go_with_signals(service, caller):
    service.obedient()
    added = caller.signals("InterfacesAdded", interface="org.freedesktop.DBus.ObjectManager")
    removed = caller.signals("InterfacesRemoved", interface="org.freedesktop.DBus.ObjectManager")
    changed = caller.signals("PropertiesChanged", interface="org.freedesktop.DBus.Properties")
    path = caller.start_tool_job("obedient", "echo", {"message": "hi"})
    eventually(lambda: [seen for seen in changed.seen if seen[0] == path], "its state has changed")
    assert [seen[2][JOB]["State"] for seen in added.seen if seen[1] == path] == ["running"]
    assert [seen[2]["State"] for seen in changed.seen if seen[0] == path] == ["succeeded"]
    caller.cancel_job(path)
    eventually(lambda: [seen for seen in removed.seen if seen[1:] == (path, [JOB])], "it was forgotten")
    with fails(UNKNOWN):
        caller.job_text(path)


def test_progress_restarts_the_clock(service, caller):
    service.obedient(timeouts={"call": 1, "call_max": 60})
    path = caller.start_tool_job("obedient", "work", {"steps": 12, "pause": 0.25})
    assert caller.job_done(path)["State"] == "succeeded"


def test_silence_is_a_timeout(service, caller):
    service.obedient(timeouts={"call": 60, "call_max": 60})
    path = caller.start_tool_job("obedient", "sleep", {"seconds": 1000}, timeout=0.5)
    job = caller.job_done(path)
    assert job["State"] == "failed" and job["Error"][0].endswith(".Timeout") and "option timeout" in job["Error"][1]
    with fails("Timeout", "0.5 s"):
        caller.job_text(path)
    assert caller.tool_json("obedient", "notifications")[-1]["method"] == "notifications/cancelled"


def test_a_job_may_take_longer_than_a_call(service, caller):
    service.obedient(timeouts={"call": 0.3, "call_max": 60})
    path = caller.start_tool_job("obedient", "sleep", {"seconds": 1.2, "message": "hi"}, timeout=30)
    caller.job_done(path)
    assert text_of(caller.job_text(path)) == "hi"


def test_a_timeout_over_call_max_is_refused(service, caller):
    service.obedient(timeouts={"call": 1, "call_max": 5})
    with fails("InvalidArguments", "timeouts.call_max", "5 s"):
        caller.start_tool_job("obedient", "echo", timeout=6)


@pytest.mark.parametrize("options, text", [
    ({"colour": "red"}, "no option colour"),
    ({"timeout": "long"}, "timeout has type s"),
    ({"cancel_on_disconnect": 1}, "cancel_on_disconnect has type t"),
])
def test_options_are_checked(service, caller, options, text):
    service.echo()
    with fails("InvalidArguments", text):
        caller.start_job("echo", "ping", **options)
    assert not service.worker_processes()


def test_mistakes_are_said_at_once(service, caller):
    service.echo()
    with fails("NoSuchServer"):
        caller.start_job("nowhere", "ping")
    with fails("InvalidJson"):
        caller.start_job("echo", "ping", "{")
    with fails("InvalidArguments", "option tool"):
        caller.start_job("echo", "ping", tool="echo")
    assert caller.jobs() == {}


def test_a_result_that_is_not_there_yet(service, caller):
    service.obedient()
    path = caller.start_tool_job("obedient", "sleep", {"seconds": 1000})
    for member in ("GetResult", "GetResultText"):
        with fails("NotFinished"):
            caller.raw(member, "", path=path, interface=JOB)
    caller.cancel_job(path)


def test_cancel_reaches_the_worker(service, caller):
    service.obedient()
    finished = caller.signals("Finished", interface=JOB)
    path = caller.start_tool_job("obedient", "sleep", {"seconds": 1000})
    caller.tool_text("obedient", "pid")
    caller.cancel_job(path)
    assert caller.job_done(path)["State"] == "cancelled"
    eventually(lambda: finished.seen, "Finished")
    assert finished.seen[0][1:3] == ("cancelled", "org.example.McpExec.Error.Cancelled")
    with fails("Cancelled"):
        caller.job_text(path)
    eventually(lambda: "notifications/cancelled" in str(caller.tool_json("obedient", "notifications")), "the worker knows")


def test_a_failed_job_says_why(service, caller):
    service.obedient()
    path = caller.start_tool_job("obedient", "refuse", {"code": -32001, "message": "not today"})
    assert caller.job_done(path)["Error"][0].endswith(".Remote")
    with fails("Remote", "not today"):
        caller.job_result(path)
    path = caller.start_tool_job("obedient", "die")
    assert caller.job_done(path)["Error"][0].endswith(".WorkerDied")


def test_a_job_outlives_its_caller(service, caller):
    service.obedient()
    first = service.caller()
    path = first.start_tool_job("obedient", "sleep", {"seconds": 0.5, "message": "still here"})
    first.close()
    assert path in caller.jobs()
    assert caller.job_done(path)["State"] == "succeeded"
    assert text_of(caller.job_text(path)) == "still here"


def test_unless_it_was_told_not_to(service, caller):
    service.obedient()
    first = service.caller()
    path = first.start_tool_job("obedient", "sleep", {"seconds": 1000}, cancel_on_disconnect=True)
    assert caller.job(path)["State"] == "running"
    first.close()
    assert caller.job_done(path)["State"] == "cancelled"


def test_scope_client_ends_with_its_connection(service, caller):
    service.obedient(scope="client")
    first = service.caller()
    path = first.start_tool_job("obedient", "sleep", {"seconds": 1000})
    eventually(lambda: first.property("CallsInFlight") == 1 and service.worker_processes(), "it is under way")
    first.close()
    job = caller.job_done(path)
    assert job["State"] == "cancelled" and "its client has left" in job["Error"][1]
    eventually(lambda: not service.worker_processes(), "its worker is gone")


@pytest.mark.skipif(SANITIZED, reason="memory says nothing under a sanitizer")
def test_what_a_job_was_asked_is_not_kept_with_it(service, caller):
    """It is charged for as long as the call is under way."""
    service.obedient()
    large = {"message": "x" * 900_000}
    caller.job_done(caller.start_tool_job("obedient", "echo", large))
    before = service.private_memory()
    for _ in range(24):
        path = caller.start_tool_job("obedient", "refuse", large)
        caller.job_done(path)
    assert len(caller.jobs()) == 25
    assert service.private_memory() - before < 12 << 20


def test_jobs_of_a_user_are_limited(service, caller):
    service.obedient()
    service.settings(limits={"jobs_per_user": 2})
    paths = [caller.start_tool_job("obedient", "sleep", {"seconds": 1000}) for _ in range(2)]
    with fails("LimitsExceeded", "limit is 2", "limits.jobs_per_user"):
        caller.start_tool_job("obedient", "sleep", {"seconds": 1000})
    caller.cancel_job(paths[0])
    paths.append(caller.start_tool_job("obedient", "sleep", {"seconds": 1000}))
    for path in paths[1:]:
        caller.cancel_job(path)


def test_a_job_is_kept_for_a_time(service, caller):
    service.echo()
    service.settings(keep_jobs=1)
    path = caller.start_tool_job("echo", "echo", {"message": "hi"})
    caller.job_done(path)
    eventually(lambda: caller.jobs() == {}, "it is forgotten")


def test_a_shorter_time_counts_for_the_next_job(service, caller):
    """Which doesn't wait for the end of those that are kept for longer."""
    service.echo()
    service.settings(keep_jobs=300)
    earlier = caller.start_tool_job("echo", "echo", {"message": "hi"})
    caller.job_done(earlier)
    service.settings(keep_jobs=1)
    caller.reload()
    finished = caller.signals("Finished", interface=JOB)
    later = caller.start_tool_job("echo", "echo", {"message": "hi"})
    eventually(lambda: [one for one in finished.seen if one[0] == later], "it is done")
    eventually(lambda: set(caller.jobs()) == {earlier}, "it is forgotten")


def test_no_more_than_so_many_are_kept(service, caller):
    service.echo()
    service.settings(limits={"finished_jobs_per_user": 3})
    paths = []
    for _ in range(5):
        paths.append(caller.start_tool_job("echo", "echo", {"message": "hi"}))
        eventually(lambda: paths[-1] in caller.jobs() and caller.job(paths[-1])["State"] == "succeeded", "done")
    assert set(caller.jobs()) == set(paths[2:])


def test_none_is_kept_where_none_shall_be(service, caller):
    service.echo()
    service.settings(limits={"finished_jobs_per_user": 0})
    finished = caller.signals("Finished", interface=JOB)
    caller.start_tool_job("echo", "echo", {"message": "hi"})
    eventually(lambda: finished.seen, "done")
    assert caller.jobs() == {}


def test_results_are_limited_until_nobody_has_them_open(service, caller):
    service.obedient()
    service.settings(limits={"payload_bytes_per_user": 150000})
    path = caller.start_tool_job("obedient", "big", {"size": 100000})
    caller.job_done(path)
    fd = caller.raw("GetResult", "", path=path, interface=JOB).take()
    caller.cancel_job(path)
    second = caller.start_tool_job("obedient", "big", {"size": 100000})
    assert caller.job_done(second)["State"] == "failed"
    with fails("LimitsExceeded", "150000", "limits.payload_bytes_per_user"):
        caller.job_text(second)
    os.close(fd)
    third = caller.start_tool_job("obedient", "big", {"size": 100000})
    assert caller.job_done(third)["State"] == "succeeded"


def test_a_result_over_the_inline_limit_is_a_file(service, caller):
    service.obedient()
    path = caller.start_tool_job("obedient", "big", {"size": 3 << 20})
    assert caller.job_done(path)["State"] == "succeeded"
    assert text_of(caller.job_result(path)) == "x" * (3 << 20)
    with fails("TooLarge", "GetResult", "limits.message"):
        caller.job_text(path)


def test_the_service_stays_for_a_job(make_service):
    service = make_service(idle_timeout=0.5)
    service.settings(keep_jobs=2)
    service.obedient(keep_alive={"timeout": 0.2})
    caller = service.caller()
    path = caller.start_tool_job("obedient", "sleep", {"seconds": 1.5, "message": "hi"})
    daemon = service.daemon()
    caller.job_done(path)
    eventually(lambda: not service.worker_processes(), "the worker has left")
    settle(0.8)
    assert daemon.alive() and text_of(caller.job_text(path)) == "hi"
    service.wait_gone(daemon)


def test_a_job_under_way_fails_when_the_service_is_stopped(service, caller):
    service.obedient()
    finished = caller.signals("Finished", interface=JOB)
    path = caller.start_tool_job("obedient", "block", {"seconds": 1000})
    caller.tool_text("obedient", "pid")
    daemon = service.daemon()
    os.kill(service.pid, 15)
    service.wait_gone(daemon, 20)
    eventually(lambda: finished.seen, "Finished")
    assert finished.seen[0][:3] == (path, "failed", "org.example.McpExec.Error.Unavailable")
    assert "leaving" in finished.seen[0][3]


def test_a_job_that_is_nearly_done_is_finished_first(service, caller):
    service.obedient()
    finished = caller.signals("Finished", interface=JOB)
    caller.start_tool_job("obedient", "sleep", {"seconds": 1.0})
    caller.tool_text("obedient", "pid")
    daemon = service.daemon()
    os.kill(service.pid, 15)
    service.wait_gone(daemon, 20)
    eventually(lambda: finished.seen, "Finished")
    assert finished.seen[0][1] == "succeeded"


def test_a_crowd_of_jobs_each_with_its_own_result(service, caller):
    service.obedient()
    paths = {caller.start_tool_job("obedient", "sleep", {"seconds": 0.05 * (n % 5), "message": f"answer {n}"}): n
             for n in range(24)}
    for path, n in paths.items():
        caller.job_done(path)
        assert text_of(caller.job_text(path)) == f"answer {n}"


def test_on_the_private_socket(make_service):
    service = make_service(private=True)
    service.obedient()
    service.caller().list_servers()
    private = service.private_caller()
    finished = []
    private.bus.add_signal_receiver(lambda *args: finished.append(args), signal_name="Finished", dbus_interface=JOB)
    path = private.start_tool_job("obedient", "sleep", {"seconds": 0.2, "message": "hi"})
    private.job_done(path)
    eventually(lambda: finished, "Finished")
    assert text_of(private.job_text(path)) == "hi"
    with fails("org.freedesktop.DBus.Error.NotSupported", "GetResultText"):
        private.raw("GetResult", "", path=path, interface=JOB)
    assert text_of(service.caller().job_result(path)) == "hi"


# Other users

def test_another_users_job_is_as_one_that_is_not_there(system_service, polkit):
    system_service.obedient()
    polkit.rule = lambda question: "no" if question.action == MANAGE else "yes"
    alice, bob = system_service.caller(uid=ALICE), system_service.caller(uid=BOB)
    added = bob.signals("InterfacesAdded", interface="org.freedesktop.DBus.ObjectManager")
    path = alice.start_tool_job("obedient", "sleep", {"seconds": 1000})
    assert path in alice.jobs() and alice.job(path)["Owner"] == ALICE
    assert bob.jobs() == {}
    for member in ("Cancel", "GetResult", "GetResultText"):
        with fails(UNKNOWN):
            bob.raw(member, "", path=path, interface=JOB)
    with fails(UNKNOWN):
        bob.job(path)
    assert not added.seen
    assert alice.job(path)["State"] == "running"
    assert bob.property("CallsInFlight") == 0 and alice.property("CallsInFlight") == 1

    again = system_service.caller(uid=ALICE)
    alice.close()
    again.cancel_job(path)
    assert again.job_done(path)["State"] == "cancelled"


def test_who_may_manage_sees_and_cancels(system_service, polkit):
    system_service.obedient()
    polkit.rule = lambda question: ("yes" if question.subject[1]["name"] == bob.unique_name else "no") \
        if question.action == MANAGE else "yes"
    alice, bob = system_service.caller(uid=ALICE), system_service.caller(uid=BOB)
    path = alice.start_tool_job("obedient", "sleep", {"seconds": 1000})
    assert path in bob.jobs()
    bob.cancel_job(path)
    assert alice.job_done(path)["State"] == "cancelled"


def test_polkit_is_asked_for_the_tool(system_service, polkit):
    system_service.echo()
    polkit.rule = lambda question: "no" if question.details.get("tool") == "pid" else "yes"
    alice = system_service.caller(uid=ALICE)
    alice.start_tool_job("echo", "echo", {"message": "hi"})
    for params, options in (("", {"tool": "pid"}), ({"name": "pid"}, {})):
        with fails(DENIED, "server echo"):
            alice.start_job("echo", "tools/call", params, **options)
