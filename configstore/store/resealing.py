"""Seals again each value that is not sealed with its newest key, or makes it plain. Called by `configstore seal`.

1. Every txn compares what it replaces, so that no write that comes between is lost.
2. Nothing is remembered between two runs but what is in the store: a value that is not sealed as it should be is
   what is left to do. So the next run goes on where a killed one stopped.
3. A current record keeps its origin and supersedes the record that it replaces, which goes to `past/`, sealed anew
   as well. So whoever looks for a write, or for a superseded record, finds it as before.
4. A superseded record is replaced under its own key and its own etcd lease.
5. A losing side gets the id that it has under the new key, and keeps its etcd lease.
6. The pieces of large content are uploaded under their new names first. The old ones are deleted in the txn that
   replaces the last record which names them, so that no record ever lacks a piece.
"""

from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from configstore.errors import CorruptError, LeaseGoneError, TooLargeError
from configstore.model.keys import prefix_end, removal
from configstore.model.path import StorePath
from configstore.model.record import Record, RecordError, decode
from configstore.model.seal import Keyring, SealedKind
from configstore.store.api import (
    MAX_OPERATIONS,
    ChangeLease,
    Compare,
    CreateRevision,
    Delete,
    Exists,
    Item,
    ModRevision,
    Operation,
    Put,
)
from configstore.store.chunks import Chunks
from configstore.store.conflicts import Loser, pieces_of
from configstore.store.envelope import Envelope
from configstore.store.persist import persist
from configstore.store.retention import KEEP, add_surplus, surplus_past
from configstore.store.sealed_values import Family, SealState, Value, current_items, seal_state
from configstore.store.tree import Tree
from configstore.store.values import Stored

_ATTEMPTS = 10
"""How often a value that somebody else writes at the same time is tried; then it is left for the next run."""


class LeftError(Exception):
    """A value could not be sealed again; the text says why."""


class Resealing:
    """Seals values again that are due. The envelopes of `tree` are lenient, and say how values are sealed."""

    def __init__(
        self, tree: Tree, ring: Keyring, *, unseal: bool, retention: float, clock: Callable[[], float]
    ) -> None:
        """`retention`: seconds for which a record that is replaced stays in `past/`. clock: as for `Tree`."""
        self._tree = tree
        self._kv = tree.kv
        self._keys = tree.keys
        self._ring = ring
        self._unseal = unseal
        self._retention = retention
        self._chunks = Chunks(tree.kv, tree.keys, clock=clock)
        self._names: dict[bytes, tuple[int, frozenset[str]]] = {}  # of the superseded records of one path
        self._names_of: StorePath | None = None

    def is_due(self, value: Value) -> bool:
        """Return whether a value must be sealed again. Raises LeftError: it is unreadable, or no key opens it."""
        if value.strange:
            raise LeftError(f"a key that no path has; `{removal(value.item.key)}` removes it")
        try:
            record = decode(value.item.value)
        except RecordError as error:
            raise LeftError(f"it cannot be read: {error}") from None
        state = seal_state(self._ring, value.path, record, unseal=self._unseal)
        if state is SealState.UNKNOWN and record.seal:
            raise LeftError(f"no key here opens it: it is sealed with the key {record.seal.key}")
        return state is SealState.DUE

    def opens(self, value: Value) -> bool:
        """Return whether a value that is due can be opened, with all its pieces. Raises StoreError."""
        try:
            record = self._opened(value.path, value.item, value.place)
            for _ in self._pieces(value, record):
                pass
        except (LeftError, RecordError, CorruptError):
            return False
        return True

    def seal(self, value: Value) -> bool:
        """Seal a value again; returns whether it was due. Raises LeftError, StoreError."""
        for _ in range(_ATTEMPTS):
            if not self.is_due(value):
                return False
            why = ""
            try:
                if self._replace(value):
                    return True
            except LeaseGoneError:
                self._chunks.forget_leases()
            except (RecordError, CorruptError, TooLargeError) as error:
                why = str(error)
            items = self._kv.range(value.item.key).items
            if not items:
                return False
            if why and items[0].mod_revision == value.item.mod_revision:
                raise LeftError(why)
            value = msgspec.structs.replace(value, item=items[0])
        raise LeftError("somebody else writes it all the time")

    def _replace(self, value: Value) -> bool:
        record = self._opened(value.path, value.item, value.place)
        envelope = self._tree.envelopes.writing(value.path, value.place)
        if value.family is Family.CONFLICTS:
            compares, operations = self._side(value, record, envelope)
        else:
            compares, operations = self._record(value, record, envelope)
        return persist(self._kv, self._tree.patience, compares, operations, otherwise_get=()).succeeded

    def _opened(self, path: StorePath, item: Item, place: SealedKind) -> Record:
        record = self._tree.envelopes.decode(path, item.value, place)
        if record.locked:
            raise LeftError(record.locked)
        return record

    def _pieces(self, value: Value, record: Record) -> Iterator[bytes]:
        if value.family is Family.CONFLICTS:
            _, name = self._keys.path_of_conflict(value.item.key)
            return pieces_of(self._tree, Loser(path=value.path, id=name, record=record))
        return self._tree.pieces(Stored(path=value.path, record=record, mod_revision=value.item.mod_revision))

    # Records, current and superseded

    def _record(self, value: Value, record: Record, envelope: Envelope) -> tuple[list[Compare], list[Operation]]:
        path, item = value.path, value.item
        is_current = value.family is Family.FILES
        old, moved = frozenset(record.chunks), record
        if record.chunks:
            content, names = self._chunks.take(
                path, record.entry, partial(self._pieces, value, record), envelope=envelope
            )
            moved = msgspec.structs.replace(record, content=content, chunks=names)
        compares: list[Compare] = [ModRevision(item.key, item.mod_revision)]
        operations: list[Operation] = []
        if is_current:
            origin = msgspec.structs.replace(record.origin, supersedes=item.mod_revision)
            now = msgspec.structs.replace(moved, origin=origin)
            before = self._keys.past(path, item.mod_revision)
            operations.append(Put(item.key, envelope.encode(now), item.lease))
            lease = self._chunks.retention_lease(self._retention)
            operations.append(Put(before, envelope.encode(moved), lease))
        else:
            operations.append(Put(item.key, envelope.encode(moved), item.lease))
        if moved.chunks or old:
            more, others = self._replace_pieces(value, frozenset(moved.chunks), old)
            compares += more
            operations += others
        if is_current:
            add_surplus(operations, surplus_past(self._kv, self._keys, path, item.version, KEEP))
        return compares, operations

    def _replace_pieces(
        self, value: Value, new: frozenset[str], old: frozenset[str]
    ) -> tuple[list[Compare], list[Operation]]:
        """Return the compares and operations for pieces when a record names the new ones in place of the old ones.

        Every write of the path changes its current record. So while that one compares equal, no other record can
        have come to name an old piece, nor can a new piece have become the current record's own.
        """
        path = value.path
        is_current = value.family is Family.FILES
        compares: list[Compare] = []
        current = self._kv.range(self._keys.file(path)).items
        if not is_current:
            compares.append(ModRevision(self._keys.file(path), current[0].mod_revision if current else 0))
        used = self._named_elsewhere(path, value.item, current[0] if current and not is_current else None)
        prefix = self._keys.chunk(path, "")
        leases = {
            item.key: item.lease for item in current_items(self._kv, prefix, prefix_end(prefix), keys_only=True)
        }
        lease = 0 if is_current else value.item.lease
        operations: list[Operation] = []
        for key in (self._keys.chunk(path, name) for name in sorted(new)):
            compares.append(Exists(key))
            has = leases.get(key, 0)
            if has and has != lease and (not lease or self._chunks.left(has) < self._chunks.left(lease)):
                operations.append(ChangeLease(key, lease))
        kept = [self._keys.chunk(path, name) for name in sorted((old & used) - new)]
        if is_current and kept:
            longest = self._chunks.longest_lease(path, self._retention)
            compares += [Exists(key) for key in kept]
            operations += [ChangeLease(key, longest) for key in kept]
        operations += [Delete(self._keys.chunk(path, name)) for name in sorted(old - used - new)]
        return compares, operations

    def _named_elsewhere(self, path: StorePath, item: Item, current: Item | None) -> set[str]:
        """Return the names of the pieces that a path's other records have, with one record in memory at a time."""
        if self._names_of != path:
            self._names, self._names_of = {}, path
        used: set[str] = set(self._chunks_of(path, current)) if current else set()
        prefix = self._keys.past_of(path)
        for each in current_items(self._kv, prefix, prefix_end(prefix), keys_only=True):
            if each.key == item.key:
                continue
            known = self._names.get(each.key)
            if known is None or known[0] != each.mod_revision:
                found = self._kv.range(each.key).items
                if not found:
                    continue
                known = found[0].mod_revision, self._chunks_of(path, found[0])
                self._names[each.key] = known
            used |= known[1]
        return used

    def _chunks_of(self, path: StorePath, item: Item) -> frozenset[str]:
        """Return the names of a record's pieces.

        None for a record that cannot be opened: its key gave its pieces names of their own.
        """
        try:
            return frozenset(self._tree.envelopes.decode(path, item.value).chunks)
        except RecordError:
            return frozenset()

    # Losing sides

    def _side(self, value: Value, record: Record, envelope: Envelope) -> tuple[list[Compare], list[Operation]]:
        path, item = value.path, value.item
        _, old = self._keys.path_of_conflict(item.key)
        new = envelope.loser(record.entry)
        key, pieces = self._keys.conflict(path, new), self._keys.conflict_chunk(path, new, "")
        compares: list[Compare] = [ModRevision(item.key, item.mod_revision)]
        operations: list[Operation] = []
        if key == item.key or not self._kv.range(key, keys_only=True).items:
            moved = record
            if record.chunks:
                there = current_items(self._kv, pieces, prefix_end(pieces), keys_only=True)
                names = self._chunks.upload(
                    record.entry,
                    partial(self._pieces, value, record),
                    lambda name: self._keys.conflict_chunk(path, new, name),
                    envelope=envelope,
                    there={each.key: each.lease for each in there},
                    lease=lambda: item.lease,
                )
                compares += [Exists(self._keys.conflict_chunk(path, new, name)) for name in sorted(set(names))]
                moved = msgspec.structs.replace(record, chunks=names)
            if key != item.key:
                compares.append(CreateRevision(key, 0))
            operations.append(Put(key, envelope.encode(moved), item.lease))
        else:
            compares.append(Exists(key))  # a replica has kept it under the new key already
        if key != item.key:
            below = self._keys.conflict_chunk(path, old, "")
            doomed = [each.key for each in current_items(self._kv, below, prefix_end(below), keys_only=True)]
            operations += [Delete(item.key), *(Delete(each) for each in doomed)]
        return compares, operations[:MAX_OPERATIONS]
