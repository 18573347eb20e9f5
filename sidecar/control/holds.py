"""Holds (critical sections): acquire the lease → bring the mirrors up → (the command runs) → commit → release.

A hold belongs to the connection of the client that runs the command; `server` opens and abandons it, `api` answers
the questions about it. These invariants hold; the code names them by number:

1. A hold begins with what the lease's last holder committed, or not at all.
2. What was changed here before a hold is pushed under its token only if no other replica has held the lease since
   the change; else it becomes a conflict before the token can be used.
3. Engines push only between the writing of the intent and the end of the hold, and each commit compares the token.
4. The intent ends after the last commit. Its end compares the token too, which proves that all of them were made
   under the lease.
5. Released means released: engines lose the token first, and the revoke is then tried until it is certain.
"""

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from configstore.errors import ConfigstoreError, RefusedError, UsageError
from configstore.model.lease import QueueEntry
from configstore.store.follower import ItemFollower
from configstore.store.lease_queue import Queued
from configstore.store.leases import TTL, Lease, LeaseLostError, LeaseTakenError
from configstore.store.store import Store
from configstore.store.subtree_revisions import revisions_below
from sidecar.control import section
from sidecar.control.lease_state import CriticalSection, LeaseState, LeaseUse
from sidecar.cycle.lease import LeaseView
from sidecar.cycle.mirror import Mirror

GIVE_BACK = 2.0
"""Seconds for which the answer to a release waits for the lease to be given back."""

FORMER = 15.0
"""Seconds to wait for a command that lost the lease here: by then its client has ended it."""


class NoSuchHoldError(LeaseLostError):
    """The hold has ended, or belongs to an earlier run of this sidecar: nothing can be committed under it."""


class Holds:
    """All holds of this sidecar."""

    def __init__(
        self, store: Store, mirrors: Sequence[Mirror], *, replica: str, host: str, now: Callable[[], str]
    ) -> None:
        """`mirrors` may be filled later. `now` returns RFC 3339 text for people."""
        self._store = store
        self._mirrors = mirrors
        self._replica = replica
        self._host = host
        self._now = now
        self._leases: dict[str, LeaseState] = {}
        self._followers: list[ItemFollower] = []
        self._closing = False
        self._changed = threading.Condition()

    def view(self, name: str) -> LeaseView:
        """Return what the engine of a mapping with a lease sees of that lease."""
        return self._leases.setdefault(name, LeaseState(name, self._changed))

    def start(self) -> None:
        """Follow the intents of every lease, by which it is known who held it; all leases have their view now."""
        for name in sorted(self._leases):
            key, learn = self._store.keys.intent(name), partial(self._learn, name)
            follower = ItemFollower(
                self._store,
                (key, key + b"\0"),
                f"intents:{name}",
                put=lambda item, learn=learn: learn(item.mod_revision),  # type: ignore[misc]  # mypy infers no lambda with a default
                listed=partial(self._learn, name, anew=True),
            )
            follower.start()
            self._followers.append(follower)

    def _learn(self, name: str, revision: int, *, anew: bool = False) -> None:
        self._leases[name].learn(revision, anew=anew)
        for mirror in self._of_lease(name):
            mirror.wake()

    def uses(self) -> list[LeaseUse]:
        """Return how each lease of the mappings is used here, by name; from any thread."""
        return [self._leases[name].use() for name in sorted(self._leases)]

    def notes(self) -> list[str]:
        """Return why it is not known who holds the leases, in sentences."""
        refused = (each.refused for each in self._followers if each.refused)
        return [
            f"it is not known who held a lease, so edits without it become conflicts: {each}" for each in refused
        ]

    def contender(
        self, name: str, *, mapping: str | None, command: str, ttl: int | None, among: Sequence[Mirror]
    ) -> tuple[Lease, list[Mirror]]:
        """Return a lease that is not queued for yet, and the mirrors that a hold of it concerns.

        among: the mirrors that the client may name. Raises UsageError.
        """
        known = {each.mapping.name: each for each in among}
        of_lease = self._of_lease(name)  # all of them push under it
        concerned = of_lease if any(each in among for each in of_lease) else []
        if mapping is not None and mapping not in known:
            raise UsageError(f"no mapping {mapping!r} here; there are {', '.join(sorted(known))}")
        if not concerned:
            leases = sorted({each.mapping.lease for each in among if each.mapping.lease})
            there = f"there are {', '.join(leases)}" if leases else "none has a lease"
            raise UsageError(f"no mapping here has lease {name!r}, so nothing would be fenced; {there}")
        if mapping is not None and known[mapping] not in concerned:
            concerned.append(known[mapping])
        entry = QueueEntry(replica=self._replica, host=self._host, command=command, time=self._now())
        return Lease(self._store, name, entry, ttl=ttl or TTL), concerned

    def open(
        self,
        lease: Lease,
        mirrors: Sequence[Mirror],
        *,
        patience: float | None,
        waiting: Callable[[list[Queued]], None],
    ) -> CriticalSection:
        """Acquire the lease, bring the mirrors up to date, push what waited for the lease, and return the hold.

        Raises LeaseTakenError, LeaseLostError, UnreachableError, RefusedError; the lease is then given back.
        """
        state = self._leases[lease.name]
        with state.waiting():
            self._await_lost(state, patience)
            fence = lease.acquire(patience, waiting)
        begun = ""
        try:
            self._await_lost(state, patience)  # a hold may have lost the lease while this one was in the queue
            for mirror in mirrors:
                newest = revisions_below(self._store, mirror.mapping.store).newest
                section.bring_up(mirror, newest, others=self._others(lease, newest))  # invariants 1 and 2
            begun = self._now()
            unfinished = lease.begin(begun)
            self._may_push(state, lease)  # invariant 3
            before = tuple(map(section.send_what_waited, mirrors))
        except BaseException:
            state.may_not_push(lease)  # invariant 5
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
            state.sections[hold.id] = hold
        lease.depend()
        return hold

    def left(self, hold_id: str) -> float:
        """Return the seconds for which a hold's lease is surely held; a client that never asks loses it.

        Raises NoSuchHoldError, LeaseLostError.
        """
        lease = self._find(hold_id).lease
        lease.heard()
        if lease.lost is not None:
            raise LeaseLostError(lease.lost)
        return lease.left()

    def lost(self, hold: CriticalSection) -> str | None:
        """Return why a hold that was not released lost its lease, or None."""
        return hold.lease.lost if hold.id in self._leases[hold.lease.name].sections else None

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
            self._leases[lease.name].end(hold)  # invariant 5
            # The client waits for an answer: a revoke that etcd does not answer soon goes on in the background.
            giving_back = threading.Thread(target=lease.release, name=f"release:{lease.name}", daemon=True)
            giving_back.start()
            giving_back.join(GIVE_BACK)
        return max(mirror.status.committed for mirror in hold.mirrors)

    def _commit(self, hold: CriticalSection, code: int) -> None:
        """Commit what the command changed, and note that it ended, whether all was committed or not."""
        try:
            for mirror, before in zip(hold.mirrors, hold.before, strict=True):
                section.commit(mirror, hold.lease.left(), before)
        except ConfigstoreError:
            with contextlib.suppress(ConfigstoreError):  # the first failure names the paths
                hold.lease.end(hold.begun, self._now(), code)
            raise
        hold.lease.end(hold.begun, self._now(), code)  # invariant 4

    def abandon(self, hold: CriticalSection) -> None:
        """Push nothing more for a client that is gone, unless its hold was released.

        The lease is not given back but ends with its TTL, since the command may still run.
        """
        if self._leases[hold.lease.name].end(hold, abandoned=True):
            hold.lease.abandon()

    def close(self, patience: float) -> None:
        """Begin no more holds, and wait for the open ones: their containers are stopped as well."""
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not list(self._open()), patience)

    def end(self) -> None:
        """Stop following the intents."""
        for each in self._followers:
            each.close(1.0)

    def _of_lease(self, name: str) -> list[Mirror]:
        return [each for each in self._mirrors if each.mapping.lease == name]

    def _open(self) -> Iterator[CriticalSection]:
        for state in self._leases.values():
            yield from state.sections.values()

    def _find(self, hold_id: str) -> CriticalSection:
        with self._changed:
            found = next((each for each in self._open() if each.id == hold_id), None)
        if found is None:
            raise NoSuchHoldError(
                "this sidecar knows no such hold: it has ended, or the sidecar was started anew; what was changed"
                " under it is not committed"
            )
        return found

    def _may_push(self, state: LeaseState, lease: Lease) -> None:
        with self._changed:
            if self._closing:
                raise RefusedError("the sidecar is stopping")
            state.may_push(lease)

    def _await_lost(self, state: LeaseState, patience: float | None) -> None:
        """Wait until no command of a hold that lost the lease can write here. Raises LeaseTakenError."""
        seconds = FORMER if patience is None else min(patience, FORMER)
        with self._changed:
            if self._changed.wait_for(lambda: state.lost_section() is None, seconds):
                return
            former = state.lost_section()
        command, begun = (former.lease.contender.command, former.begun) if former else ("", "")
        raise LeaseTakenError(
            f"lease {state.name}: {command or 'a command'} that was begun here at {begun} lost it, and may still"
            " run, since its client does not answer: end it, or let it go on if it was stopped"
        )

    def _others(self, lease: Lease, newest: int) -> int:
        """Return the revision of the last sign of another holder. newest: that of the mapping's newest record."""
        unended = lease.before.unended
        if unended and unended.contender.replica != self._replica:
            return max(lease.before.others, newest)  # when it stopped is not known, but what it committed is
        return lease.before.others
