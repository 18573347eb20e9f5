"""Brings the store's state to the mirrored directory, as a set.

Everything is made ready first in the staging directory, with its owner and mode, out of the application's sight;
then it is renamed into place back to back, each after one more look at what is about to be replaced; removals
come last, and the bookkeeping after all. Called by the engine's thread only.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence

import msgspec

from configstore.files.entries import Entries
from configstore.files.reading import signature
from configstore.files.words import words
from configstore.model.path import PRIVATE_NAME, StorePath, depth, is_below, parent
from configstore.model.record import PLACING_ORDER, Kind
from configstore.model.signature import Signature
from sidecar.check import View
from sidecar.local.change import LocalChange, Overtaken, Withheld
from sidecar.local.directories import Directories
from sidecar.local.journal import Journal, Placing, Removing
from sidecar.local.rename import unchanged_since
from sidecar.local.root import Root
from sidecar.local.stage import PERMISSIONS, Refused, Stage, give_owner
from sidecar.planner.mapping import Mapping
from sidecar.planner.sides import LocalEntry, Problem

__all__ = ["Applied", "Applier", "LocalChange"]


class Applied(msgspec.Struct, kw_only=True):
    """What came of it.

    done: the paths brought to their state, with what lies there now. problems: what could not be done, and why;
    the old state is whole. stale: paths that held something else than expected, and were not touched.
    """

    done: dict[StorePath, LocalEntry | None] = {}
    problems: dict[StorePath, Problem] = {}
    stale: set[StorePath] = set()


class Applier:
    """Applies sets of changes to one mapping's directory."""

    def __init__(
        self, root: Root, mapping: Mapping, journal: Journal, note: Callable[[StorePath], None] = lambda _: None
    ) -> None:
        """`note` is told each path that was put in place."""
        self._root = root
        self._mapping = mapping
        self._journal = journal
        self._note = note
        self._stage = Stage(root, mapping.symlinks)
        self._entries = Entries()

    def view(self) -> View:
        """Return a directory of our own in which the mapping can be shown as it would be."""
        return View(os.path.join(self._mapping.path, PRIVATE_NAME), self._mapping.path)

    def apply(self, changes: Sequence[LocalChange]) -> Applied:
        """Make the changes; whatever fails is told in the result and leaves the old state.

        Call `finish` once the new baseline is written. What a crash leaves behind is for `recovery`. What a source
        raises because the store is unavailable passes through, and nothing was placed.
        """
        with Directories(self._root, self._mapping.dir_mode, self._journal) as directories:
            one = _Set(changes, directories, self._stage, self._entries, self._journal, rank=self._mapping.rank)
            try:
                one.make_ready()
            except Exception:
                self._stage.clear()
                raise
            one.put_in_place()
            self._stage.clear()
            directories.give_back()
        for path, local in one.applied.done.items():
            if local:
                self._note(path)
        return one.applied

    def finish(self) -> None:
        """Forget the set's intents: it is agreed on."""
        self._journal.clear()


class _Stale(Exception):  # noqa: N818  # becomes a value
    pass


class _Set:
    """One set being applied."""

    def __init__(
        self,
        changes: Sequence[LocalChange],
        directories: Directories,
        stage: Stage,
        entries: Entries,
        journal: Journal,
        *,
        rank: Callable[[StorePath], int],
    ) -> None:
        self.applied = Applied()
        self._changes = changes
        self._made = sorted(
            (change for change in changes if change.desired.kind is not Kind.GONE),
            key=lambda change: (*_turn(change, rank), depth(change.path)),
        )
        self._gone = sorted(
            (change for change in changes if change.desired.kind is Kind.GONE),
            key=lambda change: -depth(change.path),
        )
        self._replaced = {change.path for change in self._made if _changes_kind(change)}
        self._cleared: set[StorePath] = set()
        self._laid: dict[StorePath, LocalEntry] = {}  # what is about to be placed
        self._placed: set[StorePath] = set()
        self._directories = directories
        self._stage = stage
        self._entries = entries
        self._journal = journal

    def make_ready(self) -> None:
        """Make all that is needed, and let nothing be placed of a group of which a part cannot be."""
        self._each((change for change in self._made if not _keeps_directory(change)), self._stage.make)
        self._each(self._changes, self._verify)
        self._hold_back()
        self._each(self._in_the_way(), self._remove)
        directories = [change for change in self._made if change.desired.kind is Kind.DIR]
        self._each(directories, self._place_directory)
        self._each((change for change in self._made if change.path in self._stage), self._inherit)
        self._hold_back()

    def put_in_place(self) -> None:
        """Rename back to back, remove, and then see what lies there now."""
        ready = [change for change in self._made if change.path in self._stage]
        self._note_intents(ready)
        self._each(ready, self._place)
        self._hold_back()
        self._each((change for change in self._gone if change.path not in self.applied.done), self._remove)
        placed = [change for change in self._made if change.path in self._placed]
        self._each((change for change in placed if change.desired.kind is not Kind.DIR), self._record)
        directories = [change for change in placed if change.desired.kind is Kind.DIR]
        self._each(reversed(directories), self._record_directory)

    def _each(self, changes: Iterable[LocalChange], step: Callable[[LocalChange], object]) -> None:
        """Take a step with all changes that are not given up; what fails is noted."""
        stale, problems = self.applied.stale, self.applied.problems
        for change in changes:
            if change.path in problems or change.path in stale:
                continue
            try:
                step(change)
            except (_Stale, Overtaken):
                stale.add(change.path)
            except (Refused, Withheld) as refusal:
                problems[change.path] = Problem(path=change.path, reason=str(refusal))
            except OSError as error:
                problems[change.path] = Problem(path=change.path, reason=words(error))

    def _hold_back(self) -> None:
        """Give up what is left of every group of which a member was given up."""
        stale, problems = self.applied.stale, self.applied.problems
        culprits = {change.group: change.path for change in self._changes if change.path in problems}
        culprits |= {change.group: change.path for change in self._changes if change.path in stale}
        settled = {*self._placed, *self.applied.done, *problems, *stale}
        for change in self._changes:
            culprit = culprits.get(change.group)
            if culprit is None or change.path in settled:
                continue
            if culprit in stale:
                stale.add(change.path)
            else:
                reason = f"held back: {culprit}, which was changed together with it, cannot be applied"
                problems[change.path] = Problem(path=change.path, reason=reason)

    def _verify(self, change: LocalChange) -> bool:
        """Raise _Stale unless just that lies at the path which the plan believed to lie there.

        Returns whether anything does.
        """
        expected = None if change.path in self._cleared else change.expected
        try:
            above = self._directories.open(parent(change.path))
            found = os.stat(_name(change), dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        except OSError as error:
            makes_way = any(is_below(change.path, path) for path in self._replaced)
            if not makes_way or error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            found = None
        if found is None:
            if expected and change.desired.kind is not Kind.GONE:
                raise _Stale
            return False
        if expected is None or signature(found) != expected.signature:
            raise _Stale
        return True

    def _in_the_way(self) -> list[LocalChange]:
        """Return what must be removed first, since another kind of thing must lie there, the deepest first."""
        below = [change for change in self._gone if any(is_below(change.path, path) for path in self._replaced)]
        replaced = [change for change in self._made if change.path in self._replaced]
        return sorted([*below, *replaced], key=lambda change: -depth(change.path))

    def _remove(self, change: LocalChange) -> None:
        try:
            above = self._directories.unlock(parent(change.path))
            if change.expected and change.expected.entry.kind is Kind.DIR:
                os.rmdir(_name(change), dir_fd=above)
            elif self._verify(change):
                self._move_out(change, above)
        except FileNotFoundError:
            pass
        if change.desired.kind is Kind.GONE:
            self.applied.done[change.path] = None
        else:
            self._cleared.add(change.path)

    def _move_out(self, change: LocalChange, above: int) -> None:
        expected, spare = _expected(change), self._stage.spare_name()
        self._journal.note(Removing(path=change.path, name=spare, expected=expected))
        if not self._stage.remove(change.path, above, spare, unchanged_since(expected)):
            raise _Stale

    def _place_directory(self, change: LocalChange) -> None:
        """Put a new directory in place, or make a known one no wider than it shall be; its mode comes last."""
        if change.path in self._stage:
            above = self._directories.make(parent(change.path))
            self._stage.inherit(change, above)
            self._verify(change)
            if not self._stage.move(change.path, above):
                raise _Stale
        else:
            descriptor = self._directories.open(change.path)
            status = os.fstat(descriptor)
            give_owner(change.desired, status, lambda uid, gid: os.fchown(descriptor, uid, gid))
            mode = stat.S_IMODE(status.st_mode)
            if mode != change.desired.mode:
                os.fchmod(descriptor, mode & change.desired.mode | 0o700)
                self._directories.modes.setdefault(change.path, mode)
        self._placed.add(change.path)

    def _inherit(self, change: LocalChange) -> None:
        above = self._directories.make(parent(change.path))
        status, desired = self._stage.inherit(change, above), change.desired
        entry = self._entries.make(
            desired.kind, status, size=desired.size, sha256=desired.sha256, target=desired.target
        )
        self._laid[change.path] = LocalEntry(entry=entry, signature=signature(status))

    def _note_intents(self, ready: Sequence[LocalChange]) -> None:
        """Write down what is about to be placed; nothing is placed when there is no room even for that."""
        intents = [self._intent(change) for change in ready if change.path in self._laid]
        try:
            self._journal.note(*intents)
        except OSError as error:
            for change in ready:
                reason = words(error)
                self.applied.problems.setdefault(change.path, Problem(path=change.path, reason=reason))

    def _intent(self, change: LocalChange) -> Placing:
        laid = self._laid[change.path]
        return Placing(
            path=change.path,
            name=self._stage.name(change.path),
            laid=laid.signature,
            expected=None if change.path in self._cleared or not change.expected else change.expected.signature,
            group=change.group,
            entry=laid.entry,
            remote=change.remote,
        )

    def _place(self, change: LocalChange) -> None:
        expected = unchanged_since(_expected(change)) if self._verify(change) else None
        if not self._stage.move(change.path, self._directories.open(parent(change.path)), expected):
            raise _Stale
        self._placed.add(change.path)

    def _record(self, change: LocalChange) -> None:
        """Note what lies at a path now: what we laid there, even if the application was at it already."""
        laid = self._laid[change.path]
        mark = laid.signature
        try:
            above = self._directories.open(parent(change.path))
            found = signature(os.stat(_name(change), dir_fd=above, follow_symlinks=False))
            if msgspec.structs.replace(found, ctime_ns=mark.ctime_ns) == mark:
                mark = found  # only the rename changed it
        except FileNotFoundError:
            pass
        self.applied.done[change.path] = LocalEntry(entry=laid.entry, signature=mark)

    def _record_directory(self, change: LocalChange) -> None:
        """Give a directory its final mode, all that belongs in it being there."""
        descriptor = self._directories.open(change.path)
        mode = change.desired.mode & PERMISSIONS
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
            os.fchmod(descriptor, mode)
        self._directories.modes.pop(change.path, None)
        status = os.fstat(descriptor)
        entry = self._entries.make(Kind.DIR, status)
        self.applied.done[change.path] = LocalEntry(entry=entry, signature=signature(status))


def _turn(change: LocalChange, rank: Callable[[StorePath], int]) -> tuple[int, int]:
    """Return when a change is placed: directories first, then by the mapping's order, links after files."""
    kind = change.desired.kind
    return (0 if kind is Kind.DIR else 1 + rank(change.path), PLACING_ORDER[kind])


def _name(change: LocalChange) -> str:
    return change.path.rpartition("/")[2]


def _keeps_directory(change: LocalChange) -> bool:
    return bool(change.expected and change.expected.entry.kind is change.desired.kind is Kind.DIR)


def _expected(change: LocalChange) -> Signature:
    """Return the signature of what the plan believes to lie there, `_verify` having found something."""
    if change.expected is None:
        raise _Stale
    return change.expected.signature


def _changes_kind(change: LocalChange) -> bool:
    if change.expected is None:
        return False
    before, after = change.expected.entry.kind, change.desired.kind
    return before is not after and Kind.DIR in {before, after}
