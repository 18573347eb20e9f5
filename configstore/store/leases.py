"""A lease: one contender at a time holds a name, the others queue. Called by the sidecar and by the commands.

The layout and the order are those of etcd's own mutex recipe, so that `etcdctl lock {root}/leases/NAME` takes
part:

1. Every contender has a key of its own below the name, bound to an etcd lease that it renews (`lease_session`).
2. The lowest create_revision holds. Each other contender watches only the key just before its own, so that a
   release wakes one contender and not all of them.
3. The holder's create_revision is the fencing token, and every commit under the lease compares it in its own
   transaction. So a process that was suspended past its TTL, and does not know yet, cannot write.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import msgspec

from configstore.clock import boottime
from configstore.errors import (
    CompactedError,
    ConflictError,
    LeaseGoneError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from configstore.model.lease import Intent, QueueEntry, encode
from configstore.model.path import printable
from configstore.store.api import CreateRevision, Put, Watch
from configstore.store.lease_intents import History, read_intent
from configstore.store.lease_queue import Queued, queue
from configstore.store.lease_session import RETRY, Session
from configstore.store.store import Store
from configstore.store.values import Fence

T = TypeVar("T")

TTL = 30
"""Seconds after which the lease of a holder that died or froze passes to the next contender, by default."""

MIN_TTL, MAX_TTL = 2, 3600
"""Seconds. etcd itself raises a shorter TTL; with a longer one, a dead holder would block the others too long."""

EXPIRY_LAG = 1
"""Seconds that are taken off the TTL that etcd is asked for.

etcd looks for expired leases only twice a second, and a successor must follow a dead holder within the TTL.
"""

FRESH = 0.8
"""Share of the TTL that must be left when a lease is acquired; with less, it is renewed first.

During an election of etcd's nothing is renewed, so a contender's turn may come when most of its TTL has passed.
"""


class LeaseTakenError(ConflictError):
    """Another contender holds the lease, and the time for waiting is over."""


class LeaseLostError(ConflictError):
    """This contender does not hold the lease any more, or may not hold it."""


class Lease:
    """One contender. Its key in the queue is kept alive from `acquire` on, until `release` or `abandon`.

    before: what is known of earlier holders, once the lease is acquired.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        contender: QueueEntry,
        *,
        ttl: int = TTL,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """Take a `clock` that counts suspend, and a `ttl` in whole seconds from MIN_TTL to MAX_TTL.

        After that time a dead holder's lease passes to the next contender. The attribute `ttl` is EXPIRY_LAG less.
        """
        self.name = name
        self.contender = contender
        self.ttl = max(MIN_TTL, ttl - EXPIRY_LAG)
        self._store = store
        self._clock = clock
        self._session: Session | None = None
        self._fence: Fence | None = None
        self._over: str | None = None
        self.before = History()
        self._strangers = 0  # store revision at which a contender that writes no intent was seen ahead
        self._changed = threading.Condition(threading.RLock())
        self._ahead_watch: Watch | None = None  # of the key just before ours, while we wait
        self._own_watch: Watch | None = None  # of our own key, while we hold
        self._interrupted = False

    @property
    def lost(self) -> str | None:
        """Why the lease is not held any more; None while it may be held, and while it is waited for."""
        held = self._session if self._fence else None
        return self._over or (held.ended if held else None)

    def left(self) -> float:
        """Return the seconds for which the lease is certainly held; 0 or less when it may be another's."""
        return self._session.left() if self._session and self._fence and not self._over else 0.0

    def fence(self) -> Fence | None:
        """Return the proof of holding it, for a commit; None when it is not, or may not be, held."""
        return self._fence if self.left() > 0 else None

    def depend(self) -> None:
        """From now on renew it only when `heard` was called since the last renewal."""
        if self._session:
            self._session.depend()

    def heard(self) -> None:
        """Note a sign of life of the client that it depends on."""
        if self._session:
            self._session.heard()

    def stand_alone(self) -> None:
        """From now on renew it again without a sign of life of a client."""
        if self._session:
            self._session.stand_alone()

    def acquire(self, patience: float | None, waiting: Callable[[list[Queued]], None] = lambda _: None) -> Fence:
        """Queue up and wait for the lease, at most `patience` seconds (None: without limit).

        `waiting` is called with the contenders that are ahead, the holder first, whenever they change. A contender
        whose key expired during an outage queues up again, at the end. Once it is this contender's turn, only the
        loss of its key ends the wait, and the lease is renewed before this returns.
        Raises LeaseTakenError (also after `interrupt`), StoreError; in each case the lease is given back.
        """
        timer = threading.Timer(max(0.0, patience or 0.0), self.interrupt)
        timer.daemon = True
        try:
            while self._fence is None:
                session, key, token = self._queue_up(again=self._session is not None)
                if patience is not None and not timer.ident:
                    timer.start()
                is_our_turn = self._wait(key, token, waiting) and self._renewed(session)
                if is_our_turn and self._watch_own_key(session, key):
                    session.hold()
                    self._fence = Fence(name=self.name, key=key, token=token)
                    self.before = self._history()
                else:
                    session.stop("its place in the queue was gone")
        except BaseException:
            self.release()
            raise
        finally:
            timer.cancel()
        return self._fence

    def interrupt(self) -> None:
        """End the waiting of `acquire`, from any thread."""
        with self._changed:
            self._interrupted = True
            self._look_again()

    def begin(self, now: str) -> str:
        """Note in the store what is about to begin; returns what began earlier and is not known to have ended.

        Raises LeaseLostError, StoreError.
        """
        self._write_intent(self._intent(now))
        return self.before.unfinished

    def end(self, begun: str, now: str, code: int) -> None:
        """Note that it ended with an exit code. Raises LeaseLostError, StoreError."""
        self._write_intent(msgspec.structs.replace(self._intent(begun), ended=now, exit=code))

    def never_began(self, begun: str) -> None:
        """Note that what was to run was never started. Raises LeaseLostError, StoreError."""
        intent = msgspec.structs.replace(self._intent(begun), ended=begun, unfinished=self.before.unfinished)
        self._write_intent(intent)

    def release(self, patience: float = 0.0) -> None:
        """Give it back at once. Never raises: while the store does not answer, a thread goes on trying.

        patience: seconds to wait for that thread, in a process that ends afterwards.
        """
        self._stop()
        trying = self._session.revoke() if self._session else None
        if trying:
            trying.join(patience)

    def abandon(self) -> None:
        """Stop renewing it, so that it passes to the next contender when its TTL ends, and not before.

        For a client that died: the command it started may still run.
        """
        self._stop()

    def lose(self, reason: str) -> None:
        """Count it as lost because the store refused a commit under it; from any thread."""
        if self._session and self._fence:
            self._session.end(reason)

    def _stop(self) -> None:
        self._over = self.lost or f"lease {self.name} was given back"
        self.interrupt()
        if self._own_watch:
            self._own_watch.close()
        if self._session:
            self._session.stop(self._over)

    def _queue_up(self, *, again: bool) -> tuple[Session, bytes, int]:
        """Put our key at the end of the queue; returns the session that keeps it alive, the key and its token.

        again: after an outage; then a store that does not answer is waited for.
        """
        session = self._session = self._granted(again=again)
        key = b"%b/%x" % (self._store.keys.lease_queue(self.name), session.etcd_lease)
        put = Put(key, encode(self.contender), session.etcd_lease)
        while True:
            try:
                result = self._store.kv.txn((CreateRevision(key, 0),), (put,), otherwise_get=(key,))
            except StoreUnavailableError:
                if not self._pause():
                    raise
                continue  # the key has the id of our etcd lease, so only we write it: the same txn again is safe
            except LeaseGoneError:
                return session, key, 0  # `_wait` does not find the key, and we queue up again
            return session, key, result.revision if result.succeeded else result.found[0].create_revision

    def _granted(self, *, again: bool) -> Session:
        while True:
            try:
                return Session(self._store.kv, self.name, self.ttl, self._clock, self._look_again)
            except StoreUnavailableError:
                if not (again and self._pause()):
                    raise

    def _wait(self, key: bytes, token: int, waiting: Callable[[list[Queued]], None]) -> bool:
        """Wait until no contender is ahead; False if our key is gone. Raises LeaseTakenError, StoreError."""
        known: list[Queued] = []
        for queued, revision in self._looks():
            if all(each.key != key for each in queued):
                return False
            ahead = [each for each in queued if each.token < token]
            if any(each.contender is None for each in ahead):
                self._strangers = revision
            if not ahead:
                return True
            if self._interrupted:
                raise LeaseTakenError(f"lease {self.name} is held by {ahead[0].text}")
            if ahead != known:
                known = ahead
                waiting(ahead)
            self._until_deleted(ahead[-1].key, revision)
        raise AssertionError("unreachable: looking never ends")

    def _renewed(self, session: Session) -> bool:
        """Renew the lease now that it is our turn; returns False when it was gone already.

        Raises StoreUnavailableError when the store does not answer within our patience, nor within the TTL.
        """
        if session.left() >= FRESH * self.ttl:
            return True
        before, end = session.renewals, self._clock() + self.ttl
        session.renew_soon()
        with self._changed:
            while session.ended is None and session.renewals == before:
                if self._interrupted and self._clock() >= end:
                    raise StoreUnavailableError(f"lease {self.name}: it is our turn, but it cannot be renewed")
                self._changed.wait(RETRY)
        return session.ended is None

    def _watch_own_key(self, session: Session, key: bytes) -> bool:
        """Watch our key, so that its deletion ends the session at once; returns False when it is gone already.

        The next contender's turn comes at that moment, whether a person broke the lease or etcd ended it by
        mistake. The next renewal would show it only after up to a sixth of the TTL. Raises StoreError.
        """

        def follow() -> None:
            with suppress(StoreError):  # then the renewals show it
                for batch in watch:
                    if any(event.deleted for event in batch.events):
                        return session.end(session.trouble or "it expired, or somebody ended it")
            return None

        while True:
            try:
                now = self._store.kv.range(key, keys_only=True)
            except StoreUnavailableError:
                if not self._pause():
                    raise
                continue
            if not now.items:
                return False
            watch = self._own_watch = self._store.kv.watch(key, key + b"\0", start_revision=now.revision + 1)
            threading.Thread(target=follow, name=f"place:{self.name}", daemon=True).start()
            return True

    def _looks(self) -> Iterator[tuple[list[Queued], int]]:
        """Yield the queue and a store revision at or before it, again and again.

        The revision is read first: a watch from the one after it misses no change of the queue that was read.
        """
        while True:
            try:
                revision = self._store.kv.range(self._store.keys.lease_queue(self.name)).revision
                yield queue(self._store, self.name), revision
            except StoreUnavailableError:
                if not self._pause():
                    raise

    def _pause(self) -> bool:
        """Wait before the store is asked again; returns False when the waiting for the lease was ended."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._interrupted, RETRY)

    def _until_deleted(self, key: bytes, revision: int) -> None:
        """Return when a key is gone, or when the queue must be read again for another reason."""
        with self._changed:
            if self._interrupted or (self._session and self._session.ended):
                return
            self._ahead_watch = self._store.kv.watch(key, key + b"\0", start_revision=revision + 1)
        try:
            for batch in self._ahead_watch:
                if any(event.deleted for event in batch.events):
                    return
        except CompactedError:
            return
        finally:
            with self._changed:
                self._ahead_watch.close()
                self._ahead_watch = None

    def _look_again(self) -> None:
        """Have `acquire` read the queue again, whatever it waits for."""
        with self._changed:
            if self._ahead_watch:
                self._ahead_watch.close()
            self._changed.notify_all()

    def _history(self) -> History:
        """Return what is known of earlier holders. Raises LeaseLostError, StoreError."""
        intent, revision = self._while_held(lambda _: read_intent(self._store, self.name))
        if intent is None:
            return History(others=max(revision, self._strangers))
        own = intent.contender.replica == self.contender.replica
        return History(
            others=max(intent.others if own else revision, self._strangers),
            unended=None if intent.ended else intent,
            unfinished=printable(intent.unfinished) if intent.ended else intent.text,
        )

    def _intent(self, begun: str) -> Intent:
        token = self._fence.token if self._fence else 0
        return Intent(token=token, contender=self.contender, begun=begun, others=self.before.others)

    def _write_intent(self, intent: Intent) -> None:
        """Write an intent; writing the same one again does no harm. Raises LeaseLostError, StoreError."""
        put = Put(self._store.keys.intent(self.name), encode(intent))

        def write(fence: Fence) -> bool:
            return self._store.kv.txn((CreateRevision(fence.key, fence.token),), (put,)).succeeded

        if not self._while_held(write):
            raise LeaseLostError(f"lease {self.name} is lost: its place in the store is gone")

    def _while_held(self, call: Callable[[Fence], T]) -> T:
        """Make a call that may be repeated, until the store answers, for as long as the lease is held.

        Raises LeaseLostError, StoreError.
        """
        while True:
            fence = self.fence()
            if fence is None:
                raise LeaseLostError(self.lost or f"lease {self.name} is not held")
            try:
                return call(fence)
            except StoreUnavailableError as error:
                if isinstance(error, StoreClosedError):
                    raise
                with self._changed:
                    self._changed.wait_for(lambda: self.lost, RETRY)
