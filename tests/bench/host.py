"""What one process for all services of a host takes, beside a sidecar for each of them."""

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from configstore import presets
from configstore.model.keys import DEFAULT_ROOT
from tests.bench.measures import Figure, cpu_share, memory_mib
from tests.e2e.host import Host
from tests.e2e.replica import ENVIRONMENT

BUDGET = 1.2
"""Of the median of the services' memory, which stands for one sidecar."""


def one_host(endpoint: str, folder: Path, *, seconds: float) -> Iterator[Figure]:
    """Measure memory and CPU at rest, all processes at the same time; seconds: for how long the CPU is."""
    command = [sys.executable, "-m", "configstore", "--endpoints", endpoint, "bootstrap", "--preset", "mailu"]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    services = presets.containers("mailu")
    wanted = {name: ",".join(names) for name, names in services.items()} | {"host": "mailu"}
    with contextlib.ExitStack() as stack:
        hosts = {}
        for name, preset in wanted.items():
            hosts[name] = Host(name, endpoint, DEFAULT_ROOT, folder, preset)
            stack.callback(hosts[name].end)
            hosts[name].start()
        shares = {name: cpu_share(each.ready().running, seconds) for name, each in hosts.items()}
        memory = {name: memory_mib(each.running) for name, each in hosts.items()}
    whole, share = memory.pop("host"), shares.pop("host")
    floor = statistics.median(memory.values())
    yield Figure("memory of one service's sidecar, median of 7", floor, "MiB", "", met=True)
    yield Figure("  of all seven, together", sum(memory.values()), "MiB", "", True, floor)
    yield Figure(
        "one sidecar for all services of a host", whole, "MiB", "≤ 1.2 × one", whole <= BUDGET * floor, floor
    )
    yield Figure("  its CPU at rest, beside all seven's", share, "% of a core", "", True, sum(shares.values()))
