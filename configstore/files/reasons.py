"""Why the system refused to read, write or make a file, and what to do about it, as text for an operator.

One table for all that reads and writes files, so that the same failure has the same text everywhere.
"""

import errno
from collections.abc import Mapping

_REASONS = {
    errno.EACCES: "no permission: run as the owner of the files and their directory, or as root",
    errno.EPERM: "not permitted: another user's file in a sticky directory, or an immutable one? Run as the"
    " application's user, or mirror into a subdirectory that is not sticky",
    errno.EBUSY: "something is mounted on it (a bind mount of a single file?), so it cannot be replaced: mount its"
    " directory instead, or exclude it",
    errno.ETXTBSY: "it is a program that runs right now; it is tried again",
    errno.ENOSPC: "no space left in the directory's file system: give the volume a larger size",
    errno.EDQUOT: "the quota of the directory's file system is used up: raise it",
    errno.EROFS: "the directory is mounted read-only: mount it writable",
    errno.EXDEV: "another file system is mounted here: of a single file, mount its directory instead, or exclude"
    " it; give a directory a mapping of its own, or import it by itself",
    errno.EMFILE: "too many open files: raise this process's limit (ulimit -n)",
    errno.ENFILE: "too many open files on this host: raise fs.file-max",
    errno.ELOOP: "a symlink lies where a directory must be, or was put in the file's place",
    errno.ENOTDIR: "a file or a symlink lies where a directory must be",
    errno.EISDIR: "a directory lies where a file must be",
    errno.ENOTEMPTY: "the directory still holds files that are not mirrored; remove them, or mirror them",
    errno.ENAMETOOLONG: "the name is too long for this file system: rename it",
    errno.EIO: "the device failed to read or write it: look into the kernel's log (dmesg)",
    errno.ESTALE: "the network file system lost it: mount the directory again",
}


def why_failed(error: OSError, table: Mapping[int, str] = _REASONS) -> str:
    """Return why it failed and what to do. table: the texts by error number, where others than those above fit."""
    return table.get(error.errno or 0, error.strerror or str(error))
