"""What was found out for an overview, as values, before it is judged."""

import msgspec

from configstore.doctor.facts import EndpointAnswer, Failure, statuses_of
from configstore.expiry import Validity
from configstore.model.lease import HeldUp
from configstore.model.path import StorePath
from configstore.model.replica import ExpectedReplica, Report
from configstore.store.api import MemberStatus


class OverviewFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an overview is made from. What was not asked, since nothing would have answered, is empty.

    now: this machine's clock, Unix seconds. root: the root key. client_certificate: validity of the one that is
    set. revision: the store's. empty: it holds no record. cut_off: the call to the cluster that failed; later ones
    were not made.
    reports: of the live replicas that answered; late: the last reports of those that did not. hasty: too many are
    late to wait for them. stale: why replicas could not be asked for a new report, so that each report is the last
    one written; else "".
    gone: replicas that went without a goodbye. unread: keys that hold an unreadable report, with the reason.
    conflicts: the number of losing sides by path.
    """

    now: float
    root: str
    endpoints: tuple[EndpointAnswer, ...]
    client_certificate: Validity | None = None
    revision: int = 0
    empty: bool = False
    cut_off: Failure | None = None
    reports: tuple[Report, ...] = ()
    late: tuple[Report, ...] = ()
    stale: str = ""
    hasty: bool = False
    gone: tuple[ExpectedReplica, ...] = ()
    unread: dict[bytes, str] = {}
    conflicts: dict[StorePath, int] = {}
    held_up: tuple[HeldUp, ...] = ()

    @property
    def statuses(self) -> tuple[MemberStatus, ...]:
        """The statuses of the members that answered."""
        return statuses_of(self.endpoints)
