"""A directory of certificates and keys, read and written without following links and without half files."""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from configstore.errors import RefusedError
from configstore.model.path import printable

_MAX_SIZE = 1 << 20
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class CertificateFolder:
    """One directory, held open: a context manager. All failures are a RefusedError that names the path.

    A new file gets the owner of its directory, so that a container's user who was given the directory can read it.
    With dry_run nothing is made or written, and a missing directory is empty.
    """

    def __init__(self, path: str, *, at: int | None = None, dry_run: bool = False) -> None:
        """Open the directory; make it (0700) if it is missing.

        at: its parent, already open; then a link in place of the directory is refused.
        """
        self.path = path
        self._dry_run = dry_run
        self._fd = None
        try:
            self._fd = self._open(path if at is None else os.path.basename(path), at)
        except OSError as error:
            raise RefusedError(f"{printable(path)}: {error.strerror}") from error
        if self._fd is not None:
            try:
                self._check(os.fstat(self._fd), outermost=at is None)
            except RefusedError:
                os.close(self._fd)
                raise

    def below(self, name: str) -> "CertificateFolder":
        """Open a directory in this one."""
        folder = os.path.join(self.path, name)
        return CertificateFolder(folder, at=self._fd, dry_run=self._dry_run)

    def _open(self, name: str, at: int | None) -> int | None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if at is None else os.O_NOFOLLOW)
        with suppress(FileNotFoundError):
            return os.open(name, flags, dir_fd=at)
        if self._dry_run:
            return None
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=at)
        return os.open(name, flags, dir_fd=at)

    def _check(self, found: os.stat_result, *, outermost: bool) -> None:
        """Refuse a directory in which another user could exchange the keys."""
        shown = printable(self.path)
        if found.st_mode & _OTHERS_WRITE:
            raise RefusedError(f"{shown}: others may write there: chmod go-w {shown}")
        if outermost and found.st_uid not in {0, os.geteuid()}:
            raise RefusedError(
                f"{shown}: belongs to user {found.st_uid}, who could exchange what lies there; take a directory of"
                " your own"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def lock(self) -> None:
        """Lock the directory against other runs of the command until it is closed."""
        if self._fd is None or self._dry_run:
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(f"{printable(self.path)}: another command is at work there; wait for it") from None

    def path_of(self, name: str) -> str:
        """Return a file's path."""
        return os.path.join(self.path, name)

    def shown(self, name: str) -> str:
        """Return a file's path, safe to print."""
        return printable(self.path_of(name))

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None when it does not exist."""
        if self._fd is None:
            return None
        try:
            fd = os.open(name, os.O_RDONLY | _FILE, dir_fd=self._fd)
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise RefusedError(f"{self.shown(name)}: is no file")
                content = file.read(_MAX_SIZE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(name, error) from error
        if len(content) > _MAX_SIZE:
            raise RefusedError(f"{self.shown(name)}: is too large for a certificate or a key")
        return content

    def readable_by_others(self, name: str) -> bool:
        """Return whether a file exists that others than its owner may read."""
        if self._fd is not None:
            with suppress(OSError):
                return bool(os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode & _OTHERS_READ)
        return False

    def write(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file, replacing an earlier one at once; it has its mode from the first instant on."""
        if not self._dry_run:
            with self._changing(name) as fd, self._beside(fd, name, content, mode) as temporary:
                os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)

    def write_key(self, name: str, content: bytes) -> None:
        """Write a file that only its owner may read; refuse to replace an existing one."""
        if not self._dry_run:
            with self._changing(name) as fd, self._beside(fd, name, content, 0o600) as temporary:
                os.link(temporary, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)

    def keep_as(self, name: str, other: str) -> None:
        """Give a file a second name, unless that name exists."""
        if not self._dry_run:
            with self._changing(name) as fd, suppress(FileExistsError):
                os.link(name, other, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)

    def rename_over(self, name: str, other: str) -> None:
        """Rename a file over another one, which `keep_as` has kept."""
        if not self._dry_run:
            with self._changing(name) as fd:
                os.rename(name, other, src_dir_fd=fd, dst_dir_fd=fd)

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        if not self._dry_run:
            with self._changing(name) as fd, suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)

    @contextmanager
    def _changing(self, name: str) -> Iterator[int]:
        """Yield the directory's descriptor for a change, and sync the directory afterwards."""
        if self._fd is None:
            raise RefusedError(f"{self.shown(name)}: its directory is not there")  # a dry run changes nothing
        try:
            yield self._fd
            os.fsync(self._fd)
        except OSError as error:
            raise self._refused(name, error) from error

    @contextmanager
    def _beside(self, fd: int, name: str, content: bytes, mode: int) -> Iterator[str]:
        """Write a temporary file in the directory, and yield its name."""
        temporary = f".{name}.{secrets.token_hex(8)}"
        opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=fd)
        try:
            with open(opened, "wb") as file:
                file.write(content)
                file.flush()
                here = os.fstat(fd)
                if os.geteuid() == 0 and here.st_uid != 0:
                    os.fchown(opened, here.st_uid, here.st_gid)
                os.fchmod(opened, mode)
                os.fsync(opened)
            yield temporary
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=fd)

    def _refused(self, name: str, error: OSError) -> RefusedError:
        return RefusedError(f"{self.shown(name)}: {error.strerror}")
