"""Keeps the losing side of a conflict in the store before it is overwritten here. Called by `pull`.

`configstore conflicts` and `resolve` list and end them (configstore/store/conflicts.py).
"""

import logging
from collections import deque

from configstore.model.path import StorePath
from configstore.model.record import Kind, Source
from configstore.store.tree import Tree
from sidecar.mapping import Mapping
from sidecar.planner.plan import Pull
from sidecar.planner.three_sides import Sides

log = logging.getLogger(__name__)


_NAMED = 100
"""How many of the paths are remembered that lost last."""


class ConflictKeeper:
    """Keeps what one mapping is about to lose.

    count: how many times the store's version took the place of a change made here, be it a delete; lost: the paths
    of the last of them, the newest at the end.
    """

    def __init__(self, tree: Tree, mapping: Mapping, sides: Sides) -> None:
        self._tree = tree
        self._mapping = mapping
        self._sides = sides
        self.count = 0
        self.lost: deque[StorePath] = deque(maxlen=_NAMED)
        self._kept: dict[StorePath, str] = {}  # what was kept last of a path; said once, however often it is tried

    def is_wanted(self, pull: Pull) -> bool:
        """Tell whether what lies here would be lost by a pull. Raises StoreError."""
        return pull.local is not None and (pull.keep or self._forgotten(pull))

    def keep(self, pull: Pull, content: Source | None) -> None:
        """Keep what lies here under `conflicts/`. Raises StoreError, and what `content` raises."""
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
        """Note that the store's version took the place of a change made here."""
        self.count += 1
        self.lost.append(path)

    def _forgotten(self, pull: Pull) -> bool:
        """Tell whether the store has lost what lies here though it once held it. Raises StoreError.

        A record written by hand with etcdctl keeps no history, and a restored snapshot may have overtaken us.
        """
        base = self._sides.baseline.get(pull.path)
        if not base or not pull.local or pull.local.entry.kind is not Kind.FILE or not self._mapping.retention:
            return False
        if pull.remote.supersedes == base.mod_revision or pull.local.entry.same_content(pull.remote.entry):
            return False
        return not self._tree.remembers(self._mapping.absolute(pull.path), base.mod_revision)
