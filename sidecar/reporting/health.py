"""`/livez`, `/readyz` and `/metrics` over HTTP, for probes, HEALTHCHECK and Prometheus.

Answered from values that the engines publish; a request never reaches the store or the disk
(docs/decisions/0005-own-health-endpoint.md).
"""

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus

import msgspec

from configstore.clock import boottime
from configstore.errors import UsageError
from configstore.store.api import Contact
from sidecar.reporting.contact import silence
from sidecar.reporting.http import BACKLOG, Exchange, HttpRequest, MalformedError, Server
from sidecar.reporting.metrics import Sample, metrics
from sidecar.reporting.status import Status

_OF_SERVICE = "/readyz?service="


class HealthSources(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers are made from; each is called at each request, from any thread, and returns at once.

    clock: that of the engines. stuck: returns why the process makes no progress, or None. notes: returns what is
    wrong with the process as a whole, a line each. samples: returns the figures that no status has. services: the
    service of each mapping, by its name, for requests about one service alone.
    """

    statuses: Callable[[], Sequence[Status]]
    contact: Callable[[], Contact]
    clock: Callable[[], float] = boottime
    stuck: Callable[[], str | None] = lambda: None
    notes: Callable[[], Sequence[str]] = tuple
    samples: Callable[[], Iterable[Sample]] = tuple
    services: Mapping[str, str] = {}


def ready(
    statuses: Sequence[Status], contact: Contact, notes: Sequence[str] = (), services: Mapping[str, str] = {}
) -> tuple[bool, str]:
    """Return whether all required mappings are ready and none of them is halted, and a line for each mapping.

    A silent store does not change the verdict, since the files stay usable; each line ends with a sentence about
    it. notes: lines about the process as a whole, which do not change it either. services: the service of each
    mapping, named where there are several.
    """
    lines = []
    several = len(set(services.values())) > 1
    silent = f"; {words}" if (words := silence(contact)) else ""
    fine = True
    for status in statuses:
        good = status.ready and status.halted is None
        fine = fine and (good or not status.required)
        verdict = "ok" if good else "not ready" if status.required else "not ready, not required"
        # While the store is silent, the line's end says so; its reason does not repeat it.
        served = msgspec.structs.replace(status, waiting_for=None) if silent and good else status
        reason = _reason(served)
        whose = f" ({services[status.mapping]})" if several and status.mapping in services else ""
        lines.append(f"{status.mapping}{whose}: {verdict}: {reason}{silent}")
    return fine, "\n".join([*lines, *notes]) + "\n"


def _reason(status: Status) -> str:
    """Return how a mapping is, as text."""
    stopped = status.halted or status.waiting_for
    if stopped or not status.problems:
        return stopped or ("ready" if status.ready else "first cycle under way")
    word = "degraded" if status.ready else "incomplete"
    return f"{word}: {len(status.problems)} problems, such as {status.problems[0]}"


class HealthServer:
    """The HTTP server and its thread."""

    def __init__(self, listen: str, source: HealthSources) -> None:
        """Listen on `host:port` (IPv6 in brackets). Raises UsageError when that is not possible."""
        try:
            listener = _listener(listen)
        except (OSError, ValueError, OverflowError) as error:
            raise UsageError(
                f'[health] listen = {listen!r}: {error}; expected host:port, or "" for none'
            ) from None
        self._source = source
        self.port: int = listener.getsockname()[1]
        self._server = Server(listener, self._answer, name="health")

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def _answer(self, exchange: Exchange, request: HttpRequest) -> None:
        if request.method not in {"GET", "HEAD"}:
            raise MalformedError(HTTPStatus.NOT_IMPLEMENTED, "expected GET or HEAD")
        status, text = self._found(request.target)
        kind = "text/plain; version=0.0.4; charset=utf-8"
        content = text.encode(errors="backslashreplace")
        exchange.answer(status, kind, content, head_only=request.method == "HEAD")

    def _found(self, target: str) -> tuple[HTTPStatus, str]:
        source = self._source
        if target == "/livez":
            why = source.stuck()
            return _verdict(not why), f"{why or 'ok'}\n"
        if target == "/readyz":
            fine, text = ready(source.statuses(), source.contact(), source.notes(), source.services)
            return _verdict(fine), text
        if target.startswith(_OF_SERVICE):
            return self._ready_of(target.removeprefix(_OF_SERVICE))
        if target == "/metrics":
            return HTTPStatus.OK, metrics(source.statuses(), source.contact(), source.clock(), source.samples())
        return HTTPStatus.NOT_FOUND, "there are /livez, /readyz and /metrics\n"

    def _ready_of(self, service: str) -> tuple[HTTPStatus, str]:
        source = self._source
        its = {mapping for mapping, whose in source.services.items() if whose == service}
        if not its:
            known = ", ".join(sorted(set(source.services.values()))) or "none"
            return HTTPStatus.NOT_FOUND, f"no mapping here is of that service; there are: {known}\n"
        statuses = [status for status in source.statuses() if status.mapping in its]
        fine, text = ready(statuses, source.contact(), source.notes())
        return _verdict(fine), text


def _listener(listen: str) -> socket.socket:
    """Return a listening socket. Raises OSError, ValueError, OverflowError."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    six = ":" in host
    return socket.create_server(
        (host, int(port)),
        family=socket.AF_INET6 if six else socket.AF_INET,
        backlog=BACKLOG,
        dualstack_ipv6=six,  # so that `::` takes IPv4 as well
    )


def _verdict(fine: bool) -> HTTPStatus:
    return HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE
