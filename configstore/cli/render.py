"""The output on stdout: records as JSON and as one line, tables with headers, times with their age."""

import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from itertools import chain
from typing import TypeAlias

import msgspec

from configstore.model.path import StorePath, printable, printable_json
from configstore.model.record import Entry, Kind, Origin, Record
from configstore.store.values import Stored


class Style(Enum):
    """How a cell is marked on a terminal. Its text must say the same, for pipes and NO_COLOR."""

    GOOD = "32"
    WARN = "33"
    BAD = "1;31"
    DIM = "2"
    STRONG = "1"


Cell: TypeAlias = str | tuple[str, Style]
"""The text of one cell, with or without a style. It may come from a stranger: it is escaped when it is drawn."""


def record_fields(found: Stored) -> dict[str, object]:
    """Return a record's header with its path and revision, keyed as in JSON; absent values are None."""
    return {"path": found.path, "revision": found.mod_revision} | entry_fields(found.record)


def entry_fields(record: Record) -> dict[str, object]:
    """Return a record's header, keyed as in JSON; absent values are None."""
    entry, origin = record.entry, record.origin
    has_mode = entry.kind in {Kind.FILE, Kind.DIR}
    return {
        "kind": str(entry.kind),
        "mode": f"{entry.mode:04o}" if has_mode else None,
        "uid": entry.uid,
        "gid": entry.gid,
        "user": entry.user,
        "group": entry.group,
        "size": entry.size,
        "sha256": entry.sha256 or None,
        "target": entry.target or None,
        "sealed": record.seal.key if record.seal else None,
        "write_id": origin.write_id,
        "replica": origin.replica,
        "host": origin.host,
        "time": origin.time,
        "lease": origin.lease,
        "deletion": msgspec.to_builtins(origin.deletion),
    }


def revisions_of(done: Mapping[StorePath, int]) -> list[dict[str, object]]:
    """Return paths that were written, each with its new revision, keyed as in JSON."""
    return [{"path": path, "revision": at} for path, at in done.items()]


def reasons(found: Mapping[str, str] | Mapping[StorePath, str]) -> list[dict[str, str]]:
    """Return paths and why each of them is named, keyed as in JSON."""
    return [{"path": path, "why": why} for path, why in found.items()]


def implicit_fields(path: StorePath) -> dict[str, object]:
    """Return the fields of a directory that has no record, only records below it."""
    return {"path": path, "kind": "dir", "revision": None, "implicit": True}


LONG = ("KIND", "MODE", "OWNER", "SIZE", "REVISION", "CHANGED")
"""The headers of `long_cells`."""


def long_cells(found: Stored, now: datetime) -> tuple[Cell, ...]:
    """Return the cells of a record in `ls -l` and `history`; the owner as `user:group`, or their numbers."""
    entry = found.entry
    style = Style.DIM if found.gone else None
    cells = (
        str(entry.kind),
        f"{entry.mode:04o}" if entry.kind in {Kind.FILE, Kind.DIR} else "-",
        _owner(entry),
        str(entry.size) if entry.kind is not Kind.DIR else "-",
        str(found.mod_revision),
        when(found.record.origin.time, now),
    )
    return tuple((cell, style) for cell in cells) if style else cells


def writer_of(origin: Origin) -> str:
    """Return the writer of a record as all commands show it: `replica@host`."""
    return f"{origin.replica}@{origin.host}"


def _owner(entry: Entry) -> str:
    user, group = (
        name or ("-" if number is None else str(number))
        for name, number in ((entry.user, entry.uid), (entry.group, entry.gid))
    )
    return "-" if (user, group) == ("-", "-") else f"{user}:{group}"


def write_bytes(content: bytes) -> None:
    """Write all of `content` to stdout; with PYTHONUNBUFFERED one write may take only a part."""
    sys.stdout.flush()
    rest = memoryview(content)
    while rest:
        rest = rest[sys.stdout.buffer.write(rest) :]


def write_text(text: str) -> None:
    """Write text and a line end to stdout as they are, in UTF-8 whatever the locale is."""
    write_bytes(text.encode() + b"\n")


def write_line(line: str) -> None:
    """Write one line to stdout, with its control characters except tabs escaped."""
    write_text("\t".join(map(printable, line.split("\t"))))


def write_json(value: object, *, indent: int = 2) -> None:
    """Write a value as JSON to stdout, `indent` 0 for one line; unprintable characters are escaped."""
    text = msgspec.json.encode(value)
    write_text(printable_json((msgspec.json.format(text, indent=indent) if indent else text).decode()))


def write_table(rows: Sequence[Sequence[str]]) -> None:
    """Write names with their values as a table without headers."""
    table((), rows)


INDENT = 4
"""Spaces before a column that has lines of its own."""

GAP = 2
"""Spaces between two columns."""

LEAST = 8
"""The least width of a column, unless its widest cell is narrower; a word of its header may need more."""


def table(headers: Sequence[str], rows: Sequence[Sequence[Cell]], *, apart: bool = False) -> None:
    """Write rows below their headers to stdout; nothing where there are no rows.

    On a terminal that is too narrow, cells are folded within their columns, the widest first; in a pipe a row is
    one line. apart: the last column is not folded but gets a line of its own below the others, so that names
    stay whole.
    """
    if rows:
        lines = table_lines(headers, rows, width=terminal_width(), styled=is_styled(), apart=apart)
        write_text("\n".join(lines))


def terminal_width() -> int | None:
    """Return the width of the terminal that stdout is; None for a pipe or a file."""
    if not sys.stdout.isatty():
        return None
    asked = os.environ.get("COLUMNS", "")
    if asked.isascii() and asked.isdigit() and 0 < len(asked) <= 4 and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def redraws() -> bool:
    """Tell whether stdout is a terminal on which what was drawn can be drawn over."""
    return os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"} and sys.stdout.isatty()


def is_styled() -> bool:
    """Return whether stdout is a terminal that shows colours, and NO_COLOR is not set."""
    return not os.environ.get("NO_COLOR") and redraws()


def paint(text: str, style: Style, *, styled: bool) -> str:
    """Return text with the control sequences of its style, or unchanged where `styled` is false."""
    return f"\x1b[{style.value}m{text}\x1b[0m" if styled and text else text


def table_lines(
    headers: Sequence[str], rows: Sequence[Sequence[Cell]], *, width: int | None, styled: bool, apart: bool = False
) -> Iterator[str]:
    """Yield the lines of a table, at most `width` wide; None for one line a row.

    Columns of numbers are aligned to the right.
    """
    cells = [[_escaped(cell) for cell in row] for row in rows]
    if headers:
        cells.insert(0, [(header, Style.STRONG) for header in headers])
    if width is None or _room(cells, width) >= 0:
        yield from chain.from_iterable(_drawn(cells, headers, None, styled=styled))
        return
    folded: list[_Drawn] = [[(_MOMENT.sub("\n", text), style) for text, style in row] for row in cells]
    if not apart or _room(folded, width) >= 0:
        yield from chain.from_iterable(_drawn(folded, headers, width, styled=styled))
        return
    heads = [row[:-1] for row in (cells if _room([row[:-1] for row in cells], width) >= 0 else folded)]
    for lines, row in zip(_drawn(heads, headers[:-1], width, styled=styled), cells, strict=True):
        yield from lines
        text, style = row[-1]
        for line in _folded(text, width - INDENT):
            yield " " * INDENT + (paint(line, style, styled=styled) if style else line)


_Drawn: TypeAlias = list[tuple[str, "Style | None"]]
"""The cells of a row, escaped; a line end in a cell says where to fold it."""


def _escaped(cell: Cell) -> tuple[str, Style | None]:
    return (printable(cell), None) if isinstance(cell, str) else (printable(cell[0]), cell[1])


def _widths(cells: Sequence[_Drawn]) -> list[int]:
    return [
        max(_width(line) for row in cells for line in row[column][0].split("\n"))
        for column in range(len(cells[0]))
    ]


def _room(cells: Sequence[_Drawn], width: int) -> int:
    """Return the width that a table leaves free; below 0, by how much it is too wide."""
    widths = _widths(cells)
    return width - sum(widths) - GAP * (len(widths) - 1)


def _drawn(
    cells: Sequence[_Drawn], headers: Sequence[str], width: int | None, *, styled: bool
) -> Iterator[list[str]]:
    """Yield the lines of each row, folded to a width; None for no folding."""
    columns = range(len(cells[0]))
    body = cells[1 if headers else 0 :]
    right = [all(_NUMBER.fullmatch(row[column][0]) for row in body) for column in columns]
    widths = _widths(cells)
    if width is not None:
        _narrow(widths, width - GAP * (len(widths) - 1), headers)
    for row in cells:
        parts = [_folded(row[column][0], widths[column]) for column in columns]
        lines = []
        for number in range(max(map(len, parts))):
            line = ""
            for column in columns:
                text = parts[column][number] if number < len(parts[column]) else ""
                space = " " * (widths[column] - _width(text))
                style = row[column][1]
                marked = paint(text, style, styled=styled) if style else text
                line += (space + marked if right[column] else marked + space) + " " * GAP
            lines.append(line.rstrip())
        yield lines


_NUMBER = re.compile(r"[0-9]*|-")
_MOMENT = re.compile(r"(?<=[0-9]Z) (?=\([^()]+\)$)")
"""Where the text of `when` is folded first: before the age."""


def _narrow(widths: list[int], room: int, headers: Sequence[str]) -> None:
    """Make the widest columns narrower until the table fits, none narrower than its least width."""
    words = [header.split() or [""] for header in headers] or [[""]] * len(widths)
    least = [min(width, max(LEAST, *map(len, parts))) for width, parts in zip(widths, words, strict=True)]
    while sum(widths) > room:
        wide = [column for column in range(len(widths)) if widths[column] > least[column]]
        if not wide:
            return
        widest = max(wide, key=lambda column: (widths[column], column))
        others = [widths[column] for column in wide if widths[column] < widths[widest]]
        excess = sum(widths) - room
        widths[widest] = max(least[widest], min(widths[widest] - 1, max(widths[widest] - excess, *others, 0)))


def _width(text: str) -> int:
    """Return the width of printable text on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def _folded(text: str, width: int) -> list[str]:
    """Return text in lines of at most `width` columns, folded after a space or a slash where possible."""
    lines = []
    for whole in text.split("\n"):
        rest = whole
        while _width(rest) > width:
            fits = taken = 0
            for char in rest:
                taken += _char_width(char)
                if taken > width:
                    break
                fits += 1
            fits = max(fits, 1)
            end = fits if rest[fits] == " " else max(rest.rfind(" ", 0, fits), rest.rfind("/", 0, fits)) + 1
            end = end if end > width // 3 else fits
            lines.append(rest[:end].rstrip())
            rest = rest[end:].lstrip(" ")
        lines.append(rest)
    return lines


def moment_now() -> datetime:
    """Return the time from which ages are counted."""
    return datetime.now(UTC)


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def when(time: str | datetime, now: datetime) -> str:
    """Return a time as all commands show it, in UTC with its age: `2026-11-29 02:30:12Z (3 min ago)`.

    time: may be text from a record, which is returned escaped where it is not RFC 3339.
    """
    try:
        at = datetime.fromisoformat(time) if isinstance(time, str) else time
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return printable(str(time)) or "-"
    return f"{at:%Y-%m-%d %H:%M:%S}Z ({_age((now - at).total_seconds())})"


def _age(seconds: float) -> str:
    for size, unit in _UNITS:
        if abs(seconds) >= size:
            long = f"{int(abs(seconds) // size)} {unit}"
            return f"{long} ago" if seconds > 0 else f"in {long}"
    return "now"
