"""How a mapping stands to its store: one value, one table of transitions.

`remote.side` keeps the value and is the only one to change it, through `after`. Whatever a phase waits for follows
from the value itself (`wants_listing`, `words`), so that no phase can be entered without its way out. The form is
h11's: states and what leads from one to another in one place (h11/_state.py). docs/lifecycle.md shows the table.
"""

import enum

import msgspec

from configstore.model.path import ROOT, shell_word, shown
from configstore.model.replica import Take
from configstore.model.selection import Direction
from sidecar.mapping import Mapping


class Phase(enum.StrEnum):
    """What is known of the store, and so what may be done."""

    UNKNOWN = "unknown"
    FOLLOWING = "following"
    ROOTLESS = "rootless"
    REWRITING = "rewriting"
    DELETED = "deleted"
    TAKEN = "taken"
    FROZEN = "frozen"


class LifecycleEvent(enum.StrEnum):
    """What leads to another phase."""

    LISTED = "a listing fits to what was known"
    ROOT_IS_THERE = "the subtree's root is a directory"
    ROOT_IS_MISSING = "the subtree's root is not there"
    ROOT_IS_DELETED = "the subtree's root is a tombstone"
    ROOT_IS_OTHER = "something else lies at the subtree's root"
    CONTRADICTED = "the store is not the one that was known"
    CHOSEN = "a person chose whose content wins"
    WRITE_AGAIN = "a person had all that vanished written again"


_ROOT = {
    LifecycleEvent.ROOT_IS_THERE: Phase.FOLLOWING,
    LifecycleEvent.ROOT_IS_MISSING: Phase.ROOTLESS,
    LifecycleEvent.ROOT_IS_DELETED: Phase.DELETED,
    LifecycleEvent.ROOT_IS_OTHER: Phase.TAKEN,
}

TRANSITIONS: dict[Phase, dict[LifecycleEvent, Phase]] = {
    # Until a listing came, an event of the watch says nothing about the rest: LISTED leads to ROOTLESS, and the
    # listing's own root, told right after it, from there on.
    Phase.UNKNOWN: {LifecycleEvent.LISTED: Phase.ROOTLESS, LifecycleEvent.CONTRADICTED: Phase.FROZEN},
    Phase.FOLLOWING: {**_ROOT, LifecycleEvent.CONTRADICTED: Phase.FROZEN},
    Phase.ROOTLESS: {
        **_ROOT,
        LifecycleEvent.WRITE_AGAIN: Phase.REWRITING,
        LifecycleEvent.CONTRADICTED: Phase.FROZEN,
    },
    # The root is written last, so that nobody takes a half-written subtree for a whole one.
    Phase.REWRITING: {
        **_ROOT,
        LifecycleEvent.ROOT_IS_MISSING: Phase.REWRITING,
        LifecycleEvent.CONTRADICTED: Phase.FROZEN,
    },
    Phase.DELETED: {**_ROOT, LifecycleEvent.CONTRADICTED: Phase.FROZEN},
    Phase.TAKEN: {**_ROOT, LifecycleEvent.CONTRADICTED: Phase.FROZEN},
    # Ended by the right store's return, which a listing shows, or by a person. What a watch tells is not taken in.
    Phase.FROZEN: {LifecycleEvent.LISTED: Phase.ROOTLESS, LifecycleEvent.CHOSEN: Phase.UNKNOWN},
}
"""Where an event leads from each phase; one that is not named changes nothing."""

ASKING = frozenset({Phase.UNKNOWN, Phase.ROOTLESS, Phase.REWRITING, Phase.TAKEN, Phase.FROZEN})
"""The phases that only a new listing ends for sure: they go on asking for one."""

PUSHING = frozenset({Phase.FOLLOWING, Phase.REWRITING})
"""The phases in which anything may be written to the store."""

APPLYING = PUSHING | {Phase.DELETED}
"""The phases in which what the store says is applied here; a deleted subtree's tombstones are."""


class Lifecycle(msgspec.Struct, frozen=True, kw_only=True):
    """How a mapping stands to its store.

    stale: the watch has kept something to itself, so a new listing is needed. reason: of a frozen mapping, in
    words, as it was first said: whoever chooses has read that. taking: whose content wins over a store that a
    person accepted, until the first look at both sides has made use of it.
    """

    phase: Phase = Phase.UNKNOWN
    stale: bool = False
    reason: str = ""
    taking: Take | None = None

    @property
    def wants_listing(self) -> bool:
        """Whether it cannot go on without a new listing."""
        return self.stale or self.phase in ASKING

    @property
    def pushes(self) -> bool:
        """Whether the store may be written to."""
        return self.phase in PUSHING

    @property
    def applies(self) -> bool:
        """Whether what the store says may be applied here."""
        return self.phase in APPLYING

    def after(self, event: LifecycleEvent, *, reason: str = "", take: Take | None = None) -> "Lifecycle":
        """Return the value after an event. reason: of CONTRADICTED. take: of CHOSEN."""
        phase = TRANSITIONS[self.phase].get(event, self.phase)
        taking = take if event is LifecycleEvent.CHOSEN else self.taking
        stale = self.stale and event is not LifecycleEvent.LISTED
        if phase is Phase.FROZEN:
            return Lifecycle(phase=phase, reason=self.reason or reason)
        return Lifecycle(phase=phase, stale=stale, taking=taking)

    def missed(self) -> "Lifecycle":
        """Return the value after the store was found to hold what its watch has not told."""
        return self if self.phase is Phase.FROZEN else msgspec.structs.replace(self, stale=True)

    def sided(self) -> "Lifecycle":
        """Return the value after a person's choice of a side was made use of."""
        return msgspec.structs.replace(self, taking=None)


def words(life: Lifecycle, mapping: Mapping, *, held: int = 0, replica: str = "") -> str | None:
    """Return what an operator reads about a phase that is not as it should be, with the mend; else None.

    held: how many files of a store that is lost lie here. replica: whose words they are.
    """
    if life.phase is Phase.FOLLOWING:
        return None
    whose = mapping.store or "/"
    texts = {
        Phase.UNKNOWN: "waiting for a first listing of the store",
        Phase.ROOTLESS: missing_root(mapping, held=held, replica=replica),
        Phase.REWRITING: f"writing the subtree {whose} to the store again, as a person chose",
        Phase.DELETED: (
            f"the subtree {whose} was deleted in the store; nothing is sent into it. `configstore mkdir"
            f" {shown(mapping.store)}` makes it again"
        ),
        Phase.TAKEN: (
            f"a file or a link lies in the store where the subtree {whose} must be: remove it there with"
            f" `configstore rm {shown(mapping.store)}`, then `configstore mkdir {shown(mapping.store)}`"
        ),
        Phase.FROZEN: life.reason,
    }
    return texts[life.phase]


def missing_root(mapping: Mapping, *, held: int, replica: str) -> str:
    """Return the words for a subtree that was never made, or is gone.

    Whoever still holds its files must not be told to make it anew, since others would then mirror an empty one.
    """
    what = "the store is empty" if mapping.store == ROOT else f"the store has no subtree {mapping.store}"
    if held:
        return f"{what}: etcd was wiped, or is another one? {rescue(mapping, held=held, replica=replica)}"
    if mapping.store == ROOT:
        return f"{what}: a fresh or wiped etcd? If it held files, restore its backup first"
    return (
        f"{what}. If it held files, etcd was wiped or is another one: restore its backup, or look in `configstore"
        " status` for a replica that still holds them; made anew, it is mirrored empty. A first installation makes"
        f" it with `configstore mkdir {shown(mapping.store)}`, or `configstore bootstrap` for a preset"
    )


def rescue(mapping: Mapping, *, held: int, replica: str) -> str:
    """Return what to do about a store that holds nothing any more, at a replica that holds `held` of its files."""
    if not held:
        return (
            "This replica holds no files: restore etcd's backup, or look in `configstore status` for a replica"
            " that does"
        )
    again = f"`configstore resume {mapping.name} --replica {replica} --take local` writes them to the store again"
    if mapping.lease or mapping.direction is Direction.PULL:  # it may not write by itself
        where = f"{shell_word(mapping.path)} {shown(mapping.store)}"
        again = f"`configstore import {where}`, from here, writes them to the store again"
    return (
        f"This replica still holds {held} files. Restore etcd's backup; or {again}, and the others take them with"
        f" `configstore resume {mapping.name} --take store`"
    )
