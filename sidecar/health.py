"""`/livez`, `/readyz` and `/metrics` over HTTP, for probes, HEALTHCHECK and Prometheus.

Served from values that the engines publish; a request never reaches the store or the disk
(docs/decisions/0005-own-health-endpoint.md).
"""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from configstore.errors import UsageError
from configstore.store.api import Contact
from sidecar.contact import silence
from sidecar.status import Status

Snapshot = Callable[[], Sequence[Status]]

_POLL = 3600.0  # seconds: there is nothing to look for between requests, and `close` wakes the thread

_GAUGES: tuple[tuple[str, str, str, Callable[[Status, float], float]], ...] = (
    ("ready", "gauge", "1 when the first full cycle was made", lambda status, _: status.ready),
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


def ready(statuses: Sequence[Status], contact: Contact) -> tuple[bool, str]:
    """Return whether all mappings are ready and none is halted, and a line per mapping that says so.

    A store that fell silent changes nothing of that, since the files stay usable; each line ends with it.
    """
    lines = []
    silent = f"; {words}" if (words := silence(contact)) else ""
    fine = True
    for status in statuses:
        good = status.ready and status.halted is None
        fine = fine and good
        reason = status.halted or status.waiting_for or ("ready" if status.ready else "first cycle under way")
        lines.append(f"{status.mapping}: {'ok' if good else 'not ready'}: {reason}{silent}")
    return fine, "\n".join(lines) + "\n"


def metrics(statuses: Sequence[Status], contact: Contact, now: float) -> str:
    """Return the figures in Prometheus' text format (version 0.0.4)."""
    return "\n".join([*_contact_lines(contact), *_metric_lines(statuses, now)]) + "\n"


def _contact_lines(contact: Contact) -> Iterator[str]:
    """Yield the figures of the process: all mappings share one connection."""
    yield "# HELP configstore_connected 1 while the store answers writes and linearizable reads."
    yield "# TYPE configstore_connected gauge"
    yield f"configstore_connected {int(contact.connected)}"
    yield "# HELP configstore_last_contact_timestamp_seconds When the store last answered; 0 for never."
    yield "# TYPE configstore_last_contact_timestamp_seconds gauge"
    yield f"configstore_last_contact_timestamp_seconds {contact.last:.3f}"


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
        self, listen: str, snapshot: Snapshot, clock: Callable[[], float], *, contact: Callable[[], Contact]
    ) -> None:
        """Listen on `host:port` (IPv6 in brackets). Raises UsageError when that cannot be had."""
        host, _, port = listen.rpartition(":")
        try:
            self._server = _Server((host.strip("[]"), int(port)), _Requests)
        except (OSError, ValueError, OverflowError) as error:
            raise UsageError(
                f'[health] listen = {listen!r}: {error}; expected host:port, or "" for none'
            ) from None
        self._server.snapshot = snapshot
        self._server.clock = clock
        self._server.contact = contact
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
    snapshot: Snapshot
    clock: Callable[[], float]
    contact: Callable[[], Contact]


class _Requests(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5  # seconds for a request to arrive; a slow client costs one sleeping thread that long
    server_version = "configstore"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path == "/livez":
            self._answer(HTTPStatus.OK, "ok\n")
        elif self.path == "/readyz":
            fine, text = ready(self.server.snapshot(), self.server.contact())
            self._answer(HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE, text)
        elif self.path == "/metrics":
            text = metrics(self.server.snapshot(), self.server.contact(), self.server.clock())
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
