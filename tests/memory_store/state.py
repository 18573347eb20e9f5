"""What the reference store remembers: etcd's multi-version model in plain Python.

`memory.MemoryKv` is the connection to it. Where the contract (`configstore.store.api`) is silent, this does
what etcd 3.5 does; tests/store/test_kv_contract.py compares the two.
"""

import bisect
import copy
import itertools
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from configstore.errors import (
    CompactedError,
    FutureRevisionError,
    LeaseGoneError,
    TooLargeError,
)
from configstore.store.api import (
    Batch,
    ChangeLease,
    Compare,
    CreateRevision,
    Delete,
    Event,
    Item,
    ModRevision,
    Operation,
    Page,
    Put,
    TxnResult,
    ValueEquals,
)
from configstore.store.txn_checks import check_txn
from tests.memory_store.accounts import MemoryAccounts

REQUEST_LIMIT = 1536 * 1024
"""Bytes: etcd's default `--max-request-bytes`."""

UNBOUNDED = b"\0"
"""As the end of a range: all keys from its start on (etcd's convention)."""

Clock = Callable[[], float]


class _Version(msgspec.Struct, frozen=True):
    """What a key held from `revision` on; None after a delete."""

    revision: int
    item: Item | None


class _Lease(msgspec.Struct):
    """A granted lease: seconds to live, the clock's reading at which it ends, and the keys that hang on it."""

    ttl: int
    deadline: float
    keys: set[bytes]


class _State(msgspec.Struct):
    """All that a snapshot holds.

    `log` has one entry per revision that changed something and was not compacted; `keys` is sorted and has
    every key of `history`.
    """

    revision: int = 1
    compacted: int = 0
    keys: list[bytes] = []
    history: dict[bytes, list[_Version]] = {}
    log: list[tuple[int, tuple[Event, ...]]] = []
    leases: dict[int, _Lease] = {}


class MemoryStore:
    """The state that connections share. Safe for use by several threads.

    clock: seconds, monotonic; leases are reckoned on it. With a clock of one's own, call `expire_due` after
    moving it.
    """

    def __init__(self, *, clock: Clock = time.monotonic, cluster_id: int = 1) -> None:
        self.cluster_id = cluster_id
        self.accounts = MemoryAccounts()
        self._clock = clock
        self._state = _State()
        self._lease_ids = itertools.count(1001)
        self.changed = threading.Condition(threading.RLock())

    @property
    def revision(self) -> int:
        """The revision of the last change."""
        with self.changed:
            self.expire_due()
            return self._state.revision

    def snapshot(self) -> _State:
        """Return a copy of everything, for `restore`."""
        with self.changed:
            return copy.deepcopy(self._state)

    def restore(self, snapshot: _State) -> None:
        """Go back to a snapshot, as `etcdctl snapshot restore` does: the revision goes back with it."""
        with self.changed:
            self._state = copy.deepcopy(snapshot)
            self.changed.notify_all()

    def compact(self, revision: int) -> None:
        """Forget what was superseded before `revision`.

        Raises FutureRevisionError, or CompactedError when it was compacted that far already.
        """
        with self.changed:
            state = self._state
            self._check_revision(revision)
            if revision <= state.compacted:
                raise CompactedError(f"revision {revision} has been compacted", compact_revision=state.compacted)
            state.compacted = revision
            state.log = [entry for entry in state.log if entry[0] >= revision]
            for key in list(state.keys):
                versions = state.history[key]
                first = bisect.bisect_right(versions, revision, key=lambda version: version.revision) - 1
                first += first >= 0 and versions[first].item is None
                state.history[key] = versions = versions[max(first, 0) :]
                if not versions:
                    del state.history[key]
                    state.keys.remove(key)
            self.changed.notify_all()

    def expire_lease(self, lease: int) -> None:
        """End a lease at once, as if its time had run out. Raises LeaseGoneError."""
        with self.changed:
            self._lease(lease)
            self._end_lease(lease)

    def expire_due(self) -> None:
        """End the leases whose time is over."""
        with self.changed:
            now = self._clock()
            for lease in [number for number, held in self._state.leases.items() if held.deadline <= now]:
                self._end_lease(lease)

    def next_expiry(self) -> float | None:
        """Seconds until the next lease ends by itself; None without leases."""
        with self.changed:
            deadlines = [held.deadline for held in self._state.leases.values()]
            return max(0.0, min(deadlines) - self._clock()) if deadlines else None

    def _check_revision(self, revision: int) -> None:
        if revision > self._state.revision:
            raise FutureRevisionError(
                f"revision {revision} is asked for, but the store is at {self._state.revision}: "
                "it was restored from an older snapshot"
            )

    def _at(self, key: bytes, revision: int) -> Item | None:
        versions = self._state.history.get(key, [])
        index = bisect.bisect_right(versions, revision, key=lambda version: version.revision) - 1
        return versions[index].item if index >= 0 else None

    def current(self, key: bytes) -> Item | None:
        """Return what the key holds now."""
        with self.changed:
            return self._at(key, self._state.revision)

    def read(self, start: bytes, end: bytes | None, revision: int, limit: int, *, keys_only: bool) -> Page:
        """Do what `Kv.range` says."""
        with self.changed:
            self.expire_due()
            state = self._state
            self._check_revision(revision)
            if 0 < revision < state.compacted:
                raise CompactedError(f"revision {revision} has been compacted", compact_revision=state.compacted)
            if end is None:
                keys = [start]
            else:
                first = bisect.bisect_left(state.keys, start)
                last = len(state.keys) if end == UNBOUNDED else bisect.bisect_left(state.keys, end)
                keys = state.keys[first:last]
            found = (self._at(key, revision or state.revision) for key in keys)
            items = [item for item in found if item is not None]
            more = bool(limit) and len(items) > limit
            if limit:
                items = items[:limit]
            if keys_only:
                items = [msgspec.structs.replace(item, value=b"") for item in items]
            return Page(items=tuple(items), revision=state.revision, cluster_id=self.cluster_id, more=more)

    def _holds(self, compare: Compare) -> bool:
        item = self.current(compare.key)
        if isinstance(compare, ModRevision):
            return compare.revision == (item.mod_revision if item else 0)
        if isinstance(compare, ValueEquals):
            return item is not None and item.value == compare.value
        if isinstance(compare, CreateRevision):
            return compare.revision == (item.create_revision if item else 0)
        return item is not None

    def commit(
        self, compares: Sequence[Compare], operations: Sequence[Operation], otherwise_get: Sequence[bytes]
    ) -> TxnResult:
        """Do what `Kv.txn` says."""
        check_txn(compares, operations, otherwise_get)
        size = sum(len(one.key) for one in (*compares, *operations))
        size += sum(len(one.value) for one in operations if isinstance(one, Put))
        if size > REQUEST_LIMIT:
            raise TooLargeError(f"one request holds {size} bytes, etcd takes {REQUEST_LIMIT}")
        with self.changed:
            self.expire_due()
            if not all(self._holds(compare) for compare in compares):
                items = (self.current(key) for key in otherwise_get)
                found = tuple(item for item in items if item is not None)
                return TxnResult(succeeded=False, revision=self._state.revision, found=found)
            for operation in operations:
                if not isinstance(operation, Delete) and operation.lease:
                    self._lease(operation.lease)
                if isinstance(operation, ChangeLease) and self.current(operation.key) is None:
                    raise ValueError(f"key {operation.key!r} is given another lease but does not exist")
            self._write(operations)
            return TxnResult(succeeded=True, revision=self._state.revision)

    def _write(self, operations: Sequence[Operation]) -> None:
        """Make all operations at one new revision; nothing happens when none changes anything."""
        revision = self._state.revision + 1
        events = tuple(
            event for event in (self._write_one(one, revision) for one in operations) if event is not None
        )
        if events:
            self._state.revision = revision
            self._state.log.append((revision, events))
            self.changed.notify_all()

    def _write_one(self, operation: Operation, revision: int) -> Event | None:
        key, old = operation.key, self.current(operation.key)
        if isinstance(operation, Delete) and old is None:
            return None
        if old is not None and old.lease:
            self._state.leases[old.lease].keys.discard(key)
        if isinstance(operation, Delete):
            item = None
            event = Event(
                item=Item(key=key, value=b"", create_revision=0, mod_revision=revision, version=0), deleted=True
            )
        else:
            value = operation.value if isinstance(operation, Put) else old.value if old is not None else b""
            item = Item(
                key=key,
                value=value,
                create_revision=old.create_revision if old is not None else revision,
                mod_revision=revision,
                version=old.version + 1 if old is not None else 1,
                lease=operation.lease,
            )
            if operation.lease:
                self._state.leases[operation.lease].keys.add(key)
            event = Event(item=item)
        if key not in self._state.history:
            self._state.history[key] = []
            bisect.insort(self._state.keys, key)
        self._state.history[key].append(_Version(revision, item))
        return event

    def _lease(self, lease: int) -> _Lease:
        held = self._state.leases.get(lease)
        if held is None:
            raise LeaseGoneError(f"lease {lease:x} expired or was revoked")
        return held

    def _end_lease(self, lease: int) -> None:
        self._write([Delete(key) for key in sorted(self._state.leases[lease].keys)])
        del self._state.leases[lease]

    def grant(self, ttl: int) -> int:
        """Do what `Kv.lease_grant` says."""
        with self.changed:
            lease = next(self._lease_ids)
            self._state.leases[lease] = _Lease(ttl, self._clock() + ttl, set())
            self.changed.notify_all()
            return lease

    def renew(self, lease: int) -> int:
        """Do what `Kv.lease_keepalive` says."""
        with self.changed:
            self.expire_due()
            held = self._lease(lease)
            held.deadline = self._clock() + held.ttl
            return held.ttl

    def left(self, lease: int) -> int:
        """Do what `Kv.lease_left` says."""
        with self.changed:
            self.expire_due()
            return int(self._lease(lease).deadline - self._clock())

    def since(self, start: bytes, end: bytes, revision: int) -> Batch | None:
        """Return what changed in [start, end) from `revision` on, None when the store has not come that far.

        Raises CompactedError and FutureRevisionError as a watch does.
        """
        with self.changed:
            self.expire_due()
            state = self._state
            if revision < state.compacted:
                raise CompactedError(f"revision {revision} has been compacted", compact_revision=state.compacted)
            self._check_revision(revision - 1)
            if revision > state.revision:
                return None
            first = bisect.bisect_left(state.log, revision, key=lambda entry: entry[0])
            events = tuple(
                event
                for _, made in state.log[first:]
                for event in made
                if event.item.key >= start and (end == UNBOUNDED or event.item.key < end)
            )
            return Batch(revision=state.revision, events=events)
