"""What a hold does with one mirror: bring it up to date, send what waited, commit what the command changed.

Called by `control.holds`, whose invariants the comments name by number.
"""

from collections.abc import Iterable, Sequence

from configstore.clock import boottime
from configstore.errors import ConfigstoreError, ConflictError, RefusedError, UnreachableError
from configstore.model.path import StorePath, shown
from configstore.model.phrases import first_of
from sidecar.cycle.mirror import Mirror
from sidecar.cycle.unfinished import Unfinished, UnfinishedPath

BRING_UP = 30.0
"""Seconds for a mirror to become up to date once the lease is held."""

NAMED = 5
"""How many paths an error names."""

_LOST = (
    "the store's version came in meanwhile and wins; what was written here is kept: see `configstore conflicts`"
)


def bring_up(mirror: Mirror, newest: int, *, others: int) -> None:
    """Wait until a mirror shows what the last holder committed, and no older change there waits to be sent.

    newest: the revision of the mapping's newest record. others: that of the last sign of another holder.
    Raises RefusedError, UnreachableError.
    """
    # Invariant 2: this hold has no fence yet, so a change that another holder may have overtaken cannot be pushed;
    # `yield_to` has the engine keep it as a conflict, and the wait below is not over before that is done.

    def enough(now: Unfinished) -> bool:
        return _is_up_to_date(now, newest) or bool(_in_the_way(now, newest))

    mirror.yield_to(others)
    try:
        left = mirror.scan_until(BRING_UP, enough)
    finally:
        mirror.yield_to(None)
    if left is None or not _is_followed(mirror):
        raise _not_done(mirror, f"is not up to date with revision {newest}")
    if not _is_up_to_date(left, newest):
        why = _in_the_way(left, newest) or _not_yet(left)
        raise RefusedError(
            f"{mirror.mapping.name} does not show what the lease's last holder committed, so nothing is started:"
            f" {_first_few(why)}"
        )


def send_what_waited(mirror: Mirror) -> Unfinished:
    """Send what was changed here without the lease, and return what is left.

    Raises RefusedError, UnreachableError.
    """
    if mirror.flush(BRING_UP) is None:
        raise _not_done(mirror, "could not be committed in time")
    return _scan(mirror, BRING_UP)


def commit(mirror: Mirror, patience: float, before: Unfinished) -> None:
    """Send all that was changed since `before`, within `patience` seconds.

    Raises ConflictError, RefusedError, UnreachableError, each naming the paths that could not be sent.
    """
    end = boottime() + patience
    sent = mirror.flush(patience) is not None
    now = _scan(mirror, max(1.0, end - boottime()))
    fresh = _made_since(now, before)
    if fresh and all(each.sure for each in fresh):
        raise RefusedError(f"{mirror.mapping.name}: not all of it is committed: {_first_few(map(str, fresh))}")
    if not sent:
        raise _not_done(mirror, "could not be committed in time", fresh)
    if fresh:
        raise ConflictError(f"{mirror.mapping.name}: not all of it is committed: {_first_few(map(str, fresh))}")
    # A directory that began anew meanwhile counts from 0 again.
    count = now.conflicts - (before.conflicts if now.conflicts >= before.conflicts else 0)
    if count:
        lost = [f"{shown(path)}: {_LOST}" for path in now.lost[-count:]]
        raise ConflictError(f"{mirror.mapping.name}: not all of it is committed: {_first_few(lost)}")


def _scan(mirror: Mirror, patience: float) -> Unfinished:
    """Scan everything and return what the mirror has left to do. Raises RefusedError, UnreachableError."""
    now = mirror.scan_until(patience, lambda _: True)
    if now is None:
        raise _not_done(mirror, "could not be looked at in time, so it is not known whether all is committed")
    return now


def _is_followed(mirror: Mirror) -> bool:
    status = mirror.status
    return status.ready and not (status.waiting_for or status.halted)


def _is_up_to_date(now: Unfinished, newest: int) -> bool:
    return now.seen >= newest and not now.unshown and not now.yields


def _in_the_way(now: Unfinished, newest: int) -> list[str]:
    """Return why records cannot be shown, if waiting longer would not help: nothing else is missing.

    A problem of content that is being written (`unsure`) may end by itself, so it is waited for.
    """
    found = [str(problem) for problem in now.unshown.values() if problem and not problem.unsure]
    found += [str(now.unsent[path]) for path in now.yields if now.unsent[path].sure]
    return found if now.seen >= newest and len(found) == len(now.unshown) + len(now.yields) else []


def _not_yet(now: Unfinished) -> list[str]:
    """Return what is still missing, a reason for each path."""
    unshown = (str(problem or f"{shown(path)}: it is on its way") for path, problem in now.unshown.items())
    return [*(str(now.unsent[path]) for path in now.yields), *unshown]


def _made_since(now: Unfinished, before: Unfinished) -> list[UnfinishedPath]:
    """Return what is left and was changed since `before`.

    What may change at any moment (not `sure`) counts as changed: nothing shows that it is still the same.
    """

    def is_fresh(path: StorePath, left: UnfinishedPath) -> bool:
        known = before.unsent.get(path)
        return known is None or not left.sure or left.local != known.local

    return [left for path, left in now.unsent.items() if is_fresh(path, left)]


def _first_few(reasons: Iterable[str]) -> str:
    """Return the first few reasons as one text."""
    return first_of(sorted(set(reasons)), NAMED, separator="; ")


def _not_done(mirror: Mirror, what: str, left: Sequence[UnfinishedPath] = ()) -> ConfigstoreError:
    status = mirror.status
    paths = f" ({_first_few(each.shown for each in left)})" if left else ""
    if status.halted:
        return RefusedError(f"{mirror.mapping.name} {what}{paths}: {status.halted}")
    return UnreachableError(f"{mirror.mapping.name} {what}{paths}: {status.why_not_done()}")
