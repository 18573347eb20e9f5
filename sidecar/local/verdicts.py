"""What becomes of each member of a set: done, given up with its reason, or stale; and of those that go with it.

Called by `apply`. Changes of one group are made together: when one of them is given up, so are all.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from configstore.files.reasons import why_failed
from configstore.model.path import StorePath, shown
from configstore.model.problem import Problem
from sidecar.local.change import LocalChange, Overtaken, Withheld
from sidecar.local.stage import Refused
from sidecar.planner.sides import LocalEntry


class Applied(msgspec.Struct, kw_only=True):
    """What came of it.

    done: the paths brought to their state, with what lies there now. problems: what could not be done, and why;
    the old state is whole. stale: paths that held something else than expected, and were not touched.
    """

    done: dict[StorePath, LocalEntry | None] = {}
    problems: dict[StorePath, Problem] = {}
    stale: set[StorePath] = set()


class Stale(Exception):  # noqa: N818  # becomes a value
    """Something else lies there than the plan believed."""


class Verdicts:
    """Takes steps with the members of a set, and remembers who was given up.

    broken: the groups of which a member was given up, with the path that broke it.
    """

    def __init__(self, changes: Sequence[LocalChange]) -> None:
        self.applied = Applied()
        self.broken: dict[int, StorePath] = {}
        self._changes = changes

    def each(
        self,
        changes: Iterable[LocalChange],
        step: Callable[[LocalChange], object],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a step with all changes that are not given up; who fails is. failed: called each time."""
        for change in changes:
            if self.given_up(change):
                continue
            try:
                step(change)
            except (Stale, Overtaken):
                self._give_up(change, stale=True)
                self.applied.stale.add(change.path)
            except (Refused, Withheld) as refusal:
                self.refuse(change, str(refusal))
            except OSError as error:
                self.refuse(change, why_failed(error))
            else:
                continue
            failed()

    def given_up(self, change: LocalChange) -> bool:
        """Tell whether a change cannot be made."""
        return change.path in self.applied.problems or change.path in self.applied.stale

    def refuse(self, change: LocalChange, reason: str) -> None:
        """Give a change up, unless it was before."""
        self.applied.problems.setdefault(change.path, Problem(path=change.path, reason=reason))
        self._give_up(change, stale=False)

    def not_as_placed(self, change: LocalChange) -> None:
        """Give up a change that was made and could not be taken back with its group.

        The application was at it. It counts as an edit of what lay there before, as one of any other member does:
        were it one of what the store holds, a set that was edited as a whole would be sent in part.
        """
        self.applied.done.pop(change.path, None)
        self.applied.stale.add(change.path)

    def _give_up(self, change: LocalChange, *, stale: bool) -> None:
        """Remember who broke a group first; what is stale is planned anew at once, so it goes before a problem."""
        first = self.broken.setdefault(change.group, change.path)
        if stale and first not in self.applied.stale:
            self.broken[change.group] = change.path

    def hold_back(self, placed: Collection[StorePath]) -> None:
        """Give up what is left of every group of which a member was given up."""
        for change in self._changes:
            culprit = self.broken.get(change.group)
            if (
                culprit is None
                or change.path in placed
                or change.path in self.applied.done
                or self.given_up(change)
            ):
                continue
            if culprit in self.applied.stale:
                self.applied.stale.add(change.path)
            else:
                reason = f"held back: {shown(culprit)}, which was changed together with it, cannot be applied"
                self.applied.problems[change.path] = Problem(path=change.path, reason=reason)
