"""The clock that leases are reckoned on."""

import time


def boottime() -> float:
    """Return seconds on a clock that nobody sets and that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
