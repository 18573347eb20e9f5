"""Makes the plan for some paths from the three sides and the mapping's policy. Called by the engine.

First each path is decided by itself (`reconcile.decide`). Then the plan is changed until these invariants hold:

1. No directory is removed or replaced while something in it stays (`_keep_parents`, `_resolve_collisions`).
2. The tombstone of a directory is never sent before those of all that was in it (`_keep_directories_of_waiting`).
   Another replica would find a live file in a deleted directory, and write the directory's record again.
3. What was changed together travels together or waits together (`sets.keep_together`).
4. Directories come first in the order of the plan, deletes last and deepest first (`placing_order`).
"""

from collections.abc import Iterable
from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet
from types import MappingProxyType

import msgspec

from configstore.model.path import ROOT, StorePath, ancestors, depth, is_below, parent
from configstore.model.problem import Problem
from configstore.model.record import Entry, Kind, placing_order, tombstone
from sidecar.mapping import Mapping
from sidecar.planner.moves import moved_inodes
from sidecar.planner.plan import Plan, Pull, Push, Wait
from sidecar.planner.reconcile import (
    REASONS,
    Verdict,
    as_pushed,
    as_shown,
    decide,
    reason,
    shows,
    stored_again,
)
from sidecar.planner.sets import keep_together, mixed_by
from sidecar.planner.sides import Agreement, LocalEntry, RemoteEntry, agreement
from sidecar.planner.three_sides import UNKNOWN_SET, ThreeSides

_DIR_MODE = 0o755
"""Mode of a directory's record that is written because something below it lives."""


class PlanConditions(msgspec.Struct, frozen=True, kw_only=True):
    """What may be sent or applied by a plan.

    pushes: whether the replica may write to the store. edits: whether the set of local changes is settled.
    deletes: whether the delete window is settled, too. backing_off: paths that failed and pause. given_up: paths
    that failed so often that their sets no longer wait for them. open: the problems of paths that a program has
    had open for writing for long. yields: whether a local change that may not be pushed gives way to the store's
    record, and is kept as a conflict. leaseless: whether the mapping's lease is not held, so that a newer record
    does not wait for a local edit.
    """

    pushes: bool = True
    edits: bool = True
    deletes: bool = True
    backing_off: AbstractSet[StorePath] = frozenset()
    given_up: AbstractSet[StorePath] = frozenset()
    open: Map[StorePath, Problem] = MappingProxyType({})
    yields: bool = False
    leaseless: bool = False


def make_plan(paths: Iterable[StorePath], sides: ThreeSides, mapping: Mapping, conditions: PlanConditions) -> Plan:
    """Return what to do about `paths`; all other paths are taken to be in agreement."""
    return _Draft(set(paths), sides, mapping, conditions).plan()


class _Draft:
    """The plan while it is made: what is decided so far, by path."""

    def __init__(
        self, paths: set[StorePath], sides: ThreeSides, mapping: Mapping, conditions: PlanConditions
    ) -> None:
        self.paths = paths
        self.sides = sides
        self.baseline, self.local, self.remote = sides.baseline, sides.local, sides.remote
        self.mapping = mapping
        self.conditions = conditions
        self.moved = moved_inodes(paths, self.baseline, self.local)
        self.push: dict[StorePath, Push] = {}
        self.arrivals: dict[int, Push] = {}  # by inode: the push of a moved path under its new name
        self.pull: dict[StorePath, Pull] = {}
        self.agree: dict[StorePath, Agreement] = {}
        self.forget: list[StorePath] = []
        self.waiting: dict[StorePath, Wait] = {}
        self.problems: dict[StorePath, Problem] = {}

    def plan(self) -> Plan:
        self.paths |= {above for path in self.paths for above in ancestors(path) if self._is_leaf(above)}
        for path in sorted(self.paths):
            blocked = self.sides.problem(path)
            if blocked:
                self.problems[path] = blocked
            elif path in self.sides.unstable:
                self.waiting[path] = Wait.UNSTABLE
            elif path in self.conditions.backing_off:
                self.waiting[path] = Wait.BACKOFF
            else:
                self._plan_path(path)
        self._keep_parents()
        self._resolve_collisions()
        keep_together(
            push=self.push,
            pull=self.pull,
            waiting=self.waiting,
            problems=self.problems,
            sides=self.sides,
            given_up=self.conditions.given_up,
            opened=self.conditions.open,
        )
        self._keep_directories_of_waiting()
        return Plan(
            push=tuple(sorted(self.push.values(), key=self._push_order)),
            pull=tuple(sorted(self.pull.values(), key=_pull_order)),
            agree=self.agree,
            forget=tuple(self.forget),
            waiting=self.waiting,
            problems=self.problems,
            mixed=mixed_by(self.push, self.pull, self.sides),
        )

    def _push_order(self, push: Push) -> tuple[int, int, int, StorePath, bool]:
        """Return the sort key of a push: directories first, then one set after the other, then deletes.

        The tombstone of a moved file comes right after its new path, so that one transaction has both. A tombstone
        below a path where a file or link takes a directory's place comes before everything.
        """
        if push.entry.kind is Kind.GONE and any(self._is_leaf(above) for above in ancestors(push.path)):
            return -1, 0, -depth(push.path), push.path, False
        moved_to = self.arrivals.get(self.baseline[push.path].ino) if push.move and not push.local else None
        if moved_to and moved_to.entry.kind is not Kind.DIR:
            return *_in_order(moved_to), True
        return *_in_order(push), False

    def _plan_path(self, path: StorePath) -> None:
        base, local, remote = self.baseline.get(path), self.local.get(path), self.remote.get(path)
        verdict = decide(base, local, remote, self.mapping, pushes=self.conditions.pushes)
        again = stored_again(base, remote)
        if base and remote and again and verdict is Verdict.LOCAL_DRIFT:  # else it would count as not shown
            self.agree[path] = msgspec.structs.replace(base, mod_revision=remote.mod_revision)
        overtaken = self.conditions.leaseless and path in self.sides.changed_in_store and not again
        if verdict is Verdict.LOCAL_DRIFT and local and (self.conditions.yields or overtaken):
            self._plan_to_yield(path, local, remote)
        elif verdict is Verdict.PUSH:
            self._plan_push(path, base, local, remote)
        elif verdict is Verdict.CONFLICT and not self.conditions.edits:
            self.waiting[path] = Wait.SETTLE  # `mixed_by` must know the whole set of the side that loses
        elif verdict in {Verdict.PULL, Verdict.CONFLICT} and remote:
            # Equal content is no conflict: only mode or owner differ, and the store's version is taken.
            unseen = verdict is Verdict.CONFLICT and local and not local.entry.same_content(remote.entry)
            self.pull[path] = Pull(path=path, remote=remote, local=local, keep=bool(unseen))
        elif verdict is Verdict.AGREE and local and remote:
            self.agree[path] = agreement_of(local, remote)
        elif verdict is Verdict.FORGET:
            self.forget.append(path)
        elif verdict is Verdict.LOCAL_ONLY:
            self._plan_local_only(path, base)
        elif verdict in REASONS:
            self.problems[path] = Problem(path=path, reason=reason(verdict, self.mapping))

    def _plan_to_yield(self, path: StorePath, local: LocalEntry, remote: RemoteEntry | None) -> None:
        if not self.conditions.edits:
            self.waiting[path] = Wait.SETTLE
            return
        nothing = RemoteEntry(entry=tombstone(), mod_revision=0)
        there = remote or nothing
        keep = local.entry.kind is not Kind.DIR and not local.entry.same_content(there.entry)
        self.pull[path] = Pull(path=path, remote=there, local=local, keep=keep, yields=True)

    def _plan_local_only(self, path: StorePath, base: Agreement | None) -> None:
        """Report a path that is only here, a directory for all that is in it."""
        if base:
            self.forget.append(path)  # it was deleted in the store, and edited here since: nothing is agreed on
        above = parent(path)
        spoken_for = above != ROOT and not self.sides.lives_below(above) and self._is_local_only(above)
        if not spoken_for and not self.sides.lives_below(path):
            problem = Problem(path=path, reason=reason(Verdict.LOCAL_ONLY, self.mapping))
            self.problems[path] = problem

    def _is_local_only(self, path: StorePath) -> bool:
        remote = self.remote.get(path)
        known = path in self.baseline or path not in self.local
        return not known and (remote is None or remote.entry.kind is Kind.GONE)

    def _plan_push(
        self, path: StorePath, base: Agreement | None, local: LocalEntry | None, remote: RemoteEntry | None
    ) -> None:
        expected = remote.mod_revision if remote else 0
        if not self.conditions.edits:
            self.waiting[path] = Wait.SETTLE
        elif local:
            move = base is None and local.signature.ino in self.moved
            entry = as_pushed(base, local.entry, self.mapping)
            self.push[path] = Push(
                path=path, entry=entry, local=local, expected=expected, move=move, in_set=self._set_of(path, entry)
            )
            if move:
                self.arrivals[local.signature.ino] = self.push[path]
        elif base:
            move = base.ino in self.moved
            if move or self.conditions.deletes:
                in_set = self._set_of(path, base.local) if move else UNKNOWN_SET
                self.push[path] = Push(
                    path=path,
                    entry=tombstone(base.remote),
                    local=None,
                    expected=expected,
                    move=move,
                    in_set=in_set,
                )
            else:
                self.waiting[path] = Wait.DELETE

    def _set_of(self, path: StorePath, entry: Entry) -> int:
        """Return the set that a path is sent with. Directories are in none: they are sent before all sets."""
        return UNKNOWN_SET if entry.kind is Kind.DIR else self.sides.set_of(path)

    def _keep_parents(self) -> None:
        """Keep a directory that the store deleted or replaced while something in it stays here.

        A local edit beats the delete of the directory above it, so the directory's record is written again.
        """
        removed = {path for path, pull in self.pull.items() if pull.remote.entry.kind is not Kind.DIR}
        doomed = [path for path in removed if _is_dir(self.pull[path].local)]
        for directory in sorted(doomed, key=depth, reverse=True):
            if not any(is_below(path, directory) and path not in removed for path in self.local):
                continue
            if not self.conditions.pushes:
                continue  # applying it fails then, and is a problem: the directory is not empty
            pull = self.pull.pop(directory)
            removed.discard(directory)
            if pull.local and self.conditions.edits:
                entry = as_pushed(None, pull.local.entry, self.mapping)
                expected = pull.remote.mod_revision
                self.push[directory] = Push(path=directory, entry=entry, local=pull.local, expected=expected)
            else:
                self.waiting[directory] = Wait.SETTLE

    def _keep_directories_of_waiting(self) -> None:
        """Hold back the tombstone of a directory while the delete of anything below it waits."""
        late = {above for path in self.waiting if path in self.baseline for above in ancestors(path)}
        for path in late & self.push.keys():
            if self.push[path].entry.kind is Kind.GONE:
                del self.push[path]
                self.waiting[path] = Wait.DELETE

    def _resolve_collisions(self) -> None:
        """Let a directory win over a file or link of the same path while anything below it has a live record.

        The store gets there when one replica changes a path's kind while another changes something below it.
        Nothing is lost: the losing record stays below `past/`, a losing local file is kept below `conflicts/`
        first.
        """
        for path in sorted({path for path in self.paths if self._hides(path)}, key=depth):
            living = [
                below
                for below, remote in self.remote.items()
                if is_below(below, path) and remote.entry.kind is not Kind.GONE
            ]
            remaining = [below for below in living if below not in self.push or self.push[below].local]
            if not remaining:
                continue
            if path in self.push and all(self.waiting.get(below) is Wait.DELETE for below in remaining):
                del self.push[path]
                self.waiting[path] = Wait.DELETE
            else:
                self._restore_directory(path, remaining)

    def _hides(self, path: StorePath) -> bool:
        """Return whether a path is, or becomes, a file or link that has live records below it."""
        return self._is_leaf(path) and self.sides.lives_below(path)

    def _is_leaf(self, path: StorePath) -> bool:
        """Return whether a path is a file or link in the store, or becomes one by this plan."""
        found = self.push.get(path) or self.remote.get(path)
        return found is not None and found.entry.kind not in {Kind.DIR, Kind.GONE}

    def _restore_directory(self, path: StorePath, below: Iterable[StorePath]) -> None:
        remote, local = self.remote.get(path), self.local.get(path)
        self.push.pop(path, None)
        self.pull.pop(path, None)
        if remote and remote.entry.kind is Kind.DIR:
            self.pull[path] = Pull(path=path, remote=remote, local=local, keep=True)
            return
        for other in below:
            self.pull.pop(other, None)
            self.waiting[other] = Wait.SETTLE
        if not self.conditions.pushes:
            reason = "is a file or a link in the store, and something lies below it there: remove one of them"
            self.problems[path] = Problem(path=path, reason=reason)
        elif self.conditions.edits:
            expected = remote.mod_revision if remote else 0
            entry = Entry(kind=Kind.DIR, mode=_DIR_MODE)
            self.push[path] = Push(path=path, entry=entry, local=None, expected=expected)
        else:
            self.waiting[path] = Wait.SETTLE


def agreement_of(local: LocalEntry, remote: RemoteEntry) -> Agreement:
    """Return the agreement of a path whose two sides are equal."""
    return agreement(local.entry, remote, ino=local.signature.ino)


def _is_dir(local: LocalEntry | None) -> bool:
    return local is not None and local.entry.kind is Kind.DIR


def _pull_order(pull: Pull) -> tuple[int, int, StorePath]:
    return placing_order(pull.path, pull.remote.entry.kind)


def _in_order(push: Push) -> tuple[int, int, int, StorePath]:
    """Return the sort key of a push by its set.

    Directories and deletes are in no set: they come first and last.
    """
    turn, level, path = placing_order(push.path, push.entry.kind)
    if push.entry.kind in {Kind.FILE, Kind.SYMLINK}:
        return 1, push.in_set, turn * _DEEPER + level, path
    return turn, 0, level, path


_DEEPER = 4096
"""More components than any path has: files come before links at every depth."""


def siding_with_local(sides: ThreeSides, mapping: Mapping) -> dict[StorePath, Agreement]:
    """Return agreements by which each path that differs counts as edited here alone, so that it is pushed."""
    return {
        path: agreement(as_shown(remote.entry, mapping), remote)
        for path, remote in sides.remote.items()
        if (local := sides.local.get(path))
        and remote.entry.kind is not Kind.GONE
        and not shows(local.entry, remote.entry, mapping)
    }
