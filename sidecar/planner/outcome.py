"""The outcome of a plan, as a value: `cycle.push` and `cycle.pull` fill it in, the engine reads it."""

import msgspec

from configstore.errors import StoreError
from configstore.model.path import StorePath
from configstore.model.problem import Problem


class CycleOutcome(msgspec.Struct, kw_only=True):
    """What was done of a plan, and what was not.

    pushed, deleted_there: paths written to the store, and deleted there. pulled, deleted_here: paths written to
    the mirrored directory, and deleted in it. again: paths that were not done and are planned again. moved_on: of
    these, the paths whose local state is not the planned one any more: they are scanned again. backing_off: the
    paths that failed by their own fault and pause before the next try. problems: paths that could not be done, and
    why; they pause, too. refused: of these, the paths that the check refused; they do not pause, since the change
    that makes them acceptable may come at any moment and is checked together with them. fenced_out: the store
    refused a push since the lease is not held any more. failure: why the store took no pushes; the pulls were made
    all the same. revision: of the last push, or 0. behind: the store has newer records than the plan knew, and its
    watch is about to report them.
    """

    pushed: list[StorePath] = []
    deleted_there: list[StorePath] = []
    pulled: list[StorePath] = []
    deleted_here: list[StorePath] = []
    again: set[StorePath] = set()
    moved_on: set[StorePath] = set()
    backing_off: set[StorePath] = set()
    problems: dict[StorePath, Problem] = {}
    refused: set[StorePath] = set()
    fenced_out: bool = False
    failure: StoreError | None = None
    revision: int = 0
    behind: bool = False

    @property
    def advanced(self) -> bool:
        """Whether anything was pushed or pulled."""
        return bool(self.pushed or self.deleted_there or self.pulled or self.deleted_here)
