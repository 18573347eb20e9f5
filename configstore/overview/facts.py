"""What was found out for an overview, as values, before anybody judges it."""

import msgspec

from configstore.doctor.facts import EndpointAnswer, Failure
from configstore.expiry import Validity
from configstore.model.lease import HeldUp
from configstore.model.path import StorePath
from configstore.model.replica import ExpectedReplica, Report
from configstore.store.api import MemberStatus


class OverviewFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an overview is made from. What was not asked, since nobody would have answered, is empty.

    now: this machine's clock, Unix seconds. root: the root key. client_certificate: of the configured one, if any.
    revision: the store's. empty: it holds no record. cut_off: the call to the store as a whole that failed; later
    ones were not made. reports: of live replicas; late: of those that did not answer; hasty: so many that they
    were not waited for; stale: why none could be asked for a new one, so that each is as it was written last, else
    empty. gone: those that went without a goodbye. unread: keys among the reports that hold none, and why not.
    conflicts: the paths with losing sides, and how many each has.
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
        return tuple(each.status for each in self.endpoints if isinstance(each.status, MemberStatus))
