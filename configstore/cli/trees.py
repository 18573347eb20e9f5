"""`import` and `export`: the parsers. What they run is loaded only then: other commands need no patterns."""

import argparse

from configstore.cli.arguments import Commands, add_command


def add(commands: Commands) -> None:
    """Add the parsers."""
    into = add_command(commands, "import", _import, "write a local tree to the store", listed=True)
    into.add_argument("directory", metavar="DIR")
    into.add_argument("path", metavar="PATH", help="directory of the store; / is the whole tree")
    into.add_argument(
        "--create", action="store_true", help="replace nothing that the store has; exit code 3 when it differs"
    )
    into.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leave this out, as in .gitignore: by its path below DIR, in full, or in the store; repeatable",
    )
    into.add_argument(
        "--skip-bad",
        action="store_true",
        help="go on without what cannot be stored, and name it; exit code 1 when there was something",
    )
    out = add_command(commands, "export", _export, "write a tree of the store to a local folder", listed=True)
    out.add_argument("path", metavar="PATH", help="directory of the store; / is the whole tree")
    out.add_argument("directory", metavar="DIR", help="is made when it is not there")
    for parser, preset in (
        (into, "only what it names, such as mailu for all of /mailu"),
        (out, "to where its data sets lie on a single host, such as mailu"),
    ):
        parser.add_argument("--preset", metavar="NAME", help=preset)
        parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be done, and do nothing")


def _import(args: argparse.Namespace) -> int:
    from configstore.cli.imports import run  # noqa: PLC0415 - only now are patterns needed

    return run(args)


def _export(args: argparse.Namespace) -> int:
    from configstore.cli.exports import run  # noqa: PLC0415 - as above

    return run(args)
