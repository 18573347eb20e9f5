"""A person's choices about one mapping, from requests in the store; each is valid for one cycle of the engine."""

import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from configstore.model.path import StorePath, shown
from configstore.model.replica import Request, Take
from sidecar.planner.three_sides import Sides

log = logging.getLogger(__name__)


def _time_of_day() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class PersonRequests:
    """What was chosen before the cycle that runs; what does not fit to what the cycle meets is dropped.

    last: what was carried out last, by whom, and when, in words; None when nothing was.
    """

    def __init__(self, mapping: str, now: Callable[[], str] = _time_of_day) -> None:
        """Take `now`, which returns the time of day, for people."""
        self.last: str | None = None
        self._last: Request | None = None
        self._mapping = mapping
        self._now = now
        self._inbox: deque[Request] = deque()
        self._current: list[Request] = []

    def put(self, request: Request) -> None:
        """Take a request for the next cycle; from any thread."""
        self._inbox.append(request)

    def begin_cycle(self) -> None:
        """Forget the last cycle's choices and take in those made since."""
        self._current = [self._inbox.popleft() for _ in range(len(self._inbox))]

    def ending(self, reason: str) -> Take | None:
        """Return which side was chosen to end a halt of just this reason; None when nobody chose."""
        for choice in self._current:
            if choice.reason == reason:
                self._carry_out(choice)
                return choice.take
        return None

    def write_again(self) -> bool:
        """Return whether all records that vanished were chosen to be written again."""
        for choice in self._current:
            if not choice.reason and choice.path is None and choice.take is Take.LOCAL:
                self._carry_out(choice)
                return True
        return False

    def about_vanished(self, sides: Sides) -> dict[StorePath, Take]:
        """Return what was chosen about records that vanished, for each path that is concerned."""
        chosen: dict[StorePath, Take] = {}
        for choice in self._current:
            if not choice.reason:
                paths = [path for path in sides.vanished() if choice.path in {None, path}]
                if paths:
                    self._carry_out(choice)
                chosen |= dict.fromkeys(paths, choice.take)
        return chosen

    def _carry_out(self, choice: Request) -> None:
        """Log a choice that fits, once, and keep it for who asks later."""
        if choice is self._last:
            return
        self._last = choice
        extra = {"mapping": self._mapping, "take": str(choice.take), "by": choice.who}
        if choice.path is not None:
            extra["path"] = shown(choice.path)
        if choice.reason:
            extra["reason"] = choice.reason
        log.warning("resumed by a person's choice", extra=extra)
        what = "resume" if choice.path is None else f"resolve {shown(choice.path)}"
        self.last = f"{what} --take {choice.take}, by {choice.who}, {self._now()}"
