"""The plan: the ordered changes that one cycle makes. A value; making it and carrying it out lie elsewhere."""

import enum

import msgspec

from configstore.model.path import StorePath
from configstore.model.record import Entry
from sidecar.planner.sides import Agreed, LocalEntry, Problem, RemoteEntry


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """Write local state to the store, a tombstone included.

    entry: the record's entry. local: what it was taken from, None for a delete and for a directory that only the
    store is to have again (the next plan brings it here). expected: the path's
    mod_revision, 0 for none. move: the other half of a rename within the mapping, so it does not wait.
    """

    path: StorePath
    entry: Entry
    local: LocalEntry | None
    expected: int
    move: bool = False


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """Bring the store's state to the local directory; a tombstone removes.

    local: what must still lie there when it is overwritten. keep: keep the local content under `conflicts/`
    first, since the store has never seen it.
    """

    path: StorePath
    remote: RemoteEntry
    local: LocalEntry | None
    keep: bool = False


class Wait(enum.StrEnum):
    """Why a path was left for a later cycle."""

    SETTLE = "its set has not settled"
    DELETE = "a delete waits for the mapping to be quiet"
    UNSTABLE = "it is being written"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that one cycle is to do, in the order in which it is to be done.

    agree: paths on which both sides are equal already: a new baseline and no change.
    forget: paths of which nothing is left on either side.
    waiting: paths to be looked at again soon. problems: paths left alone, and why.
    waiting_for, halted: in a preview, why nothing of it would be done now.
    """

    push: tuple[Push, ...] = ()
    pull: tuple[Pull, ...] = ()
    agree: dict[StorePath, Agreed] = {}
    forget: tuple[StorePath, ...] = ()
    waiting: dict[StorePath, Wait] = {}
    problems: dict[StorePath, Problem] = {}
    waiting_for: str | None = None
    halted: str | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing would be changed on either side."""
        return not (self.push or self.pull)
