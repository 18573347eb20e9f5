"""Live sidecars while their store is sealed in place, sealed again, and unsealed: nothing happens to them."""

import os
import threading
from functools import partial

from configstore.model.path import ROOT
from configstore.model.record import Kind
from configstore.model.seal import Policy
from configstore.store.conflicts import losers
from configstore.store.values import Stored, Write
from tests.harness.keyrings import DATA, FIRST, SECOND, ring, save, sealed_tree, table
from tests.harness.named import GONE, a_dir, a_link, put
from tests.harness.waiting import wait_until

SOON = 40.0


def stored_again(tree, how):
    """Store what a tree reads as another one does, each as the same write; returns the last revision."""
    revision = 0
    for found in sorted(tree.list(DATA).records.values(), key=lambda each: each.mod_revision):
        assert isinstance(found, Stored)
        again = Write(
            path=found.path,
            entry=found.entry,
            content=partial(tree.pieces, found) if found.entry.kind is Kind.FILE else None,
            expected=found.mod_revision,
            write_id=found.record.origin.write_id,
        )
        outcome = how.commit([again], retention=3600)
        assert outcome.complete
        revision = max([revision, *outcome.done.values()])
    return revision


def touched(folder):
    """Return by which it shows that a file was placed anew."""
    found = {path: path.lstat() for path in folder.rglob("*") if ".configstore" not in path.parts}
    return {path: (each.st_ino, each.st_mtime_ns, each.st_ctime_ns) for path, each in found.items()}


def test_a_plain_store_is_sealed_in_place_and_back_under_three_sidecars_that_notice_nothing(
    replica, kv, kv_root, tmp_path
):
    keyring = save(tmp_path / "keyring", ring(FIRST))
    hooks = {name: tmp_path / f"{name}-hooks" for name in ("one", "two", "three")}
    policy = {name: f'on_change = ["sh", "-c", "echo x >> {path}"]\nlease = "job"' for name, path in hooks.items()}
    policy["three"] = policy["three"].replace('lease = "job"', 'direction = "pull"\nowner = "0:0"')
    plain = sealed_tree(kv, kv_root, None)
    put(plain, {f"data/f{number}": b"%d" % number for number in range(20)})
    put(plain, {"data/folder": a_dir()})
    put(plain, {"data/folder/large": os.urandom(700_000), "data/gone": b""})
    put(plain, {"data/link": a_link("f1")})
    put(plain, {"data/gone": GONE})
    made = [replica(name, each, table(keyring, "accept")).start() for name, each in policy.items()]
    for one in made:
        one.ready()
        wait_until(hooks[one.name].exists)
        wait_until(one.has_agreed)
    # What waits for its lease is neither lost nor a conflict when the record below it is stored again.
    (made[0].folder / "f1").write_bytes(b"edited without the lease")
    wait_until(lambda: "without the lease job" in made[0].ask("/readyz")[1])
    before = [(touched(one.folder), hooks[one.name].read_bytes()) for one in made]
    answers, over = set(), threading.Event()

    def look():
        while not over.is_set():
            answers.update(one.ask("/readyz")[0] for one in made)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        seals = sealed_tree(kv, kv_root, ring(FIRST), Policy.ACCEPT)
        again = sealed_tree(kv, kv_root, ring(SECOND, FIRST), Policy.ACCEPT)
        unseals = sealed_tree(kv, kv_root, ring(SECOND, FIRST), Policy.OFF)
        for how in (seals, again, unseals):
            if how is again:
                save(keyring, ring(SECOND, FIRST))
            revision = stored_again(again, how)
            for one in made:
                wait_until(lambda one=one, at=revision: one.metric("revision") >= at, SOON)
                wait_until(lambda one=one: one.metric("behind") == 0, SOON)
                wait_until(lambda one=one: one.metric("unopened") == 0, SOON)
    finally:
        over.set()
        looking.join()
    assert answers == {200}
    assert [(touched(one.folder), hooks[one.name].read_bytes()) for one in made] == before
    assert not losers(again, ROOT)
    assert (made[0].folder / "f1").read_bytes() == b"edited without the lease"
    holding = made[0].client("hold", "job", "--", "true")
    assert (*holding.communicate(timeout=60), holding.returncode) == ("", "", 0)
    wait_until(lambda: (made[2].folder / "f1").read_bytes() == b"edited without the lease", SOON)
