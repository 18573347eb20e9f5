"""The tree: every write compares, nothing the store took is lost, no ambiguous answer is guessed.

Over the reference store and over a real etcd; what hangs on a clock, over the reference alone.
"""

import collections
import itertools
import json
import threading
from functools import partial

import msgspec
import pytest

from configstore.errors import CompactedError, FutureRevisionError, StoreUnavailableError
from configstore.model.keys import prefix_end
from configstore.model.path import ROOT, StorePath
from configstore.model.record import CHUNK_SIZE, Record, RecordError, decode, encode, sha256
from configstore.store.api import MAX_OPERATIONS, Delete, ModRevision, Put
from configstore.store.envelope import PLAIN
from configstore.store.items import Trace, trace
from configstore.store.retention import MAX_CONFLICTS, PRUNE_EVERY
from configstore.store.values import Fence, Listing, Stored, UnreadableRecord, Write
from tests.harness.named import GONE, a_dir, a_link, a_tree, a_write
from tests.harness.servers import connect
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv

CERT, KEY, OTHER = StorePath("certs/cert.pem"), StorePath("certs/key.pem"), StorePath("dkim/a.key")
MONTH = 30 * 86400
SECRET = b"-----BEGIN PRIVATE KEY-----"

_ids = itertools.count(1)


class Network:
    """A Kv before which things go wrong: `faults` befall the next txns that write, one each.

    A fault is given `make`, which makes the txn and returns its result. `txns` are those that succeeded.
    """

    def __init__(self, kv):
        self.kv = kv
        self.faults = collections.deque()
        self.after_range = lambda: None
        self.txns = []
        self.calls = 0

    def __getattr__(self, name):
        return getattr(self.kv, name)

    def range(self, *arguments, **options):
        page = self.kv.range(*arguments, **options)
        self.after_range()
        return page

    def txn(self, compares, operations, *, otherwise_get=()):
        self.calls += 1

        def make():
            result = self.kv.txn(compares, operations, otherwise_get=otherwise_get)
            if result.succeeded:
                self.txns.append(operations)
            return result

        return self.faults.popleft()(make) if operations and self.faults else make()


def answer_lost(make):
    make()
    raise StoreUnavailableError("the answer was lost")


def request_lost(make):
    raise StoreUnavailableError("the request was lost")


@pytest.fixture(params=["memory", "etcd"])
def kv(request):
    """The store under test."""
    with MemoryKv() if request.param == "memory" else connect(request.getfixturevalue("etcd").endpoint) as client:
        yield client


@pytest.fixture
def network(kv):
    return Network(kv)


@pytest.fixture
def tree(network, kv_root):
    """The tree under test, on a network that can fail."""
    return tree_on(network, kv_root)


@pytest.fixture
def other(kv, kv_root):
    """The same tree as another replica sees it, on a network that never fails."""
    return tree_on(kv, kv_root, replica="front-2")


def tree_on(kv, root, *, replica="front-1", **options):
    return a_tree(kv, root, replica=replica, host="node-1", now="2026-01-01T00:00:00Z", **options)


def committed(tree, *writes, retention=MONTH, **how):
    """Commit and return the revision of the last path."""
    outcome = tree.commit(writes, retention=retention, **how)
    assert outcome.complete
    assert set(outcome.done) == {write.path for write in writes}
    return outcome.done[writes[-1].path]


def content_at(tree, path):
    found = tree.read(path)
    return tree.content(found) if found else None


def raw(tree, path):
    """What lies under a path's key."""
    (item,) = tree.kv.range(tree.keys.file(path)).items
    return item


def past(tree, path):
    """The superseded contents of a path by the revision they had, oldest first."""
    prefix = tree.keys.file(path).replace(b"/files/", b"/past/") + b"//"
    items = tree.kv.range(prefix, prefix[:-1] + b"0").items
    return {int(item.key[len(prefix) :]): decode(item.value).content for item in items}


def put_raw(tree, key, value=b""):
    return tree.kv.txn([], [Put(key, value)]).revision


# What is replaced


def replacing(tree, write):
    """Return a write of a path with what lies there at hand."""
    return msgspec.structs.replace(write, replaced=raw(tree, write.path))


def test_what_is_at_hand_is_not_read_again_and_kept_all_the_same(tree, network):
    first = committed(tree, a_write(CERT, b"first"))
    write = replacing(tree, a_write(CERT, b"second", first))
    before = network.calls
    committed(tree, write)
    assert network.calls == before + 1
    assert past(tree, CERT) == {first: b"first"}


def test_what_another_store_holds_at_the_same_revision_is_kept_and_not_what_was_at_hand(tree):
    """A restored etcd may have come to the same revision by another write."""
    first = committed(tree, a_write(CERT, b"in this store"))
    at_hand = raw(tree, CERT)
    elsewhere = msgspec.structs.replace(at_hand, value=at_hand.value.replace(b"in this", b"another"))
    committed(tree, msgspec.structs.replace(a_write(CERT, b"second", first), replaced=elsewhere))
    assert past(tree, CERT) == {first: b"in this store"}


def test_a_set_that_fits_into_one_transaction_does_so_with_all_of_it_at_hand(tree):
    names = [StorePath(f"many/{number}") for number in range(100)]
    tree.commit([a_write(name, b"old") for name in names], retention=0)
    writes = [
        msgspec.structs.replace(replacing(tree, a_write(name, b"new", raw(tree, name).mod_revision)), set=1)
        for name in names
    ]
    assert len(set(tree.commit(writes, retention=0).done.values())) == 1


def test_no_set_is_cut_in_two_for_what_is_compared_of_it(tree):
    """What is at hand goes along a second time; the limit of one request must not be reached by that alone."""
    names = [StorePath(f"some/{number}") for number in range(6)]
    tree.commit([a_write(name, b"o" * 60_000) for name in names], retention=60)
    writes = [
        msgspec.structs.replace(replacing(tree, a_write(name, b"n" * 60_000, raw(tree, name).mod_revision)), set=1)
        for name in names
    ]
    assert len(set(tree.commit(writes, retention=60).done.values())) == 1
    assert [len(past(tree, name)) for name in names] == [1] * 6


# One path


def test_a_person_can_read_a_record(tree):
    committed(tree, a_write(CERT, b"line one\nline two\n"))
    header, _, content = raw(tree, CERT).value.partition(b"\n")
    assert content == b"line one\nline two\n"
    told = json.loads(header)
    assert (told["v"], told["kind"], told["mode"], told["size"]) == (1, "file", "0600", 18)
    assert (told["replica"], told["host"], told["time"]) == ("front-1", "node-1", "2026-01-01T00:00:00Z")


def test_a_path_never_written_has_no_record(tree):
    assert tree.read(CERT) is None


def test_a_created_file_is_read_back_with_the_revision_that_was_told(tree):
    write = a_write(CERT, SECRET)
    revision = committed(tree, write)
    found = tree.read(CERT)
    assert (found.path, found.entry, found.mod_revision) == (CERT, write.entry, revision)
    assert tree.content(found) == SECRET
    assert not found.gone


def test_a_replaced_file_holds_the_new_content(tree):
    first = committed(tree, a_write(CERT, b"1"))
    second = committed(tree, a_write(CERT, b"2", first))
    assert second > first
    assert content_at(tree, CERT) == b"2"


def test_a_deleted_file_is_a_tombstone_and_not_a_missing_key(tree):
    first = committed(tree, a_write(CERT, b"1"))
    second = committed(tree, a_write(CERT, GONE, first))
    found = tree.read(CERT)
    assert found.gone
    assert found.mod_revision == second
    assert tree.content(found) == b""


@pytest.mark.parametrize("retention", [0.0, 60.0, MONTH, 12 * MONTH])
def test_a_tombstone_expires_after_a_month_or_the_longer_retention(tree, retention):
    committed(tree, a_write(CERT, GONE, committed(tree, a_write(CERT, b"1"))), retention=retention)
    lease = raw(tree, CERT).lease
    assert lease
    assert max(MONTH, retention) - 60 <= tree.kv.lease_left(lease) <= 1.03 * max(MONTH, retention)


def test_what_is_made_anew_does_not_expire_with_the_tombstone(tree):
    gone = committed(tree, a_write(CERT, GONE, committed(tree, a_write(CERT, b"1"))))
    lease = raw(tree, CERT).lease
    committed(tree, a_write(CERT, b"2", gone))
    tree.kv.lease_revoke(lease)
    assert content_at(tree, CERT) == b"2"


def test_a_path_whose_tombstone_expired_is_a_new_one(tree):
    first = committed(tree, a_write(CERT, b"1"))
    committed(tree, a_write(CERT, GONE, first))
    tree.kv.lease_revoke(raw(tree, CERT).lease)
    assert tree.read(CERT) is None
    committed(tree, a_write(CERT, b"2"))
    assert content_at(tree, CERT) == b"2"


def test_a_deleted_path_can_be_written_again(tree):
    gone = committed(tree, a_write(CERT, GONE, committed(tree, a_write(CERT, b"1"))))
    committed(tree, a_write(CERT, b"2", gone))
    assert content_at(tree, CERT) == b"2"


@pytest.mark.parametrize("entry", [a_dir(0o750), a_link("../archive/cert1.pem")])
def test_what_has_no_content_is_kept(tree, entry):
    committed(tree, a_write(CERT, entry))
    assert tree.read(CERT).entry == entry


def test_an_entry_that_does_not_fit_its_content_is_refused(tree):
    with pytest.raises(RecordError):
        tree.commit([Write(path=CERT, entry=a_write(CERT, b"1").entry, content=b"2")], retention=MONTH)
    assert tree.read(CERT) is None


def test_an_old_revision_is_read_as_it_was(tree):
    first = committed(tree, a_write(CERT, b"1"))
    committed(tree, a_write(CERT, b"2", first))
    assert tree.content(tree.read(CERT, revision=first)) == b"1"
    with pytest.raises(FutureRevisionError):
        tree.read(CERT, revision=first + 1_000_000)


def test_kinds_of_parents_are_the_planners_business(tree):
    committed(tree, a_write("a", b"1"), a_write("a/b", b"2"))
    assert set(tree.list(StorePath("a")).records) == {"a", "a/b"}


# Stale compares


def test_a_stale_write_changes_nothing_and_tells_what_is_there(tree, other):
    first = committed(tree, a_write(CERT, b"1"))
    second = committed(other, a_write(CERT, b"theirs", first))
    outcome = tree.commit([a_write(CERT, b"mine", first)], retention=MONTH)
    assert not outcome.complete
    assert not outcome.fenced_out
    assert outcome.done == {}
    assert outcome.stale == {CERT: other.read(CERT)}
    assert outcome.stale[CERT].mod_revision == second
    assert content_at(tree, CERT) == b"theirs"
    assert past(tree, CERT) == {first: b"1"}


def test_creating_what_exists_is_stale(tree):
    committed(tree, a_write(CERT, b"1"))
    assert set(tree.commit([a_write(CERT, b"2")], retention=MONTH).stale) == {CERT}
    assert content_at(tree, CERT) == b"1"


@pytest.mark.parametrize("make", [a_write, lambda path, _, expected: a_write(path, GONE, expected)])
def test_a_key_that_vanished_is_stale_and_stays_away(tree, make):
    first = committed(tree, a_write(CERT, b"1"))
    tree.kv.txn([], [Delete(tree.keys.file(CERT))])
    outcome = tree.commit([make(CERT, b"2", expected=first)], retention=MONTH)
    assert outcome.stale == {CERT: None}
    assert tree.read(CERT) is None


def test_one_stale_path_keeps_its_whole_set_back(tree):
    committed(tree, a_write(KEY, b"theirs"))
    outcome = tree.commit([a_write(CERT, b"1"), a_write(KEY, b"2"), a_write(OTHER, b"3")], retention=MONTH)
    assert set(outcome.stale) == {KEY}
    assert outcome.done == {}
    assert set(tree.list(ROOT).records) == {KEY}


def test_an_unreadable_record_is_stale_without_a_value_and_can_be_replaced(tree):
    revision = put_raw(tree, tree.keys.file(CERT), b"garbage")
    assert tree.commit([a_write(CERT, b"1")], retention=MONTH).stale == {CERT: None}
    committed(tree, a_write(CERT, b"1", revision))
    assert content_at(tree, CERT) == b"1"
    (kept,) = tree.kv.range(tree.keys.past(CERT, revision)).items
    assert kept.value == b"garbage"


# Sets


def test_a_set_is_written_at_one_revision(tree):
    outcome = tree.commit([a_write(CERT, b"1"), a_write(KEY, b"2"), a_write(OTHER, b"3")], retention=MONTH)
    (revision,) = set(outcome.done.values())
    assert {found.mod_revision for found in tree.list(ROOT).records.values()} == {revision}


def test_an_empty_set_is_complete(tree):
    outcome = tree.commit([], retention=MONTH)
    assert outcome.complete
    assert outcome.done == {}


def numbered(count, content=b"x"):
    return [a_write(f"many/{number:04}", content) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "size"), [(3 * MAX_OPERATIONS, 1), (40, 60 * 1024)], ids=["many operations", "many bytes"]
)
def test_a_set_over_etcds_limits_is_split_in_order(tree, network, count, size):
    outcome = tree.commit(numbered(count, b"x" * size), retention=MONTH)
    assert outcome.complete
    revisions = list(outcome.done.values())
    assert revisions == sorted(revisions)
    assert 1 < len(set(revisions)) == len(network.txns) <= 4
    written = tree.list(StorePath("many")).records
    assert {path: found.mod_revision for path, found in written.items()} == outcome.done


def test_a_set_that_is_replaced_is_split_too(tree, network):
    done = tree.commit(numbered(200), retention=MONTH).done
    network.txns.clear()
    outcome = tree.commit([a_write(path, b"y", done[path]) for path in done], retention=MONTH)
    assert outcome.complete
    assert max(len(operations) for operations in network.txns) <= MAX_OPERATIONS
    assert {past(tree, path)[done[path]] for path in done} == {b"x"}


def test_what_follows_a_stale_txn_is_not_written(tree):
    writes = numbered(3 * MAX_OPERATIONS)
    middle = writes[MAX_OPERATIONS + MAX_OPERATIONS // 2].path
    committed(tree, a_write(middle, b"theirs"))
    outcome = tree.commit(writes, retention=MONTH)
    assert set(outcome.stale) == {middle}
    assert list(outcome.done) == [write.path for write in writes[: len(outcome.done)]]
    assert 0 < len(outcome.done) <= MAX_OPERATIONS
    assert set(tree.list(ROOT).records) == {*outcome.done, middle}


def numbered_sets(sizes):
    """Writes of sets of these many members each, in turn as a scan would find them."""
    members = [(member, number) for number, size in enumerate(sizes, 1) for member in range(size)]
    return [
        msgspec.structs.replace(a_write(f"sets/{member:03}-{number:03}", b"x"), set=number)
        for member, number in sorted(members)
    ]


@pytest.mark.parametrize("sizes", [[1] * 126 + [2], [70, 70], [2] * 100, [100, 30, 100, 20]])
def test_a_set_that_fits_into_one_txn_is_never_cut_in_two(tree, sizes):
    writes = numbered_sets(sizes)
    outcome = tree.commit(writes, retention=MONTH)
    assert outcome.complete
    for number in range(1, len(sizes) + 1):
        assert len({outcome.done[write.path] for write in writes if write.set == number}) == 1
    assert len(set(outcome.done.values())) <= -(-sum(sizes) // 64)


def test_a_set_larger_than_a_txn_goes_in_order_and_takes_no_other_apart(tree):
    writes = numbered_sets([60, 300, 60])
    outcome = tree.commit(writes, retention=MONTH)
    revisions = [outcome.done[write.path] for write in writes if write.set == 2]
    assert revisions == sorted(revisions)
    assert len(set(revisions)) == 3
    for number in (1, 3):
        assert len({outcome.done[write.path] for write in writes if write.set == number}) == 1


# What was superseded


def test_a_replaced_record_is_kept_byte_for_byte_under_a_lease(tree):
    first = committed(tree, a_write(CERT, b"1"))
    before = raw(tree, CERT)
    committed(tree, a_write(CERT, b"2", first))
    (kept,) = tree.kv.range(tree.keys.past(CERT, first)).items
    assert kept.value == before.value
    assert kept.lease
    assert not raw(tree, CERT).lease


def test_every_superseded_record_is_kept(tree):
    revisions = [committed(tree, a_write(CERT, b"0"))]
    for number in range(1, 5):
        revisions.append(committed(tree, a_write(CERT, b"%d" % number, revisions[-1])))
    assert past(tree, CERT) == {revisions[number]: b"%d" % number for number in range(4)}


def test_a_deleted_record_is_kept(tree):
    first = committed(tree, a_write(CERT, b"1"))
    committed(tree, a_write(CERT, GONE, first))
    assert past(tree, CERT) == {first: b"1"}


@pytest.mark.parametrize("make", [a_write, lambda path, _, expected: a_write(path, GONE, expected)])
def test_without_retention_nothing_is_kept(tree, make):
    first = committed(tree, a_write(CERT, b"1"), retention=0)
    committed(tree, make(CERT, b"2", expected=first), retention=0)
    assert past(tree, CERT) == {}


def test_a_new_path_leaves_nothing_in_the_past(tree):
    committed(tree, a_write(CERT, b"1"))
    assert past(tree, CERT) == {}


def test_a_superseded_record_stays_for_its_retention_and_a_fiftieth_longer(kv_root):
    now = [0.0]
    kv = MemoryKv(MemoryStore(clock=lambda: now[0]))
    tree = tree_on(kv, kv_root, clock=lambda: now[0])
    first = committed(tree, a_write(CERT, b"1"))
    second = committed(tree, a_write(CERT, b"2", first), retention=500)
    now[0] = 9.0
    third = committed(tree, a_write(CERT, b"3", second), retention=500)
    now[0] = 11.0
    committed(tree, a_write(CERT, b"4", third), retention=500)
    now[0] = 509.0
    assert set(past(tree, CERT)) == {first, second, third}
    now[0] = 511.0
    assert set(past(tree, CERT)) == {third}
    now[0] = 522.0
    assert past(tree, CERT) == {}
    assert content_at(tree, CERT) == b"4"


def test_many_writes_share_one_retention_lease(tree):
    first = committed(tree, a_write(CERT, b"1"))
    second = committed(tree, a_write(CERT, b"2", first))
    committed(tree, a_write(CERT, b"3", second))
    leases = {tree.kv.range(tree.keys.past(CERT, revision)).items[0].lease for revision in (first, second)}
    assert len(leases) == 1


def test_a_retention_lease_that_is_gone_is_granted_anew(tree):
    first = committed(tree, a_write(CERT, b"1"))
    second = committed(tree, a_write(CERT, b"2", first))
    tree.kv.lease_revoke(tree.kv.range(tree.keys.past(CERT, first)).items[0].lease)
    committed(tree, a_write(CERT, b"3", second))
    assert past(tree, CERT) == {second: b"2"}


def test_the_losing_side_of_a_conflict_is_kept_apart_under_a_lease(tree):
    first = committed(tree, a_write(CERT, b"winner"))
    loser = a_write(CERT, b"loser")
    name = tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH)
    (kept,) = tree.kv.range(tree.keys.conflict(CERT, name)).items
    record = decode(kept.value)
    assert (record.entry, record.content) == (loser.entry, b"loser")
    assert record.origin.replica == "front-1"
    assert kept.lease
    assert (content_at(tree, CERT), raw(tree, CERT).mod_revision) == (b"winner", first)


def test_two_losers_of_one_path_are_both_kept(tree):
    losers = [a_write(CERT, content) for content in (b"one", b"two")]
    names = {tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH) for loser in losers}
    assert len(names) == 2
    assert all(tree.kv.range(tree.keys.conflict(CERT, name)).items for name in names)


def test_a_loser_that_lies_there_already_is_not_written_again(tree, other):
    loser = a_write(CERT, b"loser" * 20_000)
    names = {each.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH) for each in (tree, other)}
    before = tree.kv.range(tree.keys.file(CERT)).revision
    for each in (tree, other):
        names.add(each.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH))
        each.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH / 100)
    assert len(names) == 1
    assert tree.kv.range(tree.keys.file(CERT)).revision == before


def test_a_loser_whose_time_is_nearly_over_gets_a_new_lease(tree):
    loser = a_write(CERT, b"loser" * 20_000)
    prefix = tree.keys.conflict(CERT, "")
    name = tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH)
    assert tree.keep_conflict(CERT, loser.entry, loser.content, retention=3 * MONTH) == name
    found = tree.kv.range(prefix, prefix_end(prefix)).items
    (lease,) = {item.lease for item in found}
    assert len(found) == 2
    assert tree.kv.lease_left(lease) >= 3 * MONTH


def test_a_loser_whose_pieces_are_gone_is_whole_again(tree):
    loser = a_write(CERT, b"loser" * 20_000)
    name = tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH)
    piece = tree.keys.conflict_chunk(CERT, name, sha256(loser.content))
    tree.kv.txn([], [Delete(piece)])
    tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH)
    assert tree.kv.range(piece).items[0].value == loser.content


def test_what_lies_in_a_losers_place_and_is_no_such_record_does_not_stay(tree):
    loser = a_write(CERT, b"loser")
    name = tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH)
    put_raw(tree, tree.keys.conflict(CERT, name), b"garbage")
    tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH)
    (kept,) = tree.kv.range(tree.keys.conflict(CERT, name)).items
    assert decode(kept.value).content == b"loser"


def test_a_loser_whose_piece_vanishes_before_its_record_is_written_is_whole_all_the_same(tree, network):
    loser = a_write(CERT, b"loser" * 20_000)
    piece = tree.keys.conflict_chunk(CERT, PLAIN.loser(loser.entry), sha256(loser.content))

    def piece_vanishes(make):
        tree.kv.kv.txn([], [Delete(piece)])
        return make()

    network.faults.extend([lambda make: make(), piece_vanishes])
    tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH)
    assert tree.kv.range(piece).items[0].value == loser.content


def test_a_loser_is_kept_though_the_retention_lease_is_gone(tree):
    loser = a_write(CERT, b"loser" * 20_000)
    first = tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH)
    tree.kv.lease_revoke(tree.kv.range(tree.keys.conflict(CERT, first)).items[0].lease)
    second = tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH)
    assert tree.kv.range(tree.keys.conflict(CERT, second)).items


def test_of_many_losers_of_one_path_the_oldest_go(tree):
    losers = [a_write(CERT, b"loser %d" % number) for number in range(MAX_CONFLICTS)]
    large = a_write(CERT, b"x" * 100_000)
    oldest = tree.keep_conflict(CERT, large.entry, large.content, retention=MONTH)
    names = [tree.keep_conflict(CERT, each.entry, each.content, retention=MONTH) for each in losers]
    prefix = tree.keys.conflict(CERT, "")
    left = [item.key.removeprefix(prefix).decode() for item in tree.kv.range(prefix, prefix_end(prefix)).items]
    assert sorted(left) == sorted(names)
    assert oldest not in left


def test_of_many_superseded_records_the_oldest_go(tree):
    revisions = [0]
    for number in range(3 * PRUNE_EVERY):
        revisions.append(committed(tree, a_write(CERT, b"%d" % number, revisions[-1]), keep=PRUNE_EVERY))
    kept = past(tree, CERT)
    assert PRUNE_EVERY <= len(kept) < 2 * PRUNE_EVERY
    assert sorted(kept) == revisions[-1 - len(kept) : -1]


def test_a_record_of_many_chunks_is_written_within_the_limits_though_old_ones_go(tree):
    revision = 0
    for number in range(2 * PRUNE_EVERY + 1):
        revision = committed(tree, a_write(CERT, b"%d" % number, revision), keep=PRUNE_EVERY)
    large = a_write(CERT, b"".join(b"%d" % number * CHUNK_SIZE for number in range(9)), expected=revision)
    committed(tree, large, keep=1)
    assert content_at(tree, CERT) == large.content


@pytest.mark.parametrize("fault", [answer_lost, request_lost])
def test_a_conflict_is_kept_once_whatever_became_of_the_answer(tree, network, fault):
    network.faults.append(fault)
    loser = a_write(CERT, b"loser")
    name = tree.keep_conflict(CERT, loser.entry, loser.content, retention=MONTH)
    (kept,) = tree.kv.range(tree.keys.conflict(CERT, name)).items
    assert kept.version == 1
    assert len(network.txns) == 1


# Ambiguous answers


@pytest.mark.parametrize("faults", [[answer_lost], [request_lost], [request_lost, answer_lost]])
def test_a_create_without_an_answer_is_made_once(tree, network, faults):
    network.faults.extend(faults)
    revision = committed(tree, a_write(CERT, b"1"))
    item = raw(tree, CERT)
    assert (item.version, item.mod_revision) == (1, revision)
    assert len(network.txns) == 1
    assert content_at(tree, CERT) == b"1"


@pytest.mark.parametrize("faults", [[answer_lost], [request_lost], [request_lost, answer_lost]])
def test_a_replacement_without_an_answer_is_made_once(tree, network, faults):
    first = committed(tree, a_write(CERT, b"1"))
    network.txns.clear()
    network.faults.extend(faults)
    second = committed(tree, a_write(CERT, b"2", first))
    item = raw(tree, CERT)
    assert (item.version, item.mod_revision) == (2, second)
    assert len(network.txns) == 1
    assert past(tree, CERT) == {first: b"1"}


@pytest.mark.parametrize("fault", [answer_lost, request_lost])
def test_a_split_set_goes_on_after_a_lost_answer(tree, network, fault):
    network.faults.append(fault)
    writes = numbered(2 * MAX_OPERATIONS)
    outcome = tree.commit(writes, retention=MONTH)
    assert outcome.complete
    written = tree.list(ROOT).records
    assert {path: found.mod_revision for path, found in written.items()} == outcome.done
    assert len(outcome.done) == len(writes)


def overtaken(fault, other, write, times=1):
    """A fault after which another replica writes over a path, before the sender tries again."""

    def befall(make):
        try:
            fault(make)
        finally:
            for _ in range(times):
                found = other.read(write.path)
                committed(other, msgspec.structs.replace(write, expected=found.mod_revision if found else 0))

    return befall


@pytest.mark.parametrize("times", [1, 3])
def test_what_landed_without_an_answer_is_done_though_somebody_wrote_over_it_since(tree, other, network, times):
    first = committed(tree, a_write(CERT, b"1"))
    network.faults.append(overtaken(answer_lost, other, a_write(CERT, b"third"), times))
    outcome = tree.commit([a_write(CERT, b"mine", first)], retention=MONTH)
    assert (outcome.complete, outcome.stale) == (True, {})
    assert past(tree, CERT)[outcome.done[CERT]] == b"mine"
    assert content_at(tree, CERT) == b"third"


def test_what_never_landed_is_stale_for_sure(tree, other, network):
    first = committed(tree, a_write(CERT, b"1"))
    network.faults.append(overtaken(request_lost, other, a_write(CERT, b"third"), times=3))
    outcome = tree.commit([a_write(CERT, b"mine", first)], retention=MONTH)
    assert outcome.stale == {CERT: other.read(CERT)}
    assert (outcome.done, outcome.unsure) == ({}, ())
    assert b"mine" not in past(tree, CERT).values()


def test_nobody_is_told_that_nothing_was_written_when_the_trace_is_lost(tree, other, network):
    first = committed(tree, a_write(CERT, b"1"))

    def forgetful(make):
        make()
        committed(other, a_write(CERT, b"third", other.read(CERT).mod_revision), retention=0)
        raise StoreUnavailableError("the answer was lost")

    network.faults.append(forgetful)
    outcome = tree.commit([a_write(CERT, b"mine", first)], retention=MONTH)
    assert (set(outcome.stale), outcome.unsure) == ({CERT}, (CERT,))
    assert content_at(tree, CERT) == b"third"


def test_a_set_of_which_a_part_was_written_over_since_is_done_as_a_whole(tree, other, network):
    network.faults.append(overtaken(answer_lost, other, a_write(KEY, b"third")))
    outcome = tree.commit([a_write(CERT, b"1"), a_write(KEY, b"2")], retention=MONTH)
    assert outcome.complete
    assert set(outcome.done.values()) == {raw(tree, CERT).mod_revision}
    assert (content_at(tree, CERT), content_at(tree, KEY)) == (b"1", b"third")


def test_what_follows_a_txn_that_landed_without_an_answer_is_written_though_it_was_overtaken(tree, other, network):
    writes = numbered(2 * MAX_OPERATIONS)
    network.faults.append(overtaken(answer_lost, other, a_write(writes[0].path, b"third")))
    outcome = tree.commit(writes, retention=MONTH)
    assert outcome.complete
    assert set(outcome.done) == set(tree.list(ROOT).records)
    assert content_at(tree, writes[0].path) == b"third"


def test_an_answer_that_took_all_of_the_patience_is_looked_for_once_more(network, kv_root):
    tree = tree_on(network, kv_root, patience=1e-9)
    network.faults.append(answer_lost)
    assert tree.commit([a_write(CERT, b"1")], retention=MONTH).complete
    assert len(network.txns) == 1


def test_a_commit_made_again_with_its_write_ids_makes_nothing_twice(network, kv_root, other):
    tree = tree_on(network, kv_root, patience=0)
    first = committed(other, a_write(CERT, b"1"))
    ids = [tree.new_write_id() for _ in range(3)]
    writes = [
        msgspec.structs.replace(a_write(path, b"mine", expected), write_id=write_id)
        for (path, expected), write_id in zip([(CERT, first), (KEY, 0), (OTHER, 0)], ids, strict=True)
    ]
    network.faults.append(answer_lost)
    with pytest.raises(StoreUnavailableError) as caught:
        tree.commit(writes[:2], retention=MONTH)
    assert (caught.value.done, set(caught.value.unknown)) == ({}, {CERT, KEY})
    landed = raw(tree, CERT).mod_revision
    third = committed(other, a_write(KEY, b"third", landed))
    outcome = tree.commit(writes, retention=MONTH)
    assert outcome.complete
    assert (outcome.done[CERT], outcome.done[KEY]) == (landed, landed)
    assert raw(tree, KEY).mod_revision == third
    assert content_at(tree, OTHER) == b"mine"
    assert raw(tree, CERT).version == 2


def test_a_failure_in_the_middle_tells_what_was_written_and_what_nobody_knows(network, kv_root, other):
    tree = tree_on(network, kv_root, patience=0)
    network.faults.extend([lambda make: make(), answer_lost])
    with pytest.raises(StoreUnavailableError) as caught:
        tree.commit(numbered(3 * MAX_OPERATIONS), retention=MONTH)
    there = {path: found.mod_revision for path, found in other.list(ROOT).records.items()}
    assert len(caught.value.done) == len(caught.value.unknown) == MAX_OPERATIONS - 1
    assert there.keys() == {*caught.value.done, *caught.value.unknown}
    assert caught.value.done.items() <= there.items()


def test_a_retention_lease_that_ends_between_two_txns_makes_no_own_write_stale(tree, network):
    done = tree.commit(numbered(100), retention=MONTH).done
    lease = []

    def lease_ends(make):
        made = make()
        lease.append(tree.kv.range(tree.keys.past("many/0000", done["many/0000"])).items[0].lease)
        tree.kv.lease_revoke(lease[0])
        return made

    network.faults.append(lease_ends)
    again = [a_write(path, b"y", revision) for path, revision in done.items()]
    outcome = tree.commit(again, retention=MONTH)
    assert lease
    assert (outcome.complete, len(outcome.done)) == (True, 100)


def test_what_comes_while_a_write_is_looked_for_does_not_make_it_uncertain(tree, other):
    first = committed(tree, a_write(CERT, b"1"))
    second = committed(other, a_write(CERT, b"2", first))
    third = committed(other, a_write(CERT, b"3", second))
    current = raw(tree, CERT)
    committed(other, a_write(CERT, b"4", third))
    look = partial(trace, tree.kv, tree.keys, tree.envelopes, CERT, {"mine"}, current=current)
    assert look(after=first) == Trace(found=None, whole=True)
    assert not look(after=first - 1).whole


def test_a_write_is_found_by_its_id_be_it_current_superseded_or_not_there(tree, other):
    first = committed(tree, a_write(CERT, b"1"))
    ids = [tree.new_write_id() for _ in range(2)]
    second = committed(tree, msgspec.structs.replace(a_write(CERT, b"2", first), write_id=ids[0]))
    assert tree.find_write(CERT, ids, after=first).mod_revision == second
    committed(other, a_write(CERT, b"3", second))
    found = tree.find_write(CERT, ids, after=first)
    assert (found.mod_revision, tree.content(found)) == (second, b"2")
    assert tree.find_write(CERT, ids, after=second) is None
    assert tree.find_write(CERT, ids[1:], after=0) is None
    assert tree.find_write(KEY, ids, after=0) is None


def test_an_outage_longer_than_the_patience_is_an_error_and_a_second_commit_overwrites_nothing(
    network, kv_root, other
):
    tree = tree_on(network, kv_root, patience=0)
    network.faults.append(answer_lost)
    with pytest.raises(StoreUnavailableError):
        tree.commit([a_write(CERT, b"1")], retention=MONTH)
    outcome = tree.commit([a_write(CERT, b"1")], retention=MONTH)
    assert set(outcome.stale) == {CERT}
    assert raw(other, CERT).version == 1


def test_a_request_that_lands_late_overwrites_nothing_newer(network, kv_root, other):
    tree = tree_on(network, kv_root, patience=0)
    first = committed(tree, a_write(CERT, b"1"))
    late = []

    def delayed(make):
        late.append(make)
        raise StoreUnavailableError("the request is on its way")

    network.faults.append(delayed)
    with pytest.raises(StoreUnavailableError):
        tree.commit([a_write(CERT, b"late", first)], retention=MONTH)
    committed(other, a_write(CERT, b"newer", first))
    assert not late[0]().succeeded
    assert content_at(tree, CERT) == b"newer"


# Fences


@pytest.fixture
def fence(tree):
    """Proof of a lease that is held."""
    key = tree.keys.lease_queue("letsencrypt") + b"/1"
    return Fence(name="letsencrypt", key=key, token=put_raw(tree, key, b"front-1"))


def test_the_holder_of_a_lease_commits_under_its_name(tree, fence):
    put_raw(tree, fence.key, b"renewed: the key is older than its value")
    outcome = tree.commit([a_write(CERT, b"1")], retention=MONTH, fence=fence)
    assert outcome.complete
    assert tree.read(CERT).record.origin.lease == "letsencrypt"


def test_a_write_without_a_fence_names_no_lease(tree):
    committed(tree, a_write(CERT, b"1"))
    assert tree.read(CERT).record.origin.lease is None


@pytest.mark.parametrize("taken_again", [False, True])
def test_who_lost_the_lease_is_fenced_out_and_writes_nothing(tree, fence, taken_again):
    first = committed(tree, a_write(CERT, b"1"))
    tree.kv.txn([], [Delete(fence.key)])
    if taken_again:
        put_raw(tree, fence.key, b"front-1")
    writes = [a_write(CERT, b"2", first), a_write(KEY, b"new")]
    outcome = tree.commit(writes, retention=MONTH, fence=fence)
    assert outcome.fenced_out
    assert not outcome.complete
    assert (outcome.done, outcome.stale) == ({}, {})
    assert set(tree.list(ROOT).records) == {CERT}
    assert content_at(tree, CERT) == b"1"
    assert past(tree, CERT) == {}


def test_a_fence_that_holds_does_not_hide_a_stale_path(tree, fence):
    committed(tree, a_write(CERT, b"theirs"))
    outcome = tree.commit([a_write(CERT, b"mine")], retention=MONTH, fence=fence)
    assert set(outcome.stale) == {CERT}
    assert not outcome.fenced_out


def test_a_lease_lost_between_two_txns_stops_the_second(tree, network, fence):
    def loses_the_lease(make):
        made = make()
        tree.kv.txn([], [Delete(fence.key)])
        return made

    network.faults.append(loses_the_lease)
    outcome = tree.commit(numbered(2 * MAX_OPERATIONS), retention=MONTH, fence=fence)
    assert outcome.fenced_out
    assert 0 < len(outcome.done) < MAX_OPERATIONS
    assert set(tree.list(ROOT).records) == set(outcome.done)


def test_a_fenced_write_whose_answer_was_lost_together_with_the_lease_is_done(tree, network, fence):
    def loses_both(make):
        make()
        tree.kv.txn([], [Delete(fence.key)])
        raise StoreUnavailableError("the answer was lost")

    network.faults.append(loses_both)
    outcome = tree.commit([a_write(CERT, b"1")], retention=MONTH, fence=fence)
    assert outcome.complete
    assert outcome.done == {CERT: raw(tree, CERT).mod_revision}


# Listing


def test_a_directory_is_listed_with_its_own_record_and_its_tombstones(tree):
    committed(tree, a_write("certs", a_dir(0o700)))
    gone = committed(tree, a_write(KEY, b"1"))
    committed(
        tree, a_write(KEY, GONE, gone), a_write(CERT, b"1"), a_write(OTHER, b"1"), a_write("certs-old", b"1")
    )
    listing = tree.list(StorePath("certs"))
    assert set(listing.records) == {"certs", CERT, KEY}
    assert listing.records[KEY].gone
    assert listing.records[CERT] == tree.read(CERT)
    assert listing.bad == ()
    assert set(tree.list(ROOT).records) == {"certs", CERT, KEY, OTHER, "certs-old"}


def test_what_was_never_written_lists_nothing_at_a_revision(tree):
    listing = tree.list(StorePath("certs"))
    status = tree.kv.status()
    assert listing == Listing(revision=status.revision, cluster_id=status.cluster_id, records={})


def test_a_listing_is_of_one_revision_while_writes_go_on(tree, other, network):
    for number in range(9):
        committed(tree, *(a_write(f"many/{number}{rest:03}", b"") for rest in range(120)))
    fresh = itertools.count()

    def write_on():
        number = next(fresh)
        seen = other.read(StorePath("many/0000")).mod_revision
        committed(other, a_write("many/0000", b"%d" % number, seen), a_write(f"many/~{number}", b""))

    network.after_range = write_on
    listing = tree.list(StorePath("many"))
    assert next(fresh) >= 3  # the directory and two pages, a write after each
    network.after_range = lambda: None
    assert len(listing.records) == 9 * 120
    assert listing == tree.list(StorePath("many"), revision=listing.revision)


def test_a_listing_of_an_old_revision_is_as_it_was(tree):
    first = committed(tree, a_write(CERT, b"1"))
    committed(tree, a_write(CERT, b"2", first), a_write(KEY, b"new"))
    listing = tree.list(ROOT, revision=first)
    assert listing.revision == first
    assert [tree.content(found) for found in listing.records.values()] == [b"1"]


def test_a_compaction_between_two_pages_begins_the_listing_again(kv_root):
    network = Network(MemoryKv())
    tree = tree_on(network, kv_root)
    old = committed(tree, a_write(CERT, b"1"))

    def compact():
        network.after_range = lambda: None
        network.compact(put_raw(tree, tree.keys.file(KEY), raw(tree, CERT).value))

    network.after_range = compact
    assert set(tree.list(StorePath("certs")).records) == {CERT, KEY}
    with pytest.raises(CompactedError):
        tree.list(StorePath("certs"), revision=old)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "no header line"),
        (SECRET, "no header line"),
        (SECRET + b"\n", "malformed JSON"),
        (b'{"v":3,"kind":"hologram"}\n', "version 3"),
        (b'{"v":1,"kind":"file"}\n' + SECRET, "write_id"),
        (b'{"v":1,"kind":"file","write_id":"w","size":1,"sha256":"' + b"0" * 64 + b'"}\nx', "digest"),
    ],
)
def test_an_unusable_record_is_a_value_that_names_its_path_and_hides_nothing_else(tree, value, reason):
    revision = put_raw(tree, tree.keys.file(KEY), value)
    committed(tree, a_write(CERT, b"1"))
    listing = tree.list(StorePath("certs"))
    assert set(listing.records) == {CERT}
    (bad,) = listing.bad
    assert (bad.path, bad.mod_revision) == (KEY, revision)
    assert reason in bad.reason
    assert SECRET.decode() not in repr(bad)
    with pytest.raises(RecordError, match=reason):
        tree.read(KEY)


@pytest.mark.parametrize("tail", [b"\xff.pem", b"../../etc/passwd", b"/a", b"", b"\x1b[2J", b".configstore/x"])
def test_a_key_that_is_no_path_is_a_value_that_is_safe_to_print(tree, tail):
    committed(tree, a_write(CERT, b"1"))
    revision = put_raw(tree, tree.keys.file(StorePath("certs")) + b"/" + tail, raw(tree, CERT).value)
    listing = tree.list(StorePath("certs"))
    assert set(listing.records) == {CERT}
    (bad,) = listing.bad
    assert isinstance(bad, UnreadableRecord)
    assert bad.mod_revision == revision
    assert f"{tree.keys.root}/files/certs/" in bad.path
    assert bad.path.isprintable()
    assert bad.reason.isprintable()


# Several writers


def test_two_writers_of_one_revision_have_one_winner(tree, other):
    revision = committed(tree, a_write(CERT, b"0"))
    barrier = threading.Barrier(2)
    outcomes = {}

    def race(one, content, expected):
        barrier.wait()
        outcomes[content] = one.commit([a_write(CERT, content, expected)], retention=MONTH)

    for _ in range(20):
        outcomes.clear()
        in_threads((race, tree, b"one", revision), (race, other, b"another", revision))
        (winner,) = [content for content, outcome in outcomes.items() if outcome.complete]
        (loser,) = [outcome for outcome in outcomes.values() if not outcome.complete]
        revision = outcomes[winner].done[CERT]
        assert loser.stale[CERT].mod_revision == revision
        assert content_at(tree, CERT) == winner


def test_two_writers_of_one_path_lose_no_value(tree, other):
    first = committed(tree, a_write(CERT, b"first"))
    accepted = {first: b"first"}

    def write(one, name):
        for number in range(15):
            content = f"{name} {number}".encode()
            while True:
                outcome = one.commit([a_write(CERT, content, one.read(CERT).mod_revision)], retention=MONTH)
                if outcome.complete:
                    break
            assert outcome.done[CERT] not in accepted
            accepted[outcome.done[CERT]] = content

    in_threads((write, tree, "one"), (write, other, "another"))
    current = tree.read(CERT)
    assert len(accepted) == 31
    assert past(tree, CERT) | {current.mod_revision: tree.content(current)} == accepted


def in_threads(*calls):
    """Run each call in a thread of its own; an exception in one of them fails the test (filterwarnings)."""
    threads = [threading.Thread(target=call, args=arguments) for call, *arguments in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not [thread for thread in threads if thread.is_alive()]


# What may be shown


def test_nothing_shows_content(tree):
    write = a_write(CERT, SECRET)
    revision = committed(tree, write)
    found = tree.read(CERT)
    stale = tree.commit([write], retention=MONTH)
    assert isinstance(found, Stored)
    assert isinstance(found.record, Record)
    values = [
        write,
        found,
        found.record,
        tree.list(ROOT),
        stale,
        raw(tree, CERT),
        Put(b"key", encode(found.record)),
    ]
    for value in values:
        assert "PRIVATE" not in f"{value!r} {value}"
    assert f"expected={revision}" in repr(a_write(CERT, SECRET, revision))


def test_no_write_goes_without_a_compare(tree, network):
    seen = []
    make = network.txn

    def watched(compares, operations, **options):
        seen.append((compares, operations))
        return make(compares, operations, **options)

    network.txn = watched
    first = committed(tree, a_write(CERT, b"1"), a_write(KEY, b"x" * 100_000))
    committed(tree, a_write(CERT, GONE, first), a_write(KEY, b"small", first))
    tree.keep_conflict(CERT, a_write(CERT, b"2").entry, b"2", retention=MONTH)
    assert all(compares for compares, _ in seen)
    records = [(compares, one) for compares, operations in seen for one in operations if b"/files/" in one.key]
    assert len(records) == 4
    for compares, put in records:
        assert put.key in {compare.key for compare in compares if isinstance(compare, ModRevision)}
