"""The windows that a mapping waits for: a set to settle, deletes to be seen as a whole, the next full scan.

All times are readings of the caller's monotonic clock, in seconds. Owned by the engine.
"""

from sidecar.planner.mapping import Mapping

DOUBT = 2.0
"""Seconds that a change may be in the store before a watch that has not told of it has lost it."""

MAX_SETTLE = 1.0
"""Seconds after which a mapping that never becomes quiet is looked at all the same."""


class Windows:
    """When what was noticed may travel."""

    def __init__(self, mapping: Mapping, now: float) -> None:
        self._mapping = mapping
        self._first_event = self._last_event = now - mapping.settle
        self._last_change = now
        self._last_full = now
        self._next_verify = now + mapping.rescan

    def noticed(self, now: float, *, first: bool) -> None:
        """Note that an event came in; `first`: nothing had waited to be looked at."""
        if first:
            self._first_event = now
        self._last_event = now

    def changed(self, now: float) -> None:
        """Note that a scan found a change."""
        self._last_change = now

    def scanned(self, now: float) -> None:
        """Note that everything was looked at."""
        self._last_full = now

    def verified(self, now: float, *, sure: bool) -> None:
        """Note that the store was compared with what its watch told; when not `sure`, it is done again soon."""
        self._next_verify = now + (self._mapping.rescan if sure else DOUBT)

    def tired(self, now: float) -> bool:
        """Tell whether a set has waited long enough, quiet or not."""
        return now - self._first_event >= max(MAX_SETTLE, self._mapping.settle)

    def settled(self, now: float) -> bool:
        """Tell whether a set is complete, be it because the mapping never gets quiet."""
        return now - self._last_event >= self._mapping.settle or self.tired(now)

    def deletes_settled(self, now: float) -> bool:
        """Tell whether the mapping was quiet for long enough for deletes to travel."""
        return now - self._last_change >= self._mapping.delete_settle

    def full_scan_due(self, now: float) -> bool:
        """Tell whether it is time to look at everything, should an event have been lost."""
        return now - self._last_full >= self._mapping.rescan

    def verify_due(self, now: float) -> bool:
        """Tell whether it is time to compare the store with what its watch told."""
        return now >= self._next_verify

    def until_settled(self, now: float) -> float:
        """Return the seconds until the set is complete, should nothing more come in."""
        return self._last_event + self._mapping.settle - now

    def until_deletes(self, now: float) -> float:
        """Return the seconds until deletes may travel, should nothing more change."""
        return self._last_change + self._mapping.delete_settle - now

    def until_full_scan(self, now: float) -> float:
        """Return the seconds until everything is looked at again."""
        return self._last_full + self._mapping.rescan - now

    def until_verified(self, now: float) -> float:
        """Return the seconds until the store is compared with what its watch told again."""
        return self._next_verify - now
