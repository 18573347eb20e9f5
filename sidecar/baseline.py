"""What store and replica last agreed on, kept in the mirrored mount itself.

A log of JSON lines in `.configstore/baseline`: a header that says which subtree it speaks of, then one line
for each change of an agreement, the last one of a path being valid. It lies in the mount so that it is lost
together with the files: a replica without a baseline pulls and deletes nothing
(docs/decisions/0002-baseline-in-the-mount.md). Owned by the engine's thread.
"""

import errno
import os
from collections.abc import Mapping as Map
from typing import Self

import msgspec

from configstore.model.path import StorePath
from sidecar.planner.sides import Agreed

FILE = "baseline"
_NEW = "baseline.new"
_SLACK = 1000  # superseded lines that are tolerated before the log is written anew


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Of which subtree of which store a baseline speaks; any other's is worth nothing.

    cluster_id: of the etcd cluster, 0 while it is not known. Another cluster is for a person to judge.
    """

    root: str
    store: str
    cluster_id: int = 0
    v: int = 2


_Line = tuple[StorePath, Agreed | None]
_line_decoder = msgspec.json.Decoder(_Line)
_header_decoder = msgspec.json.Decoder(Identity)
_encoder = msgspec.json.Encoder()


class Baseline:
    """The agreements of one mapping, in memory and on the mount."""

    def __init__(self, directory: int, identity: Identity, agreed: dict[StorePath, Agreed]) -> None:
        """Use `load`. `directory` is a descriptor of `.configstore` that stays the caller's."""
        self.agreed = agreed
        self._directory = directory
        self._identity = identity
        self._log = -1
        self._size = 0
        self._lines = 0

    @property
    def cluster_id(self) -> int:
        """The etcd cluster that the agreements were made with; 0 when there are none."""
        return self._identity.cluster_id if self.agreed else 0

    @classmethod
    def load(cls, directory: int, identity: Identity, *, read_only: bool = False) -> Self:
        """Read the baseline below `directory`; none, an unreadable or another subtree's one is an empty one.

        read_only: only look; `directory` may then be -1 for none. Raises OSError.
        """
        baseline = cls(directory, *_read(directory, identity))
        if not read_only:
            try:
                baseline._rewrite()
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                baseline._append_to_old()  # the file system is full, and the mirror must go on
        return baseline

    def record(self, changes: Map[StorePath, Agreed | None], cluster_id: int = 0) -> None:
        """Note new agreements (None: there is none any more), on the mount before this returns.

        cluster_id: of the cluster that they were made with; 0 for the one that is noted.

        Raises OSError when the mount is full; the agreements are then known in memory only, and found anew
        after a restart.
        """
        if not changes:
            return
        for path, agreement in changes.items():
            if agreement is None:
                self.agreed.pop(path, None)
            else:
                self.agreed[path] = agreement
        self._lines += len(changes)
        moved = cluster_id not in {0, self._identity.cluster_id}
        if moved:
            self._identity = msgspec.structs.replace(self._identity, cluster_id=cluster_id)
        if moved or self._lines > 2 * len(self.agreed) + _SLACK:
            self._rewrite()
        else:
            self._append(b"".join(_encoder.encode(change) + b"\n" for change in changes.items()))

    def close(self) -> None:
        """Close the log."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def _append(self, lines: bytes) -> None:
        try:
            _write(self._log, lines)
        except OSError:
            os.ftruncate(self._log, self._size)  # no torn line before those to come
            raise
        self._size += len(lines)

    def _append_to_old(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_APPEND
        self._log = os.open(FILE, flags, 0o600, dir_fd=self._directory)
        self._size = os.fstat(self._log).st_size
        self._lines = 2 * len(self.agreed) + _SLACK  # written anew at the next chance

    def _rewrite(self) -> None:
        """Write the log anew beside the old one and rename it over, so that a crash leaves one of the two."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_APPEND
        log = os.open(_NEW, flags, 0o600, dir_fd=self._directory)
        try:
            lines = [_encoder.encode(self._identity), *(_encoder.encode(change) for change in self.agreed.items())]
            text = b"\n".join(lines) + b"\n"
            _write(log, text)
            os.rename(_NEW, FILE, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except BaseException:
            os.close(log)
            raise
        self.close()
        self._log = log
        self._size = len(text)
        self._lines = len(self.agreed)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(directory: int, identity: Identity) -> tuple[Identity, dict[StorePath, Agreed]]:
    """Return the header and the agreements; of another subtree, or unreadable, the header given and none."""
    agreed: dict[StorePath, Agreed] = {}
    try:
        descriptor = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory) if directory >= 0 else -1
    except FileNotFoundError:
        descriptor = -1
    if descriptor < 0:
        return identity, agreed
    with open(descriptor, "rb") as log:
        try:
            header = _header_decoder.decode(log.readline())
            if msgspec.structs.replace(header, cluster_id=identity.cluster_id) != identity:
                return identity, {}
            for line in log:
                if not line.endswith(b"\n"):
                    break  # the last line of a process that was killed while it wrote
                path, agreement = _line_decoder.decode(line)
                if agreement is None:
                    agreed.pop(path, None)
                else:
                    agreed[path] = agreement
        except msgspec.DecodeError:
            return identity, {}
    return header, agreed
