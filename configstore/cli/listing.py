"""`ls` and `stat`: what the store has."""

import argparse

from configstore.cli.arguments import Commands, add_command, add_optional_path, add_path, flag, typed_directory
from configstore.cli.render import (
    LONG,
    Cell,
    implicit_fields,
    long_cells,
    moment_now,
    record_fields,
    table,
    write_json,
    write_line,
    write_table,
)
from configstore.cli.session import (
    is_directory,
    name_of,
    not_there,
    open_tree,
    say,
    unreadable,
    why_unreadable,
)
from configstore.model.path import (
    ROOT,
    StorePath,
    ancestors,
    is_below,
    parent,
    printable,
    relative_to,
    shell_word,
    shown,
)
from configstore.model.record import Kind
from configstore.store.values import Listing, Stored, UnreadableRecord


def add(commands: Commands) -> None:
    """Add the parsers."""
    ls = add_command(commands, "ls", _ls, "list a directory, or one path")
    add_optional_path(ls)
    flag(ls, "-l, --long", "with kind, mode, owner, size, revision and time")
    flag(ls, "-R, --recursive", "with everything below")
    flag(ls, "--all", "with the tombstones of deleted paths")
    text = "show what the store knows of one path: kind, mode, owner, revision, writer"
    one = add_command(commands, "stat", _stat, text)
    add_path(one)


def _ls(args: argparse.Namespace) -> int:
    path = typed_directory(args.path)
    with open_tree(args) as tree:
        listing = tree.list(path)
        own = listing.records.get(path)
        rows = select(listing, path, recursive=args.recursive, tombstones=args.all)
        if not rows and path != ROOT and (own is None or own.gone) and not listing.bad:
            raise not_there(tree, path)
    if own and own.entry.kind is not Kind.DIR and not rows and (args.all or not own.gone):
        rows = {path: own}
    if not rows and path != ROOT and (own is None or own.gone):
        pass  # there are only records that cannot be read
    elif args.json:
        write_json([record_fields(row) if row else implicit_fields(at) for at, row in rows.items()])
    else:
        _write_rows(rows, path, long=args.long)
    for bad in listing.bad:
        say(f"{name_of(bad)}: {why_unreadable(bad)}")
    return 1 if listing.bad else 0


def select(
    listing: Listing, directory: StorePath, *, recursive: bool, tombstones: bool
) -> dict[StorePath, Stored | None]:
    """Return what to show of a listing, sorted by path; None stands for a directory without a record."""
    found: dict[StorePath, Stored | None] = {}
    for path, stored in listing.records.items():
        if path == directory or (stored.gone and not tombstones):
            continue
        for above in ancestors(path):
            if is_below(above, directory):
                found.setdefault(above, None)
        found[path] = stored
    return {path: found[path] for path in sorted(found) if recursive or parent(path) == directory}


def _write_rows(rows: dict[StorePath, Stored | None], directory: StorePath, *, long: bool) -> None:
    now = moment_now()
    lines: list[tuple[Cell, ...]] = []
    sealed = any(stored and stored.record.seal for stored in rows.values())
    for path, stored in rows.items():
        name = shell_word(relative_to(path, directory)) if directory not in {ROOT, path} else shown(path)
        if stored is None or stored.entry.kind is Kind.DIR:
            name += "/"
        if stored and stored.entry.kind is Kind.SYMLINK and long:
            name += f" -> {printable(stored.entry.target) or '(sealed)'}"
        cells = long_cells(stored, now) if stored and long else ("dir", *"-" * (len(LONG) - 1))
        lines.append((*cells, *([_key_of(stored)] if sealed else []), name))
    if long:
        table((*LONG, *(["SEALED"] if sealed else []), "NAME"), lines, apart=True)
        return
    for *_, last in lines:
        write_line(str(last))


def _words_of_seal(found: Stored) -> str:
    seal = found.record.seal
    return f"with the key {seal.key}{'; no keyring here has it' if found.record.locked else ''}" if seal else "no"


def _key_of(stored: Stored | None) -> str:
    return stored.record.seal.key if stored and stored.record.seal else "-"


def _stat(args: argparse.Namespace) -> int:
    path = typed_directory(args.path)
    with open_tree(args) as tree:
        found = tree.look(path) if path else None
        if isinstance(found, UnreadableRecord):
            raise unreadable(found)
        if found is None and path and not is_directory(tree, path, found):
            raise not_there(tree, path)
    fields = record_fields(found) if found else implicit_fields(path)
    if args.json:
        write_json(fields)
    else:
        known = {name: printable(str(value)) for name, value in fields.items() if value is not None}
        if found:
            known["sealed"] = _words_of_seal(found)
        write_table([*(known | {"path": shown(path)}).items()])
    if found and found.gone:
        say(f"{shown(path)}: not there any more")
        return 1
    return 0
