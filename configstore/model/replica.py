"""What a live replica says of itself in the store, and what a person asks of replicas: pure values.

A report lies under `{root}/replicas/<mapping>/<replica id>` and ends with the replica's session. A request lies
under `{root}/requests/<id>` for as long as the command that made it waits for its outcome.
"""

import enum
from typing import Annotated

import msgspec

from configstore.model import untrusted
from configstore.model.path import PathError, StorePath, parse_path, printable, shown
from configstore.model.untrusted import UntrustedError

MAX_PROBLEMS = 50
"""How many problems a report names; `problem_count` counts them all."""

MAX_REPORT = 1024 * 1024
"""Bytes of a report that are read: that many problems with the longest paths and reasons are less."""

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Take(enum.StrEnum):
    """Whose state is right, by a person's choice."""

    STORE = "store"
    LOCAL = "local"


class State(enum.StrEnum):
    """What a mapping of a replica is doing."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    HALTED = "halted"


class PathProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One path (relative to the mapping; empty for all of it) with what is wrong with it, and the mend.

    word: a name that is no text, as it is typed into a shell.
    """

    path: str
    reason: str
    word: str = ""

    def shown(self, store: StorePath) -> str:
        """Return the path in the store as it is typed into a shell; store: the mapping's subtree."""
        return printable(self.word) or shown(f"{store}/{self.path}" if store and self.path != "/" else self.path)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica says of one mapping.

    ready: it is served: it was complete, and no more. complete: every record is applied. degraded: it is ready,
    and something is wrong. session: random, new at each start. store: the mapping's subtree.
    reason: of `waiting` and `halted`.
    revision: the store revision up to which everything was applied. paths: on how many it agrees with the store.
    pending: how many paths wait to travel. vanished: how many records vanished without a tombstone.
    lost: the store is not, or may not be, the one that was known; held: how many of its files still lie here.
    Revision and counts are as of the last change of state or request to report, or some seconds ago.
    """

    mapping: str
    replica: str
    host: str
    session: str
    store: StorePath
    state: State
    ready: bool = False
    complete: bool = False
    degraded: bool = False
    reason: str = ""
    revision: _Number = 0
    paths: _Number = 0
    pending: _Number = 0
    vanished: _Number = 0
    problem_count: _Number = 0
    problems: Annotated[tuple[PathProblem, ...], msgspec.Meta(max_length=4 * MAX_PROBLEMS)] = ()
    lost: bool = False
    held: _Number = 0
    v: int = 1

    @property
    def word(self) -> str:
        """The one word for how it is."""
        return "degraded" if self.degraded and self.state is State.READY else str(self.state)

    def why(self) -> str:
        """Return why it is not further, in words, or nothing."""
        if self.reason:
            return self.reason
        named = [f"{each.shown(self.store)}: {each.reason}" for each in self.problems if each.path]
        return "; ".join(named[:3]) + (f"; and {len(named) - 3} more" if len(named) > 3 else "")


class Verb(enum.StrEnum):
    """What a request wants."""

    REPORT = "report"
    RESUME = "resume"
    FLUSH = "flush"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a person, or a program that waits, asks of replicas.

    mapping, replica: whom it is for; empty for all. A `resume` chooses a side (`take`) and says which halt it
    ends: `reason` is that halt's, so that another one, which nobody has looked at, stays. Without a reason it is
    about records that vanished: all of them, or the one at `path` (relative to the mapping). A `report` with a
    `revision` is to be repeated, while the request stands, once that revision is applied.
    """

    id: str
    verb: Verb
    mapping: str = ""
    replica: str = ""
    take: Take = Take.STORE
    reason: str = ""
    path: StorePath | None = None
    revision: _Number = 0
    v: int = 1

    def concerns(self, mapping: str, replica: str) -> bool:
        """Tell whether a mapping of a replica is meant."""
        return self.mapping in {"", mapping} and self.replica in {"", replica}


_encoder = msgspec.json.Encoder()
_report_decoder = msgspec.json.Decoder(Report)
_request_decoder = msgspec.json.Decoder(Request)


def encode(value: Report | Request) -> bytes:
    """Return a value as a line of JSON."""
    return _encoder.encode(value)


def decode_report(text: bytes) -> Report:
    """Return a report. Raises UntrustedError, also for one of a later version."""
    report = untrusted.decode(text, _report_decoder, limit=MAX_REPORT)
    _check(report.v, report.store)
    return report


def decode_request(text: bytes) -> Request:
    """Return a request. Raises UntrustedError, also for one of a later version."""
    request = untrusted.decode(text, _request_decoder)
    _check(request.v, request.path)
    return request


def _check(version: int, path: StorePath | None) -> None:
    if version != 1:
        raise UntrustedError(f"of version {version}; this configstore reads 1: upgrade it")
    try:
        parse_path(path or "any")
    except PathError as error:
        raise UntrustedError(str(error)) from None
