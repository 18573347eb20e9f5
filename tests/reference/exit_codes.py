"""The exit codes, from the tree of errors that carry them."""

from collections.abc import Iterator

from configstore import cli, errors
from tests.reference.markdown import MADE, table

DONE = "Done."
ENDED = {
    cli.INTERRUPTED: "Stopped by Ctrl-C.",
    cli.BROKEN_PIPE: "Who read the output has closed it.",
}
PAGE = """\
# Exit codes

Of `configstore`, `configstore-sidecar` and `configstore-client`. What failed is said in one line on stderr.

{table}

`configstore run` and `configstore-client hold` end with their command's own exit code when all went well, and
with 3, 4 or 5 when the lease or the commit did not. [The command](../cli.md) says what a code tells of which.
"""


def page() -> str:
    """Return the page."""
    rows = [[f"`{code}`", first, " ".join(rest)] for code, (first, *rest) in codes().items()]
    return f"{MADE}\n\n{PAGE.format(table=table(['code', 'what happened', 'more closely'], rows))}"


def codes() -> dict[int, list[str]]:
    """Return what each code may mean, the first the most general."""
    found: dict[int, list[str]] = {0: [DONE]}
    for error in _tree(errors.ConfigstoreError):
        if error not in (errors.ConfigstoreError, errors.StoreError):
            found.setdefault(error.exit_code, []).append(_words(error))
    found |= {code: [words] for code, words in ENDED.items()}
    return dict(sorted(found.items()))


def _tree(error: type[errors.ConfigstoreError]) -> Iterator[type[errors.ConfigstoreError]]:
    """Yield the classes of the module, each once, in their order there."""
    for each in vars(errors).values():
        if isinstance(each, type) and issubclass(each, error):
            yield each


def _words(error: type[errors.ConfigstoreError]) -> str:
    return " ".join((error.__doc__ or "").partition("\n\n")[0].split())
