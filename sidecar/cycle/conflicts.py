"""Keeps the losing side of a conflict below `conflicts/` before it is overwritten here. Called by `pull`.

`configstore conflicts` lists what was kept and `configstore resolve` ends it (configstore/store/conflicts.py).
"""

import logging
from collections import deque

from configstore.model.path import StorePath
from configstore.model.record import Kind, Source
from configstore.store.tree import Tree
from sidecar.mapping import Mapping
from sidecar.planner.plan import Pull
from sidecar.planner.three_sides import ThreeSides

log = logging.getLogger(__name__)

_NAMED = 100
"""Number of paths that are remembered in `lost`."""


class ConflictKeeper:
    """Keeps what one mapping is about to lose.

    count: how many times the store's version replaced a local change, deletes included. lost: the paths of the
    last of them, the newest at the end.
    """

    def __init__(self, tree: Tree, mapping: Mapping, sides: ThreeSides) -> None:
        self._tree = tree
        self._mapping = mapping
        self._sides = sides
        self.count = 0
        self.lost: deque[StorePath] = deque(maxlen=_NAMED)
        self._kept: dict[StorePath, str] = {}  # the last conflict id of each path, so that retries log it once

    def is_wanted(self, pull: Pull) -> bool:
        """Return whether a pull would lose local content. Raises StoreError."""
        return pull.local is not None and (pull.keep or self._forgotten(pull))

    def keep(self, pull: Pull, content: Source | None) -> None:
        """Copy the local content below `conflicts/`. Raises StoreError, and what `content` raises."""
        if pull.local is None:
            return
        entry = pull.local.entry
        absolute = self._mapping.absolute(pull.path)
        kept = self._tree.keep_conflict(
            absolute,
            entry,
            content if entry.kind is Kind.FILE else None,
            retention=self._mapping.retention,
        )
        if self._kept.get(pull.path) != kept:
            self._kept[pull.path] = kept
            log.warning(
                "conflict: the store's version wins, the local one is kept under conflicts/",
                extra={"mapping": self._mapping.name, "path": pull.path, "conflict": kept},
            )

    def lose(self, path: StorePath) -> None:
        """Note that the store's version replaced a local change."""
        self.count += 1
        self.lost.append(path)

    def _forgotten(self, pull: Pull) -> bool:
        """Return whether the store no longer has the local content in its history. Raises StoreError.

        A record that was written with etcdctl keeps no copy of the one before, and a restored snapshot may be
        older than the local file.
        """
        base = self._sides.baseline.get(pull.path)
        if not base or not pull.local or pull.local.entry.kind is not Kind.FILE or not self._mapping.retention:
            return False
        if pull.remote.supersedes == base.mod_revision or pull.local.entry.same_content(pull.remote.entry):
            return False
        return not self._tree.remembers(self._mapping.absolute(pull.path), base.mod_revision)
