"""HTTP/1.1 over a Unix socket: who may speak with the sidecar, and within which limits.

One thread a connection, at most CONNECTIONS of them; one request a connection. A peer has READ seconds for its
request and can send MAX_BODY bytes: a slow or dying one costs a sleeping thread, and that not for long.
"""

import contextlib
import logging
import os
import select
import socket
import socketserver
import struct
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

import msgspec

from configstore.errors import ConfigstoreError, UsageError
from configstore.store.leases import LeaseLostError, Place
from sidecar.control import api
from sidecar.control.api import Api, checked
from sidecar.control.holds import Hold

log = logging.getLogger(__name__)

CONNECTIONS = 32
READ = 5.0
MAX_BODY = 16 * 1024
LOOK = 0.5
"""Seconds between two looks whether the sidecar is stopping."""

_SO_PEERGROUPS = 59


class ControlServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The server and its thread."""

    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, listener: socket.socket, what: Api, *, group: int | None) -> None:
        """Serve a bound socket; root, our own user, and members of `group` may speak."""
        super().__init__(str(listener.getsockname()), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.api = what
        self._group = group
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self.server_activate()
        self._thread.start()

    def close(self) -> None:
        """Serve no more; holds that are still open are abandoned."""
        self._closing.set()
        with contextlib.suppress(OSError):
            os.unlink(str(self.server_address))  # before another may take its place
        self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        self.socket.close()

    @property
    def closing(self) -> bool:
        """Whether it ends."""
        return self._closing.is_set()

    def _serve(self) -> None:
        while not self.closing:
            self.handle_request()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401, ARG002  # of the base class
        """Tell whether a peer may speak, and whether there is room for it."""
        pid, uid, gid = struct.unpack("3i", request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        allowed = uid in {0, os.geteuid()} or (
            self._group is not None and (gid == self._group or self._group in _groups(request))
        )
        if not allowed:
            log.warning("a peer was refused at the control socket", extra={"pid": pid, "uid": uid, "gid": gid})
            return False
        if not self._slots.acquire(blocking=False):
            log.warning("too many connections to the control socket", extra={"limit": CONNECTIONS})
            return False
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # of the base class
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  # of the base class
        """Note what went wrong with one connection, which is most often a peer that is gone."""
        log.debug("a connection to the control socket broke off", extra={"reason": str(sys.exc_info()[1])})


def _groups(peer: socket.socket) -> list[int]:
    """Return a peer's supplementary groups."""
    try:
        found = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)  # the most that Python reads
    except OSError:
        return []
    return [number for (number,) in struct.iter_unpack("i", found)]


class _Handler(BaseHTTPRequestHandler):
    server: ControlServer
    timeout = READ
    protocol_version = "HTTP/1.1"
    server_version = "configstore"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self._limit = threading.Timer(READ, self._cut)  # the whole request, however slowly its bytes drip
        self._limit.daemon = True
        self._limit.start()

    def finish(self) -> None:
        self._limit.cancel()
        super().finish()

    def _cut(self) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            self.connection.shutdown(socket.SHUT_RD)

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def _answered(self, work: Any) -> None:  # noqa: ANN401  # one of the two below
        self.close_connection = True
        try:
            answer = work()
        except ConfigstoreError as error:
            self._send(api.http_status(error), {"error": str(error), "code": error.exit_code})
        else:
            if answer is not None:
                self._send(HTTPStatus.OK, answer)

    def _get(self) -> object:
        self._limit.cancel()
        if self.path == "/v1/status":
            return self.server.api.status()
        if self.path.startswith("/v1/hold/"):
            return {"left": self.server.api.holds.left(self.path.removeprefix("/v1/hold/"))}
        raise UsageError("there is no such thing to ask for")

    def _post(self) -> object:
        what, body = self.server.api, self._body()
        if self.path == "/v1/flush":
            return what.flush(checked(body, api.FlushRequest))
        if self.path == "/v1/wait":
            return what.wait(checked(body, api.WaitRequest))
        if self.path == "/v1/changes":
            return what.changes(checked(body, api.ChangesRequest))
        if self.path == "/v1/hold":
            self._hold(checked(body, api.HoldRequest))
            return None
        if self.path.startswith("/v1/hold/") and self.path.endswith("/release"):
            hold_id = self.path.removeprefix("/v1/hold/").removesuffix("/release")
            return {"revision": what.holds.release(hold_id, checked(body, api.ReleaseRequest).exit)}
        raise UsageError("there is no such thing to ask for")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and len(length) < 10) or int(length) > MAX_BODY:
            raise UsageError(f"bad request: expected a Content-Length of at most {MAX_BODY}")
        body = self.rfile.read(int(length))
        self._limit.cancel()
        if len(body) != int(length):
            raise UsageError("bad request: it broke off, or took too long")
        return body

    def _hold(self, asked: api.HoldRequest) -> None:
        """Tell in lines how it goes; the hold lasts until it is released or the connection ends."""
        holds = self.server.api.holds
        lease, mirrors = holds.contender(
            asked.lease,
            mapping=asked.mapping,
            command=asked.command,
            ttl=None if asked.ttl is None else int(asked.ttl),
        )
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Connection", "close")
        self.end_headers()
        gone = threading.Thread(target=self._interrupt_when_gone, args=(lease,), daemon=True)
        gone.start()
        try:
            hold = holds.open(lease, mirrors, patience=asked.wait, waiting=self._tell_who_is_ahead)
        except ConfigstoreError as error:
            self._line({"event": "error", "error": str(error), "code": error.exit_code})
            return
        try:
            self._line(_held(hold))
            told = False
            while not self.server.closing and not self._is_gone(LOOK):
                if not told and (lost := holds.lost(hold)):
                    told = True
                    self._line({"event": "lost", "error": lost, "code": LeaseLostError.exit_code})
        finally:
            holds.abandon(hold)

    def _interrupt_when_gone(self, lease: Any) -> None:  # noqa: ANN401  # a Lease
        while lease.lost is None and lease.fence() is None:
            if self._is_gone(LOOK) or self.server.closing:
                lease.interrupt()
                return

    def _is_gone(self, patience: float) -> bool:
        """Tell whether the peer has closed its side, or says what it should not."""
        return bool(select.select([self.connection], [], [], patience)[0])

    def _tell_who_is_ahead(self, ahead: list[Place]) -> None:
        self._line({"event": "waiting", "holder": ahead[0].words, "ahead": len(ahead)})

    def _line(self, event: object) -> None:
        self.wfile.write(msgspec.json.encode(event) + b"\n")

    def _send(self, status: int, answer: object) -> None:
        body = msgspec.json.encode(answer)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        """Say nothing: clients ask often."""


def _held(hold: Hold) -> dict[str, object]:
    return {
        "event": "held",
        "id": hold.id,
        "ttl": hold.lease.ttl,
        "token": hold.token,
        "unfinished": hold.unfinished.words if hold.unfinished else None,
    }
