"""`watch`: one line per change, until stopped."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from configstore.cli.arguments import Commands, add_command, shown, typed_directory
from configstore.cli.render import record_fields, write_json, write_line
from configstore.cli.session import open_tree, say
from configstore.model.keys import prefix_end
from configstore.model.path import StorePath, is_below, printable
from configstore.model.record import Kind
from configstore.store.api import Event
from configstore.store.tree import Bad, Tree


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = add_command(commands, "watch", _watch, "print one line per change until stopped", listed=True)
    parser.add_argument("path", metavar="PATH", nargs="?", default="/")


class Stopped(BaseException):
    """SIGINT or SIGTERM came: the command is done."""


@contextmanager
def until_stopped() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the block, as its regular end."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Stopped:
        pass
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _watch(args: argparse.Namespace) -> int:
    path = typed_directory(args.path)
    with until_stopped(), open_tree(args) as tree:
        start = tree.keys.file(path)
        revision = tree.kv.range(start).revision
        changes = tree.kv.watch(start, prefix_end(tree.keys.files_below(path)[0]), start_revision=revision + 1)
        try:
            say(f"watching {shown(path)} from revision {revision}")
            for batch in changes:
                for event in batch.events:
                    _write(tree, event, path, as_json=args.json)
        finally:
            changes.close()
    return 0


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
            f"{fields['revision']} {fields['kind']} {fields.get('mode') or '-'} {size} {printable(path)}{target}"
        )
    sys.stdout.flush()


def _fields(tree: Tree, event: Event) -> dict[str, object]:
    """Describe an event; its kind may also be `vanished` (a raw delete, an anomaly) or `unreadable`."""
    found = tree.decode_item(event.item)
    if event.deleted:
        path = tree.keys.file(StorePath(""))
        name = event.item.key[len(path) :].decode("utf-8", "backslashreplace")
        return {"path": name, "kind": "vanished", "revision": event.item.mod_revision, "size": 0}
    if isinstance(found, Bad):
        return {"path": found.path, "kind": "unreadable", "revision": found.mod_revision, "reason": found.reason}
    return record_fields(found)
