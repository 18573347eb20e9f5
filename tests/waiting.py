"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_until(condition: Callable[[], Found], deadline: float = 10.0, *, what: str = "") -> Found:
    """Return the condition's first true value; fail after `deadline` seconds, saying what was waited for."""
    end = time.monotonic() + deadline
    pause = threading.Event()
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline} s: {what or getattr(condition, '__name__', condition)}")
        pause.wait(0.005)
