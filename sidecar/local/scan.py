"""Finds what changed in the mirrored directory, and reads files for pushes. Called by the engine's thread only.

1. A path is gone only if a complete listing of its directory lacks it. What cannot be read is a problem and stays
   in its last known state, with everything below it.
2. A file is read again when its stat signature changed, when it was closed after writing, and when it changed so
   shortly before it was read that its time stamp may not show another change (`_RACY_NS`).
3. What is being written to is unstable and has no new state: half of a file is never pushed.
4. A directory is watched before it is listed, so that no change is missed in between.

`Scanner.scan` lists the given directories, and those below them that were not listed before.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Map

from configstore.files.reader import Reader
from configstore.files.reading import Linked, UnstableError, Unusable, signature
from configstore.files.reasons import why_failed
from configstore.files.walk import bears_mark
from configstore.model.path import ROOT, PathError, StorePath, basename, join, parent, parse_path
from configstore.model.problem import Problem
from configstore.model.record import CHUNK_SIZE, Entry, Kind
from configstore.model.selection import Symlinks
from configstore.model.signature import Signature
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.scan_result import DirectoryScan, RunningScan, ScanResult
from sidecar.local.watch import LocalWatch
from sidecar.mapping import Mapping
from sidecar.planner.sides import LocalEntry

__all__ = ["Changed", "ScanResult", "Scanner", "Unreadable"]

_RACY_NS = 20_000_000
"""A file that changed less than this many nanoseconds before it was read is read again by the next scan: the
kernel's time stamps are coarse (a tick is up to 10 ms) and may not show another change."""

_NO_DIRECTORY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""Errors which show that a path is no directory any more; all others show nothing about it."""

Marks = dict[StorePath, Signature | None]


class Changed(Exception):  # noqa: N818  # a fact, not a fault
    """A path is not in the planned state any more."""

    def __init__(self, path: StorePath) -> None:
        super().__init__(path)
        self.path = path


class Unreadable(Exception):  # noqa: N818  # becomes a Problem
    """A path cannot be read now, for a reason that says nothing about its state."""

    def __init__(self, path: StorePath, reason: str) -> None:
        super().__init__(path, reason)
        self.problem = Problem(path=path, reason=reason)


class Scanner:
    """Scans one mapping's mirrored directory.

    unread: the directories that must be scanned again without an event.
    """

    def __init__(self, root: MirroredDirectory, mapping: Mapping, watch: LocalWatch | None = None) -> None:
        """watch: is called for each directory before it is listed, and knows which files are being written to."""
        self._root = root
        self._mapping = mapping
        self._ensure_watch = watch.ensure if watch else _watch_nothing
        self.reader = Reader(root.beneath, mapping.symlinks, mapping.refuse_empty, writers=watch)
        self._device = os.fstat(root.fd).st_dev
        self._names: dict[StorePath, set[str]] = {}  # the known names in each directory
        self._listed: dict[StorePath, int] = {}  # the inodes of directories that were listed to the end
        self._problem_marks: dict[StorePath, Marks] = {}  # by directory: the paths with a problem in it
        self._racy: set[StorePath] = set()
        self._unwatched: set[StorePath] = set()  # their watches end after the scan, which may find them moved
        self.unread: set[StorePath] = set()

    @property
    def limitation(self) -> str | None:
        """Why it is not certain which files are being written to, and what to do; None when it is."""
        if not self.reader.blind:
            return None
        return (
            "the kernel does not tell who is writing to other users' files: give the sidecar the capability LEASE"
            " (cap_add: [LEASE]), or run it as the files' owner"
        )

    def mark(self, path: StorePath) -> Signature | None:
        """Return the signature of a path that could not be read; None when it can be read, or is gone."""
        return self._problem_marks.get(parent(path), {}).get(path)

    def scan(
        self,
        directories: Iterable[StorePath] | None,
        known: Map[StorePath, LocalEntry],
        *,
        written: Iterable[StorePath] = (),
        rehash: bool = False,
    ) -> ScanResult:
        """Scan `directories` (None: all) and return what differs from `known`.

        A scan of all depends on nothing that was remembered: what is known and was not found is gone. written: the
        files that were closed after writing; they are read again. rehash: read every file again.
        """
        again = {*written, *(known if rehash else ())}
        scan = RunningScan(known=known, again=again)
        for directory in [ROOT] if directories is None else directories:
            self._scan_tree(directory, scan, descend=directories is None)
        if directories is None:
            self._drop_unseen(scan)
        for directory in self._unwatched:
            self._ensure_watch(directory, None)
        self._unwatched.clear()
        return scan.found

    def note(self, path: StorePath) -> None:
        """Remember a path that was applied, so that its removal and its next change are noticed."""
        self._racy.add(path)
        self._link(path)

    def pieces(self, path: StorePath, expected: Entry) -> Iterator[bytes]:
        """Yield a file's content in pieces. The content is valid only once the last piece was taken.

        Raises Changed when the file is not `expected` any more, perhaps only at the end, and Unreadable when that
        cannot be known. A piece of an unexpected length is not yielded: the caller would report a wrong size.
        """
        digest, left = hashlib.sha256(), expected.size
        try:
            for piece in self.reader.pieces(path):
                if len(piece) != min(CHUNK_SIZE, left):
                    raise Changed(path)
                left -= len(piece)
                digest.update(piece)
                yield piece
        except UnstableError as error:
            raise Changed(path) from error
        except OSError as error:
            if error.errno in _NO_DIRECTORY or error.errno == errno.ENXIO:  # ENXIO is a socket's
                raise Changed(path) from error
            raise Unreadable(path, why_failed(error)) from error
        if digest.hexdigest() != expected.sha256:
            raise Changed(path)

    def _scan_tree(self, top: StorePath, scan: RunningScan, *, descend: bool) -> None:
        """Scan a directory and those below it; with `descend` false only those that were not listed yet."""
        todo = [top]
        while todo:
            current = DirectoryScan(directory=todo.pop(), scan=scan)
            if self._scan_directory(current):
                children = current.children.items()
                todo += [path for path, inode in children if descend or self._listed.get(path) != inode]

    def _scan_directory(self, current: DirectoryScan) -> bool:
        """Scan one directory without those below; returns whether it was listed to the end."""
        directory = current.directory
        try:
            self._list(current)
        except OSError as error:
            if error.errno in _NO_DIRECTORY and directory != ROOT:
                self._drop_directory(current.scan, directory)
            else:
                self._keep_unreadable(current.scan, directory, error)
            return False
        self._merge(current)
        return True

    def _list(self, current: DirectoryScan) -> None:
        current.descriptor = self._root.open_directory(current.directory)
        try:
            self._unwatched.discard(current.directory)
            self._ensure_watch(current.directory, current.descriptor)  # rule 4: before the listing
            with os.scandir(current.descriptor) as listing:
                for entry in listing:
                    self._scan_name(current, entry)
            status = os.fstat(current.descriptor)
            if status.st_nlink == 0:  # a removed directory lists as an empty one
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._listed[current.directory] = status.st_ino
        finally:
            os.close(current.descriptor)

    def _scan_name(self, current: DirectoryScan, entry: "os.DirEntry[str]") -> None:
        """Scan one name if it belongs to the mapping."""
        path = join(current.directory, StorePath(entry.name))
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            if self._mapping.enters(path):
                current.paths.append(path)
                current.blind.add(path)
                current.fail(path, error)
            return
        is_dir = stat.S_ISDIR(status.st_mode)
        if not is_dir:
            current.files.add(path)
        known = current.scan.known.get(path)
        selected = known is not None and (known.entry.kind is Kind.DIR) == is_dir  # the selection never changes
        selected = selected or self._mapping.selects(path, is_dir=is_dir)
        if selected or (is_dir and self._mapping.enters(path)):
            self._scan_selected(path, current, entry.name, status, selected=selected)

    def _scan_selected(
        self, path: StorePath, current: DirectoryScan, name: str, status: os.stat_result, *, selected: bool
    ) -> None:
        """Scan a name that belongs to the mapping; `selected` is false for a directory of selected paths."""
        is_dir = stat.S_ISDIR(status.st_mode)
        try:
            self._check(path, current, name, status)
            if selected:
                self._read_entry(path, current, name, status)
            if is_dir:
                current.children[path] = status.st_ino
        except FileNotFoundError:
            return
        except (PathError, Unusable) as reason:
            mend = "; rename it" if isinstance(reason, PathError) else ""
            current.refuse(path, f"{reason}{mend}", status)
            current.unread |= isinstance(reason, Linked)  # no event reports that its other name is removed
            if is_dir:
                current.blind.add(path)
        except UnstableError:
            current.unstable.add(path)
            current.racy.add(path)
        except OSError as error:
            current.fail(path, error, status)
            current.racy.add(path)
        current.paths.append(path)

    def _check(self, path: StorePath, current: DirectoryScan, name: str, status: os.stat_result) -> None:
        is_dir = stat.S_ISDIR(status.st_mode)
        if path not in current.scan.known:
            parse_path(path)
        if status.st_dev != self._device:
            mounted = errno.EXDEV if is_dir else errno.EBUSY
            raise Unusable(why_failed(OSError(mounted, os.strerror(mounted))))
        if is_dir and bears_mark(current.descriptor, name):
            raise Unusable("a sidecar's own directory (.configstore) that was moved here: remove it")

    def _read_entry(self, path: StorePath, current: DirectoryScan, name: str, status: os.stat_result) -> None:
        before = current.scan.known.get(path)
        links = stat.S_ISLNK(status.st_mode) and self._mapping.symlinks is Symlinks.RESOLVE
        doubted = links or path in self._racy or path in current.scan.again
        if before and not doubted and before.signature == signature(status):
            current.states[path] = None
            return
        now = time.time_ns()
        entry, status = self.reader.read(path, current.descriptor, name, status)
        fresh = LocalEntry(entry=entry, signature=signature(status))
        (current.racy if now - status.st_ctime_ns < _RACY_NS else current.calm).add(path)
        current.states[path] = None if before == fresh else fresh

    def _merge(self, current: DirectoryScan) -> None:
        """Take over a directory that was listed to the end; it replaces what the same scan found there before."""
        directory, scan, found = current.directory, current.scan, current.scan.found
        for path in self._names.keys() & current.files:  # former directories
            self._drop(scan, self._forget(scan, path))
        names = {basename(path) for path in current.paths}
        gone = self._names.get(directory, set()) - names
        self._names[directory] = names
        self._link(directory)
        self._drop(scan, [join(directory, StorePath(name)) for name in gone])
        for path in current.paths:
            found.changed.pop(path, None)
            found.unstable.discard(path)
        found.changed |= {path: fresh for path, fresh in current.states.items() if fresh}
        found.unstable |= current.unstable
        self._racy -= current.calm
        self._racy |= current.racy
        self._note_problems(scan, directory, current.problems, current.marks)
        if current.unread:
            self.unread.add(directory)
        else:
            self.unread.discard(directory)
        scan.read.add(directory)
        scan.blind |= current.blind

    def _note_problems(
        self, scan: RunningScan, directory: StorePath, problems: dict[StorePath, Problem], marks: Marks
    ) -> None:
        """Set the problems in a directory; problems that it had before and has no more are cleared."""
        found = scan.found
        before = self._problem_marks.pop(directory, {})
        over = before.keys() - problems.keys()
        found.touched |= {path for path, mark in marks.items() if path not in before or before[path] != mark}
        for path in over:
            found.problems.pop(path, None)
        found.cleared |= over
        found.cleared -= problems.keys()
        found.problems |= problems
        if problems:
            self._problem_marks[directory] = marks

    def _keep_unreadable(self, scan: RunningScan, directory: StorePath, error: OSError) -> None:
        """Keep the known state of everything below a directory that cannot be read."""
        current = DirectoryScan(directory=directory, scan=scan)
        current.fail(directory, error)
        self._listed.pop(directory, None)
        self._names.setdefault(directory, set())
        self._link(directory)
        self._note_problems(scan, directory, current.problems, current.marks)
        self.unread.add(directory)
        scan.blind.add(directory)

    def _link(self, path: StorePath) -> None:
        """Add a path to the names of the directories above it, so that it is gone when one of them is."""
        while path:
            above = parent(path)
            self._names.setdefault(above, set()).add(basename(path))
            path = above

    def _drop_unseen(self, scan: RunningScan) -> None:
        """Note as gone what is known and was not found by a scan of everything."""
        gone = []
        for path in scan.known:
            above = parent(path)
            there = basename(path) in self._names.get(above, ()) if above in scan.read else False
            if not there and scan.sees(path):
                gone.append(path)
        self._drop(scan, gone)
        for directory in self._names.keys() - scan.read:
            if directory not in scan.blind and scan.sees(directory):
                self._forget(scan, directory)

    def _drop_directory(self, scan: RunningScan, directory: StorePath) -> None:
        """Note that a path is no directory any more, whether it is gone or something else."""
        self._unwatched.add(directory)
        self._drop(scan, self._forget(scan, directory))
        latest = scan.found.changed.get(directory, scan.known.get(directory))
        if latest and latest.entry.kind is Kind.DIR:
            self._drop(scan, [directory])
            self._names.get(parent(directory), set()).discard(basename(directory))

    def _drop(self, scan: RunningScan, paths: list[StorePath]) -> None:
        """Note that these paths and everything below them are gone."""
        while paths:
            path = paths.pop()
            self._racy.discard(path)
            scan.found.changed.pop(path, None)  # found earlier by the same scan
            scan.found.unstable.discard(path)
            if path in scan.known:
                scan.found.changed[path] = None
            paths += self._forget(scan, path)

    def _forget(self, scan: RunningScan, directory: StorePath) -> list[StorePath]:
        """Forget a path that is no directory any more; returns the paths that were in it."""
        names = self._names.pop(directory, None)
        self.unread.discard(directory)
        if names is None:
            return []
        self._listed.pop(directory, None)
        self._unwatched.add(directory)
        self._note_problems(scan, directory, {}, {})
        return [join(directory, StorePath(name)) for name in names]


def _watch_nothing(*_: object) -> None:
    """Do nothing, in the stead of a watch where changes are not followed."""
