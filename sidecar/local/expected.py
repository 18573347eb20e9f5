"""Judges whether what lies at a name is what was expected there: by its stat, and by its content.

A stat is quick, and enough before a rename. It does not tell all: a write through a memory map may move neither
size nor time (tmpfs), so what came out in exchange is also read before it is dropped. Called by `apply` and
`recovery`.
"""

import os
import stat

import msgspec

from configstore.files.reading import UnstableError, digest_stable, signature
from configstore.model.signature import Signature
from sidecar.planner.sides import LocalEntry


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed to lie somewhere. sha256: of a regular file's content; "" for all else."""

    signature: Signature
    sha256: str = ""


def expected(local: LocalEntry) -> Expected:
    """Return what a known state is recognised by; a link that is mirrored as what it leads to, as a link."""
    regular = stat.S_ISREG(local.signature.mode)
    return Expected(signature=local.signature, sha256=local.entry.sha256 if regular else "")


def unchanged_since(before: Signature, found: os.stat_result) -> bool:
    """Tell whether a stat is that of what had this signature; a rename may have changed its ctime."""
    return msgspec.structs.replace(signature(found), ctime_ns=before.ctime_ns) == before


def is_still(directory: int, name: str, expected: Expected) -> bool:
    """Tell whether at `name` in an open directory lies what was expected, and nobody is writing to it.

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
        return True  # its mode keeps us from reading it, as it kept the scan
    try:
        return digest_stable(descriptor)[1] == expected.sha256
    except UnstableError:
        return False
    finally:
        os.close(descriptor)
