"""The baseline: what store and replica last agreed on, and the writes without an answer. It outlives the process.

A log of JSON lines: a header with subtree and mark; `[path, agreement]` for each change of an agreement, null for
none; a `sent` line for each write; and a `clean` line for each revision at which a mapping with a lease had no
unsent change. Owned by the engine's thread, it keeps `ThreeSides` and the log equal. Invariants:

1. It counts only while the mount bears the mark in its header. So it is lost together with the files: a replica
   without a baseline pulls, and deletes nothing (docs/decisions/0002-state-out-of-reach.md).
2. A write is in the log before it is sent, an agreement after both sides have it.
3. The last agreement of a path is valid, and resolves the writes before it.
4. A full disk stops nothing: what cannot be written is known in memory, and found again after a restart.
"""

import errno
import logging
from collections.abc import Iterator
from collections.abc import Mapping as Map
from typing import Annotated

import msgspec

from configstore.model.path import PathError, StorePath, parse_path
from configstore.model.untrusted import UntrustedError, decode
from sidecar.planner.sides import Agreement, RemoteEntry, SentWrite
from sidecar.planner.three_sides import ThreeSides
from sidecar.state.append_log import AppendLog

log = logging.getLogger(__name__)

FILE = "baseline"

_SLACK = 1000
"""Number of superseded lines that are tolerated before the log is rewritten."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The subtree and the mount that a baseline is about; any other baseline counts for nothing.

    mark: of the mount. cluster_id: of the etcd cluster, 0 while it is not known; it is not compared here, since
    another cluster is for a person to judge.
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
    sent: SentWrite


_AgreedLine = tuple[StorePath, Agreement | None]
_line_decoder = msgspec.json.Decoder(_AgreedLine | _SentLine | _CleanLine)
_header_decoder = msgspec.json.Decoder(Identity)
_encoder = msgspec.json.Encoder()


class Baseline:
    """The agreements and the unanswered writes of one mapping, in `sides` and in the log.

    is_new: whether the directory had no baseline of this mount; the one of an older version may have been taken
    over.
    """

    def __init__(
        self,
        directory: int,
        identity: Identity,
        *,
        exclusive: bool = True,
        older: int = -1,
        read_only: bool = False,
    ) -> None:
        """Read the log in `directory`; one that is missing, unreadable or of another subtree is an empty one.

        directory: a descriptor, which the caller closes; with `read_only`, -1 for none. exclusive: as in
        `AppendLog`. older: the descriptor of `.configstore`, if a log counts that an older version left there; it
        is taken over once. read_only: change nothing. Raises OSError.
        """
        self._log = AppendLog(directory, FILE, exclusive=exclusive)
        before = AppendLog(older, FILE, exclusive=True)
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
                self._lines = 2 * len(self.sides.baseline) + _SLACK  # rewritten by the next change
            else:
                if older >= 0 and older != directory:
                    before.remove()

    def agree(self, changes: Map[StorePath, Agreement | None]) -> None:
        """Set agreements (None removes one), and write them to the log before this returns.

        Without room they are known in memory only, and found again by comparing after a restart.
        """
        if not changes:
            return
        self.sides.agree(changes)
        self._write([_encoder.encode(change) for change in changes.items()])

    def agree_with_own(self, records: Map[StorePath, RemoteEntry]) -> None:
        """Agree on records that own writes made whose answers were lost."""
        self.agree({path: self.sides.agreement_with_own(path, entry) for path, entry in records.items()})

    def forget(self, paths: set[StorePath]) -> None:
        """Remove the agreements of paths, so that they are compared as if for the first time."""
        self.agree(dict.fromkeys(paths))

    def sending(self, writes: Map[StorePath, SentWrite]) -> None:
        """Write to the log what is about to be sent.

        Without room it is sent all the same, since a full disk must not keep edits from the store. If the answer
        is then lost and the process dies, an edit made meanwhile is kept as a conflict.
        """
        if not writes:
            return
        self._write([_encoder.encode(_SentLine(path, sent)) for path, sent in writes.items()])
        self.sides.sending(writes)

    def clean(self, revision: int) -> None:
        """Note that no local change was unsent when the store was at a revision."""
        if revision > self.sides.clean_at:
            self.sides.clean_at = revision
            self._write([_encoder.encode(_CleanLine(revision))])

    def forget_history(self) -> None:
        """Forget that, since a person accepted another store, with other revisions."""
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
        """Rewrite the log with `more` at its end, which `sides` may not have yet."""
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
    """Return the mark in the header of a directory's log, "" for none. Raises OSError."""
    try:
        return decode(next(AppendLog(directory, FILE, exclusive=True).lines(), b""), _header_decoder).mark
    except UntrustedError:
        return ""


def _read(
    lines: Iterator[bytes], identity: Identity, *, unmarked: bool = False
) -> tuple[Identity | None, ThreeSides]:
    """Return the header and the sides; None and empty sides if the lines are of another subtree or unreadable.

    unmarked: accept a header without a mark, as older versions wrote it in the mount.
    """
    agreed: dict[StorePath, Agreement] = {}
    sent: dict[StorePath, tuple[SentWrite, ...]] = {}
    clean_at = 0
    try:
        header = decode(next(lines, b""), _header_decoder)
        found = msgspec.structs.replace(
            header, v=identity.v, mark=header.mark or (identity.mark if unmarked else "")
        )
        if msgspec.structs.replace(found, cluster_id=identity.cluster_id) != identity:
            return None, ThreeSides()
        for text in lines:
            line = decode(text, _line_decoder)
            if isinstance(line, _CleanLine):
                clean_at = line.at
            else:
                _take(line, agreed, sent)
    except (UntrustedError, PathError):
        return None, ThreeSides()
    sides = ThreeSides(baseline=agreed, sent=sent, cluster_id=header.cluster_id if agreed or sent else 0)
    sides.clean_at = clean_at
    return found, sides


def _take(
    line: _AgreedLine | _SentLine, agreed: dict[StorePath, Agreement], sent: dict[StorePath, tuple[SentWrite, ...]]
) -> None:
    """Take in a line. Raises PathError."""
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
