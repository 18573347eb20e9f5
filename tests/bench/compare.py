"""Compares this version with an older one: `python -m tests.bench.compare [REF]`, or `make bench-compare`.

Milliseconds of another machine or another day say nothing. So both versions run here, now, and are measured by
turns: each turn gives a ratio new by old, and the median of the ratios is the verdict. The older one is unpacked
from git into a temporary folder; both are driven from outside only, by their programs and a directory. What needs
no clock, function calls and instructions, is compared with what was recorded with the last release.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from configstore.embedded import EmbeddedEtcd
from tests.bench.counts import counts
from tests.bench.outside import HERE, Program, settings
from tests.bench.peers.measuring import Meter
from tests.bench.peers.place import Running
from tests.bench.processes import MEMORY, cpu, keep_byte_code, resident

TURNS = 12
SLOWER = 1.10
"""Ratio above which a figure counts as slower; below its inverse, as faster."""

AGREED = 0.75
"""Share of the turns that must point the same way: what a noisy neighbour did to one turn decides nothing."""

TRIES = 2
"""Runs of a command in a turn, of which the quicker one counts."""

FILES = 200
"""New files of a turn."""

RELEASES = Path(__file__).parent / "releases"


@dataclass
class Figure:
    """One figure of both versions, turn by turn. Less is better."""

    what: str
    unit: str
    new: list[float] = field(default_factory=list)
    old: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """New by old, for each turn that has both."""
        return [new / old for new, old in zip(self.new, self.old, strict=False) if old]

    def verdict(self) -> str:
        """Say what the ratios say."""
        ratio = statistics.median(self.ratios)
        if ratio > SLOWER and sum(each > 1 for each in self.ratios) >= AGREED * len(self.ratios):
            return f"SLOWER by more than {SLOWER - 1:.0%}"
        if ratio < 1 / SLOWER and sum(each < 1 for each in self.ratios) >= AGREED * len(self.ratios):
            return "better"
        return "same"


class Version:
    """One version at work: two pairs of sidecars on an etcd of its own."""

    def __init__(self, name: str, program: Program, folder: Path, stack: contextlib.ExitStack) -> None:
        self.program, self.folder = program, folder
        folder.mkdir()
        (folder / "state").mkdir()
        self.endpoint = stack.enter_context(EmbeddedEtcd(folder=folder / "etcd")).endpoint
        self.meters, self.processes = {}, []
        for subtree, mapping in (("quick", ('settle = "0ms"',)), ("plain", ())):
            self.call("mkdir", subtree)
            directories = []
            for side in ("one", "two"):
                file, directory = settings(folder, f"{subtree}-{side}", subtree, self.endpoint, mapping)
                self.processes.append(stack.enter_context(program.sidecar(file)))
                directories.append(directory)
            scratch = folder / f"{subtree}-scratch"
            scratch.mkdir()
            meter = Meter(Running(directories[0], directories[1], scratch))
            stack.callback(meter.close)
            try:
                meter.get_ready(60)
            except Exception as error:
                raise SystemExit(f"bench-compare: {name}: {error}") from error
            self.meters[subtree] = meter
        self._made = 0
        self._files = folder / "files"
        self._files.mkdir()
        for number in range(200):
            (self._files / str(number)).write_bytes(os.urandom(1700))

    def call(self, *arguments: str) -> None:
        """Run `configstore` to its end."""
        self.program.configstore(self.endpoint, *arguments)

    def cpu(self) -> float:
        """Return the CPU seconds that the pair without settle has used."""
        return sum(cpu(process.pid) for process in self.processes[:2])

    def turn(self) -> Iterator[tuple[str, str, float]]:
        """Measure all figures once: name, unit and value of each."""
        for subtree, words in (("quick", "settle 0"), ("plain", "nothing set")):
            results = self.meters[subtree].results
            results.edits.clear()
            before = self.cpu()
            self.meters[subtree].edit(5.0, 15)
            if not results.edits:
                raise SystemExit(f"bench-compare: an edit did not arrive: {self.program.tree}")
            if subtree == "quick":
                yield "CPU of both sidecars for an edit", "ms", (self.cpu() - before) * 1000 / len(results.edits)
            yield f"local write → other replica, p50, {words}", "ms", statistics.median(results.edits)
        results = self.meters["quick"].results
        results.sets.clear()
        results.mixed.clear()
        self.meters["quick"].replace_sets(5.0, 4)
        if not results.sets:
            raise SystemExit(f"bench-compare: a set did not arrive: {self.program.tree}")
        yield "a set of 60 → other replica, p50", "ms", statistics.median(results.sets)
        yield "  of that, old and new mixed", "ms", statistics.median(results.mixed)
        yield f"{FILES} new files → other replica", "s", self._new_files()
        for what, command in (
            ("configstore get", ("get", "quick/edited")),
            ("configstore status", ("status", "--json")),
        ):
            yield from _timed(what, functools.partial(self.call, *command))
        yield from _timed("configstore import, 200 files", self._import)
        yield from _timed("configstore-sidecar init", self._init)
        for what, key in (("RSS", "Rss"), ("PSS", "Pss")):
            sizes = [resident(process.pid, key) for process in self.processes]
            yield f"memory of a sidecar, {what}", "MiB", statistics.median(sizes)

    def _import(self) -> None:
        self._made += 1
        self.call("import", str(self._files), f"import{self._made}")

    def _new_files(self) -> float:
        running = self.meters["quick"].running
        self._made += 1
        names = {f"new-{self._made}-{number}" for number in range(FILES)}
        start = time.perf_counter()
        for name in names:
            (running.source / name).write_bytes(os.urandom(1000))
        while names - set(os.listdir(running.target)):
            time.sleep(0.002)
            if time.perf_counter() > start + 60:
                raise SystemExit("bench-compare: new files did not arrive within 60 s")
        return time.perf_counter() - start

    def _init(self) -> None:
        where = self.folder / f"init{self._made}"
        file, directory = settings(where, "files", "quick", self.endpoint)
        command = self.program.command("sidecar", "init", "--config", str(file))
        subprocess.run(command, env=self.program.environment(), check=True, stderr=subprocess.DEVNULL)
        if not (directory / "edited").exists():
            raise SystemExit("bench-compare: init brought nothing")
        shutil.rmtree(where)


def _timed(what: str, action: Callable[[], object]) -> Iterator[tuple[str, str, float]]:
    took, cpu = [], []
    for _ in range(TRIES):
        used, start = _children(), time.perf_counter()
        with contextlib.suppress(subprocess.CalledProcessError):  # `status` exits 1 when something needs a look
            action()
        took.append(time.perf_counter() - start)
        cpu.append(_children() - used)
    yield f"`{what}`, whole process", "s", min(took)
    yield f"`{what}`, CPU", "s", min(cpu)


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def unpacked(reference: str, folder: Path) -> Program:
    """Unpack a version from git, and give it a Python with what it needs: ours, where it needs the same."""
    tree = folder / "base"
    try:
        archive = subprocess.run(
            ["git", "archive", reference, "configstore", "sidecar", "pyproject.toml", "README.md"],
            cwd=HERE, check=True, capture_output=True,
        ).stdout  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"bench-compare: {error.stderr.decode().strip()}; name a version: BASE=REF") from error
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        found.extractall(tree, filter="data")
    if _needs(tree) == _needs(HERE):
        return Program(tree)
    print(f"bench-compare: {reference} needs other packages: a venv is made for it", file=sys.stderr)
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{tree}[embedded]"], check=True)
    return Program(tree, python)


def beside(folder: Path) -> Program:
    """Return a copy of what is worked on, so that both versions lie on the same file system."""
    tree = folder / "this"
    for name in ("configstore", "sidecar"):
        shutil.copytree(HERE / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    return Program(tree)


def _needs(tree: Path) -> set[str]:
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    return {*project["dependencies"], *project["optional-dependencies"].get("embedded", ())}


def newest_release() -> dict[str, object]:
    """Return what was recorded with the newest release. Exits in words when nothing was."""
    files = sorted(RELEASES.glob("*.json"), key=lambda file: [int(part) for part in file.stem.split(".")])
    if not files:
        raise SystemExit(f"bench-compare: nothing is in {RELEASES.relative_to(HERE)}: name a version, BASE=REF")
    return json.loads(files[-1].read_text())


def measured(new: Program, old: Program, folder: Path, turns: int) -> Iterator[Figure]:
    """Measure both by turns, the first one of a turn being the second one of the next."""
    figures: dict[str, Figure] = {}
    with contextlib.ExitStack() as stack:
        versions = {
            name: Version(name, program, folder / name, stack) for name, program in (("new", new), ("old", old))
        }
        for turn in range(turns + 1):
            print(f"bench-compare: turn {turn} of {turns}", file=sys.stderr, flush=True)
            names = ("new", "old") if turn % 2 else ("old", "new")
            for both in zip(*(versions[name].turn() for name in names), strict=True):  # figure by figure
                for name, (what, unit, value) in zip(names, both, strict=True):
                    figure = figures.setdefault(what, Figure(what, unit))
                    if turn:  # the first one warms up
                        getattr(figure, name).append(value)
        idle = figures.setdefault("idle CPU of a pair", Figure("idle CPU of a pair", "ms/s"))
        threading.Event().wait(2)
        for _ in range(8):
            before = {name: version.cpu() for name, version in versions.items()}
            threading.Event().wait(2)
            for name, version in versions.items():
                getattr(idle, name).append((version.cpu() - before[name]) * 500)
    yield from figures.values()


def counted(release: dict[str, object]) -> None:
    """Print what needs no clock beside what was recorded."""
    now = counts()
    before = release["counts"]
    print(f"\ncounts: here with Python {now['python']}, and of {release['version']} with {before['python']}")
    if before["python"].split(".")[:2] != now["python"].split(".")[:2]:
        print("another Python counts differently: these ratios say little")
    for kind in ("calls", "instructions"):
        for what, value in now.get(kind, {}).items():
            known = before.get(kind, {}).get(what)
            ratio = f"{value / known:.2f} ×" if known else "not recorded"
            print(f"{kind + ': ' + what:<66}{value:>14,.0f}{known or 0:>14,.0f}  {ratio}")
    if not now.get("instructions"):
        print(f"instructions: {now['counted by']}")


def main() -> int:
    """Print the ratios; 0, or with --strict 1 when a figure is slower."""
    parser = argparse.ArgumentParser(prog="bench-compare", description=__doc__)
    parser.add_argument("base", nargs="?", help="commit, tag or branch; default: the last release's commit")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--strict", action="store_true", help="exit 1 when a figure is slower")
    parser.add_argument("--counts", action="store_true", help="only what needs no clock")
    parser.add_argument("--json", metavar="FILE", help="write all turns there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it cleans up, as it does for Ctrl-C
    if options.counts:
        counted(newest_release())
        return 0
    base = options.base or str(newest_release()["commit"])
    folder = Path(tempfile.mkdtemp(prefix="bench-compare-", dir=MEMORY))
    keep_byte_code(folder / "byte-code")
    load = os.getloadavg()[0]
    try:
        figures = list(measured(beside(folder), unpacked(base, folder), folder, options.turns))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    head = f"figure, median of {options.turns} turns"
    print(f"{head:<56}{'new':>12}{'old':>12}  {'ratio (least to most)':<23} verdict")
    for each in figures:
        new, old_one = (f"{statistics.median(values):.2f} {each.unit}" for values in (each.new, each.old))
        ratios = sorted(each.ratios)
        spread = f"{statistics.median(ratios):.2f} × ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{each.what:<56}{new:>12}{old_one:>12}  {spread:<23} {each.verdict()}")
    print(
        f"old: {base}; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after; less is better everywhere"
    )
    if options.json:
        rows = [{"what": each.what, "unit": each.unit, "new": each.new, "old": each.old} for each in figures]
        Path(options.json).write_text(json.dumps({"base": base, "figures": rows}, indent=1) + "\n")
    if list(RELEASES.glob("*.json")):
        counted(newest_release())
    return 1 if options.strict and any(each.verdict().startswith("SLOWER") for each in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
