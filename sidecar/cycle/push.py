"""Carries out the pushes of a plan. Called by `execute`; what could not be pushed is in the outcome.

1. A write is remembered before it is sent (`Baseline.sending`). If the answer is lost, or this process dies, the
   next cycle finds out by the write id whether it was made (`remote.sent`).
2. The agreement is written after the store's answer. One about a record that the store does not have would make
   the file look like one whose record vanished.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from configstore.errors import StoreError
from configstore.model.path import StorePath, shown
from configstore.model.problem import Problem
from configstore.model.record import Kind, Source
from configstore.store.values import Fence
from sidecar.cycle.parts import MappingParts
from sidecar.local.scan import Changed, Unreadable
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Push
from sidecar.planner.planner import agreement_of
from sidecar.planner.sets import held_back
from sidecar.planner.sides import Agreement, SentWrite
from sidecar.planner.three_sides import UNKNOWN_SET
from sidecar.remote.commit import CommitResult, PathFailed, commit


class Pusher:
    """Sends the local changes of one mapping to the store."""

    def __init__(self, parts: MappingParts) -> None:
        self._mapping = parts.mapping
        self._tree = parts.tree
        self._remote = parts.remote
        self._baseline = parts.baseline
        self._scanner = parts.scanner
        self._check = parts.check

    def push(
        self, pushes: Sequence[Push], done: CycleOutcome, *, fence: Fence | None, alone: AbstractSet[StorePath]
    ) -> None:
        """Send pushes. alone: paths that their sets do not wait for."""
        if not pushes:
            return
        refused = self._refused(pushes, done)
        if refused:
            done.problems |= {push.path: Problem(path=push.path, reason=refused) for push in pushes}
            done.refused |= {push.path for push in pushes}
            return
        write_ids = {push.path: self._tree.new_write_id() for push in pushes}
        # Invariant 1: before the commit, which may never be answered.
        self._baseline.sending({push.path: _sent(push, write_ids[push.path]) for push in pushes})
        committed = commit(
            self._tree,
            self._mapping,
            pushes,
            write_ids,
            self._source,
            fence=fence,
            alone=alone,
            at_hand=self._remote.at_hand.find,
        )
        self._note(pushes, write_ids, committed, done)

    def push_tombstones(self, pushes: Sequence[Push], *, fence: Fence | None) -> StoreError | None:
        """Write tombstones of records that vanished; returns why the store did not take them.

        Nothing is agreed on: the next plan removes the files, as with any tombstone.
        """
        write_ids = {push.path: self._tree.new_write_id() for push in pushes}
        committed = commit(self._tree, self._mapping, pushes, write_ids, lambda _: None, fence=fence)
        for path, remote in committed.done.items():
            self._remote.note_committed(path, remote)
        return committed.failure

    def _refused(self, pushes: Sequence[Push], done: CycleOutcome) -> str | None:
        """Return why the check refuses the pushes, or None."""
        try:
            return self._check.refuses_to_publish(pushes, self._baseline.sides.local, self._scanner.pieces)
        except Changed as change:
            done.moved_on.add(change.path)
            return f"cannot be checked: {shown(change.path)} is being changed"
        except Unreadable as failure:
            return f"cannot be checked: {failure.problem}"

    def _note(
        self, pushes: Sequence[Push], write_ids: dict[StorePath, str], committed: CommitResult, done: CycleOutcome
    ) -> None:
        changes: dict[StorePath, Agreement | None] = {}
        for push in pushes:
            remote = committed.done.get(push.path)
            if remote is None:
                if push.path not in committed.unsure:  # it is known that this write was not made
                    self._baseline.sides.not_made(push.path, [write_ids[push.path]])
                done.again.add(push.path)
                continue
            self._remote.note_committed(push.path, remote)
            done.revision = max(done.revision, remote.mod_revision)
            (done.pushed if push.entry.kind is not Kind.GONE else done.deleted_there).append(push.path)
            if push.local:
                changes[push.path] = agreement_of(push.local, remote)
            elif push.entry.kind is Kind.GONE:
                changes[push.path] = None
            else:
                done.again.add(push.path)
        self._baseline.agree(changes)
        for path, found in committed.stale.items():
            self._remote.learn(path, found)
        self._note_failures(pushes, committed, done)
        done.fenced_out = committed.fenced_out
        done.failure = committed.failure

    def _note_failures(self, pushes: Sequence[Push], committed: CommitResult, done: CycleOutcome) -> None:
        problems = {path: Problem(path=path, reason=reason) for path, reason in committed.refused.items()}
        sets = {push.path: push.in_set for push in pushes}
        for path, problem in committed.failed.items():
            if problem is None:
                done.backing_off.add(path)
                done.moved_on.add(path)
                continue
            problems[path] = problem
            companions = {other for other in committed.left if sets[other] == sets[path] != UNKNOWN_SET}
            why = problem.reason if problem.sealing else f"cannot be read: {problem.reason}"
            problems |= {other: held_back(other, path, why) for other in companions}
        done.problems |= problems
        done.again -= problems.keys()

    def _source(self, push: Push) -> Source | None:
        local = push.local
        if local is None or push.entry.kind is not Kind.FILE:
            return None

        def pieces() -> Iterator[bytes]:
            left = local.entry.size
            try:
                for piece in self._scanner.pieces(push.path, local.entry):
                    left -= len(piece)
                    if left < 0:
                        break  # the file grew
                    yield piece
            except Changed as change:
                raise PathFailed(push.path, None) from change
            except Unreadable as failure:
                raise PathFailed(push.path, failure.problem) from failure
            if left:  # raised here, since the store would report a wrong size as a broken record
                raise PathFailed(push.path, None)

        return pieces


def _sent(push: Push, write_id: str) -> SentWrite:
    local = push.local
    return SentWrite(
        write_id=write_id,
        local=local.entry if local else None,
        ino=local.signature.ino if local else 0,
        expected=push.expected,
    )
