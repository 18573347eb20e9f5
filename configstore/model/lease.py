"""The values of a lease: a contender's entry in the queue, and the intent of a holder.

A queue entry is stored under `{root}/leases/<name>/<etcd lease id>` and expires with that etcd lease. An intent is
stored under `{root}/intents/<name>` and stays, so that a successor and a person see what was under way when a
holder died. Called by `store.leases`, `store.lease_queue` and `store.lease_intents`.
"""

from typing import Annotated

import msgspec

from configstore.model import untrusted
from configstore.model.path import printable, shell_word
from configstore.model.untrusted import UntrustedError

_Name = Annotated[str, msgspec.Meta(max_length=256)]
_Time = Annotated[str, msgspec.Meta(max_length=64)]


class QueueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A contender for a lease. command: its program's name; arguments may be secret. time: RFC 3339."""

    replica: _Name
    host: _Name
    command: _Name = ""
    time: _Time = ""
    v: int = 1

    @property
    def text(self) -> str:
        """The contender as text, safe to print and to pass to a command."""
        return printable(f"{self.replica} on {self.host}")


class HeldUp(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that is held for longer than is usual. found: by whom and for how long, as text."""

    name: str
    found: str

    @property
    def mend(self) -> str:
        """What to do about it, as text."""
        return f"look at what it does; `configstore leases break {printable(shell_word(self.name))}` takes it away"

    def __str__(self) -> str:
        """Return both texts as one line."""
        return f"{self.found}: {self.mend}"


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What a holder began under a lease, and how it ended.

    token: the holder's fencing token. ended: when, "" while it runs or if that is not known. exit: its exit code.
    others: the store revision of the last intent that another replica wrote under this lease; 0 for none.
    unfinished: if this holder started nothing, what an earlier one began and is not known to have ended.
    """

    token: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    contender: QueueEntry = msgspec.field(name="claim")
    begun: _Time
    ended: _Time = ""
    exit: int | None = None
    others: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    unfinished: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    v: int = 1

    @property
    def text(self) -> str:
        """What was begun, by whom and when; safe to print and to pass to a command in a variable."""
        what = self.contender.command or "something"
        return printable(f"{what}, begun {self.begun} by {self.contender.text}")


_encoder = msgspec.json.Encoder()
_contender_decoder = msgspec.json.Decoder(QueueEntry)
_intent_decoder = msgspec.json.Decoder(Intent)


def encode(value: QueueEntry | Intent) -> bytes:
    """Return a value as a line of JSON."""
    return _encoder.encode(value)


def decode_contender(text: bytes) -> QueueEntry | None:
    """Return a contender's queue entry; None if configstore did not write it, as with `etcdctl lock`."""
    try:
        return untrusted.decode(text, _contender_decoder)
    except UntrustedError:
        return None


def decode_intent(text: bytes) -> Intent:
    """Return an intent. Raises UntrustedError."""
    return untrusted.decode(text, _intent_decoder)
