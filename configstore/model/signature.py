"""How a changed file is told from an unchanged one without reading it."""

import msgspec


class Signature(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of a stat that changes whenever a file may have changed: the cheap test before hashing."""

    ino: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
