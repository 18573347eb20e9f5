"""The three-way comparison: decides what to do about one path from baseline, local, remote and policy.

The rules, in the order in which they are applied (docs/semantics.md shows every combination):

1. A record that vanished without a tombstone is an anomaly and never deletes a file.
2. Equal on both sides: an agreement, whoever made the change.
3. Without a baseline nothing is ever deleted.
4. Changed on both sides: an edit beats a delete; of two edits the store's wins and the local one is kept. In a
   mapping that only pushes the local one wins.
5. Changed on one side only: the change is taken over by the other.
6. The direction and the lease may forbid what follows from that (`_with_direction`). With `create_once` the
   store's first version wins already in 4 and 5.

Called by the planner; `same_local`, `shows` and `as_shown` also by others that compare the two sides.
"""

import enum

import msgspec

from configstore.model.record import Entry, Kind
from configstore.model.selection import Direction
from sidecar.mapping import Mapping
from sidecar.planner.sides import Agreement, LocalEntry, RemoteEntry


class Verdict(enum.StrEnum):
    """What to do about one path."""

    NOTHING = "nothing"
    AGREE = "agree"
    FORGET = "forget"
    PUSH = "push"
    PULL = "pull"
    CONFLICT = "conflict"  # keep the local side under conflicts/, then pull
    VANISHED = "vanished"
    LOCAL_ONLY = "local only"  # made locally in a mapping that only pulls
    LOCAL_DRIFT = "local drift"  # edited locally in a mapping that only pulls
    REMOTE_DRIFT = "remote drift"  # edited in the store in a mapping that only pushes


REASONS = {
    Verdict.LOCAL_ONLY: "made here, and this mapping only pulls: it stays here, with all that is in it, and is not"
    " sent. Exclude it, or `configstore put` it into the store",
    Verdict.VANISHED: "its record vanished from the store without a tombstone (a raw delete, or a restored or "
    "foreign etcd); the file is kept and nothing is pushed. `configstore resolve PATH --take local` writes it"
    " again, `--take store` deletes it; `configstore resume MAPPING --take …` all of them",
    Verdict.LOCAL_DRIFT: "edited here, but this replica may only pull; the edit stays until the store changes",
    Verdict.REMOTE_DRIFT: "changed in the store, but this mapping only pushes; the next local edit replaces it",
}


def reason(verdict: Verdict, mapping: Mapping) -> str:
    """Return why a path with this verdict is a problem, and what to do about it."""
    if verdict is Verdict.LOCAL_DRIFT and mapping.lease and mapping.direction is not Direction.PULL:
        return (
            f"changed here without the lease {mapping.lease}, so it is not pushed; this replica pushes it when it"
            " holds the lease next, unless the store changes or another holds the lease before: then it is kept"
            " under conflicts/"
        )
    if verdict is Verdict.LOCAL_DRIFT and mapping.direction is not Direction.PULL:
        return "edited here since it was placed; `run` sends it, into a subtree that is there"
    return REASONS[verdict]


def decide(
    base: Agreement | None, local: LocalEntry | None, remote: RemoteEntry | None, mapping: Mapping, *, pushes: bool
) -> Verdict:
    """Return what to do about one path. A tombstone is a remote entry of kind `gone`.

    pushes: false where the replica must not write: the direction is `pull`, the mapping's lease is not held, its
    phase sends nothing, or this is `init`.
    """
    if remote is None and base is not None:
        return Verdict.FORGET if local is None else Verdict.VANISHED
    if _equal(local, remote, mapping):
        return _equal_sides(base, local, remote)
    verdict = _first_contact(local, remote, mapping) if base is None else _changed(base, local, remote, mapping)
    return _with_direction(verdict, base, local, remote, mapping, pushes=pushes)


def _equal(local: LocalEntry | None, remote: RemoteEntry | None, mapping: Mapping) -> bool:
    if local is None or remote is None or remote.entry.kind is Kind.GONE:
        return local is None and (remote is None or remote.entry.kind is Kind.GONE)
    return shows(local.entry, remote.entry, mapping)


def _equal_sides(base: Agreement | None, local: LocalEntry | None, remote: RemoteEntry | None) -> Verdict:
    if local is None or remote is None:
        return Verdict.NOTHING if base is None else Verdict.FORGET
    same = base is not None and base.mod_revision == remote.mod_revision and same_local(base.local, local.entry)
    return Verdict.NOTHING if same else Verdict.AGREE


def _first_contact(local: LocalEntry | None, remote: RemoteEntry | None, mapping: Mapping) -> Verdict:
    if local is None:
        return Verdict.PULL
    if remote is None or remote.entry.kind is Kind.GONE:
        return Verdict.PUSH
    if mapping.direction is Direction.PUSH and not mapping.create_once:
        return Verdict.PUSH
    return Verdict.CONFLICT


def _changed(base: Agreement, local: LocalEntry | None, remote: RemoteEntry | None, mapping: Mapping) -> Verdict:
    here = local is None or not same_local(base.local, local.entry)
    there = remote is not None and remote.mod_revision != base.mod_revision and not stored_again(base, remote)
    remote_lives = remote is not None and remote.entry.kind is not Kind.GONE
    if mapping.create_once and here and remote_lives:
        return Verdict.PULL if local is None else Verdict.CONFLICT
    if here and there and remote is not None:
        if local is None:
            return Verdict.PULL
        no_edit = not remote_lives or same_local(base.remote, remote.entry)  # deleted there, or written unchanged
        return Verdict.PUSH if no_edit or mapping.direction is Direction.PUSH else Verdict.CONFLICT
    if here:
        return Verdict.PUSH
    if stored_again(base, remote):
        return Verdict.AGREE
    return Verdict.PULL if there else Verdict.NOTHING


def stored_again(base: Agreement | None, remote: RemoteEntry | None) -> bool:
    """Return whether a record is the agreed write at a new revision, such as one sealed again with another key."""
    return (
        base is not None
        and remote is not None
        and remote.mod_revision != base.mod_revision
        and bool(base.write_id)
        and (base.write_id, base.remote) == (remote.write_id, remote.entry)
    )


def _with_direction(
    verdict: Verdict,
    base: Agreement | None,
    local: LocalEntry | None,
    remote: RemoteEntry | None,
    mapping: Mapping,
    *,
    pushes: bool,
) -> Verdict:
    if verdict is Verdict.PUSH and not pushes:
        if local is None and remote is not None:
            return Verdict.PULL  # a delete that may not be pushed is undone
        tombstone = remote is not None and remote.entry.kind is Kind.GONE
        if mapping.direction is Direction.PULL and (base is None or tombstone):
            return Verdict.LOCAL_ONLY
        if mapping.lease is None and (base is None or tombstone):
            return Verdict.NOTHING  # only here, and it is pushed once this replica may push
        return Verdict.LOCAL_DRIFT
    if mapping.direction is Direction.PUSH and verdict in {Verdict.PULL, Verdict.CONFLICT}:
        return Verdict.NOTHING if base is None else Verdict.REMOTE_DRIFT
    return verdict


def shows(local: Entry, remote: Entry, mapping: Mapping) -> bool:
    """Return whether a local entry is exactly what a replica of this mapping makes of a record."""
    wanted = as_shown(remote, mapping)
    return (
        local.same_content(wanted)
        and (local.kind is Kind.SYMLINK or local.mode == wanted.mode)
        and (wanted.uid is None or local.uid == wanted.uid)
        and (wanted.gid is None or local.gid == wanted.gid)
    )


def as_shown(remote: Entry, mapping: Mapping) -> Entry:
    """Return a record's entry with the mode and owner that the mapping forces."""
    forced = {Kind.FILE: mapping.file_mode, Kind.DIR: mapping.dir_mode}.get(remote.kind)
    uid, gid = mapping.owner.uid, mapping.owner.gid
    if forced is None and uid is None and gid is None:
        return remote
    return msgspec.structs.replace(
        remote,
        mode=remote.mode if forced is None else forced,
        uid=remote.uid if uid is None else uid,
        gid=remote.gid if gid is None else gid,
    )


def same_local(before: Entry, now: Entry) -> bool:
    """Return whether nothing changed locally. Owner names are not compared: they follow from the numbers."""
    return (before.same_content(now) and before.mode == now.mode
            and (before.uid, before.gid) == (now.uid, now.gid))  # fmt: skip


def as_pushed(base: Agreement | None, local: Entry, mapping: Mapping) -> Entry:
    """Return the entry to push for a local one.

    A mode or owner that did not change locally keeps the store's value: this replica may be unable to show it
    exactly, and must not overwrite it. A mode or owner that the mapping overrides is never pushed.
    """
    entry = local
    remote = base.remote if base and base.remote.kind is local.kind else None
    forced = {Kind.FILE: mapping.file_mode, Kind.DIR: mapping.dir_mode}.get(local.kind)
    if base and remote and (local.mode == base.local.mode or forced is not None):
        entry = msgspec.structs.replace(entry, mode=remote.mode)
    if mapping.owner.uid is not None or (base and remote and local.uid == base.local.uid):
        entry = msgspec.structs.replace(
            entry, uid=remote.uid if remote else None, user=remote.user if remote else None
        )
    if mapping.owner.gid is not None or (base and remote and local.gid == base.local.gid):
        entry = msgspec.structs.replace(
            entry, gid=remote.gid if remote else None, group=remote.group if remote else None
        )
    return entry
