"""What the tree takes and returns: records as they lie in the store, wanted changes, and what became of them."""

from collections.abc import Callable

import msgspec

from configstore.model.path import StorePath
from configstore.model.record import Deletion, Entry, Kind, Origin, Record, Source, shown_size
from configstore.store.api import Item


class Stored(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record as it lies in the store: at which path, since which revision, after how many writes."""

    path: StorePath
    record: Record
    mod_revision: int
    version: int = 1

    @property
    def entry(self) -> Entry:
        """What the path is."""
        return self.record.entry

    @property
    def gone(self) -> bool:
        """Whether this is a tombstone."""
        return self.record.entry.kind is Kind.GONE


class UnreadableRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A key below `files/` that holds no usable record; `path` is safe to print.

    key: of one that no path has, so that nothing but the key can name it; else None. sealing: it is sealing that
    makes it unusable here, and the reason tells the mend.
    """

    path: str
    reason: str
    mod_revision: int
    key: bytes | None = None
    sealing: bool = False


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A directory's record and all below it at one revision, tombstones included; and what is unreadable.

    rest: of records of which whoever asked wanted no more, the mod_revision and the deletion's id, or "".
    known: the revision up to which whoever asked knew the store just before the first read; 0 where nobody said.
    What became known after that, such as one's own commit, may rightly be missing here.
    """

    revision: int
    cluster_id: int = 0
    records: dict[StorePath, Stored]
    bad: tuple[UnreadableRecord, ...] = ()
    rest: dict[StorePath, tuple[int, str]] = {}
    known: int = 0


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One wanted change of a path.

    entry: what it shall be; `size` and `sha256` must be those of `content` (of a file, as bytes or in pieces, else
    None).
    expected: the mod_revision that the path must have, 0 for "never written".
    previous: what lies there at `expected`, where the caller has it at hand; it saves reading it once more.
    replaced: the same as it came from the store, for who has it as that.
    write_id: chosen by the sender beforehand, so that it can be looked for after a crash; "" for a new one.
    set: writes with the same number above 0 are never cut in two while they fit into one txn.
    deletion: of a tombstone, the deletion that it is a part of.
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
    """What became of a commit.

    done: the paths written, with the mod_revision that the write gave them, though a newer record may have come
    since; write_ids: with the ids of the writes.
    stale: the paths whose compare failed, with what is there instead (None: nothing, or nothing readable). Of
    their txn, and of the txns after it, nothing was made.
    unsure: those of the stale paths that may have been written all the same: an answer was lost (or the write id
    is an earlier try's), and not all that was written since is kept, so that nobody can tell.
    fenced_out: the lease is not held any more; likewise.
    """

    done: dict[StorePath, int]
    write_ids: dict[StorePath, str] = {}
    stale: dict[StorePath, Stored | None] = {}
    unsure: tuple[StorePath, ...] = ()
    fenced_out: bool = False

    @property
    def complete(self) -> bool:
        """Whether everything asked for was written."""
        return not self.stale and not self.fenced_out


class Writer(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes. `now` returns RFC 3339 UTC text for people, `new_id` a fresh unique id."""

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
