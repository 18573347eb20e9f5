"""Random histories of two or three replicas, with faults; nothing accepted is ever lost and all end equal."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from configstore.model.path import is_below
from configstore.model.record import Kind
from configstore.model.replica import Take
from tests.simulation.world import PAIR, SUBTREE, Fault, World
from tests.trees import look, tree

NAMES = ["a", "b", "A", "d", "d/a", "d/b", "d/e", "d/e/a", "\u00e9", "e\u0301"]  # two spellings of one letter
paths = st.sampled_from(NAMES)
replicas = st.integers(0, 2)
contents = st.sampled_from([b"one", b"two", b"three", b""])
seconds = st.sampled_from([0.0, 0.5, 61.0])
faults = st.one_of(
    st.builds(Fault, st.sampled_from(["before", "after"]), st.integers(1, 4), st.sampled_from(["lost", "crash"])),
    st.builds(Fault, st.sampled_from(["before", "after", "rename"]), st.integers(1, 4), st.just("edit"), paths),
    st.builds(Fault, st.sampled_from(["before", "after", "rename"]), st.integers(1, 6), st.just("other"), paths),
    st.builds(Fault, st.just("rename"), st.integers(1, 3), st.just("crash")),
    st.builds(Fault, st.just("disk"), st.integers(1, 20), st.just("crash")),
    st.builds(Fault, st.just("before"), st.integers(1, 6), st.just("late")),
)


class Histories(RuleBasedStateMachine):
    """What users, orchestrators and networks do."""

    @initialize(count=st.integers(2, 3), take=st.sampled_from(Take))
    def begin(self, count, take):
        self.take = take
        self.base = Path(tempfile.mkdtemp(prefix="configstore-simulation-", dir="/dev/shm"))
        self.world = World(self.base, count)
        self.deleted = set()
        self.number = 0

    def at(self, number):
        return self.world.replicas[number % len(self.world.replicas)]

    def usable(self, folder):
        return folder.is_dir() and not folder.is_symlink()

    def remove(self, path, name):
        """Remove what lies there, as a user does, and remember that a user did."""
        self.deleted.add(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @rule(number=replicas, name=paths, content=contents, unique=st.booleans())
    def write(self, number, name, content, unique):
        path = self.at(number).folder / name
        if self.usable(path.parent.parent) and not os.path.lexists(path.parent):
            path.parent.mkdir()
        if not self.usable(path.parent):
            return
        if path.is_dir() or path.is_symlink():
            self.remove(path, name)
        self.number += unique
        path.write_bytes(content + (b"-%d" % self.number if unique else b""))

    @rule(number=replicas, name=paths)
    def make_directory(self, number, name):
        path = self.at(number).folder / name
        if self.usable(path.parent) and not path.exists() and not path.is_symlink():
            path.mkdir()

    @rule(number=replicas, name=paths, points_to=st.sampled_from(["a", "b"]))
    def link(self, number, name, points_to):
        path = self.at(number).folder / name
        if self.usable(path.parent):
            self.remove(path, name)
            path.symlink_to(points_to)

    @rule(number=replicas, name=paths)
    def delete(self, number, name):
        path = self.at(number).folder / name
        if os.path.lexists(path):
            self.remove(path, name)

    @rule(number=replicas, name=paths, to=paths)
    def rename(self, number, name, to):
        source, target = self.at(number).folder / name, self.at(number).folder / to
        if os.path.lexists(source) and self.usable(target.parent) and not to.startswith(name):
            if os.path.lexists(target):
                self.remove(target, to)
            if os.path.lexists(source) and self.usable(target.parent):
                self.deleted.add(name)
                source.rename(target)

    @rule(number=replicas, name=paths, mode=st.sampled_from([0o600, 0o640, 0o700]))
    def change_mode(self, number, name, mode):
        path = self.at(number).folder / name
        if path.exists() and not path.is_symlink():
            path.chmod(mode | (0o700 if path.is_dir() else 0))

    @rule(number=replicas, seconds=seconds)
    def cycle(self, number, seconds):
        self.world.now += seconds
        self.at(number).cycle()
        self.world.note_accepted()

    @rule(number=replicas, name=paths, seconds=seconds)
    def cycle_without_news(self, number, name, seconds):
        self.write(number, name, b"old view", unique=True)
        self.world.now += seconds
        self.at(number).cycle(late=True)
        self.world.note_accepted()

    @rule(number=replicas, fault=st.one_of(st.none(), faults), seconds=seconds)
    def change_the_pair(self, number, fault, seconds):
        self.number += 1
        for name in PAIR:
            (self.at(number).folder / name).write_bytes(b"%d" % self.number)
        self.world.now += 61.0
        self.at(number).cycle(fault)
        self.world.note_accepted()

    @rule(number=replicas, other=replicas, below=st.sampled_from(["d/a", "d/e/a"]))
    def delete_a_directory_while_another_writes_into_it(self, number, other, below):
        self.world.heal()
        folder = self.at(number).folder / "d"
        if self.usable(folder):
            self.remove(folder, "d")
        self.cycle(number, 0.0)
        self.cycle(number, 61.0)
        self.write(other, below, b"into it", unique=True)

    @rule(number=replicas, other=replicas, name=st.sampled_from(["d", "a"]))
    def make_a_file_while_another_makes_a_directory(self, number, other, name):
        for who, below in ((number, name), (other, f"{name}/x")):
            path = self.at(who).folder / name
            if os.path.lexists(path):
                self.remove(path, name)
            self.write(who, below, b"of this name", unique=True)

    @rule(number=replicas, name=st.sampled_from(["a", "b"]))
    def edit_while_down(self, number, name):
        """An edit that only one replica makes, while its sidecar is down, travels like any other."""
        self.world.heal()
        lost = len(self.world.records("conflicts"))
        replica = self.at(number)
        replica.mirror.close()
        self.write(number, name, b"while down", unique=True)
        found = look(replica.folder / name)
        replica.start()
        self.world.heal()
        shown = [look(each.folder / name) for each in self.world.replicas]
        assert all(each == found for each in shown), f"an edit was undone\n{self.world.describe()}"
        assert len(self.world.records("conflicts")) == lost, "a conflict with nobody"

    @rule()
    def land(self):
        self.world.land()

    @rule()
    def compact(self):
        self.world.compact()

    @rule(number=replicas)
    def reconnect(self, number):
        self.at(number).feed.reconnected = True

    @rule(number=replicas)
    def lose_news(self, number):
        self.at(number).feed.lose()

    @rule(name=paths)
    def put_by_hand(self, name):
        self.number += 1
        self.world.put_by_hand(name, b"by hand %d" % self.number)

    @rule()
    def back_up(self):
        self.world.back_up()

    @rule()
    def restore(self):
        self.world.restore()

    @rule(name=paths)
    def vanish(self, name):
        self.world.vanish(name)

    @rule(number=replicas, other=replicas, name=paths, fault=faults, seconds=seconds)
    def change_and_fail(self, number, other, name, fault, seconds):
        self.write(number, name, b"failing", unique=True)
        self.world.now += 61.0
        self.at(number).cycle(fault)
        self.world.note_accepted()
        self.cycle(other, seconds)

    @rule(number=replicas, other=replicas, name=paths, fault=faults)
    def change_and_let_another_fail(self, number, other, name, fault):
        self.write(number, name, b"failing", unique=True)
        self.cycle(number, 61.0)
        self.world.now += 61.0
        self.at(other).cycle(fault)
        self.world.note_accepted()

    @rule(number=replicas)
    def crash(self, number):
        self.at(number).crash()

    @rule(number=replicas)
    def wipe(self, number):
        self.at(number).wipe()

    def teardown(self):
        if not hasattr(self, "world"):
            return
        try:
            self.check()
        finally:
            self.world.close()
            shutil.rmtree(self.base)

    def check(self):
        world = self.world
        world.heal(self.take)
        trees = [tree(replica.folder) for replica in world.replicas]
        assert all(found == trees[0] for found in trees), f"the replicas differ\n{world.describe()}"
        problems = [problem for each in world.replicas for problem in each.mirror.engine.status.problems]
        assert not problems, f"problems remain\n{world.describe()}"
        files, past = world.records("files"), world.records("past")
        kept = {(path, record.entry.sha256) for path, record in files + past if record.entry.kind is Kind.FILE}
        assert world.accepted <= kept, f"accepted values were lost: {world.accepted - kept}"
        gone = {path.removeprefix(f"{SUBTREE}/") for path, record in files if record.entry.kind is Kind.GONE}
        nobody = [path for path in gone if not any(path == top or is_below(path, top) for top in self.deleted)]
        assert not nobody, f"deleted by nobody: {nobody}"


def run(examples, steps=30, number=None, **how):
    """Try so many histories of at most so many steps. Raises what the first failing one raised.

    number: of a fixed row of histories, for what shall take the same time each time.
    """
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        report_multiple_bugs=False,
        **how,
    )
    histories = type("Histories", (Histories,), {})
    run_state_machine_as_test(histories if number is None else seed(number)(histories), settings=profile)


def test_random_histories_lose_nothing_and_end_equal():
    run(500)


@pytest.mark.soak
def test_many_random_histories_lose_nothing_and_end_equal():
    run(10_000, steps=60)
