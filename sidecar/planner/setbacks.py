"""Paths that failed pause, each for itself and longer each time, while the rest of the mapping goes on.

All times are readings of the caller's monotonic clock, in seconds. Owned by the engine.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from configstore.model.path import StorePath

FIRST, LONGEST = 0.1, 5.0
"""Seconds of the second pause, which doubles, and of the longest; the first try is repeated at once."""


class Setbacks:
    """How often each path failed in a row, and until when it pauses."""

    def __init__(self) -> None:
        self._failed: dict[StorePath, tuple[int, float]] = {}
        self._fresh: set[StorePath] = set()  # failed since it was last asked when to try again

    def failed(self, paths: Iterable[StorePath], now: float) -> None:
        """Note a failure of each path."""
        for path in paths:
            count = self._failed.get(path, (0, 0.0))[0] + 1
            pause = 0.0 if count == 1 else min(LONGEST, FIRST * 2.0 ** min(count - 2, 16))
            self._failed[path] = count, now + pause
            self._fresh.add(path)

    def over(self, paths: Iterable[StorePath]) -> None:
        """Forget the failures of paths that succeeded, or of which the store told something new."""
        for path in paths:
            self._failed.pop(path, None)

    def pausing(self, now: float) -> AbstractSet[StorePath]:
        """Return the paths that pause now."""
        return {path for path, (_, until) in self._failed.items() if until > now}

    def repeated(self) -> AbstractSet[StorePath]:
        """Return the paths that failed more than a few times in a row."""
        return {path for path, (count, _) in self._failed.items() if count > 3}

    def until_next(self, now: float) -> float | None:
        """Return the seconds until the next path may be tried again; None when none pauses.

        One that failed just now is due even if its pause is over already, but only once: it must not be asked for
        all the time while something else keeps it from being tried.
        """
        fresh, self._fresh = self._fresh, set()
        due = (until for path, (_, until) in self._failed.items() if until > now or path in fresh)
        return min((max(0.0, until - now) for until in due), default=None)
