"""The values of a scan: its result, and what is known while it runs. Called by `scan`.

A `DirectoryScan` is merged into the `RunningScan` only after its directory was listed to the end. A directory that
is removed while it is listed, or whose listing fails half-way, has no effect: else the names that were not listed
yet would count as deleted.
"""

import dataclasses
import os
from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet

import msgspec

from configstore.files.reading import signature
from configstore.files.reasons import why_failed
from configstore.model.path import ROOT, PathError, StorePath, ancestors, parse_path, printable, shell_word
from configstore.model.problem import Problem
from configstore.model.signature import Signature
from sidecar.planner.sides import LocalEntry


class ScanResult(msgspec.Struct, kw_only=True):
    """What a scan found.

    changed: the paths that differ from what was known, with their new state; None for a path that is gone.
    problems: the paths that cannot be mirrored, and why; the problem of a directory is that of everything below
    it. cleared: the paths that had a problem and have none now. unstable: the paths that are being written to.
    touched: the paths with a problem whose stat has changed.
    """

    changed: dict[StorePath, LocalEntry | None] = {}
    problems: dict[StorePath, Problem] = {}
    cleared: set[StorePath] = set()
    unstable: set[StorePath] = set()
    touched: set[StorePath] = set()


@dataclasses.dataclass(kw_only=True, slots=True)
class RunningScan:
    """One scan while it runs.

    known: the states that it compares with. again: the files that are read whatever their signature is. read: the
    directories that were listed to the end. blind: the directories that could not be read; nothing is concluded
    about what is below them.
    """

    known: Map[StorePath, LocalEntry]
    again: AbstractSet[StorePath] = frozenset()
    found: ScanResult = dataclasses.field(default_factory=ScanResult)
    read: set[StorePath] = dataclasses.field(default_factory=set)
    blind: set[StorePath] = dataclasses.field(default_factory=set)

    def sees(self, path: StorePath) -> bool:
        """Return whether the scan would have found a path if it existed."""
        return self.blind.isdisjoint((ROOT, *ancestors(path)))


@dataclasses.dataclass(kw_only=True, slots=True)
class DirectoryScan:
    """One directory of a running scan while it is listed.

    descriptor: the open directory. paths: the paths in it that belong to the mapping. states: their state, None
    where it is the known one. children: its directories, with their inodes. files: everything else in it. racy:
    the files that may change again without a new signature; calm: the files that may not. unread: whether it must
    be scanned again without an event. blind: the directories in it that cannot be read. marks: the signatures of
    the paths with a problem, None where there is no stat.
    """

    directory: StorePath
    scan: RunningScan
    descriptor: int = -1
    paths: list[StorePath] = dataclasses.field(default_factory=list)
    states: dict[StorePath, LocalEntry | None] = dataclasses.field(default_factory=dict)
    children: dict[StorePath, int] = dataclasses.field(default_factory=dict)
    files: set[StorePath] = dataclasses.field(default_factory=set)
    unstable: set[StorePath] = dataclasses.field(default_factory=set)
    racy: set[StorePath] = dataclasses.field(default_factory=set)
    calm: set[StorePath] = dataclasses.field(default_factory=set)
    problems: dict[StorePath, Problem] = dataclasses.field(default_factory=dict)
    marks: dict[StorePath, Signature | None] = dataclasses.field(default_factory=dict)
    blind: set[StorePath] = dataclasses.field(default_factory=set)
    unread: bool = False

    def fail(self, path: str, error: OSError, status: os.stat_result | None = None) -> None:
        """Note a path that cannot be read now, for a reason that says nothing about what it is."""
        self.refuse(path, why_failed(error), status)
        self.unread = True

    def refuse(self, path: str, reason: str, status: os.stat_result | None) -> None:
        """Note a path that cannot be mirrored. status: its lstat, where it is known."""
        text, word = StorePath(path), ""
        try:
            parse_path(path or "/")
        except PathError:  # no record can have such a name
            text = StorePath(printable(path))
            word = "" if text == path else shell_word(path)
        self.problems[text] = Problem(path=text or "/", reason=reason, word=word)
        self.marks[text] = signature(status) if status else None
