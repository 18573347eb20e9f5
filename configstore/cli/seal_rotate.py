"""`seal rotate`: makes a new key and seals everything with it, or writes everything plain again."""

import argparse
import threading
import time

from configstore.cli.render import reasons, write_json
from configstore.cli.seal_keys import lacking, master_folder, words_of_lack
from configstore.cli.session import now, open_tree, say, say_all
from configstore.cli.stopping import Stopping
from configstore.clock import boottime
from configstore.errors import NotThereError, RefusedError
from configstore.keyrings.folder import KeyringFolder
from configstore.model.path import ROOT
from configstore.model.replica import Report
from configstore.model.seal import Key, Keyring, Policy
from configstore.progress import Progress
from configstore.settings import RETENTION
from configstore.store.resealing import LeftError, Resealing
from configstore.store.sealed_values import count_seals, values
from configstore.store.tree import Tree

PATIENCE = 30.0
"""Seconds to wait until live replicas have the new keys; a sidecar reads a changed keyring within 10."""

PASSES = 5
"""The most passes through the store while other writers use older keys, or none."""

_NAMED = 100
"""The most values for which the reason is printed why they were left."""


class _StoppedError(Exception):
    """SIGINT or SIGTERM came."""


def run(args: argparse.Namespace) -> int:
    """Run `seal rotate` and return its exit code."""
    stop = threading.Event()
    with master_folder(args) as folder, Stopping() as stopping:
        rotation = _Rotation(args, folder, stop)
        stopped = stopping.run(rotation.work, stop.set)
    return rotation.report(stopped=stopped)


class _Rotation:
    """One run of `rotate`."""

    def __init__(self, args: argparse.Namespace, folder: KeyringFolder, stop: threading.Event) -> None:
        self._args = args
        self._folder = folder
        self._stop = stop
        self._next = 0.0
        self.new = False
        self.sealed = 0
        self.again = False  # whether the last pass still sealed something
        self.left: dict[str, str] = {}
        self.left_count = 0

    @property
    def _ring(self) -> Keyring:
        return self._folder.the_master().keyring()

    def work(self) -> None:
        """Make the keys and seal. Returns early on a signal. Raises RefusedError, StoreError."""
        args = self._args
        policy = Policy.OFF if args.unseal else Policy.ACCEPT
        if args.unseal:
            say(
                "sidecars refuse plain records unless they were started with CONFIGSTORE_SEAL=off or accept before"
            )
        with open_tree(args, keyring=self._ring, policy=policy) as tree:
            try:
                if not args.unseal:
                    self._bring_keys(tree)
                self._seal(tree)
            except _StoppedError:
                pass

    def _bring_keys(self, tree: Tree) -> None:
        """Make a new key, unless an earlier rotation is not finished, and wait until the replicas have it."""
        if completed := self._folder.sync():
            names = ", ".join(self._folder.file(name) for name in completed)
            say(f"a key was missing and is added in: {names}: give them to their sidecars")
        if not self._is_unfinished(tree):
            self._folder.renew(made=now())
            self.new = True
            tree.envelopes.keyring = self._ring
            say(f"a new key is in {self._folder.master_file} and in the keyrings beside it")
        end = time.monotonic() + PATIENCE
        said = False
        while lack := lacking(tree, self._ring):
            if self._args.anyway:
                say_all(words_of_lack(report, key) for report, key in lack)
                return
            if time.monotonic() >= end:
                files = "; ".join(self._whom_to_give(report, key) for report, key in lack)
                raise RefusedError(
                    f"live replicas do not have the newest keys, and could not read what they seal: {files}."
                    " Then run this again, it continues; `--anyway` does not wait for them"
                )
            if not said:
                say(f"waiting for replicas to have the newest keys: {len(lack)}")
                said = True
            self._pause(1.0)

    def _whom_to_give(self, report: Report, key: Key) -> str:
        files = [
            self._folder.file(name)
            for name, ring in sorted(self._folder.keyrings.items())
            if any(each.subtree == key.subtree for each in ring.keys)
        ]
        return f"{words_of_lack(report, key)}: give it {' or '.join(files) or 'a keyring of that subtree'}"

    def _is_unfinished(self, tree: Tree) -> bool:
        """Tell whether something is to be sealed again that can be opened, or nothing has the newest key yet."""
        resealing = self._resealing(tree)
        master = self._folder.the_master()
        newest = {master.secrets[0].key(subtree).id for subtree in (*master.subtrees, ROOT)}
        used = False
        with Progress("looked at") as progress:
            for value in values(tree):
                progress.step()
                self._pause(0.0)
                try:
                    if resealing.is_due(value) and resealing.opens(value):
                        return True
                except LeftError:
                    continue
                used = used or value.sealed_with() in newest
        return not used

    def _resealing(self, tree: Tree) -> Resealing:
        return Resealing(tree, self._ring, unseal=self._args.unseal, retention=RETENTION, clock=boottime)

    def _seal(self, tree: Tree) -> None:
        resealing = self._resealing(tree)
        total = count_seals(tree, self._ring, unseal=self._args.unseal, step=lambda: self._pause(0.0)).due
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
        """Print the result; return the exit code."""
        verb = "unsealed" if self._args.unseal else "sealed"
        if self._args.json:
            write_json(
                {
                    "new_key": self.new,
                    verb: self.sealed,
                    "stopped": stopped,
                    "left": reasons(self.left),
                    "left_count": self.left_count,
                }
            )
        say_all(f"{at}: left as it is: {why}" for at, why in self.left.items())
        if self.left_count > len(self.left):
            say(f"and {self.left_count - len(self.left)} more were left as they are")
        if stopped:
            say(f"stopped: {self.sealed} were {verb}; run this again to continue")
            return NotThereError.exit_code
        if self.again:
            say(f"{self.sealed} were {verb}; others still write with other keys: see `configstore seal status`")
            return NotThereError.exit_code
        rest = f"; {self.left_count} were left" if self.left_count else ""
        say(f"{verb}: {self.sealed}{rest}")
        if not self.new and not self._args.unseal:
            say("no key was made, since not all was sealed with the newest one; run this again to make one")
        return NotThereError.exit_code if self.left_count else 0
