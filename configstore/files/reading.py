"""Reading a file that somebody else may be writing."""

import errno
import fcntl
import os
import signal
import stat

from configstore.model.signature import Signature


class UnstableError(Exception):
    """The file is being written right now."""


class Unusable(Exception):  # noqa: N818  # becomes a Problem
    """What lies there is nothing that can be stored; the text says why, and the mend."""


class Unfinished(Unusable):
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


def read_stable(descriptor: int) -> bytes:
    """Return the whole content of a regular file that nobody is writing. Raises UnstableError, OSError."""
    if _has_writer(descriptor):
        raise UnstableError
    before = os.fstat(descriptor)
    parts = []
    offset = 0
    while part := os.pread(descriptor, before.st_size + 1 - offset, offset):
        parts.append(part)
        offset += len(part)
        if offset > before.st_size:
            raise UnstableError
    if signature(os.fstat(descriptor)) != signature(before) or offset != before.st_size:
        raise UnstableError
    return b"".join(parts)


def _has_writer(descriptor: int) -> bool:
    """Tell whether any process has the file open for writing.

    A read lease (fcntl(2), F_SETLEASE) is refused with EAGAIN just then. It is given back at once, so it delays
    nobody. Where leases are not permitted (another's file without CAP_LEASE) this says no, and comparing the
    stat before and after the read has to do.
    """
    try:
        # Should a writer come in between, the kernel tells us so; SIGURG is ignored by default, SIGIO kills.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
