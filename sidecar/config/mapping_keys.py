"""The keys of a [[mapping]]: how each is read from TOML or from a variable's text, and what it expects.

Called by `config.settings` alone. A parser raises ValueError saying what was expected; who calls it knows the file
or variable and the key.
"""

import json
import math
import os.path
import re
import shlex
import signal
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pathspec

from configstore.model.path import ROOT, PathError, StorePath, parse_path
from configstore.model.selection import Direction, Symlinks
from configstore.settings import Parser, parse_duration, parse_name, parse_policy, parse_text
from sidecar.mapping import OwnerOverride, WatchMode

_MODE = re.compile(r"0[0-7]{3}")
_OWNER = re.compile(r"([0-9]{0,10}):([0-9]{0,10})")
_SIGNAL = re.compile(r"([A-Z][A-Z0-9+]*):([^\s/:]{1,64})")
_NO_ID = 2**32 - 1  # the kernel's "leave it as it is"
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_bool(value: object) -> bool:
    """Return a truth value; as text `true` or `false`."""
    text = str(value).lower() if isinstance(value, str | bool) else ""
    if text not in _YES_NO:
        raise ValueError("expected true or false")
    return _YES_NO[text]


def parse_choice(choices: type[StrEnum]) -> Parser:
    """Return a parser for one of an enumeration's values."""

    def parse(value: object) -> StrEnum:
        try:
            return choices(str(value))
        except ValueError:
            raise ValueError(f"expected one of {', '.join(choices)}") from None

    return parse


def _texts(value: object, split: Callable[[str], list[str]], expected: str) -> tuple[str, ...]:
    """Return a list of texts; one text is a JSON array, or what `split` makes of it."""
    try:
        if isinstance(value, str):
            value = json.loads(value) if value.lstrip().startswith("[") else split(value)
        return tuple(parse_text(part) for part in (value if isinstance(value, list | tuple) else [None]))
    except (ValueError, RecursionError):  # JSON nested too deep is the latter
        raise ValueError(expected) from None


def parse_patterns(value: object) -> tuple[str, ...]:
    """Return gitignore-style patterns; in a variable with commas between them, or as a JSON array."""
    expected = 'expected patterns such as ["*.key", "!old.key"]'
    found = _texts(value, lambda text: [part.strip() for part in text.split(",") if part.strip()], expected)
    try:
        pathspec.GitIgnoreSpec.from_lines(found)
    except ValueError as error:
        raise ValueError(f"{expected}: {error}") from None
    return found


def parse_include(value: object) -> tuple[str, ...]:
    """Return patterns, at least one."""
    if not (found := parse_patterns(value)):
        raise ValueError('expected at least one pattern, such as ["**"]')
    return found


def parse_command(value: object) -> tuple[str, ...]:
    """Return an argument list; in a variable quoted as for a shell (none is run), or as a JSON array."""
    return _texts(value, shlex.split, 'expected an argument list such as ["nginx", "-t"]')


def parse_store(value: object) -> StorePath:
    """Return a subtree of the store; `/` is the whole tree."""
    if value == "/":
        return ROOT
    try:
        return parse_path(parse_text(value))
    except PathError as error:
        raise ValueError(f'expected a path of the store such as "certs": {error}') from None


def parse_directory(value: object) -> str:
    """Return an absolute, normalised directory that is not the root of the file system."""
    expected = 'expected an absolute directory such as "/certs"'
    text = parse_text(value)
    if not text.startswith("/") or ".." in text.split("/"):
        raise ValueError(f"{expected}, without '..'")
    path = "/" + os.path.normpath(text).strip("/")
    if path == "/":
        raise ValueError(f"{expected}, not the root of the file system")
    return path


def parse_lease(value: object) -> str | None:
    """Return a lease's name; None for an empty text or "none"."""
    return None if value in ("", "none") else parse_name(value)


def parse_share(value: object) -> float:
    """Return a share between 0 and 1."""
    try:
        share = float(str(value))  # a boolean is refused here
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError("expected a share between 0 and 1")
    return share


def parse_rescan(value: object) -> float:
    """Return the seconds between two full scans, above 0, at most an hour."""
    seconds = parse_duration(value)
    if not 0 < seconds <= 3600:
        raise ValueError("expected a duration above 0, at most 1h")
    return seconds


def parse_keep(value: object) -> int:
    """Return how many superseded records of a path are kept."""
    text = str(value)  # a boolean is refused here
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise ValueError("expected a whole number from 1 to 100000")
    return int(text)


def parse_mode(value: object) -> int | None:
    """Return permission bits of an octal text; none for an empty one."""
    if value == "":
        return None
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise ValueError('expected an octal mode as text, such as "0600", without setuid, setgid and sticky')
    return int(value, 8)


def parse_owner(value: object) -> OwnerOverride:
    """Return the owner of `uid:gid`; either may be left out."""
    match = _OWNER.fullmatch(value) if isinstance(value, str) else None
    if value == "":
        return OwnerOverride()
    if not match or not (match[1] or match[2]):
        raise ValueError('expected numbers as "uid:gid", such as "100:101", "100:" or ":101"')
    uid, gid = (int(part) if part else None for part in match.groups())
    if (uid or 0) >= _NO_ID or (gid or 0) >= _NO_ID:
        raise ValueError(f"expected numbers below {_NO_ID}")
    return OwnerOverride(uid=uid, gid=gid)


def parse_run_as(value: object) -> OwnerOverride:
    """Return the user of `uid:gid`, the group may be left out; nobody for an empty text."""
    found = parse_owner(value)
    if value != "" and not found.uid:
        raise ValueError('expected numbers as "uid:gid", such as "101:101" or "101:", not root')
    return found


def parse_signal(value: object) -> str | None:
    """Return `SIGNAL:process`; None for an empty text or "none"."""
    if value in ("", "none"):
        return None
    match = _SIGNAL.fullmatch(value) if isinstance(value, str) else None
    if not match or f"SIG{match[1].removeprefix('SIG')}" not in signal.Signals.__members__:
        raise ValueError('expected a signal and a process name, such as "HUP:nginx"')
    return f"{match[1].removeprefix('SIG')}:{match[2]}"


MAPPING_PARSERS: dict[str, Callable[[object], Any]] = {
    "name": parse_name,
    "store": parse_store,
    "path": parse_directory,
    "direction": parse_choice(Direction),
    "include": parse_include,
    "exclude": parse_patterns,
    "required": parse_bool,
    "lease": parse_lease,
    "settle": parse_duration,
    "symlinks": parse_choice(Symlinks),
    "delete_settle": parse_duration,
    "max_delete": parse_share,
    "check": parse_command,
    "on_change": parse_command,
    "signal": parse_signal,
    "on_problem": parse_command,
    "retention": parse_duration,
    "keep": parse_keep,
    "create_once": parse_bool,
    "seal": parse_policy,
    "watch": parse_choice(WatchMode),
    "rescan": parse_rescan,
    "owner": parse_owner,
    "file_mode": parse_mode,
    "dir_mode": parse_mode,
    "run_as": parse_run_as,
    "refuse_empty": parse_patterns,
    "order": parse_patterns,
}
"""Every key of a [[mapping]] in a settings file."""
