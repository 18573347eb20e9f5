"""The store as a command sees it: an open tree, and one look at a path."""

import argparse
import contextlib
import datetime as dt
import os
import pwd
import socket
import sys
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from urllib.parse import urlsplit

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
from configstore.model.keys import Keys, prefix_end, removal
from configstore.model.path import StorePath, ancestors, join, parent, printable, shown
from configstore.model.record import Kind
from configstore.model.seal import Keyring, Policy
from configstore.parsing import nearest
from configstore.settings import (
    DEFAULT_ENDPOINT,
    STORE_VARIABLES,
    endpoints_are_set,
    nearest_variable,
    unknown_variables,
)
from configstore.store.envelope import NEED_SEAL, Envelopes
from configstore.store.tree import Tree
from configstore.store.values import Fence, Outcome, Stored, UnreadableRecord, Write, Writer

RETENTION = 30 * 86400.0
"""Seconds for which what a command supersedes stays in `past/`; a mapping's default, too."""

ATTEMPTS = 20
"""How often an unguarded change looks again after somebody else's write came first."""


_AT_ONCE = 1.0
"""Seconds in which something on this machine takes a connection."""

NEAR, NEAR_PAGES = 100, 20
"""So many keys at a time, and so often, are looked through for a name that was probably meant."""

_SHOWN = 50

_NEIGHBOURS = 5
"""Records of a directory that tell whether what lies in it is sealed."""


@contextlib.contextmanager
def open_tree(
    args: argparse.Namespace, *, keyring: Keyring | None = None, policy: Policy | None = None
) -> Iterator[Tree]:
    """Connect as the options and the environment say. Raises UsageError; calls raise what `Kv` raises.

    keyring, policy: for a command that has its own about sealing.
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
    """Where nobody named an endpoint, see at once whether anything is at the default one.

    Raises StoreUnavailableError with what to type: it was most likely forgotten.
    """
    if endpoints_are_set(os.environ, vars(args)):
        return
    where = urlsplit(DEFAULT_ENDPOINT)
    try:
        socket.create_connection((where.hostname or "", where.port or 0), timeout=_AT_ONCE).close()
    except OSError as error:
        raise StoreUnavailableError(
            f"no endpoint is set, and nobody answers at the default {DEFAULT_ENDPOINT}"
            f" ({error.strerror or error}): `export CONFIGSTORE_ENDPOINTS=https://ETCD:2379`, or type"
            " --endpoints URL; to try it out, `configstore dev` starts an etcd"
        ) from None


def say_of_default(args: argparse.Namespace) -> None:
    """Where nobody named an endpoint, tell which one is looked at, and what to type."""
    if not endpoints_are_set(os.environ, vars(args)):
        say(f"no endpoint is set, so {DEFAULT_ENDPOINT} is looked at: set CONFIGSTORE_ENDPOINTS, or --endpoints")


def commit(
    tree: Tree,
    writes: Sequence[Write],
    *,
    verb: str = "written",
    fence: Fence | None = None,
    step: Callable[[int], None] | None = None,
) -> Outcome:
    """Commit as `Tree.commit` does, so that its failures say what became of which path.

    verb: what is done to the paths, for people. step: told how many more were.
    Raises StoreUnavailableError or UnreachableError where nobody can tell whether a path was
    written, RefusedError for a plain record among sealed ones, and what `Tree.commit` raises.
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
            "somebody else wrote since; look at `configstore history` before you repeat it"
        )
    return outcome


def _refuse_plain_among_sealed(tree: Tree, writes: Sequence[Write]) -> None:
    """Raise RefusedError where a new path would be plain though its neighbours are sealed.

    Without a keyring that is forgotten easily. The first few records of the nearest directory that has files or
    links tell; what replaces a sealed record is refused by `Tree.commit`.
    """
    if tree.envelopes.keyring is not None:
        return
    told: dict[StorePath, bool] = {}
    for write in writes:
        if write.entry.kind in NEED_SEAL and not _replaces(write) and _is_among_sealed(tree, write.path, told):
            raise RefusedError(
                f"{shown(write.path)}: would be plain among sealed records: set CONFIGSTORE_SEAL_KEYRING, or type"
                " --seal-keyring FILE; nothing was written"
            )


def _replaces(write: Write) -> bool:
    return write.previous is not None and not write.previous.gone


def _is_among_sealed(tree: Tree, path: StorePath, told: dict[StorePath, bool]) -> bool:
    above = parent(path)
    if not above:
        return False
    if above not in told:
        page = tree.kv.range(*tree.keys.files_below(above), limit=_NEIGHBOURS)
        found = [each for each in map(tree.decode_item, page.items) if isinstance(each, Stored)]
        telling = [each for each in found if each.record.seal or each.entry.kind in NEED_SEAL]
        if telling:
            told[above] = any(each.record.seal for each in telling)
        else:
            told[above] = _is_among_sealed(tree, above, told)
    return told[above]


def _progress(done: Collection[str], unknown: Collection[str], writes: Sequence[Write], verb: str) -> str:
    """Return how far a commit came that did not end well."""
    if len(writes) == 1:
        return f"{shown(writes[0].path)}: may have been {verb}, or not"
    told = f"{len(done)} of {len(writes)} paths were {verb}"
    return f"{told}, and {len(unknown)} more may have been" if unknown else told


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


def look(tree: Tree, path: StorePath) -> Stored | UnreadableRecord | None:
    """Return what lies at a path now, an unreadable record as a value."""
    page = tree.kv.range(tree.keys.file(path))
    return tree.decode_item(page.items[0]) if page.items else None


def is_directory(tree: Tree, path: StorePath, found: Stored | UnreadableRecord | None) -> bool:
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


def not_there(tree: Tree, path: StorePath, then: str = "") -> NotThereError:
    """Return the error about a path that is not there, with the nearest name in its directory."""
    near = nearest_path(tree, path)
    hint = f"; did you mean {shown(near)}?" if near and near != path else ""  # it may have come meanwhile
    return NotThereError(f"{shown(path)}: not there{then}{hint}")


def nearest_path(tree: Tree, path: StorePath) -> StorePath | None:
    """Return the path that was probably meant: with the nearest name in the first directory that is there.

    None where there is none, where nobody may look, and in a directory of too many.
    """
    above = parent(path)
    try:
        names = _names_in(tree, above)
        for name in nearest(path.rpartition("/")[2], names, count=3):
            found = look(tree, join(above, StorePath(name)))
            if found is None or (isinstance(found, Stored) and not found.gone):
                return join(above, StorePath(name))
    except StoreError:
        return None
    return nearest_path(tree, above) if above and not names else None


def _names_in(tree: Tree, directory: StorePath) -> set[str]:
    """Return the names that records have in a directory, or the directories in it; of very many not all."""
    start, end = tree.keys.files_below(directory)
    length, names = len(start), set()
    for _ in range(NEAR_PAGES):
        page = tree.kv.range(start, end, limit=NEAR, keys_only=True)
        for item in page.items:
            name, slash, _ = item.key[length:].partition(b"/")
            names.add(name.decode("utf-8", "replace"))
        if len(page.items) < NEAR:
            break
        below = item.key[:length] + name + b"/"
        start = prefix_end(below) if slash else item.key + b"\0"  # past all that lies in that directory
    return names


def unreadable(found: UnreadableRecord) -> NotThereError:
    """Return the error about a path whose record cannot be read, with the mend."""
    return NotThereError(f"{name_of(found)}: {why_unreadable(found)}")


def name_of(found: UnreadableRecord) -> str:
    """Return what cannot be read as it is named to a person: a path, or a key that no path has."""
    return shown(StorePath(found.path)) if found.key is None else found.path


def why_unreadable(found: UnreadableRecord) -> str:
    """Return what is wrong with what lies below `files/`, with the mend."""
    if found.key is not None:
        return f"a key that no path has: {found.reason}; `{removal(found.key)}` removes it"
    path = shown(StorePath(found.path))
    return (
        f"unreadable record at revision {found.mod_revision}: {found.reason}; `configstore put {path} FILE "
        f"--if-revision {found.mod_revision}` replaces it, `configstore rm {path}` removes it"
    )


def writer() -> Writer:
    """Return who writes when a command does."""
    return Writer(
        replica="cli",
        host=socket.gethostname()[:256],
        now=now,
        new_id=lambda: uuid.uuid4().hex,
    )


def asker(args: argparse.Namespace) -> str:
    """Return who uses the command, as its requests to replicas say: user@host, and etcd's user where one is set.

    At most 256 characters, with nothing that a terminal would obey. Raises UsageError.
    """
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = f"uid {os.getuid()}"
    login = store_settings(args).user
    words = f"{user}@{socket.gethostname()}" + (f" (etcd user {login})" if login else "")
    return printable(words)[:256]


def warn_of_misspelt_variables() -> None:
    """Name the variables that look like ours and are none."""
    for name in unknown_variables(os.environ, ()):
        if close := nearest_variable(name, STORE_VARIABLES, cutoff=0.85):
            say(f"{name}: unknown variable, not used; did you mean {close}?")
