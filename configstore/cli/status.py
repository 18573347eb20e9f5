"""`status`: the one screen. How the store and each mapping are, and what needs a person, with what to type."""

import argparse
import textwrap
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import zip_longest

import msgspec

from configstore.cli.arguments import Commands, add_command, store_settings
from configstore.cli.render import (
    Cell,
    Style,
    is_styled,
    paint,
    table_lines,
    terminal_width,
    write_json,
    write_text,
)
from configstore.cli.session import warn_of_misspelt_variables
from configstore.doctor.facts import Endpoint
from configstore.doctor.finding import Finding
from configstore.doctor.finding import State as Grade
from configstore.model.path import printable
from configstore.model.replica import Report
from configstore.overview.facts import Facts
from configstore.overview.gather import gather
from configstore.overview.judge import Row, Verdict, judge
from configstore.store.api import Status

SHOWN = 12
"""How many findings the screen has; `--all` shows every one."""

PAUSE = 2.0
"""Seconds between two looks of `--watch`."""


def add(commands: Commands) -> None:
    """Add the parser."""
    words = (
        "show the store, the mappings and what needs a person; exit code 0 all well, 1 needs a look, 4 no store"
    )
    status = add_command(commands, "status", _status, words, listed=True)
    status.add_argument("--all", action="store_true", help=f"show everything that needs a look, not {SHOWN} only")
    status.add_argument(
        "--watch", action="store_true", help="look again and again until stopped; piped: when it changed"
    )


def _status(args: argparse.Namespace) -> int:
    settings = store_settings(args)
    warn_of_misspelt_variables()
    shown: object = None
    while True:
        facts = gather(settings)
        verdict = judge(facts)
        news = (verdict.exit_code, [(row.mapping, row.state, row.ready, row.expected) for row in verdict.rows],
                [(need.check, need.found) for need in verdict.needs])  # fmt: skip
        if not args.watch or terminal_width() or news != shown:
            shown = news
            _show(facts, verdict, args)
        if not args.watch:
            return verdict.exit_code
        time.sleep(PAUSE)


def _show(facts: Facts, verdict: Verdict, args: argparse.Namespace) -> None:
    if args.json:
        write_json(as_json(facts, verdict), indent=0 if args.watch else 2)
        return
    width, styled = terminal_width(), is_styled()
    lines = "\n".join(screen(facts, verdict, width=width, styled=styled, every=args.all))
    home = "\x1b[H\x1b[2J" if args.watch and width else ""
    write_text(f"{home}{lines}")


def screen(
    facts: Facts, verdict: Verdict, *, width: int | None, styled: bool, every: bool = False
) -> Iterator[str]:
    """Yield the lines of the screen. width: of the terminal; None leaves each line as long as it is."""
    yield paint(f"store  {_store_line(facts)}", Style.STRONG, styled=styled)
    if facts.stale:
        yield f"       replicas are shown as they reported last: {printable(facts.stale)}"
    if verdict.rows:
        yield ""
        yield from table_lines(_HEADERS, list(map(_cells, verdict.rows)), width=width, styled=styled)
    elif facts.statuses and not facts.cut_off:
        yield "no live replica"
    yield ""
    yield from _need_lines(verdict.needs if every else verdict.needs[:SHOWN], width, styled=styled)
    if not every and len(verdict.needs) > SHOWN:
        yield f"and {len(verdict.needs) - SHOWN} more: `configstore status --all`"
    if not verdict.needs:
        yield paint("all well", Style.GOOD, styled=styled)
    for report in facts.reports:
        if report.last_choice:
            who = f"{report.replica}@{printable(report.host)}"
            yield from _wrapped(f"{report.mapping}: {who}: last choice: {printable(report.last_choice)}", width)


_HEADERS = ("MAPPING", "READY", "STATE", "PATHS", "BEHIND", "WAITING", "FOR")

_STYLES = {"ready": Style.GOOD, "degraded": Style.WARN, "starting": Style.WARN, "waiting": Style.WARN}


def _cells(row: Row) -> list[Cell]:
    return [
        row.mapping,
        f"{row.ready} of {row.expected}",
        (row.state, _STYLES.get(row.state, Style.BAD)),
        str(row.paths),
        str(row.behind) if row.behind else "-",
        str(row.pending) if row.pending else "-",
        f"{row.pending_seconds:.0f} s" if row.pending else "-",
    ]


def _need_lines(needs: Sequence[Finding], width: int | None, *, styled: bool) -> Iterator[str]:
    """Yield each finding, and below those that follow each other with the same mend one line for that."""
    for need, following in zip_longest(needs, needs[1:]):
        failed = need.state is Grade.FAIL
        grade = "FAIL" if failed else "warn"
        first, *rest = _wrapped(f"{grade}  {need.check}: {need.found}", width, later=6)
        yield paint(grade, Style.BAD if failed else Style.WARN, styled=styled) + first[len(grade) :]
        yield from rest
        if need.mend and (following is None or need.mend != following.mend):
            yield from _wrapped(f"      → {printable(need.mend)}", width, later=8)


def _wrapped(text: str, width: int | None, *, later: int = 2) -> list[str]:
    """Return text in lines of at most `width` columns; later: by how much all but the first are indented."""
    if width is None:
        return [text]
    space = " " * later
    return textwrap.wrap(
        text, max(40, width), subsequent_indent=space, break_long_words=False, break_on_hyphens=False
    )


def _store_line(facts: Facts) -> str:
    """Return one line: who answers, who leads, of which version and size."""
    answering = {each.url: each.status for each in facts.endpoints if isinstance(each.status, Status)}
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
        f"{newest.db_size / 2**20:.1f} MiB",
        *([] if newest.leader else ["without a leader"]),
        *(f"alarm {alarm}" for alarm in alarms),
    ]
    return printable(", ".join(parts))


def _urls(endpoints: Sequence[Endpoint]) -> str:
    return ", ".join(each.url for each in endpoints)


def as_json(facts: Facts, verdict: Verdict) -> dict[str, object]:
    """Return everything for programs."""
    statuses = facts.statuses
    late = {(each.mapping, each.replica) for each in facts.late}
    everyone = sorted([*facts.reports, *facts.late], key=lambda each: (each.mapping, each.replica))
    newest = max(statuses, key=lambda status: status.raft_index, default=None)
    return {
        "time": f"{datetime.fromtimestamp(facts.now, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "exit_code": verdict.exit_code,
        "store": msgspec.to_builtins(newest) if newest else None,
        "endpoints": [
            {
                "url": each.url,
                "answers": isinstance(each.status, Status),
                "reason": None if isinstance(each.status, Status) else each.status.reason,
            }
            for each in facts.endpoints
        ],
        "mappings": msgspec.to_builtins(verdict.rows),
        "needs": [
            {"about": each.check, "severity": each.state, "found": each.found, "mend": each.mend or None}
            for each in verdict.needs
        ],
        "replicas": [fields(each, silent=(each.mapping, each.replica) in late) for each in everyone],
        "gone": [
            {"mapping": each.mapping, "replica": each.replica, "host": each.host, "started": each.time}
            for each in facts.gone
        ],
        "conflicts": sum(facts.conflicts.values()),
        "leases_held_up": list(map(str, facts.held_up)),
        "reports_as_of_last_change": facts.stale or None,
    }


def fields(report: Report, *, silent: bool) -> dict[str, object]:
    """Return a replica's report for programs."""
    found = msgspec.to_builtins(report)
    del found["v"], found["session"]
    return {**found, "answers": not silent}
