"""Makes the plan for a set of paths from the three sides and the policy. Called by `engine` alone."""

from collections.abc import Iterable

import msgspec

from configstore.model.path import ROOT, StorePath, ancestors, depth, is_below
from configstore.model.record import Entry, Kind
from sidecar.planner.mapping import Mapping
from sidecar.planner.plan import Plan, Pull, Push, Wait
from sidecar.planner.reconcile import (
    REASONS,
    Verdict,
    as_pushed,
    decide,
    moved_inodes,
    tombstone,
)
from sidecar.planner.sides import Agreed, LocalEntry, Problem, RemoteEntry


class Sides(msgspec.Struct, kw_only=True):
    """The three sides of one mapping, by path relative to its subtree. Owned and changed by the engine alone.

    local_problems: paths whose local state could not be read; nothing is concluded about them, nor about what
    lies below them. remote_problems: paths whose record could not be read; likewise, but for them alone.
    """

    baseline: dict[StorePath, Agreed] = {}
    local: dict[StorePath, LocalEntry] = {}
    remote: dict[StorePath, RemoteEntry] = {}
    local_problems: dict[StorePath, Problem] = {}
    remote_problems: dict[StorePath, Problem] = {}
    unstable: set[StorePath] = set()

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
        for path in sorted(self.paths):
            blocked = self.sides.problem(path)
            if blocked:
                self.problems[path] = blocked
            elif path in self.sides.unstable:
                self.waiting[path] = Wait.UNSTABLE
            else:
                self._plan_path(path)
        self._keep_parents()
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
            self.problems[path] = Problem(path=path, reason=REASONS[verdict])

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
        """Let a directory that the store deleted live on while something in it stays.

        A child edited here beats the delete of its parent: the parent's record is written again.
        """
        removed = {path for path, pull in self.pull.items() if pull.remote.entry.kind is Kind.GONE}
        doomed = [path for path in removed if _is_dir(self.pull[path].local)]
        for directory in sorted(doomed, key=depth, reverse=True):
            if not any(is_below(path, directory) and path not in removed for path in self.sides.local):
                continue
            pull = self.pull.pop(directory)
            removed.discard(directory)
            if pull.local and self.settled.pushes and self.settled.edits:
                entry = as_pushed(None, pull.local.entry, self.mapping)
                expected = pull.remote.mod_revision
                self.push[directory] = Push(path=directory, entry=entry, local=pull.local, expected=expected)
            else:
                self.waiting[directory] = Wait.SETTLE


def agreed(local: LocalEntry, remote: RemoteEntry) -> Agreed:
    """Return the baseline of a path whose two sides agree."""
    return Agreed(
        local=local.entry, remote=remote.entry, mod_revision=remote.mod_revision, ino=local.signature.ino
    )


def _is_dir(local: LocalEntry | None) -> bool:
    return local is not None and local.entry.kind is Kind.DIR


def _order(entry: Entry, path: StorePath) -> tuple[int, int, StorePath]:
    """Directories first, then files (a link's targets), then links; deletes last, deepest first."""
    if entry.kind is Kind.GONE:
        return 3, -depth(path), path
    return {Kind.DIR: 0, Kind.FILE: 1}.get(entry.kind, 2), depth(path), path
