"""What the commands share about the store and the terminal: an open tree, one path, messages and questions."""

import argparse
import contextlib
import datetime as dt
import os
import pwd
import socket
import sys
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeGuard

from configstore.cli.arguments import seal_settings, store_settings
from configstore.errors import (
    ConflictError,
    NotThereError,
    RefusedError,
    StoreError,
    StoreUnavailableError,
    UnreachableError,
)
from configstore.keyrings.file import KeyringFile
from configstore.model.endpoint import DEFAULT_ENDPOINT, parse_endpoint
from configstore.model.keys import Keys, removal
from configstore.model.lease import QueueEntry
from configstore.model.path import StorePath, ancestors, join, parent, printable, shown
from configstore.model.record import Kind
from configstore.model.seal import Keyring, Policy
from configstore.parsing import nearest
from configstore.settings import RETENTION, STORE_VARIABLES, endpoints_are_set, nearest_variable, unknown_variables
from configstore.store.envelope import NEED_SEAL, Envelopes
from configstore.store.names import names_in
from configstore.store.tree import Tree
from configstore.store.values import Fence, Outcome, Stored, UnreadableRecord, Write, Writer

ATTEMPTS = 20
"""How often a change without a condition is tried again after another write came first."""


_CONNECT = 1.0
"""Seconds in which a program that listens takes a connection."""


_SHOWN = 50
"""Messages of a list that are printed; of the others only their number is."""

_NEIGHBOURS = 5
"""Records of a directory that are read to see whether its files are sealed."""


@contextlib.contextmanager
def open_tree(
    args: argparse.Namespace, *, keyring: Keyring | None = None, policy: Policy | None = None
) -> Iterator[Tree]:
    """Connect as the options and the environment say, and give the store's tree. Raises UsageError.

    keyring, policy: those of a command that does not take them from the settings. The tree's calls raise what `Kv`
    raises.
    """
    settings = store_settings(args)
    if policy is None:
        sealing = seal_settings(args)
        policy, keyring = sealing.policy, KeyringFile(sealing.keyring).read() if sealing.keyring else None
    always = policy
    envelopes = Envelopes(settings.root, keyring=keyring, policy=lambda _: always, lenient=True)
    warn_of_misspelt_variables()
    refuse_silent_default(args)
    from configstore.store.connect import connect  # noqa: PLC0415 - only now is grpc needed

    with connect(settings) as kv:
        try:
            yield Tree(kv, Keys(settings.root), writer(), envelopes=envelopes, patience=settings.timeout)
        except StoreUnavailableError as error:
            unnamed = [url for url in settings.endpoints if url not in str(error)]
            if unnamed:
                raise StoreUnavailableError(f"{error}; tried {', '.join(settings.endpoints)}") from error
            raise


def refuse_silent_default(args: argparse.Namespace) -> None:
    """Raise StoreUnavailableError at once where no endpoint is set and nothing listens at the default one.

    The endpoint was most likely forgotten, so the error says what to type instead of trying until the timeout.
    """
    if endpoints_are_set(os.environ, vars(args)):
        return
    if error := connect_error(DEFAULT_ENDPOINT):
        raise StoreUnavailableError(
            f"no endpoint is set, and nothing answers at the default {DEFAULT_ENDPOINT}"
            f" ({error.strerror or error}): `export CONFIGSTORE_ENDPOINTS=https://ETCD:2379`, or type"
            " --endpoints URL; to try it out, `configstore dev` starts an etcd"
        )


def connect_error(url: str) -> OSError | None:
    """Return why nothing takes a connection at an endpoint; None where something does."""
    where = parse_endpoint(url)
    try:
        socket.create_connection((where.hostname, where.port), timeout=_CONNECT).close()
    except OSError as error:
        return error
    return None


def say_of_default(args: argparse.Namespace) -> None:
    """Where no endpoint is set, say that the default is used, and what to type."""
    if not endpoints_are_set(os.environ, vars(args)):
        say(f"no endpoint is set: using {DEFAULT_ENDPOINT}; set CONFIGSTORE_ENDPOINTS, or type --endpoints URL")


def commit(
    tree: Tree,
    writes: Sequence[Write],
    *,
    verb: str = "written",
    fence: Fence | None = None,
    step: Callable[[int], None] | None = None,
) -> Outcome:
    """Commit as `Tree.commit` does, with errors that say which paths were written.

    verb: what is done to the paths, for the errors. step: called with how many more were written.
    Raises StoreUnavailableError or UnreachableError where it is not known whether a path was written, RefusedError
    for a plain record among sealed ones, and what `Tree.commit` raises.
    """
    _refuse_plain_among_sealed(tree, writes)
    try:
        outcome = tree.commit(writes, retention=RETENTION, fence=fence, step=step)
    except StoreError as error:
        if not error.done and not error.unknown:
            raise
        kind = StoreUnavailableError if error.unknown else type(error)
        raise kind(f"{_progress(error.done, error.unknown, writes, verb)}: {error}") from error
    if outcome.unsure:
        raise UnreachableError(
            f"{_progress(outcome.done, outcome.unsure, writes, verb)}: an answer of the store was lost, and "
            "another write came since; look at `configstore history` before you repeat it"
        )
    return outcome


def _refuse_plain_among_sealed(tree: Tree, writes: Sequence[Write]) -> None:
    """Raise RefusedError where a new path would be plain although its neighbours are sealed.

    The keyring was most likely forgotten. The neighbours are the first few records of the nearest directory that
    has files or links; a plain record in place of a sealed one is refused by `Tree.commit`.
    """
    if tree.envelopes.keyring is not None:
        return
    known: dict[StorePath, bool] = {}
    for write in writes:
        if write.entry.kind in NEED_SEAL and not replaces(write) and _is_among_sealed(tree, write.path, known):
            raise RefusedError(
                f"{shown(write.path)}: would be plain among sealed records: set CONFIGSTORE_SEAL_KEYRING, or type"
                " --seal-keyring FILE; nothing was written"
            )


def replaces(write: Write) -> bool:
    """Return whether a write replaces a record that is not deleted."""
    return write.previous is not None and not write.previous.gone


def _is_among_sealed(tree: Tree, path: StorePath, known: dict[StorePath, bool]) -> bool:
    """Return whether the files and links beside a path are sealed. known: the answers so far, by directory."""
    above = parent(path)
    if not above:
        return False
    if above not in known:
        page = tree.below(above, limit=_NEIGHBOURS)
        found = [each for each in map(tree.decode_item, page.items) if isinstance(each, Stored)]
        neighbours = [each for each in found if each.record.seal or each.entry.kind in NEED_SEAL]
        if neighbours:
            known[above] = any(each.record.seal for each in neighbours)
        else:
            known[above] = _is_among_sealed(tree, above, known)
    return known[above]


def _progress(done: Collection[str], unknown: Collection[str], writes: Sequence[Write], verb: str) -> str:
    """Return which part of a commit was done before it failed."""
    if len(writes) == 1:
        return f"{shown(writes[0].path)}: may have been {verb}, or not"
    part = f"{len(done)} of {len(writes)} paths were {verb}"
    return f"{part}, and {len(unknown)} more may have been" if unknown else part


def say(message: str) -> None:
    """Print a message on stderr."""
    print(f"configstore: {printable(message)}", file=sys.stderr)


def say_all(messages: Iterable[str]) -> None:
    """Print the first messages on stderr, and the number of the others."""
    messages = list(messages)
    for message in messages[:_SHOWN]:
        say(message)
    if len(messages) > _SHOWN:
        say(f"and {len(messages) - _SHOWN} more")


def is_interactive() -> bool:
    """Return whether a person can be asked, on the terminal that stdin is."""
    return bool(sys.stdin and sys.stdin.isatty())


def confirms(question: str) -> bool:
    """Ask a person on the terminal; return whether the answer is yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def now() -> str:
    """Return the time as RFC 3339 text."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lives(found: Stored | UnreadableRecord | None) -> TypeGuard[Stored]:
    """Return whether there is a record that can be read and is not deleted."""
    return isinstance(found, Stored) and not found.gone


def is_directory(tree: Tree, path: StorePath, found: Stored | UnreadableRecord | None) -> bool:
    """Tell whether a path is a directory: by its record, or because something lives below it."""
    if isinstance(found, Stored) and not found.gone:
        return found.entry.kind is Kind.DIR
    return any(not below.gone for below in tree.list(path).records.values() if below.path != path)


def refuse_below_file(tree: Tree, path: StorePath) -> None:
    """Raise ConflictError when a path above `path` is a file or a link."""
    for above in ancestors(path):
        found = tree.look(above)
        if isinstance(found, Stored) and found.entry.kind in {Kind.FILE, Kind.SYMLINK}:
            raise ConflictError(f"{shown(path)}: {shown(above)} is a {found.entry.kind}, not a directory")


def not_there(tree: Tree, path: StorePath, then: str = "") -> NotThereError:
    """Return the error about a path that has no record, with the nearest name in its directory."""
    near = nearest_path(tree, path)
    hint = f"; did you mean {shown(near)}?" if near and near != path else ""  # it may have been written meanwhile
    return NotThereError(f"{shown(path)}: not there{then}{hint}")


def nearest_path(tree: Tree, path: StorePath) -> StorePath | None:
    """Return the path that was probably meant: with the nearest name in the first directory above that exists.

    None where no name is near, and where the directory may not be read.
    """
    above = parent(path)
    try:
        names = names_in(tree, above)
        for name in nearest(path.rpartition("/")[2], names, count=3):
            found = tree.look(join(above, StorePath(name)))
            if found is None or lives(found):
                return join(above, StorePath(name))
    except StoreError:
        return None
    return nearest_path(tree, above) if above and not names else None


def unreadable(found: UnreadableRecord) -> NotThereError:
    """Return the error about a path whose record cannot be read, with what to type."""
    return NotThereError(f"{name_of(found)}: {why_unreadable(found)}")


def name_of(found: UnreadableRecord) -> str:
    """Return the path of an unreadable record as it is printed, or its key where that is of no path."""
    return shown(StorePath(found.path)) if found.key is None else found.path


def why_unreadable(found: UnreadableRecord) -> str:
    """Return why a record below `files/` cannot be read, with what to type."""
    if found.key is not None:
        return f"a key that is of no path: {found.reason}; `{removal(found.key)}` removes it"
    path = shown(StorePath(found.path))
    return (
        f"unreadable record at revision {found.mod_revision}: {found.reason}; `configstore put {path} FILE "
        f"--if-revision {found.mod_revision}` replaces it, `configstore rm {path}` removes it"
    )


def writer() -> Writer:
    """Return how a command's writes name their writer."""
    return Writer(replica="cli", host=socket.gethostname()[:256], now=now, new_id=lambda: uuid.uuid4().hex)


def queue_entry(command: str) -> QueueEntry:
    """Return the entry of a command that waits for a lease, or holds it."""
    return QueueEntry(replica="cli", host=socket.gethostname()[:256], command=command, time=now())


def asker(args: argparse.Namespace) -> str:
    """Return who uses the command, for its requests to replicas: user@host, and etcd's user where one is set.

    At most 256 printable characters. Raises UsageError.
    """
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = f"uid {os.getuid()}"
    login = store_settings(args).user
    return printable(f"{user}@{socket.gethostname()}" + (f" (etcd user {login})" if login else ""))[:256]


def warn_of_misspelt_variables() -> None:
    """Say which variables are not used although their names are like those of settings."""
    for name in unknown_variables(os.environ, ()):
        if close := nearest_variable(name, STORE_VARIABLES, cutoff=0.85):
            say(f"{name}: unknown variable, not used; did you mean {close}?")
