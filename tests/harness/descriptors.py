"""Who left descriptors open: a process that runs hundreds of tests must not run out of them."""

import os
from collections import Counter

from tests.harness.waiting import wait_until

MOST = 40
"""How many more may be open at the end than in the beginning: of the interpreter, of pytest and of libraries."""


def open_now() -> Counter[str]:
    """Return what this process has open, by what it is."""
    found: Counter[str] = Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{descriptor}")] += 1
        except FileNotFoundError:  # the listing's own
            continue
    return found


class Watcher:
    """Notes after which tests more was open than before, and fails at the end when too much is left."""

    def __init__(self) -> None:
        self._before = self._now = open_now()
        self._left: Counter[str] = Counter()

    def after(self, test: str) -> None:
        """Note what a test left, or took away."""
        before, self._now = self._now, open_now()
        self._left[test] += self._now.total() - before.total()

    def check(self, patience: float = 10) -> None:
        """Fail when too much is open that was not in the beginning; gRPC closes some of it a little later."""
        wait_until(lambda: open_now().total() <= self._before.total() + MOST, what=self._words, bound=patience)

    def _words(self) -> str:
        left = open_now() - self._before
        return f"{left.total()} descriptors were left open: {left.most_common(8)}; by {self._left.most_common(8)}"
