"""The control sockets of a process: one, or in the sidecar of a whole host one for each service, in its folder.

A service finds only its own mappings and leases behind its socket, so that what it may do there is what it may do
at a sidecar of its own. And what a service did to its folder keeps no other from its socket: it is tried again.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from configstore.errors import RefusedError
from sidecar.control.api import Api
from sidecar.control.server import ControlServer
from sidecar.control.socket_directory import listen

log = logging.getLogger(__name__)

RETRY = 2.0
"""Seconds until a socket that could not be made is tried again."""


class SocketSettings(Protocol):
    """What the settings say of them; see `sidecar.config.settings.Config`."""

    @property
    def services(self) -> tuple[str, ...]:
        """Whose sockets there are, "" for one of everything."""
        ...

    def socket_of(self, service: str) -> str:
        """Return a socket's path, "" for none."""
        ...

    def group_of(self, service: str) -> int | None:
        """Return the group that may use it."""
        ...


class ControlSockets:
    """All control sockets. Call `open` once at the start, and then whenever `period` says so."""

    def __init__(self, settings: SocketSettings, api: Callable[[str], Api], *, default: str) -> None:
        """Take `api`, which returns what is behind a service's socket, and the path that nobody asks for."""
        self._settings = settings
        self._api = api
        self._default = default
        self._servers: dict[str, ControlServer] = {}
        self._failed: dict[str, str] = {}

    @property
    def period(self) -> float | None:
        """In how many seconds `open` is due again; None: not at all."""
        return RETRY if any(self._failed) else None

    def troubles(self) -> Sequence[str]:
        """Return which services have no socket, in words; from any thread."""
        failed = dict(self._failed)
        failed.pop("", None)  # as ever, that is in the log alone
        return [f"{whose}: no control socket, so it cannot hold a lease: {why}" for whose, why in failed.items()]

    def open(self) -> None:
        """Make the sockets that are not there yet.

        Raises RefusedError where there is but one of everything, and somebody asked for it.
        """
        for service in self._settings.services:
            path = self._settings.socket_of(service)
            if not path or service in self._servers:
                continue
            group = self._settings.group_of(service)
            try:
                folders = () if service else tuple(filter(None, self._settings.services))
                door = listen(path, group, folders)
            except RefusedError as error:
                if not service and self._settings.services == ("",) and path != self._default:
                    raise
                self._fail(service, str(error))
                continue
            self._servers[service] = ControlServer(door, self._api(service), group=group)
            if self._failed.pop(service, None):
                log.info("the control socket is there now", extra={"service": service})

    def close(self) -> None:
        """Serve no more."""
        for each in self._servers.values():
            each.close()

    def _fail(self, service: str, why: str) -> None:
        if self._failed.get(service) != why:
            extra = {"service": service, "reason": why} if service else {"reason": why}
            log.warning("no control socket, so nobody can hold a lease here", extra=extra)
        self._failed[service] = why
