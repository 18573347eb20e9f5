"""What is wrong with paths of a mapping, and why others wait, from plan to plan. Owned by its engine."""

from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet

from configstore.model.path import StorePath
from sidecar.done import Done
from sidecar.planner.plan import Plan, Wait
from sidecar.planner.sides import Problem
from sidecar.planner.three_sides import Sides


class Problems:
    """The problems of paths. waiting: those that were left for a later cycle, and why."""

    def __init__(self, sides: Sides) -> None:
        self.waiting: dict[StorePath, Wait] = {}
        self._sides = sides
        self._found: dict[StorePath, Problem] = {}
        self._mixed: dict[StorePath, tuple[int, Problem]] = {}  # with the revision that it is about

    def of(self, path: StorePath) -> Problem | None:
        """Return what is wrong with a path, or None."""
        return self._found.get(path) or self._sides.problem(path)

    def add(self, problems: Map[StorePath, Problem]) -> None:
        """Take what a plan says that is not carried out."""
        self._found |= problems

    def note(self, plan: Plan, done: Done, planned: AbstractSet[StorePath]) -> set[StorePath]:
        """Take what came of a plan for the paths `planned`; returns those that are to be planned again."""
        pausing = {path for path, why in plan.waiting.items() if why is Wait.ASIDE}
        others = {path: found for path, found in self._found.items() if path not in planned - pausing}
        self._found = others | plan.problems | done.problems
        self.waiting = {**plan.waiting, **dict.fromkeys(done.again, Wait.AGAIN)}
        self._note_mixed(plan, done)
        held = {path for path in plan.problems if self._sides.problem(path) is None}  # nothing tells when they end
        return held | self.waiting.keys() | done.problems.keys()

    def _note_mixed(self, plan: Plan, done: Done) -> None:
        """Remember which paths were placed beside what another hand made, until a newer version of them comes."""
        baseline = self._sides.baseline
        for path in plan.mixed.keys() & set(done.pulled):
            self._mixed[path] = baseline[path].mod_revision, plan.mixed[path]
        self._mixed = {
            path: (at, problem)
            for path, (at, problem) in self._mixed.items()
            if path in baseline and baseline[path].mod_revision == at
        }

    def shown(self) -> dict[StorePath, Problem]:
        """Return all of them."""
        found = {path: problem for path, (_, problem) in self._mixed.items()}
        return found | {**self._sides.local_problems, **self._sides.remote_problems, **self._found}

    def unsent(self) -> dict[StorePath, Problem]:
        """Return those that may keep a path from being sent."""
        return {**self._sides.remote_problems, **self._found}
