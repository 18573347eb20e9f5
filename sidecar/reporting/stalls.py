"""Whether an engine makes progress, or why not. For `/livez`.

An engine that waits for an event, for etcd or for a person is well. It is stuck when a step does not end, whatever
blocks it (a FIFO, a device, a lock), or when cycle follows cycle without a pause and without a result.
"""

import threading
from collections.abc import Callable

STUCK = 45.0
"""Seconds without progress after which an engine is stuck: `/livez` must say so within 60 s."""

PAUSE = 0.2
"""Seconds between two cycles that count as a pause: an engine that waits begins its cycles further apart."""


class StallDetector:
    """Notes the steps of one engine, and judges them from any thread."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._stepped: float | None = None  # when the cycle's last step ended; None between two cycles
        self._ended: float | None = None  # when the last cycle ended
        self._circling: float | None = None  # since when cycle follows cycle without a result
        self._cycles = 0  # how many of these

    def begin(self) -> None:
        """Note that a cycle starts."""
        with self._lock:
            now = self._clock()
            if self._ended is not None and now - self._ended >= PAUSE:
                self._circling, self._cycles = None, 0
            self._stepped = now

    def tick(self) -> None:
        """Note that a step ended, such as one file; cheap: without the lock, since one value is replaced."""
        self._stepped = self._clock()

    def end(self, advanced: bool) -> None:
        """Note that the cycle ended. advanced: whether it pushed, pulled, agreed on or found anything."""
        with self._lock:
            self._stepped, self._ended = None, self._clock()
            if advanced:
                self._circling, self._cycles = None, 0
                return
            if self._circling is None:
                self._circling = self._ended
            self._cycles += 1

    def stuck(self, now: float) -> str | None:
        """Return why the engine makes no progress, or None; from any thread."""
        with self._lock:
            if self._stepped is not None and now - self._stepped > STUCK:
                return (
                    f"{self._name}: one step has taken {now - self._stepped:.0f} s; a file system or a device does"
                    " not answer? It does not end by itself: restart the sidecar"
                )
            last = self._ended  # a cycle that is under way may still have a result
            if self._circling is None or last is None or last - self._circling <= STUCK:
                return None
            if self._stepped is None and now - last >= PAUSE:
                return None
            return (
                f"{self._name}: {self._cycles} cycles in {last - self._circling:.0f} s came to nothing; this is a"
                " fault of configstore: keep its log and restart the sidecar"
            )
