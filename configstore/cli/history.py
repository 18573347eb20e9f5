"""`history`, `diff` and `restore`: the versions of a path, and going back to one."""

import argparse
import difflib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from configstore.cli.arguments import (
    Commands,
    add_command,
    add_path,
    flag,
    option,
    revision,
    typed_directory,
    typed_record,
)
from configstore.cli.render import (
    LONG,
    Style,
    long_cells,
    moment_now,
    record_fields,
    table,
    write_json,
    write_line,
    writer_of,
)
from configstore.cli.session import commit, nearest_path, open_tree, say, why_unreadable
from configstore.errors import ConflictError, NotThereError, RefusedError
from configstore.model.path import ROOT, StorePath, shown
from configstore.model.record import Deletion, Kind
from configstore.parsing import parse_duration
from configstore.progress import Progress
from configstore.store.history import ExpiredError, Versions, restoring, revision_at, versions, versions_below
from configstore.store.tree import Tree
from configstore.store.values import Stored, UnreadableRecord, Write


def add(commands: Commands) -> None:
    """Add the parsers."""
    history = add_command(commands, "history", _history, "list the versions of a path, the newest first")
    add_path(history)
    text = "show how a file differs from an earlier version; exit code 1 when it does"
    diff = add_command(commands, "diff", _diff, text)
    add_path(diff)
    text = "compare with store revision REV (default: the version before)"
    diff.add_argument("rev", metavar="REV", nargs="?", type=revision, help=text)
    diff.set_defaults(late="rev")
    restore = add_command(commands, "restore", _restore, "restore an earlier version of a path or a directory")
    add_path(restore)
    when = restore.add_mutually_exclusive_group(required=True)
    option(when, "--revision N", "as of store revision N", type=revision)
    option(when, "--at TIME", "as of a time such as 2026-11-24T03:00Z, or an age such as 2h or 7d", type=moment)
    flag(restore, "-r, --recursive", "a directory with everything in it")
    flag(restore, "-n, --dry-run", "only say what would be done")


def moment(text: str) -> datetime:
    """Read a point in time: RFC 3339, without a zone in UTC, or an age such as 2h; an argparse type."""
    try:
        if re.fullmatch(r"[0-9.]+(ms|s|m|h|d)", text):
            return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "expected a time such as 2026-11-24T03:00Z, or an age such as 2h"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _history(args: argparse.Namespace) -> int:
    path = typed_record(args.path)
    with open_tree(args) as tree:
        found = _known(tree, path)
    newest_first = [each for each in reversed(found.writes) if isinstance(each, Stored)]
    if args.json:
        write_json([record_fields(each) | {"current": each is found.now()} for each in newest_first])
    else:
        now = moment_now()
        table(
            (*LONG, "BY", "STATE"),
            [
                (
                    *long_cells(each, now),
                    writer_of(each.record.origin),
                    ("current", Style.GOOD) if each is found.now() else "past",
                )
                for each in newest_first
            ],
        )
    unread = [each for each in found.known if isinstance(each, UnreadableRecord)]
    for bad in unread:
        say(f"{shown(bad.path)}: unreadable record at revision {bad.mod_revision}: {bad.reason}")
    return 1 if unread else 0


def _diff(args: argparse.Namespace) -> int:
    path = typed_record(args.path)
    with open_tree(args) as tree:
        found = _known(tree, path)
        wanted = args.rev or (found.began(found.known[-1]) - 1 if found.current else found.newest)
        try:
            before, now = found.at(wanted), found.at(found.current) if found.current else None
        except ExpiredError as error:
            raise NotThereError(str(error)) from None
        difference = compared(tree, path, before, now)
    if args.json:
        revisions = [each.mod_revision if each else None for each in (before, now)]
        write_json({"path": path, "before": revisions[0], "now": revisions[1], "lines": difference})
        return 1 if difference else 0
    for line in difference:
        write_line(line)
    return 1 if difference else 0


def compared(tree: Tree, path: StorePath, old: Stored | None, new: Stored | None) -> list[str]:
    """Return the lines in which two versions of a path differ, as `diff -u` has them. Raises StoreError."""
    was, is_now = (f"{shown(path)}@{each.mod_revision if each else 'nothing'}" for each in (old, new))
    before, now = _lines(tree, old), _lines(tree, new)
    if before == now and old and new and not old.entry.same_content(new.entry):
        now[-1] += ", other content"  # binary and sealed
    return list(difflib.unified_diff(before, now, was, is_now, lineterm=""))


def _restore(args: argparse.Namespace) -> int:
    path = typed_directory(args.path)
    with open_tree(args) as tree:
        found = versions_below(tree, path) if args.recursive else only_one(tree, path)
        if not found:
            raise NotThereError(f"{shown(path)}: nothing is known of it{_meant(tree, path)}")
        timeless = [
            now for now in (each.now() for each in found.values()) if args.at and isinstance(now, UnreadableRecord)
        ]
        for now in timeless:  # a record that cannot be read has no time
            say(f"{shown(now.path)}: stays as it is: {why_unreadable(now)}")
            del found[StorePath(now.path)]
        wanted = args.revision or revision_at(found, args.at)
        if not wanted:
            raise NotThereError(f"{shown(path)}: nothing is known of it at that time")
        try:
            writes = as_one_deletion(tree, list(restoring(tree, found, wanted)))
        except ExpiredError as error:
            raise NotThereError(f"{error}; nothing was changed") from None
        done = {} if args.dry_run or not writes else carry_out(tree, path, writes)
    if args.json:
        changed = [
            {
                "path": write.path,
                "what": "deleted" if write.entry.kind is Kind.GONE else "restored",
                "revision": done.get(write.path),
            }
            for write in writes
        ]
        write_json(
            {"dry_run": args.dry_run, "as_of": wanted, "changed": changed, "unread": [*map(_path, timeless)]}
        )
    for write in writes:
        word = "would be" if args.dry_run else "was"
        what = "deleted" if write.entry.kind is Kind.GONE else f"restored as of revision {wanted}"
        say(f"{shown(write.path)}: {word} {what}")
    if not writes:
        say(f"{shown(path)}: is what it was at revision {wanted}; nothing to do")
    return NotThereError.exit_code if timeless else 0


def as_one_deletion(tree: Tree, writes: Sequence[Write]) -> list[Write]:
    """Return the writes with all tombstones among them as parts of one deletion: replicas judge it as a whole."""
    count = sum(write.entry.kind is Kind.GONE for write in writes)
    deletion = Deletion(id=tree.new_write_id(), count=count)
    return [
        msgspec.structs.replace(write, deletion=deletion) if write.entry.kind is Kind.GONE else write
        for write in writes
    ]


def _path(bad: UnreadableRecord) -> str:
    return bad.path


def carry_out(tree: Tree, path: StorePath, writes: Sequence[Write]) -> dict[StorePath, int]:
    """Make the writes of a restore, or none when something changed meanwhile; return their revisions.

    Raises ConflictError, StoreError.
    """
    with Progress("restored", len(writes)) as progress:
        outcome = commit(tree, writes, verb="restored", step=progress.step)
    if not outcome.complete:
        changed = ", ".join(map(shown, outcome.stale))
        already = f"{len(outcome.done)} of {len(writes)} were restored" if outcome.done else "nothing was restored"
        raise ConflictError(f"{shown(path)}: changed meanwhile ({changed}); {already}; look again")
    return outcome.done


def _known(tree: Tree, path: StorePath) -> Versions:
    found = versions(tree, path)
    if found is None:
        raise NotThereError(f"{shown(path)}: was never there{_meant(tree, path)}")
    return found


def _meant(tree: Tree, path: StorePath) -> str:
    near = nearest_path(tree, path) if path else None
    return f"; did you mean {shown(near)}?" if near else ""


def only_one(tree: Tree, path: StorePath) -> dict[StorePath, Versions]:
    """Return what is known of one path that is no directory with something in it.

    Raises NotThereError, RefusedError, StoreError.
    """
    if path == ROOT:
        raise RefusedError("/: -r restores everything")
    found = _known(tree, path)
    kinds = {each.entry.kind for each in found.known if isinstance(each, Stored)}
    if Kind.DIR in kinds and any(not each.gone for each in tree.list(path).records.values() if each.path != path):
        raise RefusedError(f"{shown(path)}: is, or was, a directory; -r restores it with everything in it")
    return {path: found}


def _lines(tree: Tree, found: Stored | None) -> list[str]:
    """Return a record as lines: what it is, then its text, or what can be said of it."""
    if found is None or found.gone:
        return []
    fields = record_fields(found)
    lines = [f"{name}: {fields[name]}" for name in _COMPARED if fields[name] is not None]
    if found.entry.kind is Kind.FILE:
        try:
            lines += tree.content(found).decode().splitlines()
        except UnicodeDecodeError:
            lines.append(f"binary, {found.entry.size} bytes{_digest(found)}")
    return lines


def _digest(found: Stored) -> str:
    """Return the digest by which binary content differs, or nothing for sealed content, whose digest is secret."""
    return "" if found.record.seal else f", SHA-256 {found.entry.sha256}"


_COMPARED = ("kind", "mode", "uid", "gid", "target")
