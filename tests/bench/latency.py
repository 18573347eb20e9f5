"""How long a change travels, beside the floor: the same client's raw put, watched, written and renamed there."""

import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from configstore.model.path import StorePath
from configstore.settings import StoreSettings
from configstore.store.api import ModRevision, Put
from configstore.store.connect import connect
from configstore.store.values import Write
from tests.bench.measures import RETENTION, Arrivals, Bench, a_file
from tests.harness.waiting import wait_until

GLANCE = 50e-6
"""Seconds between two looks at whether a file was replaced; the kernel adds some 50 µs."""


def floor_replica(endpoint: str, key: str, directory: str, stamps: str = "") -> None:
    """Run the floor's other side: watch one key range, write and rename each value. Ends when killed.

    stamps: a file that gets a line for each value: its name, when it was seen, and when it was renamed.
    """
    prefix = key.encode()
    with connect(StoreSettings(endpoints=(endpoint,))) as kv:
        revision = kv.range(prefix).revision
        for batch in kv.watch(prefix, prefix + b"\xff", start_revision=revision + 1):
            seen = time.monotonic()
            for event in batch.events:
                name = event.item.key[len(prefix) :].decode()
                temporary = f"{directory}/.{name}"
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(event.item.value)
                os.rename(temporary, f"{directory}/{name}")
                if stamps:
                    with open(stamps, "a") as told:
                        told.write(f"{name} {seen} {time.monotonic()}\n")


def measure_floor(bench: Bench) -> float:
    """Return the median seconds of raw put → watch event → rename in another process."""
    return statistics.median(arrived - begun for begun, _, arrived in floor_rounds(bench))


def floor_rounds(bench: Bench, stamps: str = "") -> list[tuple[float, float, float]]:
    """Return when each raw put began, was answered, and was there as a file in another process.

    stamps: as `floor_replica` has it.
    """
    directory = bench.folder / "floor"
    directory.mkdir()
    command = [sys.executable, "-m", "tests.bench", "--floor-replica", bench.endpoint, "/floor/", str(directory)]
    command += [stamps] if stamps else []
    process = subprocess.Popen(command)
    try:
        arrivals = Arrivals(directory)
        ready = 0

        def answers() -> bool:
            nonlocal ready
            ready += 1
            bench.kv.txn((ModRevision(b"/floor/r%d" % ready, 0),), (Put(b"/floor/r%d" % ready, b""),))
            return any(name.startswith("r") for name in os.listdir(directory))

        wait_until(answers, 30, what="the floor's watcher")
        samples = []
        for number in range(bench.rounds):
            key = b"/floor/%d" % number
            content = secrets.token_bytes(2048)
            start = time.perf_counter()
            bench.kv.txn((ModRevision(key, 0),), (Put(key, content),))
            answered = time.perf_counter()
            samples.append((start, answered, arrivals.wait({str(number)})))
        return samples
    finally:
        process.kill()
        process.wait()


def put_to_file(bench: Bench, directory: Path) -> float:
    """Return the median seconds from a guarded put of an existing path to its file on a replica."""
    arrivals = Arrivals(directory)
    path = StorePath("bench/put")
    bench.put({path: b"0"})
    arrivals.wait({"put"})
    samples = []
    for _ in range(bench.rounds):
        content = secrets.token_bytes(2048)
        found = bench.tree.read(path)
        start = time.perf_counter()
        write = Write(
            path=path,
            entry=a_file(content),
            content=content,
            expected=found.mod_revision if found else 0,
            previous=found,
        )
        bench.tree.commit([write], retention=RETENTION)
        samples.append(arrivals.wait({"put"}) - start)
    return statistics.median(samples)


def write_to_replica(bench: Bench, here: Path, there: Path) -> float:
    """Return the median seconds from a rename in one replica to the file on the other one."""
    arrivals = Arrivals(there)
    samples = []
    for _ in range(bench.rounds):
        (bench.folder / "new").write_bytes(secrets.token_bytes(2048))
        start = time.perf_counter()
        os.rename(bench.folder / "new", here / "written")
        samples.append(arrivals.wait({"written"}) - start)
    return statistics.median(samples)


def a_set(bench: Bench, directory: Path) -> tuple[float, float]:
    """Return the median seconds until a set of 60 is on a replica, and for which old and new are mixed.

    Nobody waits for inotify's events meanwhile: who is woken by each rename takes the sidecar's core away from it.
    """
    names = [f"set-{number:02d}" for number in range(60)]
    bench.put({f"bench/{name}": b"0" for name in names})
    arrivals = Arrivals(directory)
    wait_until((directory / names[-1]).exists)
    whole, mixed = [], []
    first, last = str(directory / names[0]), str(directory / names[-1])
    for _ in range(max(5, bench.rounds // 10)):
        contents = {f"bench/{name}": secrets.token_bytes(2048) for name in names}
        listing = bench.tree.list(StorePath("bench")).records
        writes = [
            Write(path=StorePath(path), entry=a_file(content), content=content,
                  expected=listing[StorePath(path)].mod_revision)
            for path, content in contents.items()
        ]  # fmt: skip
        window: list[tuple[float, float]] = []
        watcher = threading.Thread(target=_time_mixed, args=(first, last, window))
        watcher.start()
        start = time.perf_counter()
        bench.tree.commit(writes, retention=RETENTION)
        watcher.join()
        begun, over = window[0]
        whole.append(over - start)
        mixed.append(over - begun)
        arrivals.wait(set(names))
    return statistics.median(whole), statistics.median(mixed)


def _time_mixed(first: str, last: str, window: list[tuple[float, float]]) -> None:
    """Measure from when the first file of a set is new until the last one is, to some 0.1 ms.

    It pauses between two looks: else it takes a processor and the interpreter's lock from the rest.
    """
    old_first, old_last = os.stat(first).st_ino, os.stat(last).st_ino
    while os.stat(first).st_ino == old_first:
        time.sleep(GLANCE)
    start = time.perf_counter()
    while os.stat(last).st_ino == old_last:
        time.sleep(GLANCE)
    window.append((start, time.perf_counter()))
