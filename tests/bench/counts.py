"""Counts what a change costs, instead of timing it: `python -m tests.bench.counts`, or `make bench-counts`.

Two replicas of the real engine over the store in memory, in one thread, as the simulation drives them: files and
inotify are real, the network is not. Function calls are counted by the interpreter, instructions by the processor
(`perf stat`) or, where that is not to be had, by valgrind. Neither knows of other load; both go with the version
of Python, which stands beside them, and with that of the libraries.
"""

import argparse
import gc
import itertools
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.processes import MEMORY
from tests.simulation.replica import SETTLE
from tests.simulation.world import World

CHANGES = 100
"""Changes whose instructions are counted; fewer than make a replica look at everything again (once in 60 s)."""

SHORT = 10
"""Changes of the run that is taken away from it: start, imports and first files cost the same in both."""


REPEATS = 7
"""Times that function calls are counted; the median is taken: files of ours are written anew now and then."""


class Pair:
    """Two replicas: files that one's user writes, cycle by cycle, until the other one has them."""

    def __init__(self, base: Path, files: int, *, elsewhere: int = 0) -> None:
        """`files` lie in the mapping's own directory, `elsewhere` in others below it, ten in each."""
        self.world = World(base)
        self.one, self.two = self.world.replicas
        self._contents = itertools.count()
        for number in range(elsewhere):
            folder = self.one.folder / "elsewhere" / f"d{number // 10}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / str(number)).write_bytes(b"%d" % number)
        self.write([f"f{number}" for number in range(files)])
        self.send()
        self.apply()
        for _ in range(3):  # what follows from it
            self.send()
            self.apply()

    def write(self, names: list[str]) -> None:
        """Replace files of the first replica, each by a rename."""
        for name in names:
            temporary = self.world.base / "new"
            temporary.write_bytes(b"%2000d" % next(self._contents))
            temporary.rename(self.one.folder / name)

    def send(self) -> None:
        """Have the first replica see a change, wait until it has settled, and commit it."""
        self.one.mirror.cycle()
        self.world.now += SETTLE + 0.05
        self.one.mirror.cycle()

    def apply(self) -> None:
        """Have the second replica take it."""
        self.two.mirror.cycle()

    def end(self) -> None:
        """Stop both; fail unless they have the same: what was counted was the work."""
        for each in self.world.replicas:
            each.end()
        for each in self.one.folder.glob("f*"):
            if (self.two.folder / each.name).read_bytes() != each.read_bytes():
                raise SystemExit(f"counts: {each.name} did not travel")


def calls(action: Callable[[], object]) -> int:
    """Return how many functions an action calls, those of C included."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()  # finalizers come when they like
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count - 1  # setprofile(None)


def function_calls(base: Path) -> dict[str, int]:
    """Return the function calls of each step, in a small and in a larger mapping."""
    found = {}
    for files in (10, 1000):
        (base / str(files)).mkdir()
        pair = Pair(base / str(files), files)
        for what, names in (("one change", ["f1"]), ("a set of 60", [f"f{n}" for n in range(60)])):
            if len(names) > files:
                continue
            sent, applied = [], []
            for _ in range(REPEATS):
                pair.write(names)
                sent.append(calls(pair.send))
                applied.append(calls(pair.apply))
                pair.send()
                pair.apply()
            found[f"{what} sent, {files:,} files"] = statistics.median(sent)
            found[f"{what} applied, {files:,} files"] = statistics.median(applied)
        found[f"a cycle with nothing to do, {files:,} files"] = calls(pair.apply)
        pair.end()
    return found


def change(base: Path, times: int) -> None:
    """Make so many changes in a mapping of 100 files."""
    pair = Pair(base, 100)
    for _ in range(times):
        pair.write(["f1"])
        pair.send()
        pair.apply()
    pair.end()


def instructions() -> tuple[int, str]:
    """Return the instructions of one change, sent and applied, and by what they were counted; 0 and why not."""
    for name, count in (("perf stat", _by_perf), ("valgrind", _by_valgrind)):
        try:
            short, long = count(SHORT), count(CHANGES)
        except (OSError, subprocess.CalledProcessError, ValueError):
            continue
        return (long - short) // (CHANGES - SHORT), name
    return 0, "neither `perf stat` nor valgrind counts here (Debian: linux-perf, valgrind)"


def _run(before: list[str], times: int) -> str:
    """Make changes in a process of its own, under a program that counts, and return what that said."""
    if not shutil.which(before[0]):
        raise FileNotFoundError(before[0])
    command = [*before, sys.executable, "-m", "tests.bench.counts", "--change", str(times)]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr


def _by_perf(times: int) -> int:
    return int(_run(["perf", "stat", "-x,", "-e", "instructions:u"], times).splitlines()[-1].split(",")[0])


def _by_valgrind(times: int) -> int:
    said = _run(["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"], times)
    found = re.search(r"I\s+refs:\s+([\d,]+)", said)
    return int(found[1].replace(",", "")) if found else int(said)


def counts(*, with_instructions: bool = True) -> dict[str, object]:
    """Return all counts, and what they go with."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        found: dict[str, object] = {"python": platform.python_version(), "calls": function_calls(Path(folder))}
    if with_instructions:
        number, by = instructions()
        found["instructions"] = {"one change, sent and applied, 100 files": number} if number else {}
        found["counted by"] = by
    return found


def main() -> int:
    """Print the counts."""
    parser = argparse.ArgumentParser(prog="bench-counts", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write them there, too")
    parser.add_argument("--calls", action="store_true", help="only function calls, in seconds")
    parser.add_argument("--change", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.change:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            change(Path(folder), options.change)
        return 0
    found = counts(with_instructions=not options.calls)
    print(json.dumps(found, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
