"""Content that came with the news of this cycle, so that what is placed at once is not fetched a second time.

The next news take its place, so nobody has to say that something is not needed any more. Called by the engine's
thread only.
"""

from collections import OrderedDict

from configstore.model.path import StorePath
from configstore.store.tree import Tree
from configstore.store.values import Stored
from sidecar.planner.mapping import Mapping
from sidecar.planner.sides import RemoteEntry

_LIMIT = 4 * 1024 * 1024
"""Bytes of content that are kept; small files of a set, and no more."""


class Contents:
    """The newest records of a mapping with their content, as far as there is room."""

    def __init__(self, tree: Tree, mapping: Mapping) -> None:
        self._tree = tree
        self._mapping = mapping
        self._kept: OrderedDict[StorePath, Stored] = OrderedDict()
        self._bytes = 0

    def note(self, path: StorePath, found: Stored) -> None:
        """Keep a record that came in, if its content lies in it; the oldest go when there is no room."""
        self._drop(path)
        if found.record.content is None:
            return
        self._kept[path] = found
        self._bytes += len(found.record.content)
        while self._bytes > _LIMIT:
            self._drop(next(iter(self._kept)))

    def find(self, path: StorePath, wanted: RemoteEntry) -> Stored | None:
        """Return a version of a record; None when the store holds another one by now.

        Raises StoreError, RecordError.
        """
        found = self._kept.get(path) or self._tree.read(self._mapping.absolute(path))
        if found and found.mod_revision != wanted.mod_revision:
            found = self._tree.read(self._mapping.absolute(path))
        return found if found and found.mod_revision == wanted.mod_revision else None

    def is_current(self, found: Stored) -> bool:
        """Tell whether a record still is the newest of its path. Raises StoreError, RecordError."""
        now = self._tree.read(found.path)
        return now is not None and now.mod_revision == found.mod_revision

    def clear(self) -> None:
        """Forget what came before."""
        self._kept.clear()
        self._bytes = 0

    def _drop(self, path: StorePath) -> None:
        gone = self._kept.pop(path, None)
        if gone and gone.record.content is not None:
            self._bytes -= len(gone.record.content)
