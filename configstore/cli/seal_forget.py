"""`seal forget`: deletes the old keys that nothing in the store needs."""

import argparse

from configstore.cli.render import write_json, write_line
from configstore.cli.seal_keys import lacking, master_folder, words_of_lack
from configstore.cli.session import open_tree, say
from configstore.errors import RefusedError
from configstore.model.path import ROOT
from configstore.model.seal import Master, Policy, Secret
from configstore.progress import Progress
from configstore.store.sealed_values import SealCounts, count_seals


def run(args: argparse.Namespace) -> int:
    """Run `seal forget` and return its exit code."""
    with master_folder(args) as folder:
        master = folder.the_master()
        ring = master.keyring()
        with open_tree(args, keyring=ring, policy=Policy.ACCEPT) as tree:
            lack = [] if args.anyway else lacking(tree, ring)
            with Progress("looked at") as progress:
                found = count_seals(tree, ring, step=progress.step)
        if lack:
            who = "; ".join(words_of_lack(report, key) for report, key in lack)
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
        say(f"nothing was dropped: {'something needs each of the keys' if kept > 1 else 'there is only one key'}")
        return 0
    if not args.json:
        for name in gone:
            write_line(name)
    say(
        f"dropped {len(doomed)} of {len(master.secrets)} secrets from {folder.master_file} and the keyrings beside"
        " it: give the services theirs. Snapshots of etcd from before the last `seal rotate` need the old master"
    )
    return 0


def _is_needed(master: Master, secret: Secret, found: SealCounts) -> bool:
    return any(found.needs(secret.key(store).id) for store in (*master.subtrees, ROOT))
