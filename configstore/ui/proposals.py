"""The changes that `--write` allows, each as a proposal: what would be done, from which state, and its call.

1. A proposal's `fields` name everything it was made from: revisions, ids, a halt's reason.
2. `actions` makes it again when it is confirmed; if a field differs, the store has changed meanwhile.
3. `act` compares the same revisions once more, in the store's transaction, so no change in between is lost.

The functions that change the store are those of the commands.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence

import msgspec

from configstore.cli.conflicts import take
from configstore.cli.history import as_one_deletion, carry_out, only_one
from configstore.cli.replicas import wait_for
from configstore.errors import ConflictError, NotThereError, RefusedError
from configstore.model.path import StorePath, parse_path, printable, shown
from configstore.model.phrases import counted
from configstore.model.record import Kind, RecordError, sha256
from configstore.model.replica import MappingState, Report, Request, Take, Verb
from configstore.store.conflicts import Loser, Unread, all_sides, drop
from configstore.store.history import ExpiredError, restoring
from configstore.store.lease_queue import break_lease, queue
from configstore.store.replicas import asking, live_reports
from configstore.store.tree import Tree
from configstore.store.values import Stored, UnreadableRecord
from configstore.ui import filters

RESUME_PATIENCE = 10.0
"""Seconds that a replica has to carry out the choice while the browser waits."""

_APPLIED = "Every live replica of its mapping applies this within moments, and runs its hooks."
_KEPT = "What is there now goes to the history, and can be restored in the same way."


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """What would be done: `sentences` for a person, `fields` for the form.

    act: does it, and returns a text that says what was done; raises ConfigstoreError. back: the page to return to.
    """

    title: str
    verb: str
    sentences: tuple[str, ...]
    fields: dict[str, str]
    back: str
    act: Callable[[], str]


def restore(tree: Tree, given: Mapping[str, str]) -> Proposal:
    """Propose to restore a path to an earlier version. Raises ConfigstoreError, PathError."""
    path, wanted = parse_path(given.get("path", "")), _number(given.get("revision", ""))
    found = only_one(tree, path)[path]
    try:
        then = found.at(wanted)
        writes = as_one_deletion(tree, list(restoring(tree, {path: found}, wanted)))
    except (ExpiredError, RecordError) as error:
        raise NotThereError(str(error)) from None
    if not writes:
        raise NotThereError(f"{shown(path)}: is what it was at revision {wanted}; there is nothing to restore")

    def act() -> str:
        carry_out(tree, path, writes)
        return f"{shown(path)}: was restored as of revision {wanted}"

    deletes = " It was not there then: it will be deleted." if then is None or then.gone else ""
    return Proposal(
        title=f"Restore {shown(path)}",
        verb="Restore it",
        sentences=(
            f"Now: {_described(found.now())}.",
            f"It becomes what it was at revision {wanted}: {_described(then)}.{deletes}",
            _APPLIED,
            _KEPT,
        ),
        fields={
            "path": path,
            "revision": str(wanted),
            "seen": str(found.current),
            "then": str(then.mod_revision if then else 0),
        },
        back=f"/path/{filters.link(path)}",
        act=act,
    )


def resolve(tree: Tree, given: Mapping[str, str]) -> Proposal:
    """Propose to end a conflict. Raises ConfigstoreError, PathError."""
    path, choice = parse_path(given.get("path", "")), given.get("take", "")
    sides = [each for each in all_sides(tree, path) if each.path == path]
    if not sides:
        raise NotThereError(f"{shown(path)}: has no conflict any more")
    now = tree.read(path)
    fields = {
        "path": path,
        "take": choice,
        "seen": str(now.mod_revision if now else 0),
        "sides": " ".join(each.id for each in sides),
    }
    if choice == "store":
        return _keep_store(tree, path, now, sides, fields)
    loser = next((each for each in sides if isinstance(each, Loser) and each.id == choice), None)
    if loser is None:
        raise NotThereError(f"{shown(path)}: has no losing side {printable(choice)} that can be read")
    return _take_losing_side(tree, loser, now, fields)


def _keep_store(
    tree: Tree, path: StorePath, now: Stored | None, sides: Sequence[Loser | Unread], fields: dict[str, str]
) -> Proposal:
    seen = now.mod_revision if now else 0
    count = counted(len(sides), "losing side")

    def act() -> str:
        removed = sum(drop(tree, each, while_at=seen) for each in sides)
        if removed < len(sides):
            raise ConflictError(f"{shown(path)}: changed meanwhile; {removed} of {count} removed; look again")
        return f"{shown(path)}: the store stays as it is; {count} removed"

    return Proposal(
        title=f"Keep what the store holds of {shown(path)}",
        verb="Keep the store's",
        sentences=(
            f"The store stays as it is: {_described(now)}.",
            f"{count} will be removed for good; nothing can bring {'it' if len(sides) == 1 else 'them'} back.",
        ),
        fields=fields,
        back="/conflicts",
        act=act,
    )


def _take_losing_side(tree: Tree, loser: Loser, now: Stored | None, fields: dict[str, str]) -> Proposal:
    entry, origin = loser.record.entry, loser.record.origin

    def act() -> str:
        take(tree, loser, seen=now.mod_revision if now else 0)
        drop(tree, loser)
        return f"{shown(loser.path)}: the losing side {loser.id} was taken"

    written = f"written by {filters.who(origin)} at {filters.clock(origin.time)}"
    return Proposal(
        title=f"Take the losing side of {shown(loser.path)}",
        verb="Take it",
        sentences=(
            f"Now the store holds: {_described(now)}.",
            f"It becomes the losing side: {filters.what(entry)}, {written}.",
            _APPLIED,
            _KEPT,
        ),
        fields=fields,
        back="/conflicts",
        act=act,
    )


def resume(tree: Tree, given: Mapping[str, str], *, by: str) -> Proposal:
    """Propose to end a replica's halt, or its report of vanished records. Raises ConfigstoreError.

    by: the person who chooses, as the request to the replica names it.
    """
    mapping, replica = given.get("mapping", ""), given.get("replica", "")
    if given.get("take") not in {"store", "local"}:
        raise RefusedError("expected a side: store or local")
    side = Take(given["take"])
    report = _halted(tree, mapping, replica)
    halted = report.state is MappingState.HALTED

    def act() -> str:
        request = Request(
            id=uuid.uuid4().hex,
            verb=Verb.RESUME,
            by=by,
            mapping=mapping,
            replica=replica,
            take=side,
            reason=report.reason if halted else "",
        )
        with asking(tree, request):
            left = wait_for(tree, [report], RESUME_PATIENCE)
        if left:
            raise ConflictError(
                f"{mapping}: {replica}: not resumed within {RESUME_PATIENCE:g} s; what it waits for may have"
                " changed: look at the mapping again"
            )
        return f"{mapping}: {replica}: resumed; {_whose(side)} state was taken"

    return Proposal(
        title=f"Resume {printable(mapping)} on {printable(replica)}",
        verb="Resume",
        sentences=(
            f"It is halted: {printable(report.reason)}"
            if halted
            else f"{report.vanished} records vanished from the store without a tombstone.",
            f"You say that {_whose(side)} state is right. {_consequence(report, side)}",
            f"The sidecar logs, and shows, that {printable(by)} chose this.",
        ),
        fields={
            "mapping": mapping,
            "replica": replica,
            "take": str(side),
            "session": report.session,
            "reason": sha256(report.reason.encode()),
            "vanished": str(report.vanished),
        },
        back=f"/mapping/{filters.link(mapping)}",
        act=act,
    )


def _halted(tree: Tree, mapping: str, replica: str) -> Report:
    for report in live_reports(tree):
        same = (report.mapping, report.replica) == (mapping, replica)
        if same and (report.state is MappingState.HALTED or report.vanished):
            return report
    raise NotThereError(f"{mapping}: {replica}: is not halted, and no record of it vanished")


def _whose(side: Take) -> str:
    return "the store's" if side is Take.STORE else "this replica's"


def _consequence(report: Report, side: Take) -> str:
    subtree, name = shown(report.store), printable(report.replica)
    if side is Take.STORE:
        return (
            f"What {name} changed or deleted below {subtree} and did not send is undone; no other replica changes."
        )
    return f"What {name} has below {subtree}, and what it has no more, becomes the store's and every replica's."


def break_lease_of(tree: Tree, given: Mapping[str, str]) -> Proposal:
    """Propose to take a lease from its holder. Raises ConfigstoreError."""
    name = given.get("name", "")
    entries = queue(tree, name) if name else []
    if not entries:
        raise NotThereError(f"lease {printable(name)} is not held")
    holder = entries[0]

    def act() -> str:
        if not break_lease(tree, holder):
            raise ConflictError(f"lease {name}: its holder changed meanwhile; nothing was changed")
        return f"lease {name} was taken from {holder.text}"

    return Proposal(
        title=f"Take lease {printable(name)} away",
        verb="Take it away",
        sentences=(
            f"It is held by {holder.text}.",
            "The holder notices at once, and stops what it runs; what that has not committed yet is refused.",
            f"Next is {entries[1].text}." if len(entries) > 1 else "Nobody waits for it.",
        ),
        fields={"name": name, "token": str(holder.token), "lease": f"{holder.etcd_lease:x}"},
        back="/leases",
        act=act,
    )


def _described(found: Stored | UnreadableRecord | None) -> str:
    """Return a version of a path as a text, without its content."""
    if found is None:
        return "nothing"
    if isinstance(found, UnreadableRecord):
        return f"a record that cannot be read, of revision {found.mod_revision}"
    origin = found.record.origin
    if found.entry.kind is Kind.GONE:
        return f"nothing: it was deleted by {filters.who(origin)} at revision {found.mod_revision}"
    by = f"{filters.who(origin)} at {filters.clock(origin.time)}"
    return f"{filters.what(found.entry)}, of revision {found.mod_revision}, by {by}"


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18 or not int(text):
        raise NotThereError("expected a revision, a whole number above 0")
    return int(text)
