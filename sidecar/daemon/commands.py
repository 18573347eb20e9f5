"""`run`, `init` and `plan` as functions: threads, signals, readiness, and what is said at the end."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec
import tenacity

from configstore.clock import boottime
from configstore.errors import NotThereError, RefusedError, StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.replica import Report, Request, Verb
from configstore.settings import DEFAULT_SOCKET
from configstore.store.api import Kv
from configstore.store.connect import connect
from configstore.store.tree import Tree
from configstore.store.values import Writer
from sidecar.config.settings import Config
from sidecar.control.api import Api
from sidecar.control.holds import Holds
from sidecar.control.sockets import ControlSockets
from sidecar.cycle.mirror import Mirror
from sidecar.daemon.keyring import LiveKeyring
from sidecar.mapping import Mapping
from sidecar.planner.plan import Plan
from sidecar.presence.presence import Presence
from sidecar.process.signals import End
from sidecar.reporting import logs
from sidecar.reporting.contact import ContactLog
from sidecar.reporting.metrics import Sample
from sidecar.reporting.status import Status, report_of, with_troubles
from sidecar.state.directory import StateDirectory

if TYPE_CHECKING:
    from sidecar.reporting.gauges import GaugeCollector

log = logging.getLogger(__name__)

T = TypeVar("T")

CLOSING = 1.0
"""Seconds of `stop_timeout` that are kept for ending, once nothing more can be sent."""


def run(config: Config) -> int:
    """Mirror until SIGTERM, SIGINT or SIGQUIT, flush, and return the exit code."""
    end = End()
    sealed = LiveKeyring(config.store.root, config.mappings, config.seal_keyring)
    with ExitStack() as stack:
        kv = stack.enter_context(connect(config.store))
        kv.follow_contact(ContactLog().told)
        mirrors: list[Mirror] = []
        state = stack.enter_context(closing(StateDirectory(config.state)))

        def troubles() -> list[str]:
            found = [state.trouble, *(each.alarm.failure for each in mirrors)]
            found += [trouble for each in watchers for trouble in each.troubles()]
            return [
                *presence.troubles(),
                *holds.troubles(),
                *sealed.troubles(),
                *doors.troubles(),
                *filter(None, found),
            ]

        def behind(service: str) -> Api:
            shown = [each for each in mirrors if each.mapping.service == service or not config.local]
            return Api(kv, keys, shown, holds, replica=config.replica, troubles=troubles)

        presence = _presence(config, kv, mirrors, sealed, troubles)
        keys = Keys(config.store.root)
        holds = Holds(kv, keys, mirrors, replica=config.replica, host=socket.gethostname(), now=_now)
        doors = ControlSockets(config, behind, default=DEFAULT_SOCKET)
        told, advanced = [presence.changed], [presence.advanced]
        watchers: list[GaugeCollector] = []
        mirrors += _open(
            config, kv, stack, state, sealed, watch=True, holds=holds,
            told=lambda: _tell(told), advanced=lambda: _tell(advanced),
        )  # fmt: skip
        stack.callback(doors.close)
        doors.open()
        if config.health_listen:
            health = _health(
                config, kv, mirrors, holds, troubles, sealed=sealed, told=(told, advanced), watchers=watchers
            )
            stack.callback(health.close)
        for mirror in mirrors:
            mirror.start()
        holds.start()
        stack.callback(holds.end)
        presence.start()
        stack.callback(presence.close)
        log.info(
            "mirroring", extra={"mappings": [mirror.mapping.name for mirror in mirrors], "replica": config.replica}
        )
        while not end.wait(min(filter(None, (sealed.period, doors.period)), default=None)):
            _look_at_keyring(sealed, mirrors, presence)
            doors.open()
        all_sent = _stop(config.stop_timeout, kv, mirrors, holds)
    log.info("stopped")
    return 0 if all_sent and not end.failed else 1


def _tell(whom: Iterable[Callable[[], None]]) -> None:
    """Say that a mapping has something new to tell."""
    for each in whom:
        each()


def _look_at_keyring(sealed: LiveKeyring, mirrors: Sequence[Mirror], presence: Presence) -> None:
    """Use a keyring that was replaced: what could not be opened is read again, and what cannot be any more."""
    before = sealed.troubles()
    changed = sealed.look()
    for mirror in mirrors:
        if mirror.mapping in changed:
            mirror.list_again()
            mirror.wake()
    if changed or sealed.troubles() != before:
        presence.changed()


def _stop(patience: float, kv: Kv, mirrors: Sequence[Mirror], holds: Holds) -> bool:
    """Send what is under way, for at most `patience` seconds; returns whether all of it was sent."""
    log.info("stopping; sending what is under way")
    over = time.monotonic() + max(0.0, patience - CLOSING)
    _later(over, kv.close)
    _later(over + 2 * CLOSING, _give_up)
    holds.close((over - time.monotonic()) / 2)
    for mirror in mirrors:
        mirror.stop(over - time.monotonic())
    all_sent = True
    for mirror in mirrors:
        mirror.join()
        unsent = mirror.unsent()
        all_sent = all_sent and not unsent
        _name_unsent(mirror.mapping, unsent)
    return all_sent


def _name_unsent(mapping: Mapping, unsent: dict[StorePath, str]) -> None:
    words = "stopped, but this could not be sent"
    for path, reason in list(unsent.items())[: logs.NAMES]:
        log.error(words, extra={"mapping": mapping.name, "path": path or mapping.path, "reason": reason})
    if len(unsent) > logs.NAMES:
        more = f"… and {len(unsent) - logs.NAMES} more paths"
        log.error(words, extra={"mapping": mapping.name, "path": more})


def _later(when: float, what: Callable[[], None]) -> None:
    """Do something at `when` on the monotonic clock, should the process still be there."""
    timer = threading.Timer(max(0.0, when - time.monotonic()), what)
    timer.daemon = True
    timer.start()


def _give_up() -> None:
    """End a process that cannot come to its end: a step of an engine hangs in the kernel."""
    log.critical("the end takes too long; what was not sent is not known: ending at once")
    logs.flush()
    os._exit(1)


def init(config: Config) -> int:
    """Fill the directories once and return 0.

    Waits up to `config.timeout` seconds for the store. Raises UnreachableError when it did not answer, and
    NotThereError naming what is missing for a required mapping to be complete; RefusedError when its directory
    cannot be mirrored, or no key opens what it misses, or that is plain and may not be. The others are filled all
    the same.
    """
    config = _in_time(config)
    sealed = LiveKeyring(config.store.root, config.mappings, config.seal_keyring)
    incomplete: list[tuple[Mapping, str]] = []
    refused: list[str] = []

    def unusable(mapping: Mapping, error: RefusedError) -> None:
        incomplete.append((mapping, str(error)))
        refused.append(mapping.name)

    with ExitStack() as stack:
        state = stack.enter_context(closing(StateDirectory(config.state)))
        kv = stack.enter_context(connect(config.store))
        mirrors = _open(config, kv, stack, state, sealed, unusable=unusable)
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
        words = "\n  ".join(["init is incomplete:", *(f"{name}: {reason}" for name, reason in missing)])
        raise RefusedError(words) if any(name in refused for name, _ in missing) else NotThereError(words)
    return 0


def plan(config: Config) -> dict[str, Plan]:
    """Return what a cycle of each mapping would do now, and do nothing."""
    config = _in_time(config)
    sealed = LiveKeyring(config.store.root, config.mappings, config.seal_keyring)
    with ExitStack() as stack:
        state = stack.enter_context(closing(StateDirectory(config.state, prepare=False)))
        kv = stack.enter_context(connect(config.store))
        mirrors = _open(config, kv, stack, state, sealed, preview=True)
        end = time.monotonic() + config.timeout
        return {mirror.mapping.name: _until_reachable(mirror.engine.preview, end) for mirror in mirrors}


def _in_time(config: Config) -> Config:
    """Return settings in which no single call takes longer than all of it may."""
    store = msgspec.structs.replace(config.store, timeout=min(config.store.timeout, config.timeout))
    return msgspec.structs.replace(config, store=store)


def _until_reachable(ask: Callable[[], T], end: float) -> T:
    """Ask until the store answers; raises the last StoreUnavailableError at `end` on the monotonic clock."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailableError),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
        stop=lambda _: time.monotonic() >= end,
        reraise=True,
    )
    return retrying(ask)


def _presence(
    config: Config, kv: Kv, mirrors: Sequence[Mirror], sealed: LiveKeyring, troubles: Callable[[], Sequence[str]]
) -> Presence:
    """Return the session in which `mirrors` report and take requests; they may be made afterwards."""
    host = socket.gethostname()

    def reports(session: str) -> list[Report]:
        return [
            with_troubles(
                report_of(
                    each.status,
                    each.mapping,
                    replica=config.replica,
                    host=host,
                    session=session,
                    clock=boottime(),
                    time=_now(),
                    keys=sealed.keys(each.mapping),
                    master=sealed.master,
                ),
                filter(None, (each.stuck(), *troubles())),
            )
            for each in mirrors
        ]

    def deliver(request: Request) -> None:
        for mirror in mirrors:
            if not request.concerns(mirror.mapping.name, config.replica):
                continue
            if request.verb is Verb.FLUSH:
                log.info("flushed as a person asked", extra={"mapping": mirror.mapping.name, "by": request.who})
                mirror.flush(0.0)
            else:
                mirror.request(request)

    directories = {each.name: each.path for each in config.mappings}
    return Presence(kv, Keys(config.store.root), reports, deliver, directories=directories, clock=boottime)


def _health(
    config: Config,
    kv: Kv,
    mirrors: Sequence[Mirror],
    holds: Holds,
    troubles: Callable[[], Sequence[str]],
    *,
    sealed: LiveKeyring,
    told: Iterable[list[Callable[[], None]]],
    watchers: list["GaugeCollector"],
) -> ExitStack:
    """Serve probes, until what is returned is closed. Raises UsageError when the address cannot be had.

    told: get what wants to hear that a mapping has something new to tell. watchers: gets who has troubles.
    """
    from sidecar.reporting.gauges import GaugeCollector  # noqa: PLC0415 - as above
    from sidecar.reporting.health import HealthServer  # noqa: PLC0415  # 2 MiB that only its users pay

    outside = GaugeCollector(kv, config.store, config.mappings, lambda: [each.lost for each in mirrors])

    def statuses() -> list[Status]:
        return [each.status for each in mirrors]

    services = {each.name: each.service for each in config.mappings if each.service}

    def alive() -> str | None:
        return next(filter(None, (each.stuck() for each in mirrors)), None)

    def samples() -> Iterator[Sample]:
        yield Sample("log_dropped_total", (), logs.dropped())
        yield from outside.samples()
        yield Sample("keyring_unreadable", (), sealed.unreadable)
        for each in mirrors:
            name = (each.mapping.name,)
            yield Sample("mapping_info", (*name, each.mapping.service), 1)
            yield Sample("stuck", name, each.stuck() is not None)
            yield Sample("set_latency_seconds", name, each.latency)
        for lease in holds.standing():
            name = (lease.name,)
            yield Sample("lease_held", name, lease.held is not None)
            yield Sample("lease_held_seconds", name, lease.held or 0.0)
            yield Sample("lease_waiting", name, len(lease.waiting))
            yield Sample("lease_waiting_seconds", name, max(lease.waiting, default=0.0))

    health = HealthServer(
        config.health_listen,
        statuses,
        boottime,
        contact=kv.contact,
        alive=alive,
        notes=troubles,
        samples=samples,
        services=services,
    )
    for each in told:
        each.append(outside.wake)
    watchers.append(outside)
    outside.start()
    log.info("health endpoint", extra={"port": health.port})
    end = ExitStack()
    end.callback(outside.close)
    end.callback(health.close)
    return end


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _open(
    config: Config,
    kv: Kv,
    stack: ExitStack,
    state: StateDirectory,
    sealed: LiveKeyring,
    *,
    watch: bool = False,
    preview: bool = False,
    told: Callable[[], None] = lambda: None,
    advanced: Callable[[], None] = lambda: None,
    holds: Holds | None = None,
    unusable: Callable[[Mapping, RefusedError], None] | None = None,
) -> list[Mirror]:
    """Open all mappings; those whose directory cannot be mirrored are told to `unusable`. Raises RefusedError."""
    writer = Writer(
        replica=config.replica,
        host=socket.gethostname(),
        now=_now,
        new_id=lambda: secrets.token_hex(12),
    )
    tree = Tree(kv, Keys(config.store.root), writer, envelopes=sealed.envelopes, patience=config.store.timeout)
    mirrors = []
    for mapping in config.mappings:
        try:
            mirror = Mirror(
                mapping,
                tree,
                watch=watch,
                preview=preview,
                clock=boottime,
                state=state.open,
                told=told,
                advanced=advanced,
                lease=holds.view(mapping.lease) if holds and mapping.lease else None,
            )
        except RefusedError as error:
            if unusable is None:
                raise
            unusable(mapping, error)
            continue
        stack.callback(mirror.close)
        mirrors.append(mirror)
    return mirrors
