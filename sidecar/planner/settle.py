"""The windows that a mapping waits for: a set to settle, deletes to be seen as a whole, the next full scan.

All times are readings of the caller's monotonic clock, in seconds. Owned by the engine's local side.
"""

from sidecar.mapping import Mapping

DOUBT = 2.0
"""Seconds that a change may be in the store before a watch that has not told of it has lost it."""

MAX_SETTLE = 1.0
"""Seconds after which a set is closed that never becomes quiet."""

MAX_DELETE_SETTLE = 5.0
"""Seconds after which deletes go out although more are made all the time."""

REHASH = 600.0
"""Seconds between two looks that read every file again, whatever its time and size say."""


class SetWindow:
    """The set that is being changed: what is noticed while it is open belongs together.

    Its clock starts with its first change. `number` tells one set from another; 0 is none.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._longest = max(MAX_SETTLE, settle)
        self._first = self._last = 0.0
        self._restless = 0.0  # since when it was never quiet
        self._count = 0
        self.is_open = False

    @property
    def number(self) -> int:
        """Number of the set that is open, 0 while none is."""
        return self._count if self.is_open else 0

    def noticed(self, now: float) -> None:
        """Note a change; it opens a set when none is open."""
        if not self.is_open:
            self.is_open = True
            self._first = self._restless = now
            self._count += 1
        elif now - self._last >= self._settle:
            self._restless = now
        self._last = now

    def settled(self, now: float) -> bool:
        """Tell whether the set is complete, be it because it never gets quiet; true while none is open."""
        return not self.is_open or now - self._last >= self._settle or self.tired(now)

    def tired(self, now: float) -> bool:
        """Tell whether the set is closed although it never gets quiet."""
        return self.is_open and now - self._restless >= self._longest

    def overdue(self, now: float) -> bool:
        """Tell whether the set has waited long enough for a file that is open for writing.

        It must be quiet all the same: what was changed meanwhile may be the half of something.
        """
        return self.is_open and now - self._first >= self._longest

    def close(self) -> None:
        """End the set: what is noticed from now on belongs to another."""
        self.is_open = False

    def until_settled(self, now: float) -> float:
        """Return the seconds until the set is complete, should nothing more be noticed."""
        return max(0.0, min(self._last + self._settle, self._restless + self._longest) - now)

    def until_overdue(self, now: float) -> float:
        """Return the seconds until the set waits for no open file any more."""
        return max(0.0, self._first + self._longest - now)


class DeleteWindow:
    """Deletes that wait until no more are made; nothing else that happens in the mapping delays them.

    number: of the deletion that goes on, or was the last; one begins where none was noticed for the settle time.
    gone_before: how many paths it has deleted already, because it took longer than the window.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._longest = max(MAX_DELETE_SETTLE, settle)
        self._first = self._last = float("-inf")
        self.number = 0
        self.gone_before = 0

    def noticed(self, now: float) -> None:
        """Note that something was deleted."""
        if now - self._last >= self._settle:
            self._first = now
            self.number += 1
            self.gone_before = 0
        self._last = now

    def sent(self, count: int, now: float) -> None:
        """Note that so many deletes went out; those that follow at once are of the same deletion."""
        self._first = now
        self.gone_before += count

    def settled(self, now: float) -> bool:
        """Tell whether deletes may travel."""
        return now - self._last >= self._settle or now - self._first >= self._longest

    def until_settled(self, now: float) -> float:
        """Return the seconds until deletes may travel, should no more be made."""
        return max(0.0, min(self._last + self._settle, self._first + self._longest) - now)


class Rounds:
    """What is looked at again from time to time, should an event have been lost."""

    def __init__(self, mapping: Mapping, now: float) -> None:
        self._rescan = mapping.rescan
        self._next_full = self._next_verify = now + mapping.rescan
        self._next_rehash = now + REHASH

    def full_scan_due(self, now: float) -> bool:
        """Tell whether it is time to look at everything."""
        return now >= self._next_full

    def rehash_due(self, now: float) -> bool:
        """Tell whether it is time to read every file again."""
        return now >= self._next_rehash

    def scanned(self, now: float, *, rehashed: bool) -> None:
        """Note that everything was looked at."""
        self._next_full = now + self._rescan
        if rehashed:
            self._next_rehash = now + REHASH

    def verify_due(self, now: float) -> bool:
        """Tell whether it is time to compare the store with what its watch told."""
        return now >= self._next_verify

    def verified(self, now: float, *, sure: bool) -> None:
        """Note that the store was compared with what its watch told; when not `sure`, it is done again soon."""
        self._next_verify = now + (self._rescan if sure else DOUBT)

    def until_next(self, now: float) -> float:
        """Return the seconds until the next of them."""
        return max(0.0, min(self._next_full, self._next_verify) - now)
