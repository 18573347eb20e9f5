"""The times that a mapping waits for: until a set is quiet, until deletes are complete, until the next full scan.

All times are readings of the caller's monotonic clock, in seconds. Owned by `local.side`, in the engine's thread.
"""

from sidecar.mapping import Mapping

DOUBT = 2.0
"""Seconds until a comparison that found changes unknown to the watch is repeated: the watch may only be late."""

MAX_SETTLE = 1.0
"""Seconds after which a set is closed that never becomes quiet."""

MAX_DELETE_SETTLE = 5.0
"""Seconds after which deletes are sent although more are being made."""

REHASH = 600.0
"""Seconds between two scans that read every file again, whatever its time and size say."""


class SetWindow:
    """Decides which local changes belong together: those that are noticed while one set is open.

    The set opens with its first change. It closes after `settle` quiet seconds, or after MAX_SETTLE seconds (more
    where `settle` is longer) without any quiet.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._longest = max(MAX_SETTLE, settle)
        self._first = self._last = 0.0
        self._restless = 0.0  # since when there was no quiet
        self._count = 0
        self.is_open = False

    @property
    def number(self) -> int:
        """Number of the open set, from 1; 0 while none is open."""
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
        """Return whether the set is quiet, or closes without that; true while none is open."""
        return not self.is_open or now - self._last >= self._settle or self.tired(now)

    def tired(self, now: float) -> bool:
        """Return whether the set closes although it never became quiet."""
        return self.is_open and now - self._restless >= self._longest

    def overdue(self, now: float) -> bool:
        """Return whether the set no longer waits for a file that is open for writing.

        It must be quiet all the same, since what was just changed may be half of a change.
        """
        return self.is_open and now - self._first >= self._longest

    def close(self) -> None:
        """Close the set: what is noticed from now on belongs to another one."""
        self.is_open = False

    def until_settled(self, now: float) -> float:
        """Return the seconds until the set is settled if nothing more is noticed."""
        return max(0.0, min(self._last + self._settle, self._restless + self._longest) - now)

    def until_overdue(self, now: float) -> float:
        """Return the seconds until the set no longer waits for open files."""
        return max(0.0, self._first + self._longest - now)


class DeleteWindow:
    """Decides when deletes may be sent: once no more were made for `settle` seconds. Other changes delay nothing.

    number: of the current or last deletion; a new one begins when no delete was noticed for `settle` seconds.
    gone_before: how many paths it has deleted in earlier cycles, since it took longer than the window.
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
        """Note that `count` deletes were sent. Deletes that follow within `settle` belong to the same deletion."""
        self._first = now
        self.gone_before += count

    def settled(self, now: float) -> bool:
        """Return whether deletes may be sent."""
        return now - self._last >= self._settle or now - self._first >= self._longest

    def until_settled(self, now: float) -> float:
        """Return the seconds until deletes may be sent if no more are made."""
        return max(0.0, min(self._last + self._settle, self._first + self._longest) - now)


class RescanSchedule:
    """When everything is scanned, read and compared again, in case an event was lost."""

    def __init__(self, mapping: Mapping, now: float) -> None:
        self._rescan = mapping.rescan
        self._next_full = self._next_verify = now + mapping.rescan
        self._next_rehash = now + REHASH

    def full_scan_due(self, now: float) -> bool:
        """Return whether it is time for a full scan."""
        return now >= self._next_full

    def rehash_due(self, now: float) -> bool:
        """Return whether it is time to read every file again."""
        return now >= self._next_rehash

    def scanned(self, now: float, *, rehashed: bool) -> None:
        """Note that a full scan was made."""
        self._next_full = now + self._rescan
        if rehashed:
            self._next_rehash = now + REHASH

    def verify_due(self, now: float) -> bool:
        """Return whether it is time to compare the store with what its watch reported."""
        return now >= self._next_verify

    def verified(self, now: float, *, sure: bool) -> None:
        """Note that the store was compared with what its watch reported. sure: false repeats that after DOUBT."""
        self._next_verify = now + (self._rescan if sure else DOUBT)

    def until_next(self, now: float) -> float:
        """Return the seconds until the next full scan or comparison."""
        return max(0.0, min(self._next_full, self._next_verify) - now)
