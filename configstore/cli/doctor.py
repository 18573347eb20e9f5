"""`doctor`: what is wrong with the store, its settings and its surroundings, each with the mend."""

import argparse
from collections.abc import Sequence
from itertools import zip_longest

from configstore.cli.arguments import Commands, add_command, store_settings
from configstore.cli.render import write_json, write_table
from configstore.cli.session import warn_of_misspelt_variables, writer
from configstore.doctor.finding import Finding, exit_code
from configstore.model.path import printable


def add(commands: Commands) -> None:
    """Add the parser."""
    doctor = add_command(
        commands, "doctor", _doctor, "check etcd, its settings and our rights, and name the mend", listed=True
    )
    doctor.add_argument("directories", metavar="DIR", nargs="*", help="a directory here that is to be mirrored")


def _doctor(args: argparse.Namespace) -> int:
    from configstore.doctor.gather import gather  # noqa: PLC0415 - no other command needs these
    from configstore.doctor.judge import judge  # noqa: PLC0415 - as above

    settings = store_settings(args)
    warn_of_misspelt_variables()
    findings = judge(gather(settings, writer(), args.directories))
    if args.json:
        write_json(
            [
                {"check": each.check, "state": each.state, "found": each.found, "mend": each.mend or None}
                for each in findings
            ]
        )
    else:
        write_table(_rows(findings))
    return exit_code(findings)


def _rows(findings: Sequence[Finding]) -> list[tuple[str, str, str]]:
    """Return a row for each finding, and below those that have the same mend one for that."""
    rows = []
    for each, following in zip_longest(findings, findings[1:]):
        rows.append((each.check, str(each.state), printable(each.found)))
        if each.mend and (following is None or each.mend != following.mend):
            rows.append(("", "", f"→ {printable(each.mend)}"))
    return rows
