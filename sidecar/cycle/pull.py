"""Carries out the pulls of a plan. Called by `execute`; what could not be applied is in the outcome.

1. Pulls of one group are applied together or not at all, whatever keeps one of them from being applied.
2. What would be lost is in the store, below `conflicts/`, before it is overwritten (`_keep`).
3. The agreements come after the files are in place, and the journal is cleared after the agreements. A crash in
   between is finished at the next start (`local.recovery`).
"""

import logging
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby

from configstore.errors import StoreError, StoreUnavailableError
from configstore.model.path import StorePath, shown
from configstore.model.problem import Problem
from configstore.model.record import INLINE_MAX, Kind, RecordError, Source
from configstore.progress import LINES, Pace
from sidecar.cycle.conflicts import ConflictKeeper
from sidecar.cycle.parts import MappingParts
from sidecar.local.apply import ApplyResult
from sidecar.local.change import ContentUnavailableError, LocalChange, SupersededError
from sidecar.local.scan import Changed, Unreadable
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Pull
from sidecar.planner.planner import agreement_of
from sidecar.planner.reconcile import as_shown
from sidecar.planner.sets import held_back
from sidecar.planner.sides import Agreement

log = logging.getLogger(__name__)

_BATCH = 8 * 1024 * 1024
"""Bytes that are staged at once; a set is never split for it."""

_PATHS = 500
"""Paths that are staged at once; a set is never split for it. Each takes some KiB of memory until it is agreed on.
With a check all paths are staged at once, since the check may refuse some of them when others are missing."""


class Puller:
    """Brings the store's records to one mapping's directory."""

    def __init__(self, parts: MappingParts, keeper: ConflictKeeper) -> None:
        self._mapping = parts.mapping
        self._tree = parts.tree
        self._remote = parts.remote
        self._baseline = parts.baseline
        self._scanner = parts.scanner
        self._applier = parts.applier
        self._check = parts.check
        self._keeper = keeper
        self._pace = Pace(self._log_progress, "fetched")

    def pull(self, pulls: Sequence[Pull], done: CycleOutcome) -> None:
        """Apply pulls. Raises StoreUnavailableError when the store cannot be read."""
        self._pace = Pace(self._log_progress, "fetched", len(pulls), quiet=LINES)
        try:
            for batch in _batches(pulls, sys.maxsize if self._check.wanted else _PATHS):
                self._pull(batch, done)
        finally:
            self._remote.contents.clear()

    def _log_progress(self, far: str) -> None:
        log.info("pulling", extra={"mapping": self._mapping.name, "so_far": far})

    def _pull(self, pulls: Sequence[Pull], done: CycleOutcome) -> None:
        refused = self._check.known_of(pulls)
        ready = [] if refused else self._keep(self._fitting(pulls, done), done)
        changes = [self._change(pull) for pull in ready]
        if changes and not refused:
            refused = self._check_staged(pulls, changes, done)
        if refused:
            done.problems |= {pull.path: Problem(path=pull.path, reason=refused) for pull in pulls}
            done.refused |= {pull.path for pull in pulls} if self._check.known_of(pulls) else set()
        elif changes:
            files = (each for each in ready if each.remote.entry.kind is Kind.FILE)
            sizes = {each.path: each.remote.entry.size for each in files}
            self._remote.contents.expect({path: size for path, size in sizes.items() if size <= INLINE_MAX})
            self._note(ready, self._applier.apply(changes), done)
            self._applier.finish()  # invariant 3: `_note` has agreed on everything

    def _check_staged(
        self, pulls: Sequence[Pull], changes: Sequence[LocalChange], done: CycleOutcome
    ) -> str | None:
        """Return why the check refuses the changes, or cannot judge them, or None."""
        try:
            return self._check.refuses_to_apply(pulls, changes, self._baseline.sides.local, self._scanner.pieces)
        except ContentUnavailableError as reason:
            return str(reason)
        except SupersededError:
            done.behind = True
            return "a newer version is about to come"
        except Changed as change:
            done.moved_on.add(change.path)
            return f"cannot be checked: {shown(change.path)} is being changed here"
        except Unreadable as failure:
            return f"cannot be checked: {failure.problem}"

    def _fitting(self, pulls: Sequence[Pull], done: CycleOutcome) -> list[Pull]:
        """Return the pulls for which there is room, by the sizes in their records.

        This is checked before any content is read. Else a record of a large size would fill the application's file
        system for a while, again and again.
        """
        groups: dict[int, list[Pull]] = defaultdict(list)
        for pull in pulls:
            groups[pull.group].append(pull)
        room = self._applier.room()
        for group in groups.values():
            claimed = sum(map(_claimed, group))
            if claimed <= room:
                continue
            why = (
                f"no space left for it: {claimed} bytes are to be placed, and {room} are free here; give the"
                " volume a larger size"
            )
            culprit = max(group, key=_claimed).path
            for pull in group:
                path = pull.path
                done.problems[path] = (
                    Problem(path=path, reason=why) if path == culprit else held_back(path, culprit, why)
                )
        return [pull for pull in pulls if pull.path not in done.problems]

    def _keep(self, pulls: Sequence[Pull], done: CycleOutcome) -> list[Pull]:
        """Keep the local content that would be lost, and return the pulls that may be applied."""
        failed: dict[int, tuple[StorePath, Problem | None]] = {}
        for pull in pulls:
            try:
                if self._keeper.is_wanted(pull):
                    self._keeper.keep(pull, self._here(pull))
            except StoreUnavailableError:
                raise
            except Changed:
                done.moved_on.add(pull.path)
                failed[pull.group] = pull.path, None
            except Unreadable as failure:
                failed[pull.group] = pull.path, failure.problem
            except (StoreError, RecordError) as error:
                failed[pull.group] = pull.path, Problem(path=pull.path, reason=str(error))
        for pull in (each for each in pulls if each.group in failed):
            _give_up(pull, *failed[pull.group], done)
        return [pull for pull in pulls if pull.group not in failed]

    def _here(self, pull: Pull) -> Source | None:
        """Return the source of the local content."""
        local = pull.local
        return (lambda: self._scanner.pieces(pull.path, local.entry)) if local else None

    def _change(self, pull: Pull) -> LocalChange:
        desired = as_shown(pull.remote.entry, self._mapping)
        return LocalChange(
            path=pull.path,
            expected=pull.local,
            desired=desired,
            content=self._there(pull) if desired.kind is Kind.FILE else None,
            group=pull.group,
            remote=pull.remote,
        )

    def _there(self, pull: Pull) -> Source:
        """Return the source of the record's content."""

        def pieces() -> Iterator[bytes]:
            self._pace.step()
            try:
                found = self._remote.contents.find(pull.path, pull.remote)
                if found is None:
                    raise SupersededError
                yield from self._tree.pieces(found)
            except StoreUnavailableError:
                raise
            except (StoreError, RecordError) as error:
                now = self._tree.mod_revision(self._mapping.absolute(pull.path))
                if now != pull.remote.mod_revision:
                    raise SupersededError from error
                raise ContentUnavailableError(str(error)) from error

        return pieces

    def _note(self, pulls: Sequence[Pull], applied: ApplyResult, done: CycleOutcome) -> None:
        wanted = {pull.path: pull for pull in pulls}
        for path in applied.done.keys() & wanted.keys():
            undoes_a_delete = wanted[path].local is None and path in self._baseline.sides.baseline
            if wanted[path].keep or undoes_a_delete:
                self._keeper.lose(path)
        noted: dict[StorePath, Agreement | None] = {}
        for path, local in applied.done.items():
            self._baseline.sides.note_placed(path, local)
            if local is None:
                noted[path] = None
            elif path in wanted:
                noted[path] = agreement_of(local, wanted[path].remote)
        for path in applied.done.keys() & wanted.keys():
            gone = wanted[path].remote.entry.kind is Kind.GONE
            (done.deleted_here if gone else done.pulled).append(path)
        self._baseline.agree(noted)
        done.problems |= applied.problems
        done.again |= applied.stale
        done.moved_on |= applied.stale
        done.backing_off |= applied.stale
        done.behind |= bool(applied.stale)


def _claimed(pull: Pull) -> int:
    """Return the bytes that a pull stages, by the size in its record."""
    return pull.remote.entry.size if pull.remote.entry.kind is Kind.FILE else 0


def _give_up(pull: Pull, culprit: StorePath, problem: Problem | None, done: CycleOutcome) -> None:
    """Give up a pull since a path of its group could not be kept. problem: why; None when that path changed."""
    if problem is None:
        done.again.add(pull.path)
        done.backing_off.add(culprit)
    elif pull.path == culprit:
        done.problems[pull.path] = problem
    else:
        done.problems[pull.path] = held_back(pull.path, culprit, f"cannot be kept: {problem.reason}")


def _batches(pulls: Sequence[Pull], most: int = _PATHS) -> Iterator[list[Pull]]:
    """Split pulls by bytes and number, in the order of their revisions, never between those of one transaction.

    most: the number of pulls from which on a new batch begins.
    """
    if len(pulls) <= most and sum(pull.remote.entry.size for pull in pulls) <= _BATCH:
        if pulls:
            yield list(pulls)
        return
    batch: list[Pull] = []
    size = 0
    in_order = sorted(pulls, key=_revision)
    for _, together in groupby(in_order, key=_revision):
        if size > _BATCH or len(batch) >= most:
            yield batch
            batch, size = [], 0
        group = list(together)
        batch += group
        size += sum(pull.remote.entry.size for pull in group)
    if batch:
        yield batch


def _revision(pull: Pull) -> int:
    return pull.remote.mod_revision
