"""Measures configstore beside other programs: `python -m tests.bench.peers`, or `make bench-peers`.

All run at the same time on this machine, and are measured by turns, so that whatever else it does befalls all.
Each mirrors a directory of one "host" to another's, over loopback. tests/get-peers fetches the programs; one that
is not there, or does not start, is a line that says so. It takes some five minutes, and needs root or user
namespaces.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

from tests.bench.outside import HERE
from tests.bench.peers.measuring import Meter
from tests.bench.peers.namespace import inside, prepare
from tests.bench.peers.place import AbsentError, Place
from tests.bench.peers.programs import PEERS, Peer, dump
from tests.bench.peers.report import Line, publish, table
from tests.bench.processes import MEMORY, keep_byte_code

PAUSES = [0.0, 0.05, 0.3, 1.2]
"""Seconds for which a slow writer rests in the middle of a file."""

HARD_STOP = 900
"""Seconds after which all of it ends, whatever hangs."""


def measure(peers: list[Peer], files: Path, state: Path, packages: Path, *, quick: bool) -> list[Line]:
    """Start all, measure all by turns, stop all; returns a line for each."""
    turns, count, rounds = (1, 300, 1) if quick else (5, 2000, 3)
    lines = [Line(peer.name, peer.how, missing=peer.missing()) for peer in peers]
    meters: dict[str, Meter] = {}
    places: dict[str, Place] = {}
    with contextlib.ExitStack() as stack:
        for peer, line in zip(peers, lines, strict=True):
            if line.missing:
                continue
            say(f"{peer.name}: starts")
            place = Place(peer.name.replace(", ", "-").replace(" ", "-"), files, state, packages)
            try:
                meter = Meter(stack.enter_context(peer.start(place)))
                stack.callback(meter.close)
                meter.get_ready(60)
            except (AbsentError, AssertionError, OSError) as error:
                why = f"did not start: {error}; the last that it said: {place.last_words()}"
                line.missing = " ".join(why.replace("|", "/").split())
                continue
            line.version = peer.says()
            meters[peer.name], places[peer.name] = meter, place
        names = list(meters)
        for turn in range(turns):
            say(f"edits and sets, turn {turn + 1} of {turns}")
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                meters[name].edit(3.0, 15)
                meters[name].replace_sets(3.0, 4)
        for name in names:
            say(f"{name}: new files")
            meters[name].make_files(count)
        say("slow writers, hasty writers, and what is there in the end")
        together([lambda meter=meter: finish(meter, rounds) for meter in meters.values()])
        for line in lines:
            if line.name in meters:
                line.results = meters[line.name].results
                line.hosts, line.server = (places[line.name].memory(role) for role in ("hosts", "server"))
        say("stops all")
    return lines


def finish(meter: Meter, rounds: int) -> None:
    """Measure what needs no quiet machine."""
    meter.write_slowly(PAUSES * rounds)
    meter.edit_in_a_hurry(100)
    meter.compare(30.0)


def together(actions: list) -> None:
    """Run actions at the same time."""
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def say(what: str) -> None:
    """Say what goes on."""
    print(f"bench-peers: {what}", file=sys.stderr, flush=True)


def in_namespace(options: argparse.Namespace) -> int:
    """Measure, in a namespace of our own."""
    memory, disk, packages, results = (Path(part) for part in options.inside)
    timer = threading.Timer(HARD_STOP, os._exit, [3])  # as the namespace's first process: all others end with it
    timer.daemon = True
    timer.start()
    (memory / "overlay").mkdir()
    prepare(packages, memory / "overlay")
    chosen = [peer for peer in PEERS if not options.only or peer.name in options.only.split("|")]
    before = os.getloadavg()[0]
    lines = measure(chosen, memory / "files", disk / "state", packages, quick=options.quick)
    load = [round(value, 1) for value in (before, os.getloadavg()[0])]
    results.write_text(dump({"load": load, "lines": [asdict(line) for line in lines]}))
    return 0


def main() -> int:
    """Print the table; 0 when configstore itself could be measured."""
    parser = argparse.ArgumentParser(prog="bench-peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a try")
    parser.add_argument("--only", metavar="NAMES", help="only these, separated by |")
    parser.add_argument("--packages", default=str(HERE / ".venv/peers"), help="what tests/get-peers unpacked")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--from-json", metavar="FILE", help="measure nothing, take the samples from there")
    parser.add_argument("--docs", action="store_true", help="put table and picture into README.md and docs/")
    parser.add_argument("--inside", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return in_namespace(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it cleans up, as it does for Ctrl-C
    found = json.loads(Path(options.from_json).read_text()) if options.from_json else run(options)
    if options.json:
        Path(options.json).write_text(dump(found))
    lines = [Line.of(line) for line in found["lines"]]
    print(table(lines, found))
    publish(lines, found, HERE if options.docs else HERE / "build" / "peers")
    return 0 if any(line.name == "configstore" and line.results for line in lines) else 1


def run(options: argparse.Namespace) -> dict:
    """Measure in a namespace; returns what was found, and when and where."""
    memory = Path(tempfile.mkdtemp(prefix="bench-peers-", dir=MEMORY))
    disk = Path(tempfile.mkdtemp(prefix="bench-peers-"))
    started = time.monotonic()
    keep_byte_code(memory / "byte-code")
    try:
        results = disk / "results.json"
        arguments = ["-m", "tests.bench.peers", "--inside", memory, disk, options.packages, results]
        arguments += ["--quick"] * options.quick + (["--only", options.only] if options.only else [])
        code = inside([str(part) for part in arguments])
        if code or not results.exists():
            raise SystemExit(f"bench-peers: the measurement ended with {code}")
        found = json.loads(results.read_text())
    finally:
        shutil.rmtree(memory, ignore_errors=True)
        shutil.rmtree(disk, ignore_errors=True)
    return found | {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "seconds": round(time.monotonic() - started),
    }


if __name__ == "__main__":
    sys.exit(main())
