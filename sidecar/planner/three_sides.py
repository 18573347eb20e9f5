"""The three sides of one mapping, and all that is known of a path: the only place that changes them.

Owned by one engine. Whatever changes a side marks its path as pending, so that nobody has to remember to plan it.
"""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from configstore.model.path import ROOT, StorePath, ancestors, is_below
from configstore.model.problem import Problem
from configstore.model.record import Kind
from sidecar.planner.reconcile import same_local
from sidecar.planner.sides import Agreed, LocalEntry, RemoteEntry, Sent, agreement

UNKNOWN_SET = 0
"""The set of what was found without an event: whether it was changed together with anything is not known."""


_ROOM = 256
"""Bytes of a set for each of its paths above which it is made anew: four times what one takes that only grew."""

MAX_DELETIONS = 1000
"""Deletions of which it is remembered how many of their tombstones were buried: one that goes on is heard of."""


class Sides:
    """What lies here, in the store, and what both last agreed on, by path relative to the mapping's subtree.

    About a path of `local_problems` nothing is concluded, nor about what lies below it; about one of
    `remote_problems` likewise, but for it alone.

    Tombstones of which nothing is left here are buried: there may be many more of them than of files, and all
    that is remembered of one is a number that tells it again. Whoever makes such a path anew finds the tombstone
    when the store compares.

    clean_at: a revision of the store: when it was the newest that was known, nothing lay here unsent.
    """

    def __init__(
        self,
        *,
        baseline: Map[StorePath, Agreed] = MappingProxyType({}),
        local: Map[StorePath, LocalEntry] = MappingProxyType({}),
        remote: Map[StorePath, RemoteEntry] = MappingProxyType({}),
        sent: Map[StorePath, tuple[Sent, ...]] = MappingProxyType({}),
        cluster_id: int = 0,
    ) -> None:
        self._baseline = dict(baseline)
        self._local = dict(local)
        self._remote: dict[StorePath, RemoteEntry] = {}
        self._living_below: Counter[StorePath] = Counter()
        self._sent = dict(sent)
        self._local_problems: dict[StorePath, Problem] = {}
        self._remote_problems: dict[StorePath, Problem] = {}
        self._revisions: dict[StorePath, int] = {}  # of the newest record of a path, be it unreadable
        self._came_with: dict[int, set[StorePath]] = {}  # the paths whose newest record has a revision
        self._sets: dict[StorePath, int] = {}  # in which set a path was changed here last
        self._unstable: AbstractSet[StorePath] = frozenset()
        self._pending: set[StorePath] = set(baseline)
        self._missing: set[StorePath] = set()
        self._news: set[StorePath] = set()
        self._gone: set[StorePath] = set()  # tombstones that are not buried
        self.buried: set[int] = set()
        self._newest_buried: tuple[StorePath, RemoteEntry] | None = None
        self._buried_of: dict[str, int] = {}  # by deletion, the one that was heard of last at the end
        self._cluster_id = cluster_id
        self.clean_at = 0
        for path, entry in remote.items():
            self.told(path, entry)

    # Reading

    @property
    def baseline(self) -> Map[StorePath, Agreed]:
        """What both sides last agreed on."""
        return MappingProxyType(self._baseline)

    @property
    def local(self) -> Map[StorePath, LocalEntry]:
        """What lies here."""
        return MappingProxyType(self._local)

    @property
    def remote(self) -> Map[StorePath, RemoteEntry]:
        """What the store holds, tombstones included that are not buried."""
        return MappingProxyType(self._remote)

    @property
    def sent(self) -> Map[StorePath, tuple[Sent, ...]]:
        """The writes of which it is not known whether they were made, the oldest first."""
        return MappingProxyType(self._sent)

    @property
    def local_problems(self) -> Map[StorePath, Problem]:
        """Why paths could not be read here."""
        return MappingProxyType(self._local_problems)

    @property
    def remote_problems(self) -> Map[StorePath, Problem]:
        """Why records could not be read."""
        return MappingProxyType(self._remote_problems)

    @property
    def unstable(self) -> AbstractSet[StorePath]:
        """The paths that a program has open for writing."""
        return self._unstable

    @property
    def missing(self) -> AbstractSet[StorePath]:
        """The paths whose record is not shown here yet; one that was edited since it was shown is none."""
        return self._missing

    @property
    def pending(self) -> AbstractSet[StorePath]:
        """The paths that are to be planned."""
        return self._pending

    @property
    def cluster_id(self) -> int:
        """The etcd cluster that the store's side is of, 0 while it is not known."""
        return self._cluster_id

    @property
    def newest_buried(self) -> tuple[StorePath, RemoteEntry] | None:
        """The newest tombstone of those that were buried, by which the store is known again."""
        return self._newest_buried

    def gone_of(self, deletion: str) -> int:
        """Return how many paths of a deletion are gone here already."""
        held = (path for path in self._gone - self._baseline.keys() if _is_of(self._remote[path], deletion))
        return self._buried_of.get(deletion, 0) + sum(1 for _ in held)

    def is_buried(self, path: StorePath, revision: int) -> bool:
        """Tell whether the record that a path has at a revision is a tombstone that was buried."""
        return hash((path, revision)) in self.buried

    def wants(self, path: StorePath) -> bool:
        """Tell whether a tombstone of this path would be more than a number; from any thread."""
        newest = self._newest_buried
        return path in self._revisions or self._is_wanted(path) or (newest is not None and newest[0] == path)

    def below(self, directory: StorePath) -> set[StorePath]:
        """Return all known paths below a directory."""
        known = self._baseline.keys() | self._local.keys() | self._remote.keys()
        return {path for path in known if is_below(path, directory)}

    def lives_below(self, directory: StorePath) -> bool:
        """Tell whether anything below a directory lives in the store."""
        return directory in self._living_below

    def problem(self, path: StorePath) -> Problem | None:
        """Return why nothing can be concluded about a path, or None."""
        for unread in (path, *ancestors(path), ROOT) if self._local_problems else ():
            if unread in self._local_problems:
                return self._local_problems[unread]
        return self._remote_problems.get(path)

    def came_with(self, revision: int) -> AbstractSet[StorePath]:
        """Return the paths whose newest record was written at a revision, so in one txn; unreadable ones, too."""
        return self._came_with.get(revision, frozenset())

    @property
    def news(self) -> AbstractSet[StorePath]:
        """The paths whose newest record in the store is not the one that was agreed on."""
        return self._news

    def set_of(self, path: StorePath) -> int:
        """Return the set in which a path was last changed here, UNKNOWN_SET when that is not known."""
        return self._sets.get(path, UNKNOWN_SET)

    def vanished(self) -> set[StorePath]:
        """Return the paths whose record vanished from the store without a tombstone, and that still lie here."""
        return {path for path in self._baseline if path in self._local and path not in self._remote}

    def queued(self) -> set[StorePath]:
        """Return the paths that were changed here since they were agreed on, of those that are pending."""
        return {path for path in self._pending if self._differs(path)}

    def _differs(self, path: StorePath) -> bool:
        base, local = self._baseline.get(path), self._local.get(path)
        if base is None or local is None:
            return base is not None or local is not None
        return not same_local(base.local, local.entry)

    def everything(self) -> set[StorePath]:
        """Return all known paths."""
        return self._baseline.keys() | self._local.keys() | self._remote.keys()

    # Planning

    def plan_again(self, paths: Iterable[StorePath]) -> None:
        """Have paths planned next time."""
        self._pending.update(paths)

    def planned(self, paths: Iterable[StorePath]) -> None:
        """Note that paths were planned, so that they need not be again until a side of them changes."""
        self._pending.difference_update(paths)
        self._pending, self._news = _fitting(self._pending), _fitting(self._news)
        self._missing, self._gone = _fitting(self._missing), _fitting(self._gone)

    # What a look at the directory found

    def found(
        self,
        *,
        changed: Map[StorePath, LocalEntry | None],
        problems: Map[StorePath, Problem],
        cleared: Iterable[StorePath],
        unstable: AbstractSet[StorePath],
        touched: AbstractSet[StorePath] = frozenset(),
        in_set: int = UNKNOWN_SET,
    ) -> None:
        """Take in what a scan found. changed: None for what is gone. in_set: number of the set it belongs to.

        touched: paths with a problem that were changed, so that they belong to the set though they cannot be read.
        """
        joining = {self._sets[path] for path in (*changed, *touched) if path in self._sets} - {UNKNOWN_SET, in_set}
        if joining:  # a set of which a member was changed again before it was sent
            self._sets |= dict.fromkeys((path for path, each in self._sets.items() if each in joining), in_set)
        for path, entry in changed.items():
            self._lies(path, entry)
            self._sets[path] = in_set
        for path in cleared:
            if self._local_problems.pop(path, None):
                self._pending |= self.below(path)
        for path in touched:
            self._sets[path] = in_set
        self._local_problems.update(problems)
        self._pending.update(changed, problems, cleared, unstable, self._unstable - unstable)
        self._unstable = frozenset(unstable)

    def placed(self, path: StorePath, entry: LocalEntry | None) -> None:
        """Note what was placed here ourselves; None: it was removed."""
        self._lies(path, entry)

    def _lies(self, path: StorePath, entry: LocalEntry | None) -> None:
        if entry is None:
            self._local.pop(path, None)
        else:
            self._local[path] = entry
        self._judge(path)

    # What the store told

    def written(self, path: StorePath, entry: RemoteEntry) -> None:
        """Note an own commit, before the watch tells of it."""
        planned = path in self._pending
        self.told(path, entry)
        if not planned:
            self._pending.discard(path)

    def told(self, path: StorePath, entry: RemoteEntry) -> bool:
        """Note a record; returns whether it is news, which one as old as the newest known is not."""
        if entry.mod_revision < self._revisions.get(path, 0):
            return False
        if entry.entry.kind is Kind.GONE and path not in self._revisions and not self._is_wanted(path):
            self._bury(path, entry)
            return False
        readable_again = self._remote_problems.pop(path, None) is not None
        known = self._remote.get(path)
        if known and known.mod_revision >= entry.mod_revision:
            if readable_again:
                self._pending.add(path)
            return readable_again
        self._hold(path, entry)
        self._has_revision(path, entry.mod_revision)
        self._pending.add(path)
        return True

    def unreadable(self, path: StorePath, problem: Problem, revision: int) -> None:
        """Note that a path's newest record cannot be read."""
        self._remote_problems[path] = problem
        self._has_revision(path, revision)
        self._pending.add(path)

    def lost(self, path: StorePath) -> None:
        """Note that the store has no record of a path any more, not even a tombstone.

        That a tombstone is gone means nothing where nothing is left to be deleted: it expires after a while.
        """
        if path not in self._revisions and not self._is_wanted(path):
            return
        self._hold(path, None)
        self._remote_problems.pop(path, None)
        self._has_revision(path, 0)
        self._pending.add(path)

    def is_of(self, cluster_id: int) -> None:
        """Note which etcd cluster the store's side is of."""
        self._cluster_id = cluster_id

    def forget_store(self) -> None:
        """Forget all that the store told: another one answers."""
        self._pending |= self.everything()
        for path in {*self._remote, *self._remote_problems}:
            self.lost(path)
        self._sent.clear()
        self.buried.clear()
        self._buried_of.clear()
        self._newest_buried = None
        self._cluster_id = 0

    def bury(self, path: StorePath, revision: int, deletion: str) -> None:
        """Bury a tombstone of which no more is known than this; one that is known whole is newer.

        deletion: the id of the one that it is a part of, or "".
        """
        grave = hash((path, revision))
        if grave not in self.buried and deletion:
            self._buried_of[deletion] = self._buried_of.pop(deletion, 0) + 1
            if len(self._buried_of) > MAX_DELETIONS:
                del self._buried_of[next(iter(self._buried_of))]
        self.buried.add(grave)

    def bury_settled(self, revision: int) -> None:
        """Bury the tombstones of which nothing is left here, up to the revision to which the news were taken in.

        An own delete may be known before the watch told of what it deleted, which must not be taken for news then.
        """
        for path in list(self._gone):
            entry = self._remote[path]
            if entry.mod_revision <= revision and path not in self._pending and not self._is_wanted(path):
                self._hold(path, None)
                self._has_revision(path, 0)
                self._bury(path, entry)

    def forget_graves(self, found: Map[StorePath, int]) -> None:
        """Forget what was buried and is not in the store any more. found: the revisions of all that is."""
        self.buried &= {hash(each) for each in found.items()}

    def _is_wanted(self, path: StorePath) -> bool:
        """Tell whether something is left here that a tombstone would delete, or a write that it may be."""
        return path in self._baseline or path in self._local or path in self._sent or path in self._remote_problems

    def _bury(self, path: StorePath, entry: RemoteEntry) -> None:
        self.bury(path, entry.mod_revision, entry.deletion.id if entry.deletion else "")
        if self._newest_buried is None or self._newest_buried[1].mod_revision < entry.mod_revision:
            self._newest_buried = (path, entry)

    def _hold(self, path: StorePath, entry: RemoteEntry | None) -> None:
        """Replace a path's record, and count it for the directories above it while it lives."""
        if entry and entry.entry.kind is Kind.GONE:
            self._gone.add(path)
        else:
            self._gone.discard(path)
        change = _lives(entry) - _lives(self._remote.pop(path, None))
        if entry:
            self._remote[path] = entry
        for above in {ROOT, *ancestors(path)} - {path} if change else ():
            self._living_below[above] += change
            if not self._living_below[above]:
                del self._living_below[above]

    def _has_revision(self, path: StorePath, revision: int) -> None:
        before = self._revisions.pop(path, 0)
        companions = self._came_with.get(before)
        if companions:
            companions.discard(path)
            if not companions:
                del self._came_with[before]
        if revision:
            self._revisions[path] = revision
            self._came_with.setdefault(revision, set()).add(path)
        self._judge(path)

    # What is agreed on, and what was sent

    def sending(self, sent: Map[StorePath, Sent]) -> None:
        """Note writes that are about to be sent."""
        for path, write in sent.items():
            self._sent[path] = (*self._sent.get(path, ()), write)

    def agree(self, changes: Map[StorePath, Agreed | None]) -> None:
        """Take a new agreement for each path; None: there is none any more. What was sent before it is settled."""
        for path, agreed in changes.items():
            if agreed is None:
                self._baseline.pop(path, None)
            else:
                self._baseline[path] = agreed
            self._sent.pop(path, None)
            self._sets.pop(path, None)
            self._judge(path)

    def not_made(self, path: StorePath, write_ids: Iterable[str]) -> None:
        """Forget writes of a path that were not made, nor can be any more; others may still turn up."""
        left = tuple(write for write in self._sent.get(path, ()) if write.write_id not in set(write_ids))
        if left:
            self._sent[path] = left
        else:
            self._sent.pop(path, None)

    def agreement_with_own(self, path: StorePath, entry: RemoteEntry) -> Agreed | None:
        """Return what a record that one of our writes made means for the baseline: None for a tombstone."""
        own = next(sent for sent in self._sent[path] if sent.write_id == entry.write_id)
        return None if own.local is None else agreement(own.local, entry, ino=own.ino)

    def _judge(self, path: StorePath) -> None:
        """Keep `missing` and `news` true for a path."""
        remote, base = self._remote.get(path), self._baseline.get(path)
        unread = path in self._remote_problems
        shown = remote and base and path in self._local and base.mod_revision == remote.mod_revision
        _put(path, self._missing, wanted=unread or (_lives(remote) and not shown))
        _put(path, self._news, wanted=self._is_news(path, base, remote, unread=unread))

    def _is_news(self, path: StorePath, base: Agreed | None, remote: RemoteEntry | None, *, unread: bool) -> bool:
        revision = self._revisions.get(path)
        if revision is None or (base is None and not unread and not _lives(remote)):
            return False  # there is none, or it is the tombstone of what never was here
        return base is None or revision != base.mod_revision


def _fitting(paths: set[StorePath]) -> set[StorePath]:
    """Return a set of the size that its paths need.

    Python never makes one smaller, and walks through all of its room: each cycle would, ever after a first pull.
    """
    return set(paths) if paths.__sizeof__() > _ROOM * (len(paths) + 16) else paths


def _put(path: StorePath, paths: set[StorePath], *, wanted: bool) -> None:
    """Have a path in a set, or not."""
    if wanted:
        paths.add(path)
    else:
        paths.discard(path)


def _is_of(entry: RemoteEntry, deletion: str) -> bool:
    return entry.deletion is not None and entry.deletion.id == deletion


def _lives(entry: RemoteEntry | None) -> bool:
    return entry is not None and entry.entry.kind is not Kind.GONE
