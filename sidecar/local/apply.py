"""Brings the store's state to the mirrored directory, as a set.

Everything is made ready first in the staging directory, with its owner and mode, out of the application's sight;
then it is renamed into place back to back, each after one more look at what is about to be replaced; removals
come last. Only then is judged what came out, and what cannot be as a whole is taken back; the bookkeeping comes
after all. Called by the engine's thread only.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from configstore.files.entries import Entries
from configstore.files.reading import signature
from configstore.files.reasons import why_failed
from configstore.model.path import StorePath, basename, depth, is_below, parent
from configstore.model.record import PLACING_ORDER, Kind
from sidecar.local.change import LocalChange
from sidecar.local.directories import Directories, special_bits
from sidecar.local.expected import expected, unchanged_since
from sidecar.local.journal import Journal, Placing, Removing
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.stage import PERMISSIONS, Stage, give_owner
from sidecar.local.verdicts import Applied, Stale, Verdicts
from sidecar.local.watch import LocalWatch, Moves
from sidecar.mapping import Mapping
from sidecar.planner.sides import LocalEntry

__all__ = ["Applied", "Applier", "LocalChange"]


class Applier:
    """Applies sets of changes to one mapping's directory."""

    def __init__(
        self,
        root: MirroredDirectory,
        mapping: Mapping,
        journal: Journal,
        note: Callable[[StorePath], None] = lambda _: None,
        watch: LocalWatch | None = None,
    ) -> None:
        """`note` is told each path that was put in place; `watch` sleeps meanwhile."""
        self._root = root
        self._mapping = mapping
        self._journal = journal
        self._note = note
        self._watch = watch
        self._stage = Stage(root, mapping.symlinks)
        self._entries = Entries()

    def room(self) -> int:
        """Return how many bytes the file system takes at the moment. One without a limit says 0 of 0."""
        found = os.fstatvfs(self._root.staging_fd)
        return found.f_bavail * found.f_frsize if found.f_blocks else sys.maxsize

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
            self._put_in_place(one)
            self._stage.clear()
            directories.give_back()
        for path, local in one.applied.done.items():
            if local:
                self._note(path)
        return one.applied

    def _put_in_place(self, one: "_Set") -> None:
        if self._watch is None:
            one.put_in_place()
            return
        self._watch.hold()
        try:
            one.put_in_place()
        finally:
            self._watch.release(one.moves, one.is_as_left)

    def finish(self) -> None:
        """Forget the set's intents: it is agreed on."""
        self._journal.clear()


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
        self._verdicts = Verdicts(changes)
        self.applied = self._verdicts.applied
        self._changes = changes
        self._made = sorted(
            (change for change in changes if not change.gone),
            key=lambda change: (*_turn(change, rank), depth(change.path)),
        )
        self._gone = sorted(
            (change for change in changes if change.gone),
            key=lambda change: -depth(change.path),
        )
        self._replaced = {change.path for change in self._made if change.changes_kind and not change.gone}
        self._cleared: set[StorePath] = set()
        self._laid: dict[StorePath, LocalEntry] = {}  # what is about to be placed
        self._placed: set[StorePath] = set()
        self._moves: dict[StorePath, Moves] = {}  # what the kernel tells of by our own doing
        self._directories = directories
        self._stage = stage
        self._entries = entries
        self._journal = journal

    @property
    def moves(self) -> dict[StorePath, Moves]:
        """The moves that were made of files, if nothing else was done with any: nobody has to look at them."""
        return {} if self._verdicts.broken else self._moves

    def is_as_left(self, path: StorePath) -> bool:
        """Tell whether a path looks as it did when the set was over."""
        left = self.applied.done.get(path)
        try:
            above = self._directories.open(parent(path))
            found = os.stat(basename(path), dir_fd=above, follow_symlinks=False)
        except OSError:
            return left is None
        return left is not None and signature(found) == left.signature

    def make_ready(self) -> None:
        """Make all that is needed, and let nothing be placed of a group of which a part cannot be."""
        each = self._verdicts.each
        each((change for change in self._made if not change.keeps_directory), self._stage.make)
        each(self._changes, self._verify)
        if len(self._changes) > 1:  # of a single one the rename itself tells, and nothing is torn by that
            each(self._changes, self._directories.refuse_mount)
        self._verdicts.hold_back(())
        each(self._in_the_way(), self._clear_way)
        directories = [change for change in self._made if change.desired.kind is Kind.DIR]
        each(directories, self._place_directory)
        each((change for change in self._made if change.path in self._stage), self._inherit)
        self._take_back()

    def put_in_place(self) -> None:
        """Rename back to back, remove, judge what came out by that, and then see what lies there now."""
        each = self._verdicts.each
        ready = [change for change in self._made if change.path in self._stage]
        gone = [change for change in self._gone if change.path not in self.applied.done]
        doomed = [change for change in gone if not change.was_directory]
        spares = {change.path: self._stage.spare_name() for change in doomed}
        self._note_intents(ready, doomed, spares)
        each(ready, self._place, self._hold_back)
        self._moves |= {
            path: Moves(1, int(self._stage.has_out(path))) for path in self._laid.keys() & self._placed
        }
        each(doomed, lambda change: self._take_out(change, spares[change.path]), self._hold_back)
        os.sched_yield()  # who waits for the files goes first: what is left to do here is bookkeeping
        each((change for change in self._changes if self._stage.has_out(change.path)), self._judge)
        self._take_back()
        each((change for change in gone if change.was_directory), self._remove_directory)
        placed = [change for change in self._made if change.path in self._placed]
        for change in self._changes:
            self._stage.drop(change.path)
        each((change for change in placed if change.desired.kind is not Kind.DIR), self._record)
        directories = [change for change in placed if change.desired.kind is Kind.DIR]
        each(reversed(directories), self._record_directory)

    def _hold_back(self) -> None:
        self._verdicts.hold_back(self._placed)

    def _verify(self, change: LocalChange) -> bool:
        """Raise Stale unless just that lies at the path which the plan believed to lie there.

        Returns whether anything does.
        """
        known = None if change.path in self._cleared else change.expected
        try:
            above = self._directories.open(change.above)
            found = os.stat(change.name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        except OSError as error:
            makes_way = any(is_below(change.path, path) for path in self._replaced)
            if not makes_way or error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            found = None
        if found is None:
            if known and not change.gone:
                raise Stale
            return False
        if known is None or signature(found) != known.signature:
            raise Stale
        return True

    def _in_the_way(self) -> list[LocalChange]:
        """Return what must be removed first, since another kind of thing must lie there, the deepest first."""
        below = [change for change in self._gone if any(is_below(change.path, path) for path in self._replaced)]
        replaced = [change for change in self._made if change.path in self._replaced]
        return sorted([*below, *replaced], key=lambda change: -depth(change.path))

    def _clear_way(self, change: LocalChange) -> None:
        if change.was_directory:
            self._remove_directory(change)
        else:
            spare = self._stage.spare_name()
            self._journal.note(*self._removals([change], {change.path: spare}))
            self._take_out(change, spare)
            try:
                if self._stage.has_out(change.path):
                    self._judge(change)
            except (Stale, OSError):
                self._undo(change)
                self.applied.done.pop(change.path, None)
                raise
            self._stage.drop(change.path)
        if not change.gone:
            self.applied.done.pop(change.path, None)
            self._cleared.add(change.path)

    def _take_out(self, change: LocalChange, spare: str) -> None:
        """Move aside what shall be gone, to be judged there."""
        try:
            above = self._directories.unlock(change.above)
            if self._verify(change):
                self._stage.take_out(change.path, above, spare)
                self._moves[change.path] = Moves(0, 1)
        except FileNotFoundError:
            pass
        self.applied.done[change.path] = None

    def _remove_directory(self, change: LocalChange) -> None:
        with suppress(FileNotFoundError):
            above = self._directories.unlock(change.above)
            os.rmdir(change.name, dir_fd=above)
        self.applied.done[change.path] = None

    def _judge(self, change: LocalChange) -> None:
        """Raise Stale when what came out is not what was expected to."""
        if change.expected is None or not self._stage.is_still(change.path, expected(change.expected)):
            raise Stale

    def _take_back(self) -> None:
        """Undo what was placed of each group of which a member was given up, the last one first."""
        broken = self._verdicts.broken
        for change in (*reversed(self._gone), *reversed(self._made)) if broken else ():
            if change.group in broken and (change.path in self._placed or self._stage.has_out(change.path)):
                with suppress(OSError):  # it stays where it is
                    self._undo(change)
                if change.path in self._placed and change.desired.kind is not Kind.DIR:
                    self._verdicts.not_as_placed(change)
        self._hold_back()

    def _undo(self, change: LocalChange) -> None:
        """Bring back what lay at a path, unless the application was at what was placed there. Raises OSError."""
        if change.desired.kind is Kind.DIR and change.path in self._placed:
            self._undo_directory(change)
            return
        above = self._directories.open(change.above)
        laid = expected(self._laid[change.path]) if change.path in self._placed else None
        if self._stage.put_back(change.path, above, laid) or self._verdicts.given_up(change):
            self._placed.discard(change.path)
            self.applied.done.pop(change.path, None)

    def _undo_directory(self, change: LocalChange) -> None:
        if change.path in self._laid:  # it was not there before
            os.rmdir(change.name, dir_fd=self._directories.open(change.above))
        elif change.expected:
            before, descriptor = change.expected.signature, self._directories.open(change.path)
            now = os.fstat(descriptor)
            if (now.st_uid, now.st_gid) != (before.uid, before.gid):
                os.fchown(descriptor, before.uid, before.gid)
        self._placed.discard(change.path)  # its mode is given back

    def _place_directory(self, change: LocalChange) -> None:
        """Put a new directory in place, or make a known one no wider than it shall be; its mode comes last."""
        if change.path in self._stage:
            above = self._directories.make(change.above)
            self._inherit(change)
            self._verify(change)
            try:
                self._stage.move(change.path, above, replace=False)
            except FileExistsError:
                raise Stale from None
        else:
            descriptor = self._directories.open(change.path)
            status = self._same(change, descriptor)
            give_owner(change.desired, status, lambda uid, gid: os.fchown(descriptor, uid, gid))
            mode = stat.S_IMODE(status.st_mode)
            if mode != change.desired.mode | special_bits(status):
                os.fchmod(descriptor, mode & change.desired.mode | special_bits(status) | 0o700)
                self._directories.modes.setdefault(change.path, mode)
        self._placed.add(change.path)

    def _same(self, change: LocalChange, descriptor: int) -> os.stat_result:
        """Return the stat of the directory that was placed or known. Raises Stale when it is another one."""
        status, known = os.fstat(descriptor), self._laid.get(change.path, change.expected)
        if known and known.signature.ino != status.st_ino:
            raise Stale
        return status

    def _inherit(self, change: LocalChange) -> None:
        above = self._directories.make(change.above)
        status, desired = self._stage.inherit(change, above), change.desired
        entry = self._entries.make(
            desired.kind, status, size=desired.size, sha256=desired.sha256, target=desired.target
        )
        self._laid[change.path] = LocalEntry(entry=entry, signature=signature(status))

    def _note_intents(
        self, ready: Sequence[LocalChange], doomed: Sequence[LocalChange], spares: dict[StorePath, str]
    ) -> None:
        """Write down what is about to be done; nothing is when there is no room even for that."""
        placings = [self._placing(change) for change in ready if change.path in self._laid]
        try:
            self._journal.note(*placings, *self._removals(doomed, spares))
        except OSError as error:
            for change in (*ready, *doomed):
                self._verdicts.refuse(change, why_failed(error))

    def _placing(self, change: LocalChange) -> Placing:
        laid = self._laid[change.path]
        known = None if change.path in self._cleared else change.expected
        return Placing(
            path=change.path,
            name=self._stage.name(change.path),
            laid=laid.signature,
            expected=expected(known) if known else None,
            group=change.group,
            entry=laid.entry,
            remote=change.remote,
        )

    def _removals(self, doomed: Iterable[LocalChange], spares: dict[StorePath, str]) -> list[Removing]:
        return [
            Removing(
                path=change.path, name=spares[change.path], expected=expected(change.expected), group=change.group
            )
            for change in doomed
            if change.expected and not self._verdicts.given_up(change)
        ]

    def _place(self, change: LocalChange) -> None:
        replace = self._verify(change)
        above = self._directories.open(change.above)
        try:
            self._stage.move(change.path, above, replace=replace)
        except (FileExistsError, FileNotFoundError):
            raise Stale from None
        self._placed.add(change.path)

    def _record(self, change: LocalChange) -> None:
        """Note what lies at a path now: what we laid there, even if the application was at it already."""
        laid = self._laid[change.path]
        mark = laid.signature
        try:
            above = self._directories.open(change.above)
            found = os.stat(change.name, dir_fd=above, follow_symlinks=False)
            if unchanged_since(mark, found):
                mark = signature(found)  # only the rename changed it
        except FileNotFoundError:
            pass
        self.applied.done[change.path] = LocalEntry(entry=laid.entry, signature=mark)

    def _record_directory(self, change: LocalChange) -> None:
        """Give a directory its final mode, all that belongs in it being there."""
        descriptor = self._directories.open(change.path)
        status = self._same(change, descriptor)
        mode = change.desired.mode & PERMISSIONS | special_bits(status)
        if stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(descriptor, mode)
        self._directories.modes.pop(change.path, None)
        status = os.fstat(descriptor)
        entry = self._entries.make(Kind.DIR, status)
        self.applied.done[change.path] = LocalEntry(entry=entry, signature=signature(status))


def _turn(change: LocalChange, rank: Callable[[StorePath], int]) -> tuple[int, int]:
    """Return when a change is placed: directories first, then by the mapping's order, links after files."""
    kind = change.desired.kind
    return (0 if kind is Kind.DIR else 1 + rank(change.path), PLACING_ORDER[kind])
