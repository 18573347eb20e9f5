"""The reports of live replicas, read once and then followed by a watch: for commands that wait for replicas.

Reading all reports again and again instead would cost etcd as many answers as there are replicas, each time.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec

from configstore.errors import StoreError
from configstore.model.path import StorePath
from configstore.model.replica import Ask, Report
from configstore.model.untrusted import UntrustedError
from configstore.store.api import Batch, Item
from configstore.store.follower import Follower
from configstore.store.replicas import Everyone, asking, everyone, read_report, report_items
from configstore.store.store import Store

CHECK_CLIENT = 1.0
"""Seconds between two checks whether the client that waits is still there."""

PATIENCE = 2.0
"""Seconds that replicas have to answer. One that does not is frozen, cut off, or died less than a minute ago."""

MANY = 20
"""Replicas. If more of them are late, they are not waited for until PATIENCE ends; a few are."""

QUIET = 0.5
"""Seconds without any answer after which more than MANY late replicas are not waited for."""


class Reports:
    """A context manager, to be used by one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._found: dict[bytes, tuple[Report, int]] = {}  # by key, with the mod_revision
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._failure: StoreError | None = None
        self._follower: Follower

    def __enter__(self) -> Self:
        """Read all reports, and follow them. Raises StoreError."""
        self._follower = Follower(
            self._store, self._store.keys.replicas(), "reports", read=self._read_again, take=self._take
        )
        self._follower.start(self._read())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread."""
        self._follower.close(None)

    def now(self) -> list[Report]:
        """Return the last report of each live replica. Raises StoreError when they could not be read again."""
        return [report for report, _ in self._current()]

    def late(self, revision: int) -> int:
        """Return how many of them were not written after a revision of the store. Raises StoreError likewise."""
        return sum(at <= revision for _, at in self._current())

    def _current(self) -> list[tuple[Report, int]]:
        self._changed.clear()
        if self._failure:
            raise self._failure
        with self._lock:
            return list(self._found.values())

    def read_again(self) -> list[Report]:
        """Return what is in the store now, even where the watch has not reported it yet. Raises StoreError."""
        found, _ = self._list()  # not kept: the follower's thread may still take older changes
        return [report for report, _ in found.values()]

    def wait(self, seconds: float) -> None:
        """Wait until something has changed since `now`, at most so many seconds."""
        self._changed.wait(seconds)

    def _read_again(self) -> int:
        try:
            revision, self._failure = self._read(), None
        except StoreError as error:
            self._failure = error
            raise
        finally:
            self._changed.set()
        return revision

    def _read(self) -> int:
        found, revision = self._list()
        with self._lock:
            self._found = found
        return revision

    def _list(self) -> tuple[dict[bytes, tuple[Report, int]], int]:
        items, revision = report_items(self._store)
        known = ((item, self._report(item)) for item in items)
        return {item.key: (report, item.mod_revision) for item, report in known if report}, revision

    def _take(self, batch: Batch) -> None:
        with self._lock:
            for event in batch.events:
                self._found.pop(event.item.key, None)
                if not event.deleted and (report := self._report(event.item)):
                    self._found[event.item.key] = report, event.item.mod_revision
        if batch.events:
            self._changed.set()

    def _report(self, item: Item) -> Report | None:
        if not self._store.keys.is_expected(item.key):
            with suppress(UntrustedError):
                return read_report(self._store.keys, item)
        return None


def wait_for(
    store: Store,
    left: Callable[[Iterable[Report]], list[Report]],
    *,
    patience: float,
    pause: Callable[[float], None] = time.sleep,
) -> list[Report]:
    """Wait until `left` returns none of the live replicas' reports; after `patience` seconds return what it does.

    pause: called with 0 about once a second; an exception of it ends the wait. Raises StoreError.
    """
    end = time.monotonic() + patience
    with Reports(store) as reports:
        while found := left(reports.now()):
            more = end - time.monotonic()
            if more <= 0:
                return left(reports.read_again())
            pause(0.0)
            reports.wait(min(CHECK_CLIENT, more))
    return found


def wait_applied(
    store: Store,
    subtree: StorePath,
    *,
    revision: int,
    patience: float,
    pause: Callable[[float], None] = time.sleep,
) -> list[Report]:
    """Wait until every live replica of a subtree has applied a revision; return the reports of the late ones.

    A replica that is frozen or cut off is among them until its session ends. pause: see `wait_for`. Raises
    StoreError.
    """

    def late(reports: Iterable[Report]) -> list[Report]:
        return [each for each in reports if each.store == subtree and each.revision < revision]

    with asking(store, Ask(id=uuid.uuid4().hex, revision=revision)):
        return wait_for(store, late, patience=patience, pause=pause)


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """The reports of replicas that were asked.

    fresh: those that answered. late: the last reports of those that did not, without replaced ones.
    hasty: so many were late that they were not waited for.
    """

    fresh: list[Report]
    late: list[Report]
    everyone: Everyone
    hasty: bool = False


def ask_reports(store: Store, patience: float = PATIENCE) -> Answers:
    """Ask all live replicas to report, and wait at most `patience` seconds for their answers. Raises StoreError.

    While more than MANY are late, the wait ends once none has answered for QUIET seconds.
    """
    with Reports(store) as reports:
        if not reports.now():
            return Answers(fresh=[], late=[], everyone=everyone(store))
        with asking(store, Ask(id=uuid.uuid4().hex)) as asked:
            hasty = _await_newer(reports, asked, patience)
            found = everyone(store)
    replaced = found.replaced(store.keys)
    return Answers(
        fresh=[report for report, at in found.live.values() if at > asked],
        late=[report for key, (report, at) in found.live.items() if at <= asked and key not in replaced],
        everyone=found,
        hasty=hasty,
    )


def _await_newer(reports: Reports, revision: int, patience: float) -> bool:
    """Wait until all reports are newer than a revision; returns whether too many were late to be waited for."""
    end, late, quiet_at = time.monotonic() + patience, -1, 0.0
    while True:
        before, late = late, reports.late(revision)
        now = time.monotonic()
        quiet_at = now + QUIET if late != before else quiet_at
        if late > MANY and now >= quiet_at:
            return True
        if not late or now >= end:
            return False
        reports.wait((min(end, quiet_at) if late > MANY else end) - now)
