"""What must outlive the process: what store and replica last agreed on, and what was sent and not yet answered.

A log of JSON lines: a header that says which subtree and which mount it speaks of, then `[path, agreement]` for
each change of an agreement (null: there is none any more; the last one of a path is valid, and settles what was
sent before it), a `sent` line for each write before it is sent, and a `clean` line for each revision of the store
at which a mapping with a lease had nothing unsent here. It counts only while the mount bears the mark
that it names, so it is lost together with the files: a replica without a baseline pulls and deletes nothing
(docs/decisions/0002-state-out-of-reach.md). It keeps `Sides` and the log in step. Owned by the engine's thread.
"""

import errno
import logging
from collections.abc import Iterator
from collections.abc import Mapping as Map
from typing import Annotated

import msgspec

from configstore.model.path import PathError, StorePath, parse_path
from configstore.model.untrusted import UntrustedError, decode
from sidecar.planner.sides import Agreed, RemoteEntry, Sent
from sidecar.planner.three_sides import Sides
from sidecar.state.append_log import AppendLog

log = logging.getLogger(__name__)

FILE = "baseline"

_SLACK = 1000
"""Superseded lines that are tolerated before the log is written anew."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Of which subtree of which store, and of which mount, a baseline speaks; any other's is worth nothing.

    mark: of the mount. cluster_id: of the etcd cluster, 0 while it is not known. Another cluster is for a person
    to judge.
    """

    root: str
    store: str
    mark: str = ""
    cluster_id: int = 0
    v: int = 3


class _CleanLine(msgspec.Struct, frozen=True, tag_field="line", tag="clean"):
    at: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _SentLine(msgspec.Struct, frozen=True, tag_field="line", tag="sent"):
    path: StorePath
    sent: Sent


_AgreedLine = tuple[StorePath, Agreed | None]
_line_decoder = msgspec.json.Decoder(_AgreedLine | _SentLine | _CleanLine)
_header_decoder = msgspec.json.Decoder(Identity)
_encoder = msgspec.json.Encoder()


class Baseline:
    """The agreements and the open writes of one mapping, in `sides` and in the log.

    is_new: whether there was no log of this mount in the directory, be it that an older one was taken over.
    """

    def __init__(
        self, directory: int, identity: Identity, *, ours: bool = True, older: int = -1, read_only: bool = False
    ) -> None:
        """Read the log below `directory`; none, an unreadable or another subtree's one is an empty one.

        directory: a descriptor that stays the caller's. ours: nobody else may write there. older: that of the
        mount's private directory, if a log that lies there from before counts, because nobody but us can have
        written it; it is taken over once. read_only: only look; `directory` may be -1 for none. Raises OSError.
        """
        self._log = AppendLog(directory, FILE, ours=ours)
        before = AppendLog(older, FILE, ours=True)
        found, self.sides = _read(self._log.lines(), identity)
        self.is_new = found is None
        if found is None:
            found, self.sides = _read(before.lines(), identity, unmarked=True)
        self._identity = found or identity
        self._lines = 0
        self._read_only = read_only
        if not read_only:
            try:
                self._rewrite()
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                self._lines = 2 * len(self.sides.baseline) + _SLACK  # the mirror must go on; at the next chance
            else:
                if older >= 0 and older != directory:
                    before.remove()

    def agree(self, changes: Map[StorePath, Agreed | None]) -> None:
        """Take new agreements (None: there is none any more), and write them down before this returns.

        When there is no room for that they are known in memory only, and found anew after a restart.
        """
        if not changes:
            return
        self.sides.agree(changes)
        self._write([_encoder.encode(change) for change in changes.items()])

    def agree_with_own(self, records: Map[StorePath, RemoteEntry]) -> None:
        """Agree on records that our own writes made, the answer to which was lost."""
        self.agree({path: self.sides.agreement_with_own(path, entry) for path, entry in records.items()})

    def forget(self, paths: set[StorePath]) -> None:
        """Forget what was agreed on about paths, so that they are compared as if for the first time."""
        self.agree(dict.fromkeys(paths))

    def sending(self, writes: Map[StorePath, Sent]) -> None:
        """Write down what is about to be sent, before it is.

        When there is no room for that it is sent all the same, since a full directory must not keep edits from the
        store: should then the answer be lost and the process die, an edit made meanwhile is kept as a conflict.
        """
        if not writes:
            return
        self._write([_encoder.encode(_SentLine(path, sent)) for path, sent in writes.items()])
        self.sides.sending(writes)

    def clean(self, revision: int) -> None:
        """Note that nothing lies here unsent, as the store was at a revision."""
        if revision > self.sides.clean_at:
            self.sides.clean_at = revision
            self._write([_encoder.encode(_CleanLine(revision))])

    def forget_history(self) -> None:
        """Forget when nothing lay here unsent: another store answers, with revisions of its own."""
        self.sides.clean_at = 0
        self._write([_encoder.encode(_CleanLine(0))])

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _write(self, lines: list[bytes]) -> None:
        if self._read_only:
            return
        self._lines += len(lines)
        moved = self.sides.cluster_id not in {0, self._identity.cluster_id}
        try:
            if moved:
                self._identity = msgspec.structs.replace(self._identity, cluster_id=self.sides.cluster_id)
            if moved or self._lines > 2 * len(self.sides.baseline) + _SLACK:
                self._rewrite(lines)
            else:
                self._log.append(lines)
        except OSError as error:
            reason = error.strerror
            log.warning("cannot write the baseline; a restart compares everything anew", extra={"reason": reason})

    def _rewrite(self, more: list[bytes] | None = None) -> None:
        """Write the log anew, `more` at its end: it may speak of what `sides` does not have yet."""
        self._log.rewrite([*self._all_lines(), *(more or ())])
        self._lines = len(self.sides.baseline)

    def _all_lines(self) -> Iterator[bytes]:
        yield _encoder.encode(self._identity)
        if self.sides.clean_at:
            yield _encoder.encode(_CleanLine(self.sides.clean_at))
        for change in self.sides.baseline.items():
            yield _encoder.encode(change)
        for path, writes in self.sides.sent.items():
            for sent in writes:
                yield _encoder.encode(_SentLine(path, sent))


def mark_in(directory: int) -> str:
    """Return the mark that the log in a directory names, "" where none does. Raises OSError."""
    try:
        return decode(next(AppendLog(directory, FILE, ours=True).lines(), b""), _header_decoder).mark
    except UntrustedError:
        return ""


def _read(lines: Iterator[bytes], identity: Identity, *, unmarked: bool = False) -> tuple[Identity | None, Sides]:
    """Return the header and the sides; None and empty ones when the lines are another subtree's, or unreadable.

    unmarked: take a header that names no mount, as versions wrote it whose baseline lay in the mount.
    """
    agreed: dict[StorePath, Agreed] = {}
    sent: dict[StorePath, tuple[Sent, ...]] = {}
    clean_at = 0
    try:
        header = decode(next(lines, b""), _header_decoder)
        found = msgspec.structs.replace(
            header, v=identity.v, mark=header.mark or (identity.mark if unmarked else "")
        )
        if msgspec.structs.replace(found, cluster_id=identity.cluster_id) != identity:
            return None, Sides()
        for text in lines:
            line = decode(text, _line_decoder)
            if isinstance(line, _CleanLine):
                clean_at = line.at
            else:
                _take(line, agreed, sent)
    except (UntrustedError, PathError):
        return None, Sides()
    sides = Sides(baseline=agreed, sent=sent, cluster_id=header.cluster_id if agreed or sent else 0)
    sides.clean_at = clean_at
    return found, sides


def _take(
    line: _AgreedLine | _SentLine, agreed: dict[StorePath, Agreed], sent: dict[StorePath, tuple[Sent, ...]]
) -> None:
    """Take in one line. Raises PathError."""
    if isinstance(line, _SentLine):
        path = parse_path(line.path)
        sent[path] = (*sent.get(path, ()), line.sent)
        return
    path, agreement = parse_path(line[0]), line[1]
    sent.pop(path, None)
    if agreement is None:
        agreed.pop(path, None)
    else:
        agreed[path] = agreement
