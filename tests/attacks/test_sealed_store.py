"""A hostile store in front of sidecars that seal: what it moves, changes, plants, puts back, or can read."""

import os

import pytest

from configstore.errors import CorruptError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.record import Deletion, Origin, Record, encode, sha256
from configstore.store.api import Delete, Exists, Put, range_all
from configstore.store.conflicts import Unread, all_sides, losers
from configstore.store.history import versions
from configstore.store.values import UnreadableRecord
from tests.harness.keyrings import DATA, FIRST, everything, raw, ring, save, sealed_tree, table
from tests.harness.named import GONE, a_dir, a_file, a_link, put
from tests.harness.waiting import wait_until

BOTH = ring(FIRST, subtrees=(DATA, StorePath("other")))
LARGE = b"large piece " * 20_000


def values(kv, root, part):
    """Return all values below a part of the store, by key."""
    prefix = f"{root}/{part}/".encode()
    return {item.key: item.value for page in range_all(kv, prefix, prefix[:-1] + b"0") for item in page.items}


def test_no_value_opens_anywhere_but_where_it_was_written(kv, kv_root):
    """Be it a record, a superseded one, a losing side or a piece; of another path, mapping or root."""
    tree, elsewhere = (sealed_tree(kv, root, BOTH) for root in (kv_root, f"{kv_root}-b"))
    keys = Keys(kv_root)
    for content in (b"first", b"second"):
        put(tree, {"data/a": content, "data/b": content, "other/a": content})
    put(tree, {"data/large": LARGE, "data/large2": LARGE})
    losing = a_file(b"lost")
    for path in ("data/a", "data/b"):
        tree.keep_conflict(StorePath(path), losing, b"lost", retention=600)
    files, past, lost = (values(kv, kv_root, part) for part in ("files", "past", "conflicts"))
    a = keys.file(StorePath("data/a"))
    places = {a: set(files) - {a}, "past": set(past), "conflicts": set(lost)}
    assert all(places.values())

    def reads(at, path, value, where=tree):
        kv.txn((), (Put(at, value),))
        found = where.decode_item(kv.range(where.keys.file(StorePath(path))).items[0])
        return not isinstance(found, UnreadableRecord)

    for source, value in {**files, **past, **lost}.items():
        its_own = source == a or source.startswith(keys.past_of(StorePath("data/a")))
        assert reads(a, "data/a", value) == its_own, source
    assert not reads(elsewhere.keys.file(StorePath("data/a")), "data/a", files[a], elsewhere)
    assert reads(a, "data/a", files[a])
    # What is kept is swapped: the superseded records of two paths, and their losing sides.
    (one, two), (mine, others) = sorted(past)[:2], sorted(lost)[:2]
    kv.txn((), (Put(one, past[two]), Put(mine, lost[others]), Put(others, files[a])))
    assert isinstance(versions(tree, StorePath("data/a")).known[0], UnreadableRecord)
    assert [type(each) for each in all_sides(tree, DATA)] == [Unread, Unread]
    pieces = values(kv, kv_root, "chunks")
    (piece, *_), (other, *_) = (
        [key for key in pieces if b"/%s//" % name in key] for name in (b"large", b"large2")
    )
    kv.txn((), (Put(piece, pieces[other]),))
    with pytest.raises(CorruptError, match="does not open"):
        tree.content(tree.read(StorePath("data/large")))


@pytest.fixture
def sealing(replica, tmp_path):
    """Return a ready sidecar that seals what is in its directory."""

    def make(policy=""):
        return replica("one", policy, table(save(tmp_path / "keyring", ring(FIRST)))).start().ready()

    return make


def plain(entry, content=None, deletion=None):
    """Return a record as anybody may make it."""
    origin = Origin(write_id=os.urandom(6).hex(), replica="", host="", time="", deletion=deletion)
    return encode(Record(entry=entry, origin=origin, content=content))


def test_what_is_planted_changed_or_moved_is_named_and_nothing_of_it_is_applied(sealing, kv, kv_root):
    one, keys = sealing(), Keys(kv_root)
    at = lambda name: keys.file(StorePath(f"data/{name}"))  # noqa: E731
    for name in ("a", "b", "c", "d"):
        (one.folder / name).write_bytes(name.encode())
    wait_until(lambda: one.metric("paths") == 4)
    before = one.tree()
    a, b, c = (raw(kv, kv_root, f"data/{name}") for name in "abc")
    kv.txn(
        (),
        (
            Put(at("a"), plain(a_file(b"evil"), b"evil")),
            Put(at("b"), a),  # moved
            Put(at("c"), c.replace(b'"mode":"0644"', b'"mode":"0666"')),
            Put(at("new"), b),
            Put(at("link"), plain(a_link("a"))),
        ),
    )
    wait_until(lambda: one.metric("unopened") == 5)
    assert c != raw(kv, kv_root, "data/c")
    said = "\n".join(f"{line.get('path')}: {line.get('reason')}" for line in one.lines())
    assert all(f"{name}: it is plain" in said for name in ("a", "link"))
    assert all(f"{name}: it does not open with its key" in said for name in ("b", "c", "new"))
    assert one.tree() == before
    assert one.ask("/readyz")[0] == 200
    put(
        sealed_tree(kv, kv_root, ring(FIRST)),
        {f"data/{name}": b"mended" for name in ("a", "b", "c", "new", "link")},
    )
    wait_until(lambda: {(one.folder / name).read_bytes() for name in ("a", "b", "c")} == {b"mended"})
    wait_until(lambda: one.metric("unopened") == 0)


def test_an_older_record_that_is_put_back_is_taken_and_revealed(sealing, kv, kv_root, configstore):
    """Sealing cannot tell it from a person's restore; the chain of the records, and what lost, can."""
    one = sealing()
    key = Keys(kv_root).file(StorePath("data/a"))
    (one.folder / "a").write_bytes(b"older")
    wait_until(lambda: one.metric("paths") == 1)
    older = raw(kv, kv_root, "data/a")
    (one.folder / "a").write_bytes(b"newer")
    wait_until(lambda: raw(kv, kv_root, "data/a") != older)
    kv.txn((), (Put(key, older),))
    wait_until(lambda: (one.folder / "a").read_bytes() == b"older")
    assert any("was an older one put back?" in line["message"] and line["path"] == "a" for line in one.lines())
    assert b"1 losing side" in configstore("status")
    (lost,) = losers(sealed_tree(kv, kv_root, ring(FIRST)), DATA)
    assert lost.record.content == b"newer"


@pytest.mark.parametrize("deletion", ["one each", "confirmed", "none"])
def test_many_planted_tombstones_halt_whatever_they_say_and_one_is_kept_under_conflicts(
    sealing, kv, kv_root, deletion
):
    one, keys = sealing(), Keys(kv_root)
    for number in range(20):
        (one.folder / f"f{number}").write_bytes(b"%d" % number)
    wait_until(lambda: one.metric("paths") == 20)

    def tombstone(number):
        claims = {
            "one each": Deletion(id=f"d{number}", count=1),
            "confirmed": Deletion(id="d", count=20, confirmed=True),
            "none": None,
        }
        return Put(keys.file(StorePath(f"data/f{number}")), plain(GONE, deletion=claims[deletion]))

    kv.txn((), (tombstone(0),))
    wait_until(lambda: not (one.folder / "f0").exists())
    assert any(b"conflicts/data/f0//" in key for key in values(kv, kv_root, "conflicts"))
    kv.txn((), [tombstone(number) for number in range(1, 20)])
    wait_until(lambda: one.metric("halted") == 1)
    assert len(one.tree()) == 19


def test_a_planted_directory_takes_no_files_place_until_a_person_removed_the_file(
    sealing, kv, kv_root, configstore
):
    one, keys = sealing(), Keys(kv_root)
    for name in "ab":
        (one.folder / name).write_bytes(b"mine")
    wait_until(lambda: one.metric("paths") == 2)
    directory = plain(a_dir(0o777))
    kv.txn((), [Put(keys.file(StorePath(f"data/{name}")), directory) for name in "ab"])
    wait_until(lambda: one.metric("unopened") == 2)
    assert {path.read_bytes() for path in one.folder.glob("[ab]")} == {b"mine"}
    configstore("rm", "-r", "data/a", "--yes")
    configstore("mkdir", "data/a")
    wait_until((one.folder / "a").is_dir)
    assert one.metric("unopened") == 1


def test_a_dump_of_the_store_shows_no_content_digest_target_or_equality(sealing, kv, kv_root):
    one = sealing()
    secret, large = os.urandom(24).hex().encode(), os.urandom(16).hex().encode() * 30_000
    for name in ("a", "b"):
        (one.folder / name).write_bytes(secret)
        (one.folder / f"large-{name}").write_bytes(large)
    (one.folder / "link").symlink_to("a-target-to-be-hidden")
    wait_until(lambda: one.metric("paths") == 5)
    put(sealed_tree(kv, kv_root, ring(FIRST)), {"data/a": b"the store's"})
    wait_until(lambda: (one.folder / "a").read_bytes() == b"the store's")
    (one.folder / "b").unlink()
    wait_until(lambda: b'"kind":"gone"' in raw(kv, kv_root, "data/b"))
    dump = everything(kv, kv_root)
    digests = [sha256(each).encode() for each in (secret, large, large[: 512 * 1024], large[512 * 1024 :])]
    assert not [each for each in (secret, large[:64], b"a-target-to-be-hidden", *digests) if each in dump]
    names = [key.rpartition(b"//")[2] for key in values(kv, kv_root, "chunks")]
    assert len(names) == 4
    assert len(set(names)) == 4, "equal pieces of two files have the same name"


def test_a_record_that_the_store_loses_and_brings_back_opens_still(sealing, kv, kv_root):
    one, key = sealing(), Keys(kv_root).file(StorePath("data/a"))
    (one.folder / "a").write_bytes(b"mine")
    wait_until(lambda: one.metric("paths") == 1)
    value = raw(kv, kv_root, "data/a")
    kv.txn((Exists(key),), (Delete(key),))
    wait_until(lambda: "vanished" in one.ask("/readyz")[1])
    assert (one.folder / "a").read_bytes() == b"mine"
    kv.txn((), (Put(key, value),))
    wait_until(lambda: one.metric("problems") == 0)
    assert (one.folder / "a").read_bytes() == b"mine"
