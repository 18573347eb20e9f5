"""Asks each endpoint on its own for its member's status. Called by `gather` and by `overview.gather`."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import msgspec

from configstore.doctor import http_probe
from configstore.doctor.facts import EndpointAnswer, Failure, HttpAnswer
from configstore.errors import StoreError, StoreUnavailableError
from configstore.settings import StoreSettings
from configstore.store.api import MemberStatus
from configstore.store.connect import connect

Found = TypeVar("Found")

ENOUGH = 1.0
"""Seconds after which nothing more is waited for, if one endpoint has answered."""

SILENT = "does not answer"


class _Asked(Generic[Found]):
    """A call in a daemon thread: resolving a name may hang for minutes, and must not delay the process's end."""

    def __init__(self, ask: Callable[[], Found]) -> None:
        self.found: Found | None = None
        self._ask = ask
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.found = self._ask()

    def wait(self, end: float) -> Found | None:
        """Return the answer; None when there is none by `end` on the monotonic clock."""
        self._thread.join(max(0.0, end - time.monotonic()))
        return self.found


def look_at_all(settings: StoreSettings, patience: float) -> tuple[EndpointAnswer, ...]:
    """Return the answer of every endpoint, after at most `patience` seconds even if a call hangs."""
    begun = time.monotonic()
    probes = [_Asked(partial(http_probe.probe, url, settings, patience / 2)) for url in settings.endpoints]
    asked = [_Asked(partial(_status, url, settings, patience)) for url in settings.endpoints]
    enough, end = begun + min(ENOUGH, patience), begun + patience
    for each in asked:
        each.wait(enough)
    if not any(each.found and isinstance(each.found[0], MemberStatus) for each in asked):
        for each in asked:
            each.wait(end)
    return tuple(
        _endpoint(url, seen.wait(enough), answer.found, patience)
        for url, seen, answer in zip(settings.endpoints, probes, asked, strict=True)
    )


def _endpoint(
    url: str, seen: HttpAnswer | None, answer: tuple[MemberStatus | Failure, float] | None, patience: float
) -> EndpointAnswer:
    silent = Failure(f"status at {url}: {SILENT} ({patience:g} s)", StoreUnavailableError.exit_code)
    status, latency = answer or (silent, 0.0)
    return EndpointAnswer(url=url, http=seen or HttpAnswer(silent=SILENT), status=status, latency=latency)


def only(settings: StoreSettings, endpoints: tuple[str, ...], timeout: float) -> StoreSettings:
    """Return the settings with only these endpoints, and another timeout in seconds for one call."""
    return msgspec.structs.replace(settings, endpoints=endpoints, timeout=timeout)


def failure(error: StoreError) -> Failure:
    """Return an error as a value."""
    return Failure(str(error), error.exit_code)


def _status(url: str, settings: StoreSettings, patience: float) -> tuple[MemberStatus | Failure, float]:
    """Return the status of the member at an endpoint, and how long the call took.

    It asks without a user first, which etcd allows at least up to 3.5: a wrong password must not hide the member.
    """
    anonymous = msgspec.structs.replace(settings, user=None, password=None, password_file=None)
    found = Failure("")
    for who in (anonymous, settings) if settings.user else (anonymous,):
        with connect(only(who, (url,), patience)) as kv:
            try:
                kv.status()  # connects
                begun = time.monotonic()
                return kv.status(), time.monotonic() - begun
            except StoreUnavailableError as error:
                return failure(error), 0.0
            except StoreError as error:
                found = failure(error)
    return found, 0.0
