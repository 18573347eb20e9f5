"""One rule for sets: what was changed together is committed and placed together, or waits together.

- What the store holds since one txn came together (`Sides.came_with`). When a member of it cannot be placed,
  whatever the reason, its companions are held back.
- What was changed here within one settle window belongs together (`Sides.set_of`). When a member of it cannot be
  read, its companions are held back. When a member of it loses a conflict, that is said (`mixed_by`).

An edit of a path that the store does not know replaces nothing, so it waits for nobody.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Map
from collections.abc import Set as AbstractSet

import msgspec

from configstore.model.path import StorePath, shown
from configstore.model.problem import Problem
from configstore.model.record import Kind
from sidecar.planner.plan import Pull, Push, Wait
from sidecar.planner.three_sides import UNKNOWN_SET, Sides


def keep_together(
    *,
    push: dict[StorePath, Push],
    pull: dict[StorePath, Pull],
    waiting: dict[StorePath, Wait],
    problems: dict[StorePath, Problem],
    sides: Sides,
    given_up: AbstractSet[StorePath],
    opened: Map[StorePath, Problem],
) -> None:
    """Change a draft so that no set is torn by it.

    given_up: paths for which nobody waits any more. opened: the problems of paths that have been open for long.
    """
    _push_together(push, waiting, problems, sides, given_up)
    _pull_together(pull, push, waiting, problems, sides=sides, opened=opened)


def held_back(path: StorePath, culprit: StorePath, why: str) -> Problem:
    """Return the problem of a path that waits for another of its set."""
    reason = f"held back, since {shown(culprit)}, which was changed together with it, {why}"
    return Problem(path=path, reason=reason)


def mixed_by(
    push: Map[StorePath, Push], pull: Map[StorePath, Pull], sides: Sides
) -> dict[StorePath, tuple[StorePath, ...]]:
    """Return the paths that lose a conflict while others of their set, changed here together with them, travel.

    Each path is decided for itself, so that no edit is undone that nobody else made. What stands there then is of
    two hands, and somebody should look at it.
    """
    kept: dict[int, list[StorePath]] = defaultdict(list)
    for path, each in push.items():
        if each.in_set != UNKNOWN_SET and each.entry.kind is not Kind.DIR:
            kept[each.in_set].append(path)
    lost = {path: kept[sides.set_of(path)] for path, each in pull.items() if each.keep}
    return {path: tuple(sorted(others)) for path, others in lost.items() if others}


def mixed(path: StorePath, others: Sequence[StorePath]) -> Problem:
    """Return the problem of a path that lost a conflict, while `others` of its set did not."""
    named = ", ".join(map(shown, others[:3]))
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    reason = (
        f"another replica's version won, while {named}{more}, changed here together with it, stayed: see whether"
        " they fit each other. What lost is kept: `configstore conflicts`, `configstore resolve`; a newer version"
        " of any of them ends this"
    )
    return Problem(path=path, reason=reason)


def _push_together(
    push: dict[StorePath, Push],
    waiting: dict[StorePath, Wait],
    problems: dict[StorePath, Problem],
    sides: Sides,
    given_up: AbstractSet[StorePath],
) -> None:
    """Hold back what was changed here together with a path that cannot be read, or that just failed."""
    unread = {path for path in sides.local_problems if path in sides.baseline}
    paused = {path for path, why in waiting.items() if why is Wait.ASIDE} - given_up
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
            waiting[path] = Wait.ASIDE


def _pull_together(
    pull: dict[StorePath, Pull],
    push: dict[StorePath, Push],
    waiting: dict[StorePath, Wait],
    problems: dict[StorePath, Problem],
    *,
    sides: Sides,
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
    sides: Sides,
) -> tuple[StorePath | None, Problem | None]:
    """Return the path, and its problem where it has one, whose newest record cannot be placed now."""
    for path in sorted(paths):
        if path not in sides.news:
            continue
        problem = problems.get(path) or sides.problem(path)
        if problem or path in waiting or path in sides.unstable:
            return path, problem
    return None, None
