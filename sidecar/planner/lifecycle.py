"""The phase of a mapping: what is known of its store, and what may be done. One value, one table of transitions.

`remote.side` holds the value and alone changes it, by `after`. What a phase waits for follows from the value
(`wants_listing`, `phase_text`), so that each phase has something that ends it. As in the library h11, states and
transitions are in one table. docs/lifecycle.md shows the table.
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
    """What can change the phase."""

    LISTED = "a listing fits what was known"
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
    # An event of the watch says nothing about other paths, so only a listing ends this phase. The root record is
    # judged by an event of its own, which follows LISTED at once and leads on from ROOTLESS.
    Phase.UNKNOWN: {LifecycleEvent.LISTED: Phase.ROOTLESS, LifecycleEvent.CONTRADICTED: Phase.FROZEN},
    Phase.FOLLOWING: {**_ROOT, LifecycleEvent.CONTRADICTED: Phase.FROZEN},
    Phase.ROOTLESS: {
        **_ROOT,
        LifecycleEvent.WRITE_AGAIN: Phase.REWRITING,
        LifecycleEvent.CONTRADICTED: Phase.FROZEN,
    },
    # The root record is written last, so that no other replica takes a half-written subtree for a complete one.
    Phase.REWRITING: {
        **_ROOT,
        LifecycleEvent.ROOT_IS_MISSING: Phase.REWRITING,
        LifecycleEvent.CONTRADICTED: Phase.FROZEN,
    },
    Phase.DELETED: {**_ROOT, LifecycleEvent.CONTRADICTED: Phase.FROZEN},
    Phase.TAKEN: {**_ROOT, LifecycleEvent.CONTRADICTED: Phase.FROZEN},
    # Ended by a listing that shows the right store again, or by a person. Events of the watch are not taken in.
    Phase.FROZEN: {LifecycleEvent.LISTED: Phase.ROOTLESS, LifecycleEvent.CHOSEN: Phase.UNKNOWN},
}
"""The phase to which an event leads from each phase; an event that is not named changes nothing."""

ASKING = frozenset({Phase.UNKNOWN, Phase.ROOTLESS, Phase.REWRITING, Phase.TAKEN, Phase.FROZEN})
"""The phases in which new listings are requested again and again, since the watch may never report their end."""

PUSHING = frozenset({Phase.FOLLOWING, Phase.REWRITING})
"""The phases in which this replica may write to the store."""

APPLYING = PUSHING | {Phase.DELETED}
"""The phases in which the store's state is applied here. The tombstones of a deleted subtree are applied, too."""


class Lifecycle(msgspec.Struct, frozen=True, kw_only=True):
    """The phase of a mapping, and what belongs to it.

    stale: whether the watch missed a change, so that a new listing is needed. reason: why the mapping is frozen,
    as it was first reported, since a person's choice names the reason that the person read. taking: the side whose
    content wins over a store that a person accepted, until the first plan has used it.
    """

    phase: Phase = Phase.UNKNOWN
    stale: bool = False
    reason: str = ""
    taking: Take | None = None

    @property
    def wants_listing(self) -> bool:
        """Whether a new listing is needed to go on."""
        return self.stale or self.phase in ASKING

    @property
    def pushes(self) -> bool:
        """Whether the store may be written to."""
        return self.phase in PUSHING

    @property
    def applies(self) -> bool:
        """Whether the store's state may be applied here."""
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
        """Return the value after the store was found to hold a change that the watch did not report."""
        return self if self.phase is Phase.FROZEN else msgspec.structs.replace(self, stale=True)

    def side_taken(self) -> "Lifecycle":
        """Return the value after a person's choice of a side was used."""
        return msgspec.structs.replace(self, taking=None)


def phase_text(lifecycle: Lifecycle, mapping: Mapping, *, held: int = 0, replica: str = "") -> str | None:
    """Return what an operator reads about any phase but FOLLOWING, with what to do; else None.

    held: how many files of a lost store are here. replica: the id of this replica.
    """
    if lifecycle.phase is Phase.FOLLOWING:
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
        Phase.FROZEN: lifecycle.reason,
    }
    return texts[lifecycle.phase]


def missing_root(mapping: Mapping, *, held: int, replica: str) -> str:
    """Return the text for a subtree that was never made, or is gone.

    A replica that still holds its files must not advise to make it again: others would mirror an empty subtree.
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
    """Return what to do about a store that lost everything, at a replica that still holds `held` of its files."""
    if not held:
        return (
            "This replica holds no files: restore etcd's backup, or look in `configstore status` for a replica"
            " that does"
        )
    again = f"`configstore resume {mapping.name} --replica {replica} --take local` writes them to the store again"
    if mapping.lease or mapping.direction is Direction.PULL:  # this replica may not write by itself
        where = f"{shell_word(mapping.path)} {shown(mapping.store)}"
        again = f"`configstore import {where}`, from here, writes them to the store again"
    return (
        f"This replica still holds {held} files. Restore etcd's backup; or {again}, and the others take them with"
        f" `configstore resume {mapping.name} --take store`"
    )
