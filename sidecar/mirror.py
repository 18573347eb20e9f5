"""Puts the parts of one mapping together. Called by the daemon for `run`, and by `init` and `plan`."""

import threading
import time
from collections.abc import Callable

from configstore.store.tree import Tree
from sidecar.baseline import Baseline, Identity
from sidecar.engine import Engine
from sidecar.local.apply import Applier
from sidecar.local.root import Root
from sidecar.local.scan import Scanner
from sidecar.local.watch import LocalWatch, choose
from sidecar.planner.mapping import Mapping
from sidecar.planner.planner import Sides
from sidecar.remote.fetch import RemoteSide
from sidecar.remote.watch import RemoteOnce, RemoteWatch
from sidecar.transfer import Transfer

FLUSH = 5.0
"""Seconds that a stopping mirror may take to send what is still under way."""


class Mirror:
    """One mapping at work: its engine, the threads that wake it, and the thread that runs it."""

    def __init__(
        self, mapping: Mapping, tree: Tree, *, watch: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open the directory and read the baseline. Raises RefusedError when it cannot be mirrored at all.

        watch: follow changes of both sides, as `run` needs it; else look once, as `init` and `plan` do.
        """
        self.mapping = mapping
        self._clock = clock
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._root = Root(mapping.path)
        self._baseline = Baseline.load(self._root.private_fd, Identity(root=tree.keys.root, store=mapping.store))
        sides = Sides(baseline=self._baseline.agreed)
        self._local_watch: LocalWatch | None = choose(mapping.watch, self._root, self._wake.set) if watch else None
        ensure = self._local_watch.ensure if self._local_watch else _watch_nothing
        scanner = Scanner(self._root, mapping, ensure)
        remote = RemoteSide(tree, mapping, sides)
        self._remote_watch = RemoteWatch(tree, mapping, self._wake.set) if watch else None
        self.engine = Engine(
            mapping=mapping,
            root=self._root,
            sides=sides,
            scanner=scanner,
            local_watch=self._local_watch,
            remote=remote,
            feed=self._remote_watch or RemoteOnce(tree, mapping),
            transfer=Transfer(
                mapping=mapping,
                tree=tree,
                sides=sides,
                remote=remote,
                baseline=self._baseline,
                scanner=scanner,
                applier=Applier(self._root, mapping),
            ),
            clock=clock,
        )
        self._thread = threading.Thread(target=self._run, name=f"engine:{mapping.name}", daemon=True)

    def start(self) -> None:
        """Mirror until `stop`."""
        if self._remote_watch:
            self._remote_watch.start()
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end; `join` waits for it."""
        self._stop.set()
        self._wake.set()

    def join(self) -> None:
        """Wait until everything under way was sent, for at most FLUSH seconds."""
        if self._thread.ident:
            self._thread.join()

    def close(self) -> None:
        """Release what is open, after `join`."""
        if self._remote_watch:
            self._remote_watch.close()
        if self._local_watch:
            self._local_watch.close()
        self._baseline.close()
        self._root.close()

    def _run(self) -> None:
        due: float | None = 0.0
        while not self._stop.is_set():
            self._wake.wait(due)
            self._wake.clear()
            due = self.engine.cycle()
        self._flush()

    def _flush(self) -> None:
        end = self._clock() + FLUSH
        while (left := end - self._clock()) > 0:
            due = self.engine.cycle(flush=True)
            if self.engine.status.waiting_for or self.engine.status.halted or not self.engine.status.pending:
                return
            self._wake.wait(min(left, due if due is not None else left))
            self._wake.clear()


def _watch_nothing(*_: object) -> None:
    """Stand in for a watch where nobody waits for changes."""
