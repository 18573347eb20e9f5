"""The clock for ages and silences: one that nobody sets, and that goes on while the machine is suspended.

`time.monotonic` stands still then: a laptop or a virtual machine that woke up would take an hour's silence for
none. The time of day is for people only.
"""

import time


def boottime() -> float:
    """Return the seconds since the machine was started, those in which it was suspended included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def span(seconds: float) -> str:
    """Return a length of time for people, in the largest unit of which it has two or more: `90 minutes`."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
