"""Which paths belong to a mapping, which way they travel, and what becomes of symlinks there."""

import enum
from collections.abc import Iterable
from functools import cached_property

import msgspec
import pathspec

from configstore.model.path import PRIVATE_NAME, ROOT, StorePath, is_below, relative_to


class Direction(enum.StrEnum):
    """Which way changes travel."""

    BOTH = "both"
    PULL = "pull"
    PUSH = "push"


class Symlinks(enum.StrEnum):
    """What happens to symlinks: mirrored as they are, replaced by what they point to, or refused."""

    PRESERVE = "preserve"
    RESOLVE = "resolve"
    REFUSE = "refuse"


class Selection(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Which paths below a subtree belong to a mapping.

    include, exclude: gitignore-style patterns, relative to the subtree.
    holes: paths below the subtree that another mapping has taken out of this one, relative to it.
    """

    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    holes: tuple[StorePath, ...] = ()

    def selects(self, relative: StorePath, *, is_dir: bool) -> bool:
        """Tell whether a path (relative to the subtree) belongs to this mapping."""
        if not self.enters(relative, is_dir=is_dir):
            return False
        return self._included.match_file(f"{relative}/" if is_dir else relative)

    def enters(self, relative: StorePath, *, is_dir: bool = True) -> bool:
        """Tell whether a path, or for a directory anything below it, may belong to this mapping."""
        if relative == ROOT:
            return True
        if PRIVATE_NAME in relative.split("/"):
            return False
        if any(relative == hole or is_below(relative, hole) for hole in self.holes):
            return False
        if self._tops is not None and relative.partition("/")[0] not in self._tops:
            return False
        return not self._excluded.match_file(f"{relative}/" if is_dir else relative)

    @cached_property
    def _tops(self) -> frozenset[str] | None:
        """The names below the subtree in which all lies that is included; None when that may be anywhere."""
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
    """Return what other mappings take out of one: by their subtree as by their directory.

    Each is given as its subtree and its directory; the same mapping among them takes nothing.
    """
    store, directory = outer
    found = set()
    for inner_store, inner_directory in others:
        if is_below(StorePath(inner_store), StorePath(store)):
            found.add(relative_to(StorePath(inner_store), StorePath(store)))
        if inner_directory.startswith(f"{directory}/"):
            found.add(StorePath(inner_directory[len(directory) + 1 :]))
    return tuple(sorted(found))
