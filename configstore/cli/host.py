"""Reads the data sets that are to be imported from a local folder, all of them before anything is written.

Called by `imports`. Nothing in the folder is trusted: it belongs to an application, and root often imports it.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import msgspec

from configstore.cli.excludes import Excludes, choose, option
from configstore.cli.session import say, say_all
from configstore.errors import ConflictError, NotThereError, RefusedError
from configstore.files.beneath import Beneath
from configstore.files.descent import descend
from configstore.files.entries import Entries
from configstore.files.reader import Reader
from configstore.files.reading import UnstableError
from configstore.files.reasons import why_failed
from configstore.files.walk import listing, open_plain, walk
from configstore.model.path import ROOT, PathError, StorePath, first_component, join, parse_path, printable
from configstore.model.record import Entry, Kind, sha256
from configstore.presets.single_host import DataSet, LeftBehindRules


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One path of the folder: its entry, its data set, and the reader of its content.

    host: the path relative to the folder. relative: relative to the data set's directory, ROOT for that directory
    and those above it.
    """

    host: StorePath
    entry: Entry
    part: DataSet
    relative: StorePath = ROOT
    reader: Reader | None = None

    def content(self) -> bytes | None:
        """Return a file's content, None for other kinds. Raises ConflictError when it has changed since."""
        if self.entry.kind is not Kind.FILE or self.reader is None:
            return None
        try:
            content = b"".join(self.reader.pieces(self.relative))
        except (UnstableError, OSError):
            content = None
        if content is None or sha256(content) != self.entry.sha256:
            raise ConflictError(
                f"{printable(self.host)}: changed meanwhile; what came before it was written: run it again"
            )
        return content


class Host(msgspec.Struct, kw_only=True):
    """What a folder has to import.

    found: by path in the store. problems: why a path cannot be stored. missing: data sets that do not exist there.
    left: why a path is not imported, for the outermost paths of no data set and for files that are not complete;
    loud: the same for paths that an operator must not overlook. All paths but those of `found` are relative to the
    folder. unused: patterns that left nothing out.
    """

    found: dict[StorePath, Found] = {}
    problems: dict[str, str] = {}
    missing: list[DataSet] = []
    left: dict[str, str] = {}
    loud: dict[str, str] = {}
    unused: list[str] = []


_UNFINISHED = "empty, as while it is being made; run it again when it has its content"


_READY = 20
"""The most paths for which the options that leave them out are printed."""


def read_host(
    directory: str,
    wanted: Sequence[DataSet],
    preset: str,
    stack: ExitStack,
    *,
    exclude: Sequence[str] = (),
    skip_bad: bool = False,
    step: Callable[[], None] = lambda: None,
) -> Host:
    """Read the data sets of a folder.

    preset: "" for none. stack: closes the descriptors from which content is read later. exclude: patterns of
    what is left out. skip_bad: leave out what cannot be stored, too. step: called for each path that is read.
    Raises RefusedError naming what cannot be stored, NotThereError, OSError.
    """
    try:
        folder = descend(directory)
    except NotADirectoryError:
        raise RefusedError(
            f"{printable(directory)}: is not a directory; `configstore put` writes a file"
        ) from None
    stack.callback(os.close, folder)
    host = Host()
    excludes = Excludes(exclude, directory, wanted)
    for part in wanted:
        _read_part(folder, part, host, stack, excludes, step=step)
    host.unused = excludes.unused()
    if host.problems and not skip_bad:
        _refuse(directory, host)
    if preset:
        if len(host.missing) == len({part.name for part in wanted}):
            names = ", ".join(sorted({first_component(part.host) for part in wanted}))
            raise NotThereError(
                f"{printable(directory)}: holds nothing of preset {preset}; expected some of {names}"
            )
        _find_rest(folder, preset, host, wanted)
    return host


def _refuse(directory: str, host: Host) -> None:
    """Print each problem and the options that leave these paths out, and raise RefusedError."""
    say_all(f"{path}: {reason}" for path, reason in host.problems.items())
    ready = [option(path) for path in host.problems if path != "/"]
    if ready:
        more = " …" if len(ready) > _READY else ""
        say(f"to leave these out, add: {' '.join(ready[:_READY])}{more}")
    raise RefusedError(
        f"{printable(directory)}: nothing was written, since {len(host.problems)} paths cannot be stored: mend"
        " them, leave them out with --exclude PATTERN, or leave out whatever cannot be stored with --skip-bad"
    )


class _Counted(Reader):
    """A reader that calls `step` for each path."""

    step: Callable[[], None]

    def read(
        self, path: StorePath, directory: int, name: str, status: os.stat_result
    ) -> tuple[Entry, os.stat_result]:
        self.step()
        return super().read(path, directory, name, status)


def _read_part(
    folder: int, part: DataSet, host: Host, stack: ExitStack, excludes: Excludes, *, step: Callable[[], None]
) -> None:
    if part.host and excludes.leave_out(part, ROOT, is_dir=True):
        return
    try:
        top = open_plain(folder, part.host)
    except FileNotFoundError:
        if not part.earlier:
            host.missing.append(part)
        return
    except OSError as error:
        through = isinstance(error, NotADirectoryError) or error.errno == errno.ELOOP
        link = "is not a directory, or reached through a symlink: import what that points to"
        host.problems[part.host or "/"] = link if through else why_failed(error)
        return
    stack.callback(os.close, top)
    beneath = Beneath(top)
    reader = _Counted(beneath, part.symlinks, part.refuse_empty, linked=True)
    reader.step = step
    seen = walk(beneath, reader, choose(part, excludes))
    host.left |= {printable(join(part.host, path)): _UNFINISHED for path in seen.unfinished}
    host.problems |= {f"{part.host}/{path}".lstrip("/"): reason for path, reason in seen.problems.items()}
    if part.earlier and not seen.entries:
        return
    host.missing = [each for each in host.missing if each.name != part.name]
    entries = Entries()
    for at, store in part.directories():
        try:
            entry = entries.make(Kind.DIR, _status(folder, at))
        except OSError as error:
            host.problems[at] = why_failed(error)
            continue
        host.found.setdefault(store, Found(host=at, entry=entry, part=part))
    for path, entry in seen.entries.items():
        found = Found(host=join(part.host, path), entry=entry, part=part, relative=path, reader=reader)
        try:
            host.found.setdefault(parse_path(join(part.store, path)), found)
        except PathError as error:
            host.problems[found.host] = str(error)


def _status(folder: int, path: StorePath) -> os.stat_result:
    descriptor = open_plain(folder, path)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _find_rest(folder: int, preset: str, host: Host, wanted: Sequence[DataSet]) -> None:
    rest = LeftBehindRules(
        preset, [*(found.host for found in host.found.values()), *(part.host for part in wanted)]
    )
    todo = [ROOT]
    while todo:
        directory = todo.pop()
        try:
            top = open_plain(folder, directory)
        except OSError as error:
            host.left[f"{printable(directory)}/"] = why_failed(error)
            continue
        try:
            for name, status, _ in listing(Beneath(top), ROOT):
                path = join(directory, StorePath(name))
                is_dir = stat.S_ISDIR(status.st_mode)
                left = rest.why(path, is_dir=is_dir)
                if left:
                    (host.loud if left.loud else host.left).setdefault(printable(path) + "/" * is_dir, left.why)
                elif is_dir:
                    todo.append(path)
        finally:
            os.close(top)
