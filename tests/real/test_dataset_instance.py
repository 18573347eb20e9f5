"""admin's instance id: whichever replica made it first, all have that one."""

import json

from tests.harness.waiting import wait_until


def admin_starts(replica, text):
    """Do what admin does: make the id where there is none."""
    path = replica.at("/data/instance")
    if not path.exists():
        path.write_text(text)
        path.chmod(0o644)


def test_two_that_start_at_once_end_with_one_id(service, configstore):
    one, two = (service(name, "mailu/admin").start().ready() for name in ("one", "two"))
    admin_starts(one, "id of one")
    admin_starts(two, "id of two")

    def agreed():
        found = {each.at("/data/instance").read_text() for each in (one, two)}
        stored = configstore("ls", "-R", "--json", "data")
        return len(found) == 1 and json.loads(stored) and found

    (winner,) = wait_until(agreed)
    assert configstore("get", "data/instance").decode() == winner


def test_what_is_made_once_is_not_changed_any_more(service, configstore):
    one, two = (service(name, "mailu/admin").start().ready() for name in ("one", "two"))
    admin_starts(one, "the first")
    wait_until(lambda: two.at("/data/instance").exists())
    two.at("/data/instance").write_text("another")
    wait_until(lambda: two.at("/data/instance").read_text() == "the first")
    assert configstore("get", "data/instance") == b"the first"
    assert one.at("/data/instance").read_text() == "the first"


def test_the_database_beside_it_stays(service, configstore):
    one = service("one", "mailu/admin").start().ready()
    one.at("/data/main.db").write_bytes(b"SQLite format 3")
    admin_starts(one, "id")
    wait_until(lambda: b"instance" in configstore("ls", "data"))
    assert b"main.db" not in configstore("ls", "-R", "/")
