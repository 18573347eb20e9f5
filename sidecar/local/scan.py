"""Reads what lies in the mirrored directory, never trusting it and never pushing what is half-written.

A file is read again only when its stat signature changed. `Scanner.scan` looks at the directories it is told
of, and into what is new in them. Called by the engine's thread only.
"""

import dataclasses
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Map

import msgspec
import pathspec

from configstore.model.path import ROOT, PathError, StorePath, join, parent, parse_path, printable
from configstore.model.record import MAX_SIZE, Entry, Kind, sha256
from sidecar.local.entries import Entries
from sidecar.local.reading import UnstableError, read_stable, signature
from sidecar.local.root import Root
from sidecar.planner.mapping import Mapping, Symlinks
from sidecar.planner.sides import LocalEntry, Problem

_RACY_NS = 20_000_000
"""A file changed less than so many nanoseconds before it was read is read again next time: the clock of its
time stamps may be too coarse (a tick is up to 10 ms) to show another change."""


class Changed(Exception):  # noqa: N818  # a fact, not a fault
    """A path is not any more what the plan believed it to be."""

    def __init__(self, path: StorePath) -> None:
        super().__init__(path)
        self.path = path


class Scan(msgspec.Struct, kw_only=True):
    """What a scan found.

    changed: paths that differ from what was known, None for those no longer there. problems: paths that cannot
    be mirrored, and why. cleared: paths that had a problem and have none now. unstable: paths being written.
    """

    changed: dict[StorePath, LocalEntry | None] = {}
    problems: dict[StorePath, Problem] = {}
    cleared: set[StorePath] = set()
    unstable: set[StorePath] = set()


class _Unusable(Exception):  # noqa: N818  # becomes a Problem
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class _Visit:
    """One directory being scanned."""

    directory: StorePath
    descriptor: int
    known: Map[StorePath, LocalEntry]
    found: Scan
    problems: dict[StorePath, Problem]


class Scanner:
    """Scans one mapping's directory. `ensure_watch` is called for a directory before it is listed."""

    def __init__(self, root: Root, mapping: Mapping, ensure_watch: Callable[[StorePath, int], None]) -> None:
        self._root = root
        self._mapping = mapping
        self._ensure_watch = ensure_watch
        self._entries = Entries()
        self._device = os.fstat(root.fd).st_dev
        self._names: dict[StorePath, set[str]] = {}  # what each directory held when last listed
        self._troubled: dict[StorePath, set[StorePath]] = {}  # by directory: the paths with a problem in it
        self._racy: set[StorePath] = set()
        self._refuse_empty = pathspec.GitIgnoreSpec.from_lines(mapping.refuse_empty)

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
            seen = {join(directory, StorePath(name)) for directory, names in self._names.items() for name in names}
            for path in known.keys() - seen:
                found.changed[path] = None
        else:
            for directory in directories:
                self._scan_tree(directory, known, found, descend=False)
        return found

    def note(self, path: StorePath) -> None:
        """Remember a path that was applied, so that its disappearance is noticed."""
        while path:
            above = parent(path)
            self._names.setdefault(above, set()).add(path.rpartition("/")[2])
            path = above

    def read_content(self, path: StorePath, expected: Entry) -> bytes:
        """Return a file's content for pushing. Raises Changed when it is not `expected` any more."""
        try:
            descriptor = self._open(path)
            try:
                content = read_stable(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, UnstableError) as error:
            raise Changed(path) from error
        if sha256(content) != expected.sha256:
            raise Changed(path)
        return content

    def _open(self, path: StorePath) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK
        if self._mapping.symlinks is Symlinks.RESOLVE:
            return self._root.beneath.open_following(path, flags)
        return self._root.beneath.open(path, flags | os.O_NOFOLLOW)

    def _scan_tree(
        self, top: StorePath, known: Map[StorePath, LocalEntry], found: Scan, *, descend: bool = True
    ) -> None:
        """Scan a directory; of those in it all, or with `descend` false the new ones only."""
        todo = [top]
        while todo:
            directory = todo.pop()
            for child, is_new in self._scan_directory(directory, known, found):
                if descend or is_new:
                    todo.append(child)

    def _scan_directory(
        self, directory: StorePath, known: Map[StorePath, LocalEntry], found: Scan
    ) -> list[tuple[StorePath, bool]]:
        """Scan one directory, not what is below; returns the directories in it, and whether each is new."""
        before = self._names.get(directory, set())
        names: set[str] = set()
        children: list[tuple[StorePath, bool]] = []
        problems: dict[StorePath, Problem] = {}
        try:
            descriptor = self._root.open_directory(directory)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                problems[directory] = Problem(path=directory, reason=_words(error))
                names = before
            self._close_directory(directory, names, problems, known, found)
            return []
        try:
            visit = _Visit(directory, descriptor, known, found, problems)
            self._ensure_watch(directory, descriptor)
            with os.scandir(descriptor) as listing:
                for entry in listing:
                    child = self._scan_entry(visit, entry)
                    if child is None:
                        continue
                    path, is_dir = child
                    names.add(entry.name)
                    if is_dir:
                        children.append((path, path not in self._names))
        finally:
            os.close(descriptor)
        self._close_directory(directory, names, problems, known, found)
        return children

    def _scan_entry(self, visit: "_Visit", entry: "os.DirEntry[str]") -> tuple[StorePath, bool] | None:
        """Look at one name; returns its path, and whether it is a directory to enter; None for nothing of ours."""
        raw = join(visit.directory, StorePath(entry.name))
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        is_dir = stat.S_ISDIR(status.st_mode)
        if not self._mapping.enters(raw, is_dir=is_dir):
            return None
        selected = self._mapping.selects(raw, is_dir=is_dir)
        if not selected and not is_dir:
            return None
        try:
            path = self._usable_path(raw, status)
            if selected:
                self._note_entry(path, visit, entry.name, status)
        except (PathError, _Unusable) as error:
            shown = StorePath(printable(raw))
            visit.problems[shown] = Problem(path=shown, reason=str(error))
            return shown, False
        except UnstableError:
            visit.found.unstable.add(raw)
        except FileNotFoundError:
            return None
        except OSError as error:
            visit.problems[raw] = Problem(path=raw, reason=_words(error))
        return raw, is_dir

    def _usable_path(self, raw: str, status: os.stat_result) -> StorePath:
        path = parse_path(raw)
        if status.st_dev != self._device:
            raise _Unusable("another file system is mounted here; give it a mapping of its own")
        return path

    def _note_entry(self, path: StorePath, visit: "_Visit", name: str, status: os.stat_result) -> None:
        before = visit.known.get(path)
        links = stat.S_ISLNK(status.st_mode) and self._mapping.symlinks is Symlinks.RESOLVE
        if before and before.signature == signature(status) and path not in self._racy and not links:
            return
        entry, status = self._read_entry(path, visit.descriptor, name, status)
        fresh = LocalEntry(entry=entry, signature=signature(status))
        if time.time_ns() - status.st_ctime_ns < _RACY_NS:
            self._racy.add(path)
        else:
            self._racy.discard(path)
        if before != fresh:
            visit.found.changed[path] = fresh

    def _read_entry(
        self, path: StorePath, directory: int, name: str, status: os.stat_result
    ) -> tuple[Entry, os.stat_result]:
        if stat.S_ISLNK(status.st_mode):
            return self._read_link(path, directory, name, status)
        if stat.S_ISDIR(status.st_mode):
            return self._entries.make(Kind.DIR, status), status
        if stat.S_ISREG(status.st_mode):
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            return self._read_file(path, os.open(name, flags, dir_fd=directory))
        raise _Unusable("neither file, directory nor symlink (a FIFO, socket or device); exclude it")

    def _read_link(
        self, path: StorePath, directory: int, name: str, status: os.stat_result
    ) -> tuple[Entry, os.stat_result]:
        if self._mapping.symlinks is Symlinks.REFUSE:
            raise _Unusable('a symlink, which this mapping refuses (symlinks = "refuse")')
        if self._mapping.symlinks is Symlinks.RESOLVE:
            try:
                descriptor = self._open(path)
            except OSError as error:
                raise _Unusable(
                    f"a symlink that cannot be resolved inside the directory: {_words(error)}"
                ) from None
            return self._read_file(path, descriptor)
        target = os.readlink(name, dir_fd=directory)
        reason = unsafe_target(path, target)
        if reason:
            raise _Unusable(reason)
        return self._entries.make(Kind.SYMLINK, status, target=target), status

    def _read_file(self, path: StorePath, descriptor: int) -> tuple[Entry, os.stat_result]:
        """Read and close an open file."""
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _Unusable("not a regular file")
            if status.st_nlink > 1:
                raise _Unusable(f"has {status.st_nlink} hard links, perhaps to a file elsewhere; copy it instead")
            if status.st_size > MAX_SIZE:
                raise _Unusable(f"{status.st_size} bytes; at most {MAX_SIZE} are mirrored: exclude it")
            if status.st_size == 0 and self._refuse_empty.match_file(path):
                raise _Unusable("empty, which is never pushed for this kind of file; waiting for its content")
            content = read_stable(descriptor)
            return self._entries.make(Kind.FILE, status, size=len(content), sha256=sha256(content)), status
        finally:
            os.close(descriptor)

    def _close_directory(
        self,
        directory: StorePath,
        names: set[str],
        problems: dict[StorePath, Problem],
        known: Map[StorePath, LocalEntry],
        found: Scan,
    ) -> None:
        """Note what is gone from a directory since it was last listed, and whose problems are over."""
        gone = self._names.get(directory, set()) - names
        self._names[directory] = names
        for name in gone:
            self._drop(join(directory, StorePath(name)), known, found)
        found.problems |= problems
        found.cleared |= self._troubled.get(directory, set()) - problems.keys()
        self._troubled[directory] = set(problems)

    def _drop(self, top: StorePath, known: Map[StorePath, LocalEntry], found: Scan) -> None:
        """Note that a path and all below it are no longer there."""
        todo = [top]
        while todo:
            path = todo.pop()
            todo += [join(path, StorePath(name)) for name in self._names.pop(path, ())]
            found.cleared |= self._troubled.pop(path, set())
            self._racy.discard(path)
            if path in known:
                found.changed[path] = None


def unsafe_target(path: StorePath, target: str) -> str | None:
    """Return why a symlink at `path` must not be mirrored, or None.

    Judged by its text alone: absolute, or leading out of the mapping's directory.
    """
    if target.startswith("/"):
        return "a symlink with an absolute target, which means something else in every container; make it relative"
    depth = path.count("/")
    for component in target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(component, 1)
        if depth < 0:
            return "a symlink that leads out of the mirrored directory"
    return None


def _words(error: OSError) -> str:
    words = {
        errno.EACCES: "no permission to read it: run the sidecar as the files' owner, or as root",
        errno.EXDEV: "another file system is mounted here; give it a mapping of its own",
        errno.EMFILE: "too many open files: raise the sidecar's limit",
        errno.ENFILE: "too many open files on this host",
        errno.ELOOP: "a symlink was put in its place while it was read",
    }
    return words.get(error.errno or 0, error.strerror or str(error))
