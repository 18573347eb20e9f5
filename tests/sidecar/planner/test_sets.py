"""What was changed together is committed and placed together, or waits together."""

import pytest

from configstore.model.path import parse_path
from configstore.model.problem import Problem
from configstore.model.record import Kind
from sidecar.planner.plan import Wait
from sidecar.planner.planner import PlanConditions, make_plan
from sidecar.planner.three_sides import ThreeSides
from tests.harness.named import GONE
from tests.sidecar.planner.named import a_dir, a_file, a_mapping, agreed_on, here, there

OLD, NEW, MINE = a_file("old"), a_file("new"), a_file("mine")
LINKED = Problem(path="key", reason="has 2 hard links")


def sides_of(**given):
    named = {
        side: {parse_path(path): value for path, value in given.get(side, {}).items()}
        for side in ("baseline", "local", "remote")
    }
    return ThreeSides(**named)


def a_pair(remote=NEW, revision=11, **more):
    """Return the sides of a certificate and its key that were both changed in the store at once."""
    return sides_of(
        baseline={"cert": agreed_on(OLD, ino=1), "key": agreed_on(OLD, ino=2)},
        local={"cert": here(OLD, 1), "key": here(OLD, 2)},
        remote={"cert": there(remote, revision), "key": there(remote, revision)} | more,
    )


def found(sides, changed=(), problems=(), unstable=(), touched=None, in_set=0):
    """Have a look find this. touched: of the problems, those whose path was changed; all unless told."""
    sides.take_scan(
        changed=dict(changed),
        problems=dict(problems),
        cleared=(),
        unstable=set(unstable),
        touched=set(dict(problems) if touched is None else touched),
        in_set=in_set,
    )


def plan_for(sides, **settled):
    return make_plan(sides.everything() | sides.pending, sides, a_mapping(), PlanConditions(**settled))


def pulled(plan):
    return [pull.path for pull in plan.pull]


def pushed(plan):
    return [push.path for push in plan.push]


def test_what_came_together_is_placed_as_one_group():
    plan = plan_for(a_pair())
    assert pulled(plan) == ["cert", "key"]
    assert len({pull.group for pull in plan.pull}) == 1


def test_a_member_that_cannot_be_read_here_holds_its_companions_back():
    sides = a_pair()
    found(sides, problems={"key": LINKED})
    plan = plan_for(sides)
    assert pulled(plan) == []
    assert plan.problems["key"] == LINKED
    assert "held back" in plan.problems["cert"].reason
    assert "key" in plan.problems["cert"].reason


def test_a_directory_that_cannot_be_read_speaks_for_all_below_it():
    sides = sides_of(
        baseline={"cert": agreed_on(OLD, ino=1), "d/key": agreed_on(OLD, ino=2)},
        local={"cert": here(OLD, 1), "d/key": here(OLD, 2)},
        remote={"cert": there(NEW, 11), "d/key": there(NEW, 11)},
    )
    found(sides, problems={"d": Problem(path="d", reason="no permission")})
    assert pulled(plan_for(sides)) == []


def test_a_member_that_is_open_for_writing_here_makes_its_companions_wait():
    sides = a_pair()
    found(sides, unstable={"key"})
    plan = plan_for(sides)
    assert pulled(plan) == []
    assert plan.waiting == {"cert": Wait.UNSTABLE, "key": Wait.UNSTABLE}


def test_a_member_whose_record_cannot_be_read_holds_its_companions_back():
    sides = sides_of(
        baseline={"cert": agreed_on(OLD, ino=1), "key": agreed_on(OLD, ino=2)},
        local={"cert": here(OLD, 1), "key": here(OLD, 2)},
        remote={"cert": there(NEW, 11), "key": there(OLD, 10)},
    )
    sides.note_unreadable(parse_path("key"), Problem(path="key", reason="header version 9"), 11)
    plan = plan_for(sides)
    assert pulled(plan) == []
    assert "header version 9" in plan.problems["cert"].reason


def test_a_member_that_failed_and_pauses_makes_its_companions_pause():
    plan = plan_for(a_pair(), backing_off={parse_path("key")})
    assert plan.waiting == {"cert": Wait.BACKOFF, "key": Wait.BACKOFF}


def test_what_is_wrong_elsewhere_holds_nobody_back():
    sides = a_pair()
    found(sides, problems={"other": Problem(path="other", reason="no permission")}, unstable={"log"})
    assert pulled(plan_for(sides)) == ["cert", "key"]


def test_a_member_that_is_here_already_holds_nobody_back():
    sides = sides_of(
        baseline={"cert": agreed_on(OLD, ino=1), "key": agreed_on(NEW, 11, ino=2)},
        local={"cert": here(OLD, 1), "key": here(NEW, 2)},
        remote={"cert": there(NEW, 11), "key": there(NEW, 11)},
    )
    found(sides, unstable={"key"})
    assert pulled(plan_for(sides)) == ["cert"]


def test_also_in_a_replica_that_is_filled_for_the_first_time():
    sides = sides_of(remote={"a": there(NEW, 11), "b": there(NEW, 11), "c": there(NEW, 12)})
    found(sides, problems={"b": Problem(path="b", reason="a FIFO")})
    assert pulled(plan_for(sides)) == ["c"]


def two_edits(**more):
    """Return the sides of a certificate and its key that were both edited here, in one set."""
    return sides_of(
        baseline={"cert": agreed_on(OLD, ino=1), "key": agreed_on(OLD, ino=2)},
        local={"cert": here(OLD, 1), "key": here(OLD, 2)},
        remote={"cert": there(OLD, 10), "key": there(OLD, 10)} | more,
    )


def test_an_edit_waits_for_one_of_its_set_that_cannot_be_read():
    sides = two_edits()
    found(sides, changed={"cert": here(MINE, 1)}, problems={"key": LINKED}, in_set=7)
    plan = plan_for(sides)
    assert pushed(plan) == []
    assert "held back" in plan.problems["cert"].reason


def test_also_for_one_that_could_not_be_read_before_its_set():
    sides = two_edits()
    found(sides, problems={"key": LINKED}, in_set=6)
    found(sides, changed={"cert": here(MINE, 1)}, problems={"key": LINKED}, in_set=7)
    assert pushed(plan_for(sides)) == []


def test_a_path_that_cannot_be_read_and_was_not_changed_holds_nothing_back():
    sides = two_edits()
    found(sides, problems={"key": LINKED}, in_set=6)
    found(sides, changed={"cert": here(MINE, 1)}, problems={"key": LINKED}, touched=(), in_set=7)
    assert pushed(plan_for(sides)) == ["cert"]


def test_a_new_file_does_not_wait_and_neither_does_another_set():
    sides = two_edits()
    found(sides, changed={"new": here(MINE, 9)}, problems={"key": LINKED}, in_set=7)
    found(sides, changed={"cert": here(MINE, 1)}, in_set=8)
    assert pushed(plan_for(sides)) == ["new", "cert"]


def test_a_set_of_which_a_member_changes_again_before_it_was_sent_becomes_part_of_the_newer_one():
    sides = two_edits()
    found(sides, changed={"cert": here(MINE, 1), "key": here(MINE, 2)}, in_set=7)
    found(sides, changed={"key": here(a_file("again"), 2)}, in_set=8)
    plan = plan_for(sides)
    assert {push.path: push.in_set for push in plan.push} == {"cert": 8, "key": 8}


def test_nobody_waits_for_a_path_that_failed_too_often():
    sides = two_edits()
    found(sides, changed={"cert": here(MINE, 1), "key": here(MINE, 2)}, in_set=7)
    pausing = {parse_path("key")}
    assert pushed(plan_for(sides, backing_off=pausing)) == []
    assert pushed(plan_for(sides, backing_off=pausing, given_up=pausing)) == ["cert"]


def test_sets_are_sent_one_after_the_other_and_directories_before_them():
    sides = sides_of(remote={})
    found(sides, changed={"z": here(MINE, 1)}, in_set=1)
    found(sides, changed={"d": here(a_dir(), 2), "d/a": here(MINE, 3), "a": here(MINE, 4)}, in_set=2)
    assert pushed(plan_for(sides)) == ["d", "z", "a", "d/a"]


def test_a_conflict_waits_until_it_is_known_what_was_changed_together():
    sides = two_edits(cert=there(NEW, 11))
    found(sides, changed={"cert": here(MINE, 1)}, in_set=7)
    plan = plan_for(sides, edits=False)
    assert (plan.pull, plan.push, plan.waiting) == ((), (), {"cert": Wait.SETTLE})


def test_a_set_of_two_hands_is_named_and_no_edit_of_it_undone():
    sides = two_edits(cert=there(NEW, 11))
    found(sides, changed={"cert": here(MINE, 1), "key": here(MINE, 2)}, in_set=7)
    plan = plan_for(sides)
    assert [(pull.path, pull.keep) for pull in plan.pull] == [("cert", True)]
    assert pushed(plan) == ["key"]
    assert plan.mixed == {"cert": ("key",)}


@pytest.mark.parametrize("edited", [False, True])
def test_a_directory_that_was_renamed_moves_at_once_also_with_an_edit_in_it(edited):
    sides = sides_of(
        baseline={"old": agreed_on(a_dir(), ino=1), "old/f": agreed_on(OLD, ino=2)},
        remote={"old": there(a_dir()), "old/f": there(OLD)},
    )
    found(sides, changed={"new": here(a_dir(), 1), "new/f": here(MINE if edited else OLD, 2)}, in_set=1)
    plan = plan_for(sides, deletes=False)
    assert plan.waiting == {}
    assert sorted(pushed(plan)) == ["new", "new/f", "old", "old/f"]
    assert {push.path for push in plan.push if push.entry.kind is Kind.GONE} == {"old", "old/f"}


def test_a_directory_waits_with_its_delete_for_what_lies_below_it():
    sides = sides_of(
        baseline={"old": agreed_on(a_dir(), ino=1), "old/f": agreed_on(OLD, ino=2)},
        remote={"old": there(a_dir()), "old/f": there(OLD)},
    )
    found(sides, changed={"new": here(a_dir(), 1)}, in_set=1)  # renamed, and what was in it removed
    plan = plan_for(sides, deletes=False)
    assert pushed(plan) == ["new"]
    assert plan.waiting == {"old": Wait.DELETE, "old/f": Wait.DELETE}


def test_a_tombstone_that_nobody_knew_is_no_news():
    sides = a_pair(gone=there(GONE, 11))
    found(sides, problems={"gone": Problem(path="gone", reason="a FIFO")})
    assert pulled(plan_for(sides)) == ["cert", "key"]
