"""Carries out a plan: pushes to the store, pulls to the local directory, and the new baseline of both.

Called by the engine, which alone owns the sides; what could not be done comes back as a value.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import msgspec

from configstore.errors import StoreError, StoreUnavailableError
from configstore.model.path import ROOT, StorePath
from configstore.model.record import Entry, Kind, RecordError, split
from configstore.store.tree import Tree
from configstore.store.values import Fence, Write
from sidecar.baseline import Baseline
from sidecar.check import Check
from sidecar.local.apply import Applier, LocalChange
from sidecar.local.scan import Changed, Scanner, Unreadable
from sidecar.planner.mapping import Mapping
from sidecar.planner.plan import Plan, Pull, Push, Wait
from sidecar.planner.planner import Sides, agreed
from sidecar.planner.reconcile import as_shown, tombstone
from sidecar.planner.sides import Agreed, Problem
from sidecar.remote.commit import Committed, commit
from sidecar.remote.fetch import RemoteSide

log = logging.getLogger(__name__)

_BATCH = 8 * 1024 * 1024
"""Bytes of content held in memory at once while pulling; a set is never split for it."""


class Done(msgspec.Struct, kw_only=True):
    """What came of a plan.

    again: paths to be planned again at once, since one side had moved on. rescan: of these, the ones whose
    local state must be read again. problems: what could not be done now, and why. failure: why the store took no
    pushes, all of which wait; what it has to give was pulled all the same. revision: of the last push, 0 for
    none. behind: the store had moved on, and its watch is about to tell.
    """

    pushed: list[StorePath] = []
    pulled: list[StorePath] = []
    again: set[StorePath] = set()
    rescan: set[StorePath] = set()
    problems: dict[StorePath, Problem] = {}
    fenced_out: bool = False
    failure: StoreError | None = None
    revision: int = 0
    behind: bool = False

    def applied(self, plan: Plan) -> bool:
        """Tell whether all that the store had for this replica is here."""
        if self.behind or Wait.UNSTABLE in plan.waiting.values():
            return False
        missing = self.again | self.problems.keys()
        return missing.isdisjoint(pull.path for pull in plan.pull)


class Transfer:
    """Pushes and pulls for one mapping."""

    def __init__(
        self,
        *,
        mapping: Mapping,
        tree: Tree,
        sides: Sides,
        remote: RemoteSide,
        baseline: Baseline,
        scanner: Scanner,
        applier: Applier,
        check: Check,
    ) -> None:
        self._mapping = mapping
        self._tree = tree
        self._sides = sides
        self._remote = remote
        self._baseline = baseline
        self._scanner = scanner
        self._applier = applier
        self._check = check

    def carry_out(self, plan: Plan, fence: Fence | None = None) -> Done:
        """Do all of a plan that can be done.

        Raises StoreUnavailableError when the store does not give what is to be pulled; then plan again later.
        """
        done = Done()
        self._note({**plan.agree, **dict.fromkeys(plan.forget)})
        self._remote.release(plan.agree)
        try:
            self._push(plan.push, fence, done)
        except Changed as change:
            done.again.update(push.path for push in plan.push if push.path not in done.pushed)
            done.rescan.add(change.path)
        except StoreError as error:
            done.again.update(push.path for push in plan.push if push.path not in done.problems)
            done.failure = error
        for batch in _batches(plan.pull):
            self._pull(batch, done)
        return done

    def forget(self, paths: Iterable[StorePath]) -> None:
        """Forget what was agreed on about paths, so that they are compared as if for the first time."""
        self._note(dict.fromkeys(paths))

    def bury(self, paths: Iterable[StorePath], fence: Fence | None) -> None:
        """Write tombstones where records vanished; the files go as with any tombstone. Raises StoreError."""
        pushes = [
            Push(path=path, entry=tombstone(self._sides.baseline[path]), local=None, expected=0)
            for path in sorted(paths)
        ]
        committed = commit(self._tree, self._mapping, pushes, self._read, fence)
        for path, remote in committed.done.items():
            self._remote.written(path, remote)

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

    def _note(self, changes: dict[StorePath, Agreed | None]) -> None:
        try:
            self._baseline.record(changes, self._sides.cluster_id)
        except OSError as error:
            log.warning(
                "cannot write the baseline; a restart compares everything anew",
                extra={"mapping": self._mapping.name, "reason": error.strerror},
            )

    def _push(self, pushes: Sequence[Push], fence: Fence | None, done: Done) -> None:
        refused = self._refused_to_publish(pushes)
        if refused:
            done.problems |= {push.path: Problem(path=push.path, reason=refused) for push in pushes}
            return
        committed, pushes = self._commit(pushes, fence, done)
        changes: dict[StorePath, Agreed | None] = {}
        for push in pushes:
            remote = committed.done.get(push.path)
            if remote is None:
                done.again.add(push.path)
                continue
            self._remote.written(push.path, remote)
            done.revision = max(done.revision, remote.mod_revision)
            done.pushed.append(push.path)
            if push.local:
                changes[push.path] = agreed(push.local, remote)
            elif push.entry.kind is Kind.GONE:
                changes[push.path] = None
            else:
                done.again.add(push.path)
        for path, reason in committed.refused.items():
            done.problems[path] = Problem(path=path, reason=reason)
            done.again.discard(path)
        for path, found in committed.stale.items():
            self._remote.learn(path, found)
        done.fenced_out = committed.fenced_out
        self._note(changes)

    def _commit(self, pushes: Sequence[Push], fence: Fence | None, done: Done) -> tuple[Committed, Sequence[Push]]:
        """Commit what can be read; returns also which pushes that was."""
        while pushes:
            try:
                return commit(self._tree, self._mapping, pushes, self._read, fence), pushes
            except Unreadable as failure:
                problem = failure.problem
                done.problems[StorePath(problem.path)] = problem
                pushes = [push for push in pushes if push.path != problem.path]
        return Committed(), ()

    def _read(self, push: Push) -> bytes | None:
        if push.local is None or push.entry.kind is not Kind.FILE:
            return None
        return b"".join(self._scanner.pieces(push.path, push.local.entry))

    def _pull(self, pulls: Sequence[Pull], done: Done) -> None:
        wanted: dict[StorePath, Pull] = {}
        changes: list[LocalChange] = []
        key = tuple((pull.path, pull.remote.mod_revision) for pull in pulls)
        refused = self._check.known(key)
        for number, pull in enumerate(() if refused else pulls):
            change = self._local_change(pull, -1 - number, done)
            if change:
                wanted[pull.path] = pull
                changes.append(change)
        if changes and self._check.wanted:
            refused = self._refused_to_apply(key, changes)
        if refused:
            done.problems |= {pull.path: Problem(path=pull.path, reason=refused) for pull in pulls}
            return
        if not changes:
            return
        applied = self._applier.apply(changes)
        noted: dict[StorePath, Agreed | None] = {}
        for path, local in applied.done.items():
            if local is None:
                self._sides.local.pop(path, None)
                noted[path] = None
            else:
                self._sides.local[path] = local
                if path in wanted:
                    noted[path] = agreed(local, wanted[path].remote)
        done.pulled += [path for path in applied.done if path in wanted]
        done.problems |= applied.problems
        done.again |= applied.stale
        done.rescan |= applied.stale
        self._remote.release(noted)
        self._note(noted)
        self._applier.finish()

    def _refused_to_publish(self, pushes: Sequence[Push]) -> str | None:
        """Have the mapping's check look at the directory as it is; returns why nothing of it may be published."""
        if not pushes or not self._check.wanted:
            return None
        key = tuple((push.path, push.entry) for push in pushes)
        return self._check.known(key) or self._check.ask(key, self._mapping.path)

    def _refused_to_apply(self, key: object, changes: Sequence[LocalChange]) -> str | None:
        """Have the check look at the directory as it would be; returns why it refused the changes."""
        entries = {path: local.entry for path, local in self._sides.local.items()}
        changed = {change.path: change for change in changes}
        entries |= {path: change.desired for path, change in changed.items()}
        with self._applier.view() as view:
            for path, entry in sorted(entries.items()):
                content = changed[path].content if path in changed else None
                if entry.kind is Kind.DIR:
                    view.directory(path)
                elif entry.kind is Kind.SYMLINK:
                    view.link(path, entry.target)
                elif entry.kind is Kind.FILE and content is not None:
                    view.file(path, content())
                elif entry.kind is Kind.FILE:
                    view.unchanged(path)
            return self._check.ask(key, view.path)

    def _local_change(self, pull: Pull, alone: int, done: Done) -> LocalChange | None:
        """Fetch what a pull needs; None when it cannot be done now, which `done` then says."""
        desired = as_shown(pull.remote.entry, self._mapping)
        try:
            if pull.local and (pull.keep or self._forgotten(pull)):
                self._keep(pull.path, pull.local.entry)
            content = self._content(pull, desired)
        except Changed:
            done.again.add(pull.path)
            done.rescan.add(pull.path)
            return None
        except Unreadable as failure:
            done.problems[pull.path] = failure.problem
            return None
        except StoreUnavailableError:
            raise
        except (StoreError, RecordError) as error:
            done.problems[pull.path] = Problem(path=pull.path, reason=str(error))
            return None
        if content is None and desired.kind is Kind.FILE:
            done.behind = True  # the store holds a newer version, which the watch is about to bring
            return None
        known = pull.path in self._sides.baseline
        group = pull.remote.mod_revision if known else alone  # what replaces a known set is a set
        return LocalChange(
            path=pull.path,
            expected=pull.local,
            desired=desired,
            content=None if content is None else partial(split, content),
            group=group,
            remote=pull.remote,
        )

    def _forgotten(self, pull: Pull) -> bool:
        """Tell whether the store has lost what lies here though it once held it. Raises StoreError.

        A record written by hand with etcdctl keeps no history, and a restored snapshot may have overtaken us.
        """
        base = self._sides.baseline.get(pull.path)
        if not base or not pull.local or pull.local.entry.kind is not Kind.FILE or not self._mapping.retention:
            return False
        if pull.remote.supersedes == base.mod_revision or pull.local.entry.same_content(pull.remote.entry):
            return False
        return not self._remote.remembers(pull.path, base.mod_revision)

    def _content(self, pull: Pull, desired: Entry) -> bytes | None:
        if desired.kind is not Kind.FILE:
            return None
        return self._remote.content(pull.path, pull.remote)

    def _keep(self, path: StorePath, entry: Entry) -> None:
        content = b"".join(self._scanner.pieces(path, entry)) if entry.kind is Kind.FILE else None
        absolute = StorePath(f"{self._mapping.store}/{path}" if self._mapping.store else path)
        kept = self._tree.keep_conflict(absolute, entry, content, retention=self._mapping.retention)
        log.warning(
            "conflict: the store's version wins, the local one is kept under conflicts/",
            extra={"mapping": self._mapping.name, "path": path, "conflict": kept},
        )


def _batches(pulls: Sequence[Pull]) -> Iterator[list[Pull]]:
    """Cut pulls by size, in the order in which they were committed, without cutting a txn in two."""
    if sum(pull.remote.entry.size for pull in pulls) <= _BATCH:
        if pulls:
            yield list(pulls)
        return
    batch: list[Pull] = []
    size = 0
    for pull in sorted(pulls, key=lambda pull: pull.remote.mod_revision):
        if size > _BATCH and pull.remote.mod_revision != batch[-1].remote.mod_revision:
            yield batch
            batch, size = [], 0
        batch.append(pull)
        size += pull.remote.entry.size
    if batch:
        yield batch
