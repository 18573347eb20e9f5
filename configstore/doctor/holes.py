"""Versions of etcd with known holes.

Called by `cluster`. Sources: etcd's changelogs and security advisories (GHSA-rfx7-8w68-q57q, GHSA-q8m4-xhhv-38mg,
GHSA-x35m-3gp4-4fh5, GHSA-xg4h-6gfc-h4m8). The bypassed rights, the deletes under NOSPACE and the leases that a
former leader ends were also reproduced on 3.5.16. etcd 3.4.31 and 3.5.13 mended the last one only in part
(docs/leases.md has the figures).
"""

import re
from typing import NamedTuple

ADVISED = "3.6.14"

_NEVER = 10**6
"""A patch number that no series will reach: all its releases have the hole."""

Version = tuple[int, int, int]


class Hole(NamedTuple):
    """A hole, and the first patch without it by series, such as (3, 5). Other series do not have it."""

    text: str
    mended: dict[tuple[int, int], int]


HOLES = (
    Hole("a crash can corrupt its data", {(3, 5): 3}),
    Hole(
        "rights can be bypassed: compaction, alarms and leases without a login, any key by nested transactions",
        {(3, 4): 42, (3, 5): 28, (3, 6): 9},
    ),
    Hole("transactions read and attach leases without the right to", {(3, 4): 44, (3, 5): 30, (3, 6): 11}),
    Hole(
        "a watch on one key may show all keys after it, without the right to read them",
        {(3, 5): 33, (3, 6): 14, (3, 7): 1},
    ),
    Hole("with its space used up, deletes need no rights", {(3, 4): _NEVER, (3, 5): _NEVER}),
    Hole(
        "a former leader that goes on after a pause may end leases that are alive: a holder loses its own, and the"
        " next begins while that one's command is being stopped",
        {(3, 4): _NEVER, (3, 5): _NEVER},
    ),
    Hole("its series gets no more releases", {(3, 4): _NEVER}),
)


def parse(version: str) -> Version | None:
    """Return the numbers of a version such as `3.5.16` or `3.6.0-rc.1`; None for other text."""
    found = re.match(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})", version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def holes_of(version: Version) -> list[str]:
    """Return the known holes of a version, the worst first."""
    major, minor, patch = version
    if (major, minor) < (3, 4):
        return ["it is older than anything that configstore was tried on"]
    return [hole.text for hole in HOLES if patch < hole.mended.get((major, minor), 0)]
