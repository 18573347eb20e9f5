"""Caches of what listings and watch events carried, so that it is not read again. Engine's thread only.

`AtHand` has the values that pushes replace, `Contents` the content of records that are about to be pulled.
Contents is emptied when the pulls of a cycle are over and when the next events come in; what was not pulled by
then is read. Both are only caches: the revision decides whether what they hold is what is wanted.
"""

from collections import OrderedDict
from collections.abc import Mapping as Map

from configstore.model.path import StorePath
from configstore.store.api import MAX_OPERATIONS, Item
from configstore.store.tree import Tree
from configstore.store.values import Stored
from sidecar.mapping import Mapping
from sidecar.planner.sides import RemoteEntry

_AHEAD = 1024 * 1024
"""Bytes of content that are read ahead at a time: a fraction of LIMIT."""

LIMIT = 4 * 1024 * 1024
"""Bytes of content that are kept: the small files of a set, and no more."""

AT_HAND = 256 * 1024
"""Bytes of values that are kept for the pushes that replace them."""


class AtHand:
    """The newest values that the watch reported, as they are in the store.

    A push copies the value that it replaces to `past/`. Without this cache it has to read it first, which is one
    round trip to etcd for each set.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[StorePath, Item] = OrderedDict()
        self._bytes = 0

    def note(self, path: StorePath, item: Item) -> None:
        """Keep the value of a path; the oldest values are dropped where there is no room."""
        self._bytes -= len(before.value) if (before := self._items.pop(path, None)) else 0
        self._items[path] = item
        self._bytes += len(item.value)
        while self._bytes > AT_HAND:
            self._bytes -= len(self._items.popitem(last=False)[1].value)

    def find(self, path: StorePath, revision: int) -> Item | None:
        """Return the value that a path has since a revision, or None when it is not cached."""
        found = self._items.get(path)
        return found if found and found.mod_revision == revision else None


class Contents:
    """The newest records of a mapping with their content, up to LIMIT bytes."""

    def __init__(self, tree: Tree, mapping: Mapping) -> None:
        self._tree = tree
        self._mapping = mapping
        self._kept: OrderedDict[StorePath, Stored] = OrderedDict()
        self._wanted: dict[StorePath, int] = {}  # with the size: what is to be read ahead
        self._bytes = 0

    def note(self, path: StorePath, found: Stored) -> None:
        """Keep a record whose content is in it.

        Where there is no room, records that `find` has returned are dropped first, then the oldest.
        """
        self._drop(path)
        if found.record.content is None:
            return
        self._kept[path] = found
        self._bytes += len(found.record.content)
        while self._bytes > LIMIT:
            self._drop(next(iter(self._kept)))

    def find(self, path: StorePath, wanted: RemoteEntry) -> Stored | None:
        """Return the wanted version of a record; None when the store has another one by now.

        Raises StoreError, RecordError.
        """
        if path not in self._kept:
            self._read_ahead(path)
        found = self._kept.get(path)
        if found:
            self._kept.move_to_end(path, last=False)
        self._wanted.pop(path, None)
        if found is None or found.mod_revision != wanted.mod_revision:
            found = self._tree.read(self._mapping.absolute(path))
        return found if found and found.mod_revision == wanted.mod_revision else None

    def expect(self, sizes: Map[StorePath, int]) -> None:
        """Announce the small records that `find` will ask for, in order, with sizes: they are read in batches."""
        self._wanted = dict(sizes)

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self._wanted.clear()
        self._bytes = 0

    def _read_ahead(self, path: StorePath) -> None:
        """Read a record together with some that are expected after it. Raises StoreError."""
        if path not in self._wanted:
            return
        wanted, size = [path], self._wanted[path]
        for each, more in self._wanted.items():
            if each in self._kept or each == path:
                continue
            size += more
            if size > _AHEAD or len(wanted) == MAX_OPERATIONS:
                break
            wanted.append(each)
        absolute = {self._mapping.absolute(each): each for each in wanted}
        for found in self._tree.read_many(absolute):
            self.note(absolute[found.path], found)

    def _drop(self, path: StorePath) -> None:
        gone = self._kept.pop(path, None)
        if gone and gone.record.content is not None:
            self._bytes -= len(gone.record.content)
