"""What `--write` changes: just what was confirmed, or nothing."""

import html
import re

import pytest

from configstore.model.lease import QueueEntry
from configstore.model.record import Kind
from configstore.store.conflicts import all_sides, drop
from configstore.store.leases import Lease
from tests.harness.named import a_file
from tests.harness.waiting import wait_until
from tests.ui.client import Client
from tests.ui.cluster import delete_many

pytestmark = pytest.mark.xdist_group("ui")


@pytest.fixture(scope="module")
def writer(writing):
    return Client(writing).enter()


def proposed(writer, link):
    """Return what a confirmation says, where it is sent, and its fields."""
    answer = writer.ask(link)
    assert answer.status == 200, answer.text
    ((action, fields),) = answer.forms().items()
    words = html.unescape(re.sub(r"<[^>]+>", " ", answer.text.partition("<main")[2]))
    return words, action, {key: html.unescape(value) for key, value in fields.items()}


def test_a_restore_does_what_was_confirmed_and_once_something_changed_nothing(writer, found):
    first = found.put("certs/note.txt", "first\n")
    second = found.put("certs/note.txt", "second\n")
    words, action, fields = proposed(writer, f"/confirm/restore?path=certs/note.txt&revision={first}")
    assert f"of revision {second}" in words
    assert f"what it was at revision {first}" in words
    third = found.put("certs/note.txt", "third\n")
    answer = writer.ask(action, fields)
    assert answer.status == 409
    assert "changed meanwhile; nothing was changed" in answer.text
    assert found.revision("certs/note.txt") == third
    _, action, fields = proposed(writer, f"/confirm/restore?path=certs/note.txt&revision={first}")
    assert writer.ask(action, fields | {"revision": str(second)}).status == 409, "another revision than confirmed"
    answer = writer.ask(action, fields)
    assert answer.status == 200
    assert f"was restored as of revision {first}" in answer.text
    assert found.get("certs/note.txt") == "first\n"
    assert writer.ask(action, fields).status == 409, "the same form once more"
    wait_until(lambda: found.replicas["one"].read("certs/note.txt") == "first\n", 20)


def test_a_deleted_private_file_comes_back_unseen(writer, found):
    first = found.put("certs/private.txt", "hunter2-restored\n", 0o600)
    found.put("certs/private.txt", "", 0, Kind.GONE)
    words, action, fields = proposed(writer, f"/confirm/restore?path=certs/private.txt&revision={first}")
    assert "it was deleted by" in words
    answer = writer.ask(action, fields)
    assert answer.status == 200
    assert found.get("certs/private.txt") == "hunter2-restored\n"
    assert not [each for each in writer.seen if "hunter2-restored" in each.text]


def losing(found, path, text):
    content = text.encode()
    entry = a_file(content, 0o644)
    return found.tree.keep_conflict(path, entry, content, retention=600)


def test_a_conflict_ends_by_the_side_that_was_confirmed_if_nothing_changed(writer, found):
    found.put("certs/c.txt", "ours\n")
    one = losing(found, "certs/c.txt", "theirs\n")
    keep = proposed(writer, "/confirm/resolve?path=certs/c.txt&take=store")
    take = proposed(writer, f"/confirm/resolve?path=certs/c.txt&take={one}")
    assert "1 losing side will be removed for good" in keep[0]
    two = losing(found, "certs/c.txt", "another\n")
    for _, action, fields in (keep, take):
        assert writer.ask(action, fields).status == 409, "another losing side came"
    _, action, fields = proposed(writer, f"/confirm/resolve?path=certs/c.txt&take={two}")
    found.put("certs/c.txt", "ours, later\n")
    assert writer.ask(action, fields).status == 409, "the store's side changed"
    assert found.get("certs/c.txt") == "ours, later\n"
    _, action, fields = proposed(writer, f"/confirm/resolve?path=certs/c.txt&take={two}")
    assert writer.ask(action, fields).status == 200
    assert found.get("certs/c.txt") == "another\n"
    _, action, fields = proposed(writer, "/confirm/resolve?path=certs/c.txt&take=store")
    assert writer.ask(action, fields).status == 200
    assert not all_sides(found.tree, "certs/c.txt")
    assert found.get("certs/c.txt") == "another\n"


def test_the_stores_side_is_kept_only_as_it_was_seen(found):
    at = found.put("certs/d.txt", "ours\n")
    losing(found, "certs/d.txt", "theirs\n")
    (side,) = all_sides(found.tree, "certs/d.txt")
    assert not drop(found.tree, side, while_at=at - 1)
    assert all_sides(found.tree, "certs/d.txt") == [side]
    assert drop(found.tree, side, while_at=at)
    assert not all_sides(found.tree, "certs/d.txt")


def test_a_lease_is_taken_from_the_holder_who_was_confirmed_alone(writer, found):
    tree = found.tree
    first = Lease(tree, "fetchmail", QueueEntry(replica="r1", host="h1", command="fetchmail"))
    first.acquire(5)
    words, action, fields = proposed(writer, "/confirm/break?name=fetchmail")
    assert "r1 on h1" in words
    assert "Nobody waits for it" in words
    first.release(5)
    second = Lease(tree, "fetchmail", QueueEntry(replica="r2", host="h2"))
    second.acquire(5)
    assert writer.ask(action, fields).status == 409
    assert second.lost is None
    _, action, fields = proposed(writer, "/confirm/break?name=fetchmail")
    answer = writer.ask(action, fields)
    assert (answer.status, "was taken from r2 on h2" in answer.text) == (200, True)
    wait_until(lambda: second.lost, 20)
    second.release(5)


def test_what_cannot_be_is_refused_with_words(writer):
    for link in (
        "/confirm/restore?path=../etc/passwd&revision=1",
        "/confirm/restore?path=certs/never&revision=1",
        "/confirm/restore?path=overrides/postfix.cf&revision=x",
        "/confirm/resolve?path=certs/cert.pem&take=store",
        "/confirm/resume?mapping=certs&replica=one&take=store",
        "/confirm/break?name=nobody",
        "/confirm/delete?path=certs",
    ):
        assert writer.ask(link).status in {404, 500}, link


def test_a_halt_ends_by_a_persons_choice_and_not_by_one_about_another_halt(writer, found):
    one = found.replicas["one"]
    words, action, fields = proposed(writer, "/confirm/resume?mapping=overrides&replica=one&take=store")
    assert "refused to delete 30 of" in words
    assert writer.ask(action, fields | {"reason": "another"}).status == 409
    assert "refused to delete" in one.ask("/readyz")[1]
    answer = writer.ask(action, fields)
    assert answer.status == 200, answer.text
    wait_until((one.folder / "overrides/many/29").exists, 20)
    assert one.metric("halted") == 0
    delete_many(one)  # as other tests find it
