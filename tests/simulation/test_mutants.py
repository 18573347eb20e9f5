"""What the simulation is worth: each mechanism, taken out, is missed by it within some hundred histories."""

import logging
import shutil

import pytest
from hypothesis import Phase

from configstore.errors import StoreError, StoreUnavailableError
from configstore.model.record import Kind, RecordError
from configstore.model.signature import Signature
from configstore.store import commit
from configstore.store.api import Delete, ModRevision
from configstore.store.tree import Tree
from configstore.store.values import Outcome
from sidecar.cycle import assembly
from sidecar.cycle.conflicts import ConflictKeeper
from sidecar.cycle.pull import Puller
from sidecar.local import set_steps
from sidecar.local import side as local_side
from sidecar.local.side import LocalSide
from sidecar.planner import guards, planner, sets
from sidecar.planner.reconcile import Verdict, same_local
from sidecar.planner.sides import LocalEntry
from sidecar.planner.three_sides import ThreeSides
from sidecar.remote import known_store
from sidecar.remote.known_store import KnownStore
from sidecar.remote.side import RemoteSide
from sidecar.state.baseline import Baseline
from tests.simulation import test_deletions, test_simulation
from tests.simulation.edges import Connection
from tests.simulation.replica import Replica
from tests.simulation.test_histories import HISTORIES, play

MUTANTS = {}


def mutant(function):
    """Register a deliberate break, which takes monkeypatch's `setattr`."""
    MUTANTS[function.__name__] = function
    return function


@mutant
def no_past(patch):
    real = Tree.commit
    patch(Tree, "commit", lambda self, writes, *, retention, **how: real(self, writes, retention=0, **how))


@mutant
def no_conflict_copy(patch):
    patch(ConflictKeeper, "keep", lambda self, pull, content: None)


@mutant
def a_lost_answer_taken_for_yes(patch):
    real = Tree.commit

    def commit(self, writes, **options):
        try:
            return real(self, writes, **options)
        except StoreUnavailableError:
            guessed = {write.path: write.expected + 1 for write in writes}
            return Outcome(done=guessed, write_ids=dict.fromkeys(guessed, "guessed"))

    patch(Tree, "commit", commit)


@mutant
def a_wipe_counts_as_a_delete(patch):
    def wipe(self):
        self.end()
        self.user.leave()
        for path in self.folder.iterdir():
            if path.name != ".configstore":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.start()

    patch(Replica, "wipe", wipe)


@mutant
def a_delete_beats_an_edit(patch):
    real = planner.decide

    def decide(base, local, remote, mapping, *, pushes):
        edited = base and local and not same_local(base.local, local.entry)
        if edited and remote and remote.entry.kind is Kind.GONE:
            return Verdict.PULL
        return real(base, local, remote, mapping, pushes=pushes)

    patch(planner, "decide", decide)


@mutant
def a_new_baseline_before_the_files_are_there(patch):
    real = Puller._pull

    def pull(self, pulls, done):
        for each in pulls:
            if each.remote.entry.kind is Kind.FILE and each.local is None:
                unread = Signature(0, 0, 0, 0, 0, 0, 0)
                local = LocalEntry(entry=each.remote.entry, signature=unread)
                self._baseline.agree({each.path: planner.agreement_of(local, each.remote)})
        real(self, pulls, done)

    patch(Puller, "_pull", pull)
    patch(assembly, "recover", lambda root, journal: {})  # which else would bring the files at the next start


@mutant
def no_second_look_at_what_is_replaced(patch):
    patch(set_steps.SetSteps, "_verify", lambda self, change: change.expected is not None)
    patch(set_steps.SetSteps, "_judge", lambda self, change: None)


@mutant
def deletes_leave_no_tombstone(patch):
    real = Tree.commit

    def commit(self, writes, **how):
        outcome = real(self, writes, **how)
        for write in writes:
            if write.entry.kind is Kind.GONE and write.path in outcome.done:
                key = self.keys.file(write.path)
                self.kv.txn((ModRevision(key, outcome.done[write.path]),), (Delete(key),))
        return outcome

    patch(Tree, "commit", commit)


@mutant
def nothing_is_compared_before_a_write(patch):
    real = Connection.txn

    def txn(self, compares, operations, **how):
        return real(self, [each for each in compares if not isinstance(each, ModRevision)], operations, **how)

    patch(Connection, "txn", txn)


@mutant
def sets_are_committed_path_by_path(patch):
    patch(commit, "groups", lambda steps: ([step] for step in steps))


@mutant
def a_file_and_a_directory_of_one_name_are_not_settled(patch):
    patch(planner._Draft, "_resolve_collisions", lambda self: None)


@mutant
def the_baseline_is_forgotten_at_the_end(patch):
    patch(Baseline, "_write", lambda self, lines: None)


@mutant
def a_restored_snapshot_is_not_noticed(patch):
    patch(known_store, "contradiction", lambda **_: None)


@mutant
def a_rewritten_history_is_not_noticed(patch):
    patch(known_store, "rewritten", lambda *_, **__: None)
    patch(known_store, "given_away", lambda *_, **__: None)


@mutant
def what_the_watch_missed_is_never_looked_for(patch):
    patch(RemoteSide, "_missed", lambda self, found, revision: False)


@mutant
def what_the_store_forgot_is_overwritten(patch):
    patch(ConflictKeeper, "_forgotten", lambda self, pull: False)


@mutant
def companions_are_placed_without_each_other(patch):
    patch(sets, "_first_blocked", lambda *_: (None, None))


@mutant
def companions_are_sent_without_each_other(patch):
    patch(sets, "_push_together", lambda *_: None)


@mutant
def no_set_waits_while_a_file_is_open(patch):
    real = LocalSide._close_set

    def close_set(self, *, flush):
        return real(self, flush=flush or bool(self._sides.unstable))

    patch(LocalSide, "_close_set", close_set)


@mutant
def news_that_come_during_a_look_belong_to_no_set(patch):
    patch(local_side, "_SCANS", 1)


@mutant
def what_is_sent_is_not_written_down(patch):
    patch(Baseline, "sending", lambda self, writes: None)


@mutant
def what_is_sent_is_written_down_in_memory_alone(patch):
    patch(Baseline, "sending", lambda self, writes: self.sides.sending(writes))


@mutant
def a_listing_is_judged_by_what_is_known_when_it_comes(patch):
    real = KnownStore.contradiction

    def contradiction(self, *what, asked_at=None, **answer):  # this is what is broken
        return real(self, *what, **answer)

    patch(KnownStore, "contradiction", contradiction)


@mutant
def trouble_that_began_earlier_is_no_part_of_a_set(patch):
    real = ThreeSides.take_scan

    def take_scan(self, *, touched, **what):
        real(self, touched=touched - self._local_problems.keys(), **what)

    patch(ThreeSides, "take_scan", take_scan)


DELETIONS = {}


def of_deletions(function):
    """Register a break that `test_deletions` shall miss."""
    MUTANTS[function.__name__] = DELETIONS[function.__name__] = function
    return function


@of_deletions
def a_deletion_is_judged_by_what_has_arrived(patch):
    def arrived(plan, sides, let_pass):
        return [(sum(1 for pull in plan.pull if pull.remote.entry.kind is Kind.GONE), 0)]

    patch(guards, "_incoming", arrived)


ROWS = {"a_deletion_is_judged_by_what_has_arrived": 6, "a_lost_answer_taken_for_yes": 4}
"""Which fixed row of histories misses a mutant soon, where the usual one takes long."""


def live(name, base):
    """Play the short histories, then random ones."""
    for history in HISTORIES:
        play(history, base / history.__name__)
    run = test_deletions.run if name in DELETIONS else test_simulation.run
    run(1500, steps=40, number=ROWS.get(name, 2), phases=[Phase.generate], database=None)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_mechanism_is_caught(name, monkeypatch, tmp_path):
    logging.disable(logging.CRITICAL)  # thousands of lines about what was broken on purpose
    MUTANTS[name](monkeypatch.setattr)
    try:
        with pytest.raises((AssertionError, StoreError, RecordError)):  # whatever goes wrong first
            live(name, tmp_path)
    finally:
        logging.disable(logging.NOTSET)
