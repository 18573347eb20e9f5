"""Refuses a plan that looks like an accident rather than an intention. Called by `cycle.guard`.

A deletion is judged as one, however many cycles it takes, so that all of it passes or none:

1. Outgoing: the deletes of a plan are counted with those that the same deletion sent before.
2. Incoming: each tombstone says how many paths its deletion has in all.
"""

from collections import Counter
from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet

from configstore.model.path import StorePath
from configstore.model.record import Deletion, Kind
from configstore.model.replica import Take
from sidecar.mapping import Mapping
from sidecar.planner.plan import Plan, deletes
from sidecar.planner.sides import Agreement
from sidecar.planner.three_sides import ThreeSides

FREE_DELETES = 10
"""Number of deletes that always pass, unless they leave no file: too few to stop a mail platform for."""


def refusal(
    plan: Plan,
    sides: ThreeSides,
    mapping: Mapping,
    *,
    gone_before: int = 0,
    confirmed: bool = False,
    let_pass: AbstractSet[str] = frozenset(),
) -> str | None:
    """Return why the plan must not be carried out, or None.

    gone_before: how many paths the local deletion has deleted in earlier cycles; confirmed: whether a person
    confirmed it. let_pass: the ids of other replicas' deletions that a person let pass. The two directions are
    judged separately; moves do not count.
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


def _empties(outgoing: set[StorePath], baseline: Map[StorePath, Agreement], mapping: Mapping) -> bool:
    """Return whether several files would be deleted and none stay, as when a directory was emptied.

    The delete of an only file passes: a program that keeps one file removes it when it has nothing to store.
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
    """Return the deletes of a refused plan that contradict the side which a person chose, `take`."""
    incoming = {pull.path for pull in plan.pull if pull.remote.entry.kind is Kind.GONE}
    return _outgoing(plan) if take is Take.STORE else incoming


def _outgoing(plan: Plan) -> set[StorePath]:
    return {push.path for push in plan.push if deletes(push)}


def _incoming(plan: Plan, sides: ThreeSides, let_pass: AbstractSet[str]) -> list[tuple[int, int]]:
    """Return for each incoming deletion how many paths it has, and how many of them are gone here already.

    Tombstones without a deletion (those of moves, and those of older versions) are judged by their number in this
    plan, less the moved ones: a file with the digest of a tombstone that arrives at another path was moved.
    Directories and links have no digest, so for them the numbers are compared.
    """
    going = [pull.remote for pull in plan.pull if pull.remote.entry.kind is Kind.GONE and not pull.yields]
    if not going:
        return []
    deletions: dict[str, Deletion] = {}
    for deletion in filter(None, (remote.deletion for remote in going)):
        known = deletions.get(deletion.id)
        if known is None or deletion.count > known.count:  # the count grows while a deletion goes on
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
