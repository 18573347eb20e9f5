"""Makes the plan for a set of paths from the three sides and the policy. Called by `engine` alone."""

from collections.abc import Iterable
from functools import cached_property

import msgspec

from configstore.model.path import ROOT, StorePath, ancestors, depth, is_below, parent
from configstore.model.record import Entry, Kind
from sidecar.planner.mapping import Mapping
from sidecar.planner.plan import Plan, Pull, Push, Wait
from sidecar.planner.reconcile import (
    REASONS,
    Verdict,
    as_pushed,
    as_shown,
    decide,
    moved_inodes,
    reason,
    shows,
    tombstone,
)
from sidecar.planner.sides import Agreed, LocalEntry, Problem, RemoteEntry, agreement

_DIR_MODE = 0o755
"""Mode of a directory's record that is written because something below it lives."""


class Sides(msgspec.Struct, kw_only=True):
    """The three sides of one mapping, by path relative to its subtree. Owned and changed by the engine alone.

    cluster_id: of the etcd cluster that the baseline speaks of, 0 for none.
    local_problems: paths whose local state could not be read; nothing is concluded about them, nor about what
    lies below them. remote_problems: paths whose record could not be read; likewise, but for them alone.
    """

    baseline: dict[StorePath, Agreed] = {}
    local: dict[StorePath, LocalEntry] = {}
    remote: dict[StorePath, RemoteEntry] = {}
    local_problems: dict[StorePath, Problem] = {}
    remote_problems: dict[StorePath, Problem] = {}
    unstable: set[StorePath] = set()
    cluster_id: int = 0

    def below(self, directory: StorePath) -> set[StorePath]:
        """Return all known paths below a directory."""
        known = self.baseline.keys() | self.local.keys() | self.remote.keys()
        return {path for path in known if is_below(path, directory)}

    def problem(self, path: StorePath) -> Problem | None:
        """Return why nothing can be concluded about a path, or None."""
        for unread in (path, *ancestors(path), ROOT) if self.local_problems else ():
            if unread in self.local_problems:
                return self.local_problems[unread]
        return self.remote_problems.get(path)


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What may travel now.

    pushes: false while the replica must not write at all. edits: the settle window closed. deletes: the delete
    window closed, too.
    """

    pushes: bool = True
    edits: bool = True
    deletes: bool = True


def make_plan(paths: Iterable[StorePath], sides: Sides, mapping: Mapping, settled: Settled) -> Plan:
    """Return what to do about `paths`; all others are taken to be in agreement."""
    return _Draft(set(paths), sides, mapping, settled).plan()


class _Draft:
    """A plan in the making."""

    def __init__(self, paths: set[StorePath], sides: Sides, mapping: Mapping, settled: Settled) -> None:
        self.paths = paths
        self.sides = sides
        self.mapping = mapping
        self.settled = settled
        self.moved = moved_inodes(paths, sides.baseline, sides.local)
        self.push: dict[StorePath, Push] = {}
        self.arrivals: dict[int, Push] = {}  # the new halves of moves, by inode
        self.pull: dict[StorePath, Pull] = {}
        self.agree: dict[StorePath, Agreed] = {}
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
            else:
                self._plan_path(path)
        self._keep_parents()
        self._settle_collisions()
        return Plan(
            push=tuple(sorted(self.push.values(), key=self._push_order)),
            pull=tuple(sorted(self.pull.values(), key=lambda pull: _order(pull.remote.entry, pull.path))),
            agree=self.agree,
            forget=tuple(self.forget),
            waiting=self.waiting,
            problems=self.problems,
        )

    def _push_order(self, push: Push) -> tuple[int, int, StorePath, bool]:
        """Order pushes; what a file's move leaves behind goes right after it, so that both halves share a txn."""
        if push.entry.kind is Kind.GONE and any(self._is_leaf(above) for above in ancestors(push.path)):
            return (
                -1,
                -depth(push.path),
                push.path,
                False,
            )  # before another kind of thing takes the directory's place
        moved_to = self.arrivals.get(self.sides.baseline[push.path].ino) if push.move and not push.local else None
        if moved_to and moved_to.entry.kind is not Kind.DIR:
            return *_order(moved_to.entry, moved_to.path), True
        return *_order(push.entry, push.path), False

    def _plan_path(self, path: StorePath) -> None:
        sides = self.sides
        base, local, remote = sides.baseline.get(path), sides.local.get(path), sides.remote.get(path)
        verdict = decide(base, local, remote, self.mapping, pushes=self.settled.pushes)
        if verdict is Verdict.PUSH:
            self._plan_push(path, base, local, remote)
        elif verdict in {Verdict.PULL, Verdict.CONFLICT} and remote:
            # Equal content is no conflict: only mode or owner differ, and the store's order decides.
            unseen = verdict is Verdict.CONFLICT and local and not local.entry.same_content(remote.entry)
            self.pull[path] = Pull(path=path, remote=remote, local=local, keep=bool(unseen))
        elif verdict is Verdict.AGREE and local and remote:
            self.agree[path] = agreed(local, remote)
        elif verdict is Verdict.FORGET:
            self.forget.append(path)
        elif verdict in REASONS:
            self.problems[path] = Problem(path=path, reason=reason(verdict, self.mapping))

    def _plan_push(
        self, path: StorePath, base: Agreed | None, local: LocalEntry | None, remote: RemoteEntry | None
    ) -> None:
        expected = remote.mod_revision if remote else 0
        if not self.settled.edits:
            self.waiting[path] = Wait.SETTLE
        elif local:
            move = base is None and local.signature.ino in self.moved
            entry = as_pushed(base, local.entry, self.mapping)
            self.push[path] = Push(path=path, entry=entry, local=local, expected=expected, move=move)
            if move:
                self.arrivals[local.signature.ino] = self.push[path]
        elif base:
            move = base.ino in self.moved
            if move or self.settled.deletes:
                gone = tombstone(base)
                self.push[path] = Push(path=path, entry=gone, local=None, expected=expected, move=move)
            else:
                self.waiting[path] = Wait.DELETE

    def _keep_parents(self) -> None:
        """Let a directory that the store deleted or replaced live on while something in it stays.

        A child edited here beats the delete of its parent: the parent's record is written again.
        """
        removed = {path for path, pull in self.pull.items() if pull.remote.entry.kind is not Kind.DIR}
        doomed = [path for path in removed if _is_dir(self.pull[path].local)]
        for directory in sorted(doomed, key=depth, reverse=True):
            if not any(is_below(path, directory) and path not in removed for path in self.sides.local):
                continue
            if not self.settled.pushes:
                continue  # it is a problem then: the directory is not empty
            pull = self.pull.pop(directory)
            removed.discard(directory)
            if pull.local and self.settled.edits:
                entry = as_pushed(None, pull.local.entry, self.mapping)
                expected = pull.remote.mod_revision
                self.push[directory] = Push(path=directory, entry=entry, local=pull.local, expected=expected)
            else:
                self.waiting[directory] = Wait.SETTLE

    def _settle_collisions(self) -> None:
        """Let a directory win over a file or link of the same name as long as anything in it lives.

        Two replicas that change a path's kind and something below it at the same time can bring the store there.
        Whatever loses was in the store, and stays in `past/`, or is kept under `conflicts/` first.
        """
        for path in sorted({path for path in self.paths if self._hides(path)}, key=depth):
            living = [
                below
                for below, remote in self.sides.remote.items()
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
        """Tell whether a path hides, or would hide, what lives below it in the store."""
        return self._is_leaf(path) and path in self._parents

    def _is_leaf(self, path: StorePath) -> bool:
        """Tell whether a path is a file or link in the store, or becomes one by this plan."""
        found = self.push.get(path) or self.sides.remote.get(path)
        return found is not None and found.entry.kind not in {Kind.DIR, Kind.GONE}

    @cached_property
    def _parents(self) -> set[StorePath]:
        """The directories above everything that lives in the store."""
        remote = self.sides.remote
        found = {parent(path) for path in remote if remote[path].entry.kind is not Kind.GONE}
        return found.union(*(ancestors(path) for path in found))

    def _restore_directory(self, path: StorePath, below: Iterable[StorePath]) -> None:
        remote, local = self.sides.remote.get(path), self.sides.local.get(path)
        self.push.pop(path, None)
        self.pull.pop(path, None)
        if remote and remote.entry.kind is Kind.DIR:
            self.pull[path] = Pull(path=path, remote=remote, local=local, keep=True)
            return
        for other in below:
            self.pull.pop(other, None)
            self.waiting[other] = Wait.SETTLE
        if not self.settled.pushes:
            reason = "is a file or a link in the store, and something lies below it there: remove one of them"
            self.problems[path] = Problem(path=path, reason=reason)
        elif self.settled.edits:
            expected = remote.mod_revision if remote else 0
            entry = Entry(kind=Kind.DIR, mode=_DIR_MODE)
            self.push[path] = Push(path=path, entry=entry, local=None, expected=expected)
        else:
            self.waiting[path] = Wait.SETTLE


def agreed(local: LocalEntry, remote: RemoteEntry) -> Agreed:
    """Return the baseline of a path whose two sides agree."""
    return agreement(local.entry, remote, ino=local.signature.ino)


def _is_dir(local: LocalEntry | None) -> bool:
    return local is not None and local.entry.kind is Kind.DIR


def _order(entry: Entry, path: StorePath) -> tuple[int, int, StorePath]:
    """Directories first, then files (a link's targets), then links; deletes last, deepest first."""
    if entry.kind is Kind.GONE:
        return 3, -depth(path), path
    return {Kind.DIR: 0, Kind.FILE: 1}.get(entry.kind, 2), depth(path), path


def vanished(sides: Sides) -> set[StorePath]:
    """Return the paths whose record vanished from the store without a tombstone, and that still lie here."""
    return {path for path in sides.baseline if path in sides.local and path not in sides.remote}


def unapplied(sides: Sides) -> set[StorePath]:
    """Return the paths whose living record was never shown here; one that was edited since then was."""
    return {
        path
        for path, remote in sides.remote.items()
        if remote.entry.kind is not Kind.GONE
        and not (
            path in sides.local
            and (agreed := sides.baseline.get(path))
            and agreed.mod_revision == remote.mod_revision
        )
    }


def siding_with_local(sides: Sides, mapping: Mapping) -> dict[StorePath, Agreed]:
    """Return a baseline by which every path that differs was edited here, and nowhere else."""
    return {
        path: agreement(as_shown(remote.entry, mapping), remote)
        for path, remote in sides.remote.items()
        if (local := sides.local.get(path))
        and remote.entry.kind is not Kind.GONE
        and not shows(local.entry, remote.entry, mapping)
    }
