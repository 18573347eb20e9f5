"""What a mapping is doing, as a value for `/readyz`, `/metrics` and the control socket; and its report."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from configstore import __version__
from configstore.model.phrases import first_of
from configstore.model.problem import Problem
from configstore.model.replica import MAX_PROBLEMS, Alike, MappingState, Report
from sidecar.mapping import Mapping
from sidecar.planner.reconcile import REASONS, Verdict

MAX_WAITS = 20
"""How many waiting paths are named."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a mapping is doing; made by its engine's `Publisher`.

    required: whether readiness depends on it. complete: every record of the mapping is applied here. ready: it was
    complete, and nothing was found since with which a service must not be started. halted: why the mapping waits
    for a person, else None. waiting_for: what it cannot go on without at the moment, else None.

    pending: how many paths wait to travel; under_way: how many of these no problem holds up; `waits` names some of
    them with the reason. pending_since: when the oldest waiting edit was noticed, on the engine's clock.

    revision: the store's revision up to which the mapping has seen; applied: up to which all of it is applied;
    behind: how many paths have a newer record than is applied; committed: that of its own last commit.

    lost: the store is not, or may not be, the known one; held: how many files of the known one are here.
    last_choice: the last choice of a person that this process carried out: what, by whom, when.
    watch_incomplete: not every change of a file here is noticed at once; a problem says why.
    """

    mapping: str
    required: bool = True
    complete: bool = False
    ready: bool = False
    halted: str | None = None
    waiting_for: str | None = None
    problems: tuple[Problem, ...] = ()
    pending: int = 0
    pending_since: float | None = None
    under_way: int = 0
    waits: tuple[Problem, ...] = ()
    paths: int = 0
    revision: int = 0
    applied: int = 0
    behind: int = 0
    committed: int = 0
    pushed: int = 0
    pulled: int = 0
    cycles: int = 0
    lost: bool = False
    held: int = 0
    last_choice: str | None = None
    watch_incomplete: bool = False

    @property
    def state(self) -> MappingState:
        """The state, in one word."""
        if self.halted is not None:
            return MappingState.HALTED
        if self.waiting_for is not None:
            return MappingState.WAITING
        return MappingState.READY if self.ready else MappingState.STARTING

    @property
    def degraded(self) -> bool:
        """Whether it is served although a path has a problem."""
        return self.ready and bool(self.problems)

    def why_not_done(self) -> str:
        """Return what holds up the paths that wait, for a client that waits for them."""
        if self.halted or self.waiting_for:
            return self.halted or self.waiting_for or ""
        problems = [each for each in self.problems if each.path]
        named = (*self.waits, *problems)[:5]
        if not named:
            return "changes are still under way"
        total = self.under_way + len(problems)
        return first_of([*map(str, named)], len(named), total=total, separator="; ")

    def looks_as(self, other: "Status") -> bool:
        """Return whether a person would see no difference; figures do not count."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("ready", "complete", "halted", "waiting_for", "problems", "last_choice")
        )


def report_of(
    status: Status,
    mapping: Mapping,
    *,
    replica: str,
    host: str,
    session: str,
    clock: float,
    time: str,
    keys: tuple[str, ...] = (),
    master: bool = False,
) -> Report:
    """Return the replica's report of a mapping.

    clock: the time on the engine's clock. time: the time of day, RFC 3339. keys: the ids of the mapping's keys.
    master: whether the keyring is a master key.
    """
    since = status.pending_since
    return Report(
        mapping=mapping.name,
        replica=replica,
        host=host,
        session=session,
        store=mapping.store,
        state=status.state,
        ready=status.ready,
        complete=status.complete,
        degraded=status.degraded,
        reason=status.halted or status.waiting_for or "",
        revision=status.applied,
        paths=status.paths,
        pending=status.pending,
        pending_seconds=0.0 if since is None else round(max(0.0, clock - since), 1),
        behind=status.behind,
        vanished=sum(problem.reason == REASONS[Verdict.VANISHED] for problem in status.problems),
        problem_count=len(status.problems),
        problems=tuple(each.reported for each in _of_each_kind(status.problems)[:MAX_PROBLEMS]),
        alike=_alike(status.problems),
        lost=status.lost,
        held=status.held,
        last_choice=status.last_choice,
        keys=keys or msgspec.UNSET,
        master=True if master else msgspec.UNSET,
        version=__version__,
        time=time,
    )


def _alike(problems: Iterable[Problem]) -> tuple[Alike, ...]:
    """Count problems by their reasons, the most frequent ones first."""
    most = Counter(problem.reason for problem in problems).most_common(MAX_PROBLEMS)
    return tuple(Alike(reason=reason, count=count) for reason, count in most)


def _of_each_kind(problems: Sequence[Problem]) -> list[Problem]:
    """Return problems in such an order that many of one reason do not hide the others."""
    count: Counter[str] = Counter()
    turn = []
    for problem in problems:
        turn.append(count[problem.reason])
        count[problem.reason] += 1
    return [problem for _, problem in sorted(zip(turn, problems, strict=True), key=lambda each: each[0])]


def with_notes(report: Report, notes: Iterable[str]) -> Report:
    """Return a report with what is wrong with the replica as a whole added to its problems."""
    found = tuple(Problem(path="", reason=reason) for reason in notes)
    return msgspec.structs.replace(
        report,
        degraded=report.degraded or (report.ready and bool(found)),
        problem_count=report.problem_count + len(found),
        problems=(found + report.problems)[:MAX_PROBLEMS],
        alike=(tuple(Alike(reason=each.reason, count=1) for each in found) + report.alike)[:MAX_PROBLEMS],
    )
