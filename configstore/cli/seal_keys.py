"""What the verbs of `seal` share: the keyring of the settings, and the replicas that lack its newest keys."""

import argparse
import os
from collections.abc import Collection
from contextlib import AbstractContextManager

from configstore.cli.arguments import seal_settings
from configstore.errors import NoSpaceError, PermissionDeniedError, RefusedError, UsageError
from configstore.keyrings.file import KeyringFile
from configstore.keyrings.folder import KeyringFolder, opened
from configstore.model.path import printable, shown
from configstore.model.replica import Report
from configstore.model.seal import Key, Keyring
from configstore.store.replicas import live_reports
from configstore.store.report_feed import ask_reports
from configstore.store.tree import Tree


def keyring_file(args: argparse.Namespace) -> KeyringFile | None:
    """Return the keyring of the settings; None for none."""
    path = seal_settings(args).keyring
    return KeyringFile(path) if path else None


def master_folder(args: argparse.Namespace) -> AbstractContextManager[KeyringFolder]:
    """Open the folder of the master in the settings. Raises UsageError, RefusedError."""
    path = seal_settings(args).keyring
    need = "the master is needed that `configstore seal keygen` made"
    if not path:
        raise UsageError(f"{need}: --seal-keyring DIR/master, or CONFIGSTORE_SEAL_KEYRING")
    file = KeyringFile(path)
    file.read()
    if not file.master:
        raise RefusedError(f"keyring {printable(path)}: opens some subtrees and is no master; {need}")
    return opened(os.path.dirname(path) or ".", master_name=os.path.basename(path))


def lacking(tree: Tree, ring: Keyring) -> list[tuple[Report, Key]]:
    """Return the live replicas that could not read what the newest key of their mapping's subtree seals."""
    try:
        answers = ask_reports(tree)
        reports = [*answers.fresh, *answers.late]
    except (PermissionDeniedError, NoSpaceError):  # without the right to write a request, the last reports must do
        reports = live_reports(tree)
    found = []
    for report in sorted(reports, key=lambda each: (each.mapping, each.replica)):
        key = ring.for_writing(report.store)
        if key and key.id not in _held(report):
            found.append((report, key))
    return found


def _held(report: Report) -> Collection[str]:
    """Return the ids of the keys that a replica reports; none where it has no keyring."""
    return report.keys or ()


def words_of_lack(report: Report, key: Key) -> str:
    """Return the text about a replica that lacks a key."""
    return (
        f"{report.mapping}: {report.replica} on {report.host} does not have the key {key.id} of"
        f" {shown(key.subtree) if key.subtree else '/'}"
    )
