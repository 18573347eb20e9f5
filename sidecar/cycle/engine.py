"""The cycle of one mapping: its steps in the order that the package's docstring names.

Events only wake a cycle; what it does follows from what it finds. Invariants:

1. Only the engine changes the state of its mapping, in its own thread. Other threads read `status`, a value that
   is replaced as a whole.
2. Nothing is read or written in the mirrored directory before it was recognised as the one that was opened.
3. A plan may be outdated when it is executed: the store compares the revision of each record, and `local.apply`
   the signature of each file, so that nothing is replaced which the plan did not know.
4. What was not done stays a difference to the baseline, and the next cycle finds it again. Nothing is queued.

`cycle`, `preview` and `pull_once` make one and the same plan. The clock and all parts are handed in, so that tests
and the simulation run the same cycle.
"""

import logging
from collections.abc import Callable, Iterable

import msgspec

from configstore.errors import ConfigstoreError, NoSpaceError, StoreError, StoreUnavailableError
from configstore.model.path import ROOT, StorePath
from configstore.model.problem import Problem
from configstore.model.replica import Request, Take
from configstore.model.selection import Direction
from sidecar.cycle.execute import PlanExecutor
from sidecar.cycle.guard import Guard
from sidecar.cycle.lease import LeaseView, MappingLease
from sidecar.cycle.problems import Problems
from sidecar.cycle.requests import PersonRequests
from sidecar.cycle.unfinished import Unfinished, unfinished_work
from sidecar.local.side import LocalSide
from sidecar.mapping import Mapping
from sidecar.planner.backoff import Backoff
from sidecar.planner.lifecycle import Phase
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Plan, deletes
from sidecar.planner.planner import PlanConditions, make_plan, siding_with_local
from sidecar.planner.unsent import unsent_changes
from sidecar.remote.side import RemoteSide
from sidecar.reporting.latency import Latency
from sidecar.reporting.publisher import Figures, Publisher
from sidecar.reporting.status import Status
from sidecar.state.baseline import Baseline

log = logging.getLogger(__name__)

RETRY = 5.0
"""Seconds until the next cycle if no event wakes the engine. No event reports a mount over the directory."""

NO_SPACE_RETRY = 30.0
"""Seconds until a write is tried again after etcd ran out of space, which only an operator can end."""

ROOT_RETRY = 1.0
"""Seconds until a mapping is checked again that waits for its directory or for its subtree."""

_PULLS = 10
"""Number of pulls that `pull_once` makes while the store keeps changing."""


class Engine:
    """Keeps the two sides of one mapping equal.

    sides, local, remote, executor: its parts, which only the thread that calls `cycle` may touch.
    """

    def __init__(
        self,
        *,
        mapping: Mapping,
        baseline: Baseline,
        local: LocalSide,
        remote: RemoteSide,
        executor: PlanExecutor,
        publisher: Publisher,
        clock: Callable[[], float],
        lease: LeaseView,
        after_apply: Callable[[Iterable[StorePath]], None],
        tick: Callable[[], None],
        new_id: Callable[[], str],
        latency: Latency,
    ) -> None:
        """Take the parts of one mapping.

        clock: monotonic, in seconds. after_apply: called with the paths of each cycle that changed the mirrored
        directory. tick: called after each step, as a sign of progress. new_id: returns a unique id for a deletion.
        """
        self.mapping = mapping
        self._baseline = baseline
        self.sides = baseline.sides
        self.local = local
        self.remote = remote
        self.executor = executor
        self._publisher = publisher
        self._clock = clock
        self.lease = MappingLease(lease, baseline)
        self._after_apply = after_apply
        self._tick = tick
        self._latency = latency
        self._requests = PersonRequests(mapping.name)
        self._guard = Guard(mapping, self.sides, requests=self._requests, window=local.deletes, new_id=new_id)
        self._backoff = Backoff()
        self._phase: Phase | None = None
        self._planned: frozenset[StorePath] = frozenset()
        self._problems = Problems(self.sides)
        self._applied = self._committed = 0

    def cycle(self, *, flush: bool = False) -> float:
        """Make one cycle; returns the seconds until the next one is due.

        flush: make a full scan and do not wait until the set of local changes is settled; deletes wait all the
        same. Raises DirectoryLostError when the mirrored directory was emptied or replaced.
        """
        self._requests.begin_cycle()
        blocked = self.local.blocked()
        if blocked:
            self._publish(Plan(waiting_for=blocked))
            return ROOT_RETRY
        try:
            plan = self._take_in_and_plan(flush=flush)
            if plan.halted or plan.waiting_for:
                self._problems.add(plan.problems)
                self._publish(plan)
                return self._next(retry=RETRY if plan.halted else ROOT_RETRY)
            done = self.executor.execute(plan, fence=self.lease.fence, alone=self._backoff.repeated())
            self._take_outcome(plan, done)
            self._finish_rewriting()
        except ConfigstoreError as error:
            return self._postpone(error)
        if done.failure:
            return self._postpone(done.failure, done)
        self._publish(plan, done)
        return self._next(again=bool(done.again - done.backing_off))

    def preview(self) -> Plan:
        """Return what a cycle would do, and do nothing. Call it once, instead of `cycle`. Raises StoreError."""
        return self._take_in_and_plan(flush=True, preview=True)

    def pull_once(self) -> list[str]:
        """Bring the mirrored directory to the store's state, as `init` does; nothing is pushed.

        Returns what is missing for the mapping to be complete, as texts. Raises StoreError.
        """
        done = CycleOutcome()
        for _ in range(_PULLS):
            blocked = self.local.blocked()
            if blocked:
                return [blocked]
            plan = self._take_in_and_plan(flush=True, pushes=False)
            stopped = plan.waiting_for or plan.halted
            if stopped:
                return [stopped]
            done = self.executor.execute(plan)
            if done.failure:
                raise done.failure
            self._take_outcome(plan, done)
            if not done.again:
                break
        self._publish(plan, done)
        follows = self.remote.lifecycle.phase is Phase.FOLLOWING
        rootless = [] if follows else [self.remote.phase_text or "not followed"]
        missing = [] if self.mapping.direction is Direction.PUSH else self._problems.missing()
        return [*rootless, *filter(None, [self.remote.unfit]), *missing]

    def unsent(self) -> dict[StorePath, str]:
        """Make a full scan, and return the paths whose local state the store does not have, with the reasons.

        Call it after the last cycle. Raises DirectoryLostError.
        """
        blocked = self.local.blocked()
        if blocked:
            return {ROOT: blocked}
        self.local.refresh(flush=True)
        otherwise = self.status.why_not_done()
        return unsent_changes(self.sides, self.mapping, self._problems.unsent(), otherwise=otherwise)

    def unfinished(self) -> Unfinished:
        """Return what is not sent and not shown.

        Call it in the engine's thread, after a cycle with a full scan.
        """
        return unfinished_work(
            self.sides, self.mapping, self._problems, self.executor.keeper, seen=self.remote.revision,
            otherwise=self.status.why_not_done(), mark=self.local.scanner.mark, yields=self.lease.yields,
        )  # fmt: skip

    @property
    def status(self) -> Status:
        """The state of the mapping, for others; from any thread."""
        return self._publisher.status

    @property
    def lost(self) -> int:
        """How many times the store's version replaced a local change; from any thread."""
        return self.executor.keeper.count

    def request(self, request: Request) -> None:
        """Take a person's request for the next cycle; from any thread."""
        self._requests.put(request)

    def _take_in_and_plan(self, *, flush: bool, pushes: bool = True, preview: bool = False) -> Plan:
        """Take in both sides and return what to do; its `waiting_for` or `halted` says why nothing may be done.

        Raises StoreError.
        """
        self.lease.begin_cycle(self._applied)  # first: what is planned under this fence is committed under it
        self.remote.absorb()
        received_at = self.remote.received_at
        self._latency.arrived(self.sides.changed_in_store, self._clock() if received_at is None else received_at)
        self._tick()
        self._accept_request()
        self._verify()
        self.local.refresh(flush=flush)
        self._tick()
        self._enter_phase()
        lifecycle = self.remote.lifecycle
        if not lifecycle.applies and not preview:
            if lifecycle.phase is Phase.FROZEN:
                return Plan(halted=lifecycle.reason)
            return Plan(waiting_for=self.remote.error or self.remote.phase_text, problems=self._vanished())
        conditions = PlanConditions(
            pushes=pushes and self._may_push() and (lifecycle.pushes or preview),
            edits=self.local.edits_settled,
            deletes=preview or self.local.deletes_settled,
            backing_off=self._backoff.pausing(self._clock()),
            given_up=self._backoff.repeated(),
            open=self.local.open_problems(),
            yields=self.lease.yields,
            leaseless=self.mapping.lease is not None and self.lease.fence is None,
        )
        self._resolve_vanished(conditions)
        plan = self._guarded(self._make_plan(conditions), conditions)
        return msgspec.structs.replace(plan, waiting_for=self.remote.phase_text) if preview else plan

    def _make_plan(self, conditions: PlanConditions) -> Plan:
        self._planned = frozenset(self.sides.pending)
        return make_plan(self._planned, self.sides, self.mapping, conditions)

    def _accept_request(self) -> None:
        """Let a person's request end a phase that waits for one."""
        lifecycle = self.remote.lifecycle
        if lifecycle.phase is Phase.FROZEN and (take := self._requests.ending(lifecycle.reason)):
            # Nothing is agreed on with the other store, so nothing is deleted, and the losing side is kept.
            self._baseline.forget(set(self.sides.baseline))
            self._baseline.forget_history()
            self._applied = 0
            self.remote.accept(take)
        if lifecycle.phase is not Phase.ROOTLESS or not self._may_push():
            return
        if lifecycle.taking is Take.LOCAL or self._requests.write_again():
            self.remote.write_again()

    def _verify(self) -> None:
        now, phase = self._clock(), self.remote.lifecycle.phase
        if self.local.schedule.verify_due(now):
            compares = phase not in {Phase.UNKNOWN, Phase.FROZEN}  # a listing ends these, and compares as much
            if compares:
                self.remote.verify()
            self.local.schedule.verified(now, sure=not (compares and self.remote.doubtful))

    def _enter_phase(self) -> None:
        """Plan all paths again when the phase changed, since other things may be done in it."""
        lifecycle = self.remote.lifecycle
        if lifecycle.taking is not None and lifecycle.phase not in {Phase.UNKNOWN, Phase.FROZEN}:
            if lifecycle.taking is Take.LOCAL:
                self._baseline.agree(siding_with_local(self.sides, self.mapping))
            self.remote.side_taken()
        if lifecycle.phase is not self._phase:
            self._phase = lifecycle.phase
            self.sides.plan_again(self.sides.everything())

    def _may_push(self) -> bool:
        leased = self.mapping.lease is None or self.lease.fence is not None
        return leased and self.mapping.direction is not Direction.PULL

    def _vanished(self) -> dict[StorePath, Problem]:
        """Return the problems of the records that vanished; before the first listing nothing did."""
        paths = () if self.remote.lifecycle.phase is Phase.UNKNOWN else self.sides.vanished()
        return make_plan(paths, self.sides, self.mapping, PlanConditions(pushes=False)).problems

    def _resolve_vanished(self, conditions: PlanConditions) -> None:
        """Write vanished records again, or tombstones in their stead, where a person requested it."""
        chosen = self._requests.about_vanished(self.sides)
        written = {path for path, take in chosen.items() if take is Take.LOCAL}
        self._baseline.forget(written)
        if conditions.pushes and chosen.keys() - written:
            self.executor.delete_vanished(chosen.keys() - written, self.lease.fence)
        self.sides.plan_again(chosen.keys())

    def _guarded(self, plan: Plan, conditions: PlanConditions) -> Plan:
        """Return the plan; halted if it looks like an accident, unless a person's request decides about that."""
        refused = self._guard.refusal(plan)
        if refused:
            taken_back = self._guard.chosen(plan, refused)
            if taken_back is None:
                return msgspec.structs.replace(plan, halted=refused)
            self._baseline.forget(taken_back)
            self.sides.plan_again(taken_back)
            plan = self._make_plan(conditions)
        return self._guard.with_deletion(plan)

    def _take_outcome(self, plan: Plan, done: CycleOutcome) -> None:
        """Take in the outcome of a plan."""
        now = self._clock()
        self._latency.moved(plan, done, self.local.noticed, now)
        if done.advanced:
            self._publisher.log_moved(done, self.remote.revision)
        gone = {push.path for push in plan.push if deletes(push)}.intersection(done.deleted_there)
        if gone:
            self.local.deletes.sent(len(gone), now)
        self._backoff.succeeded({*done.pushed, *done.pulled, *done.deleted_there, *done.deleted_here, *plan.agree})
        self._backoff.failed((done.backing_off | done.problems.keys()) - done.refused, now)
        self.local.scan_again(done.moved_on)
        self.sides.planned(self._planned)
        self.sides.plan_again(self._problems.note(plan, done, self._planned))
        self._committed = max(self._committed, done.revision)
        shows_all = self.mapping.direction is Direction.PUSH or not self.sides.changed_in_store
        if not done.behind and not done.failure and shows_all:
            self._applied = self.remote.revision
        if done.pulled or done.deleted_here:
            self._after_apply([*done.pulled, *done.deleted_here])
        if done.fenced_out:
            self.lease.fenced_out()
        if self.local.knows_all:
            self.lease.scanned()

    def _finish_rewriting(self) -> None:
        """Write the root record once everything below it is written again. Raises StoreError."""
        rewriting = self.remote.lifecycle.phase is Phase.REWRITING
        finished = rewriting and not self._problems.waiting and self._may_push()
        if finished and self.executor.make_root(self.lease.fence):
            self.remote.root_made()

    def _postpone(self, failure: ConfigstoreError, done: CycleOutcome | None = None) -> float:
        """Publish a failure; what was not done stays a difference to the baseline, for a later cycle."""
        if isinstance(failure, StoreError):
            self.local.refresh()  # so that edits made meanwhile are counted, with their age
        self._publish(Plan(waiting_for=str(failure)), done, silent=isinstance(failure, StoreUnavailableError))
        return self._next(retry=NO_SPACE_RETRY if isinstance(failure, NoSpaceError) else RETRY)

    def _next(self, *, again: bool = False, retry: float = RETRY) -> float:
        """Return the seconds until the next cycle, the soonest of all reasons for one."""
        listing, paused = self.remote.request_listing(), self._backoff.until_next(self._clock())
        due = [each for each in (self.local.until_next(), listing, paused, retry) if each is not None]
        return 0.0 if again else max(0.0, min(due))

    def _publish(self, plan: Plan, done: CycleOutcome | None = None, *, silent: bool = False) -> None:
        """Publish the mapping's state. It is complete once every record is shown here; `init` judges the same."""
        phase, pushes_only = self.remote.lifecycle.phase, self.mapping.direction is Direction.PUSH
        follows = phase is Phase.FOLLOWING
        waiting_for = plan.waiting_for or self.remote.error or self.remote.phase_text
        complete = follows and (pushes_only or not self.sides.missing)
        unfit = self.remote.unfit
        self._publisher.publish(
            self._problems.shown() | self.local.open_problems(),
            Figures(
                halted=plan.halted,
                waiting_for=waiting_for,
                complete=complete and not plan.halted and not unfit,
                keeps_ready=follows or phase is Phase.UNKNOWN,
                queued=set() if self.mapping.direction is Direction.PULL else self.sides.changed_here(),
                noticed=self.local.noticed,
                waiting=self._problems.waiting,
                paths=len(self.sides.baseline),
                revision=self.remote.revision,
                applied=self._applied,
                behind=0 if pushes_only else len(self.sides.changed_in_store),
                committed=self._committed,
                trouble=self.local.limitation,
                unfit=unfit,
                lost=self.remote.lost,
                held=self.remote.held,
                last_choice=self._requests.last,
                silent=silent or waiting_for == self.remote.error,
            ),
            done,
        )
