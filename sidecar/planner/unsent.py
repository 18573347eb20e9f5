"""The local changes that the store does not have: `run` names them when it ends, and a hold waits for them."""

from collections.abc import Mapping as Mapped

from configstore.model.path import StorePath
from configstore.model.problem import Problem
from configstore.model.record import Kind
from configstore.model.selection import Direction
from sidecar.mapping import Mapping
from sidecar.planner.reconcile import same_local, shows
from sidecar.planner.sides import Agreement, LocalEntry, RemoteEntry
from sidecar.planner.three_sides import ThreeSides

BEING_WRITTEN = "it is still open for writing, or changes all the time"


def unsent_changes(
    sides: ThreeSides, mapping: Mapping, problems: Mapped[StorePath, Problem], *, otherwise: str
) -> dict[StorePath, str]:
    """Return the paths whose local change or delete the store does not have, each with the reason.

    A path that could not be read, or is being written, counts as unsent: nobody can know that it was sent.
    problems: why paths were not sent; otherwise: the reason of a path without a problem. A mapping that only pulls
    has nothing unsent.
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


def _differs(mapping: Mapping, base: Agreement | None, here: LocalEntry | None, there: RemoteEntry | None) -> bool:
    """Return whether a path was changed here since the agreement, and the store does not hold that change.

    There may be no record because the store was not listed yet; such a path counts as unsent.
    """
    lives = there is not None and there.entry.kind is not Kind.GONE
    if mapping.create_once and (base or lives):
        return False  # the first version wins for ever: a change is never sent
    if here is None:
        return base is not None and (there is None or lives)
    if base and same_local(base.local, here.entry):
        return False
    return there is None or not lives or not shows(here.entry, there.entry, mapping)
