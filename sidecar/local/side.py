"""Looks at the mirrored directory and keeps the local side of `Sides` at what lies there. Called by the engine.

What an event named is looked at when the set that it belongs to has settled. What could not be read is looked at
again after a while, which is nothing new and delays no set. Everything is looked at from time to time.
"""

from collections.abc import Callable

from configstore.model.path import StorePath, parent
from configstore.model.problem import Problem
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.scan import Scan, Scanner
from sidecar.local.watch import LocalWatch
from sidecar.mapping import Mapping
from sidecar.planner.settle import DeleteWindow, Rounds, SetWindow
from sidecar.planner.three_sides import UNKNOWN_SET, Sides

LOOK_AGAIN = 2.0
"""Seconds until what could not be read is looked at again, should no event tell of it."""

UNSTABLE_AGAIN = 0.25
"""Seconds until a file of the set that is open is looked at again, should no event tell that it was closed."""

NAMED_AFTER = 4.0
"""Seconds after which a file that is still open for writing is a problem with a name."""

_LOOKS = 3
"""How often news that come in during a look are looked at before it is given up to find the directory at rest."""


class LocalSide:
    """What lies in one mapping's directory, and what of it may travel.

    edits_settled, deletes_settled: whether the last look found all that was changed, or deleted, together, so that
    it may travel.
    """

    def __init__(
        self,
        mapping: Mapping,
        sides: Sides,
        *,
        root: MirroredDirectory,
        scanner: Scanner,
        watch: LocalWatch | None,
        clock: Callable[[], float],
    ) -> None:
        """Watch is None where nobody follows changes: then every look is at everything."""
        now = clock()
        self.edits_settled = self.deletes_settled = False
        self.scanner = scanner
        self._sides = sides
        self._root = root
        self._watch = watch
        self._clock = clock
        self._set = SetWindow(mapping.settle)
        self.deletes = DeleteWindow(mapping.delete_settle)
        self.rounds = Rounds(mapping, now)
        self._everything = True
        self.looked = False  # at everything, at least once
        self._saw_everything = False  # in the last look
        self._dirty: set[StorePath] = set()
        self._written: set[StorePath] = set()
        self._again_at: float | None = None
        self._opened: dict[StorePath, float] = {}  # since when a file was found open for writing
        self._given_up: set[StorePath] = set()  # open files that no set waits for any more
        self._deleted: set[StorePath] = set()
        self._news_since: float | None = None  # of what no scan has looked at yet
        self.noticed: dict[StorePath, float] = {}  # when what is pending was changed here first

    def blocked(self) -> str | None:
        """Return why the directory must not be touched now. Raises RootLostError when it is another one."""
        return self._root.check()

    def look_at_everything(self) -> None:
        """Look at everything next time."""
        self._everything = True

    def look_at(self, paths: set[StorePath]) -> None:
        """Look at paths next time that turned out to be other than they were believed to be."""
        self._dirty |= {parent(path) for path in paths}
        self._written |= paths

    def look(self, *, flush: bool = False) -> None:
        """Bring the local side up to date, as far as it may be looked at now.

        flush: look at everything, and let it travel without waiting for its set.
        """
        self._everything |= flush
        self._saw_everything = False
        self._end_set()
        self.noticed = {path: at for path, at in self.noticed.items() if path in self._sides.pending}
        for _ in range(_LOOKS):
            self._take_events()
            now = self._clock()
            self._everything |= self.rounds.full_scan_due(now)
            due = bool(self._dirty or self._written) and (flush or self._set.settled(now))
            again = self._again_at is not None and now >= self._again_at
            if not (self._everything or due or again):
                break
            self._scan(everything=self._everything, again=again)
        self._note_deletes()
        self.edits_settled = self._close_set(flush=flush)
        self.deletes_settled = self.deletes.settled(self._clock())

    def until_next(self) -> float:
        """Return in how many seconds to look again, the soonest of all reasons. Call it after a look."""
        now = self._clock()
        due = [self.rounds.until_next(now)]
        if self._everything:
            due.append(0.0)
        if self._set.is_open:
            news = self._dirty or self._written
            for_open = self._set.settled(now) and not news and self._waits_for_open()
            due.append(self._set.until_overdue(now) if for_open else self._set.until_settled(now))
        elif self._dirty or self._written:
            due.append(0.0)
        if self._again_at is not None:
            due.append(max(0.0, self._again_at - now))
        if self._deleted and not self.deletes_settled:  # else they wait for something else
            due.append(self.deletes.until_settled(now))
        return min(due)

    def open_problems(self) -> dict[StorePath, Problem]:
        """Return the files that programs keep open for writing for so long that somebody should know."""
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
        """Whether the last look found all that had been changed here until it began."""
        unseen = self._everything or self._dirty or self._written
        follows = self._watch is not None and self._watch.trouble is None
        return self.looked and not unseen and (follows or self._saw_everything)

    @property
    def trouble(self) -> str | None:
        """Why not all changes are noticed at once, or not all writers, with the mend."""
        found = [self._watch.trouble if self._watch else None, self.scanner.trouble]
        return "; ".join(filter(None, found)) or None

    def _close_set(self, *, flush: bool) -> bool:
        """End the set that is open if all that was changed together is known; returns whether none is open now."""
        if not flush and self._grows():
            return False
        self._given_up |= self._sides.unstable
        self._set.close()
        return True

    def _grows(self) -> bool:
        """Tell whether more may come to the set that is open."""
        now, open_set = self._clock(), self._set
        if not open_set.is_open or open_set.tired(now):
            return False
        # What came in during the look may belong to it.
        if self._dirty or self._written or not open_set.settled(now):
            return True
        return self._waits_for_open() and not open_set.overdue(now)

    def _waits_for_open(self) -> bool:
        """Tell whether a file of the open set is being written: one that was open before delays nothing."""
        return bool(self._sides.unstable - self._given_up)

    def _end_set(self) -> None:
        """Close the set when it is complete and all of it was looked at, though nothing may travel now.

        Else all that is changed while the store is away were one set, and what is being changed when it comes back
        would be sent in part, since that set has waited for long enough.
        """
        open_set = self._set
        unseen = self._everything or self._dirty or self._written
        if open_set.is_open and not unseen and not self._waits_for_open() and open_set.settled(self._clock()):
            open_set.close()

    def _take_events(self) -> None:
        if not self._watch:
            return
        dirty = self._watch.drain()
        if dirty.everything or dirty.directories or dirty.written:
            self._set.noticed(self._clock())
        if self._news_since is None:
            self._news_since = dirty.since
        self._dirty |= dirty.directories | {parent(path) for path in dirty.written}
        self._written |= dirty.written
        self._everything |= dirty.everything

    def _scan(self, *, everything: bool, again: bool) -> None:
        now = self._clock()
        rehash = everything and self.looked and self.rounds.rehash_due(now)
        directories = None if everything else set(self._dirty)
        if directories is not None and again:
            directories |= self._unread()
        written, self._written = self._written, set()
        self._dirty.clear()
        self._everything = False
        scan = self.scanner.scan(directories, self._sides.local, written=written, rehash=rehash)
        self._take(scan, directories)
        if everything:
            self.looked = self._saw_everything = True
            self.rounds.scanned(self._clock(), rehashed=rehash)

    def _take(self, scan: Scan, directories: set[StorePath] | None) -> None:
        """Hand on what a scan found. What it found without an event opens a set.

        The first look may come in the middle of a set that was begun while nobody looked. What belongs to that is
        not known, only that it must get quiet.
        """
        now, before = self._clock(), self._sides.unstable
        elsewhere = () if directories is None else (path for path in before if parent(path) not in directories)
        unstable = scan.unstable.union(elsewhere)
        follows = self._watch is not None and self.looked
        if follows and not self._set.is_open and (scan.changed or scan.touched or unstable - before):
            self._set.noticed(now)
        self._sides.found(
            changed=scan.changed,
            problems=scan.problems,
            cleared=scan.cleared,
            unstable=unstable,
            touched=scan.touched,
            in_set=self._set.number if follows else UNKNOWN_SET,
        )
        since = now if self._news_since is None else min(now, self._news_since)
        self._news_since = None
        self.noticed = {**dict.fromkeys(scan.changed, since), **self.noticed}
        if self._watch and not self.looked and self._sides.baseline and self._sides.queued():
            self._set.noticed(now)
        self._opened = {path: self._opened.get(path, now) for path in unstable}
        self._given_up &= unstable
        self._again_at = None
        if unstable or self.scanner.unread:
            self._again_at = now + (UNSTABLE_AGAIN if self._waits_for_open() else LOOK_AGAIN)

    def _unread(self) -> set[StorePath]:
        return set(self.scanner.unread) | {parent(path) for path in self._sides.unstable}

    def _note_deletes(self) -> None:
        """Tell the delete window of paths that are gone since the last look."""
        sides = self._sides
        gone = {path for path in sides.pending if path in sides.baseline and path not in sides.local}
        if gone - self._deleted:
            self.deletes.noticed(self._clock())
        self._deleted = gone
