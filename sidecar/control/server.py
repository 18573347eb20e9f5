"""HTTP/1.1 over a Unix socket: which peers are served, and how many of them may wait.

Waiting clients never starve the holder of a lease:

1. A request that may wait (for a lease, a commit, a revision) leaves the few connections of `reporting.http`,
   where a later one would cut it off, and takes a slot of its kind instead; without a free slot it is refused at
   once.
2. Releases have slots of their own, as many as holds: whoever holds a lease can give it back.
3. "How long is it mine?" is answered at once, without a slot.
"""

import contextlib
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus

import msgspec

from configstore.errors import ConfigstoreError, UnreachableError, UsageError
from configstore.store.lease_queue import Queued
from configstore.store.leases import Lease, LeaseLostError
from sidecar.control import api
from sidecar.control.api import Api, checked
from sidecar.control.lease_state import CriticalSection
from sidecar.control.socket_directory import ControlSocket
from sidecar.reporting.http import Exchange, HttpRequest, Server

log = logging.getLogger(__name__)

MAX_BODY = 16 * 1024

HOLDS = 32
"""Clients that may hold a lease or wait for one at once; each costs a few threads."""

WAITS = 32
"""Clients that may wait for a commit, a revision or a change at once."""

RELEASES = HOLDS
"""Holders that may give their lease back at once."""

CHECK = 0.5
"""Seconds between two checks whether the sidecar is stopping, or the lease was lost."""

QUIET = 10.0
"""Seconds between two log lines about refused peers: they must not fill the log."""

_NO_SUCH_REQUEST = "there is no such thing to ask for"
_SO_PEERGROUPS = 59


class _Slots:
    """The slots for requests of one kind that wait."""

    def __init__(self, count: int, who: str) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._full = f"{count} {who} already, and there is no room for more; try again later"

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Take a slot while the body runs. Raises UnreachableError when there is none."""
        if not self._free.acquire(blocking=False):
            raise UnreachableError(self._full)
        try:
            yield
        finally:
            self._free.release()


class ControlServer:
    """The server behind the control socket."""

    def __init__(self, listening: ControlSocket, what: Api, *, group: int | None) -> None:
        """Serve a socket to root, to the sidecar's own user, and to members of `group`."""
        self._api = what
        self._group = group
        self._socket = listening
        self._refused = -QUIET
        self._holds = _Slots(HOLDS, "clients hold leases of this sidecar or wait for one")
        self._waits = _Slots(WAITS, "clients of this sidecar wait for a commit, a revision or a change")
        self._releases = _Slots(RELEASES, "clients of this sidecar give a lease back")
        self._server = Server(listening.listener, self._serve, name="control", admit=self._may_speak)

    def is_there(self) -> bool:
        """Return whether the socket's path still leads here."""
        return self._socket.is_there()

    def retire(self) -> None:
        """Accept no more, since the socket's path does not lead here; open connections, and holds, continue."""
        self._socket.remove()
        self._server.stop_accepting()

    def close(self) -> None:
        """Stop serving; holds that are still open are abandoned."""
        self._socket.remove()  # first, while its name is surely still this socket's
        self._server.close()

    def _may_speak(self, peer: socket.socket) -> bool:
        pid, uid, gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid in {0, os.geteuid()} or (self._group is not None and self._group in {gid, *_groups(peer)}):
            return True
        if (now := time.monotonic()) >= self._refused + QUIET:
            self._refused = now
            log.warning("a peer was refused at the control socket", extra={"pid": pid, "uid": uid, "gid": gid})
        return False

    def _serve(self, exchange: Exchange, request: HttpRequest) -> None:
        try:
            if request.method == "GET":
                _send(exchange, HTTPStatus.OK, self._known(request.target))
            elif request.method == "POST":
                self._wait(exchange, request)
            else:
                _refuse(exchange, UsageError("expected GET or POST"), HTTPStatus.NOT_IMPLEMENTED)
        except ConfigstoreError as error:
            _refuse(exchange, error, api.http_status(error))

    def _known(self, target: str) -> object:
        """Return what needs no waiting."""
        if target == "/v1/status":
            return self._api.status()
        if target.startswith("/v1/hold/"):
            return {"left": self._api.holds.left(target.removeprefix("/v1/hold/"))}
        raise UsageError(_NO_SUCH_REQUEST)

    def _wait(self, exchange: Exchange, request: HttpRequest) -> None:
        """Answer a request that may wait, in a slot of its kind."""
        if request.length > MAX_BODY:
            raise UsageError(f"bad request: expected a Content-Length of at most {MAX_BODY}")
        body = exchange.content(request.length)
        if request.target == "/v1/hold":
            asked = checked(body, api.HoldRequest)
            with self._holds.taken():
                exchange.stay()
                self._hold(exchange, asked)
            return
        slots, work = self._work(request.target, body, lambda: not _hung_up(exchange))
        with slots.taken():
            exchange.stay()
            _send(exchange, HTTPStatus.OK, work())

    def _work(self, target: str, body: bytes, present: api.Present) -> tuple[_Slots, Callable[[], object]]:
        """Return the slots in which a request waits, and what answers it."""
        what = self._api
        if target == "/v1/flush":
            return self._waits, partial(what.flush, checked(body, api.FlushRequest), present)
        if target == "/v1/wait":
            return self._waits, partial(what.wait, checked(body, api.WaitRequest), present)
        if target == "/v1/changes":
            return self._waits, partial(what.changes, checked(body, api.ChangesRequest), present)
        if target.startswith("/v1/hold/") and target.endswith("/release"):
            hold_id = target.removeprefix("/v1/hold/").removesuffix("/release")
            code = checked(body, api.ReleaseRequest).exit
            return self._releases, lambda: {"revision": what.holds.release(hold_id, code)}
        raise UsageError(_NO_SUCH_REQUEST)

    def _hold(self, exchange: Exchange, asked: api.HoldRequest) -> None:
        """Send a line for each event; the hold lasts until it is released or the connection ends."""
        holds = self._api.holds
        lease, mirrors = self._api.contender(asked)
        exchange.begin("application/x-ndjson")
        watch = threading.Thread(
            target=self._interrupt_when_gone, args=(exchange, lease), name="control-peer", daemon=True
        )
        watch.start()
        try:
            hold = holds.open(lease, mirrors, patience=asked.wait, waiting=partial(_report_queue, exchange))
        except ConfigstoreError as error:
            _line(exchange, {"event": "error", "error": str(error), "code": error.exit_code})
            return
        try:
            _line(exchange, _held(hold))
            reported = False
            while not self._server.closing.is_set() and not _is_gone(exchange, CHECK):
                if not reported and (lost := holds.lost(hold)):
                    reported = True
                    _line(exchange, {"event": "lost", "error": lost, "code": LeaseLostError.exit_code})
        finally:
            holds.abandon(hold)

    def _interrupt_when_gone(self, exchange: Exchange, lease: Lease) -> None:
        while lease.lost is None and lease.fence() is None:
            if _is_gone(exchange, CHECK) or self._server.closing.is_set():
                lease.interrupt()
                return


def _groups(peer: socket.socket) -> list[int]:
    """Return a peer's supplementary groups."""
    try:
        found = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)  # the most that Python reads
    except OSError:
        return []
    return [number for (number,) in struct.iter_unpack("i", found)]


def _is_gone(exchange: Exchange, patience: float) -> bool:
    """Return whether the peer has closed its side, or sends what it should not."""
    return _polled(exchange, select.POLLIN, patience)


def _hung_up(exchange: Exchange) -> bool:
    """Return whether the peer takes no answer any more."""
    return _polled(exchange, 0, 0.0)  # 0: only the events that poll(2) always reports, such as POLLHUP


def _polled(exchange: Exchange, events: int, patience: float) -> bool:
    poll = select.poll()  # `select.select` takes no descriptor above 1,023
    try:
        poll.register(exchange.connection, events)
    except ValueError:  # closed already, by the connection's own thread
        return True
    return bool(poll.poll(patience * 1000))


def _held(hold: CriticalSection) -> dict[str, object]:
    return {
        "event": "held",
        "id": hold.id,
        "ttl": hold.lease.ttl,
        "token": hold.token,
        "unfinished": hold.unfinished or None,
    }


def _report_queue(exchange: Exchange, ahead: list[Queued]) -> None:
    _line(exchange, {"event": "waiting", "holder": ahead[0].text, "ahead": len(ahead)})


def _line(exchange: Exchange, event: object) -> None:
    exchange.send(msgspec.json.encode(event) + b"\n")


def _send(exchange: Exchange, status: HTTPStatus, answer: object) -> None:
    exchange.answer(status, "application/json", msgspec.json.encode(answer))


def _refuse(exchange: Exchange, error: ConfigstoreError, status: HTTPStatus) -> None:
    _send(exchange, status, {"error": str(error), "code": error.exit_code})
