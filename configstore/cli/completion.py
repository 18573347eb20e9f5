"""`completion`: a script that completes the command line in a shell."""

import argparse

from configstore.cli.arguments import Commands, add_command
from configstore.cli.render import write_text
from configstore.commandline import SHELLS, completion_script


def add(commands: Commands) -> None:
    """Add the parser."""
    text = "print a completion script for a shell"
    parser = add_command(commands, "completion", _completion, text, connects=False, as_json=False)
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def _completion(args: argparse.Namespace) -> int:
    from configstore.cli import build_parser  # noqa: PLC0415 - which imports this module

    write_text(completion_script(build_parser(), args.shell))
    return 0
