"""The reports of live replicas as they change: read once, then followed by a watch. For those who wait for them.

Who reads all of them again and again reads as many a second as there are replicas, times how often.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

from configstore.errors import StoreError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.replica import Ask, Report
from configstore.model.untrusted import UntrustedError
from configstore.store.api import Kv, Watch, range_all
from configstore.store.replicas import asking, read_report

LOOK = 1.0
"""Seconds between two looks whether whoever waits is still there."""

AGAIN = 0.2
"""Seconds until a watch that ended by itself is begun again, with a listing."""


class Reports:
    """A context manager; to be used by one thread."""

    def __init__(self, kv: Kv, keys: Keys) -> None:
        self._kv = kv
        self._keys = keys
        self._found: dict[bytes, Report] = {}
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._watch: Watch | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin. Raises StoreError."""
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._end()

    def now(self) -> list[Report]:
        """Return the last report of each live replica. Raises StoreError."""
        self._changed.clear()
        if self._thread and not self._thread.is_alive():
            self._begin()
        with self._lock:
            return list(self._found.values())

    def read_again(self) -> list[Report]:
        """Return what lies in the store now, whatever the watch told. Raises StoreError."""
        self._end()
        self._begin()
        return self.now()

    def wait(self, seconds: float) -> None:
        """Wait until something has changed since `now`, at most so long."""
        self._changed.wait(seconds)
        if self._thread and not self._thread.is_alive():
            threading.Event().wait(min(seconds, AGAIN))

    def _begin(self) -> None:
        found, revision = {}, 0
        start, end = self._keys.replicas()
        for page in range_all(self._kv, start, end):
            revision = revision or page.revision
            for item in page.items:
                if not self._keys.is_expected(item.key):
                    with suppress(UntrustedError):
                        found[item.key] = read_report(self._keys, item)
        self._found = found
        watch = self._watch = self._kv.watch(start, end, start_revision=revision + 1)
        self._thread = threading.Thread(target=self._follow, args=(watch,), name="reports", daemon=True)
        self._thread.start()

    def _end(self) -> None:
        if self._watch:
            self._watch.close()
        if self._thread:
            self._thread.join()

    def _follow(self, watch: Watch) -> None:
        try:
            for batch in watch:
                with self._lock:
                    for event in batch.events:
                        self._found.pop(event.item.key, None)
                        if not event.deleted and not self._keys.is_expected(event.item.key):
                            with suppress(UntrustedError):
                                self._found[event.item.key] = read_report(self._keys, event.item)
                if batch.events:
                    self._changed.set()
        except StoreError:  # such as a compaction: `now` lists again, and says what it is if it stays
            pass
        finally:
            watch.close()
            self._changed.set()


def wait_for(
    kv: Kv,
    keys: Keys,
    left: Callable[[Iterable[Report]], list[Report]],
    *,
    patience: float,
    pause: Callable[[float], None] = time.sleep,
) -> list[Report]:
    """Wait until nothing is left of the live replicas' reports, by `left`, which is returned after `patience`.

    pause: called about once a second, with 0; what it raises ends the wait. Raises StoreError.
    """
    end = time.monotonic() + patience
    with Reports(kv, keys) as reports:
        while found := left(reports.now()):
            more = end - time.monotonic()
            if more <= 0:
                return left(reports.read_again())
            pause(0.0)
            reports.wait(min(LOOK, more))
    return found


def wait_applied(
    kv: Kv,
    keys: Keys,
    store: StorePath,
    *,
    revision: int,
    patience: float,
    pause: Callable[[float], None] = time.sleep,
) -> list[Report]:
    """Wait until every live replica of a subtree has applied a revision; returns those that have not in time.

    One that is frozen or cut off is among them until its session ends. pause: see `wait_for`. Raises StoreError.
    """

    def late(reports: Iterable[Report]) -> list[Report]:
        return [each for each in reports if each.store == store and each.revision < revision]

    with asking(kv, keys, Ask(id=uuid.uuid4().hex, revision=revision)):
        return wait_for(kv, keys, late, patience=patience, pause=pause)
