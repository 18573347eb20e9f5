"""The intents of the set that is being applied, so that a crash in between is finished at the next start.

A log of JSON lines in `.configstore/intent`. A line is there before the step that it speaks of, and the log is
empty again once the set's baseline is written. `apply` writes it, `recovery` reads it after a crash.
"""

import os
from typing import Annotated

import msgspec

from configstore.model.path import StorePath
from configstore.model.record import Entry
from configstore.model.signature import Signature
from sidecar.local.expected import Expected
from sidecar.planner.sides import RemoteEntry

FILE = "intent"

StagedName = Annotated[str, msgspec.Meta(pattern="^[0-9]+$")]
"""A name in the staging directory; no other one is ever acted on, whoever wrote the journal."""


class Placing(msgspec.Struct, frozen=True, kw_only=True, tag="place"):
    """What lies ready in the staging directory as `name` is about to be renamed to `path`.

    laid: its signature. entry: what the path is then; remote: what it was made from. expected: what may be
    replaced by it, None for nothing; it lies at `name` afterwards, until all of the group was judged. Those of one
    group belong together.
    """

    path: StorePath
    name: StagedName
    laid: Signature
    expected: Expected | None
    group: int
    entry: Entry
    remote: RemoteEntry | None


class Removing(msgspec.Struct, frozen=True, kw_only=True, tag="remove"):
    """What lies at `path` is about to be moved aside to `name` and removed, if its group is as expected."""

    path: StorePath
    name: StagedName
    expected: Expected
    group: int


class Unlocking(msgspec.Struct, frozen=True, kw_only=True, tag="unlock"):
    """The directory `path` is about to be made writable for us; `mode` is the one to give back."""

    path: StorePath
    mode: int


Intent = Placing | Removing | Unlocking

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Intent)


class Journal:
    """The journal of one mirrored directory."""

    def __init__(self, directory: int) -> None:
        """`directory` is a descriptor of `.configstore`; the log in it is opened when it is needed."""
        self._directory = directory
        self._log = -1
        self._size = 0

    def read(self) -> list[Intent]:
        """Return what a dead run was about to do; a line that it could not finish tells of nothing done."""
        intents: list[Intent] = []
        with open(os.dup(self._open()), "rb") as log:
            log.seek(0)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                try:
                    intents.append(_decoder.decode(line))
                except msgspec.DecodeError:
                    break
        return intents

    def note(self, *intents: Intent) -> None:
        """Write intents down. Raises OSError when there is no room for them; they must then not be acted on."""
        text = b"".join(_encoder.encode(intent) + b"\n" for intent in intents)
        log, rest = self._open(), memoryview(text)
        try:
            while rest:
                rest = rest[os.write(log, rest) :]
        except OSError:
            os.ftruncate(log, self._size)
            raise
        self._size += len(text)

    def clear(self) -> None:
        """Forget all: what was intended is done or given up."""
        if self._size:
            os.ftruncate(self._log, 0)
            self._size = 0

    def close(self) -> None:
        """Close the log."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def _open(self) -> int:
        if self._log < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._log = os.open(FILE, flags, 0o600, dir_fd=self._directory)
            self._size = os.fstat(self._log).st_size
        return self._log
