"""Critical sections: acquire the lease → bring the mirror up to date → (the command runs) → commit → release.

A hold belongs to the connection of the client that runs the command. Only while it lasts do the mappings with
this lease push, every commit fenced by it. Called by `api`; the engines ask for the fence.
"""

import contextlib
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec

from configstore.clock import boottime
from configstore.errors import ConfigstoreError, RefusedError, UsageError
from configstore.model.keys import Keys
from configstore.model.lease import QueueEntry
from configstore.store.api import Kv
from configstore.store.leases import TTL, Lease, LeaseLostError, LeaseTakenError, Queued
from configstore.store.subtree_revisions import survey
from configstore.store.values import Fence
from sidecar.control import section
from sidecar.cycle.lease import LeaseView
from sidecar.cycle.mirror import Mirror
from sidecar.cycle.unfinished import Unfinished
from sidecar.presence.follower import Follower

GIVE_BACK = 2.0
"""Seconds for which the answer to a release waits until the lease is given back."""

FORMER = 15.0
"""Seconds for which a command that lost the lease here is waited for: by then its client has ended it."""


class NoSuchHoldError(LeaseLostError):
    """The hold has ended, or another run of this sidecar had it: nothing can be committed under it."""


class CriticalSection(msgspec.Struct, kw_only=True, eq=False):
    """One critical section. before: how each mirror stood when the command was to be started."""

    id: str
    lease: Lease
    mirrors: tuple[Mirror, ...]
    begun: str
    unfinished: str
    token: int
    before: tuple[Unfinished, ...]


class LeaseStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands with a lease here: for how many seconds it is held, and each client has waited for it."""

    name: str
    held: float | None
    waiting: tuple[float, ...]


class Holds:
    """All critical sections of this sidecar."""

    def __init__(
        self, kv: Kv, keys: Keys, mirrors: Sequence[Mirror], *, replica: str, host: str, now: Callable[[], str]
    ) -> None:
        """`mirrors` may be filled afterwards. `now` returns RFC 3339 text for people."""
        self._kv = kv
        self._keys = keys
        self._mirrors = mirrors
        self._replica = replica
        self._host = host
        self._now = now
        self._held: dict[str, Lease] = {}  # by name: the lease under which the engines may push
        self._holds: dict[str, CriticalSection] = {}
        self._doubtful: dict[str, float] = {}  # by name: until when a dead client's command may still write here
        self._losses: Counter[str] = Counter()  # by name: how many holds have lost it here
        self._known: dict[str, int] = {}  # by name: the revision up to which it is known who held it
        self._since: dict[str, float] = {}  # by name: since when the lease in `_held` is held
        self._waiting: dict[str, list[float]] = {}  # by name: since when each client waits for it
        self._followers: list[Follower] = []
        self._closing = False
        self._changed = threading.Condition()

    def start(self) -> None:
        """Follow who holds the leases of the mirrors, which are all there now."""
        for name in sorted({each.mapping.lease for each in self._mirrors if each.mapping.lease}):
            key, learn = self._keys.intent(name), partial(self._learn, name)
            follower = Follower(
                self._kv,
                (key, key + b"\0"),
                f"intents:{name}",
                take=lambda item, learn=learn: learn(item.mod_revision),  # type: ignore[misc]  # mypy infers no lambda with a default
                listed=partial(self._learn_anew, name),
            )
            follower.start()
            self._followers.append(follower)

    def view(self, name: str) -> LeaseView:
        """Return what the engine of a mapping with a lease sees of it."""
        return _View(self, name)

    def fence(self, name: str) -> Fence | None:
        """Return the proof that this sidecar holds a lease; None when it does not, or may not."""
        lease = self._held.get(name)
        return lease.fence() if lease else None

    def fenced_out(self, name: str) -> None:
        """Note that the store refused a commit under a lease."""
        lease = self._held.get(name)
        if lease:
            lease.lose("the store says that it is not held any more")

    def known(self, name: str) -> int | None:
        """Return the revision up to which it is known who held a lease; see `LeaseView.known`."""
        with self._changed:
            if self._former(name) or boottime() < self._doubtful.get(name, 0.0):
                return None
            return self._known.get(name)

    def _learn(self, name: str, revision: int) -> None:
        with self._changed:
            self._known[name] = max(revision, self._known.get(name, 0))
        for mirror in self._mirrors:
            if mirror.mapping.lease == name:
                mirror.wake()

    def _learn_anew(self, name: str, revision: int) -> None:
        """Take the revision of a listing: of another store it may be lower."""
        with self._changed:
            self._known[name] = 0
        self._learn(name, revision)

    def losses(self, name: str) -> int:
        """Return how many holds of this sidecar have lost a lease; see `LeaseView.losses`."""
        return self._losses[name]

    def standing(self) -> list[LeaseStanding]:
        """Return how it stands with each lease of the mirrors, by name; from any thread."""
        names = sorted({each.mapping.lease for each in self._mirrors if each.mapping.lease})
        now = boottime()
        with self._changed:
            return [
                LeaseStanding(
                    name=name,
                    held=now - self._since.get(name, now) if self.fence(name) else None,
                    waiting=tuple(now - since for since in self._waiting.get(name, ())),
                )
                for name in names
            ]

    def troubles(self) -> list[str]:
        """Return why it is not known who holds the leases, in words."""
        refused = (each.trouble for each in self._followers if each.trouble)
        return [
            f"it is not known who held a lease, so edits without it become conflicts: {each}" for each in refused
        ]

    def _former(self, name: str) -> CriticalSection | None:
        """Return a hold that has lost the lease, and the client of which is still there: its command may run."""
        lost = (each for each in self._holds.values() if each.lease.name == name and each.lease.fence() is None)
        return next(lost, None)

    def contender(
        self,
        name: str,
        *,
        mapping: str | None,
        command: str,
        ttl: int | None,
        among: Sequence[Mirror] | None = None,
    ) -> tuple[Lease, list[Mirror]]:
        """Return a contender that has not queued up yet, and the mirrors it concerns. Raises UsageError.

        among: the mirrors that whoever asks may speak of; all of them else.
        """
        shown = self._mirrors if among is None else among
        known = {each.mapping.name: each for each in shown}
        of_lease = [each for each in self._mirrors if each.mapping.lease == name]  # all of them push under it
        concerned = of_lease if any(each in shown for each in of_lease) else []
        if mapping is not None and mapping not in known:
            raise UsageError(f"no mapping {mapping!r} here; there are {', '.join(sorted(known))}")
        if not concerned:
            leases = sorted({each.mapping.lease for each in shown if each.mapping.lease})
            there = f"there are {', '.join(leases)}" if leases else "none has a lease"
            raise UsageError(f"no mapping here has lease {name!r}, so nothing would be fenced; {there}")
        if mapping is not None and known[mapping] not in concerned:
            concerned.append(known[mapping])
        contender = QueueEntry(replica=self._replica, host=self._host, command=command, time=self._now())
        return Lease(self._kv, self._keys, name, contender, ttl=ttl or TTL), concerned

    def open(
        self,
        lease: Lease,
        mirrors: Sequence[Mirror],
        *,
        patience: float | None,
        waiting: Callable[[list[Queued]], None],
    ) -> CriticalSection:
        """Acquire, bring the mirrors up to date, push what waited for the lease, and note what begins.

        Raises LeaseTakenError, LeaseLostError, UnreachableError, RefusedError; the lease is then given back.
        """
        with self._in_line(lease.name):
            self._await_former(lease.name, patience)
            fence = lease.acquire(patience, waiting)
        begun = ""
        try:
            self._await_former(lease.name, patience)  # which may have lost it while we waited for our turn
            for mirror in mirrors:
                newest = survey(self._kv, self._keys, mirror.mapping.store).newest
                section.bring_up(mirror, newest, others=self._others(lease, newest))
            begun = self._now()
            unfinished = lease.begin(begun)  # before anything is committed under this token
            self._may_push(lease)
            before = tuple(map(section.send_what_waited, mirrors))
        except BaseException:
            self._may_not_push(lease)
            if begun:
                with contextlib.suppress(ConfigstoreError):
                    lease.never_began(begun)
            lease.release()
            raise
        hold = CriticalSection(
            id=secrets.token_urlsafe(16),
            lease=lease,
            mirrors=tuple(mirrors),
            begun=begun,
            unfinished=unfinished,
            token=fence.token,
            before=before,
        )
        with self._changed:
            self._holds[hold.id] = hold
        lease.depend()
        return hold

    def left(self, hold_id: str) -> float:
        """Return for how many seconds a hold's lease is surely ours; who never asks loses it.

        Raises NotThereError, LeaseLostError.
        """
        lease = self._find(hold_id).lease
        lease.heard()
        if lease.lost is not None:
            raise LeaseLostError(lease.lost)
        return lease.left()

    def lost(self, hold: CriticalSection) -> str | None:
        """Return why a hold that was not released lost its lease, or None."""
        return hold.lease.lost if hold.id in self._holds else None

    def release(self, hold_id: str, code: int | None) -> int:
        """Commit what the command changed, give the lease back, and return the last revision written.

        code: the command's exit code; None when it was not even started. Raises NoSuchHoldError, LeaseLostError,
        ConflictError, RefusedError or UnreachableError when not everything is committed.
        """
        hold = self._find(hold_id)
        lease = hold.lease
        lease.stand_alone()
        try:
            if lease.lost is not None:
                raise LeaseLostError(f"{lease.lost}; what was changed since then is not committed")
            if code is None:
                lease.never_began(hold.begun)
            else:
                self._commit(hold, code)
        except ConfigstoreError as error:
            if lease.lost is not None and not isinstance(error, LeaseLostError):
                raise LeaseLostError(f"{lease.lost}; not all that was changed is committed: {error}") from error
            raise
        finally:
            self._forget(hold)
            # The client waits for an answer: what etcd does not say soon is found out behind its back.
            giving_back = threading.Thread(target=lease.release, name=f"release:{lease.name}", daemon=True)
            giving_back.start()
            giving_back.join(GIVE_BACK)
        return max(mirror.status.committed for mirror in hold.mirrors)

    def _commit(self, hold: CriticalSection, code: int) -> None:
        """Commit what the command changed, and note that it ended, be all committed or not."""
        try:
            for mirror, before in zip(hold.mirrors, hold.before, strict=True):
                section.commit(mirror, hold.lease.left(), before)
        except ConfigstoreError:
            with contextlib.suppress(ConfigstoreError):  # the first failure has the paths
                hold.lease.end(hold.begun, self._now(), code)
            raise
        hold.lease.end(hold.begun, self._now(), code)  # compares the fence: all before it was under the lease

    def abandon(self, hold: CriticalSection) -> None:
        """Push nothing more, since the client is gone; the lease ends by itself: its command may still run."""
        if self._forget(hold):
            with self._changed:
                self._losses[hold.lease.name] += hold.lease.fence() is not None  # else it is counted
                self._doubtful[hold.lease.name] = boottime() + hold.lease.ttl
            hold.lease.abandon()

    def close(self, patience: float) -> None:
        """Begin no more, and wait for those that are under way: their containers are stopped as well."""
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not self._holds, patience)

    def end(self) -> None:
        """Follow no more."""
        for each in self._followers:
            each.close(1.0)

    def _find(self, hold_id: str) -> CriticalSection:
        try:
            return self._holds[hold_id]
        except KeyError:
            raise NoSuchHoldError(
                "this sidecar knows no such hold: it has ended, or the sidecar was started anew; what was changed"
                " under it is not committed"
            ) from None

    def _forget(self, hold: CriticalSection) -> bool:
        self._may_not_push(hold.lease)
        with self._changed:
            known = self._holds.pop(hold.id, None) is not None
            if known and hold.lease.fence() is None:
                self._losses[hold.lease.name] += 1
            self._changed.notify_all()
        return known

    @contextlib.contextmanager
    def _in_line(self, name: str) -> Iterator[None]:
        """Count a client as one that waits for a lease."""
        since = boottime()
        with self._changed:
            self._waiting.setdefault(name, []).append(since)
        try:
            yield
        finally:
            with self._changed:
                self._waiting[name].remove(since)

    def _may_push(self, lease: Lease) -> None:
        with self._changed:
            if self._closing:
                raise RefusedError("the sidecar is stopping")
            self._held[lease.name] = lease
            self._since[lease.name] = boottime()

    def _may_not_push(self, lease: Lease) -> None:
        if self._held.get(lease.name) is lease:
            del self._held[lease.name]

    def _await_former(self, name: str, patience: float | None) -> None:
        """Wait until no command of a hold that lost the lease can write here. Raises LeaseTakenError."""
        seconds = FORMER if patience is None else min(patience, FORMER)
        with self._changed:
            if self._changed.wait_for(lambda: self._former(name) is None, seconds):
                return
            former = self._former(name)
        command, begun = (former.lease.contender.command, former.begun) if former else ("", "")
        raise LeaseTakenError(
            f"lease {name}: {command or 'a command'} that was begun here at {begun} lost it, and may still run,"
            " since its client does not answer: end it, or let it go on if it was stopped"
        )

    def _others(self, lease: Lease, newest: int) -> int:
        """Return the revision of the last that is known of another holder. newest: of the mapping's records."""
        unended = lease.before.unended
        if unended and unended.contender.replica != self._replica:
            return max(lease.before.others, newest)  # when it stopped is not known, but what it committed is
        return lease.before.others


class _View:
    """One mapping's view of its lease; it satisfies `LeaseView`."""

    def __init__(self, holds: Holds, name: str) -> None:
        self._holds = holds
        self._name = name

    def fence(self) -> Fence | None:
        """Return the proof that the lease is held."""
        return self._holds.fence(self._name)

    def fenced_out(self) -> None:
        """Take note that the store refused a commit."""
        self._holds.fenced_out(self._name)

    def known(self) -> int | None:
        """Return the revision up to which it is known who held it."""
        return self._holds.known(self._name)

    def losses(self) -> int:
        """Return how many holds have lost it here."""
        return self._holds.losses(self._name)
