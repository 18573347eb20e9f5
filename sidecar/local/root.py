"""The mirrored directory: held open, recognised again before every cycle, with our private part in it.

An unmounted, replaced or over-mounted directory looks like one in which everything was deleted, so nothing is
concluded or written before `check` has said that this is still the directory that was opened.
"""

import errno
import fcntl
import os
import shutil
from contextlib import suppress

from configstore.errors import RefusedError
from configstore.files.beneath import Beneath
from configstore.model.path import PRIVATE_NAME, StorePath

STAGING = "staging"


class RootLostError(Exception):
    """The directory was emptied or replaced by another usable one: begin anew there, without a baseline."""


class Root:
    """One open mirrored directory.

    fd: its descriptor. private_fd: that of `.configstore` in it (mode 0700). staging_fd: that of the directory
    in which files are made before they are renamed into place; it is on the same file system.
    """

    def __init__(self, path: str, *, within: str = "", prepare: bool = True) -> None:
        """Open `path`, make it (0755) when only its last component is missing, and prepare `.configstore`.

        within: another mirrored directory in which it lies: what is missing in between is made, too, and no
        symlink leads out of there. prepare: false changes nothing, leaves private_fd and staging_fd at -1 where
        there is nothing, and takes a directory that would be made for an empty one.
        Raises RefusedError saying why and the mend.
        """
        self.path = path
        self._open: list[int] = []
        self._stand_in = ""
        try:
            if prepare:
                _make(path, within)
            if prepare or os.path.lexists(path) or not os.path.isdir(os.path.dirname(within or path)):
                self.fd = self._keep(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                _refuse_detour(self.fd, path, within)
            else:
                self.fd = self._keep(self._empty_directory())
            self.beneath = Beneath(self.fd)
            self._identity = _identity(os.fstat(self.fd))
            self._was_mount = is_mount(path)
            self.private_fd = self.staging_fd = -1
            if prepare:
                self.private_fd = self._make(PRIVATE_NAME, self.fd)
                self.staging_fd = self._make(STAGING, self.private_fd)
            else:
                with suppress(FileNotFoundError):
                    self.private_fd = self._keep(self._open_own(PRIVATE_NAME, self.fd))
        except OSError as error:
            self.close()
            raise RefusedError(f"{path}: cannot be mirrored: {_mend(error)}") from error
        except BaseException:
            self.close()
            raise

    def claim(self) -> None:
        """Let nobody else mirror it until `close`, by whatever path. Raises RefusedError."""
        try:
            fcntl.flock(self.private_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"{self.path}: another sidecar or mapping mirrors it already, maybe through a symlink: give each"
                " mapping a directory of its own"
            ) from None

    def check(self) -> str | None:
        """Return why the directory must not be touched now, or None.

        Raises RootLostError when it was emptied, or replaced by something that may be filled.
        """
        try:
            return self._compare()
        except OSError as error:
            return f"{self.path}: {error.strerror}: was it unmounted or removed? Nothing is pushed or deleted"

    def _compare(self) -> str | None:
        if _identity(os.stat(self.path)) != self._identity:
            if self._was_mount and not is_mount(self.path):
                return (
                    f"{self.path}: no longer mounted; nothing is written below a bare mount point: mount it again"
                )
            raise RootLostError(f"{self.path}: another directory lies here now")
        for name, above, held in (
            (PRIVATE_NAME, self.fd, self.private_fd),
            (STAGING, self.private_fd, self.staging_fd),
        ):
            try:
                found = os.stat(name, dir_fd=above, follow_symlinks=False)
            except FileNotFoundError:
                raise RootLostError(f"{self.path}: was emptied: {name} is gone") from None
            if not os.path.samestat(found, os.fstat(held)):
                raise RootLostError(f"{self.path}: {name} was replaced")
        return None

    def open_directory(self, relative: StorePath) -> int:
        """Open a directory below for listing and as a base for *at() calls. Raises OSError."""
        return self.beneath.open(relative, os.O_RDONLY | os.O_DIRECTORY)

    def clear_staging(self) -> None:
        """Remove what a dead run left in the staging directory. Raises OSError."""
        for name in os.listdir(self.staging_fd):
            try:
                os.unlink(name, dir_fd=self.staging_fd)
            except IsADirectoryError:
                shutil.rmtree(name, dir_fd=self.staging_fd)

    def close(self) -> None:
        """Close all descriptors."""
        while self._open:
            os.close(self._open.pop())
        if self._stand_in:
            os.rmdir(self._stand_in)
            self._stand_in = ""

    def _empty_directory(self) -> int:
        """Open one that stands for a directory that is not there yet, until `close`. Raises RefusedError."""
        from tempfile import mkdtemp  # noqa: PLC0415  # a MiB that only `plan` pays

        try:
            self._stand_in = mkdtemp(prefix="configstore-")
        except OSError as error:
            words = "is not there yet, and there is no room for a temporary one to stand for it"
            raise RefusedError(f"{self.path}: {words}: {error.strerror}; make it first") from error
        return os.open(self._stand_in, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _keep(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor

    def _make(self, name: str, above: int) -> int:
        """Open a directory of ours, made when it is missing, that nobody else can enter."""
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
        descriptor = self._keep(self._open_own(name, above))
        if os.fstat(descriptor).st_uid != os.geteuid() == 0:
            # A service gave all its files to its user when it started: take ours back.
            with suppress(PermissionError):
                os.fchown(descriptor, 0, -1)
        owner = os.fstat(descriptor).st_uid
        if owner != os.geteuid():
            raise RefusedError(
                f"{self.path}: {name} in it belongs to uid {owner}, and this sidecar runs as uid"
                f" {os.geteuid()}: run init and run as the same user, or remove that directory"
            )
        os.fchmod(descriptor, 0o700)
        return descriptor

    def _open_own(self, name: str, above: int) -> int:
        try:
            return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        except NotADirectoryError:
            raise RefusedError(f"{self.path}: {name} in it is a symlink or a file: remove it") from None


def _refuse_detour(descriptor: int, path: str, within: str) -> None:
    """Raise RefusedError when an open directory was reached through a symlink in `within`."""
    if within and os.readlink(f"/proc/self/fd/{descriptor}") != os.path.realpath(within) + path[len(within) :]:
        raise RefusedError(f"{path}: is reached through a symlink in {within}: remove it")


def _make(path: str, within: str) -> None:
    """Make a directory, and what is missing above it in `within`, for whom that belongs to. Raises OSError."""
    names = path[len(within) + 1 :].split("/")[:-1] if within else []
    above = within
    for name in names:
        above = f"{above}/{name}"
        with suppress(FileExistsError):
            os.mkdir(above, 0o755)
            owner = os.stat(within)
            with suppress(PermissionError):
                os.chown(above, owner.st_uid, owner.st_gid, follow_symlinks=False)
    with suppress(FileExistsError):
        os.mkdir(path, 0o755)


def is_mount(path: str) -> bool:
    """Tell whether something is mounted at `path`, bind mounts included (proc_pid_mountinfo(5), field 5)."""
    real = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(_unescape(line.split(" ", 5)[4]) == real for line in table)


def _unescape(field: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _mend(error: OSError) -> str:
    words = {
        errno.ENOENT: "the directory above it does not exist: mount or make it",
        errno.ENOTDIR: "it is not a directory",
        errno.EACCES: "no permission: run the sidecar as the directory's owner",
        errno.EROFS: "it is read-only: mount it writable for the sidecar",
    }
    return words.get(error.errno or 0, error.strerror or str(error))
