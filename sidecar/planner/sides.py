"""The values that the planner compares: what lies locally, in the store, and what both last agreed on.

Paths are relative to the mapping's subtree. `local` makes LocalEntry, `remote` makes RemoteEntry, `baseline`
keeps Agreed and Sent. `three_sides.Sides` holds them all.
"""

import msgspec

from configstore.model.record import Deletion, Entry
from configstore.model.signature import Signature


class LocalEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What lies at a local path. `entry` has the real mode and the owner's numbers (and names where known)."""

    entry: Entry
    signature: Signature


class RemoteEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the store holds for a path, at which mod_revision; `supersedes`: that of the record it replaced.

    write_id: of the write that made it. After a restore another write may have the same mod_revision.
    deletion: of a tombstone, what a person deleted together with it.
    """

    entry: Entry
    mod_revision: int
    supersedes: int = 0
    write_id: str = ""
    deletion: Deletion | None = None


class Agreed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What store and replica last agreed on for one path.

    Both sides are kept, because a replica may be unable to show what the store says to the letter (an owner
    that a mapping overrides, a mode it forces): a change is a difference to one's own side.
    """

    local: Entry
    remote: Entry
    mod_revision: int
    write_id: str = ""
    ino: int = 0


class Sent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A write that was sent, or is about to be, and of which it is not known yet whether it was made.

    write_id: by which the store's record is recognised as this write. local: what lay here when it was sent, None
    for a delete; ino: its inode. expected: the mod_revision that the write replaces: it is made there or never.
    """

    write_id: str
    local: Entry | None
    ino: int = 0
    expected: int = 0


def agreement(local: Entry, remote: RemoteEntry, ino: int = 0) -> Agreed:
    """Return what it means for both sides to agree that what the store holds is shown as `local`."""
    return Agreed(
        local=local, remote=remote.entry, mod_revision=remote.mod_revision, write_id=remote.write_id, ino=ino
    )
