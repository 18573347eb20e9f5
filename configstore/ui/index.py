"""The part of the store that the page keeps in memory: headers of records, replicas' reports, the last sets.

Only `monitor` changes it; `pages` and `matrix` read it. No content is kept, so none can be sent by mistake.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from configstore.model.grouping import grouped
from configstore.model.path import ROOT, StorePath, is_below
from configstore.model.record import Origin
from configstore.model.replica import Report
from configstore.store.values import Stored, UnreadableRecord

SETS = 200
"""Sets that are remembered of those seen since the start."""


class SeenSet(msgspec.Struct, frozen=True, kw_only=True):
    """A set that one transaction wrote: its revision, writer and paths. seen: it was written since the start.

    after: seconds until every live replica of its subtree reported it as applied, an upper bound; None while
    unknown. awaited: replicas were asked to report that.
    """

    revision: int
    origin: Origin
    paths: tuple[StorePath, ...]
    deleted: int
    seen: bool = False
    awaited: bool = False
    after: float | None = None


class Index:
    """The index. Its methods may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[StorePath, Stored] = {}
        self._bad: dict[str, UnreadableRecord] = {}
        self._reports: dict[bytes, tuple[Report, int]] = {}
        self._unread: dict[bytes, str] = {}
        self._seen: deque[SeenSet] = deque(maxlen=SETS)
        self._arrived: dict[int, float] = {}
        self._drawn: tuple[SeenSet, ...] | None = None
        self.since = time.time()
        self.revision = 0

    def load(self, revision: int, records: Iterable[Stored | UnreadableRecord]) -> None:
        """Replace all records by those that the store has at a revision."""
        found = tuple(records)
        with self._lock:
            self._records = {each.path: without_content(each) for each in found if isinstance(each, Stored)}
            self._bad = {each.path: each for each in found if isinstance(each, UnreadableRecord)}
            self.revision = revision
            self._drawn = None
            if self._seen and self._seen[-1].revision > revision:  # the store is another one, or was restored
                self._seen.clear()

    def load_reports(self, reports: Mapping[bytes, tuple[Report, int] | str]) -> None:
        """Replace all reports, by key; a str says why a report cannot be read."""
        with self._lock:
            self._reports = {key: each for key, each in reports.items() if not isinstance(each, str)}
            self._unread = {key: each for key, each in reports.items() if isinstance(each, str)}
            self._measure()

    def add_set(
        self,
        revision: int,
        written: Iterable[Stored | UnreadableRecord],
        vanished: Iterable[str],
        *,
        awaited: bool,
    ) -> None:
        """Add what one transaction wrote, and what vanished without a tombstone.

        awaited: replicas are asked to report it, so that the time until then can be measured.
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

    def put_report(self, key: bytes, report: tuple[Report, int] | str | None) -> bool:
        """Add a replica's report, why it cannot be read (str), or its end (None); return whether that is new."""
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
        """Measure each awaited set that the last replica of its subtree has reported now."""
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
        """Return why reports cannot be read, by key."""
        with self._lock:
            return dict(self._unread)

    def below(self, directory: StorePath) -> list[Stored]:
        """Return all records of a directory and below it, sorted by path."""
        with self._lock:
            found = [
                each for path, each in self._records.items() if path == directory or is_below(path, directory)
            ]
        return sorted(found, key=lambda each: each.path)

    def bad_below(self, directory: StorePath) -> list[UnreadableRecord]:
        """Return the unreadable records below a directory."""
        with self._lock:
            return [each for path, each in self._bad.items() if is_below(StorePath(path), directory)]

    def sets(self, limit: int, directory: StorePath = ROOT) -> list[SeenSet]:
        """Return the last sets, newest first: those seen since the start, and earlier ones taken from the records.

        An earlier set is missing once all of its paths were written again.
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
        newest = set(heapq.nlargest(SETS, {each.mod_revision for each in records}))
        groups = grouped((each for each in records if each.mod_revision in newest), lambda each: each.mod_revision)
        found = {revision: _change(revision, group) for revision, group in groups.items()} | seen
        ordered = [found[revision] for revision in sorted(found, reverse=True)]
        if directory == ROOT:
            with self._lock:
                self._drawn = tuple(ordered[:SETS])
        return ordered[:limit]


def concerns(directory: StorePath, paths: Iterable[StorePath]) -> bool:
    """Return whether any path lies in a directory."""
    return any(path == directory or is_below(path, directory) for path in paths)


def without_age(report: Report) -> Report:
    """Return a report without the fields that differ in every report."""
    return msgspec.structs.replace(report, time="", pending_seconds=0.0)


def without_content(found: Stored) -> Stored:
    """Return a record with its header only."""
    if found.record.content is None:
        return found
    return msgspec.structs.replace(found, record=msgspec.structs.replace(found.record, content=None))


def _change(revision: int, group: list[Stored]) -> SeenSet:
    return SeenSet(
        revision=revision,
        origin=group[0].record.origin,
        paths=tuple(sorted(each.path for each in group)),
        deleted=sum(each.gone for each in group),
    )
