"""Where a product's files lie on a single host, such as below /mailu, and which of them no mapping takes.

Called by `import` and `export` with `--preset`, and by what they share: `cli.host`, `cli.excludes`,
`cli.left_behind`.
"""

from collections.abc import Iterable, Iterator

import msgspec
import pathspec

from configstore import presets
from configstore.model.path import ROOT, StorePath, ancestors, join, parent, parse_path
from configstore.model.selection import Selection, Symlinks, taken_out


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of the host, relative to the installation's folder, and the subtree that it becomes.

    name: of its mapping, "" without a preset. dir_mode: of directories without a record. earlier: the directory is
    where earlier releases kept the same files; they are only imported from there.
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
        """Yield pairs of directories, host and store: the data set's own, then those above it in both."""
        host, store = self.host, self.store
        if store:
            yield host, store
        host, store = parent(host), parent(store)
        while host and store:
            yield host, store
            host, store = parent(host), parent(store)


def data_sets(preset: str, below: StorePath) -> tuple[DataSet, ...]:
    """Return a preset's data sets; `below`: the path of the store that they go below. Raises UsageError."""
    mappings = [mapping for mapping in presets.load(preset) if mapping.host]
    directories = [(mapping.store, mapping.host) for mapping in mappings]
    found = []
    for mapping in mappings:
        main = DataSet(
            name=mapping.name,
            store=join(below, mapping.store),
            host=parse_path(mapping.host),
            selection=Selection(
                include=mapping.include,
                exclude=mapping.exclude,
                holes=taken_out((mapping.store, mapping.host), directories),
            ),
            symlinks=mapping.symlinks,
            refuse_empty=mapping.refuse_empty,
            lease=mapping.lease or "",
            create_once=mapping.create_once,
            dir_mode=0o755 if mapping.dir_mode is None else mapping.dir_mode,
        )
        found += [main, *(_earlier(main, files) for files in mapping.earlier)]
    return tuple(found)


def _earlier(main: DataSet, files: presets.HostFiles) -> DataSet:
    selection = Selection(include=files.include, exclude=main.selection.exclude)
    return msgspec.structs.replace(main, host=parse_path(files.host), selection=selection, earlier=True)


class LeftBehindRules:
    """Says why a path of the host is taken by no data set."""

    def __init__(self, preset: str, taken: Iterable[StorePath]) -> None:
        """`taken`: the paths that data sets take, and their directories, relative to the host's folder."""
        taken = tuple(taken)
        self._known = {*taken, *(above for path in taken for above in ancestors(path))}
        self._rules = [(pathspec.GitIgnoreSpec.from_lines(left.paths), left) for left in presets.left(preset)]

    def why(self, path: StorePath, *, is_dir: bool) -> presets.LeftBehind | None:
        """Return why a path and all below it is left behind; None when any of it may be taken."""
        if path in self._known:
            return None
        shape = f"{path}/" if is_dir else path
        rules = (left for spec, left in self._rules if (left.why or is_dir) and spec.match_file(shape))
        found = next(rules, _UNNAMED)
        return found if found.why else None


_UNNAMED = presets.LeftBehind(paths=(), why="not among what the preset names")
