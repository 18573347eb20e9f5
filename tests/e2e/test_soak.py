"""Writers on three replicas while sidecars, etcd members and the ways between them fail at random."""

import contextlib
import os
import random
import threading
import time

import pytest

from configstore.model.path import StorePath
from configstore.model.record import Kind, sha256
from configstore.store.conflicts import losers
from configstore.store.history import versions_below
from tests.e2e.soaking import (
    SUBTREES,
    Ledger,
    PairObserver,
    PairUser,
    Soaked,
    Trouble,
    User,
    calm,
    conflicts_below,
    end_of,
    three_replicas,
)
from tests.harness.named import a_tree
from tests.harness.waiting import wait_until

TROUBLES = int(os.environ.get("CONFIGSTORE_SOAK_TROUBLES", "500"))
"""How often something is spoilt, some four seconds after another."""

MIXED = 20.0
"""Seconds for which a replica may show a pair that is mixed: a sidecar that is killed or frozen while it places
one is back after less."""


def soak(troubles, seed, base, binary):
    """Let users work while so many things are spoilt, check that nothing is lost, and return the figures."""
    chance = random.Random(seed)
    policy = 'keep = 100000\nexclude = [".*.tmp"]'
    with three_replicas(base, binary, policy, Soaked, SUBTREES, proxied=True) as (kv, members, replicas, proxies):
        ledger = Ledger(kv)
        users = [User(each, f"{seed}-{each.name}") for each in replicas]
        pairs = [PairUser(each, f"{seed}-{each.name}") for each in replicas]
        observers = [PairObserver(each) for each in replicas]
        trouble = Trouble(chance, members, replicas, proxies, ledger)
        pause = threading.Event()
        ledger.start()
        with at_work(observers):
            with at_work([*users, *pairs]):
                for _ in range(troubles):
                    pause.wait(chance.uniform(0.2, 2.0))
                    mend = trouble.make()
                    pause.wait(chance.uniform(0.1, 4.0))
                    mend()
            for each in replicas:
                each.ready()
            wait_until(lambda: calm(replicas), 120, what="all replicas to become equal")
        end_of(ledger, kv)
        check_last_words(users)
        tree = a_tree(kv)
        known = retrievable(tree)
        return {
            "seed": seed,
            "operations": sum(sum(user.done.values()) for user in users),
            "sets": sum(user.number for user in pairs),
            "accepted values": len(ledger.accepted),
            "spoilt": dict(trouble.done),
            "lost": len({each for each in ledger.accepted if each not in known}),
            "conflicts": len(conflicts_below(tree, "data")) + len(conflicts_below(tree, "contended")),
            "conflicts with oneself": self_conflicts(tree),
            "torn in the store": torn(ledger, pairs),
            "mixed for seconds": round(max(observer.longest for observer in observers), 3),
            "mixed at the end": [name for observer in observers for name in observer.mixed()],
        }


@contextlib.contextmanager
def at_work(threads):
    """Let threads work, and end them, also after a failure."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.stop.set()
            thread.join()


def check_last_words(users):
    """Fail when the last thing that the only writer of a path did is not everywhere."""
    for name, content in ((name, content) for user in users for name, content in user.own.items()):
        for each in users:
            path = each.replica.folder / name
            found = path.read_bytes() if path.exists() else None
            assert found == content, f"{name}: the last thing its only writer wrote is not at {each.replica.name}"


def self_conflicts(tree):
    """Return the paths that had one writer, and a conflict all the same."""
    return conflicts_below(tree, "own") + conflicts_below(tree, "pairs")


def torn(ledger, pairs):
    """Return the sets that the store did not take in one transaction, though they were written at once."""
    slow = {digest for user in pairs for digest in user.slow}
    return [each for each in ledger.torn if slow.isdisjoint(digest for _, digest in each[1:])]


def retrievable(tree):
    """Return path and digest of every value that can be had back, having fetched each."""
    found = set()
    for subtree in SUBTREES:
        for path, versions in versions_below(tree, StorePath(subtree)).items():
            for each in versions.known:
                if each.entry.kind is Kind.FILE:
                    assert sha256(tree.content(each)) == each.entry.sha256
                    found.add((path, each.entry.sha256))
        found |= {(each.path, each.record.entry.sha256) for each in losers(tree, StorePath(subtree))}
    return found


def check(figures):
    print(figures)
    assert figures["lost"] == 0
    assert figures["conflicts with oneself"] == []
    assert figures["torn in the store"] == []
    assert figures["mixed at the end"] == []
    assert figures["mixed for seconds"] < MIXED


def test_nothing_is_lost_under_kills(tmp_path, binary_named):
    figures = soak(6, os.environ.get("CONFIGSTORE_SOAK_SEED", "1"), tmp_path, binary_named("debian"))
    check(figures)
    assert figures["operations"] > 200
    assert figures["sets"] > 10
    assert sum(figures["spoilt"].values()) == 6


@pytest.mark.soak
@pytest.mark.timeout(20 * TROUBLES + 900)
def test_nothing_is_lost_under_long_kills(tmp_path, binary_named):
    seed = os.environ.get("CONFIGSTORE_SOAK_SEED", str(time.time_ns()))
    check(soak(TROUBLES, seed, tmp_path, binary_named("debian")))
