"""Carries out a plan. Called by the engine.

The order is agreements that need no change, pushes, pulls: the local edits are in the store before the mirrored
directory is changed. When the store takes no pushes, the pulls are made all the same.
"""

from collections.abc import Set as AbstractSet

from configstore.errors import StoreError
from configstore.model.path import ROOT, StorePath
from configstore.model.record import Entry, Kind, RecordError, tombstone
from configstore.store.values import Fence, Write
from sidecar.cycle.conflicts import ConflictKeeper
from sidecar.cycle.parts import MappingParts
from sidecar.cycle.pull import Puller
from sidecar.cycle.push import Pusher
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Plan, Push


class PlanExecutor:
    """Carries out the plans of one mapping."""

    def __init__(self, parts: MappingParts) -> None:
        self._mapping = parts.mapping
        self._tree = parts.tree
        self._baseline = parts.baseline
        self.keeper = ConflictKeeper(parts.tree, parts.mapping, parts.baseline.sides)
        self._pusher = Pusher(parts)
        self._puller = Puller(parts, self.keeper)

    def execute(
        self, plan: Plan, *, fence: Fence | None = None, alone: AbstractSet[StorePath] = frozenset()
    ) -> CycleOutcome:
        """Do all of a plan that can be done. alone: paths that their sets do not wait for."""
        done = CycleOutcome()
        self._baseline.agree({**plan.agree, **dict.fromkeys(plan.forget)})
        self._pusher.push(plan.push, done, fence=fence, alone=alone)
        try:
            self._puller.pull(plan.pull, done)
        except StoreError as error:
            done.failure = error
            done.again |= {pull.path for pull in plan.pull if pull.path not in done.problems}
        done.again -= {*done.pulled, *done.deleted_here}
        return done

    def delete_vanished(self, paths: AbstractSet[StorePath], fence: Fence | None) -> None:
        """Write the tombstones of records that vanished; the next plan removes the files. Raises StoreError."""
        pushes = [
            Push(path=path, entry=tombstone(self._baseline.sides.baseline[path].remote), local=None, expected=0)
            for path in sorted(paths)
        ]
        if failure := self._pusher.push_tombstones(pushes, fence=fence):
            raise failure

    def make_root(self, fence: Fence | None) -> bool:
        """Write the root record unless there is one; returns whether the store surely has it now.

        Raises StoreError.
        """
        if self._mapping.store == ROOT:
            return True
        try:
            found = self._tree.read(self._mapping.store)
        except RecordError:
            return False
        if found and found.entry.kind is not Kind.GONE:
            return found.entry.kind is Kind.DIR
        expected = found.mod_revision if found else 0
        root = Write(path=self._mapping.store, entry=Entry(kind=Kind.DIR, mode=0o755), expected=expected)
        return self._tree.commit([root], retention=self._mapping.retention, fence=fence).complete
