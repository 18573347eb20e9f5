"""The clock for ages and silences: nobody sets it, and it goes on while the machine is suspended.

`time.monotonic` stops during a suspend, so a virtual machine that was resumed would count an hour's silence as
none. The time of day is for people only.
"""

import time


def boottime() -> float:
    """Return the seconds since the machine was started, those of a suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def span(seconds: float) -> str:
    """Return a length of time as text, in the largest unit of which it has two or more, such as `90 minutes`."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
