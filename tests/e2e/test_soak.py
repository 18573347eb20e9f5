"""Writers on three replicas while sidecars and etcd members are killed, frozen and started again at random."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter

import pytest

from configstore.errors import CompactedError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.record import Kind, sha256
from configstore.store.conflicts import losers
from configstore.store.history import versions_below
from configstore.store.tree import Tree
from configstore.store.values import Stored, Writer
from tests.e2e.replica import Replica
from tests.e2e.test_bad_days import make_root
from tests.servers import cluster, connect
from tests.waiting import wait_until

SHARED = [f"shared/{number}" for number in range(5)]


class User(threading.Thread):
    """Writes files of its own, and files that all users write, the way programs do."""

    def __init__(self, replica, seed):
        super().__init__(name=f"user:{replica.name}", daemon=True)
        self.replica, self.chance, self.stop = replica, random.Random(seed), threading.Event()
        self.own = {f"{replica.name}/{number}": None for number in range(20)}
        self.done = Counter()

    def run(self):
        for name in ("shared", self.replica.name):
            (self.replica.folder / name).mkdir(exist_ok=True)
        while not self.stop.wait(self.chance.uniform(0.002, 0.05)):
            name = self.chance.choice([*self.own, *SHARED])
            how = self.chance.choice(["in place", "rename", "rename", "delete"])
            with contextlib.suppress(FileNotFoundError):  # a directory that was deleted elsewhere
                self.act(name, how)
                self.done[how] += 1

    def act(self, name, how):
        path = self.replica.folder / name
        content = f"{self.replica.name} {sum(self.done.values())} ".encode() * self.chance.choice([1, 200, 8000])
        if how == "delete":
            if name in self.own:
                path.unlink(missing_ok=True)
                self.own[name] = None
            return
        if how == "in place":
            path.write_bytes(content)
        else:
            hidden = path.with_name(f".{path.name}.tmp")
            hidden.write_bytes(content)
            hidden.rename(path)
        if name in self.own:
            self.own[name] = content


class Ledger(threading.Thread):
    """Follows the store and remembers every value that it ever accepted."""

    def __init__(self, kv):
        super().__init__(name="ledger", daemon=True)
        self.accepted, self.tree, self.seen = set(), tree_of(kv), 0
        self.watch = kv.watch(*self.tree.keys.files_below("data"), start_revision=1)

    def run(self):
        for batch in self.watch:
            for event in batch.events:
                found = self.tree.decode_item(event.item)
                assert isinstance(found, Stored), found
                if found.entry.kind is Kind.FILE:
                    self.accepted.add((found.path, found.entry.sha256))
            self.seen = batch.revision


def tree_of(kv):
    return Tree(kv, Keys(), Writer(replica="t", host="t", now=lambda: "", new_id=lambda: ""))


def spoil(chance, members, replicas):
    """Kill or freeze one of them, or compact; returns what was done and how it is mended."""
    what = chance.choice(["kill sidecar", "kill sidecar", "kill etcd", "freeze etcd", "freeze sidecar", "compact"])
    if what == "kill sidecar":
        replica = chance.choice(replicas)
        replica.end(signal.SIGKILL)
        return what, replica.start
    if what == "kill etcd":
        member = chance.choice(members)
        member.kill()
        return what, lambda: member.start(wait=False)
    if what == "compact":
        with connect(*(each.endpoint for each in members)) as kv, contextlib.suppress(CompactedError):
            kv.compact(kv.status().revision - 100)
        return what, lambda: None
    frozen = chance.choice(members if what == "freeze etcd" else replicas).process
    frozen.send_signal(signal.SIGSTOP)
    return what, lambda: frozen.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def three_replicas(base, binary, policy):
    """Run three ready replicas of `data`, each preferring another member of a cluster of three.

    Yields a client of the store, the members, and the replicas.
    """
    with contextlib.ExitStack() as stack:
        members = stack.enter_context(cluster(base / "cluster", binary))
        endpoints = [each.endpoint for each in members]
        kv = stack.enter_context(connect(*endpoints))
        make_root(kv)
        replicas = [
            stack.enter_context(
                Replica(name, base, endpoints[place:] + endpoints[:place], "/configstore", policy)
            ).start()
            for place, name in enumerate(("one", "two", "three"))
        ]
        yield kv, members, [each.ready() for each in replicas]


def soak(seconds, seed, base, binary):
    """Let users work for so long while things are spoilt, and check that nothing is lost. Returns the figures."""
    chance, spoilt = random.Random(seed), Counter()
    policy = 'keep = 100000\nexclude = [".*.tmp"]'
    with three_replicas(base, binary, policy) as (kv, members, replicas):
        ledger = Ledger(kv)
        ledger.start()
        users = [User(each, f"{seed}-{each.name}") for each in replicas]
        for user in users:
            user.start()
        end, pause = time.monotonic() + seconds, threading.Event()
        while time.monotonic() < end:
            pause.wait(chance.uniform(0.2, 2.0))
            what, mend = spoil(chance, members, replicas)
            spoilt[what] += 1
            pause.wait(chance.uniform(0.1, 4.0))
            mend()
        for user in users:
            user.stop.set()
            user.join()
        for each in replicas:
            each.ready()
        wait_until(lambda: calm(replicas), 120, what="all replicas to become equal")
        for user in users:
            for name, content in user.own.items():
                path = user.replica.folder / name
                found = path.read_bytes() if path.exists() else None
                assert found == content, f"{name}: the last thing its only writer wrote is not there"
        tree = tree_of(kv)
        last = max(item.mod_revision for item in kv.range(*tree.keys.files_below("data"), keys_only=True).items)
        wait_until(lambda: ledger.seen >= last, 30, what="the ledger to see the end")
        known = retrievable(tree)
        lost = {each for each in ledger.accepted if each not in known}
        ledger.watch.close()
    return {
        "seed": seed,
        "operations": sum(sum(user.done.values()) for user in users),
        "accepted values": len(ledger.accepted),
        "spoilt": dict(spoilt),
        "lost": len(lost),
    }


def calm(replicas):
    """Tell whether all replicas show the same and wait for nothing."""
    trees = [each.tree() for each in replicas]
    return trees[0] == trees[1] == trees[2] and all(
        each.metric("pending") == each.metric("problems") == each.metric("waiting") == 0 for each in replicas
    )


def retrievable(tree):
    """Return path and digest of every value that can be had back, having fetched each."""
    found = set()
    for path, versions in versions_below(tree, StorePath("data")).items():
        for each in versions.known:
            if each.entry.kind is Kind.FILE:
                assert sha256(tree.content(each)) == each.entry.sha256
                found.add((path, each.entry.sha256))
    return found | {(each.path, each.record.entry.sha256) for each in losers(tree, StorePath("data"))}


@pytest.mark.timeout(240)
def test_nothing_is_lost_under_kills(tmp_path, binary_named):
    figures = soak(15, os.environ.get("CONFIGSTORE_SOAK_SEED", "1"), tmp_path, binary_named("debian"))
    print(figures)
    assert figures["lost"] == 0
    assert figures["operations"] > 200
    assert sum(figures["spoilt"].values()) > 2


@pytest.mark.soak
def test_nothing_is_lost_under_ten_minutes_of_kills(tmp_path, binary_named):
    seed = os.environ.get("CONFIGSTORE_SOAK_SEED", str(time.time_ns()))
    figures = soak(600, seed, tmp_path, binary_named("debian"))
    print(figures)
    assert figures["lost"] == 0
