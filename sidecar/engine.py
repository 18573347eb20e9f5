"""The cycle of one mapping; it reads like the diagram in the package's docstring.

    check the mount → take in local and remote news → plan → guards → commit → apply → new baseline

Events only wake it: what is true is looked up. It alone changes the mapping's state, in its own thread; others
read `status`, a value replaced as a whole. Clock and parts are handed in, so that the same cycle runs under
test and simulation.
"""

import logging
from collections.abc import Callable, Iterable

import msgspec

from configstore.errors import ConfigstoreError, NoSpaceError, RefusedError, StoreError
from configstore.model.path import ROOT, StorePath, parent
from configstore.model.replica import Request, Take
from configstore.store.values import Fence
from sidecar.board import Board
from sidecar.choices import Choices
from sidecar.local.root import Root
from sidecar.local.scan import Scan, Scanner
from sidecar.local.watch import LocalWatch
from sidecar.planner.guards import against, missing_root, refusal
from sidecar.planner.mapping import Direction, Mapping
from sidecar.planner.plan import Plan, Wait
from sidecar.planner.planner import Settled, Sides, make_plan, siding_with_local, unapplied, vanished
from sidecar.planner.settle import Windows
from sidecar.planner.sides import Problem
from sidecar.planner.unsent import unsent
from sidecar.remote.fetch import RemoteSide
from sidecar.remote.watch import RemoteFeed
from sidecar.status import Status
from sidecar.transfer import Done, Transfer

log = logging.getLogger(__name__)

RETRY = 5.0
"""Seconds until what failed (a full disk, a refused right, a store that is down) is tried again."""

NO_SPACE_RETRY = 30.0
"""Seconds until etcd is asked again to write when its space was used up: only an operator can end that."""

ROOT_RETRY = 1.0
"""Seconds until a missing subtree or an unusable mount is looked for again."""

UNSTABLE_RETRY = 0.25
"""Seconds until a file that was being written is looked at again, should no event tell of its end."""


class Engine:
    """Keeps one mapping's two sides equal."""

    def __init__(
        self,
        *,
        mapping: Mapping,
        root: Root,
        sides: Sides,
        scanner: Scanner,
        local_watch: LocalWatch | None,
        remote: RemoteSide,
        feed: RemoteFeed,
        transfer: Transfer,
        clock: Callable[[], float],
        fence: Callable[[], Fence | None] = lambda: None,
        after_apply: Callable[[Iterable[StorePath]], None] = lambda _: None,
        published: Callable[[Status, Status], None] = lambda *_: None,
        fenced_out: Callable[[], None] = lambda: None,
        hook_failure: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`clock` is monotonic, in seconds. `fence` returns the proof of holding the mapping's lease, if held.

        `published` is told of each new `status`, and of the one before it. `fenced_out` is called when the store
        says that the lease is not held any more. `hook_failure` returns why the last hook failed, if it did.
        """
        self.mapping = mapping
        self._root = root
        self._sides = sides
        self._scanner = scanner
        self._local_watch = local_watch
        self._remote = remote
        self._feed = feed
        self._transfer = transfer
        self._clock = clock
        self._find_fence = fence
        self._fence: Fence | None = None  # that of the cycle: what was planned under it is committed under it
        self._after_apply = after_apply
        self._fenced_out = fenced_out
        self._board = Board(mapping.name, clock, published, hook_failure)
        self._choices = Choices(mapping.name, sides, transfer)
        self._sides_with_local = False
        self._making_root = False
        self._dirty: set[StorePath] = set()
        self._scan_all = True
        self._pending: set[StorePath] = set(sides.baseline)
        self._windows = Windows(mapping, clock())
        self._problems: dict[StorePath, Problem] = {}
        self._under_way: set[StorePath] = set()
        self._applied = self._committed = 0
        self._listing_due = clock()

    def cycle(self, *, flush: bool = False) -> float | None:
        """Make one cycle; returns in how many seconds the next is due (None: when something happens).

        flush: look at everything, whether or not an event has told of it yet, and do not wait for a set to settle;
        deletes keep their window.
        """
        now = self._clock()
        self._fence = self._find_fence()
        self._choices.begin_cycle()
        waiting_for = self._blocked()
        if waiting_for:
            self._publish(waiting_for=waiting_for)
            return ROOT_RETRY
        try:
            self._take_news(now)
        except StoreError as error:
            return self._postpone(error)
        due = self._store_unusable(now)
        if due is not None:
            return due
        self._scan_all |= flush
        edits = flush or self._windows.settled(now)
        if self._scan_all or (self._dirty and edits):
            self._scan()
        edits = flush or (edits and (not self._sides.unstable or self._windows.tired(now)))
        deletes = self._windows.deletes_settled(self._clock())
        settled = Settled(pushes=self._pushes(), edits=edits, deletes=deletes)
        try:
            self._pending |= self._choices.end_anomalies(self._fence, pushes=settled.pushes)
        except StoreError as error:
            return self._postpone(error)
        plan = self._guarded(make_plan(self._pending, self._sides, self.mapping, settled), settled)
        return RETRY if plan is None else self._carry_out(plan)

    @property
    def status(self) -> Status:
        """What the mapping is doing; from any thread."""
        return self._board.status

    def request(self, request: Request) -> None:
        """Take a person's choice for the next cycle; from any thread."""
        self._choices.put(request)

    def preview(self) -> Plan:
        """Return what a cycle would do now, and do nothing. Call once, instead of `cycle`.

        Raises StoreError, and RefusedError when this is not the store that was known.
        """
        self._take_news(self._clock())
        if self._remote.went_back:
            raise RefusedError(f"{self.mapping.name}: {self._remote.went_back}")
        self._scan()
        plan = make_plan(self._pending, self._sides, self.mapping, Settled(pushes=self._may_push()))
        if self._remote.root_exists:
            return msgspec.structs.replace(plan, halted=refusal(plan, len(self._sides.baseline), self.mapping))
        return msgspec.structs.replace(plan, waiting_for=missing_root(self.mapping))

    def pull_once(self) -> list[str]:
        """Bring the local directory to the store's state, as `init` does; nothing is pushed.

        Returns what is missing for the mapping to be complete, in words. Raises StoreError.
        """
        for _ in range(10):  # the store may move on while we pull
            blocked = self._blocked()
            if blocked:
                return [blocked]
            self._take_news(self._clock())
            if self._remote.went_back or not self._remote.root_exists:
                return [self._remote.went_back or missing_root(self.mapping)]
            self._scan()
            plan = make_plan(self._pending, self._sides, self.mapping, Settled(pushes=False))
            refused = refusal(plan, len(self._sides.baseline), self.mapping)
            if refused:
                return [refused]
            done = self._transfer.carry_out(plan)
            self._problems = plan.problems | done.problems
            self._pending = set(done.again)
            self._scan_all = True
            if not done.again:
                break
        self._publish(ready=True)
        return self._not_applied(done)

    def unsent(self) -> dict[StorePath, str]:
        """Look at everything here once more, and return what the store does not have, each path with the reason.

        Call it after the last cycle. Raises RootLostError.
        """
        blocked = self._blocked()
        if blocked:
            return {ROOT: blocked}
        self._scan_all = True
        self._scan()
        sides, status = self._sides, self.status
        return unsent(
            self.mapping,
            baseline=sides.baseline,
            local=sides.local,
            remote=sides.remote,
            unread=sides.local_problems,
            unstable=sides.unstable,
            problems=sides.remote_problems | self._problems,
            otherwise=status.halted or status.waiting_for or "it was under way",
        )

    def _not_applied(self, done: Done) -> list[str]:
        """Return which records were never shown here, and why, in words."""
        sides = self._sides
        if self.mapping.direction is Direction.PUSH:
            return []
        words = []
        for path in sorted(unapplied(sides) | done.problems.keys() | done.again | sides.remote_problems.keys()):
            problem = sides.problem(path) or self._problems.get(path)
            words.append(f"{problem.path}: {problem.reason}" if problem else f"{path}: changes too fast")
        return list(dict.fromkeys(words))  # one problem may speak for many paths

    def _blocked(self) -> str | None:
        """Return why the local directory must not be touched, or None."""
        reason = self._root.check()
        if reason:
            self._board.log_once(logging.ERROR, "the directory cannot be mirrored", reason)
        return reason

    def _store_unusable(self, now: float) -> float | None:
        """Say why the store is of no use now, and return when to look again, in seconds; None when it is."""
        if self._remote.went_back:
            self._list_again(now)
            take = self._choices.ending(self._remote.went_back)
            if take is None:
                self._halt(self._remote.went_back)
                return RETRY
            self._accept_store(take)
            return 0.0
        if not self._remote.listed:
            self._publish(waiting_for=self._feed.error)
            return RETRY
        if self._remote.root_exists:
            return None
        self._making_root |= self._choices.write_again and self._may_push() and not self._remote.root_taken
        return None if self._remote.root_deleted or self._making_root else self._await_root(now)

    def _await_root(self, now: float) -> float:
        """Say that there is no subtree and what went with it, and return when to look again."""
        self._list_again(now)
        reason = self._rootless()
        lost = make_plan(vanished(self._sides), self._sides, self.mapping, Settled(pushes=False))
        self._problems |= lost.problems
        self._publish(waiting_for=reason)
        return ROOT_RETRY

    def _rootless(self) -> str:
        reason = missing_root(self.mapping)
        self._board.log_once(logging.WARNING, "the subtree is missing", reason)
        return reason

    def _list_again(self, now: float) -> bool:
        """Ask for a new listing, but not for one after the other: each wakes us when it comes."""
        due = now >= self._listing_due
        if due:
            self._listing_due = now + ROOT_RETRY
            self._feed.list_again()
        return due

    def _accept_store(self, take: Take) -> None:
        """Go on with a store that is not the one that was known: nothing is agreed on, so nothing is deleted.

        Where both hold something else, `take` says whose it shall be; of the other side a copy stays.
        """
        self._transfer.forget(set(self._sides.baseline))
        self._remote.begin_anew()
        self._sides_with_local = take is Take.LOCAL
        self._scan_all = True
        self._pending |= self._sides.local.keys()
        self._publish(ready=False, waiting_for="a new listing of the store")

    def _guarded(self, plan: Plan, settled: Settled) -> Plan | None:
        """Return the plan, or what a person made of one that looks like an accident; None for a halt."""
        refused = refusal(plan, len(self._sides.baseline), self.mapping)
        if not refused:
            return plan
        take = self._choices.ending(refused)
        if take is None:
            self._halt(refused)
            return None
        taken_back = against(plan, take)
        self._transfer.forget(taken_back)
        self._pending |= taken_back
        return make_plan(self._pending, self._sides, self.mapping, settled)

    def _take_news(self, now: float) -> None:
        deleted = self._remote.root_deleted
        self._pending |= self._remote.absorb(self._feed.drain())
        if deleted and self._remote.root_exists:
            self._scan_all = True
            self._pending |= self._sides.local.keys() | self._sides.baseline.keys()
        if self._local_watch:
            dirty = self._local_watch.drain()
            if dirty.everything or dirty.directories:
                self._windows.noticed(now, first=not self._dirty and not self._scan_all)
            self._dirty |= dirty.directories
            self._scan_all |= dirty.everything
        self._scan_all |= self._windows.full_scan_due(now)
        if self._windows.verify_due(now) and self._remote.listed and not self._remote.went_back:
            self._remote.verify()
            self._windows.verified(now, sure=not self._remote.doubtful)
        if self._remote.stale and not self._remote.went_back and self._list_again(now):
            log.warning("the watch missed a change; listing again", extra={"mapping": self.mapping.name})

    def _pushes(self) -> bool:
        return self._may_push() and (self._remote.root_exists or self._making_root)

    def _may_push(self) -> bool:
        if self.mapping.direction is Direction.PULL:
            return False
        return self.mapping.lease is None or self._fence is not None

    def _scan(self) -> None:
        everything = self._scan_all
        scan = self._scanner.scan(None if everything else self._dirty, self._sides.local)
        self._take_scan(scan)
        self._dirty.clear()
        if everything:
            self._scan_all = False
            self._windows.scanned(self._clock())
            self._pending |= self._problems.keys() | self._sides.remote_problems.keys()
            if not self.status.ready:
                self._pending |= self._sides.local.keys() | self._sides.remote.keys()

    def _take_scan(self, scan: Scan) -> None:
        sides = self._sides
        for path, found in scan.changed.items():
            if found is None:
                sides.local.pop(path, None)
            else:
                sides.local[path] = found
        for path in scan.cleared:
            if sides.local_problems.pop(path, None):
                self._pending |= sides.below(path)
        sides.local_problems |= scan.problems
        self._pending |= scan.changed.keys() | scan.problems.keys() | scan.cleared | scan.unstable
        sides.unstable = set(scan.unstable)
        if self._sides_with_local:
            self._sides_with_local = False
            sides.baseline |= siding_with_local(sides, self.mapping)
        if scan.changed:
            self._windows.changed(self._clock())

    def _halt(self, reason: str) -> None:
        self._board.log_once(logging.ERROR, "halted", reason)
        self._publish(halted=reason)

    def _carry_out(self, plan: Plan) -> float | None:
        seen = self._remote.revision
        try:
            done = self._transfer.carry_out(plan, self._fence)
        except ConfigstoreError as error:
            return self._postpone(error)
        if done.pushed or done.pulled:
            log.info(
                "mirrored",
                extra={"mapping": self.mapping.name, "pushed": done.pushed, "pulled": done.pulled,
                       "revision": self._remote.revision},
            )  # fmt: skip
        self._dirty |= {parent(path) for path in done.rescan}
        others = {path: found for path, found in self._problems.items() if path not in self._pending}
        self._problems = others | plan.problems | done.problems
        self._under_way = set(plan.waiting) | done.again
        self._pending = self._under_way | done.problems.keys()
        self._committed = max(self._committed, done.revision)
        if done.applied(plan):
            self._applied = seen
        if done.pulled:
            self._after_apply(done.pulled)
        if done.fenced_out:
            self._fenced_out()
        if done.failure:
            return self._postpone(done.failure, done)
        if self._making_root and self._pushes() and not self._under_way:
            try:
                self._make_root()
            except StoreError as error:
                return self._postpone(error, done)
        rootless = None if self._remote.root_exists or self._making_root else self._rootless()
        self._publish(done=done, ready=None if rootless else True, waiting_for=self._feed.error or rootless)
        return self._next(plan, done, self._clock())

    def _make_root(self) -> None:
        """Make the subtree complete, now that all is in it again that a person wanted there. Raises StoreError."""
        if self._transfer.make_root(self._fence):
            self._remote.root_exists = True
        else:
            self._feed.list_again()
        self._making_root = False

    def _postpone(self, failure: ConfigstoreError, done: Done | None = None) -> float:
        """Let what was not done wait, as a difference to the baseline, until the store is back."""
        reason = str(failure)
        self._board.log_once(logging.WARNING, "the store failed; changes wait", reason)
        self._publish(waiting_for=reason, done=done, ready=True if done else None)
        return NO_SPACE_RETRY if isinstance(failure, NoSpaceError) else RETRY

    def _next(self, plan: Plan, done: Done, now: float) -> float | None:
        """Return in how many seconds to look again, the soonest of all reasons."""
        windows = self._windows
        due = [windows.until_full_scan(now), windows.until_verified(now)]
        if done.again:
            due.append(0.0 if not done.rescan else self.mapping.settle)
        if self._dirty or self._scan_all:
            due.append(windows.until_settled(now))
        if self._remote.stale:
            due.append(ROOT_RETRY)
        waits = set(plan.waiting.values())
        if Wait.SETTLE in waits and not self._sides.unstable:
            due.append(windows.until_settled(now))
        if Wait.DELETE in waits:
            due.append(windows.until_deletes(now))
        if self._sides.unstable:
            self._dirty |= {parent(path) for path in self._sides.unstable}
            due.append(UNSTABLE_RETRY)
        if done.problems or self._scanner.unread:
            self._dirty |= self._scanner.unread
            due.append(RETRY)
        return max(0.0, min(due))

    def _publish(
        self,
        *,
        waiting_for: str | None = None,
        halted: str | None = None,
        ready: bool | None = None,
        done: Done | None = None,
    ) -> None:
        sides = self._sides
        self._board.publish(
            sides.local_problems | sides.remote_problems | self._problems,
            pending=len(self._pending),
            pushed=len(done.pushed) if done else 0,
            pulled=len(done.pulled) if done else 0,
            ready=self.status.ready if ready is None else ready,
            halted=halted,
            waiting_for=waiting_for,
            under_way=len(self._under_way),
            paths=len(sides.baseline),
            revision=self._remote.revision,
            applied=self._applied,
            committed=self._committed,
        )
