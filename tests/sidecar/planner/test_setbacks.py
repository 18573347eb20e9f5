"""Paths that failed are tried again, and again more seldom."""

from sidecar.planner.setbacks import LONGEST, Setbacks


def test_what_failed_once_is_due_at_once_though_nothing_else_happens():
    setbacks = Setbacks()
    setbacks.failed({"a"}, 10.0)
    assert setbacks.pausing(10.001) == set()
    assert setbacks.until_next(10.001) == 0.0


def test_what_is_kept_from_being_tried_is_not_asked_for_all_the_time():
    setbacks = Setbacks()
    setbacks.failed({"a"}, 10.0)
    setbacks.until_next(10.0)
    assert setbacks.until_next(10.0) is None


def test_what_fails_again_and_again_pauses_longer_each_time():
    setbacks, now, pauses = Setbacks(), 0.0, []
    for _ in range(12):
        setbacks.failed({"a"}, now)
        pauses.append(setbacks.until_next(now))
        now += pauses[-1]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.0, LONGEST)
    setbacks.over({"a"})
    assert setbacks.until_next(now) is None
