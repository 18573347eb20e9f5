"""The names in a directory of the store, by keys alone: to find the path that was probably meant."""

from configstore.model.keys import prefix_end
from configstore.model.path import StorePath
from configstore.store.store import Store

_PAGE, _PAGES = 100, 20


def names_in(store: Store, directory: StorePath) -> set[str]:
    """Return the names of a directory's records and of the directories in it; of very many, only the first ones.

    Raises StoreError.
    """
    start, end = store.keys.files_below(directory)
    length, names = len(start), set()
    for _ in range(_PAGES):
        page = store.kv.range(start, end, limit=_PAGE, keys_only=True)
        for item in page.items:
            name, slash, _ = item.key[length:].partition(b"/")
            names.add(name.decode("utf-8", "replace"))
        if len(page.items) < _PAGE:
            break
        below = item.key[:length] + name + b"/"
        start = prefix_end(below) if slash else item.key + b"\0"  # the next page starts after that whole directory
    return names
