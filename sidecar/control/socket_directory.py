"""The directory that both containers share: the socket in it, and the drop-in client beside it.

The application may write there, and may be root in its own container. So the directory is opened once, by a walk
that follows no stranger's link, and all else is done through its descriptor: whatever is exchanged meanwhile,
nothing outside of it gets another owner, another mode, or is removed.
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

    def __init__(self, listener: socket.socket, directory: int, name: str) -> None:
        """Take `listener`, which is there as `name` in an open directory. Raises OSError."""
        self.listener = listener
        self._directory = directory
        self._name = name
        self._identity = self._found()

    def remove(self) -> None:
        """Take its name away, unless it is another's by now, and let go of the directory."""
        with contextlib.suppress(OSError):
            if self._found() == self._identity:
                os.unlink(self._name, dir_fd=self._directory)
        os.close(self._directory)

    def _found(self) -> tuple[int, int]:
        found = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        return found.st_dev, found.st_ino


def listen(path: str, group: int | None, folders: Collection[str] = ()) -> ControlSocket:
    """Return a socket that listens at `path`, in a directory that only its owner, or `group`, may enter.

    folders: of our other sockets, that may lie there, too: whoever may use one of those passes through here.
    Raises RefusedError, also when another sidecar serves it.
    """
    above, name = os.path.split(path)
    with contextlib.ExitStack() as undo:
        try:
            directory = _open_directory(above)
            undo.callback(os.close, directory)
            _close_to_others(directory, above, group, {name, _new(name), CLIENT, _new(CLIENT)}, folders)
            _refuse_a_living_one(directory, name, path)
            listener = undo.enter_context(
                contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            )
            _bind(listener, directory, name, group)
            _place_client(directory, group)
            door = ControlSocket(listener, directory, name)
        except OSError as error:
            raise RefusedError(
                f"{path}: no control socket can be made there: {error.strerror}; give the sidecar a directory of"
                ' its own to write to, or set [control] socket = "" for none'
            ) from error
        undo.pop_all()
    return door


def _new(name: str) -> str:
    """Return the name that something has until it is as it shall be."""
    return f".{name}.new"


def _open_directory(path: str, mode: int = 0o700) -> int:
    """Open a directory, made with `mode` when it is missing, and those above it (0755).

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
    """Close a directory of ours that holds nothing but `ours` and `folders` to others, who may pass to folders.

    Raises OSError, RefusedError.
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


def _refuse_a_living_one(directory: int, name: str, path: str) -> None:
    """Raise RefusedError when somebody listens there, or when it is no socket. A dead run's is no obstacle."""
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
    """Make the socket under another name; it gets its own when it has its owner and mode, and is listened at.

    The file has the mode of the socket's own descriptor, less the umask: it is never open to others (unix(7)).
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
    """Put the client there under its name, whole."""
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
    """Return a path that leads to an entry of the very directory that is open, for calls that take paths only."""
    return f"/proc/self/fd/{directory}/{name}"
