"""A finding, and how one is made."""

import enum

import msgspec

from configstore.model.path import printable

NAMED = 5
"""How many of many are named."""

EXIT_CODES = (4, 5, 2, 1)
"""From the worst to the least; the exit code is the worst one of all that fails."""


class FindingState(enum.StrEnum):
    """How it stands with one check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One row: what was looked at, how it stands, what was found, and the mend when it is not ok.

    code: the exit code that a failure asks for.
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
    """Return that it is well."""
    return Finding(check, FindingState.OK, found)


def warn(check: str, found: str, mend: str = "") -> Finding:
    """Return that something is to be done, or could not be seen."""
    return Finding(check, FindingState.WARN, found, mend)


def fail(check: str, found: str, mend: str, code: int) -> Finding:
    """Return that it does not work."""
    return Finding(check, FindingState.FAIL, found, mend, code)


def some(names: tuple[str, ...]) -> str:
    """Name the first of many."""
    shown = ", ".join(map(printable, names[:NAMED]))
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def mib(size: float) -> str:
    """Return bytes as people read them."""
    return f"{size / 2**20:.1f} MiB"
