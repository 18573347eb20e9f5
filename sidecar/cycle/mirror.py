"""Puts the parts of one mapping together. Called by the daemon for `run`, and by `init` and `plan`."""

import logging
import secrets
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from configstore.clock import boottime
from configstore.errors import RefusedError
from configstore.files.reasons import why_failed
from configstore.model.path import PRIVATE_NAME, ROOT, StorePath
from configstore.model.replica import Request
from configstore.model.selection import Direction
from configstore.store.tree import Tree
from sidecar.cycle.engine import Engine
from sidecar.cycle.execute import Executor
from sidecar.cycle.lease import LeaseView, NoLease
from sidecar.cycle.unfinished import Unfinished
from sidecar.local.apply import Applier
from sidecar.local.journal import Journal
from sidecar.local.mirrored_directory import DirectoryLostError, MirroredDirectory
from sidecar.local.recovery import recover
from sidecar.local.scan import Scanner
from sidecar.local.side import LocalSide
from sidecar.local.watch import LocalWatch, choose
from sidecar.mapping import Mapping
from sidecar.process import footprint
from sidecar.programs.hooks import Hooks
from sidecar.programs.on_problem import OnProblem
from sidecar.remote.side import RemoteSide
from sidecar.remote.watch import RemoteFeed, RemoteOnce, RemoteWatch
from sidecar.reporting.latency import Latency
from sidecar.reporting.publisher import Publisher
from sidecar.reporting.stalls import StallDetector
from sidecar.reporting.status import Status
from sidecar.state.baseline import Baseline, Identity, mark_in
from sidecar.state.directory import StateLocation

log = logging.getLogger(__name__)

_FIGURES = ("cycles", "revision", "applied", "paths", "pending", "pushed", "pulled")
"""What the log tells of each cycle at the level debug; counted from the start."""

BURST = 50
"""Paths moved after which freed memory is given back, as it is after the first full cycle."""

_LOOK_PAUSE = 0.1
"""Seconds between two looks at everything for somebody who waits."""

TAKE_RETRY = 3.0
"""Seconds until a directory that could not be taken is tried again."""


class Mirror:
    """One mapping at work: its engine, the threads that wake it, and the thread that runs it."""

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
        """Open the directory and read the baseline.

        watch: follow changes of both sides, as `run` needs it; a directory that cannot be taken is then tried
        again. Else look once, as `init` and `plan` do, and raise RefusedError when it cannot be mirrored at all.
        preview: change nothing, as `plan` must; `cycle` and `pull_once` cannot be used then. feed: instead of
        etcd's watch. local_watch: makes what is used instead of inotify. state: opens the place for the state, as
        `StateDirectory.open`; None for the mount. told: called when there is something new to report; advanced:
        when it is only further on. lease: that of the mapping; None where nobody can hold one.
        """
        self.mapping = mapping
        self._tree = tree
        self._clock = clock
        self._open_state = state
        self._told = told
        self._advanced = advanced
        self._lease = lease or NoLease()
        self.sets = 0
        self.progress = StallDetector(mapping.name, clock)
        self.latency = Latency()
        self._wake = threading.Event()
        self.hooks = Hooks(mapping, self._wake.set)
        self.alarm = OnProblem(mapping, told, self.stuck)
        self._published = threading.Condition()
        self._flushes_wanted = self._flushes_made = 0
        self._looks_wanted = self._looks_made = 0
        self._standing: Unfinished | None = None
        self._others: int | None = None
        self._stop = threading.Event()
        self._patience = 0.0
        self._watching = watch
        self._preview = preview
        self._make_local_watch = local_watch
        self._remote_watch: RemoteWatch | None = None
        self._feed = feed or self._make_feed()
        self._parts = ExitStack()
        self._lost: str | None = None
        self._engine: Engine | None = None
        self._board = Publisher(
            mapping.name,
            required=mapping.required,
            clock=clock,
            published=self._tell,
            hook_failure=lambda: self.hooks.failure,
        )
        try:
            self._begin()
        except RefusedError as error:
            self._parts.close()
            if not watch:
                raise
            self._lost = str(error)
            self._board.begin_anew(self._lost)
        except BaseException:
            self._parts.close()
            raise
        self._thread = threading.Thread(target=self._run, name=f"engine:{mapping.name}", daemon=True)

    @property
    def engine(self) -> Engine:
        """The engine at work. Raises RefusedError while the directory cannot be taken."""
        if self._engine is None:
            raise RefusedError(self._lost or f"{self.mapping.path}: not mirrored yet")
        return self._engine

    @property
    def status(self) -> Status:
        """What the mapping is doing; from any thread."""
        return self._board.status

    @property
    def lost(self) -> int:
        """How many times the store's version took the place of a change made here; from any thread."""
        return self._engine.lost if self._engine else 0

    def _make_feed(self) -> RemoteFeed:
        if not self._watching:
            return RemoteOnce(self._tree, self.mapping, self._known)
        self._remote_watch = RemoteWatch(self._tree, self.mapping, self._wake.set, self._known)
        return self._remote_watch

    def _known(self) -> int:
        """Return the newest revision of the store that is known of; from any thread."""
        return self._remote.highest if self._engine else 0

    def _begin(self) -> None:
        """Open the directory and put an engine together for it. Raises RefusedError."""
        mapping, tree, parts = self.mapping, self._tree, self._parts
        place = self._open_state(mapping.name, mapping.path)
        if place:
            parts.callback(place.close)
        known = mark_in(place.descriptor) if place else ""
        root = MirroredDirectory(
            mapping.path,
            within=mapping.within,
            mark=known,
            prepare=not self._preview,
            only_read=mapping.direction is Direction.PUSH,
        )
        parts.callback(root.close)
        if not self._preview:
            root.claim()
        baseline, journal = self._begin_state(root, place)
        local_watch = self._begin_watch(root)
        scanner = Scanner(root, mapping, local_watch)
        sides = baseline.sides
        self._remote = RemoteSide(
            tree, mapping, sides, feed=self._feed, agree=baseline.agree_with_own, clock=self._clock
        )
        self._engine = Engine(
            mapping=mapping,
            baseline=baseline,
            local=LocalSide(mapping, sides, root=root, scanner=scanner, watch=local_watch, clock=self._clock),
            remote=self._remote,
            transfer=Executor(
                mapping=mapping,
                tree=tree,
                baseline=baseline,
                remote=self._remote,
                scanner=scanner,
                applier=Applier(root, mapping, journal, scanner.note, local_watch),
            ),
            board=self._board,
            clock=self._clock,
            lease=self._lease,
            after_apply=self._note_set,
            tick=self.progress.tick,
            new_id=tree.new_write_id,
            latency=self.latency,
        )
        self._engine.leased.yield_to(self._others)  # also when it begins anew

    def _begin_state(self, root: MirroredDirectory, place: StateLocation | None) -> tuple[Baseline, Journal]:
        """Read what is remembered of this mount, and finish what a dead run began. Raises RefusedError.

        A journal without a baseline of this mount speaks of another one. What lies in the mount from a version
        that knew no other place counts when this place was made just now, if nobody but us can have written it;
        then never again. A read-only directory bears no mark, so that nothing of an earlier run counts there.
        """
        mapping, private = self.mapping, root.private
        if root.read_only and place is None and not self._preview:
            raise RefusedError(
                f"{root.path}: is read-only, and what is remembered would lie in it: give the sidecar a directory"
                " of its own for that ([state] directory, CONFIGSTORE_STATE)"
            )
        ours = place is not None
        directory = place.descriptor if place else private.fd
        first = self._preview or place is None or place.is_new
        older = private.fd if first and (private.surely_ours or self._preview) else -1
        try:
            if root.read_only:
                private.mark = secrets.token_hex(16)
            elif not private.mark and not self._preview:
                private.renew_mark()
            identity = Identity(root=self._tree.keys.root, store=mapping.store, mark=private.mark)
            baseline = Baseline(directory, identity, ours=ours, older=older, read_only=self._preview)
            self._parts.callback(baseline.close)
            journal = Journal(directory, ours=ours)
            self._parts.callback(journal.close)
            if root.read_only and not self._preview:
                journal.clear()
            elif not self._preview:
                before = Journal(older, ours=True)
                _finish_dead_run(root, baseline, before if baseline.is_new else journal)
                journal.clear()
                if older >= 0 and older != directory:
                    before.remove()
        except OSError as error:
            where = place.path if place else f"{root.path}/{PRIVATE_NAME}"
            reason = f"what a dead run left cannot be finished, or {where} cannot be used: {why_failed(error)}"
            raise RefusedError(f"{root.path}: cannot be mirrored: {reason}") from error
        return baseline, journal

    def _begin_watch(self, root: MirroredDirectory) -> LocalWatch | None:
        if self._make_local_watch:
            watch = self._make_local_watch()
        elif self._watching:
            watch = choose(self.mapping.watch, root, self._wake.set)
        else:
            return None
        self._parts.callback(watch.close)
        return watch

    def _begin_anew(self, reason: str) -> float:
        """Take the directory for a fresh one, since it was emptied or replaced: it pulls and deletes nothing."""
        self._parts.close()
        self._engine = None
        try:
            self._begin()
        except RefusedError as error:
            self._parts.close()
            self._feed.drain()  # the next engine begins with a listing of its own
            self._lost = str(error)
            self._board.begin_anew(self._lost)
            return TAKE_RETRY
        log.error("beginning anew, without a baseline", extra={"mapping": self.mapping.name, "reason": reason})
        self._lost = None
        self._board.begin_anew("the directory was replaced; it is filled anew")
        self._feed.list_again()
        return 0.0

    def start(self) -> None:
        """Mirror until `stop`."""
        if self._remote_watch:
            self._remote_watch.start()
        self.hooks.start()
        self.alarm.start()
        self._thread.start()

    def flush(self, patience: float | Iterable[float]) -> Status | None:
        """Have everything that was changed here committed; from any thread.

        Waits at most `patience` seconds, be it in several parts; returns the status when it was done, else None.
        Problems are in it.
        """
        with self._published:
            self._flushes_wanted += 1
            ticket = self._flushes_wanted
            self._wake.set()
        for part in [patience] if isinstance(patience, float) else patience:
            with self._published:
                done = self._published.wait_for(lambda: self._flushes_made >= ticket or self._stop.is_set(), part)
                if done:
                    return self.status if self._flushes_made >= ticket else None
        return None

    def stand(self, patience: float, enough: Callable[[Unfinished], bool]) -> Unfinished | None:
        """Look at everything, again and again until `enough` is said, and return how the mapping stands.

        From any thread. Waits at most `patience` seconds; returns what was seen last then, None for nothing.
        """
        end, seen = self._clock() + patience, None
        while not self._stop.is_set():
            if not self._look_for(max(0.0, end - self._clock())):
                break
            seen = self._standing
            if (seen and enough(seen)) or self._clock() >= end:
                break
            self._stop.wait(_LOOK_PAUSE)
        return seen

    def _look_for(self, patience: float) -> bool:
        """Have everything looked at once; returns whether that was done in time."""
        with self._published:
            self._looks_wanted += 1
            ticket = self._looks_wanted
            self._wake.set()
            self._published.wait_for(lambda: self._looks_made >= ticket or self._stop.is_set(), patience)
            return self._looks_made >= ticket

    def list_again(self) -> None:
        """Have all that the store holds read again soon; from any thread."""
        self._feed.list_again()

    def wake(self) -> None:
        """Have a cycle made soon; from any thread."""
        self._wake.set()

    def yield_to(self, others: int | None) -> None:
        """Have what lies here unsent give way to what others made; see `Leased.yield_to`. From any thread."""
        self._others = others
        if self._engine:
            self._engine.leased.yield_to(others)

    def wait_applied(self, revision: int, patience: float) -> bool:
        """Wait until everything up to a revision of the store is applied here; from any thread.

        Nothing counts as applied while the mapping cannot be mirrored: a store without it has no revisions.
        """

        def applied() -> bool:
            now = self.status
            return now.ready and not (now.waiting_for or now.halted) and now.applied >= revision

        with self._published:
            return self._published.wait_for(applied, patience)

    def wait_for_sets(self, known: int, patience: float) -> int:
        """Wait until another number of sets was applied than is known, and return it; from any thread."""
        with self._published:
            self._published.wait_for(lambda: self.sets != known or self._stop.is_set(), patience)
            return self.sets

    def _note_set(self, _: object) -> None:
        with self._published:
            self.sets += 1
            self._published.notify_all()
        self.hooks.changed()

    def _tell(self, before: Status, now: Status) -> None:
        with self._published:
            self._published.notify_all()
        self.alarm.seen(now)
        if now.ready and not before.ready:
            self.hooks.changed()  # a run that died may have applied a set and no more
        if not now.looks_as(before):
            self._told()
        elif now.applied != before.applied:
            self._advanced()

    def request(self, request: Request) -> None:
        """Hand a person's choice to the engine; from any thread."""
        if self._engine:
            self._engine.request(request)
        self._wake.set()

    def stop(self, patience: float) -> None:
        """Ask for the end, at most `patience` seconds of sending later; `join` waits for it."""
        self._patience = patience
        self._stop.set()
        self._wake.set()
        with self._published:
            self._published.notify_all()

    def join(self) -> None:
        """Wait until everything under way was sent, or the patience of `stop` is over."""
        if self._thread.ident:
            self._thread.join()

    def stuck(self) -> str | None:
        """Return why this mapping makes no progress, or None; from any thread."""
        return self.progress.stuck(self._clock())

    def unsent(self) -> dict[StorePath, str]:
        """Return what the store does not have of what lies here, each path with the reason; after `join`."""
        if self._engine is None:
            return {ROOT: self._lost or "it was never mirrored"}
        try:
            return self.engine.unsent()
        except DirectoryLostError as lost:
            return {ROOT: str(lost)}

    def close(self) -> None:
        """Release what is open, after `join`."""
        self.hooks.close()
        self.alarm.close()
        if self._remote_watch:
            self._remote_watch.close()
        self._parts.close()

    def _run(self) -> None:
        due: float | None = 0.0
        given_back: int | None = None
        while not self._stop.is_set():
            self._wake.wait(due)
            self._wake.clear()
            wanted, looks = self._flushes_wanted, self._looks_wanted
            due = self.cycle(flush=wanted > self._flushes_made or looks > self._looks_made)
            self._note_flushed(wanted)
            self._note_looked(looks)
            status = self.status
            moved = status.pulled + status.pushed
            if (given_back is None and status.ready) or (given_back is not None and moved - given_back >= BURST):
                footprint.give_back()
                if given_back is None:
                    footprint.let_go_of_code()
                given_back = moved
        self._flush()

    def cycle(self, *, flush: bool = False) -> float | None:
        """Make one cycle; returns in how many seconds the next is due, None: once something wakes it.

        Called by the mapping's own thread once `start` was called; else by whoever drives it step by step.
        """
        before = self.status
        self.progress.begin()
        try:
            if self._lost is None:
                try:
                    return self.engine.cycle(flush=flush)
                except DirectoryLostError as lost:
                    self._lost = str(lost)
            return self._begin_anew(self._lost)
        finally:
            now = self.status
            self.progress.end((now.pushed, now.pulled, now.paths) != (before.pushed, before.pulled, before.paths))
            if log.isEnabledFor(logging.DEBUG):
                figures = {name: getattr(now, name) for name in _FIGURES}
                log.debug(
                    "a cycle is over", extra={"mapping": self.mapping.name, "state": str(now.state), **figures}
                )

    def _note_flushed(self, wanted: int) -> None:
        """Tell those who wait for a flush, once nothing is left that could still be sent."""
        status = self.status
        if wanted > self._flushes_made and not (status.waiting_for or status.halted or status.under_way):
            with self._published:
                self._flushes_made = wanted
                self._published.notify_all()

    def _note_looked(self, wanted: int) -> None:
        """Tell those who want to know how the mapping stands."""
        if wanted > self._looks_made:
            with self._published:
                self._standing = self._engine.standing() if self._engine else None
                self._looks_made = wanted
                self._published.notify_all()

    def _flush(self) -> None:
        end = self._clock() + self._patience
        while (left := end - self._clock()) > 0:
            due = self.cycle(flush=True)
            if self.status.waiting_for or self.status.halted or not self.status.pending:
                return
            self._wake.wait(min(left, due if due is not None else left))
            self._wake.clear()


def _finish_dead_run(root: MirroredDirectory, baseline: Baseline, journal: Journal) -> None:
    """Bring to its end what a crash left half-done, and remove what is not needed any more. Raises OSError."""
    baseline.agree(recover(root, journal))
    root.private.clear_staging()
