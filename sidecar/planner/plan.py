"""The plan: the ordered changes that one cycle makes. `planner` makes it, `cycle.execute` carries it out."""

import enum

import msgspec

from configstore.model.path import StorePath
from configstore.model.problem import Problem
from configstore.model.record import Deletion, Entry, Kind
from sidecar.planner.sides import Agreement, LocalEntry, RemoteEntry


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """Write a path's local state, or a tombstone, to the store.

    entry: the record's entry. local: the local state that it was made from; None for a delete, and for a directory
    whose record is only written again in the store (the next plan brings it here). expected: the mod_revision that
    the record must have, 0 for none. move: whether it is half of a rename within the mapping, so that its delete
    does not wait. in_set: pushes of one set are committed in one transaction if they fit into one. deletion: for a
    tombstone, the deletion that it is part of.
    """

    path: StorePath
    entry: Entry
    local: LocalEntry | None
    expected: int
    move: bool = False
    in_set: int = 0
    deletion: Deletion | None = None


class Pull(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Bring a path to the store's state in the mirrored directory; a tombstone removes it.

    local: the local state that is overwritten; any other stays. keep: whether the local content is kept below
    `conflicts/` first, since the store never had it. group: pulls of one group are applied together or not at all.
    yields: whether a local change that may not be pushed gives way here, so that a removal is nobody's delete.
    """

    path: StorePath
    remote: RemoteEntry
    local: LocalEntry | None
    keep: bool = False
    group: int = 0
    yields: bool = False


class Wait(enum.StrEnum):
    """Why a path was left for a later cycle, as an operator reads it."""

    SETTLE = "what was changed together with it is still being changed"
    DELETE = "a delete waits until no more is deleted"
    UNSTABLE = "a program has it open for writing"
    BACKOFF = "it failed, and is tried again after a pause"
    AGAIN = "it was changed while it was sent or placed"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one cycle is to do, in the order in which it is to be done.

    agree: paths whose two sides are equal already, with their agreement. forget: paths that are gone on both
    sides. waiting: paths that a later cycle plans again, and why. problems: paths that are left alone, and why.
    mixed: paths whose pull replaces one member of a set that was changed here, with the members that stay.
    waiting_for, halted: why nothing of the plan may be done now.
    """

    push: tuple[Push, ...] = ()
    pull: tuple[Pull, ...] = ()
    agree: dict[StorePath, Agreement] = {}
    forget: tuple[StorePath, ...] = ()
    waiting: dict[StorePath, Wait] = {}
    problems: dict[StorePath, Problem] = {}
    mixed: dict[StorePath, tuple[StorePath, ...]] = {}
    waiting_for: str | None = None
    halted: str | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing would be changed on either side."""
        return not (self.push or self.pull)

    def with_deletion(self, deletion: Deletion) -> "Plan":
        """Return the plan with each tombstone, except those of moves, as part of one deletion."""
        pushes = (
            msgspec.structs.replace(push, deletion=deletion) if deletes(push) else push for push in self.push
        )
        return msgspec.structs.replace(self, push=tuple(pushes))


def deletes(push: Push) -> bool:
    """Return whether a push deletes a path, and is not just half of a move."""
    return push.entry.kind is Kind.GONE and not push.move
