"""Checks of records in a sealed subtree, whose store may be hostile.

Called by `side` before a record is believed.
"""

import logging

from configstore.model.path import StorePath
from configstore.model.problem import Problem
from configstore.model.record import Kind
from configstore.store.tree import Tree
from configstore.store.values import Stored
from sidecar.planner.three_sides import ThreeSides

log = logging.getLogger(__name__)

_PLAIN_DIRECTORY = (
    "a plain directory came in the place of a sealed file, which stays as it was: if it is meant,"
    " `configstore rm -r` the path, then `configstore mkdir` it; else `configstore restore` it"
)


def plain_directory_over_file(tree: Tree, sides: ThreeSides, path: StorePath, found: Stored) -> Problem | None:
    """Return the problem of an unsealed directory record that would replace a sealed file or link, or None.

    Anyone who can write to the store can make such a record, and no guard counts the file that it removes.
    """
    if found.entry.kind is not Kind.DIR or tree.envelopes.proves(found.path, found.record):
        return None
    known, base = sides.remote.get(path), sides.baseline.get(path)
    before = known.entry if known else base.remote if base else None
    if before is None or before.kind not in {Kind.FILE, Kind.SYMLINK}:
        return None
    return Problem(path=path, reason=_PLAIN_DIRECTORY, sealing=True)


def warn_of_replay(sides: ThreeSides, mapping: str, path: StorePath, found: Stored) -> None:
    """Log a warning when a sealed record is newer than the known one but does not supersede it.

    Each write compares the record that it replaces, and names its revision. So a hostile store has put an older
    record back; or the path was deleted so long ago that its tombstone has expired.
    """
    known = max((side[path].mod_revision for side in (sides.baseline, sides.remote) if path in side), default=0)
    supersedes = found.record.origin.supersedes
    if found.record.seal and supersedes < known < found.mod_revision:
        log.warning(
            "a record does not follow upon the one before it: was an older one put back?",
            extra={
                "mapping": mapping,
                "path": path,
                "revision": found.mod_revision,
                "supersedes": supersedes,
                "known": known,
            },
        )
