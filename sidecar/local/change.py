"""One change to the mirrored directory, as a value: `cycle.pull` makes it, `apply` carries it out."""

import msgspec

from configstore.model.path import StorePath, basename, parent
from configstore.model.record import Entry, Kind, Source
from sidecar.planner.sides import LocalEntry, RemoteEntry


class SupersededError(Exception):
    """The store has another record by now than the one to be applied. Raised by a source."""


class ContentUnavailableError(Exception):
    """The content cannot be read now; the text says why, and what to do. Raised by a source."""


class LocalChange(msgspec.Struct, frozen=True, kw_only=True):
    """One path to bring to a state.

    expected: the local state that is replaced (None: nothing). desired: the new state; kind `gone` removes.
    content: the source of a file's bytes, in pieces; it may raise SupersededError, ContentUnavailableError and
    StoreUnavailableError. group: changes of one group are made together or not at all. remote: the record that it
    comes from, for the agreement when the change is finished after a crash.
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
        """The directory that contains the path."""
        return parent(self.path)

    @property
    def gone(self) -> bool:
        """Whether it removes the path."""
        return self.desired.kind is Kind.GONE

    @property
    def was_directory(self) -> bool:
        """Whether the replaced state is a directory."""
        return self.expected is not None and self.expected.entry.kind is Kind.DIR

    @property
    def keeps_directory(self) -> bool:
        """Whether a directory stays one."""
        return self.was_directory and self.desired.kind is Kind.DIR

    @property
    def changes_kind(self) -> bool:
        """Whether the replaced state must be removed first: a directory for something else, or the opposite."""
        return self.expected is not None and self.was_directory is not (self.desired.kind is Kind.DIR)

    def __repr__(self) -> str:
        """Return a text without the content source."""
        return f"LocalChange({self.path!r}, {self.desired!r}, group={self.group})"
