"""What is sealed opens only where it lies and as it is; over the reference store and two versions of etcd."""

import hashlib
import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configstore.errors import CorruptError, RefusedError
from configstore.model.keys import prefix_end
from configstore.model.path import StorePath
from configstore.model.record import CHUNK_SIZE, Entry, Kind, RecordError, header_line, sha256
from configstore.model.seal import Keyring, Master, Policy, SealedKind, Secret
from configstore.store.api import Delete, ModRevision, Put
from configstore.store.conflicts import all_sides, losers, pieces_of
from configstore.store.envelope import Envelopes, SealingError
from configstore.store.history import versions
from configstore.store.resealing import LeftError, Resealing
from configstore.store.sealed_values import Family, count_seals, values
from configstore.store.values import UnreadableRecord, Write
from tests.harness.named import GONE, a_file, a_link, a_tree, a_write, mod_revision
from tests.harness.servers import connect
from tests.memory_store.store import MemoryKv

A, B, DKIM, LINK = (StorePath(each) for each in ("certs/a.pem", "certs/b.pem", "dkim/a.key", "certs/link"))
OLD, NEW = Secret(secret=b"o" * 32), Secret(secret=b"n" * 32)
CERTS = StorePath("certs")
MASTER = Master(secrets=(OLD,), subtrees=(CERTS, StorePath("dkim")))
ROTATED = Master(secrets=(NEW, OLD), subtrees=MASTER.subtrees)
BIG = b"".join(bytes([number]) * CHUNK_SIZE for number in range(3)) + b"end"
MONTH = 30 * 86400.0


@pytest.fixture(params=["memory", "etcd_wheel", "etcd_debian"])
def kv(request):
    """The store under test."""
    with (
        MemoryKv() if request.param == "memory" else connect(request.getfixturevalue(request.param).endpoint) as kv
    ):
        yield kv


@pytest.fixture
def tree(kv, kv_root):
    """A tree that seals with the first secret."""
    return make(kv, kv_root)


def make(kv, root, master=MASTER, policy=Policy.REQUIRED, *, lenient=False):
    ring = master.keyring() if isinstance(master, Master) else master
    envelopes = Envelopes(root, keyring=ring, policy=lambda _: policy, lenient=lenient)
    return a_tree(kv, root, now="2026-01-01T00:00:00Z", envelopes=envelopes)


def put(tree, path, content, *, mode=0o600, expected=None, target=""):
    what = a_link(target) if target else (a_file(content, mode), content)
    expected = mod_revision(tree, path) if expected is None else expected
    outcome = tree.commit([a_write(path, what, expected)], retention=MONTH)
    assert outcome.complete
    return outcome.done[path]


def value(tree, path):
    return tree.kv.range(tree.keys.file(path)).items[0].value


def replace(kv, key, new):
    """Write by hand what a hostile store holds."""
    items = kv.range(key).items
    assert kv.txn((ModRevision(key, items[0].mod_revision if items else 0),), (Put(key, new),)).succeeded


def everything(tree):
    root = tree.keys.root.encode()
    return {item.key: item.value for item in tree.kv.range(root + b"/", root + b"0").items}


def content(tree, path):
    return tree.content(tree.read(path))


def resealing(kv, root, master=ROTATED, *, unseal=False):
    tree = make(kv, root, master, Policy.OFF if unseal else Policy.ACCEPT, lenient=True)
    return Resealing(tree, master.keyring(), unseal=unseal, retention=MONTH, clock=lambda: 0.0), tree


def reseal(kv, root, master=ROTATED, *, unseal=False):
    """Seal everything again; returns how much it was."""
    work, tree = resealing(kv, root, master, unseal=unseal)
    return sum(work.seal(each) for each in values(tree))


# What opens, and what does not


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, len(BIG)])
def test_what_is_sealed_comes_back_and_does_not_show(tree, size):
    plain = BIG[:size] if size > 1000 else b"x" * size
    put(tree, A, plain)
    assert content(tree, A) == plain
    found = everything(tree)
    assert sha256(plain).encode() not in b"".join([*found, *found.values()])
    assert hashlib.sha256(plain).digest() not in b"".join(found.values())
    assert not size or not any(plain[:64] in each for each in found.values() if len(plain) > 32)


def test_a_link_does_not_show_where_it_leads(tree):
    put(tree, LINK, b"", target="archive/secret-name.pem")
    assert tree.read(LINK).entry.target == "archive/secret-name.pem"
    assert b"secret-name" not in value(tree, LINK)


def headers():
    """Return changes of a header, each with what it does."""
    return {
        "owner": {"uid": 0},
        "mode": {"mode": "0644"},
        "time": {"time": "2020-01-01T00:00:00Z"},
        "writer": {"host": "elsewhere"},
        "size": {"size": 5},
        "supersedes": {"supersedes": 1},
        "write id": {"write_id": "other"},
        "lease": {"lease": "letsencrypt"},
        "a link": {"kind": "symlink", "mode": None},
        "a directory": {"kind": "dir"},
        "deleted": {"kind": "gone", "mode": None},
    }


@pytest.mark.parametrize("change", headers().values(), ids=headers().keys())
def test_a_record_of_another_header_does_not_open(tree, change):
    put(tree, A, b"private")
    line, _, rest = value(tree, A).partition(b"\n")
    fields = {name: each for name, each in (json.loads(line) | change).items() if each is not None}
    replace(tree.kv, tree.keys.file(A), json.dumps(fields, separators=(",", ":")).encode() + b"\n" + rest)
    with pytest.raises(RecordError, match="does not open"):
        tree.read(A)


def test_a_header_that_says_the_same_in_other_bytes_does_not_open(tree):
    put(tree, A, b"private")
    line, _, rest = value(tree, A).partition(b"\n")
    replace(tree.kv, tree.keys.file(A), line.replace(b'"v":2', b'"v": 2') + b"\n" + rest)
    with pytest.raises(RecordError, match="does not open"):
        tree.read(A)


def test_a_record_does_not_open_at_another_path_nor_below_another_root(tree, kv, kv_root):
    put(tree, A, b"private")
    replace(kv, tree.keys.file(B), value(tree, A))
    with pytest.raises(RecordError, match="does not open"):
        tree.read(B)
    other = make(kv, f"{kv_root}-other")
    replace(kv, other.keys.file(A), value(tree, A))
    with pytest.raises(RecordError, match="does not open"):
        other.read(A)


def test_no_bit_of_a_ciphertext_can_be_flipped(tree):
    put(tree, A, b"private")
    whole = value(tree, A)
    start = whole.index(b"\n") + 1
    for position in range(start, len(whole), 7):
        changed = bytearray(whole)
        changed[position] ^= 1
        replace(tree.kv, tree.keys.file(A), bytes(changed))
        with pytest.raises(RecordError, match="does not open"):
            tree.read(A)
    replace(tree.kv, tree.keys.file(A), whole[:-1])
    with pytest.raises(RecordError, match="does not open"):
        tree.read(A)
    replace(tree.kv, tree.keys.file(A), whole)
    assert content(tree, A) == b"private"


def test_a_piece_opens_under_its_own_name_alone(tree):
    put(tree, A, BIG)
    stored = tree.read(A)
    first, second = (tree.keys.chunk(A, name) for name in stored.record.chunks[:2])
    kept = {key: tree.kv.range(key).items[0].value for key in (first, second)}
    replace(tree.kv, first, kept[second])
    with pytest.raises(CorruptError):
        content(tree, A)
    replace(tree.kv, first, kept[first][:-1] + bytes([kept[first][-1] ^ 1]))
    with pytest.raises(CorruptError):
        content(tree, A)
    replace(tree.kv, first, kept[first])
    assert content(tree, A) == BIG


def test_a_losing_side_is_no_record_and_a_record_no_losing_side(tree):
    put(tree, A, b"winner")
    entry = a_file(b"loser")
    name = tree.keep_conflict(A, entry, b"loser", retention=60)
    assert name == tree.keep_conflict(A, entry, b"loser", retention=60)
    (loser,) = losers(tree, A)
    assert b"".join(pieces_of(tree, loser)) == b"loser"
    side = tree.kv.range(tree.keys.conflict(A, name)).items[0].value
    replace(tree.kv, tree.keys.conflict(A, "f" * 24), value(tree, A))
    assert {each.id for each in losers(tree, A)} == {name}
    replace(tree.kv, tree.keys.file(A), side)
    with pytest.raises(RecordError, match="does not open"):
        tree.read(A)


def test_what_was_superseded_opens_as_it_is(tree):
    put(tree, A, b"one")
    put(tree, A, b"two")
    first = versions(tree, A).known[0]
    assert tree.content(first) == b"one"
    assert tree.kv.range(tree.keys.past(A, first.mod_revision)).items[0].value.count(b'"v":2') == 1


def test_a_tombstone_is_sealed_and_its_digest_hidden(tree):
    at = put(tree, A, b"private")
    gone = Entry(kind=Kind.GONE, size=7, sha256=sha256(b"private"))
    tree.commit([a_write(A, gone, at)], retention=MONTH)
    assert tree.read(A).entry == gone
    assert sha256(b"private").encode() not in b"".join(everything(tree).values())


def test_equal_content_is_not_sent_twice_and_does_not_show_to_be_equal(tree):
    put(tree, A, BIG)
    names = set(tree.read(A).record.chunks)
    before = {key: each.mod_revision for key, each in chunks_of(tree, A).items()}
    put(tree, A, BIG + b"more")
    after = {key: each.mod_revision for key, each in chunks_of(tree, A).items()}
    kept = set(names) & set(tree.read(A).record.chunks)
    assert len(kept) == 3  # the last piece alone is another
    assert all(
        chunks_of(tree, A)[tree.keys.chunk(A, name)].create_revision <= max(before.values()) for name in kept
    )
    assert len(after) == 5
    put(tree, B, BIG)
    assert not set(tree.read(B).record.chunks) & names
    assert len(set(everything(tree).values())) == len(everything(tree))


def chunks_of(tree, path):
    prefix = tree.keys.chunk(path, "")
    return {item.key: item for item in tree.kv.range(prefix, prefix[:-1] + b"0").items}


def test_the_same_written_twice_is_never_the_same_bytes(tree):
    put(tree, A, b"same")
    first = value(tree, A).partition(b"\n")[2]
    put(tree, A, b"same")
    assert value(tree, A).partition(b"\n")[2] != first
    assert len({json.loads(each.partition(b"\n")[0])["seal"]["nonce"] for each in everything(tree).values()}) == 2


# Keys and policies


def test_a_keyring_of_another_subtree_neither_opens_nor_seals(tree, kv, kv_root):
    put(tree, A, b"private")
    stranger = make(kv, kv_root, MASTER.keyring_of([StorePath("dkim")]))
    with pytest.raises(SealingError, match=MASTER.secrets[0].key(CERTS).id):
        stranger.read(A)
    with pytest.raises(RecordError, match="no key of a subtree"):
        put(stranger, B, b"x")


def test_plain_records_are_believed_only_where_the_policy_says_so(kv, kv_root):
    put(make(kv, kv_root, policy=Policy.OFF), A, b"forged")
    with pytest.raises(SealingError, match="plain"):
        make(kv, kv_root).read(A)
    assert content(make(kv, kv_root, policy=Policy.ACCEPT), A) == b"forged"
    listed = make(kv, kv_root).list(CERTS)
    assert [bad.path for bad in listed.bad] == [A]
    locked = make(kv, kv_root, lenient=True).read(A)
    with pytest.raises(RefusedError, match="plain"):
        make(kv, kv_root, lenient=True).content(locked)


def test_who_has_no_key_lists_everything_and_changes_nothing_that_is_sealed(tree, kv, kv_root):
    at = put(tree, A, BIG)
    blind = make(kv, kv_root, None, Policy.OFF, lenient=True)
    found = blind.read(A)
    assert (found.entry.size, found.entry.sha256, found.record.chunks) == (len(BIG), "", ())
    with pytest.raises(SealingError):
        put(blind, A, b"plain", expected=at)
    outcome = blind.commit([a_write(A, GONE, at)], retention=MONTH)
    assert outcome.complete  # with its pieces, which expire with what was superseded
    assert all(item.lease for item in chunks_of(tree, A).values())
    assert tree.read(A).gone
    assert tree.content(versions(tree, A).known[0]) == BIG


def test_the_key_of_an_outer_subtree_is_not_believed_in_an_inner_one_that_has_its_own(kv, kv_root):
    outer = make(kv, kv_root, MASTER.keyring_of([CERTS]))
    put(outer, StorePath("certs/inner/a"), b"forged")
    both = Master(secrets=MASTER.secrets, subtrees=(*MASTER.subtrees, StorePath("certs/inner")))
    with pytest.raises(SealingError, match="of certs around it"):
        make(kv, kv_root, both).read(StorePath("certs/inner/a"))
    put(outer, A, b"of the outer one")
    assert content(make(kv, kv_root, both), A) == b"of the outer one"
    assert content(make(kv, kv_root, both, Policy.ACCEPT), StorePath("certs/inner/a")) == b"forged"


@pytest.mark.parametrize("deleted", [False, True])
def test_whoever_lost_the_keyring_makes_nothing_plain_that_was_sealed(tree, kv, kv_root, deleted):
    at = put(tree, A, b"sealed")
    if deleted:
        entry = Entry(kind=Kind.GONE, size=6, sha256=sha256(b"sealed"))
        at = tree.commit([a_write(A, entry, at)], retention=MONTH).done[A]
    keyless = make(kv, kv_root, Keyring(keys=()), Policy.OFF)
    with pytest.raises(SealingError, match="would be plain"):
        put(keyless, A, b"in plain")
    assert not any(b"in plain" in each for each in everything(tree).values())
    with_another = make(kv, kv_root, Master(secrets=(NEW,), subtrees=MASTER.subtrees))
    put(with_another, A, b"anew")  # what no key opens any more is replaced by who seals
    assert content(with_another, A) == b"anew"


def test_a_replaced_record_that_does_not_open_takes_its_pieces_along(tree, kv, kv_root):
    put(tree, A, BIG)
    kv.txn((), (Put(tree.keys.chunk(A, "") + b"\xff", b"of a stranger"),))
    with_another = make(kv, kv_root, Master(secrets=(NEW,), subtrees=MASTER.subtrees))
    put(with_another, A, b"small")
    below = (item for item in everything_of(kv, tree.keys.chunk(A, "")) if item.value != b"of a stranger")
    assert all(item.lease for item in below)


def test_a_losing_side_counts_under_its_own_id_alone(tree, kv):
    entry = a_file(b"loser")
    name = tree.keep_conflict(A, entry, b"loser", retention=MONTH)
    replace(kv, tree.keys.conflict(A, "0" * 24), kv.range(tree.keys.conflict(A, name)).items[0].value)
    assert [each.id for each in losers(tree, CERTS)] == [name]
    assert [each.id for each in all_sides(tree, CERTS)] == [name, "0" * 24]


def everything_of(kv, prefix):
    return kv.range(prefix, prefix_end(prefix)).items


def test_what_a_sealed_record_replaces_is_not_kept_in_plain(kv, kv_root):
    put(make(kv, kv_root, policy=Policy.OFF), A, b"was plain")
    tree = make(kv, kv_root, policy=Policy.ACCEPT)
    put(tree, A, b"is sealed")
    assert b"was plain" not in b"".join(everything(tree).values())
    assert tree.content(versions(tree, A).known[0]) == b"was plain"


def test_an_older_configstore_meets_a_sealed_record_with_its_own_words(tree):
    put(tree, A, b"private")
    line = value(tree, A).partition(b"\n")[0]
    version = msgspec.json.decode(line)["v"]  # what 0.1 looks at before anything else
    assert version == 2
    replace(tree.kv, tree.keys.file(A), line.replace(b'"v":2', b'"v":3') + b"\n")
    listed = make(tree.kv, tree.keys.root).list(CERTS)
    assert isinstance(listed.bad[0], UnreadableRecord)
    assert "header version 3" in listed.bad[0].reason
    assert "upgrade it" in listed.bad[0].reason


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entry=st.builds(
        Entry,
        kind=st.just(Kind.FILE),
        mode=st.integers(0, 0o777),
        uid=st.none() | st.integers(0, 2**32 - 2),
        user=st.none() | st.text(max_size=20).filter(lambda text: text.isprintable()),
    ),
    inside=st.binary(max_size=300),
)
def test_any_file_comes_back(entry, inside):
    tree = make(MemoryKv(), "/any")
    entry = msgspec.structs.replace(entry, size=len(inside), sha256=sha256(inside))
    tree.commit([Write(path=A, entry=entry, content=inside)], retention=0)
    found = tree.read(A)
    assert (found.entry, tree.content(found)) == (entry, inside)
    assert header_line(found.record) not in value(tree, A)


# Sealing again


def test_everything_is_sealed_again_with_the_newest_key_and_stays_what_it_is(tree, kv, kv_root):
    put(tree, A, b"one")
    first = put(tree, A, b"two")
    put(tree, DKIM, BIG)
    put(tree, DKIM, BIG + b"more")
    entry = a_file(BIG)
    tree.keep_conflict(A, entry, BIG, retention=60)
    before = tree.read(A)
    assert reseal(kv, kv_root) == 5
    assert reseal(kv, kv_root) == 0
    now = make(kv, kv_root, ROTATED)
    found = count_seals(now, ROTATED.keyring())
    assert (found.due, found.unknown, found.plain.total()) == (0, 0, 0)
    assert not any(found.needs(OLD.key(each).id) for each in (*MASTER.subtrees, StorePath("")))
    only_new = make(kv, kv_root, Master(secrets=(NEW,), subtrees=MASTER.subtrees))
    assert (content(only_new, A), content(only_new, DKIM)) == (b"two", BIG + b"more")
    (loser,) = losers(only_new, A)
    assert b"".join(pieces_of(only_new, loser)) == BIG

    after = only_new.read(A)
    assert after.entry == before.entry
    assert after.record.origin == msgspec.structs.replace(before.record.origin, supersedes=first)
    known = versions(only_new, A)
    assert [only_new.content(each) for each in known.known] == [b"one", b"two", b"two"]
    assert [only_new.content(each) for each in known.writes] == [b"one", b"two"]
    assert known.began(known.known[-1]) == first
    assert only_new.content(known.at(first)) == b"two"
    assert only_new.remembers(A, first)
    assert only_new.find_write(A, [before.record.origin.write_id], after=0).mod_revision == after.mod_revision
    assert [only_new.content(each) for each in versions(only_new, DKIM).writes] == [BIG, BIG + b"more"]


def test_a_plain_store_is_sealed_in_place_and_unsealed_with_nothing_left_of_either(kv, kv_root):
    plain = make(kv, kv_root, None, Policy.OFF)
    put(plain, A, b"plaintext one")
    at = put(plain, A, b"plaintext two")
    put(plain, B, BIG)
    put(plain, LINK, b"", target="plaintext.pem")
    gone = put(plain, DKIM, b"plaintext gone")
    entry = Entry(kind=Kind.GONE, size=14, sha256=sha256(b"plaintext gone"))
    plain.commit([a_write(DKIM, entry, gone)], retention=MONTH)
    lost = a_file(BIG)
    plain.keep_conflict(A, lost, BIG, retention=60)
    before = {path: each.entry for path, each in plain.list(StorePath("")).records.items()}
    reseal(kv, kv_root, MASTER)
    tree = make(kv, kv_root)
    dump = everything(tree)
    shown = b"".join([*dump, *dump.values()])
    assert b"plaintext" not in shown
    assert BIG[:64] not in shown
    assert b'"v":1' not in shown
    for each in (
        b"plaintext one",
        b"plaintext two",
        b"plaintext gone",
        BIG,
        *(BIG[at : at + CHUNK_SIZE] for at in (0,)),
    ):
        assert sha256(each).encode() not in shown
    assert {path: each.entry for path, each in tree.list(StorePath("")).records.items()} == before
    assert tree.kv.range(tree.keys.file(DKIM)).items[0].lease
    assert tree.content(versions(tree, A).at(at)) == b"plaintext two"

    reseal(kv, kv_root, MASTER, unseal=True)
    dump = everything(tree)
    assert not any(b'"v":2' in each for each in dump.values())
    assert {path: each.entry for path, each in plain.list(StorePath("")).records.items()} == before
    assert (content(plain, A), content(plain, B)) == (b"plaintext two", BIG)
    (loser,) = losers(plain, A)
    assert b"".join(pieces_of(plain, loser)) == BIG
    named = {tree.keys.chunk(B, name) for each in versions(plain, B).known for name in each.record.chunks}
    assert {key for key in dump if b"/chunks/" in key} == named


def test_pieces_that_several_records_name_outlive_the_first_of_them(tree, kv, kv_root):
    put(tree, A, BIG)
    put(tree, A, BIG + b"more")
    work, lenient = resealing(kv, kv_root)
    for each in values(lenient):  # killed after each of them
        if work.seal(each):
            seen = make(kv, kv_root, ROTATED)
            assert [seen.content(one) for one in versions(seen, A).writes] == [BIG, BIG + b"more"]
    assert all(not chunks_of(seen, A)[seen.keys.chunk(A, name)].lease for name in seen.read(A).record.chunks)
    named = {seen.keys.chunk(A, name) for one in versions(seen, A).known for name in one.record.chunks}
    assert chunks_of(seen, A).keys() == named


def test_somebody_elses_write_in_between_is_sealed_and_kept(tree, kv, kv_root):
    put(tree, A, b"one")
    work, lenient = resealing(kv, kv_root)
    (value_,) = values(lenient)
    put(tree, A, b"two")
    assert work.seal(value_)
    seen = make(kv, kv_root, ROTATED)
    assert content(seen, A) == b"two"
    assert sum(work.seal(each) for each in values(lenient)) == 1  # what it superseded
    assert [seen.content(each) for each in versions(seen, A).writes] == [b"one", b"two"]


def test_what_no_key_opens_is_left_and_named(tree, kv, kv_root):
    put(tree, A, b"one")
    stranger = Master(secrets=(Secret(secret=b"x" * 32),))
    work, lenient = resealing(kv, kv_root, stranger)
    (value_,) = values(lenient)
    with pytest.raises(LeftError, match=OLD.key(CERTS).id):
        work.seal(value_)
    assert content(tree, A) == b"one"
    assert count_seals(lenient, stranger.keyring()).unknown == 1


def test_what_was_damaged_is_left_and_holds_up_nothing(tree, kv, kv_root):
    put(tree, A, b"one")
    put(tree, B, BIG)
    replace(kv, tree.keys.file(A), value(tree, A)[:-1])
    key = tree.keys.chunk(B, tree.read(B).record.chunks[0])
    kv.txn((), (Delete(key),))
    work, lenient = resealing(kv, kv_root)
    for each in values(lenient):
        assert work.is_due(each)
        assert not work.opens(each)
        with pytest.raises(LeftError):
            work.seal(each)


class Watched(MemoryKv):
    """A store that notes how much it was asked for, and how much it was given, at a time."""

    most = 0

    def range(self, *arguments, **options):
        page = super().range(*arguments, **options)
        self.most = max(self.most, sum(len(item.value) for item in page.items))
        return page

    def txn(self, compares, operations, **options):
        self.most = max(self.most, sum(len(each.value) for each in operations if isinstance(each, Put)))
        return super().txn(compares, operations, **options)


def test_sealing_again_has_little_in_memory_at_a_time():
    kv = Watched()
    tree = make(kv, "/any")
    for number in range(100):
        put(tree, StorePath(f"certs/{number}"), b"x" * 60_000)
    put(tree, A, BIG)
    kv.most = 0
    assert reseal(kv, "/any") == 101
    assert kv.most < 3 << 20


def test_losing_sides_keep_their_order_and_lease(tree, kv, kv_root):
    for number in range(3):
        inside = b"side %d" % number
        entry = a_file(inside)
        tree.keep_conflict(A, entry, inside, retention=60)
    reseal(kv, kv_root)
    seen = make(kv, kv_root, ROTATED)
    assert [b"".join(pieces_of(seen, each)) for each in all_sides(seen, A)] == [b"side 0", b"side 1", b"side 2"]
    found = [each for each in values(seen) if each.family is Family.CONFLICTS]
    assert all(each.item.lease for each in found)
    assert {each.place for each in found} == {SealedKind.CONFLICT}
