"""Carries out the pulls of a plan. Called by `execute`; what could not be placed comes back as a value.

Pulls of one group are placed together or not at all: what holds one of them back, be it the file that cannot be
kept or the content that was overtaken, holds all of them back.
"""

import logging
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence

from configstore.errors import StoreError, StoreUnavailableError
from configstore.model.path import StorePath, shown
from configstore.model.problem import Problem
from configstore.model.record import INLINE_MAX, Kind, RecordError, Source
from configstore.progress import LINES, Pace
from configstore.store.tree import Tree
from sidecar.cycle.conflicts import ConflictKeeper
from sidecar.local.apply import Applied, Applier
from sidecar.local.change import LocalChange, Overtaken, Withheld
from sidecar.local.scan import Changed, Scanner, Unreadable
from sidecar.mapping import Mapping
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Pull
from sidecar.planner.planner import agreed
from sidecar.planner.reconcile import as_shown
from sidecar.planner.sets import held_back
from sidecar.planner.sides import Agreed
from sidecar.programs.check import Check
from sidecar.remote.side import RemoteSide
from sidecar.state.baseline import Baseline

log = logging.getLogger(__name__)

_BATCH = 8 * 1024 * 1024
"""Bytes that are staged at once while pulling; a set is never split for it."""

_PATHS = 500
"""Paths that are staged at once; likewise. Each takes some KiB of memory until it is agreed on. A check sees all
of them, whatever their number: it may refuse a part for want of the rest."""


class Puller:
    """Brings what the store holds to one mapping's directory."""

    def __init__(
        self,
        *,
        mapping: Mapping,
        tree: Tree,
        remote: RemoteSide,
        baseline: Baseline,
        scanner: Scanner,
        applier: Applier,
        check: Check,
        keeper: ConflictKeeper,
    ) -> None:
        self._mapping = mapping
        self._tree = tree
        self._remote = remote
        self._baseline = baseline
        self._scanner = scanner
        self._applier = applier
        self._check = check
        self._keeper = keeper
        self._pace = Pace(self._tell, "fetched")

    def pull(self, pulls: Sequence[Pull], done: CycleOutcome) -> None:
        """Place pulls. Raises StoreUnavailableError when the store does not give what is to be placed."""
        self._pace = Pace(self._tell, "fetched", len(pulls), quiet=LINES)
        try:
            for batch in _batches(pulls, sys.maxsize if self._check.wanted else _PATHS):
                self._pull(batch, done)
        finally:
            self._remote.contents.clear()

    def _tell(self, far: str) -> None:
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
            self._applier.finish()

    def _check_staged(
        self, pulls: Sequence[Pull], changes: Sequence[LocalChange], done: CycleOutcome
    ) -> str | None:
        """Return why the set must not be placed now, or None."""
        try:
            return self._check.refuses_to_apply(pulls, changes, self._baseline.sides.local, self._scanner.pieces)
        except Withheld as reason:
            return str(reason)
        except Overtaken:
            done.behind = True
            return "a newer version is about to come"
        except Changed as change:
            done.moved_on.add(change.path)
            return f"cannot be checked: {shown(change.path)} is being changed here"
        except Unreadable as failure:
            return f"cannot be checked: {failure.problem}"

    def _fitting(self, pulls: Sequence[Pull], done: CycleOutcome) -> list[Pull]:
        """Return the pulls for which there is room: what a set claims is looked at before any of it is fetched.

        Else a record that claims much would fill the application's file system up for a while, again and again.
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
        """Keep what is about to be lost, and return the pulls that may be placed."""
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
        """Return what gives the content that lies here."""
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
        """Return what gives the content that the store holds."""

        def pieces() -> Iterator[bytes]:
            self._pace.step()
            try:
                found = self._remote.contents.find(pull.path, pull.remote)
                if found is None:
                    raise Overtaken
                yield from self._tree.pieces(found)
            except StoreUnavailableError:
                raise
            except (StoreError, RecordError) as error:
                now = self._tree.mod_revision(self._mapping.absolute(pull.path))
                if now != pull.remote.mod_revision:
                    raise Overtaken from error
                raise Withheld(str(error)) from error

        return pieces

    def _note(self, pulls: Sequence[Pull], applied: Applied, done: CycleOutcome) -> None:
        wanted = {pull.path: pull for pull in pulls}
        for path in applied.done.keys() & wanted.keys():
            undoes_a_delete = wanted[path].local is None and path in self._baseline.sides.baseline
            if wanted[path].keep or undoes_a_delete:
                self._keeper.lose(path)
        noted: dict[StorePath, Agreed | None] = {}
        for path, local in applied.done.items():
            self._baseline.sides.placed(path, local)
            if local is None:
                noted[path] = None
            elif path in wanted:
                noted[path] = agreed(local, wanted[path].remote)
        for path in applied.done.keys() & wanted.keys():
            gone = wanted[path].remote.entry.kind is Kind.GONE
            (done.deleted_here if gone else done.pulled).append(path)
        self._baseline.agree(noted)
        done.problems |= applied.problems
        done.again |= applied.stale
        done.moved_on |= applied.stale
        done.setbacks |= applied.stale
        done.behind |= bool(applied.stale)


def _claimed(pull: Pull) -> int:
    """Return the bytes that a pull stages, by what its record says."""
    return pull.remote.entry.size if pull.remote.entry.kind is Kind.FILE else 0


def _give_up(pull: Pull, culprit: StorePath, problem: Problem | None, done: CycleOutcome) -> None:
    """Leave a pull since a path of its group could not be kept. problem: why; None when it changed meanwhile."""
    if problem is None:
        done.again.add(pull.path)
        done.setbacks.add(culprit)
    elif pull.path == culprit:
        done.problems[pull.path] = problem
    else:
        done.problems[pull.path] = held_back(pull.path, culprit, f"cannot be kept: {problem.reason}")


def _batches(pulls: Sequence[Pull], most: int = _PATHS) -> Iterator[list[Pull]]:
    """Cut pulls by size and number, in the order in which they were committed, without cutting a txn in two.

    most: how many there may be before one is cut.
    """
    if len(pulls) <= most and sum(pull.remote.entry.size for pull in pulls) <= _BATCH:
        if pulls:
            yield list(pulls)
        return
    batch: list[Pull] = []
    size = 0
    for pull in sorted(pulls, key=lambda pull: pull.remote.mod_revision):
        full = size > _BATCH or len(batch) >= most
        if full and pull.remote.mod_revision != batch[-1].remote.mod_revision:
            yield batch
            batch, size = [], 0
        batch.append(pull)
        size += pull.remote.entry.size
    if batch:
        yield batch
