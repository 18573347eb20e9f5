"""Critical sections: acquire the lease → bring the mirror up to date → (the command runs) → commit → release.

A hold belongs to the connection of the client that runs the command. Only while it lasts do the mappings with
this lease push, every commit fenced by it. Called by `api`; the engines ask for the fence.
"""

import secrets
import threading
from collections.abc import Callable, Sequence

import msgspec

from configstore.errors import (
    ConfigstoreError,
    ConflictError,
    NotThereError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from configstore.model.keys import Keys
from configstore.model.lease import Claim, Intent
from configstore.store.api import Kv
from configstore.store.leases import TTL, Lease, LeaseLostError, Place
from configstore.store.survey import survey
from configstore.store.values import Fence
from sidecar.mirror import Mirror
from sidecar.planner.sides import Problem

BRING_UP = 30.0
"""Seconds for the mirror to become up to date once the lease is held."""


class Hold(msgspec.Struct, kw_only=True):
    """One critical section. problems: those that there were before its command started."""

    id: str
    lease: Lease
    mirrors: tuple[Mirror, ...]
    begun: str
    unfinished: Intent | None
    token: int
    problems: frozenset[Problem] = frozenset()


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
        self._guarding: dict[str, Lease] = {}  # by name: the lease under which the engines may push
        self._holds: dict[str, Hold] = {}
        self._closing = False
        self._changed = threading.Condition()

    def fence(self, name: str | None) -> Fence | None:
        """Return the proof that this sidecar holds a lease; None when it does not, or may not."""
        lease = self._guarding.get(name) if name else None
        return lease.fence() if lease else None

    def fenced_out(self, name: str | None) -> None:
        """Note that the store refused a commit under a lease."""
        lease = self._guarding.get(name) if name else None
        if lease:
            lease.lose("the store says that it is not held any more")

    def contender(
        self, name: str, *, mapping: str | None, command: str, ttl: int | None
    ) -> tuple[Lease, list[Mirror]]:
        """Return a contender that has not queued up yet, and the mirrors it concerns. Raises UsageError."""
        known = {each.mapping.name: each for each in self._mirrors}
        concerned = [each for each in self._mirrors if each.mapping.lease == name]
        if mapping is not None and mapping not in known:
            raise UsageError(f"no mapping {mapping!r} here; there are {', '.join(sorted(known))}")
        if not concerned:
            leases = sorted({each.mapping.lease for each in self._mirrors if each.mapping.lease})
            there = f"there are {', '.join(leases)}" if leases else "none has a lease"
            raise UsageError(f"no mapping here has lease {name!r}, so nothing would be fenced; {there}")
        if mapping is not None and known[mapping] not in concerned:
            concerned.append(known[mapping])
        claim = Claim(replica=self._replica, host=self._host, command=command, time=self._now())
        return Lease(self._kv, self._keys, name, claim, ttl=ttl or TTL), concerned

    def open(
        self,
        lease: Lease,
        mirrors: Sequence[Mirror],
        *,
        patience: float | None,
        waiting: Callable[[list[Place]], None],
    ) -> Hold:
        """Acquire, bring the mirrors up to date, push what waited for the lease, and note what begins.

        Raises LeaseTakenError, LeaseLostError, UnreachableError, RefusedError; the lease is then given back.
        """
        fence = lease.acquire(patience, waiting)
        try:
            for mirror in mirrors:
                self._bring_up(mirror)
            self._guard(lease)
            problems = frozenset(problem for mirror in mirrors for problem in self._flush(mirror, BRING_UP))
            begun = self._now()
            hold = Hold(
                id=secrets.token_urlsafe(16),
                lease=lease,
                mirrors=tuple(mirrors),
                begun=begun,
                unfinished=lease.begin(begun),
                token=fence.token,
                problems=problems,
            )
        except BaseException:
            self._unguard(lease)
            lease.release()
            raise
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

    def lost(self, hold: Hold) -> str | None:
        """Return why a hold that was not released lost its lease, or None."""
        return hold.lease.lost if hold.id in self._holds else None

    def release(self, hold_id: str, code: int) -> int:
        """Commit what the command changed, give the lease back, and return the last revision written.

        Raises NotThereError; LeaseLostError, ConflictError or UnreachableError when not everything is committed.
        """
        hold = self._find(hold_id)
        lease = hold.lease
        lease.stand_alone()
        try:
            for mirror in hold.mirrors:
                problems = self._flush(mirror, lease.left())
                fresh = [each for each in problems if each.unsure or each not in hold.problems]
                if fresh:
                    words = "; ".join(map(str, fresh[:5]))
                    raise ConflictError(f"{mirror.mapping.name}: not all of it is committed: {words}")
            lease.end(hold.begun, self._now(), code)  # compares the fence: all before it was under the lease
        except ConfigstoreError as error:
            if lease.lost is not None:
                raise LeaseLostError(f"{lease.lost}; not all that was changed is committed: {error}") from error
            raise
        finally:
            self._forget(hold)
            lease.release()
        return max(mirror.status.committed for mirror in hold.mirrors)

    def abandon(self, hold: Hold) -> None:
        """Push nothing more, since the client is gone; the lease ends by itself: its command may still run."""
        if self._forget(hold):
            hold.lease.abandon()

    def close(self, patience: float) -> None:
        """Begin no more, and wait for those that are under way: their containers are stopped as well."""
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not self._holds, patience)

    def _find(self, hold_id: str) -> Hold:
        try:
            return self._holds[hold_id]
        except KeyError:
            raise NotThereError("there is no such hold; it ended, or the sidecar was started anew") from None

    def _forget(self, hold: Hold) -> bool:
        self._unguard(hold.lease)
        with self._changed:
            known = self._holds.pop(hold.id, None) is not None
            self._changed.notify_all()
        return known

    def _guard(self, lease: Lease) -> None:
        with self._changed:
            if self._closing:
                raise RefusedError("the sidecar is stopping")
            self._guarding[lease.name] = lease

    def _unguard(self, lease: Lease) -> None:
        if self._guarding.get(lease.name) is lease:
            del self._guarding[lease.name]

    def _bring_up(self, mirror: Mirror) -> None:
        """Wait until a mirror shows what the last holder committed. Raises RefusedError, UnreachableError."""
        newest = survey(self._kv, self._keys, mirror.mapping.store).newest
        if not mirror.wait_applied(newest, BRING_UP):
            raise _not_done(mirror, f"is not up to date with revision {newest}")

    def _flush(self, mirror: Mirror, patience: float) -> tuple[Problem, ...]:
        status = mirror.flush(patience)
        if status is None:
            raise _not_done(mirror, "could not be committed in time")
        return tuple(each for each in status.problems if each.path)  # a failing hook holds nothing up


def _not_done(mirror: Mirror, what: str) -> ConfigstoreError:
    status = mirror.status
    if status.halted:
        return RefusedError(f"{mirror.mapping.name} {what}: {status.halted}")
    return UnreachableError(f"{mirror.mapping.name} {what}: {status.why_not_done()}")
