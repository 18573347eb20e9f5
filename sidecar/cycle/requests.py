"""Requests of persons about one mapping. They come through the store and are valid for one cycle of the engine.

A request counts only if it answers what the cycle finds: the halt with exactly the reason that the person read, or
records that vanished. Every other one is dropped, so that a late answer decides nothing else.
"""

import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from configstore.model.path import StorePath, shown
from configstore.model.replica import Request, Take
from sidecar.planner.three_sides import ThreeSides

log = logging.getLogger(__name__)


def _time_of_day() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class PersonRequests:
    """The requests of one mapping.

    last: what was last done on request, by whom and when; None when nothing was.
    """

    def __init__(self, mapping: str, now: Callable[[], str] = _time_of_day) -> None:
        """`now` returns the time of day, to be shown only."""
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
        """Drop the last cycle's requests and take in those that came since."""
        self._current = [self._inbox.popleft() for _ in range(len(self._inbox))]

    def ending(self, reason: str) -> Take | None:
        """Return the side that is requested to end a halt with exactly this reason; None without a request."""
        for request in self._current:
            if request.reason == reason:
                self._use(request)
                return request.take
        return None

    def write_again(self) -> bool:
        """Return whether all records that vanished are requested to be written again."""
        for request in self._current:
            if not request.reason and request.path is None and request.take is Take.LOCAL:
                self._use(request)
                return True
        return False

    def about_vanished(self, sides: ThreeSides) -> dict[StorePath, Take]:
        """Return the requested side for each path whose record vanished and which a request names."""
        chosen: dict[StorePath, Take] = {}
        for request in self._current:
            if not request.reason:
                paths = [path for path in sides.vanished() if request.path in {None, path}]
                if paths:
                    self._use(request)
                chosen |= dict.fromkeys(paths, request.take)
        return chosen

    def _use(self, request: Request) -> None:
        """Log a request that is carried out, once, and set `last`."""
        if request is self._last:
            return
        self._last = request
        extra = {"mapping": self._mapping, "take": str(request.take), "by": request.who}
        if request.path is not None:
            extra["path"] = shown(request.path)
        if request.reason:
            extra["reason"] = request.reason
        log.warning("resumed by a person's choice", extra=extra)
        what = "resume" if request.path is None else f"resolve {shown(request.path)}"
        self.last = f"{what} --take {request.take}, by {request.who}, {self._now()}"
