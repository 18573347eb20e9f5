"""`.configstore` in a mirrored directory: the staging area and a mark, of which nothing is believed but the mark.

It lies where the application may come, so what is found here is a stranger's: it is reached through descriptors
that were opened once, never through a link, and nothing in it hangs or ends us. The mark is a random name. A
baseline that names it speaks of this mount; when the mount was lost, so was the mark, and no baseline counts.
"""

import errno
import os
import re
import secrets
import stat
from contextlib import suppress

from configstore.errors import RefusedError
from configstore.files.clearing import clear_name
from configstore.model.path import MARK_NAME, PRIVATE_NAME

STAGING = "staging"

_MARK = re.compile(rb"[0-9a-f]{32}")
_NO_MARK = {errno.ENOENT, errno.ELOOP, errno.ENXIO}
"""Errors which say that something else, or nothing, lies at the mark's name; all others say nothing about it."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


class Private:
    """One open private directory.

    fd: its descriptor. staging_fd: that of the directory in which files are made before they are renamed into
    place; it is on the same file system. Both are -1 where there are none. mark: "" for none.
    surely_ours: whether nobody but us could have written what lay here when it was opened.
    """

    def __init__(self, above: int, path: str, *, prepare: bool) -> None:
        """Open it in the mirrored directory `above`, which is called `path`; `prepare` makes what is missing.

        Raises RefusedError with the mend, OSError.
        """
        self.fd = self.staging_fd = -1
        self.mark = ""
        self.surely_ours = False
        self._path = path
        try:
            if prepare:
                self.fd = self._make(PRIVATE_NAME, above)
                self.staging_fd = self._make(STAGING, self.fd)
            else:
                with suppress(FileNotFoundError):
                    self.fd = self._enter(PRIVATE_NAME, above)
            if self.fd >= 0:
                self.mark = _read_mark(self.fd)
        except BaseException:
            self.close()
            raise

    def renew_mark(self) -> None:
        """Give the mount a new mark, so that no baseline counts that was made before. Raises OSError."""
        self.mark = secrets.token_hex(16)
        clear_name(MARK_NAME, self.fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(MARK_NAME, flags, 0o600, dir_fd=self.fd)
            with open(descriptor, "wb", buffering=0) as file:
                file.write(self.mark.encode())
        except OSError as error:
            if error.errno not in _FULL:
                raise
            with suppress(
                OSError
            ):  # a full mount is mirrored all the same; the next start compares everything anew
                os.unlink(MARK_NAME, dir_fd=self.fd)

    def clear_staging(self) -> None:
        """Remove what a dead run left in the staging directory; what it cannot have left is moved out of the way.

        Nothing is walked: how deep a stranger's tree is does not matter. Raises OSError.
        """
        with os.scandir(self.staging_fd) as left:
            for entry in left:
                clear_name(entry.name, self.staging_fd, self.fd)

    def close(self) -> None:
        """Close what is open."""
        for descriptor in (self.staging_fd, self.fd):
            if descriptor >= 0:
                os.close(descriptor)
        self.fd = self.staging_fd = -1

    def _make(self, name: str, above: int) -> int:
        """Open a directory of ours, made when it is missing, that nobody else can enter."""
        made = False
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
            made = True
        descriptor = self._enter(name, above)
        try:
            if name == PRIVATE_NAME:
                found = os.fstat(descriptor)
                self.surely_ours = not made and found.st_uid == os.geteuid() and not found.st_mode & 0o077
            self._take(name, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _take(self, name: str, descriptor: int) -> None:
        """Let a directory be ours alone. Raises RefusedError, OSError."""
        if os.fstat(descriptor).st_uid != os.geteuid() == 0:
            # A service gave all its files to its user when it started: take ours back.
            with suppress(PermissionError):
                os.fchown(descriptor, 0, -1)
        owner = os.fstat(descriptor).st_uid
        if owner != os.geteuid():
            raise RefusedError(
                f"{self._path}: {name} in it belongs to uid {owner}, and this sidecar runs as uid"
                f" {os.geteuid()}: run init and run as the same user, or remove that directory"
            )
        os.fchmod(descriptor, 0o700)

    def _enter(self, name: str, above: int) -> int:
        try:
            return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        except NotADirectoryError:
            raise RefusedError(f"{self._path}: {name} in it is a symlink or a file: remove it") from None


def _read_mark(directory: int) -> str:
    try:
        descriptor = os.open(
            MARK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError as error:
        if error.errno in _NO_MARK:
            return ""
        raise
    try:
        text = os.read(descriptor, 64) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)
    return text.decode() if _MARK.fullmatch(text) else ""
