"""One path that cannot be mirrored, as a value: the sidecar finds it, a report names it, and commands show it."""

import msgspec

from configstore.model.path import ROOT, StorePath, printable, shown


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One path that cannot be mirrored now, with the reason and what to do about it.

    path: relative to the mapping's subtree; empty for the mapping as a whole.
    word: a name that is not valid text, as it is typed into a shell; else "".
    unsure: the content may change at any moment, so two such problems are never known to be the same one.
    sealing: no key opens the record, nothing can be sealed, or a record is plain where it must be sealed.
    """

    path: str
    reason: str
    unsure: bool = False
    # Always in a report, even when it is empty, as version 0.1 wrote it: of defaults that are made by a function,
    # `omit_defaults` leaves out those of list, dict and set alone.
    word: str = msgspec.field(default_factory=str)
    sealing: bool = False

    @property
    def reported(self) -> "Problem":
        """The problem without what only its own sidecar can use."""
        return Problem(path=self.path, reason=self.reason, word=self.word)

    def shown(self, subtree: StorePath = ROOT) -> str:
        """Return the path as it is typed into a shell: in the store for the mapping's subtree, else relative."""
        path = f"{subtree}/{self.path}" if subtree and self.path != "/" else self.path
        return printable(self.word) or shown(path)

    def __str__(self) -> str:
        """Return path and reason as one line for a person."""
        return f"{self.shown()}: {self.reason}" if self.path else self.reason
