"""Asks each endpoint on its own what its member says of itself. Called by `gather`, and by `overview`."""

import time
from concurrent.futures import ThreadPoolExecutor

import msgspec

from configstore.doctor import web
from configstore.doctor.facts import Endpoint, Failure
from configstore.errors import StoreError, StoreUnavailableError
from configstore.settings import StoreSettings
from configstore.store.api import Status
from configstore.store.connect import connect


def look_at_all(settings: StoreSettings, patience: float) -> tuple[Endpoint, ...]:
    """Return what every endpoint shows, after at most `patience` seconds."""
    with ThreadPoolExecutor(2 * len(settings.endpoints)) as pool:
        webs = [pool.submit(web.visit, url, settings, patience / 2) for url in settings.endpoints]
        answers = [pool.submit(_status, url, settings, patience) for url in settings.endpoints]
        return tuple(
            Endpoint(
                url=url,
                web=seen.result(),
                status=answer.result()[0],
                latency=answer.result()[1],
            )
            for url, seen, answer in zip(settings.endpoints, webs, answers, strict=True)
        )


def only(settings: StoreSettings, endpoints: tuple[str, ...], timeout: float) -> StoreSettings:
    """Return settings for some of the endpoints, with another time for one call."""
    return msgspec.structs.replace(settings, endpoints=endpoints, timeout=timeout)


def failure(error: StoreError) -> Failure:
    """Return an error as a value."""
    return Failure(str(error), error.exit_code)


def _status(url: str, settings: StoreSettings, patience: float) -> tuple[Status | Failure, float]:
    """Return the status of the member at an endpoint, and how long it took.

    Asked by nobody first, which etcd allows up to 3.5 at least: a bad login must not hide the member.
    """
    nobody = msgspec.structs.replace(settings, user=None, password=None, password_file=None)
    found = Failure("")
    for who in (nobody, settings) if settings.user else (nobody,):
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
