"""The journal: what `apply` is about to do, so that `recovery` finishes it at the next start after a crash.

A log of JSON lines beside the baseline. Invariants:

1. A line is written before the step that it describes.
2. The log is cleared after the agreements of the set are in the baseline.
3. It counts only together with a baseline of the same mark, since it names files of that mount.
"""

from typing import Annotated, Any

import msgspec

from configstore.model.path import ROOT, PathError, StorePath, parse_path
from configstore.model.record import Entry
from configstore.model.signature import Signature
from configstore.model.untrusted import UntrustedError, decode
from sidecar.local.fingerprint import Fingerprint
from sidecar.planner.sides import RemoteEntry
from sidecar.state.append_log import AppendLog

FILE = "intent"

StagedName = Annotated[str, msgspec.Meta(pattern="^[0-9]+$")]
"""A name in the staging directory. No other name is ever used, since another user may have written the journal."""


class Placing(msgspec.Struct, frozen=True, kw_only=True, tag="place"):
    """The staged file `name` is about to be renamed to `path`.

    laid: the staged file's signature. entry: the path's new state; remote: the record of that. expected: the file
    that may be replaced, None for nothing. The replaced file then is at `name`, until all of its group were
    judged.
    """

    path: StorePath
    name: StagedName
    laid: Signature
    expected: Fingerprint | None
    group: int
    entry: Entry
    remote: RemoteEntry | None


class Removing(msgspec.Struct, frozen=True, kw_only=True, tag="remove"):
    """The file at `path` is about to be moved to the staging directory as `name`, and removed once judged."""

    path: StorePath
    name: StagedName
    expected: Fingerprint
    group: int


class Unlocking(msgspec.Struct, frozen=True, kw_only=True, tag="unlock"):
    """The directory `path` is about to be made writable for this process; `mode` is to be restored."""

    path: StorePath
    mode: int


Intent = Placing | Removing | Unlocking

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Intent)
_any_decoder = msgspec.json.Decoder(dict[str, Any])


class Journal(AppendLog):
    """The journal of one mirrored directory."""

    def __init__(self, directory: int, *, exclusive: bool = False) -> None:
        """Take the parameters of `AppendLog`."""
        super().__init__(directory, FILE, exclusive=exclusive)

    def read(self) -> list[Intent]:
        """Return what a dead process was about to do. What an incomplete line describes was not begun."""
        intents: list[Intent] = []
        for line in self.lines():
            try:
                intent = _intent(line)
                if intent.path != ROOT:
                    parse_path(intent.path)
            except (UntrustedError, PathError):
                break
            intents.append(intent)
        return intents

    def note(self, *intents: Intent) -> None:
        """Write intents. Raises OSError without room for them; what they describe must not be done then."""
        self.append(_encoder.encode(intent) for intent in intents)


def _intent(line: bytes) -> Intent:
    """Return the intent of a line. Raises UntrustedError.

    0.1 wrote what is expected as its signature alone, and removals without a group: here they are one group.
    """
    try:
        intent: Intent = decode(line, _decoder)
    except UntrustedError as error:
        found: dict[str, Any] = decode(line, _any_decoder)
        try:
            intent = msgspec.convert({"group": -1, **found, "expected": {"signature": found["expected"]}}, Intent)
        except (KeyError, msgspec.ValidationError):
            raise error from None
    return intent
