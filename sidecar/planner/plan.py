"""The plan: the ordered changes that one cycle makes. A value; making it and carrying it out lie elsewhere."""

import enum

import msgspec

from configstore.model.path import StorePath
from configstore.model.problem import Problem
from configstore.model.record import Deletion, Entry, Kind
from sidecar.planner.sides import Agreed, LocalEntry, RemoteEntry


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """Write local state to the store, a tombstone included.

    entry: the record's entry. local: what it was taken from, None for a delete and for a directory that only the
    store is to have again (the next plan brings it here). expected: the path's mod_revision, 0 for none. move: the
    other half of a rename within the mapping, so it does not wait. in_set: pushes of one set are committed in one
    txn where they fit into one. deletion: of a tombstone, what goes together with it.
    """

    path: StorePath
    entry: Entry
    local: LocalEntry | None
    expected: int
    move: bool = False
    in_set: int = 0
    deletion: Deletion | None = None


class Pull(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Bring the store's state to the local directory; a tombstone removes.

    local: what must still lie there when it is overwritten. keep: keep the local content under `conflicts/`
    first, since the store has never seen it. group: pulls of one group are placed together or not at all. yields:
    what was changed here may not be pushed, and nobody deleted anything.
    """

    path: StorePath
    remote: RemoteEntry
    local: LocalEntry | None
    keep: bool = False
    group: int = 0
    yields: bool = False


class Wait(enum.StrEnum):
    """Why a path was left for a later cycle."""

    SETTLE = "what was changed together with it is still being changed"
    DELETE = "a delete waits until no more is deleted"
    UNSTABLE = "a program has it open for writing"
    ASIDE = "it failed, and is tried again after a pause"
    AGAIN = "it was changed while it was sent or placed"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that one cycle is to do, in the order in which it is to be done.

    agree: paths on which both sides are equal already: a new baseline and no change.
    forget: paths of which nothing is left on either side.
    waiting: paths to be looked at again soon. problems: paths left alone, and why.
    mixed: paths whose pull leaves a set of two hands, and the others of it.
    waiting_for, halted: why nothing of it may be done now.
    """

    push: tuple[Push, ...] = ()
    pull: tuple[Pull, ...] = ()
    agree: dict[StorePath, Agreed] = {}
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
        """Return the plan with all tombstones but those of moves saying that they belong to one deletion."""
        pushes = (
            msgspec.structs.replace(push, deletion=deletion) if deletes(push) else push for push in self.push
        )
        return msgspec.structs.replace(self, push=tuple(pushes))


def deletes(push: Push) -> bool:
    """Tell whether a push deletes a path for good, and is not just what a move leaves behind."""
    return push.entry.kind is Kind.GONE and not push.move
