"""Figures that no engine has: conflicts in the store, and when certificates end.

A thread reads both from time to time, and soon after a conflict was lost here, so that no request of `/metrics`
waits for the store or for a disk. No other change has it read: every replica sees each change of the store, and
all of them would count at once. Made by `daemon.parts` where there is a health endpoint.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import msgspec

from configstore.clock import span
from configstore.errors import ConfigstoreError, StoreUnavailableError
from configstore.expiry import Validity, first_to_end, last_to_end
from configstore.model.keys import Keys
from configstore.model.path import printable, relative_to
from configstore.settings import StoreSettings
from configstore.store.api import Kv
from configstore.store.conflicts import conflict_paths
from configstore.store.store import Store
from sidecar.mapping import Mapping
from sidecar.reporting.metrics import Sample

PERIOD = 30.0
"""Seconds between two readings where nothing happens."""

PAUSE = 5.0
"""Seconds between two readings at least."""

MOST = 10_000
"""Losing sides of one mapping that are counted at most; the store keeps 20 of a path."""

_LARGEST = 4 << 20
"""Bytes of a file of certificates that are read at most."""


class _FileValidity(msgspec.Struct, frozen=True):
    """When the certificates of a file end, and the signature by which an unchanged file is known."""

    signature: tuple[int, int, int]
    validity: Validity | None


class GaugeCollector:
    """The thread that reads, and the figures that it found last."""

    def __init__(
        self,
        kv: Kv,
        settings: StoreSettings,
        mappings: Sequence[Mapping],
        lost: Callable[[], object] = lambda: 0,
    ) -> None:
        """`lost` returns another value after each conflict that was lost here; from any thread, and cheap."""
        self._store = Store(kv, Keys(settings.root))
        self._mappings = mappings
        self._lost = lost
        self._lost_then = lost()
        named = {"cacert": settings.cacert, "cert": settings.cert} if settings.tls else {}
        self._files = {name: path for name, path in named.items() if path}
        self._ends: dict[str, _FileValidity] = {}
        self._conflicts: dict[str, int] = {}
        self._stop = threading.Event()
        self._due = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="gauges", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Have the thread end after what it is doing; nothing waits for it."""
        self._stop.set()
        self._due.set()

    def wake(self) -> None:
        """Have the figures read soon if a conflict was lost here meanwhile; from any thread, and cheap."""
        if self._lost() != self._lost_then:
            self._due.set()

    def samples(self) -> Iterator[Sample]:
        """Yield the figures found last, from any thread; none of what could not be read."""
        for name, path in self._files.items():
            seen = self._ends.get(name)
            if seen and seen.validity:
                yield Sample("certificate_begin_timestamp_seconds", (name, path), seen.validity.begin)
                yield Sample("certificate_expiry_timestamp_seconds", (name, path), seen.validity.end)
        for mapping, count in sorted(self._conflicts.copy().items()):
            yield Sample("conflicts", (mapping,), count)

    def notes(self) -> list[str]:
        """Return a sentence for each file whose certificates end soon, with the mend; from any thread."""
        now = time.time()
        known = [(name, each.validity) for name, each in self._ends.copy().items() if each.validity]
        return [
            f"the certificate in {printable(self._files[name])} ({name}) "
            + ("has ended" if each.end <= now else f"ends in {span(each.end - now)}")
            + ": renew it, by `configstore access apply` or where it came from; it is read again by itself"
            for name, each in known
            if each.ends_soon(now)
        ]

    def read(self) -> None:
        """Read everything once; while the store does not answer, the last figures stay."""
        self._lost_then = self._lost()
        for name, path in self._files.items():
            self._read_file(name, path)
        for mapping in self._mappings:
            try:
                self._conflicts[mapping.name] = self._count(mapping)
            except StoreUnavailableError:
                return
            except ConfigstoreError:  # such as a missing right: an old figure would pass for a current one
                self._conflicts.pop(mapping.name, None)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._due.clear()
            self.read()
            if not self._stop.wait(PAUSE):
                self._due.wait(PERIOD - PAUSE)

    def _read_file(self, name: str, path: str) -> None:
        """Read a file if it was changed; without one that can be read there is no figure."""
        try:
            # One valid authority is enough: a bundle of them may contain some that ended long ago.
            which = last_to_end if name == "cacert" else first_to_end
            with open(path, "rb") as file:
                found = os.fstat(file.fileno())
                signature = (found.st_ino, found.st_mtime_ns, found.st_size)
                before = self._ends.get(name)
                if before is None or before.signature != signature:
                    self._ends[name] = _FileValidity(signature, which(file.read(_LARGEST)))
        except OSError:
            self._ends.pop(name, None)

    def _count(self, mapping: Mapping) -> int:
        """Return how many losing sides there are of what a mapping selects. Raises StoreError."""
        paths = conflict_paths(self._store, mapping.store)
        mine = (path for path in paths if mapping.selects(relative_to(path, mapping.store), is_dir=False))
        return sum(1 for _ in islice(mine, MOST))
