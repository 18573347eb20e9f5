"""The state of each change of a set that is being applied: done, given up with a reason, or stale.

Called by `apply`. Changes of one group are made together: when one of them is given up, so are the others.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from configstore.files.reasons import why_failed
from configstore.model.path import StorePath, shown
from configstore.model.problem import Problem
from sidecar.local.change import ContentUnavailableError, LocalChange, SupersededError
from sidecar.local.stage import Refused
from sidecar.planner.sides import LocalEntry


class ApplyResult(msgspec.Struct, kw_only=True):
    """The result of applying a set.

    done: the paths that have their new state, which is given. problems: the paths that could not be changed, and
    why; their old state is unharmed. stale: paths with another state than expected, which were left alone.
    """

    done: dict[StorePath, LocalEntry | None] = {}
    problems: dict[StorePath, Problem] = {}
    stale: set[StorePath] = set()


class Stale(Exception):  # noqa: N818  # becomes a value
    """A path has another state than the plan expected."""


class SetProgress:
    """Takes the steps of a set with each change that is not given up.

    broken: the groups of which a change was given up, with the path of that change.
    """

    def __init__(self, changes: Sequence[LocalChange]) -> None:
        self.applied = ApplyResult()
        self.broken: dict[int, StorePath] = {}
        self._changes = changes

    def each(
        self,
        changes: Iterable[LocalChange],
        step: Callable[[LocalChange], object],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a step with all changes that are not given up; one that fails is given up, and `failed` called."""
        for change in changes:
            if self.given_up(change):
                continue
            try:
                step(change)
            except (Stale, SupersededError):
                self._give_up(change, stale=True)
                self.applied.stale.add(change.path)
            except (Refused, ContentUnavailableError) as refusal:
                self.refuse(change, str(refusal))
            except OSError as error:
                self.refuse(change, why_failed(error))
            else:
                continue
            failed()

    def given_up(self, change: LocalChange) -> bool:
        """Return whether a change is given up."""
        return change.path in self.applied.problems or change.path in self.applied.stale

    def refuse(self, change: LocalChange, reason: str) -> None:
        """Give a change up with a reason, unless it has one."""
        self.applied.problems.setdefault(change.path, Problem(path=change.path, reason=reason))
        self._give_up(change, stale=False)

    def not_as_placed(self, change: LocalChange) -> None:
        """Give up a change that was made and could not be undone with its group.

        The application changed the file since. That counts as an edit of the former file, as for every other path
        of the group. Were it an edit of the new file, a set that was edited as a whole would be sent in part.
        """
        self.applied.done.pop(change.path, None)
        self.applied.stale.add(change.path)

    def _give_up(self, change: LocalChange, *, stale: bool) -> None:
        """Remember the path that broke a group first. A stale path comes before a problem: it is planned again."""
        first = self.broken.setdefault(change.group, change.path)
        if stale and first not in self.applied.stale:
            self.broken[change.group] = change.path

    def hold_back(self, placed: Collection[StorePath]) -> None:
        """Give up the other changes of each broken group, except those at the `placed` paths."""
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
