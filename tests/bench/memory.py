"""Where a sidecar's memory goes: what imports take, what a running one is made of, and what each file adds.

Resident memory (RSS) counts what is shared with other processes whole, PSS divides it among them. Both, and the
highest RSS that there was (VmHWM), come from /proc; no other process has to be idle for them to be true.
"""

import contextlib
import gc
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from configstore.model.path import StorePath
from configstore.store.values import Write
from tests.bench.measures import RETENTION, Bench, Figure, a_file, wait_for_rest
from tests.bench.processes import highest, resident
from tests.harness.waiting import wait_until

IMPORTED = (
    "logging",
    "email.message",
    "ssl",
    "http.client",
    "http.server",
    "asyncio",
    "msgspec",
    "pathspec",
    "tenacity",
    "inotify_simple",
    "watchdog.observers.polling",
    "nacl.bindings",
    "cryptography.x509",
    "google.protobuf.message_factory",
    "grpc",
    "configstore.store.etcd.client",
    "sidecar.config.settings",
    "sidecar.daemon.commands",
    "sidecar.daemon.commands, configstore.store.etcd.client",
    "sidecar.daemon.commands, configstore.store.etcd.client, sidecar.reporting.health, sidecar.reporting.gauges",
)

_IMPORT = """
import sys
def found():
    lines = (line.split() for line in open("/proc/self/smaps_rollup"))
    return {line[0]: int(line[1]) for line in lines if line[0] in ("Rss:", "Anonymous:")}
before, modules = found(), len(sys.modules)
import %s
after = found()
print(before["Rss:"], after["Rss:"] - before["Rss:"], after["Anonymous:"] - before["Anonymous:"],
      len(sys.modules) - modules)
"""

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ \S+ *(.*)$")

LARGEST_SETS = ((1, 30 * 1024 * 1024), (400, 1024 * 1024), (20_000, 2048))
"""Number and bytes of the files of a set, whose first pull is watched for its highest memory."""


def made_of(process: int) -> dict[str, tuple[float, float]]:
    """Return what a process's memory is made of: RSS and PSS in MiB, by what is mapped."""
    found: Counter[tuple[str, str]] = Counter()
    kind = ""
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        mapping = _MAPPING.match(line)
        if mapping:
            kind = _kind(mapping[1], mapping[2])
        elif line.startswith(("Rss:", "Pss:")):
            found[kind, line[:3]] += int(line.split()[1])
    kinds = {kind for kind, _ in found}
    return {kind: (found[kind, "Rss"] / 1024, found[kind, "Pss"] / 1024) for kind in kinds}


def _kind(rights: str, name: str) -> str:
    if name in ("[heap]", ""):
        return "malloc's heap" if name else "Python's arenas, large pieces, threads' stacks"
    if name.startswith("["):
        return "the rest"
    library = Path(name.removesuffix(" (deleted)")).name.split(".")[0]
    library = "python" if library.startswith("python") else library
    known = library if library in ("cygrpc", "_message", "python", "libcrypto", "libssl") else "other libraries"
    return f"{known}: {'written' if 'w' in rights else 'read only'}"


def imports() -> Iterator[tuple[str, float, float, int]]:
    """Yield what imports take in a Python of their own: what, RSS and anonymous MiB, modules."""
    for what in IMPORTED:
        for _ in range(2):  # the first may have to compile
            ran = subprocess.run(
                [sys.executable, "-c", _IMPORT % what], capture_output=True, text=True, check=False
            )
        if ran.returncode == 0:
            before, more, anonymous, modules = map(int, ran.stdout.split())
            if what == IMPORTED[0]:
                yield "Python itself", before / 1024, 0.0, 0
            yield what, more / 1024, anonymous / 1024, modules


def fill(bench: Bench, subtree: str, count: int, size: int = 2048) -> None:
    """Make a subtree with so many files of `size` bytes."""
    bench.make_subtree(subtree)
    step = max(1, min(count, (8 << 20) // size))
    for start in range(0, count, step):
        writes = []
        for number in range(start, min(start + step, count)):
            content = secrets.token_bytes(size)
            path = StorePath(f"{subtree}/d{number % 100}/{number}")
            writes.append(Write(path=path, entry=a_file(content), content=content))
        bench.tree.commit(writes, retention=RETENTION)


@contextlib.contextmanager
def filled(
    bench: Bench, name: str, subtree: str, count: int, *, traced: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a sidecar that has pulled so many files, and whose memory does not move any more."""
    file, directory = bench.settings(name, subtree)
    what = ["tests.bench", "--tracemalloc"] if traced else ["sidecar", "run", "--config"]
    process = subprocess.Popen([sys.executable, "-m", *what, str(file)])
    try:
        wait_until(lambda: _files_below(directory) >= count, 300, what=f"{count} files")
        bench.put({f"{subtree}/ready": b""})
        wait_until((directory / "ready").exists, 60, what="the next change")
        wait_for_rest(process, 300)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _files_below(directory: Path) -> int:
    return sum(len(names) for where, _, names in os.walk(directory) if ".configstore" not in where)


def sidecar_with_tracemalloc(settings: str) -> None:
    """Run a sidecar that tells, once `SETTINGS.trace` is there, which modules hold what: in `SETTINGS.traced`."""
    tracemalloc.start()
    from sidecar.__main__ import main  # noqa: PLC0415 - after tracing began

    def tell() -> None:
        wait_until(Path(f"{settings}.trace").exists, 600, what="the wish for a trace")
        gc.collect()
        found = tracemalloc.take_snapshot().statistics("filename")
        whole = Path(f"{settings}.new")
        whole.write_text(json.dumps({each.traceback[0].filename: each.size for each in found}))
        whole.rename(f"{settings}.traced")

    threading.Thread(target=tell, daemon=True).start()
    sys.exit(main(["run", "--config", settings]))


def held(bench: Bench, name: str, subtree: str, count: int) -> dict[str, int]:
    """Return which modules hold how many bytes in a sidecar of so many files."""
    with filled(bench, name, subtree, count, traced=True):
        (bench.folder / f"{name}.toml.trace").touch()
        told = bench.folder / f"{name}.toml.traced"
        wait_until(told.exists, 120, what="the trace")
        return dict(json.loads(told.read_text()))


def a_map(bench: Bench) -> None:
    """Print the map: imports, parts of a sidecar with 0, 1,000 and 10,000 files, and bytes a file by module."""
    print(f"{'import, in a Python of its own':<82}{'RSS':>8}{'anonymous':>11}  modules")
    for what, more, anonymous, modules in imports():
        print(f"  {what:<80}{more:>8.2f}{anonymous:>11.2f}{modules:>9}", flush=True)
    counts = (0, 1000, 10_000)
    parts: dict[int, dict[str, tuple[float, float]]] = {}
    whole: dict[int, tuple[float, float, float]] = {}
    for count in counts:
        fill(bench, f"map{count}", count)
        with filled(bench, f"map{count}", f"map{count}", count) as process:
            parts[count] = made_of(process.pid)
            whole[count] = resident(process.pid), resident(process.pid, "Pss"), highest(process.pid)
    print(f"\n{'a sidecar by files, MiB':<54}" + "".join(f"{count:>10,}" for count in counts))
    for number, title in enumerate(("RSS", "PSS", "highest RSS")):
        print(f"  {title:<52}" + "".join(f"{whole[count][number]:>10.2f}" for count in counts))
    for kind in sorted({kind for found in parts.values() for kind in found}):
        print(f"    {kind:<50}" + "".join(f"{parts[count].get(kind, (0, 0))[0]:>10.2f}" for count in counts))
    more = (whole[10_000][0] - whole[1000][0]) * 1024 * 1024 / 9000
    print(f"  {'bytes of RSS a file, from 1,000 to 10,000':<52}{more:>10.0f}")
    few, many = (held(bench, f"traced{count}", f"map{count}", count) for count in (1000, 10_000))
    grown = {module: (many[module] - few.get(module, 0)) / 9000 for module in many}
    print("\nbytes of Python's objects a file, by the module that made them")
    for module, size in sorted(grown.items(), key=lambda each: -each[1])[:15]:
        print(f"  {'/'.join(Path(module).parts[-3:]):<52}{size:>10.0f}")


def memory(bench: Bench, *, quick: bool) -> Iterator[Figure]:
    """Measure a sidecar with 1,000 files, ten beside each other, and the highest memory of large sets."""
    fill(bench, "thousand", 1000)
    with contextlib.ExitStack() as stack:
        names = [f"host{number}" for number in range(2 if quick else 10)]
        running = [stack.enter_context(filled(bench, name, "thousand", 1000)) for name in names]
        rss = statistics.median(resident(each.pid) for each in running)
        pss = statistics.median(resident(each.pid, "Pss") for each in running)
    yield Figure("memory: a sidecar of 1,000 files, RSS", rss, "MiB", "≤ 40 MiB", rss <= 40)
    yield Figure(f"memory: the same, PSS among {len(names)}", pss, "MiB", "≤ 20 MiB", pss <= 20 or quick)
    for count, size in LARGEST_SETS[: 1 if quick else None]:
        subtree = f"large{count}"
        fill(bench, subtree, count, size)
        with filled(bench, subtree, subtree, count) as process:
            value = highest(process.pid)
        what = f"memory: highest, first pull of {count:,} × {size // 1024:,} KiB"
        yield Figure(what, value, "MiB", "≤ 64 MiB", value <= 64)
