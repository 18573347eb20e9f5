"""Measures the budgets: `python -m tests.bench [--quick] [--json FILE]`, or `make bench`.

Each option for a part of it (`--help` lists them) measures that part alone: --sealing, --host and --memory are
budgets, too; --trace, --settle, --scale and --files print tables of their own.

Every latency stands beside the floor of the same run: the same client's raw put, seen by a watch in another
process, written and renamed there. Arrival is the inotify event of the rename, for the floor as for a replica.
Machines are shared and noisy: trust the ratios. Other programs are measured by `make bench-peers`, many replicas
by `make bench-scale`.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from configstore.embedded import EmbeddedEtcd
from tests.bench import files, scale
from tests.bench.commands import a_thousand_keys, measure_init, start_up
from tests.bench.host import one_host
from tests.bench.latency import a_set, floor_replica, measure_floor, put_to_file, write_to_replica
from tests.bench.measures import Bench, Figure, cpu_share
from tests.bench.memory import a_map, memory, sidecar_with_tracemalloc
from tests.bench.processes import MEMORY, keep_byte_code, resident
from tests.bench.sealing import sealing
from tests.bench.settle import torn_sets
from tests.bench.trace import print_trace
from tests.harness.waiting import wait_until


def figures(bench: Bench, *, quick: bool) -> Iterator[Figure]:
    """Measure one figure after the other."""
    floor = measure_floor(bench) * 1000
    yield Figure("floor: raw put → watch event → rename, p50", floor, "ms", "", met=True)
    bench.make_subtree("bench")
    with bench.replica("one", "bench") as (_, one), bench.replica("two", "bench") as (_, two):
        value = put_to_file(bench, one) * 1000
        yield Figure(
            "store put → file on a replica, p50", value, "ms", "≤ 1.6 × floor", value <= 1.6 * floor, floor
        )
        value = write_to_replica(bench, two, one) * 1000
        yield Figure("local write → other replica, p50", value, "ms", "≤ 2.3 × floor", value <= 2.3 * floor, floor)
        whole, mixed = (seconds * 1000 for seconds in a_set(bench, one))
        yield Figure("a set of 60 files → all on a replica, p50", whole, "ms", "≤ 20 ms", whole <= 20, floor)
        yield Figure("  of that, old and new mixed, p50", mixed, "ms", "≤ 2 ms", mixed <= 2)
    for count, budget in ((60, 0.3), (10_000, 1.5)):
        value = measure_init(bench, count)
        yield Figure(f"init, {count:,} files of 2 kB", value, "s", f"≤ {budget:g} s", value <= budget)
    value = a_thousand_keys(bench)
    yield Figure("1,000 keys of 1.7 kB imported", value, "s", "≤ 0.5 s", value <= 0.5)
    with bench.replica("idle", "thousand") as (process, directory):
        wait_until(lambda: len(os.listdir(directory)) >= 1001, 60, what="1,000 files")
        share = cpu_share(process, 5 if quick else 30)
        value = resident(process.pid)
        yield Figure("a sidecar's memory, 1,000 files", value, "MiB", "≤ 40 MiB", value <= 40)
        yield Figure("idle CPU, 1,000 files", share, "% of a core", "< 0.1 %", share < 0.1)
        seconds = start_up(bench)
        for command, budget in (("get", 0.15), ("status", 0.3)):
            value = seconds[command]
            what = f"`configstore {command}`, whole process"
            yield Figure(what, value, "s", f"≤ {budget:g} s", value <= budget, seconds["nothing"])


EVERYTHING = (
    "import configstore.cli, sidecar.daemon.commands, sidecar.reporting.health, sidecar.reporting.gauges; "
    "import configstore.store.etcd.client; "
    "configstore.cli.build_parser()"
)
"""What has its byte code before anything is measured."""


def main() -> int:
    """Print the table as it grows and return 0; 1 when a budget was missed."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--sealing", action="store_true", help="only what sealing costs")
    only.add_argument("--host", action="store_true", help="only one sidecar for a host, beside one a service")
    only.add_argument("--memory", action="store_true", help="only where a sidecar's memory goes")
    only.add_argument("--trace", action="store_true", help="only where the time of one change goes")
    only.add_argument("--settle", action="store_true", help="only which rule would close sets too soon")
    only.add_argument("--scale", action="store_true", help="only what many replicas cost; takes minutes")
    only.add_argument("--files", action="store_true", help="only what many files cost; takes minutes")
    parser.add_argument("--replicas", metavar="N,…", default="50,100,200,400", help="how many, with --scale")
    parser.add_argument(
        "--sizes", metavar="N,…", default="1000,3000,10000,30000,100000", help="how many, with --files"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--floor-replica", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--tracemalloc", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.floor_replica:
        floor_replica(*options.floor_replica)
        return 0
    if options.tracemalloc:
        sidecar_with_tracemalloc(options.tracemalloc)
    folder = Path(tempfile.mkdtemp(prefix="configstore-bench-", dir=MEMORY))
    try:
        keep_byte_code(folder / "byte-code")
        subprocess.run([sys.executable, "-c", EVERYTHING], check=True)
        return _measure(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(options: argparse.Namespace, folder: Path) -> int:
    if options.scale:
        return scale.main([int(count) for count in options.replicas.split(",")], options.json)
    if options.files:
        return files.main([int(size) for size in options.sizes.split(",")], options.json)
    if options.settle:
        for line in torn_sets(folder):
            print(line, flush=True)
        return 0
    with EmbeddedEtcd() as etcd:
        if options.trace:
            print_trace(Bench(etcd.endpoint, folder, rounds=50 if options.quick else 200))
            return 0
        return _budgets(options, etcd.endpoint, folder)


def _budgets(options: argparse.Namespace, endpoint: str, folder: Path) -> int:
    """Print the figures that have budgets, all or those of one part."""
    rounds, seconds = (50, 5) if options.quick else (300, 30)
    bench = Bench(endpoint, folder, rounds=rounds)
    if options.memory:
        if not options.quick:
            a_map(bench)
        parts = [memory(bench, quick=options.quick)]
    elif options.sealing:
        parts = [sealing(endpoint, folder, rounds=rounds // 50)]
    elif options.host:
        parts = [one_host(endpoint, folder, seconds=seconds)]
    else:
        parts = [
            figures(bench, quick=options.quick),
            sealing(endpoint, folder, rounds=rounds // 50),
            one_host(endpoint, folder, seconds=seconds),
        ]
    measured = []
    print(f"{'figure':<46}{'value':>16}  {'ratio':>7}  budget")
    for figure in itertools.chain.from_iterable(parts):
        ratio = f"{figure.ratio:.2f} ×" if figure.ratio else ""
        verdict = "" if not figure.budget else "met" if figure.met else "MISSED"
        value = f"{figure.value:.2f} {figure.unit}"
        print(f"{figure.what:<46}{value:>16}  {ratio:>7}  {figure.budget} {verdict}", flush=True)
        measured.append(figure)
    if options.json:
        Path(options.json).write_text(
            json.dumps([asdict(each) | {"ratio": each.ratio} for each in measured], indent=1) + "\n"
        )
    return 0 if all(figure.met for figure in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
