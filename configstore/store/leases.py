"""Leases: one contender at a time holds a name, the others queue. Called by the sidecar and the command line.

The layout and order are those of etcd's own mutex recipe, so that `etcdctl lock {root}/leases/NAME` takes part:
every contender has a key of its own under the name, bound to an etcd lease that it keeps alive; the lowest
create_revision holds, and each waits for the one just before it to go. A holder's create_revision is the fencing
token, which every commit compares in its own transaction: who lost the lease without noticing writes nothing.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from configstore.clock import boottime
from configstore.errors import CompactedError, ConflictError, LeaseGoneError, StoreError, StoreUnavailableError
from configstore.model.keys import Keys, prefix_end
from configstore.model.lease import Claim, Intent, decode_claim, decode_intent, encode
from configstore.model.path import printable
from configstore.model.untrusted import UntrustedError
from configstore.store.api import CreateRevision, Item, Kv, Put, Watch, range_all
from configstore.store.values import Fence

log = logging.getLogger(__name__)

TTL = 30
"""Seconds after which the lease of a holder that died or froze is another's, unless told otherwise."""

MIN_TTL, MAX_TTL = 2, 3600
"""etcd raises shorter ones; a longer one would keep successors waiting for a dead holder."""

EXPIRY_LAG = 1
"""Seconds less that etcd is asked for: it looks for expired leases twice a second only, and whoever follows a dead
holder shall do so within the TTL."""

RENEWALS = 6
"""How often a lease is renewed within its TTL."""

RETRY = 0.2
"""Seconds until a renewal that failed is tried again."""


class LeaseTakenError(ConflictError):
    """Another one holds the lease, and the patience for waiting ended."""


class LeaseLostError(ConflictError):
    """The lease is not ours any more, or may not be."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One contender in a lease's queue; the first one holds. claim: None for one that is not configstore's."""

    name: str
    key: bytes
    token: int
    etcd_lease: int
    claim: Claim | None

    @property
    def words(self) -> str:
        """Who it is, safe to print."""
        if not self.claim:
            return f"somebody without a name, such as `etcdctl lock` (since revision {self.token})"
        what = f" for {self.claim.command}" if self.claim.command else ""
        return printable(f"{self.claim.words}{what} (since {self.claim.time})")


def queue(kv: Kv, keys: Keys, name: str) -> list[Place]:
    """Return a lease's contenders, the holder first. Raises StoreError."""
    return queues(kv, keys, name).get(name, [])


def queues(kv: Kv, keys: Keys, only: str = "") -> dict[str, list[Place]]:
    """Return the contenders of every lease that has any, by name; `only`: of that lease. Raises StoreError."""
    top = keys.lease_queue("")
    prefix = keys.lease_queue(only) + b"/" if only else top
    found: dict[str, list[Place]] = {}
    for page in range_all(kv, prefix, prefix_end(prefix)):
        for item in page.items:
            name, slash, _ = item.key[len(top) :].decode("utf-8", "backslashreplace").partition("/")
            if slash:
                found.setdefault(name, []).append(_place(name, item))
    return {name: sorted(places, key=lambda place: place.token) for name, places in found.items()}


def _place(name: str, item: Item) -> Place:
    return Place(
        name=name,
        key=item.key,
        token=item.create_revision,
        etcd_lease=item.lease,
        claim=decode_claim(item.value),
    )


def last_intent(kv: Kv, keys: Keys, name: str) -> Intent | None:
    """Return what was begun last under a lease; None when nothing was, or it cannot be read. Raises StoreError."""
    for item in kv.range(keys.intent(name)).items:
        with suppress(UntrustedError):
            return decode_intent(item.value)
    return None


class Lease:
    """One contender. A thread keeps its etcd lease alive from `acquire` on, until `release` or `abandon`."""

    def __init__(
        self,
        kv: Kv,
        keys: Keys,
        name: str,
        claim: Claim,
        *,
        ttl: int = TTL,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """Take a `clock` that counts suspend, and a `ttl` in whole seconds, from MIN_TTL to MAX_TTL.

        After it, a dead holder's lease is another's. Ours it is for EXPIRY_LAG less: the attribute `ttl`.
        """
        self.name = name
        self.claim = claim
        self.ttl = max(MIN_TTL, ttl - EXPIRY_LAG)
        self.lost: str | None = None
        self._kv = kv
        self._keys = keys
        self._clock = clock
        self._etcd_lease = 0
        self._fence: Fence | None = None
        self._deadline = 0.0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._interrupted = False
        self._heard: float | None = None
        self._thread = threading.Thread(target=self._keep, name=f"lease:{name}", daemon=True)

    def left(self) -> float:
        """Return the seconds for which the lease is surely ours; 0 or less when it may be another's."""
        if self.lost is not None or self._fence is None:
            return 0.0
        return self._deadline - self._clock()

    def fence(self) -> Fence | None:
        """Return the proof of holding it, for a commit; None when it is not, or may not be, ours."""
        return self._fence if self.left() > 0 else None

    def depend(self) -> None:
        """From now on renew it only when `heard` was called since the last time, for somebody else's sake."""
        self._heard = self._clock()

    def heard(self) -> None:
        """Note that whoever it depends on lives."""
        if self._heard is not None:
            self._heard = self._clock()

    def stand_alone(self) -> None:
        """Renew it without hearing of anybody."""
        self._heard = None

    def acquire(self, patience: float | None, waiting: Callable[[list[Place]], None] = lambda _: None) -> Fence:
        """Queue up and wait for the lease, at most `patience` seconds (None: without end).

        `waiting` is told who is ahead, the holder first, whenever that changes.
        Raises LeaseTakenError (also after `interrupt`), LeaseLostError, StoreError. It is then given back.
        """
        timer = threading.Timer(max(0.0, patience or 0.0), self.interrupt)
        timer.daemon = True
        try:
            key, token = self._queue_up()
            if patience is not None:
                timer.start()
            self._wait(key, token, waiting)
        except BaseException:
            self.release()
            raise
        finally:
            timer.cancel()
        self._fence = Fence(name=self.name, key=key, token=token)
        return self._fence

    def interrupt(self) -> None:
        """End the waiting of `acquire`, from any thread."""
        with self._lock:
            self._interrupted = True
            if self._watch:
                self._watch.close()

    def begin(self, now: str) -> Intent | None:
        """Note in the store what is about to begin; returns what another began and is not known to have ended.

        Raises LeaseLostError, StoreError.
        """
        before = last_intent(self._kv, self._keys, self.name)
        self._write_intent(now)
        return before if before and not before.ended else None

    def end(self, begun: str, now: str, code: int) -> None:
        """Note that it ended with an exit code. Raises LeaseLostError, StoreError."""
        self._write_intent(begun, ended=now, code=code)

    def release(self) -> None:
        """Give it back at once. Never raises: what cannot be given back ends with its TTL."""
        self._stop()
        if self._etcd_lease:
            try:
                self._kv.lease_revoke(self._etcd_lease)
            except LeaseGoneError:
                pass
            except StoreError as error:
                log.warning("cannot give a lease back; it ends by itself", extra=self._about(error))

    def abandon(self) -> None:
        """Renew it no more; it becomes another's when its TTL ends, and not before.

        For a holder that died: whatever it started may still run.
        """
        self._stop()

    def _stop(self) -> None:
        self.lost = self.lost or f"lease {self.name} was given back"
        self._ended.set()
        self.interrupt()
        if self._thread.ident and self._thread is not threading.current_thread():
            self._thread.join()

    def _queue_up(self) -> tuple[bytes, int]:
        """Take the last place; returns our key and token."""
        sent = self._clock()
        self._etcd_lease = self._kv.lease_grant(self.ttl)
        self._deadline = sent + self.ttl
        self._thread.start()
        key = b"%b/%x" % (self._keys.lease_queue(self.name), self._etcd_lease)
        put = Put(key, encode(self.claim), self._etcd_lease)
        while True:
            try:
                result = self._kv.txn((CreateRevision(key, 0),), (put,), otherwise_get=(key,))
            except StoreUnavailableError:
                if self.lost or self._ended.wait(RETRY):
                    raise
                continue  # nobody else writes our key, so the same again is safe
            return key, result.revision if result.succeeded else result.found[0].create_revision

    def _wait(self, key: bytes, token: int, waiting: Callable[[list[Place]], None]) -> None:
        """Wait until nobody is ahead."""
        known: list[Place] = []
        for places, revision in self._looks():
            if all(place.key != key for place in places):
                raise LeaseLostError(self.lost or f"lease {self.name}: our place in its queue was taken away")
            if self.lost:
                raise LeaseLostError(self.lost)
            ahead = [place for place in places if place.token < token]
            if not ahead:
                return
            if self._interrupted:
                raise LeaseTakenError(f"lease {self.name} is held by {ahead[0].words}")
            if ahead != known:
                known = ahead
                waiting(ahead)
            self._until_deleted(ahead[-1].key, revision)
        raise AssertionError("unreachable: looking never ends")

    def _looks(self) -> Iterator[tuple[list[Place], int]]:
        """Yield the queue and its revision, again and again, as long as our place is alive."""
        while True:
            try:
                revision = self._kv.range(self._keys.lease_queue(self.name)).revision
                yield queue(self._kv, self._keys, self.name), revision
            except StoreUnavailableError:
                if self.lost or self._interrupted or self._ended.wait(RETRY):
                    raise

    def _until_deleted(self, key: bytes, revision: int) -> None:
        """Return when a key is gone, or when looking again is due for another reason."""
        with self._lock:
            if self._interrupted:
                return
            self._watch = self._kv.watch(key, key + b"\0", start_revision=revision + 1)
        try:
            for batch in self._watch:
                if any(event.deleted for event in batch.events):
                    return
        except CompactedError:
            return
        finally:
            with self._lock:
                self._watch.close()
                self._watch = None

    def _keep(self) -> None:
        due = self.ttl / RENEWALS
        reason, renewed = "it was not renewed in time", self._clock()
        while not self._ended.wait(due):
            sent, heard = self._clock(), self._heard
            try:
                if heard is not None and heard < renewed:
                    raise StoreUnavailableError("its client was silent, as one that is stopped")
                granted = self._kv.lease_keepalive(self._etcd_lease)
            except LeaseGoneError:
                return self.lose("it expired, or somebody ended it")
            except StoreError as error:
                reason, due = str(error), min(RETRY, self.ttl / RENEWALS)
            else:
                if sent >= self._deadline:
                    return self.lose("this process stood still for longer than its TTL")
                self._deadline, renewed = sent + min(self.ttl, granted), sent
                due = self.ttl / RENEWALS
            if self._clock() >= self._deadline:
                return self.lose(reason)
        return None

    def lose(self, reason: str) -> None:
        """Take it for lost, as somebody knows who asked the store; from any thread."""
        if self._ended.is_set():
            return
        self.lost = f"lease {self.name} is lost: {reason}"
        log.error("a lease is lost", extra=self._about(reason))
        self.interrupt()

    def _write_intent(self, begun: str, ended: str = "", code: int | None = None) -> None:
        fence = self.fence()
        if fence is None:
            raise LeaseLostError(self.lost or f"lease {self.name} is not held")
        intent = Intent(token=fence.token, claim=self.claim, begun=begun, ended=ended, exit=code)
        put = Put(self._keys.intent(self.name), encode(intent))
        if not self._kv.txn((CreateRevision(fence.key, fence.token),), (put,)).succeeded:
            raise LeaseLostError(f"lease {self.name} is lost: its place in the store is gone")

    def _about(self, reason: object) -> dict[str, str]:
        return {"lease": self.name, "reason": str(reason)}


def break_lease(kv: Kv, place: Place) -> bool:
    """Take a contender's place away, by ending its etcd lease; False when it was gone already.

    Its holder notices at its next renewal, and stops what it runs then. Raises StoreError.
    """
    if not place.etcd_lease:
        return False
    try:
        kv.lease_revoke(place.etcd_lease)
    except LeaseGoneError:
        return False
    return True
