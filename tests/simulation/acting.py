"""What users do in a history; `test_simulation` has all else that happens."""

import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from configstore.model.replica import Take
from tests.simulation.replica import SETTLE
from tests.simulation.running import Counted
from tests.simulation.strategies import contents, paths, replicas
from tests.simulation.world import PAIR, World


class Users(Counted):
    """A world, and those who work in its directories. sealed: as of `World`."""

    sealed = False

    @initialize(count=st.integers(2, 3), take=st.sampled_from(Take))
    def begin(self, count, take):
        self.take = take
        self.base = Path(tempfile.mkdtemp(prefix="configstore-simulation-", dir="/dev/shm"))
        self.world = World(self.base, count, sealed=self.sealed)
        self.number = 0
        # What replaces nothing is held back by nothing, so the pair is there before anything happens.
        self.user(0).write_pair(0)
        self.world.heal()
        self.world.back_up()

    def at(self, number):
        return self.world.replicas[number % len(self.world.replicas)]

    def user(self, number):
        return self.at(number).user

    def unique(self, content=b""):
        self.number += 1
        return content + b"-%d" % self.number

    def settle(self, number, fault=None):
        """Let a replica take notice of what was done, and let the windows pass."""
        self.at(number).cycle()
        splits = fault is not None and fault.happens == "pair"  # a set that is open for long is cut anywhere
        self.world.now += 2 * SETTLE if splits else 61.0
        self.world.note_accepted()

    # What users do

    @rule(number=replicas, name=paths, content=contents, unique=st.booleans())
    def write(self, number, name, content, unique):
        self.user(number).write(name, self.unique(content) if unique else content, makes_directory=True)

    @rule(number=replicas, name=paths)
    def make_directory(self, number, name):
        self.user(number).make_directory(name)

    @rule(number=replicas, name=paths, points_to=st.sampled_from(["a", "b"]))
    def link(self, number, name, points_to):
        self.user(number).link(name, points_to)

    @rule(number=replicas, name=paths)
    def delete(self, number, name):
        self.user(number).delete(name)

    @rule(number=replicas, name=paths, to=paths)
    def rename(self, number, name, to):
        self.user(number).rename(name, to)

    @rule(number=replicas, name=paths, mode=st.sampled_from([0o600, 0o640, 0o700]))
    def change_mode(self, number, name, mode):
        self.user(number).change_mode(name, mode)

    @rule(number=replicas, name=st.sampled_from(["a", "b", "d/a", *PAIR]))
    def open_for_writing(self, number, name):
        if name not in PAIR or self.world.agrees(self.at(number), name):  # else its set would wait for it
            self.user(number).open_for_writing(name)

    @rule(number=replicas, name=st.sampled_from(["a", "b", "d/a"]))
    def write_to_open(self, number, name):
        self.user(number).write_to_open(name, self.unique(b"through a descriptor"))

    @rule(number=replicas)
    def close_all(self, number):
        for name in list(self.user(number).open):
            self.user(number).close(name)

    @rule(number=replicas, name=st.sampled_from(["a", *PAIR]), linked=st.booleans())
    def make_unreadable(self, number, name, linked):
        """Of a file that has several names, or that may not be read, nothing is known.

        Nor is it known at a first look what was changed together before it.
        """
        if name in PAIR and not self.at(number).mirror.engine.local.scanned_once:
            return
        if linked:
            self.user(number).hard_link(name)
        else:
            self.at(number).unreadable.add(name)

    @rule(number=replicas)
    def make_readable(self, number):
        self.at(number).unreadable.clear()
