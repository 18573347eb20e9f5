"""The values that `tree` takes and returns: stored records, wanted changes, and their outcome."""

from collections.abc import Callable

import msgspec

from configstore.model.path import StorePath
from configstore.model.record import Deletion, Entry, Kind, Origin, Record, Source, shown_size
from configstore.store.api import Item


class Stored(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record with its path, its mod_revision, and the number of writes of its key."""

    path: StorePath
    record: Record
    mod_revision: int
    version: int = 1

    @property
    def entry(self) -> Entry:
        """The record's entry."""
        return self.record.entry

    @property
    def gone(self) -> bool:
        """Whether this is a tombstone."""
        return self.record.entry.kind is Kind.GONE


class UnreadableRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A value below `files/` that is not a usable record; `path` is safe to print.

    reason: why it cannot be used. key: the key, if it is one that no path has and that only itself can name; else
    None. sealing: the record is sealed and cannot be opened, or is plain where it must be sealed; then the reason
    says what to do.
    """

    path: str
    reason: str
    mod_revision: int
    key: bytes | None = None
    sealing: bool = False


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A directory's record and all those below it, tombstones included, at one revision.

    bad: the unreadable ones. rest: by path, the mod_revision and the deletion's id (or "") of each record of which
    the caller wanted no more. known: the revision up to which the caller knew the store before the first read, 0
    if it did not say. A change that it learned of later, such as its own commit, may be missing here.
    """

    revision: int
    cluster_id: int = 0
    records: dict[StorePath, Stored]
    bad: tuple[UnreadableRecord, ...] = ()
    rest: dict[StorePath, tuple[int, str]] = {}
    known: int = 0


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One wanted change of a path.

    entry: the new entry; its `size` and `sha256` must be those of `content`, which is the content of a file as
    bytes or in pieces, else None.
    expected: the mod_revision that the path must have, 0 for a path that was never written.
    previous: the record at `expected`, if the caller has it; this saves reading it again.
    replaced: the same as the item that was read, if the caller has that.
    write_id: chosen by the caller beforehand, so that it can look for the write after a crash; "" for a new id.
    set: writes with the same number above 0 are made in one txn if they fit into one.
    deletion: the deletion of which a tombstone is a part.
    """

    path: StorePath
    entry: Entry
    content: bytes | Source | None = None
    expected: int = 0
    previous: Stored | None = None
    replaced: Item | None = None
    write_id: str = ""
    set: int = 0
    deletion: Deletion | None = None

    def __repr__(self) -> str:
        """Show everything but the content."""
        return f"Write({self.path!r}, {self.entry!r}, {shown_size(self.content)}, expected={self.expected})"


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of holding a lease: its name, the holder's key, and that key's create_revision (the token)."""

    name: str
    key: bytes
    token: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a commit.

    done: the mod_revision that each written path got; a newer record may have replaced it since.
    write_ids: the id of each write.
    stale: the paths whose compare failed, with the record that is there (None: none, or an unreadable one).
    Neither their txn nor any after it was made.
    unsure: the stale paths that may have been written all the same: an answer was lost (or the write id is that of
    an earlier try), and not every record since is kept, so it cannot be found out.
    fenced_out: the lease is not held any more. Neither that txn nor any after it was made.
    """

    done: dict[StorePath, int]
    write_ids: dict[StorePath, str] = {}
    stale: dict[StorePath, Stored | None] = {}
    unsure: tuple[StorePath, ...] = ()
    fenced_out: bool = False

    @property
    def complete(self) -> bool:
        """Whether every write was made."""
        return not self.stale and not self.fenced_out


class Writer(msgspec.Struct, frozen=True, kw_only=True):
    """The replica that writes. `now` returns the time of day as RFC 3339 text in UTC, `new_id` a new unique id."""

    replica: str
    host: str
    now: Callable[[], str]
    new_id: Callable[[], str]

    def origin(
        self, write_id: str, *, lease: str | None = None, supersedes: int = 0, deletion: Deletion | None = None
    ) -> Origin:
        """Return the origin of one write."""
        return Origin(
            write_id=write_id,
            replica=self.replica,
            host=self.host,
            time=self.now(),
            lease=lease,
            supersedes=supersedes,
            deletion=deletion,
        )
