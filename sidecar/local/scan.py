"""Finds what changed in the mirrored directory, never trusting it and never pushing what is half-written.

A file is read again only when its stat signature changed, or when it was closed after writing. `Scanner.scan`
looks at the directories it is told of, and into what is new in them; what it found of one counts when it was
listed to the end. What cannot be looked at is a problem and stays what it was: only a name that a complete listing
lacks is gone. Called by the engine's thread only.
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
from sidecar.local.visit import Round, Scan, Visit
from sidecar.local.watch import LocalWatch
from sidecar.mapping import Mapping
from sidecar.planner.sides import LocalEntry

__all__ = ["Changed", "Scan", "Scanner", "Unreadable"]

_RACY_NS = 20_000_000
"""A file changed less than so many nanoseconds before it was read is read again next time: the clock of its
time stamps may be too coarse (a tick is up to 10 ms) to show another change."""

_NO_DIRECTORY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""Errors which say that something else lies at a path by now; all others say nothing about what lies there."""

Marks = dict[StorePath, Signature | None]


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


class Scanner:
    """Scans one mapping's directory.

    A watch is told of every directory and its descriptor before it is listed, and with None when it is gone.
    """

    def __init__(self, root: MirroredDirectory, mapping: Mapping, watch: LocalWatch | None = None) -> None:
        """`watch`: what follows changes, and knows who writes where the kernel may not be asked."""
        self._root = root
        self._mapping = mapping
        self._ensure_watch = watch.ensure if watch else _watch_nothing
        self.reader = Reader(root.beneath, mapping.symlinks, mapping.refuse_empty, writers=watch)
        self._device = os.fstat(root.fd).st_dev
        self._names: dict[StorePath, set[str]] = {}  # what each directory is known to hold
        self._listed: dict[StorePath, int] = {}  # directories watched and listed to the end, and their inode
        self._troubled: dict[StorePath, Marks] = {}  # by directory: how the paths with a problem in it look
        self._racy: set[StorePath] = set()
        self._unwatched: set[StorePath] = set()  # their watches end with the scan: what moved was seen by then
        self.unread: set[StorePath] = set()  # directories to be looked at again, event or no event

    @property
    def trouble(self) -> str | None:
        """Why it is not certain who is writing to which file, and the mend; None when it is."""
        if not self.reader.blind:
            return None
        return (
            "the kernel does not tell who is writing to other users' files: give the sidecar the capability LEASE"
            " (cap_add: [LEASE]), or run it as the files' owner"
        )

    def mark(self, path: StorePath) -> Signature | None:
        """Return how a path looks that could not be read; None when it can be, or is gone."""
        return self._troubled.get(parent(path), {}).get(path)

    def scan(
        self,
        directories: Iterable[StorePath] | None,
        known: Map[StorePath, LocalEntry],
        *,
        written: Iterable[StorePath] = (),
        rehash: bool = False,
    ) -> Scan:
        """Look at `directories` (None: all) and return what differs from `known`.

        A look at all rebuilds the truth from the disk: what is known and was not seen is gone. written: files that
        were closed after writing; they are read again, whatever their signature. rehash: read every file again.
        """
        again = {*written, *(known if rehash else ())}
        look = Round(known=known, again=again)
        for directory in [ROOT] if directories is None else directories:
            self._scan_tree(directory, look, descend=directories is None)
        if directories is None:
            self._drop_unseen(look)
        for directory in self._unwatched:
            self._ensure_watch(directory, None)
        self._unwatched.clear()
        return look.found

    def note(self, path: StorePath) -> None:
        """Remember a path that was applied, so that its disappearance and its next change are noticed."""
        self._racy.add(path)
        self._link(path)

    def pieces(self, path: StorePath, expected: Entry) -> Iterator[bytes]:
        """Yield a file's content for pushing, piece by piece; all of it counts only when the end is reached.

        Raises Changed when it is not `expected` any more, which may show at the end only, and Unreadable when it
        cannot be known. A piece of another length is never handed on: who takes it could not know why.
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
            if error.errno in _NO_DIRECTORY or error.errno == errno.ENXIO:  # the latter is a socket's
                raise Changed(path) from error
            raise Unreadable(path, why_failed(error)) from error
        if digest.hexdigest() != expected.sha256:
            raise Changed(path)

    def _scan_tree(self, top: StorePath, look: Round, *, descend: bool) -> None:
        """Scan a directory; of those in it all, or with `descend` false those not listed yet."""
        todo = [top]
        while todo:
            visit = Visit(directory=todo.pop(), round=look)
            if self._scan_directory(visit):
                children = visit.children.items()
                todo += [path for path, inode in children if descend or self._listed.get(path) != inode]

    def _scan_directory(self, visit: Visit) -> bool:
        """Scan one directory, not what is below. Returns whether it was listed to the end."""
        directory = visit.directory
        try:
            self._list(visit)
        except OSError as error:
            if error.errno in _NO_DIRECTORY and directory != ROOT:
                self._drop_directory(visit.round, directory)
            else:
                self._keep(visit.round, directory, error)
            return False
        self._merge(visit)
        return True

    def _list(self, visit: Visit) -> None:
        visit.descriptor = self._root.open_directory(visit.directory)
        try:
            self._unwatched.discard(visit.directory)
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

    def _scan_entry(self, visit: Visit, entry: "os.DirEntry[str]") -> None:
        """Look at one name, and note it if it is ours."""
        path = join(visit.directory, StorePath(entry.name))
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            if self._mapping.enters(path):
                visit.paths.append(path)
                visit.blind.add(path)
                visit.fail(path, error)
            return
        is_dir = stat.S_ISDIR(status.st_mode)
        if not is_dir:
            visit.files.add(path)
        known = visit.round.known.get(path)
        selected = known is not None and (known.entry.kind is Kind.DIR) == is_dir  # as it was before
        selected = selected or self._mapping.selects(path, is_dir=is_dir)
        if selected or (is_dir and self._mapping.enters(path)):
            self._take_entry(path, visit, entry.name, status, selected=selected)

    def _take_entry(
        self, path: StorePath, visit: Visit, name: str, status: os.stat_result, *, selected: bool
    ) -> None:
        """Note a name that is ours, and what can be said of it."""
        is_dir = stat.S_ISDIR(status.st_mode)
        try:
            self._check(path, visit, name, status)
            if selected:
                self._look_at(path, visit, name, status)
            if is_dir:
                visit.children[path] = status.st_ino
        except FileNotFoundError:
            return
        except (PathError, Unusable) as reason:
            mend = "; rename it" if isinstance(reason, PathError) else ""
            visit.refuse(path, f"{reason}{mend}", status)
            visit.unread |= isinstance(reason, Linked)  # no event tells when its other name goes
            if is_dir:
                visit.blind.add(path)
        except UnstableError:
            visit.unstable.add(path)
            visit.racy.add(path)
        except OSError as error:
            visit.fail(path, error, status)
            visit.racy.add(path)
        visit.paths.append(path)

    def _check(self, path: StorePath, visit: Visit, name: str, status: os.stat_result) -> None:
        is_dir = stat.S_ISDIR(status.st_mode)
        if path not in visit.round.known:
            parse_path(path)
        if status.st_dev != self._device:
            mounted = errno.EXDEV if is_dir else errno.EBUSY
            raise Unusable(why_failed(OSError(mounted, os.strerror(mounted))))
        if is_dir and bears_mark(visit.descriptor, name):
            raise Unusable("a sidecar's own directory (.configstore) that was moved here: remove it")

    def _look_at(self, path: StorePath, visit: Visit, name: str, status: os.stat_result) -> None:
        before = visit.round.known.get(path)
        links = stat.S_ISLNK(status.st_mode) and self._mapping.symlinks is Symlinks.RESOLVE
        doubted = links or path in self._racy or path in visit.round.again
        if before and not doubted and before.signature == signature(status):
            visit.looked[path] = None
            return
        now = time.time_ns()
        entry, status = self.reader.read(path, visit.descriptor, name, status)
        fresh = LocalEntry(entry=entry, signature=signature(status))
        (visit.racy if now - status.st_ctime_ns < _RACY_NS else visit.calm).add(path)
        visit.looked[path] = None if before == fresh else fresh

    def _merge(self, visit: Visit) -> None:
        """Take over what the visit of a whole directory found, whatever earlier ones of the same scan did."""
        directory, look, found = visit.directory, visit.round, visit.round.found
        for path in self._names.keys() & visit.files:  # what was in them is gone
            self._drop(look, self._forget(look, path))
        names = {basename(path) for path in visit.paths}
        gone = self._names.get(directory, set()) - names
        self._names[directory] = names
        self._link(directory)
        self._drop(look, [join(directory, StorePath(name)) for name in gone])
        for path in visit.paths:
            found.changed.pop(path, None)
            found.unstable.discard(path)
        found.changed |= {path: fresh for path, fresh in visit.looked.items() if fresh}
        found.unstable |= visit.unstable
        self._racy -= visit.calm
        self._racy |= visit.racy
        self._note_problems(look, directory, visit.problems, visit.marks)
        if visit.unread:
            self.unread.add(directory)
        else:
            self.unread.discard(directory)
        look.read.add(directory)
        look.blind |= visit.blind

    def _note_problems(
        self, look: Round, directory: StorePath, problems: dict[StorePath, Problem], marks: Marks
    ) -> None:
        """Note which problems there are in a directory, and which are over."""
        found = look.found
        before = self._troubled.pop(directory, {})
        over = before.keys() - problems.keys()
        found.touched |= {path for path, mark in marks.items() if path not in before or before[path] != mark}
        for path in over:
            found.problems.pop(path, None)
        found.cleared |= over
        found.cleared -= problems.keys()
        found.problems |= problems
        if problems:
            self._troubled[directory] = marks

    def _keep(self, look: Round, directory: StorePath, error: OSError) -> None:
        """Leave everything below a directory as it was known: it cannot be read, which says nothing about that."""
        visit = Visit(directory=directory, round=look)
        visit.fail(directory, error)
        self._listed.pop(directory, None)
        self._names.setdefault(directory, set())
        self._link(directory)
        self._note_problems(look, directory, visit.problems, visit.marks)
        self.unread.add(directory)
        look.blind.add(directory)

    def _link(self, path: StorePath) -> None:
        """Let the directories above a path hold it, so that it goes when one of them goes."""
        while path:
            above = parent(path)
            self._names.setdefault(above, set()).add(basename(path))
            path = above

    def _drop_unseen(self, look: Round) -> None:
        """Note that what is known and a scan of everything did not see is gone, whatever is remembered of it."""
        gone = []
        for path in look.known:
            above = parent(path)
            there = basename(path) in self._names.get(above, ()) if above in look.read else False
            if not there and look.sees(path):
                gone.append(path)
        self._drop(look, gone)
        for directory in self._names.keys() - look.read:
            if directory not in look.blind and look.sees(directory):
                self._forget(look, directory)

    def _drop_directory(self, look: Round, directory: StorePath) -> None:
        """Note that a directory is none any more, be it that it is gone or that something else lies there."""
        self._unwatched.add(directory)
        self._drop(look, self._forget(look, directory))
        latest = look.found.changed.get(directory, look.known.get(directory))
        if latest and latest.entry.kind is Kind.DIR:
            self._drop(look, [directory])
            self._names.get(parent(directory), set()).discard(basename(directory))

    def _drop(self, look: Round, paths: list[StorePath]) -> None:
        """Note that these paths and all below them are no longer there."""
        while paths:
            path = paths.pop()
            self._racy.discard(path)
            look.found.changed.pop(path, None)  # as an earlier visit of the same scan found it
            look.found.unstable.discard(path)
            if path in look.known:
                look.found.changed[path] = None
            paths += self._forget(look, path)

    def _forget(self, look: Round, directory: StorePath) -> list[StorePath]:
        """Forget a directory that is none any more; returns what was in it."""
        names = self._names.pop(directory, None)
        self.unread.discard(directory)
        if names is None:
            return []
        self._listed.pop(directory, None)
        self._unwatched.add(directory)
        self._note_problems(look, directory, {}, {})
        return [join(directory, StorePath(name)) for name in names]


def _watch_nothing(*_: object) -> None:
    """Stand in for a watch where nobody waits for changes."""
