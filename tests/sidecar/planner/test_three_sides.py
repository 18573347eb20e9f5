"""What is known of a path, and what follows for it."""

import sys

import pytest

from configstore.model.path import ROOT, parse_path
from configstore.model.problem import Problem
from configstore.model.record import Deletion
from sidecar.planner.sides import SentWrite
from sidecar.planner.three_sides import ThreeSides
from tests.harness.named import GONE
from tests.sidecar.planner.named import a_file, agreed_on, here, there

OLD, NEW = a_file("old"), a_file("new")
A = parse_path("a")


def agreed_sides():
    return ThreeSides(baseline={A: agreed_on(OLD)}, local={A: here(OLD)}, remote={A: there(OLD)})


def test_a_record_is_missing_until_it_is_shown_here():
    sides = ThreeSides()
    sides.note_record(A, there(NEW, 11))
    assert sides.missing == {"a"}
    sides.note_placed(A, here(NEW))
    assert sides.missing == {"a"}, "that it lies here does not say that it was agreed on"
    sides.agree({A: agreed_on(NEW, 11)})
    assert sides.missing == set()


@pytest.mark.parametrize("remote", [there(GONE, 11), None])
def test_what_does_not_live_in_the_store_is_not_missing(remote):
    sides = agreed_sides()
    if remote:
        sides.note_record(A, remote)
    else:
        sides.note_missing_record(A)
    assert sides.missing == set()


def test_an_edit_of_what_was_shown_does_not_make_it_missing():
    sides = agreed_sides()
    sides.take_scan(changed={A: here(NEW)}, problems={}, cleared=(), unstable=set())
    assert sides.missing == set()
    assert sides.changed_here() == {"a"}


def test_a_record_that_cannot_be_read_is_missing_also_where_an_older_one_is_shown():
    sides = agreed_sides()
    sides.note_unreadable(A, Problem(path="a", reason="no record"), 11)
    assert sides.missing == {"a"}
    sides.note_record(A, there(NEW, 12))
    assert sides.problem(A) is None


def test_an_older_record_than_the_newest_known_is_no_news():
    sides = agreed_sides()
    sides.note_record(A, there(NEW, 12))
    assert not sides.note_record(A, there(OLD, 11))
    sides.note_unreadable(A, Problem(path="a", reason="no record"), 13)
    assert not sides.note_record(A, there(OLD, 11)), "a listing from before the record that cannot be read"
    assert sides.problem(A)


def test_what_came_in_one_txn_is_known_to_belong_together():
    sides = ThreeSides()
    for name, revision in (("a", 11), ("b", 11), ("c", 12)):
        sides.note_record(parse_path(name), there(NEW, revision))
    assert sides.came_with(11) == {"a", "b"}
    sides.note_record(A, there(OLD, 13))
    assert sides.came_with(11) == {"b"}


def test_a_directory_has_something_below_it_while_any_record_lives_there():
    sides = ThreeSides()
    file, sibling, deep, above = map(parse_path, ("dir/sub/a", "dir/b", "dir/sub", "dir"))

    def holding():
        return [path for path in (ROOT, above, deep, file) if sides.lives_below(path)]

    sides.note_record(file, there(OLD, 11))
    sides.note_record(file, there(NEW, 12))
    assert holding() == ["", "dir", "dir/sub"]
    sides.note_record(sibling, there(OLD, 13))
    sides.note_record(file, there(GONE, 14))
    sides.note_record(file, there(GONE, 15))
    assert holding() == ["", "dir"], "a tombstone lives no more than nothing does"
    sides.note_missing_record(file)
    sides.note_missing_record(sibling)
    assert holding() == []
    sides.note_record(ROOT, there(OLD, 16))
    assert holding() == [], "the root is not below itself"
    sides.note_record(sibling, there(OLD, 17))
    sides.forget_store()
    assert holding() == []


def test_whatever_changes_a_side_marks_its_path_as_pending():
    sides = agreed_sides()
    for change in (
        lambda: sides.note_record(A, there(NEW, 12)),
        lambda: sides.note_unreadable(A, Problem(path="a", reason="no record"), 13),
        lambda: sides.note_missing_record(A),
        lambda: sides.take_scan(changed={A: None}, problems={}, cleared=(), unstable=set()),
        lambda: sides.take_scan(changed={}, problems={}, cleared=(), unstable={A}),
        lambda: sides.take_scan(changed={}, problems={}, cleared=(), unstable=set()),  # closed again
    ):
        sides.planned({*sides.pending})
        change()
        assert sides.pending == {"a"}


def test_an_own_commit_needs_no_plan():
    sides = agreed_sides()
    sides.planned({*sides.pending})
    sides.note_committed(A, there(NEW, 12))
    assert sides.pending == set()


def test_an_agreement_settles_what_was_sent_before_it():
    sides = agreed_sides()
    sides.sending({A: SentWrite(write_id="w1", local=NEW, expected=10)})
    sides.sending({A: SentWrite(write_id="w2", local=NEW, expected=10)})
    sides.not_made(A, ["w2"])
    assert [write.write_id for write in sides.sent[A]] == ["w1"]
    sides.agree({A: agreed_on(NEW, 11)})
    assert not sides.sent


def test_nobody_else_can_change_a_side():
    with pytest.raises(TypeError):
        agreed_sides().baseline[A] = agreed_on(NEW)


# Tombstones of which nothing is left here


def test_a_tombstone_of_which_nothing_is_left_is_buried_and_told_again():
    sides = ThreeSides()
    assert not sides.note_record(A, there(GONE, 11))
    assert (sides.remote.keys(), sides.pending) == (set(), set())
    assert sides.buried.has(A, 11)
    assert not sides.buried.has(A, 12)
    assert sides.buried.newest == (A, there(GONE, 11))


@pytest.mark.parametrize(
    "sides",
    [
        agreed_sides(),
        ThreeSides(local={A: here(NEW)}),
        ThreeSides(baseline={A: agreed_on(OLD)}),
        ThreeSides(sent={A: (SentWrite(write_id="w", local=None),)}),
    ],
    ids=["agreed on", "new here", "removed here", "sent"],
)
def test_a_tombstone_of_what_is_still_known_is_held(sides):
    assert sides.note_record(A, there(GONE, 11))
    assert sides.remote[A] == there(GONE, 11)
    sides.planned({A})
    sides.bury_applied(99)
    assert sides.remote[A] == there(GONE, 11)


def test_a_tombstone_is_buried_once_it_was_applied_and_the_watch_has_told_of_it():
    sides = agreed_sides()
    sides.note_committed(A, there(GONE, 11))
    sides.note_placed(A, None)
    sides.agree({A: None})
    sides.planned({A})
    sides.bury_applied(10)
    assert A in sides.remote, "the watch may still tell what it replaced"
    sides.bury_applied(11)
    assert A not in sides.remote
    assert sides.buried.has(A, 11)
    assert not sides.note_record(A, there(GONE, 11)), "told by the watch at last"


def test_what_is_made_anew_over_a_buried_tombstone_is_news():
    sides = ThreeSides()
    sides.note_record(A, there(GONE, 11))
    assert sides.note_record(A, there(NEW, 12))
    assert sides.missing == {A}


def test_a_tombstone_that_expired_is_nothing_to_plan():
    sides = ThreeSides()
    sides.note_record(A, there(GONE, 11))
    sides.note_missing_record(A)
    assert sides.pending == set()


def test_a_record_that_vanished_is_planned_where_something_is_left():
    sides = agreed_sides()
    sides.planned({A})
    sides.note_missing_record(A)
    assert sides.pending == {A}
    assert sides.vanished() == {A}


def test_another_store_has_no_graves_of_ours():
    sides = ThreeSides()
    sides.note_record(A, there(GONE, 11))
    sides.forget_store()
    assert not sides.buried.has(A, 11)
    assert sides.buried.newest is None


def test_what_is_not_in_the_store_any_more_is_not_remembered_as_buried():
    sides = ThreeSides()
    sides.note_record(A, there(GONE, 11))
    sides.note_record(parse_path("b"), there(GONE, 12))
    sides.buried.keep_only({A: 11})
    assert sides.buried.has(A, 11)
    assert not sides.buried.has(parse_path("b"), 12)


def test_how_much_of_a_deletion_is_gone_is_known_whether_it_was_buried_or_not():
    sides = ThreeSides(baseline={A: agreed_on(OLD)}, local={A: here(OLD)}, remote={A: there(OLD)})
    deletion = Deletion(id="d", count=3)
    for number, name in enumerate(("a", "b", "c"), 11):
        sides.note_record(parse_path(name), there(GONE, number, deletion=deletion))
        sides.note_record(parse_path(name), there(GONE, number, deletion=deletion))
    assert sides.gone_of("d") == 2
    sides.note_placed(A, None)
    sides.agree({A: None})
    assert sides.gone_of("d") == 3
    sides.planned({A})
    sides.bury_applied(99)
    assert sides.gone_of("d") == 3
    assert sides.gone_of("another") == 0


def test_what_only_a_listing_told_of_a_deletion_counts_as_gone_once():
    sides = ThreeSides(baseline={A: agreed_on(OLD)}, local={A: here(OLD)}, remote={A: there(OLD)})
    for _ in range(2):
        sides.buried.add(parse_path("b"), 11, "d")
        sides.buried.add(parse_path("c"), 12, "d")
        sides.buried.add(parse_path("x"), 12, "")
    assert sides.gone_of("d") == 2
    assert sides.buried.has(parse_path("x"), 12)


def test_of_what_is_known_here_a_tombstone_is_wanted_whole():
    sides = ThreeSides(local={A: here(NEW)}, remote={parse_path("b"): there(OLD)})
    sides.note_record(parse_path("c"), there(GONE, 11))
    assert [name for name in ("a", "b", "c", "x") if sides.wants(parse_path(name))] == ["a", "b", "c"]


def test_many_that_were_planned_leave_no_room_to_walk_through():
    """A cycle looks at what is pending: after a first pull of everything that must be as quick as before."""
    sides = ThreeSides()
    paths = [parse_path(f"a{number}") for number in range(5000)]
    for path in paths:
        sides.note_record(path, there(NEW, 11))
        sides.note_placed(path, here(NEW))
    sides.agree({path: agreed_on(NEW, 11) for path in paths})
    large = sys.getsizeof(sides.pending)
    sides.plan_again(paths)
    sides.planned(paths[1:])
    assert sides.pending == {"a0"}
    assert large > 100_000
    for left in (sides.pending, sides.changed_in_store, sides.missing):
        assert sys.getsizeof(left) < 10_000
