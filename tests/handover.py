"""Measures how soon the next one holds a lease: `python -m tests.handover`, or `make handover`.

Two sidecars on a cluster of three etcd members. The holder is ended in each way there is; the time is
from then until its successor runs, in seconds and as a share of the TTL. CONFIGSTORE_HANDOVER_ROUNDS sets
how often each is done. Ends with 1 when a successor never followed, or later than after LATEST TTLs.
"""

import contextlib
import math
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from configstore.embedded import EmbeddedEtcd
from configstore.model.keys import Keys
from configstore.store.lease_queue import queue
from configstore.store.store import Store
from tests.harness.named import make_root
from tests.harness.replica import Replica
from tests.harness.servers import cluster, connect, leader
from tests.harness.waiting import freeze, wait_until

TTL = 5
ROUNDS = int(os.environ.get("CONFIGSTORE_HANDOVER_ROUNDS", "3"))
LATEST = 2.0


class Scene:
    """A holder, who waits at a gate, and a successor, who says when it began."""

    def __init__(self, base: Path, members: list[EmbeddedEtcd], name: str) -> None:
        base.mkdir()
        self.members, self.name, self.gate = members, name, base / "gate"
        endpoints = [each.endpoint for each in members]
        policy = f'lease = "{name}"\nsettle = "10ms"'
        self.one, self.two = (Replica(each, base, endpoints, "/configstore", policy) for each in ("one", "two"))

    def __enter__(self) -> Self:
        os.mkfifo(self.gate)
        for each in (self.one, self.two):
            each.start().ready()
        hold = ["hold", self.name, "--ttl", str(TTL), "--"]
        self.client = self.one.client(*hold, "sh", "-c", f"cat {self.gate}; cat {self.gate}")
        wait_until(self.runs, 30, what="the holder's command to run")
        self.next = self.two.client(*hold, "date", "+%s.%N")
        wait_until(lambda: self.contenders() == 2, 30, what="the successor to queue up")
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.client, self.next, self.one.process, self.two.process):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(20)
        for each in (self.one, self.two):
            each.__exit__()

    def runs(self) -> bool:
        """Tell whether the holder's command waits at the gate."""
        try:
            os.close(os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    def contenders(self) -> int:
        """Return how many are in the queue."""
        with connect(*(each.endpoint for each in self.members)) as kv:
            return len(queue(Store(kv, Keys()), self.name))

    def followed(self) -> float:
        """Return the time at which the successor began."""
        out, err = self.next.communicate(timeout=60)
        if self.next.returncode:
            raise AssertionError(f"the successor failed: {err}")
        return float(out)

    def open_gate(self) -> None:
        """Let the holder's command end. Raises AssertionError when it does not wait any more."""
        try:
            descriptor = os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK)  # else it would block without a reader
        except OSError as error:
            raise AssertionError(f"the holder ended early: {self.client.communicate(timeout=60)[1]}") from error
        os.close(descriptor)

    @contextlib.contextmanager
    def end(self, way: str) -> Iterator[None]:
        """End the holder in one of WAYS; what was done to etcd is mended afterwards."""
        with contextlib.ExitStack() as mend:
            if "member" in way:
                member = wait_until(lambda: leader(self.members), 30)
                if "frozen" in way:
                    freeze(member.process)
                    mend.callback(member.process.send_signal, signal.SIGCONT)
                else:
                    member.kill()
                    mend.callback(member.wait_healthy, time.monotonic() + 60)
                    mend.callback(member.start, wait=False)
            number = signal.SIGSTOP if "SIGSTOP" in way else signal.SIGKILL
            if "client" in way:
                self.client.send_signal(number)
            if "sidecar" in way:
                self.one.process.send_signal(number)
            if "released" in way:
                self.open_gate()
            yield


WAYS = [
    "released",
    "client: kill -9",
    "sidecar: kill -9",
    "client and sidecar: kill -9",
    "client: SIGSTOP",
    "sidecar: SIGSTOP",
    "client and sidecar: SIGSTOP",
    "released, etcd's leading member killed just before",
    "released, etcd's leading member frozen just before",
    "client and sidecar: kill -9, etcd's leading member killed just before",
]


def main() -> int:
    """Print a table; returns the exit code."""
    print(f"TTL {TTL} s: of so many rounds followed; seconds until the successor ran (median, longest; in TTLs)")
    code = 0
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder) / "cluster") as members:
        with connect(*(each.endpoint for each in members)) as kv:
            make_root(kv)
        for number, way in enumerate(WAYS):
            took = []
            for turn in range(ROUNDS):
                with Scene(Path(folder) / f"{number}-{turn}", members, f"job{number}-{turn}") as scene:
                    begun = time.time()
                    try:
                        with scene.end(way):
                            took.append(scene.followed() - begun)
                    except AssertionError as failure:
                        print(f"{way}: {failure}", flush=True)
            middle, longest = (statistics.median(took), max(took)) if took else (math.inf, math.inf)
            code |= len(took) < ROUNDS or longest > LATEST * TTL
            figures = f"{middle:6.2f} {longest:6.2f} {middle / TTL:6.2f} {longest / TTL:6.2f}"
            print(f"{way:70} {len(took)}/{ROUNDS} {figures}", flush=True)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
