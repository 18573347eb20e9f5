"""The directory that sidecar and application share: the socket in it, and the drop-in client beside it.

The application may write there, and may be root in its own container. So the directory is opened once, by a walk
that follows no link of another user (`files.descent`), and everything else goes through its descriptor: whatever
the application exchanges meanwhile, nothing outside the directory is removed or gets another owner or mode.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path

import configstore
from configstore import __version__
from configstore.errors import RefusedError
from configstore.files import descent
from configstore.model.path import printable
from sidecar.reporting.http import BACKLOG

CLIENT = "configstore-client"


class ControlSocket:
    """A listening socket in its directory."""

    def __init__(self, listener: socket.socket, directory: int, path: str) -> None:
        """Take a listening socket that is bound at `path`, in the open `directory`. Raises OSError."""
        self.listener = listener
        self._directory = directory
        self._path = path
        self._name = os.path.basename(path)
        self._identity = _identity(self._name, directory)

    def is_there(self) -> bool:
        """Return whether the path still leads to this socket."""
        with contextlib.suppress(OSError):
            return _identity(self._path) == self._identity
        return False

    def remove(self) -> None:
        """Remove the socket's name, unless it is another socket's by now, and close the directory."""
        with contextlib.suppress(OSError):
            if _identity(self._name, self._directory) == self._identity:
                os.unlink(self._name, dir_fd=self._directory)
        os.close(self._directory)


def _identity(path: str, directory: int | None = None) -> tuple[int, int]:
    found = os.stat(path, dir_fd=directory, follow_symlinks=False)
    return found.st_dev, found.st_ino


def listen(path: str, group: int | None, folders: Collection[str] = ()) -> ControlSocket:
    """Return a socket that listens at `path`, in a directory that only its owner, or `group`, may enter.

    folders: the names of the services' folders that may also be there; their users pass through the directory.
    Raises RefusedError, also when another sidecar serves the socket.
    """
    above, name = os.path.split(path)
    with contextlib.ExitStack() as undo:
        try:
            directory = _open_directory(above)
            undo.callback(os.close, directory)
            _close_to_others(directory, above, group, {name, _new(name), CLIENT, _new(CLIENT)}, folders)
            _refuse_if_served(directory, name, path)
            listener = undo.enter_context(
                contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            )
            _bind(listener, directory, name, group)
            _place_client(directory, group)
            made = ControlSocket(listener, directory, path)
        except OSError as error:
            raise RefusedError(
                f"{path}: no control socket can be made there: {error.strerror}; give the sidecar a directory of"
                ' its own to write to, or set [control] socket = "" for none'
            ) from error
        undo.pop_all()
    return made


def _new(name: str) -> str:
    """Return the name of a file that is not complete yet."""
    return f".{name}.new"


def _open_directory(path: str, mode: int = 0o700) -> int:
    """Open a directory; a missing one is made with `mode`, and those above it with 0755.

    Raises OSError, RefusedError.
    """
    try:
        return descent.open_or_make(path, mode)[0]
    except FileNotFoundError:
        os.close(_open_directory(os.path.dirname(path), 0o755))
        return descent.open_or_make(path, mode)[0]


def _close_to_others(
    directory: int, path: str, group: int | None, ours: set[str], folders: Collection[str]
) -> None:
    """Close a directory to others; through one with `folders` they may pass, but not list it.

    One that is not the sidecar's own is left as it is, and one that holds more than `ours` and `folders` is
    refused. Raises OSError, RefusedError.
    """
    found = os.fstat(directory)
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise RefusedError(f"{path}: everybody may write there; the control socket needs a directory of its own")
    mode = (0o700 if group is None else 0o750) | (0o011 if folders else 0)
    rights = found.st_mode & 0o777
    if found.st_uid != os.geteuid() or (rights == mode and group in {None, found.st_gid}):
        return
    if rights & ~mode and (others := set(os.listdir(directory)) - ours - set(folders)):
        raise RefusedError(
            f"{path}: {printable(min(others))} lies there, too, and it would be closed to others; the control"
            " socket needs a directory of its own"
        )
    if group is not None:
        os.fchown(directory, -1, group)
    os.fchmod(directory, mode)


def _refuse_if_served(directory: int, name: str, path: str) -> None:
    """Raise RefusedError when a process listens there, or when it is no socket; nobody listens at a dead one's."""
    try:
        kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise RefusedError(f"{path}: something else than a socket is there; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            try:
                probe.connect(_by_descriptor(directory, name))
            except (ConnectionRefusedError, FileNotFoundError):
                return
    raise RefusedError(f"{path}: another sidecar serves this socket; give each its own directory")


def _bind(listener: socket.socket, directory: int, name: str, group: int | None) -> None:
    """Make the socket under a temporary name, and rename it once it has owner and mode and is listened at.

    The file gets the mode of the socket's descriptor, less the umask, so it is never open to others (unix(7)).
    """
    new = _new(name)
    _remove(directory, new)
    os.fchmod(listener.fileno(), 0o600)
    listener.bind(_by_descriptor(directory, new))
    file = os.open(new, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = os.fstat(file)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            raise RefusedError(f"{printable(new)}: was exchanged while the control socket was made")
        if group is not None:
            os.chown(f"/proc/self/fd/{file}", -1, group)
        os.chmod(f"/proc/self/fd/{file}", 0o600 if group is None else 0o660)
    finally:
        os.close(file)
    listener.listen(BACKLOG)
    os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)


def _place_client(directory: int, group: int | None) -> None:
    """Write the client under a temporary name, and rename it."""
    text = Path(configstore.__file__).with_name("client.py").read_text(encoding="utf-8")
    text = text.replace('VERSION = "unplaced"', f'VERSION = "{__version__}"')
    new = _new(CLIENT)
    _remove(directory, new)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o700, dir_fd=directory)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if group is not None:
            os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, 0o700 if group is None else 0o750)
    os.rename(new, CLIENT, src_dir_fd=directory, dst_dir_fd=directory)


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _by_descriptor(directory: int, name: str) -> str:
    """Return a path to an entry of the open directory, for calls that take no descriptor."""
    return f"/proc/self/fd/{directory}/{name}"
