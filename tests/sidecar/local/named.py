"""Named values for tests of the local side: mappings, changes, a directory being mirrored, another user."""

import os
import resource
import stat
import subprocess
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from configstore.model.path import ROOT, StorePath
from configstore.model.record import split
from sidecar.local.apply import Applier, LocalChange
from sidecar.local.inotify import InotifyWatch
from sidecar.local.journal import Journal
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.recovery import recover
from sidecar.local.scan import Scanner
from sidecar.mapping import Mapping
from tests.harness import named

NOBODY = 65534


def a_mapping(path, **fields):
    return Mapping(**({"name": "certs", "store": StorePath("certs"), "path": str(path)} | fields))


def a_file(content, mode=0o640, **fields):
    return named.a_file(content, mode, **fields)


def write(path, content, mode=0o644):
    """Write a file as a well-behaved application does: whole, then renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".new-{path.name}")
    new.write_text(content)
    new.chmod(mode)
    new.rename(path)


def modes_below(top):
    """Return the modes of all directories below one, by path; they are opened on the way, as root need not."""
    modes = {}
    for directory, names, _ in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            modes[os.path.relpath(path, top)] = stat.S_IMODE(os.lstat(path).st_mode)
            os.chmod(path, 0o700)
    return modes


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def as_nobody():
    """Do what follows without root's rights; tests that run as another user have none anyway."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextmanager
def no_descriptors_left(spare=0):
    """Let what follows open `spare` more descriptors, and then none (EMFILE)."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.open("/", os.O_RDONLY) for _ in range(spare + 1)]  # the lowest that are free
    for descriptor in free:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def mount_tmpfs(path, size="1m"):
    """Mount a tmpfs; returns why it cannot be mounted here, else None."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "test", path],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip() if done.returncode else None


def unmount(path, *options):
    subprocess.run(["umount", *options, path], check=True, capture_output=True)


class Mirrored:
    """One directory with all that looks at it and writes to it, and what is known of it by now."""

    def __init__(self, path, *, watch=None, **fields):
        self.path = path
        self.mapping = a_mapping(path, **fields)
        self.root = MirroredDirectory(str(path))
        self.journal = Journal(self.root.private.fd)
        self.scanner = Scanner(self.root, self.mapping, watch)
        self.applier = Applier(self.root, self.mapping, self.journal, self.scanner.note, watch)
        self.known = {}
        self.problems = {}

    def scan(self, *directories, written=(), rehash=False):
        """Scan the directories named, all when none is, and take in what was found, as the engine does."""
        found = self.scanner.scan(directories or None, self.known, written=written, rehash=rehash)
        for path, entry in found.changed.items():
            if entry is None:
                self.known.pop(path, None)
            else:
                self.known[path] = entry
        for path in found.cleared:
            self.problems.pop(path, None)
        self.problems |= found.problems
        return found

    def change(self, path, desired, content=None, *, group=1):
        """Return the change from what is known to lie at a path."""
        return LocalChange(
            path=StorePath(path),
            expected=self.known.get(path),
            desired=desired,
            content=partial(split, content.encode()) if content is not None else None,
            group=group,
        )

    def file(self, path, content, mode=0o640, *, group=1, **fields):
        return self.change(path, a_file(content, mode, **fields), content, group=group)

    def apply(self, *changes):
        """Apply, and take in what was done, as the engine does."""
        applied = self.applier.apply(changes)
        for path, entry in applied.done.items():
            if entry is None:
                self.known.pop(path, None)
            else:
                self.known[path] = entry
        self.applier.finish()
        return applied

    def staged(self):
        return os.listdir(self.root.staging_fd)

    def begin_anew(self):
        """Recover as the next process does after a crash; returns what is agreed on by that."""
        self.close()
        self.root = MirroredDirectory(str(self.path))
        self.journal = Journal(self.root.private.fd)
        agreed = recover(self.root, self.journal)
        self.root.private.clear_staging()
        self.journal.clear()
        return agreed

    def close(self):
        self.journal.close()
        self.root.close()


class Woken:
    """A watch whose news are gathered, so that a test can wait for some of them."""

    def __init__(self, start=InotifyWatch):
        self.directories = set()
        self.written = set()
        self.everything = False
        self.wakes = 0
        self.watch = start(self.wake)

    def wake(self):
        self.wakes += 1

    def news(self):
        dirty = self.watch.drain()
        self.directories |= dirty.directories
        self.written |= dirty.written
        self.everything |= dirty.everything
        return self

    def says(self, directory=ROOT):
        return directory in self.news().directories


def differences(here):
    """Return where what is known is not what somebody finds who has never looked before."""
    fresh = Mirrored(here.path)
    fresh.scan()
    fresh.close()
    # Where there is a problem, what was known before may stay known.
    paths = (here.known.keys() | fresh.known.keys()) - fresh.problems.keys()
    wrong = {path for path in paths if here.known.get(path) != fresh.known.get(path)}
    return wrong | (here.problems.keys() ^ fresh.problems.keys())


def kernel_watches():
    """Return how many watches the kernel holds for us (proc_pid_fdinfo(5))."""
    mine = [fd for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]
    ours = [fd for fd in mine if os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:inotify"]
    return sum(Path(f"/proc/self/fdinfo/{fd}").read_text().count("\ninotify ") for fd in ours)
