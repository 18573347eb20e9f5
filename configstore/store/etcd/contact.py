"""When the store last answered, and why not since: what `Kv.contact` tells.

Contact is an answer that needs a majority of etcd's members: to a linearizable read or a write, be it a refusal.
What a single member says of itself, or goes on saying while it has lost the others, is none: nobody can work with
it. Calls and signs of life both note what they hear; any thread may.
"""

import threading
import time
from collections.abc import Callable

from configstore.clock import boottime
from configstore.store.api import Contact

SILENCE = 4.5
"""Seconds without an answer after which the store is said to be away: half a second below what is promised."""


class LastContact:
    """The last answer, and what failed since. Safe for use by several threads."""

    def __init__(
        self, clock: Callable[[], float] = boottime, time_of_day: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._time_of_day = time_of_day
        self._lock = threading.Condition()
        self._heard = clock()  # before the first answer: since when there was none
        self._last = 0.0
        self._failures: dict[str, str] = {}

    def answered(self) -> None:
        """Note that the store answered just now."""
        with self._lock:
            self._heard, self._last = self._clock(), self._time_of_day()
            if self._failures:
                self._failures.clear()
                self._lock.notify_all()

    def failed(self, endpoint: str, words: str, asked: float) -> None:
        """Note why an endpoint did not answer; nothing, when another was heard after this one was asked."""
        with self._lock:
            if asked >= self._heard:
                self._failures[endpoint] = words

    @property
    def doubtful(self) -> bool:
        """Whether something failed since the last answer."""
        return bool(self._failures)

    def wait_while_doubtful(self, seconds: float, over: Callable[[], bool]) -> bool:
        """Wait until the store answers again, if something failed since it did; returns whether it does.

        At most so many seconds, and until `over` is true, of which `look_again` tells.
        """
        end = time.monotonic() + seconds
        with self._lock:
            while self._failures and not over() and (left := end - time.monotonic()) > 0:
                self._lock.wait(left)
            return not self._failures and not over() and time.monotonic() < end

    def look_again(self) -> None:
        """Have those who wait ask whether their waiting is over."""
        with self._lock:
            self._lock.notify_all()

    @property
    def heard(self) -> float:
        """When the store last answered, on the clock; before the first answer, when this was made."""
        return self._heard

    def now(self) -> Contact:
        """Return it as a value."""
        with self._lock:
            heard, last, failures = self._heard, self._last, sorted(self._failures.items())
        silent = max(0.0, self._clock() - heard)
        connected = last > 0 and silent < SILENCE
        why = "; ".join(f"{endpoint}: {words}" for endpoint, words in failures)
        reason = "" if connected else why or ("nothing was asked since" if last else "not connected yet")
        return Contact(connected=connected, last=last, silent=silent, reason=reason)
