"""The parsers of `import` and `export`; `imports` and `exports` run them."""

from configstore.cli.arguments import Commands, add_command, add_path, run_of


def add(commands: Commands) -> None:
    """Add the parsers."""
    into = add_command(commands, "import", run_of("imports"), "copy a local directory into the store", listed=True)
    into.add_argument("directory", metavar="DIR", help="local directory")
    add_path(into, "directory in the store; / is the whole store")
    into.add_argument(
        "--create", action="store_true", help="replace nothing in the store; exit code 3 when something differs"
    )
    into.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leave out what matches, as in .gitignore: below DIR, by the full path, or in the store; repeatable",
    )
    into.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out what cannot be stored, and name it; exit code 1 when there is something",
    )
    out = add_command(
        commands, "export", run_of("exports"), "copy a directory of the store into a local directory", listed=True
    )
    add_path(out, "directory in the store; / is the whole store")
    out.add_argument("directory", metavar="DIR", help="local directory; it is made if it does not exist")
    for parser, preset in (
        (into, "only the data sets of this preset, such as mailu for all of /mailu"),
        (out, "write the data sets of this preset to their directories on a single host, such as mailu"),
    ):
        parser.add_argument("--preset", metavar="NAME", help=preset)
        parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")
