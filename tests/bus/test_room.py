"""The limit on workers: an idle one makes room, a busy one doesn't."""

from caller import fails


def test_the_worker_that_is_idle_longest_makes_room(service, caller):
    service.settings(limits={"workers_per_user": 2})
    for name in ("one", "two", "three"):
        service.echo(name)
    one, two = caller.tool_text("one", "pid"), caller.tool_text("two", "pid")
    assert caller.tool_text("one", "pid") == one
    three = caller.tool_text("three", "pid")
    assert caller.tool_text("one", "pid") == one and caller.tool_text("three", "pid") == three
    assert caller.tool_text("two", "pid") != two


def test_busy_workers_stay(service, caller):
    service.settings(limits={"workers_per_user": 2})
    for name in ("one", "two", "three"):
        service.obedient(name)
    busy = [caller.begin_tool(name, "block", {"seconds": 2}) for name in ("one", "two")]
    with fails("LimitsExceeded", "workers_per_user"):
        caller.call_tool("three", "pid")
    for one in busy:
        one.wait()
    assert caller.tool_text("three", "pid")


def test_a_process_per_call_waits_for_its_predecessor(service, caller):
    """Those that are leaving count, and are waited for."""
    service.settings(limits={"workers_per_user": 2})
    service.echo("once", keep_alive=False, pool={"max": 2, "queue": 64})
    calls = [caller.begin_tool("once", "pid", {}) for _ in range(24)]
    assert len({str(call.wait()) for call in calls}) == 24
