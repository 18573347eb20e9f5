"""What a plan pushes reaches the store as sets, large members included, and is recognised as one's own."""

import msgspec

from configstore.errors import TooLargeError
from configstore.model.keys import Keys
from configstore.model.record import split
from configstore.model.seal import Master, Policy, Secret
from configstore.model.signature import Signature
from configstore.store.envelope import Envelopes
from sidecar.mapping import Mapping
from sidecar.planner.plan import Push
from sidecar.planner.sides import LocalEntry
from sidecar.remote.commit import PathFailed, commit
from tests.harness.named import GONE, a_dir, a_file, a_tree
from tests.memory_store.store import MemoryKv

MAPPING = Mapping(name="data", store="data", path="/data")


def pushes_of(contents):
    """Return pushes of new files, and what reads them."""
    signature = Signature(*[0] * len(Signature.__struct_fields__))
    entries = {path: a_file(content) for path, content in contents.items()}
    pushes = [
        Push(path=path, entry=entry, local=LocalEntry(entry=entry, signature=signature), expected=0)
        for path, entry in entries.items()
    ]
    return pushes, lambda push: lambda: split(contents[push.path])


def commit_all(tree, pushes, source):
    return commit(tree, MAPPING, pushes, {push.path: tree.new_write_id() for push in pushes}, source)


def test_large_files_written_together_are_committed_together():
    tree = a_tree(MemoryKv())
    contents = {name: name.encode() * 2_500_000 for name in "abc"}
    pushes, source = pushes_of(contents)
    committed = commit_all(tree, pushes, source)
    assert len({each.mod_revision for each in committed.done.values()}) == 1
    assert {name: tree.content(tree.read(f"data/{name}")) for name in "abc"} == contents


def test_of_no_known_set_a_directory_is_not_cut_where_a_transaction_can_be_cut_elsewhere():
    tree = a_tree(MemoryKv())
    names = [f"{name}/{number}" for name in ("cert", "key") for number in range(100)]
    pushes, source = pushes_of({f"{name.partition('/')[2]}/{name.partition('/')[0]}": b"x" for name in names})
    done = commit_all(tree, pushes, source).done
    revisions = [{done[f"{number}/{name}"].mod_revision for name in ("cert", "key")} for number in range(100)]
    assert {len(each) for each in revisions} == {1}
    assert len(set.union(*revisions)) > 1


class Narrow(MemoryKv):
    """An etcd whose operator allows no more than a few operations in one transaction."""

    refused = 0

    def txn(self, compares, operations, *, otherwise_get=()):
        if len(operations) > 40:
            Narrow.refused += 1
            raise TooLargeError("too many operations in txn request")
        return super().txn(compares, operations, otherwise_get=otherwise_get)


def test_a_plan_that_is_taken_apart_after_a_part_of_it_landed_is_no_conflict_with_itself():
    tree = a_tree(Narrow())
    contents = {f"{number:02}": b"%02d" % number * 30_000 for number in range(30)}
    contents |= {f"{number:03}": b"x" for number in range(100)}
    pushes, source = pushes_of(contents)
    committed = commit_all(tree, pushes, source)
    assert Narrow.refused
    assert (committed.stale, committed.refused) == ({}, {})
    assert set(committed.done) == set(contents)
    assert all(found.version == 1 for found in tree.list("data").records.values())


def test_no_set_is_taken_apart_for_what_is_compared():
    class Tight(MemoryKv):
        """One whose limit a set keeps to, if nothing else is compared with it."""

        limit = 1000

        def txn(self, compares, operations, *, otherwise_get=()):
            if len(compares) > self.limit:
                raise TooLargeError("too many operations in txn request")
            return super().txn(compares, operations, otherwise_get=otherwise_get)

    kv = Tight()
    tree = a_tree(kv)
    pushes, source = pushes_of(dict.fromkeys(("certs/a", "certs/b"), b"old"))
    commit_all(tree, pushes, source)
    items = {each.key: each for each in kv.range(b"/", b"0").items}
    pushes, source = pushes_of(dict.fromkeys(("certs/a", "certs/b"), b"new"))
    there = {push.path: items[tree.keys.file(MAPPING.absolute(push.path))] for push in pushes}
    changed = [msgspec.structs.replace(push, expected=there[push.path].mod_revision, in_set=1) for push in pushes]
    kv.limit = 2
    ids = {push.path: tree.new_write_id() for push in changed}
    committed = commit(tree, MAPPING, changed, ids, source, at_hand=lambda path, _: there[path])
    assert len({each.mod_revision for each in committed.done.values()}) == 1
    assert committed.done.keys() == there.keys()


def test_no_directory_is_gone_before_what_waits_in_it():
    """What a move leaves behind waits for the file, and where it lies is no other set's to take away."""
    tree = a_tree(MemoryKv())
    there, source = pushes_of({"old/d/moved": b"x"})
    folders = [Push(path=path, entry=a_dir(), local=None, expected=0) for path in ("old", "old/d")]
    done = commit_all(tree, [*folders, *there], lambda push: source(push) if push.local else None).done
    new, _ = pushes_of({"new": b"x"})
    new = [msgspec.structs.replace(new[0], in_set=1)]
    gone = [
        Push(path=path, entry=GONE, local=None, expected=done[path].mod_revision, in_set=number)
        for path, number in (("old/d/moved", 1), ("old/d", 0), ("old", 0))
    ]

    def changed(push):
        def pieces():
            raise PathFailed(push.path, None)

        return pieces if push.local else None

    committed = commit_all(tree, [*new, *gone], changed)
    assert committed.done == {}
    assert committed.left == {"old/d/moved", "old/d", "old"}
    assert commit_all(tree, gone, lambda _: None).done.keys() == {"old/d/moved", "old/d", "old"}


def sealing(*subtrees):
    """Return envelopes of a keyring that has keys of these alone."""
    ring = Master(secrets=(Secret(secret=b"s" * 32),)).keyring_of(subtrees)
    return Envelopes(Keys().root, keyring=ring, policy=lambda _: Policy.REQUIRED)


def test_no_set_is_cut_for_want_of_a_key():
    tree = a_tree(MemoryKv(), envelopes=sealing("data/certs"))
    pushes, source = pushes_of({"certs/cert": b"c", "dkim/key": b"k", "certs/other": b"o"})
    pushes = [msgspec.structs.replace(push, in_set=number) for push, number in zip(pushes, (1, 1, 2), strict=True)]
    committed = commit_all(tree, pushes, source)
    assert set(committed.done) == {"certs/other"}
    assert committed.left == {"certs/cert"}
    assert "no key" in committed.failed["dkim/key"].reason
    assert set(tree.list("data").records) == {"data/certs/other"}


class Swapped(MemoryKv):
    """A store during whose first uploads the keyring is replaced by one that fits less."""

    tree = None

    def lease_grant(self, ttl):
        self.tree.envelopes.keyring = sealing("data/dkim").keyring
        return super().lease_grant(ttl)


def test_no_set_is_cut_when_the_keyring_is_replaced_meanwhile():
    kv = Swapped()
    kv.tree = tree = a_tree(kv, envelopes=sealing("data/certs", "data/dkim"))
    pushes, source = pushes_of({"dkim/large": b"l" * 100_000, "certs/cert": b"c", "dkim/key": b"k"})
    pushes = [msgspec.structs.replace(push, in_set=1) for push in pushes]
    committed = commit_all(tree, pushes, source)
    assert committed.done == {}
    assert set(committed.refused) == {"dkim/large", "certs/cert", "dkim/key"}
    assert tree.list("data").records == {}
