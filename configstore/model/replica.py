"""The values by which replicas and commands talk through the store: reports, asks and requests.

- A report is stored under `{root}/replicas/<mapping>/<replica id>` and expires with the replica's session.
- An expected replica is stored under `{root}/replicas/<mapping>//<replica id>`. It stays when a replica ends
  without a goodbye, so that a person learns of it.
- An ask, under `{root}/asks/<id>`, can cause nothing but a report, so any service may write it.
- A request, under `{root}/requests/<id>`, is a person's act and may override a guard, so no service may write it.
  Asks and requests are apart because etcd gives rights by ranges of keys. Each stays while the command that made
  it waits.
"""

import enum
import re
from typing import Annotated

import msgspec

from configstore.model import untrusted
from configstore.model.path import PathError, StorePath, parse_path, printable
from configstore.model.phrases import first_of
from configstore.model.problem import Problem
from configstore.model.untrusted import UntrustedError

MAX_PROBLEMS = 50
"""The most problems that a report names; `problem_count` counts all."""

MAX_KEYS = 32
"""The most keys that a report names; a keyring has one for each generation of a subtree's key still needed."""

MAX_REPORT = 1024 * 1024
"""Bytes of a report that are read: more than MAX_PROBLEMS problems with the longest paths and reasons take."""

_UNIQUE = re.compile(r"[0-9a-f]{8}")

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
_Name = Annotated[str, msgspec.Meta(max_length=256)]
_Words = Annotated[str, msgspec.Meta(max_length=16384)]


class Take(enum.StrEnum):
    """The side whose files are right, by a person's choice."""

    STORE = "store"
    LOCAL = "local"


class MappingState(enum.StrEnum):
    """The state of a mapping at a replica."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    HALTED = "halted"


class Alike(msgspec.Struct, frozen=True, kw_only=True):
    """The number of paths of a mapping that have a problem with the same reason."""

    reason: str
    count: _Number


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One replica's report of one mapping.

    session: random, new at each start. store: the mapping's subtree.
    ready: the mapping was complete once, and its service may run. complete: every record is applied. degraded: it
    is ready, and something is wrong. reason: why the state is `waiting` or `halted`.
    revision: the store revision up to which everything was applied. paths: the number of paths on which it agrees
    with the store. pending: the number of paths that wait to travel; pending_seconds: the wait of the oldest.
    behind: the number of paths with a newer record in the store than is applied.
    alike: the problems by their reasons. vanished: the number of records that vanished without a tombstone.
    lost: the store is not, or may not be, the one that was known; held: the number of its files that are still
    here.
    last_choice: the last choice of a person that this process carried out: what, by whom, when.
    keys: the ids of the mapping's keys, first the one with which its subtree is sealed; absent without any.
    master: true if they come from a master, which no sidecar should have; else absent.
    version: of configstore. time: when this was written, RFC 3339, by the replica's clock.
    Revision and counts are as of the last change of state or ask for a report, or some seconds old.
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
    def name(self) -> str:
        """The replica with its host, safe to print: `front-1@host-a`."""
        return f"{self.replica}@{printable(self.host)}"

    @property
    def word(self) -> str:
        """The state as one word, `degraded` included."""
        return "degraded" if self.degraded and self.state is MappingState.READY else str(self.state)

    def why(self) -> str:
        """Return the reason for its state, or the first problems, as text; "" without any."""
        if self.reason:
            return self.reason
        named = [f"{each.shown(self.store)}: {each.reason}" for each in self.problems if each.path]
        return first_of(named, 3, separator="; ")


class ExpectedReplica(msgspec.Struct, frozen=True, kw_only=True):
    """A replica of a mapping that has not said goodbye yet.

    directory: the mirrored one, as the sidecar names it. time: when the sidecar started, RFC 3339, for people.
    """

    mapping: _Name
    replica: _Name
    host: _Name
    directory: _Words = ""
    time: _Name = ""
    v: int = 1

    @property
    def place(self) -> tuple[str, str, str]:
        """Mapping, host and directory, by which a restarted replica is recognised."""
        return self.mapping, self.host, self.directory


def made_id(host: str, unique: str) -> str:
    """Return the id of a replica whose settings name none: the host's name and `unique` in hexadecimal."""
    return f"{_beginning(host)}{unique}"


def made_of(replica: str, host: str) -> str:
    """Return the prefix of all ids made from a host's name if `replica` is such an id; else ""."""
    beginning = _beginning(host)
    unique = replica.removeprefix(beginning)
    return beginning if replica.startswith(beginning) and _UNIQUE.fullmatch(unique) else ""


def _beginning(host: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9.-]', '-', host)[:50].lstrip('-.') or 'replica'}-"


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag_field="verb", tag="report"):
    """An ask for replicas' reports.

    replica: one replica's id; empty for all. revision: if set, the report is repeated once that revision is
    applied, as long as the ask is in the store.
    """

    id: _Name
    replica: _Name = ""
    revision: _Number = 0
    v: int = 1


class Verb(enum.StrEnum):
    """The kinds of a person's request."""

    RESUME = "resume"
    FLUSH = "flush"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A person's request to replicas.

    by: the person, as the command names them; only a person has the right to write requests.
    mapping, replica: which ones it is for; empty for all. A `resume` chooses a side (`take`) and names the halt
    that it ends by that halt's `reason`, so that another halt, which the person has not seen, stays. Without a
    reason it
    is about records that vanished: all of them, or the one at `path` (relative to the mapping).
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
        """The person, safe to print."""
        return printable(self.by)

    def concerns(self, mapping: str, replica: str) -> bool:
        """Return whether the request is for a mapping of a replica."""
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
    """Return an expected replica. Raises UntrustedError, also for one of a later version."""
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
