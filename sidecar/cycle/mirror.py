"""One mapping at work: its engine, the thread that runs it, and what other threads ask of it.

Called by the daemon for `run`, and by `init` and `plan`.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial

from configstore.clock import boottime
from configstore.errors import RefusedError
from configstore.model.path import ROOT, StorePath
from configstore.model.replica import Request
from configstore.store.tree import Tree
from sidecar.cycle.assembly import Assembly
from sidecar.cycle.engine import Engine
from sidecar.cycle.lease import LeaseView
from sidecar.cycle.tickets import Tickets
from sidecar.cycle.unfinished import Unfinished
from sidecar.local.mirrored_directory import DirectoryLostError, MirroredDirectory
from sidecar.local.start_watch import start_watch
from sidecar.local.watch import LocalWatch
from sidecar.mapping import Mapping
from sidecar.process.footprint import CycleMemory
from sidecar.programs.hooks import Hooks
from sidecar.programs.on_problem import OnProblem
from sidecar.remote.side import RemoteSide
from sidecar.remote.watch import RemoteFeed, RemoteOnce, RemoteWatch
from sidecar.reporting.latency import Latency
from sidecar.reporting.publisher import Publisher
from sidecar.reporting.stalls import StallDetector
from sidecar.reporting.status import Status
from sidecar.state.directory import StateLocation

log = logging.getLogger(__name__)

_FIGURES = ("cycles", "revision", "applied", "paths", "pending", "pushed", "pulled")
"""Fields of `Status` that are logged after each cycle at the level debug; the last two count from the start."""

_SCAN_PAUSE, _SCAN_RETRY = 0.1, 1.0
"""Least and longest seconds between two full scans of `scan_until`; in between it waits for a cycle."""

TAKE_RETRY = 3.0
"""Seconds until a directory that could not be opened is tried again."""


class Mirror:
    """One mapping at work. Other threads may call everything but `cycle`, `start`, `join`, `unsent` and `close`.

    sets: how many sets were applied. The parameters:

    - watch: follow changes of both sides, as for `run`; a directory that cannot be opened is then tried again.
      Else both sides are read once, as for `init` and `plan`.
    - preview: change nothing; only `Engine.preview` may be used.
    - feed, local_watch: used instead of etcd's watch and of inotify.
    - state: opens the state directory of a mapping, as `StateDirectory.open`; None if the state is in the mount.
    - told: called when a new status is worth a report; advanced: when only the applied revision changed.
    - lease: the mapping's; None without one.
    """

    def __init__(
        self,
        mapping: Mapping,
        tree: Tree,
        *,
        watch: bool = False,
        preview: bool = False,
        feed: RemoteFeed | None = None,
        local_watch: Callable[[], LocalWatch] | None = None,
        clock: Callable[[], float] = boottime,
        state: Callable[[str, str], StateLocation | None] = lambda *_: None,
        told: Callable[[], None] = lambda: None,
        advanced: Callable[[], None] = lambda: None,
        lease: LeaseView | None = None,
    ) -> None:
        """Open the mirrored directory and read the baseline. Raises RefusedError; with `watch` it tries again."""
        self.mapping = mapping
        self._clock = clock
        self._told, self._advanced = told, advanced
        self.sets, self._patience = 0, 0.0
        self.progress = StallDetector(mapping.name, clock)
        self.latency = Latency()
        self._wake, self._stop, self._published = threading.Event(), threading.Event(), threading.Condition()
        self.hooks = Hooks(mapping, self._wake.set)
        self.alarm = OnProblem(mapping, told, self.stuck)
        new_tickets = partial(Tickets, self._published, wake=self._wake.set, ended=self._stop.is_set)
        self._flushes, self._scans = new_tickets(), new_tickets()
        self._unfinished: tuple[Unfinished | None, int] = None, 0  # of the last scan, and its number of cycles
        self._others: int | None = None
        self._watching, self._make_local_watch = watch, local_watch
        follows = watch and feed is None
        self._remote_watch = RemoteWatch(tree, mapping, self._wake.set, self._known) if follows else None
        self._feed = feed or self._remote_watch or RemoteOnce(tree, mapping, self._known)
        self._resources = ExitStack()
        self._lost: str | None = None
        self._engine: Engine | None = None
        self._remote: RemoteSide | None = None
        self._publisher = self._make_publisher()
        self._assembly = self._make_assembly(tree, lease or LeaseView(), state, preview=preview)
        self._open_first()
        self._thread = threading.Thread(target=self._run, name=f"engine:{mapping.name}", daemon=True)

    @property
    def engine(self) -> Engine:
        """The engine at work. Raises RefusedError while the directory cannot be opened."""
        if self._engine is None:
            raise RefusedError(self._lost or f"{self.mapping.path}: not mirrored yet")
        return self._engine

    @property
    def status(self) -> Status:
        """The state of the mapping; from any thread."""
        return self._publisher.status

    @property
    def lost(self) -> int:
        """How many times the store's version replaced a local change."""
        return self._engine.lost if self._engine else 0

    def _known(self) -> int:
        """Return the newest revision of the store that is known; from the feed's thread, too."""
        remote = self._remote  # read once: the engine's thread lets go of it when the directory is lost
        return remote.highest if remote else 0

    def _make_publisher(self) -> Publisher:
        return Publisher(
            self.mapping.name,
            required=self.mapping.required,
            clock=self._clock,
            published=self._note_published,
            hook_failure=lambda: self.hooks.failure,
        )

    def _make_assembly(
        self,
        tree: Tree,
        lease: LeaseView,
        open_state: Callable[[str, str], StateLocation | None],
        *,
        preview: bool,
    ) -> Assembly:
        make_engine = partial(
            Engine,
            mapping=self.mapping,
            publisher=self._publisher,
            clock=self._clock,
            lease=lease,
            after_apply=self._note_set,
            tick=self.progress.tick,
            new_id=tree.new_write_id,
            latency=self.latency,
        )
        return Assembly(
            mapping=self.mapping,
            tree=tree,
            feed=self._feed,
            open_state=open_state,
            make_watch=self._begin_watch,
            make_engine=make_engine,
            clock=self._clock,
            preview=preview,
        )

    def _begin_watch(self, root: MirroredDirectory) -> LocalWatch | None:
        if self._make_local_watch:
            return self._make_local_watch()
        return start_watch(self.mapping.watch, root, self._wake.set) if self._watching else None

    def _open_first(self) -> None:
        try:
            self._open()
        except RefusedError as error:
            self._resources.close()
            if not self._watching:
                raise
            self._lost = str(error)
            self._publisher.begin_anew(self._lost)
        except BaseException:
            self._resources.close()
            raise

    def _open(self) -> None:
        """Open the mirrored directory and put an engine together for it. Raises RefusedError."""
        self._engine, self._remote = self._assembly.open(self._resources)
        self._engine.lease.yield_to(self._others)  # also when the directory was replaced meanwhile

    def _open_again(self, reason: str) -> float:
        """Open a directory that was emptied or replaced: without a baseline it pulls and deletes nothing.

        Returns the seconds until the next cycle.
        """
        self._resources.close()
        self._engine = self._remote = None
        try:
            self._open()
        except RefusedError as error:
            self._resources.close()
            self._feed.drain()  # the next engine begins with a listing of its own
            self._lost = str(error)
            self._publisher.begin_anew(self._lost)
            return TAKE_RETRY
        log.error("beginning anew, without a baseline", extra={"mapping": self.mapping.name, "reason": reason})
        self._lost = None
        self._publisher.begin_anew("the directory was replaced; it is filled anew")
        self._feed.list_again()
        return 0.0

    def start(self) -> None:
        """Start the threads; they mirror until `stop`."""
        if self._remote_watch:
            self._remote_watch.start()
        self.hooks.start()
        self.alarm.start()
        self._thread.start()

    def flush(self, patience: float | Iterable[float]) -> Status | None:
        """Have all local changes committed that were made before this call.

        Waits at most `patience` seconds, which may come in parts. Returns the status when that was done, and None
        when the time was over; what could not be committed is a problem in the status.
        """
        ticket = self._flushes.issue()
        for part in [patience] if isinstance(patience, float) else patience:
            done = self._flushes.wait(ticket, part)
            if done or self._stop.is_set():
                return self.status if done else None
        return None

    def scan_until(self, patience: float, enough: Callable[[Unfinished], bool]) -> Unfinished | None:
        """Make full scans until `enough` returns true, and return what is unfinished after the last one.

        Waits at most `patience` seconds; returns None if no scan ended in that time. A scan is made after each
        cycle, since a cycle follows each event; but not more often than every _SCAN_PAUSE seconds.
        """
        end, seen = self._clock() + patience, None
        while not self._stop.is_set() and self._scans.wait(self._scans.issue(), max(0.0, end - self._clock())):
            seen, cycles = self._unfinished
            if (seen and enough(seen)) or self._clock() >= end:
                break
            self._stop.wait(_SCAN_PAUSE)
            self._wait_for_cycle(cycles, min(end - self._clock(), _SCAN_RETRY))
        return seen

    def _wait_for_cycle(self, known: int, patience: float) -> None:
        """Wait until the number of cycles is not `known`."""
        with self._published:
            self._published.wait_for(
                lambda: self.status.cycles != known or self._stop.is_set(), max(0.0, patience)
            )

    def list_again(self) -> None:
        """Have the store listed again soon."""
        self._feed.list_again()

    def wake(self) -> None:
        """Have a cycle made soon."""
        self._wake.set()

    def yield_to(self, others: int | None) -> None:
        """Let unsent local changes give way to those of other holders; see `MappingLease.yield_to`."""
        self._others = others
        if self._engine:
            self._engine.lease.yield_to(others)

    def wait_applied(self, revision: int, patience: float) -> bool:
        """Wait until everything up to a revision of the store is applied here; returns whether it is.

        While the mapping cannot be mirrored nothing counts as applied: a store without it has no revisions.
        """

        def applied() -> bool:
            now = self.status
            return now.ready and not (now.waiting_for or now.halted) and now.applied >= revision

        with self._published:
            return self._published.wait_for(applied, patience)

    def wait_for_sets(self, known: int, patience: float) -> int:
        """Wait until the number of applied sets is not `known`, and return it."""
        with self._published:
            self._published.wait_for(lambda: self.sets != known or self._stop.is_set(), patience)
            return self.sets

    def _note_set(self, _: object) -> None:
        with self._published:
            self.sets += 1
            self._published.notify_all()
        self.hooks.changed()

    def _note_published(self, before: Status, now: Status) -> None:
        with self._published:
            self._published.notify_all()
        self.alarm.seen(now)
        if now.ready and not before.ready:
            self.hooks.changed()  # a process that died may have applied a set without running its hook
        if not now.looks_as(before):
            self._told()
        elif now.applied != before.applied:
            self._advanced()

    def request(self, request: Request) -> None:
        """Hand a person's request to the engine."""
        if self._engine:
            self._engine.request(request)
        self._wake.set()

    def stop(self, patience: float) -> None:
        """Request the end; local changes are sent for at most `patience` seconds. `join` waits for it."""
        self._patience = patience
        self._stop.set()
        self._wake.set()
        with self._published:
            self._published.notify_all()

    def join(self) -> None:
        """Wait for the end of the engine's thread, after `stop`."""
        if self._thread.ident:
            self._thread.join()

    def stuck(self) -> str | None:
        """Return why this mapping makes no progress, or None."""
        return self.progress.stuck(self._clock())

    def unsent(self) -> dict[StorePath, str]:
        """Return the paths whose local state the store does not have, each with the reason; after `join`."""
        if self._engine is None:
            return {ROOT: self._lost or "it was never mirrored"}
        try:
            return self.engine.unsent()
        except DirectoryLostError as lost:
            return {ROOT: str(lost)}

    def close(self) -> None:
        """Close everything that is open, after `join`."""
        self.hooks.close()
        self.alarm.close()
        if self._remote_watch:
            self._remote_watch.close()
        self._resources.close()

    # The engine's thread

    def _run(self) -> None:
        due, memory = 0.0, CycleMemory()
        while not self._stop.is_set():
            self._wake.wait(due)
            self._wake.clear()
            # Read before the cycle: what is ordered while it runs is done by the next one.
            flushes, scans = self._flushes.issued, self._scans.issued
            ordered = not (self._flushes.is_finished(flushes) and self._scans.is_finished(scans))
            due = self.cycle(flush=ordered)
            self._finish_orders(flushes, scans)
            memory.cycle_over(ready=self.status.ready, changed=self.status.pulled + self.status.pushed)
        self._flush()

    def cycle(self, *, flush: bool = False) -> float:
        """Make a cycle, or open the directory again; returns the seconds until the next one.

        After `start` only the mapping's own thread calls it. Without `start` the caller runs it step by step.
        """
        before = self.status
        self.progress.begin()
        try:
            if self._lost is None:
                try:
                    return self.engine.cycle(flush=flush)
                except DirectoryLostError as lost:
                    self._lost = str(lost)
            return self._open_again(self._lost)
        finally:
            now = self.status
            self.progress.end((now.pushed, now.pulled, now.paths) != (before.pushed, before.pulled, before.paths))
            if log.isEnabledFor(logging.DEBUG):
                figures = {name: getattr(now, name) for name in _FIGURES}
                log.debug(
                    "a cycle is over", extra={"mapping": self.mapping.name, "state": str(now.state), **figures}
                )

    def _finish_orders(self, flushes: int, scans: int) -> None:
        """Finish the scans up to a number, and the flushes if nothing is left that could still be sent."""
        status = self.status
        if not self._flushes.is_finished(flushes) and not (
            status.waiting_for or status.halted or status.under_way
        ):
            self._flushes.finish(flushes)
        if not self._scans.is_finished(scans):
            self._unfinished = (self._engine.unfinished() if self._engine else None), self.status.cycles
            self._scans.finish(scans)

    def _flush(self) -> None:
        """Send what can be sent within the patience of `stop`."""
        end = self._clock() + self._patience
        while (left := end - self._clock()) > 0:
            due = self.cycle(flush=True)
            if self.status.waiting_for or self.status.halted or not self.status.pending:
                return
            self._wake.wait(min(left, due))
            self._wake.clear()
