"""The three sides of one mapping: local state, store's state, baseline. No other module changes them.

Owned by one engine and changed in its thread. Invariants:

1. Each method that changes a side of a path marks the path as pending, unless an agreement covers the change. So
   no caller can forget to have it planned.
2. `missing` and `changed_in_store` are derived from the sides and updated with each change (`_update_derived`).
3. A record is replaced by a newer one only, however late a listing or an event arrives (`note_record`).
"""

from collections.abc import Iterable
from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from configstore.model.path import ROOT, StorePath, ancestors, is_below
from configstore.model.problem import Problem
from sidecar.planner.reconcile import same_local
from sidecar.planner.records import BuriedTombstones, RecordIndex, lives
from sidecar.planner.sides import Agreement, LocalEntry, RemoteEntry, SentWrite, agreement

UNKNOWN_SET = 0
"""The set of a change that no event announced: it is not known which other changes belong to it."""

_SPARE_BYTES = 256
"""A set object that takes more bytes than this for each of its paths is copied. One that only grew takes a quarter
of that."""


class ThreeSides:
    """What is known of each path, relative to the mapping's subtree.

    A path in `local_problems` could not be read here: nothing is concluded about it or about what is below it. The
    newest record of a path in `remote_problems` could not be read: nothing is concluded about this path.

    baseline: what both sides last agreed on. local: the local state, as last scanned or placed. remote: the
    store's records, with those tombstones that are not buried. sent: the writes whose result is not known, the
    oldest first. local_problems, remote_problems: why paths, and records, could not be read. These are live
    read-only views.

    buried: tombstones for which nothing is left to delete here. cluster_id: the etcd cluster that the records come
    from, 0 while it is not known. clean_at: the revision of the store up to which the lease's
    holders were known when last no local change was unsent (`cycle.lease`).
    """

    def __init__(
        self,
        *,
        baseline: Map[StorePath, Agreement] = MappingProxyType({}),
        local: Map[StorePath, LocalEntry] = MappingProxyType({}),
        remote: Map[StorePath, RemoteEntry] = MappingProxyType({}),
        sent: Map[StorePath, tuple[SentWrite, ...]] = MappingProxyType({}),
        cluster_id: int = 0,
    ) -> None:
        self.buried = BuriedTombstones()
        self.clean_at = 0
        self._baseline = dict(baseline)
        self._local = dict(local)
        self._records = RecordIndex()
        self._sent = dict(sent)
        self._local_problems: dict[StorePath, Problem] = {}
        self._remote_problems: dict[StorePath, Problem] = {}
        self.baseline, self.local = MappingProxyType(self._baseline), MappingProxyType(self._local)
        self.remote, self.sent = MappingProxyType(self._records.by_path), MappingProxyType(self._sent)
        self.local_problems = MappingProxyType(self._local_problems)
        self.remote_problems = MappingProxyType(self._remote_problems)
        self._sets: dict[StorePath, int] = {}  # the set in which a path was last changed here
        self._unstable: AbstractSet[StorePath] = frozenset()
        self._pending: set[StorePath] = set(baseline)
        self._missing: set[StorePath] = set()
        self._changed_in_store: set[StorePath] = set()
        self.cluster_id = cluster_id
        for path, entry in remote.items():
            self.note_record(path, entry)

    # Reading

    @property
    def unstable(self) -> AbstractSet[StorePath]:
        """The paths that a program has open for writing."""
        return self._unstable

    @property
    def missing(self) -> AbstractSet[StorePath]:
        """The paths whose record was never shown here; one that was edited since it was shown is not missing."""
        return self._missing

    @property
    def pending(self) -> AbstractSet[StorePath]:
        """The paths that are to be planned."""
        return self._pending

    @property
    def changed_in_store(self) -> AbstractSet[StorePath]:
        """The paths whose newest record is not the one that was agreed on."""
        return self._changed_in_store

    def gone_of(self, deletion: str) -> int:
        """Return how many paths of a deletion are gone here already."""
        gone = (self._records.by_path[path] for path in self._records.tombstones - self._baseline.keys())
        return self.buried.count_of(deletion) + sum(
            1 for entry in gone if entry.deletion is not None and entry.deletion.id == deletion
        )

    def wants(self, path: StorePath) -> bool:
        """Return whether a tombstone of this path must be read whole; from any thread."""
        newest = self.buried.newest
        known = path in self._records.revisions or self._is_wanted(path)
        return known or (newest is not None and newest[0] == path)

    def below(self, directory: StorePath) -> set[StorePath]:
        """Return all known paths below a directory."""
        return {path for path in self.everything() if is_below(path, directory)}

    def lives_below(self, directory: StorePath) -> bool:
        """Return whether the store has a record below a directory that is no tombstone."""
        return self._records.lives_below(directory)

    def problem(self, path: StorePath) -> Problem | None:
        """Return why nothing can be concluded about a path, or None."""
        for unread in (path, *ancestors(path), ROOT) if self._local_problems else ():
            if unread in self._local_problems:
                return self._local_problems[unread]
        return self._remote_problems.get(path)

    def came_with(self, revision: int) -> AbstractSet[StorePath]:
        """Return the paths whose newest record one transaction wrote, unreadable records included."""
        return self._records.of_revision(revision)

    def set_of(self, path: StorePath) -> int:
        """Return the set in which a path was last changed here, UNKNOWN_SET when that is not known."""
        return self._sets.get(path, UNKNOWN_SET)

    def vanished(self) -> set[StorePath]:
        """Return the paths whose record vanished without a tombstone, and whose file is still here."""
        return {path for path in self._baseline if path in self._local and path not in self._records.by_path}

    def changed_here(self) -> set[StorePath]:
        """Return the pending paths whose local state is not the one that was agreed on."""
        return {path for path in self._pending if self._differs(path)}

    def everything(self) -> set[StorePath]:
        """Return all known paths."""
        return self._baseline.keys() | self._local.keys() | self._records.by_path.keys()

    def _differs(self, path: StorePath) -> bool:
        base, local = self._baseline.get(path), self._local.get(path)
        if base is None or local is None:
            return base is not None or local is not None
        return not same_local(base.local, local.entry)

    # Planning

    def plan_again(self, paths: Iterable[StorePath]) -> None:
        """Have paths planned in the next cycle."""
        self._pending.update(paths)

    def planned(self, paths: Iterable[StorePath]) -> None:
        """Note that paths were planned: they need no other plan until a side of them changes."""
        self._pending.difference_update(paths)
        self._pending, self._changed_in_store = _fitting(self._pending), _fitting(self._changed_in_store)
        self._missing, self._records.tombstones = _fitting(self._missing), _fitting(self._records.tombstones)

    # The local side

    def take_scan(
        self,
        *,
        changed: Map[StorePath, LocalEntry | None],
        problems: Map[StorePath, Problem],
        cleared: Iterable[StorePath],
        unstable: AbstractSet[StorePath],
        touched: AbstractSet[StorePath] = frozenset(),
        in_set: int = UNKNOWN_SET,
    ) -> None:
        """Take in a scan's result; the parameters are as in `ScanResult`. in_set: number of the set that is open.

        A set of which a member is changed again before it was sent becomes one with the open set, since its
        members may fit only to each other.
        """
        joining = {self._sets[path] for path in (*changed, *touched) if path in self._sets} - {UNKNOWN_SET, in_set}
        if joining:
            self._sets |= dict.fromkeys((path for path, each in self._sets.items() if each in joining), in_set)
        for path, entry in changed.items():
            self.note_placed(path, entry)
        self._sets |= dict.fromkeys((*changed, *touched), in_set)
        for path in cleared:
            if self._local_problems.pop(path, None):
                self._pending |= self.below(path)
        self._local_problems.update(problems)
        self._pending.update(changed, problems, cleared, unstable, self._unstable - unstable)
        self._unstable = frozenset(unstable)

    def note_placed(self, path: StorePath, entry: LocalEntry | None) -> None:
        """Set the local state of a path; None: it was removed. Does not mark the path: an agreement follows."""
        if entry is None:
            self._local.pop(path, None)
        else:
            self._local[path] = entry
        self._update_derived(path)

    # The store's side

    def note_committed(self, path: StorePath, entry: RemoteEntry) -> None:
        """Set a path's record to the one that this replica wrote, before the watch reports it."""
        planned = path in self._pending
        self.note_record(path, entry)
        if not planned:
            self._pending.discard(path)

    def note_record(self, path: StorePath, entry: RemoteEntry) -> bool:
        """Set a path's record; returns whether it is a new one.

        A record older than the newest known is ignored.
        """
        if entry.mod_revision < self._records.revisions.get(path, 0):
            return False
        if not lives(entry) and path not in self._records.revisions and not self._is_wanted(path):
            self.buried.add_record(path, entry)
            return False
        readable_again = self._remote_problems.pop(path, None) is not None
        known = self._records.by_path.get(path)
        if known and known.mod_revision >= entry.mod_revision:
            if readable_again:
                self._pending.add(path)
            return readable_again
        self._records.put(path, entry)
        self._set_revision(path, entry.mod_revision)
        self._pending.add(path)
        return True

    def note_unreadable(self, path: StorePath, problem: Problem, revision: int) -> None:
        """Note that a path's newest record cannot be read."""
        self._remote_problems[path] = problem
        self._set_revision(path, revision)
        self._pending.add(path)

    def note_missing_record(self, path: StorePath) -> None:
        """Note that the store has no record of a path any more, not even a tombstone.

        A missing tombstone means nothing where nothing is left to delete: tombstones expire.
        """
        if path not in self._records.revisions and not self._is_wanted(path):
            return
        self._records.put(path, None)
        self._remote_problems.pop(path, None)
        self._set_revision(path, 0)
        self._pending.add(path)

    def forget_store(self) -> None:
        """Forget everything about the store: a person accepted another one."""
        self._pending |= self.everything()
        for path in {*self._records.by_path, *self._remote_problems}:
            self.note_missing_record(path)
        self._sent.clear()
        self.buried.clear()
        self.cluster_id = 0

    def bury_applied(self, revision: int) -> None:
        """Bury the tombstones that deleted what they had to delete here.

        revision: up to which the watch's events were taken in. A tombstone of this replica's own may be known
        before that: were it buried, the watch's late event of the record that it deleted would seem new.
        """
        for path in list(self._records.tombstones):
            entry = self._records.by_path[path]
            if entry.mod_revision <= revision and path not in self._pending and not self._is_wanted(path):
                self._records.put(path, None)
                self._set_revision(path, 0)
                self.buried.add_record(path, entry)

    def _is_wanted(self, path: StorePath) -> bool:
        """Return whether a tombstone of this path would delete something here, or may be an own write."""
        return path in self._baseline or path in self._local or path in self._sent or path in self._remote_problems

    def _set_revision(self, path: StorePath, revision: int) -> None:
        self._records.set_revision(path, revision)
        self._update_derived(path)

    # The baseline, and the writes whose result is not known

    def sending(self, sent: Map[StorePath, SentWrite]) -> None:
        """Note writes that are about to be sent."""
        for path, write in sent.items():
            self._sent[path] = (*self._sent.get(path, ()), write)

    def agree(self, changes: Map[StorePath, Agreement | None]) -> None:
        """Set the agreement of each path; None removes it. It resolves the path's earlier writes."""
        for path, agreed in changes.items():
            if agreed is None:
                self._baseline.pop(path, None)
            else:
                self._baseline[path] = agreed
            self._sent.pop(path, None)
            self._sets.pop(path, None)
            self._update_derived(path)

    def not_made(self, path: StorePath, write_ids: Iterable[str]) -> None:
        """Forget writes of a path that were not made and cannot be made any more; its other writes stay."""
        left = tuple(write for write in self._sent.get(path, ()) if write.write_id not in set(write_ids))
        if left:
            self._sent[path] = left
        else:
            self._sent.pop(path, None)

    def agreement_with_own(self, path: StorePath, entry: RemoteEntry) -> Agreement | None:
        """Return the agreement that follows from a record that an own write made; None for a tombstone."""
        own = next(sent for sent in self._sent[path] if sent.write_id == entry.write_id)
        return None if own.local is None else agreement(own.local, entry, ino=own.ino)

    def _update_derived(self, path: StorePath) -> None:
        """Update `missing` and `changed_in_store` for a path."""
        remote, base = self._records.by_path.get(path), self._baseline.get(path)
        unread, alive = path in self._remote_problems, lives(remote)
        shown = remote and base and path in self._local and base.mod_revision == remote.mod_revision
        _include(path, self._missing, wanted=unread or (alive and not shown))
        revision = self._records.revisions.get(path)
        # No record at all is not a change, nor is the tombstone of a path that this replica never had.
        relevant = revision is not None and (base is not None or unread or alive)
        _include(path, self._changed_in_store, wanted=relevant and (base is None or revision != base.mod_revision))


def _fitting(paths: set[StorePath]) -> set[StorePath]:
    """Return the set, copied when it has far more room than its paths need.

    CPython never shrinks a set that loses members, and iterating visits all of its room: after a first pull of
    many paths each later cycle would.
    """
    return set(paths) if paths.__sizeof__() > _SPARE_BYTES * (len(paths) + 16) else paths


def _include(path: StorePath, paths: set[StorePath], *, wanted: bool) -> None:
    """Add a path to a set, or remove it."""
    if wanted:
        paths.add(path)
    else:
        paths.discard(path)
