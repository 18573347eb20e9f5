"""Would a set be closed too soon? `python -m tests.bench --settle`: how often each rule would have torn a set.

Real writers change a directory while inotify's events are timed; each run of a writer is one set. Then the rules
are played over what was recorded, so that all of them judge the same runs. A set is torn when a rule closes it
before its last event. Each writer runs on the machine as it is, and as often beside busy processes: what counts is
for how long a writer may pause in the middle of a set.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import inotify_simple
from inotify_simple import flags

RUNS = 40
PAUSE = 0.15
"""Seconds between two runs: longer than any rule waits."""

SETTLE = 0.02

WRITERS = {
    "sed -i of one file": 'sed -i "s/^/$1/" one/a',
    "sed -i of two files": 'sed -i "s/^/$1/" one/a one/b',
    "sed -i of one file or two, by turns": 'sed -i "s/^/$1/" one/a $([ $(($1 % 2)) = 0 ] || echo one/b)',
    "vim, one file": 'vim -Nu NONE -es -c "normal G" -c "s/^/$1/" -c "wq" one/a',
    "install of a certificate and its key": "install -m 600 $outside/c one/a; install -m 600 $outside/k one/b",
    "install of one or both, by turns": (
        "install -m 600 $outside/c one/a; [ $(($1 % 2)) = 0 ] || install -m 600 $outside/k one/b"
    ),
    "two mv in a script": "cp $outside/c one/.a; cp $outside/k one/.b; mv one/.a one/a; mv one/.b one/b",
    "renames of a pair in one program": """$python -c '
import os, sys
for name in "ab": open("one/." + name, "w").write(sys.argv[1])
for name in "ab": os.replace("one/." + name, "one/" + name)' $1""",
    "certbot's order: four files, four links": """$python -c '
import os, sys
for name in ("privkey", "cert", "chain", "fullchain"):
    with open(f"one/{name}{sys.argv[1]}", "w") as file: file.write(sys.argv[1] * 1500)
for name in ("privkey", "cert", "chain", "fullchain"):
    if os.path.lexists(f"two/{name}"): os.unlink(f"two/{name}")
    os.symlink(f"../one/{name}{sys.argv[1]}", f"two/{name}")' $1""",
    "a key written in place": """$python -c '
import sys
with open("one/a", "w") as file: file.write(sys.argv[1] * 1500)' $1""",
    "cp -r of 60 files": "cp -r $outside/tree$(($1 % 2))/. .",
    "rsync of 60 files": "rsync -ac $outside/tree$(($1 % 2))/ .",
    "tar x of 60 files": "tar x -f $outside/tree$(($1 % 2)).tar",
    "git checkout of 60 files": "git --git-dir=$outside/git --work-tree=. checkout -qf tree$(($1 % 2)) -- .",
}
"""Shell commands by name; `$1` is the number of the run, and the directories one and two are there."""

Event = tuple[float, str, int]
"""When, where, and what."""

Rule = Callable[[Sequence[Event], set[frozenset[str]]], float]
"""Tells from a set's events so far, and from the sets there were before, how long it must be quiet."""


def quiet(seconds: float) -> Rule:
    """Wait for so much quiet, whatever came."""
    return lambda events, before: seconds


def lone_rename(seconds: float) -> Rule:
    """Wait for so little after a single rename onto a path, and for the settle time after all else."""

    def rule(events: Sequence[Event], before: set[frozenset[str]]) -> float:
        return seconds if len(events) == 1 and events[0][2] & flags.MOVED_TO else SETTLE

    return rule


def known_members(seconds: float) -> Rule:
    """Wait for so little once just those paths were changed that were a whole set before."""

    def rule(events: Sequence[Event], before: set[frozenset[str]]) -> float:
        return seconds if frozenset(path for _, path, _ in events) in before else SETTLE

    return rule


RULES = {
    "quiet for 20 ms": quiet(0.02),
    "10 ms": quiet(0.01),
    "5 ms": quiet(0.005),
    "2 ms": quiet(0.002),
    "lone rename 5 ms": lone_rename(0.005),
    "lone rename 2 ms": lone_rename(0.002),
    "known members 5 ms": known_members(0.005),
    "known members 2 ms": known_members(0.002),
}


def torn(events: Sequence[Event], rule: Rule, before: set[frozenset[str]]) -> bool:
    """Tell whether a rule closes a set before its last event, which no rule does while a file of it is open."""
    opened: set[str] = set()
    for number, (at, path, mask) in enumerate(events[:-1], 1):
        if mask & (flags.CREATE | flags.MODIFY) and not mask & flags.ISDIR:
            opened.add(path)
        if mask & (flags.CLOSE_WRITE | flags.MOVED_FROM | flags.MOVED_TO | flags.DELETE):
            opened.discard(path)
        if not opened and events[number][0] - at > rule(events[:number], before):
            return True
    return False


def record(script: str, number: int, top: Path, outside: Path) -> list[Event]:
    """Run a writer once and return the events that it caused."""
    watch = inotify_simple.INotify()
    mask = flags.MODIFY | flags.CLOSE_WRITE | flags.MOVED_FROM | flags.MOVED_TO | flags.CREATE | flags.DELETE
    watched = {watch.add_watch(top / name, mask): name for name in ("", "one", "two")}
    environment = {"outside": str(outside), "python": sys.executable, "PATH": os.environ["PATH"], "HOME": str(top)}
    events: list[Event] = []
    with subprocess.Popen(["bash", "-ec", script, "-", str(number)], env=environment, cwd=top) as working:
        running = True
        while running:
            running = working.poll() is None  # what is read after its end is all that there was
            found = watch.read(timeout=1 if running else 0)
            now = time.monotonic()
            events += [(now, f"{watched[event.wd]}/{event.name}", event.mask) for event in found]
    if working.returncode:
        raise SystemExit(f"bench: the writer failed: {script}")
    watch.close()
    return events


def _prepare(folder: Path) -> Path:
    """Make what the writers work from."""
    outside = folder / "outside"
    outside.mkdir(parents=True)
    for name in "ck":
        (outside / name).write_text(name * 1500)
    for tree in ("tree0", "tree1"):
        for number in range(60):
            path = outside / tree / ("one", "two")[number % 2] / f"file{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(tree * (200 + number))
        subprocess.run(["tar", "c", "-C", outside / tree, "-f", outside / f"{tree}.tar", "."], check=True)
        git = ["git", f"--git-dir={outside}/git", f"--work-tree={outside / tree}", "-c", "user.name=a"]
        git += ["-c", "user.email=a@example.org"]
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", tree], ["tag", tree]):
            subprocess.run([*git, *command], check=True)
    return outside


def _spin() -> None:
    while True:
        sum(range(1000))


def torn_sets(folder: Path) -> Iterator[str]:
    """Yield a table of how many runs each rule would have torn."""
    outside = _prepare(folder)
    yield f"torn of {2 * RUNS} runs: {'':<17}" + "".join(f"{name:>20}" for name in RULES)
    for name, script in WRITERS.items():
        counts = dict.fromkeys(RULES, 0)
        top = folder / "top"
        for directory in ("one", "two"):
            (top / directory).mkdir(parents=True)
        for path in ("one/a", "one/b"):
            (top / path).write_text("old\n")
        before: set[frozenset[str]] = set()
        busy = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(2 * (os.cpu_count() or 1))]
        for number in range(2 * RUNS):
            if number == RUNS:
                for process in busy:
                    process.start()
            threading.Event().wait(PAUSE)
            events = record(script, number, top, outside)
            for rule, judge in RULES.items():
                counts[rule] += torn(events, judge, before)
            before.add(frozenset(path for _, path, _ in events))
        for process in busy:
            process.kill()
            process.join()
        shutil.rmtree(top)
        yield f"{name:<40}" + "".join(f"{counts[rule]:>20}" for rule in RULES)
