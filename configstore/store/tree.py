"""Paths and records on top of a `Kv`: the interface of the store to the commands and the sidecar.

Every change of a record goes through `Tree.commit`:

1. It compares each path's mod_revision, and a lease's fence, in the txn that writes. So it never overwrites what
   the caller has not seen, and a process that lost its lease writes nothing.
2. The same txn keeps the superseded record in `past/` and puts its chunks under the retention lease. So no crash
   can leave a record without its past, or a past record without its chunks.
3. When the answer to a txn is lost, the write ids that are in the store show whether it was made.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence

import tenacity

from configstore.clock import boottime
from configstore.errors import CompactedError, RefusedError
from configstore.model.keys import Keys
from configstore.model.path import StorePath, shown
from configstore.model.record import Entry, Source
from configstore.store.api import Item, Kv, range_all
from configstore.store.chunks import Chunks
from configstore.store.commit import Commit, Terms
from configstore.store.envelope import Envelopes
from configstore.store.items import decode_item, items_at, stored, trace
from configstore.store.losing_side import Losing
from configstore.store.retention import KEEP
from configstore.store.store import Store
from configstore.store.values import Fence, Listing, Outcome, Stored, UnreadableRecord, Write, Writer


class Tree(Store):
    """A store with the records below its root key. Safe for use by several threads."""

    def __init__(
        self,
        kv: Kv,
        keys: Keys,
        writer: Writer,
        *,
        envelopes: Envelopes | None = None,
        patience: float = 10.0,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """`writer` is named in the records that are written.

        envelopes: how values are sealed and opened; None: not at all.
        patience: seconds for which a txn is tried again when its answer is lost.
        clock: counts seconds, those of a suspend included; the age of a retention lease is measured by it.
        """
        super().__init__(kv, keys)
        self.envelopes = envelopes or Envelopes(keys.root)
        self._writer = writer
        self.patience = patience
        self._chunks = Chunks(kv, keys, clock=clock)

    # Reading

    def read(self, path: StorePath, *, revision: int = 0) -> Stored | None:
        """Return the record of a path, now or as it was at a store revision; None when there is none.

        Raises RecordError (unreadable), CompactedError, FutureRevisionError.
        """
        page = self.kv.range(self.keys.file(path), revision=revision)
        return stored(self.envelopes, path, page.items[0]) if page.items else None

    def look(self, path: StorePath, *, revision: int = 0) -> Stored | UnreadableRecord | None:
        """Return the record of a path as `read` does, an unreadable one as a value.

        Raises CompactedError, FutureRevisionError.
        """
        page = self.kv.range(self.keys.file(path), revision=revision)
        return self.decode_item(page.items[0]) if page.items else None

    def read_many(self, paths: Collection[StorePath]) -> Iterator[Stored]:
        """Yield the records of paths, many in one call; those that do not exist or are unreadable are left out."""
        for item in items_at(self.kv, [self.keys.file(path) for path in paths]):
            found = self.decode_item(item)
            if isinstance(found, Stored):
                yield found

    def list(
        self,
        directory: StorePath,
        *,
        revision: int = 0,
        keep: Callable[[Stored], Stored | None] = lambda found: found,
    ) -> Listing:
        """Return a directory's record and all those below it, read at one revision.

        keep: returns the part of a record to keep in memory; None keeps its revision alone, in `Listing.rest`.
        """
        # A compaction between two pages ends a listing: without a given revision it begins again at a newer one.
        attempts = 1 if revision else 3
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(CompactedError),
            stop=tenacity.stop_after_attempt(attempts),
            reraise=True,
        )
        return retrying(self._list, directory, revision, keep)

    def _list(self, directory: StorePath, revision: int, keep: Callable[[Stored], Stored | None]) -> Listing:
        page = self.kv.range(self.keys.file(directory), revision=revision)
        revision = revision or page.revision
        records: dict[StorePath, Stored] = {}
        rest: dict[StorePath, tuple[int, str]] = {}
        ids: dict[str, str] = {}  # equal ones are one in memory
        bad: list[UnreadableRecord] = []
        below = range_all(self.kv, *self.keys.files_below(directory), revision=revision)
        for part in itertools.chain([page] if directory else [], below):
            for item in part.items:
                found = self.decode_item(item)
                if isinstance(found, UnreadableRecord):
                    bad.append(found)
                elif kept := keep(found):
                    records[found.path] = kept
                else:
                    deletion = found.record.origin.deletion
                    name = deletion.id if deletion else ""
                    rest[found.path] = found.mod_revision, ids.setdefault(name, name)
        return Listing(revision=revision, cluster_id=page.cluster_id, records=records, bad=tuple(bad), rest=rest)

    def remembers(self, path: StorePath, mod_revision: int) -> bool:
        """Return whether the record that a path had at `mod_revision` is kept as a superseded one."""
        return bool(self.kv.range(self.keys.past(path, mod_revision), keys_only=True).items)

    def decode_item(self, item: Item, path: StorePath | None = None) -> Stored | UnreadableRecord:
        """Return the record in an item below `files/`, an unreadable one as a value.

        path: the key's, if the caller knows it.
        """
        return decode_item(self.keys, self.envelopes, item, path)

    def content(self, found: Stored) -> bytes:
        """Return a file's content, checked against its digest; b"" for everything else.

        Raises CorruptError when a chunk is missing or wrong.
        """
        return b"".join(self.pieces(found))

    def pieces(self, found: Stored) -> Iterator[bytes]:
        """Yield a file's content, one piece in memory at a time; nothing for everything else.

        Each piece is checked against its digest, and the whole content after the last piece: until the iteration
        has ended without an error, nothing that was yielded may be used.
        Raises CorruptError, RefusedError (its record is locked), and what `Kv.range` raises.
        """
        record = found.record
        if record.locked:
            raise RefusedError(f"{shown(found.path)}: {record.locked}")
        if record.chunks:
            yield from self._chunks.pieces(found.path, record, self.envelopes.reading(found.path, record))
        elif record.content:
            yield record.content

    def find_write(self, path: StorePath, write_ids: Collection[str], *, after: int) -> Stored | None:
        """Return the newest record of a path that one of these writes made at a mod_revision above `after`.

        It may be the current record, or a superseded one that is still kept. Raises StoreError.
        """
        items = self.kv.range(self.keys.file(path)).items
        current = items[0] if items else None
        return trace(self.kv, self.keys, self.envelopes, path, write_ids, after=after, current=current).found

    # Writing

    @property
    def replica(self) -> str:
        """The id of the replica in whose name it writes."""
        return self._writer.replica

    def new_write_id(self) -> str:
        """Return a fresh id for a write, or for a deletion."""
        return self._writer.new_id()

    def commit(
        self,
        writes: Sequence[Write],
        *,
        retention: float,
        keep: int = KEEP,
        fence: Fence | None = None,
        step: Callable[[int], None] | None = None,
    ) -> Outcome:
        """Make writes in one txn if they fit into one, else in as few as possible, in the given order.

        Writes with the same `Write.set` stay together, and are split only if they do not fit into one txn. All
        content is read, and large content uploaded piece by piece, before the first txn.

        retention: seconds for which superseded records stay in `past/`; 0 keeps none. keep: how many of each path
        are kept; of more, the oldest are deleted (a few at a time). step: called after each txn with the number of
        its paths.
        Raises StoreUnavailableError when it is still unknown after `patience` whether the last txn was made. To
        commit again with the same write ids is safe: what they made is found, and nothing is made twice. Raises
        also TooLargeError, NoSpaceError, PermissionDeniedError. The `done` and `unknown` of each error say how far
        it came. Before anything is written: RecordError when an entry does not fit its content, and what a source
        raises.
        """
        terms = Terms(retention=retention, keep=keep, fence=fence, patience=self.patience)
        commit = Commit(self.kv, self.keys, self._writer, self._chunks, terms, envelopes=self.envelopes, step=step)
        return commit.make(writes)

    def keep_conflict(
        self, path: StorePath, entry: Entry, content: bytes | Source | None, *, retention: float
    ) -> str:
        """Keep the losing side of a conflict under `conflicts/` for `retention` seconds and return its id.

        The id is derived from the entry, so that many replicas, or many tries, keep one copy of the same side. A
        copy that exists is left alone while at least half of `retention` is left of its time. Of more than
        MAX_CONFLICTS sides of a path, the oldest are deleted.
        Raises RecordError when the entry does not fit its content, what a source raises, and StoreError; then it
        is not known whether anything is kept.
        """
        losing = Losing(self.kv, self.keys, self._chunks, path, entry, envelopes=self.envelopes)
        return losing.keep(content, self._writer, retention=retention, patience=self.patience)
