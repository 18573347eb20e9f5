"""etcd restored from an older backup under a running sidecar: frozen before anything is applied."""

import shutil
import signal

from configstore.model.keys import Keys
from configstore.store.store import Store
from configstore.store.subtree_revisions import revisions_below
from tests.e2e.faults import says
from tests.harness import named, zygote
from tests.harness.named import a_dir, a_tree
from tests.harness.replica import ENVIRONMENT, Replica
from tests.harness.servers import connect
from tests.harness.waiting import freeze, wait_until


def put(etcd, path, what):
    """Write a path as somebody else; returns the store's revision."""
    with connect(etcd.endpoint) as kv:
        return named.put(a_tree(kv), {path: what})


def test_a_restored_backup_freezes_the_mapping_until_the_right_etcd_is_back(own_etcd, tmp_path):
    etcd, backup, newest = own_etcd, tmp_path / "backup", tmp_path / "newest"
    put(etcd, "data", a_dir())
    put(etcd, "data/a", b"old")
    put(etcd, "data/b", b"b")
    etcd.stop()
    shutil.copytree(etcd.data_dir, backup)
    etcd.start()
    with Replica("one", tmp_path, [etcd.endpoint], "/configstore") as one:
        one.start().ready()
        seen = put(etcd, "data/a", b"new")
        wait_until(lambda: (one.folder / "a").read_bytes() == b"new")
        freeze(one.process)  # so that it sees nothing until the revision has overtaken it
        etcd.stop()
        etcd.data_dir.rename(newest)
        shutil.copytree(backup, etcd.data_dir)
        etcd.start()
        for number in range(8):
            revision = put(etcd, "data/b", b"of the restored etcd %d" % number)
        assert revision > seen
        one.process.send_signal(signal.SIGCONT)
        wait_until(lambda: one.metric("halted") == 1, 60, what="the restored backup to be noticed")
        status, words = one.ask("/readyz")
        assert (status, "restored snapshot?" in words) == (503, True)
        status = ["--endpoints", etcd.endpoint, "status"]

        def told():  # the report goes with the session that it made anew in this etcd
            return says("a restored etcd", zygote.run_text("configstore", status, ENVIRONMENT).stdout)

        wait_until(told, what="status to name the restored etcd")
        cycles = one.metric("cycles_total")

        def looked_twice():
            (one.folder / "c").write_bytes(b"edited here")
            return one.metric("cycles_total") > cycles + 1

        wait_until(looked_twice)
        assert {name: (one.folder / name).read_bytes() for name in one.tree()} == {
            "a": b"new",
            "b": b"b",
            "c": b"edited here",
        }
        with connect(etcd.endpoint) as kv:
            assert revisions_below(Store(kv, Keys()), "data").newest == revision

        etcd.stop()
        shutil.rmtree(etcd.data_dir)
        newest.rename(etcd.data_dir)
        etcd.start()
        put(etcd, "data/b", b"goes on")
        wait_until(lambda: (one.folder / "b").read_bytes() == b"goes on", 60)
        wait_until(lambda: one.metric("halted") == 0)
        assert (one.folder / "a").read_bytes() == b"new"
        with connect(etcd.endpoint) as kv:
            wait_until(lambda: kv.range(Keys().file("data/c")).items, what="the edit made meanwhile in the store")
