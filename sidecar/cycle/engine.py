"""The cycle of one mapping; it reads like the diagram in the package's docstring.

    look at both sides → plan → guard → carry out → publish

Events only wake it: what is true is looked up. It alone changes the mapping's state, in its own thread; others
read `status`, a value replaced as a whole. Clock and parts are handed in, so that the same cycle runs under test
and simulation. `cycle`, `preview` and `pull_once` share one look and one plan.
"""

import logging
from collections.abc import Callable, Iterable

import msgspec

from configstore.errors import ConfigstoreError, NoSpaceError, StoreError, StoreUnavailableError
from configstore.model.path import ROOT, StorePath
from configstore.model.problem import Problem
from configstore.model.replica import Request, Take
from configstore.model.selection import Direction
from sidecar.cycle.execute import Executor
from sidecar.cycle.guard import Guard
from sidecar.cycle.lease import LeaseView, MappingLease
from sidecar.cycle.problems import Problems
from sidecar.cycle.requests import PersonRequests
from sidecar.cycle.unfinished import Unfinished, standing_of
from sidecar.local.side import LocalSide
from sidecar.mapping import Mapping
from sidecar.planner.lifecycle import Phase
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Plan, deletes
from sidecar.planner.planner import Settled, make_plan, siding_with_local
from sidecar.planner.setbacks import Setbacks
from sidecar.planner.unsent import unsent
from sidecar.remote.side import RemoteSide
from sidecar.reporting.latency import Latency
from sidecar.reporting.publisher import Figures, Publisher
from sidecar.reporting.status import Status
from sidecar.state.baseline import Baseline

log = logging.getLogger(__name__)

RETRY = 5.0
"""Seconds until the next cycle, should nothing wake us: nothing tells of a mount over the directory."""

NO_SPACE_RETRY = 30.0
"""Seconds until etcd is asked again to write when its space was used up: only an operator can end that."""

ROOT_RETRY = 1.0
"""Seconds until an unusable mount is looked at again."""

_PULLS = 10
"""How often `pull_once` pulls again because the store moved on meanwhile."""


class Engine:
    """Keeps one mapping's two sides equal.

    sides, local, remote, transfer: its parts, which the thread that calls `cycle` alone may touch.
    """

    def __init__(
        self,
        *,
        mapping: Mapping,
        baseline: Baseline,
        local: LocalSide,
        remote: RemoteSide,
        transfer: Executor,
        board: Publisher,
        clock: Callable[[], float],
        lease: LeaseView,
        after_apply: Callable[[Iterable[StorePath]], None] = lambda _: None,
        tick: Callable[[], None] = lambda: None,
        new_id: Callable[[], str],
        latency: Latency,
    ) -> None:
        """`clock` is monotonic, in seconds. `lease`: the mapping's.

        `after_apply` is called after a set was placed, `tick` after each step, which shows that there is progress.
        `new_id` returns a unique id for a deletion. `latency`: what counts how long sets take.
        """
        self.mapping = mapping
        self._baseline = baseline
        self.sides = baseline.sides
        self.local = local
        self.remote = remote
        self.transfer = transfer
        self._board = board
        self._clock = clock
        self.leased = MappingLease(lease, baseline)
        self._after_apply = after_apply
        self._tick = tick
        self._latency = latency
        self._choices = PersonRequests(mapping.name)
        self._guard = Guard(mapping, self.sides, choices=self._choices, window=local.deletes, new_id=new_id)
        self._setbacks = Setbacks()
        self._phase: Phase | None = None
        self._planned: frozenset[StorePath] = frozenset()
        self._problems = Problems(self.sides)
        self._applied = self._committed = 0

    def cycle(self, *, flush: bool = False) -> float | None:
        """Make one cycle; returns in how many seconds the next is due.

        flush: look at everything, whether or not an event has told of it yet, and do not wait for a set to settle;
        deletes keep their window. Raises RootLostError when another directory lies there now.
        """
        self._choices.begin_cycle()
        blocked = self.local.blocked()
        if blocked:
            self._publish(Plan(waiting_for=blocked))
            return ROOT_RETRY
        try:
            plan = self._look_and_plan(flush=flush)
            if plan.halted or plan.waiting_for:
                self._problems.add(plan.problems)
                self._publish(plan)
                return self._next(retry=RETRY if plan.halted else ROOT_RETRY)
            done = self.transfer.carry_out(plan, fence=self.leased.fence, alone=self._setbacks.repeated())
            self._note(plan, done)
            self._finish_rewriting()
        except ConfigstoreError as error:
            return self._postpone(error)
        if done.failure:
            return self._postpone(done.failure, done)
        self._publish(plan, done)
        return self._next(again=bool(done.again - done.setbacks))

    def preview(self) -> Plan:
        """Return what a cycle would do now, and do nothing. Call once, instead of `cycle`. Raises StoreError."""
        return self._look_and_plan(flush=True, preview=True)

    def pull_once(self) -> list[str]:
        """Bring the local directory to the store's state, as `init` does; nothing is pushed.

        Returns what is missing for the mapping to be complete, in words. Raises StoreError.
        """
        done = CycleOutcome()
        for _ in range(_PULLS):
            blocked = self.local.blocked()
            if blocked:
                return [blocked]
            plan = self._look_and_plan(flush=True, pushes=False)
            stopped = plan.waiting_for or plan.halted
            if stopped:
                return [stopped]
            done = self.transfer.carry_out(plan)
            if done.failure:
                raise done.failure
            self._note(plan, done)
            if not done.again:
                break
        self._publish(plan, done)
        rootless = [] if self.remote.life.phase is Phase.FOLLOWING else [self.remote.words or "not followed"]
        missing = [] if self.mapping.direction is Direction.PUSH else self._problems.missing()
        return [*rootless, *filter(None, [self.remote.unfit]), *missing]

    def unsent(self) -> dict[StorePath, str]:
        """Look at everything here once more, and return what the store does not have, each path with the reason.

        Call it after the last cycle. Raises RootLostError.
        """
        blocked = self.local.blocked()
        if blocked:
            return {ROOT: blocked}
        self.local.look(flush=True)
        why = self.status.why_not_done()
        return unsent(self.sides, self.mapping, self._problems.unsent(), otherwise=why)

    @property
    def status(self) -> Status:
        """What the mapping is doing; from any thread."""
        return self._board.status

    @property
    def lost(self) -> int:
        """How many times the store's version took the place of a change made here; from any thread."""
        return self.transfer.keeper.count

    def request(self, request: Request) -> None:
        """Take a person's choice for the next cycle; from any thread."""
        self._choices.put(request)

    def _look_and_plan(self, *, flush: bool, pushes: bool = True, preview: bool = False) -> Plan:
        """Look at both sides and return what is to be done; `waiting_for` or `halted` say why nothing is.

        Raises StoreError.
        """
        self.leased.begin_cycle(self._applied)
        self.remote.absorb()
        self._latency.arrived(self.sides.news, self._clock() if (at := self.remote.came_in) is None else at)
        self._tick()
        self._accept_choice()
        self._verify()
        self.local.look(flush=flush)
        self._tick()
        self._enter_phase()
        life = self.remote.life
        if not life.applies and not preview:
            if life.phase is Phase.FROZEN:
                return Plan(halted=life.reason)
            return Plan(waiting_for=self.remote.error or self.remote.words, problems=self._vanished())
        settled = Settled(
            pushes=pushes and self._may_push() and (life.pushes or preview),
            edits=self.local.edits_settled,
            deletes=preview or self.local.deletes_settled,
            aside=self._setbacks.pausing(self._clock()),
            given_up=self._setbacks.repeated(),
            open=self.local.open_problems(),
            yields=self.leased.yields,
            leaseless=self.mapping.lease is not None and self.leased.fence is None,
        )
        self._end_anomalies(settled)
        plan = self._guarded(self._make_plan(settled), settled)
        return msgspec.structs.replace(plan, waiting_for=self.remote.words) if preview else plan

    def _make_plan(self, settled: Settled) -> Plan:
        self._planned = frozenset(self.sides.pending)
        return make_plan(self._planned, self.sides, self.mapping, settled)

    def _accept_choice(self) -> None:
        """Let a person's choice end a phase that waits for one."""
        life = self.remote.life
        if life.phase is Phase.FROZEN and (take := self._choices.ending(life.reason)):
            # Nothing is agreed on with another store, so nothing is deleted; of what loses a copy stays.
            self._baseline.forget(set(self.sides.baseline))
            self._baseline.forget_history()
            self._applied = 0
            self.remote.accept(take)
        if life.phase is not Phase.ROOTLESS or not self._may_push():
            return
        if life.taking is Take.LOCAL or self._choices.write_again():
            self.remote.write_again()

    def _verify(self) -> None:
        now, phase = self._clock(), self.remote.life.phase
        if self.local.rounds.verify_due(now):
            compares = phase not in {Phase.UNKNOWN, Phase.FROZEN}  # these end with a listing, which does the same
            if compares:
                self.remote.verify()
            self.local.rounds.verified(now, sure=not (compares and self.remote.doubtful))

    def _enter_phase(self) -> None:
        """Plan everything anew where something else may be done than before."""
        life = self.remote.life
        if life.taking is not None and life.phase not in {Phase.UNKNOWN, Phase.FROZEN}:
            if life.taking is Take.LOCAL:
                self._baseline.agree(siding_with_local(self.sides, self.mapping))
            self.remote.sided()
        if life.phase is not self._phase:
            self._phase = life.phase
            self.sides.plan_again(self.sides.everything())

    def _may_push(self) -> bool:
        leased = self.mapping.lease is None or self.leased.fence is not None
        return leased and self.mapping.direction is not Direction.PULL

    def _vanished(self) -> dict[StorePath, Problem]:
        """Return the problems of what vanished together with the subtree; before a listing came, nothing did."""
        paths = () if self.remote.life.phase is Phase.UNKNOWN else self.sides.vanished()
        return make_plan(paths, self.sides, self.mapping, Settled(pushes=False)).problems

    def _end_anomalies(self, settled: Settled) -> None:
        """Do what was chosen about records that vanished: write them again, or have them deleted."""
        chosen = self._choices.about_vanished(self.sides)
        written = {path for path, take in chosen.items() if take is Take.LOCAL}
        self._baseline.forget(written)
        if settled.pushes and chosen.keys() - written:
            self.transfer.bury(chosen.keys() - written, self.leased.fence)
        self.sides.plan_again(chosen.keys())

    def _guarded(self, plan: Plan, settled: Settled) -> Plan:
        """Return the plan, or what a person made of one that looks like an accident; halted when nobody did."""
        refused = self._guard.refusal(plan)
        if refused:
            taken_back = self._guard.chosen(plan, refused)
            if taken_back is None:
                return msgspec.structs.replace(plan, halted=refused)
            self._baseline.forget(taken_back)
            self.sides.plan_again(taken_back)
            plan = self._make_plan(settled)
        return self._guard.with_deletion(plan)

    def _note(self, plan: Plan, done: CycleOutcome) -> None:
        """Take in what came of a plan."""
        now = self._clock()
        self._latency.moved(plan, done, self.local.noticed, now)
        if done.advanced:
            self._board.log_moved(done, self.remote.revision)
        gone = {push.path for push in plan.push if deletes(push)}.intersection(done.deleted_there)
        if gone:
            self.local.deletes.sent(len(gone), now)
        self._setbacks.over({*done.pushed, *done.pulled, *done.deleted_there, *done.deleted_here, *plan.agree})
        self._setbacks.failed((done.setbacks | done.problems.keys()) - done.refused, now)
        self.local.look_at(done.moved_on)
        self.sides.planned(self._planned)
        self.sides.plan_again(self._problems.note(plan, done, self._planned))
        self._committed = max(self._committed, done.revision)
        if not done.behind and not done.failure and self._shows_all():
            self._applied = self.remote.revision
        if done.pulled or done.deleted_here:
            self._after_apply([*done.pulled, *done.deleted_here])
        if done.fenced_out:
            self.leased.fenced_out()
        if self.local.knows_all:
            self.leased.looked()

    def standing(self) -> Unfinished:
        """Return what is left undone, after a cycle that looked at everything and in its thread."""
        return standing_of(
            self.sides, self.mapping, self._problems, self.transfer.keeper, seen=self.remote.revision,
            otherwise=self.status.why_not_done(), mark=self.local.scanner.mark, yields=self.leased.yields,
        )  # fmt: skip

    def _shows_all(self) -> bool:
        """Tell whether all that the store had for this replica is here, or was here until it was changed."""
        return self.mapping.direction is Direction.PUSH or not self.sides.news

    def _finish_rewriting(self) -> None:
        """Write the subtree's root, now that all is in it again that a person wanted there. Raises StoreError."""
        rewritten = self.remote.life.phase is Phase.REWRITING and not self._problems.waiting and self._may_push()
        if rewritten and self.transfer.make_root(self.leased.fence):
            self.remote.root_made()

    def _postpone(self, failure: ConfigstoreError, done: CycleOutcome | None = None) -> float:
        """Let what was not done wait, as a difference to the baseline, until the store is back."""
        if isinstance(failure, StoreError):
            self.local.look()  # what is edited meanwhile is queued, and its age is known
        self._publish(Plan(waiting_for=str(failure)), done, silent=isinstance(failure, StoreUnavailableError))
        return self._next(retry=NO_SPACE_RETRY if isinstance(failure, NoSpaceError) else RETRY)

    def _next(self, *, again: bool = False, retry: float = RETRY) -> float:
        """Return in how many seconds to look again, the soonest of all reasons."""
        due = [self.local.until_next(), self.remote.ask(), self._setbacks.until_next(self._clock()), retry]
        return 0.0 if again else max(0.0, min(each for each in due if each is not None))

    def _publish(self, plan: Plan, done: CycleOutcome | None = None, *, silent: bool = False) -> None:
        """Show how the mapping is. It is complete once every record is shown here, as `init` judges it."""
        follows = self.remote.life.phase is Phase.FOLLOWING
        waiting_for = plan.waiting_for or self.remote.error or self.remote.words
        complete = follows and (self.mapping.direction is Direction.PUSH or not self.sides.missing)
        unfit = self.remote.unfit
        self._board.publish(
            self._problems.shown() | self.local.open_problems(),
            Figures(
                halted=plan.halted,
                waiting_for=waiting_for,
                complete=complete and not plan.halted and not unfit,
                keeps_ready=follows or self.remote.life.phase is Phase.UNKNOWN,
                queued=set() if self.mapping.direction is Direction.PULL else self.sides.queued(),
                noticed=self.local.noticed,
                waiting=self._problems.waiting,
                paths=len(self.sides.baseline),
                revision=self.remote.revision,
                applied=self._applied,
                behind=0 if self.mapping.direction is Direction.PUSH else len(self.sides.news),
                committed=self._committed,
                trouble=self.local.trouble,
                unfit=unfit,
                lost=self.remote.lost,
                held=self.remote.held,
                last_choice=self._choices.last,
                silent=silent or waiting_for == self.remote.error,
            ),
            done,
        )
