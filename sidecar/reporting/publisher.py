"""What one mapping shows of itself: its status, and what of it goes to the log. Owned by its engine."""

import logging
from collections.abc import Callable
from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet

import msgspec

from configstore.model.path import StorePath
from configstore.model.problem import Problem
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Wait
from sidecar.reporting.status import MAX_WAITS, Status

log = logging.getLogger(__name__)

NAMES = 20
"""How many paths a log line names."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the status after a cycle is made from; the fields of `Status` are explained there.

    keeps_ready: whether a mapping that was ready stays so although it is not complete. queued: paths changed here
    and not sent yet. noticed: when paths were changed here, where that is known. waiting: paths left for a later
    cycle, and why. trouble: why not all changes are noticed at once. unfit: why nothing can
    be sealed here, or "". lost: whether the store is not, or may not
    be, the one that was known; held: how many of its files lie here. last_choice: None for as before. silent: it
    only waits for a store that does not answer, which is logged once for all mappings.
    """

    halted: str | None
    waiting_for: str | None
    complete: bool
    keeps_ready: bool
    queued: AbstractSet[StorePath]
    noticed: Map[StorePath, float] = {}
    waiting: Map[StorePath, Wait]
    paths: int
    revision: int
    applied: int
    behind: int = 0
    committed: int
    trouble: str | None
    unfit: str = ""
    lost: bool = False
    held: int = 0
    last_choice: str | None = None
    silent: bool = False


class Publisher:
    """Keeps `status`, a value replaced as a whole, and tells of each new one."""

    def __init__(
        self,
        mapping: str,
        *,
        required: bool = True,
        clock: Callable[[], float],
        published: Callable[[Status, Status], None] = lambda *_: None,
        hook_failure: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Take `published`, told of each new status and the one before, and `hook_failure`, why a hook failed."""
        self.status = Status(mapping=mapping, required=required)
        self._clock = clock
        self._published = published
        self._hook_failure = hook_failure
        self._since: dict[StorePath, float] = {}  # when an edit that waits was noticed

    def begin_anew(self, reason: str) -> None:
        """Show that the directory is another one, or cannot be had: what was true of the one before is no more."""
        before = self.status
        self.status = Status(
            mapping=before.mapping,
            required=before.required,
            waiting_for=reason,
            pushed=before.pushed,
            pulled=before.pulled,
            cycles=before.cycles,
            last_choice=before.last_choice,
        )
        self._since.clear()
        self._log_changes(before)
        self._published(before, self.status)

    def log_moved(self, done: CycleOutcome, revision: int) -> None:
        """Log what travelled, by some names and in numbers."""
        fields: dict[str, object] = {"mapping": self.status.mapping, "revision": revision}
        for name in ("pushed", "deleted_there", "pulled", "deleted_here"):
            paths = getattr(done, name)
            fields[name] = paths[:NAMES]
            if len(paths) > NAMES:
                fields[f"{name}_in_all"] = len(paths)
        log.info("mirrored", extra=fields)

    def publish(self, problems: Map[StorePath, Problem], now: Figures, done: CycleOutcome | None = None) -> None:
        """Replace the status. done: what the cycle moved."""
        before = self.status
        shown = tuple(dict.fromkeys(problems[path] for path in sorted(problems)))  # one may speak for many paths
        for reason in self._general(now):
            shown += (Problem(path="", reason=reason, sealing=reason == now.unfit),)
        under_way = [path for path in sorted(now.waiting) if path not in problems]
        waiting = now.queued | set(under_way)
        self.status = msgspec.structs.replace(
            before,
            complete=now.complete,
            ready=now.complete or (before.ready and now.keeps_ready),
            halted=now.halted,
            waiting_for=now.waiting_for,
            problems=shown,
            pending=len(waiting),
            pending_since=self._oldest(waiting, now.noticed),
            under_way=len(under_way),
            waits=tuple(Problem(path=path, reason=now.waiting[path].value) for path in under_way[:MAX_WAITS]),
            paths=now.paths,
            revision=now.revision,
            applied=now.applied,
            behind=now.behind,
            committed=now.committed,
            lost=now.lost,
            held=now.held,
            last_choice=now.last_choice or before.last_choice,
            watch_incomplete=now.trouble is not None,
            pushed=before.pushed + (len(done.pushed) + len(done.deleted_there) if done else 0),
            pulled=before.pulled + (len(done.pulled) + len(done.deleted_here) if done else 0),
            cycles=before.cycles + 1,
        )
        self._log_changes(before, silent=now.silent)
        self._published(before, self.status)

    def _general(self, now: Figures) -> list[str]:
        """Return the problems that no path has."""
        hook = self._hook_failure()
        failed = f"the hook failed and is tried again: {hook}" if hook else ""
        return [each for each in (now.unfit, failed, now.trouble) if each]

    def _oldest(self, waiting: AbstractSet[StorePath], noticed: Map[StorePath, float]) -> float | None:
        now = self._clock()
        self._since = {path: self._since.get(path, noticed.get(path, now)) for path in waiting}
        return min(self._since.values(), default=None)

    def _log_changes(self, before: Status, *, silent: bool = False) -> None:
        """Log what a person should know and was not told yet."""
        now, extra = self.status, {"mapping": before.mapping}
        if now.halted and now.halted != before.halted:
            log.error("halted", extra={**extra, "reason": now.halted})
        if now.waiting_for and not silent and now.waiting_for not in {before.waiting_for, before.halted}:
            log.warning("waiting", extra={**extra, "reason": now.waiting_for})
        if now.ready and not before.ready:
            log.info("ready: every record is applied", extra={**extra, "paths": now.paths})
        told = set(before.problems)
        fresh = [problem for problem in now.problems if problem not in told]
        for problem in fresh[:NAMES]:
            log.warning("cannot be mirrored", extra={**extra, "path": problem.path, "reason": problem.reason})
        if len(fresh) > NAMES:
            log.warning("more paths cannot be mirrored", extra={**extra, "count": len(fresh) - NAMES})
