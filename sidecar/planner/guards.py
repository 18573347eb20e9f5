"""Refuses a plan that looks like an accident rather than an intention. Called between planning and doing.

A deletion is judged as a person made it. What goes out is counted together with what of the same deletion went
before; what comes in says in each tombstone how many there are in all. So all of it passes, or none of it.
"""

from collections import Counter
from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet

from configstore.model.path import StorePath
from configstore.model.record import Deletion, Kind
from configstore.model.replica import Take
from sidecar.mapping import Mapping
from sidecar.planner.plan import Plan, deletes
from sidecar.planner.sides import Agreed
from sidecar.planner.three_sides import Sides

FREE_DELETES = 10
"""So many deletes are never an accident worth stopping a mail platform for, unless they leave nothing."""


def refusal(
    plan: Plan,
    sides: Sides,
    mapping: Mapping,
    *,
    gone_before: int = 0,
    confirmed: bool = False,
    let_pass: AbstractSet[str] = frozenset(),
) -> str | None:
    """Return why the plan must not be carried out, or None.

    gone_before: how many paths the deletion that goes on here has deleted already; confirmed: by a person.
    let_pass: deletions of others that a person let pass. The two directions are judged apart; moves do not count.
    """
    outgoing = set() if confirmed else _outgoing(plan)
    known = len(sides.baseline) + gone_before
    mass = outgoing and _is_mass(len(outgoing) + gone_before, known, mapping)
    if mass or _empties(outgoing, sides.baseline, mapping):
        return _refused(len(outgoing) + gone_before, known, mapping, "in the store", _outgoing_mend(mapping))
    for count, before in _incoming(plan, sides, let_pass):
        known = len(sides.baseline) + before
        if _is_mass(count, known, mapping):
            resume = f"configstore resume {mapping.name}"
            mend = f"`{resume} --take local` writes them to the store again, `--take store` deletes them"
            return _refused(min(count, known), known, mapping, "in this replica", mend)
    return None


def _outgoing_mend(mapping: Mapping) -> str:
    if mapping.lease:
        return (
            f"they come back here when the lease {mapping.lease} is given back. If they are to go, delete them"
            " with `configstore rm`, or allow more by max_delete"
        )
    return f"`configstore resume {mapping.name} --take store` brings them back here, `--take local` deletes them"


def _is_mass(count: int, known: int, mapping: Mapping) -> bool:
    return count > FREE_DELETES and count > mapping.max_delete * known


def _empties(outgoing: set[StorePath], baseline: Map[StorePath, Agreed], mapping: Mapping) -> bool:
    """Tell whether several files would go and none stay: an emptied directory, be it one of two certificates.

    A single file that is the only one passes: a program that keeps one file removes it when it has nothing to
    keep.
    """
    if mapping.max_delete >= 1 or len(outgoing) < 2:
        return False
    files = {path for path, agreed in baseline.items() if agreed.remote.kind is not Kind.DIR}
    return len(files) > 1 and files <= outgoing


def _refused(count: int, known: int, mapping: Mapping, where: str, mend: str) -> str:
    return (
        f"refused to delete {count} of {known} paths {where} (max_delete = {mapping.max_delete:g}); nothing was"
        f" changed. Put the files back, or choose: {mend}"
    )


def against(plan: Plan, take: Take) -> set[StorePath]:
    """Return the deletes of a refused plan that are not made when a person chose the side `take`."""
    incoming = {pull.path for pull in plan.pull if pull.remote.entry.kind is Kind.GONE}
    return _outgoing(plan) if take is Take.STORE else incoming


def _outgoing(plan: Plan) -> set[StorePath]:
    return {push.path for push in plan.push if deletes(push)}


def _incoming(plan: Plan, sides: Sides, let_pass: AbstractSet[str]) -> list[tuple[int, int]]:
    """Return for each deletion that arrives how many paths it has, and how many of them are gone here already.

    Tombstones that name no deletion (moves, and those of older versions) are judged by their number in this plan,
    less what arrives at another path: a tombstone tells by its digest what was deleted; directories and links have
    none, so only their number counts.
    """
    going = [pull.remote for pull in plan.pull if pull.remote.entry.kind is Kind.GONE and not pull.yields]
    if not going:
        return []
    deletions: dict[str, Deletion] = {}
    for deletion in filter(None, (remote.deletion for remote in going)):
        known = deletions.get(deletion.id)
        if known is None or deletion.count > known.count:  # one that took long counts up
            deletions[deletion.id] = deletion
    judged = [
        (each.count, sides.gone_of(each.id))
        for each in deletions.values()
        if not (each.confirmed or each.id in let_pass)
    ]
    arriving = Counter(
        pull.remote.entry.sha256
        for pull in plan.pull
        if pull.local is None and pull.remote.entry.kind is not Kind.GONE
    )
    unnamed = Counter(remote.entry.sha256 for remote in going if remote.deletion is None)
    return [*judged, ((unnamed - arriving).total(), 0)]
