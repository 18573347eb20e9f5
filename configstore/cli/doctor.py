"""`doctor`: what is wrong with the store, its settings and this host, each with what mends it."""

import argparse
import os
from collections.abc import Sequence
from itertools import groupby

from configstore.cli.arguments import Commands, add_command, option, store_settings
from configstore.cli.render import Cell, Style, table, write_json, write_line
from configstore.cli.session import say_of_default, warn_of_misspelt_variables, writer
from configstore.doctor.finding import Finding, FindingState, exit_code
from configstore.errors import UsageError
from configstore.model.path import shell_word


def add(commands: Commands) -> None:
    """Add the parser."""
    text = "check etcd, its settings and your rights, and say how to repair what is wrong"
    doctor = add_command(commands, "doctor", _doctor, text)
    text = "presets whose rights and keys are checked (default: CONFIGSTORE_PRESET)"
    option(doctor, "--preset NAME[,NAME]", text)
    option(doctor, "--config FILE", "settings file of a sidecar whose rights and keys are checked")
    option(doctor, "--service NAME", "name of a sidecar for several services")
    doctor.add_argument("directories", metavar="DIR", nargs="*", help="local directory that is to be mirrored")


def _doctor(args: argparse.Namespace) -> int:
    from configstore.doctor.gather import gather  # noqa: PLC0415 - no other command needs these
    from configstore.doctor.judge import judge  # noqa: PLC0415 - as above
    from configstore.doctor.mappings import SidecarSettings  # noqa: PLC0415 - as above
    from configstore.presets.services import of_settings, store_table  # noqa: PLC0415 - as above

    table_of_store = store_table(args.config)
    settings = store_settings(args, table_of_store, args.config or "")
    preset = args.preset or os.environ.get("CONFIGSTORE_PRESET") or ""
    service, options = None, ""
    if preset or args.config:
        service = of_settings(file=args.config, preset=preset, environ=os.environ, name=args.service or "")
        whole = args.service or (service.name if preset and "/" not in preset else "")
        given = (("--config", args.config), ("--preset", preset), ("--service", whole))
        options = " ".join(f"{option} {shell_word(value)}" for option, value in given if value)
    elif args.service:
        raise UsageError("--service: names one sidecar; say which by --config FILE, or by --preset NAME,NAME")
    warn_of_misspelt_variables()
    if "endpoints" not in table_of_store:
        say_of_default(args)
    sidecar = SidecarSettings(file=args.config, preset=preset, environ=os.environ)
    keyring = vars(args).get("seal_keyring") or sidecar.keyring
    findings = judge(
        gather(
            settings,
            writer(),
            args.directories,
            service,
            options,
            keyring=keyring,
            mappings=sidecar.mappings(keyring),
        )
    )
    if args.json:
        write_json(
            [
                {"check": each.check, "state": each.state, "found": each.found, "mend": each.mend or None}
                for each in findings
            ]
        )
    else:
        table(("CHECK", "STATE", "FOUND"), _rows(sorted(findings, key=lambda each: _ORDER[each.state])))
        write_line(_count(findings))
    return exit_code(findings)


_ORDER = {FindingState.FAIL: 0, FindingState.WARN: 1, FindingState.OK: 2}
_STYLES = {FindingState.FAIL: Style.BAD, FindingState.WARN: Style.WARN, FindingState.OK: Style.GOOD}

FOLD = 3
"""The most findings of one check, state and mend that have a row each; for more, one row has their number."""


def _rows(findings: Sequence[Finding]) -> list[tuple[Cell, ...]]:
    """Return a row for each finding, and one for the mend below those that share it."""
    rows: list[tuple[Cell, ...]] = []
    for (_, state, mend), group in groupby(findings, key=lambda each: (each.check, each.state, each.mend)):
        alike = list(group)
        named = alike if len(alike) <= FOLD or state is FindingState.OK else alike[: FOLD - 1]
        rows += [(each.check, (str(state), _STYLES[state]), each.found) for each in named]
        if len(named) < len(alike):
            more = f"and {len(alike) - len(named)} more of the kind; `--json` has them all"
            rows.append((alike[0].check, (str(state), _STYLES[state]), more))
        if mend:
            rows.append(("", "", f"→ {mend}"))
    return rows


def _count(findings: Sequence[Finding]) -> str:
    """Return how many problems there are, in one line."""
    states = [each.state for each in findings]
    fails, warnings = states.count(FindingState.FAIL), states.count(FindingState.WARN)
    if not fails and not warnings:
        return f"no problems; {len(states)} checks are ok"
    problems = fails + warnings
    return (
        f"{problems} problem{'s' if problems > 1 else ''}: {fails} failed, {warnings}"
        f" warning{'' if warnings == 1 else 's'}; {states.count(FindingState.OK)} ok"
    )
