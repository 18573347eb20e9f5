"""The parsers of `import` and `export`; `imports` and `exports` run them."""

from configstore.cli.arguments import Commands, add_command, add_path, flag, option, run_of


def add(commands: Commands) -> None:
    """Add the parsers."""
    into = add_command(commands, "import", run_of("imports"), "copy a local directory into the store")
    into.add_argument("directory", metavar="DIR", help="local directory")
    add_path(into, "directory in the store; / is the whole store")
    flag(into, "--create", "replace nothing in the store; exit code 3 when something differs")
    text = "leave out what matches, as in .gitignore: below DIR, by the full path, or in the store; repeatable"
    option(into, "--exclude PATTERN", text, action="append", default=[])
    flag(into, "--skip-bad", "leave out what cannot be stored, and name it; exit code 1 when there is something")
    text = "copy a directory of the store into a local directory"
    out = add_command(commands, "export", run_of("exports"), text)
    add_path(out, "directory in the store; / is the whole store")
    out.add_argument("directory", metavar="DIR", help="local directory; it is made if it does not exist")
    for parser, preset in (
        (into, "only the data sets of this preset, such as mailu for all of /mailu"),
        (out, "write the data sets of this preset to their directories on a single host, such as mailu"),
    ):
        option(parser, "--preset NAME", preset)
        flag(parser, "-n, --dry-run", "only say what would be done")
