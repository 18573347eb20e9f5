"""How long whole commands take, process start included."""

import functools
import os
import secrets
import statistics
import subprocess
import sys

from configstore.model.path import StorePath
from configstore.store.values import Write
from tests.bench.measures import RETENTION, Bench, a_file, timed


def measure_init(bench: Bench, count: int) -> float:
    """Return the seconds that `init` takes for so many files of 2 kB, process start included."""
    subtree = f"init{count}"
    bench.make_subtree(subtree)
    writes = []
    for number in range(count):
        content = secrets.token_bytes(2048)
        path = StorePath(f"{subtree}/d{number % 100}/{number}")
        writes.append(Write(path=path, entry=a_file(content), content=content))
    bench.tree.commit(writes, retention=RETENTION)
    file, directory = bench.settings(subtree, subtree)
    command = [sys.executable, "-m", "sidecar", "init", "--config", str(file)]
    seconds = timed(lambda: subprocess.run(command, check=True))
    found = sum(len(names) for where, _, names in os.walk(directory) if ".configstore" not in where)
    if found != count:
        raise SystemExit(f"bench: init brought {found} of {count} files")
    return seconds


def a_thousand_keys(bench: Bench) -> float:
    """Return the seconds that `import` takes for 1,000 keys of 1.7 kB, process start included."""
    folder = bench.folder / "thousand-keys"
    folder.mkdir()
    for number in range(1000):
        (folder / str(number)).write_bytes(secrets.token_bytes(1700))
    command = [
        sys.executable,
        "-m",
        "configstore",
        "--endpoints",
        bench.endpoint,
        "import",
        str(folder),
        "thousand",
    ]
    seconds = timed(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL))
    if len(bench.tree.list(StorePath("thousand")).records) != 1001:
        raise SystemExit("bench: import did not bring all 1,000 keys")
    return seconds


def start_up(bench: Bench) -> dict[str, float]:
    """Return the median seconds of `get` and `status`, and of a Python that does nothing, run by turns."""
    bench.put({"bench/put": b"x"})
    configstore = [sys.executable, "-m", "configstore", "--endpoints", bench.endpoint]
    commands = {
        "get": [*configstore, "get", "bench/put"],
        "status": [*configstore, "status"],
        "nothing": [sys.executable, "-c", "pass"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(7):
        for name, command in commands.items():
            run = functools.partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(timed(run))
    return {name: statistics.median(samples) for name, samples in seconds.items()}
