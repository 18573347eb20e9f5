"""Recognises the store: is the one that answers the one that this replica knew? Called by `side`.

Two sources are compared with what this replica has seen, and neither is enough alone (`lineage` has the
judgement):

1. revisions, with each listing and comparison: a restored snapshot has lower ones;
2. write ids, with each listing and connection: once a restored store was written to as often as before, only the
   write that has a known revision shows that its history is another one.
"""

import itertools
from collections.abc import Iterable
from collections.abc import Mapping as Map

from configstore.errors import FutureRevisionError
from configstore.model.path import StorePath
from configstore.model.record import Entry, Kind
from configstore.store.history import ExpiredError, record_written_at
from configstore.store.tree import Tree
from configstore.store.values import Stored
from sidecar.mapping import Mapping
from sidecar.planner.lifecycle import rescue
from sidecar.planner.sides import RemoteEntry
from sidecar.planner.three_sides import ThreeSides
from sidecar.remote.lineage import contradiction, given_away, of_nothing, rewritten


class KnownStore:
    """What this replica knows of the store's history.

    nothing_there: whether the store had no record of the mapping when it was last listed or compared as a whole.
    """

    def __init__(self, tree: Tree, mapping: Mapping, sides: ThreeSides) -> None:
        self.nothing_there = False
        self._tree = tree
        self._mapping = mapping
        self._sides = sides

    def contradiction(
        self,
        highest: int,
        found: Map[StorePath, int],
        *,
        revision: int,
        cluster_id: int,
        asked_at: int | None = None,
    ) -> str | None:
        """Return why this is not the store that was known, or None.

        highest: the newest revision that is known of. found: the mod_revision of each record in the answer.
        revision, cluster_id: the answer's. asked_at: the newest revision that was known when this was asked for;
        None for `highest`. What became known after the question, and is newer than the answer, contradicts
        nothing.
        """
        known = {path: remote.mod_revision for path, remote in self._records().items()}
        seen = max([highest, *known.values()])
        if asked_at is not None and asked_at <= revision:
            known = {path: at for path, at in known.items() if at <= revision}
            seen = revision
        return contradiction(
            known=known,
            seen=seen,
            cluster_id=self._sides.cluster_id,
            found=found,
            revision=revision,
            found_cluster_id=cluster_id,
            mapping=self._mapping.name,
            held=self.held(),
        )

    def rewritten_in(self, found: Map[StorePath, Stored]) -> str | None:
        """Return why the history of some records is not the one that was known, or None."""
        return rewritten(self._records(), found, self._mapping.name, held=self.held())

    def rewritten_at_newest(self) -> str | None:
        """Read the newest known record at its revision, and return why another write has that now, or None.

        Raises StoreError.
        """
        known = self._records()
        if not known:
            return None
        path = max(known, key=lambda each: (known[each].mod_revision, each))
        try:
            found = record_written_at(self._tree, self._mapping.absolute(path), known[path].mod_revision)
        except (FutureRevisionError, ExpiredError):
            return None  # of the former `contradiction` has the better text
        if found is None:
            return given_away(path, known[path].mod_revision, self._mapping.name, held=self.held())
        return self.rewritten_in({path: found}) if isinstance(found, Stored) else None

    def text(self, why: str) -> str:
        """Return what an operator reads about a contradiction."""
        if not self.nothing_there:
            return why
        return of_nothing(why, rescue(self._mapping, held=self.held(), replica=self._tree.replica))

    def held(self) -> int:
        """Return how many files this replica has."""
        return file_count(local.entry for local in self._sides.local.values())

    def _records(self) -> dict[StorePath, RemoteEntry]:
        """Return the newest record of each path that was seen, or was agreed on before this start."""
        known = {
            path: RemoteEntry(entry=agreed.remote, mod_revision=agreed.mod_revision, write_id=agreed.write_id)
            for path, agreed in self._sides.baseline.items()
        }
        buried = self._sides.buried.newest
        for path, remote in itertools.chain(self._sides.remote.items(), [buried] if buried else []):
            if path not in known or known[path].mod_revision < remote.mod_revision:
                known[path] = remote
        return known


def file_count(entries: Iterable[Entry]) -> int:
    """Return how many entries are no directories."""
    return sum(entry.kind is not Kind.DIR for entry in entries)
