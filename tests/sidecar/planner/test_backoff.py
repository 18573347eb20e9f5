"""A path that fails pauses for itself, and longer each time."""

import itertools

import pytest

from sidecar.planner.backoff import LONGEST, Backoff


def test_the_first_failure_is_tried_again_at_once_and_the_next_ones_after_growing_pauses():
    backoff, now, pauses = Backoff(), 100.0, []
    for _ in range(12):
        backoff.failed(["a"], now)
        pause = backoff.until_next(now) or 0.0
        pauses.append(pause)
        now += pause
    assert pauses[0] == 0.0
    assert all(before < after + 1e-6 for before, after in itertools.pairwise(pauses))
    assert pauses[-1] == pytest.approx(LONGEST)


def test_only_the_path_that_failed_pauses():
    backoff = Backoff()
    for _ in range(3):
        backoff.failed(["a"], 100.0)
    assert backoff.pausing(100.0) == {"a"}
    assert backoff.pausing(100.0 + LONGEST) == frozenset()
    assert backoff.repeated() == frozenset()
    backoff.failed(["a"], 100.0)
    assert backoff.repeated() == {"a"}


def test_a_success_forgets_the_failures():
    backoff = Backoff()
    for _ in range(9):
        backoff.failed(["a", "b"], 100.0)
    backoff.succeeded(["a"])
    assert backoff.pausing(100.0) == {"b"}


def test_what_failed_once_is_due_at_once_though_nothing_else_happens():
    backoff = Backoff()
    backoff.failed({"a"}, 10.0)
    assert backoff.pausing(10.001) == set()
    assert backoff.until_next(10.001) == 0.0


def test_what_is_kept_from_being_tried_is_not_asked_for_all_the_time():
    backoff = Backoff()
    backoff.failed({"a"}, 10.0)
    backoff.until_next(10.0)
    assert backoff.until_next(10.0) is None
