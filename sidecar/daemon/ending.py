"""The end of `run`: sends what is under way, in a time that is kept whatever hangs, and logs what was not sent."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from configstore.model.path import StorePath
from configstore.store.api import Kv
from sidecar.control.holds import Holds
from sidecar.cycle.mirror import Mirror
from sidecar.mapping import Mapping
from sidecar.reporting import logs

log = logging.getLogger(__name__)

CLOSING = 1.0
"""Seconds of `stop_timeout` that are kept for ending, once nothing more can be sent."""


def send_and_stop(patience: float, kv: Kv, mirrors: Sequence[Mirror], holds: Holds) -> bool:
    """Send what is under way, for at most `patience` seconds; returns whether all of it was sent."""
    log.info("stopping; sending what is under way")
    # Three deadlines, each for what the one before cannot end: holds and mirrors stop by themselves, then the
    # closed store fails every call that still waits, then the process ends although a thread hangs in the kernel.
    over = time.monotonic() + max(0.0, patience - CLOSING)
    _at(over, kv.close)
    _at(over + 2 * CLOSING, _give_up)
    holds.close((over - time.monotonic()) / 2)
    for mirror in mirrors:
        mirror.stop(over - time.monotonic())
    all_sent = True
    for mirror in mirrors:
        mirror.join()
        unsent = mirror.unsent()
        all_sent = all_sent and not unsent
        _log_unsent(mirror.mapping, unsent)
    return all_sent


def _log_unsent(mapping: Mapping, unsent: dict[StorePath, str]) -> None:
    message = "stopped, but this could not be sent"
    for path, reason in list(unsent.items())[: logs.NAMES]:
        log.error(message, extra={"mapping": mapping.name, "path": path or mapping.path, "reason": reason})
    if len(unsent) > logs.NAMES:
        more = f"… and {len(unsent) - logs.NAMES} more paths"
        log.error(message, extra={"mapping": mapping.name, "path": more})


def _at(moment: float, call: Callable[[], None]) -> None:
    """Call at `moment` on the monotonic clock, should the process still be there."""
    timer = threading.Timer(max(0.0, moment - time.monotonic()), call)
    timer.daemon = True
    timer.start()


def _give_up() -> None:
    """End a process that cannot end by itself, since a step of an engine hangs in the kernel."""
    log.critical("the end takes too long; what was not sent is not known: ending at once")
    logs.flush()
    os._exit(1)
