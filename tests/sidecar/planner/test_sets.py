"""What was changed together travels together, or waits together."""

import pytest

from sidecar.planner.plan import Wait
from sidecar.planner.planner import Settled, make_plan
from sidecar.planner.sides import Problem
from sidecar.planner.three_sides import Sides
from tests.sidecar.planner.named import a_file, a_mapping, agreed_on, here, there

OLD, NEW, OTHER = a_file("old"), a_file("new"), a_file("other")
PAIR = ("cert", "key")
UNREADABLE = {"cert": Problem(path="cert", reason="no permission")}


def a_pair(*, revision=10):
    """Return the sides of two files that both are agreed on, and their newest records."""
    return Sides(
        baseline=dict.fromkeys(PAIR, agreed_on(OLD)),
        local=dict.fromkeys(PAIR, here(OLD)),
        remote=dict.fromkeys(PAIR, there(OLD if revision == 10 else NEW, revision)),
    )


def look(sides, *changed, problems=(), touched=(), in_set=1):
    sides.found(
        changed=dict.fromkeys(changed, here(OTHER)),
        problems=dict(problems),
        cleared=(),
        unstable=frozenset(),
        touched=set(touched),
        in_set=in_set,
    )


def plan(sides, **settled):
    return make_plan(sides.everything(), sides, a_mapping(), Settled(**settled))


def test_what_the_store_holds_since_one_txn_is_placed_as_one_group():
    assert {pull.group for pull in plan(a_pair(revision=12)).pull} == {12}


@pytest.mark.parametrize(("local", "groups"), [({}, {-1, -2}), ({"key": here(OTHER)}, {12})])
def test_at_the_first_fill_each_is_placed_by_itself_where_nothing_lies_yet(local, groups):
    sides = Sides(local=local, remote=dict.fromkeys(PAIR, there(NEW, 12)))
    assert {pull.group for pull in plan(sides).pull} == groups


def test_a_member_that_cannot_be_placed_holds_its_companions_back():
    sides = a_pair(revision=12)
    look(sides, problems=UNREADABLE)
    made = plan(sides)
    assert made.pull == ()
    assert made.problems["key"].reason == (
        "held back, since cert, which was changed together with it, cannot be placed: no permission"
    )


@pytest.mark.parametrize("known_before", [False, True])
def test_a_member_that_cannot_be_read_holds_back_what_was_changed_together_with_it(known_before):
    sides = a_pair()
    if known_before:
        look(sides, problems=UNREADABLE, touched=["cert"], in_set=1)
    look(sides, "key", problems=UNREADABLE, touched=["cert"], in_set=2)
    made = plan(sides)
    assert made.push == ()
    assert "cert, which was changed together with it, cannot be read" in made.problems["key"].reason


def test_a_path_that_cannot_be_read_and_was_not_changed_holds_nothing_back():
    sides = a_pair()
    look(sides, problems=UNREADABLE, touched=["cert"], in_set=1)
    look(sides, "key", problems=UNREADABLE, in_set=2)
    assert [push.path for push in plan(sides).push] == ["key"]


def test_a_set_of_which_a_member_loses_a_conflict_loses_it_as_a_whole():
    sides = a_pair()
    sides.told("cert", there(NEW, 12))
    look(sides, *PAIR)
    made = plan(sides)
    assert made.push == ()
    assert [(pull.path, pull.keep) for pull in made.pull] == [("cert", True), ("key", True)]


def test_a_conflict_waits_until_it_is_known_what_was_changed_together():
    sides = a_pair()
    sides.told("cert", there(NEW, 12))
    look(sides, *PAIR)
    made = plan(sides, edits=False)
    assert (made.pull, made.push) == ((), ())
    assert made.waiting == dict.fromkeys(PAIR, Wait.SETTLE)


def test_a_member_that_pauses_holds_its_set_back_until_it_is_given_up():
    sides = a_pair()
    look(sides, *PAIR)
    waiting = plan(sides, aside=frozenset({"cert"})).waiting
    assert waiting == dict.fromkeys(PAIR, Wait.ASIDE)
    given_up = plan(sides, aside=frozenset({"cert"}), given_up=frozenset({"cert"}))
    assert [push.path for push in given_up.push] == ["key"]
