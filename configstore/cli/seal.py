"""`seal`: keys, what is sealed with which, and sealing again with new ones. docs/sealing.md is the guide."""

import argparse
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

import msgspec

from configstore import presets
from configstore.cli.arguments import Commands, add_command, seal_settings, typed_path
from configstore.cli.render import Cell, Style, moment_now, table, when, write_json, write_line
from configstore.cli.session import RETENTION, now, open_tree, say, say_all
from configstore.cli.stopping import Stopping
from configstore.clock import boottime
from configstore.errors import NoSpaceError, NotThereError, PermissionDeniedError, RefusedError, UsageError
from configstore.keyring import KeyringFile
from configstore.keyrings import Folder, named, opened
from configstore.model.path import ROOT, StorePath, printable, shell_word, shown
from configstore.model.replica import Report
from configstore.model.seal import Key, Keyring, Master, Policy, Secret
from configstore.progress import Progress
from configstore.settings import parse_name
from configstore.store.replicas import ask_reports, live
from configstore.store.resealing import Family, LeftError, Resealing, Survey, survey, values
from configstore.store.tree import Tree

RATE = 200
"""Records that `rotate` seals in a second at most, so that a running mail system does not feel it."""

PATIENCE = 30.0
"""Seconds in which live replicas come to have the new keys: a sidecar reads a changed keyring within 10."""

PASSES = 5
"""How often `rotate` looks through the store while others write with older keys, or without any."""

_NAMED = 100
"""Of so many values it is told why they were left."""


def add(commands: Commands) -> None:
    """Add the parsers."""
    group = add_command(
        commands, "seal", _nothing, "keys that seal what is stored, and what is sealed with them", connects=False
    )
    verbs = group.add_subparsers(metavar="VERB", required=True, prog="configstore seal")
    keygen = add_command(
        verbs, "keygen", _keygen, "make a master, and the keyrings that follow from it",
        connects=False, listed=True, group="seal",
    )  # fmt: skip
    keygen.add_argument("--out", metavar="DIR", required=True, help="folder of the master and the keyrings")
    keygen.add_argument(
        "--subtree",
        metavar="S",
        action="append",
        default=[],
        help="a keyring that opens this subtree (repeatable)",
    )
    keygen.add_argument(
        "--preset", metavar="NAME", action="append", default=[],
        help="a keyring for each service of a preset, such as mailu or mailu/front (repeatable)",
    )  # fmt: skip
    keygen.add_argument(
        "--one", metavar="NAME", type=_name,
        help="one keyring of this name for all of these: for a sidecar that mirrors for a whole host",
    )  # fmt: skip
    add_command(verbs, "status", _status, "tell what is sealed with which key", listed=True, group="seal")
    rotate = add_command(
        verbs, "rotate", _rotate, "make a new key, and seal everything with it", listed=True, group="seal"
    )
    rotate.add_argument("--unseal", action="store_true", help="return to plain records; makes no key")
    rotate.add_argument(
        "--anyway", action="store_true", help="go on although live replicas do not have the new key yet"
    )
    rotate.add_argument(
        "--rate", metavar="N", type=_rate, default=RATE, help=f"records a second at most (default: {RATE})"
    )
    forget = add_command(
        verbs, "forget", _forget, "drop the old keys that nothing in the store needs", listed=True, group="seal"
    )
    forget.add_argument(
        "--anyway", action="store_true", help="go on although live replicas do not have the newest key yet"
    )


def _nothing(args: argparse.Namespace) -> int:
    raise UsageError(f"seal: expected a verb, not {args}")  # argparse asks for one


def _name(text: str) -> str:
    try:
        return parse_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _rate(text: str) -> int:
    number = text.removesuffix("/s")
    if not (number.isascii() and number.isdigit()) or not 0 < int(number) <= 1_000_000:
        raise argparse.ArgumentTypeError("expected how many a second, such as 200")
    return int(number)


# keygen


def _keygen(args: argparse.Namespace) -> int:
    subtrees = [_subtree(text) for text in args.subtree]
    services = _services(args.preset)
    wanted = named(list(dict.fromkeys(subtrees)), services, one=args.one)
    stores = {*subtrees, *(root for name in args.preset for root in presets.roots(name))}
    with opened(args.out, make=True) as folder:
        written = folder.add(wanted, stores, made=now())
        master = folder.master
        rings = dict(sorted(folder.keyrings.items()))
    if args.json:
        write_json(
            {
                "master": folder.master_file,
                "written": [folder.file(name) for name in written],
                "keyrings": [
                    {"file": folder.file(name), "keys": [_key_fields(key) for key in ring.keys]}
                    for name, ring in rings.items()
                ],
            }
        )
    for name in written:
        ring = rings.get(name)
        what = f"opens {_names(ring)}" if ring else f"the master, which opens everything; {_secrets(master)}"
        say(f"{folder.file(name)}: {what}")
    if not written:
        say(f"{folder.file('')}: has all of this already; nothing was changed")
    say(f"{folder.master_file} belongs on no host of a sidecar: keep it offline, and printed, in two places")
    say("without it, and without a keyring, nobody can read what was sealed: there is no other way")
    if rings:
        say('give each service its keyring alone, as CONFIGSTORE_SEAL_KEYRING; `seal = "accept"` while it is new')
    say(f"then: configstore seal rotate --seal-keyring {shell_word(os.path.join(args.out, 'master'))}")
    return 0


def _subtree(text: str) -> StorePath:
    if text.strip("/") == "":
        raise UsageError("--subtree /: the whole store's key is the master's; name a subtree such as certs")
    return typed_path(text.removesuffix("/"))


def _services(names: Sequence[str]) -> dict[str, tuple[StorePath, ...]]:
    """Return the subtrees of each service that presets name."""
    found: dict[str, tuple[StorePath, ...]] = {}
    for name in names:
        presets.load(name)  # says what is known when it is unknown
        services = [name] if "/" in name else [each for each in presets.names() if each.startswith(f"{name}/")]
        for service in services:
            key = service.partition("/")[2]
            found[key] = tuple(sorted({*found.get(key, ()), *presets.roots(service)}))
    return found


def _names(ring: Keyring) -> str:
    return ", ".join(shown(store) or "/" for store in sorted({key.subtree for key in ring.keys}))


def _secrets(master: Master | None) -> str:
    count = len(master.secrets) if master else 0
    return f"{count} secret{'s' if count != 1 else ''}"


def _key_fields(key: Key) -> dict[str, object]:
    return {"id": key.id, "subtree": key.subtree or "/", "made": key.made or None}


# status


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """A key, or what is plain. key: None for one that is not known here. newest: its subtree's."""

    id: str
    key: Key | None
    newest: bool
    counts: Counter[Family]

    @property
    def state(self) -> str:
        if self.key is None:
            return "unknown"
        if self.newest:
            return "newest"
        return "old" if self.counts.total() else "not needed"


def _status(args: argparse.Namespace) -> int:
    file = _keyring_file(args)
    ring = file.read() if file else None
    with open_tree(args, keyring=ring, policy=Policy.ACCEPT if ring else Policy.OFF) as tree:
        with Progress("looked at") as progress:
            found = survey(tree, ring, step=progress.step)
        lacking = _lacking(tree, ring) if ring else []
    rows = _rows(ring, found)
    unneeded = [row for row in rows if row.state == "not needed"]
    if args.json:
        write_json(
            {
                "keys": [
                    {
                        "id": row.id,
                        "subtree": (row.key.subtree or "/") if row.key else None,
                        "made": (row.key.made or None) if row.key else None,
                        "state": row.state if ring else None,
                        "needed": row.counts.total() > 0,
                        **_counted(row.counts),
                    }
                    for row in rows
                ],
                "plain": _counted(found.plain),
                "due": found.due if ring else None,
                "unreadable": [{"path": at, "why": why} for at, why in found.unreadable.items()],
                "lacking": [
                    {"mapping": report.mapping, "replica": report.replica, "host": report.host, "key": key.id}
                    for report, key in lacking
                ],
            }
        )
    else:
        _write_rows(rows, found, known=ring is not None)
    for row in rows:
        if ring and row.key is None:
            say(f"key {row.id}: no keyring here has it: {row.counts.total()} values cannot be opened")
    if found.plain.total():
        say(f"plain: {found.plain.total()}; whoever reads the store, or a backup of it, reads that")
    if ring and found.due:
        say(f"to be sealed again: {found.due}; `configstore seal rotate` does it")
    if unneeded:
        say("nothing needs the keys of state `not needed` any more: `configstore seal forget` drops them")
    say_all(_words_of_lack(report, key) for report, key in lacking)
    say_all(f"{at}: cannot be read: {why}" for at, why in found.unreadable.items())
    if ring is None:
        say("without a keyring only ids are known: --seal-keyring FILE, such as the master, says whose they are")
    return NotThereError.exit_code if found.unreadable or (ring and found.unknown) else 0


def _counted(counts: Counter[Family]) -> dict[str, int]:
    return {str(family): counts[family] for family in Family}


def _rows(ring: Keyring | None, found: Survey) -> list[_Row]:
    known = {key.id: key for key in ring.keys} if ring else {}
    newest: dict[StorePath, str] = {}
    for key in known.values():
        newest.setdefault(key.subtree, key.id)
    rows = [
        _Row(
            id=each,
            key=known.get(each),
            newest=each in newest.values(),
            counts=found.keys.get(each, Counter()),
        )
        for each in dict.fromkeys([*known, *sorted(found.keys)])
    ]
    return sorted(rows, key=lambda row: (row.key is None, row.key.subtree if row.key else ""))


_STYLES = {"newest": Style.GOOD, "old": Style.WARN, "unknown": Style.BAD, "not needed": Style.DIM}


def _write_rows(rows: Sequence[_Row], found: Survey, *, known: bool) -> None:
    moment = moment_now()
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        counts = tuple(str(row.counts[family]) for family in Family)
        made = when(row.key.made, moment) if row.key and row.key.made else "-"
        state: Cell = (row.state, _STYLES[row.state]) if known else "-"
        subtree = (shown(row.key.subtree) if row.key.subtree else "/") if row.key else "-"
        lines.append((row.id, subtree, *counts, state, made))
    plain = tuple(str(found.plain[family]) for family in Family)
    lines.append(("plain", "-", *plain, ("plain", Style.WARN) if found.plain.total() else "-", "-"))
    table(("KEY", "SUBTREE", *(str(family).upper() for family in Family), "STATE", "MADE"), lines)


def _keyring_file(args: argparse.Namespace) -> KeyringFile | None:
    path = seal_settings(args).keyring
    return KeyringFile(path) if path else None


# rotate


class _StoppedError(Exception):
    """A signal came."""


def _rotate(args: argparse.Namespace) -> int:
    stop = threading.Event()
    with _master_folder(args) as folder, Stopping() as stopping:
        rotation = _Rotation(args, folder, stop)
        stopped = stopping.run(rotation.work, stop.set)
    return rotation.report(stopped=stopped)


def _master_folder(args: argparse.Namespace) -> AbstractContextManager[Folder]:
    """Open the folder of the master that the settings name. Raises UsageError, RefusedError."""
    path = seal_settings(args).keyring
    verb = "it needs the master that `configstore seal keygen` made"
    if not path:
        raise UsageError(f"{verb}: --seal-keyring DIR/master, or CONFIGSTORE_SEAL_KEYRING")
    file = KeyringFile(path)
    file.read()
    if not file.master:
        raise RefusedError(f"keyring {printable(path)}: opens some subtrees and is no master; {verb}")
    return opened(os.path.dirname(path) or ".", master_name=os.path.basename(path))


class _Rotation:
    """One run of `rotate`."""

    def __init__(self, args: argparse.Namespace, folder: Folder, stop: threading.Event) -> None:
        self._args = args
        self._folder = folder
        self._stop = stop
        self._next = 0.0
        self.new = False
        self.written: list[str] = []
        self.sealed = 0
        self.again = False  # the last pass still found something
        self.left: dict[str, str] = {}
        self.left_count = 0

    @property
    def _ring(self) -> Keyring:
        return self._folder.the_master().keyring()

    def work(self) -> None:
        """Do it. Raises RefusedError, StoreError; returns early when it is stopped."""
        args = self._args
        policy = Policy.OFF if args.unseal else Policy.ACCEPT
        with open_tree(args, keyring=self._ring, policy=policy) as tree:
            try:
                if not args.unseal:
                    self._bring_keys(tree)
                self._seal(tree)
            except _StoppedError:
                pass

    def _bring_keys(self, tree: Tree) -> None:
        """Make a new key, unless the newest one is not everywhere yet; and see that the replicas have it."""
        self.written = self._folder.sync()
        if not self._is_unfinished(tree):
            self._folder.renew(made=now())
            self.new = True
            tree.envelopes.keyring = self._ring
            say(f"a new key is in {self._folder.master_file} and in the keyrings beside it")
        end = time.monotonic() + PATIENCE
        told = False
        while lacking := _lacking(tree, self._ring):
            if self._args.anyway:
                say_all(_words_of_lack(report, key) for report, key in lacking)
                return
            if time.monotonic() >= end:
                files = "; ".join(self._whom_to_give(report, key) for report, key in lacking)
                raise RefusedError(
                    f"live replicas do not have the newest keys, and could not read what they seal: {files}."
                    " Then run it again, it goes on; `--anyway` does not wait for them"
                )
            if not told:
                say(f"waiting for {len(lacking)} replicas to have the newest keys")
                told = True
            self._pause(1.0)

    def _whom_to_give(self, report: Report, key: Key) -> str:
        files = [
            self._folder.file(name)
            for name, ring in sorted(self._folder.keyrings.items())
            if any(each.subtree == key.subtree for each in ring.keys)
        ]
        return f"{_words_of_lack(report, key)}: give it {' or '.join(files) or 'a keyring of that subtree'}"

    def _is_unfinished(self, tree: Tree) -> bool:
        """Tell whether something is to be sealed again that can be opened."""
        resealing = self._resealing(tree)
        with Progress("looked at") as progress:
            for value in values(tree):
                progress.step()
                self._pause(0.0)
                try:
                    if resealing.is_due(value) and resealing.opens(value):
                        return True
                except LeftError:
                    continue
        return False

    def _resealing(self, tree: Tree) -> Resealing:
        return Resealing(tree, self._ring, unseal=self._args.unseal, retention=RETENTION, clock=boottime)

    def _seal(self, tree: Tree) -> None:
        resealing = self._resealing(tree)
        total = survey(tree, self._ring, unseal=self._args.unseal, step=lambda: self._pause(0.0)).due
        verb = "unsealed" if self._args.unseal else "sealed"
        with Progress(verb, total) as progress:
            for _ in range(PASSES):
                self.left, self.left_count, before = {}, 0, self.sealed
                for value in values(tree):
                    self._pause(0.0)
                    try:
                        if not resealing.seal(value):
                            continue
                    except LeftError as error:
                        self._leave(value.shown(), str(error))
                        continue
                    self.sealed += 1
                    progress.at(self.sealed, max(total, self.sealed))
                    self._keep_rate()
                self.again = self.sealed != before
                if not self.again:
                    return

    def _leave(self, at: str, why: str) -> None:
        self.left_count += 1
        if len(self.left) < _NAMED:
            self.left[at] = why

    def _keep_rate(self) -> None:
        instant = time.monotonic()
        self._next = max(self._next, instant) + 1 / self._args.rate
        self._pause(self._next - instant)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)) if seconds > 0 else self._stop.is_set():
            raise _StoppedError

    def report(self, *, stopped: bool) -> int:
        """Tell how it went; returns the exit code."""
        verb = "unsealed" if self._args.unseal else "sealed"
        if self._args.json:
            write_json(
                {
                    "new_key": self.new,
                    verb: self.sealed,
                    "stopped": stopped,
                    "left": [{"path": at, "why": why} for at, why in self.left.items()],
                    "left_count": self.left_count,
                }
            )
        say_all(f"{at}: left as it is: {why}" for at, why in self.left.items())
        if self.left_count > len(self.left):
            say(f"and {self.left_count - len(self.left)} more were left as they are")
        if stopped:
            say(f"stopped: {self.sealed} were {verb}; run it again to go on")
            return NotThereError.exit_code
        if self.again:
            say(f"{self.sealed} were {verb}; others go on writing otherwise: see `configstore seal status`")
            return NotThereError.exit_code
        rest = f"; {self.left_count} were left" if self.left_count else ""
        say(f"{verb}: {self.sealed}{rest}")
        return NotThereError.exit_code if self.left_count else 0


def _lacking(tree: Tree, ring: Keyring) -> list[tuple[Report, Key]]:
    """Return the live replicas that could not read what the newest key of their mapping's subtree seals."""
    try:
        answers = ask_reports(tree.kv, tree.keys)
        reports = [*answers.fresh, *answers.late]
    except (PermissionDeniedError, NoSpaceError):  # whoever may only read has what they said last
        reports = [report for report, _ in live(tree.kv, tree.keys).values()]
    found = []
    for report in sorted(reports, key=lambda each: (each.mapping, each.replica)):
        key = ring.for_writing(report.store)
        if key and key.id not in _held(report):
            found.append((report, key))
    return found


def _held(report: Report) -> Collection[str]:
    """Return the ids of the keys that a replica says it has; one without a keyring says nothing."""
    return report.keys or ()


def _words_of_lack(report: Report, key: Key) -> str:
    return (
        f"{report.mapping}: {report.replica} on {report.host} does not have the key {key.id} of"
        f" {shown(key.subtree) if key.subtree else '/'}"
    )


# forget


def _forget(args: argparse.Namespace) -> int:
    with _master_folder(args) as folder:
        master = folder.the_master()
        ring = master.keyring()
        with open_tree(args, keyring=ring, policy=Policy.ACCEPT) as tree:
            lacking = [] if args.anyway else _lacking(tree, ring)
            with Progress("looked at") as progress:
                found = survey(tree, ring, step=progress.step)
        if lacking:
            who = "; ".join(_words_of_lack(report, key) for report, key in lacking)
            raise RefusedError(f"live replicas may still write with an old key: {who}; nothing was dropped")
        doomed = [secret for secret in master.secrets[1:] if not _is_needed(master, secret, found)]
        if doomed:
            folder.sync()
            folder.forget(doomed)
    gone = [secret.key(store).id for secret in doomed for store in (*master.subtrees, ROOT)]
    kept = len(master.secrets) - len(doomed)
    if args.json:
        write_json({"dropped": gone, "kept": kept})
    if not doomed:
        say(f"nothing was dropped: {'something needs each of the keys' if kept > 1 else 'there is one key alone'}")
        return 0
    if not args.json:
        for name in gone:
            write_line(name)
    say(
        f"dropped {len(doomed)} of {len(master.secrets)} secrets from {folder.master_file} and the keyrings beside"
        " it: give the services theirs. Snapshots of etcd from before the last `seal rotate` want the old master"
    )
    return 0


def _is_needed(master: Master, secret: Secret, found: Survey) -> bool:
    return any(found.needs(secret.key(store).id) for store in (*master.subtrees, ROOT))
