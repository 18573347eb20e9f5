"""Carries out a plan: the new baseline of what agrees already, then pushes, then pulls. Called by the engine."""

from collections.abc import Set as AbstractSet

from configstore.errors import StoreError
from configstore.model.path import ROOT, StorePath
from configstore.model.record import Entry, Kind, RecordError, tombstone
from configstore.store.tree import Tree
from configstore.store.values import Fence, Write
from sidecar.cycle.conflicts import ConflictKeeper
from sidecar.cycle.pull import Puller
from sidecar.cycle.push import Pusher
from sidecar.local.apply import Applier
from sidecar.local.scan import Scanner
from sidecar.mapping import Mapping
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Plan, Push
from sidecar.programs.check import Check
from sidecar.remote.side import RemoteSide
from sidecar.state.baseline import Baseline


class Executor:
    """Moves what a plan says, for one mapping."""

    def __init__(
        self,
        *,
        mapping: Mapping,
        tree: Tree,
        baseline: Baseline,
        remote: RemoteSide,
        scanner: Scanner,
        applier: Applier,
    ) -> None:
        self._mapping = mapping
        self._tree = tree
        self._baseline = baseline
        check = Check(mapping)
        self._pusher = Pusher(
            mapping=mapping, tree=tree, remote=remote, baseline=baseline, scanner=scanner, check=check
        )
        self.keeper = ConflictKeeper(tree, mapping, baseline.sides)
        self._puller = Puller(
            mapping=mapping,
            tree=tree,
            remote=remote,
            baseline=baseline,
            scanner=scanner,
            applier=applier,
            check=check,
            keeper=self.keeper,
        )

    def carry_out(
        self, plan: Plan, *, fence: Fence | None = None, alone: AbstractSet[StorePath] = frozenset()
    ) -> CycleOutcome:
        """Do all of a plan that can be done. alone: paths that no other of their set waits for."""
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

    def bury(self, paths: AbstractSet[StorePath], fence: Fence | None) -> None:
        """Write tombstones where records vanished; the files go as with any tombstone. Raises StoreError."""
        pushes = [
            Push(path=path, entry=tombstone(self._baseline.sides.baseline[path].remote), local=None, expected=0)
            for path in sorted(paths)
        ]
        if failure := self._pusher.bury(pushes, fence=fence):
            raise failure

    def make_root(self, fence: Fence | None) -> bool:
        """Write the record of the subtree's root, unless somebody did. Raises StoreError.

        Returns whether it is surely there now.
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
