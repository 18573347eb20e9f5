"""One change to the mirrored directory, as a value: made by `transfer`, carried out by `apply`."""

import msgspec

from configstore.model.path import StorePath
from configstore.model.record import Entry, shown_size
from sidecar.planner.sides import LocalEntry, RemoteEntry


class LocalChange(msgspec.Struct, frozen=True, kw_only=True):
    """One path to bring to a state.

    expected: what must lie there now (None: nothing). desired: what shall; kind `gone` removes. content: a
    file's bytes. group: changes of one group are made together or not at all. remote: the record that it comes
    from, which a set finished after a crash agrees on.
    """

    path: StorePath
    expected: LocalEntry | None
    desired: Entry
    content: bytes | None = None
    group: int
    remote: RemoteEntry | None = None

    def __repr__(self) -> str:
        """Show everything but the content."""
        return f"LocalChange({self.path!r}, {self.desired!r}, {shown_size(self.content)})"
