"""Content that is too large to lie in its record, and the etcd leases under which stored things expire.

Called by `tree` alone. A chunk is uploaded under a short lease, so that an abandoned upload expires; the txn
that commits the record compares that its chunks exist and takes that lease away.
"""

import math
import threading
from collections.abc import Callable, Sequence

from configstore.errors import CorruptError
from configstore.model.keys import Keys, prefix_end
from configstore.model.path import StorePath
from configstore.model.record import INLINE_MAX, Record, sha256, split
from configstore.store.api import CreateRevision, Delete, Exists, Kv, Operation, Put, Relet, range_all

UPLOAD_TTL = 900
"""Seconds that an upload may take before its first chunks expire again."""

_LEASE_SHARE = 0.02
"""By what share of a retention things may stay longer, so that one lease can serve many of them."""


def split_content(content: bytes | None) -> dict[str, bytes]:
    """Return the chunks of large content by digest, in order; nothing when it fits into the record."""
    if content is None or len(content) <= INLINE_MAX:
        return {}
    return {sha256(chunk): chunk for chunk in split(content)}


def chunk_digests(content: bytes | None) -> tuple[str, ...]:
    """Return the digests in the order of the content; equal chunks appear as often as they occur."""
    if content is None or len(content) <= INLINE_MAX:
        return ()
    return tuple(sha256(chunk) for chunk in split(content))


class Chunks:
    """Uploads, reads and expiry of chunks. Safe for use by several threads."""

    def __init__(self, kv: Kv, keys: Keys, *, monotonic: Callable[[], float]) -> None:
        self._kv = kv
        self._keys = keys
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._retention_leases: dict[float, tuple[int, float]] = {}  # retention -> (lease, granted at)

    def send(self, path: StorePath, content: bytes | None, *, known: Sequence[str] = ()) -> None:
        """Upload what the store does not have yet of a content's chunks; `known` lie there for sure.

        Raises what `Kv.txn` raises. Repeating it is harmless: a chunk's key is its digest.
        """
        missing = {digest: chunk for digest, chunk in split_content(content).items() if digest not in known}
        if not missing:
            return
        prefix = self._keys.chunk(path, "")
        for page in range_all(self._kv, prefix, prefix_end(prefix), keys_only=True):
            for item in page.items:
                missing.pop(item.key[len(prefix) :].decode("ascii", "replace"), None)
        lease = self._kv.lease_grant(UPLOAD_TTL) if missing else 0
        for digest, chunk in missing.items():
            key = self._keys.chunk(path, digest)
            self._kv.txn((CreateRevision(key, 0),), (Put(key, chunk, lease),))

    def read(self, path: StorePath, digests: Sequence[str]) -> bytes:
        """Fetch and check chunks. Raises CorruptError naming the path when one is missing or wrong."""
        parts = []
        for digest in digests:
            page = self._kv.range(self._keys.chunk(path, digest))
            if not page.items:
                raise CorruptError(f"{path}: chunk {digest[:12]} is missing in the store; put the file again")
            if sha256(page.items[0].value) != digest:
                raise CorruptError(f"{path}: chunk {digest[:12]} does not match its digest; put the file again")
            parts.append(page.items[0].value)
        return b"".join(parts)

    def settle(
        self, path: StorePath, old: Record | None, new: Record, *, retention: float
    ) -> tuple[list[Exists], list[Operation]]:
        """Return what the txn that replaces `old` by `new` must compare and do about chunks.

        New chunks lose their upload lease; those no longer named expire after `retention` seconds (at once for
        0).
        """
        before = set(old.chunks) if old else set()
        after = set(new.chunks)
        fresh = [self._keys.chunk(path, digest) for digest in sorted(after - before)]
        dropped = [self._keys.chunk(path, digest) for digest in sorted(before - after)]
        if dropped and retention:
            lease = self.retention_lease(retention)
            relets: list[Operation] = [Relet(key, lease) for key in dropped]
            return [Exists(key) for key in fresh + dropped], [*(Relet(key) for key in fresh), *relets]
        return [Exists(key) for key in fresh], [*(Relet(key) for key in fresh), *(Delete(key) for key in dropped)]

    def retention_lease(self, retention: float) -> int:
        """Return an etcd lease that ends between `retention` seconds from now and a fiftieth later.

        Within that fiftieth one lease serves every write, so that a busy file does not leave thousands behind.
        """
        with self._lock:
            lease, granted = self._retention_leases.get(retention, (0, -math.inf))
            if self._monotonic() - granted >= retention * _LEASE_SHARE:
                granted = self._monotonic()
                lease = self._kv.lease_grant(math.ceil(retention * (1 + _LEASE_SHARE)))
                self._retention_leases[retention] = (lease, granted)
            return lease

    def forget_leases(self) -> None:
        """Grant new retention leases from now on: the server said that one is gone."""
        with self._lock:
            self._retention_leases.clear()
