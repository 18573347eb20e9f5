"""What an engine needs to know of its mapping's lease. `control.lease_state` has the `LeaseView` of a real one.

A local change that was not sent under one hold must not be sent under a later one if another replica held the
lease in between: it may not fit what that replica changed. Clocks cannot show whether one did, so revisions of the
store are compared:

1. `clean_at` is the revision up to which the lease's history was known when no local change was unsent.
2. Another holder after `clean_at` may have held the lease after the change was made, so the change gives way.
3. The same holds for a lost hold of this replica: what its command wrote may have been superseded.
"""

from configstore.store.values import Fence
from sidecar.state.baseline import Baseline


class LeaseView:
    """What an engine sees of a lease; called from the engine's thread.

    This class is the view of a mapping that has no lease.
    """

    def fence(self) -> Fence | None:
        """Return the proof that this sidecar holds the lease; None when it does not, or may not."""
        return None

    def fenced_out(self) -> None:
        """Note that the store refused a commit since the lease is not held any more."""

    def known(self) -> int | None:
        """Return the revision of the store up to which all holders of the lease are known.

        None while that is not known, and while a command whose hold lost the lease may still write here.
        """
        return None

    def losses(self) -> int:
        """Return how many holds of this sidecar lost the lease."""
        return 0


class MappingLease:
    """The lease of one engine's mapping.

    fence: the proof that was valid when the cycle began. What is planned under it is committed under it, so that a
    lease which is lost meanwhile makes the commit fail.
    """

    def __init__(self, view: LeaseView, baseline: Baseline) -> None:
        self.fence: Fence | None = None
        self._view = view
        self._baseline = baseline
        self._known: int | None = None
        self._losses = self._losses_when_clean = 0
        self._others: int | None = None

    def begin_cycle(self, applied: int) -> None:
        """Ask for the fence and for how far the lease's history is known, before anything is scanned.

        applied: the revision of the store up to which everything is shown here.
        """
        self.fence = self._view.fence()
        self._losses, known = self._view.losses(), self._view.known()
        self._known = None if known is None else max(known, applied)

    def fenced_out(self) -> None:
        """Note that the store refused a commit since the lease is not held any more."""
        self._view.fenced_out()

    def yield_to(self, others: int | None) -> None:
        """Let unsent local changes give way if another replica held the lease since, or a hold here lost it.

        From any thread. others: the revision of the store at which another holder was last seen; None ends this.
        """
        self._others = others

    @property
    def yields(self) -> bool:
        """Whether unsent local changes give way to the store's records, and are kept as conflicts."""
        if self.fence is not None or self._others is None:
            return False
        return self._others > self._baseline.sides.clean_at or self._losses > self._losses_when_clean

    def scanned(self) -> None:
        """Set `clean_at` if no local change is unsent. Call it after a scan that found all changes."""
        sides = self._baseline.sides
        differs = sides.changed_in_store or sides.local_problems or sides.unstable or sides.changed_here()
        if self._known is not None and not differs:
            self._baseline.clean(self._known)
            self._losses_when_clean = self._losses
