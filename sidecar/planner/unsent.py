"""What lies here and is not in the store, as far as both are known: for the last words of `run`."""

from collections.abc import Mapping as Mapped

from configstore.model.path import StorePath
from configstore.model.problem import Problem
from configstore.model.record import Kind
from configstore.model.selection import Direction
from sidecar.mapping import Mapping
from sidecar.planner.reconcile import same_local, shows
from sidecar.planner.sides import Agreed, LocalEntry, RemoteEntry
from sidecar.planner.three_sides import Sides

BEING_WRITTEN = "it is still open for writing, or changes all the time"


def unsent(
    sides: Sides, mapping: Mapping, problems: Mapped[StorePath, Problem], *, otherwise: str
) -> dict[StorePath, str]:
    """Return the paths of which the store does not have what lies here, or still has what was removed, and why.

    What could not be read here, or is being written, cannot be known to be sent. problems: why a path did not
    travel; otherwise: the reason of those that have no problem of their own.
    A mapping that only pulls never sends anything, so it has nothing unsent.
    """
    if mapping.direction is Direction.PULL:
        return {}
    baseline, local, remote = sides.baseline, sides.local, sides.remote
    found = dict.fromkeys(sides.unstable, BEING_WRITTEN)
    found |= {path: problem.reason for path, problem in sides.local_problems.items()}
    for path in baseline.keys() | local.keys():
        if path not in found and _differs(mapping, baseline.get(path), local.get(path), remote.get(path)):
            found[path] = problems[path].reason if path in problems else otherwise
    return dict(sorted(found.items()))


def _differs(mapping: Mapping, base: Agreed | None, here: LocalEntry | None, there: RemoteEntry | None) -> bool:
    """Tell whether a path was changed here since both sides agreed on it, and the store does not show the same.

    A store that was never listed has no record of anything: it is asked only for what it surely has.
    """
    lives = there is not None and there.entry.kind is not Kind.GONE
    if mapping.create_once and (base or lives):
        return False  # what was there first wins: a change is never sent
    if here is None:
        return base is not None and (there is None or lives)
    if base and same_local(base.local, here.entry):
        return False
    return there is None or not lives or not shows(here.entry, there.entry, mapping)
