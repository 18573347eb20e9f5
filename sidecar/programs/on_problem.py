"""`on_problem`: runs a command when a mapping changes between well, degraded and halted.

For hosts without Prometheus. Each mapping with such a command has a thread for it, so that mirroring never waits;
`cycle.mirror` hands over each new status. The thread judges by state, not by events: while a command runs only the
last state counts, and a state that ended before it was reported is not reported at all.
"""

import logging
import threading
from collections.abc import Callable
from enum import StrEnum

import msgspec

from configstore.clock import boottime
from configstore.model.path import printable
from sidecar.mapping import Mapping
from sidecar.programs.hooks import run
from sidecar.reporting.status import Status

log = logging.getLogger(__name__)

MOMENT = 2.0
"""Seconds that a state must last to be reported, or the mapping's `settle` where that is longer: for so long a set
that is being changed may look like a problem."""

PATIENCE = 60.0
"""Seconds for which a mapping may wait for what mostly ends by itself, such as the restart of the store."""

CHECK = 15.0
"""Seconds between two checks whether the engine makes progress: a stuck one publishes no status."""

_LONGEST = 1000
"""Characters of a reason."""


class Health(StrEnum):
    """The three states that are reported."""

    WELL = "well"
    DEGRADED = "degraded"
    HALTED = "halted"


class ProblemView(msgspec.Struct, frozen=True):
    """How a mapping is: the state, the reason, and the seconds that it must last to be reported."""

    health: Health
    reason: str
    patience: float


def view(status: Status) -> ProblemView | None:
    """Return how a mapping is; None before its first cycle.

    Degraded is a mapping that has a problem, whether it is ready or not complete because of it, and one that waits
    for longer than is usual.
    """
    if status.halted:
        return ProblemView(Health.HALTED, status.halted, MOMENT)
    if status.waiting_for:
        return ProblemView(Health.DEGRADED, status.waiting_for, MOMENT if status.lost else PATIENCE)
    if status.problems:
        count = f"{len(status.problems)} problems, such as " if len(status.problems) > 1 else ""
        return ProblemView(Health.DEGRADED, f"{count}{status.problems[0]}", MOMENT)
    if status.ready:
        return ProblemView(Health.WELL, "every record is applied, and no path has a problem", MOMENT)
    return ProblemView(Health.DEGRADED, "not complete yet", PATIENCE) if status.cycles else None


class OnProblem:
    """Runs the command of one mapping. failure: why its last run failed, so that nobody was told; else None."""

    def __init__(
        self, mapping: Mapping, failure_changed: Callable[[], None], stuck: Callable[[], str | None] = lambda: None
    ) -> None:
        """Take what is called when `failure` changed, and what returns why the engine is stuck, or None."""
        self.failure: str | None = None
        self._mapping = mapping
        self._failure_changed = failure_changed
        self._stuck = stuck
        self._now: ProblemView | None = None
        self._since = 0.0
        self._said = Health.WELL  # so a start without a problem is not reported
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name=f"on_problem:{mapping.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._mapping.on_problem:
            self._thread.start()

    def seen(self, status: Status) -> None:
        """Take a new status; called by the engine, and returns at once."""
        now = view(status)
        with self._changed:
            before, self._now = self._now, now
            if now is None or before is None or (now.health, now.patience) != (before.health, before.patience):
                self._since = boottime()
                self._changed.notify_all()

    def close(self) -> None:
        """Run no more commands; one that runs ends by itself."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _serve(self) -> None:
        while due := self._next():
            try:
                self._run(due)
            except Exception as error:  # a thread that died would report nothing any more, unnoticed
                log.exception("on_problem failed, so that nobody was told", extra={"mapping": self._mapping.name})
                self._note(f"on_problem of {self._mapping.name} could not be run: {error}")
            self._said = due.health

    def _next(self) -> ProblemView | None:
        """Wait until a state is to be reported, and return it; None after `close`."""
        with self._changed:
            while not self._stopped:
                left = CHECK
                now = self._state()
                if now and now.health is not self._said:
                    left = self._since + max(now.patience, self._mapping.settle) - boottime()
                    if left <= 0:
                        return now
                self._changed.wait(min(left, CHECK))
        return None

    def _state(self) -> ProblemView | None:
        """Return how the mapping is by its last status, unless the engine is stuck, so that the status is old."""
        if self._now and self._now.health is Health.HALTED:
            return self._now
        stuck = self._stuck()
        return ProblemView(Health.DEGRADED, stuck, MOMENT) if stuck else self._now

    def _run(self, now: ProblemView) -> None:
        mapping = self._mapping
        more = {
            "CONFIGSTORE_MAPPING": mapping.name,
            "CONFIGSTORE_HEALTH": str(now.health),
            "CONFIGSTORE_REASON": printable(now.reason)[:_LONGEST],
        }
        outcome = run(mapping.on_problem, cwd="/", more=more, run_as=mapping.run_as)
        fields = {"mapping": mapping.name, "health": str(now.health), "output": outcome.output}
        failure = None
        if outcome.failure:
            failure = (
                f"on_problem of {mapping.name} did not tell that it is {now.health}: {outcome.reported(mapping)}"
            )
            log.error(
                "on_problem failed, so that nobody was told",
                extra={**fields, "reason": f"{outcome.failure}{outcome.said}"},
            )
        else:
            log.info("on_problem done", extra=fields)
        self._note(failure)

    def _note(self, failure: str | None) -> None:
        if failure != self.failure:
            self.failure = failure
            self._failure_changed()
