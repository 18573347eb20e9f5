"""The reference store: a `Kv` without a server, for tests and simulation.

Several `MemoryKv` connections may share one `MemoryStore`, as several replicas share one etcd. Everything that
the contract (`configstore.store.api`) promises holds here too.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from configstore.errors import StoreUnavailableError
from configstore.store.api import Batch, Compare, Contact, MemberStatus, Operation, Page, TxnResult
from tests.memory_store.accounts import MemoryAccounts
from tests.memory_store.state import MemoryStore

Result = TypeVar("Result")


class MemoryWatch:
    """A watch on a MemoryStore. Its first batch is empty and says that it stands."""

    def __init__(self, store: MemoryStore, start: bytes, end: bytes, start_revision: int) -> None:
        self._store = store
        self._range = (start, end)
        self.next = start_revision or store.revision + 1
        self._closed = False

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches until closed; one with events holds everything that had happened by then."""
        store = self._store
        with store.changed:
            store.since(*self._range, self.next)
        yield Batch(revision=self.next - 1, connected=True)
        while True:
            with store.changed:
                batch = None
                while not self._closed and not (batch and batch.events):
                    batch = store.since(*self._range, self.next)
                    if batch is None:
                        store.changed.wait(store.next_expiry())
                    else:
                        self.next = batch.revision + 1
                if self._closed or batch is None:
                    return
            yield batch

    def close(self) -> None:
        """End it, from any thread; a blocked iteration returns."""
        with self._store.changed:
            self._closed = True
            self._store.changed.notify_all()


class MemoryKv:
    """A connection to a MemoryStore; it satisfies `configstore.store.api.Kv`.

    before, after: called with a method's name around each call of `range`, `txn` and the lease methods, and
    may raise what the network would: from `before` the call was not made, from `after` it was made and its
    answer is lost.
    """

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        before: Callable[[str], None] = lambda _: None,
        after: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store = store if store is not None else MemoryStore()
        self.before = before
        self.after = after
        self._watches: list[MemoryWatch] = []
        self._closed = False

    def _call(self, name: str, make: Callable[[], Result]) -> Result:
        if self._closed:
            raise StoreUnavailableError("the connection to the store was closed")
        self.before(name)
        result = make()
        self.after(name)
        return result

    def range(
        self,
        start: bytes,
        end: bytes | None = None,
        *,
        revision: int = 0,
        limit: int = 0,
        keys_only: bool = False,
    ) -> Page:
        """Read one key or a range; see `Kv.range`."""
        return self._call("range", lambda: self.store.read(start, end, revision, limit, keys_only=keys_only))

    def txn(
        self,
        compares: Sequence[Compare],
        operations: Sequence[Operation],
        *,
        otherwise_get: Sequence[bytes] = (),
    ) -> TxnResult:
        """Compare and write; see `Kv.txn`."""
        return self._call("txn", lambda: self.store.commit(compares, operations, otherwise_get))

    def watch(self, start: bytes, end: bytes, *, start_revision: int, aside: bool = False) -> MemoryWatch:
        """Watch a range; see `Kv.watch`."""
        watch = MemoryWatch(self.store, start, end, start_revision)
        self._watches.append(watch)
        if self._closed:
            watch.close()
        return watch

    def lease_grant(self, ttl: int) -> int:
        """Make a lease of `ttl` seconds and return its id."""
        return self._call("lease_grant", lambda: self.store.grant(ttl))

    def lease_keepalive(self, lease: int) -> int:
        """Renew a lease; returns its TTL in seconds. Raises LeaseGoneError."""
        return self._call("lease_keepalive", lambda: self.store.renew(lease))

    def lease_left(self, lease: int) -> int:
        """Return how many seconds a lease has left. Raises LeaseGoneError."""
        return self._call("lease_left", lambda: self.store.left(lease))

    def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys. Raises LeaseGoneError."""
        self._call("lease_revoke", lambda: self.store.expire_lease(lease))

    def compact(self, revision: int) -> None:
        """Forget what was superseded before `revision`; see `MemoryStore.compact`."""
        self.store.compact(revision)

    def status(self) -> MemberStatus:
        """Tell the store's revision; the ids are made up."""
        revision = self._call("status", lambda: self.store.revision)
        return MemberStatus(
            cluster_id=self.store.cluster_id, member_id=1, version="0.0.0", revision=revision, leader=1
        )

    def login(self) -> bool:
        """Tell that there is no user."""
        return False

    @property
    def accounts(self) -> MemoryAccounts:
        """Its users and roles, which guard nothing."""
        return self.store.accounts

    def contact(self) -> Contact:
        """Say that the store answers: it is here."""
        return Contact(connected=True, last=time.time())

    def follow_contact(self, told: Callable[[Contact], None]) -> None:
        """Do nothing: contact is never lost."""

    def close(self) -> None:
        """End the connection and its watches; the store stays."""
        self._closed = True
        for watch in self._watches:
            watch.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
