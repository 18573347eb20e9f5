"""What is measured of each program, by nothing but its two directories."""

import concurrent.futures
import contextlib
import hashlib
import itertools
import os
import random
import secrets
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import inotify_simple
from inotify_simple import flags

from tests.bench.peers.place import AbsentError, Running
from tests.bench.peers.programs import SET

LATE = 15.0
"""Seconds after which an edit counts as not arrived."""

SIZE = 2048

_SIZES = itertools.count()


def content(size: int | None = None) -> bytes:
    """Return new content that tells of itself whether it is whole.

    Without a size it is of some other one each time: two edits within a second are told apart by all programs
    then. What becomes of equal ones, `edit_in_a_hurry` shows.
    """
    size = size or SIZE + next(_SIZES) % 256
    rest = secrets.token_hex(size // 2 + 1).encode()[: size - 65]
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def whole(found: bytes) -> bool:
    """Tell whether content is as `content` made it."""
    return hashlib.sha256(found[65:]).hexdigest().encode() == found[:64]


class Arrivals(Protocol):
    """Tells when files have come to the target."""

    def wait(self, expected: dict[str, bytes], deadline: float) -> dict[str, tuple[float, float]] | None:
        """Return first and last moment at which each name changed until it had the content; None when too late."""

    def count(self, names: set[str], deadline: float) -> tuple[int, float]:
        """Return how many of the names came until the deadline, and when the last of them did; by perf_counter."""


class Told:
    """Arrivals by inotify: a file was renamed into place, or closed after writing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._inotify = inotify_simple.INotify()
        self._inotify.add_watch(directory, flags.MOVED_TO | flags.CLOSE_WRITE)

    def _read(self, end: float) -> list[tuple[float, str]]:
        events = self._inotify.read(timeout=max(0, min(1000, (end - time.perf_counter()) * 1000)))
        now = time.perf_counter()
        return [(now, event.name) for event in events]

    def wait(self, expected: dict[str, bytes], deadline: float) -> dict[str, tuple[float, float]] | None:
        """Take the events of these names, and look at the contents once all have come."""
        end = time.perf_counter() + deadline
        times: dict[str, tuple[float, float]] = {}
        while time.perf_counter() < end:
            news = [(when, name) for when, name in self._read(end) if name in expected]
            for when, name in news:
                times[name] = (times.get(name, (when,))[0], when)
            if (
                news
                and len(times) == len(expected)
                and all(_is(self._directory / n, c) for n, c in expected.items())
            ):
                return times
        return None

    def count(self, names: set[str], deadline: float) -> tuple[int, float]:
        """Count each name once."""
        missing, last = set(names), time.perf_counter()
        while missing and time.perf_counter() < deadline:
            for when, name in self._read(deadline):
                if name in missing:
                    missing.remove(name)
                    last = when
        return len(names) - len(missing), last


class Looked:
    """Arrivals by looking again and again: what a reader on the other host would see."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def wait(self, expected: dict[str, bytes], deadline: float) -> dict[str, tuple[float, float]] | None:
        """Read the files until each has its content."""
        end = time.perf_counter() + deadline
        times: dict[str, tuple[float, float]] = {}
        while time.perf_counter() < end:
            for name in [name for name in expected if name not in times]:
                if _is(self._directory / name, expected[name]):
                    now = time.perf_counter()
                    times[name] = (now, now)
            if len(times) == len(expected):
                return times
            time.sleep(0.0003)
        return None

    def count(self, names: set[str], deadline: float) -> tuple[int, float]:
        """List the directory until all are there."""
        found, last = 0, time.perf_counter()
        while found < len(names) and time.perf_counter() < deadline:
            now = len(names.intersection(os.listdir(self._directory)))
            if now > found:
                found, last = now, time.perf_counter()
            time.sleep(0.005)
        return found, last


def _is(path: Path, expected: bytes) -> bool:
    with contextlib.suppress(OSError):
        return path.read_bytes() == expected
    return False


@dataclass
class Results:
    """All that was seen of one program."""

    edits: list[float] = field(default_factory=list)
    """Milliseconds of each edit until it was on the other side."""
    sets: list[float] = field(default_factory=list)
    mixed: list[float] = field(default_factory=list)
    """Milliseconds for which the other side had old and new of a set."""
    late: int = 0
    """Edits and sets that were not there after LATE seconds."""
    files_per_second: float | None = None
    torn: int = 0
    torn_of: int = 0
    lost: int = 0
    lost_of: int = 0


class Meter:
    """Measures one running program."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.results = Results()
        self._arrivals: Arrivals | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def get_ready(self, deadline: float) -> None:
        """Write until something arrives, then what is edited later. Raises AbsentError when it does not."""
        end = time.monotonic() + deadline
        while not (self.running.target / "edited").exists() or not self._replace({"edited": content()}, 2.0):
            if time.monotonic() > end:
                raise AbsentError(f"nothing arrived within {deadline:.0f} s")
            (self.running.source / "edited").write_bytes(content())
            time.sleep(0.3)
        names = [f"set-{number:02d}" for number in range(SET)]
        if self._replace({name: content() for name in names}, deadline) is None:
            raise AbsentError(f"a first set did not arrive within {deadline:.0f} s")

    def _watch(self) -> Arrivals:
        if self._arrivals is None:
            self._arrivals = Told(self.running.target) if self.running.events else Looked(self.running.target)
        return self._arrivals

    def _replace(self, contents: dict[str, bytes], deadline: float) -> tuple[float, float, float] | None:
        """Rename files into the source; returns seconds until the last was there, the first was, and between."""
        for name, new in contents.items():
            (self.running.scratch / name).write_bytes(new)
        arrived = self._thread.submit(self._watch().wait, contents, deadline)
        start = time.perf_counter()
        for name in contents:
            os.rename(self.running.scratch / name, self.running.source / name)
        times = arrived.result()
        if times is None:
            return None
        first, last = min(first for first, _ in times.values()), max(last for _, last in times.values())
        return last - start, first - start, last - first

    def edit(self, seconds: float, most: int) -> None:
        """Replace one file again and again, at moments that are in step with nobody's timer."""
        end = time.monotonic() + seconds
        for _ in range(most):
            if time.monotonic() > end:
                return
            time.sleep(random.uniform(0, 0.1))
            took = self._replace({"edited": content()}, LATE)
            if took is None:
                self.results.late += 1
                return
            self.results.edits.append(took[0] * 1000)

    def replace_sets(self, seconds: float, most: int) -> None:
        """Replace the files of a set back to back."""
        end = time.monotonic() + seconds
        for _ in range(most):
            if time.monotonic() > end:
                return
            time.sleep(random.uniform(0, 0.1))
            took = self._replace({f"set-{number:02d}": content() for number in range(SET)}, LATE)
            if took is None:
                self.results.late += 1
                return
            self.results.sets.append(took[0] * 1000)
            self.results.mixed.append(took[2] * 1000)

    def make_files(self, most: int) -> None:
        """Write new files as fast as it goes, as many as should take some 8 s; count those that come in 20 s."""
        if self.running.fixed:
            return
        rate = SET / (statistics.median(self.results.sets) / 1000) if self.results.sets else 1.0
        count = round(min(most, max(SET, 8 * rate)))
        contents = {f"new-{number}": content(1024) for number in range(count)}
        start = time.perf_counter()
        counted = self._thread.submit(self._watch().count, set(contents), start + 20)
        for name, new in contents.items():
            with open(self.running.source / name, "xb") as file:
                file.write(new)
        found, last = counted.result()
        self.results.files_per_second = found / (last - start) if found else 0.0

    def write_slowly(self, pauses: list[float]) -> None:
        """Write a file in place, with a pause in its middle, and read at the other side all the while."""
        name = "edited"
        for pause in pauses:
            new, stop, torn = content(65_536), threading.Event(), threading.Event()
            reader = threading.Thread(target=self._read_all_the_while, args=(name, stop, torn))
            reader.start()
            with open(self.running.source / name, "wb", buffering=0) as file:
                file.write(new[:32_768])
                time.sleep(pause)
                file.write(new[32_768:])
            end = time.monotonic() + LATE
            while not _is(self.running.target / name, new) and time.monotonic() < end:
                time.sleep(0.005)
            stop.set()
            reader.join()
            self.results.torn += torn.is_set()
            self.results.torn_of += 1

    def _read_all_the_while(self, name: str, stop: threading.Event, torn: threading.Event) -> None:
        known = b""
        while not stop.is_set():
            with contextlib.suppress(OSError):
                found = (self.running.target / name).read_bytes()
                if found != known and not whole(found):
                    torn.set()
                known = found
            time.sleep(0.003)

    def edit_in_a_hurry(self, count: int) -> None:
        """Replace one file by others of its size, many times back to back: the last content has to arrive."""
        for _ in range(count):
            (self.running.scratch / "set-00").write_bytes(content(SIZE))
            os.rename(self.running.scratch / "set-00", self.running.source / "set-00")

    def compare(self, seconds: float) -> None:
        """Count the files that are not there, or not as they should be, after all that time."""
        end = time.monotonic() + seconds
        names = [entry.name for entry in os.scandir(self.running.source) if entry.is_file()]
        different = names
        while different:
            different = [
                name for name in different
                if not _is(self.running.target / name, (self.running.source / name).read_bytes())
            ]  # fmt: skip
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        self.results.lost, self.results.lost_of = len(different), len(names)


def quantile(samples: list[float], share: float) -> float:
    """Return the value that this share of the samples does not exceed."""
    if len(samples) == 1:
        return samples[0]
    return statistics.quantiles(samples, n=100, method="inclusive")[round(share * 100) - 1]
