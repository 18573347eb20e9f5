"""What is named as unsent at the end, and what is not."""

import pytest

from configstore.model.problem import Problem
from configstore.model.selection import Direction
from sidecar.planner.three_sides import ThreeSides
from sidecar.planner.unsent import BEING_WRITTEN, unsent_changes
from tests.harness.named import GONE
from tests.sidecar.planner.named import a_dir, a_file, a_mapping, agreed_on, here, there

AWAY = "the store does not answer"


def ask(mapping=None, *, problems=(), unread=(), unstable=frozenset(), **named):
    sides = ThreeSides(**named)
    sides.take_scan(changed={}, problems=dict(unread), cleared=(), unstable=unstable)
    return unsent_changes(sides, mapping or a_mapping(), dict(problems), otherwise=AWAY)


@pytest.mark.parametrize(
    ("base", "local", "remote"),
    [
        (a_file("one"), a_file("two"), a_file("one")),
        (a_file("one"), a_file("one", mode=0o644), a_file("one")),
        (None, a_file("one"), None),
        (None, a_dir(), GONE),
        (a_file("one"), None, a_file("one")),
        (a_file("one"), a_file("two"), a_file("three", uid=7)),
        (a_file("one"), a_file("two"), None),
    ],
    ids=["edited", "another mode", "new", "made again", "removed", "changed on both sides", "store never seen"],
)
def test_what_was_changed_here_and_is_not_in_the_store_is_unsent(base, local, remote):
    found = ask(
        baseline={"x": agreed_on(base)} if base else {},
        local={"x": here(local)} if local else {},
        remote={"x": there(remote)} if remote else {},
    )
    assert found == {"x": AWAY}


@pytest.mark.parametrize(
    ("base", "local", "remote"),
    [
        (a_file("one"), a_file("one"), a_file("one")),
        (a_file("one"), a_file("one"), a_file("two")),
        (a_file("one"), a_file("one"), None),
        (None, a_file("one"), a_file("one")),
        (None, None, a_file("one")),
        (a_file("one"), None, GONE),
        (a_file("one"), a_file("two"), a_file("two")),
    ],
    ids=["nothing happened", "changed there", "store never seen", "the same on both sides", "new there",
         "removed on both sides", "the same edit on both sides"],
)  # fmt: skip
def test_what_the_store_has_or_has_not_changed_here_is_not(base, local, remote):
    found = ask(
        baseline={"x": agreed_on(base)} if base else {},
        local={"x": here(local)} if local else {},
        remote={"x": there(remote)} if remote else {},
    )
    assert found == {}


def test_each_path_has_the_reason_that_is_its_own():
    found = ask(
        baseline={"a": agreed_on(a_file())},
        local={"b": here(a_file()), "c": here(a_file())},
        unread={"d": Problem(path="d", reason="no permission")},
        unstable={"e"},
        problems={
            "b": Problem(path="b", reason="too large"),
            "z": Problem(path="z", reason="of the store's side"),
        },
    )
    assert found == {"a": AWAY, "b": "too large", "c": AWAY, "d": "no permission", "e": BEING_WRITTEN}


def test_a_mapping_that_never_sends_has_nothing_unsent():
    assert ask(a_mapping(direction=Direction.PULL), local={"x": here(a_file())}, unstable={"y"}) == {}
    assert ask(a_mapping(create_once=True), local={"x": here(a_file("two"))}, remote={"x": there(a_file())}) == {}
    assert ask(a_mapping(create_once=True), local={"x": here(a_file("two"))}) == {"x": AWAY}
