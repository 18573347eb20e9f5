"""A person's choices about one mapping, from requests in the store; each is valid for one cycle of the engine."""

import logging
from collections import deque

from configstore.model.path import StorePath
from configstore.model.replica import Request, Take
from configstore.store.values import Fence
from sidecar.planner.planner import Sides, vanished
from sidecar.transfer import Transfer

log = logging.getLogger(__name__)


class Choices:
    """What was chosen before the cycle that runs; what does not fit to what the cycle meets is dropped."""

    def __init__(self, mapping: str, sides: Sides, transfer: Transfer) -> None:
        self._mapping = mapping
        self._sides = sides
        self._transfer = transfer
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

    def end_anomalies(self, fence: Fence | None, *, pushes: bool) -> set[StorePath]:
        """Do what was chosen about records that vanished: write them again, or have them deleted.

        Returns the paths to be planned anew. Raises StoreError.
        """
        concerned: set[StorePath] = set()
        for choice in self._current:
            if choice.reason:
                continue
            paths = {path for path in vanished(self._sides) if choice.path in {None, path}}
            if choice.take is Take.LOCAL:
                self._transfer.forget(paths)
            elif pushes:
                self._transfer.bury(paths, fence)
            concerned |= paths
        return concerned
