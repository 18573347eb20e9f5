"""Plans: order, windows, moves, parents, guards."""

from configstore.model.path import parse_path
from configstore.model.problem import Problem
from configstore.model.record import Deletion, Kind
from configstore.model.selection import Direction
from sidecar.planner.guards import refusal
from sidecar.planner.plan import Wait
from sidecar.planner.planner import PlanConditions, make_plan
from sidecar.planner.three_sides import ThreeSides
from tests.harness.named import GONE
from tests.sidecar.planner.named import a_dir, a_file, a_link, a_mapping, agreed_on, here, there

NOW = PlanConditions()


def the_sides(*, baseline=(), local=(), remote=()):
    named = [{parse_path(path): value for path, value in dict(side).items()} for side in (baseline, local, remote)]
    return ThreeSides(baseline=named[0], local=named[1], remote=named[2])


def plan_of(*, baseline=(), local=(), remote=(), settled=NOW, mapping=None, unreadable=()):
    sides = the_sides(baseline=baseline, local=local, remote=remote)
    sides.take_scan(changed={}, problems=dict(unreadable), cleared=(), unstable=set())
    return make_plan(sides.everything(), sides, mapping or a_mapping(), settled)


def paths(changes):
    return [change.path for change in changes]


def test_pushes_come_directories_first_then_files_then_links_then_deletes():
    plan = plan_of(
        baseline={"old/a": agreed_on(a_file("x"), ino=9), "old": agreed_on(a_dir(), ino=8)},
        local={
            "live/l": here(a_link(), 3),
            "live": here(a_dir(), 4),
            "b/f": here(a_file(), 5),
            "b": here(a_dir(), 6),
        },
        remote={"old/a": there(a_file("x")), "old": there(a_dir())},
    )
    assert paths(plan.push) == ["b", "live", "b/f", "live/l", "old/a", "old"]


def test_an_edit_waits_for_its_set_and_a_delete_for_its_window():
    sides = {
        "baseline": {"a": agreed_on(a_file()), "b": agreed_on(a_file("b"), ino=2)},
        "local": {"a": here(a_file("two"))},
        "remote": {"a": there(a_file()), "b": there(a_file("b"))},
    }
    early = plan_of(**sides, settled=PlanConditions(edits=False, deletes=False))
    assert early.waiting == {"a": Wait.SETTLE, "b": Wait.SETTLE}
    middle = plan_of(**sides, settled=PlanConditions(deletes=False))
    assert paths(middle.push) == ["a"]
    assert middle.waiting == {"b": Wait.DELETE}
    assert paths(plan_of(**sides).push) == ["a", "b"]


def test_pulls_do_not_wait_for_local_settling():
    plan = plan_of(remote={"a": there(a_file())}, settled=PlanConditions(edits=False, deletes=False))
    assert paths(plan.pull) == ["a"]


def test_a_rename_travels_at_once_both_halves():
    plan = plan_of(
        baseline={"old": agreed_on(a_file(), ino=7)},
        local={"new": here(a_file(), 7)},
        remote={"old": there(a_file())},
        settled=PlanConditions(deletes=False),
    )
    assert paths(plan.push) == ["new", "old"]
    assert all(push.move for push in plan.push)


def test_a_reused_inode_with_other_content_is_no_rename():
    plan = plan_of(
        baseline={"old": agreed_on(a_file(), ino=7)},
        local={"new": here(a_file("other"), 7)},
        remote={"old": there(a_file())},
        settled=PlanConditions(deletes=False),
    )
    assert paths(plan.push) == ["new"]
    assert plan.waiting == {"old": Wait.DELETE}


def test_a_child_edited_here_keeps_its_deleted_parent_alive():
    plan = plan_of(
        baseline={"d": agreed_on(a_dir()), "d/f": agreed_on(a_file(), ino=2)},
        local={"d": here(a_dir()), "d/f": here(a_file("edit"), 2)},
        remote={"d": there(GONE, 11), "d/f": there(GONE, 11)},
    )
    assert paths(plan.push) == ["d", "d/f"]
    assert plan.pull == ()


def test_a_deleted_directory_goes_after_its_children():
    plan = plan_of(
        baseline={"d": agreed_on(a_dir()), "d/f": agreed_on(a_file(), ino=2)},
        local={"d": here(a_dir()), "d/f": here(a_file(), 2)},
        remote={"d": there(GONE, 11), "d/f": there(GONE, 11)},
    )
    assert paths(plan.pull) == ["d/f", "d"]


def test_a_directorys_tombstone_waits_for_the_deletes_below_it_though_it_was_renamed():
    d, old, edited = a_dir(), a_file(), a_file("edited, then renamed over the old one")
    plan = plan_of(
        baseline={"d": agreed_on(d, ino=1), "d/a": agreed_on(old, ino=2)},
        local={"e": here(d, ino=1), "e/a": here(edited, ino=3)},
        remote={"d": there(d), "d/a": there(old)},
        settled=PlanConditions(deletes=False),
    )
    assert paths(plan.push) == ["e", "e/a"]
    assert plan.waiting == {"d": Wait.DELETE, "d/a": Wait.DELETE}


def test_nothing_is_concluded_about_what_could_not_be_read():
    problem = Problem(path="a", reason="no permission")
    plan = plan_of(
        baseline={"a": agreed_on(a_file())},
        remote={"a": there(a_file())},
        unreadable={parse_path("a"): problem},
    )
    assert plan.empty
    assert plan.problems == {"a": problem}


def test_a_conflict_of_contents_keeps_the_local_one_and_one_of_modes_does_not():
    base = {"a": agreed_on(a_file())}
    contents = plan_of(baseline=base, local={"a": here(a_file("x"))}, remote={"a": there(a_file("y"), 11)})
    modes = plan_of(
        baseline=base, local={"a": here(a_file(mode=0o640))}, remote={"a": there(a_file(mode=0o644), 11)}
    )
    assert [pull.keep for pull in contents.pull] == [True]
    assert [pull.keep for pull in modes.pull] == [False]


def many(count):
    return {f"f{number}": number + 1 for number in range(count)}


def local_wipe(total, gone):
    return the_sides(
        baseline={path: agreed_on(a_file(path), ino=ino) for path, ino in many(total).items()},
        local={path: here(a_file(path), ino) for path, ino in many(total).items() if ino > gone},
        remote={path: there(a_file(path)) for path in many(total)},
    )


def store_wipe(total, gone, deletion=None):
    return the_sides(
        baseline={path: agreed_on(a_file(path), ino=ino) for path, ino in many(total).items()},
        local={path: here(a_file(path), ino) for path, ino in many(total).items()},
        remote={
            path: there(a_file(path)) if ino > gone else there(GONE, 11, deletion)
            for path, ino in many(total).items()
        },
    )


def refused(sides, **policy):
    mapping = a_mapping(**policy)
    return refusal(make_plan(sides.everything(), sides, mapping, NOW), sides, mapping)


def test_a_mass_delete_is_refused_either_way_and_single_deletes_pass():
    for wipe in (local_wipe, store_wipe):
        assert refused(wipe(40, 21))
        assert refused(wipe(40, 20)) is None
        assert refused(wipe(11, 10)) is None
        assert refused(wipe(40, 40), max_delete=1.0) is None


def test_a_directory_that_is_emptied_is_refused_however_few_files_it_had():
    assert refused(local_wipe(5, 5))
    assert refused(local_wipe(2, 2)), "a certificate and its key"
    assert refused(local_wipe(1, 1)) is None, "a program that keeps one file removes it when it is empty"
    assert refused(local_wipe(5, 4)) is None


def test_a_deletion_is_judged_by_all_that_belongs_to_it_not_by_what_has_arrived():
    large = Deletion(id="d", count=30)
    assert refused(store_wipe(40, 3, large))
    assert refused(store_wipe(100, 3, large)) is None
    assert refused(store_wipe(40, 3, Deletion(id="d", count=30, confirmed=True))) is None


def test_a_deletion_that_takes_long_is_judged_with_what_went_before():
    sides = local_wipe(40, 15)
    plan = make_plan(sides.everything(), sides, a_mapping(), NOW)
    assert refusal(plan, sides, a_mapping()) is None
    assert refusal(plan, sides, a_mapping(), gone_before=40)


def test_moving_a_whole_directory_is_no_mass_delete():
    names = many(40)
    plan = plan_of(
        baseline={f"old/{path}": agreed_on(a_file(path), ino=ino) for path, ino in names.items()},
        local={f"new/{path}": here(a_file(path), ino) for path, ino in names.items()},
        remote={f"old/{path}": there(a_file(path)) for path in names},
    )
    assert len(plan.push) == 80
    assert (
        refusal(plan, the_sides(baseline={path: agreed_on(a_file(path)) for path in names}), a_mapping()) is None
    )


def test_a_directory_with_living_content_wins_over_a_file_of_its_name():
    sides = ThreeSides(
        baseline={"d": agreed_on(a_file(), 10)},
        local={"d": here(a_file())},
        remote={"d": there(a_file(), 10), "d/a": there(a_file("new"), 12)},
    )
    plan = make_plan(["d/a"], sides, a_mapping(), PlanConditions())
    assert [(push.path, push.entry.kind, push.expected) for push in plan.push] == [("d", Kind.DIR, 10)]
    assert plan.waiting == {"d/a": Wait.SETTLE}


def test_a_file_takes_a_directorys_place_only_together_with_the_deletes_below_it():
    sides = ThreeSides(
        baseline={"d": agreed_on(a_dir(), 10, ino=1), "d/a": agreed_on(a_file("old"), 10, ino=2)},
        local={"d": here(a_file("new"), ino=3)},
        remote={"d": there(a_dir(), 10), "d/a": there(a_file("old"), 10)},
    )
    early = make_plan(["d", "d/a"], sides, a_mapping(), PlanConditions(deletes=False))
    assert (early.push, early.waiting) == ((), {"d": Wait.DELETE, "d/a": Wait.DELETE})
    late = make_plan(["d", "d/a"], sides, a_mapping(), PlanConditions())
    assert [(push.path, push.entry.kind) for push in late.push] == [("d/a", Kind.GONE), ("d", Kind.FILE)]


PULLING = a_mapping(direction=Direction.PULL)


def only_pulling(**sides):
    return plan_of(**sides, mapping=PULLING, settled=PlanConditions(pushes=False))


def test_a_directory_made_where_only_the_store_writes_is_named_once_for_all_that_is_in_it():
    made = {
        "c": here(a_dir()),
        "c/1": here(a_file("1"), 2),
        "c/d": here(a_dir(), 3),
        "c/d/2": here(a_file("2"), 4),
    }
    plan = only_pulling(local=made | {"mine": here(a_file(), 5)})
    assert plan.problems.keys() == {"c", "mine"}
    assert plan.empty


def test_what_is_made_in_a_directory_of_the_store_is_named_itself_be_it_one_without_a_record():
    plan = only_pulling(
        baseline={"c/1": agreed_on(a_file("1")), "e": agreed_on(a_dir())},
        local={
            "c": here(a_dir()),
            "c/1": here(a_file("1")),
            "c/2": here(a_file("2"), 2),
            "e": here(a_dir(), 3),
            "e/3": here(a_file("3"), 4),
        },
        remote={"c/1": there(a_file("1")), "e": there(GONE, 11)},
    )
    assert plan.problems.keys() == {"c/2", "e/3"}


def test_what_was_edited_here_and_deleted_in_the_store_holds_up_nobody_who_waits_for_that():
    sides = the_sides(
        baseline={"a": agreed_on(a_file())}, local={"a": here(a_file("x"))}, remote={"a": there(GONE, 11)}
    )
    plan = make_plan(sides.everything(), sides, PULLING, PlanConditions(pushes=False))
    assert plan.problems.keys() == {"a"}
    sides.agree(dict.fromkeys(plan.forget))
    assert "a" not in sides.changed_in_store


def test_a_set_of_the_store_waits_visibly_for_a_file_of_it_that_has_been_open_here_for_long():
    problem = Problem(path="cert", reason="it is open")
    sides = the_sides(
        baseline={"cert": agreed_on(a_file("1")), "key": agreed_on(a_file("2"), ino=2)},
        local={"cert": here(a_file("1")), "key": here(a_file("2"), 2)},
        remote={"cert": there(a_file("3"), 11), "key": there(a_file("4"), 11)},
    )
    sides.take_scan(changed={}, problems={}, cleared=(), unstable={"cert"})
    early = make_plan(sides.everything(), sides, a_mapping(), PlanConditions())
    assert (early.pull, early.waiting) == ((), {"cert": Wait.UNSTABLE, "key": Wait.UNSTABLE})
    plan = make_plan(sides.everything(), sides, a_mapping(), PlanConditions(open={"cert": problem}))
    assert plan.pull == ()
    assert "held back, since cert" in plan.problems["key"].reason
