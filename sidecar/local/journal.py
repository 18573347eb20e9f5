"""The intents of the set that is being applied, so that a crash in between is finished at the next start.

A log of JSON lines beside the baseline. A line is there before the step that it speaks of, and the log is empty
again once the set's baseline is written. It counts only together with a baseline of the same mount. `apply` writes
it, `recovery` reads it after a crash.
"""

from typing import Annotated, Any

import msgspec

from configstore.model.path import ROOT, PathError, StorePath, parse_path
from configstore.model.record import Entry
from configstore.model.signature import Signature
from configstore.model.untrusted import UntrustedError, decode
from sidecar.local.expected import Expected
from sidecar.planner.sides import RemoteEntry
from sidecar.state.append_log import AppendLog

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
_any_decoder = msgspec.json.Decoder(dict[str, Any])


class Journal:
    """The journal of one mirrored directory."""

    def __init__(self, directory: int, *, ours: bool = False) -> None:
        """`directory` and `ours` are as in `AppendLog`; the log is opened when it is needed."""
        self._log = AppendLog(directory, FILE, ours=ours)

    def read(self) -> list[Intent]:
        """Return what a dead run was about to do; a line that it could not finish tells of nothing done."""
        intents: list[Intent] = []
        for line in self._log.lines():
            try:
                intent = _intent(line)
                if intent.path != ROOT:
                    parse_path(intent.path)
            except (UntrustedError, PathError):
                break
            intents.append(intent)
        return intents

    def note(self, *intents: Intent) -> None:
        """Write intents down. Raises OSError when there is no room for them; they must then not be acted on."""
        self._log.append(_encoder.encode(intent) for intent in intents)

    def clear(self) -> None:
        """Forget all: what was intended is done or given up."""
        self._log.clear()

    def remove(self) -> None:
        """Remove the log. Raises OSError."""
        self._log.remove()

    def close(self) -> None:
        """Close the log."""
        self._log.close()


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
