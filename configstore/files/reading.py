"""Reading a file that somebody else may be writing."""

import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Callable, Iterator

from configstore.model.record import CHUNK_SIZE
from configstore.model.signature import Signature


class UnstableError(Exception):
    """The file is being written right now."""


class Unusable(Exception):  # noqa: N818  # becomes a Problem
    """What lies there is nothing that can be stored; the text says why, and the mend."""


class Linked(Unusable):
    """The file has other names, perhaps where somebody else may write to it."""


class StillEmpty(Unusable):
    """The file is empty, as one of its kind is while it is being made, and worth nothing."""


def signature(status: os.stat_result) -> Signature:
    """Return the part of a stat result that tells a changed file from an unchanged one.

    A directory's size and times speak of what is in it, not of itself, and are left out.
    """
    if stat.S_ISDIR(status.st_mode):
        return Signature(status.st_ino, status.st_mode, status.st_uid, status.st_gid, 0, 0, 0)
    return Signature(
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def stable_pieces(descriptor: int, written: Callable[[bool | None], bool] = bool) -> Iterator[bytes]:
    """Yield the whole content of a regular file that nobody is writing, in pieces of CHUNK_SIZE bytes.

    Only the last piece may be shorter. All of them count only when the end is reached without an error: the check
    there covers the whole. written: tells from the answer of `has_writer` whether somebody is writing.
    Raises UnstableError, OSError.
    """
    answer = has_writer(descriptor)
    if written(answer):
        raise UnstableError
    before = os.fstat(descriptor)
    offset = 0
    while offset < before.st_size:
        piece = _piece(descriptor, min(CHUNK_SIZE, before.st_size - offset), offset)
        offset += len(piece)
        yield piece
    if signature(os.fstat(descriptor)) != signature(before):
        raise UnstableError
    if answer is None and written(None):  # who wrote meanwhile, and so fast that no time stamp moved
        raise UnstableError


def _piece(descriptor: int, size: int, offset: int) -> bytes:
    """Return so many bytes of a file. Raises UnstableError when they are not there any more, OSError."""
    piece = os.pread(descriptor, size, offset)
    while len(piece) < size:
        more = os.pread(descriptor, size - len(piece), offset + len(piece))
        if not more:
            raise UnstableError
        piece += more
    return piece


def digest_stable(descriptor: int, written: Callable[[bool | None], bool] = bool) -> tuple[int, str]:
    """Return size and SHA-256 of a file that nobody is writing. Raises as `stable_pieces`."""
    size, digest = 0, hashlib.sha256()
    for piece in stable_pieces(descriptor, written):
        size += len(piece)
        digest.update(piece)
    return size, digest.hexdigest()


def has_writer(descriptor: int) -> bool | None:
    """Tell whether any process has the file open for writing; None when we may not ask.

    A read lease (fcntl(2), F_SETLEASE) is refused with EAGAIN just then. It is given back at once, so it delays
    nobody. Another user's file may be asked for with CAP_LEASE alone, and some file systems have no leases.
    """
    try:
        # Should a writer come in between, the kernel tells us so; SIGURG is ignored by default, SIGIO kills.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
