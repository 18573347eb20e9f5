"""`conflicts` and `resolve`: the losing sides of conflicts, and a person's choice between the sides."""

import argparse
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from configstore.cli.arguments import (
    Commands,
    add_command,
    add_optional_path,
    add_path,
    option,
    typed_directory,
    typed_path,
)
from configstore.cli.render import entry_fields, moment_now, table, when, write_bytes, write_json, writer_of
from configstore.cli.replicas import mappings_holding, request, wait_for
from configstore.cli.session import commit, open_tree, refuse_below_file, say
from configstore.errors import ConflictError, NotThereError, RefusedError, UnreachableError
from configstore.model.path import StorePath, printable, shown
from configstore.model.record import Kind, tombstone
from configstore.model.replica import Take, Verb
from configstore.store.conflicts import Loser, Unread, all_sides, drop, pieces_of
from configstore.store.replicas import asking, live_reports
from configstore.store.retention import MAX_CONFLICTS
from configstore.store.tree import Tree
from configstore.store.values import Write


def add(commands: Commands) -> None:
    """Add the parsers."""
    conflicts = add_command(commands, "conflicts", _conflicts, "list the losing sides of conflicts")
    add_optional_path(conflicts)
    option(conflicts, "--show ID", "print the content of this losing side")
    conflicts.set_defaults(late="path")
    text = "end a conflict, or a vanished record, by choosing a side"
    resolve = add_command(commands, "resolve", _resolve, text)
    add_path(resolve)
    text = "store: keep the store's; ID: take that losing side; local: the replicas' file, if a record vanished"
    option(resolve, "--take store|ID|local", text, required=True)


def _conflicts(args: argparse.Namespace) -> int:
    path = typed_directory(args.path)
    with open_tree(args) as tree:
        sides = all_sides(tree, path)
        found = [each for each in sides if isinstance(each, Loser)]
        if args.show:
            shown_side = _named(sides, path, args.show)
            write_bytes(b"".join(pieces_of(tree, shown_side)))  # only when all of it is there
            return 0
    if args.json:
        write_json([{"path": each.path, "id": each.id} | entry_fields(each.record) for each in found])
    else:
        now = moment_now()
        table(("ID", "KIND", "SIZE", "CHANGED", "BY", "PATH"), [_row(each, now) for each in found], apart=True)
    unread = [each for each in sides if isinstance(each, Unread)]
    for each in unread:
        say(
            f"{shown(each.path)}: its losing side {each.id} cannot be read: {each.reason}; `configstore resolve"
            f" {shown(each.path)} --take store` removes it"
        )
    if not sides:
        say(f"{shown(path)}: no conflicts")
    for at, count in Counter(each.path for each in found).items():
        if count >= MAX_CONFLICTS:
            say(
                f"{shown(at)}: {count} losing sides, the most that are kept of a path: older ones may have been"
                " dropped, and the next one drops the oldest; `configstore resolve` ends them"
            )
    return NotThereError.exit_code if unread else 0


def _row(loser: Loser, now: datetime) -> tuple[str, ...]:
    entry, origin = loser.record.entry, loser.record.origin
    return (
        loser.id,
        str(entry.kind),
        str(entry.size),
        when(origin.time, now),
        writer_of(origin),
        shown(loser.path),
    )


def _named(found: Sequence[Loser | Unread], path: StorePath, name: str) -> Loser:
    for each in found:
        if each.id == name and isinstance(each, Unread):
            raise NotThereError(f"{shown(path)}: its losing side {name} cannot be read: {each.reason}")
        if each.id == name and isinstance(each, Loser):
            return each
    raise NotThereError(f"{shown(path)}: has no conflict {printable(name)}; `configstore conflicts` lists them")


def _resolve(args: argparse.Namespace) -> int:
    path = typed_path(args.path)
    with open_tree(args) as tree:
        found = [each for each in all_sides(tree, path) if each.path == path]
        if not found and tree.look(path) is None:
            return _end_vanished(tree, path, args)
        if not found:
            raise NotThereError(f"{shown(path)}: has no conflict")
        doomed, revision = found, None
        if args.take != "store":
            chosen = _named(found, path, args.take)
            doomed = [chosen]
            revision = take(tree, chosen)
        for each in doomed:
            drop(tree, each)
    if args.json:
        write_json(
            {"path": path, "take": args.take, "dropped": [each.id for each in doomed], "revision": revision}
        )
    say(f"{shown(path)}: {'the store stays as it is' if args.take == 'store' else 'taken'}; {len(doomed)} removed")
    return 0


def _end_vanished(tree: Tree, path: StorePath, args: argparse.Namespace) -> int:
    """Have the replicas' file written again, or write the tombstone that was never written."""
    take = args.take
    holding = mappings_holding(live_reports(tree), path)
    if not holding or take not in {"store", "local"}:
        raise NotThereError(f"{shown(path)}: has no conflict, and no live replica misses its record")
    if take == "store":
        write = Write(path=path, entry=tombstone())
        outcome = commit(tree, [write])
        if not outcome.complete:
            raise ConflictError(f"{shown(path)}: another write came first; nothing was changed; look again")
        if args.json:
            write_json({"path": path, "take": take, "dropped": [], "revision": outcome.done[path]})
        say(f"{shown(path)}: deleted")
        return 0
    requests = [
        request(args, Verb.RESUME, mapping=found.mapping, replica=found.replica, take=Take.LOCAL, path=relative)
        for found, relative in holding
    ]
    with asking(tree, *requests):
        left = wait_for(tree, [report for report, _ in holding])
    again = tree.look(path)
    if again is None:
        who = ", ".join(report.replica for report in left) or "no replica"
        raise UnreachableError(f"{shown(path)}: was not written again ({who}); look at `configstore status`")
    if args.json:
        write_json({"path": path, "take": take, "dropped": [], "revision": again.mod_revision})
    say(f"{shown(path)}: written again")
    return 0


def take(tree: Tree, loser: Loser, *, seen: int | None = None) -> int:
    """Make a losing side the current record and return its revision; what it replaces goes to `past/`.

    seen: the revision that the path must still have; None for the one that it has now. Raises ConflictError,
    StoreError.
    """
    entry = loser.record.entry
    if loser.record.locked:
        raise RefusedError(f"{shown(loser.path)}: the conflict {loser.id}: {loser.record.locked}")
    refuse_below_file(tree, loser.path)
    now = tree.look(loser.path)
    there = now.mod_revision if now else 0
    if entry.kind is not Kind.DIR and any(
        not each.gone for at, each in tree.list(loser.path).records.items() if at != loser.path
    ):
        raise ConflictError(f"{shown(loser.path)}: is a directory with something in it now; remove that first")
    content = partial(pieces_of, tree, loser) if entry.kind is Kind.FILE else None
    write = Write(path=loser.path, entry=entry, content=content, expected=there if seen is None else seen)
    outcome = commit(tree, [write])
    if not outcome.complete:
        why = "another write came first; nothing was changed; look again"
        raise ConflictError(f"{shown(loser.path)}: {why}")
    return outcome.done[loser.path]
