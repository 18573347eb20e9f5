"""The control sockets of a process: one, or in the sidecar of a whole host one for each service, in its folder.

A service's socket serves only its own mappings and leases, so it may do there what it may do at a sidecar of its
own. A service that damages its folder loses only its own socket, which is tried again. Called by `daemon.run`.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from configstore.errors import RefusedError
from sidecar.control.api import Api
from sidecar.control.server import ControlServer
from sidecar.control.socket_directory import listen

log = logging.getLogger(__name__)

RETRY = 2.0
"""Seconds until a socket that could not be made, or was removed, is made again."""


class WantedSocket(NamedTuple):
    """A socket that the settings want. service: "" for one of everything. group: may use it, None for no other."""

    service: str
    path: str
    group: int | None


class ControlSockets:
    """All control sockets. Call `open` once at the start, and then `renew` every `period` seconds."""

    def __init__(self, wanted: Sequence[WantedSocket], api: Callable[[str], Api], *, default: str) -> None:
        """Take what returns the `Api` of a service, and the path that is used when the settings name none."""
        self._wanted = [each for each in wanted if each.path]
        self._api = api
        self._default = default
        self._servers: dict[str, ControlServer] = {}
        self._failed: dict[str, str] = {}

    @property
    def period(self) -> float | None:
        """The seconds until `renew` is due; None where the settings want no socket."""
        return RETRY if self._wanted else None

    def notes(self) -> Sequence[str]:
        """Return a sentence for each service without a socket; from any thread."""
        failed = dict(self._failed)
        failed.pop("", None)  # of the one socket of everything only the log speaks
        return [f"{whose}: no control socket, so it cannot hold a lease: {why}" for whose, why in failed.items()]

    def open(self) -> None:
        """Make all sockets; one that cannot be made is logged, and tried again by `renew`.

        Raises RefusedError for the only socket of a process when the settings name its path.
        """
        for each in self._wanted:
            try:
                self._open(each)
            except RefusedError as error:
                if not each.service and len(self._wanted) == 1 and each.path != self._default:
                    raise
                self._fail(each.service, str(error))

    def renew(self) -> None:
        """Make the sockets that are missing, and those that were removed, with their directory or without."""
        for service, server in list(self._servers.items()):
            if not server.is_there():
                log.warning("the control socket was removed; it is made again", extra=_fields(service))
                del self._servers[service]
                server.retire()
        for each in self._wanted:
            try:
                self._open(each)
            except RefusedError as error:
                self._fail(each.service, str(error))

    def _open(self, wanted: WantedSocket) -> None:
        """Make a socket that is not there yet. Raises RefusedError."""
        service, path, group = wanted
        if service in self._servers:
            return
        folders = () if service else [each.service for each in self._wanted if each.service]
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
