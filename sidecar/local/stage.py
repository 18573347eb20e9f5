"""Makes files, links and directories ready in the staging directory, and moves them in and out of place.

Called by `apply`. The staging directory is in `.configstore` (0700). Invariants:

1. It is on the same file system as the mirrored directory, so that one rename puts a file in place.
2. A file is complete, with its content verified and its owner and mode set, before that rename. No other user can
   see it until then, and no file is ever wider than its record says.
3. A file that is replaced or removed is not unlinked but moved here. It is removed after it was judged (`drop`),
   or put back (`put_back`).
"""

import hashlib
import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from configstore.files.writing import write_all
from configstore.model.path import StorePath, basename, unsafe_target
from configstore.model.record import Entry, Kind
from configstore.model.selection import Symlinks
from sidecar.local.change import LocalChange
from sidecar.local.fingerprint import Fingerprint, is_still, unchanged_since
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.rename import exchange, place

PERMISSIONS = 0o777  # setuid, setgid and sticky are never mirrored


class Refused(Exception):  # noqa: N818  # becomes a Problem
    """The state must not, or may not, be made here; the text says why, and what to do."""


class Stage:
    """The staged files of a set, by path."""

    def __init__(self, root: MirroredDirectory, symlinks: Symlinks) -> None:
        self._directory = root.staging_fd
        self._symlinks = symlinks
        self._numbers = itertools.count()
        self._names: dict[StorePath, str] = {}
        self._made: dict[StorePath, os.stat_result] = {}  # the stat of what is staged
        self._out: dict[StorePath, str] = {}  # what was taken out of a path and is to be judged

    def __contains__(self, path: StorePath) -> bool:
        """Return whether something is staged for a path."""
        return path in self._names

    def make(self, change: LocalChange) -> None:
        """Stage the desired state of a change, with the owner in its record. Raises Refused, OSError."""
        make = {Kind.FILE: self._make_file, Kind.SYMLINK: self._make_link, Kind.DIR: self._make_directory}
        self._names[change.path] = name = str(next(self._numbers))
        try:
            self._made[change.path] = make[change.desired.kind](name, change)
        except BaseException:
            self._discard(change.path)  # at once, since it may fill the file system
            raise

    def inherit(self, change: LocalChange, above: int) -> os.stat_result:
        """Set the owner that the record leaves open: that of the replaced file, else that of the directory.

        Without the right to set it, it stays. Returns the final stat but for the ctime, which the rename changes.
        Raises OSError.
        """
        name, desired = self._names[change.path], change.desired
        status = self._made[change.path]
        if desired.uid is None or desired.gid is None:
            if change.expected:
                uid, gid = change.expected.signature.uid, change.expected.signature.gid
            else:
                owner = os.fstat(above)
                uid, gid = owner.st_uid, owner.st_gid
            uid = status.st_uid if desired.uid is not None else uid
            gid = status.st_gid if desired.gid is not None else gid
            if (uid, gid) != (status.st_uid, status.st_gid):
                with suppress(PermissionError):
                    os.chown(name, uid, gid, dir_fd=self._directory, follow_symlinks=False)
                status = self._made[change.path] = self._status(name)
        return status

    def move(self, path: StorePath, above: int, *, replace: bool) -> None:
        """Move what is staged into place below an open directory; what is replaced is kept here.

        replace: whether there is anything to replace, as in `rename.place`. Raises OSError.
        """
        if place(self._directory, self._names[path], above, basename(path), replace=replace):
            self._out[path] = self._names[path]
        del self._names[path]
        self._made.pop(path, None)

    def name(self, path: StorePath) -> str:
        """Return the name of what is staged for a path."""
        return self._names[path]

    def spare_name(self) -> str:
        """Return a free name."""
        return str(next(self._numbers))

    def take_out(self, path: StorePath, above: int, spare: str) -> None:
        """Move the file at a path below an open directory here, to a free name. Raises OSError."""
        os.rename(basename(path), spare, src_dir_fd=above, dst_dir_fd=self._directory)
        self._out[path] = spare

    def has_out(self, path: StorePath) -> bool:
        """Return whether the former file of a path is kept here."""
        return path in self._out

    def is_still(self, path: StorePath, expected: Fingerprint) -> bool:
        """Return whether the former file of a path is the expected one. Raises OSError."""
        return is_still(self._directory, self._out[path], expected)

    def put_back(self, path: StorePath, above: int, laid: Fingerprint | None) -> bool:
        """Put the former file of a path back; what was placed there is staged again.

        laid: the fingerprint of what was placed there, None for nothing. Returns false, and leaves the path as it
        is, when that is not there any more: the application has changed it. Raises OSError.
        """
        try:
            if laid is None:
                place(self._directory, self._out[path], above, basename(path), replace=False)
                del self._out[path]
                return True
            found = os.stat(basename(path), dir_fd=above, follow_symlinks=False)
        except (FileExistsError, FileNotFoundError):
            return False
        if not unchanged_since(laid.signature, found):
            return False
        out = self._out.get(path)
        aside = self.spare_name() if out is None else out
        if out is None:
            os.rename(basename(path), aside, src_dir_fd=above, dst_dir_fd=self._directory)
        else:
            exchange(self._directory, aside, above, basename(path))
        if not self._is_untouched(aside, laid):  # the application changed it at the last moment
            place(self._directory, aside, above, basename(path), replace=out is not None)
            return False
        self._names[path] = aside
        self._out.pop(path, None)
        return True

    def _is_untouched(self, aside: str, laid: Fingerprint) -> bool:
        try:
            return is_still(self._directory, aside, laid)
        except OSError:  # such as no free descriptor: the stat must do
            return unchanged_since(laid.signature, self._status(aside))

    def drop(self, path: StorePath) -> None:
        """Remove the former file of a path, if one is kept."""
        name = self._out.pop(path, None)
        if name is not None:
            os.unlink(name, dir_fd=self._directory)

    def clear(self) -> None:
        """Remove what is still staged."""
        for path in list(self._names):
            self._discard(path)

    def _discard(self, path: StorePath) -> None:
        name = self._names.pop(path)
        self._made.pop(path, None)
        with suppress(OSError):
            try:
                os.unlink(name, dir_fd=self._directory)
            except IsADirectoryError:
                os.rmdir(name, dir_fd=self._directory)

    def _make_directory(self, name: str, change: LocalChange) -> os.stat_result:
        os.mkdir(name, 0o700, dir_fd=self._directory)
        return self._give(name, change.desired)

    def _make_file(self, name: str, change: LocalChange) -> os.stat_result:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._directory)
        try:
            self._write(descriptor, change)
            os.fchmod(descriptor, change.desired.mode & PERMISSIONS)
            status = os.fstat(descriptor)
            if give_owner(change.desired, status, lambda uid, gid: os.fchown(descriptor, uid, gid)):
                status = os.fstat(descriptor)
            return status
        finally:
            os.close(descriptor)

    def _write(self, descriptor: int, change: LocalChange) -> None:
        """Write a file's content. Raises Refused if its digest is not that of the record, OSError."""
        digest = hashlib.sha256()
        for piece in change.content() if change.content else ():
            digest.update(piece)
            write_all(descriptor, piece)
        if digest.hexdigest() != change.desired.sha256:
            raise Refused("the content does not match the digest in its record; restore an earlier one")

    def _make_link(self, name: str, change: LocalChange) -> os.stat_result:
        if self._symlinks is not Symlinks.PRESERVE:
            raise Refused(f'a symlink in the store, and this mapping has symlinks = "{self._symlinks}"')
        reason = unsafe_target(change.path, change.desired.target)
        if reason:
            raise Refused(reason)
        os.symlink(change.desired.target, name, dir_fd=self._directory)
        with suppress(Refused):  # anyone may read a link, whoever owns it
            return self._give(name, change.desired)
        return self._status(name)

    def _give(self, name: str, desired: Entry) -> os.stat_result:
        chown = partial(os.chown, name, dir_fd=self._directory, follow_symlinks=False)
        give_owner(desired, self._status(name), chown)
        return self._status(name)

    def _status(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._directory, follow_symlinks=False)


def give_owner(desired: Entry, status: os.stat_result, chown: Callable[[int, int], None]) -> bool:
    """Set the owner that a record names, if it names one; returns whether it was another before.

    Raises Refused, which says what to do.
    """
    uid = status.st_uid if desired.uid is None else desired.uid
    gid = status.st_gid if desired.gid is None else desired.gid
    if (uid, gid) == (status.st_uid, status.st_gid):
        return False
    try:
        chown(uid, gid)
    except PermissionError as error:
        raise Refused(
            f"its owner is {uid}:{gid}, which this sidecar (uid {os.geteuid()}) may not set: run"
            ' it as that user, or as root with CHOWN, or set the mapping\'s owner, such as owner = "1000:1000"'
        ) from error
    return True
