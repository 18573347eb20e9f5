"""Writes the losing side of a conflict, in one copy however many replicas keep it. Called by `tree`.

`conflicts` reads it.
"""

from collections.abc import Mapping

from configstore.errors import LeaseGoneError, StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.record import Entry, Record, RecordError, Source
from configstore.model.seal import SealedKind
from configstore.store.api import (
    ChangeLease,
    Compare,
    Exists,
    Item,
    Kv,
    ModRevision,
    Operation,
    Put,
    items_below,
)
from configstore.store.chunks import Chunks, inline, is_large
from configstore.store.envelope import Envelopes
from configstore.store.persist import persist
from configstore.store.retention import add_surplus, surplus_conflicts
from configstore.store.values import Writer

_ATTEMPTS = 3
"""How often it is tried: a piece or the retention lease may expire meanwhile."""

_LEASE_SHARE = 0.5
"""A copy that exists gets a new lease only if less than this share of the retention is left of its own.

etcd stores a value again when its lease changes, and a file that cannot be placed is kept again every few seconds.
"""


class Losing:
    """One losing side of a path that is to be kept under `conflicts/`."""

    def __init__(
        self, kv: Kv, keys: Keys, chunks: Chunks, path: StorePath, entry: Entry, *, envelopes: Envelopes
    ) -> None:
        self._kv = kv
        self._keys = keys
        self._envelopes = envelopes
        self._envelope = envelopes.writing(path, SealedKind.CONFLICT)
        self._chunks = chunks
        self._path = path
        self._entry = entry
        self._name = self._envelope.loser(entry)
        self._key = keys.conflict(path, self._name)

    def keep(self, content: bytes | Source | None, writer: Writer, *, retention: float, patience: float) -> str:
        """Keep it and return its id; see `Tree.keep_conflict`."""
        for _ in range(_ATTEMPTS):
            try:
                lease = self._chunks.retention_lease(retention)
                there = self._there()
                if self._is_whole(there):
                    compares, operations = self._renew(there, lease, retention)
                else:
                    compares, operations = self._put(there, content, writer, lease)
                if not operations or self._persist(compares, operations, patience):
                    return self._name
            except (
                LeaseGoneError
            ):  # it expired or was revoked, or another etcd than the one that granted it answers
                self._chunks.forget_leases()
        raise StoreUnavailableError(
            f"{self._path}: the losing side of its conflict was not kept: its pieces or its lease kept expiring; "
            "try again"
        )

    def _persist(self, compares: list[Compare], operations: list[Operation], patience: float) -> bool:
        """Make the txn; returns whether the side is kept now, by whichever replica or try."""
        result = persist(self._kv, patience, compares, operations, otherwise_get=[self._key])
        return result.succeeded or self._is_whole(self._there())

    def _there(self) -> dict[bytes, Item]:
        """Return the items of it that exist: the record, and its pieces without their values."""
        pieces = items_below(self._kv, self._keys.conflict_chunk(self._path, self._name, ""), keys_only=True)
        return {item.key: item for item in (*self._kv.range(self._key).items, *pieces)}

    def _is_whole(self, there: Mapping[bytes, Item]) -> bool:
        try:
            record = self._decode(there[self._key].value) if self._key in there else None
        except RecordError:
            return False
        return (
            record is not None
            and self._envelope.loser(record.entry) == self._name
            and all(self._piece(name) in there for name in record.chunks)
        )

    def _decode(self, value: bytes) -> Record:
        return self._envelopes.decode(self._path, value, SealedKind.CONFLICT)

    def _piece(self, name: str) -> bytes:
        return self._keys.conflict_chunk(self._path, self._name, name)

    def _renew(
        self, there: Mapping[bytes, Item], lease: int, retention: float
    ) -> tuple[list[Compare], list[Operation]]:
        """Return what gives all its items another lease; nothing while their own lasts long enough."""
        if all(
            self._chunks.left(each) >= retention * _LEASE_SHARE for each in {item.lease for item in there.values()}
        ):
            return [], []
        return [Exists(key) for key in there], [ChangeLease(key, lease) for key in there]

    def _put(
        self, there: Mapping[bytes, Item], content: bytes | Source | None, writer: Writer, lease: int
    ) -> tuple[list[Compare], list[Operation]]:
        """Upload the pieces, and return the compares and operations that write the record."""
        leases = {key: item.lease for key, item in there.items()}
        try:
            if is_large(self._entry, content):
                names = self._chunks.upload(
                    self._entry,
                    content,
                    self._piece,
                    envelope=self._envelope,
                    there=leases,
                    lease=lambda: lease,
                )
                record = Record(entry=self._entry, origin=writer.origin(writer.new_id()), chunks=names)
            else:
                small = inline(self._entry, content)
                record = Record(entry=self._entry, origin=writer.origin(writer.new_id()), content=small)
            value = self._envelope.encode(record)
        except RecordError as error:
            raise RecordError(f"{self._path}: {error}") from None
        pieces = [self._piece(name) for name in sorted(set(record.chunks))]
        before = there.get(self._key)
        compares: list[Compare] = [ModRevision(self._key, before.mod_revision if before else 0)]
        compares += [Exists(key) for key in pieces]
        operations: list[Operation] = [Put(self._key, value, lease)]
        operations += [ChangeLease(key, lease) for key in pieces if leases.get(key, lease) != lease]
        if before is None:
            add_surplus(operations, surplus_conflicts(self._kv, self._keys, self._path))
        return compares, operations
