"""What one mapping has not sent and not shown yet, as a value.

A hold begins and ends by it (`control.section`).
"""

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
from sidecar.planner.three_sides import ThreeSides
from sidecar.planner.unsent import unsent_changes


class UnfinishedPath(msgspec.Struct, frozen=True, kw_only=True):
    """A path whose local state the store does not have, and why.

    shown: the path as it is typed into a shell. local: the local state, by which a later change is seen: an
    entry, the signature of a file that could not be read, or None for a path that is gone. sure: whether it is
    certain that the local state cannot be sent as it is; false while it is only being sent or written.
    """

    shown: str
    reason: str
    local: Entry | Signature | None
    sure: bool

    def __str__(self) -> str:
        """Return path and reason for a person."""
        return f"{self.shown}: {self.reason}"


class Unfinished(msgspec.Struct, frozen=True, kw_only=True):
    """What a mapping has not done after a cycle with a full scan.

    seen: the revision of the store up to which all changes were taken in. unshown: the paths whose newest record
    is not shown here, with the problem that prevents it, if there is one. unsent: the paths whose local state the
    store does not have. yields: the paths of `unsent` that another holder of the lease may have changed since:
    they are not sent but kept as conflicts. conflicts: how many times the store's version replaced a local change
    since the mirrored directory was opened. lost: the paths of the last of them, the newest at the end.
    """

    seen: int = 0
    unshown: Map[StorePath, Problem | None] = {}
    unsent: Map[StorePath, UnfinishedPath] = {}
    yields: frozenset[StorePath] = frozenset()
    conflicts: int = 0
    lost: tuple[StorePath, ...] = ()


def unfinished_work(
    sides: ThreeSides,
    mapping: Mapping,
    problems: Problems,
    keeper: ConflictKeeper,
    *,
    seen: int,
    otherwise: str,
    mark: Callable[[StorePath], Signature | None],
    yields: bool,
) -> Unfinished:
    """Return what a mapping has not sent and not shown.

    otherwise: why a path without a problem of its own was not sent. mark: returns the signature of a path that
    could not be read. yields: whether unsent local changes give way.
    """
    reasons = unsent_changes(sides, mapping, problems.unsent(), otherwise=otherwise)

    def left(path: StorePath, reason: str) -> UnfinishedPath:
        # `sides.local` keeps the last known state of a path that cannot be read now.
        local = None if path in sides.local_problems else sides.local.get(path)
        problem = problems.of(path)
        return UnfinishedPath(
            shown=problem.shown() if problem else shown(path),
            reason=reason,
            local=local.entry if local else mark(path),
            sure=path not in sides.unstable and problem is not None and not problem.unsure,
        )

    giving_way = (sides.changed_here() | sides.unstable) & reasons.keys() if yields else ()
    shows_all = mapping.direction is Direction.PUSH
    return Unfinished(
        seen=seen,
        unshown={} if shows_all else {path: problems.of(path) for path in sides.changed_in_store},
        unsent={path: left(path, reason) for path, reason in reasons.items()},
        yields=frozenset(giving_way),
        conflicts=keeper.count,
        lost=tuple(keeper.lost),
    )
