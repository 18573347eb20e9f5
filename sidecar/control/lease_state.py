"""What this sidecar knows of one lease: whether it may push under it, who held it before, and who waits for it.

`control.holds` changes it; the engines of the mappings with this lease read it from their threads.
"""

import contextlib
import threading
from collections.abc import Iterator

import msgspec

from configstore.clock import boottime
from configstore.store.leases import Lease
from configstore.store.values import Fence
from sidecar.cycle.lease import LeaseView
from sidecar.cycle.mirror import Mirror
from sidecar.cycle.unfinished import Unfinished


class CriticalSection(msgspec.Struct, kw_only=True, eq=False):
    """One hold. before: what each mirror had left to send when the command was about to be started."""

    id: str
    lease: Lease
    mirrors: tuple[Mirror, ...]
    begun: str
    unfinished: str
    token: int
    before: tuple[Unfinished, ...]


class LeaseUse(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds for which a lease has been held here (None: it is not), and for which each client has waited."""

    name: str
    held: float | None
    waiting: tuple[float, ...]


class LeaseState(LeaseView):
    """One lease; it is the `LeaseView` of the engines. sections: the holds that are open under it, by id."""

    def __init__(self, name: str, changed: threading.Condition) -> None:
        """Take the condition that guards the state; it is notified when a section ends."""
        self.name = name
        self.sections: dict[str, CriticalSection] = {}
        self._changed = changed
        self._pushing: Lease | None = None  # under which the engines may push
        self._since = 0.0  # when that began
        self._doubtful_until = 0.0  # until then the command of a client that is gone may still write here
        self._losses = 0
        self._known: int | None = None
        self._waiting: list[float] = []  # since when each client waits

    def fence(self) -> Fence | None:
        """Return the proof that this sidecar holds the lease; None when it does not, or may not."""
        pushing = self._pushing
        return pushing.fence() if pushing else None

    def fenced_out(self) -> None:
        """Note that the store refused a commit under the lease."""
        if pushing := self._pushing:
            pushing.lose("the store says that it is not held any more")

    def known(self) -> int | None:
        """Return the store's revision up to which it is known who held the lease; see `LeaseView.known`."""
        with self._changed:
            if self.lost_section() or boottime() < self._doubtful_until:
                return None
            return self._known

    def losses(self) -> int:
        """Return how many holds of this sidecar have lost the lease; see `LeaseView.losses`."""
        return self._losses

    def learn(self, revision: int, *, anew: bool = False) -> None:
        """Note the revision up to which its history is known; `anew`: from a listing, maybe of another store."""
        with self._changed:
            self._known = revision if anew else max(revision, self._known or 0)

    def lost_section(self) -> CriticalSection | None:
        """Return a hold that has lost the lease while its client is still there, so that its command may write."""
        return next((each for each in self.sections.values() if each.lease.fence() is None), None)

    def may_push(self, lease: Lease) -> None:
        """Have the engines push under `lease`; the condition must be held."""
        self._pushing, self._since = lease, boottime()

    def may_not_push(self, lease: Lease) -> None:
        """Have the engines push no more under `lease`."""
        if self._pushing is lease:
            self._pushing = None

    def end(self, section: CriticalSection, *, abandoned: bool = False) -> bool:
        """End a section; returns whether it was still open. abandoned: its client is gone."""
        self.may_not_push(section.lease)
        with self._changed:
            if self.sections.pop(section.id, None) is None:
                return False
            self._losses += abandoned or section.lease.fence() is None
            if abandoned:  # what its command started may run on, and write here, until the TTL has ended
                self._doubtful_until = boottime() + section.lease.ttl
            self._changed.notify_all()
        return True

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a client as one that waits for the lease, while the body runs."""
        since = boottime()
        with self._changed:
            self._waiting.append(since)
        try:
            yield
        finally:
            with self._changed:
                self._waiting.remove(since)

    def use(self) -> LeaseUse:
        """Return how it is used at the moment."""
        with self._changed:
            now = boottime()
            return LeaseUse(
                name=self.name,
                held=now - self._since if self.fence() else None,
                waiting=tuple(now - since for since in self._waiting),
            )
