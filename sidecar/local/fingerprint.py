"""Recognises a file: by its stat, and by its content. Called by `apply`, `stage` and `recovery`.

A stat is quick, and enough before a rename. But a write through a memory map changes neither size nor time of a
file (tmpfs), so a file that was taken out is also read before it is removed.
"""

import os
import stat

import msgspec

from configstore.files.reading import UnstableError, digest_stable, signature
from configstore.model.signature import Signature
from sidecar.planner.sides import LocalEntry


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """By what a file is recognised. sha256: of a regular file's content; "" for everything else."""

    signature: Signature
    sha256: str = ""


def fingerprint_of(local: LocalEntry) -> Fingerprint:
    """Return the fingerprint of a local state; for a link that is mirrored as its target, that of the link."""
    regular = stat.S_ISREG(local.signature.mode)
    return Fingerprint(signature=local.signature, sha256=local.entry.sha256 if regular else "")


def unchanged_since(before: Signature, found: os.stat_result) -> bool:
    """Return whether a stat has this signature. The ctime is not compared: a rename changes it."""
    return msgspec.structs.replace(signature(found), ctime_ns=before.ctime_ns) == before


def is_still(directory: int, name: str, expected: Fingerprint) -> bool:
    """Return whether the file `name` in an open directory is the expected one, and no process is writing to it.

    Raises OSError when that cannot be known.
    """
    if not unchanged_since(expected.signature, os.stat(name, dir_fd=directory, follow_symlinks=False)):
        return False
    if not expected.sha256:
        return True
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except PermissionError:
        return True  # its mode forbids reading, so the scan could not read it either
    try:
        return digest_stable(descriptor)[1] == expected.sha256
    except UnstableError:
        return False
    finally:
        os.close(descriptor)
