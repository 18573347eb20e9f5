"""Brings the store's state to the mirrored directory, as a set. Called by the engine's thread only.

A set here is what one call of `apply` gets. Its groups, the records of one transaction each, are applied whole or
not at all. The order of the steps, and why:

1. Everything is staged first, with its content, owner and mode: what can fail fails before anything is visible.
   Then what changes between directory and another kind is removed, and new directories are placed, since files
   are to go into them.
2. The intents are in the journal before the first rename of a file, so that `recovery` can finish or undo the set.
3. The renames follow each other with one stat before each and nothing else in between, so that old and new files
   are mixed for as short a time as possible. Removals come after them: links and programs find the new files
   first.
4. Then the files that were taken out are judged, by content too. A group is undone if one of its files is not the
   expected one: the application wrote to it at the last moment.
5. Other directories are removed only after that, when nothing can be put back into them any more.
6. Bookkeeping comes last, and the final modes of directories last of all (`directories`).
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing

from configstore.files.entries import Entries
from configstore.model.path import StorePath
from sidecar.local.change import LocalChange
from sidecar.local.directories import Directories
from sidecar.local.journal import Journal
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.set_progress import ApplyResult
from sidecar.local.set_steps import SetSteps
from sidecar.local.stage import Stage
from sidecar.local.watch import LocalWatch
from sidecar.mapping import Mapping

__all__ = ["Applier", "ApplyResult", "LocalChange"]


class Applier:
    """Applies sets of changes to one mapping's directory."""

    def __init__(
        self,
        root: MirroredDirectory,
        mapping: Mapping,
        journal: Journal,
        note: Callable[[StorePath], None] = lambda _: None,
        watch: LocalWatch | None = None,
    ) -> None:
        """note: called with each path that was placed. watch: sleeps while files are renamed."""
        self._root = root
        self._mapping = mapping
        self._journal = journal
        self._note = note
        self._watch = watch
        self._stage = Stage(root, mapping.symlinks)
        self._entries = Entries()

    def room(self) -> int:
        """Return how many bytes are free on the file system. A tmpfs without a limit reports a size of 0."""
        found = os.fstatvfs(self._root.staging_fd)
        return found.f_bavail * found.f_frsize if found.f_blocks else sys.maxsize

    def apply(self, changes: Sequence[LocalChange]) -> ApplyResult:
        """Make the changes. What fails is in the result, and its old state stays.

        Call `finish` once the agreements are in the baseline. Raises what a source raises when the store is
        unavailable; nothing was placed then.
        """
        with closing(Directories(self._root, self._mapping.dir_mode, self._journal)) as directories:
            steps = SetSteps(
                changes, directories, self._stage, self._entries, self._journal, rank=self._mapping.rank
            )
            try:
                steps.make_ready()
            except Exception:
                self._stage.clear()
                raise
            self._put_in_place(steps)
            self._stage.clear()
            directories.restore_modes()
        for path, local in steps.applied.done.items():
            if local:
                self._note(path)
        return steps.applied

    def _put_in_place(self, steps: SetSteps) -> None:
        if self._watch is None:
            steps.put_in_place()
            return
        self._watch.hold()
        try:
            steps.put_in_place()
        finally:
            self._watch.release(steps.moves, steps.is_as_left)

    def finish(self) -> None:
        """Clear the journal, since the set is agreed on."""
        self._journal.clear()
