"""The problems of paths and the paths that wait, kept from plan to plan. Owned by one engine."""

from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet

from configstore.model.path import StorePath, shown
from configstore.model.problem import Problem
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Plan, Wait
from sidecar.planner.sets import mixed
from sidecar.planner.three_sides import ThreeSides


class Problems:
    """The problems of one mapping's paths. waiting: the paths that were left for a later cycle, and why."""

    def __init__(self, sides: ThreeSides) -> None:
        self.waiting: dict[StorePath, Wait] = {}
        self._sides = sides
        self._found: dict[StorePath, Problem] = {}
        self._mixed: dict[StorePath, tuple[Problem, dict[StorePath, int]]] = {}  # with the revisions of its paths

    def of(self, path: StorePath) -> Problem | None:
        """Return the problem of a path, or None."""
        return self._found.get(path) or self._sides.problem(path)

    def missing(self) -> list[str]:
        """Return the text of each record that was never shown here, with the reason."""
        found = (self.of(path) or f"{shown(path)}: changes too fast" for path in sorted(self._sides.missing))
        return list(dict.fromkeys(map(str, found)))  # one problem can be that of many paths

    def add(self, problems: Map[StorePath, Problem]) -> None:
        """Take in the problems of a plan that is not carried out."""
        self._found |= problems

    def note(self, plan: Plan, done: CycleOutcome, planned: AbstractSet[StorePath]) -> set[StorePath]:
        """Take in the outcome of a plan for the paths `planned`; returns those that must be planned again."""
        pausing = {path for path, why in plan.waiting.items() if why is Wait.BACKOFF}
        others = {path: found for path, found in self._found.items() if path not in planned - pausing}
        self._found = others | plan.problems | done.problems
        self.waiting = {**plan.waiting, **dict.fromkeys(done.again, Wait.AGAIN)}
        self._note_mixed(plan, done)
        held = {path for path in plan.problems if self._sides.problem(path) is None}  # no event reports their end
        return held | self.waiting.keys() | done.problems.keys()

    def _note_mixed(self, plan: Plan, done: CycleOutcome) -> None:
        """Remember which applied paths split a local set, until any path of it has a newer version."""
        for path in plan.mixed.keys() & set(done.pulled):
            paths = (path, *plan.mixed[path])
            self._mixed[path] = mixed(path, plan.mixed[path]), {each: self._revision(each) for each in paths}
        self._mixed = {
            path: (problem, known)
            for path, (problem, known) in self._mixed.items()
            if all(self._revision(each) == at for each, at in known.items())
        }

    def _revision(self, path: StorePath) -> int:
        agreed = self._sides.baseline.get(path)
        return agreed.mod_revision if agreed else 0

    def shown(self) -> dict[StorePath, Problem]:
        """Return all of them."""
        found = {path: problem for path, (problem, _) in self._mixed.items()}
        return found | {**self._sides.local_problems, **self._sides.remote_problems, **self._found}

    def unsent(self) -> dict[StorePath, Problem]:
        """Return the problems that can keep a path from being sent."""
        return {**self._sides.remote_problems, **self._found}
