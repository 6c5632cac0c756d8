"""Which servers a joined session gets, where polkit decides on them one by one."""

import dbus
import pytest
from caller import ALICE, DENIED, fails
from mock_polkit import CALL
from session import Session
from test_aggregation import tools


@pytest.fixture
def service(system_service):
    for name in ("one", "two", "three"):
        system_service.echo(name)
    return system_service


@pytest.fixture
def join(alice):
    opened = []

    def make(*servers):
        options = {"servers": dbus.Array(servers, signature="s")} if servers else {}
        opened.append(Session.open(alice, "", **options))
        opened[-1].initialize()
        return opened[-1]

    yield make
    for session in opened:
        session.close()


def servers(session):
    return {name.split("__")[0] for name in tools(session)}


def only(*allowed):
    return lambda question: "yes" if question.server in allowed else "no"


def test_all_that_are_allowed(polkit, join):
    polkit.rule = only("one", "three")
    assert servers(join()) == {"one", "three"}
    assert {question.details["method"] for question in polkit.questions} == {"OpenSession"}
    assert not any(question.interactive for question in polkit.questions)


def test_none_that_is_allowed(polkit, join):
    assert servers(join()) == set()


def test_what_needs_a_confirmation_is_left_out(polkit, join):
    polkit.rule = lambda question: "yes" if question.server == "two" else "challenge"
    assert servers(join()) == {"two"}
    assert not any(question.interactive for question in polkit.questions)


def test_each_of_those_named_is_needed(polkit, join):
    polkit.rule = only("one", "three")
    assert servers(join("one", "three")) == {"one", "three"}
    with fails(DENIED, "server two"):
        join("one", "two")


def test_each_action_is_needed(polkit, join):
    polkit.rule = lambda question: "no" if question.server == "one" and question.action == CALL else "yes"
    assert servers(join()) == {"two", "three"}


def test_those_of_the_access_list_arent_asked_about(service, polkit, join):
    service.echo("mine", access={"users": [ALICE]})
    assert servers(join()) == {"mine"}
    assert "mine" not in {question.server for question in polkit.questions}
    polkit.forget()
    assert servers(join("mine")) == {"mine"}
    assert polkit.questions == []


def test_of_many_each_verdict_counts(service, polkit, join):
    """More than are remembered for a client."""
    for number in range(40):
        service.echo(f"many-{number}")
    allowed = {f"many-{number}" for number in range(0, 40, 3)}
    polkit.rule = only(*allowed)
    assert servers(join()) == allowed


def test_who_comes_later_joins_only_where_nobody_is_asked(service, polkit, join):
    polkit.rule = only("one")
    session = join()
    assert servers(session) == {"one"}
    service.echo("later")
    service.echo("mine", access={"users": [ALICE]})
    session.until(lambda: servers(session) == {"one", "mine"}, "the one that the list names")
