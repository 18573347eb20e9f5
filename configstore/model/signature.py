"""The part of a stat result by which a changed file is noticed without reading it. Made by `files.reading`."""

import msgspec


class Signature(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The fields of a stat result that change whenever a file may have changed: the cheap test before hashing."""

    ino: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
