"""Keeps the local side of `ThreeSides` up to date: decides when to scan what, and what may be sent.

For the engine.

1. What an event named is scanned once the set that it opened has settled.
2. A set is closed only after a scan that found no more changes, and no member of it is open for writing; but
   within a limited time (`SetWindow`), so that one busy file cannot stop everything.
3. What could not be read is scanned again after a while. That is no change, and delays no set.
4. Everything is scanned from time to time, in case an event was lost (`RescanSchedule`).
"""

from collections.abc import Callable

from configstore.model.path import StorePath, parent
from configstore.model.problem import Problem
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.scan import Scanner, ScanResult
from sidecar.local.watch import LocalWatch
from sidecar.mapping import Mapping
from sidecar.planner.settle import DeleteWindow, RescanSchedule, SetWindow
from sidecar.planner.three_sides import UNKNOWN_SET, ThreeSides

LOOK_AGAIN = 2.0
"""Seconds until what could not be read is scanned again if no event reports a change."""

UNSTABLE_AGAIN = 0.25
"""Seconds until an open file of the open set is scanned again if no event reports that it was closed."""

NAMED_AFTER = 4.0
"""Seconds after which a file that is still open for writing is a problem."""

_SCANS = 3
"""Number of scans that one call makes while changes keep coming in."""


class LocalSide:
    """The local side of one mapping.

    edits_settled, deletes_settled: whether the last call of `refresh` found complete sets of edits, and complete
    deletions, so that they may be sent. noticed: when each pending path was first changed here.
    """

    def __init__(
        self,
        mapping: Mapping,
        sides: ThreeSides,
        *,
        root: MirroredDirectory,
        scanner: Scanner,
        watch: LocalWatch | None,
        clock: Callable[[], float],
    ) -> None:
        """watch: None where changes are not followed: then every scan is a full one."""
        now = clock()
        self.edits_settled = self.deletes_settled = False
        self.scanner = scanner
        self._sides = sides
        self._root = root
        self._watch = watch
        self._clock = clock
        self._set = SetWindow(mapping.settle)
        self.deletes = DeleteWindow(mapping.delete_settle)
        self.schedule = RescanSchedule(mapping, now)
        self._everything = True
        self.scanned_once = False  # whether a full scan was ever made
        self._scanned_all = False  # whether the last call made one
        self._dirty: set[StorePath] = set()
        self._written: set[StorePath] = set()
        self._again_at: float | None = None
        self._opened: dict[StorePath, float] = {}  # since when a file is open for writing
        self._given_up: set[StorePath] = set()  # open files that no set waits for any more
        self._deleted: set[StorePath] = set()
        self._changed_since: float | None = None  # of what was not scanned yet
        self.noticed: dict[StorePath, float] = {}

    def blocked(self) -> str | None:
        """Return why the mirrored directory must not be touched now, or None.

        Raises DirectoryLostError when it was emptied or replaced.
        """
        return self._root.check()

    def scan_again(self, paths: set[StorePath]) -> None:
        """Read paths again by the next scan, since they were not in the planned state."""
        self._dirty |= {parent(path) for path in paths}
        self._written |= paths

    def refresh(self, *, flush: bool = False) -> None:
        """Scan what is due.

        flush: make a full scan, and close the open set without waiting until it settled.
        """
        self._everything |= flush
        self._scanned_all = False
        self._end_quiet_set()
        self.noticed = {path: at for path, at in self.noticed.items() if path in self._sides.pending}
        for _ in range(_SCANS):
            self._take_events()
            now = self._clock()
            self._everything |= self.schedule.full_scan_due(now)
            due = bool(self._dirty or self._written) and (flush or self._set.settled(now))
            again = self._again_at is not None and now >= self._again_at
            if not (self._everything or due or again):
                break
            self._scan(everything=self._everything, again=again)
        self._note_deletes()
        self.edits_settled = self._close_set(flush=flush)
        self.deletes_settled = self.deletes.settled(self._clock())

    def until_next(self) -> float:
        """Return the seconds until the next scan is due, by the soonest of all reasons.

        Call it after `refresh`.
        """
        now = self._clock()
        due = [self.schedule.until_next(now)]
        if self._everything:
            due.append(0.0)
        if self._set.is_open:
            unscanned = self._dirty or self._written
            for_open = self._set.settled(now) and not unscanned and self._waits_for_open()
            due.append(self._set.until_overdue(now) if for_open else self._set.until_settled(now))
        elif self._dirty or self._written:
            due.append(0.0)
        if self._again_at is not None:
            due.append(max(0.0, self._again_at - now))
        if self._deleted and not self.deletes_settled:  # settled deletes wait for something else
            due.append(self.deletes.until_settled(now))
        return min(due)

    def open_problems(self) -> dict[StorePath, Problem]:
        """Return the problems of the files that have been open for writing for NAMED_AFTER seconds."""
        now = self._clock()
        return {
            path: Problem(
                path=path,
                reason="a program has it open for writing, so it is not sent; it travels when it is closed. A log"
                " or a database does not belong here: exclude it",
                unsure=True,
            )
            for path, since in self._opened.items()
            if now - since >= NAMED_AFTER
        }

    @property
    def knows_all(self) -> bool:
        """Whether all local changes are known that were made before the last `refresh`."""
        unscanned = self._everything or self._dirty or self._written
        follows = self._watch is not None and self._watch.limitation is None
        return self.scanned_once and not unscanned and (follows or self._scanned_all)

    @property
    def limitation(self) -> str | None:
        """Why some changes are noticed late, or writers not at all, and what to do; None when that is not so."""
        found = [self._watch.limitation if self._watch else None, self.scanner.limitation]
        return "; ".join(filter(None, found)) or None

    def _close_set(self, *, flush: bool) -> bool:
        """Close the open set if all of it is known; returns whether none is open now."""
        if not flush and self._grows():
            return False
        self._given_up |= self._sides.unstable
        self._set.close()
        return True

    def _grows(self) -> bool:
        """Return whether more changes may come to the open set."""
        now, open_set = self._clock(), self._set
        if not open_set.is_open or open_set.tired(now):
            return False
        # What was noticed during the scan may belong to it.
        if self._dirty or self._written or not open_set.settled(now):
            return True
        return self._waits_for_open() and not open_set.overdue(now)

    def _waits_for_open(self) -> bool:
        """Return whether a file of the open set is being written to. One that was open before does not count."""
        return bool(self._sides.unstable - self._given_up)

    def _end_quiet_set(self) -> None:
        """Close the open set if it is complete and scanned, even while nothing can be sent.

        Else all changes during an outage would be one set. That set would have waited long enough when the store
        is back, so a change that is under way just then would be sent half-done.
        """
        open_set = self._set
        unscanned = self._everything or self._dirty or self._written
        if open_set.is_open and not unscanned and not self._waits_for_open() and open_set.settled(self._clock()):
            open_set.close()

    def _take_events(self) -> None:
        if not self._watch:
            return
        dirty = self._watch.drain()
        if dirty.everything or dirty.directories or dirty.written:
            self._set.noticed(self._clock())
        if self._changed_since is None:
            self._changed_since = dirty.since
        self._dirty |= dirty.directories | {parent(path) for path in dirty.written}
        self._written |= dirty.written
        self._everything |= dirty.everything

    def _scan(self, *, everything: bool, again: bool) -> None:
        now = self._clock()
        rehash = everything and self.scanned_once and self.schedule.rehash_due(now)
        directories = None if everything else set(self._dirty)
        if directories is not None and again:
            directories |= self._unread()
        written, self._written = self._written, set()
        self._dirty.clear()
        self._everything = False
        scan = self.scanner.scan(directories, self._sides.local, written=written, rehash=rehash)
        self._take(scan, directories)
        if everything:
            self.scanned_once = self._scanned_all = True
            self.schedule.scanned(self._clock(), rehashed=rehash)

    def _take(self, scan: ScanResult, directories: set[StorePath] | None) -> None:
        """Take in a scan's result. A change that no event announced opens a set, too.

        The first scan may come in the middle of a set that was begun before this process. Its members are not
        known; it only has to become quiet.
        """
        now, before = self._clock(), self._sides.unstable
        elsewhere = () if directories is None else (path for path in before if parent(path) not in directories)
        unstable = scan.unstable.union(elsewhere)
        follows = self._watch is not None and self.scanned_once
        if follows and not self._set.is_open and (scan.changed or scan.touched or unstable - before):
            self._set.noticed(now)
        self._sides.take_scan(
            changed=scan.changed,
            problems=scan.problems,
            cleared=scan.cleared,
            unstable=unstable,
            touched=scan.touched,
            in_set=self._set.number if follows else UNKNOWN_SET,
        )
        since = now if self._changed_since is None else min(now, self._changed_since)
        self._changed_since = None
        self.noticed = {**dict.fromkeys(scan.changed, since), **self.noticed}
        if self._watch and not self.scanned_once and self._sides.baseline and self._sides.changed_here():
            self._set.noticed(now)
        self._opened = {path: self._opened.get(path, now) for path in unstable}
        self._given_up &= unstable
        self._again_at = None
        if unstable or self.scanner.unread:
            self._again_at = now + (UNSTABLE_AGAIN if self._waits_for_open() else LOOK_AGAIN)

    def _unread(self) -> set[StorePath]:
        return set(self.scanner.unread) | {parent(path) for path in self._sides.unstable}

    def _note_deletes(self) -> None:
        """Report paths that are gone since the last scan to the delete window."""
        sides = self._sides
        gone = {path for path in sides.pending if path in sides.baseline and path not in sides.local}
        if gone - self._deleted:
            self.deletes.noticed(self._clock())
        self._deleted = gone
