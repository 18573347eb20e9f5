"""Programs that are not Python's: what a test does where one is missing."""

import os
from typing import NoReturn

import pytest


def missing(what: str, mend: str) -> NoReturn:
    """End the test because a program is not there: in CI it fails, elsewhere it is skipped with what to type."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} is missing: {mend}")
