"""Makes entries from stat results. Scan and apply use it, so an applied file looks the same when it is scanned.

The names of owners are for people, from this container's own /etc/passwd and /etc/group; only the numbers are
applied.
"""

import grp
import os
import pwd
import stat
from contextlib import suppress
from functools import cache

from configstore.model.record import Entry, Kind


class Entries:
    """Makes entries, and looks each user's and group's name up once."""

    def __init__(self) -> None:
        self.user = cache(_user)
        self.group = cache(_group)

    def make(
        self, kind: Kind, status: os.stat_result, *, size: int = 0, sha256: str = "", target: str = ""
    ) -> Entry:
        """Return the entry for a stat result; the caller gives size and digest of the content, or the target."""
        return Entry(
            kind=kind,
            mode=0 if kind is Kind.SYMLINK else stat.S_IMODE(status.st_mode) & 0o777,
            uid=status.st_uid,
            gid=status.st_gid,
            user=self.user(status.st_uid),
            group=self.group(status.st_gid),
            size=size,
            sha256=sha256,
            target=target,
        )


def _user(uid: int) -> str | None:
    """Return a user's name; None if it has none in this container."""
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return None


def _group(gid: int) -> str | None:
    """Return a group's name; None if it has none in this container."""
    with suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return None
