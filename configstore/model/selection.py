"""The parts of a mapping's policy that commands need as well: its paths, its direction, and its symlinks."""

import enum
from collections.abc import Iterable
from functools import cached_property

import msgspec
import pathspec

from configstore.model.path import PRIVATE_NAME, ROOT, StorePath, first_component, is_below, relative_to


class Direction(enum.StrEnum):
    """The way in which changes travel."""

    BOTH = "both"
    PULL = "pull"
    PUSH = "push"


class Symlinks(enum.StrEnum):
    """How symlinks are mirrored: as they are, as the file they point to, or not at all."""

    PRESERVE = "preserve"
    RESOLVE = "resolve"
    REFUSE = "refuse"


class Selection(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Which paths below a subtree belong to a mapping.

    include, exclude: gitignore-style patterns, relative to the subtree.
    holes: paths below the subtree that belong to another mapping, relative to it.
    """

    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    holes: tuple[StorePath, ...] = ()

    def selects(self, relative: StorePath, *, is_dir: bool) -> bool:
        """Return whether a path (relative to the subtree) belongs to this mapping."""
        if not self.enters(relative, is_dir=is_dir):
            return False
        return self._included.match_file(f"{relative}/" if is_dir else relative)

    def enters(self, relative: StorePath, *, is_dir: bool = True) -> bool:
        """Return whether a path, or anything below it if it is a directory, may belong to this mapping."""
        if relative == ROOT:
            return True
        if PRIVATE_NAME in relative.split("/"):
            return False
        if any(relative == hole or is_below(relative, hole) for hole in self.holes):
            return False
        if self._tops is not None and first_component(relative) not in self._tops:
            return False
        return not self._excluded.match_file(f"{relative}/" if is_dir else relative)

    @cached_property
    def _tops(self) -> frozenset[str] | None:
        """The top-level names that hold all included paths; None if these may be anywhere."""
        tops = [pattern[1:].partition("/")[0] for pattern in self.include if pattern.startswith("/")]
        plain = len(tops) == len(self.include) and not any(set(top) & set("*?[\\!") for top in tops)
        return frozenset(tops) if plain and all(tops) else None

    @cached_property
    def _included(self) -> "pathspec.GitIgnoreSpec":  # in quotes: see `process.lean`
        return pathspec.GitIgnoreSpec.from_lines(self.include)

    @cached_property
    def _excluded(self) -> "pathspec.GitIgnoreSpec":  # in quotes: see `process.lean`
        return pathspec.GitIgnoreSpec.from_lines(self.exclude)


def taken_out(outer: tuple[str, str], others: Iterable[tuple[str, str]]) -> tuple[StorePath, ...]:
    """Return the paths of a mapping that belong to others, by their subtrees and by their directories.

    Each mapping is given as its subtree and its directory; the mapping itself may be among `others`.
    """
    store, directory = outer
    found = set()
    for inner_store, inner_directory in others:
        if is_below(StorePath(inner_store), StorePath(store)):
            found.add(relative_to(StorePath(inner_store), StorePath(store)))
        if inner_directory.startswith(f"{directory}/"):
            found.add(StorePath(inner_directory[len(directory) + 1 :]))
    return tuple(sorted(found))
