"""Decides whether a file's content may be sent to a browser: pure rules, applied before any content is read.

A file is private when its mode does not let others read it, and when its name ends in `.key`. A path is private
when any known version of it is: a key that was readable for a minute has the same content in both versions.
Called by `pages`.
"""

from collections.abc import Iterable

from configstore.model.path import StorePath
from configstore.model.record import Entry, Kind

_OTHERS_READ = 0o004

LARGEST = 128 * 1024
"""Bytes of a text that is shown; of a larger one only the size is."""

LONGEST = 3000
"""Lines of a text that is compared."""


def is_private(path: StorePath, entry: Entry) -> bool:
    """Return whether this version of a file is private."""
    return path.lower().endswith(".key") or (entry.kind is Kind.FILE and not entry.mode & _OTHERS_READ)


def is_private_path(path: StorePath, known: Iterable[Entry]) -> bool:
    """Return whether a path is private, by all of its known versions."""
    return any(is_private(path, entry) for entry in known) or path.lower().endswith(".key")


def why_hidden(path: StorePath, known: Iterable[Entry], *, unread: bool = False) -> str:
    """Return why a path's content is not shown; "" when it may be.

    unread: a version cannot be read, so it is unknown whether that one is private.
    """
    known = tuple(known)
    if unread:
        return "a version of it cannot be read, so nobody knows whether it is private; its content is not sent"
    if is_private_path(path, known):
        return "private: others may not read it by its mode, or it is a key; its content is never sent"
    if any(entry.size > LARGEST for entry in known if entry.kind is Kind.FILE):
        return f"larger than {LARGEST // 1024} KiB: only summed up here"
    return ""


def text_of(content: bytes) -> str | None:
    """Return content as text; None when it is binary, or has more than LONGEST lines."""
    if b"\0" in content:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if text.count("\n") <= LONGEST else None
