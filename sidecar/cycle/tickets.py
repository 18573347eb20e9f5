"""Orders from other threads to the engine's thread: each is done by a cycle that began after it was given."""

import threading
from collections.abc import Callable


class Tickets:
    """Numbered orders of one kind.

    issued: the number of the last one that was given. The engine's thread reads it before a cycle, and gives it
    back to `finish` after the cycle, so that a cycle which had begun already finishes no order.
    """

    def __init__(
        self, condition: threading.Condition, *, wake: Callable[[], None], ended: Callable[[], bool]
    ) -> None:
        """Take what the engine's thread is driven by.

        condition: guards the numbers, and is notified of each change and of the end. wake: wakes the thread.
        ended: returns whether the thread is to end, after which nobody waits any more.
        """
        self.issued = 0
        self._finished = 0
        self._condition = condition
        self._wake = wake
        self._ended = ended

    def issue(self) -> int:
        """Give an order and return its number; from any thread."""
        with self._condition:
            self.issued += 1
            self._wake()
            return self.issued

    def wait(self, number: int, patience: float) -> bool:
        """Wait until an order is done, at most `patience` seconds; returns whether it is. From any thread."""
        with self._condition:
            self._condition.wait_for(lambda: self.is_finished(number) or self._ended(), patience)
            return self.is_finished(number)

    def is_finished(self, number: int) -> bool:
        """Return whether all orders up to a number are done; from any thread."""
        return self._finished >= number

    def finish(self, number: int) -> None:
        """Note that all orders up to a number are done."""
        with self._condition:
            self._finished = number
            self._condition.notify_all()
