"""One path's part of a txn, and the packing of many into as few txns as etcd's limits allow. Called by `tree`."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from configstore.model.path import StorePath
from configstore.model.record import Record, RecordError, decode
from configstore.store.api import MAX_OPERATIONS, MAX_REQUEST, Compare, Item, Operation


class Superseded(msgspec.Struct, frozen=True, kw_only=True):
    """What a write replaces: the bytes that go to `past/`, and the record in them where it can be read."""

    value: bytes
    mod_revision: int
    version: int
    record: Record | None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One path's part of a txn. `size`: bytes of its keys and values."""

    path: StorePath
    key: bytes
    write_id: str
    expected: int
    compares: tuple[Compare, ...]
    operations: tuple[Operation, ...]
    size: int


def is_ours(step: Step, found: Mapping[bytes, Item]) -> bool:
    """Tell whether what was found under a step's key is just what that step wrote."""
    item = found.get(step.key)
    try:
        return item is not None and decode(item.value).origin.write_id == step.write_id
    except RecordError:
        return False


def groups(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Pack steps into txns within etcd's limits, in order (one compare is left free for a fence)."""
    group: list[Step] = []
    operations = compares = size = 0
    for step in steps:
        operations += len(step.operations)
        compares += len(step.compares)
        size += step.size
        if group and (operations > MAX_OPERATIONS or compares > MAX_OPERATIONS - 1 or size > MAX_REQUEST):
            yield group
            group = []
            operations, compares, size = len(step.operations), len(step.compares), step.size
        group.append(step)
    if group:
        yield group
