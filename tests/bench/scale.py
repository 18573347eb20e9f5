"""What many replicas cost on one etcd: `python -m tests.bench --scale [--replicas 50,100,200,400]`.

Real sidecar processes, forked (`farm`), each with its own directories in memory. For each number of them, on a
fresh etcd: how long until all are ready; how soon a change is everywhere, and what it costs each; what they cost
at rest; what happens when etcd is killed under all of them; and a restart of all, in batches. CPU is that of
processes, by the scheduler's clock, so it tells the same beside other load; seconds are those of this machine.
"""

import http.client
import json
import os
import secrets
import shutil
import statistics
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

import inotify_simple
from inotify_simple import flags

from configstore.embedded import EmbeddedEtcd, free_ports
from configstore.errors import StoreError
from tests.bench.farm import Farm, room_for
from tests.bench.measures import Bench, Figure
from tests.bench.processes import MEMORY, cpu, resident
from tests.harness.waiting import wait_until

SUBTREE = "scale"
FILES = 20
"""Files of 2 kB in the mapping."""

CHANGES = 8
"""Changes whose cost is measured."""

APART = 3.0
"""Seconds from one change to the next, so that none profits from the one before."""

AFTERMATH = 7.0
"""Seconds after which all that a change has others do is done: figures are looked at 5 s after the last look."""

REST = 40.0
"""Seconds of rest that are measured: two renewals of each lease."""

BATCHES = 10
"""Into how many parts all are restarted, one after the other."""

PATIENCE = 300.0
"""Seconds for anything here."""


class Meter:
    """What an etcd has used: its CPU, memory and requests. `peak` follows it in a thread."""

    def __init__(self, etcd: EmbeddedEtcd, metrics_port: int) -> None:
        self._etcd = etcd
        self._port = metrics_port

    def cpu(self) -> float:
        """Return the seconds of CPU that etcd has used."""
        return cpu(self._etcd.process.pid)

    def memory(self) -> float:
        """Return etcd's RSS in MiB."""
        return resident(self._etcd.process.pid)

    def metrics(self) -> dict[str, float]:
        """Return etcd's own counters, by the name with its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def counts(self) -> Counter[str]:
        """Return the requests that etcd began, by method, and the keys that were put."""
        found: Counter[str] = Counter()
        for name, value in self.metrics().items():
            if name.startswith("grpc_server_started_total"):
                found[name.partition('grpc_method="')[2].partition('"')[0]] += int(value)
            if name in _COUNTERS:
                found[_COUNTERS[name]] += int(value)
            if name.startswith("grpc_server_msg_sent_total") and 'grpc_method="Watch"' in name:
                found["answers of watches"] += int(value)
        return found


_COUNTERS = {
    "etcd_mvcc_put_total": "keys put",
    "etcd_debugging_mvcc_put_total": "keys put",
}


class Peak(threading.Thread):
    """Follows an etcd: the largest share of a core within a fifth of a second, and the largest memory."""

    def __init__(self, etcd: EmbeddedEtcd) -> None:
        super().__init__(daemon=True)
        self.share = self.mib = 0.0
        self._pid = etcd.process.pid
        self._over = threading.Event()

    def run(self) -> None:
        """Look until `end`."""
        used, at = cpu(self._pid), time.monotonic()
        while not self._over.wait(0.2):
            with suppress(OSError):
                now, when = cpu(self._pid), time.monotonic()
                self.share = max(self.share, (now - used) / (when - at))
                self.mib = max(self.mib, resident(self._pid))
                used, at = now, when

    def end(self) -> Self:
        """Stop looking."""
        self._over.set()
        self.join()
        return self


class Scene:
    """An etcd, so many sidecars, and who sees what arrives."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.stack = ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="configstore-scale-", dir=MEMORY))
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            ports = free_ports(3 + self.count)
            self.health = ports[3:]
            self.etcd = EmbeddedEtcd(folder=self.folder / "etcd", ports=(ports[0], ports[1], ports[2]))
            self.stack.callback(self.etcd.close)
            self.etcd.start()
            self.meter = Meter(self.etcd, ports[2])
            self.bench = Bench(self.etcd.endpoint, self.folder, rounds=1)
            self.stack.callback(self.bench.kv.close)
            self.bench.make_subtree(SUBTREE)
            self.bench.put({f"{SUBTREE}/{number}": secrets.token_bytes(2048) for number in range(FILES)})
            self.farm = self.stack.enter_context(Farm())
            self.arrivals = Everywhere()
            self.stack.callback(self.arrivals.close)
            for number in range(self.count):
                self._prepare(number)
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _prepare(self, number: int) -> None:
        directory, state = self.folder / f"{number}", self.folder / f"{number}-state"
        for each in (directory, state):
            each.mkdir(mode=0o700)
        (self.folder / f"{number}.toml").write_text(
            f'[store]\nendpoints = ["{self.etcd.endpoint}"]\n[state]\ndirectory = "{state}"\n'
            f'[control]\nsocket = ""\n[health]\nlisten = "127.0.0.1:{self.health[number]}"\n'
            f'[log]\nlevel = "warning"\n[[mapping]]\nname = "{SUBTREE}"\npath = "{directory}"\n'
        )
        self.arrivals.add(directory)

    def start(self, numbers: Iterable[int]) -> None:
        """Start sidecars."""
        for number in numbers:
            self.farm.start(number, self.folder / f"{number}.toml", self.folder / f"{number}.log")

    def wait_ready(self, numbers: Iterable[int]) -> None:
        """Wait until sidecars say that they are ready."""
        waiting = list(numbers)
        late = time.monotonic() + PATIENCE
        while waiting:
            died = self.farm.died()
            if died or time.monotonic() > late:
                words = {number: _tail(self.folder / f"{number}.log") for number in (died or waiting)[:3]}
                raise SystemExit(f"bench: {len(waiting)} sidecars are not ready, {len(died)} have ended: {words}")
            while waiting and _is_ready(self.health[waiting[-1]]):
                waiting.pop()
            time.sleep(0.05)

    def used(self) -> list[float]:
        """Return the seconds of CPU that each sidecar has used."""
        return [cpu(pid) for pid in self.farm.pids.values()]

    def change(self) -> tuple[float, float]:
        """Make a change, and return the seconds until half of the directories, and all of them, have it."""
        name = f"change-{secrets.token_hex(4)}"
        path = f"{SUBTREE}/{name}"
        start = time.perf_counter()
        self.bench.put({path: secrets.token_bytes(2048)})
        times = self.arrivals.wait(name, self.count)
        return times[(len(times) - 1) // 2] - start, times[-1] - start


class Everywhere:
    """Waits for a file in every directory."""

    def __init__(self) -> None:
        self._inotify = inotify_simple.INotify()
        self._directories: dict[int, Path] = {}

    def add(self, directory: Path) -> None:
        """Watch one more directory."""
        self._directories[self._inotify.add_watch(directory, flags.MOVED_TO)] = directory

    def wait(self, name: str, count: int) -> list[float]:
        """Return when the file came to each directory, on the perf counter, in this order. Raises SystemExit."""
        came: dict[int, float] = {}
        late = time.monotonic() + PATIENCE
        while len(came) < count:
            if time.monotonic() > late:
                raise SystemExit(f"bench: {name} came to {len(came)} of {count} directories")
            for event in self._inotify.read(timeout=500):
                if event.name == name:
                    came.setdefault(event.wd, time.perf_counter())
        return sorted(came.values())

    def close(self) -> None:
        """End it."""
        self._inotify.close()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-300:]
    except OSError:
        return ""


def figures(count: int) -> Iterator[Figure]:
    """Measure one figure after the other, for so many replicas."""
    with Scene(count) as scene:
        meter = scene.meter
        yield from _ready(scene, *_alone(meter))


def _alone(meter: Meter) -> tuple[float, float]:
    """Return what an etcd costs without replicas: its share of a core, and its memory in MiB."""
    before, start = meter.cpu(), time.monotonic()
    time.sleep(10)
    return (meter.cpu() - before) / (time.monotonic() - start), meter.memory()


def _ready(scene: Scene, share_alone: float, mib_alone: float) -> Iterator[Figure]:
    count, meter = scene.count, scene.meter
    etcd_before, start = meter.cpu(), time.monotonic()
    peak = Peak(scene.etcd)
    peak.start()
    scene.start(range(count))
    scene.wait_ready(range(count))
    seconds = time.monotonic() - start
    peak.end()
    yield Figure("all ready", seconds, "s", "≤ 60 s", seconds <= 60)
    yield Figure(
        "  CPU of a sidecar until then, imports apart", 1000 * statistics.mean(scene.used()), "ms", "", met=True
    )
    yield Figure("  etcd's CPU for each", 1000 * (meter.cpu() - etcd_before) / count, "ms", "", met=True)
    yield from _requests(meter.counts(), count, "  etcd's requests for each")
    _until_quiet(scene)
    idle, share, at_rest = _rest(scene)
    scene.change()
    time.sleep(AFTERMATH)
    yield from _changes(scene, idle, share)
    yield Figure("idle CPU of a sidecar", 100 * idle, "% of a core", "< 0.1 %", idle < 0.001)
    pids = scene.farm.pids.values()
    rss, pss = (statistics.median(resident(pid, field) for pid in pids) for field in ("Rss", "Pss"))
    yield Figure("a sidecar's RSS, the imports shared", rss, "MiB", "", met=True)
    yield Figure("  PSS, likewise", pss, "MiB", "", met=True)
    each = 100 * (share - share_alone) / count
    yield Figure("etcd's CPU for an idle replica", each, "% of a core", "≤ 0.012 %", each <= 0.012)
    mib = (meter.memory() - mib_alone) / count
    yield Figure("etcd's memory for an idle replica", mib, "MiB", "≤ 0.25 MiB", mib <= 0.25)
    yield from _requests(at_rest, count * REST / 60, "  etcd's requests for one in a minute")
    yield from _herd(scene)
    yield from _rolling(scene)


def _requests(counts: Counter[str], by: float, what: str) -> Iterator[Figure]:
    """Tell how many requests there were, and which."""
    asked = {name: count for name, count in counts.items() if name[0].isupper() and count > 0}
    which = ", ".join(f"{name} {count / by:.2f}" for name, count in Counter(asked).most_common())
    yield Figure(what, sum(asked.values()) / by, which and f"({which})", "", met=True)
    yield Figure(f"{what}: keys put", counts["keys put"] / by, "", "", met=True)


def _until_quiet(scene: Scene) -> None:
    """Wait until the aftermath of the start is over: reports, enrolment, the first renewals."""
    time.sleep(AFTERMATH)

    def quiet() -> bool:
        before = sum(scene.used())
        time.sleep(2)
        return (sum(scene.used()) - before) / 2 / scene.count < 0.004

    wait_until(quiet, 120, what="the start's aftermath to be over")


def _rest(scene: Scene) -> tuple[float, float, Counter[str]]:
    """Return the median share of a core of an idle sidecar, that of etcd, and etcd's requests meanwhile."""
    before, etcd, counts, start = scene.used(), scene.meter.cpu(), scene.meter.counts(), time.monotonic()
    time.sleep(REST)
    took = time.monotonic() - start
    shares = [(now - then) / took for now, then in zip(scene.used(), before, strict=True)]
    counted = scene.meter.counts()
    counted.subtract(counts)
    return statistics.median(shares), (scene.meter.cpu() - etcd) / took, counted


def _changes(scene: Scene, idle: float, share: float) -> Iterator[Figure]:
    """Measure how soon a change is everywhere, and what it costs."""
    before, etcd, counts, start = scene.used(), scene.meter.cpu(), scene.meter.counts(), time.monotonic()
    half, whole = [], []
    for _ in range(CHANGES):
        next_at = time.monotonic() + APART
        one, other = scene.change()
        half.append(one)
        whole.append(other)
        time.sleep(max(0.0, next_at - time.monotonic()))
    time.sleep(AFTERMATH)
    took = time.monotonic() - start
    each = [1000 * (now - then - idle * took) / CHANGES for now, then in zip(scene.used(), before, strict=True)]
    yield Figure("a change in half of the directories, p50", 1000 * statistics.median(half), "ms", "", met=True)
    yield Figure("  in all of them, p50", 1000 * statistics.median(whole), "ms", "", met=True)
    yield Figure("  in all of them, the slowest", 1000 * max(whole), "ms", "", met=True)
    value = statistics.median(each)
    yield Figure("  CPU of a sidecar for it, idle apart", value, "ms", "≤ 1.5 ms", value <= 1.5)
    yield Figure(
        "  CPU of etcd for it, for each",
        1000 * (scene.meter.cpu() - etcd - share * took) / CHANGES / scene.count,
        "ms",
        "",
        met=True,
    )
    counted = scene.meter.counts()
    counted.subtract(counts)
    yield from _requests(counted, CHANGES * scene.count, "  etcd's requests for it, for each, rest included")


def _herd(scene: Scene) -> Iterator[Figure]:
    """Kill etcd under all of them, and start it again."""
    scene.etcd.kill()
    time.sleep(3)
    used, start = sum(scene.used()), time.monotonic()
    scene.etcd.start()
    peak = Peak(scene.etcd)
    peak.start()
    up = time.monotonic() - start
    while True:
        try:
            scene.change()
            break
        except StoreError:
            if time.monotonic() - start > PATIENCE:
                raise
    there = time.monotonic() - start
    scene.wait_ready(range(scene.count))
    time.sleep(max(0.0, 10 - (time.monotonic() - start)))
    counts = scene.meter.counts()
    peak.end()
    yield Figure("etcd killed and started again: it answers", up, "s", "", met=True)
    yield Figure("  a change is everywhere", there, "s", "", met=True)
    yield Figure("  etcd's largest share of a core meanwhile", 100 * peak.share, "%", "", met=True)
    yield Figure("  its largest memory", peak.mib, "MiB", "", met=True)
    yield Figure("  CPU of a sidecar in 10 s", 1000 * (sum(scene.used()) - used) / scene.count, "ms", "", met=True)
    yield Figure("  etcd's CPU in 10 s, for each", 1000 * scene.meter.cpu() / scene.count, "ms", "", met=True)
    yield from _requests(counts, scene.count, "  its requests in 10 s, for each")


def _rolling(scene: Scene) -> Iterator[Figure]:
    """Restart all of them, one batch after the other."""
    before, start = scene.meter.cpu(), time.monotonic()
    counts = scene.meter.counts()
    size = max(1, scene.count // BATCHES)
    slowest = 0.0
    for first in range(0, scene.count, size):
        batch = range(first, min(scene.count, first + size))
        begun = time.monotonic()
        scene.farm.stop(batch)
        scene.start(batch)
        scene.wait_ready(batch)
        slowest = max(slowest, time.monotonic() - begun)
    took = time.monotonic() - start
    _, whole = scene.change()
    counted = scene.meter.counts()
    counted.subtract(counts)
    yield Figure(f"all restarted in {BATCHES} batches", took, "s", "", met=True)
    yield Figure("  the slowest batch", slowest, "s", "", met=True)
    yield Figure("  etcd's CPU for each", 1000 * (scene.meter.cpu() - before) / scene.count, "ms", "", met=True)
    yield Figure("  a change everywhere, then", 1000 * whole, "ms", "", met=True)
    yield from _requests(counted, scene.count, "  etcd's requests for each")


def main(counts: Sequence[int], file: str | None) -> int:
    """Print a table for each number of replicas; returns 1 when a budget was missed by the largest."""
    measured: dict[int, list[Figure]] = {}
    with room_for(max(counts)):
        for count in counts:
            print(f"{count} replicas on one etcd; load average {os.getloadavg()[0]:.1f} before", flush=True)
            measured[count] = []
            for figure in figures(count):
                verdict = "" if not figure.budget else "met" if figure.met else "MISSED"
                print(
                    f"  {figure.what:<60}{figure.value:>10.3f} {figure.unit}  {figure.budget} {verdict}".rstrip(),
                    flush=True,
                )
                measured[count].append(figure)
    if file:
        table = {str(count): [asdict(each) for each in found] for count, found in measured.items()}
        Path(file).write_text(json.dumps(table, indent=1) + "\n")
    return 0 if all(figure.met for figure in measured[counts[-1]]) else 1
