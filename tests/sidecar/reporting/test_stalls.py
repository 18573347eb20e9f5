"""When an engine counts as stuck, and when it only waits."""

import pytest

from sidecar.reporting.stalls import PAUSE, STUCK, StallDetector


class Watched:
    """Progress on a clock that the test moves."""

    def __init__(self):
        self.now = 1000.0
        self.progress = StallDetector("data", lambda: self.now)

    def after(self, seconds):
        self.now += seconds
        return self.progress.stuck(self.now)

    def cycles(self, count, *, pause, takes=0.01, advanced=False):
        for _ in range(count):
            self.progress.begin()
            self.now += takes
            self.progress.end(advanced)
            yield self.progress.stuck(self.now)
            self.now += pause


@pytest.fixture
def watched():
    return Watched()


def test_one_that_never_began_or_waits_for_an_event_is_well(watched):
    assert watched.after(1e6) is None
    assert list(watched.cycles(1, pause=0)) == [None]
    assert watched.after(1e6) is None


def test_a_step_without_end_is_named_with_its_duration(watched):
    watched.progress.begin()
    assert watched.after(STUCK) is None
    assert "data: one step has taken 46 s" in watched.after(1)
    watched.progress.end(True)
    assert watched.after(0) is None


def test_a_long_cycle_of_many_steps_is_well(watched):
    watched.progress.begin()
    for _ in range(100):
        assert watched.after(STUCK - 1) is None
        watched.progress.tick()
    watched.progress.end(True)
    assert watched.after(0) is None


def test_cycle_upon_cycle_without_result_is_named(watched):
    seen = list(watched.cycles(5000, pause=0))
    assert seen[:4400] == [None] * 4400
    assert "data: 5000 cycles in 50 s came to nothing" in seen[-1]


def test_one_cycle_with_a_result_makes_the_rest_well(watched):
    assert list(watched.cycles(4000, pause=0))[-1] is None
    assert list(watched.cycles(1, pause=0, advanced=True)) == [None]
    assert list(watched.cycles(4000, pause=0))[-1] is None


def test_one_that_looks_again_after_pauses_waits_and_is_well(watched):
    assert set(watched.cycles(1000, pause=PAUSE)) == {None}


def test_one_that_stopped_going_in_circles_is_well(watched):
    assert list(watched.cycles(5000, pause=0))[-1] is not None
    assert watched.after(PAUSE) is None


def test_a_long_cycle_after_one_that_came_to_nothing_is_well_and_a_step_without_end_is_named_as_such(watched):
    assert list(watched.cycles(1, pause=0)) == [None]
    watched.progress.begin()
    for _ in range(3):
        assert watched.after(STUCK - 1) is None
        watched.progress.tick()
    assert "one step has taken" in watched.after(STUCK + 1)
