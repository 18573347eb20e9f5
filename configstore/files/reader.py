"""Reads the file, directory or symlink at one path, if it may be stored. Called by scans, imports and exports.

Nothing is taken for granted: a name may have changed since it was listed, and a symlink may lead anywhere.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Protocol

import pathspec

from configstore.files.beneath import Beneath
from configstore.files.entries import Entries
from configstore.files.reading import Linked, StillEmpty, UnstableError, Unusable, digest_stable, stable_pieces
from configstore.files.reasons import why_failed
from configstore.model.path import StorePath, unsafe_target
from configstore.model.record import MAX_SIZE, Entry, Kind
from configstore.model.selection import Symlinks


class SeenWriters(Protocol):
    """Knows which files are being written, for files about which the kernel may not be asked."""

    def writing(self, path: StorePath) -> bool:
        """Return whether a file was seen being written, and not being closed since."""
        ...

    def quiet(self, path: StorePath) -> None:
        """Note that the kernel was asked and that nobody has the file open for writing."""
        ...


class Reader:
    """Reads entries of one mapping's directory.

    blind: whether there was a file about whose writers we may not ask the kernel.
    """

    def __init__(
        self,
        beneath: Beneath,
        symlinks: Symlinks,
        refuse_empty: Iterable[str] = (),
        *,
        linked: bool = False,
        writers: SeenWriters | None = None,
    ) -> None:
        """`refuse_empty`: gitignore-style patterns of files that are unfinished while they are empty.

        linked: whether to take files with several hard links. A mirror does not: the other name may be outside the
        directory.
        """
        self.blind = False
        self._beneath = beneath
        self._symlinks = symlinks
        self._linked = linked
        self._writers = writers
        self._refuse_empty = pathspec.GitIgnoreSpec.from_lines(refuse_empty)
        self._entries = Entries()

    def read(
        self, path: StorePath, directory: int, name: str, status: os.stat_result
    ) -> tuple[Entry, os.stat_result]:
        """Return the entry at `name` in an open directory, and the stat result by which a change is noticed later.

        status: its lstat. Raises Unusable, UnstableError, OSError.
        """
        if stat.S_ISLNK(status.st_mode):
            return self._read_link(path, directory, name, status), status
        if stat.S_ISDIR(status.st_mode):
            return self._entries.make(Kind.DIR, status), status
        if stat.S_ISREG(status.st_mode):
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            return self._read_file(path, os.open(name, flags, dir_fd=directory))
        raise Unusable("neither file, directory nor symlink (a FIFO, socket or device); exclude it")

    def pieces(self, path: StorePath) -> Iterator[bytes]:
        """Yield the content of the file at a path as `stable_pieces` does. Raises UnstableError, OSError."""
        descriptor = self._open(path)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnstableError
            yield from stable_pieces(descriptor, partial(self._is_written, path))
        finally:
            os.close(descriptor)

    def _is_written(self, path: StorePath, answer: bool | None) -> bool:
        """Return whether a file is being written: by the kernel's answer, else by what was seen."""
        if answer is None:
            self.blind = True
            return self._writers is not None and self._writers.writing(path)
        if self._writers and not answer:
            self._writers.quiet(path)
        return answer

    def _open(self, path: StorePath) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK
        if self._symlinks is Symlinks.RESOLVE:
            return self._beneath.open_following(path, flags)
        return self._beneath.open(path, flags | os.O_NOFOLLOW)

    def _read_link(self, path: StorePath, directory: int, name: str, status: os.stat_result) -> Entry:
        if self._symlinks is Symlinks.REFUSE:
            raise Unusable('a symlink, which this mapping refuses (symlinks = "refuse")')
        if self._symlinks is Symlinks.RESOLVE:
            try:
                descriptor = self._open(path)
            except OSError as error:
                why = "it leads out" if error.errno == errno.EXDEV else why_failed(error)
                raise Unusable(f"a symlink that cannot be resolved inside the directory: {why}") from None
            return self._read_file(path, descriptor)[0]
        target = os.readlink(name, dir_fd=directory)
        reason = unsafe_target(path, target)
        if reason:
            raise Unusable(reason)
        return self._entries.make(Kind.SYMLINK, status, target=target)

    def _read_file(self, path: StorePath, descriptor: int) -> tuple[Entry, os.stat_result]:
        """Read and close an open file."""
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Unusable("not a regular file")
            if status.st_nlink > 1 and not self._linked:
                raise Linked(f"has {status.st_nlink} hard links, perhaps to a file elsewhere; copy it instead")
            if status.st_size > MAX_SIZE:
                raise Unusable(f"{status.st_size} bytes; at most {MAX_SIZE} are stored: exclude it")
            if status.st_size == 0 and self._refuse_empty.match_file(path):
                raise StillEmpty("empty, which is never pushed for this kind of file; waiting for its content")
            size, digest = digest_stable(descriptor, partial(self._is_written, path))
            return self._entries.make(Kind.FILE, status, size=size, sha256=digest), status
        finally:
            os.close(descriptor)
