"""What a mapping's feed brings: as much as is of use, and no more, whatever others write."""

import os
import threading

import msgspec
import pytest

from configstore.model.path import ROOT
from configstore.model.record import Deletion, Origin, Record, encode
from configstore.store.api import Put
from configstore.store.values import Listing
from sidecar.mapping import Mapping
from sidecar.remote import watch
from sidecar.remote.watch import RemoteWatch, listing_of
from tests.harness.named import GONE, a_file, a_tree
from tests.harness.waiting import wait_until
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv

MAPPING = Mapping(name="all", store=ROOT, path="/nowhere")


@pytest.fixture
def tree():
    return a_tree(MemoryKv(MemoryStore(clock=lambda: 0.0)))


def put(tree, name, content=None):
    """Write a record, or a tombstone, as anybody may who has the right to."""
    origin = Origin(write_id=name, replica="x" * 200, host="y" * 200, time="")
    if content is None:
        deletion = Deletion(id="together", count=50)
        record = Record(entry=GONE, origin=msgspec.structs.replace(origin, deletion=deletion))
    else:
        entry = a_file(content)
        record = Record(entry=entry, origin=origin, content=content)
    return tree.kv.txn((), (Put(tree.keys.file(name), encode(record)),)).revision


def test_a_listing_keeps_no_more_content_than_is_of_use(tree, monkeypatch):
    monkeypatch.setattr(watch, "LIMIT", 100_000)
    for number in range(50):
        put(tree, f"{number}", os.urandom(10_000))
    kept = [found.record.content for found in listing_of(tree, MAPPING, 0).records.values()]
    assert len(kept) == 50
    assert sum(len(content) for content in kept if content) == 100_000


def test_a_listing_has_of_tombstones_that_nobody_wants_the_revisions_alone(tree):
    revisions = {f"{number}": put(tree, f"{number}") for number in range(50)}
    found = listing_of(tree, MAPPING, 0, lambda path: path == "7")
    assert found.records.keys() == {"7", "49"}
    assert found.rest == {path: (at, "together") for path, at in revisions.items() if path != "7"}


def test_news_that_nobody_takes_in_are_dropped_and_listed_anew(tree, monkeypatch):
    monkeypatch.setattr(watch, "MAX_WAITING", 200_000)
    put(tree, "a", b"first")
    feed = RemoteWatch(tree, MAPPING, lambda: None, lambda: 0)
    feed.start()
    most = 0
    try:
        wait_until(lambda: feed._inbox and feed._watch)
        done = threading.Event()

        def flood():
            for number in range(300):
                put(tree, f"{number % 10}", os.urandom(10_000))
            done.set()

        threading.Thread(target=flood).start()
        while not done.is_set():
            most = max(most, feed.waiting)
        put(tree, "last", b"the last one")

        def sees_the_last():
            news = feed.drain()
            assert not news or isinstance(news[0], Listing) or "a" in seen
            for each in news:
                if isinstance(each, Listing):
                    seen.update(each.records)
                else:
                    seen.update(event.item.key.decode().rpartition("/")[2] for event in each.events)
            return "last" in seen

        seen = set()
        wait_until(sees_the_last, 20)
        assert seen == {"a", "last", *map(str, range(10))}
        assert most < 400_000
    finally:
        feed.close()
