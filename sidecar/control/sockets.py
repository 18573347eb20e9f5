"""The control sockets of a process: one, or in the sidecar of a whole host one for each service, in its folder.

A service's socket serves only its own mappings and leases, so it may do there what it may do at a sidecar of its
own. A service that damages its folder loses only its own socket, which is tried again. Called by `daemon.run`.
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
"""Seconds until a socket that could not be made, or was removed, is made again."""


class SocketSettings(Protocol):
    """The settings that concern sockets; see `sidecar.config.settings.Config`."""

    @property
    def services(self) -> tuple[str, ...]:
        """The services that have a socket; "" for one socket of everything."""
        ...

    def socket_of(self, service: str) -> str:
        """Return a socket's path, "" for none."""
        ...

    def group_of(self, service: str) -> int | None:
        """Return the group whose members may use it, None for none."""
        ...


class ControlSockets:
    """All control sockets. Call `open` once at the start, and then `renew` every `period` seconds."""

    def __init__(self, settings: SocketSettings, api: Callable[[str], Api], *, default: str) -> None:
        """Take what returns the `Api` of a service, and the path that is used when the settings name none."""
        self._settings = settings
        self._api = api
        self._default = default
        self._servers: dict[str, ControlServer] = {}
        self._failed: dict[str, str] = {}

    @property
    def period(self) -> float | None:
        """The seconds until `renew` is due; None where the settings want no socket."""
        return RETRY if any(map(self._settings.socket_of, self._settings.services)) else None

    def notes(self) -> Sequence[str]:
        """Return a sentence for each service without a socket; from any thread."""
        failed = dict(self._failed)
        failed.pop("", None)  # of the one socket of everything only the log speaks
        return [f"{whose}: no control socket, so it cannot hold a lease: {why}" for whose, why in failed.items()]

    def open(self) -> None:
        """Make all sockets; one that cannot be made is logged, and tried again by `renew`.

        Raises RefusedError for the only socket of a process when the settings name its path.
        """
        for service in self._settings.services:
            try:
                self._open(service)
            except RefusedError as error:
                path = self._settings.socket_of(service)
                if not service and self._settings.services == ("",) and path != self._default:
                    raise
                self._fail(service, str(error))

    def renew(self) -> None:
        """Make the sockets that are missing, and those that were removed, with their directory or without."""
        for service, server in list(self._servers.items()):
            if not server.is_there():
                log.warning("the control socket was removed; it is made again", extra=_fields(service))
                del self._servers[service]
                server.retire()
        for service in self._settings.services:
            try:
                self._open(service)
            except RefusedError as error:
                self._fail(service, str(error))

    def _open(self, service: str) -> None:
        """Make a socket that is wanted and not there yet. Raises RefusedError."""
        path, group = self._settings.socket_of(service), self._settings.group_of(service)
        if not path or service in self._servers:
            return
        folders = () if service else tuple(filter(None, self._settings.services))
        self._servers[service] = ControlServer(listen(path, group, folders), self._api(service), group=group)
        if self._failed.pop(service, None):
            log.info("the control socket is there now", extra=_fields(service))

    def close(self) -> None:
        """Stop serving."""
        for each in self._servers.values():
            each.close()

    def _fail(self, service: str, why: str) -> None:
        if self._failed.get(service) != why:
            log.warning(
                "no control socket, so nobody can hold a lease here", extra={**_fields(service), "reason": why}
            )
        self._failed[service] = why


def _fields(service: str) -> dict[str, str]:
    return {"service": service} if service else {}
