"""`rm`: tombstones, never missing keys."""

import argparse

from configstore.cli.arguments import Commands, add_command, shown, typed_directory
from configstore.cli.session import RETENTION, open_tree, say, unreadable
from configstore.errors import ConflictError, NotThereError, RefusedError
from configstore.model.path import ROOT, StorePath, depth
from configstore.model.record import Entry, Kind
from configstore.store.values import Stored, Write


def add(commands: Commands) -> None:
    """Add the parser."""
    rm = add_command(commands, "rm", _rm, "delete a path; every replica deletes it, too")
    rm.add_argument("path", metavar="PATH")
    rm.add_argument("-r", "--recursive", action="store_true", help="a directory with everything in it")


def tombstone(found: Stored) -> Write:
    """Return the write that deletes what was found, provided that it did not change meanwhile."""
    entry = Entry(kind=Kind.GONE, size=found.entry.size, sha256=found.entry.sha256)
    return Write(path=found.path, entry=entry, expected=found.mod_revision)


def _rm(args: argparse.Namespace) -> int:
    path = typed_directory(args.path)
    if path == ROOT:
        raise RefusedError("/: the whole tree is never removed; name a path below it")
    with open_tree(args) as tree:
        listing = tree.list(path)
        if listing.bad:
            raise unreadable(listing.bad[0])
        living = {at: found for at, found in listing.records.items() if not found.gone}
        if not living:
            raise NotThereError(f"{shown(path)}: not there")
        is_dir = path not in living or living[path].entry.kind is Kind.DIR
        if is_dir and not args.recursive:
            raise RefusedError(f"{shown(path)}: is a directory; -r removes it with everything in it")
        deepest_first = sorted(living, key=lambda at: (-depth(at), at))
        outcome = tree.commit([tombstone(living[at]) for at in deepest_first], retention=RETENTION)
    if not outcome.complete:
        raise ConflictError(_changed(path, outcome.stale, len(outcome.done)))
    say(f"{path}: removed {len(outcome.done)} at revision {max(outcome.done.values())}")
    return 0


def _changed(path: StorePath, stale: dict[StorePath, Stored | None], done: int) -> str:
    names = ", ".join(shown(at) for at in list(stale)[:3])
    already = f"{done} of its paths were removed" if done else "nothing was removed"
    return f"{shown(path)}: changed meanwhile ({names}); {already}; look again"
