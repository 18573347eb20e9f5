"""What the figures tell of that lies outside: conflicts in the store, and when certificates end.

A thread looks at both from time to time, and soon after a conflict was lost here, so that no request of
`/metrics` waits for the store or for a disk. Other news are no reason to look: each replica has those of every
change. Made by the daemon where there is a health endpoint.
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
from sidecar.mapping import Mapping
from sidecar.reporting.metrics import Sample

LOOK = 30.0
"""Seconds between two looks where nothing happens."""

PAUSE = 5.0
"""Seconds between two looks at least."""

MOST = 10_000
"""Losing sides of one mapping that are counted; the store keeps 20 of a path."""

_LARGEST = 4 << 20
"""Bytes of a file of certificates that are read."""


class _FileValidity(msgspec.Struct, frozen=True):
    """When the certificates of a file end, and by what it is known that it is still the same file."""

    signature: tuple[int, int, int]
    validity: Validity | None


class GaugeCollector:
    """The thread that looks, and what it saw last."""

    def __init__(
        self,
        kv: Kv,
        settings: StoreSettings,
        mappings: Sequence[Mapping],
        lost: Callable[[], object] = lambda: 0,
    ) -> None:
        """`lost` returns what differs whenever more was lost here in conflicts; from any thread, and cheap."""
        self._kv = kv
        self._keys = Keys(settings.root)
        self._mappings = mappings
        self._lost = lost
        self._lost_then = lost()
        named = {"cacert": settings.cacert, "cert": settings.cert} if settings.tls else {}
        self._files = {name: path for name, path in named.items() if path}
        self._ends: dict[str, _FileValidity] = {}
        self._conflicts: dict[str, int] = {}
        self._stop = threading.Event()
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="outside", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; what is under way ends by itself."""
        self._stop.set()
        self._news.set()

    def wake(self) -> None:
        """Have a look soon if more was lost here since the last one; from any thread, and cheap."""
        if self._lost() != self._lost_then:
            self._news.set()

    def samples(self) -> Iterator[Sample]:
        """Yield what was seen last, from any thread; nothing of what could not be seen yet."""
        for name, path in self._files.items():
            seen = self._ends.get(name)
            if seen and seen.validity:
                yield Sample("certificate_begin_timestamp_seconds", (name, path), seen.validity.begin)
                yield Sample("certificate_expiry_timestamp_seconds", (name, path), seen.validity.end)
        for mapping, count in sorted(self._conflicts.copy().items()):
            yield Sample("conflicts", (mapping,), count)

    def troubles(self) -> list[str]:
        """Return which certificates end soon, in words with the mend; from any thread."""
        now = time.time()
        known = [(name, each.validity) for name, each in self._ends.copy().items() if each.validity]
        return [
            f"the certificate in {printable(self._files[name])} ({name}) "
            + ("has ended" if each.end <= now else f"ends in {span(each.end - now)}")
            + ": renew it, by `configstore access apply` or where it came from; it is read again by itself"
            for name, each in known
            if each.ends_soon(now)
        ]

    def look(self) -> None:
        """Look at everything once. A store that does not answer leaves what was known of it."""
        self._lost_then = self._lost()
        for name, path in self._files.items():
            self._look_at(name, path)
        for mapping in self._mappings:
            try:
                self._conflicts[mapping.name] = self._count(mapping)
            except StoreUnavailableError:
                return
            except ConfigstoreError:  # such as a right that is missing: nothing is known of it any more
                self._conflicts.pop(mapping.name, None)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._news.clear()
            self.look()
            if not self._stop.wait(PAUSE):
                self._news.wait(LOOK - PAUSE)

    def _look_at(self, name: str, path: str) -> None:
        """Read a file again if it was changed; one that is gone, or cannot be read, has no end to tell of."""
        try:
            # Of authorities one is enough: a bundle of them may hold some that ended long ago.
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
        paths = conflict_paths(self._kv, self._keys, mapping.store)
        mine = (path for path in paths if mapping.selects(relative_to(path, mapping.store), is_dir=False))
        return sum(1 for _ in islice(mine, MOST))
