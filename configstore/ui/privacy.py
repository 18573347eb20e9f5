"""What of a file's content may leave the store for a browser: pure rules, asked before any content is read.

Private is every file that others may not read by its mode, and every `*.key`. A path is private when anything that
is known of it is: a key that lay open for a minute before it was closed has the same content in both versions.
"""

from collections.abc import Iterable

from configstore.model.path import StorePath
from configstore.model.record import Entry, Kind

_OTHERS_READ = 0o004

LARGEST = 128 * 1024
"""Bytes of a text that is shown; a larger one is summed up."""

LONGEST = 3000
"""Lines of a text that is compared; more of them nobody reads here."""


def is_private(path: StorePath, entry: Entry) -> bool:
    """Tell whether a file's content is not to be shown."""
    return path.lower().endswith(".key") or (entry.kind is Kind.FILE and not entry.mode & _OTHERS_READ)


def is_private_path(path: StorePath, known: Iterable[Entry]) -> bool:
    """Tell whether nothing of a path is to be shown, by all that is known of it."""
    return any(is_private(path, entry) for entry in known) or path.lower().endswith(".key")


def why_untold(path: StorePath, known: Iterable[Entry], *, unread: bool = False) -> str:
    """Return why a path's content is not shown, in words; nothing where it may be.

    unread: something of it cannot be read, so that nobody knows whether that is private.
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
    """Return content as text; None for what is binary, or has too many lines."""
    if b"\0" in content:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if text.count("\n") <= LONGEST else None
