"""What a settings file, a preset or a variable may say of one mapping: each key with its type, parser and default.

`MappingSettings` is the one description of the keys. The sidecar's `Mapping` and the presets' `PresetMapping`
extend it; MAPPING_PARSERS and the table in docs/settings.md, which says what each key means, are made from it.
"""

import enum
import math
import re
import shlex
import signal
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
import pathspec

from configstore.model.path import ROOT, PathError, StorePath, parse_path
from configstore.model.seal import Policy
from configstore.model.selection import Direction, Symlinks
from configstore.parsing import (
    one_of,
    parse_bool,
    parse_directory,
    parse_duration,
    parse_name,
    parse_text,
    parse_texts,
    parsers_of,
)
from configstore.settings import MAX_DELETE, RETENTION

_MODE = re.compile(r"0[0-7]{3}")
_OWNER = re.compile(r"([0-9]{0,10}):([0-9]{0,10})")
_SIGNAL = re.compile(r"([A-Z][A-Z0-9+]*):([^\s/:]{1,64})")
_NO_ID = 2**32 - 1  # chown(2): this number leaves owner or group as it is


class WatchMode(enum.StrEnum):
    """How local changes are noticed; `auto` takes inotify where the kernel offers it."""

    AUTO = "auto"
    INOTIFY = "inotify"
    POLL = "poll"


class OwnerOverride(msgspec.Struct, frozen=True, kw_only=True):
    """A user and a group by number that replace those of a record or a process; None keeps the latter."""

    uid: int | None = None
    gid: int | None = None


AS_IT_IS = OwnerOverride()
"""The override that changes nothing."""


def _patterns(value: object) -> tuple[str, ...]:
    """Return gitignore-style patterns; in a variable with commas between them, or as a JSON array."""
    expected = 'expected patterns such as ["*.key", "!old.key"]'
    found = parse_texts(value, lambda text: [part.strip() for part in text.split(",") if part.strip()], expected)
    try:
        pathspec.GitIgnoreSpec.from_lines(found)
    except ValueError as error:
        raise ValueError(f"{expected}: {error}") from None
    return found


def _include(value: object) -> tuple[str, ...]:
    if not (found := _patterns(value)):
        raise ValueError('expected at least one pattern, such as ["**"]')
    return found


def _command(value: object) -> tuple[str, ...]:
    """Return an argument list; in a variable quoted as for a shell (none is run), or as a JSON array."""
    return parse_texts(value, shlex.split, 'expected an argument list such as ["nginx", "-t"]')


def parse_store(value: object) -> StorePath:
    """Return a subtree of the store; `/` is the whole tree."""
    if value == "/":
        return ROOT
    try:
        return parse_path(parse_text(value))
    except PathError as error:
        raise ValueError(f'expected a path of the store such as "certs": {error}') from None


def parse_lease(value: object) -> str | None:
    """Return a lease's name; None for an empty text or "none"."""
    return None if value in ("", "none") else parse_name(value)


def _share(value: object) -> float:
    try:
        share = float(str(value))  # refuses a boolean
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError("expected a share between 0 and 1")
    return share


def _rescan(value: object) -> float:
    seconds = parse_duration(value)
    if not 0 < seconds <= 3600:
        raise ValueError("expected a duration above 0, at most 1h")
    return seconds


def _keep(value: object) -> int:
    text = str(value)  # refuses a boolean
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise ValueError("expected a whole number from 1 to 100000")
    return int(text)


def _mode(value: object) -> int | None:
    if value == "":
        return None
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise ValueError('expected an octal mode as text, such as "0600", without setuid, setgid and sticky')
    return int(value, 8)


def _owner(value: object) -> OwnerOverride:
    """Return the owner of `uid:gid`; either may be left out."""
    match = _OWNER.fullmatch(value) if isinstance(value, str) else None
    if value == "":
        return AS_IT_IS
    if not match or not (match[1] or match[2]):
        raise ValueError('expected numbers as "uid:gid", such as "100:101", "100:" or ":101"')
    uid, gid = (int(part) if part else None for part in match.groups())
    if (uid or 0) >= _NO_ID or (gid or 0) >= _NO_ID:
        raise ValueError(f"expected numbers below {_NO_ID}")
    return OwnerOverride(uid=uid, gid=gid)


def _run_as(value: object) -> OwnerOverride:
    """Return the user of `uid:gid`; the group may be left out."""
    found = _owner(value)
    if value != "" and not found.uid:
        raise ValueError('expected numbers as "uid:gid", such as "101:101" or "101:", not root')
    return found


def _signal(value: object) -> str | None:
    """Return `SIGNAL:process`; None for an empty text or "none"."""
    if value in ("", "none"):
        return None
    match = _SIGNAL.fullmatch(value) if isinstance(value, str) else None
    if not match or f"SIG{match[1].removeprefix('SIG')}" not in signal.Signals.__members__:
        raise ValueError('expected a signal and a process name, such as "HUP:nginx"')
    return f"{match[1].removeprefix('SIG')}:{match[2]}"


class MappingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a [[mapping]]. Durations are in seconds.

    path: the mirrored directory. include, exclude, refuse_empty, order: gitignore-style patterns, relative to it.
    file_mode, dir_mode: None keeps the record's mode. seal: None takes the sidecar's own policy.
    """

    name: Annotated[str, parse_name]
    store: Annotated[StorePath, parse_store]
    path: Annotated[str, parse_directory]
    direction: Annotated[Direction, one_of(Direction)] = Direction.BOTH
    include: Annotated[tuple[str, ...], _include] = ("**",)
    exclude: Annotated[tuple[str, ...], _patterns] = ()
    order: Annotated[tuple[str, ...], _patterns] = ()
    required: Annotated[bool, parse_bool] = True
    lease: Annotated[str | None, parse_lease] = None
    settle: Annotated[float, parse_duration] = 0.02
    delete_settle: Annotated[float, parse_duration] = 1.0
    max_delete: Annotated[float, _share] = MAX_DELETE
    symlinks: Annotated[Symlinks, one_of(Symlinks)] = Symlinks.PRESERVE
    create_once: Annotated[bool, parse_bool] = False
    retention: Annotated[float, parse_duration] = RETENTION
    keep: Annotated[int, _keep] = 100
    seal: Annotated[Policy | None, one_of(Policy)] = None
    owner: Annotated[OwnerOverride, _owner] = AS_IT_IS
    file_mode: Annotated[int | None, _mode] = None
    dir_mode: Annotated[int | None, _mode] = None
    refuse_empty: Annotated[tuple[str, ...], _patterns] = ()
    watch: Annotated[WatchMode, one_of(WatchMode)] = WatchMode.AUTO
    rescan: Annotated[float, _rescan] = 60.0
    check: Annotated[tuple[str, ...], _command] = ()
    on_change: Annotated[tuple[str, ...], _command] = ()
    signal: Annotated[str | None, _signal] = None
    on_problem: Annotated[tuple[str, ...], _command] = ()
    run_as: Annotated[OwnerOverride, _run_as] = AS_IT_IS


MAPPING_PARSERS = parsers_of(MappingSettings)
"""The parser of every key of a [[mapping]]."""

MAPPING_VARIABLES = "CONFIGSTORE_MAPPING_"
"""What the variables of all mappings begin with."""


def variable_of(mapping: str, key: str = "") -> str:
    """Return the variable of a mapping's key, such as `CONFIGSTORE_MAPPING_DKIM_PATH`; for "" their beginning."""
    return f"{MAPPING_VARIABLES}{re.sub(r'[^A-Z0-9]', '_', mapping.upper())}_{key.upper()}"


def from_variables(environ: Mapping[str, str], mapping: str, keys: Iterable[str]) -> dict[str, object]:
    """Return the raw values of those keys of a mapping whose variables are set."""
    return {key: environ[variable_of(mapping, key)] for key in keys if environ.get(variable_of(mapping, key))}
