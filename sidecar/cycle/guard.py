"""Guards one mapping against mass deletions, and knows what a person decided about them. Called by the engine.

The judgement is pure (`planner.guards`). This module keeps what it needs from cycle to cycle: the deletion that is
going on here, and the deletions that a person let pass.
"""

from collections.abc import Callable

from configstore.model.path import StorePath
from configstore.model.record import Deletion
from configstore.model.replica import Take
from sidecar.cycle.requests import PersonRequests
from sidecar.mapping import Mapping
from sidecar.planner.guards import against, refusal
from sidecar.planner.plan import Plan, deletes
from sidecar.planner.settle import DeleteWindow
from sidecar.planner.three_sides import ThreeSides


class Guard:
    """The guard of one mapping."""

    def __init__(
        self,
        mapping: Mapping,
        sides: ThreeSides,
        *,
        requests: PersonRequests,
        window: DeleteWindow,
        new_id: Callable[[], str],
    ) -> None:
        """`new_id` returns a unique id for a deletion."""
        self._mapping = mapping
        self._sides = sides
        self._requests = requests
        self._window = window
        self._new_id = new_id
        self._deletion: Deletion | None = None  # the one with the number `_number`
        self._number = 0
        self._confirmed = False  # whether a person confirmed the deletes of the plan
        self._let_pass: set[str] = set()  # deletions of other replicas that a person let pass

    def refusal(self, plan: Plan) -> str | None:
        """Return why a plan must not be carried out, or None."""
        if self._number != self._window.number:
            self._number, self._deletion = self._window.number, None
        self._confirmed = self._deletion is not None and self._deletion.confirmed
        return refusal(
            plan,
            self._sides,
            self._mapping,
            gone_before=self._window.gone_before,
            confirmed=self._confirmed,
            let_pass=self._let_pass,
        )

    def chosen(self, plan: Plan, refused: str) -> set[StorePath] | None:
        """Return the deletes of a refused plan that a person's request takes back; None without a request."""
        take = self._requests.ending(refused)
        if take is None:
            return None
        if take is Take.STORE:
            self._let_pass |= {pull.remote.deletion.id for pull in plan.pull if pull.remote.deletion}
        else:
            self._confirmed = True
        return against(plan, take)

    def with_deletion(self, plan: Plan) -> Plan:
        """Return the plan with its deletion in each tombstone, and with whether a person confirmed it."""
        count = sum(map(deletes, plan.push))
        if not count:
            return plan
        name = self._deletion.id if self._deletion else self._new_id()
        self._deletion = Deletion(id=name, count=count + self._window.gone_before, confirmed=self._confirmed)
        return plan.with_deletion(self._deletion)
