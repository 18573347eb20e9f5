"""The steps of applying one set. Called by `apply`, which numbers them and says why they come in this order."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from configstore.files.entries import Entries
from configstore.files.reading import signature
from configstore.files.reasons import why_failed
from configstore.model.path import StorePath, basename, depth, is_below, parent
from configstore.model.record import PLACING_ORDER, Kind
from sidecar.local.change import LocalChange
from sidecar.local.directories import Directories, special_bits
from sidecar.local.fingerprint import fingerprint_of, unchanged_since
from sidecar.local.journal import Journal, Placing, Removing
from sidecar.local.set_progress import SetProgress, Stale
from sidecar.local.stage import PERMISSIONS, Stage, give_owner
from sidecar.local.watch import Moves
from sidecar.planner.sides import LocalEntry


class SetSteps:
    """One set while it is applied."""

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
        self._progress = SetProgress(changes)
        self.applied = self._progress.applied
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
        self._laid: dict[StorePath, LocalEntry] = {}  # the staged state of each path
        self._placed: set[StorePath] = set()
        self._moves: dict[StorePath, Moves] = {}  # own moves, which the watch may ignore
        self._directories = directories
        self._stage = stage
        self._entries = entries
        self._journal = journal

    @property
    def moves(self) -> dict[StorePath, Moves]:
        """The moves that were made; none if a group was undone, since then files were moved more often."""
        return {} if self._progress.broken else self._moves

    def is_as_left(self, path: StorePath) -> bool:
        """Return whether a path is as this set left it."""
        left = self.applied.done.get(path)
        try:
            above = self._directories.open(parent(path))
            found = os.stat(basename(path), dir_fd=above, follow_symlinks=False)
        except OSError:
            return left is None
        return left is not None and signature(found) == left.signature

    def make_ready(self) -> None:
        """Stage everything and clear the way; gives up each group of which a change cannot be made."""
        each = self._progress.each
        each((change for change in self._made if not change.keeps_directory), self._stage.make)
        each(self._changes, self._verify)
        if len(self._changes) > 1:  # the rename of a single change fails by itself, and splits no set
            each(self._changes, self._directories.refuse_mount)
        self._progress.hold_back(())
        each(self._in_the_way(), self._clear_way)
        directories = [change for change in self._made if change.desired.kind is Kind.DIR]
        each(directories, self._place_directory)
        each((change for change in self._made if change.path in self._stage), self._inherit)
        self._take_back()

    def put_in_place(self) -> None:
        """Rename back to back, remove, judge what was taken out, and record the new states."""
        each = self._progress.each
        ready = [change for change in self._made if change.path in self._stage]
        gone = [change for change in self._gone if change.path not in self.applied.done]
        doomed = [change for change in gone if not change.was_directory]
        spares = {change.path: self._stage.spare_name() for change in doomed}
        self._note_intents(ready, doomed, spares)  # step 2: before the first rename of a file
        each(ready, self._place, self._hold_back)
        self._moves |= {
            path: Moves(1, int(self._stage.has_out(path))) for path in self._laid.keys() & self._placed
        }
        each(doomed, lambda change: self._take_out(change, spares[change.path]), self._hold_back)
        os.sched_yield()  # lets a process run that waits for the files, before the bookkeeping
        # Step 4: whole groups only, so all are judged before any is undone, and undone before anything is dropped.
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
        self._progress.hold_back(self._placed)

    def _verify(self, change: LocalChange) -> bool:
        """Raise Stale unless the path has the state that the plan expects; returns whether it has any."""
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
        """Return the changes whose old state must be removed first, the deepest first.

        These are the paths that change between directory and another kind, and what is removed below them.
        """
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
        """Move what is to be removed to the staging directory, to be judged there."""
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
        """Raise Stale if what was taken out is not the expected file."""
        if change.expected is None or not self._stage.is_still(change.path, fingerprint_of(change.expected)):
            raise Stale

    def _take_back(self) -> None:
        """Undo each broken group, the last change first."""
        broken = self._progress.broken
        for change in (*reversed(self._gone), *reversed(self._made)) if broken else ():
            if change.group in broken and (change.path in self._placed or self._stage.has_out(change.path)):
                with suppress(OSError):  # then it stays in place
                    self._undo(change)
                if change.path in self._placed and change.desired.kind is not Kind.DIR:
                    self._progress.not_as_placed(change)
        self._hold_back()

    def _undo(self, change: LocalChange) -> None:
        """Put the former file of a path back, unless the application changed the placed one. Raises OSError."""
        if change.desired.kind is Kind.DIR and change.path in self._placed:
            self._undo_directory(change)
            return
        above = self._directories.open(change.above)
        laid = fingerprint_of(self._laid[change.path]) if change.path in self._placed else None
        if self._stage.put_back(change.path, above, laid) or self._progress.given_up(change):
            self._placed.discard(change.path)
            self.applied.done.pop(change.path, None)

    def _undo_directory(self, change: LocalChange) -> None:
        if change.path in self._laid:  # this set made it
            os.rmdir(change.name, dir_fd=self._directories.open(change.above))
        elif change.expected:
            before, descriptor = change.expected.signature, self._directories.open(change.path)
            now = os.fstat(descriptor)
            if (now.st_uid, now.st_gid) != (before.uid, before.gid):
                os.fchown(descriptor, before.uid, before.gid)
        self._placed.discard(change.path)  # `restore_modes` gives it its former mode

    def _place_directory(self, change: LocalChange) -> None:
        """Place a new directory, or narrow the mode of a known one; the final mode comes last."""
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
        """Return the stat of a directory. Raises Stale if it is not the one that was placed or known."""
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
        """Write the intents to the journal; without room for them everything is given up."""
        placings = [self._placing(change) for change in ready if change.path in self._laid]
        try:
            self._journal.note(*placings, *self._removals(doomed, spares))
        except OSError as error:
            for change in (*ready, *doomed):
                self._progress.refuse(change, why_failed(error))

    def _placing(self, change: LocalChange) -> Placing:
        laid = self._laid[change.path]
        known = None if change.path in self._cleared else change.expected
        return Placing(
            path=change.path,
            name=self._stage.name(change.path),
            laid=laid.signature,
            expected=fingerprint_of(known) if known else None,
            group=change.group,
            entry=laid.entry,
            remote=change.remote,
        )

    def _removals(self, doomed: Iterable[LocalChange], spares: dict[StorePath, str]) -> list[Removing]:
        return [
            Removing(
                path=change.path,
                name=spares[change.path],
                expected=fingerprint_of(change.expected),
                group=change.group,
            )
            for change in doomed
            if change.expected and not self._progress.given_up(change)
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
        """Record the new state of a path: the placed one, even if the application has changed it since.

        Its signature is then not that of the file, so the next scan finds the change.
        """
        laid = self._laid[change.path]
        mark = laid.signature
        try:
            above = self._directories.open(change.above)
            found = os.stat(change.name, dir_fd=above, follow_symlinks=False)
            if unchanged_since(mark, found):
                mark = signature(found)  # only the rename changed it: the ctime
        except FileNotFoundError:
            pass
        self.applied.done[change.path] = LocalEntry(entry=laid.entry, signature=mark)

    def _record_directory(self, change: LocalChange) -> None:
        """Give a directory its final mode, now that everything is in it, and record its state."""
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
    """Return a sort key: directories first, then by the mapping's `order`, links after files."""
    kind = change.desired.kind
    return (0 if kind is Kind.DIR else 1 + rank(change.path), PLACING_ORDER[kind])
