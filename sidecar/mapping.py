"""One mapping of this sidecar: a subtree of the store and the mirrored directory, with what was set for them.

Made by `sidecar.config.mappings` from presets, the settings file and variables; read by the daemon's other rooms.
"""

from functools import cached_property

import pathspec

from configstore.mapping_settings import MappingSettings
from configstore.model.path import StorePath, join
from configstore.model.selection import Selection


class Mapping(MappingSettings, frozen=True, kw_only=True, dict=True):
    """One mapping, checked and complete.

    service: the container that the mapping is for, as its preset says; "" for none.
    holes: paths below the subtree, relative to it, that belong to other mappings.
    within: the directory of another mapping that has this one's directory inside, "" for none.
    """

    service: str = ""
    holes: tuple[StorePath, ...] = ()
    within: str = ""

    def selects(self, relative: StorePath, *, is_dir: bool) -> bool:
        """Tell whether a path (relative to the subtree) belongs to this mapping."""
        return self._selection.selects(relative, is_dir=is_dir)

    def enters(self, relative: StorePath, *, is_dir: bool = True) -> bool:
        """Tell whether a path, or for a directory anything below it, may belong to this mapping."""
        return self._selection.enters(relative, is_dir=is_dir)

    def absolute(self, relative: StorePath) -> StorePath:
        """Return the path in the store of a path relative to the subtree."""
        return join(self.store, relative)

    def rank(self, relative: StorePath) -> int:
        """Return the number of the first pattern of `order` that matches, counted from 0; after all for none."""
        ranks = (rank for rank, spec in enumerate(self._order) if spec.match_file(relative))
        return next(ranks, len(self._order))

    @cached_property
    def _order(self) -> tuple[pathspec.GitIgnoreSpec, ...]:
        return tuple(pathspec.GitIgnoreSpec.from_lines([pattern]) for pattern in self.order)

    @cached_property
    def _selection(self) -> Selection:
        return Selection(include=self.include, exclude=self.exclude, holes=self.holes)
