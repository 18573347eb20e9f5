"""The rule of sets: what was changed together is committed and applied together, or waits together.

1. Records of one transaction are a set (`ThreeSides.came_with`). When a member cannot be applied, whatever the
   reason, the other members are held back.
2. Paths that were changed here within one settle window are a set (`ThreeSides.set_of`). When a member cannot be
   read, the other members are held back. When a member loses a conflict, that is reported (`mixed_by`).
3. A path that is new to the store waits for no other member: it replaces nothing that could then fit badly.

Called by the planner.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet

import msgspec

from configstore.model.path import StorePath, shown
from configstore.model.phrases import first_of
from configstore.model.problem import Problem
from configstore.model.record import Kind
from sidecar.planner.plan import Pull, Push, Wait
from sidecar.planner.three_sides import UNKNOWN_SET, ThreeSides


def keep_together(
    *,
    push: dict[StorePath, Push],
    pull: dict[StorePath, Pull],
    waiting: dict[StorePath, Wait],
    problems: dict[StorePath, Problem],
    sides: ThreeSides,
    given_up: AbstractSet[StorePath],
    opened: Map[StorePath, Problem],
) -> None:
    """Change a draft of a plan so that it splits no set.

    given_up: paths that their sets no longer wait for. opened: the problems of paths that have been open for long.
    """
    _push_together(push, waiting, problems, sides, given_up)
    _pull_together(pull, push, waiting, problems, sides=sides, opened=opened)


def held_back(path: StorePath, culprit: StorePath, why: str) -> Problem:
    """Return the problem of a path that waits for another of its set."""
    reason = f"held back, since {shown(culprit)}, which was changed together with it, {why}"
    return Problem(path=path, reason=reason)


def mixed_by(
    push: Map[StorePath, Push], pull: Map[StorePath, Pull], sides: ThreeSides
) -> dict[StorePath, tuple[StorePath, ...]]:
    """Return the paths that lose a conflict while other members of their local set are pushed, with those members.

    Each path is decided by itself, so that an edit with no conflict is never undone. The set then has members from
    two replicas, which may not fit each other, so a person should see it.
    """
    kept: dict[int, list[StorePath]] = defaultdict(list)
    for path, each in push.items():
        if each.in_set != UNKNOWN_SET and each.entry.kind is not Kind.DIR:
            kept[each.in_set].append(path)
    lost = {path: kept[sides.set_of(path)] for path, each in pull.items() if each.keep}
    return {path: tuple(sorted(others)) for path, others in lost.items() if others}


def mixed(path: StorePath, others: Sequence[StorePath]) -> Problem:
    """Return the problem of a path that lost a conflict while `others` of its set did not."""
    named = first_of([*map(shown, others)], 3)
    reason = (
        f"another replica's version won, while {named}, changed here together with it, stayed: see whether"
        " they fit each other. What lost is kept: `configstore conflicts`, `configstore resolve`; a newer version"
        " of any of them ends this"
    )
    return Problem(path=path, reason=reason)


def _push_together(
    push: dict[StorePath, Push],
    waiting: dict[StorePath, Wait],
    problems: dict[StorePath, Problem],
    sides: ThreeSides,
    given_up: AbstractSet[StorePath],
) -> None:
    """Hold back the pushes of a set that has a member which cannot be read, or which failed and pauses."""
    unread = {path for path in sides.local_problems if path in sides.baseline}
    paused = {path for path, why in waiting.items() if why is Wait.BACKOFF} - given_up
    culprits = {sides.set_of(path): path for path in sorted(unread | paused, reverse=True)}
    culprits.pop(UNKNOWN_SET, None)
    for path in [path for path, each in push.items() if culprits and each.in_set in culprits]:
        if path not in sides.baseline or push[path].entry.kind is Kind.DIR or push[path].move:
            continue
        culprit = culprits[push.pop(path).in_set]
        problem = sides.local_problems.get(culprit)
        if problem:
            problems[path] = held_back(path, culprit, f"cannot be read: {problem.reason}")
        else:
            waiting[path] = Wait.BACKOFF


def _pull_together(
    pull: dict[StorePath, Pull],
    push: dict[StorePath, Push],
    waiting: dict[StorePath, Wait],
    problems: dict[StorePath, Problem],
    *,
    sides: ThreeSides,
    opened: Map[StorePath, Problem],
) -> None:
    groups: dict[int, list[StorePath]] = defaultdict(list)
    for path, each in pull.items():
        groups[each.remote.mod_revision].append(path)
        pull[path] = msgspec.structs.replace(each, group=each.remote.mod_revision)
    for revision, paths in groups.items():
        others = sides.came_with(revision) - pull.keys() - push.keys()
        culprit, problem = _first_blocked(others, waiting, {**opened, **problems}, sides)
        if culprit is None:
            continue
        for path in paths:
            del pull[path]
            if problem:
                problems[path] = held_back(path, culprit, f"cannot be placed: {problem.reason}")
            else:
                waiting[path] = waiting.get(culprit, Wait.UNSTABLE)


def _first_blocked(
    paths: Iterable[StorePath],
    waiting: dict[StorePath, Wait],
    problems: Map[StorePath, Problem],
    sides: ThreeSides,
) -> tuple[StorePath | None, Problem | None]:
    """Return the first path whose newest record cannot be applied now, and its problem where it has one."""
    for path in sorted(paths):
        if path not in sides.changed_in_store:
            continue
        problem = problems.get(path) or sides.problem(path)
        if problem or path in waiting or path in sides.unstable:
            return path, problem
    return None, None
