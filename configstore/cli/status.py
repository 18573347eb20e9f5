"""`status`: the state of the store and of each mapping, and what needs a person, on one screen."""

import argparse
import re
import sys
import time
from typing import TYPE_CHECKING

from configstore.cli.arguments import Commands, add_command, flag, store_settings
from configstore.cli.render import is_styled, redraws, terminal_width, write_json, write_text
from configstore.cli.session import say_of_default, warn_of_misspelt_variables

if TYPE_CHECKING:
    from configstore.overview.facts import OverviewFacts
    from configstore.overview.judge import Judgement

PAUSE = 2.0
"""Seconds between two rounds of `--watch`."""


def add(commands: Commands) -> None:
    """Add the parser."""
    words = (
        "show the store, the mappings and what needs a person; exit code 0: all well, 1: something needs a person,"
        " 4: no store"
    )
    status = add_command(commands, "status", _status, words)
    flag(status, "--all", "show everything that needs a person, not only the first")
    flag(status, "--watch", "repeat until stopped; in a pipe: print only changes")


def _status(args: argparse.Namespace) -> int:
    from configstore.overview.gather import gather  # noqa: PLC0415 - no other command needs these
    from configstore.overview.judge import judge  # noqa: PLC0415 - as above

    settings = store_settings(args)
    warn_of_misspelt_variables()
    printed: object = None
    while True:
        facts = gather(settings)
        verdict = judge(facts)
        rows = [(row.mapping, row.state, row.ready, row.expected) for row in verdict.rows]
        needs = [(need.check, need.state, re.sub(r"[0-9]+", "", need.found)) for need in verdict.needs]
        state = verdict.exit_code, rows, needs  # without the figures, which differ in each round
        if not args.watch or state != printed or (redraws() and not args.json):
            printed = state
            _show(facts, verdict, args)
            sys.stdout.flush()
            if not facts.statuses:
                say_of_default(args)
        if not args.watch:
            return verdict.exit_code
        time.sleep(PAUSE)


def _show(facts: "OverviewFacts", verdict: "Judgement", args: argparse.Namespace) -> None:
    from configstore.cli.screen import screen  # noqa: PLC0415 - no other command needs these
    from configstore.overview.json_output import overview_of  # noqa: PLC0415 - as above

    if args.json:
        write_json(overview_of(facts, verdict), indent=0 if args.watch else 2)
        return
    width, styled = terminal_width(), is_styled()
    lines = "\n".join(screen(facts, verdict, width=width, styled=styled, every=args.all))
    if args.watch and redraws():
        lines = "\x1b[H" + lines.replace("\n", "\x1b[K\n") + "\x1b[K\x1b[J"
    write_text(lines)
