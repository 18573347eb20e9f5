"""The store's records of one mapping, indexed by what the planner asks of them. Owned by `ThreeSides`."""

from collections import Counter
from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet

from configstore.model.path import ROOT, StorePath, ancestors
from configstore.model.record import Kind
from sidecar.planner.sides import RemoteEntry

MAX_DELETIONS = 1000
"""Number of deletions whose buried tombstones are counted; the one that was seen least recently is dropped."""


def lives(entry: RemoteEntry | None) -> bool:
    """Return whether there is a record and it is no tombstone."""
    return entry is not None and entry.entry.kind is not Kind.GONE


class RecordIndex:
    """The newest readable record of each path, and the mod_revision of the newest record, readable or not.

    by_path: the readable records. tombstones: the paths of by_path whose record is a tombstone. revisions: the
    mod_revision of each path's newest record.
    """

    def __init__(self) -> None:
        self.by_path: dict[StorePath, RemoteEntry] = {}
        self.tombstones: set[StorePath] = set()
        self.revisions: dict[StorePath, int] = {}
        self._living_below: Counter[StorePath] = Counter()
        self._of_revision: dict[int, set[StorePath]] = {}

    def put(self, path: StorePath, entry: RemoteEntry | None) -> None:
        """Replace the readable record of a path; None removes it."""
        if entry and not lives(entry):
            self.tombstones.add(path)
        else:
            self.tombstones.discard(path)
        change = lives(entry) - lives(self.by_path.pop(path, None))
        if entry:
            self.by_path[path] = entry
        for above in {ROOT, *ancestors(path)} - {path} if change else ():
            self._living_below[above] += change
            if not self._living_below[above]:
                del self._living_below[above]

    def set_revision(self, path: StorePath, revision: int) -> None:
        """Set the mod_revision of a path's newest record; 0 means that the store has none."""
        before = self.revisions.pop(path, 0)
        companions = self._of_revision.get(before)
        if companions:
            companions.discard(path)
            if not companions:
                del self._of_revision[before]
        if revision:
            self.revisions[path] = revision
            self._of_revision.setdefault(revision, set()).add(path)

    def of_revision(self, revision: int) -> AbstractSet[StorePath]:
        """Return the paths whose newest record has this mod_revision: one transaction wrote them."""
        return self._of_revision.get(revision, frozenset())

    def lives_below(self, directory: StorePath) -> bool:
        """Return whether any path below a directory has a record that is no tombstone."""
        return directory in self._living_below


class BuriedTombstones:
    """Tombstones for which nothing is left to delete here.

    A store can hold many more tombstones than files, so each is kept as one number, a hash of path and revision.
    newest: the newest of them, with its path; by it a restored or foreign store is recognised.
    """

    def __init__(self) -> None:
        self.newest: tuple[StorePath, RemoteEntry] | None = None
        self._hashes: set[int] = set()
        self._count_of: dict[str, int] = {}  # by deletion; the one that was seen last is at the end

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._hashes)

    def add(self, path: StorePath, revision: int, deletion: str) -> None:
        """Bury a tombstone of which only the revision and the deletion's id ("" for none) are known."""
        grave = hash((path, revision))
        if grave not in self._hashes and deletion:
            self._count_of[deletion] = self._count_of.pop(deletion, 0) + 1
            if len(self._count_of) > MAX_DELETIONS:
                del self._count_of[next(iter(self._count_of))]
        self._hashes.add(grave)

    def add_record(self, path: StorePath, entry: RemoteEntry) -> None:
        """Bury a tombstone."""
        self.add(path, entry.mod_revision, entry.deletion.id if entry.deletion else "")
        if self.newest is None or self.newest[1].mod_revision < entry.mod_revision:
            self.newest = (path, entry)

    def has(self, path: StorePath, revision: int) -> bool:
        """Return whether the record of a path at a revision is a buried tombstone."""
        return hash((path, revision)) in self._hashes

    def count_of(self, deletion: str) -> int:
        """Return how many tombstones of a deletion were buried."""
        return self._count_of.get(deletion, 0)

    def keep_only(self, found: Map[StorePath, int]) -> None:
        """Forget the tombstones that the store does not hold any more.

        found: the revision of each record in it.
        """
        self._hashes &= {hash(each) for each in found.items()}

    def clear(self) -> None:
        """Forget all of them."""
        self._hashes.clear()
        self._count_of.clear()
        self.newest = None
