"""`.configstore` in a mirrored directory: the staging directory and the mark. Called by `mirrored_directory`.

The application can write here, so nothing found in it is trusted but the mark:

1. It is reached through descriptors that were opened once, and no link is followed. Nothing in it can make the
   sidecar hang or end (FIFOs, deep trees, endless files).
2. The mark is a random value. A baseline that names it is about this mount: when the mount is lost, so is the
   mark, and no baseline counts any more.
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
"""Errors which show that there is no mark; all others show nothing about it."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


class PrivateDirectory:
    """One open `.configstore`.

    fd: its descriptor. staging_fd: that of the staging directory, which is on the same file system. Both are -1
    where there are none. mark: "" for none. surely_ours: whether no other user can have written what was in it
    when it was opened.
    """

    def __init__(self, above: int, path: str, *, prepare: bool) -> None:
        """Open it in the mirrored directory `above`, whose path is `path`; `prepare` makes what is missing.

        Raises RefusedError with what to do, OSError.
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
        """Give the mount a new mark, so that no earlier baseline counts. Raises OSError."""
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
            # A full mount is mirrored without a mark, and the next start compares everything again.
            with suppress(OSError):
                os.unlink(MARK_NAME, dir_fd=self.fd)

    def clear_staging(self) -> None:
        """Empty the staging directory of what a dead process left; a foreign tree is only moved out of the way.

        Nothing is walked, so the depth of a foreign tree does not matter. Raises OSError.
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
        """Open a directory of this user alone (0700), made when it is missing."""
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
        """Give a directory to this user alone. Raises RefusedError, OSError."""
        if os.fstat(descriptor).st_uid != os.geteuid() == 0:
            # Services of Mailu chown their whole directory to their user at start: root takes this one back.
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
