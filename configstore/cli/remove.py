"""`rm`: deletes by tombstones, never by deleting keys."""

import argparse
from collections.abc import Collection, Iterator, Mapping
from functools import partial

import msgspec

from configstore import presets
from configstore.cli.arguments import Commands, add_command, add_path, flag, typed_directory
from configstore.cli.render import revisions_of, write_json
from configstore.cli.session import (
    commit,
    confirms,
    is_interactive,
    name_of,
    not_there,
    open_tree,
    say,
    why_unreadable,
)
from configstore.errors import ConflictError, NotThereError, RefusedError
from configstore.model.path import ROOT, StorePath, depth, first_component, is_below, shown
from configstore.model.record import Deletion, Kind, placing_order, tombstone
from configstore.progress import Progress
from configstore.settings import MAX_DELETE
from configstore.store.tree import Tree
from configstore.store.values import Listing, Outcome, Write

FREE_DELETES = 10
"""Paths that are removed without a question, as many as every sidecar deletes without one."""


def add(commands: Commands) -> None:
    """Add the parser."""
    rm = add_command(commands, "rm", _rm, "delete a path; every replica deletes it, too")
    add_path(rm)
    flag(rm, "-r, --recursive", "a directory with everything in it")
    flag(rm, "--yes", "do not ask before more than half of a subtree is deleted")


def _rm(args: argparse.Namespace) -> int:
    path = typed_directory(args.path)
    if path == ROOT:
        raise RefusedError("/: the whole tree is never removed; name a path below it")
    with open_tree(args) as tree:
        listing = tree.list(path)
        doomed, nameless = _doomed(listing), [bad for bad in listing.bad if bad.key is not None]
        if not doomed and not nameless:
            raise not_there(tree, path)
        if _is_dir(path, listing, doomed) and not args.recursive:
            raise RefusedError(f"{shown(path)}: is a directory; -r removes it with everything in it")
        if not args.yes and len(doomed) > FREE_DELETES:
            _ask(path, doomed, _doomed(tree.list(first_component(path))))
        with Progress("removed", len(doomed)) as progress:
            outcome = commit(tree, _tombstones(tree, doomed), verb="removed", step=progress.step)
    if not outcome.complete:
        raise ConflictError(_changed(path, outcome, len(doomed)))
    if args.json:
        write_json({"removed": revisions_of(outcome.done)})
    if outcome.done:
        say(f"{shown(path)}: removed {len(outcome.done)} at revision {max(outcome.done.values())}")
    for bad in nameless:
        say(f"{name_of(bad)}: {why_unreadable(bad)}")
    return NotThereError.exit_code if nameless else 0


def _doomed(listing: Listing) -> dict[StorePath, Write]:
    """Return the tombstones of all records, unreadable ones too; each is for the revision that was read."""
    living = {
        at: Write(
            path=at,
            entry=tombstone(found.entry),
            expected=found.mod_revision,
        )
        for at, found in listing.records.items()
        if not found.gone
    }
    unread = (bad for bad in listing.bad if bad.key is None)
    return living | {
        StorePath(bad.path): Write(path=StorePath(bad.path), entry=tombstone(), expected=bad.mod_revision)
        for bad in unread
    }


def _tombstones(tree: Tree, doomed: Mapping[StorePath, Write]) -> list[Write]:
    """Return the writes, the deepest first, as parts of one deletion.

    The deletion is confirmed: a person typed the path and was asked where it is large, so no replica asks again.
    """
    deletion = Deletion(id=tree.new_write_id(), count=len(doomed), confirmed=True)
    deepest_first = sorted(doomed, key=partial(placing_order, kind=Kind.GONE))
    return [msgspec.structs.replace(doomed[at], set=1, deletion=deletion) for at in deepest_first]


def _is_dir(path: StorePath, listing: Listing, doomed: Collection[StorePath]) -> bool:
    """Return whether a path is a directory: by its record, or because there is a record below it."""
    own = listing.records.get(path)
    if own and not own.gone:
        return own.entry.kind is Kind.DIR
    return any(at != path for at in doomed) or any(bad.key is not None for bad in listing.bad)


def _ask(path: StorePath, doomed: Collection[StorePath], living: Collection[StorePath]) -> None:
    """Ask a person before more than half of a subtree is deleted. Raises RefusedError where nobody says yes."""
    for subtree in _subtrees(path):
        going = _count(doomed, subtree)
        there = max(going, _count(living, subtree))
        if going <= FREE_DELETES or going <= MAX_DELETE * there:
            continue
        much = (
            f"{shown(path)}: {len(doomed)} paths would be removed, among them {going} of the {there} of {subtree}"
        )
        if not is_interactive():
            raise RefusedError(f"{much}; nothing was removed: `--yes` removes them")
        say(f"{much}; every replica deletes them, too")
        if not confirms("Remove them?"):
            raise RefusedError(f"{shown(path)}: nothing was removed")
        return


def _subtrees(path: StorePath) -> Iterator[StorePath]:
    """Yield the subtrees that a mapping is likely to have at, above or below a path, the largest first."""
    roots = {root for name in presets.names() if "/" not in name for root in presets.roots(name)}
    touched = {root for root in roots if root == path or is_below(root, path) or is_below(path, root)}
    yield from sorted({first_component(path), *touched}, key=lambda root: (depth(root), root))


def _count(paths: Collection[StorePath], subtree: StorePath) -> int:
    return sum(at == subtree or is_below(at, subtree) for at in paths)


def _changed(path: StorePath, outcome: Outcome, count: int) -> str:
    names = ", ".join(shown(at) for at in list(outcome.stale)[:3])
    done = len(outcome.done)
    already = f"{done} of {count} paths were removed" if done else "nothing was removed"
    return f"{shown(path)}: changed meanwhile ({names}); {already}; look again"
