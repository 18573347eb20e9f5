"""What the page keeps in memory of the store: headers without content, the replicas' reports, the last sets.

Changed by `watching` alone, read by pages, under one lock. No content is kept: what is not here cannot be sent.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from configstore.model.path import ROOT, StorePath, is_below
from configstore.model.record import Origin
from configstore.model.replica import Report
from configstore.store.values import Stored, UnreadableRecord

SETS = 200
"""How many sets are remembered that were seen since the start."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What was written in one transaction: at which revision, by whom, and which paths; `seen`: since our start.

    after: seconds until every live replica concerned had said that it has it, an upper bound; None while unknown.
    awaited: it will be known.
    """

    revision: int
    origin: Origin
    paths: tuple[StorePath, ...]
    deleted: int
    seen: bool = False
    awaited: bool = False
    after: float | None = None


class Index:
    """Safe for use by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[StorePath, Stored] = {}
        self._bad: dict[str, UnreadableRecord] = {}
        self._reports: dict[bytes, tuple[Report, int]] = {}
        self._unread: dict[bytes, str] = {}
        self._seen: deque[Change] = deque(maxlen=SETS)
        self._arrived: dict[int, float] = {}
        self._drawn: tuple[Change, ...] | None = None
        self.since = time.time()
        self.revision = 0

    def begin(self, revision: int, records: Iterable[Stored | UnreadableRecord]) -> None:
        """Take all records that the store has at a revision, in place of what was known."""
        found = tuple(records)
        with self._lock:
            self._records = {each.path: without_content(each) for each in found if isinstance(each, Stored)}
            self._bad = {each.path: each for each in found if isinstance(each, UnreadableRecord)}
            self.revision = revision
            self._drawn = None
            if self._seen and self._seen[-1].revision > revision:  # another store than before
                self._seen.clear()

    def begin_reports(self, reports: Mapping[bytes, tuple[Report, int] | str]) -> None:
        """Take all reports likewise; of what is none, why."""
        with self._lock:
            self._reports = {key: each for key, each in reports.items() if not isinstance(each, str)}
            self._unread = {key: each for key, each in reports.items() if isinstance(each, str)}
            self._measure()

    def take(
        self,
        revision: int,
        written: Iterable[Stored | UnreadableRecord],
        vanished: Iterable[str],
        *,
        awaited: bool,
    ) -> None:
        """Take what one transaction wrote, and what vanished without a tombstone.

        awaited: replicas are asked to say when they have it, so that it can be told how long that took.
        """
        good = []
        with self._lock:
            for each in written:
                if isinstance(each, UnreadableRecord):
                    self._bad[each.path] = each
                    self._records.pop(StorePath(each.path), None)
                    continue
                self._bad.pop(each.path, None)
                self._records[each.path] = without_content(each)
                good.append(each)
            for name in vanished:
                self._records.pop(StorePath(name), None)
                self._bad.pop(name, None)
            if good:
                self._seen.append(msgspec.structs.replace(_change(revision, good), seen=True, awaited=awaited))
                if awaited:
                    self._arrived[revision] = time.monotonic()
            self.revision = max(self.revision, revision)
            self._drawn = None
            self._measure()

    def hear(self, key: bytes, report: tuple[Report, int] | str | None) -> bool:
        """Take a replica's report, what is none (why), or its end (None); tell whether it says something new."""
        with self._lock:
            before = self._reports.pop(key, None)
            was_unread = self._unread.pop(key, None)
            if isinstance(report, str):
                self._unread[key] = report
                return was_unread != report
            if report is None:
                return before is not None or was_unread is not None
            self._reports[key] = report
            self._measure()
            return before is None or without_age(before[0]) != without_age(report[0])

    def _measure(self) -> None:
        """Note of sets that were seen when the last replica concerned said that it has them."""
        now = time.monotonic()
        for at, each in enumerate(self._seen):
            arrived = self._arrived.get(each.revision)
            if arrived is None:
                continue
            concerned = [report for report, _ in self._reports.values() if concerns(report.store, each.paths)]
            if concerned and all(report.revision >= each.revision for report in concerned):
                self._seen[at] = msgspec.structs.replace(each, after=now - arrived)
                del self._arrived[each.revision]
                self._drawn = None
        if len(self._arrived) > SETS:
            self._arrived.pop(min(self._arrived))

    def reports(self) -> dict[bytes, tuple[Report, int]]:
        """Return the live replicas' reports with the revision of each, by key."""
        with self._lock:
            return dict(self._reports)

    def unread(self) -> dict[bytes, str]:
        """Return what lies among the reports and is none, by key, with the reason."""
        with self._lock:
            return dict(self._unread)

    def record(self, path: StorePath) -> Stored | UnreadableRecord | None:
        """Return what lies at a path, without its content."""
        with self._lock:
            return self._records.get(path) or self._bad.get(path)

    def below(self, directory: StorePath) -> list[Stored]:
        """Return all records of a directory and below it, sorted by path."""
        with self._lock:
            found = [
                each for path, each in self._records.items() if path == directory or is_below(path, directory)
            ]
        return sorted(found, key=lambda each: each.path)

    def bad_below(self, directory: StorePath) -> list[UnreadableRecord]:
        """Return what cannot be read there."""
        with self._lock:
            return [each for path, each in self._bad.items() if is_below(StorePath(path), directory)]

    def sets(self, limit: int, directory: StorePath = ROOT) -> list[Change]:
        """Return the last sets, the newest first: those that were seen, and what the records say of earlier ones.

        A set before our start whose paths were all written again since is in no record any more.
        """
        with self._lock:
            if directory == ROOT and self._drawn is not None:
                return list(self._drawn[:limit])
            records = [
                each for path, each in self._records.items() if directory == ROOT or is_below(path, directory)
            ]
            seen = {
                each.revision: each for each in self._seen if directory == ROOT or concerns(directory, each.paths)
            }
        groups: dict[int, list[Stored]] = {}
        newest = set(heapq.nlargest(SETS, {each.mod_revision for each in records}))
        for each in records:
            if each.mod_revision in newest:
                groups.setdefault(each.mod_revision, []).append(each)
        found = {revision: _change(revision, group) for revision, group in groups.items()} | seen
        ordered = [found[revision] for revision in sorted(found, reverse=True)]
        if directory == ROOT:
            with self._lock:
                self._drawn = tuple(ordered[:SETS])
        return ordered[:limit]


def concerns(directory: StorePath, paths: Iterable[StorePath]) -> bool:
    """Tell whether any path lies in a directory."""
    return any(path == directory or is_below(path, directory) for path in paths)


def without_age(report: Report) -> Report:
    """Return a report without what every new one says differently."""
    return msgspec.structs.replace(report, time="", pending_seconds=0.0)


def without_content(found: Stored) -> Stored:
    """Return a record's header alone."""
    if found.record.content is None:
        return found
    return msgspec.structs.replace(found, record=msgspec.structs.replace(found.record, content=None))


def _change(revision: int, group: list[Stored]) -> Change:
    return Change(
        revision=revision,
        origin=group[0].record.origin,
        paths=tuple(sorted(each.path for each in group)),
        deleted=sum(each.gone for each in group),
    )
