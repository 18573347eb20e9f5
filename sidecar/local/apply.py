"""Brings the store's state to the mirrored directory, as a set.

Everything is made ready first in the staging directory, with its owner and mode, out of the application's sight;
then it is renamed into place back to back, each after one more look at what is about to be replaced; removals
come last. Called by the engine's thread only.
"""

import errno
import itertools
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from configstore.model.path import StorePath, ancestors, depth, is_below, parent
from configstore.model.record import Entry, Kind, shown_size
from sidecar.local.entries import Entries
from sidecar.local.reading import signature
from sidecar.local.root import Root
from sidecar.local.scan import unsafe_target
from sidecar.planner.mapping import Mapping, Symlinks
from sidecar.planner.sides import LocalEntry, Problem

_OPEN_DIRECTORIES = 128
_IMPLICIT_MODE = 0o755


class LocalChange(msgspec.Struct, frozen=True, kw_only=True):
    """One path to bring to a state.

    expected: what must lie there now (None: nothing). desired: what shall; kind `gone` removes. content: a
    file's bytes. group: changes of one group are made together or not at all.
    """

    path: StorePath
    expected: LocalEntry | None
    desired: Entry
    content: bytes | None = None
    group: int

    def __repr__(self) -> str:
        """Show everything but the content."""
        return f"LocalChange({self.path!r}, {self.desired!r}, {shown_size(self.content)})"


class Applied(msgspec.Struct, kw_only=True):
    """What came of it.

    done: the paths brought to their state, with what lies there now. problems: what could not be done, and why;
    the old state is whole. stale: paths that held something else than expected, and were not touched.
    """

    done: dict[StorePath, LocalEntry | None] = {}
    problems: dict[StorePath, Problem] = {}
    stale: set[StorePath] = set()


class _Stale(Exception):  # noqa: N818  # becomes a value
    pass


class _Refused(Exception):  # noqa: N818  # becomes a Problem
    pass


class Applier:
    """Applies sets of changes to one mapping's directory."""

    def __init__(self, root: Root, mapping: Mapping, note: Callable[[StorePath], None] = lambda _: None) -> None:
        """`note` is told each path that was put in place."""
        self._root = root
        self._mapping = mapping
        self._note = note
        self._entries = Entries()
        self._numbers = itertools.count()

    def apply(self, changes: Sequence[LocalChange]) -> Applied:
        """Make the changes; whatever fails is told in the result and leaves the old state."""
        applied = Applied()
        parents = _Directories(self._root, self._mapping.dir_mode)
        staged: dict[StorePath, str] = {}
        try:
            pending = self._clear_the_way(changes, parents, applied)
            made = [change for change in pending if change.desired.kind is not Kind.GONE]
            for change in sorted(
                made, key=lambda change: (change.desired.kind is not Kind.DIR, depth(change.path))
            ):
                self._try(change, applied, partial(self._stage, change, parents, staged, applied))
            self._hold_back(made, applied)
            for change in sorted(
                made, key=lambda change: (change.desired.kind is Kind.SYMLINK, depth(change.path))
            ):
                if change.path in staged and change.path not in applied.problems:
                    self._try(change, applied, partial(self._place, change, parents, staged, applied))
            gone = [change for change in pending if change.desired.kind is Kind.GONE]
            for change in sorted(gone, key=lambda change: -depth(change.path)):
                self._try(change, applied, partial(self._remove, change, parents, applied))
        finally:
            parents.close()
            for name in staged.values():
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._root.staging_fd)
        return applied

    def _try(self, change: LocalChange, applied: Applied, step: Callable[[], None]) -> None:
        try:
            step()
        except _Stale:
            applied.stale.add(change.path)
        except _Refused as refusal:
            applied.problems[change.path] = Problem(path=change.path, reason=str(refusal))
        except OSError as error:
            applied.problems[change.path] = Problem(path=change.path, reason=_words(error))

    def _clear_the_way(
        self, changes: Sequence[LocalChange], parents: "_Directories", applied: Applied
    ) -> list[LocalChange]:
        """Remove what lies where another kind of thing must be; returns the changes still to be made."""
        replaced = [change for change in changes if _changes_kind(change)]
        below = [
            change
            for change in changes
            if change.desired.kind is Kind.GONE and any(is_below(change.path, top.path) for top in replaced)
        ]
        for change in sorted([*below, *replaced], key=lambda change: -depth(change.path)):
            self._try(change, applied, partial(self._remove, change, parents, applied))
        cleared = {change.path for change in replaced} & applied.done.keys()
        failed = applied.problems.keys() | applied.stale
        for path in cleared:
            del applied.done[path]
        return [
            msgspec.structs.replace(change, expected=None) if change.path in cleared else change
            for change in changes
            if change not in below and change.path not in failed
        ]

    def _stage(
        self, change: LocalChange, parents: "_Directories", staged: dict[StorePath, str], applied: Applied
    ) -> None:
        self._verify(change, parents.open(parent(change.path), make=True))
        kind = change.desired.kind
        if kind is Kind.DIR:
            self._make_directory(change, parents, applied)
            return
        name = str(next(self._numbers))
        if kind is Kind.SYMLINK:
            self._stage_link(change, name, staged)
        else:
            self._stage_file(change, name, staged, parents)

    def _stage_file(
        self, change: LocalChange, name: str, staged: dict[StorePath, str], parents: "_Directories"
    ) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._root.staging_fd)
        staged[change.path] = name
        try:
            view = memoryview(change.content or b"")
            while view:
                view = view[os.write(descriptor, view) :]
            self._own(descriptor, change, parents)
            os.fchmod(descriptor, change.desired.mode)
        finally:
            os.close(descriptor)

    def _stage_link(self, change: LocalChange, name: str, staged: dict[StorePath, str]) -> None:
        if self._mapping.symlinks is not Symlinks.PRESERVE:
            raise _Refused(f'a symlink in the store, and this mapping has symlinks = "{self._mapping.symlinks}"')
        reason = unsafe_target(change.path, change.desired.target)
        if reason:
            raise _Refused(reason)
        os.symlink(change.desired.target, name, dir_fd=self._root.staging_fd)
        staged[change.path] = name
        uid, gid = change.desired.uid, change.desired.gid
        status = os.stat(name, dir_fd=self._root.staging_fd, follow_symlinks=False)
        if (uid not in {None, status.st_uid}) or (gid not in {None, status.st_gid}):
            with suppress(PermissionError):  # nobody is kept from reading a link by its owner
                os.chown(
                    name,
                    -1 if uid is None else uid,
                    -1 if gid is None else gid,
                    dir_fd=self._root.staging_fd,
                    follow_symlinks=False,
                )

    def _make_directory(self, change: LocalChange, parents: "_Directories", applied: Applied) -> None:
        above = parents.open(parent(change.path))
        name = change.path.rpartition("/")[2]
        if change.expected is None:
            os.mkdir(name, 0o700, dir_fd=above)
        descriptor = parents.open(change.path)
        self._own(descriptor, change, parents)
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != change.desired.mode:
            os.fchmod(descriptor, change.desired.mode)
        self._finish(change, above, applied)

    def _own(self, descriptor: int, change: LocalChange, parents: "_Directories") -> None:
        """Give what is open its owner: the record's, else the one it had, else that of its directory."""
        status = os.fstat(descriptor)
        had = change.expected.signature if change.expected else None
        above = os.fstat(parents.open(parent(change.path)))
        uid, gid = change.desired.uid, change.desired.gid
        wished = (had.uid if had else above.st_uid) if uid is None else uid
        wished_group = (had.gid if had else above.st_gid) if gid is None else gid
        if (wished, wished_group) == (status.st_uid, status.st_gid):
            return
        try:
            os.fchown(descriptor, wished, wished_group)
        except PermissionError as error:
            if uid is None and gid is None:
                return
            raise _Refused(
                f"its owner is {wished}:{wished_group}, which this sidecar (uid {os.geteuid()}) may not set: run"
                ' it as that user, or as root with CHOWN, or set the mapping\'s owner, such as owner = "1000:1000"'
            ) from error

    def _hold_back(self, changes: Sequence[LocalChange], applied: Applied) -> None:
        """Let no member of a group be placed when another one cannot be."""
        culprits = {change.group: change.path for change in changes
                    if change.path in applied.problems or change.path in applied.stale}  # fmt: skip
        for change in changes:
            culprit = culprits.get(change.group)
            fine = change.path not in applied.problems and change.path not in applied.stale
            if culprit and fine and change.path not in applied.done:
                if culprit in applied.stale:
                    applied.stale.add(change.path)
                else:
                    reason = f"held back: {culprit}, which was changed together with it, cannot be applied"
                    applied.problems[change.path] = Problem(path=change.path, reason=reason)

    def _place(
        self, change: LocalChange, parents: "_Directories", staged: dict[StorePath, str], applied: Applied
    ) -> None:
        if change.path in applied.stale:
            return
        above = parents.open(parent(change.path))
        self._verify(change, above)
        name = change.path.rpartition("/")[2]
        os.rename(staged[change.path], name, src_dir_fd=self._root.staging_fd, dst_dir_fd=above)
        del staged[change.path]
        self._finish(change, above, applied)

    def _remove(self, change: LocalChange, parents: "_Directories", applied: Applied) -> None:
        try:
            above = parents.open(parent(change.path))
            self._verify(change, above)
        except FileNotFoundError:
            applied.done[change.path] = None
            return
        name = change.path.rpartition("/")[2]
        if change.expected and change.expected.entry.kind is Kind.DIR:
            os.rmdir(name, dir_fd=above)
            parents.forget(change.path)
        elif change.expected:
            os.unlink(name, dir_fd=above)
        applied.done[change.path] = None

    def _verify(self, change: LocalChange, above: int) -> None:
        """Raise _Stale unless just that lies at the path which the plan believed to lie there."""
        try:
            status = os.stat(change.path.rpartition("/")[2], dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            if change.expected is None:
                return
            if change.desired.kind is Kind.GONE:
                raise
            raise _Stale from None
        if change.expected is None or signature(status) != change.expected.signature:
            raise _Stale

    def _finish(self, change: LocalChange, above: int, applied: Applied) -> None:
        status = os.stat(change.path.rpartition("/")[2], dir_fd=above, follow_symlinks=False)
        wanted = change.desired
        entry = self._entries.make(
            wanted.kind, status, size=wanted.size, sha256=wanted.sha256, target=wanted.target
        )
        applied.done[change.path] = LocalEntry(entry=entry, signature=signature(status))
        self._note(change.path)


class _Directories:
    """Directories held open for *at() calls, the least recently used ones closed again."""

    def __init__(self, root: Root, mode: int | None) -> None:
        """`mode` is that of directories which the store has no record of."""
        self._root = root
        self._mode = _IMPLICIT_MODE if mode is None else mode
        self._open: OrderedDict[StorePath, int] = OrderedDict()

    def open(self, path: StorePath, *, make: bool = False) -> int:
        """Return a descriptor, valid until some others were opened; `make` makes what is missing."""
        if path not in self._open:
            if make:
                for above in [*ancestors(path), path] if path else ():
                    self._make(above)
            self._open[path] = self._root.open_directory(path)
            if len(self._open) > _OPEN_DIRECTORIES:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(path)
        return self._open[path]

    def forget(self, path: StorePath) -> None:
        """Close a directory that was removed."""
        descriptor = self._open.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _make(self, path: StorePath) -> None:
        above = self.open(parent(path))
        try:
            os.mkdir(path.rpartition("/")[2], 0o700, dir_fd=above)
        except FileExistsError:
            return
        made, owner = self.open(path), os.fstat(above)
        with suppress(PermissionError):
            os.fchown(made, owner.st_uid, owner.st_gid)
        os.fchmod(made, self._mode)


def _changes_kind(change: LocalChange) -> bool:
    if change.expected is None or change.desired.kind is Kind.GONE:
        return False
    before, after = change.expected.entry.kind, change.desired.kind
    return before is not after and Kind.DIR in {before, after}


def _words(error: OSError) -> str:
    words = {
        errno.ENOSPC: "no space left in the directory's file system: give the volume a larger size",
        errno.EDQUOT: "the quota is used up",
        errno.EMFILE: "too many open files: raise the sidecar's limit",
        errno.EROFS: "the directory is mounted read-only",
        errno.EXDEV: "another file system is mounted below the directory; give it a mapping of its own",
        errno.ENOTEMPTY: "the directory still holds files that are not mirrored; remove them, or mirror them",
        errno.ENOTDIR: "a file or a symlink lies where a directory must be",
        errno.ELOOP: "a symlink lies where a directory must be",
        errno.EISDIR: "a directory lies where a file must be",
        errno.ENAMETOOLONG: "the name is too long for this file system",
        errno.EACCES: "no permission: run the sidecar as the directory's owner, or as root",
        errno.EPERM: "not permitted: another user's file in a sticky directory? Run the sidecar as the"
        " application's user, or mirror into a subdirectory that is not sticky",
    }
    return words.get(error.errno or 0, error.strerror or str(error))
