"""Judges the facts of an overview: the state of each mapping, and what needs a person. Pure.

Equal problems are folded into one finding for all replicas and paths with the same reason. Failures come first.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from configstore.clock import span
from configstore.doctor import cluster, keyrings, reach
from configstore.doctor import facts as doctor
from configstore.doctor.finding import Finding, FindingState, fail, warn
from configstore.model.grouping import grouped
from configstore.model.keys import removal, shown_key
from configstore.model.path import printable, shell_word
from configstore.model.phrases import counted, first_of
from configstore.model.replica import MappingState, Report
from configstore.overview.facts import OverviewFacts

NAMED = 3
"""Replicas, or paths, that a finding names; of more it gives the number."""

APART = 10.0
"""Seconds by which a replica's clock may differ; the request and its answer take a part of them."""

_HASTY = "so many at once: is etcd slow, or the network between? Look again"

_LONG = 60.0
"""Seconds for which an edit may wait without a known reason."""

_FROZEN = (
    "the sidecar is frozen, cut off from etcd, or died within the last minute: look at its container and its log"
)

_OF_0_1 = "it is of configstore 0.1, which later commands cannot ask: replace its image to finish the upgrade"
"""Since 0.2 a report has a version, and commands ask at another place of the store."""


class MappingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One mapping. expected: how many replicas there should be; the other figures are of the live ones.

    state: the worst state of a replica. paths: the largest number of a replica. behind: the largest number of
    newer records that a replica has not applied. pending: how many edits wait, in all replicas; pending_seconds:
    how long the oldest has waited.
    """

    mapping: str
    store: str
    state: str
    ready: int
    expected: int
    paths: int
    behind: int
    pending: int
    pending_seconds: float


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict. exit_code: 0 all well, 1 something needs a look, 4 no store."""

    exit_code: int
    rows: tuple[MappingRow, ...]
    needs: tuple[Finding, ...]


def judge(facts: OverviewFacts) -> Judgement:
    """Return the state of each mapping, and what needs a person, failures first."""
    needs = sorted(_needs(facts), key=lambda need: need.state is not FindingState.FAIL)
    unreachable = not facts.statuses or (facts.cut_off is not None and facts.cut_off.exit_code == 4)
    return Judgement(
        exit_code=4 if unreachable else int(bool(needs)), rows=tuple(_rows(facts)), needs=tuple(needs)
    )


_WORST = ("silent", "halted", "waiting", "starting", "degraded", "ready")


def _rows(facts: OverviewFacts) -> Iterator[MappingRow]:
    late = {(each.mapping, each.replica) for each in facts.late}
    everyone = [*facts.reports, *facts.late]
    gone = Counter(each.mapping for each in facts.gone)
    for name in sorted({each.mapping for each in everyone} | gone.keys()):
        here = [each for each in everyone if each.mapping == name]
        words = {"silent" if (each.mapping, each.replica) in late else each.word for each in here}
        yield MappingRow(
            mapping=name,
            store=here[0].store if here else "",
            state=next((word for word in _WORST if word in words), "gone"),
            ready=sum(each.state is MappingState.READY for each in facts.reports if each.mapping == name),
            expected=len(here) + gone[name],
            paths=max((each.paths for each in here), default=0),
            behind=max((each.behind for each in here), default=0),
            pending=sum(each.pending for each in here),
            pending_seconds=max((each.pending_seconds for each in here), default=0.0),
        )


def _needs(facts: OverviewFacts) -> Iterator[Finding]:
    yield from _store(facts)
    yield from _silent(facts)
    yield from _gone(facts)
    yield from _stopped(facts.reports)
    yield from _problems((*facts.reports, *facts.late))
    yield from keyrings.lacking(facts.reports)
    yield from _waiting(facts.reports)
    for lease in facts.held_up:
        yield warn(f"lease {lease.name}", lease.found, lease.mend)
    if facts.conflicts:
        count = sum(facts.conflicts.values())
        found = f"{counted(count, 'losing side')} of conflicts: {_some(sorted(map(str, facts.conflicts)))}"
        yield warn("conflicts", found, "`configstore conflicts` shows them, `configstore resolve PATH` ends one")
    for key, why in facts.unread.items():
        yield warn("reports", f"{shown_key(key)}: no report: {why}", f"`{removal(key)}` removes it")
    yield from _versions(facts.reports)
    yield from _clocks(facts)


def _store(facts: OverviewFacts) -> Iterator[Finding]:
    """Judge the store by the doctor's rules, without those that are for the doctor only: versions, plain http."""
    known = doctor.Facts(
        now=facts.now,
        root="",
        endpoints=facts.endpoints,
        cut_off=facts.cut_off if facts.cut_off and facts.cut_off.exit_code == 4 else None,
    )
    refused = msgspec.structs.replace(
        known, endpoints=tuple(each for each in facts.endpoints if each.http.refusal)
    )
    plain = msgspec.structs.replace(known, endpoints=tuple(map(_without_latency, facts.endpoints)))
    for each in (
        *(each for each in reach.endpoints(plain) if each.mend != reach.SEE_TLS),
        *reach.tls(refused),
        *_certificates(facts),
        *reach.clock(known),
        *cluster.members(known),
        *cluster.alarms(known),
        *cluster.space(known),
    ):
        unseen = each.state is FindingState.WARN and "could not be seen" in each.found
        if each.state is not FindingState.OK and not unseen:
            yield msgspec.structs.replace(each, check="store")
    if facts.empty and not any(each.lost or each.held for each in (*facts.reports, *facts.late)):
        mend = (
            "is `root` right? A fresh store: `configstore import` or `bootstrap`; one that was wiped: restore"
            " etcd's snapshot"
        )
        yield warn("store", f"nothing lies below {printable(facts.root)}", mend)
    if facts.cut_off and facts.cut_off.exit_code != 4:
        mend = "`configstore doctor` with the same settings says more"
        yield fail("store", f"it cannot be read: {facts.cut_off.reason}", mend, facts.cut_off.exit_code)


def _certificates(facts: OverviewFacts) -> Iterator[Finding]:
    servers = [(f"the certificate of {each.url}", each.http.certificate) for each in facts.endpoints]
    for what, validity in (*servers, ("the certificate that is shown to etcd", facts.client_certificate)):
        if validity and validity.ends_soon(facts.now):
            day = f"{datetime.fromtimestamp(validity.end, UTC):%Y-%m-%d}"
            left = max(0, int((validity.end - facts.now) // 86400))
            words = f"ended on {day}" if validity.end <= facts.now else f"ends on {day} (days left: {left})"
            yield warn("store", f"{what} {words}", reach.RENEW)


def _without_latency(endpoint: doctor.EndpointAnswer) -> doctor.EndpointAnswer:
    return msgspec.structs.replace(endpoint, latency=0.0)  # only the doctor judges how fast a member is


def _silent(facts: OverviewFacts) -> Iterator[Finding]:
    """Yield the sidecars that did not answer, each once for all of its mappings."""
    of_each = grouped(facts.late, lambda report: report.name)
    alike: dict[tuple[str, str], list[Report]] = {}
    for reports in of_each.values():
        mend = _FROZEN if reports[0].version else _OF_0_1
        alike.setdefault((_joined(each.mapping for each in reports), mend), []).extend(reports)
    for (about, mend), reports in alike.items():
        found = f"{_names(reports)}: no answer; it was {_joined(each.word for each in reports)}"
        yield warn(about, found, _HASTY) if facts.hasty else fail(about, found, mend, 1)


def _gone(facts: OverviewFacts) -> Iterator[Finding]:
    """Yield the replicas that went without a goodbye, each once for all of its mappings."""
    replicas = grouped(facts.gone, lambda each: (each.replica, each.host))
    for about, whose in grouped(replicas, lambda who: _joined(each.mapping for each in replicas[who])).items():
        named = _some([f"{replica}@{host}" for replica, host in whose])
        found = f"{named}: went without a goodbye, and {'has' if len(whose) == 1 else 'have'} not come back"
        which = shell_word(whose[0][0]) if len(whose) == 1 else "ID"
        mend = (
            "it was killed, its host is away, or it is cut off from etcd: start it, or look there; one that is not"
            f" to come back: `configstore replicas forget {which}`"
        )
        yield fail(about, found, mend, 1)


def _stopped(reports: Iterable[Report]) -> Iterator[Finding]:
    """Yield the replicas that are not ready, those with the same reason together."""
    stopped = [each for each in reports if each.state is not MappingState.READY]
    holders = [each for each in reports if each.held]
    alike = grouped(stopped, lambda each: (each.mapping, each.state, _reason(each, holders)))
    for (mapping, state, reason), whose in alike.items():
        named = _some([f"{each.name} {state}" for each in whose])
        found = f"{named}: {printable(reason)}"
        yield fail(mapping, found, "", 1) if state is MappingState.HALTED else warn(mapping, found)


def _reason(report: Report, holders: Sequence[Report]) -> str:
    """Return why a replica is not ready. One without files has to wait for a replica that still holds them."""
    same = [each for each in holders if each.mapping == report.mapping]
    if report.lost and not report.held and same:
        named = _some([f"{each.replica} ({each.held} files)" for each in same])
        return f"holds no files of what the store has lost; leave it: it is filled again from {named}"
    return report.reason or "first cycle under way"


def _problems(reports: Iterable[Report]) -> Iterator[Finding]:
    """Yield the problems of paths and of whole replicas: one finding for all with the same reason."""
    count: dict[tuple[str, str], int] = {}
    whose: dict[tuple[str, str], list[Report]] = {}
    paths: dict[tuple[str, str], dict[str, None]] = {}
    for report in reports:
        named: Counter[str] = Counter()
        for problem in report.problems:
            key = (report.mapping, problem.reason)
            named[problem.reason] += 1
            if problem.path:
                paths.setdefault(key, {})[problem.shown(report.store)] = None
        alike = {each.reason: each.count for each in report.alike} or dict(named)
        if (unnamed := report.problem_count - sum(alike.values())) > 0:
            alike[_UNNAMED] = unnamed
        for reason, number in alike.items():
            key = (report.mapping, reason)
            count[key] = max(count.get(key, 0), number)
            whose.setdefault(key, []).append(report)
    for (mapping, reason), number in sorted(count.items(), key=lambda each: -each[1]):
        here = list(paths.get((mapping, reason), ()))
        where = _some(here, max(number, len(here))) if here else ""
        found = f"{_names(whose[mapping, reason])}: {f'{where}: ' if where else ''}{printable(reason)}"
        yield warn(mapping, found)


def _waiting(reports: Iterable[Report]) -> Iterator[Finding]:
    """Yield edits that have waited for long without any known reason."""
    slow = [
        each
        for each in reports
        if each.state is MappingState.READY and not each.problem_count and each.pending_seconds > _LONG
    ]
    for mapping, whose in grouped(slow, lambda each: each.mapping).items():
        count, longest = sum(each.pending for each in whose), max(each.pending_seconds for each in whose)
        found = f"{_names(whose)}: {counted(count, 'edit')} on the way for {span(longest)}, and nothing says why"
        yield warn(mapping, found, "look at the sidecar's log; `configstore flush MAPPING` says what it waits for")


_UNNAMED = "more problems, of kinds too many to be named: see the sidecar's log"


def _versions(reports: Sequence[Report]) -> Iterator[Finding]:
    versions = sorted({each.version for each in reports if each.version}, key=_numbers)
    old = [each for each in reports if each.version and each.version != versions[-1]]
    if old:
        has = _joined(sorted({each.version for each in old}, key=_numbers))
        found = f"{_names(old)}: older than the others: configstore {has}, not {versions[-1]}"
        yield warn("versions", found, "finish the upgrade: replace their sidecars' image")


def _numbers(version: str) -> list[tuple[bool, int, str]]:
    """Return a sort key for versions; it accepts any text."""
    parts = re.findall(r"[0-9]{1,9}|[^0-9.]+", version)
    numbers = [(each.isdecimal(), int(each) if each.isdecimal() else 0, each) for each in parts]
    return [*numbers, (True, -1, "")]  # 1.0rc1 < 1.0 < 1.0.1


def _clocks(facts: OverviewFacts) -> Iterator[Finding]:
    """Judge the replicas' clocks by their new reports: no decision depends on clocks, but people read times."""
    off: dict[str, list[Report]] = {}
    for each in () if facts.stale else facts.reports:
        try:
            ahead = datetime.fromisoformat(each.time).timestamp() - facts.now
        except ValueError:
            continue
        if abs(ahead) > APART:
            side = "ahead of" if ahead > 0 else "behind"
            off.setdefault(f"about {span(abs(ahead))} {side} this machine's", []).append(each)
    for words, whose in off.items():
        found = f"{_names(whose)}: the clock is {words}: times in a history mislead"
        yield warn("clocks", found, "run an NTP client on both; nothing but what people read depends on it")


def _names(reports: Iterable[Report]) -> str:
    """Return the names of the first few replicas, each once."""
    return _some(list(dict.fromkeys(each.name for each in reports)))


def _some(names: Sequence[str], total: int | None = None) -> str:
    return first_of(names, NAMED, total=total)


def _joined(words: Iterable[str]) -> str:
    """Return words with commas, each once."""
    return ", ".join(dict.fromkeys(words))
