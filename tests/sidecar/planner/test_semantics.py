"""docs/semantics.md shows every combination of the three sides, and says what the planner does about it.

`python -m tests.sidecar.planner.test_semantics` prints the table.
"""

import itertools
from pathlib import Path

from configstore.model.selection import Direction
from sidecar.planner.reconcile import decide
from tests.harness.named import GONE
from tests.sidecar.planner.named import a_file, a_mapping, agreed_on, here, there

DOCUMENT = Path(__file__).parents[3] / "docs/semantics.md"
OLD, NEW, OTHER = a_file("old"), a_file("new"), a_file("other")

# What a side may be, in words, with and without a baseline. Two contents called "new" are equal.
LOCAL = {"none": None, "old": here(OLD), "new": here(NEW)}
REMOTE = {
    "none": None,
    "tombstone": there(GONE, 11),
    "old": there(OLD, 10),
    "old, written again": there(OLD, 11),
    "new": there(NEW, 11),
    "other": there(OTHER, 11),
}
BASELINE = {"none": None, "old": agreed_on(OLD, 10)}
POLICIES = {
    "both": a_mapping(),
    "pull": a_mapping(direction=Direction.PULL),
    "push": a_mapping(direction=Direction.PUSH),
    "create_once": a_mapping(create_once=True),
}


def combinations():
    """Yield the names of every combination that can be; without a baseline nothing is old."""
    for base, local, remote in itertools.product(BASELINE, LOCAL, REMOTE):
        if base != "none" or (local != "old" and not remote.startswith("old")):
            yield base, local, remote


def row(base, local, remote):
    """Return a combination's line of the table."""
    verdicts = [
        decide(
            BASELINE[base], LOCAL[local], REMOTE[remote], mapping, pushes=mapping.direction is not Direction.PULL
        )
        for mapping in POLICIES.values()
    ]
    return f"| {' | '.join([base, local, remote, *verdicts])} |"


def table():
    """Return the table's lines, its head included."""
    head = ["baseline", "local", "remote", *POLICIES]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(row(*names) for names in combinations())]


def test_the_document_shows_what_the_planner_does_in_every_combination():
    documented = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert documented == table()


if __name__ == "__main__":
    print("\n".join(table()))
