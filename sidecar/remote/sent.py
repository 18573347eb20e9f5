"""Resolves writes whose answer was lost, or whose sender died: were they made or not? Called by `side`.

Each write names the mod_revision that it replaces, and the store compares it. So:

1. While the path still has a record of that revision or an older one, the write may be on its way: nothing is
   known.
2. Once the path has a newer record, the write was made or never will be. It was made if that record has its write
   id, or if one of the records has it that were superseded since.
3. A write is forgotten only when it is known not to be made. An own write that was forgotten too early would look
   like another replica's, and the next local edit like a conflict with it.
"""

from collections.abc import Callable
from collections.abc import Mapping as Map

from configstore.model.path import StorePath
from configstore.store.tree import Tree
from configstore.store.values import Stored
from sidecar.mapping import Mapping
from sidecar.planner.sides import RemoteEntry
from sidecar.planner.three_sides import ThreeSides


def entry_of(found: Stored) -> RemoteEntry:
    """Return a record as the planner's value."""
    origin = found.record.origin
    return RemoteEntry(
        entry=found.entry,
        mod_revision=found.mod_revision,
        supersedes=origin.supersedes,
        write_id=origin.write_id,
        deletion=origin.deletion,
    )


def resolve_sent(
    tree: Tree,
    mapping: Mapping,
    sides: ThreeSides,
    agree: Callable[[Map[StorePath, RemoteEntry]], None],
) -> None:
    """Resolve all writes that can be resolved now. Raises StoreError.

    agree: called with the records that own writes made.
    """
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
