"""A connection together with the layout of its keys, as the functions of this package take it."""

from collections.abc import Callable

from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.store.api import Contact, Kv, Page, Watch


class Store:
    """The keys below one root key, and the connection to them. Safe for use by several threads.

    kv: for the modules of `configstore.store` alone (a test looks). All others call one of their functions, or a
    method of this class or of `tree.Tree`, which is a Store with records. keys: the layout, a pure value.
    """

    def __init__(self, kv: Kv, keys: Keys) -> None:
        self.kv = kv
        self.keys = keys

    def contact(self) -> Contact:
        """Return whether the store answers; see `Kv.contact`."""
        return self.kv.contact()

    def follow_contact(self, told: Callable[[Contact], None]) -> None:
        """Report each loss of contact and each return from now on; see `Kv.follow_contact`."""
        self.kv.follow_contact(told)

    def revision(self, path: StorePath) -> int:
        """Return the store's current revision, as who may read a path. Raises StoreError."""
        return self.kv.range(self.keys.file(path), keys_only=True).revision

    def mod_revision(self, path: StorePath) -> int:
        """Return the mod_revision of a path's record, readable or not; 0 for none. Raises StoreError."""
        items = self.kv.range(self.keys.file(path), keys_only=True).items
        return items[0].mod_revision if items else 0

    def below(self, directory: StorePath, *, limit: int, keys_only: bool = False) -> Page:
        """Return the first items below a directory, and the store's revision. Raises StoreError."""
        return self.kv.range(*self.keys.files_below(directory), limit=limit, keys_only=keys_only)

    def range_revision(self, keys: tuple[bytes, bytes]) -> int:
        """Return the store's current revision, as who may read a range of keys. Raises StoreError."""
        return self.kv.range(*keys, limit=1, keys_only=True).revision

    def watch(self, directory: StorePath, *, start_revision: int) -> Watch:
        """Watch the records of a directory and of all below it from a revision on; see `Kv.watch`.

        Neighbours whose names begin alike, such as `certs-old` beside `certs`, lie in the same range of keys.
        """
        return self.kv.watch(*self.keys.files_at(directory), start_revision=start_revision)

    def close(self) -> None:
        """End the connection, from any thread: what waits for the store returns or raises StoreClosedError."""
        self.kv.close()
