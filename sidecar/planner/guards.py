"""Refuses a plan that looks like an accident rather than an intention. Called between planning and doing."""

from collections import Counter

from configstore.model.path import ROOT, StorePath
from configstore.model.record import Kind
from configstore.model.replica import Take
from sidecar.planner.mapping import Mapping
from sidecar.planner.plan import Plan

FREE_DELETES = 10
"""So many deletes in one plan are never an accident worth stopping a mail platform for."""


def refusal(plan: Plan, known: int, mapping: Mapping) -> str | None:
    """Return why the plan must not be carried out, or None.

    known: how many paths store and replica agree on. The two directions are judged apart; moves do not count.
    """
    resume = f"configstore resume {mapping.name}"
    outgoing, lost = len(_outgoing(plan)), _lost(plan)
    if _is_mass(outgoing, known, mapping):
        mend = f"`{resume} --take store` brings them back here, `--take local` deletes them"
        if mapping.lease:
            mend = (
                f"they come back here when the lease {mapping.lease} is given back. If they are to go, delete them"
                " with `configstore rm`, or allow more by max_delete"
            )
        return _refused(outgoing, known, mapping, "in the store", mend)
    if _is_mass(lost, known, mapping):
        mend = f"`{resume} --take local` writes them to the store again, `--take store` deletes them"
        return _refused(lost, known, mapping, "in this replica", mend)
    return None


def _is_mass(count: int, known: int, mapping: Mapping) -> bool:
    return count > FREE_DELETES and count > mapping.max_delete * known


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
    return {push.path for push in plan.push if push.entry.kind is Kind.GONE and not push.move}


def _lost(plan: Plan) -> int:
    """Count the pulled deletes of what does not arrive at another path in the same plan.

    A tombstone tells by its digest what was deleted; directories and links have none, so only their number counts.
    """
    arriving = Counter(
        pull.remote.entry.sha256
        for pull in plan.pull
        if pull.local is None and pull.remote.entry.kind is not Kind.GONE
    )
    going = Counter(pull.remote.entry.sha256 for pull in plan.pull if pull.remote.entry.kind is Kind.GONE)
    return (going - arriving).total()


def missing_root(mapping: Mapping) -> str:
    """Return the words for a subtree that was never made, with the command that makes it."""
    if mapping.store == ROOT:
        return "the store is empty"
    return (
        f"the store has no subtree {mapping.store}: a fresh or wiped etcd? Make it with"
        f" `configstore mkdir {mapping.store}`, or `configstore bootstrap` for a preset"
    )
