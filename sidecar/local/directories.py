"""The directories in which one set is applied: opened once, made where missing, writable until the set is done.

Called by `apply`. Invariants:

1. A directory gets its final mode last. Until then its mode is no wider than the final one, so that content is
   never readable by others, and the owner may write, so that a read-only directory (0500) gets its content, too.
2. A path means one directory, by its inode, until the set is done. What another process puts at that path
   meanwhile gets neither content nor mode nor owner (ESTALE).
3. A mode that is widened is in the journal first, so that a crash leaves no directory writable.
"""

import errno
import os
import stat
from collections import OrderedDict
from contextlib import suppress

from configstore.files import descent
from configstore.model.path import ROOT, StorePath, ancestors, basename, depth, parent
from sidecar.local.change import LocalChange
from sidecar.local.journal import Journal, Unlocking
from sidecar.local.mirrored_directory import MirroredDirectory

_OPEN = 128  # descriptors that are kept
_IMPLICIT_MODE = 0o755
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


def special_bits(status: os.stat_result) -> int:
    """Return the bits of a mode that are never mirrored: setuid, setgid and sticky stay as they are here."""
    return status.st_mode & _SPECIAL


class Directories:
    """The open directories of one set, by path; the least recently used ones are closed again.

    modes: the final mode of each directory whose mode was changed.
    """

    def __init__(self, root: MirroredDirectory, mode: int | None, journal: Journal) -> None:
        """mode: that of directories without a record; None for 0755."""
        self.modes: dict[StorePath, int] = {}
        self._root = root
        self._journal = journal
        self._mode = _IMPLICIT_MODE if mode is None else mode
        self._open: OrderedDict[StorePath, int] = OrderedDict()
        self._inodes: dict[StorePath, int] = {}
        self._unlocked: set[StorePath] = set()

    def open(self, path: StorePath) -> int:
        """Return a descriptor, valid until _OPEN others were opened.

        Raises OSError; ESTALE when the path is another directory than before.
        """
        if path == ROOT:
            return self._root.fd
        descriptor = self._open.get(path)
        if descriptor is None:
            self._keep(path, self._root.open_directory(path))
            return self._open[path]
        if len(self._open) > 1:
            self._open.move_to_end(path)
        return descriptor

    def _keep(self, path: StorePath, descriptor: int) -> None:
        self._open[path] = descriptor
        if len(self._open) > _OPEN:
            os.close(self._open.popitem(last=False)[1])
        inode = os.fstat(descriptor).st_ino
        if self._inodes.setdefault(path, inode) != inode:
            del self._open[path]
            os.close(descriptor)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    def unlock(self, path: StorePath) -> int:
        """Open a directory, and make it writable until `restore_modes` if this process owns it. Raises OSError."""
        descriptor = self.open(path)
        if path in self._unlocked:
            return descriptor
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
            status = os.fstat(descriptor)
            if status.st_uid == os.geteuid():
                mode = stat.S_IMODE(status.st_mode)
                self._journal.note(Unlocking(path=path, mode=mode))
                self.modes.setdefault(path, mode)
                os.fchmod(descriptor, mode | 0o700)
        self._unlocked.add(path)
        return descriptor

    def make(self, path: StorePath) -> int:
        """Unlock a directory; make it, and those above it, where missing. Raises OSError."""
        with suppress(FileNotFoundError):
            return self.unlock(path)
        for missing in [*ancestors(path), path]:
            self._make(missing)
        return self.unlock(path)

    def refuse_mount(self, change: LocalChange) -> None:
        """Raise OSError when another file is mounted on a file that is to be replaced (where openat2 shows it)."""
        if change.expected is None or change.was_directory:
            return
        try:
            os.close(self._root.beneath.open(change.path, os.O_PATH | os.O_NOFOLLOW))
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), change.path) from None

    def restore_modes(self) -> None:
        """Give the directories their final modes, the deepest first: a parent's may forbid to reach them."""
        for path in sorted(self.modes, key=depth, reverse=True):
            with suppress(OSError):  # gone again, or owned by another user by now
                os.fchmod(self.open(path), self.modes[path])

    def close(self) -> None:
        """Close all descriptors."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _make(self, path: StorePath) -> None:
        with suppress(FileNotFoundError):
            self.open(path)
            return
        above = self.unlock(parent(path))
        with suppress(FileExistsError):
            made = descent.make(above, basename(path), os.fstat(above))
            self._keep(path, made)
            self.modes[path] = self._mode | special_bits(os.fstat(made))
