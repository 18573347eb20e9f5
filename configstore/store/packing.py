"""Packs the steps of a commit, one for each path, into as few txns as etcd's limits allow. Called by `commit`."""

from collections.abc import Iterable, Iterator

import msgspec

from configstore.model.path import StorePath
from configstore.model.record import Record
from configstore.store.api import MAX_OPERATIONS, MAX_REQUEST, Compare, Item, Operation, ValueEquals


class Superseded(msgspec.Struct, frozen=True, kw_only=True):
    """The value that a write replaces and that goes to `past/`, with its record if that is readable.

    known: the caller of the commit had read it before, so the txn compares the bytes as well.
    """

    value: bytes
    mod_revision: int
    version: int
    record: Record | None
    known: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One path's part of a txn.

    size: bytes of its keys and values. set: steps with the same number above 0 belong together. resent: the caller
    chose the write id, so an earlier try may have made the write.
    """

    path: StorePath
    key: bytes
    write_id: str
    expected: int
    compares: tuple[Compare, ...]
    operations: tuple[Operation, ...]
    size: int
    set: int = 0
    resent: bool = False

    @property
    def holds(self) -> ValueEquals | None:
        """The compare of the replaced value; None if that was read for this commit."""
        return next((each for each in self.compares if isinstance(each, ValueEquals)), None)

    @property
    def bare(self) -> "Step":
        """The same step without that compare."""
        holds = self.holds
        if holds is None:
            return self
        rest = tuple(each for each in self.compares if each is not holds)
        return msgspec.structs.replace(self, compares=rest, size=self.size - len(holds.value))

    def holds_in(self, found: Item | None) -> bool:
        """Return whether an item that was read now has the compared value, so that the txn need not compare it."""
        holds = self.holds
        return bool(holds and found and (found.mod_revision, found.value) == (self.expected, holds.value))


def groups(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Pack steps into txns within etcd's limits, of which one compare is left free for a fence.

    The steps of a set move together to the place of its first one; otherwise the order is kept. A set is split
    only if it does not fit into one txn; then it begins a txn of its own.
    """
    group: list[Step] = []
    weight = _NOTHING
    for unit in _units(steps):
        if group and not _fits(_sum(weight, *map(_weight, unit))):
            yield group
            group, weight = [], _NOTHING
        for step in unit:
            if group and not _fits(_sum(weight, _weight(step))):
                yield group
                group, weight = [], _NOTHING
            group.append(step)
            weight = _sum(weight, _weight(step))
    if group:
        yield group


def _units(steps: Iterable[Step]) -> Iterable[list[Step]]:
    units: dict[int | StorePath, list[Step]] = {}
    for step in steps:
        units.setdefault(step.set or step.path, []).append(step)
    return units.values()


_Weight = tuple[int, int, int]
"""Operations, compares, and bytes."""

_NOTHING = (0, 0, 0)


def _weight(step: Step) -> _Weight:
    return len(step.operations), len(step.compares), step.size


def _sum(*weights: _Weight) -> _Weight:
    operations, compares, sizes = zip(*weights, strict=True)
    return sum(operations), sum(compares), sum(sizes)


def _fits(weight: _Weight) -> bool:
    operations, compares, size = weight
    return operations <= MAX_OPERATIONS and compares < MAX_OPERATIONS and size <= MAX_REQUEST
