"""Random histories of two or three replicas, with faults; nothing accepted is ever lost and all end equal."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from configstore.model.path import is_below
from configstore.model.record import Kind
from tests.simulation.world import SUBTREE, Fault, World
from tests.trees import tree

NAMES = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a"]
paths = st.sampled_from(NAMES)
replicas = st.integers(0, 2)
contents = st.sampled_from([b"one", b"two", b"three", b""])
seconds = st.sampled_from([0.0, 0.5, 61.0])
faults = st.one_of(
    st.builds(Fault, st.sampled_from(["before", "after"]), st.integers(1, 4), st.sampled_from(["lost", "crash"])),
    st.builds(Fault, st.sampled_from(["before", "after", "rename"]), st.integers(1, 4), st.just("edit"), paths),
    st.builds(Fault, st.sampled_from(["before", "after", "rename"]), st.integers(1, 6), st.just("other"), paths),
    st.builds(Fault, st.just("rename"), st.integers(1, 3), st.just("crash")),
)


class Histories(RuleBasedStateMachine):
    """What users, orchestrators and networks do."""

    @initialize(count=st.integers(2, 3))
    def begin(self, count):
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
        world.heal()
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


def run(examples, steps=30, **how):
    """Try so many histories of at most so many steps. Raises what the first failing one raised."""
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        report_multiple_bugs=False,
        **how,
    )
    run_state_machine_as_test(Histories, settings=profile)


def test_random_histories_lose_nothing_and_end_equal():
    run(500)


@pytest.mark.soak
def test_many_random_histories_lose_nothing_and_end_equal():
    run(10_000, steps=60)
