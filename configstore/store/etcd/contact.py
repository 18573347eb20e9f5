"""When the store last answered, and why not since. Written by `calls`, `liveness` and `watch`.

Only an answer that needs a majority of etcd's members counts: the answer to a linearizable read or a write, even a
refusal. A single member also answers while it has lost the others, when nobody can work with the store.
"""

import threading
import time
from collections.abc import Callable

from configstore.clock import boottime
from configstore.store.api import Contact

SILENCE = 4.5
"""Seconds without an answer after which the store counts as silent: half a second less than is promised."""


class LastContact:
    """The time of the last answer, and the failures since. Safe for use by several threads."""

    def __init__(
        self, clock: Callable[[], float] = boottime, time_of_day: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._time_of_day = time_of_day
        self._lock = threading.Condition()
        self._heard = clock()  # before the first answer: when this was made
        self._last = 0.0
        self._failures: dict[str, str] = {}

    def answered(self) -> None:
        """Note that the store answered just now."""
        with self._lock:
            self._heard, self._last = self._clock(), self._time_of_day()
            if self._failures:
                self._failures.clear()
                self._lock.notify_all()

    def failed(self, endpoint: str, reason: str, asked: float) -> None:
        """Note why an endpoint did not answer, unless another one answered after this one was asked."""
        with self._lock:
            if asked >= self._heard:
                self._failures[endpoint] = reason

    @property
    def doubtful(self) -> bool:
        """Whether something failed since the last answer."""
        return bool(self._failures)

    def wait_while_doubtful(self, seconds: float, over: Callable[[], bool]) -> bool:
        """Wait until the store answers again, if something failed since it did; returns whether it answers.

        Ends after so many seconds at the latest, and when `over` returns true, which is called after `look_again`.
        """
        end = time.monotonic() + seconds
        with self._lock:
            while self._failures and not over() and (left := end - time.monotonic()) > 0:
                self._lock.wait(left)
            return not self._failures and not over() and time.monotonic() < end

    def look_again(self) -> None:
        """Have waiting threads call their `over`."""
        with self._lock:
            self._lock.notify_all()

    @property
    def heard(self) -> float:
        """The clock's time of the last answer; before the first one, the time when this was made."""
        return self._heard

    def now(self) -> Contact:
        """Return the contact as it is now."""
        with self._lock:
            heard, last, failures = self._heard, self._last, sorted(self._failures.items())
        silent = max(0.0, self._clock() - heard)
        connected = last > 0 and silent < SILENCE
        why = "; ".join(f"{endpoint}: {reason}" for endpoint, reason in failures)
        reason = "" if connected else why or ("nothing was asked since" if last else "not connected yet")
        return Contact(connected=connected, last=last, silent=silent, reason=reason)
