"""`run`, `init` and `plan` as functions. Called by `sidecar.__main__`."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import msgspec
import tenacity

from configstore.errors import NotThereError, RefusedError, StoreUnavailableError
from sidecar.config.settings import Config
from sidecar.daemon.ending import send_and_stop
from sidecar.daemon.opened import Opened
from sidecar.daemon.parts import Parts
from sidecar.mapping import Mapping
from sidecar.planner.plan import Plan
from sidecar.process.signals import Shutdown

log = logging.getLogger(__name__)

T = TypeVar("T")


def run(config: Config) -> int:
    """Mirror until SIGTERM, SIGINT or SIGQUIT, send what is left, and return the exit code."""
    shutdown = Shutdown()  # first: a signal that comes while the parts are made is not lost
    with ExitStack() as stack:
        parts = Parts(config, stack)
        parts.start(stack)
        names = [mirror.mapping.name for mirror in parts.mirrors]
        log.info("mirroring", extra={"mappings": names, "replica": config.replica})
        while not shutdown.wait(parts.period):
            parts.renew()
        all_sent = send_and_stop(config.stop_timeout, parts.kv, parts.mirrors, parts.holds)
    log.info("stopped")
    return 0 if all_sent and not shutdown.failed else 1


def init(config: Config) -> int:
    """Fill the directories once and return 0.

    Waits up to `config.timeout` seconds for the store. Raises UnreachableError when it did not answer, and
    NotThereError naming what a required mapping lacks to be complete; RefusedError when its directory cannot be
    mirrored, or no key opens a record that it lacks, or that record is plain and may not be. The other mappings
    are filled nevertheless.
    """
    config = _in_time(config)
    incomplete: list[tuple[Mapping, str]] = []
    refused: list[str] = []

    def unusable(mapping: Mapping, error: RefusedError) -> None:
        incomplete.append((mapping, str(error)))
        refused.append(mapping.name)

    with ExitStack() as stack:
        mirrors = Opened(config, stack).mirrors(unusable=unusable)
        end = time.monotonic() + config.timeout
        for mirror in mirrors:
            incomplete += [(mirror.mapping, reason) for reason in _until_reachable(mirror.engine.pull_once, end)]
            if any(problem.sealing for problem in mirror.status.problems):
                refused.append(mirror.mapping.name)
    for mapping, reason in incomplete:
        if not mapping.required:
            log.warning("not complete", extra={"mapping": mapping.name, "reason": reason})
    missing = [(mapping.name, reason) for mapping, reason in incomplete if mapping.required]
    if missing:
        text = "\n  ".join(["init is incomplete:", *(f"{name}: {reason}" for name, reason in missing)])
        raise RefusedError(text) if any(name in refused for name, _ in missing) else NotThereError(text)
    return 0


def plan(config: Config) -> dict[str, Plan]:
    """Return what a cycle of each mapping would do now, by its name; nothing is changed."""
    config = _in_time(config)
    with ExitStack() as stack:
        mirrors = Opened(config, stack, prepare=False).mirrors(preview=True)
        end = time.monotonic() + config.timeout
        return {mirror.mapping.name: _until_reachable(mirror.engine.preview, end) for mirror in mirrors}


def _in_time(config: Config) -> Config:
    """Return settings in which no single call to the store takes longer than the whole command may."""
    store = msgspec.structs.replace(config.store, timeout=min(config.store.timeout, config.timeout))
    return msgspec.structs.replace(config, store=store)


def _until_reachable(ask: Callable[[], T], end: float) -> T:
    """Call `ask` until the store answers, and return its answer; `end` is on the monotonic clock.

    Raises the last StoreUnavailableError.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailableError),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
        stop=lambda _: time.monotonic() >= end,
        reraise=True,
    )
    return retrying(ask)
