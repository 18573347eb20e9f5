"""Random histories of two or three replicas, with faults; nothing accepted is ever lost and all end equal."""

import shutil

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from configstore.model.path import is_below
from configstore.model.record import Kind
from tests.harness.trees import look, tree
from tests.simulation.acting import Users
from tests.simulation.replica import SETTLE
from tests.simulation.running import STEPS, run_histories
from tests.simulation.strategies import (
    faults,
    network,
    pair_scans,
    paths,
    replicas,
    scans,
    seconds,
    sizes,
)
from tests.simulation.world import SUBTREE


class Histories(Users):
    """What users, orchestrators and networks do."""

    # What sidecars do

    @rule(number=replicas, seconds=seconds)
    def cycle(self, number, seconds):
        self.world.now += seconds
        self.at(number).cycle()
        self.world.note_accepted()

    @rule(number=replicas, name=paths, seconds=seconds)
    def cycle_without_news(self, number, name, seconds):
        self.write(number, name, b"old view", unique=True)
        self.settle(number)
        self.world.now += seconds
        self.at(number).cycle(late=True)
        self.world.note_accepted()

    @rule(number=replicas, seconds=seconds)
    def cycle_without_events(self, number, seconds):
        self.close_window(number)  # the kernel never tells of one half of a set and keeps the other to itself
        self.at(number).watch.late = True
        self.cycle(number, seconds)
        self.at(number).watch.late = False

    @rule(number=replicas)
    def overflow(self, number):
        self.at(number).watch.overflow()

    @rule(number=replicas, name=paths, fault=scans, seconds=seconds)
    def act_during_a_scan(self, number, name, fault, seconds):
        self.write(number, name, b"before a scan", unique=True)
        self.world.now += seconds
        self.at(number).cycle(fault)
        self.world.note_accepted()

    @rule(number=replicas, other=replicas, name=paths, fault=faults, seconds=seconds)
    def change_and_fail(self, number, other, name, fault, seconds):
        self.close_window(number)
        self.write(number, name, b"failing", unique=True)
        self.settle(number, fault)
        self.at(number).cycle(fault)
        self.world.note_accepted()
        self.cycle(other, seconds)

    @rule(number=replicas, other=replicas, name=paths, fault=faults)
    def change_and_let_another_fail(self, number, other, name, fault):
        self.close_window(other)
        self.write(number, name, b"failing", unique=True)
        self.settle(number)
        self.cycle(number, 0.0)
        self.at(other).cycle(fault)
        self.world.note_accepted()

    @rule(number=replicas)
    def crash(self, number):
        self.at(number).crash()

    @rule(number=replicas, fault=st.one_of(st.none(), faults))
    def wipe(self, number, fault):
        self.at(number).wipe()
        if fault:
            self.at(number).cycle(fault)
            self.world.note_accepted()

    # Sets

    @rule(number=replicas, fault=st.one_of(st.none(), faults), size=sizes)
    def change_the_pair(self, number, fault, size):
        self.close_window(number)
        self.number += 1
        self.user(number).write_pair(self.number, size)
        self.settle(number, fault)
        self.at(number).cycle(fault)
        self.world.note_accepted()

    @rule(number=replicas, fault=st.one_of(scans, pair_scans), seconds=seconds)
    def change_the_pair_during_a_scan(self, number, fault, seconds):
        self.close_window(number)
        self.number += 1
        self.user(number).begin_pair(self.number)
        if fault.happens != "pair":
            self.user(number).finish_pair()
        self.world.now += seconds
        self.at(number).cycle(fault)
        self.world.note_accepted()
        self.cycle(number, 2 * SETTLE)

    @rule(number=replicas, other=replicas, fault=st.one_of(st.none(), scans))
    def change_the_pair_in_two_steps(self, number, other, fault):
        """One file after the other within the window, with cycles in between."""
        self.close_window(number)
        self.number += 1
        user = self.user(number)
        user.begin_pair(self.number)
        for wait in (SETTLE / 4, SETTLE / 2):
            user.go_on_with_pair()
            self.cycle(number, 0.0)
            if other % len(self.world.replicas) != number % len(self.world.replicas):
                self.at(other).cycle()
            self.world.now += wait
        user.finish_pair()
        self.at(number).cycle(fault)
        self.world.note_accepted()
        self.cycle(number, SETTLE)

    def close_window(self, number):
        """Let the set that is open be closed, be it by its time, so that the next one begins with what comes."""
        self.user(number).finish_pair()
        self.cycle(number, 0.0)
        self.cycle(number, 2.0)
        self.cycle(number, 2.0)

    # What two do at once

    @rule(number=replicas, other=replicas, below=st.sampled_from(["d/a", "d/e/a"]))
    def delete_a_directory_while_another_writes_into_it(self, number, other, below):
        self.world.heal(self.take)
        self.user(number).delete("d")
        self.settle(number)
        self.cycle(number, 0.0)
        self.write(other, below, b"into it", unique=True)

    @rule(number=replicas, other=replicas, name=st.sampled_from(["d", "a"]))
    def make_a_file_while_another_makes_a_directory(self, number, other, name):
        for who, below in ((number, name), (other, f"{name}/x")):
            self.user(who).delete(name)
            self.write(who, below, b"of this name", unique=True)

    # One who is alone

    @rule(number=replicas, name=st.sampled_from(["a", "b"]))
    def edit_while_down(self, number, name):
        """An edit that only one replica makes, while its sidecar is down, travels like any other."""
        self.world.heal(self.take)
        lost = len(self.world.records("conflicts"))
        replica = self.at(number)
        replica.end()
        self.write(number, name, b"while down", unique=True)
        found = look(replica.folder / name)
        replica.start()
        self.world.heal(self.take)
        self.check_alone(name, found, lost)

    @rule(
        number=replicas,
        name=st.sampled_from(["a", "own"]),
        edits=st.lists(
            st.tuples(
                st.sampled_from(["write", "write", "delete", "nothing"]), st.one_of(st.none(), network, faults)
            ),
            min_size=2,
            max_size=5,
        ),
        others=st.booleans(),
    )
    def edit_alone_while_much_fails(self, number, name, edits, others):
        """Whatever fails, the last thing that the only writer of a file did to it stands, without a conflict."""
        world, replica = self.world, self.at(number)
        world.heal(self.take)
        lost = len(world.records("conflicts"))
        for act, fault in edits:
            if act == "write":
                replica.user.write(name, self.unique(b"alone"))
            elif act == "delete":
                replica.user.delete(name)
            self.settle(number, fault)
            alone = fault is None or fault.happens in {"lost", "late", "crash", "crash twice"}
            if fault and fault.name and alone:
                fault.name = name
            replica.cycle(fault if alone else None)
            replica.away = bool(fault) and fault.happens == "lost" and not replica.away
            world.note_accepted()
            if others:
                self.cycle(number + 1, 0.0)
        found = look(replica.folder / name)
        world.heal(self.take)
        self.check_alone(name, found, lost)

    def check_alone(self, name, found, lost):
        shown = [look(each.folder / name) for each in self.world.replicas]
        assert all(each == found for each in shown), (
            f"an edit was undone: {found} {shown}\n{self.world.describe()}"
        )
        assert len(self.world.records("conflicts")) == lost, f"a conflict with nobody\n{self.world.describe()}"

    # What networks, stores and people do

    @rule(number=replicas, away=st.booleans())
    def lose_contact(self, number, away):
        self.at(number).away = away

    @rule()
    def land(self):
        self.world.land()

    @rule()
    def compact(self):
        self.world.compact()

    @rule()
    def let_tombstones_expire(self):
        """A month passes in which nothing happens."""
        self.world.heal(self.take)
        self.world.expire_tombstones()
        self.world.heal(self.take)

    @rule(number=replicas)
    def reconnect(self, number):
        self.at(number).feed.reconnected = True

    @rule(number=replicas)
    def lose_news(self, number):
        self.at(number).feed.lose()

    @rule(number=replicas, name=paths, slow=st.booleans())
    def list_again(self, number, name, slow):
        """A listing may be on its way while something is written that it does not have."""
        replica = self.at(number)
        self.write(number, name, b"while it is listed", unique=True)
        self.settle(number)
        replica.feed.slow = slow
        replica.feed.list_again()
        self.cycle(number, 0.0)

    @rule(name=paths)
    def put_by_hand(self, name):
        self.world.put_by_hand(name, self.unique(b"by hand"))

    @rule()
    def back_up(self):
        self.world.back_up()

    @rule()
    def restore(self):
        self.world.restore()

    @rule(name=paths)
    def vanish(self, name):
        self.world.vanish(name)

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
        world.heal(self.take, still=2)
        trees = [tree(replica.folder) for replica in world.replicas]
        assert all(found == trees[0] for found in trees), f"the replicas differ\n{world.describe()}"
        problems = [problem for each in world.replicas for problem in each.problems()]
        assert not problems, f"problems remain\n{world.describe()}"
        files, past = world.records("files"), world.records("past")
        kept = {(path, record.entry.sha256) for path, record in files + past if record.entry.kind is Kind.FILE}
        assert world.accepted <= kept, f"accepted values were lost: {world.accepted - kept}"
        gone = {path.removeprefix(f"{SUBTREE}/") for path, record in files if record.entry.kind is Kind.GONE}
        nobody = [path for path in gone if not any(path == top or is_below(path, top) for top in world.deleted)]
        assert not nobody, f"deleted by nobody: {nobody}"
        world.check_kept()


class SealedHistories(Histories):
    """The same, with everything sealed in the store."""

    sealed = True


def run(examples, steps=30, number=None, *, sealed=False, **how):
    """Try so many random histories, as `running.run_histories`."""
    run_histories(SealedHistories if sealed else Histories, examples, steps, number, **how)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(5))
def test_random_histories_lose_nothing_and_end_equal(part):  # in parts, for several workers
    run(40, sealed=part % 2 == 1)


@pytest.mark.soak
def test_many_random_histories_lose_nothing_and_end_equal():
    run(10_000, steps=60)
    print(dict(STEPS))
