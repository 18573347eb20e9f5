"""What sealing costs, beside what is plain."""

import contextlib
import secrets
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from configstore.model.seal import Master, Policy, Secret
from configstore.store.envelope import Envelopes
from configstore.store.resealing import Resealing
from configstore.store.sealed_values import values
from tests.bench.latency import put_to_file, write_to_replica
from tests.bench.measures import RETENTION, Bench, Figure
from tests.bench.processes import resident
from tests.harness.named import a_tree
from tests.harness.waiting import wait_until

TURNS = 40
"""How often what is sealed and what is plain are measured by turns: other load comes and goes in seconds."""


def sealed_and_plain(plain: Bench, sealed: Bench) -> Iterator[Figure]:
    """Measure what sealing costs: both by turns, so that whatever else the machine does befalls both."""
    pairs: list[tuple[str, list[float], list[float]]] = [
        ("sealed: store put → file, p50", [], []),
        ("sealed: local write → other replica, p50", [], []),
    ]
    memory: dict[bool, list[float]] = {True: [], False: []}
    with contextlib.ExitStack() as stack:
        replicas = {}
        for bench in (plain, sealed):
            bench.make_subtree("bench")
            made = [stack.enter_context(bench.replica(f"{bench.root[1:]}-{name}", "bench")) for name in ("a", "b")]
            replicas[bench] = made
            bench.put({f"bench/many-{number}": secrets.token_bytes(2048) for number in range(1000)})
            for _, directory in made:
                wait_until((directory / "many-999").exists, 60, what="1,000 files")
        for turn in range(TURNS):
            for bench in (plain, sealed) if turn % 2 else (sealed, plain):
                (_, one), (_, two) = replicas[bench]
                pairs[0][1 + (bench is sealed)].append(put_to_file(bench, one))
                pairs[1][1 + (bench is sealed)].append(write_to_replica(bench, two, one))
        for bench in (plain, sealed):
            memory[bench is sealed] += [resident(process.pid) for process, _ in replicas[bench]]
    for what, without, within in pairs:
        floor, value = (statistics.median(samples) * 1000 for samples in (without, within))
        yield Figure(what, value, "ms", "≤ 1.15 × plain", value <= 1.15 * floor, floor)
    more = max(memory[True]) - min(memory[False])
    yield Figure("sealed: memory of a sidecar, 1,000 files", more, "MiB more", "≤ 6 MiB", more <= 6)


def rotation(bench: Bench, master: Master) -> Figure:
    """Measure how many records of 2 kB are sealed again in a second."""
    newer = Master(secrets=(Secret(secret=secrets.token_bytes(32)), *master.secrets))
    envelopes = Envelopes(bench.root, keyring=newer.keyring(), policy=lambda _: Policy.ACCEPT, lenient=True)
    tree = a_tree(bench.kv, bench.tree.keys.root, envelopes=envelopes)
    work = Resealing(tree, newer.keyring(), unseal=False, retention=RETENTION, clock=time.monotonic)
    start = time.perf_counter()
    count = sum(work.seal(value) for value in values(tree))
    return Figure("sealed again with a new key", count / (time.perf_counter() - start), "/s", "", met=True)


def sealing(endpoint: str, folder: Path, *, rounds: int) -> Iterator[Figure]:
    """Measure sealing beside what is plain."""
    master = Master(secrets=(Secret(secret=secrets.token_bytes(32)),))
    for name in ("plain", "sealed"):
        (folder / name).mkdir()
    plain = Bench(endpoint, folder / "plain", rounds=rounds)
    sealed = Bench(endpoint, folder / "sealed", rounds=rounds, master=master)
    yield from sealed_and_plain(plain, sealed)
    yield rotation(sealed, master)
