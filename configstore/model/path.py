"""Checks and takes apart paths of the store. Every path that another may have chosen passes `parse_path`.

Called by the command line for typed paths, by `keys` for those in etcd, and by the scan for names of files.
"""

import json
import re
from itertools import takewhile
from typing import NewType

StorePath = NewType("StorePath", str)
"""A checked path such as `overrides/nginx/proxy.conf`: relative, UTF-8, no empty, `.` or `..` component."""

ROOT = StorePath("")
"""The whole tree, written `/` on the command line. It has no record of its own."""

PRIVATE_NAME = ".configstore"
"""The sidecar's own directory in a mirrored mount; no component of a store path may have this name."""

MARK_NAME = "configstore-mark"
"""A file by which the sidecar's own directory is recognised, even after it was moved."""

MAX_COMPONENT = 255  # bytes; Linux NAME_MAX
MAX_PATH = 2048  # bytes; leaves room for a mapping's directory below Linux PATH_MAX (4096)
_SPECIAL = re.compile(r"[^\w@%+=:,./-]")  # characters that may mean something to a shell, and spaces
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode category Cc


_NOT_ASCII = re.compile(r"[^\n\x20-\x7e]")


class PathError(ValueError):
    """The text is not a path that can be stored and mirrored; the message says why."""


def parse_path(text: str) -> StorePath:
    """Check `text` and return it as a path.

    Raises PathError with a reason that names the path, with control characters escaped.
    """
    if not text:
        raise PathError("the path is empty")
    if len(text) > MAX_PATH:  # before any work on the whole text
        raise _too_long(text)
    shown = printable(text)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise PathError(f"{shown}: not valid UTF-8") from None
    if size > MAX_PATH:
        raise _too_long(text)
    if text.startswith("/"):
        raise PathError(f"{shown}: absolute; paths in the store are relative, such as certs/cert.pem")
    for component in text.split("/"):
        _check_component(component, shown)
    return StorePath(text)


def _too_long(text: str) -> PathError:
    return PathError(f"{printable(text[:80])}…: longer than {MAX_PATH} bytes")


def _check_component(component: str, shown: str) -> None:
    if component == "":
        raise PathError(f"{shown}: has an empty component (a doubled or trailing '/')")
    if component in {".", ".."}:
        raise PathError(f"{shown}: has a '{component}' component")
    if component == PRIVATE_NAME:
        raise PathError(f"{shown}: '{PRIVATE_NAME}' is reserved for the sidecar")
    if len(component.encode()) > MAX_COMPONENT:
        raise PathError(f"{shown[:80]}…: a component is longer than {MAX_COMPONENT} bytes")
    if _CONTROL.search(component):
        raise PathError(f"{shown}: has a control character")


def printable(text: str) -> str:
    """Return text safe for a terminal or a log line, with unprintable characters escaped. For a path: `shown`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
                   for char in text)  # fmt: skip


def printable_json(text: str) -> str:
    """Return equal JSON that is safe for a terminal, with its line ends."""
    return _NOT_ASCII.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def shell_word(text: str) -> str:
    """Return `text` as it is typed into a shell (bash): as it is, quoted, or as $'…' if it is not printable.

    Bytes that are not UTF-8 are expected as `surrogateescape` decodes them, as in Python's file names.
    """
    if text.isprintable():
        if text and not _SPECIAL.search(text):
            return text
        return "'" + text.replace("'", "'\\''") + "'"
    return "$'" + "".join(_in_quotes(char) for char in text) + "'"


def _in_quotes(char: str) -> str:
    """Return a character for $'…', with the same meaning in every locale."""
    if char in "'\\":
        return f"\\{char}"
    if char.isprintable():
        return char
    raw = char.encode("utf-8", "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in raw)


def shown(path: str) -> str:
    """Return a path as it is typed for a command, quoted for the shell.

    The whole tree is `/`. A path that begins like an option is written `./-…`, as for other commands.
    """
    if not path:
        return "/"
    return shell_word(f"./{path}" if path.startswith("-") else path)


def parent(path: StorePath) -> StorePath:
    """Return the directory that holds `path`; ROOT for a top-level path."""
    return StorePath(path.rpartition("/")[0])


def basename(path: str) -> str:
    """Return the last component of `path`."""
    return path.rpartition("/")[2]


def first_component(path: str) -> StorePath:
    """Return the first component of `path`: the top-level directory that holds it, or itself."""
    return StorePath(path.partition("/")[0])


def ancestors(path: StorePath) -> list[StorePath]:
    """Return the directories above `path`, outermost first, without ROOT."""
    parts = path.split("/")[:-1]
    return [StorePath("/".join(parts[: count + 1])) for count in range(len(parts))]


def depth(path: StorePath) -> int:
    """Return the number of components."""
    return path.count("/") + 1 if path else 0


def is_below(path: StorePath, directory: StorePath) -> bool:
    """Return whether `path` is inside `directory`, at any depth; a path is not below itself."""
    return (directory == ROOT and path != ROOT) or path.startswith(f"{directory}/")


def join(directory: StorePath, relative: StorePath) -> StorePath:
    """Join two checked paths; either may be ROOT."""
    if ROOT in (directory, relative):
        return StorePath(directory + relative)
    return StorePath(f"{directory}/{relative}")


def relative_to(path: StorePath, directory: StorePath) -> StorePath:
    """Return `path` relative to `directory`, ROOT if they are equal; `path` must be inside it."""
    if path == directory:
        return ROOT
    if not is_below(path, directory):
        raise ValueError(f"{path} does not lie in {directory}")
    return StorePath(path[len(directory) + 1 :] if directory else path)


def unsafe_target(path: StorePath, target: str) -> str | None:
    """Return why a symlink at `path`, relative to the mapping's directory, must not be stored, or None.

    Only its text is checked, and yet no chain of accepted links leads out of the directory:

    1. Every `..` comes first, so it starts from the directory that holds the link, whatever other links exist.
    2. There are at most as many `..` as directories above the link.
    3. All that follows only descends. After a name, a `..` could start from wherever that name's link leads.
    """
    if target.startswith("/"):
        return "a symlink with an absolute target, which means something else in every container; make it relative"
    steps = [component for component in target.split("/") if component not in {"", "."}]
    up = len(list(takewhile("..".__eq__, steps)))
    if up > path.count("/"):
        return "a symlink that leads out of the directory"
    if ".." in steps[up:]:
        return "a symlink with '..' behind a name, which may itself be a link: begin its target with the '..'"
    return None
