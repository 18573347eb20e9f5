"""What a client of the control socket may ask, as checked values, and what it is answered.

    GET  /v1/status                  what every mapping is doing, and whether the store answers
    POST /v1/flush                   commit now what was changed here; returns the revision
    POST /v1/wait                    until a revision is applied, here or by all live replicas
    POST /v1/changes                 until another set was applied here
    POST /v1/hold                    lines until the lease is held, and one when it is lost; the hold lasts as long
                                     as the connection, and as long as its client asks:
    GET  /v1/hold/ID                 for how many seconds it surely lasts; a client that is silent for a quarter of
                                     the TTL is taken for stopped, and its lease ends
    POST /v1/hold/ID/release         commit what the command changed, and give the lease back

A failure is `{"error": message, "code": exit code}`. Called by `server`, which owns the connections.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, TypeVar

import msgspec

from configstore import __version__
from configstore.errors import NotThereError, RefusedError, StoreError, UnreachableError, UsageError
from configstore.model import untrusted
from configstore.model.untrusted import UntrustedError
from configstore.parsing import parse_name
from configstore.store.leases import MAX_TTL, MIN_TTL, Lease
from configstore.store.replicas import named
from configstore.store.report_feed import wait_applied
from configstore.store.store import Store
from configstore.store.subtree_revisions import revision_due
from sidecar.control.holds import Holds, NoSuchHoldError
from sidecar.cycle.mirror import Mirror
from sidecar.reporting.contact import fields

T = TypeVar("T", bound=msgspec.Struct)

PRESENCE = 2.0
"""Seconds between two checks whether a waiting client is still connected; nothing else ends a wait."""

Present = Callable[[], bool]
"""Returns whether the client is still connected."""

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]


class FlushRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Commit a mapping's changes, within `timeout` seconds."""

    mapping: _Name
    timeout: _Seconds = 60.0


class WaitRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Wait until `revision` (None: the mapping's newest) is applied, `here` or by `all` live replicas."""

    mapping: _Name
    timeout: _Seconds = 60.0
    applied: str = "here"
    revision: Annotated[int, msgspec.Meta(ge=0, le=2**62)] | None = None


class Seen(msgspec.Struct, forbid_unknown_fields=True):
    """How many sets were applied to a mapping in a run of the sidecar."""

    session: Annotated[str, msgspec.Meta(max_length=64)]
    count: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ChangesRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Wait until another set is applied than those counted in `after`; None: answer at once."""

    mapping: _Name
    after: Seen | None = None
    timeout: Annotated[float, msgspec.Meta(ge=0, le=60)] = 30.0


class HoldRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Hold a lease. command: the program's name. ttl, wait: in seconds; a `wait` of None has no end."""

    lease: str
    command: Annotated[str, msgspec.Meta(max_length=255)] = ""
    mapping: _Name | None = None
    ttl: Annotated[float, msgspec.Meta(ge=MIN_TTL, le=MAX_TTL)] | None = None
    wait: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None

    def __post_init__(self) -> None:
        """Refuse a name that no mapping's lease could have, and a command that no terminal could show."""
        try:
            parse_name(self.lease)
        except ValueError as error:
            raise ValueError(f"lease: {error}") from None
        if not self.command.isprintable():
            raise ValueError("command: expected a program's name without control characters")


class ReleaseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """End a hold whose command ended with this exit code; null: it was never started."""

    exit: Annotated[int, msgspec.Meta(ge=0, le=255)] | None


def checked(body: bytes, kind: type[T]) -> T:
    """Return a request's body as a value of `kind`. Raises UsageError."""
    try:
        return untrusted.decode(body, msgspec.json.Decoder(kind))
    except UntrustedError as error:
        raise UsageError(f"bad request: {error}") from None


class Api:
    """The answers to all requests except the opening of a hold, which needs the connection (`server`)."""

    def __init__(
        self,
        store: Store,
        mirrors: Sequence[Mirror],
        holds: Holds,
        *,
        replica: str,
        notes: Callable[[], Sequence[str]],
    ) -> None:
        """Answer about `mirrors` alone. notes: returns what is wrong with the replica as a whole."""
        self.holds = holds
        self._store = store
        self._mirrors = mirrors
        self._replica = replica
        self._notes = notes
        self._session = secrets.token_hex(8)

    def status(self) -> object:
        """Return what every mapping is doing, and whether the store answers."""
        mappings = [
            {
                "mapping": each.mapping.name,
                "service": each.mapping.service,
                "store": each.mapping.store,
                "path": each.mapping.path,
                "lease": each.mapping.lease,
                "state": str(each.status.state),
                **msgspec.to_builtins(each.status),
                "problems": list(map(msgspec.structs.asdict, each.status.problems)),  # with what is false, too
                "waits": list(map(msgspec.structs.asdict, each.status.waits)),
            }
            for each in self._mirrors
        ]
        return {
            "v": 1,
            "version": __version__,
            "replica": self._replica,
            "store": fields(self._store.contact()),
            "troubles": list(self._notes()),
            "mappings": mappings,
        }

    def contender(self, asked: HoldRequest) -> tuple[Lease, list[Mirror]]:
        """Return a lease that is not queued for yet, and the mirrors that a hold concerns. Raises UsageError."""
        return self.holds.contender(
            asked.lease,
            mapping=asked.mapping,
            command=asked.command,
            ttl=None if asked.ttl is None else int(asked.ttl),
            among=self._mirrors,
        )

    def flush(self, asked: FlushRequest, present: Present) -> object:
        """Commit what was changed in a mapping, and return the revision.

        Raises RefusedError, UnreachableError, NotThereError; ConnectionError when the client is gone.
        """
        mirror = self._mirror(asked.mapping)
        status = mirror.flush(_while_present(time.monotonic() + asked.timeout, present))
        if status is None:
            now = mirror.status
            reason = now.why_not_done()
            failure = RefusedError if now.halted else UnreachableError
            raise failure(f"{asked.mapping}: not committed within {asked.timeout:g} s: {reason}")
        problems = [each for each in status.problems if each.path]
        if problems:
            named = "; ".join(map(str, problems[:5]))
            raise NotThereError(f"{asked.mapping}: committed, except {len(problems)} paths: {named}")
        return {"revision": max(status.applied, status.committed)}

    def wait(self, asked: WaitRequest, present: Present) -> object:
        """Wait until a revision is applied, and return it.

        Raises NotThereError naming the replicas that lack it, UsageError, StoreError; ConnectionError when the
        client is gone.
        """
        mirror = self._mirror(asked.mapping)
        subtree = mirror.mapping.store
        if asked.applied not in {"here", "all"}:
            raise UsageError('bad request: applied: expected "here" or "all"')
        end = time.monotonic() + asked.timeout
        pause = partial(_pause, present)
        revision = revision_due(self._store, subtree, asked=asked.revision, patience=asked.timeout, pause=pause)
        if not any(mirror.wait_applied(revision, patience) for patience in _while_present(end, present)):
            missing = [f"{self._replica}, this replica: {mirror.status.why_not_done()}"]
        elif asked.applied == "all":
            left = max(0.0, end - time.monotonic())
            late = wait_applied(self._store, subtree, revision=revision, patience=left, pause=pause)
            missing = list(map(named, late))
        else:
            missing = []
        if missing:
            names = "; ".join(missing)
            raise NotThereError(f"{asked.mapping}: revision {revision} is not applied yet by {names}")
        return {"revision": revision}

    def changes(self, asked: ChangesRequest, present: Present) -> object:
        """Wait until another set is applied than the client knows of, and return how many there were.

        Raises UsageError; ConnectionError when the client is gone.
        """
        mirror = self._mirror(asked.mapping)
        known = count = asked.after.count if asked.after and asked.after.session == self._session else -1
        for patience in _while_present(time.monotonic() + asked.timeout, present):
            until = time.monotonic() + patience
            count = mirror.wait_for_sets(known, patience)
            if count != known or time.monotonic() < until:  # too early for a timeout: the mirror is stopping
                break
        return {"session": self._session, "count": count}

    def _mirror(self, name: str) -> Mirror:
        for each in self._mirrors:
            if each.mapping.name == name:
                return each
        raise UsageError(
            f"no mapping {name!r} here; there are {', '.join(each.mapping.name for each in self._mirrors)}"
        )


def _while_present(end: float, present: Present) -> Iterator[float]:
    """Yield the seconds of each part of a wait until `end` on the monotonic clock; at least one.

    Raises ConnectionError when the client is gone.
    """
    while (left := end - time.monotonic()) > PRESENCE:
        yield PRESENCE
        _pause(present, 0.0)
    yield max(0.0, left)


def _pause(present: Present, seconds: float) -> None:
    """Sleep for `seconds`. Raises ConnectionError when the client is gone."""
    if not present():
        raise ConnectionError("the client is gone")
    time.sleep(seconds)


def http_status(error: Exception) -> HTTPStatus:
    """Return the HTTP status of a failure."""
    if isinstance(error, NoSuchHoldError):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, StoreError | UnreachableError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus({1: 404, 2: 400, 3: 409}.get(getattr(error, "exit_code", 0), 403))
