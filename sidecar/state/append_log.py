"""A log of lines that survives a kill at any moment. Used by the baseline and the journal.

1. A line is complete or not there: an incomplete last line is cut off, a failed append is truncated away.
2. A rewrite makes a new file and renames it over the old one, so that one of them is always complete.
3. Nothing is synced to disk: the log counts only for a mount (tmpfs) that does not survive the machine either.
4. In a mount another user may have put something else at its name. A FIFO, a link, a directory or a file that is
   too large counts as an empty log, and is moved out of the way.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator

from configstore.files.clearing import clear_name
from configstore.files.writing import write_all

_WRITE = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = _WRITE | os.O_CREAT | os.O_EXCL
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_LOG = {errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EISDIR}

MAX_SIZE = 256 * 1024 * 1024
"""Bytes of a log that is read in the state directory: about half a million paths."""

MAX_FOREIGN = 16 * 1024 * 1024
"""Bytes of a log that is read in a mount, where another user may have written it."""

MAX_LINE = 64 * 1024
"""Bytes of one line."""


class AppendLog:
    """One log, opened when it is first needed."""

    def __init__(self, directory: int, name: str, *, exclusive: bool = False) -> None:
        """directory: a descriptor, which the caller closes; -1 for none, and the log is empty then.

        exclusive: whether only this user can write there; a log of another owner or with a wider mode is then no
        log.
        """
        self._directory = directory
        self._name = name
        self._exclusive = exclusive
        self._log = -1
        self._size = 0

    def lines(self) -> Iterator[bytes]:
        """Yield the complete lines without their ends; none if it is no log. Raises OSError."""
        if self._directory < 0:
            return
        try:
            descriptor = os.open(self._name, _READ, dir_fd=self._directory)
        except OSError as error:
            if error.errno in _NO_LOG:
                return
            raise
        if not self._is_log(os.fstat(descriptor)):
            os.close(descriptor)
            return
        with open(descriptor, "rb") as log:
            while line := log.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE or not line.endswith(b"\n"):  # incomplete
                    return
                yield line[:-1]

    def remove(self) -> None:
        """Remove the log. Raises OSError."""
        self.close()
        clear_name(self._name, self._directory)

    def append(self, lines: Iterable[bytes]) -> None:
        """Add lines. Raises OSError without room for them; none of them is added then."""
        text = b"".join(line + b"\n" for line in lines)
        log = self._open()
        try:
            write_all(log, text)
        except OSError:
            os.ftruncate(log, self._size)  # no incomplete line before later ones
            raise
        self._size += len(text)

    def rewrite(self, lines: Iterable[bytes]) -> None:
        """Replace all lines. Raises OSError; the old lines stay then."""
        new = f"{self._name}.new"
        text = b"".join(line + b"\n" for line in lines)
        log = self._make(new)
        try:
            write_all(log, text)
            self._rename(new)
        except BaseException:
            os.close(log)
            raise
        self.close()
        self._log = log
        self._size = len(text)

    def clear(self) -> None:
        """Remove all lines. Raises OSError."""
        log = self._open()
        if self._size:
            os.ftruncate(log, 0)
            self._size = 0

    def close(self) -> None:
        """Close the log; the next use opens it again."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def _open(self) -> int:
        if self._log < 0:
            self._log = self._open_or_make()
            self._size = os.fstat(self._log).st_size
            self._end_last_line()
        return self._log

    def _open_or_make(self) -> int:
        try:
            found = os.open(self._name, _WRITE, dir_fd=self._directory)
        except OSError as error:
            if error.errno not in _NO_LOG:
                raise
        else:
            if self._is_log(os.fstat(found)):
                return found
            os.close(found)
        return self._make(self._name)

    def _make(self, name: str) -> int:
        """Make an empty file; anything else at its name is moved out of the way. Raises OSError."""
        try:
            return os.open(name, _NEW, 0o600, dir_fd=self._directory)
        except FileExistsError:
            clear_name(name, self._directory)
            return os.open(name, _NEW, 0o600, dir_fd=self._directory)

    def _rename(self, new: str) -> None:
        try:
            os.rename(new, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except IsADirectoryError:
            clear_name(self._name, self._directory)
            os.rename(new, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _is_log(self, found: os.stat_result) -> bool:
        """Return whether an open file may be a log, by its stat."""
        limit = MAX_SIZE if self._exclusive else MAX_FOREIGN
        plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= limit
        return plain and not (self._exclusive and (found.st_uid != os.geteuid() or found.st_mode & 0o077))

    def _end_last_line(self) -> None:
        """Cut off an incomplete last line. Raises OSError."""
        if self._size and os.pread(self._log, 1, self._size - 1) != b"\n":
            kept = b"".join(line + b"\n" for line in self.lines())
            os.ftruncate(self._log, len(kept))
            self._size = len(kept)
