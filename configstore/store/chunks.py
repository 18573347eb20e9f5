"""Content that is too large for its record, and the etcd leases by which stored values expire.

Called by `commit`, `losing_side`, `conflicts`, `resealing` and `tree`.

1. A chunk is uploaded under a short lease, so that an upload that was abandoned expires.
2. The txn that commits the record compares that all its chunks exist, and takes that lease from them. So no record
   ever names a chunk that expires before it.
3. Chunks that the new record does not name expire with the last superseded record that may name them.
"""

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from configstore.errors import CorruptError, LeaseGoneError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.record import (
    CHUNK_SIZE,
    INLINE_MAX,
    MAX_SIZE,
    Entry,
    Kind,
    Record,
    RecordError,
    Source,
    checked,
    is_name,
    split,
)
from configstore.store.api import (
    ChangeLease,
    CreateRevision,
    Delete,
    Exists,
    Item,
    Kv,
    Operation,
    Put,
    items_below,
)
from configstore.store.envelope import Envelope

UPLOAD_TTL = 900
"""Seconds that an upload may take before its first chunks expire again."""

_LEASE_SHARE = 0.02
"""The share of a retention by which values may stay longer, so that one lease can serve many of them."""


class Chunks:
    """Uploads, reads and expiry of chunks. Safe for use by several threads."""

    def __init__(self, kv: Kv, keys: Keys, *, clock: Callable[[], float]) -> None:
        self._kv = kv
        self._keys = keys
        self._clock = clock
        self._lock = threading.Lock()
        self._retention_leases: dict[float, tuple[int, float]] = {}  # retention -> (lease, granted at)

    def take(
        self,
        path: StorePath,
        entry: Entry,
        content: bytes | Source | None,
        *,
        envelope: Envelope,
        known: Sequence[str] = (),
    ) -> tuple[bytes | None, tuple[str, ...]]:
        """Return what a record holds of its content: the content itself if it is small, else its chunks' names.

        Chunks that the store does not have yet are uploaded, one at a time. known: names of chunks that it has.
        Raises RecordError when the content does not match `entry`, what a source raises, and what `Kv.txn` raises.
        It may be repeated: a chunk's name is derived from its content.
        """
        if not is_large(entry, content):
            return inline(entry, content), ()
        there = {item.key: item.lease for item in self._items(self._keys.chunk(path, ""))}
        there |= {self._keys.chunk(path, name): 0 for name in known}
        lease = 0

        def upload_lease() -> int:
            nonlocal lease
            lease = lease or self._kv.lease_grant(UPLOAD_TTL)
            return lease

        return None, self.upload(
            entry,
            content,
            lambda name: self._keys.chunk(path, name),
            envelope=envelope,
            there=there,
            lease=upload_lease,
        )

    def upload(
        self,
        entry: Entry,
        content: bytes | Source | None,
        key: Callable[[str], bytes],
        *,
        envelope: Envelope,
        there: Mapping[bytes, int],
        lease: Callable[[], int],
    ) -> tuple[str, ...]:
        """Write the pieces of a large content that are not `there` under their keys; returns all names in order.

        A piece that occurs twice is named twice. Raises as `take` does.
        """
        names, sent = [], set(there)
        for piece in checked(pieces_of(content), entry):
            name = envelope.name(piece)
            names.append(name)
            at = key(name)
            if at not in sent:
                self._kv.txn((CreateRevision(at, 0),), (Put(at, envelope.close_piece(name, piece), lease()),))
                sent.add(at)
        return tuple(names)

    def pieces(self, path: StorePath, record: Record, envelope: Envelope) -> Iterator[bytes]:
        """Yield a large content's chunks, one at a time. Raises CorruptError, also after the last one."""
        yield from read_pieces(
            self._kv,
            record,
            lambda name: self._keys.chunk(path, name),
            envelope=envelope,
            what=f"{path}: chunk",
            mend="put the file again",
        )

    def _items(self, prefix: bytes) -> Iterator[Item]:
        return items_below(self._kv, prefix, keys_only=True)

    def left(self, lease: int) -> float:
        """Return the seconds that an etcd lease has left: 0 when it is gone, without end for no lease (0)."""
        try:
            return self._kv.lease_left(lease) if lease else math.inf
        except LeaseGoneError:
            return 0.0

    def replace(
        self, path: StorePath, old: Record | None, new: Record, *, retention: float
    ) -> tuple[list[Exists], list[Operation]]:
        """Return the compares and operations on chunks of the txn that replaces `old` by `new`.

        New chunks lose their upload lease. Chunks that are not named any more expire after `retention` seconds (0:
        at once), but never before the superseded records of the path that may name them as well.
        """
        before = self._named(path, old) if old else set()
        after = set(new.chunks)
        fresh = [self._keys.chunk(path, name) for name in sorted(after - before)]
        dropped = [self._keys.chunk(path, name) for name in sorted(before - after)]
        lease = self.longest_lease(path, retention) if dropped else 0
        if lease:
            relets: list[Operation] = [ChangeLease(key, lease) for key in dropped]
            return [Exists(key) for key in fresh + dropped], [*(ChangeLease(key) for key in fresh), *relets]
        return [Exists(key) for key in fresh], [
            *(ChangeLease(key) for key in fresh),
            *(Delete(key) for key in dropped),
        ]

    def _named(self, path: StorePath, record: Record) -> set[str]:
        """Return the names of a current record's chunks; if it cannot be opened, of those without a lease.

        Only a current record's chunks have none, see 2. and 3. above.
        """
        if not (record.seal and record.locked):
            return set(record.chunks)
        prefix = self._keys.chunk(path, "")
        names = (item.key[len(prefix) :].decode("latin-1") for item in self._items(prefix) if not item.lease)
        return set(itertools.islice(filter(is_name, names), MAX_SIZE // CHUNK_SIZE))  # a file has no more chunks

    def longest_lease(self, path: StorePath, retention: float) -> int:
        """Return the lease of `retention` seconds, or that of a superseded record of the path if it ends later.

        0: nothing is kept. Only etcd's clock counts, which says how long each lease has left.
        """
        lease = self.retention_lease(retention) if retention else 0
        longest = retention
        for other in {item.lease for item in self._items(self._keys.past_of(path))} - {0, lease}:
            with suppress(LeaseGoneError):
                left = self._kv.lease_left(other)
                lease, longest = (other, left) if left > longest else (lease, longest)
        return lease

    def retention_lease(self, retention: float) -> int:
        """Return an etcd lease that ends between `retention` seconds from now and a fiftieth later.

        One lease serves every write within that fiftieth, so that a busy file does not leave thousands of leases.
        """
        with self._lock:
            lease, granted = self._retention_leases.get(retention, (0, -math.inf))
            if self._clock() - granted >= retention * _LEASE_SHARE:
                granted = self._clock()
                lease = self._kv.lease_grant(math.ceil(retention * (1 + _LEASE_SHARE)))
                self._retention_leases[retention] = (lease, granted)
            return lease

    def forget_leases(self) -> None:
        """Grant new retention leases from now on, because etcd reported that one is gone."""
        with self._lock:
            self._retention_leases.clear()


def is_large(entry: Entry, content: bytes | Source | None) -> bool:
    """Return whether a content is stored in chunks rather than in its record."""
    return entry.kind is Kind.FILE and content is not None and entry.size > INLINE_MAX


def inline(entry: Entry, content: bytes | Source | None) -> bytes | None:
    """Return a small content as bytes. Raises RecordError when a source's content does not match `entry`."""
    return content if content is None or isinstance(content, bytes) else b"".join(checked(content(), entry))


def pieces_of(content: bytes | Source | None) -> Iterable[bytes]:
    """Return a content's pieces."""
    return split(content or b"") if content is None or isinstance(content, bytes) else content()


def read_pieces(
    kv: Kv, record: Record, key: Callable[[str], bytes], *, envelope: Envelope, what: str, mend: str
) -> Iterator[bytes]:
    """Yield the pieces that a record names, read one at a time.

    Raises CorruptError when a piece is missing or wrong, and after the last one when together they do not have the
    record's digest. Its text begins with `what` and ends with `mend`.
    """

    def fetched() -> Iterator[bytes]:
        for name in record.chunks:
            items = kv.range(key(name)).items
            if not items:
                raise CorruptError(f"{what} {name[:12]} is missing in the store; {mend}")
            try:
                piece = envelope.open_piece(name, items[0].value)
            except RecordError as error:
                raise CorruptError(f"{what} {name[:12]}: {error}; {mend}") from None
            yield piece

    try:
        yield from checked(fetched(), record.entry)
    except RecordError:
        raise CorruptError(f"{what}s do not add up to the digest; {mend}") from None
