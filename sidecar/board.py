"""What one mapping shows of itself: its status, and what of it goes to the log. Owned by its engine."""

import logging
from collections.abc import Callable

import msgspec

from configstore.model.path import StorePath
from sidecar.planner.sides import Problem
from sidecar.status import Status

log = logging.getLogger(__name__)


class Board:
    """Keeps `status`, a value replaced as a whole, and tells of each new one."""

    def __init__(
        self,
        mapping: str,
        clock: Callable[[], float],
        published: Callable[[Status, Status], None],
        hook_failure: Callable[[], str | None],
    ) -> None:
        """Take `published`, told of each new status and the one before, and `hook_failure`, why a hook failed."""
        self.status = Status(mapping=mapping)
        self._clock = clock
        self._published = published
        self._hook_failure = hook_failure

    def log_once(self, level: int, message: str, reason: str) -> None:
        """Log why nothing goes on, unless that is what the status shows already."""
        if reason not in {self.status.waiting_for, self.status.halted}:
            log.log(level, message, extra={"mapping": self.status.mapping, "reason": reason})

    def publish(
        self, problems: dict[StorePath, Problem], *, pending: int, pushed: int, pulled: int, **fields: object
    ) -> None:
        """Replace the status. pushed, pulled: how many more. fields: the status' others, as they are now."""
        before = self.status
        shown = tuple(dict.fromkeys(problems[path] for path in sorted(problems)))  # one may speak for many paths
        if hook := self._hook_failure():
            shown += (Problem(path="", reason=f"the hook failed and is tried again: {hook}"),)
        for problem in set(shown).difference(before.problems):
            extra = {"mapping": before.mapping, "path": problem.path, "reason": problem.reason}
            log.warning("cannot be mirrored", extra=extra)
        waits_since = self._clock() if before.pending_since is None else before.pending_since
        self.status = msgspec.structs.replace(
            before,
            problems=shown,
            pending=pending,
            pending_since=waits_since if pending else None,
            pushed=before.pushed + pushed,
            pulled=before.pulled + pulled,
            cycles=before.cycles + 1,
            **fields,
        )
        self._published(before, self.status)
