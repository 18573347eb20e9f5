"""The tables of docs/settings.md, each between two marks.

The keys, what each expects, its default and its variable come from the code. The last cell of a row, and a default
that is no value in the code, such as "the system's", are written by hand and kept.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from configstore.mapping_settings import AS_IT_IS, MAPPING_PARSERS, MappingSettings
from configstore.settings import STORE_PARSERS, StoreSettings, as_variable
from sidecar.config import settings
from sidecar.config.mappings import PRESET
from tests.reference.markdown import code, table

MARK = "<!-- Made by `make reference`, the last column excepted: {} -->\n\n"
END = "\n\n<!-- until here -->"
STRANGE = ("a/../b", object())
"""Values of which each parser refuses one, with an error that says what it expects."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A setting. `known` finds it in the table as it is.

    default None: written by hand, `none` until then. must: the setting has no default and must be set.
    """

    known: str
    names: str
    expected: str
    default: str | None
    must: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of settings. `head` is that of their names."""

    head: str
    rows: tuple[Row, ...]


def tables() -> dict[str, Table]:
    """Return the tables by the name in their mark."""
    return {
        "store": Table(head="key, variable", rows=tuple(_store())),
        "mapping": Table(head="key", rows=tuple(_mapping())),
        "rest": Table(head="key, variable", rows=tuple(_rest())),
    }


def page(text: str) -> str:
    """Return docs/settings.md with its tables made again. Raises ValueError for a table without marks."""
    for name, wanted in tables().items():
        start = MARK.format(name)
        before, found, rest = text.partition(start)
        old, ended, after = rest.partition(END)
        if not found or not ended:
            raise ValueError(f"no table between {start.strip()} and {END.strip()}")
        text = f"{before}{start}{_made(wanted, old)}{END}{after}"
    return text


def undescribed(text: str) -> list[str]:
    """Return the settings whose meaning is not written yet."""
    return [cells[0] for cells in _rows(text) if len(cells) > 3 and not cells[-1]]


def _made(wanted: Table, old: str) -> str:
    written = {}
    for place, cells in enumerate(_rows(old)):
        for word in re.findall(r"`([^`]+)`", " ".join(cells[: 2 if "variable" in wanted.head else 1])):
            written.setdefault(word, (place, cells))
    last = (len(written), [""] * 3)
    ordered = sorted(wanted.rows, key=lambda row: written.get(row.known, last)[0])
    rows = []
    for row in ordered:
        cells = written.get(row.known, last)[1]
        default = row.default or cells[-2] or ("" if row.must else "none")
        rows.append([row.names, row.expected, default, cells[-1]])
    return table([wanted.head, "expected", "default", "meaning"], rows)


def _rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of a table, its head excepted."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and "---" not in cells[0] and not cells[0].startswith("key"):
            yield cells


def _store() -> Iterator[Row]:
    defaults = _defaults(StoreSettings)
    for key, parse in STORE_PARSERS.items():
        yield Row(
            known=key,
            names=f"{code(key)}<br>{code(as_variable(key))}",
            expected=_expected(parse),
            default=_default(defaults[key], parse),
        )


def _mapping() -> Iterator[Row]:
    defaults = _defaults(MappingSettings)
    for key, parse in MAPPING_PARSERS.items():
        default = _default(defaults[key], parse) if key in defaults else None
        yield Row(known=key, names=code(key), expected=_expected(parse), default=default, must=key not in defaults)


def _rest() -> Iterator[Row]:
    defaults = _defaults(settings.Config)
    keys = {name: f"{code(f'[{section}] {key}')}<br>" for (section, key), name in settings.FILE_KEYS.items()}
    for variable, name in settings.SETTING_VARIABLES.items():
        parse = settings.SETTING_PARSERS[name]
        yield Row(
            known=variable,
            names=f"{keys.get(name, '')}{code(variable)}",
            expected=_expected(parse),
            default=_default(defaults[name], parse) if name in defaults else None,
        )
    yield Row(known=PRESET, names=code(PRESET), expected="names", default=None)


def _defaults(of: type[msgspec.Struct]) -> dict[str, object]:
    """Return the defaults of those fields that have one."""
    return {
        each.name: each.default for each in msgspec.structs.fields(of) if each.default is not msgspec.NODEFAULT
    }


def _expected(parse: Callable[[object], object]) -> str:
    """Return what a parser expects, from its error text, without the examples."""
    for value in STRANGE:
        try:
            parse(value)
        except ValueError as error:
            said = re.match(r"expected (?:an? )?(.*?)(?:,? such as| of letters|: |$)", str(error))
            words = re.sub(
                r"^one of (.*)", lambda found: _choices(found[1].split(", ")), said[1] if said else str(error)
            )
            return re.sub(r'"([^"]*)"', r"`\1`", words)
    raise ValueError(f"{parse} takes anything; expected a parser that refuses what is none of its own")


def _choices(words: Iterable[str]) -> str:
    *first, last = (code(word) for word in words)
    return f"{', '.join(first)} or {last}"


def _default(value: object, parse: Callable[[object], object]) -> str | None:
    """Return a default as a file writes it; None where it is no value in the code."""
    if value is None or value == AS_IT_IS or (value == () and "argument list" in _expected(parse)):
        return None
    if value == "":
        return code("none")
    if isinstance(value, float) and "duration" in _expected(parse):
        return code(_duration(value))
    if isinstance(value, tuple) and "URL" in _expected(parse):
        return code(",".join(value))
    if isinstance(value, bool | tuple):
        return code(json.dumps(value))
    return code(str(value))


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if (seconds >= 2 * length and seconds % length == 0) or seconds == length == 1:
            return f"{seconds / length:g}{unit}"
    return f"{seconds * 1000:g}ms"
