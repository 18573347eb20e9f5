"""What one mapping asks for: a store subtree ⇄ a local directory, with its policy.

Made by `sidecar.config.settings` from settings and presets; read by every other part of the daemon.
"""

import enum
from functools import cached_property

import msgspec
import pathspec

from configstore.model.path import StorePath, join
from configstore.model.seal import Policy
from configstore.model.selection import Direction, Selection, Symlinks


class WatchMode(enum.StrEnum):
    """How local changes are noticed; `auto` takes inotify where it is to be had."""

    AUTO = "auto"
    INOTIFY = "inotify"
    POLL = "poll"


class OwnerOverride(msgspec.Struct, frozen=True, kw_only=True):
    """A user and a group by number, instead of those that there would be else; None keeps these."""

    uid: int | None = None
    gid: int | None = None


AS_IT_IS = OwnerOverride()
"""No other user or group than there would be."""


class Mapping(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One mapping, checked and complete. Durations are in seconds.

    store: subtree of the store. path: absolute local directory. service: whose container it is for, by its preset,
    "" for none.
    include, exclude: gitignore-style patterns, relative to the subtree.
    holes: paths below the subtree that another mapping has taken out of this one, relative to it.
    within: directory of another mapping in which this one's lies, "" for none.
    retention: for how long superseded records are kept, and keep: how many of a path.
    file_mode, dir_mode: modes forced on the replica, None keeps the record's.
    run_as: the user that check, on_change and on_problem run as; None for the sidecar's own.
    seal: whether what is written is sealed, and what is plain believed; None counts as off.
    order: patterns; what matches an earlier one is placed before what matches a later one, and all else at last.
    """

    name: str
    store: StorePath
    path: str
    service: str = ""
    direction: Direction = Direction.BOTH
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    holes: tuple[StorePath, ...] = ()
    within: str = ""
    required: bool = True
    lease: str | None = None
    settle: float = 0.02
    delete_settle: float = 1.0
    symlinks: Symlinks = Symlinks.PRESERVE
    max_delete: float = 0.5
    retention: float = 30 * 86400.0
    keep: int = 100
    create_once: bool = False
    seal: Policy | None = None
    owner: OwnerOverride = AS_IT_IS
    file_mode: int | None = None
    dir_mode: int | None = None
    refuse_empty: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    watch: WatchMode = WatchMode.AUTO
    rescan: float = 60.0
    check: tuple[str, ...] = ()
    on_change: tuple[str, ...] = ()
    signal: str | None = None
    on_problem: tuple[str, ...] = ()
    run_as: OwnerOverride = AS_IT_IS

    def selects(self, relative: StorePath, *, is_dir: bool) -> bool:
        """Tell whether a path (relative to the subtree) belongs to this mapping."""
        return self._selection.selects(relative, is_dir=is_dir)

    def enters(self, relative: StorePath, *, is_dir: bool = True) -> bool:
        """Tell whether a path, or for a directory anything below it, may belong to this mapping."""
        return self._selection.enters(relative, is_dir=is_dir)

    def absolute(self, relative: StorePath) -> StorePath:
        """Return a path of this mapping as the store has it."""
        return join(self.store, relative)

    def rank(self, relative: StorePath) -> int:
        """Return at which turn a path of a set is placed, counted from 0."""
        turns = (turn for turn, spec in enumerate(self._turns) if spec.match_file(relative))
        return next(turns, len(self._turns))

    @cached_property
    def _turns(self) -> tuple[pathspec.GitIgnoreSpec, ...]:
        return tuple(pathspec.GitIgnoreSpec.from_lines([pattern]) for pattern in self.order)

    @cached_property
    def _selection(self) -> Selection:
        return Selection(include=self.include, exclude=self.exclude, holes=self.holes)
