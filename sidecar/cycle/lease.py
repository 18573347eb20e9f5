"""What an engine knows of the lease that guards its mapping, and what it asks of it. `control.holds` answers.

What was changed here and could not be sent must not be sent under a later token when another replica has held the
lease since: it may not fit to what that one made. Clocks cannot tell. What can is the revision of the store up to
which it was known who had held the lease, when last nothing lay here unsent: whoever held it later may have done
so after the change was made.
"""

from typing import Protocol

from configstore.store.values import Fence
from sidecar.state.baseline import Baseline


class LeaseView(Protocol):
    """One mapping's view of its lease; all of it is called from the engine's thread."""

    def fence(self) -> Fence | None:
        """Return the proof that this sidecar holds the lease; None when it does not, or may not."""
        ...

    def fenced_out(self) -> None:
        """Take note that the store refused a commit, since the lease is not held any more."""
        ...

    def known(self) -> int | None:
        """Return the revision of the store up to which it is known who has held the lease.

        None while that is not known, and while a command of a hold that lost the lease may still write here.
        """
        ...

    def losses(self) -> int:
        """Return how many holds of this sidecar have lost the lease: what their commands wrote is overtaken."""
        ...


class NoLease:
    """The view of a mapping that no lease guards, and of one that never pushes."""

    def fence(self) -> Fence | None:
        """Return None."""
        return None

    def fenced_out(self) -> None:
        """Do nothing."""

    def known(self) -> int | None:
        """Return None."""
        return None

    def losses(self) -> int:
        """Return 0."""
        return 0


class MappingLease:
    """One engine's dealings with its lease.

    fence: that of the cycle; what was planned under it is committed under it.
    """

    def __init__(self, view: LeaseView, baseline: Baseline) -> None:
        self.fence: Fence | None = None
        self._view = view
        self._baseline = baseline
        self._known: int | None = None
        self._losses = self._losses_at_rest = 0
        self._others: int | None = None

    def begin_cycle(self, applied: int) -> None:
        """Ask for the proof of holding the lease, and how far its history is known, before anything is looked at.

        applied: the revision of the store up to which all of it is shown here.
        """
        self.fence = self._view.fence()
        self._losses, known = self._view.losses(), self._view.known()
        self._known = None if known is None else max(known, applied)

    def fenced_out(self) -> None:
        """Take note that the store refused a commit, since the lease is not held any more."""
        self._view.fenced_out()

    def yield_to(self, others: int | None) -> None:
        """Let what lies here unsent give way if another held the lease since, or it was lost here.

        From any thread. others: the revision of the store of the last that was heard of another holder; None when
        nothing is to give way any more.
        """
        self._others = others

    @property
    def yields(self) -> bool:
        """Whether what lies here unsent gives way to what the store holds, and is kept as a conflict."""
        if self.fence is not None or self._others is None:
            return False
        return self._others > self._baseline.sides.clean_at or self._losses > self._losses_at_rest

    def looked(self) -> None:
        """Remember up to where the history was known, if nothing lay here unsent; after a look that found all."""
        sides = self._baseline.sides
        differs = sides.news or sides.local_problems or sides.unstable or sides.queued()
        if self._known is not None and not differs:
            self._baseline.clean(self._known)
            self._losses_at_rest = self._losses
