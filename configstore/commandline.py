"""What the command lines `configstore` and `configstore-sidecar` share.

A parser that repeats no secret, and standard files that are there.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Never

from configstore.model.path import printable

_VALUE = re.compile(
    r"(?P<what>invalid choice): .*(?P<choices> \(choose from .*)|(?P<type>invalid \S+ value): .*"
    r"|(?P<flag>ignored explicit argument) .*",
    re.DOTALL,
)
"""What argparse says of a value that it does not take: it quotes it."""


def occupy_standard_files() -> None:
    """Open the null device in place of stdin, stdout and stderr that the caller has closed (`2>&-`).

    Call it first: else the next socket or file gets that number, and is what an error is written into.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes no abbreviations and never repeats a value.

    Behind an option that it does not know, such as `--password`, any word may be a secret, also what argparse then
    takes for a command or for another argument.
    """

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - as argparse passes them on
        super().__init__(**{"allow_abbrev": False, **kwargs})

    def parse_args(  # type: ignore[override]  # argparse's is generic in the namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse; exits with 2 when something is unknown.

        A command's `late` default names its last, optional positional: argparse leaves it over when an option
        stands before it.
        """
        found, extra = self.parse_known_args(args, namespace)
        late = getattr(found, "late", None)
        if late and len(extra) == 1 and not extra[0].startswith("-") and getattr(found, late) is None:
            setattr(found, late, extra.pop())
        if extra:
            self.error(f"unrecognized arguments: {printable(_without_values(extra))}")
        return found

    def error(self, message: str) -> Never:
        """Exit with 2 and say why, without the value at fault."""
        super().error(_VALUE.sub(lambda found: "".join(filter(None, found.groups())), message))


def _without_values(extra: Sequence[str]) -> str:
    """Return the first option among what is left over, without its value; or all, when no option is among it."""
    for word in extra:
        if word.startswith("-"):
            return word.partition("=")[0] if word.startswith("--") else word[:2]
    return " ".join(extra)
