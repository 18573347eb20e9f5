"""What one process for all services of a host takes, beside a sidecar for each of them."""

import contextlib
import os
import secrets
import statistics
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from configstore import presets
from configstore.model.keys import DEFAULT_ROOT
from tests.bench.measures import Figure, cpu_share
from tests.bench.processes import resident
from tests.harness.host import Host
from tests.harness.replica import ENVIRONMENT
from tests.harness.waiting import wait_until

BUDGET = 1.2
"""Of the median of the services' memory, which stands for one sidecar."""


KEYS = 1000


def one_host(endpoint: str, folder: Path, *, seconds: float) -> Iterator[Figure]:
    """Measure memory and CPU at rest, all processes at the same time; seconds: for how long the CPU is."""

    def configstore(*words: str) -> None:
        command = [sys.executable, "-m", "configstore", "--endpoints", endpoint, *words]
        subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)

    configstore("bootstrap", "--preset", "mailu")
    services = presets.containers("mailu")
    wanted = {name: ",".join(names) for name, names in services.items()} | {"host": "mailu"}
    with contextlib.ExitStack() as stack:
        hosts = {}
        for name, preset in wanted.items():
            hosts[name] = stack.enter_context(Host(name, endpoint, DEFAULT_ROOT, folder, preset))
            hosts[name].anew = True
            hosts[name].start()
        shares = {name: cpu_share(each.ready().running, seconds) for name, each in hosts.items()}
        memory = {name: resident(each.running.pid) for name, each in hosts.items()}
        keys = folder / "keys"
        keys.mkdir()
        for number in range(KEYS):
            (keys / f"{number}.dkim.key").write_bytes(secrets.token_bytes(1700))
        configstore("import", str(keys), "dkim")
        wait_until(lambda: all(_has_keys(hosts[name]) for name in ("admin", "host")), 60, what="all keys")
        filled = {name: resident(each.running.pid) for name, each in hosts.items()}
    whole, share = memory.pop("host"), shares.pop("host")
    full, floor = filled.pop("host"), statistics.median(memory.values())
    yield Figure("memory of one service's sidecar, median of 7", floor, "MiB", "", met=True)
    yield Figure("  of all seven, together", sum(memory.values()), "MiB", "", True, floor)
    yield Figure(
        "one sidecar for all services of a host", whole, "MiB", "≤ 1.2 × one", whole <= BUDGET * floor, floor
    )
    yield Figure("  with 1,000 DKIM keys", full, "MiB", "", True, statistics.median(filled.values()))
    yield Figure("  its CPU at rest, beside all seven's", share, "% of a core", "", True, sum(shares.values()))


def _has_keys(host: Host) -> bool:
    return len(os.listdir(host.folder("admin", "/dkim"))) > KEYS and host.says()[0] == HTTPStatus.OK
