"""What strikes in the middle of a cycle of a simulated replica. Called by `replica` and `edges`."""

import contextlib
import itertools
import os
from collections import Counter

from configstore.errors import StoreUnavailableError
from sidecar.local import rename

DISK = ["rename", "unlink", "rmdir", "mkdir", "symlink", "link", "fchmod", "write", "ftruncate"]
"""Calls of os that change the disk; the sidecar makes no others, but for renameat2 and opening."""

_edits = itertools.count()


class Crash(BaseException):
    """The process ends here."""


class Fault:
    """Happens at the n-th call of a kind.

    kind: `before` or `after` a call of the store, before a `rename` into place, before any call that changes the
    `disk`, before the sidecar opens a directory to `list` it, takes an `entry` of one, or will `read` a file.
    happens: `lost` (that call of the store, or its answer), `late` (a transaction that reaches the store only
    after its sender gave up), `crash` and `crash twice` (the second time while it recovers), `other` (another
    replica's user edits `name`, and that replica makes a whole cycle), or what this replica's user does: `edit`,
    `create`, `remove` or `move` of `name`, or `pair`: both files of the pair, the second a little later. After a
    crash the user edits `name`, if it is given, or the `pair`, before the process is started again.
    """

    def __init__(self, kind="", number=0, happens="", name=""):
        self.kind, self.number, self.happens, self.name = kind, number, happens, name
        self.calls = Counter()
        self.late = self.struck = False
        self._due = [number]

    def strike(self, kind, replica):
        """Count a call, and do what is to be done at it. Raises Crash, StoreUnavailableError."""
        self.calls[kind] += 1
        if kind != self.kind or self.calls[kind] not in self._due:
            return
        self.struck = True
        if self.happens.startswith("crash"):
            raise Crash
        if self.happens in {"lost", "late"} and kind in {"before", "after"}:
            self.late = self.happens == "late" and kind == "before"
            raise StoreUnavailableError("a fault of the simulation")
        self._act(replica)

    def _act(self, replica):
        user = replica.user
        if self.happens == "other":
            replica.let_another_act(self.name, b"another's %d" % next(_edits))
        elif self.happens in {"edit", "create"}:
            user.write(self.name, b"meanwhile %d" % next(_edits), makes_directory=self.happens == "create")
        elif self.happens == "remove":
            user.delete(self.name)
        elif self.happens == "move":
            user.rename(self.name, "m")
        elif self.happens == "pair":
            if self._due == [self.number] and not user.half_way:
                user.begin_pair(1_000_000 + next(_edits))
            user.go_on_with_pair()
            self._due = [self.number + 2]

    def after_a_crash(self, user):
        """Have the user act while the process is dead."""
        if self.name == "pair":
            user.write_pair(1_000_000 + next(_edits))
        elif self.name:
            user.write(self.name, b"while dead %d" % next(_edits))

    def __repr__(self):
        return f"Fault({self.kind!r}, {self.number}, {self.happens!r}, {self.name!r})"


@contextlib.contextmanager
def striking(strike):
    """Have `strike` called with the kind of each call that changes or lists the disk, just before the kernel."""

    def before(real, *kinds):
        def call(*arguments, **options):
            for kind in kinds:
                strike(kind)
            return real(*arguments, **options)

        return call

    with contextlib.ExitStack() as stack:
        changes = [(os, name, before(getattr(os, name), "disk")) for name in DISK]
        renames = before(rename.renameat2, "rename", "disk")
        listing = _striking_listing(os.scandir, strike)
        for where, name, call in [*changes, (rename, "renameat2", renames), (os, "scandir", listing)]:
            stack.callback(setattr, where, name, getattr(where, name))
            setattr(where, name, call)
        yield


def _striking_listing(real, strike):
    class Listing:
        """A listing that tells of each entry."""

        def __init__(self, where):
            strike("list")
            self._entries = real(where)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.close()

        def close(self):
            self._entries.close()

        def __iter__(self):
            for entry in self._entries:
                strike("entry")
                yield entry

    return lambda where=".": Listing(where) if isinstance(where, int) else real(where)
