"""Refuses a plan that looks like an accident rather than an intention. Called between planning and doing."""

from collections import Counter

from configstore.model.record import Kind
from sidecar.planner.mapping import Mapping
from sidecar.planner.plan import Plan

FREE_DELETES = 10
"""So many deletes in one plan are never an accident worth stopping a mail platform for."""


def refusal(plan: Plan, known: int, mapping: Mapping) -> str | None:
    """Return why the plan must not be carried out, or None.

    known: how many paths store and replica agree on. The two directions are judged apart; moves do not count.
    """
    outgoing = sum(push.entry.kind is Kind.GONE and not push.move for push in plan.push)
    for count, where in ((outgoing, "in the store"), (_lost(plan), "in this replica")):
        if count > FREE_DELETES and count > mapping.max_delete * known:
            return (
                f"refused to delete {count} of {known} paths {where} (max_delete = {mapping.max_delete:g});"
                " nothing was changed: put the files back, or allow it by raising max_delete for one run"
            )
    return None


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
