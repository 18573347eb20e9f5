"""Retries of single paths: a path that fails waits longer each time, while all others go on.

All times are readings of the caller's monotonic clock, in seconds. Owned by the engine.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from configstore.model.path import StorePath

FIRST, LONGEST = 0.1, 5.0
"""Seconds: the first pause, and the longest; each is twice as long as the one before. The first retry has none."""


class Backoff:
    """How often each path failed in a row, and until when it pauses."""

    def __init__(self) -> None:
        self._failed: dict[StorePath, tuple[int, float]] = {}
        self._fresh: set[StorePath] = set()  # failed since the last call of `until_next`

    def failed(self, paths: Iterable[StorePath], now: float) -> None:
        """Note a failure of each path."""
        for path in paths:
            count = self._failed.get(path, (0, 0.0))[0] + 1
            pause = 0.0 if count == 1 else min(LONGEST, FIRST * 2.0 ** min(count - 2, 16))
            self._failed[path] = count, now + pause
            self._fresh.add(path)

    def succeeded(self, paths: Iterable[StorePath]) -> None:
        """Forget the failures of paths that were synchronised."""
        for path in paths:
            self._failed.pop(path, None)

    def pausing(self, now: float) -> AbstractSet[StorePath]:
        """Return the paths that pause now."""
        return {path for path, (_, until) in self._failed.items() if until > now}

    def repeated(self) -> AbstractSet[StorePath]:
        """Return the paths that failed more than three times in a row."""
        return {path for path, (count, _) in self._failed.items() if count > 3}

    def until_next(self, now: float) -> float | None:
        """Return the seconds until the next path may be tried again; None when none pauses.

        A path that just failed is due even if its pause is over, but only once: else something that keeps it from
        being tried would make every cycle due at once.
        """
        fresh, self._fresh = self._fresh, set()
        due = (until for path, (_, until) in self._failed.items() if until > now or path in fresh)
        return min((max(0.0, until - now) for until in due), default=None)
