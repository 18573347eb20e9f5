"""Short histories that once went wrong, or nearly."""

import shutil

import pytest

from tests.simulation.world import World
from tests.trees import look


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
    world.now += 61.0
    one.cycle()
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


def a_file_and_a_directory_of_one_name_are_made_at_once(world):
    one, two = world.replicas
    (one.folder / "d").mkdir()
    (one.folder / "d/a").symlink_to("a")
    (two.folder / "d").write_bytes(b"a file")
    two.cycle()
    world.heal()


def a_restored_store_overtakes_and_gives_a_revision_to_another_write(world):
    one, two = world.replicas
    (one.folder / "a").write_bytes(b"of the store that was")
    world.now += 1.0
    one.cycle()
    (two.folder / "a").mkdir()
    (two.folder / "a/b").write_bytes(b"of the restored store")
    world.restore()
    two.cycle()
    world.now += 1.0
    one.cycle()
    assert "another write's now" in one.mirror.engine.status.halted
    world.heal()


def a_restored_store_holds_something_new_at_a_revision_that_was_seen(world):
    one, two = world.replicas
    (two.folder / "a").write_bytes(b"first")
    two.cycle()
    world.back_up()
    (one.folder / "a").write_bytes(b"loses")
    one.cycle()  # which writes under conflicts/ alone
    two.cycle()
    world.restore()
    (one.folder / "b").write_bytes(b"new")
    world.heal()
    assert look(two.folder / "b")


def news_are_lost_and_nothing_else_happens(world):
    one, two = world.replicas
    world.heal()
    (one.folder / "a").write_bytes(b"news")
    one.cycle()
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
    two.cycle()
    world.restore()
    (one.folder / "a").mkdir()
    one.cycle()
    world.heal()


HISTORIES = [
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


def play(history, base):
    """Play a history in a fresh world. Raises AssertionError when it does not end well."""
    base.mkdir()
    world = World(base)
    try:
        history(world)
        assert world.replicas[0].contents() == world.replicas[1].contents(), world.describe()
        assert not [each for each in world.replicas if each.mirror.engine.status.problems], world.describe()
    finally:
        world.close()


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
def test_it_ends_well(history, tmp_path):
    play(history, tmp_path / "world")
