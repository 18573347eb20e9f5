"""The parts of a running sidecar: made, connected and started in order. Used by `commands.run`."""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from configstore.clock import boottime
from configstore.model.keys import Keys
from configstore.model.replica import Report, Request, Verb
from configstore.settings import DEFAULT_SOCKET
from configstore.store.store import Store
from sidecar.config.settings import Config
from sidecar.control.api import Api
from sidecar.control.holds import Holds
from sidecar.control.sockets import ControlSockets, WantedSocket
from sidecar.cycle.mirror import Mirror
from sidecar.daemon.opened import Opened, time_now
from sidecar.presence.presence import Presence
from sidecar.reporting import logs
from sidecar.reporting.contact import ContactLog
from sidecar.reporting.metrics import Sample
from sidecar.reporting.status import report_of, with_notes

if TYPE_CHECKING:
    from sidecar.reporting.gauges import GaugeCollector

log = logging.getLogger(__name__)


class Parts:
    """All parts of one process. mirrors: one for each mapping."""

    def __init__(self, config: Config, stack: ExitStack) -> None:
        """Make the parts, which `stack` closes in the reverse order. Raises ConfigstoreError.

        Whatever may refuse to begin is made before anything is started: keyring, store, directories, sockets.
        """
        host = socket.gethostname()
        self.mirrors: list[Mirror] = []
        opened = Opened(config, stack)
        self.kv, self._keyring, self._state = opened.kv, opened.keyring, opened.state
        self.kv.follow_contact(ContactLog().changed)
        self._store = Store(self.kv, Keys(config.store.root))
        self.holds = Holds(self._store, self.mirrors, replica=config.replica, host=host, now=time_now)
        self._config = config
        self._host = host
        self._gauges: GaugeCollector | None = None
        self._presence = Presence(
            self._store,
            self._reports,
            self._deliver,
            directories={each.name: each.path for each in config.mappings},
            clock=boottime,
        )
        sockets = [WantedSocket(each, config.socket_of(each), config.group_of(each)) for each in config.services]
        self._sockets = ControlSockets(sockets, self._api, default=DEFAULT_SOCKET)
        self.mirrors += opened.mirrors(watch=True, told=self._changed, advanced=self._advanced, holds=self.holds)
        stack.callback(self._sockets.close)
        self._sockets.open()
        if config.health_listen:
            self._serve_health(stack)

    def start(self, stack: ExitStack) -> None:
        """Start the threads of the mirrors, and of what reports on them; `stack` ends these."""
        for mirror in self.mirrors:
            mirror.start()
        self.holds.start()
        stack.callback(self.holds.end)
        self._presence.start()
        stack.callback(self._presence.close)

    @property
    def period(self) -> float | None:
        """The seconds until `renew` is due; None: never."""
        return min(filter(None, (self._keyring.period, self._sockets.period)), default=None)

    def renew(self) -> None:
        """Take a keyring that was replaced, and make missing control sockets."""
        before = self._keyring.notes()
        changed = self._keyring.renew()
        for mirror in self.mirrors:
            if mirror.mapping in changed:  # what could not be opened is read again, and what cannot be any more
                mirror.list_again()
                mirror.wake()
        if changed or self._keyring.notes() != before:
            self._presence.changed()
        self._sockets.renew()

    def notes(self) -> list[str]:
        """Return what is wrong with the process as a whole, a sentence each, with the mend; from any thread."""
        found = [self._state.limitation, *(each.alarm.failure for each in self.mirrors)]
        return [
            *self._presence.notes(),
            *self.holds.notes(),
            *self._keyring.notes(),
            *self._sockets.notes(),
            *filter(None, found),
            *(self._gauges.notes() if self._gauges else ()),
        ]

    def _changed(self) -> None:
        self._presence.changed()
        if self._gauges:
            self._gauges.wake()

    def _advanced(self) -> None:
        self._presence.advanced()
        if self._gauges:
            self._gauges.wake()

    def _api(self, service: str) -> Api:
        """Return what answers at a service's control socket, or at that of everything."""
        shown = [each for each in self.mirrors if each.mapping.service == service or not self._config.local]
        return Api(self._store, shown, self.holds, replica=self._config.replica, notes=self.notes)

    def _reports(self, session: str) -> list[Report]:
        """Return what is to be reported to the store of each mapping."""
        return [
            with_notes(
                report_of(
                    each.status,
                    each.mapping,
                    replica=self._config.replica,
                    host=self._host,
                    session=session,
                    clock=boottime(),
                    time=time_now(),
                    keys=self._keyring.keys(each.mapping),
                    master=self._keyring.master,
                ),
                filter(None, (each.stuck(), *self.notes())),
            )
            for each in self.mirrors
        ]

    def _deliver(self, request: Request) -> None:
        """Hand a person's request to the mirrors that it is for."""
        for mirror in self.mirrors:
            if not request.concerns(mirror.mapping.name, self._config.replica):
                continue
            if request.verb is Verb.FLUSH:
                log.info("flushed as a person asked", extra={"mapping": mirror.mapping.name, "by": request.who})
                mirror.flush(0.0)
            else:
                mirror.request(request)

    def _serve_health(self, stack: ExitStack) -> None:
        """Serve probes and figures. Raises UsageError when the address cannot be had."""
        from sidecar.reporting.gauges import GaugeCollector  # noqa: PLC0415  # 2 MiB that only their users pay
        from sidecar.reporting.health import HealthServer, HealthSources  # noqa: PLC0415  # as above

        gauges = GaugeCollector(
            self.kv, self._config.store, self._config.mappings, lambda: [each.lost for each in self.mirrors]
        )
        stack.callback(gauges.close)
        sources = HealthSources(
            statuses=lambda: [each.status for each in self.mirrors],
            contact=self.kv.contact,
            stuck=lambda: next(filter(None, (each.stuck() for each in self.mirrors)), None),
            notes=self.notes,
            samples=self._samples,
            services={each.name: each.service for each in self._config.mappings if each.service},
        )
        health = HealthServer(self._config.health_listen, sources)
        stack.callback(health.close)
        self._gauges = gauges
        gauges.start()
        log.info("health endpoint", extra={"port": health.port})

    def _samples(self) -> Iterator[Sample]:
        """Yield the figures that no mapping's status has."""
        yield Sample("log_dropped_total", (), logs.dropped())
        if self._gauges:
            yield from self._gauges.samples()
        yield Sample("keyring_unreadable", (), self._keyring.unreadable)
        for each in self.mirrors:
            name = (each.mapping.name,)
            yield Sample("mapping_info", (*name, each.mapping.service), 1)
            yield Sample("stuck", name, each.stuck() is not None)
            yield Sample("set_latency_seconds", name, each.latency)
        for lease in self.holds.uses():
            name = (lease.name,)
            yield Sample("lease_held", name, lease.held is not None)
            yield Sample("lease_held_seconds", name, lease.held or 0.0)
            yield Sample("lease_waiting", name, len(lease.waiting))
            yield Sample("lease_waiting_seconds", name, max(lease.waiting, default=0.0))
