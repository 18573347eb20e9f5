"""A log of lines in a directory of our own that survives a kill at any moment. For the baseline and the journal.

A line is whole or is not there: what a dead process began to write is cut off, and what fails to be written is
taken back. It is written anew beside itself and renamed over, so that one of the two is always whole. Not synced:
it lies in memory together with the files that it speaks of.
"""

import os
import stat
from collections.abc import Iterable

_WRITE = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class AppendLog:
    """One log, opened when it is first needed."""

    def __init__(self, directory: int, name: str) -> None:
        """`directory` is a descriptor that stays the caller's; -1 for one that is not there: then it is empty."""
        self._directory = directory
        self._name = name
        self._log = -1
        self._size = 0

    def lines(self) -> list[bytes]:
        """Return the whole lines, without their ends. Raises OSError."""
        if self._directory < 0:
            return []
        try:
            descriptor = os.open(self._name, _READ, dir_fd=self._directory)
        except FileNotFoundError:
            return []
        with open(descriptor, "rb") as log:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return []
            return log.read().split(b"\n")[:-1]  # behind the last end is what a dead process could not finish

    def append(self, lines: Iterable[bytes]) -> None:
        """Add lines. Raises OSError when there is no room; none of them is there then."""
        text = b"".join(line + b"\n" for line in lines)
        log = self._open()
        try:
            _write(log, text)
        except OSError:
            os.ftruncate(log, self._size)  # no torn line before those to come
            raise
        self._size += len(text)

    def rewrite(self, lines: Iterable[bytes]) -> None:
        """Replace all lines. Raises OSError; the old ones are there then."""
        new = f"{self._name}.new"
        text = b"".join(line + b"\n" for line in lines)
        log = os.open(new, _WRITE | os.O_TRUNC, 0o600, dir_fd=self._directory)
        try:
            _write(log, text)
            os.rename(new, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
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
            self._log = os.open(self._name, _WRITE, 0o600, dir_fd=self._directory)
            self._size = os.fstat(self._log).st_size
            self._end_last_line()
        return self._log

    def _end_last_line(self) -> None:
        """Cut off what a dead process could not finish. Raises OSError."""
        if self._size and os.pread(self._log, 1, self._size - 1) != b"\n":
            kept = b"".join(line + b"\n" for line in self.lines())
            os.ftruncate(self._log, len(kept))
            self._size = len(kept)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
