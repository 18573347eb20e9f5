"""The store as a command sees it: an open tree, and one look at a path."""

import argparse
import contextlib
import datetime as dt
import os
import shlex
import socket
import sys
import uuid
from collections.abc import Iterable, Iterator

from configstore.cli.arguments import shown, store_settings
from configstore.errors import ConflictError, NotThereError, StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.path import StorePath, ancestors, printable
from configstore.model.record import Kind
from configstore.settings import STORE_VARIABLES, nearest_variable, unknown_variables
from configstore.store.tree import Tree
from configstore.store.values import Bad, Stored, Writer

RETENTION = 30 * 86400.0
"""Seconds for which what a command supersedes stays in `past/`; a mapping's default, too."""

ATTEMPTS = 20
"""How often an unguarded change looks again after somebody else's write came first."""


_SHOWN = 50


@contextlib.contextmanager
def open_tree(args: argparse.Namespace) -> Iterator[Tree]:
    """Connect as the options and the environment say. Raises UsageError; calls raise what `Kv` raises."""
    from configstore.store.connect import connect  # noqa: PLC0415 - only now is grpc needed

    settings = store_settings(args)
    warn_of_misspelt_variables()
    with connect(settings) as kv:
        try:
            yield Tree(kv, Keys(settings.root), writer(), patience=settings.timeout)
        except StoreUnavailableError as error:
            unnamed = [url for url in settings.endpoints if url not in str(error)]
            if unnamed:
                raise StoreUnavailableError(f"{error}; tried {', '.join(settings.endpoints)}") from error
            raise


def say(message: str) -> None:
    """Tell a person something, on stderr."""
    print(f"configstore: {printable(message)}", file=sys.stderr)


def say_all(messages: Iterable[str]) -> None:
    """Tell a person many things, the first ones in full."""
    messages = list(messages)
    for message in messages[:_SHOWN]:
        say(message)
    if len(messages) > _SHOWN:
        say(f"and {len(messages) - _SHOWN} more")


def now() -> str:
    """Return the time as RFC 3339 text, for people."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def look(tree: Tree, path: StorePath) -> Stored | Bad | None:
    """Return what lies at a path now, an unreadable record as a value."""
    page = tree.kv.range(tree.keys.file(path))
    return tree.decode_item(page.items[0]) if page.items else None


def is_directory(tree: Tree, path: StorePath, found: Stored | Bad | None) -> bool:
    """Tell whether a path is a directory: by its record, or because something lives below it."""
    if isinstance(found, Stored) and not found.gone:
        return found.entry.kind is Kind.DIR
    return any(not below.gone for below in tree.list(path).records.values() if below.path != path)


def refuse_below_file(tree: Tree, path: StorePath) -> None:
    """Raise ConflictError when something above `path` is no directory."""
    for above in ancestors(path):
        found = look(tree, above)
        if isinstance(found, Stored) and found.entry.kind in {Kind.FILE, Kind.SYMLINK}:
            raise ConflictError(f"{shown(path)}: {shown(above)} is a {found.entry.kind}, not a directory")


def unreadable(found: Bad) -> NotThereError:
    """Return the error about a path whose record cannot be read, with the mend."""
    return NotThereError(f"{found.path}: {why_unreadable(found)}")


def why_unreadable(found: Bad) -> str:
    """Return what is wrong with what lies below `files/`, with the mend."""
    if found.key is not None:
        return f"a key that no path has: {found.reason}; `etcdctl del {_typed(found.key)}` removes it"
    path = shlex.quote(found.path)
    return (
        f"unreadable record at revision {found.mod_revision}: {found.reason}; `configstore put {path} FILE "
        f"--if-revision {found.mod_revision}` replaces it, `configstore rm {path}` removes it"
    )


def _typed(key: bytes) -> str:
    """Return a key as it is typed into a shell."""
    text = key.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return shlex.quote(text)
    plain = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\x{byte:02x}" for byte in key)
    return f"$'{''.join(plain)}'"


def writer() -> Writer:
    """Return who writes when a command does."""
    return Writer(
        replica="cli",
        host=socket.gethostname()[:256],
        now=now,
        new_id=lambda: uuid.uuid4().hex,
    )


def warn_of_misspelt_variables() -> None:
    """Name the variables that look like ours and are none."""
    for name in unknown_variables(os.environ, ()):
        if close := nearest_variable(name, STORE_VARIABLES, cutoff=0.85):
            say(f"{name}: unknown variable, not used; did you mean {close}?")
