"""What many files in one mapping cost: `python -m tests.bench --files [--sizes 1000,3000,…]`.

For each number of paths: what a sidecar does with all of them, by CPU time, and with one that changed among them.
Beside each figure stands the exponent with which it grew from the number before: 1 is in proportion, 0 no growth.
"""

import json
import math
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from configstore.embedded import EmbeddedEtcd
from configstore.model.path import StorePath
from configstore.model.record import Entry, Kind
from configstore.store.subtree_revisions import revisions_below
from configstore.store.values import Write
from sidecar.config.settings import load_config
from sidecar.cycle import engine as cycle
from sidecar.cycle.mirror import Mirror
from sidecar.remote.watch import RemoteOnce
from tests.bench.measures import RETENTION, Arrivals, Bench, a_file
from tests.bench.processes import MEMORY, cpu, resident
from tests.harness.waiting import wait_until

SIZE = 200
"""Bytes of a file: it is the number that counts."""

A_DIRECTORY = 100
"""Files of a directory."""

AT_ONCE = 1000
"""Files that are written to the store at once."""

CHANGES = 10
"""Changes to one file among all."""

PATIENCE = 600.0
"""Seconds for anything here."""

Figures = dict[str, float]


def _fill(bench: Bench, subtree: str, count: int) -> Figures:
    """Write the files to the store; returns what that takes."""
    bench.make_subtree(subtree)
    started = time.process_time()
    for first in range(0, count, AT_ONCE):
        writes = []
        for number in range(first, min(count, first + AT_ONCE)):
            if number % A_DIRECTORY == 0:
                above = StorePath(f"{subtree}/d{number // A_DIRECTORY}")
                writes.append(Write(path=above, entry=Entry(kind=Kind.DIR, mode=0o755)))
            content = secrets.token_bytes(SIZE)
            path = StorePath(f"{subtree}/d{number // A_DIRECTORY}/{number}")
            writes.append(Write(path=path, entry=a_file(content), content=content))
        bench.tree.commit(writes, retention=RETENTION)
    return {"written to the store, s": time.process_time() - started}


def _init(file: Path) -> Figures:
    """Return what `init` takes, as a process."""
    process = subprocess.Popen([sys.executable, "-m", "sidecar", "init", "--config", str(file)])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench: init ended with {process.returncode}")
    return {"init, s": used.ru_utime + used.ru_stime, "  its largest memory, MiB": used.ru_maxrss / 1024}


def _timed(into: Figures, what: str, action: Callable[..., Any]) -> Callable[..., Any]:
    """Return an action whose CPU time is counted."""

    def counted(*arguments: Any, **options: Any) -> Any:
        started = time.process_time()
        try:
            return action(*arguments, **options)
        finally:
            into[what] = into.get(what, 0.0) + time.process_time() - started

    return counted


def _cycle(bench: Bench, file: Path) -> Figures:
    """Return what the steps of a cycle over everything take, in this process: all is in agreement."""
    found: Figures = {}
    config = load_config(file=str(file), environ={}, options={})
    (mapping,) = config.mappings
    started = time.process_time()
    feed = RemoteOnce(bench.tree, mapping, lambda: 0)
    mirror = Mirror(mapping, bench.tree, preview=True, feed=feed)
    found["opened, baseline read, s"] = time.process_time() - started
    engine = mirror.engine
    names: list[tuple[Any, str, str]] = [
        (feed, "drain", "listed, s"),
        (engine.remote, "absorb", "listed and taken in, s"),
        (engine.local, "refresh", "scanned, every file read, s"),
        (cycle, "make_plan", "planned, s"),
    ]
    for thing, name, what in names:
        setattr(thing, name, _timed(found, what, getattr(thing, name)))
    plan = engine.preview()
    if plan.pull or plan.push:
        raise SystemExit(f"bench: {len(plan.pull)} to pull and {len(plan.push)} to push after init")
    again: Figures = {}
    engine.local.refresh = _timed(again, "scanned again, s", engine.local.refresh)  # type: ignore[method-assign]
    engine.local.refresh(flush=True)
    mirror.close()
    _timed(again, "compared with the store, s", revisions_below)(bench.tree, mapping.store)
    return found | again


def _run(bench: Bench, subtree: str, file: Path, directory: Path) -> Figures:
    """Return what a running sidecar takes to begin, and for one change among all files."""
    process = subprocess.Popen([sys.executable, "-m", "sidecar", "run", "--config", str(file)])
    try:
        bench.make_subtree(f"{subtree}/here")  # a change lists its directory, so that one must not grow
        bench.put({f"{subtree}/here/one": b""})
        wait_until((directory / "here/one").exists, PATIENCE, what="the sidecar to be ready")
        begun = cpu(process.pid)
        arrivals = Arrivals(directory / "here")

        def quiet() -> bool:
            before = cpu(process.pid)
            time.sleep(2)
            return cpu(process.pid) - before < 0.02

        wait_until(quiet, PATIENCE, what="the start's aftermath to be over")
        before = cpu(process.pid)
        for _ in range(CHANGES):
            bench.put({f"{subtree}/here/one": secrets.token_bytes(SIZE)})
            arrivals.wait({"one"})
            time.sleep(0.5)
        used = cpu(process.pid) - before
        return {
            "run: until ready, s": begun,
            "  its memory then, MiB": resident(process.pid),
            "  a change, ms": 1000 * used / CHANGES,
        }
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _measure(bench: Bench, count: int) -> Figures:
    """Measure everything for so many files."""
    subtree = f"files{count}"
    found = _fill(bench, subtree, count)
    file, directory = bench.settings(subtree, subtree)
    found |= _init(file)
    found |= _cycle(bench, file)
    found |= _run(bench, subtree, file, directory)
    shutil.rmtree(directory)
    return found


def _exponents(sizes: Sequence[int], values: Sequence[float]) -> Iterator[str]:
    """Yield the exponent of the growth from each size to the next."""
    yield ""
    for (small, less), (large, more) in zip(
        zip(sizes, values, strict=True), zip(sizes[1:], values[1:], strict=True), strict=False
    ):
        yield f"{math.log(more / less) / math.log(large / small):.2f}" if less > 0 and more > 0 else "-"


def main(sizes: Sequence[int], file: str | None) -> int:
    """Print the table; returns 0."""
    folder = Path(tempfile.mkdtemp(prefix="configstore-files-", dir=MEMORY))
    measured: dict[int, Figures] = {}
    try:
        arguments = [f"--quota-backend-bytes={4 << 30}"]
        with EmbeddedEtcd(folder=folder / "etcd", arguments=arguments) as etcd:
            bench = Bench(etcd.endpoint, folder, rounds=1)
            for size in sizes:
                measured[size] = _measure(bench, size)
                print(f"{size} files: measured", file=sys.stderr, flush=True)
            bench.kv.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{'CPU time, or what is said':<32}" + "".join(f"{f'{size:,} files':>18}" for size in sizes))
    for what in measured[sizes[0]]:
        values = [measured[size][what] for size in sizes]
        cells = (
            f"{value:.3f} {f'^{exponent}' if exponent else '':>7}"
            for value, exponent in zip(values, _exponents(sizes, values), strict=True)
        )
        print(f"{what:<32}" + "".join(f"{cell:>18}" for cell in cells))
    if file:
        Path(file).write_text(json.dumps(measured, indent=1) + "\n")
    return 0
