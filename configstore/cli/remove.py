"""`rm`: tombstones, never missing keys."""

import argparse
from collections.abc import Collection

from configstore.cli.arguments import Commands, add_command, shown, typed_directory
from configstore.cli.session import RETENTION, open_tree, say, why_unreadable
from configstore.errors import ConflictError, NotThereError, RefusedError
from configstore.model.path import ROOT, StorePath, depth
from configstore.model.record import Entry, Kind
from configstore.store.values import Listing, Stored, Write


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
        doomed, nameless = _doomed(listing), [bad for bad in listing.bad if bad.key is not None]
        if not doomed and not nameless:
            raise NotThereError(f"{shown(path)}: not there")
        if _is_dir(path, listing, doomed) and not args.recursive:
            raise RefusedError(f"{shown(path)}: is a directory; -r removes it with everything in it")
        deepest_first = sorted(doomed, key=lambda at: (-depth(at), at))
        outcome = tree.commit([doomed[at] for at in deepest_first], retention=RETENTION)
    if not outcome.complete:
        raise ConflictError(_changed(path, outcome.stale, len(outcome.done)))
    if outcome.done:
        say(f"{path}: removed {len(outcome.done)} at revision {max(outcome.done.values())}")
    for bad in nameless:
        say(f"{bad.path}: {why_unreadable(bad)}")
    return NotThereError.exit_code if nameless else 0


def _doomed(listing: Listing) -> dict[StorePath, Write]:
    """Return the tombstones of all that lives, and of what is unreadable."""
    living = {at: tombstone(found) for at, found in listing.records.items() if not found.gone}
    unread = (bad for bad in listing.bad if bad.key is None)
    return living | {
        StorePath(bad.path): Write(
            path=StorePath(bad.path), entry=Entry(kind=Kind.GONE), expected=bad.mod_revision
        )
        for bad in unread
    }


def _is_dir(path: StorePath, listing: Listing, doomed: Collection[StorePath]) -> bool:
    """Tell whether a path is a directory: by its record, or because something lies below it."""
    own = listing.records.get(path)
    if own and not own.gone:
        return own.entry.kind is Kind.DIR
    return any(at != path for at in doomed) or any(bad.key is not None for bad in listing.bad)


def _changed(path: StorePath, stale: dict[StorePath, Stored | None], done: int) -> str:
    names = ", ".join(shown(at) for at in list(stale)[:3])
    already = f"{done} of its paths were removed" if done else "nothing was removed"
    return f"{shown(path)}: changed meanwhile ({names}); {already}; look again"
