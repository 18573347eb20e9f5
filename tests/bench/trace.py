"""Where the time of one change goes: `python -m tests.bench --trace`, tables of medians beside the floor.

Each change is made when the one before is over, so a stamp belongs to the change that was made last. What follows
the file's arrival is shown, too: nobody waits for it, but a next change would.
"""

import json
import os
import secrets
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from configstore.model.path import StorePath
from configstore.store.values import Write
from tests.bench.latency import floor_rounds
from tests.bench.measures import RETENTION, Arrivals, Bench, a_file
from tests.bench.traced import Stamp

PAUSE = 0.02
"""Seconds between two changes."""

PULL = ("watch", "wake", "absorbed", "scanned", "planned", "staged", "journal", "renamed")
PUSH = ("inotify", "wake", "absorbed", "scanned", "planned", "noted as sent", "txn sent", "answer")
AFTER_PULL = ("judged", "noted", "cycle over")
AFTER_PUSH = ("noted", "cycle over")

Chain = list[Stamp]
"""The stamps of one change in their order. A thread of 0 is not ours."""


def chain(begun: float, steps: Sequence[str], stamps: Sequence[Stamp], until: float) -> Chain | None:
    """Return the stamps of the steps that followed `begun`, in their order; None when one is missing."""
    found: Chain = []
    coming = (stamp for stamp in stamps if begun <= stamp[1] < until)
    for wanted in steps:
        stamp = next((stamp for stamp in coming if stamp[0] == wanted), None)
        if stamp is None:
            return None
        found.append(stamp)
    return found


def table(title: str, begun: Sequence[float], chains: Sequence[Chain]) -> Iterator[str]:
    """Yield a table of medians in milliseconds; CPU where a step is one thread's."""
    yield f"{title} ({len(chains)} times)"
    yield f"  {'step':<24}{'since the last':>15}{'since the change':>18}{'of that CPU':>13}"
    for index, (name, *_) in enumerate(chains[0]):
        since, whole, used = [], [], []
        for start, steps in zip(begun, chains, strict=True):
            _, at, thread, cpu = steps[index]
            _, at_before, thread_before, cpu_before = steps[index - 1] if index else ("", start, 0, 0.0)
            since.append(at - at_before)
            whole.append(at - start)
            used += [cpu - cpu_before] if thread and thread == thread_before else []
        shown = f"{statistics.median(used) * 1000:13.3f}" if used else ""
        yield f"  {name:<24}{statistics.median(since) * 1000:15.3f}{statistics.median(whole) * 1000:18.3f}{shown}"


def _floor(bench: Bench) -> Iterator[str]:
    stamps = bench.folder / "floor-stamps"
    rounds = floor_rounds(bench, str(stamps))[:-1]  # its other side may not have told of the last one
    told = {name: (float(seen), float(renamed)) for name, seen, renamed in map(str.split, stamps.open())}
    chains = []
    for number, (_, answered, arrived) in enumerate(rounds):
        seen, renamed = told[str(number)]
        steps = [("answer to the put", answered), ("watch", seen), ("renamed", renamed), ("arrived", arrived)]
        chains.append([(name, at, 0, 0.0) for name, at in sorted(steps, key=lambda step: step[1])])
    yield from table("floor: raw put → file", [begun for begun, _, _ in rounds], chains)


def _puts(bench: Bench, directory: Path) -> list[tuple[float, float, float]]:
    """Put a file again and again; returns when each was begun, answered, and there."""
    arrivals, path, rounds = Arrivals(directory), StorePath("bench/put"), []
    bench.put({path: b"0"})
    arrivals.wait({"put"})
    for _ in range(bench.rounds):
        threading.Event().wait(PAUSE)
        content = secrets.token_bytes(2048)
        found = bench.tree.read(path)
        begun = time.monotonic()
        write = Write(path=path, entry=a_file(content), content=content,
                      expected=found.mod_revision if found else 0, previous=found)  # fmt: skip
        bench.tree.commit([write], retention=RETENTION)
        answered = time.monotonic()
        rounds.append((begun, answered, arrivals.wait({"put"})))
    return rounds


def _writes(bench: Bench, here: Path, there: Path) -> list[tuple[float, float]]:
    """Rename a file into one directory again and again; returns when, and when it was in the other."""
    arrivals, rounds = Arrivals(there), []
    for _ in range(bench.rounds):
        threading.Event().wait(PAUSE)
        (bench.folder / "new").write_bytes(secrets.token_bytes(2048))
        begun = time.monotonic()
        os.rename(bench.folder / "new", here / "written")
        rounds.append((begun, arrivals.wait({"written"})))
    return rounds


def print_trace(bench: Bench) -> None:
    """Measure and print the tables."""
    print(*_floor(bench), sep="\n")
    bench.make_subtree("bench")
    files = [bench.folder / "stamps-one", bench.folder / "stamps-two"]
    with bench.replica("one", "bench", files[0]) as (_, one), bench.replica("two", "bench", files[1]) as (_, two):
        puts = _puts(bench, one)
        writes = _writes(bench, two, one)
        threading.Event().wait(PAUSE)
    placing, sending = (
        sorted((tuple(each) for each in json.loads(file.read_text())), key=lambda stamp: stamp[1])
        for file in files
    )
    _print_puts(puts, placing)
    _print_writes(writes, sending, placing)


def _print_puts(rounds: Sequence[tuple[float, float, float]], placing: Sequence[Stamp]) -> None:
    begun, chains, after, cycles = [], [], [], []
    for (start, answered, arrived), end in zip(rounds, _ends([start for start, *_ in rounds]), strict=True):
        steps = chain(start, (*PULL, *AFTER_PULL), placing, end)
        if steps is None:
            continue
        begun.append(start)
        answer = ("answer to the put", answered, 0, 0.0)
        chains.append([answer, *steps[: len(PULL)], ("arrived", arrived, 0, 0.0)])
        after.append(steps[len(PULL) - 1 :])
        cycles.append(sum(step == "wake" and start <= at < end for step, at, *_ in placing))
    print(*table("store put → file on a replica", begun, chains), sep="\n")
    print(*table("  after that", [steps[0][1] for steps in after], after), sep="\n")
    print(f"  cycles a change, p50: {statistics.median(cycles):g}")


def _print_writes(
    rounds: Sequence[tuple[float, float]], sending: Sequence[Stamp], placing: Sequence[Stamp]
) -> None:
    begun, chains, after, cycles = [], [], [], []
    for (start, arrived), end in zip(rounds, _ends([start for start, _ in rounds]), strict=True):
        there = chain(start, PUSH + AFTER_PUSH, sending, end)
        here = chain(start, PULL, placing, end)
        if there is None or here is None:
            continue
        begun.append(start)
        chains.append([*there[: len(PUSH)], *here, ("arrived", arrived, 0, 0.0)])
        after.append(there[len(PUSH) - 1 :])
        cycles.append(sum(step == "wake" and start <= at < end for step, at, *_ in sending))
    print(*table("local write → other replica", begun, chains), sep="\n")
    print(*table("  after that, at the sender", [steps[0][1] for steps in after], after), sep="\n")
    print(f"  the sender's cycles a change, p50: {statistics.median(cycles):g}")


def _ends(begun: Sequence[float]) -> list[float]:
    """Return for each change when the next one began."""
    return [*begun[1:], float("inf")]
