"""What one look at one directory found; and what all looks of one scan together know.

Called by `scan`. A visit is kept to itself until its directory was listed to the end: a directory that is removed
while it is listed, or whose listing breaks off, leaves nothing half-known behind.
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


class Scan(msgspec.Struct, kw_only=True):
    """What a scan found.

    changed: paths that differ from what was known, None for those no longer there. problems: paths that cannot be
    mirrored, and why; that of a directory speaks for all that is below it. cleared: paths that had a problem and
    have none now. unstable: paths being written. touched: paths with a problem that somebody changed, as far as
    their stat tells.
    """

    changed: dict[StorePath, LocalEntry | None] = {}
    problems: dict[StorePath, Problem] = {}
    cleared: set[StorePath] = set()
    unstable: set[StorePath] = set()
    touched: set[StorePath] = set()


@dataclasses.dataclass(kw_only=True, slots=True)
class Round:
    """One scan under way.

    known: what it is compared with. again: files that are read whatever their signature. read: the directories
    that were listed to the end. blind: those that could not be looked into, of which nothing is concluded.
    """

    known: Map[StorePath, LocalEntry]
    again: AbstractSet[StorePath] = frozenset()
    found: Scan = dataclasses.field(default_factory=Scan)
    read: set[StorePath] = dataclasses.field(default_factory=set)
    blind: set[StorePath] = dataclasses.field(default_factory=set)

    def sees(self, path: StorePath) -> bool:
        """Tell whether it would have been found, if a path lay there."""
        return self.blind.isdisjoint((ROOT, *ancestors(path)))


@dataclasses.dataclass(kw_only=True, slots=True)
class Visit:
    """One directory being looked at in a round.

    descriptor: the open directory. paths: what is ours in it, whatever can be said of it. looked: what lies there,
    None where it is what was known. children: the directories in it, with their inodes. files: what is none.
    racy: files read that may change without a sign of it; calm: those that may not. unread: something in it is to
    be looked at again, event or no event. blind: directories in it that cannot be looked into. marks: how the
    paths that have a problem look, None where not even that can be told.
    """

    directory: StorePath
    round: Round
    descriptor: int = -1
    paths: list[StorePath] = dataclasses.field(default_factory=list)
    looked: dict[StorePath, LocalEntry | None] = dataclasses.field(default_factory=dict)
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
        """Note what could not be looked at, for a reason that says nothing about what lies there."""
        self.refuse(path, why_failed(error), status)
        self.unread = True

    def refuse(self, path: str, reason: str, status: os.stat_result | None) -> None:
        """Note what cannot be mirrored. status: its lstat, where it is known."""
        text, word = StorePath(path), ""
        try:
            parse_path(path or "/")
        except PathError:  # no record can have such a name
            text = StorePath(printable(path))
            word = "" if text == path else shell_word(path)
        self.problems[text] = Problem(path=text or "/", reason=reason, word=word)
        self.marks[text] = signature(status) if status else None
