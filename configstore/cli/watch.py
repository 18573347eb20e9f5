"""`watch`: one line per change, until stopped."""

import argparse
import sys

from configstore.cli.arguments import Commands, add_command, add_optional_path, typed_directory
from configstore.cli.render import record_fields, write_json, write_line
from configstore.cli.session import open_tree, say
from configstore.cli.stopping import Stopping
from configstore.model.path import StorePath, is_below, printable, shown
from configstore.model.record import Kind
from configstore.store.api import Event
from configstore.store.tree import Tree
from configstore.store.values import UnreadableRecord


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = add_command(commands, "watch", _watch, "print one line per change until stopped")
    add_optional_path(parser)


def _watch(args: argparse.Namespace) -> int:
    path = typed_directory(args.path)
    with Stopping() as stopping, open_tree(args) as tree:
        stopping.run(lambda: _follow(tree, path, as_json=args.json), tree.close)
    return 0


def _follow(tree: Tree, path: StorePath, *, as_json: bool) -> None:
    revision = tree.revision(path)
    changes = tree.watch(path, start_revision=revision + 1)
    try:
        say(f"watching {shown(path)} from revision {revision}")
        for batch in changes:
            for event in batch.events:
                _write(tree, event, path, as_json=as_json)
    finally:
        changes.close()


def _write(tree: Tree, event: Event, directory: StorePath, *, as_json: bool) -> None:
    fields = _fields(tree, event)
    path = StorePath(str(fields["path"]))
    if path != directory and not is_below(path, directory):
        return  # a neighbour such as `certs-old`, whose key sorts between `certs` and `certs/`
    if as_json:
        write_json(fields, indent=0)
    else:
        target = f" -> {printable(str(fields['target']))}" if fields.get("target") else ""
        size = fields["size"] if fields["kind"] == Kind.FILE else "-"
        write_line(
            f"{fields['revision']} {fields['kind']} {fields.get('mode') or '-'} {size} {shown(path)}{target}"
        )
    sys.stdout.flush()


def _fields(tree: Tree, event: Event) -> dict[str, object]:
    """Return an event's fields, keyed as in JSON.

    kind: also `unreadable`, and `vanished` for a key that was deleted without a tombstone.
    """
    if event.deleted:
        return {
            "path": tree.keys.text_of_file(event.item.key),
            "kind": "vanished",
            "revision": event.item.mod_revision,
        }
    found = tree.decode_item(event.item)
    if isinstance(found, UnreadableRecord):
        return {"path": found.path, "kind": "unreadable", "revision": found.mod_revision, "reason": found.reason}
    return record_fields(found)
