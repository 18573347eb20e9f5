"""`/livez`, `/readyz` and `/metrics` over HTTP, for probes, HEALTHCHECK and Prometheus.

Served from values that the engines publish; a request never reaches the store or the disk
(docs/decisions/0005-own-health-endpoint.md).
"""

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

import msgspec

from configstore.errors import UsageError
from configstore.store.api import Contact
from sidecar.contact import silence
from sidecar.status import Status

log = logging.getLogger(__name__)


class Figure(msgspec.Struct, frozen=True):
    """A figure of the whole process: its name without `configstore_`, gauge or counter, what it is, its value."""

    name: str
    kind: str
    words: str
    value: float


class _Source(msgspec.Struct, frozen=True):
    """Where the answers come from; each is called at each request, from any thread, and answers at once."""

    statuses: Callable[[], Sequence[Status]]
    clock: Callable[[], float]
    contact: Callable[[], Contact]
    alive: Callable[[], str | None]
    notes: Callable[[], Sequence[str]]
    figures: Callable[[], Sequence[Figure]]


CONNECTIONS = 32
"""Connections that are open at once: slow clients must not take the descriptors that the mirror needs."""

_POLL = 3600.0  # seconds: there is nothing to look for between requests, and `close` wakes the thread

_GAUGES: tuple[tuple[str, str, str, Callable[[Status, float], float]], ...] = (
    ("ready", "gauge", "1 while it may be served: it was complete, and no more", lambda status, _: status.ready),
    ("complete", "gauge", "1 while every record of the mapping is applied", lambda status, _: status.complete),
    ("degraded", "gauge", "1 while it is served although a path has a problem", lambda status, _: status.degraded),
    ("halted", "gauge", "1 while the mapping waits for a person", lambda status, _: status.halted is not None),
    ("waiting", "gauge", "1 while the mapping cannot go on by itself", lambda s, _: s.waiting_for is not None),
    ("problems", "gauge", "Paths that cannot be mirrored now", lambda status, _: len(status.problems)),
    ("paths", "gauge", "Paths on which store and replica agree", lambda status, _: status.paths),
    ("pending", "gauge", "Paths that wait to travel", lambda status, _: status.pending),
    ("pending_seconds", "gauge", "Age of the oldest waiting path",
     lambda status, now: 0 if status.pending_since is None else now - status.pending_since),
    ("revision", "gauge", "Store revision up to which the mapping has seen", lambda status, _: status.revision),
    ("pushed_total", "counter", "Paths written to the store", lambda status, _: status.pushed),
    ("pulled_total", "counter", "Paths written to the local directory", lambda status, _: status.pulled),
    ("cycles_total", "counter", "Cycles made", lambda status, _: status.cycles),
)  # fmt: skip


def ready(statuses: Sequence[Status], contact: Contact, notes: Sequence[str] = ()) -> tuple[bool, str]:
    """Return whether all required mappings are ready and none of them is halted, with a line for each mapping.

    A store that fell silent changes nothing of that, since the files stay usable; each line ends with it. notes:
    lines about the process as a whole, which make no difference either.
    """
    lines = []
    silent = f"; {words}" if (words := silence(contact)) else ""
    fine = True
    for status in statuses:
        good = status.ready and status.halted is None
        fine = fine and (good or not status.required)
        verdict = "ok" if good else "not ready" if status.required else "not ready, not required"
        reason = "ready" if silent and good else _reason(status)
        lines.append(f"{status.mapping}: {verdict}: {reason}{silent}")
    return fine, "\n".join([*lines, *notes]) + "\n"


def _reason(status: Status) -> str:
    """Return how a mapping is, in words."""
    stopped = status.halted or status.waiting_for
    if stopped or not status.problems:
        return stopped or ("ready" if status.ready else "first cycle under way")
    word = "degraded" if status.ready else "incomplete"
    return f"{word}: {len(status.problems)} problems, such as {status.problems[0]}"


def metrics(statuses: Sequence[Status], contact: Contact, now: float, figures: Sequence[Figure] = ()) -> str:
    """Return the figures in Prometheus' text format (version 0.0.4)."""
    lines = [*_contact_lines(contact), *_metric_lines(statuses, now), *_figure_lines(figures)]
    return "\n".join(lines) + "\n"


def _contact_lines(contact: Contact) -> Iterator[str]:
    """Yield the figures of the connection, which all mappings share."""
    yield from _figure_lines(
        [
            Figure(
                "connected", "gauge", "1 while the store answers writes and linearizable reads", contact.connected
            ),
            Figure(
                "last_contact_timestamp_seconds",
                "gauge",
                "When the store last answered; 0 for never",
                contact.last,
            ),
        ]
    )


def _figure_lines(figures: Sequence[Figure]) -> Iterator[str]:
    for figure in figures:
        yield f"# HELP configstore_{figure.name} {figure.words}."
        yield f"# TYPE configstore_{figure.name} {figure.kind}"
        yield f"configstore_{figure.name} {float(figure.value):.15g}"


def _metric_lines(statuses: Sequence[Status], now: float) -> Iterator[str]:
    for name, kind, words, value in _GAUGES:
        yield f"# HELP configstore_{name} {words}."
        yield f"# TYPE configstore_{name} {kind}"
        for status in statuses:
            label = status.mapping.replace("\\", r"\\").replace('"', r"\"")
            yield f'configstore_{name}{{mapping="{label}"}} {float(value(status, now)):.15g}'


class HealthServer:
    """The HTTP server and its thread."""

    def __init__(
        self,
        listen: str,
        statuses: Callable[[], Sequence[Status]],
        clock: Callable[[], float],
        *,
        contact: Callable[[], Contact],
        alive: Callable[[], str | None] = lambda: None,
        notes: Callable[[], Sequence[str]] = tuple,
        figures: Callable[[], Sequence[Figure]] = tuple,
    ) -> None:
        """Listen on `host:port` (IPv6 in brackets). Raises UsageError when that cannot be had.

        statuses: of all mappings. alive: why the process makes no progress, or None. notes: what an operator
        should know of the process as a whole, in lines. figures: those that belong to no mapping.
        """
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        try:
            self._server = (_Server6 if ":" in host else _Server)((host, int(port)))
        except (OSError, ValueError, OverflowError) as error:
            raise UsageError(
                f'[health] listen = {listen!r}: {error}; expected host:port, or "" for none'
            ) from None
        self._server.source = _Source(statuses, clock, contact, alive, notes, figures)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL,), name="health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = CONNECTIONS
    source: _Source

    def __init__(self, address: tuple[str, int]) -> None:
        self._open: dict[socket.socket, None] = {}  # oldest first
        self._opening = threading.Lock()
        super().__init__(address, _Requests)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # of the base class
        """Serve a connection in a thread; where there are too many, the oldest one is cut for it."""
        with self._opening:
            if len(self._open) >= CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with suppress(OSError):  # it is gone already
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread closes it
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401  # of the base class
        """Close a connection."""
        with self._opening:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def server_bind(self) -> None:
        """Bind, and leave out the base class's question to DNS for our own name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  # of the base class
        """Note what went wrong with one connection, which is most often a peer that is gone."""
        log.debug("a connection to the health endpoint broke off", extra={"reason": str(sys.exc_info()[1])})


class _Server6(_Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Take IPv4, too, where the address is `::`."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Requests(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5  # seconds for a request to arrive; a slow client costs one sleeping thread that long
    server_version = "configstore"
    sys_version = ""

    def do_GET(self) -> None:
        source = self.server.source
        if self.path == "/livez":
            why = source.alive()
            self._answer(_verdict(not why), f"{why or 'ok'}\n")
        elif self.path == "/readyz":
            fine, text = ready(source.statuses(), source.contact(), source.notes())
            self._answer(_verdict(fine), text)
        elif self.path == "/metrics":
            text = metrics(source.statuses(), source.contact(), source.clock(), source.figures())
            self._answer(HTTPStatus.OK, text)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "there are /livez, /readyz and /metrics\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        """Say nothing: probes come every few seconds."""


def _verdict(fine: bool) -> HTTPStatus:
    return HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE
