"""The contract of `configstore.store.api.Kv`, on the reference store and on real etcds alike."""

import threading

import pytest

from configstore.errors import CompactedError, FutureRevisionError, LeaseGoneError, TooLargeError
from configstore.model.keys import prefix_end
from configstore.store.api import (
    ChangeLease,
    CreateRevision,
    Delete,
    Event,
    Exists,
    Item,
    Kv,
    ModRevision,
    Put,
    ValueEquals,
    range_all,
)
from tests.harness.servers import connect
from tests.harness.waiting import wait_until
from tests.memory_store.store import MemoryKv
from tests.store.seen import Seen


@pytest.fixture(params=["memory", "etcd-wheel", "etcd-debian"])
def kv(request):
    """The store under test."""
    if request.param == "memory":
        client = MemoryKv()
    else:
        client = connect(request.getfixturevalue(request.param.replace("-", "_")).endpoint)
    with client:
        yield client


@pytest.fixture
def key(kv_root):
    """Make keys below the test's own root."""
    return lambda name: f"{kv_root}/{name}".encode()


@pytest.fixture
def below(kv_root):
    """The half-open range of the test's own keys."""
    prefix = f"{kv_root}/".encode()
    return prefix, prefix_end(prefix)


def put(kv, key, value, lease=0):
    """Write without a compare and return the revision."""
    result = kv.txn([], [Put(key, value, lease)])
    assert result.succeeded
    return result.revision


def value_of(kv, key):
    items = kv.range(key).items
    return items[0].value if items else None


def test_a_key_that_was_never_written_is_absent(kv, key):
    assert kv.range(key("a")).items == ()


def test_a_written_key_tells_its_revisions_and_version(kv, key):
    created = put(kv, key("a"), b"1")
    changed = put(kv, key("a"), b"2")
    page = kv.range(key("a"))
    assert page.items == (
        Item(key=key("a"), value=b"2", create_revision=created, mod_revision=changed, version=2, lease=0),
    )
    assert page.revision == changed == created + 1


def test_a_key_written_again_after_its_delete_is_created_anew(kv, key):
    put(kv, key("a"), b"1")
    kv.txn([], [Delete(key("a"))])
    revision = put(kv, key("a"), b"2")
    (item,) = kv.range(key("a")).items
    assert (item.create_revision, item.mod_revision, item.version) == (revision, revision, 1)


def test_a_range_is_sorted_by_bytes_and_excludes_its_end(kv, key):
    kv.txn([], [Put(key(name), b"") for name in ("b", "a", "c", "a\x00", "ä")])
    found = kv.range(key("a"), key("c")).items
    assert [item.key for item in found] == [key("a"), key("a\x00"), key("b")]


def test_a_range_to_the_zero_byte_reaches_the_last_key(kv, key):
    put(kv, key("a"), b"")
    put(kv, key("b"), b"")
    found = [item.key for item in kv.range(key("a"), b"\0").items]
    assert found[:2] == [key("a"), key("b")]


def test_a_limit_cuts_and_says_that_more_follows(kv, key, below):
    kv.txn([], [Put(key(name), b"") for name in "abc"])
    assert kv.range(*below, limit=2).more
    assert len(kv.range(*below, limit=2).items) == 2
    assert not kv.range(*below, limit=3).more


def test_keys_only_leaves_values_out(kv, key, below):
    put(kv, key("a"), b"value")
    (item,) = kv.range(*below, keys_only=True).items
    assert item.value == b""
    assert item.key == key("a")


def test_paging_reads_all_of_one_revision(kv, key, below):
    for first in range(0, 2100, 100):
        kv.txn([], [Put(key(f"{number:04}"), b"") for number in range(first, first + 100)])
    pages = range_all(kv, *below)
    items = list(next(pages).items)
    put(kv, key("9999"), b"written between two pages")
    for page in pages:
        items.extend(page.items)
    assert [item.key for item in items] == [key(f"{number:04}") for number in range(2100)]


def test_an_old_revision_is_read_as_it_was(kv, key, below):
    first = put(kv, key("a"), b"1")
    kv.txn([], [Put(key("a"), b"2"), Put(key("b"), b"new")])
    gone = kv.txn([], [Delete(key("a"))]).revision
    assert [(item.key, item.value) for item in kv.range(*below, revision=first).items] == [(key("a"), b"1")]
    assert [item.key for item in kv.range(*below, revision=gone).items] == [key("b")]


def test_a_revision_that_does_not_exist_yet_is_an_error(kv, key):
    with pytest.raises(FutureRevisionError):
        kv.range(key("a"), revision=put(kv, key("a"), b"") + 1000)


def test_a_compacted_revision_is_an_error_and_the_latest_stays(kv, key):
    old = put(kv, key("a"), b"1")
    put(kv, key("a"), b"2")
    now = put(kv, key("b"), b"3")
    kv.compact(now)
    with pytest.raises(CompactedError):
        kv.range(key("a"), revision=old)
    assert value_of(kv, key("a")) == b"2"
    assert kv.range(key("a"), revision=now).items[0].value == b"2"
    with pytest.raises(CompactedError):
        kv.compact(now)
    with pytest.raises(FutureRevisionError):
        kv.compact(now + 1000)


def test_a_deleted_key_stays_absent_after_compaction(kv, key):
    put(kv, key("a"), b"1")
    gone = kv.txn([], [Delete(key("a"))]).revision
    put(kv, key("b"), b"")
    kv.compact(gone)
    assert kv.range(key("a"), revision=gone).items == ()


def test_a_txn_writes_all_its_keys_at_one_revision(kv, key, below):
    result = kv.txn([], [Put(key("a"), b"1"), Put(key("b"), b"2")])
    assert {item.mod_revision for item in kv.range(*below).items} == {result.revision}


def test_mod_revision_guards_against_a_newer_write(kv, key):
    seen = put(kv, key("a"), b"1")
    put(kv, key("a"), b"2")
    result = kv.txn([ModRevision(key("a"), seen)], [Put(key("a"), b"stale")])
    assert not result.succeeded
    assert value_of(kv, key("a")) == b"2"


def test_mod_revision_zero_means_absent(kv, key):
    assert kv.txn([ModRevision(key("a"), 0)], [Put(key("a"), b"1")]).succeeded
    assert not kv.txn([ModRevision(key("a"), 0)], [Put(key("a"), b"2")]).succeeded


def test_create_revision_holds_over_rewrites_and_ends_with_a_delete(kv, key):
    created = put(kv, key("a"), b"1")
    put(kv, key("a"), b"2")
    fence = CreateRevision(key("a"), created)
    assert kv.txn([fence], [Put(key("b"), b"")]).succeeded
    kv.txn([], [Delete(key("a"))])
    put(kv, key("a"), b"3")
    assert not kv.txn([fence], [Put(key("b"), b"")]).succeeded
    kv.txn([], [Delete(key("a"))])
    assert kv.txn([CreateRevision(key("a"), 0)], []).succeeded


def test_exists_holds_for_a_present_key_alone(kv, key):
    assert not kv.txn([Exists(key("a"))], []).succeeded
    put(kv, key("a"), b"")
    assert kv.txn([Exists(key("a"))], []).succeeded


def test_a_value_is_compared_as_a_whole(kv, key):
    assert not kv.txn([ValueEquals(key("a"), b"")], []).succeeded
    put(kv, key("a"), b"1")
    assert kv.txn([ValueEquals(key("a"), b"1")], []).succeeded
    assert not kv.txn([ValueEquals(key("a"), b"12")], []).succeeded


def test_a_failed_txn_returns_the_keys_asked_for_and_changes_nothing(kv, key):
    revision = put(kv, key("a"), b"1")
    result = kv.txn(
        [ModRevision(key("a"), 0)], [Put(key("a"), b"2"), Put(key("b"), b"")], otherwise_get=[key("a"), key("b")]
    )
    assert not result.succeeded
    assert result.revision == revision
    assert [(item.key, item.value, item.mod_revision) for item in result.found] == [(key("a"), b"1", revision)]
    assert kv.range(key("b")).items == ()


def test_a_succeeded_txn_finds_nothing(kv, key):
    assert kv.txn([], [Put(key("a"), b"1")], otherwise_get=[key("a")]).found == ()


def test_deleting_an_absent_key_is_no_change(kv, key):
    before = put(kv, key("a"), b"")
    assert kv.txn([], [Delete(key("b"))]).revision == before


def test_relet_changes_the_lease_and_keeps_the_value(kv, key):
    lease = kv.lease_grant(60)
    put(kv, key("a"), b"kept", lease)
    kv.txn([Exists(key("a"))], [ChangeLease(key("a"))])
    kv.lease_revoke(lease)
    (item,) = kv.range(key("a")).items
    assert (item.value, item.lease, item.version) == (b"kept", 0, 2)


def test_relet_of_an_absent_key_fails_the_whole_txn(kv, key):
    with pytest.raises(ValueError, match="lease"):
        kv.txn([], [Put(key("b"), b""), ChangeLease(key("a"))])
    assert kv.range(key("b")).items == ()


def test_relet_in_a_txn_that_does_not_succeed_is_no_error(kv, key):
    assert not kv.txn([Exists(key("a"))], [ChangeLease(key("a"))]).succeeded


@pytest.mark.parametrize(
    "second",
    [Put, lambda key, value: Delete(key), lambda key, value: ChangeLease(key)],
    ids=["put", "delete", "relet"],
)
def test_one_key_written_twice_is_an_error(kv, key, second):
    with pytest.raises(ValueError, match="twice"):
        kv.txn([], [Put(key("a"), b"1"), second(key("a"), b"2")])


@pytest.mark.parametrize("what", ["operations", "compares", "reads"])
def test_128_fit_into_a_txn_and_129_do_not(kv, key, what):
    def made(count):
        keys = [key(f"{number}") for number in range(count)]
        if what == "operations":
            return kv.txn([], [Put(one, b"") for one in keys])
        if what == "compares":
            return kv.txn([ModRevision(one, 0) for one in keys], [])
        return kv.txn([], [], otherwise_get=keys)

    assert made(128).succeeded
    with pytest.raises(TooLargeError):
        made(129)


@pytest.mark.parametrize("size", [1600 * 1024, 5 * 1024 * 1024])
def test_a_value_over_the_request_limit_is_too_large(kv, key, size):
    with pytest.raises(TooLargeError):
        kv.txn([], [Put(key("a"), b"x" * size)])
    assert kv.range(key("a")).items == ()


def test_a_value_of_1_mib_is_kept_byte_for_byte(kv, key):
    value = bytes(range(256)) * 4096
    put(kv, key("a"), value)
    assert value_of(kv, key("a")) == value


def test_revoking_a_lease_deletes_its_keys_in_one_revision(kv, key, below):
    lease = kv.lease_grant(60)
    put(kv, key("a"), b"", lease)
    revision = put(kv, key("b"), b"", lease)
    with Seen(kv.watch(*below, start_revision=revision + 1)) as seen:
        kv.lease_revoke(lease)
        wait_until(lambda: len(seen.events) == 2)
        assert [(event.item.key, event.deleted) for event in seen.events] == [(key("a"), True), (key("b"), True)]
        assert {event.item.mod_revision for event in seen.events} == {revision + 1}
    assert kv.range(*below).items == ()


def test_a_key_put_under_another_lease_outlives_the_first(kv, key):
    first, second = kv.lease_grant(60), kv.lease_grant(60)
    put(kv, key("a"), b"", first)
    put(kv, key("a"), b"", second)
    kv.lease_revoke(first)
    assert kv.range(key("a")).items[0].lease == second


def test_a_key_deleted_and_written_anew_has_left_its_lease(kv, key):
    lease = kv.lease_grant(60)
    put(kv, key("a"), b"", lease)
    kv.txn([], [Delete(key("a"))])
    put(kv, key("a"), b"again")
    kv.lease_revoke(lease)
    assert value_of(kv, key("a")) == b"again"


def test_a_lease_that_is_not_renewed_ends_and_takes_its_keys(kv, key):
    put(kv, key("a"), b"", kv.lease_grant(2))
    wait_until(lambda: not kv.range(key("a")).items, 10)


def test_renewing_a_lease_returns_its_time_to_live(kv):
    assert kv.lease_keepalive(kv.lease_grant(77)) == 77


def test_a_lease_that_is_gone_can_neither_be_renewed_revoked_nor_used(kv, key):
    lease = kv.lease_grant(60)
    kv.lease_revoke(lease)
    with pytest.raises(LeaseGoneError):
        kv.lease_keepalive(lease)
    with pytest.raises(LeaseGoneError):
        kv.lease_revoke(lease)
    with pytest.raises(LeaseGoneError):
        put(kv, key("a"), b"", lease)
    assert kv.range(key("a")).items == ()


def test_a_watch_first_says_that_it_stands(kv, key, below):
    revision = put(kv, key("a"), b"")
    watch = kv.watch(*below, start_revision=revision + 1)
    assert next(iter(watch)).events == ()
    watch.close()


def test_a_watch_delivers_puts_and_deletes_in_order(kv, key, below):
    before = kv.range(*below).revision
    with Seen(kv.watch(*below, start_revision=before + 1)) as seen:
        put(kv, key("a"), b"1")
        put(kv, key("a"), b"2")
        kv.txn([], [Delete(key("a"))])
        wait_until(lambda: len(seen.events) == 3)
        expected = [
            Event(item=Item(key=key("a"), value=b"1", create_revision=before + 1, mod_revision=before + 1)),
            Event(
                item=Item(key=key("a"), value=b"2", create_revision=before + 1, mod_revision=before + 2, version=2)
            ),
            Event(
                item=Item(key=key("a"), value=b"", create_revision=0, mod_revision=before + 3, version=0),
                deleted=True,
            ),
        ]
        assert seen.events == expected


def test_a_watch_from_an_old_revision_catches_up(kv, key, below):
    first = put(kv, key("a"), b"0")
    for number in range(1, 50):
        put(kv, key("a"), b"%d" % number)
    with Seen(kv.watch(*below, start_revision=first)) as seen:
        wait_until(lambda: len(seen.events) == 50)
        assert [event.item.value for event in seen.events] == [b"%d" % number for number in range(50)]


def test_a_watch_ignores_keys_outside_its_range(kv, key):
    before = put(kv, key("x"), b"")
    with Seen(kv.watch(key("b"), key("d"), start_revision=before)) as seen:
        kv.txn([], [Put(key(name), b"") for name in "abcde"])
        wait_until(lambda: len(seen.events) == 2)
        assert [event.item.key for event in seen.events] == [key("b"), key("c")]


def test_all_events_of_a_txn_arrive_in_one_batch(kv, key, below):
    before = kv.range(*below).revision
    with Seen(kv.watch(*below, start_revision=before + 1)) as seen:
        kv.txn([], [Put(key(f"{number:03}"), b"x" * 8000) for number in range(128)])
        wait_until(lambda: seen.events)
        assert [len(batch.events) for batch in seen.batches if batch.events] == [128]


def test_batches_tell_revisions_that_never_go_back(kv, key, below):
    before = kv.range(*below).revision
    with Seen(kv.watch(*below, start_revision=before + 1)) as seen:
        for number in range(20):
            put(kv, key(str(number % 3)), b"")
        wait_until(lambda: len(seen.events) == 20)
        revisions = [batch.revision for batch in seen.batches]
        assert revisions == sorted(revisions)
        assert revisions[-1] == before + 20


def test_two_watches_each_see_everything(kv, key, below):
    before = kv.range(*below).revision
    with (
        Seen(kv.watch(*below, start_revision=before + 1)) as one,
        Seen(kv.watch(*below, start_revision=before + 1)) as other,
    ):
        put(kv, key("a"), b"")
        wait_until(lambda: one.events and other.events)


def test_a_watch_at_a_compacted_revision_is_an_error_that_says_what_is_left(kv, key, below):
    old = put(kv, key("a"), b"1")
    now = put(kv, key("a"), b"2")
    kv.compact(now)
    with Seen(kv.watch(*below, start_revision=old)) as seen:
        wait_until(lambda: seen.ended)
        assert isinstance(seen.error, CompactedError)
        assert seen.error.compact_revision == now
        assert seen.events == []


def test_a_watch_in_the_future_is_an_error(kv, key, below):
    now = put(kv, key("a"), b"")
    with Seen(kv.watch(*below, start_revision=now + 1000)) as seen:
        wait_until(lambda: seen.ended)
        assert isinstance(seen.error, FutureRevisionError)


def test_closing_a_watch_ends_a_blocked_iteration_without_an_error(kv, key, below):
    with Seen(kv.watch(*below, start_revision=put(kv, key("a"), b"") + 1)) as seen:
        wait_until(lambda: seen.batches)
        seen.watch.close()
        wait_until(lambda: seen.ended)
        assert seen.error is None


def test_a_watch_closed_before_it_is_iterated_brings_nothing(kv, key, below):
    watch = kv.watch(*below, start_revision=put(kv, key("a"), b""))
    watch.close()
    assert [batch for batch in watch if batch.events] == []


def test_closing_the_connection_ends_its_watches(kv, key, below):
    with Seen(kv.watch(*below, start_revision=put(kv, key("a"), b"") + 1)) as seen:
        wait_until(lambda: seen.batches)
        kv.close()
        wait_until(lambda: seen.ended)


def test_concurrent_compare_and_swaps_lose_no_increment(kv, key):
    put(kv, key("n"), b"0")

    def add():
        for _ in range(20):
            while True:
                (item,) = kv.range(key("n")).items
                value = b"%d" % (int(item.value) + 1)
                if kv.txn([ModRevision(key("n"), item.mod_revision)], [Put(key("n"), value)]).succeeded:
                    break

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value_of(kv, key("n")) == b"80"


def test_status_tells_the_revision(kv, key):
    revision = put(kv, key("a"), b"")
    assert kv.status().revision == revision
    assert kv.status().alarms == ()


def test_a_lease_tells_how_long_it_has_left(kv):
    lease = kv.lease_grant(60)
    assert 30 < kv.lease_left(lease) <= 60
    kv.lease_revoke(lease)
    with pytest.raises(LeaseGoneError):
        kv.lease_left(lease)


def test_a_store_without_access_control_knows_no_login(kv):
    assert kv.login() is False
    assert kv.accounts.enabled() is False


def test_every_store_has_all_that_the_contract_says(kv):
    said = {name for name in vars(Kv) if not name.startswith("_") or name in {"__enter__", "__exit__"}}
    assert said <= set(dir(kv))
    assert "login" in said
