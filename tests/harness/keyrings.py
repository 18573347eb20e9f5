"""Keyrings for tests of the daemon: some generations of keys of one store, and another store's."""

import itertools

from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.seal import Master, Policy, Secret, dump
from configstore.store.envelope import Envelopes
from tests.harness.named import a_tree

DATA = StorePath("data")
FIRST, SECOND, THIRD, FOURTH, FOREIGN = (
    Secret(secret=letter * 32, made="2026-11-01T00:00:00Z") for letter in (b"1", b"2", b"3", b"4", b"f")
)
_ids = itertools.count()


def master(*secrets):
    """Return a master with secrets, the newest first."""
    return Master(secrets=secrets, subtrees=(DATA, StorePath("other")))


def ring(*secrets, subtrees=(DATA,)):
    """Return the keyring of some subtrees, with a key of each secret, the newest first."""
    return master(*secrets).keyring_of(subtrees)


def save(path, keyring):
    """Write a keyring's file in one piece, and return its path."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(dump(keyring))
    new.chmod(0o600)
    new.rename(path)
    return path


def table(path, policy=None):
    """Return the settings that name a keyring."""
    return f'[seal]\nkeyring = "{path}"\n' + (f'policy = "{policy}"\n' if policy else "")


def sealed_tree(kv, root, keyring, policy=Policy.REQUIRED):
    """Return a tree of somebody else's with a keyring; None for none, as the command without one."""
    policy = policy if keyring else Policy.OFF
    return a_tree(kv, root, envelopes=Envelopes(root, keyring=keyring, policy=lambda _: policy))


def raw(kv, root, path):
    """Return what lies under the key of a path's record."""
    items = kv.range(Keys(root).file(StorePath(path))).items
    return items[0].value if items else b""


def everything(kv, root):
    """Return all keys and values of a store, in one."""
    return b"".join(
        item.key + b"\n" + item.value + b"\n" for item in kv.range(root.encode(), root.encode() + b"0").items
    )
