"""`replicas` and `resume`: what the sidecars report, and a person's choice that ends a halt."""

import argparse
import uuid
from collections.abc import Iterable, Sequence

import msgspec

from configstore.cli.arguments import Commands, add_command, option
from configstore.cli.render import Cell, Style, moment_now, table, when, write_json
from configstore.cli.session import asker, open_tree, say, say_all
from configstore.errors import ConflictError, NotThereError, RefusedError, UnreachableError, UsageError
from configstore.model.keys import removal, shown_key
from configstore.model.path import StorePath, printable, shell_word
from configstore.model.replica import ExpectedReplica, MappingState, Report, Request, Take, Verb
from configstore.parsing import meant
from configstore.store import report_feed
from configstore.store.replicas import asking, everyone, forget, live_reports
from configstore.store.tree import Tree

RESUME_PATIENCE = 30.0
"""Seconds that a replica has to carry out a person's choice."""


def add(commands: Commands) -> None:
    """Add the parsers."""
    text = "list the replicas of each mapping; `replicas forget ID` ends the wait for one that is lost for good"
    replicas = add_command(commands, "replicas", _replicas, text)
    text = "list the replicas of this mapping alone; or forget one"
    replicas.add_argument("mapping", metavar="MAPPING | forget ID", nargs="*", help=text)
    text = "end the halt of a mapping, or its vanished records, by choosing a side"
    resume = add_command(commands, "resume", _resume, text)
    resume.add_argument("mapping", metavar="MAPPING", help="name of the mapping")
    text = "which side is right: the store, or the replica's own files"
    resume.add_argument("--take", choices=[str(take) for take in Take], required=True, help=text)
    option(resume, "--replica ID", "only this replica (default: all that are halted)")


def request(args: argparse.Namespace, verb: Verb, **fields: object) -> Request:
    """Return a request with a new id, in the name of the person who uses the command."""
    return msgspec.convert({"id": uuid.uuid4().hex, "verb": verb, "by": asker(args), **fields}, Request)


def wait_for(tree: Tree, asked: Sequence[Report], patience: float = RESUME_PATIENCE) -> list[Report]:
    """Wait until the replicas carried out a request; return those that did not within `patience` seconds."""

    def left(reports: Iterable[Report]) -> list[Report]:
        now = {(found.mapping, found.replica): found for found in reports}
        return [each for each in asked if _still(each, now.get((each.mapping, each.replica)))]

    return report_feed.wait_for(tree, left, patience=patience)


def _still(before: Report, now: Report | None) -> bool:
    if now is None or now.session != before.session:
        return False
    if before.state is MappingState.HALTED:
        return now.state is MappingState.HALTED and now.reason == before.reason
    return now.vanished >= before.vanished


def _replicas(args: argparse.Namespace) -> int:
    match args.mapping:
        case ["forget", name]:
            return _forget(args, name)
        case ["forget"]:
            raise UsageError("replicas forget: type the replica's id: `replicas forget ID`")
        case [] | [_]:
            mapping = args.mapping[0] if args.mapping else None
        case _:
            raise UsageError("expected `replicas`, `replicas MAPPING` or `replicas forget ID`")
    with open_tree(args) as tree:
        answers = report_feed.ask_reports(tree)
    rows = [
        (report, silent)
        for found, silent in ((answers.fresh, False), (answers.late, True))
        for report in found
        if mapping in {None, report.mapping}
    ]
    rows.sort(key=lambda row: (row[0].mapping, row[0].replica))
    gone = [each for each, _ in answers.everyone.gone(tree.keys).values() if mapping in {None, each.mapping}]
    if args.json:
        from configstore.overview.json_output import replica_of  # noqa: PLC0415 - few want it

        write_json([replica_of(report, answers=not silent) for report, silent in rows])
    else:
        cells = [_row(report, silent=silent) for report, silent in rows]
        table(_HEADERS, [*cells, *map(_gone_row, gone)])
    if not rows:
        every = (*answers.fresh, *answers.late)
        say("no live replica" + (f" mirrors {mapping}{_meant(mapping, every)}" if mapping else ""))
    say_all(_gone_words(each) for each in gone)
    unread = answers.everyone.unread
    say_all(f"{shown_key(key)}: no report: {why}; `{removal(key)}` removes it" for key, why in unread.items())
    return NotThereError.exit_code if unread else 0


_HEADERS = ("MAPPING", "REPLICA", "HOST", "STATE", "REVISION", "PATHS", "PENDING", "PROBLEMS")


def _row(report: Report, *, silent: bool) -> tuple[Cell, ...]:
    word = "silent" if silent else report.word
    return (
        report.mapping,
        report.replica,
        report.host,
        (word, Style.GOOD if word == "ready" else Style.WARN),
        str(report.revision),
        str(report.paths),
        str(report.pending),
        str(report.problem_count),
    )


def _gone_words(gone: ExpectedReplica) -> str:
    started = f", started {when(gone.time, moment_now())}," if gone.time else ""
    forget = f"`configstore replicas forget {shell_word(gone.replica)}`"
    return f"{gone.mapping}: {gone.replica}{started} went without a goodbye; not to come back: {forget}"


def _gone_row(gone: ExpectedReplica) -> tuple[Cell, ...]:
    return (gone.mapping, gone.replica, gone.host, ("gone", Style.BAD), "-", "-", "-", "-")


def _forget(args: argparse.Namespace, name: str) -> int:
    """Make a replica an expected one no longer. Raises NotThereError, RefusedError."""
    with open_tree(args) as tree:
        known = everyone(tree)
        found = {key: each for key, each in known.expected.items() if each[0].replica == name}
        if not found:
            raise NotThereError(
                f"{printable(name)}: no such replica is expected; `configstore replicas` lists them"
            )
        alive = known.alive(tree.keys)
        lost = {key: each for key, each in found.items() if key not in alive}
        if not lost:
            raise RefusedError(
                f"{printable(name)}: it is alive, or died less than a minute ago; one that is stopped says goodbye"
                " by itself"
            )
        forgotten = forget(tree, lost)
    if args.json:
        write_json([{"mapping": each.mapping, "replica": each.replica, "host": each.host} for each in forgotten])
    say_all(f"{each.mapping}: {each.replica} on {each.host}: forgotten" for each in forgotten)
    if len(forgotten) < len(lost):
        raise ConflictError(f"{printable(name)}: it came back meanwhile; `configstore replicas` shows it")
    return 0


def _resume(args: argparse.Namespace) -> int:
    with open_tree(args) as tree:
        reports = live_reports(tree)
        found = [each for each in reports if each.mapping == args.mapping and args.replica in {None, each.replica}]
        asked = [report for report in found if report.state is MappingState.HALTED or report.vanished]
        if not asked:
            raise NotThereError(_nothing_to_resume(args.mapping, args.replica, found, reports))
        requests = [
            request(
                args,
                Verb.RESUME,
                mapping=report.mapping,
                replica=report.replica,
                take=args.take,
                reason=report.reason if report.state is MappingState.HALTED else "",
            )
            for report in asked
        ]
        with asking(tree, *requests):
            left = wait_for(tree, asked)
    if args.json:
        write_json(
            [{"mapping": each.mapping, "replica": each.replica, "resumed": each not in left} for each in asked]
        )
    for report in asked:
        if report not in left:
            say(f"{report.mapping}: {report.replica}: resumed")
    if left:
        raise UnreachableError(
            f"{args.mapping}: {', '.join(each.replica for each in left)}: not resumed within"
            f" {RESUME_PATIENCE:g} s; what it waits for may have changed: look at `configstore status`"
        )
    return 0


def _nothing_to_resume(
    mapping: str, replica: str | None, found: Sequence[Report], everyone: Iterable[Report]
) -> str:
    if not found:
        who = f"live replica {replica}" if replica else "live replica"
        return f"{mapping}: no {who} mirrors it{_meant(mapping, everyone)}; `configstore replicas` lists them"
    return f"{mapping}: no replica is halted, and no record of it vanished; there is nothing to resume"


def _meant(mapping: str, reports: Iterable[Report]) -> str:
    return meant(mapping, {report.mapping for report in reports} - {mapping})


def mappings_holding(reports: Iterable[Report], path: StorePath) -> list[tuple[Report, StorePath]]:
    """Return the replicas with vanished records in a mapping that has the path, and the path as they have it."""
    found = []
    for report in reports:
        inside = path.startswith(f"{report.store}/") if report.store else True
        if inside and report.vanished:
            found.append((report, StorePath(path[len(report.store) + 1 :] if report.store else path)))
    return found
