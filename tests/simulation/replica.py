"""One simulated sidecar and the user who works in its directory."""

import contextlib
import itertools
import os
import shutil

from configstore.errors import StoreError
from configstore.model.path import PRIVATE_NAME
from configstore.model.record import sha256
from configstore.store.tree import Tree
from configstore.store.values import Writer
from sidecar.cycle.mirror import Mirror
from sidecar.mapping import Mapping
from sidecar.state.directory import StateDirectory
from tests.harness.trees import look
from tests.simulation.edges import KEYS, SUBTREE, Connection, Eyes, Feed, Watch
from tests.simulation.faults import Crash, Fault, striking

CLOCKS = ["2999-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "not a time"]
"""What the replicas take for the time; nothing may be decided by it."""

RETENTIONS = [1e9, 1e6, 2e9]
"""For how many seconds the replicas keep what they supersede."""

SETTLE = 0.25
"""The settle window, in seconds."""

PAIR = ("p1", "p2")
"""Two files that are always written together, as a certificate and its key are."""

_links = itertools.count()


def _contents_of(folder):
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != PRIVATE_NAME:
                    yield from _contents_of(entry.path)
            elif not entry.is_symlink():
                with open(entry.path, "rb") as file:
                    yield file.read()


class User:
    """Works in a replica's directory. dropped, made: contents, since the replica's cycle began."""

    def __init__(self, replica):
        self.replica = replica
        self.dropped, self.made = set(), set()
        self.open = {}  # descriptors for writing, by name
        self.links = []
        self._to_write = []  # of the pair, by name
        self.half_way = False

    @property
    def folder(self):
        return self.replica.folder

    def usable(self, path):
        return path.is_dir() and not path.is_symlink()

    def forget(self, path):
        """Note that what lies at a path is not wanted any more."""
        files = [path] if not self.usable(path) else [each for each in path.rglob("*") if not self.usable(each)]
        for each in files:
            if each.is_file() and not each.is_symlink():
                self.dropped.add(each.read_bytes())
                self.made.discard(each.read_bytes())

    def remove(self, path, name):
        """Remove what lies there, and remember that a user did."""
        self.replica.world.deleted.add(name)
        self.forget(path)
        if self.usable(path):
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def write(self, name, content, *, makes_directory=False):
        path = self.folder / name
        if makes_directory and self.usable(path.parent.parent) and not os.path.lexists(path.parent):
            path.parent.mkdir()
        if not self.usable(path.parent):
            return
        if path.is_dir() or path.is_symlink():
            self.remove(path, name)
        self.forget(path)
        path.write_bytes(content)
        self.made.add(content)

    def make_directory(self, name):
        path = self.folder / name
        if self.usable(path.parent) and not os.path.lexists(path):
            path.mkdir()

    def link(self, name, target):
        path = self.folder / name
        if self.usable(path.parent):
            self.remove(path, name)
            path.symlink_to(target)

    def delete(self, name):
        path = self.folder / name
        if self.usable(path.parent) and os.path.lexists(path):
            self.remove(path, name)

    def rename(self, name, to):
        source, target = self.folder / name, self.folder / to
        if os.path.lexists(source) and self.usable(target.parent) and not to.startswith(name):
            if os.path.lexists(target):
                self.remove(target, to)
            if os.path.lexists(source) and self.usable(target.parent):
                self.replica.world.deleted.add(name)
                source.rename(target)

    def change_mode(self, name, mode):
        path = self.folder / name
        if path.exists() and not path.is_symlink():
            path.chmod(mode | (0o700 if path.is_dir() else 0))

    def hard_link(self, name):
        """Give a file a second name elsewhere, which keeps it from being mirrored."""
        path = self.folder / name
        if path.is_file() and not path.is_symlink():
            self.links.append(self.replica.world.base / f"{self.replica.name}-{next(_links)}.{path.name}")
            os.link(path, self.links[-1])

    def open_for_writing(self, name):
        path = self.folder / name
        if path.is_file() and not path.is_symlink() and name not in self.open:
            self.open[name] = os.open(path, os.O_RDWR | os.O_NOFOLLOW)

    def write_to_open(self, name, content):
        descriptor = self.open.get(name)
        if descriptor is not None and self.holds(name):
            self.forget(self.folder / name)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, content, 0)
            self.made.add(content)

    def holds(self, name):
        """Tell whether the file that is open is the one that lies there."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            here = (self.folder / name).lstat()
            return os.path.samestat(here, os.fstat(self.open[name]))
        return False

    def close(self, name):
        if name in self.open:
            os.close(self.open.pop(name))

    def write_pair(self, number, big=0):
        """Write both files of the pair, the first one `big` bytes larger."""
        self.begin_pair(number, big)
        self.go_on_with_pair()
        self.go_on_with_pair()

    def begin_pair(self, number, big=0):
        """Be about to write the pair; `go_on_with_pair` writes one file after the other."""
        self.finish_pair()
        for name in PAIR:
            self.close(name)
        self._to_write = [(PAIR[0], b"%d %s" % (number, b"x" * big)), (PAIR[1], b"%d " % number)]
        self.replica.world.pairs |= {sha256(content): number for _, content in self._to_write}

    def go_on_with_pair(self):
        if self._to_write:
            self.write(*self._to_write.pop(0))
            self.half_way = bool(self._to_write)

    def finish_pair(self):
        """Write what is left to be written of the pair; nothing, when it was not begun."""
        while self.half_way:
            self.go_on_with_pair()

    def release_pair(self):
        """Let the pair be readable: at its first look a sidecar does not know what was changed together."""
        self.replica.unreadable.difference_update(PAIR)
        for link in [link for link in self.links if link.suffix[1:] in PAIR]:
            self.links.remove(link)
            link.unlink()

    def leave(self):
        """Leave nothing open, linked or half-written."""
        self.finish_pair()
        for name in list(self.open):
            self.close(name)
        for link in self.links:
            link.unlink()
        self.links.clear()


class Replica:
    """One sidecar's engine and its directory."""

    def __init__(self, world, name, **policy):
        self.world, self.name, self.policy = world, name, policy
        self.number = int(name[1:])
        self.folder = world.base / name
        self.folder.mkdir()
        self.state = world.base / f"{name}-state"
        self.fault = Fault()
        self.away = False
        self.unreadable = set()
        self.user = User(self)
        self.start()

    def start(self):
        """Begin as a new process."""
        ids = self.world.ids
        clock = CLOCKS[self.number % len(CLOCKS)]
        writer = Writer(replica=self.name, host="h", now=lambda: clock, new_id=lambda: f"w{next(ids)}")
        retention = RETENTIONS[self.number % len(RETENTIONS)]
        policy = {"max_delete": 1.0, **self.policy}
        mapping = Mapping(
            name=SUBTREE, store=SUBTREE, path=str(self.folder), retention=retention, settle=SETTLE, **policy
        )
        tree = Tree(Connection(self), KEYS, writer, envelopes=self.world.envelopes, patience=0)
        self.feed = Feed(tree, self)
        self.states = StateDirectory(str(self.state))
        self.mirror = Mirror(
            mapping,
            tree,
            feed=self.feed,
            local_watch=self._watch,
            clock=lambda: self.world.now,
            state=self.states.open,
        )
        scanner = self.mirror.engine.local.scanner
        scanner.reader = Eyes(scanner.reader, self)

    def _watch(self):
        self.watch = Watch()
        return self.watch

    def end(self):
        """End without any goodbye."""
        self.mirror.close()
        self.states.close()

    def crash(self):
        """End, and begin again; perhaps twice, and perhaps after an edit."""
        fault, self.fault = self.fault, Fault()
        self.end()
        self.user.release_pair()
        fault.after_a_crash(self.user)
        if fault.happens == "crash twice":
            self.fault = Fault("disk", 1 + fault.number % 4, "crash")
            try:
                with striking(lambda kind: self.fault.strike(kind, self)):
                    self.start()
            except Crash:
                self.fault = Fault()
                self.states.close()
                self.start()
        else:
            self.start()

    def cycle(self, fault=None, *, late=False):
        """Make one cycle, in which a fault may strike; with `late`, without the latest news of the store.

        Whatever a file held before must then still be in one, or in the store; and what a program has open for
        writing is still there.
        """
        contents = self.contents()
        user, world = self.user, self.world
        user.dropped.clear()
        user.made.clear()
        held = [name for name in user.open if user.holds(name)]
        self.fault = fault or Fault()
        self.feed.late = late
        with striking(lambda kind: self.fault.strike(kind, self)):
            try:
                self.mirror.cycle()
            except StoreError:
                pass  # `run` would list again
            except Crash:
                self.crash()
        acted = user.dropped or user.made
        user.finish_pair() if self.fault.happens == "pair" else None
        self.fault = Fault()
        world.check_pair(self)
        gone = {sha256(content) for content in (contents - user.dropped | user.made) - self.contents()}
        assert not gone or gone <= world.known(), (
            f"local content was overwritten without being kept\n{world.describe()}"
        )
        assert acted or all(map(user.holds, held)), f"replaced under a writer: {held}\n{world.describe()}"

    def problems(self):
        """Return what is wrong now; that a set is of two hands is still said when nothing is wrong any more."""
        found = self.mirror.engine.status.problems
        return [problem for problem in found if not problem.reason.startswith("another replica's version won")]

    def busy(self):
        """Tell whether it knows of something to do or to find out."""
        engine = self.mirror.engine
        return engine.status.pending or engine.remote.lifecycle.wants_listing or engine.remote.doubtful

    def let_another_act(self, name, content):
        """Have the next replica's user edit a file, and that replica send it."""
        replicas = self.world.replicas
        other = replicas[(replicas.index(self) + 1) % len(replicas)]
        other.user.write(name, content)
        other.cycle()
        self.world.now += 61.0
        other.cycle()
        self.world.note_accepted()

    def wipe(self):
        """Lose everything, as a tmpfs does whose container was made anew."""
        self.end()
        self.user.leave()
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.start()

    def contents(self):
        """Return the contents of all files."""
        return set(_contents_of(self.folder))

    def shown_pair(self):
        """Return which pairs are shown here, by their numbers."""
        found = [(self.folder / name).read_bytes() for name in PAIR if look(self.folder / name)]
        return {content.split(b" ")[0] for content in found}
