"""`mkdir` and `bootstrap`: the root records that make a subtree exist."""

import argparse
import os
from collections.abc import Collection, Sequence

from configstore import presets
from configstore.cli.arguments import Commands, add_command, add_path, flag, mode, option, typed_directory
from configstore.cli.render import revisions_of, write_json
from configstore.cli.session import (
    ATTEMPTS,
    commit,
    confirms,
    is_interactive,
    lives,
    open_tree,
    refuse_below_file,
    say,
    unreadable,
)
from configstore.errors import ConflictError, RefusedError
from configstore.model.path import ROOT, StorePath, shell_word, shown
from configstore.model.record import Entry, Kind
from configstore.store.tree import Tree
from configstore.store.values import UnreadableRecord, Write

NEW_MODE = 0o755


def add(commands: Commands) -> None:
    """Add the parsers."""
    mkdir = add_command(commands, "mkdir", _mkdir, "make a directory, such as that of a mapping's subtree")
    add_path(mkdir, "directory in the store, such as certs")
    mkdir.add_argument("--mode", type=mode, default=NEW_MODE, help="permission bits (default: 0755)")
    text = "make the directories of a preset's mappings in the store"
    bootstrap = add_command(commands, "bootstrap", _bootstrap, text)
    option(bootstrap, "--preset NAME", "one or several with commas between (default: mailu)", default="mailu")
    text = (
        "folder of a single host, such as /mailu: make nothing while it has files that the store has not"
        " (default: CONFIGSTORE_HOST_DATA)"
    )
    option(bootstrap, "--host-data DIR", text)
    flag(bootstrap, "--yes", "do not ask, and do not look into --host-data")


def _mkdir(args: argparse.Namespace) -> int:
    path = typed_directory(args.path)
    if path == ROOT:
        raise RefusedError("/: the whole tree has no record; name a directory below it")
    with open_tree(args) as tree:
        _make(tree, {path: args.mode}, as_json=args.json)
    return 0


def _bootstrap(args: argparse.Namespace) -> int:
    names = [name.strip() for name in args.preset.split(",")]
    wanted: dict[StorePath, int] = {}
    for name in names:
        for mapping in presets.load(name):
            wanted[mapping.store] = NEW_MODE if mapping.dir_mode is None else mapping.dir_mode
    with open_tree(args) as tree:
        if not args.yes:
            _refuse_before_import(tree, wanted, names, args.host_data or os.environ.get("CONFIGSTORE_HOST_DATA"))
        _make(tree, dict(sorted(wanted.items())), as_json=args.json)
    return 0


def _refuse_before_import(
    tree: Tree, wanted: Collection[StorePath], names: Sequence[str], host: str | None
) -> None:
    """Raise RefusedError where files of a single host must be imported first.

    Its folder shows whether there are any; without one, a person at the terminal is asked.
    """
    from configstore.cli.left_behind import left_behind  # noqa: PLC0415  # a library that only this needs

    absent = {path for path in wanted if not lives(tree.look(path))}
    if host:
        left = left_behind(host, names, absent)
        if left:
            raise RefusedError(
                f"{shell_word(host)} holds files that the store has not: {', '.join(sorted(left))};"
                f" nothing was made. Bring them in first: `{_import(tree, host, names)}`;"
                " or begin without them: `configstore bootstrap --yes`"
            )
    elif len(absent) == len(wanted) and is_interactive():
        say(
            "the store holds nothing of it as yet: services will start without keys and certificates."
            " What a host has in /mailu is brought in first, by `configstore import /mailu / --preset mailu`"
        )
        if not confirms("Begin with nothing, as a new installation?"):
            raise RefusedError("nothing was made")


def _import(tree: Tree, host: str, names: Sequence[str]) -> str:
    """Return the import to type. It has `--create` where the store is used: its files are newer."""
    product = names[0].partition("/")[0]
    later = any(lives(tree.look(root)) for root in presets.roots(product))
    preset = names[0] if len(names) == 1 else product
    return f"configstore import {shell_word(host)} / --preset {preset}" + " --create" * later


def _make(tree: Tree, wanted: dict[StorePath, int], *, as_json: bool) -> None:
    """Make the directories that do not exist, in one transaction, and say what was done."""
    for path in wanted:
        refuse_below_file(tree, path)
    for _ in range(ATTEMPTS):
        writes, there = _missing(tree, wanted)
        outcome = commit(tree, writes, verb="made")
        if outcome.complete:
            _report(there, outcome.done)
            if as_json:
                write_json({"made": revisions_of(outcome.done), "there": there})
            return
    raise ConflictError(
        f"{', '.join(map(shown, outcome.stale))}: other writes came first again and again; look again"
    )


def _missing(tree: Tree, wanted: dict[StorePath, int]) -> tuple[list[Write], list[StorePath]]:
    writes, there = [], []
    for path, permissions in wanted.items():
        found = tree.look(path)
        if isinstance(found, UnreadableRecord):
            raise unreadable(found)
        if lives(found):
            if found.entry.kind is not Kind.DIR:
                raise ConflictError(f"{shown(path)}: is there already, as a {found.entry.kind}; nothing was made")
            there.append(path)
            continue
        entry = Entry(kind=Kind.DIR, mode=permissions)
        writes.append(Write(path=path, entry=entry, expected=found.mod_revision if found else 0))
    return writes, there


def _report(there: Sequence[StorePath], made: dict[StorePath, int]) -> None:
    for path in there:
        say(f"{shown(path)}: is there already")
    for path, at in made.items():
        say(f"{shown(path)}: made at revision {at}")
