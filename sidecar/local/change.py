"""One change to the mirrored directory, as a value: made by `execute`, carried out by `apply`."""

import msgspec

from configstore.model.path import StorePath, basename, parent
from configstore.model.record import Entry, Kind, Source
from sidecar.planner.sides import LocalEntry, RemoteEntry


class Overtaken(Exception):  # noqa: N818  # a fact, not a fault
    """The store holds another version by now than the one that was to be applied; raised by a source."""


class Withheld(Exception):  # noqa: N818  # becomes a Problem
    """The content cannot be had now; the text says why, and the mend. Raised by a source."""


class LocalChange(msgspec.Struct, frozen=True, kw_only=True):
    """One path to bring to a state.

    expected: what must lie there now (None: nothing). desired: what shall; kind `gone` removes. content: where a
    file's bytes come from, piece by piece; it may raise Overtaken, Withheld and StoreUnavailableError. group:
    changes of one group are made together or not at all. remote: the record that it comes from, which a set
    finished after a crash agrees on.
    """

    path: StorePath
    expected: LocalEntry | None
    desired: Entry
    content: Source | None = None
    group: int
    remote: RemoteEntry | None = None

    @property
    def name(self) -> str:
        """The last component of the path."""
        return basename(self.path)

    @property
    def above(self) -> StorePath:
        """The directory in which it lies."""
        return parent(self.path)

    @property
    def gone(self) -> bool:
        """Whether it removes the path."""
        return self.desired.kind is Kind.GONE

    @property
    def was_directory(self) -> bool:
        """Whether a directory is believed to lie there."""
        return self.expected is not None and self.expected.entry.kind is Kind.DIR

    @property
    def keeps_directory(self) -> bool:
        """Whether a directory stays one."""
        return self.was_directory and self.desired.kind is Kind.DIR

    @property
    def changes_kind(self) -> bool:
        """Whether what lies there must make way first: a directory for something else, or the other way round."""
        return self.expected is not None and self.was_directory is not (self.desired.kind is Kind.DIR)

    def __repr__(self) -> str:
        """Show everything but the content: a source may hold it."""
        return f"LocalChange({self.path!r}, {self.desired!r}, group={self.group})"
