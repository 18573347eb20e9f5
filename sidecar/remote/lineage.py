"""Tells whether what answers is still the store that this replica knew. Called by `side`.

A restored snapshot keeps its cluster id, member ids and term, and a watch on it stays silent or goes on with other
revisions. But its revision, or that of a record that was changed after the snapshot, is lower than what was seen.
"""

from collections.abc import Mapping

from configstore.model.path import StorePath, shown
from configstore.store.values import Stored
from sidecar.planner.sides import RemoteEntry

_KEPT = " Nothing is applied, pushed or deleted. Bring the right etcd back, or go on with this one: "
_CHOICE = (
    "`configstore resume {} --take store` has its content win, `--take local` the files here; a copy of what loses"
    " stays"
)
_NOTHING_THERE = " Nothing of this mapping lies in it: a wiped etcd? Nothing is applied, pushed or deleted. "
_NOTHING_HERE = (
    "`configstore resume {} --take store` takes its content; this replica holds no files, so do not let it write"
    " the store anew"
)


def contradiction(
    *,
    known: Mapping[StorePath, int],
    seen: int,
    cluster_id: int,
    found: Mapping[StorePath, int],
    revision: int,
    found_cluster_id: int,
    mapping: str,
    held: int,
) -> str | None:
    """Return why the store cannot be the one that was known, with the mend; or None.

    known, found: mod_revisions by path, before and now; what is missing now is for the planner to judge. seen,
    revision: the store's revision, before and now. A cluster id of 0 is not known. held: how many files lie here.
    """
    mend = _mend(mapping, held)
    if cluster_id and found_cluster_id and cluster_id != found_cluster_id:
        return f"another etcd cluster answers ({found_cluster_id:x}, and not {cluster_id:x}).{mend}"
    if revision < seen:
        return f"the store's revision went back from {seen} to {revision}: a restored snapshot?{mend}"
    for path, before in known.items():
        now = found.get(path, before)
        if now < before:
            return f"{shown(path)}: its revision went back from {before} to {now}: a restored snapshot?{mend}"
    return None


def rewritten(
    known: Mapping[StorePath, RemoteEntry], found: Mapping[StorePath, Stored], mapping: str, *, held: int
) -> str | None:
    """Return why the store's history is another one than that of the known records, or None.

    After a restore a revision is given to another write, be it of the same path and content.
    """
    for path, record in found.items():
        before = known.get(path)
        if (
            before
            and before.mod_revision == record.mod_revision
            and before.write_id != record.record.origin.write_id
        ):
            return given_away(path, record.mod_revision, mapping, held=held)
    return None


def given_away(path: StorePath, revision: int, mapping: str, *, held: int) -> str:
    """Return the words for a revision that belonged to a known record and does not any more."""
    what = f"its revision {revision} is another write's now: a restored snapshot?"
    return f"{shown(path)}: {what}{_mend(mapping, held)}"


def of_nothing(why: str, mend: str) -> str:
    """Return the words for a store that holds nothing of the mapping: to let that win is no choice to offer."""
    return f"{why.partition(_KEPT)[0]}{_NOTHING_THERE}{mend}"


def _mend(mapping: str, held: int) -> str:
    """Return what a person may do. Whoever holds nothing must not be told to write that over what is left."""
    return _KEPT + (_CHOICE if held else _NOTHING_HERE).format(mapping)
