"""`EtcdKv`, which implements the contract of `configstore.store.api` with an etcd cluster."""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from configstore.errors import LeaseGoneError, StoreError
from configstore.model.path import printable
from configstore.settings import StoreSettings
from configstore.store.api import Compare, Contact, MemberStatus, Operation, Page, TxnResult
from configstore.store.etcd.calls import Calls, unary
from configstore.store.etcd.connection import Connection, Metadata
from configstore.store.etcd.errors import MAX_TEXT
from configstore.store.etcd.liveness import LivenessProbe
from configstore.store.etcd.messages import nonsense, page_of, status_of, ttl_of, txn_message, txn_result_of
from configstore.store.etcd.shared import SharedStreams
from configstore.store.etcd.stubs import Message, rpc
from configstore.store.etcd.watch import EtcdWatch
from configstore.store.txn_checks import check_txn

if TYPE_CHECKING:
    from configstore.store.etcd.accounts import EtcdAccounts


class EtcdKv:
    """A connection to etcd; see `configstore.store.api.Kv`. Nothing is sent before the first call.

    Every call ends within `settings.timeout` seconds, whatever the servers do.
    """

    def __init__(self, settings: StoreSettings) -> None:
        """Raise UsageError for a bad endpoint or an unreadable certificate file."""
        self._calls = Calls(settings)
        self._life = LivenessProbe(self._calls, settings.root.encode())
        self._shared = SharedStreams()
        self._watches: weakref.WeakSet[EtcdWatch] = weakref.WeakSet()

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
        request = rpc.RangeRequest(
            key=start, range_end=end or b"", revision=revision, limit=limit, keys_only=keys_only
        )
        return page_of(self._calls.repeatable("range", unary("kv", "Range", request)), start, end, limit)

    def txn(
        self,
        compares: Sequence[Compare],
        operations: Sequence[Operation],
        *,
        otherwise_get: Sequence[bytes] = (),
    ) -> TxnResult:
        """Compare and write; see `Kv.txn`."""
        check_txn(compares, operations, otherwise_get)
        request = txn_message(compares, operations, otherwise_get)
        return txn_result_of(self._calls.once("txn", unary("kv", "Txn", request)), otherwise_get)

    def watch(self, start: bytes, end: bytes, *, start_revision: int, aside: bool = False) -> EtcdWatch:
        """Watch a range; see `Kv.watch`. The first batch, and the one after each reconnect, is empty."""
        watch = EtcdWatch(
            self._calls, self._life, start, end, start_revision, shared=self._shared if aside else None
        )
        self._watches.add(watch)
        if self._calls.closed.is_set():
            watch.close()
        return watch

    def lease_grant(self, ttl: int) -> int:
        """Make a lease of `ttl` seconds and return its id.

        A try whose answer was lost leaves a lease without keys, which ends after its TTL.
        """
        request = rpc.LeaseGrantRequest(TTL=ttl)
        answer = self._calls.repeatable("lease grant", unary("lease", "LeaseGrant", request))
        if answer.error:
            raise StoreError(f"lease grant: {printable(answer.error[:MAX_TEXT])}")
        if answer.ID <= 0:
            raise nonsense(f"a lease of the number {answer.ID}")
        return int(answer.ID)

    def lease_keepalive(self, lease: int) -> int:
        """Renew a lease once; returns its new TTL in seconds. Raises LeaseGoneError."""
        request = rpc.LeaseKeepAliveRequest(ID=lease)

        def method(connection: Connection, timeout: float, metadata: Metadata) -> Message:
            answered = threading.Event()

            def requests() -> Iterator[Message]:
                yield request
                answered.wait(timeout)  # etcd's grpc-proxy cancels a stream whose requests end before its answer

            answers = connection.lease.LeaseKeepAlive(requests(), timeout=timeout, metadata=metadata)
            try:
                return next(answers, None)
            finally:
                answered.set()
                answers.cancel()

        answer = self._calls.repeatable("lease keepalive", method)
        if answer is None:
            raise nonsense("nothing about a lease that was to be renewed")
        ttl = ttl_of(answer)
        if ttl <= 0:
            raise LeaseGoneError(f"lease {lease:x} expired or was revoked")
        return ttl

    def lease_left(self, lease: int) -> int:
        """Return how many seconds a lease has left. Raises LeaseGoneError."""
        request = rpc.LeaseTimeToLiveRequest(ID=lease)
        left = ttl_of(self._calls.repeatable("lease time to live", unary("lease", "LeaseTimeToLive", request)))
        if left < 0:
            raise LeaseGoneError(f"lease {lease:x} expired or was revoked")
        return left

    def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys. Raises LeaseGoneError."""
        revoke = unary("lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease))
        made = 0

        def method(connection: Connection, timeout: float, metadata: Metadata) -> Message:
            nonlocal made
            made += 1
            return revoke(connection, timeout, metadata)

        try:
            self._calls.repeatable("lease revoke", method)
        except LeaseGoneError:
            if made == 1:  # else an earlier try whose answer was lost may have ended it
                raise

    def status(self) -> MemberStatus:
        """Return the status of the member in use, which answers even without a leader."""

        def method(connection: Connection, timeout: float, metadata: Metadata) -> Message:
            token = tuple(pair for pair in metadata if pair[0] == "token")
            return connection.maintenance.Status(rpc.StatusRequest(), timeout=timeout, metadata=token)

        return status_of(self._calls.repeatable("status", method))

    def login(self) -> bool:
        """Log in as the configured user; see `Kv.login`."""

        def method(connection: Connection, timeout: float, metadata: Metadata) -> Message:  # noqa: ARG001 - all methods have the same arguments
            return any(name == "token" for name, _ in metadata)

        return bool(self._calls.repeatable("login", method))

    @property
    def accounts(self) -> "EtcdAccounts":
        """The cluster's users and roles."""
        from configstore.store.etcd.accounts import EtcdAccounts  # noqa: PLC0415 - sidecars do not use it

        return EtcdAccounts(self._calls)

    def contact(self) -> Contact:
        """Return whether the store answers; see `Kv.contact`."""
        return self._calls.contact.now()

    def follow_contact(self, told: Callable[[Contact], None]) -> None:
        """Report each loss of contact and each return; see `Kv.follow_contact`."""
        self._life.follow(told)

    def close(self) -> None:
        """Close connections and watches; blocked calls and iterations return."""
        self._calls.close()
        for watch in list(self._watches):
            watch.close()
        self._life.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
