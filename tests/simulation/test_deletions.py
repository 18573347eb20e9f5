"""Random deletions of many files, in several transactions: of each, all replicas make all or, when asked, none."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from configstore.model.replica import Take
from configstore.store import packing, retention
from sidecar.planner.guards import FREE_DELETES
from tests.harness.trees import tree
from tests.simulation.running import STEPS, Counted, run_histories
from tests.simulation.strategies import calls, deaths
from tests.simulation.world import Fault, World

COUNT = 24
NAMES = [f"many/{number:02}" for number in range(COUNT)]
SHARE = 0.5
OPERATIONS = 8
"""So many operations are taken in a transaction, so that each deletion needs several."""

FREE, CAREFUL = 0, 1  # the replicas: of the first, any deletion is sent; the other refuses a mass of them
faults = st.one_of(
    st.none(),
    st.builds(Fault, calls, st.integers(1, 12), st.sampled_from(["lost", "late"])),
    st.builds(Fault, calls, st.integers(1, 12), deaths),
    st.builds(Fault, st.just("disk"), st.integers(1, 40), deaths),
)


class Careful(World):
    """A world in which a replica may ask about a deletion."""

    def __init__(self, base):
        super().__init__(base, 2, policies=({"max_delete": 1.0}, {"max_delete": SHARE}))

    def check_halt(self, replica, reason):
        assert "refused to delete" in reason, reason


class Deletions(Counted):
    """One replica's user deletes, the other replica follows, or asks a person."""

    @initialize(take=st.sampled_from(Take), parts=st.integers(1, 3))
    def begin(self, take, parts):
        self.take, self.parts = take, parts
        self.limits = {module: module.MAX_OPERATIONS for module in (packing, retention)}
        for module in self.limits:
            module.MAX_OPERATIONS = OPERATIONS
        self.base = Path(tempfile.mkdtemp(prefix="configstore-simulation-", dir="/dev/shm"))
        self.world = Careful(self.base)
        self.there = set()
        self.fill()

    def shown(self, number):
        return {path for path, found in tree(self.world.replicas[number].folder).items() if found[0] == "file"}

    def cycle(self, number, fault=None, seconds=0.0):
        self.world.now += seconds
        self.world.replicas[number].cycle(fault)
        self.world.note_accepted()
        self.check_whole()

    def check_whole(self):
        """Of a deletion that must be asked about, nothing is deleted before a person said so."""
        left = self.shown(CAREFUL)
        assert not self.mass or left >= self.there, (
            f"deleted without a question: {sorted(self.there - left)}\n{self.world.describe()}"
        )

    @rule()
    def fill(self):
        """Have all files everywhere."""
        self.mass = False
        for name in set(NAMES) - self.shown(FREE):
            self.world.replicas[FREE].user.write(name, name.encode(), makes_directory=True)
        self.world.heal(self.take)
        if self.shown(FREE) != set(NAMES):
            self.fill()
        self.there = self.shown(CAREFUL)
        assert self.there == set(NAMES)

    @rule(count=st.integers(1, COUNT), faults=st.lists(faults, min_size=3, max_size=8), seconds=st.data())
    def delete(self, count, faults, seconds):
        """Delete so many at once, while much fails; in the end both have all of it, or none."""
        self.fill()
        user = self.world.replicas[FREE].user
        doomed = NAMES[:count]
        self.mass = count > FREE_DELETES and count > SHARE * (COUNT + 1)
        for part in range(self.parts):  # within one window
            for name in doomed[part :: self.parts]:
                user.delete(name)
            self.cycle(FREE)
            self.world.now += 0.5
        for fault in faults:
            self.cycle(FREE, fault, seconds.draw(st.sampled_from([0.3, 1.2, 61.0])))
            self.cycle(CAREFUL, fault and seconds.draw(st.sampled_from([None, fault])), 0.1)
        self.mass = False  # from here on a person answers
        self.world.chosen = False
        self.world.heal(self.take)
        left = self.shown(FREE)
        assert left == self.shown(CAREFUL), self.world.describe()
        kept = self.world.chosen and self.take is Take.LOCAL
        assert left == (set(NAMES) if kept else set(NAMES) - set(doomed)), (
            f"of {count} deletes {COUNT - len(left)} were made\n{self.world.describe()}"
        )

    def teardown(self):
        if not hasattr(self, "world"):
            return
        try:
            self.world.check_kept()
        finally:
            for module, limit in self.limits.items():
                module.MAX_OPERATIONS = limit
            self.world.close()
            shutil.rmtree(self.base)


def run(examples, steps=3, number=None, **how):
    """Try so many histories, as `running.run_histories`; a step is a whole deletion here."""
    run_histories(Deletions, examples, min(steps, 3), number, **how)


@pytest.mark.timeout(900)
def test_a_deletion_is_made_as_a_whole_or_not_at_all():
    run(30)


@pytest.mark.soak
def test_many_deletions_are_made_as_a_whole_or_not_at_all():
    run(2_000)
    print(dict(STEPS))
