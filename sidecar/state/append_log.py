"""A log of lines that survives a kill at any moment. For the baseline and the journal.

A line is whole or is not there: what a dead process began to write is cut off, and what fails to be written is
taken back. It is written anew beside itself and renamed over, so that one of the two is always whole. Not synced:
what it says counts only while the mount is the same that it speaks of, and that does not outlive the machine.

Where it lies in the mount itself a stranger may have laid something in its place. Whatever that is, it is no log:
a FIFO, a link, a directory and a file without an end are taken for an empty one, and make way.
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
"""Bytes of a log of our own that is read: some half a million paths."""

MAX_FOREIGN = 16 * 1024 * 1024
"""Bytes of a log that somebody else may have written."""

MAX_LINE = 64 * 1024
"""Bytes of one of its lines."""


class AppendLog:
    """One log, opened when it is first needed."""

    def __init__(self, directory: int, name: str, *, ours: bool = False) -> None:
        """`directory` is a descriptor that stays the caller's; -1 for one that is not there: then it is empty.

        ours: nobody but our own user writes here, and nothing else is taken. Else it may be a stranger's.
        """
        self._directory = directory
        self._name = name
        self._ours = ours
        self._log = -1
        self._size = 0

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines, without their ends; none of what can be no log. Raises OSError."""
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
                if len(line) > MAX_LINE or not line.endswith(b"\n"):  # what a dead process could not finish
                    return
                yield line[:-1]

    def remove(self) -> None:
        """Remove the log. Raises OSError."""
        self.close()
        clear_name(self._name, self._directory)

    def append(self, lines: Iterable[bytes]) -> None:
        """Add lines. Raises OSError when there is no room; none of them is there then."""
        text = b"".join(line + b"\n" for line in lines)
        log = self._open()
        try:
            write_all(log, text)
        except OSError:
            os.ftruncate(log, self._size)  # no torn line before those to come
            raise
        self._size += len(text)

    def rewrite(self, lines: Iterable[bytes]) -> None:
        """Replace all lines. Raises OSError; the old ones are there then."""
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
        """Close it; it is opened again when it is needed."""
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
        """Make an empty file; what lies at its name makes way. Raises OSError."""
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
        """Tell whether what was opened may be a log, going by its stat."""
        limit = MAX_SIZE if self._ours else MAX_FOREIGN
        plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= limit
        return plain and not (self._ours and (found.st_uid != os.geteuid() or found.st_mode & 0o077))

    def _end_last_line(self) -> None:
        """Cut off what a dead process could not finish. Raises OSError."""
        if self._size and os.pread(self._log, 1, self._size - 1) != b"\n":
            kept = b"".join(line + b"\n" for line in self.lines())
            os.ftruncate(self._log, len(kept))
            self._size = len(kept)
