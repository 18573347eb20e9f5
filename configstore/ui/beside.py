"""Two texts side by side, around what differs: pure."""

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

import msgspec

CONTEXT = 3
"""Equal lines that are shown around a difference."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a line of each side with its number, 0 for none.

    word: `same`, `differs`, or `gap` for what is left out.
    """

    left_number: int = 0
    left: str = ""
    right_number: int = 0
    right: str = ""
    word: str = "same"


COSTLY = 200_000
"""Pairs of equal lines above which two texts are not compared: `SequenceMatcher` walks them again and again."""


def is_costly(left: Sequence[str], right: Sequence[str]) -> bool:
    """Tell whether to compare two texts takes too long for a page: many lines, such as empty ones, are alike."""
    times = Counter(right)
    return sum(times[line] for line in left) > COSTLY


def beside(left: Sequence[str], right: Sequence[str]) -> list[Pair]:
    """Return the rows around all differences; none where the texts are equal."""
    found: list[Pair] = []
    for group in SequenceMatcher(None, left, right, autojunk=False).get_grouped_opcodes(CONTEXT):
        if found:
            found.append(Pair(word="gap"))
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
                        word="same" if tag == "equal" else "differs",
                    )
                )
    return found
