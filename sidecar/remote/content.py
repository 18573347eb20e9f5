"""What came with the news, so that it is not fetched a second time. Called by the engine's thread only.

`AtHand` is for what is sent, `Contents` for what is placed at once. The latter lasts until the pulls of the cycle
are over, or until the next news; what was not placed by then is read again when it is.
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
"""Bytes of content that are read at a time, of as many records as one call takes: a fraction of what is kept."""

LIMIT = 4 * 1024 * 1024
"""Bytes of content that are kept; small files of a set, and no more."""


AT_HAND = 256 * 1024
"""Bytes of values that are kept for what replaces them."""


class AtHand:
    """The values that the watch brought last, as they lie in the store.

    Whatever replaces one of them keeps it in `past/`, and need not read it first: that is a round trip for each
    set that is sent. What is not here is read.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[StorePath, Item] = OrderedDict()
        self._bytes = 0

    def note(self, path: StorePath, item: Item) -> None:
        """Keep what lies at a path now; the oldest go when there is no room."""
        self._bytes -= len(before.value) if (before := self._items.pop(path, None)) else 0
        self._items[path] = item
        self._bytes += len(item.value)
        while self._bytes > AT_HAND:
            self._bytes -= len(self._items.popitem(last=False)[1].value)

    def find(self, path: StorePath, revision: int) -> Item | None:
        """Return what lies at a path since a revision, if it is here."""
        found = self._items.get(path)
        return found if found and found.mod_revision == revision else None


class Contents:
    """The newest records of a mapping with their content, as far as there is room."""

    def __init__(self, tree: Tree, mapping: Mapping) -> None:
        self._tree = tree
        self._mapping = mapping
        self._kept: OrderedDict[StorePath, Stored] = OrderedDict()
        self._wanted: dict[StorePath, int] = {}  # what is expected and was not found yet, with its size
        self._bytes = 0

    def note(self, path: StorePath, found: Stored) -> None:
        """Keep a record that came in, if its content lies in it.

        Where there is no room what was found already goes, then the oldest.
        """
        self._drop(path)
        if found.record.content is None:
            return
        self._kept[path] = found
        self._bytes += len(found.record.content)
        while self._bytes > LIMIT:
            self._drop(next(iter(self._kept)))

    def find(self, path: StorePath, wanted: RemoteEntry) -> Stored | None:
        """Return a version of a record; None when the store holds another one by now.

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
        """Say which records with small content will be wanted next, in order, and how large it is.

        They are read many at a time.
        """
        self._wanted = dict(sizes)

    def clear(self) -> None:
        """Forget what came before."""
        self._kept.clear()
        self._wanted.clear()
        self._bytes = 0

    def _read_ahead(self, path: StorePath) -> None:
        """Read a record together with some of those that are expected after it. Raises StoreError."""
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
