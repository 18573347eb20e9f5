"""Judges whether the store that answers is the one that this replica knew. Pure; called by `known_store`.

A restored snapshot keeps its cluster id, member ids and raft term, and a watch on it stays silent or goes on with
other revisions. But its revision, or that of a record that was changed after the snapshot, is lower than before.
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
    """Return why the store cannot be the known one, with what to do; or None.

    known, found: mod_revisions by path, before and now; the planner judges what is missing now. seen, revision:
    the store's revision, before and now. A cluster id of 0 is not known. held: how many files this replica has.
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
    """Return why the store's history is not that of the known records, or None.

    After a restore a known revision can be that of another write, even one of the same path and content.
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
    """Return the text for a known record whose revision is that of another write now."""
    what = f"its revision {revision} is another write's now: a restored snapshot?"
    return f"{shown(path)}: {what}{_mend(mapping, held)}"


def of_nothing(why: str, mend: str) -> str:
    """Return the text for a store without any record of the mapping; it does not offer to let that store win."""
    return f"{why.partition(_KEPT)[0]}{_NOTHING_THERE}{mend}"


def _mend(mapping: str, held: int) -> str:
    """Return what a person may do. A replica without files must not advise to write its state to the store."""
    return _KEPT + (_CHOICE if held else _NOTHING_HERE).format(mapping)
