"""`export`: copies a directory of the store into a local folder, such as back to a plain /mailu."""

import argparse
import errno
import os
import stat
from collections.abc import Mapping, Sequence

import msgspec

from configstore import presets
from configstore.cli.arguments import typed_directory
from configstore.cli.render import reasons, write_json, write_line
from configstore.cli.session import not_there, open_tree, say, say_all, why_unreadable
from configstore.errors import CorruptError, NotThereError, RefusedError
from configstore.files.beneath import Beneath
from configstore.files.descent import descend, open_parent
from configstore.files.reader import Reader
from configstore.files.reading import UnstableError, Unusable
from configstore.files.reasons import why_failed
from configstore.files.writing import TreeWriter
from configstore.model.path import (
    ROOT,
    StorePath,
    basename,
    is_below,
    join,
    parent,
    printable,
    relative_to,
    shown,
)
from configstore.model.record import Entry, Kind, placing_order, tombstone
from configstore.model.selection import Symlinks
from configstore.presets.single_host import DataSet, data_sets
from configstore.progress import Progress
from configstore.store.tree import Tree
from configstore.store.values import Listing, Stored


class _Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A path to write: its record, and the mode of directories above it that have no record."""

    found: Stored
    dir_mode: int


class _Done(msgspec.Struct, kw_only=True):
    """The result: the paths written, the number of those that were the same already, problems by path."""

    written: list[StorePath] = []
    same: int = 0
    problems: dict[str, str] = {}


def run(args: argparse.Namespace) -> int:
    """Run `export` and return its exit code."""
    top = typed_directory(args.path)
    wanted = data_sets(args.preset, top) if args.preset else (DataSet(store=top),)
    with open_tree(args) as tree:
        listed = tree.list(top)
        _check(tree, top, listed)
        paths = _choose(listed, [part for part in wanted if not part.earlier])
        _refuse_locked(paths)
        done = _write(tree, args.directory, paths, dry_run=args.dry_run)
    for bad in listed.bad:
        if any(is_below(StorePath(bad.path), part.store) or bad.path == part.store for part in wanted):
            done.problems[bad.path] = why_unreadable(bad)
    taken = {each.found.path for each in paths.values()} | {
        store for part in wanted for _, store in part.directories()
    }
    rest = sorted(path for path, found in listed.records.items() if not found.gone and path not in taken)
    _report(args, done, _why_left(rest, args.preset, top))
    return NotThereError.exit_code if done.problems else 0


def _check(tree: Tree, top: StorePath, listed: Listing) -> None:
    own = listed.records.get(top)
    if own and not own.gone and own.entry.kind is not Kind.DIR:
        raise RefusedError(f"{shown(top)}: is a {own.entry.kind}; `configstore get {top} -o FILE` writes a file")
    if all(found.gone for found in listed.records.values()) and not listed.bad:
        raise not_there(tree, top)


def _choose(listed: Listing, wanted: Sequence[DataSet]) -> dict[StorePath, _Exported]:
    """Return the records to write by path in the folder: directories, then files, then links."""
    found: dict[StorePath, _Exported] = {}
    for part in wanted:
        for host, store in part.directories():
            record = listed.records.get(store)
            if record and not record.gone:
                found.setdefault(host, _Exported(found=record, dir_mode=part.dir_mode))
        for path, record in listed.records.items():
            relative = relative_to(path, part.store) if is_below(path, part.store) else ROOT
            if not relative or record.gone:
                continue
            if part.selection.selects(relative, is_dir=record.entry.kind is Kind.DIR):
                found[join(part.host, relative)] = _Exported(found=record, dir_mode=part.dir_mode)
    return dict(sorted(found.items(), key=lambda item: placing_order(item[0], item[1].found.entry.kind)))


def _refuse_locked(paths: Mapping[StorePath, _Exported]) -> None:
    """Raise RefusedError, before anything is written, for a sealed record that no keyring here opens."""
    locked = [each.found for each in paths.values() if each.found.record.locked]
    if locked:
        more = f" (and {len(locked) - 1} more)" if len(locked) > 1 else ""
        raise RefusedError(f"{shown(locked[0].path)}{more}: {locked[0].record.locked}; nothing was written")


def _write(tree: Tree, directory: str, paths: Mapping[StorePath, _Exported], *, dry_run: bool) -> _Done:
    """Write the paths that are not the same already; return the result.

    Only a folder that is made here gets owner and mode: those of the exported directory, or 0700 where that has no
    record (`/`, a preset), so that no other user can read a backup.
    """
    made = not dry_run and _make(directory)
    try:
        folder = descend(directory)
    except FileNotFoundError:
        return _Done(written=list(paths))
    except NotADirectoryError:
        raise RefusedError(f"{printable(directory)}: is not a directory") from None
    own = paths[ROOT].found.entry if ROOT in paths else Entry(kind=Kind.DIR, mode=0o700)
    rest = {path: wanted for path, wanted in paths.items() if path}
    writer = TreeWriter(folder, owners=os.geteuid() == 0)
    done = _Done()
    try:
        with Progress("looked at" if dry_run else "exported", len(rest)) as progress:
            _write_all(tree, _Target(folder), None if dry_run else writer, rest, done, progress=progress)
    finally:
        if made:
            writer.write(ROOT, own, b"")
        done.problems |= {shown(path): _reason(error) for path, error in writer.finish().items()}
        os.close(folder)
    return done


def _make(directory: str) -> bool:
    above, name = open_parent(directory)
    try:
        os.mkdir(name, 0o700, dir_fd=above)
    except FileExistsError:
        return False
    finally:
        os.close(above)
    return True


def _write_all(
    tree: Tree,
    target: "_Target",
    writer: TreeWriter | None,
    paths: Mapping[StorePath, _Exported],
    done: _Done,
    *,
    progress: Progress,
) -> None:
    for path, wanted in paths.items():
        progress.step()
        entry = wanted.found.entry
        try:
            if target.holds(path, entry):
                done.same += 1
                continue
            if writer:
                writer.write(path, entry, tree.content(wanted.found), dir_mode=wanted.dir_mode)
            done.written.append(path)
        except (Unusable, CorruptError, OSError) as error:
            done.problems[shown(path)] = _reason(error)


class _Target:
    """What the folder has before it is written to."""

    def __init__(self, folder: int) -> None:
        self._beneath = Beneath(folder)
        self._reader = Reader(self._beneath, Symlinks.PRESERVE, linked=True)
        self._owners = os.geteuid() == 0

    def holds(self, path: StorePath, entry: Entry) -> bool:
        """Return whether a path is the same as the entry already.

        Raises Unusable for a path of another kind, which is not replaced, and OSError where it cannot be reached.
        """
        name = basename(path)
        try:
            above = self._beneath.open(parent(path), os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
            is_dir, is_file = stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode)
            if is_dir is not (entry.kind is Kind.DIR) or not (is_dir or is_file or stat.S_ISLNK(status.st_mode)):
                raise Unusable(_OTHER_KIND)
            return self._read(path, above, name, status).alike(entry, owners=self._owners)
        except (FileNotFoundError, UnstableError):
            return False
        finally:
            os.close(above)

    def _read(self, path: StorePath, above: int, name: str, status: os.stat_result) -> Entry:
        try:
            return self._reader.read(path, above, name, status)[0]
        except Unusable:  # a link that leads out: it is replaced, not written to
            return tombstone()


_OTHER_KIND = "the path, or one above it, is of another kind or a symlink here: move it away"


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    table = {
        errno.EACCES: "no permission to write it",
        errno.EPERM: "no permission to write it, or to give it its owner or mode: it is another user's",
        errno.EXDEV: "another file system is mounted on the way: export to that by itself",
    } | dict.fromkeys((errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP), _OTHER_KIND)
    return why_failed(error, table)


def _why_left(paths: Sequence[StorePath], preset: str | None, below: StorePath) -> dict[StorePath, str]:
    """Return for each path that is not written why it stays in the store."""
    mappings = presets.load(preset) if preset else ()
    nowhere = [join(below, mapping.store) for mapping in mappings if not mapping.host]
    return {
        path: "has no directory on a single host"
        if any(path == store or is_below(path, store) for store in nowhere)
        else "not among what the preset names"
        for path in paths
    }


def _report(args: argparse.Namespace, done: _Done, left: Mapping[StorePath, str]) -> None:
    if args.json:
        write_json(
            {
                "dry_run": args.dry_run,
                "written": done.written,
                "same": done.same,
                "problems": reasons(done.problems),
                "left": reasons(left),
            }
        )
    else:
        for path in done.written if args.dry_run else ():
            write_line(f"write {shown(path)}")
        say_all(f"left in the store: {shown(path)}: {why}" for path, why in left.items())
        verb = "would be written" if args.dry_run else "written"
        say(f"{len(done.written)} {verb} to {args.directory}; the same already: {done.same}")
    say_all(f"{at}: {why}" for at, why in done.problems.items())
    if os.geteuid() != 0 and not args.dry_run:
        say("owners were not set, which only root can")
