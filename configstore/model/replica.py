"""What a live replica says of itself in the store, and what is asked of replicas: pure values.

A report lies under `{root}/replicas/<mapping>/<replica id>` and ends with the replica's session. That a replica is
to be there lies under `{root}/replicas/<mapping>//<replica id>`: it outlives one that went without a goodbye.

What is asked of replicas is of two kinds, kept apart by their keys and so by etcd's rights: an ask under
`{root}/asks/<id>`, which causes a report and nothing else, so that any service may write it; a request under
`{root}/requests/<id>`, which is a person's act and may override what protects the files. Each stands while the
command that made it waits.
"""

import enum
import re
from typing import Annotated

import msgspec

from configstore.model import untrusted
from configstore.model.path import PathError, StorePath, parse_path, printable
from configstore.model.problem import Problem
from configstore.model.untrusted import UntrustedError

MAX_PROBLEMS = 50
"""How many problems a report names; `problem_count` counts them all."""

MAX_KEYS = 32
"""How many keys a report names; a keyring has as many of a subtree as it had generations that are needed still."""

MAX_REPORT = 1024 * 1024
"""Bytes of a report that are read: that many problems with the longest paths and reasons are less."""

_UNIQUE = re.compile(r"[0-9a-f]{8}")

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
_Name = Annotated[str, msgspec.Meta(max_length=256)]
_Words = Annotated[str, msgspec.Meta(max_length=16384)]


class Take(enum.StrEnum):
    """Whose state is right, by a person's choice."""

    STORE = "store"
    LOCAL = "local"


class MappingState(enum.StrEnum):
    """What a mapping of a replica is doing."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    HALTED = "halted"


class Alike(msgspec.Struct, frozen=True, kw_only=True):
    """How many paths of a mapping have a problem with the same reason."""

    reason: str
    count: _Number


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica says of one mapping.

    ready: it is served: it was complete, and no more. complete: every record is applied. degraded: it is ready,
    and something is wrong. session: random, new at each start. store: the mapping's subtree.
    reason: of `waiting` and `halted`.
    revision: the store revision up to which everything was applied. paths: on how many it agrees with the store.
    pending: how many paths wait to travel; pending_seconds: for how long the oldest has. behind: how many paths
    have a newer record in the store than is applied. alike: the problems by their reasons. vanished: how many
    records vanished without a tombstone.
    lost: the store is not, or may not be, the one that was known; held: how many of its files still lie here.
    last_choice: a person's choice that its process carried out last: what, by whom, when.
    keys: the ids of the keys that are held for the mapping, first the one that its subtree is sealed with; absent
    without any. master: they come from a master, which no sidecar should have; else absent.
    version: of configstore; time: when this was written, RFC 3339, by the replica's clock.
    Revision and counts are as of the last change of state or request to report, or some seconds ago.
    """

    mapping: _Name
    replica: _Name
    host: _Name
    session: _Name
    store: StorePath
    state: MappingState
    ready: bool = False
    complete: bool = False
    degraded: bool = False
    reason: str = ""
    revision: _Number = 0
    paths: _Number = 0
    pending: _Number = 0
    pending_seconds: _Seconds = 0.0
    behind: _Number = 0
    vanished: _Number = 0
    problem_count: _Number = 0
    problems: Annotated[tuple[Problem, ...], msgspec.Meta(max_length=4 * MAX_PROBLEMS)] = ()
    alike: Annotated[tuple[Alike, ...], msgspec.Meta(max_length=4 * MAX_PROBLEMS)] = ()
    lost: bool = False
    held: _Number = 0
    last_choice: _Words | None = None
    keys: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=4 * MAX_KEYS)] | msgspec.UnsetType = msgspec.UNSET
    master: bool | msgspec.UnsetType = msgspec.UNSET
    version: _Name = ""
    time: _Name = ""
    v: int = 1

    @property
    def word(self) -> str:
        """The one word for how it is."""
        return "degraded" if self.degraded and self.state is MappingState.READY else str(self.state)

    def why(self) -> str:
        """Return why it is not further, in words, or nothing."""
        if self.reason:
            return self.reason
        named = [f"{each.shown(self.store)}: {each.reason}" for each in self.problems if each.path]
        return "; ".join(named[:3]) + (f"; and {len(named) - 3} more" if len(named) > 3 else "")


class ExpectedReplica(msgspec.Struct, frozen=True, kw_only=True):
    """A replica of a mapping that has not said goodbye yet.

    directory: the local one, as the sidecar names it. time: when it was started, RFC 3339, for people.
    """

    mapping: _Name
    replica: _Name
    host: _Name
    directory: _Words = ""
    time: _Name = ""
    v: int = 1

    @property
    def place(self) -> tuple[str, str, str]:
        """Where it is: mapping, host and directory."""
        return self.mapping, self.host, self.directory


def made_id(host: str, unique: str) -> str:
    """Return the id of a replica that was given none: the host's name, and something unique in hexadecimal."""
    return f"{_beginning(host)}{unique}"


def made_of(replica: str, host: str) -> str:
    """Return with what the ids begin that were made of a host's name as this one was; "" for one that was not."""
    beginning = _beginning(host)
    unique = replica.removeprefix(beginning)
    return beginning if replica.startswith(beginning) and _UNIQUE.fullmatch(unique) else ""


def _beginning(host: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9.-]', '-', host)[:50].lstrip('-.') or 'replica'}-"


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag_field="verb", tag="report"):
    """Somebody who waits asks replicas to report.

    replica: which one; empty for all. With a `revision` the report is to be repeated, while the ask stands, once
    that revision is applied.
    """

    id: _Name
    replica: _Name = ""
    revision: _Number = 0
    v: int = 1


class Verb(enum.StrEnum):
    """What a person wants."""

    RESUME = "resume"
    FLUSH = "flush"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a person wants of replicas.

    by: who that is by the command's own words; that it is a person at all follows from the right to write it.
    mapping, replica: whom it is for; empty for all. A `resume` chooses a side (`take`) and says which halt it
    ends: `reason` is that halt's, so that another one, which nobody has looked at, stays. Without a reason it is
    about records that vanished: all of them, or the one at `path` (relative to the mapping).
    """

    id: _Name
    verb: Verb
    by: _Name
    mapping: _Name = ""
    replica: _Name = ""
    take: Take = Take.STORE
    reason: str = ""
    path: StorePath | None = None
    v: int = 1

    @property
    def who(self) -> str:
        """Who wants it, as it may be shown."""
        return printable(self.by)

    def concerns(self, mapping: str, replica: str) -> bool:
        """Tell whether a mapping of a replica is meant."""
        return self.mapping in {"", mapping} and self.replica in {"", replica}


_encoder = msgspec.json.Encoder()
_report_decoder = msgspec.json.Decoder(Report)
_expected_decoder = msgspec.json.Decoder(ExpectedReplica)
_ask_decoder = msgspec.json.Decoder(Ask)
_request_decoder = msgspec.json.Decoder(Request)


def encode(value: Report | ExpectedReplica | Ask | Request) -> bytes:
    """Return a value as a line of JSON."""
    return _encoder.encode(value)


def decode_report(text: bytes) -> Report:
    """Return a report. Raises UntrustedError, also for one of a later version."""
    report = untrusted.decode(text, _report_decoder, limit=MAX_REPORT)
    _check(report.v, report.store)
    return report


def decode_expected(text: bytes) -> ExpectedReplica:
    """Return that a replica is to be there. Raises UntrustedError, also for one of a later version."""
    expected = untrusted.decode(text, _expected_decoder)
    _check(expected.v)
    return expected


def decode_ask(text: bytes) -> Ask:
    """Return an ask. Raises UntrustedError, also for one of a later version, and for a verb of requests."""
    ask = untrusted.decode(text, _ask_decoder)
    _check(ask.v)
    return ask


def decode_request(text: bytes) -> Request:
    """Return a request. Raises UntrustedError, also for one of a later version, and for the verb of asks."""
    request = untrusted.decode(text, _request_decoder)
    _check(request.v, request.path)
    return request


def _check(version: int, path: StorePath | None = None) -> None:
    if version != 1:
        raise UntrustedError(f"of version {version}; this configstore reads 1: upgrade it")
    try:
        parse_path(path or "any")
    except PathError as error:
        raise UntrustedError(str(error)) from None
