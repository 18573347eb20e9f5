"""The progress of long work as text: count, rate, and time left. For commands, and for a sidecar's log."""

import os
import sys
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

QUIET = 0.5
"""Seconds before the first message: most work is finished by then."""

REDRAWN = 0.2
"""Seconds between two updates of the line on a terminal."""

LINES = 5.0
"""Seconds between two lines in a log or a pipe."""


def words(verb: str, done: int, total: int | None, seconds: float) -> str:
    """Return the progress after `seconds`, with the time that is left at that rate. total: None if unknown."""
    rate = done / seconds if seconds > 0 else 0.0
    shown = f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
    if total is None:
        return f"{done} {verb}, {shown} a second"
    left = f", about {_duration((total - done) / rate)} left" if rate and done < total else ""
    return f"{done} of {total} {verb}{left}, {shown} a second"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


class Pace:
    """Calls `say` with the progress, at most every `every` seconds, and first after `quiet` seconds."""

    def __init__(
        self,
        say: Callable[[str], None],
        verb: str,
        total: int | None = None,
        *,
        every: float = LINES,
        quiet: float = QUIET,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`verb`: what is done to each item, such as `written`. total: the number of items, None if unknown."""
        self.done = 0
        self.total = total
        self._say = say
        self._verb = verb
        self._every = every
        self._clock = clock
        self._began = clock()
        self._next = self._began + quiet

    def step(self, count: int = 1) -> None:
        """Count finished items. Cheap enough for each of them."""
        self.at(self.done + count)

    def at(self, done: int) -> None:
        """Set the number of finished items."""
        self.done = done
        now = self._clock()
        if now >= self._next:
            self._next = now + self._every
            self._say(words(self._verb, done, self.total, now - self._began))


class Progress:
    """A block of work with its progress on stderr: one changing line on a terminal, else a line at a time."""

    def __init__(self, verb: str, total: int | None = None) -> None:
        """`verb`: what is done to each item, such as `written`. total: the number of items, None if unknown."""
        self._live = (
            bool(sys.stderr) and sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in {"", "dumb"}
        )
        self._drawn = False
        self._pace = Pace(self._say, verb, total, every=REDRAWN if self._live else LINES, quiet=QUIET)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the line from the terminal."""
        self.pause()

    def step(self, count: int = 1) -> None:
        """Count finished items."""
        self._pace.step(count)

    def at(self, done: int, total: int | None = None) -> None:
        """Set the number of finished items, and of all items where it has changed."""
        self._pace.total = total if total is not None else self._pace.total
        self._pace.at(done)

    def pause(self) -> None:
        """Remove the line, so that another message can be printed."""
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _say(self, far: str) -> None:
        if self._live:
            self._write(f"\r\x1b[K{far}")
            self._drawn = True
        else:
            self._write(f"configstore: {far}\n")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            pass  # stderr is closed
