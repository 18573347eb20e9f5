"""`replicas`, `status` and `resume`: the live sidecars, what they do, and ending a halt by a person's choice."""

import argparse
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from configstore.cli.arguments import Commands, add_command
from configstore.cli.render import write_json, write_line, write_table
from configstore.cli.session import asker, open_tree, removal, say, say_all
from configstore.errors import NotThereError, UnreachableError
from configstore.model.keys import shown_key
from configstore.model.path import ROOT, StorePath, printable
from configstore.model.replica import Ask, Report, Request, State, Take, Verb
from configstore.store.conflicts import all_sides
from configstore.store.leases import held_up
from configstore.store.replicas import asking, fresh_reports, live, unreadable
from configstore.store.tree import Tree

PATIENCE = 2.0
"""Seconds that replicas have to answer; one that does not is frozen, cut off, or died less than a minute ago."""

FOLD = 3
"""Paths with the same problem that have a line each; where there are more, all share one."""

RESUME_PATIENCE = 30.0
"""Seconds that a replica has to act on a person's choice."""


def add(commands: Commands) -> None:
    """Add the parsers."""
    replicas = add_command(commands, "replicas", _replicas, "list the live replicas of each mapping", listed=True)
    replicas.add_argument("mapping", metavar="MAPPING", nargs="?")
    replicas.set_defaults(late="mapping")
    words = "show the store, the mappings and what is wrong; exit code 1 when something needs a look"
    add_command(commands, "status", _status, words, listed=True)
    resume = add_command(
        commands, "resume", _resume, "end the halt of a mapping, or its vanished records, by choosing a side"
    )
    resume.add_argument("mapping", metavar="MAPPING")
    resume.add_argument(
        "--take",
        choices=[str(take) for take in Take],
        required=True,
        help="whose state is right: the store's, or the replica's own files",
    )
    resume.add_argument("--replica", metavar="ID", help="only this replica (default: all that are halted)")


def request(args: argparse.Namespace, verb: Verb, **fields: object) -> Request:
    """Return a request with an id of its own, by who uses the command."""
    return msgspec.convert({"id": uuid.uuid4().hex, "verb": verb, "by": asker(args), **fields}, Request)


def ask_reports(tree: Tree) -> tuple[list[Report], list[Report]]:
    """Return fresh reports, and the last ones of replicas that did not answer in time. Raises StoreError."""
    if not live(tree.kv, tree.keys):
        return [], []
    with asking(tree.kv, tree.keys, Ask(id=uuid.uuid4().hex)) as revision:
        return fresh_reports(tree.kv, tree.keys, revision, PATIENCE)


def wait_for(tree: Tree, asked: Sequence[Report], patience: float = RESUME_PATIENCE) -> list[Report]:
    """Return the replicas of which, after `patience` seconds, what was asked about is still so."""
    end = time.monotonic() + patience
    while True:
        now = {(found.mapping, found.replica): found for found, _ in live(tree.kv, tree.keys).values()}
        left = [each for each in asked if _still(each, now.get((each.mapping, each.replica)))]
        if not left or time.monotonic() >= end:
            return left
        time.sleep(0.05)


def _still(before: Report, now: Report | None) -> bool:
    if now is None or now.session != before.session:
        return False
    if before.state is State.HALTED:
        return now.state is State.HALTED and now.reason == before.reason
    return now.vanished >= before.vanished


def _replicas(args: argparse.Namespace) -> int:
    with open_tree(args) as tree:
        reports, late = ask_reports(tree)
        unread = unreadable(tree.kv, tree.keys)
    rows = [
        (report, silent)
        for found, silent in ((reports, False), (late, True))
        for report in found
        if args.mapping in {None, report.mapping}
    ]
    rows.sort(key=lambda row: (row[0].mapping, row[0].replica))
    if args.json:
        write_json([_fields(report, silent=silent) for report, silent in rows])
    else:
        write_table([_row(report, silent=silent) for report, silent in rows])
    if not rows:
        say("no live replica" + (f" mirrors {args.mapping}" if args.mapping else ""))
    _say_unread(unread)
    return NotThereError.exit_code if unread else 0


def _say_unread(unread: Mapping[bytes, str]) -> None:
    say_all(f"{shown_key(key)}: no report: {why}; `{removal(key)}` removes it" for key, why in unread.items())


def _fields(report: Report, *, silent: bool) -> dict[str, object]:
    fields = msgspec.to_builtins(report)
    del fields["v"], fields["session"]
    return {**fields, "answers": not silent}


def _row(report: Report, *, silent: bool) -> tuple[str, ...]:
    return (
        report.mapping,
        report.replica,
        printable(report.host),
        "silent" if silent else report.word,
        f"revision {report.revision}",
        f"{report.paths} paths",
        f"{report.pending} pending",
        f"{report.problem_count} problems",
    )


def _status(args: argparse.Namespace) -> int:
    with open_tree(args) as tree:
        store = tree.kv.status()
        reports, late = ask_reports(tree)
        kept = len(all_sides(tree, ROOT))
        leases = held_up(tree.kv, tree.keys, time.time())
        unread = unreadable(tree.kv, tree.keys)
    _say_unread(unread)
    silent = {(each.mapping, each.replica) for each in late}
    everyone = sorted([*reports, *late], key=lambda each: (each.mapping, each.replica))
    unwell = [each for each in reports if each.state is not State.READY or each.problem_count]
    looks = bool(late or unwell or kept or leases or unread or store.alarms or not store.leader)
    code = NotThereError.exit_code if looks else 0
    if args.json:
        write_json(
            {
                "store": msgspec.to_builtins(store),
                "replicas": [_fields(each, silent=(each.mapping, each.replica) in silent) for each in everyone],
                "conflicts": kept,
                "leases_held_up": leases,
            }
        )
        return code
    alarms = f", alarm {', '.join(store.alarms)}" if store.alarms else ""
    write_line(
        f"etcd {store.version}, revision {store.revision}, {store.db_size / 2**20:.1f} MiB"
        f"{alarms}{'' if store.leader else ', without a leader'}"
    )
    for mapping in dict.fromkeys(each.mapping for each in everyone):
        for line in _mapping_lines([each for each in everyone if each.mapping == mapping], silent):
            write_line(line)
    if not everyone:
        write_line("no live replica")
    for line in leases:
        write_line(line)
    if kept:
        write_line(f"{kept} losing sides of conflicts: `configstore conflicts`")
    return code


def _mapping_lines(reports: Sequence[Report], silent: set[tuple[str, str]]) -> Iterable[str]:
    """Say of a mapping how many replicas are fine, and what is wrong with each of the others."""
    answering = [each for each in reports if (each.mapping, each.replica) not in silent]
    fine = [each for each in answering if each.state is State.READY]
    degraded = sum(each.degraded for each in fine)
    but = f", {degraded} of them degraded" if degraded else ""
    yield f"{reports[0].mapping}: {len(fine)} of {len(reports)} replicas ready{but}"
    holders = [each for each in reports if each.held]
    for each in reports:
        who = f"  {each.replica}@{printable(each.host)}: "
        if (each.mapping, each.replica) in silent:
            yield f"{who}does not answer; it was {each.state}: frozen, cut off, or died within the last minute"
        elif each.state is not State.READY:
            yield f"{who}{each.state}: {printable(_reason(each, holders))}"
        for line in _problem_lines(each):
            yield f"{who}{printable(line)}"
        if each.problem_count > len(each.problems):
            yield f"{who}and {each.problem_count - len(each.problems)} problems more"
        if each.last_choice:
            yield f"{who}last choice: {printable(each.last_choice)}"


def _reason(report: Report, holders: Sequence[Report]) -> str:
    """Return why a replica is not ready. One without files is told to wait for those that still hold them."""
    if report.lost and not report.held and holders:
        named = ", ".join(f"{each.replica} ({each.held} files)" for each in holders)
        return f"holds no files of what the store has lost; leave it: it is filled again from {named}"
    return report.reason or "first cycle under way"


def _problem_lines(report: Report) -> Iterator[str]:
    """Yield a line for each problem; where many paths have the same, one for all of them."""
    alike: dict[str, list[str]] = {}
    for problem in report.problems:
        alike.setdefault(problem.reason, []).append(problem.shown(report.store) if problem.path else "")
    for reason, paths in alike.items():
        folded = [f"{', '.join(paths[:FOLD])} and {len(paths) - FOLD} more"] if len(paths) > FOLD else paths
        for path in folded:
            yield f"{path}: {reason}" if path else reason


def _resume(args: argparse.Namespace) -> int:
    with open_tree(args) as tree:
        found = [
            report
            for report, _ in live(tree.kv, tree.keys).values()
            if report.mapping == args.mapping and args.replica in {None, report.replica}
        ]
        asked = [report for report in found if report.state is State.HALTED or report.vanished]
        if not asked:
            raise NotThereError(_nothing_to_resume(args.mapping, args.replica, found))
        requests = [
            request(
                args,
                Verb.RESUME,
                mapping=report.mapping,
                replica=report.replica,
                take=args.take,
                reason=report.reason if report.state is State.HALTED else "",
            )
            for report in asked
        ]
        with asking(tree.kv, tree.keys, *requests):
            left = wait_for(tree, asked)
    for report in asked:
        if report not in left:
            say(f"{report.mapping}: {report.replica}: resumed")
    if left:
        raise UnreachableError(
            f"{args.mapping}: {', '.join(each.replica for each in left)}: not resumed within"
            f" {RESUME_PATIENCE:g} s; what it waits for may have changed: look at `configstore status`"
        )
    return 0


def _nothing_to_resume(mapping: str, replica: str | None, found: Sequence[Report]) -> str:
    if not found:
        who = f"live replica {replica}" if replica else "live replica"
        return f"{mapping}: no {who} mirrors it; `configstore replicas` lists them"
    return f"{mapping}: no replica is halted, and no record of it vanished; there is nothing to resume"


def mappings_holding(reports: Iterable[Report], path: StorePath) -> list[tuple[Report, StorePath]]:
    """Return the replicas that miss records in a mapping to which a path belongs, with the path as they see it."""
    found = []
    for report in reports:
        inside = path.startswith(f"{report.store}/") if report.store else True
        if inside and report.vanished:
            found.append((report, StorePath(path[len(report.store) + 1 :] if report.store else path)))
    return found
