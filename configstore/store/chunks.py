"""Content that is too large to lie in its record, and the etcd leases under which stored things expire.

Called by `tree` alone. A chunk is uploaded under a short lease, so that an abandoned upload expires; the txn
that commits the record compares that its chunks exist and takes that lease away.
"""

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from configstore.errors import CorruptError, LeaseGoneError
from configstore.model.keys import Keys, prefix_end
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
from configstore.store.api import ChangeLease, CreateRevision, Delete, Exists, Item, Kv, Operation, Put, range_all
from configstore.store.envelope import Envelope

UPLOAD_TTL = 900
"""Seconds that an upload may take before its first chunks expire again."""

_LEASE_SHARE = 0.02
"""By what share of a retention things may stay longer, so that one lease can serve many of them."""


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
        """Return what a record holds of its content: itself when it is small, else its chunks' names.

        The chunks that the store does not have yet are uploaded, one at a time; `known` lie there for sure. Raises
        RecordError when the content is not what `entry` says, what a source raises, and what `Kv.txn` raises.
        Repeating it is harmless: a chunk's name follows from what it is.
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
        """Put the pieces of a large content that are not `there` under their keys; returns all names in order.

        Equal pieces appear as often as they occur. Raises as `take` does.
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
        """Yield a large content's chunks, one at a time. Raises CorruptError, also behind the last one."""
        yield from read_pieces(
            self._kv,
            record,
            lambda name: self._keys.chunk(path, name),
            envelope=envelope,
            what=f"{path}: chunk",
            mend="put the file again",
        )

    def _items(self, prefix: bytes) -> Iterator[Item]:
        return (
            item for page in range_all(self._kv, prefix, prefix_end(prefix), keys_only=True) for item in page.items
        )

    def settle(
        self, path: StorePath, old: Record | None, new: Record, *, retention: float
    ) -> tuple[list[Exists], list[Operation]]:
        """Return what the txn that replaces `old` by `new` must compare and do about chunks.

        New chunks lose their upload lease. Those no longer named expire after `retention` seconds (at once for 0),
        but never before the superseded records of the path do that may name them, too.
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
        """Return the names of a current record's chunks; of one that cannot be opened, those without a lease."""
        if not (record.seal and record.locked):
            return set(record.chunks)
        prefix = self._keys.chunk(path, "")
        names = (item.key[len(prefix) :].decode("latin-1") for item in self._items(prefix) if not item.lease)
        return set(
            itertools.islice(filter(is_name, names), MAX_SIZE // CHUNK_SIZE)
        )  # what is more is no piece of it

    def longest_lease(self, path: StorePath, retention: float) -> int:
        """Return the lease of `retention` seconds, or that of a superseded record of the path if it ends later.

        etcd says how long each still has, so no clock but its own counts. 0: nothing is to be kept.
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

        Within that fiftieth one lease serves every write, so that a busy file does not leave thousands behind.
        """
        with self._lock:
            lease, granted = self._retention_leases.get(retention, (0, -math.inf))
            if self._clock() - granted >= retention * _LEASE_SHARE:
                granted = self._clock()
                lease = self._kv.lease_grant(math.ceil(retention * (1 + _LEASE_SHARE)))
                self._retention_leases[retention] = (lease, granted)
            return lease

    def forget_leases(self) -> None:
        """Grant new retention leases from now on: the server said that one is gone."""
        with self._lock:
            self._retention_leases.clear()


def is_large(entry: Entry, content: bytes | Source | None) -> bool:
    """Tell whether a content lies in chunks rather than in its record."""
    return entry.kind is Kind.FILE and content is not None and entry.size > INLINE_MAX


def inline(entry: Entry, content: bytes | Source | None) -> bytes | None:
    """Return a small content as bytes. Raises RecordError when a source does not give what `entry` says."""
    return content if content is None or isinstance(content, bytes) else b"".join(checked(content(), entry))


def pieces_of(content: bytes | Source | None) -> Iterable[bytes]:
    """Return a content's pieces."""
    return split(content or b"") if content is None or isinstance(content, bytes) else content()


def read_pieces(
    kv: Kv, record: Record, key: Callable[[str], bytes], *, envelope: Envelope, what: str, mend: str
) -> Iterator[bytes]:
    """Yield the pieces that a record names, fetched one at a time from under their keys.

    Raises CorruptError, which begins with `what` and ends with `mend`, when one is missing or wrong, and behind
    the last one when they do not add up to the record's digest.
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
