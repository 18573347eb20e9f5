"""The screen of `status` as lines: the store, a row for each mapping, what needs a person. No input or output."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import msgspec

from configstore.cli.render import Cell, Style, paint, table_lines
from configstore.clock import span
from configstore.doctor.facts import EndpointAnswer
from configstore.doctor.finding import Finding, some
from configstore.doctor.finding import FindingState as Grade
from configstore.model.grouping import grouped
from configstore.model.path import printable
from configstore.model.phrases import mib
from configstore.overview.facts import OverviewFacts
from configstore.overview.judge import Judgement, MappingRow
from configstore.store.api import MemberStatus

SHOWN = 12
"""The most findings on the screen; `--all` shows all."""

LONGEST = 600
"""The most characters of a finding; `--all` shows all."""


def screen(
    facts: OverviewFacts, verdict: Judgement, *, width: int | None, styled: bool, every: bool = False
) -> Iterator[str]:
    """Yield the lines of the screen. width: of the terminal; None leaves each line as long as it is."""
    for line in _wrapped(f"store  {_store_line(facts)}", width, later=7):
        yield paint(line, Style.STRONG, styled=styled)
    if facts.stale:
        words = f"       replicas are shown as they reported last: {facts.stale}"
        yield from _wrapped(printable(words), width, later=7)
    if verdict.rows:
        yield ""
        yield from table_lines(_HEADERS, list(map(_cells, verdict.rows)), width=width, styled=styled)
    elif facts.statuses and not facts.cut_off:
        yield "no live replica"
    yield ""
    needs = verdict.needs if every else [_shortened(need) for need in verdict.needs[:SHOWN]]
    yield from _need_lines(needs, width, styled=styled)
    if not every and len(verdict.needs) > SHOWN:
        yield f"and {len(verdict.needs) - SHOWN} more: `configstore status --all`"
    if not verdict.needs:
        yield paint("all well", Style.GOOD, styled=styled)
    for line in _choices(facts)[: None if every else SHOWN]:
        yield from _wrapped(line, width)


def _shortened(need: Finding) -> Finding:
    """Return a finding cut to LONGEST: its text may contain what a stranger wrote."""
    found = need.found if len(need.found) <= LONGEST else f"{need.found[:LONGEST]}…"
    return msgspec.structs.replace(need, found=found)


def _choices(facts: OverviewFacts) -> list[str]:
    """Return the last choice of a person for each mapping, with the replicas that carried it out."""
    chosen = (report for report in facts.reports if report.last_choice)
    return [
        printable(f"{mapping}: {some([each.name for each in whose])}: last choice: {choice}")[:LONGEST]
        for (mapping, choice), whose in grouped(chosen, lambda each: (each.mapping, each.last_choice)).items()
    ]


_HEADERS = ("MAPPING", "READY", "STATE", "PATHS", "BEHIND", "WAITING", "FOR")

_STYLES = {"ready": Style.GOOD, "degraded": Style.WARN, "starting": Style.WARN, "waiting": Style.WARN}


def _cells(row: MappingRow) -> list[Cell]:
    style = _STYLES.get(row.state, Style.BAD)
    return [
        row.mapping,
        f"{row.ready} of {row.expected}",
        (row.state.upper() if style is Style.BAD else row.state, style),
        str(row.paths),
        str(row.behind) if row.behind else "-",
        str(row.pending) if row.pending else "-",
        span(row.pending_seconds) if row.pending else "-",
    ]


def _need_lines(needs: Sequence[Finding], width: int | None, *, styled: bool) -> Iterator[str]:
    """Yield the lines of each finding, and one line for the mend below those in a row that share it."""
    for need, following in zip_longest(needs, needs[1:]):
        failed = need.state is Grade.FAIL
        grade = "FAIL" if failed else "warn"
        first, *rest = _wrapped(printable(f"{grade}  {need.check}: {need.found}"), width, later=6)
        yield paint(grade, Style.BAD if failed else Style.WARN, styled=styled) + first[len(grade) :]
        yield from rest
        if need.mend and (following is None or need.mend != following.mend):
            yield from _wrapped(f"      → {printable(need.mend)}", width, later=8)


def _wrapped(text: str, width: int | None, *, later: int = 2) -> list[str]:
    """Return text in lines of at most `width` columns. later: indentation of all lines but the first."""
    if width is None:
        return [text]
    space = " " * later
    return textwrap.wrap(
        text, max(40, width), subsequent_indent=space, break_long_words=False, break_on_hyphens=False
    )


def _store_line(facts: OverviewFacts) -> str:
    """Return the line about the store: which endpoints answer, the leader, version, revision and size."""
    answering = {each.url: each.status for each in facts.endpoints if isinstance(each.status, MemberStatus)}
    if not answering:
        return f"no answer from {_urls(facts.endpoints)}"
    newest = max(answering.values(), key=lambda status: status.raft_index)
    leader = next((url for url, status in answering.items() if status.member_id == newest.leader), "")
    who = [_urls(facts.endpoints)]
    if len(facts.endpoints) > 1:
        who = [f"{len(answering)} of {len(facts.endpoints)} endpoints answer"]
        who += [f"leader {leader}"] if leader else []
    alarms = dict.fromkeys(alarm for status in answering.values() for alarm in status.alarms)
    parts = [
        *who,
        f"etcd {' and '.join(sorted({status.version for status in answering.values()}))}",
        f"revision {facts.revision or newest.revision}",
        mib(newest.db_size),
        *([] if newest.leader else ["without a leader"]),
        *(f"alarm {alarm}" for alarm in alarms),
    ]
    return printable(", ".join(parts))


def _urls(endpoints: Sequence[EndpointAnswer]) -> str:
    return ", ".join(each.url for each in endpoints)
