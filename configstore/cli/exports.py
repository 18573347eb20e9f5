"""`export`: a tree of the store to a local folder, such as back to a plain /mailu."""

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from configstore.cli.arguments import shown, typed_directory
from configstore.cli.render import write_json, write_line
from configstore.cli.session import open_tree, say
from configstore.errors import CorruptError, NotThereError, RefusedError
from configstore.files.beneath import Beneath
from configstore.files.reader import Reader, words
from configstore.files.reading import UnstableError, Unusable
from configstore.files.walk import DIRECTORY
from configstore.files.writing import TreeWriter
from configstore.model.path import ROOT, StorePath, depth, is_below, join, parent, printable, relative_to
from configstore.model.record import Entry, Kind
from configstore.model.selection import Symlinks
from configstore.presets.single_host import Part, parts
from configstore.store.tree import Tree
from configstore.store.values import Listing, Stored

_ORDER = {Kind.DIR: 0, Kind.FILE: 1, Kind.SYMLINK: 2}


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One path to be written, relative to the folder: its record, and the mode of directories without one."""

    found: Stored
    dir_mode: int


class _Done(msgspec.Struct, kw_only=True):
    """What was done: paths written, how many were the same, problems by path."""

    written: list[StorePath] = []
    same: int = 0
    problems: dict[str, str] = {}


def run(args: argparse.Namespace) -> int:
    """Run `export` and return its exit code."""
    top = typed_directory(args.path)
    wanted = parts(args.preset, top) if args.preset else (Part(store=top),)
    with open_tree(args) as tree:
        listed = tree.list(top)
        _check(top, listed)
        paths = _choose(listed, [part for part in wanted if not part.earlier])
        done = _write(tree, args.directory, paths, dry_run=args.dry_run)
    for bad in listed.bad:
        done.problems[bad.path] = f"unreadable record at revision {bad.mod_revision}: {bad.reason}"
    taken = {each.found.path for each in paths.values()} | {
        store for part in wanted for _, store in part.directories()
    }
    left = sorted(path for path, found in listed.records.items() if not found.gone and path not in taken)
    _report(args, done, left)
    return NotThereError.exit_code if done.problems else 0


def _check(top: StorePath, listed: Listing) -> None:
    own = listed.records.get(top)
    if own and not own.gone and own.entry.kind is not Kind.DIR:
        raise RefusedError(f"{shown(top)}: is a {own.entry.kind}; `configstore get {top} -o FILE` writes a file")
    if all(found.gone for found in listed.records.values()) and not listed.bad:
        raise NotThereError(f"{shown(top)}: not there")


def _choose(listed: Listing, wanted: Sequence[Part]) -> dict[StorePath, _Wanted]:
    """Return what is written, by path relative to the folder: directories, then files, then links."""
    found: dict[StorePath, _Wanted] = {}
    for part in wanted:
        for host, store in part.directories():
            record = listed.records.get(store)
            if record and not record.gone and host:
                found.setdefault(host, _Wanted(found=record, dir_mode=part.dir_mode))
        for path, record in listed.records.items():
            relative = relative_to(path, part.store) if is_below(path, part.store) else ROOT
            if not relative or record.gone:
                continue
            if part.selection.selects(relative, is_dir=record.entry.kind is Kind.DIR):
                found[join(part.host, relative)] = _Wanted(found=record, dir_mode=part.dir_mode)
    order = {path: (_ORDER[each.found.entry.kind], depth(path), path) for path, each in found.items()}
    return {path: found[path] for path in sorted(found, key=order.__getitem__)}


def _write(tree: Tree, directory: str, paths: Mapping[StorePath, _Wanted], *, dry_run: bool) -> _Done:
    done = _Done()
    if not dry_run:
        with suppress(FileExistsError):
            os.mkdir(directory, 0o755)
    try:
        folder = os.open(directory, DIRECTORY)
    except FileNotFoundError:
        if not dry_run:
            raise
        done.written = list(paths)
        return done
    except NotADirectoryError:
        raise RefusedError(f"{printable(directory)}: is no directory") from None
    try:
        writer = TreeWriter(folder, owners=os.geteuid() == 0)
        reader = Reader(Beneath(folder), Symlinks.PRESERVE)
        for path, wanted in paths.items():
            try:
                entry = wanted.found.entry
                if _there(folder, reader, path, entry):
                    done.same += 1
                    continue
                if not dry_run:
                    content = tree.content(wanted.found)
                    writer.write(path, entry, content, dir_mode=wanted.dir_mode)
                done.written.append(path)
            except (Unusable, CorruptError, OSError) as error:
                done.problems[printable(path)] = _reason(error)
        writer.finish()
    finally:
        os.close(folder)
    return done


def _there(folder: int, reader: Reader, path: StorePath, entry: Entry) -> bool:
    """Tell whether a path of the folder is what it shall be already."""
    try:
        above = Beneath(folder).open(parent(path), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        name = path.rpartition("/")[2]
        found, _ = reader.read(path, above, name, os.stat(name, dir_fd=above, follow_symlinks=False))
    except (Unusable, UnstableError, OSError):
        return False
    finally:
        os.close(above)
    owners = (found.uid, found.gid) if os.geteuid() == 0 else (None, None)
    wanted = tuple(
        None if have is None else want for have, want in zip(owners, (entry.uid, entry.gid), strict=True)
    )
    unnamed = {"user": None, "group": None}
    return msgspec.structs.replace(found, uid=owners[0], gid=owners[1], **unnamed) == msgspec.structs.replace(
        entry, uid=wanted[0], gid=wanted[1], **unnamed
    )


def _reason(error: Exception) -> str:
    if isinstance(error, FileExistsError | IsADirectoryError | NotADirectoryError):
        return "something of another kind lies there: move it away"
    return words(error) if isinstance(error, OSError) else str(error)


def _report(args: argparse.Namespace, done: _Done, left: Sequence[StorePath]) -> None:
    if args.json:
        write_json(
            {
                "dry_run": args.dry_run,
                "written": done.written,
                "same": done.same,
                "problems": [{"path": path, "why": why} for path, why in done.problems.items()],
                "left": left,
            }
        )
    else:
        for path in done.written if args.dry_run else ():
            write_line(f"write {printable(path)}")
        for path in left:
            say(f"left in the store: {path}: not among what the preset names")
        verb = "would be written" if args.dry_run else "written"
        say(f"{len(done.written)} {verb} to {args.directory}; the same already: {done.same}")
    for at, why in done.problems.items():
        say(f"{at}: {why}")
    if os.geteuid() != 0 and not args.dry_run:
        say("owners were not set, which only root can")
