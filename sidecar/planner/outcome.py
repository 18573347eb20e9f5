"""What came of a plan, as a value: made by `push` and `pull`, read by the engine."""

import msgspec

from configstore.errors import StoreError
from configstore.model.path import StorePath
from configstore.model.problem import Problem


class CycleOutcome(msgspec.Struct, kw_only=True):
    """What came of a plan.

    pushed, deleted_there: paths written to the store, and deleted there. pulled, deleted_here: likewise in the
    directory. again: paths to be planned again, since they were not done. moved_on: of these, the ones that are
    not here what they were believed to be. setbacks: those that failed by themselves and pause before they are
    tried again. problems: what could not be done now, and why; those pause, too. refused: of these, the ones that
    the check refused: they pause not, since what makes them good comes at any moment, and goes with them. failure:
    why the store took no pushes; what it has to give was pulled all the same. revision: of the last push, or 0.
    behind: the store had moved on, and its watch is about to tell.
    """

    pushed: list[StorePath] = []
    deleted_there: list[StorePath] = []
    pulled: list[StorePath] = []
    deleted_here: list[StorePath] = []
    again: set[StorePath] = set()
    moved_on: set[StorePath] = set()
    setbacks: set[StorePath] = set()
    problems: dict[StorePath, Problem] = {}
    refused: set[StorePath] = set()
    fenced_out: bool = False
    failure: StoreError | None = None
    revision: int = 0
    behind: bool = False

    @property
    def advanced(self) -> bool:
        """Whether anything travelled."""
        return bool(self.pushed or self.deleted_there or self.pulled or self.deleted_here)
