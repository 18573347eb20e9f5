"""How long sets take to travel, as a histogram. One for each mapping, kept by its engine.

A set that was changed here counts from the first change that was noticed until it is committed, `settle` and an
outage included; a set from the store from its arrival until it is applied. A deletion is not counted unless it is
half of a move: it waits on purpose for so long that it would hide everything else.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from configstore.model.path import StorePath
from configstore.model.record import Kind
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Plan

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds in seconds; one more bucket counts what took longer."""


class Latency:
    """The histogram of one mapping; written by its engine, read from any thread."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._total = 0.0
        self._lock = threading.Lock()
        self._arrived: dict[StorePath, float] = {}  # of records that are not applied yet: when they arrived

    def seen(self) -> tuple[list[int], float]:
        """Return how many sets each bucket counts, and the sum of all their seconds."""
        with self._lock:
            return list(self._counts), self._total

    def arrived(self, waiting: AbstractSet[StorePath], now: float) -> None:
        """Take the paths whose newest record is not applied here; those not known yet arrived at `now`."""
        if waiting or self._arrived:
            self._arrived = {path: self._arrived.get(path, now) for path in waiting}

    def moved(self, plan: Plan, done: CycleOutcome, noticed: Mapping[StorePath, float], now: float) -> None:
        """Count the sets of a plan that travelled. noticed: when each change made here was noticed first."""
        if done.advanced:
            for begun in (*_pushed(plan, done, noticed), *self._pulled(plan, done)):
                self._count(max(0.0, now - begun))

    def _pulled(self, plan: Plan, done: CycleOutcome) -> Iterator[float]:
        """Yield when each applied set arrived."""
        applied = {*done.pulled, *done.deleted_here}
        groups = ((each.group, each.path) for each in plan.pull if each.path in applied)
        yield from _first((group, self._arrived[path]) for group, path in groups if path in self._arrived)

    def _count(self, seconds: float) -> None:
        with self._lock:
            self._counts[bisect_left(BUCKETS, seconds)] += 1
            self._total += seconds


def _pushed(plan: Plan, done: CycleOutcome, noticed: Mapping[StorePath, float]) -> Iterator[float]:
    """Yield when each committed set was noticed."""
    sent = {*done.pushed, *done.deleted_there} & noticed.keys()
    counted = (each for each in plan.push if each.entry.kind is not Kind.GONE or each.move)
    return _first((each.in_set, noticed[each.path]) for each in counted if each.path in sent)


def _first(times: Iterable[tuple[int, float]]) -> Iterator[float]:
    """Yield the earliest time of each set."""
    first: dict[int, float] = {}
    for of, at in times:
        first[of] = min(at, first.get(of, at))
    yield from first.values()
