"""Where a product's data sets lie on a single host, such as below /mailu, and what of that host stays there.

Called by the commands that move a whole tree in or out.
"""

from collections.abc import Iterable, Iterator

import msgspec
import pathspec

from configstore import presets
from configstore.model.path import ROOT, StorePath, ancestors, join, parent, parse_path
from configstore.model.selection import Selection, Symlinks, taken_out


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """One data set: a directory of the host, relative to its folder, and the subtree of the store that it becomes.

    name: of its mapping, "" for a tree that no preset speaks of. dir_mode: of directories without a record.
    earlier: it is only another place of that data set, for taking it from there.
    """

    name: str = ""
    store: StorePath
    host: StorePath = ROOT
    selection: Selection = Selection()
    symlinks: Symlinks = Symlinks.PRESERVE
    refuse_empty: tuple[str, ...] = ()
    lease: str = ""
    create_once: bool = False
    dir_mode: int = 0o755
    earlier: bool = False

    def directories(self) -> Iterator[tuple[StorePath, StorePath]]:
        """Yield its own directory, and those above it on the host as in the store: the host's, the store's."""
        host, store = self.host, self.store
        if store:
            yield host, store
        host, store = parent(host), parent(store)
        while host and store:
            yield host, store
            host, store = parent(host), parent(store)


def parts(preset: str, below: StorePath) -> tuple[DataSet, ...]:
    """Return a preset's data sets, in the store `below` a path. Raises UsageError."""
    mappings = [mapping for mapping in presets.load(preset) if mapping.host]
    places = [(mapping.store, mapping.host) for mapping in mappings]
    found = []
    for mapping in mappings:
        main = DataSet(
            name=mapping.name,
            store=join(below, mapping.store),
            host=parse_path(mapping.host),
            selection=Selection(
                include=mapping.include,
                exclude=mapping.exclude,
                holes=taken_out((mapping.store, mapping.host), places),
            ),
            symlinks=mapping.symlinks,
            refuse_empty=mapping.refuse_empty,
            lease=mapping.lease or "",
            create_once=mapping.create_once,
            dir_mode=0o755 if mapping.dir_mode is None else mapping.dir_mode,
        )
        found += [main, *(_earlier(main, place) for place in mapping.earlier)]
    return tuple(found)


def _earlier(main: DataSet, place: presets.HostFiles) -> DataSet:
    selection = Selection(include=place.include, exclude=main.selection.exclude)
    return msgspec.structs.replace(main, host=parse_path(place.host), selection=selection, earlier=True)


class Rest:
    """What of a host no data set takes, and why."""

    def __init__(self, preset: str, taken: Iterable[StorePath]) -> None:
        """`taken`: what data sets do take, and the directories that are theirs, relative to the host's folder."""
        taken = tuple(taken)
        self._known = {*taken, *(above for path in taken for above in ancestors(path))}
        self._rules = [(pathspec.GitIgnoreSpec.from_lines(left.paths), left) for left in presets.left(preset)]

    def why(self, path: StorePath, *, is_dir: bool) -> presets.LeftBehind | None:
        """Return why a path, with all below it, is left; None when it, or something below it, may be taken."""
        if path in self._known:
            return None
        shape = f"{path}/" if is_dir else path
        rules = (left for spec, left in self._rules if (left.why or is_dir) and spec.match_file(shape))
        found = next(rules, _UNNAMED)
        return found if found.why else None


_UNNAMED = presets.LeftBehind(paths=(), why="not among what the preset names")
