"""The directory that both containers share: the socket in it, and the drop-in client beside it."""

import contextlib
import os
import socket
import stat
from pathlib import Path

import configstore.client
from configstore import __version__
from configstore.errors import RefusedError
from configstore.model.path import printable

CLIENT = "configstore-client"
_NEW = f".{CLIENT}.new"


def listen(path: str, group: int | None) -> socket.socket:
    """Return a socket bound at `path`, in a directory that only its owner, or `group`, may enter.

    Call it before other threads are started: the umask is changed for a moment.
    Raises RefusedError, also when another sidecar serves it.
    """
    directory = os.path.dirname(path)
    try:
        _make_directory(directory, group, {os.path.basename(path), CLIENT, _NEW})
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            _bind(listener, path, group)
            _place_client(directory, group)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise RefusedError(
            f"{path}: no control socket can be made there: {error.strerror}; give the sidecar a directory of its"
            ' own to write to, or set [control] socket = "" for none'
        ) from error
    return listener


def _make_directory(directory: str, group: int | None, ours: set[str]) -> None:
    """Make the directory, or close one that holds nothing but `ours` to others. Raises OSError, RefusedError."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(directory, mode=0o700)
    found = os.stat(directory)
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise RefusedError(
            f"{directory}: everybody may write there; the control socket needs a directory of its own"
        )
    mode = 0o700 if group is None else 0o750
    rights = found.st_mode & 0o777
    if found.st_uid != os.geteuid() or (rights == mode and group in {None, found.st_gid}):
        return
    if rights & ~mode and (others := set(os.listdir(directory)) - ours):
        raise RefusedError(
            f"{directory}: {printable(min(others))} lies there, too, and it would be closed to others; the control"
            " socket needs a directory of its own"
        )
    if group is not None:
        os.chown(directory, -1, group)
    os.chmod(directory, mode)


def _remove_stale(path: str) -> None:
    """Remove the socket of a dead run. Raises RefusedError when somebody still listens."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise RefusedError(f"{path}: something else than a socket is there; remove it")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                os.unlink(path)
                return
            except TimeoutError:
                pass
        raise RefusedError(f"{path}: another sidecar serves this socket; give each its own directory")


def _bind(listener: socket.socket, path: str, group: int | None) -> None:
    before = os.umask(0o177)  # never open to others, not for an instant
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    if group is not None:
        os.chown(path, -1, group)
        os.chmod(path, 0o660)


def _place_client(directory: str, group: int | None) -> None:
    """Put the client there under its name, whole."""
    text = Path(configstore.client.__file__).read_text(encoding="utf-8")
    text = text.replace('VERSION = "unplaced"', f'VERSION = "{__version__}"')
    new = os.path.join(directory, _NEW)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o700)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        if group is not None:
            os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, 0o700 if group is None else 0o750)
    os.rename(new, os.path.join(directory, CLIENT))
