"""Compares two texts line by line, for two columns: pure. Called by `pages`."""

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

import msgspec

CONTEXT = 3
"""Equal lines that are shown before and after a difference."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a line of each side with its number, 0 for none.

    kind: `same`, `differs`, or `gap` for lines that are left out.
    """

    left_number: int = 0
    left: str = ""
    right_number: int = 0
    right: str = ""
    kind: str = "same"


COSTLY = 200_000
"""Pairs of equal lines above which two texts are not compared: `SequenceMatcher` visits each many times."""


def is_costly(left: Sequence[str], right: Sequence[str]) -> bool:
    """Return whether comparing two texts takes too long for a page, since many of their lines are equal."""
    times = Counter(right)
    return sum(times[line] for line in left) > COSTLY


def side_by_side(left: Sequence[str], right: Sequence[str]) -> list[Pair]:
    """Return the rows around all differences; none when the texts are equal."""
    found: list[Pair] = []
    for group in SequenceMatcher(None, left, right, autojunk=False).get_grouped_opcodes(CONTEXT):
        if found:
            found.append(Pair(kind="gap"))
        for tag, left_from, left_to, right_from, right_to in group:
            for offset in range(max(left_to - left_from, right_to - right_from)):
                one, other = left_from + offset, right_from + offset
                has_left, has_right = one < left_to, other < right_to
                found.append(
                    Pair(
                        left_number=one + 1 if has_left else 0,
                        left=left[one] if has_left else "",
                        right_number=other + 1 if has_right else 0,
                        right=right[other] if has_right else "",
                        kind="same" if tag == "equal" else "differs",
                    )
                )
    return found
