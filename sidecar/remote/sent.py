"""Finds out what became of writes whose answer was lost, or whose sender died. Called by `side`.

Each write says which mod_revision it replaces, so it is made there or never. As long as the store still holds that
revision the write may be under way. Once it holds a newer record, that is our write, or replaced it, or kept it
from being made: the record's write id tells, or one of those that were superseded since.
"""

from collections.abc import Callable
from collections.abc import Mapping as Map

from configstore.model.path import StorePath
from configstore.store.tree import Tree
from configstore.store.values import Stored
from sidecar.mapping import Mapping
from sidecar.planner.sides import RemoteEntry
from sidecar.planner.three_sides import Sides


def entry_of(found: Stored) -> RemoteEntry:
    """Return a record as the planner sees it."""
    origin = found.record.origin
    return RemoteEntry(
        entry=found.entry,
        mod_revision=found.mod_revision,
        supersedes=origin.supersedes,
        write_id=origin.write_id,
        deletion=origin.deletion,
    )


def settle_sent(
    tree: Tree,
    mapping: Mapping,
    sides: Sides,
    agree: Callable[[Map[StorePath, RemoteEntry]], None],
) -> None:
    """Agree on what own writes made, and forget those that were not made. Raises StoreError."""
    for path, writes in list(sides.sent.items()):
        remote = sides.remote.get(path)
        ids = {write.write_id for write in writes}
        if remote is None or remote.mod_revision <= min(write.expected for write in writes):
            continue
        if remote.write_id in ids:
            agree({path: remote})
            continue
        found = tree.find_write(mapping.absolute(path), ids, after=min(write.expected for write in writes))
        if found:
            agree({path: entry_of(found)})
        elif remote.mod_revision > max(write.expected for write in writes):
            sides.not_made(path, ids)
