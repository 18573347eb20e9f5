"""How records look on stdout: as JSON, as a table, as one line."""

import sys
from collections.abc import Sequence

import msgspec

from configstore.model.path import StorePath, printable, printable_json
from configstore.model.record import Kind, Record
from configstore.store.values import Stored


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
        "write_id": origin.write_id,
        "replica": origin.replica,
        "host": origin.host,
        "time": origin.time,
        "lease": origin.lease,
        "deletion": msgspec.to_builtins(origin.deletion),
    }


def implicit_fields(path: StorePath) -> dict[str, object]:
    """Return the same for a directory that exists only because something lies in it."""
    return {"path": path, "kind": "dir", "revision": None, "implicit": True}


def long_row(found: Stored, name: str) -> tuple[str, ...]:
    """Return the cells of `ls -l`: kind, mode, owner, group, size, revision, time, name."""
    entry = found.entry
    mode = f"{entry.mode:04o}" if entry.kind in {Kind.FILE, Kind.DIR} else "-"
    return (
        str(entry.kind),
        mode,
        _who(entry.user, entry.uid),
        _who(entry.group, entry.gid),
        str(entry.size),
        str(found.mod_revision),
        printable(found.record.origin.time) or "-",
        name,
    )


def _who(name: str | None, number: int | None) -> str:
    if name:
        return printable(name)
    return "-" if number is None else str(number)


def write_bytes(content: bytes) -> None:
    """Write all of `content` to stdout; unbuffered (PYTHONUNBUFFERED) one write may take only a part."""
    sys.stdout.flush()
    rest = memoryview(content)
    while rest:
        rest = rest[sys.stdout.buffer.write(rest) :]


def write_text(text: str) -> None:
    """Write text of our own to stdout, in UTF-8 whatever the locale says, and a line end."""
    write_bytes(text.encode() + b"\n")


def write_line(line: str) -> None:
    """Write one line to stdout; whatever a stranger put into it is escaped, but for tabs."""
    write_text("\t".join(map(printable, line.split("\t"))))


def write_json(value: object, *, indent: int = 2) -> None:
    """Write a value as JSON to stdout; `indent` 0 for one line. The unprintable is escaped."""
    text = msgspec.json.encode(value)
    write_text(printable_json((msgspec.json.format(text, indent=indent) if indent else text).decode()))


def write_table(rows: Sequence[Sequence[str]]) -> None:
    """Write rows with aligned columns, their cells escaped; the last column is not padded."""
    if not rows:
        return
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        write_line("  ".join([*cells, row[-1]]))
