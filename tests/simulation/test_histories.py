"""Short histories that once went wrong, or nearly."""

import shutil

import pytest

from sidecar.cycle import engine
from tests.harness.keyrings import SECOND, ring
from tests.harness.trees import look
from tests.simulation.replica import SETTLE
from tests.simulation.world import PAIR, Fault, World


def send(replica):
    """Let a replica take notice of what was done, and send it when its set has settled."""
    replica.cycle()
    replica.world.now += 1.0
    replica.cycle()


def a_child_is_made_while_its_directory_is_deleted(world):
    one, two = world.replicas
    (one.folder / "d").mkdir()
    world.heal()
    (one.folder / "d").rmdir()
    (two.folder / "d/a").write_bytes(b"new")
    world.heal()
    assert look(one.folder / "d/a")


def a_directory_is_replaced_by_a_file_and_then_its_replica_is_lost(world):
    one, _ = world.replicas
    (one.folder / "d").mkdir()
    (one.folder / "d/a").write_bytes(b"old")
    world.heal()
    shutil.rmtree(one.folder / "d")
    (one.folder / "d").write_bytes(b"a file")
    send(one)
    one.wipe()
    world.heal()


def a_link_takes_a_directorys_place_while_another_writes_into_it(world):
    one, two = world.replicas
    (one.folder / "d").mkdir()
    world.heal()
    (one.folder / "d").rmdir()
    (one.folder / "d").symlink_to("a")
    (two.folder / "d/a").write_bytes(b"new")
    world.heal()
    assert look(one.folder / "d/a")


def a_file_takes_the_place_of_a_directory_into_which_a_request_is_on_its_way(world):
    one, two = world.replicas
    for number in range(1, 6):
        one.user.delete("d")
        world.heal()
        one.user.make_directory("d")
        world.heal()
        two.user.write("d/a", b"new %d" % number)
        two.cycle()
        world.now += 1.0
        two.cycle(Fault("before", number, "late"))
        one.user.delete("d")
        one.user.write("d", b"a file")
        send(one)
        two.wipe()
        two.cycle()
        world.land()  # so that no replica has the directory in which it lies
        world.heal()
        assert not two.mirror.engine.status.problems, world.describe()


def a_delete_arrives_where_a_file_was_edited(world):
    one, two = world.replicas
    (one.folder / "a").write_bytes(b"first")
    world.heal()
    (one.folder / "a").unlink()
    send(one)
    send(one)
    (two.folder / "a").write_bytes(b"edited")
    world.heal()
    assert look(one.folder / "a")


def a_request_arrives_after_a_newer_one(world):
    one, two = world.replicas
    (one.folder / "a").write_bytes(b"first")
    world.heal()
    for number in range(1, 7):
        (one.folder / "a").write_bytes(b"late %d" % number)
        one.cycle()
        world.now += 1.0
        one.cycle(Fault("before", number, "late"))
        (two.folder / "a").write_bytes(b"newer %d" % number)
        send(two)
        world.heal()


def a_file_and_a_directory_of_one_name_are_made_at_once(world):
    one, two = world.replicas
    (one.folder / "d").mkdir()
    (one.folder / "d/a").symlink_to("a")
    (two.folder / "d").write_bytes(b"a file")
    send(two)
    world.heal()


def a_restored_store_overtakes_and_gives_a_revision_to_another_write(world):
    one, two = world.replicas
    (one.folder / "a").write_bytes(b"of the store that was")
    send(one)
    (two.folder / "a").mkdir()
    (two.folder / "a/b").write_bytes(b"of the restored store")
    world.restore()
    send(two)
    one.cycle()
    assert "another write's now" in one.mirror.engine.status.halted
    world.heal()


def a_restored_store_holds_something_new_at_a_revision_that_was_seen(world):
    one, two = world.replicas
    (two.folder / "a").write_bytes(b"first")
    send(two)
    world.back_up()
    (one.folder / "a").write_bytes(b"loses")
    send(one)  # which writes under conflicts/ alone
    two.cycle()
    world.restore()
    (one.folder / "b").write_bytes(b"new")
    world.heal()
    assert look(two.folder / "b")


def news_are_lost_and_nothing_else_happens(world):
    one, two = world.replicas
    world.heal()
    (one.folder / "a").write_bytes(b"news")
    send(one)
    two.feed.lose()
    world.now += 61.0
    two.cycle()
    assert not look(two.folder / "a")
    world.now += 3.0
    two.cycle()  # it is still not told, so the store is listed again
    two.cycle()
    assert look(two.folder / "a")


def a_record_is_written_by_hand_without_keeping_what_was_there(world):
    one, _ = world.replicas
    (one.folder / "a").write_bytes(b"precious")
    world.heal()
    world.put_by_hand("a", b"by hand")
    world.heal()
    assert [record.content for _, record in world.records("conflicts")] == [b"precious"]


def a_restored_store_gives_a_revision_to_another_write_of_much_the_same(world):
    one, two = world.replicas
    for replica in (one, two):
        (replica.folder / "d").mkdir()
        (replica.folder / "d/a").write_bytes(b"equal")
    (two.folder / "a").write_bytes(b"of the store that was")
    send(two)
    world.restore()
    (one.folder / "a").mkdir()
    send(one)
    world.heal()


def a_replica_dies_while_it_is_filled(world):
    one, two = world.replicas
    (one.folder / "a").write_bytes(b"precious")
    world.heal()
    for number in range(1, 4):
        two.wipe()
        two.cycle(Fault("rename", number, "crash"))
        world.heal()
        assert look(one.folder / "a")


def a_user_edits_what_is_about_to_be_replaced(world):
    one, two = world.replicas
    for number in range(4):
        (one.folder / "a").write_bytes(b"%d" % number)
        send(one)
        two.cycle(Fault("rename", 1, "edit", "a"))
        world.heal()


def the_pair_cannot_be_placed_since_one_of_it_has_another_name(world):
    one, two = a_pair(world)
    two.user.hard_link("p1")
    two.cycle()
    one.user.write_pair(2)
    send(one)
    send(two)
    assert two.shown_pair() == {b"1"}
    world.heal()


def the_pair_cannot_be_read_since_one_of_it_has_another_name(world):
    one, _ = a_pair(world)
    one.user.hard_link("p1")
    send(one)  # so that the trouble is known before the set is begun
    for number in (2, 3):
        one.user.write_pair(number)
        send(one)
        world.note_accepted()
    world.heal()


def a_set_loses_one_of_its_files_and_keeps_the_others(world):
    one, two = world.replicas
    names = ("cert", "key", "chain")
    for name in names:
        one.user.write(name, b"old")
    world.heal()
    two.user.write("chain", b"new")
    send(two)
    for name in names:
        one.user.write(name, b"of another issuer")
    one.cycle(late=True)
    world.now += 1.0
    one.cycle()
    world.heal()
    mine = b"of another issuer"
    assert [(two.folder / name).read_bytes() for name in names] == [mine, mine, b"new"]


def the_pair_is_written_in_two_steps(world):
    one, _ = a_pair(world)
    step_by_step(one)
    world.heal()


def the_pair_is_written_while_another_file_stays_open(world):
    one, _ = a_pair(world)
    (one.folder / "a").write_bytes(b"a log")
    world.heal()
    one.user.open_for_writing("a")
    one.user.write_to_open("a", b"a longer log")
    for _ in range(3):
        send(one)
    step_by_step(one)
    world.heal()


def the_pair_is_written_while_its_directory_is_scanned(world):
    one, _ = a_pair(world)
    for number in range(1, 8):
        send(one)  # so that the next look is at what was changed, when it has settled
        one.user.write("a", b"%d" % number)
        one.cycle()
        world.now += 2 * SETTLE
        one.cycle(Fault("entry", number, "pair"))
        world.note_accepted()
        world.heal()


def the_only_writer_goes_on_without_answers(world):
    one, two = world.replicas
    for number in range(1, 8):
        for happens in ("lost", "crash"):
            for kind in ("before", "after"):
                alone(world, one, Fault(kind, number, happens, "a" if happens == "crash" else ""))
    assert look(two.folder / "a")


def a_listing_is_older_than_an_own_commit(world):
    one, _ = world.replicas
    (one.folder / "a").write_bytes(b"first")
    world.heal()
    (one.folder / "a").write_bytes(b"while it is listed")
    one.cycle()
    world.now += 1.0
    one.feed.slow = True
    one.feed.list_again()
    one.cycle()
    assert one.mirror.engine.status.committed > one.mirror.engine.status.revision
    one.cycle()
    world.heal()


def a_pair(world):
    """Return the replicas, which agree on a pair."""
    world.replicas[0].user.write_pair(1)
    world.heal()
    return world.replicas


def step_by_step(replica):
    """Write the pair, one file after the other, with cycles in between."""
    world = replica.world
    replica.user.begin_pair(2)
    for _ in PAIR:
        replica.user.go_on_with_pair()
        for wait in (0.0, SETTLE / 3):
            world.now += wait
            replica.cycle()
            world.note_accepted()
    send(replica)
    world.note_accepted()


def alone(world, replica, fault):
    """Let a replica's user edit a file twice, the second time without knowing what became of the first."""
    lost = len(world.records("conflicts"))
    replica.user.write("a", repr(fault).encode())
    replica.cycle()
    world.now += 2 * SETTLE
    replica.cycle(fault)
    world.note_accepted()
    if fault.happens == "lost":
        replica.user.write("a", repr(fault).encode() + b", newer")
    found = look(replica.folder / "a")
    world.heal()
    assert look(replica.folder / "a") == found, world.describe()
    assert len(world.records("conflicts")) == lost, world.describe()


def a_tombstone_expires_while_a_replica_is_away(world):
    one, two = world.replicas
    for each in ("a", "b"):
        (one.folder / each).write_bytes(b"of a month ago")
    world.heal()
    two.away = True
    (one.folder / "a").unlink()
    send(one)
    send(one)
    world.expire_tombstones()
    two.away = False
    two.feed.reconnected = True
    world.now += 61.0
    two.cycle()
    two.cycle()
    assert look(two.folder / "a"), "what nobody said was deleted is deleted"
    assert "vanished" in two.problems()[0].reason
    world.heal()
    assert look(one.folder / "a")


def tombstones_expire_under_live_replicas(world):
    one, two = world.replicas
    for each in ("a", "b"):
        (one.folder / each).write_bytes(b"short-lived")
    world.heal()
    (one.folder / "a").unlink()
    world.heal()
    assert len(two.mirror.engine.sides.buried) == 1
    assert "a" not in two.mirror.engine.sides.remote
    world.expire_tombstones()
    world.heal()
    for each in world.replicas:
        assert not each.problems(), world.describe()
        assert not each.mirror.engine.sides.buried, "what has expired is remembered"


def a_path_is_made_anew_over_a_tombstone_and_after_it(world):
    one, two = world.replicas
    for expires in (False, True, False):
        (one.folder / "a").write_bytes(b"first")
        (one.folder / "b").write_bytes(b"stays")
        world.heal()
        (one.folder / "a").unlink()
        world.heal()
        assert not look(two.folder / "a")
        if expires:
            world.expire_tombstones()
        two.user.write("a", b"anew")
        send(two)
        world.heal()
        assert look(one.folder / "a")[2] == look(two.folder / "a")[2]
        assert not world.records("conflicts"), world.describe()


HISTORIES = [
    a_tombstone_expires_while_a_replica_is_away,
    tombstones_expire_under_live_replicas,
    a_path_is_made_anew_over_a_tombstone_and_after_it,
    a_file_takes_the_place_of_a_directory_into_which_a_request_is_on_its_way,
    a_delete_arrives_where_a_file_was_edited,
    a_request_arrives_after_a_newer_one,
    a_replica_dies_while_it_is_filled,
    a_user_edits_what_is_about_to_be_replaced,
    the_pair_cannot_be_placed_since_one_of_it_has_another_name,
    the_pair_cannot_be_read_since_one_of_it_has_another_name,
    a_set_loses_one_of_its_files_and_keeps_the_others,
    the_pair_is_written_in_two_steps,
    the_pair_is_written_while_another_file_stays_open,
    the_pair_is_written_while_its_directory_is_scanned,
    the_only_writer_goes_on_without_answers,
    a_listing_is_older_than_an_own_commit,
    a_restored_store_gives_a_revision_to_another_write_of_much_the_same,
    a_restored_store_overtakes_and_gives_a_revision_to_another_write,
    a_restored_store_holds_something_new_at_a_revision_that_was_seen,
    news_are_lost_and_nothing_else_happens,
    a_record_is_written_by_hand_without_keeping_what_was_there,
    a_child_is_made_while_its_directory_is_deleted,
    a_directory_is_replaced_by_a_file_and_then_its_replica_is_lost,
    a_link_takes_a_directorys_place_while_another_writes_into_it,
    a_file_and_a_directory_of_one_name_are_made_at_once,
]


def play(history, base, *, sealed=False):
    """Play a history in a fresh world. Raises AssertionError when it does not end well."""
    base.mkdir()
    world = World(base, sealed=sealed)
    try:
        history(world)
        assert world.replicas[0].contents() == world.replicas[1].contents(), world.describe()
        assert not any(each.problems() for each in world.replicas), world.describe()
    finally:
        world.close()


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
def test_it_ends_well(history, sealed, tmp_path):
    play(history, tmp_path / "world", sealed=sealed)


def test_a_keyring_that_changes_in_the_middle_of_a_cycle_is_a_problem_and_ends_nothing(tmp_path, monkeypatch):
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world", sealed=True)
    one, two = world.replicas
    one.user.write("a", b"in pieces" * 20_000)
    send(one)
    held, make = world.envelopes.keyring, engine.make_plan

    def change(*arguments):
        world.envelopes.keyring = ring(SECOND)
        return make(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "make_plan", change)
        two.cycle()
    (problem,) = two.problems()
    assert "which no keyring here has" in problem.reason
    world.envelopes.keyring = held
    world.heal()
    assert one.contents() == two.contents() == {b"in pieces" * 20_000}
    world.close()
