"""HTTP/1.1 over a Unix socket: who may speak with the sidecar, and how many may wait.

A request that is answered at once lives within the limits of `reporting.http`. One that may wait, for a lease, a
commit or a revision, leaves its place there and takes one in the room for its kind. So however many wait for a
lease, a holder hears for how long it has it, and can give it back.
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
from configstore.store.leases import Lease, LeaseLostError, Queued
from sidecar.control import api
from sidecar.control.api import Api, checked
from sidecar.control.holds import CriticalSection
from sidecar.control.socket_directory import ControlSocket
from sidecar.reporting.http import Exchange, HttpRequest, Server

log = logging.getLogger(__name__)

MAX_BODY = 16 * 1024

HOLDS = 32
"""Clients that hold a lease or wait for one; each costs a few threads."""

WAITS = 32
"""Clients that wait for a commit, a revision or a change."""

RELEASES = HOLDS
"""Holders that give their lease back, at once."""

LOOK = 0.5
"""Seconds between two looks whether the sidecar is stopping."""

QUIET = 10.0
"""Seconds between two lines of the log about peers that were refused: a stranger must not fill it."""

_SO_PEERGROUPS = 59


class _Slots:
    """How many requests of one kind may wait at once."""

    def __init__(self, size: int, who: str) -> None:
        self._free = threading.BoundedSemaphore(size)
        self._full = f"{size} {who} already, and there is no room for more; try again later"

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Take a place in it. Raises UnreachableError when all are taken."""
        if not self._free.acquire(blocking=False):
            raise UnreachableError(self._full)
        try:
            yield
        finally:
            self._free.release()


class ControlServer:
    """The server behind the control socket."""

    def __init__(self, door: ControlSocket, what: Api, *, group: int | None) -> None:
        """Serve the socket of `door`; root, our own user, and members of `group` may speak."""
        self._api = what
        self._group = group
        self._door = door
        self._refused = -QUIET
        self._holds = _Slots(HOLDS, "clients hold leases of this sidecar or wait for one")
        self._waits = _Slots(WAITS, "clients of this sidecar wait for a commit, a revision or a change")
        self._releases = _Slots(RELEASES, "clients of this sidecar give a lease back")
        self._server = Server(door.listener, self._serve, name="control", admit=self._may_speak)

    def close(self) -> None:
        """Serve no more; holds that are still open are abandoned."""
        self._door.remove()  # before another may take its place
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
        """Return what is known at once."""
        if target == "/v1/status":
            return self._api.status()
        if target.startswith("/v1/hold/"):
            return {"left": self._api.holds.left(target.removeprefix("/v1/hold/"))}
        raise UsageError("there is no such thing to ask for")

    def _wait(self, exchange: Exchange, request: HttpRequest) -> None:
        """Answer what may take its time, in the room for its kind."""
        if request.length > MAX_BODY:
            raise UsageError(f"bad request: expected a Content-Length of at most {MAX_BODY}")
        body = exchange.content(request.length)
        if request.target == "/v1/hold":
            asked = checked(body, api.HoldRequest)
            with self._holds.place():
                exchange.stay()
                self._hold(exchange, asked)
            return
        room, work = self._work(request.target, body, lambda: not _hung_up(exchange))
        with room.place():
            exchange.stay()
            _send(exchange, HTTPStatus.OK, work())

    def _work(self, target: str, body: bytes, present: api.Present) -> tuple[_Slots, Callable[[], object]]:
        """Return what is to be done for a request, and where it may wait."""
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
        raise UsageError("there is no such thing to ask for")

    def _hold(self, exchange: Exchange, asked: api.HoldRequest) -> None:
        """Tell in lines how it goes; the hold lasts until it is released or the connection ends."""
        holds = self._api.holds
        lease, mirrors = self._api.contender(asked)
        exchange.begin("application/x-ndjson")
        watch = threading.Thread(
            target=self._interrupt_when_gone, args=(exchange, lease), name="control-peer", daemon=True
        )
        watch.start()
        try:
            hold = holds.open(lease, mirrors, patience=asked.wait, waiting=partial(_tell_who_is_ahead, exchange))
        except ConfigstoreError as error:
            _line(exchange, {"event": "error", "error": str(error), "code": error.exit_code})
            return
        try:
            _line(exchange, _held(hold))
            told = False
            while not self._server.closing.is_set() and not _is_gone(exchange, LOOK):
                if not told and (lost := holds.lost(hold)):
                    told = True
                    _line(exchange, {"event": "lost", "error": lost, "code": LeaseLostError.exit_code})
        finally:
            holds.abandon(hold)

    def _interrupt_when_gone(self, exchange: Exchange, lease: Lease) -> None:
        while lease.lost is None and lease.fence() is None:
            if _is_gone(exchange, LOOK) or self._server.closing.is_set():
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
    """Tell whether the peer has closed its side, or says what it should not."""
    return _polled(exchange, select.POLLIN, patience)


def _hung_up(exchange: Exchange) -> bool:
    """Tell whether the peer takes no answer any more."""
    return _polled(exchange, 0, 0.0)  # 0: only what is always told, such as POLLHUP


def _polled(exchange: Exchange, events: int, patience: float) -> bool:
    look = select.poll()  # `select.select` knows no descriptor above 1,023
    try:
        look.register(exchange.connection, events)
    except ValueError:  # closed already, by the thread whose it is
        return True
    return bool(look.poll(patience * 1000))


def _held(hold: CriticalSection) -> dict[str, object]:
    return {
        "event": "held",
        "id": hold.id,
        "ttl": hold.lease.ttl,
        "token": hold.token,
        "unfinished": hold.unfinished or None,
    }


def _tell_who_is_ahead(exchange: Exchange, ahead: list[Queued]) -> None:
    _line(exchange, {"event": "waiting", "holder": ahead[0].words, "ahead": len(ahead)})


def _line(exchange: Exchange, event: object) -> None:
    exchange.send(msgspec.json.encode(event) + b"\n")


def _send(exchange: Exchange, status: HTTPStatus, answer: object) -> None:
    exchange.answer(status, "application/json", msgspec.json.encode(answer))


def _refuse(exchange: Exchange, error: ConfigstoreError, status: HTTPStatus) -> None:
    _send(exchange, status, {"error": str(error), "code": error.exit_code})
