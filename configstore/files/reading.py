"""Reads a file that another process may be writing. Called by `reader` and the sidecar's scan."""

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
    """The file at a path cannot be stored; the text says why, and what to do."""


class Linked(Unusable):
    """The file has other names, which may be where another user can write to it."""


class StillEmpty(Unusable):
    """The file is empty, as a file of its kind is only while it is being made."""


def signature(status: os.stat_result) -> Signature:
    """Return the part of a stat result that changes when the file changes.

    A directory's size and times are left out: they change with what is in it.
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

    Only the last piece may be shorter. Use the pieces only after the iteration has ended without an error: the
    check after the last one covers all. written: returns for an answer of `has_writer` whether the file is being
    written.
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
    if answer is None and written(None):  # a write may be so fast that no time stamp changes
        raise UnstableError


def _piece(descriptor: int, size: int, offset: int) -> bytes:
    """Return `size` bytes of a file. Raises UnstableError when the file has become shorter, OSError."""
    piece = os.pread(descriptor, size, offset)
    while len(piece) < size:
        more = os.pread(descriptor, size - len(piece), offset + len(piece))
        if not more:
            raise UnstableError
        piece += more
    return piece


def digest_stable(descriptor: int, written: Callable[[bool | None], bool] = bool) -> tuple[int, str]:
    """Return size and SHA-256 of a file that nobody is writing. Raises as `stable_pieces` does."""
    size, digest = 0, hashlib.sha256()
    for piece in stable_pieces(descriptor, written):
        size += len(piece)
        digest.update(piece)
    return size, digest.hexdigest()


def has_writer(descriptor: int) -> bool | None:
    """Return whether any process has the file open for writing; None when we may not ask.

    The kernel refuses a read lease (fcntl(2), F_SETLEASE) with EAGAIN exactly then. The lease is given back at
    once, so it delays nobody. For another user's file it needs CAP_LEASE, and some file systems have no leases.
    """
    try:
        # If a process opens the file to write meanwhile, the kernel signals us. SIGURG is ignored by default;
        # SIGIO would end this process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
