"""Leases: one contender at a time holds a name, the others queue. Called by the sidecar and the command line.

The layout and order are those of etcd's own mutex recipe, so that `etcdctl lock {root}/leases/NAME` takes part:
every contender has a key of its own under the name, bound to an etcd lease that it keeps alive; the lowest
create_revision holds, and each waits for the one just before it to go. A holder's create_revision is the fencing
token, which every commit compares in its own transaction: who lost the lease without noticing writes nothing.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import TypeVar

import msgspec

from configstore.clock import boottime, span
from configstore.errors import (
    CompactedError,
    ConflictError,
    LeaseGoneError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from configstore.model.keys import Keys, prefix_end
from configstore.model.lease import HeldUp, Intent, QueueEntry, decode_contender, decode_intent, encode
from configstore.model.path import printable
from configstore.model.untrusted import UntrustedError
from configstore.store.api import CreateRevision, Delete, Item, Kv, Put, Watch, range_all
from configstore.store.lease_session import RETRY, Session
from configstore.store.values import Fence

T = TypeVar("T")

TTL = 30
"""Seconds after which the lease of a holder that died or froze is another's, unless told otherwise."""

MIN_TTL, MAX_TTL = 2, 3600
"""etcd raises shorter ones; a longer one would keep successors waiting for a dead holder."""

USUAL = 1800.0
"""Seconds for which a lease may be held before it is told: certbot and a round of fetchmail take minutes."""

EXPIRY_LAG = 1
"""Seconds less that etcd is asked for: it looks for expired leases twice a second only, and whoever follows a dead
holder shall do so within the TTL."""

FRESH = 0.8
"""Share of the TTL that must be left when a lease is acquired; else it is renewed first. In an election nothing is
renewed, and a contender may have its turn with most of its time gone."""


class LeaseTakenError(ConflictError):
    """Another one holds the lease, and the patience for waiting ended."""


class LeaseLostError(ConflictError):
    """The lease is not ours any more, or may not be."""


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """One contender in a lease's queue; the first one holds. contender: None for one that is not configstore's."""

    name: str
    key: bytes
    token: int
    etcd_lease: int
    contender: QueueEntry | None

    @property
    def words(self) -> str:
        """Who it is and since when, safe to print."""
        since = self.contender.time if self.contender else f"revision {self.token}"
        return printable(f"{self.what} (since {since})")

    @property
    def what(self) -> str:
        """Who it is, safe to print."""
        if not self.contender and not self.etcd_lease:
            return "a key that no etcd lease ends, put there by hand"
        if not self.contender:
            return "somebody without a name, such as `etcdctl lock`"
        what = f" for {self.contender.command}" if self.contender.command else ""
        return printable(f"{self.contender.words}{what}")


def queue(kv: Kv, keys: Keys, name: str) -> list[Queued]:
    """Return a lease's contenders, the holder first. Raises StoreError."""
    return queues(kv, keys, name).get(name, [])


def queues(kv: Kv, keys: Keys, only: str = "") -> dict[str, list[Queued]]:
    """Return the contenders of every lease that has any, by name; `only`: of that lease. Raises StoreError."""
    top = keys.lease_queue("")
    prefix = keys.lease_queue(only) + b"/" if only else top
    found: dict[str, list[Queued]] = {}
    for page in range_all(kv, prefix, prefix_end(prefix)):
        for item in page.items:
            name, slash, _ = item.key[len(top) :].decode("utf-8", "backslashreplace").partition("/")
            if slash:
                found.setdefault(name, []).append(_queued(name, item))
    return {name: sorted(places, key=lambda place: place.token) for name, places in found.items()}


def _queued(name: str, item: Item) -> Queued:
    return Queued(
        name=name,
        key=item.key,
        token=item.create_revision,
        etcd_lease=item.lease,
        contender=decode_contender(item.value),
    )


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of those who held a lease before.

    others: the revision of the store of the last that was heard of another replica as its holder; 0 for none.
    unended: the intent that was written last, when it is not known to have ended. unfinished: what was begun and
    is not known to have ended, in words.
    """

    others: int = 0
    unended: Intent | None = None
    unfinished: str = ""


def last_intent(kv: Kv, keys: Keys, name: str) -> Intent | None:
    """Return what was begun last under a lease; None when nothing was, or it cannot be read. Raises StoreError."""
    return _read_intent(kv, keys, name)[0]


def _read_intent(kv: Kv, keys: Keys, name: str) -> tuple[Intent | None, int]:
    """Return it with the revision of its last change, 0 when there is none."""
    for item in kv.range(keys.intent(name)).items:
        try:
            return decode_intent(item.value), item.mod_revision
        except UntrustedError:
            return None, item.mod_revision
    return None, 0


def held_up(kv: Kv, keys: Keys, now: float, only: Iterable[str] | None = None) -> list[HeldUp]:
    """Return which leases are held for longer than is usual; of some alone with `only`. Raises StoreError.

    now: in seconds since the epoch. The times are those of the holders' clocks.
    """
    found = []
    if only is None:
        intents, queued = _intents(kv, keys), queues(kv, keys)
    else:
        names = sorted(only)
        intents = {name: each for name in names if (each := last_intent(kv, keys, name))}
        queued = {name: places for name in names if (places := queue(kv, keys, name))}
    for name, places in sorted(queued.items()):
        holder, intent = places[0], intents.get(name)
        begun = intent.begun if intent and intent.token == holder.token else ""
        seconds = _since(begun or (holder.contender.time if holder.contender else ""), now)
        if holder.etcd_lease and seconds < USUAL:
            continue
        how_long = f" for {span(seconds)}, longer than is usual," if holder.etcd_lease else ""
        waiting = f" ({len(places) - 1} waiting)" if len(places) > 1 else ""
        words = f"lease {printable(name)} is held{how_long} by {holder.words}{waiting}"
        found.append(HeldUp(name=name, found=words))
    return found


def _intents(kv: Kv, keys: Keys) -> dict[str, Intent]:
    """Return what was begun last under each lease. Raises StoreError."""
    found = {}
    prefix = keys.intent("")
    for page in range_all(kv, prefix, prefix_end(prefix)):
        for item in page.items:
            with suppress(UntrustedError):
                found[item.key[len(prefix) :].decode("utf-8", "backslashreplace")] = decode_intent(item.value)
    return found


def _since(time: str, now: float) -> float:
    """Return the seconds since a time in RFC 3339; 0 when it is none."""
    try:
        return now - datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0


class Lease:
    """One contender. Its place in the queue is kept alive from `acquire` on, until `release` or `abandon`.

    lost: why it is not held any more, and nothing more may be done under it; None before. before: what is known of
    earlier holders, once it is acquired.
    """

    def __init__(
        self,
        kv: Kv,
        keys: Keys,
        name: str,
        contender: QueueEntry,
        *,
        ttl: int = TTL,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """Take a `clock` that counts suspend, and a `ttl` in whole seconds, from MIN_TTL to MAX_TTL.

        After it, a dead holder's lease is another's. Ours it is for EXPIRY_LAG less: the attribute `ttl`.
        """
        self.name = name
        self.contender = contender
        self.ttl = max(MIN_TTL, ttl - EXPIRY_LAG)
        self._kv = kv
        self._keys = keys
        self._clock = clock
        self._session: Session | None = None
        self._fence: Fence | None = None
        self._over: str | None = None
        self.before = History()
        self._strangers = 0  # the revision at which somebody was seen ahead who notes no intent
        self._changed = threading.Condition(threading.RLock())
        self._watch: Watch | None = None  # of whoever is just ahead, while we wait
        self._place_watch: Watch | None = None  # of our own key, while we hold
        self._interrupted = False

    @property
    def lost(self) -> str | None:
        """Why it is not held any more; None while it may be, and while it is waited for."""
        held = self._session if self._fence else None
        return self._over or (held.ended if held else None)

    def left(self) -> float:
        """Return the seconds for which the lease is surely ours; 0 or less when it may be another's."""
        return self._session.left() if self._session and self._fence and not self._over else 0.0

    def fence(self) -> Fence | None:
        """Return the proof of holding it, for a commit; None when it is not, or may not be, ours."""
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
        """Renew it without any sign of a client again."""
        if self._session:
            self._session.stand_alone()

    def acquire(self, patience: float | None, waiting: Callable[[list[Queued]], None] = lambda _: None) -> Fence:
        """Queue up and wait for the lease, at most `patience` seconds (None: without end).

        `waiting` is told who is ahead, the holder first, whenever that changes. Who lost its place in an outage
        queues up again, at the end. Once it is our turn nothing but its loss keeps us from it, and it is renewed
        before this returns. Raises LeaseTakenError (also after `interrupt`), StoreError. It is then given back.
        """
        timer = threading.Timer(max(0.0, patience or 0.0), self.interrupt)
        timer.daemon = True
        try:
            while self._fence is None:
                session, key, token = self._queue_up(again=self._session is not None)
                if patience is not None and not timer.ident:
                    timer.start()
                if self._wait(key, token, waiting) and self._renewed(session) and self._watch_place(session, key):
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
        """Note in the store what is about to begin; returns what began before and is not known to have ended.

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
        """Give it back at once. Never raises: what cannot be given back now is tried again in the background.

        patience: seconds to wait until that is certain, for a process that ends afterwards.
        """
        self._stop()
        trying = self._session.revoke() if self._session else None
        if trying:
            trying.join(patience)

    def abandon(self) -> None:
        """Renew it no more; it becomes another's when its TTL ends, and not before.

        For a holder that died: whatever it started may still run.
        """
        self._stop()

    def lose(self, reason: str) -> None:
        """Take it for lost, as somebody knows who asked the store; from any thread."""
        if self._session and self._fence:
            self._session.end(reason)

    def _stop(self) -> None:
        self._over = self.lost or f"lease {self.name} was given back"
        self.interrupt()
        if self._place_watch:
            self._place_watch.close()
        if self._session:
            self._session.stop(self._over)

    def _queue_up(self, *, again: bool) -> tuple[Session, bytes, int]:
        """Take the last place; returns the session that keeps it, our key and token.

        again: after an outage, in which a store that does not answer is waited for.
        """
        session = self._session = self._granted(again=again)
        key = b"%b/%x" % (self._keys.lease_queue(self.name), session.etcd_lease)
        put = Put(key, encode(self.contender), session.etcd_lease)
        while True:
            try:
                result = self._kv.txn((CreateRevision(key, 0),), (put,), otherwise_get=(key,))
            except StoreUnavailableError:
                if not self._pause():
                    raise
                continue  # nobody else writes our key, so the same again is safe
            except LeaseGoneError:
                return session, key, 0  # which is not in the queue, then
            return session, key, result.revision if result.succeeded else result.found[0].create_revision

    def _granted(self, *, again: bool) -> Session:
        while True:
            try:
                return Session(self._kv, self.name, self.ttl, self._clock, self._look_again)
            except StoreUnavailableError:
                if not (again and self._pause()):
                    raise

    def _wait(self, key: bytes, token: int, waiting: Callable[[list[Queued]], None]) -> bool:
        """Wait until nobody is ahead; returns False when our place is gone. Raises LeaseTakenError, StoreError."""
        known: list[Queued] = []
        for places, revision in self._looks():
            if all(place.key != key for place in places):
                return False
            ahead = [place for place in places if place.token < token]
            if any(place.contender is None for place in ahead):
                self._strangers = revision
            if not ahead:
                return True
            if self._interrupted:
                raise LeaseTakenError(f"lease {self.name} is held by {ahead[0].words}")
            if ahead != known:
                known = ahead
                waiting(ahead)
            self._until_deleted(ahead[-1].key, revision)
        raise AssertionError("unreachable: looking never ends")

    def _renewed(self, session: Session) -> bool:
        """Renew the lease now that it is our turn; returns False when it was gone already.

        Raises StoreUnavailableError when nobody can tell within our patience, nor within the TTL.
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

    def _watch_place(self, session: Session, key: bytes) -> bool:
        """Have it noticed at once when our key is deleted; returns False when it is gone already.

        Another has its turn at that moment, be it that a person broke the lease or that etcd ended it by mistake;
        a renewal would tell after a sixth of the TTL. Raises StoreError.
        """

        def follow() -> None:
            with suppress(StoreError):  # the renewals tell then
                for batch in watch:
                    if any(event.deleted for event in batch.events):
                        return session.end(session.trouble or "it expired, or somebody ended it")
            return None

        while True:
            try:
                now = self._kv.range(key, keys_only=True)
            except StoreUnavailableError:
                if not self._pause():
                    raise
                continue
            if not now.items:
                return False
            watch = self._place_watch = self._kv.watch(key, key + b"\0", start_revision=now.revision + 1)
            threading.Thread(target=follow, name=f"place:{self.name}", daemon=True).start()
            return True

    def _looks(self) -> Iterator[tuple[list[Queued], int]]:
        """Yield the queue and its revision, again and again."""
        while True:
            try:
                revision = self._kv.range(self._keys.lease_queue(self.name)).revision
                yield queue(self._kv, self._keys, self.name), revision
            except StoreUnavailableError:
                if not self._pause():
                    raise

    def _pause(self) -> bool:
        """Wait before the store is asked again; returns False when nobody waits for the lease any more."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._interrupted, RETRY)

    def _until_deleted(self, key: bytes, revision: int) -> None:
        """Return when a key is gone, or when looking again is due for another reason."""
        with self._changed:
            if self._interrupted or (self._session and self._session.ended):
                return
            self._watch = self._kv.watch(key, key + b"\0", start_revision=revision + 1)
        try:
            for batch in self._watch:
                if any(event.deleted for event in batch.events):
                    return
        except CompactedError:
            return
        finally:
            with self._changed:
                self._watch.close()
                self._watch = None

    def _look_again(self) -> None:
        """Have `acquire` look at the queue again, whatever it waits for."""
        with self._changed:
            if self._watch:
                self._watch.close()
            self._changed.notify_all()

    def _history(self) -> History:
        """Return what is known of those who held it before. Raises LeaseLostError, StoreError."""
        intent, revision = self._while_held(lambda _: _read_intent(self._kv, self._keys, self.name))
        if intent is None:
            return History(others=max(revision, self._strangers))
        ours = intent.contender.replica == self.contender.replica
        return History(
            others=max(intent.others if ours else revision, self._strangers),
            unended=None if intent.ended else intent,
            unfinished=printable(intent.unfinished) if intent.ended else intent.words,
        )

    def _intent(self, begun: str) -> Intent:
        token = self._fence.token if self._fence else 0
        return Intent(token=token, contender=self.contender, begun=begun, others=self.before.others)

    def _write_intent(self, intent: Intent) -> None:
        """Write it: the same again does no harm. Raises LeaseLostError, StoreError."""
        put = Put(self._keys.intent(self.name), encode(intent))

        def write(fence: Fence) -> bool:
            return self._kv.txn((CreateRevision(fence.key, fence.token),), (put,)).succeeded

        if not self._while_held(write):
            raise LeaseLostError(f"lease {self.name} is lost: its place in the store is gone")

    def _while_held(self, call: Callable[[Fence], T]) -> T:
        """Do what may be done again, until the store answers, as long as the lease is ours.

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


def break_lease(kv: Kv, place: Queued) -> bool:
    """Take a contender's place away, by ending its etcd lease; False when it was gone already.

    A key that no etcd lease ends is deleted, as long as it is the one that was seen. A holder notices at once, and
    stops what it runs. Raises StoreError.
    """
    if not place.etcd_lease:
        return kv.txn((CreateRevision(place.key, place.token),), (Delete(place.key),)).succeeded
    try:
        kv.lease_revoke(place.etcd_lease)
    except LeaseGoneError:
        return False
    return True
