"""How the value of a setting is read, from TOML or from the text of a variable or an option.

A struct of settings describes each key once: its name, its type, its default, and as an annotation its parser.
`parsers_of` makes the table of parsers from it. Such structs are in `configstore.settings`,
`configstore.mapping_settings` and `sidecar.config.settings`. A parser raises ValueError that says what it expects;
`parse_layer` adds where the value was found.
"""

import difflib
import json
import math
import os.path
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, get_type_hints

from configstore.errors import UsageError
from configstore.model.path import printable

Parser = Callable[[object], Any]
"""Turns a raw value (of TOML, or text) into the wanted one. Raises ValueError that says what was expected."""

Label = Callable[[str], str]
"""Names a key of one layer for an error message, such as `file.toml: store.root` or `CONFIGSTORE_ROOT`."""


def parsers_of(settings: type) -> dict[str, Parser]:
    """Return the parsers of a struct of settings by key: the first annotation of each `Annotated` field."""
    return {key: annotations[0] for key, annotations in annotations_of(settings).items()}


def annotations_of(settings: type) -> dict[str, tuple[Any, ...]]:
    """Return the annotations of each `Annotated` field of a struct by key."""
    types = get_type_hints(settings, include_extras=True)
    return {key: each.__metadata__ for key, each in types.items() if hasattr(each, "__metadata__")}


def below(where: str) -> Label:
    """Return a label that puts `where` before each key."""
    return lambda key: f"{where}{key}"


def parse_layer(raw: Mapping[str, object], parsers: Mapping[str, Parser], label: Label) -> dict[str, Any]:
    """Parse one layer's values. Raises UsageError for an unknown key (naming the nearest) or a bad value."""
    parsed = {}
    for key, value in raw.items():
        if key not in parsers:
            raise UsageError(f"{label(printable(key))}: unknown key; {hint(key, parsers)}")
        try:
            parsed[key] = parsers[key](value)
        except ValueError as error:
            raise UsageError(f"{label(key)}: {error}") from None
    return parsed


def nearest(name: str, known: Iterable[str], *, count: int = 1) -> list[str]:
    """Return the known names that `name` was probably meant to be, the nearest first; `count` at most."""
    return difflib.get_close_matches(name, sorted(known), n=count)


def meant(name: str, known: Iterable[str]) -> str:
    """Return the end of an error text that names what was probably meant; "" where nothing is alike."""
    close = nearest(name, known)
    return f"; did you mean {printable(close[0])}?" if close else ""


def hint(name: str, known: Iterable[str]) -> str:
    """Return a hint for an error text: the known name that was probably meant, or all of them."""
    names = sorted(known)
    close = nearest(name, names)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"


_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_MAX_DURATION = 36500 * 86400.0


def parse_duration(value: object) -> float:
    """Return seconds, for `"250ms"`, `"2s"`, `"5m"`, `"1h"`, `"30d"` or a number of seconds.

    Raises ValueError for anything else, negative, or above a hundred years.
    """
    seconds = math.nan
    if isinstance(value, str):
        if match := _DURATION.fullmatch(value.strip()):
            seconds = float(match[1]) * _UNITS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) <= _MAX_DURATION else math.inf
    if not 0 <= seconds <= _MAX_DURATION:
        raise ValueError('expected a duration such as "250ms", "2s", "5m", "30d", or a number of seconds')
    return seconds


def parse_text(value: object) -> str:
    """Return a non-empty text without NUL."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected a text")
    return value


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def parse_name(value: object) -> str:
    """Return the name of a mapping, a lease or a replica, which is used in keys, variables and log lines."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("expected a name of letters, digits, '.', '_' and '-', at most 63, the first no sign")
    return value


def one_of(choices: type[StrEnum]) -> Parser:
    """Return a parser for one of an enumeration's values."""

    def parse(value: object) -> StrEnum:
        try:
            return choices(str(value))
        except ValueError:
            raise ValueError(f"expected one of {', '.join(choices)}") from None

    return parse


_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_bool(value: object) -> bool:
    """Return a truth value; as text `true` or `false`."""
    text = str(value).lower() if isinstance(value, str | bool) else ""
    if text not in _YES_NO:
        raise ValueError("expected true or false")
    return _YES_NO[text]


def parse_texts(value: object, split: Callable[[str], list[str]], expected: str) -> tuple[str, ...]:
    """Return a list of texts; one text is a JSON array, or what `split` makes of it."""
    try:
        if isinstance(value, str):
            value = json.loads(value) if value.lstrip().startswith("[") else split(value)
        return tuple(parse_text(part) for part in (value if isinstance(value, list | tuple) else [None]))
    except (ValueError, RecursionError):  # RecursionError: JSON that is nested too deep
        raise ValueError(expected) from None


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
