"""Sealing a store under live replicas and writers, with a kill in the middle, and back."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from configstore.model.keys import Keys
from configstore.model.record import sha256
from configstore.model.seal import Policy, parse
from configstore.store.envelope import Envelopes
from configstore.store.history import versions
from configstore.store.sealed_values import count_seals
from configstore.store.tree import Tree
from tests.harness.named import a_tree, a_write, mod_revision
from tests.harness.replica import ENVIRONMENT
from tests.harness.waiting import wait_until

BIG = os.urandom(700_000)
FILES = 60


@pytest.fixture
def keys(configstore, tmp_path):
    """Return the folder of a master and of the keyring of `data`."""
    configstore("seal", "keygen", "--out", str(tmp_path / "keys"), "--subtree", "data")
    return tmp_path / "keys"


def stored(kv, root):
    """Return all that lies below a root, as one string of bytes."""
    found = kv.range(f"{root}/".encode(), f"{root}0".encode()).items
    return b"\n".join(part for item in found for part in (item.key, item.value) if b"/replicas/" not in item.key)


def looks(folder):
    """Return what an application would notice of files: content, and that nobody touched them."""
    found = {}
    for each in sorted(folder.iterdir()):
        if each.is_file():
            status = each.stat()
            found[each.name] = (each.read_bytes(), status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    return found


def moved(replica):
    """Return the paths of which a replica has said that it moved them, either way."""
    lines = [line for line in replica.lines() if line["message"] == "mirrored"]
    return {path for line in lines for how in ("pushed", "pulled", "deleted_here") for path in line.get(how, ())}


def test_a_plain_store_with_three_live_replicas_is_sealed_in_place_and_back(
    replica, configstore, keys, kv, kv_root
):
    more = f'[seal]\nkeyring = "{keys / "data"}"'
    configstore("put", "data/plain.conf", content=b"plaintext of the store")
    configstore("put", "data/big.bin", content=BIG)
    three = [replica(name, 'seal = "accept"', more).start() for name in ("one", "two", "three")]
    for each in three:
        each.ready()
        wait_until(
            lambda each=each: moved(each) >= {"plain.conf", "big.bin"}, 20, what="the first pull to be told"
        )
        each.forget_lines()
    before = [looks(each.folder) for each in three]
    assert set(before[0]) == {"plain.conf", "big.bin"}

    master = ("--seal-keyring", str(keys / "master"))
    configstore("seal", "rotate", *master)
    revision = kv.range(b"x").revision
    configstore("wait", "data", "--socket", "", "--applied", "all", "--revision", str(revision))
    dump = stored(kv, kv_root)
    assert not any(part in dump for part in (b"plaintext", BIG[:64], sha256(BIG).encode(), b'"v":1,"kind":"file"'))
    assert [looks(each.folder) for each in three] == before
    assert [moved(each) for each in three] == [set()] * 3  # so no hook ran: it is told of what moved alone
    assert configstore("conflicts", "--json", *master).strip() == b"[]"

    (three[0].folder / "plain.conf").write_bytes(b"plaintext of a replica")
    wait_until(lambda: (three[2].folder / "plain.conf").read_bytes() == b"plaintext of a replica", 20)
    assert b"plaintext" not in stored(kv, kv_root)
    assert configstore("get", "data/plain.conf", *master) == b"plaintext of a replica"

    wait_until(lambda: all(moved(each) for each in three), 20, what="the edit to be told")
    for each in three:
        each.forget_lines()
    before = [looks(each.folder) for each in three]
    configstore("seal", "rotate", "--unseal", *master)
    assert b'"v":2' not in stored(kv, kv_root)
    assert configstore("get", "data/plain.conf") == b"plaintext of a replica"
    assert configstore("get", "data/big.bin") == BIG
    assert [looks(each.folder) for each in three] == before
    assert configstore("conflicts", "--json").strip() == b"[]"


def test_a_new_key_is_taken_under_a_running_replica_and_waited_for(replica, configstore, keys, kv, kv_root):
    master = ("--seal-keyring", str(keys / "master"))
    configstore("put", "data/a.conf", *master, content=b"sealed")
    one = replica("one", "", f'[seal]\nkeyring = "{keys / "data"}"').start().ready()
    wait_until(lambda: moved(one) >= {"a.conf"}, 20, what="the first pull to be told")
    one.forget_lines()
    before = looks(one.folder)
    configstore("seal", "rotate", *master)  # it ends when the replica has read its keyring again
    new, old = parse((keys / "master").read_bytes()).secrets
    (one.folder / "b.conf").write_bytes(b"of the replica")
    wait_until(lambda: kv.range(f"{kv_root}/files/data/b.conf".encode()).items, 20, what="the edit to be sent")
    found = count_seals(Tree(kv, Keys(kv_root), None), None)
    assert found.keys[new.key("data").id].total() >= 3
    assert not found.needs(old.key("data").id)
    assert {name: look for name, look in looks(one.folder).items() if name in before} == before
    assert moved(one) <= {"b.conf"}
    assert configstore("conflicts", "--json", *master).strip() == b"[]"


class Load:
    """Somebody who goes on writing with the keyring as it was, and as it is, until told to stop."""

    def __init__(self, kv, root, master):
        self._master = master
        self.envelopes = Envelopes(
            root, keyring=parse(master.read_bytes()).keyring(), policy=lambda _: Policy.REQUIRED
        )
        self.tree = a_tree(kv, root, envelopes=self.envelopes)
        self.written = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def put(self, path, content):
        """Write a file, whatever lies there; as all writers do, look again after a failed compare."""
        while True:
            write = a_write(path, content, mod_revision(self.tree, path))
            if self.tree.commit([write], retention=600).complete:
                self.written[path] = content
                return

    def _run(self):
        count = 0
        while not self._stop.is_set():
            self.envelopes.keyring = parse(self._master.read_bytes()).keyring()  # as a sidecar does
            self.put(f"data/{count % 7}", b"written under load, %d" % count)
            count += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def test_a_rotation_under_load_that_is_killed_is_gone_on_with(configstore, keys, etcd, kv, kv_root):
    load = Load(kv, kv_root, keys / "master")
    for number in range(FILES):
        load.put(f"data/{number}", b"first, %d" % number)
    load.put("data/big", BIG)
    load.put("data/big", BIG + b"more")
    old = parse((keys / "master").read_bytes()).secrets[0]
    master = ("--seal-keyring", str(keys / "master"))
    words = [sys.executable, "-m", "configstore", "--endpoints", etcd.endpoint, "--root", kv_root]
    with load:
        command = [*words, "seal", "rotate", "--rate", "40", *master]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT)

        def sealed_anew():
            found = count_seals(load.tree, parse((keys / "master").read_bytes()).keyring())
            return sum(each.total() for key, each in found.keys.items() if key != old.key("data").id)

        wait_until(lambda: sealed_anew() > FILES // 4, 30, what="a rotation under way")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stderr.close()
        halfway = count_seals(load.tree, parse((keys / "master").read_bytes()).keyring())
        assert halfway.due
        assert (
            b"new key"
            not in subprocess.run(
                [*words, "seal", "rotate", "--rate", "5000", *master],
                capture_output=True,
                env=ENVIRONMENT,
                check=True,
            ).stderr
        )
    found = parse((keys / "master").read_bytes())
    assert [each.secret for each in found.secrets[1:]] == [old.secret]
    only_new = Envelopes(kv_root, keyring=found.keyring(), policy=lambda _: Policy.REQUIRED)
    seen = Tree(kv, Keys(kv_root), None, envelopes=only_new)
    assert count_seals(seen, found.keyring()).due == 0
    assert not count_seals(seen, found.keyring()).needs(old.key("data").id)
    for path, content in load.written.items():
        assert seen.content(seen.read(path)) == content
        for each in versions(seen, path).known:
            assert seen.content(each)
    assert configstore("seal", "forget", *master).split()
    assert configstore("get", "data/big", "--seal-keyring", str(keys / "data")) == BIG + b"more"


def test_a_signal_ends_a_rotation_cleanly(configstore, keys, etcd, kv, kv_root):
    load = Load(kv, kv_root, keys / "master")
    for number in range(20):
        load.put(f"data/{number}", b"x")
    words = [sys.executable, "-m", "configstore", "--endpoints", etcd.endpoint, "--root", kv_root]
    command = [*words, "seal", "rotate", "--rate", "1", "--seal-keyring", str(keys / "master")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT)
    wait_until(lambda: count_seals(load.tree, None).keys.__len__() > 1, 30, what="a rotation under way")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 1
    assert b"run this again to continue" in said
    assert b"Traceback" not in said
