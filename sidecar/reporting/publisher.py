"""Makes the status of one mapping after each cycle, and logs what changed in it. Owned by the mapping's engine."""

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
    """What the status after a cycle is made from; fields that `Status` has as well are explained there.

    keeps_ready: whether a mapping that was ready stays ready although it is not complete. queued: paths changed
    here and not sent yet. noticed: when paths were changed here, where that is known. waiting: paths left for a
    later cycle, and why. trouble: why not all changes are noticed at once, or None. unfit: why nothing can be
    sealed here, or "". last_choice: None for the same as before. silent: it waits only for a store that does not
    answer, which is logged once for all mappings (`contact`).
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
    """Keeps `status`, a value that is only replaced as a whole, so that any thread may read it."""

    def __init__(
        self,
        mapping: str,
        *,
        required: bool = True,
        clock: Callable[[], float],
        published: Callable[[Status, Status], None] = lambda *_: None,
        hook_failure: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Take `published`, called with the status before and the new one, and what returns why a hook failed."""
        self.status = Status(mapping=mapping, required=required)
        self._clock = clock
        self._published = published
        self._hook_failure = hook_failure
        self._since: dict[StorePath, float] = {}  # when a waiting edit was noticed

    def begin_anew(self, reason: str) -> None:
        """Begin a new status, since the directory is another one or cannot be taken, for the given reason."""
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
        """Log the paths that travelled, the first NAMES of each kind, and the number of all."""
        fields: dict[str, object] = {"mapping": self.status.mapping, "revision": revision}
        for name in ("pushed", "deleted_there", "pulled", "deleted_here"):
            paths = getattr(done, name)
            fields[name] = paths[:NAMES]
            if len(paths) > NAMES:
                fields[f"{name}_in_all"] = len(paths)
        log.info("mirrored", extra=fields)

    def publish(self, problems: Map[StorePath, Problem], now: Figures, done: CycleOutcome | None = None) -> None:
        """Replace the status. done: what the cycle moved, if anything."""
        before = self.status
        shown = tuple(dict.fromkeys(problems[path] for path in sorted(problems)))  # one may be about many paths
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
        """Return the problems of the mapping as a whole."""
        hook = self._hook_failure()
        failed = f"the hook failed and is tried again: {hook}" if hook else ""
        return [each for each in (now.unfit, failed, now.trouble) if each]

    def _oldest(self, waiting: AbstractSet[StorePath], noticed: Map[StorePath, float]) -> float | None:
        now = self._clock()
        self._since = {path: self._since.get(path, noticed.get(path, now)) for path in waiting}
        return min(self._since.values(), default=None)

    def _log_changes(self, before: Status, *, silent: bool = False) -> None:
        """Log what a person should know and the log does not say yet."""
        now, extra = self.status, {"mapping": before.mapping}
        if now.halted and now.halted != before.halted:
            log.error("halted", extra={**extra, "reason": now.halted})
        if now.waiting_for and not silent and now.waiting_for not in {before.waiting_for, before.halted}:
            log.warning("waiting", extra={**extra, "reason": now.waiting_for})
        if now.ready and not before.ready:
            log.info("ready: every record is applied", extra={**extra, "paths": now.paths})
        known = set(before.problems)
        fresh = [problem for problem in now.problems if problem not in known]
        for problem in fresh[:NAMES]:
            log.warning("cannot be mirrored", extra={**extra, "path": problem.path, "reason": problem.reason})
        if len(fresh) > NAMES:
            log.warning("more paths cannot be mirrored", extra={**extra, "count": len(fresh) - NAMES})
