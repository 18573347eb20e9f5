"""What `--exclude` leaves out of an import, by patterns as in .gitignore. Called by `host`.

A pattern may name a path in each of the ways in which an operator sees it: relative to the folder, in full, or as
the path in the store.
"""

import os
from collections.abc import Iterable, Sequence

import pathspec

from configstore.model.path import ROOT, StorePath, first_component, join, shell_word
from configstore.model.selection import Selection
from configstore.presets.single_host import DataSet

_ANCHOR = "/"
_NOTHING = "#"  # a comment: it keeps the number of a pattern, and matches nothing
_MEANT = str.maketrans({char: f"\\{char}" for char in "*?[]\\"})


class Excludes:
    """The patterns of one import, and which of them left something out."""

    def __init__(self, patterns: Sequence[str], directory: str, parts: Iterable[DataSet]) -> None:
        """`directory`: the folder that is imported, as it was typed. `parts`: its data sets."""
        self._patterns = tuple(patterns)
        self._hit: set[int] = set()
        tops = {first_component(path) for part in parts for path in (part.host, part.store) if path}
        above = os.path.abspath(directory).rstrip("/") + "/"
        lines = [_below(pattern, directory.rstrip("/") + "/", above) for pattern in self._patterns]
        self._whole = pathspec.GitIgnoreSpec.from_lines(lines)
        inner = [line if _is_anchored(line) and _top(line) not in tops else _NOTHING for line in lines]
        self._inner = pathspec.GitIgnoreSpec.from_lines(inner)

    def leave_out(self, part: DataSet, relative: StorePath, *, is_dir: bool) -> bool:
        """Return whether a path of a data set is left out. relative: to its directory, ROOT for the directory.

        An anchored pattern that does not begin with the directory of a data set applies in each of these
        directories.
        """
        if not self._patterns:
            return False
        end = "/" if is_dir else ""
        names = {join(part.host, relative), join(part.store, relative)} - {ROOT}
        found = [self._whole.check_file(f"{name}{end}") for name in names]
        if relative:
            found.append(self._inner.check_file(f"{relative}{end}"))
        hits = {each.index for each in found if each.include and each.index is not None}
        self._hit |= hits
        return bool(hits)

    def unused(self) -> list[str]:
        """Return the patterns that left nothing out."""
        return [
            pattern
            for number, pattern in enumerate(self._patterns)
            if number not in self._hit and pattern.strip() and not pattern.startswith(("#", "!"))
        ]


class Chosen(Selection, frozen=True, kw_only=True, dict=True):
    """The selection of a data set without what is left out."""

    part: DataSet
    excludes: Excludes

    def enters(self, relative: StorePath, *, is_dir: bool = True) -> bool:
        """Tell whether a path, or for a directory anything below it, is to be imported."""
        if not super().enters(relative, is_dir=is_dir):
            return False
        return relative == ROOT or not self.excludes.leave_out(self.part, relative, is_dir=is_dir)


def choose(part: DataSet, excludes: Excludes) -> Chosen:
    """Return the selection of what is imported of a data set."""
    selection = part.selection
    return Chosen(
        include=selection.include, exclude=selection.exclude, holes=selection.holes, part=part, excludes=excludes
    )


def option(host: str) -> str:
    """Return the option, as it is typed, that leaves a path out; `host`: relative to the folder."""
    return f"--exclude {shell_word(_ANCHOR + host.translate(_MEANT))}"


def _below(pattern: str, *folders: str) -> str:
    """Return a pattern for a full path as one relative to the imported folder."""
    for folder in folders:
        if folder != _ANCHOR and pattern.startswith(folder):
            return _ANCHOR + pattern[len(folder) :]
    return pattern[1:] if pattern.startswith("./") else pattern


def _is_anchored(line: str) -> bool:
    return _ANCHOR in line.rstrip().rstrip(_ANCHOR)


def _top(line: str) -> str:
    return line.lstrip("!").lstrip(_ANCHOR).partition(_ANCHOR)[0]
