"""A mapping's feed: a listing that is wanted comes, and brings what is of use, whatever others write meanwhile."""

import os
import threading

import msgspec
import pytest

from configstore.errors import StoreUnavailableError
from configstore.model.path import ROOT
from configstore.model.record import Deletion, Origin, Record, encode
from configstore.store.api import Put
from configstore.store.values import Listing
from sidecar.mapping import Mapping
from sidecar.remote import watch
from sidecar.remote.watch import RemoteWatch, listing_of
from tests.harness.named import GONE, a_dir, a_file, a_tree, a_write
from tests.harness.waiting import wait_until
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv


class Feed:
    """A feed over the reference store, with what happened to it in order.

    fail: how many reads fail from now on. gate: while it is cleared, reads wait before they are made.
    """

    def __init__(self):
        self.happened = []
        self.fail = 0
        self.known = 0
        self.gate = threading.Event()
        self.gate.set()
        self.kv = MemoryKv(before=self._before)
        tree = a_tree(self.kv)
        tree.commit([a_write("data", a_dir())], retention=60)
        self.happened.clear()
        mapping = Mapping(name="data", store="data", path="/data")
        self.watch = RemoteWatch(tree, mapping, self._wake, self._known)
        self.listings = []
        self.connects = 0

    def _before(self, name):
        if name == "range":
            self.happened.append("read")
            self.gate.wait()
            if self.fail:
                self.fail -= 1
                raise StoreUnavailableError("no answer")

    def _known(self):
        self.happened.append("known")
        return self.known

    def _wake(self):
        pass

    def take(self):
        """Take what is there, and return the listings so far."""
        for each in self.watch.drain():
            if isinstance(each, Listing):
                self.listings.append(each)
            else:
                self.connects += each.connected
        return self.listings

    def follows(self, count):
        """Wait until as many listings came, and the watch after them stands."""
        wait_until(lambda: self.take() and self.connects == count, what=f"{count} watches")
        assert len(self.listings) == count


@pytest.fixture
def feed():
    one = Feed()
    yield one
    one.gate.set()
    one.fail = 0
    one.watch.close()


def test_a_listing_that_is_wanted_again_comes_while_the_store_is_followed(feed):
    feed.watch.start()
    feed.follows(1)
    feed.watch.list_again()
    feed.follows(2)


def test_a_wish_outlives_listings_that_fail(feed):
    feed.watch.start()
    feed.follows(1)
    feed.fail = 3
    feed.watch.list_again()
    feed.follows(2)
    assert feed.fail == 0


def test_a_wish_that_comes_while_a_listing_is_read_brings_one_more_and_only_one(feed):
    feed.gate.clear()
    feed.watch.start()
    wait_until(lambda: "read" in feed.happened)
    for _ in range(3):
        feed.watch.list_again()
    feed.gate.set()
    wait_until(lambda: len(feed.take()) == 2)
    wait_until(lambda: feed.take() and feed.connects == 1)
    assert len(feed.listings) == 2


def test_wishes_before_anything_was_listed_bring_one_listing(feed):
    for _ in range(3):
        feed.watch.list_again()
    feed.watch.start()
    feed.follows(1)


def test_a_listing_says_what_was_known_just_before_its_own_first_read(feed):
    feed.known = 3
    feed.fail = 1
    feed.gate.clear()
    feed.watch.start()
    wait_until(lambda: "read" in feed.happened)
    feed.known = 7  # known after the question was on its way, which fails
    feed.gate.set()
    feed.follows(1)
    assert feed.listings[0].known == 7
    assert feed.happened[:4] == ["known", "read", "known", "read"]

    feed.gate.clear()
    feed.happened.clear()
    feed.watch.list_again()
    wait_until(lambda: "read" in feed.happened)
    feed.known = 9
    feed.gate.set()
    feed.follows(2)
    assert feed.listings[1].known == 7


# What it brings

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
