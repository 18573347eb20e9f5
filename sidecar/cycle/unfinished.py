"""What is left undone of one mapping, as a value for who begins or ends a hold. Read by `control.holds`."""

from collections.abc import Callable
from collections.abc import Mapping as Map

import msgspec

from configstore.model.path import StorePath, shown
from configstore.model.problem import Problem
from configstore.model.record import Entry
from configstore.model.selection import Direction
from configstore.model.signature import Signature
from sidecar.cycle.conflicts import ConflictKeeper
from sidecar.cycle.problems import Problems
from sidecar.mapping import Mapping
from sidecar.planner.three_sides import Sides
from sidecar.planner.unsent import unsent


class UnfinishedPath(msgspec.Struct, frozen=True, kw_only=True):
    """A path of which the store does not have what lies here, and why.

    shown: the path as it is typed into a shell. lies: by what it is known whether that is still the same: an
    entry, or the signature of what could not be read; None for what is gone. sure: whether it cannot travel as it
    lies here, and is not just on its way or being written.
    """

    shown: str
    reason: str
    lies: Entry | Signature | None
    sure: bool

    def __str__(self) -> str:
        """Return path and reason for a person."""
        return f"{self.shown}: {self.reason}"


class Unfinished(msgspec.Struct, frozen=True, kw_only=True):
    """How a mapping stands after a cycle that looked at everything.

    seen: the revision of the store up to which it has seen. unshown: the paths whose newest record is not shown
    here, with the problem that holds it up, if there is one. unsent: those of which the store does not have what
    lies here. yields: those of `unsent` that another holder of the lease may have overtaken: they do not travel,
    but are to be kept as conflicts. conflicts: how many times the store's version took the place of a change made
    here, since the directory was taken; lost: the paths of the last of them, the newest at the end.
    """

    seen: int = 0
    unshown: Map[StorePath, Problem | None] = {}
    unsent: Map[StorePath, UnfinishedPath] = {}
    yields: frozenset[StorePath] = frozenset()
    conflicts: int = 0
    lost: tuple[StorePath, ...] = ()


def standing_of(
    sides: Sides,
    mapping: Mapping,
    problems: Problems,
    keeper: ConflictKeeper,
    *,
    seen: int,
    otherwise: str,
    mark: Callable[[StorePath], Signature | None],
    yields: bool,
) -> Unfinished:
    """Return how a mapping stands.

    otherwise: why a path without a problem of its own did not travel. mark: returns how a path looks that could
    not be read. yields: whether what lies here unsent is to give way.
    """
    reasons = unsent(sides, mapping, problems.unsent(), otherwise=otherwise)

    def left(path: StorePath, reason: str) -> UnfinishedPath:
        # What cannot be read now is still known as it was before.
        local = None if path in sides.local_problems else sides.local.get(path)
        problem = problems.of(path)
        return UnfinishedPath(
            shown=problem.shown() if problem else shown(path),
            reason=reason,
            lies=local.entry if local else mark(path),
            sure=path not in sides.unstable and problem is not None and not problem.unsure,
        )

    giving_way = (sides.queued() | sides.unstable) & reasons.keys() if yields else ()
    shows_all = mapping.direction is Direction.PUSH
    return Unfinished(
        seen=seen,
        unshown={} if shows_all else {path: problems.of(path) for path in sides.news},
        unsent={path: left(path, reason) for path, reason in reasons.items()},
        yields=frozenset(giving_way),
        conflicts=keeper.count,
        lost=tuple(keeper.lost),
    )
