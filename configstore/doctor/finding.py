"""A finding: one row of what `configstore doctor` and `status` report, and how it is made."""

import enum
from collections.abc import Sequence

import msgspec

from configstore.model.path import printable
from configstore.model.phrases import first_of

NAMED = 5
"""Names that a finding lists; of more it gives the number."""

EXIT_CODES = (4, 5, 2, 1)
"""From the worst to the least; the command exits with the worst one of all failures."""


class FindingState(enum.StrEnum):
    """The result of one check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One row: what was checked, the result, what was found, and the mend unless it is ok.

    code: the exit code of a failure.
    """

    check: str
    state: FindingState
    found: str
    mend: str = ""
    code: int = 0


def exit_code(findings: list[Finding]) -> int:
    """Return the worst failure's exit code, 0 without one."""
    codes = {each.code for each in findings if each.state is FindingState.FAIL}
    return next((code for code in EXIT_CODES if code in codes), 1 if codes else 0)


def ok(check: str, found: str) -> Finding:
    """Return the finding that a check found nothing wrong."""
    return Finding(check, FindingState.OK, found)


def warn(check: str, found: str, mend: str = "") -> Finding:
    """Return the finding that a person should act, or that something could not be seen."""
    return Finding(check, FindingState.WARN, found, mend)


def fail(check: str, found: str, mend: str, code: int) -> Finding:
    """Return the finding that something does not work. code: the exit code."""
    return Finding(check, FindingState.FAIL, found, mend, code)


def some(names: Sequence[str]) -> str:
    """Return the first NAMED names, safe to print, and how many more there are."""
    return first_of([*map(printable, names)], NAMED)
