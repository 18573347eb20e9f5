"""A person's choices about one mapping, from requests in the store; each is valid for one cycle of the engine."""

import logging
from collections import deque

from configstore.model.path import StorePath
from configstore.model.replica import Request, Take
from sidecar.planner.three_sides import Sides

log = logging.getLogger(__name__)


class Choices:
    """What was chosen before the cycle that runs; what does not fit to what the cycle meets is dropped."""

    def __init__(self, mapping: str) -> None:
        self._mapping = mapping
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
                extra = {"mapping": self._mapping, "take": str(choice.take), "reason": reason}
                log.warning("resumed by a person's choice", extra=extra)
                return choice.take
        return None

    @property
    def write_again(self) -> bool:
        """Whether all records that vanished are to be written again."""
        return any(not each.reason and each.path is None and each.take is Take.LOCAL for each in self._current)

    def about_vanished(self, sides: Sides) -> dict[StorePath, Take]:
        """Return what was chosen about records that vanished, for each path that is concerned."""
        chosen: dict[StorePath, Take] = {}
        for choice in self._current:
            if not choice.reason:
                chosen |= dict.fromkeys(
                    (path for path in sides.vanished() if choice.path in {None, path}), choice.take
                )
        return chosen
