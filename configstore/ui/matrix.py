"""The table of mappings and replicas on the page: pure, from reports and the records' revisions.

What needs a person is judged by `overview.judge`; this table adds how far each replica is. Called by `pages`.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from configstore.model.grouping import grouped
from configstore.model.path import StorePath
from configstore.model.replica import ExpectedReplica, MappingState, Report

NAMED = 12
"""Replicas of a mapping that the overview names; those with problems come first."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of a mapping: its state as a colour (`mood`: `good`, `warn`, `bad`), a word and a sentence."""

    replica: str
    host: str
    mood: str
    word: str
    more: str
    serves: bool = False
    report: Report | None = None


class MatrixRow(msgspec.Struct, frozen=True, kw_only=True):
    """One mapping; or, with an empty name, a subtree that no live replica mirrors."""

    mapping: str
    store: StorePath
    cells: tuple[Cell, ...]
    paths: int
    newest: int

    @property
    def mood(self) -> str:
        """The worst mood of its replicas."""
        return min((cell.mood for cell in self.cells), key=_MOODS.index, default="warn")

    @property
    def ready(self) -> int:
        """How many replicas are known to serve it."""
        return sum(each.serves for each in self.cells)

    @property
    def named(self) -> tuple[Cell, ...]:
        """The replicas that the overview names."""
        return self.cells[:NAMED]

    @property
    def unnamed(self) -> str:
        """How many of the other replicas are in which state; "" without others."""
        rest = self.cells[NAMED:]
        count = Counter(each.word for each in rest)
        return "and " + ", ".join(f"{number} {word}" for word, number in count.items()) if rest else ""


_MOODS = ("bad", "warn", "good")


def rows(
    reports: Iterable[Report],
    gone: Iterable[ExpectedReplica],
    silent: Collection[tuple[str, str]],
    revisions: Callable[[StorePath], Sequence[int]],
    subtrees: Iterable[StorePath],
    *,
    blind: bool,
) -> list[MatrixRow]:
    """Return a row for each mapping, by name, and one for each subtree that none of them mirrors.

    revisions: returns the mod_revisions of all records below a directory, sorted. blind: the store is silent, so
    the rows show the last known state.
    """
    by_mapping = grouped(reports, lambda report: (report.mapping, report.store))
    missing = grouped(gone, lambda each: each.mapping)
    found = []
    for (mapping, store), here in sorted(by_mapping.items()):
        below = revisions(store)
        newest = below[-1] if below else 0
        cells = [
            _cell(each, silent, len(below) - bisect_right(below, each.revision), blind=blind) for each in here
        ]
        cells += [_gone(each) for each in missing.pop(mapping, ())]
        cells.sort(key=lambda cell: (_MOODS.index(cell.mood), cell.replica))
        paths = max(each.paths for each in here)
        found.append(MatrixRow(mapping=mapping, store=store, cells=tuple(cells), paths=paths, newest=newest))
    for mapping, those in sorted(missing.items()):
        cells = [_gone(each) for each in those]
        found.append(MatrixRow(mapping=mapping, store=StorePath(""), cells=tuple(cells), paths=0, newest=0))
    mirrored = [store for _, store in by_mapping]
    for subtree in subtrees:
        if not any(store == subtree or store.startswith(f"{subtree}/") or not store for store in mirrored):
            below = revisions(subtree)
            found.append(
                MatrixRow(mapping="", store=subtree, cells=(), paths=len(below), newest=below[-1] if below else 0)
            )
    return found


def _cell(report: Report, silent: Collection[tuple[str, str]], behind: int, *, blind: bool) -> Cell:
    is_silent = (report.mapping, report.replica) in silent
    mood, word, more = _how(report, silent=is_silent, behind=behind)
    serves = report.state is MappingState.READY and not is_silent and not blind
    if blind:
        mood, word, more = "warn", f"was {word}", f"as it was known last: {more}"
    return Cell(
        replica=report.replica, host=report.host, mood=mood, word=word, more=more, serves=serves, report=report
    )


def _how(report: Report, *, silent: bool, behind: int) -> tuple[str, str, str]:
    """Return mood, word and sentence: those of the first row of the table that applies."""
    count, problems = report.problem_count, "problem" if report.problem_count == 1 else "problems"
    table = (
        (silent, "bad", "silent", f"does not answer; it was {report.word}"),
        (report.state is MappingState.HALTED, "bad", "halted", report.reason),
        (
            report.state is not MappingState.READY,
            "warn",
            str(report.state),
            report.reason or "its first cycle is under way",
        ),
        (
            bool(behind),
            "warn",
            f"stale, {behind} behind",
            f"has not said yet that it has {behind} newer {'record' if behind == 1 else 'records'}",
        ),
        (bool(count), "warn", "degraded", f"{count} {problems}; all else is fresh"),
        (bool(report.pending), "warn", f"{report.pending} to send", "edits made there wait to travel"),
        (True, "good", "fresh", f"has everything up to revision {report.revision}"),
    )
    return next((mood, word, more) for applies, mood, word, more in table if applies)


def _gone(each: ExpectedReplica) -> Cell:
    words = "went without a goodbye, and has not come back"
    return Cell(replica=each.replica, host=each.host, mood="bad", word="gone", more=words)
