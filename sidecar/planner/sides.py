"""The values that the planner compares: the local state, the store's state, and the last agreement of both.

Paths are relative to the mapping's subtree. `sidecar.local` makes LocalEntry, `sidecar.remote` makes RemoteEntry,
`sidecar.state.baseline` stores Agreement and SentWrite. `ThreeSides` holds all of them.
"""

import msgspec

from configstore.model.record import Deletion, Entry
from configstore.model.signature import Signature


class LocalEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The local state of a path. `entry` has the real mode and the owner's numbers (and names where known)."""

    entry: Entry
    signature: Signature


class RemoteEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The store's record of a path.

    supersedes: the mod_revision of the record that it replaced. write_id: names the write that made the record;
    a restored snapshot can give the same mod_revision to another write. deletion: for a tombstone, the deletion
    that it is part of.
    """

    entry: Entry
    mod_revision: int
    supersedes: int = 0
    write_id: str = ""
    deletion: Deletion | None = None


class Agreement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What store and replica last agreed on for one path.

    Both sides are kept, since they may differ although they agree: a mapping can force a mode or override an
    owner. Each side is compared with its own part, so that this difference is never taken for a change.
    """

    local: Entry
    remote: Entry
    mod_revision: int
    write_id: str = ""
    ino: int = 0


class SentWrite(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A write that was sent, or is about to be sent, and whose result is not known yet.

    write_id: by which the store's record is recognised as this write. local: the local state that was sent, None
    for a delete; ino: its inode. expected: the mod_revision that the write replaces; the store compares it, so the
    write is made at that revision or never.
    """

    write_id: str
    local: Entry | None
    ino: int = 0
    expected: int = 0


def agreement(local: Entry, remote: RemoteEntry, ino: int = 0) -> Agreement:
    """Return the agreement that `local` is how this replica shows the store's record."""
    return Agreement(
        local=local, remote=remote.entry, mod_revision=remote.mod_revision, write_id=remote.write_id, ino=ino
    )
