"""`put` and `get`: the content of one file, into the store and out of it."""

import argparse
import base64
import os
import stat
import sys

from configstore.cli.arguments import (
    Commands,
    add_command,
    add_path,
    flag,
    mode,
    option,
    revision,
    revision_or_zero,
    typed_path,
    typed_record,
)
from configstore.cli.render import record_fields, write_bytes, write_json
from configstore.cli.session import (
    ATTEMPTS,
    commit,
    is_directory,
    lives,
    not_there,
    open_tree,
    refuse_below_file,
    say,
    unreadable,
)
from configstore.errors import (
    CompactedError,
    ConflictError,
    CorruptError,
    FutureRevisionError,
    NotThereError,
    RefusedError,
)
from configstore.files.descent import open_parent
from configstore.files.writing import replace_file
from configstore.model.path import StorePath, printable, shown
from configstore.model.record import MAX_SIZE, Entry, Kind, sha256
from configstore.store.history import ExpiredError, versions
from configstore.store.tree import Tree
from configstore.store.values import Stored, UnreadableRecord, Write

NEW_MODE = 0o600


def add(commands: Commands) -> None:
    """Add the parsers."""
    put = add_command(commands, "put", _put, "write a file into the store, from a local file or stdin")
    add_path(put)
    put.add_argument("file", metavar="FILE", nargs="?", help="local file (default, or -: stdin)")
    put.set_defaults(late="file")
    put.add_argument("--mode", type=mode, help="permission bits (default: those it has, 0600 for a new file)")
    guard = put.add_mutually_exclusive_group()
    text = "only if the path is at revision N; 0: only if it was never written"
    option(guard, "--if-revision N", text, type=revision_or_zero)
    flag(guard, "--create", "only if the path does not exist")
    get = add_command(commands, "get", _get, "print a file's content, byte for byte")
    add_path(get)
    option(get, "-o, --output FILE", "write to FILE instead, with the file's mode", default="-")
    option(get, "--revision N", "as of store revision N (default: now)", type=revision, default=0)


def _put(args: argparse.Namespace) -> int:
    path = typed_path(args.path)
    with open_tree(args) as tree:
        content = _read_local(args.file or "-")
        refuse_below_file(tree, path)
        for _ in range(ATTEMPTS):
            found = tree.look(path)
            _check_guard(path, found, args)
            write = _replacement(tree, path, found, content, args)
            outcome = commit(tree, [write])
            if outcome.complete:
                say(f"{shown(path)}: {len(content)} bytes at revision {outcome.done[path]}")
                if args.json:
                    write_json(
                        {
                            "path": path,
                            "revision": outcome.done[path],
                            "mode": f"{write.entry.mode:04o}",
                            "size": len(content),
                            "sha256": write.entry.sha256,
                        }
                    )
                return 0
            if args.create or args.if_revision is not None:
                break
    # It is certain that nothing was written: `commit` raises where that is not known.
    raise ConflictError(f"{shown(path)}: another write came first; nothing was written")


def _check_guard(path: StorePath, found: Stored | UnreadableRecord | None, args: argparse.Namespace) -> None:
    current = found.mod_revision if found else 0
    if args.if_revision is not None and args.if_revision != current:
        raise ConflictError(
            f"{shown(path)}: is at revision {current}, not {args.if_revision}; nothing was written"
        )
    if args.create and found and (lives(found) or isinstance(found, UnreadableRecord)):
        raise ConflictError(f"{shown(path)}: is there already, at revision {current}; nothing was written")


def _replacement(
    tree: Tree, path: StorePath, found: Stored | UnreadableRecord | None, content: bytes, args: argparse.Namespace
) -> Write:
    if isinstance(found, UnreadableRecord) and args.if_revision is None:
        raise unreadable(found)
    before = found.entry if lives(found) else None
    if isinstance(found, Stored):
        refuse_locked_link(found)
    if before and before.kind is Kind.SYMLINK:
        raise ConflictError(f"{shown(path)}: is a symlink to {printable(before.target)}; remove it first")
    if (before is None or before.kind is Kind.DIR) and is_directory(tree, path, found):
        raise ConflictError(f"{shown(path)}: is a directory")
    permissions = args.mode if args.mode is not None else (before.mode if before else NEW_MODE)
    entry = Entry(
        kind=Kind.FILE,
        mode=permissions,
        uid=before.uid if before else None,
        gid=before.gid if before else None,
        user=before.user if before else None,
        group=before.group if before else None,
        size=len(content),
        sha256=sha256(content),
    )
    return Write(
        path=path,
        entry=entry,
        content=content,
        expected=found.mod_revision if found else 0,
        previous=found if isinstance(found, Stored) else None,
    )


def _read_local(name: str) -> bytes:
    if name == "-":
        content = sys.stdin.buffer.read(MAX_SIZE + 1)
    else:
        with open(name, "rb") as file:
            content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise RefusedError(f"{printable(name)}: larger than {MAX_SIZE} bytes, the most a file may have")
    return content


def _get(args: argparse.Namespace) -> int:
    path = typed_record(args.path)
    with open_tree(args) as tree:
        found = read_at(tree, path, args.revision) if args.revision else tree.look(path)
        if isinstance(found, UnreadableRecord):
            raise unreadable(found)
        _check_file(tree, path, found, args.revision)
        try:
            content = tree.content(found) if found else b""
        except CorruptError as error:
            if args.revision:
                raise NotThereError(
                    f"{shown(path)}: its content of that revision is not kept any more ({error})"
                ) from None
            raise
    to_file = args.output != "-"
    if to_file:
        write_local(args.output, content, found.entry.mode if found else NEW_MODE)
    if args.json and found:
        text = None if to_file else base64.b64encode(content).decode()
        write_json(record_fields(found) | {"output": args.output if to_file else None, "base64": text})
    elif not to_file:
        write_bytes(content)
    return 0


def read_at(tree: Tree, path: StorePath, at: int) -> Stored | UnreadableRecord | None:
    """Return a path's record as of store revision `at`, from `past/` where etcd has compacted that revision.

    Raises CompactedError when `past/` does not have it any more, RecordError, and NotThereError for a revision
    that the store has not reached.
    """
    try:
        return tree.look(path, revision=at)
    except FutureRevisionError:
        raise NotThereError(f"{shown(path)}: the store has no revision {at} yet") from None
    except CompactedError as error:
        try:
            found = versions(tree, path)
            return found.at(at) if found else None
        except ExpiredError:
            oldest = f"; the oldest left is {error.compact_revision}" if error.compact_revision else ""
            message = f"{shown(path)}: revision {at} was compacted away{oldest}; see `configstore history`"
            raise CompactedError(message, compact_revision=error.compact_revision) from None


def _check_file(tree: Tree, path: StorePath, found: Stored | None, at: int) -> None:
    then = f" at revision {at}" if at else ""
    if found and found.entry.kind is Kind.DIR:
        raise NotThereError(f"{shown(path)}: is a directory{then}; `configstore ls` shows it")
    if found:
        refuse_locked_link(found)
    if found and found.entry.kind is Kind.SYMLINK:
        raise NotThereError(f"{shown(path)}: is a symlink to {printable(found.entry.target)}{then}")
    if found is None or found.gone:
        if not at and is_directory(tree, path, found):
            raise NotThereError(f"{shown(path)}: is a directory; `configstore ls` shows it")
        if found or at:
            deleted = f" (deleted at revision {found.mod_revision})" if found else ""
            raise NotThereError(f"{shown(path)}: not there{then}{deleted}")
        raise not_there(tree, path)


def refuse_locked_link(found: Stored) -> None:
    """Raise RefusedError for a link that no keyring here opens, or that is plain where records must be sealed."""
    if found.entry.kind is Kind.SYMLINK and found.record.locked:
        raise RefusedError(f"{shown(found.path)}: {found.record.locked}")


def write_local(name: str, content: bytes, permissions: int) -> None:
    """Replace a local file as a whole: only its owner may read it until it is complete, then it gets its mode.

    Raises OSError; RefusedError for anything but a regular file, and for a link that another user may have made.
    """
    directory, last = open_parent(name)
    try:
        if not _is_free(directory, last):
            raise RefusedError(f"{printable(name)}: is not a regular file; use the shell's > instead")
        replace_file(directory, last, content, permissions)
    finally:
        os.close(directory)


def _is_free(directory: int, name: str) -> bool:
    """Return whether a name is free or that of a regular file."""
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True
