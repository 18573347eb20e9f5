"""Finds what changed in the mirrored directory, never trusting it and never pushing what is half-written.

A file is read again only when its stat signature changed. `Scanner.scan` looks at the directories it is told
of, and into what is new in them. What cannot be looked at is a problem and stays what it was: only a name that
a complete listing lacks is gone. Called by the engine's thread only.
"""

import dataclasses
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Map

import msgspec

from configstore.files.reader import Reader, words
from configstore.files.reading import UnstableError, Unusable, signature
from configstore.model.path import ROOT, PathError, StorePath, join, parent, parse_path, printable
from configstore.model.record import Entry, Kind, sha256
from configstore.model.selection import Symlinks
from sidecar.local.root import Root
from sidecar.planner.mapping import Mapping
from sidecar.planner.sides import LocalEntry, Problem

_RACY_NS = 20_000_000
"""A file changed less than so many nanoseconds before it was read is read again next time: the clock of its
time stamps may be too coarse (a tick is up to 10 ms) to show another change."""

_NO_DIRECTORY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""Errors which say that something else lies at a path by now; all others say nothing about what lies there."""


class Changed(Exception):  # noqa: N818  # a fact, not a fault
    """A path is not any more what the plan believed it to be."""

    def __init__(self, path: StorePath) -> None:
        super().__init__(path)
        self.path = path


class Unreadable(Exception):  # noqa: N818  # becomes a Problem
    """A path cannot be read now, for a reason that says nothing about what lies there."""

    def __init__(self, path: StorePath, reason: str) -> None:
        super().__init__(path, reason)
        self.problem = Problem(path=path, reason=reason)


class Scan(msgspec.Struct, kw_only=True):
    """What a scan found.

    changed: paths that differ from what was known, None for those no longer there. problems: paths that cannot
    be mirrored, and why; that of a directory speaks for all that is below it. cleared: paths that had a problem
    and have none now. unstable: paths being written.
    """

    changed: dict[StorePath, LocalEntry | None] = {}
    problems: dict[StorePath, Problem] = {}
    cleared: set[StorePath] = set()
    unstable: set[StorePath] = set()


@dataclasses.dataclass(kw_only=True, slots=True)
class _Visit:
    """One directory being scanned: what it is compared with, and what is found in it.

    children: the directories in it, with their inodes. unread: something in it could not be read this time.
    """

    directory: StorePath
    known: Map[StorePath, LocalEntry]
    found: Scan
    descriptor: int = -1
    names: set[str] = dataclasses.field(default_factory=set)
    children: dict[StorePath, int] = dataclasses.field(default_factory=dict)
    problems: dict[StorePath, Problem] = dataclasses.field(default_factory=dict)
    unread: bool = False

    def fail(self, path: str, error: OSError) -> None:
        self.refuse(path, words(error))
        self.unread = True

    def refuse(self, path: str, reason: str) -> None:
        shown = StorePath(printable(path))
        self.problems[shown] = Problem(path=shown or "/", reason=reason)


class Scanner:
    """Scans one mapping's directory.

    `ensure_watch` is called with every directory and its descriptor before it is listed, and with None when the
    directory is gone.
    """

    def __init__(
        self, root: Root, mapping: Mapping, ensure_watch: Callable[[StorePath, int | None], None]
    ) -> None:
        self._root = root
        self._mapping = mapping
        self._ensure_watch = ensure_watch
        self._reader = Reader(root.beneath, mapping.symlinks, mapping.refuse_empty)
        self._device = os.fstat(root.fd).st_dev
        self._names: dict[StorePath, set[str]] = {}  # what each directory is known to hold
        self._listed: dict[StorePath, int] = {}  # directories watched and listed to the end, and their inode
        self._troubled: dict[StorePath, set[StorePath]] = {}  # by directory: the paths with a problem in it
        self._racy: set[StorePath] = set()
        self.unread: set[StorePath] = set()  # directories to be looked at again, event or no event

    def scan(
        self, directories: Iterable[StorePath] | None, known: Map[StorePath, LocalEntry], *, rehash: bool = False
    ) -> Scan:
        """Look at `directories` (None: all) and return what differs from `known`.

        rehash: read every file again, whatever its signature.
        """
        found = Scan()
        if directories is None:
            self._racy |= known.keys() if rehash else set()
            self._scan_tree(ROOT, known, found)
        else:
            for directory in directories:
                self._scan_tree(directory, known, found, descend=False)
        return found

    def note(self, path: StorePath) -> None:
        """Remember a path that was applied, so that its disappearance and its next change are noticed."""
        self._racy.add(path)
        self._link(path)

    def read_content(self, path: StorePath, expected: Entry) -> bytes:
        """Return a file's content for pushing.

        Raises Changed when it is not `expected` any more, and Unreadable when it cannot be known.
        """
        try:
            content = self._reader.content(path)
        except UnstableError as error:
            raise Changed(path) from error
        except OSError as error:
            if error.errno in _NO_DIRECTORY or error.errno == errno.ENXIO:  # the latter is a socket's
                raise Changed(path) from error
            raise Unreadable(path, words(error)) from error
        if sha256(content) != expected.sha256:
            raise Changed(path)
        return content

    def _scan_tree(
        self, top: StorePath, known: Map[StorePath, LocalEntry], found: Scan, *, descend: bool = True
    ) -> None:
        """Scan a directory; of those in it all, or with `descend` false those not listed yet."""
        todo = [top]
        while todo:
            visit = _Visit(directory=todo.pop(), known=known, found=found)
            self._scan_directory(visit)
            todo += [path for path, inode in visit.children.items() if descend or self._listed.get(path) != inode]

    def _scan_directory(self, visit: _Visit) -> None:
        """Scan one directory, not what is below."""
        directory = visit.directory
        try:
            self._list(visit)
        except OSError as error:
            if error.errno in _NO_DIRECTORY and directory != ROOT:
                self._drop(visit, self._forget(visit, directory))
                return
            self._listed.pop(directory, None)
            visit.fail(directory, error)
            visit.names |= self._names.get(directory, set())
        self._close(visit)

    def _list(self, visit: _Visit) -> None:
        visit.descriptor = self._root.open_directory(visit.directory)
        try:
            self._ensure_watch(visit.directory, visit.descriptor)
            with os.scandir(visit.descriptor) as listing:
                for entry in listing:
                    self._scan_entry(visit, entry)
            status = os.fstat(visit.descriptor)
            if status.st_nlink == 0:  # it was removed, and a removed directory lists as an empty one
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._listed[visit.directory] = status.st_ino
        finally:
            os.close(visit.descriptor)

    def _scan_entry(self, visit: _Visit, entry: "os.DirEntry[str]") -> None:
        """Look at one name, and note it if it is ours."""
        path = join(visit.directory, StorePath(entry.name))
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            if self._mapping.enters(path):
                visit.names.add(entry.name)
                visit.fail(path, error)
            return
        is_dir = stat.S_ISDIR(status.st_mode)
        if not is_dir and path in self._names:
            self._drop(visit, self._forget(visit, path))
        known = visit.known.get(path)
        selected = known is not None and (known.entry.kind is Kind.DIR) == is_dir  # as it was before
        selected = selected or self._mapping.selects(path, is_dir=is_dir)
        if selected or (is_dir and self._mapping.enters(path)):
            self._take_entry(path, visit, entry.name, status, selected=selected)

    def _take_entry(
        self, path: StorePath, visit: _Visit, name: str, status: os.stat_result, *, selected: bool
    ) -> None:
        """Note a name that is ours, and what can be said of it."""
        try:
            self._check(path, visit, status)
            if selected:
                self._note_entry(path, visit, name, status)
            if stat.S_ISDIR(status.st_mode):
                visit.children[path] = status.st_ino
        except FileNotFoundError:
            return
        except (PathError, Unusable) as reason:
            visit.refuse(path, str(reason))
        except UnstableError:
            visit.found.unstable.add(path)
        except OSError as error:
            visit.fail(path, error)
        visit.names.add(name)

    def _check(self, path: StorePath, visit: _Visit, status: os.stat_result) -> None:
        if path not in visit.known:
            parse_path(path)
        if status.st_dev != self._device:
            raise Unusable("another file system is mounted here; give it a mapping of its own")

    def _note_entry(self, path: StorePath, visit: _Visit, name: str, status: os.stat_result) -> None:
        before = visit.known.get(path)
        links = stat.S_ISLNK(status.st_mode) and self._mapping.symlinks is Symlinks.RESOLVE
        if before and before.signature == signature(status) and path not in self._racy and not links:
            visit.found.changed.pop(path, None)
            return
        now = time.time_ns()
        entry, status = self._reader.read(path, visit.descriptor, name, status)
        fresh = LocalEntry(entry=entry, signature=signature(status))
        if now - status.st_ctime_ns < _RACY_NS:
            self._racy.add(path)
        else:
            self._racy.discard(path)
        visit.found.changed.pop(path, None)
        if before != fresh:
            visit.found.changed[path] = fresh

    def _close(self, visit: _Visit) -> None:
        """Note what is gone from a directory since it was last listed, and whose problems are over."""
        gone = self._names.get(visit.directory, set()) - visit.names
        self._names[visit.directory] = visit.names
        self._link(visit.directory)
        self._drop(visit, [join(visit.directory, StorePath(name)) for name in gone])
        visit.found.problems |= visit.problems
        visit.found.cleared |= self._troubled.pop(visit.directory, set()) - visit.problems.keys()
        if visit.problems:
            self._troubled[visit.directory] = set(visit.problems)
        if visit.unread:
            self.unread.add(visit.directory)
        else:
            self.unread.discard(visit.directory)

    def _link(self, path: StorePath) -> None:
        """Let the directories above a path hold it, so that it goes when one of them goes."""
        while path:
            above = parent(path)
            self._names.setdefault(above, set()).add(path.rpartition("/")[2])
            path = above

    def _drop(self, visit: _Visit, paths: list[StorePath]) -> None:
        """Note that these paths and all below them are no longer there."""
        while paths:
            path = paths.pop()
            self._racy.discard(path)
            visit.found.changed.pop(path, None)  # as an earlier visit of the same scan found it
            visit.found.unstable.discard(path)
            if path in visit.known:
                visit.found.changed[path] = None
            paths += self._forget(visit, path)

    def _forget(self, visit: _Visit, directory: StorePath) -> list[StorePath]:
        """Forget a directory that is none any more; returns what was in it."""
        names = self._names.pop(directory, None)
        self.unread.discard(directory)
        if names is None:
            return []
        self._listed.pop(directory, None)
        self._ensure_watch(directory, None)
        visit.found.cleared |= self._troubled.pop(directory, set())
        return [join(directory, StorePath(name)) for name in names]
