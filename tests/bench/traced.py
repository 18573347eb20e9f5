"""A sidecar that says when it comes by: `python -m tests.bench.traced FILE run --config …`.

The product has no hook for that and pays nothing. A few of its methods are wrapped here before it starts, so one
that is renamed or gone ends this with an AttributeError. Stamps are readings of the monotonic clock, which all
processes of a host share; they are kept in memory and written to FILE at the end.
"""

import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configstore.store.etcd.client import EtcdKv
from sidecar.__main__ import main
from sidecar.cycle.engine import Engine
from sidecar.cycle.mirror import Mirror
from sidecar.local import set_steps
from sidecar.local.inotify import InotifyWatch
from sidecar.local.side import LocalSide
from sidecar.local.stage import Stage
from sidecar.remote.side import RemoteSide
from sidecar.remote.watch import RemoteWatch
from sidecar.state.baseline import Baseline

Stamp = tuple[str, float, int, float]
"""A step, when it was, its thread, and the CPU seconds that this had used by then."""

BEGIN, END, TRUE = "begin", "end", "end, if it returned something true"

POINTS = (
    (InotifyWatch, "_take_events", TRUE, "inotify"),
    (RemoteWatch, "_put", BEGIN, "watch"),
    (Mirror, "_cycle", BEGIN, "wake"),
    (RemoteSide, "absorb", END, "absorbed"),
    (LocalSide, "look", END, "scanned"),
    (Engine, "_take_in_and_plan", END, "planned"),
    (Baseline, "sending", END, "noted as sent"),
    (EtcdKv, "txn", BEGIN, "txn sent"),
    (EtcdKv, "txn", END, "answer"),
    (set_steps.SetSteps, "make_ready", END, "staged"),
    (set_steps.SetSteps, "_note_intents", END, "journal"),
    (Stage, "move", END, "renamed"),
    (set_steps.SetSteps, "put_in_place", END, "judged"),
    (Engine, "_note", END, "noted"),
    (Mirror, "_cycle", END, "cycle over"),
)
"""Where a stamp is made: class, method, when, and what it is called."""


def stamped(method: Callable[..., Any], when: str, step: str, stamps: list[Stamp]) -> Callable[..., Any]:
    """Return a method that leaves a stamp."""

    def stamp() -> None:
        stamps.append((step, time.monotonic(), threading.get_ident(), time.thread_time()))

    @functools.wraps(method)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if when == BEGIN:
            stamp()
        found = method(*arguments, **named)
        if when == END or (when == TRUE and found):
            stamp()
        return found

    return wrapped


def run(file: Path, arguments: list[str]) -> int:
    """Run a sidecar and write its stamps."""
    stamps: list[Stamp] = []
    for owner, name, when, step in POINTS:
        setattr(owner, name, stamped(getattr(owner, name), when, step, stamps))
    try:
        return main(arguments)
    finally:
        file.write_text(json.dumps(stamps))


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
