"""The overview for programs: what `configstore status --json` prints (docs/reference/status.schema.json).

Called by `cli.status`, and by `cli.replicas` for its own JSON.
"""

from datetime import UTC, datetime

import msgspec

from configstore.doctor.finding import FindingState
from configstore.model.replica import Report
from configstore.overview.facts import OverviewFacts
from configstore.overview.judge import Judgement, MappingRow
from configstore.store.api import MemberStatus


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint. reason: why it does not answer."""

    url: str
    answers: bool
    reason: str | None


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What needs a person. about: a mapping, the store or a lease; mend: what to do, with what to type."""

    about: str
    severity: FindingState
    found: str
    mend: str | None


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that went without a goodbye. started: RFC 3339, by its clock."""

    mapping: str
    replica: str
    host: str
    started: str


class Replica(Report, frozen=True, kw_only=True):
    """A live replica's report. answers: false when the replica is frozen, cut off, or died just now."""

    answers: bool


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The whole overview.

    time: when it was made, UTC. exit_code: 0 all well, 1 something needs a look, 4 no store. store: the status of
    the member with the longest log; null when none answers. conflicts: how many losing sides are kept.
    leases_held_up: leases held for long. stale: why replicas could not be asked for a new report, so that each is
    shown by its last one; else null.
    """

    time: str
    exit_code: int
    store: MemberStatus | None
    endpoints: tuple[Endpoint, ...]
    mappings: tuple[MappingRow, ...]
    needs: tuple[Need, ...]
    replicas: tuple[Replica, ...]
    gone: tuple[Gone, ...]
    conflicts: int
    leases_held_up: tuple[str, ...]
    stale: str | None


def overview_of(facts: OverviewFacts, verdict: Judgement) -> Overview:
    """Return the overview for programs."""
    everyone = [(each, True) for each in facts.reports] + [(each, False) for each in facts.late]
    return Overview(
        time=f"{datetime.fromtimestamp(facts.now, UTC):%Y-%m-%dT%H:%M:%SZ}",
        exit_code=verdict.exit_code,
        store=max(facts.statuses, key=lambda status: status.raft_index, default=None),
        endpoints=tuple(_endpoint(each.url, each.status) for each in facts.endpoints),
        mappings=verdict.rows,
        needs=tuple(
            Need(about=each.check, severity=each.state, found=each.found, mend=each.mend or None)
            for each in verdict.needs
        ),
        replicas=tuple(
            replica_of(each, answers=answers)
            for each, answers in sorted(everyone, key=lambda one: (one[0].mapping, one[0].replica))
        ),
        gone=tuple(
            Gone(mapping=each.mapping, replica=each.replica, host=each.host, started=each.time)
            for each in facts.gone
        ),
        conflicts=sum(facts.conflicts.values()),
        leases_held_up=tuple(map(str, facts.held_up)),
        stale=facts.stale or None,
    )


def replica_of(report: Report, *, answers: bool) -> Replica:
    """Return a replica's report for programs."""
    return Replica(**{name: getattr(report, name) for name in report.__struct_fields__}, answers=answers)


def _endpoint(url: str, status: object) -> Endpoint:
    answers = isinstance(status, MemberStatus)
    return Endpoint(url=url, answers=answers, reason=None if answers else str(getattr(status, "reason", "")))
