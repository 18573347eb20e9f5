"""`seal`: keygen, status, rotate and forget."""

import hashlib
import json
import os
import stat

import pytest

from configstore.model.keys import Keys
from configstore.model.record import CHUNK_SIZE, sha256
from configstore.model.replica import MappingState, Report, encode
from configstore.model.seal import Policy, parse
from configstore.presets import roots
from configstore.store.api import ModRevision, Put
from configstore.store.envelope import Envelopes
from tests.harness.named import a_file, a_link, a_tree, a_write

BIG = bytes(range(256)) * 5000


@pytest.fixture
def keys(tmp_path, run):
    """Return the folder of a master with keyrings of `certs` and `dkim`."""
    folder = tmp_path / "keys"
    assert run("seal", "keygen", "--out", str(folder), "--subtree", "certs", "--subtree", "dkim").code == 0
    return folder


@pytest.fixture
def sealed(run, keys):
    """Return a function that runs the command with the master, which lies in its `keys`, as its keyring."""

    def run_sealed(*words, stdin=b""):
        return run(*words, "--seal-keyring", str(keys / "master"), stdin=stdin)

    run_sealed.keys = keys
    return run_sealed


def ring(file):
    return parse(file.read_bytes())


def opens(file):
    return {key.subtree for key in ring(file).keys}


def dump(kv, root):
    """Return all keys and values of a test's store."""
    start = f"{root}/".encode()
    end = f"{root}0".encode()
    return {item.key: item.value for item in kv.range(start, end).items}


# keygen


def test_keygen_makes_a_master_and_keyrings_for_their_owner_alone(tmp_path, offline):
    done = offline("seal", "keygen", "--out", str(tmp_path / "k"), "--subtree", "certs")
    assert done.code == 0
    assert stat.S_IMODE(os.stat(tmp_path / "k").st_mode) == 0o700
    for name in ("master", "certs"):
        assert stat.S_IMODE(os.stat(tmp_path / "k" / name).st_mode) == 0o600
    assert opens(tmp_path / "k" / "certs") == {"certs"}
    assert "seal rotate" in done.err
    assert "offline" in done.err


def test_keygen_prints_no_secret(tmp_path, offline):
    words = ("seal", "keygen", "--out", str(tmp_path / "k"), "--preset", "mailu")
    said = "".join(done.err + done.out.decode() for done in (offline(*words), offline(*words, "--json")))
    for file in (tmp_path / "k").iterdir():
        found = json.loads(file.read_text())
        for line in [*found.get("secrets", []), *found.get("keys", [])]:
            assert line["secret"] not in said


def test_keygen_again_keeps_every_key_and_adds_what_is_new(tmp_path, offline):
    out = ("--out", str(tmp_path / "k"))
    offline("seal", "keygen", *out, "--subtree", "certs")
    before = ring(tmp_path / "k/master"), ring(tmp_path / "k/certs")
    done = offline("seal", "keygen", *out, "--subtree", "certs/letsencrypt", "--subtree", "dkim")
    assert done.code == 0
    assert ring(tmp_path / "k/master").secrets == before[0].secrets
    assert set(before[1].keys) < set(ring(tmp_path / "k/certs").keys)
    assert opens(tmp_path / "k/certs") == {"certs", "certs/letsencrypt"}
    assert opens(tmp_path / "k/certs-letsencrypt") == {"certs/letsencrypt"}
    contents = {file: file.read_bytes() for file in (tmp_path / "k").iterdir()}
    assert "nothing was changed" in offline("seal", "keygen", *out).err
    assert contents == {file: file.read_bytes() for file in (tmp_path / "k").iterdir()}


def test_a_service_gets_the_keys_of_its_own_subtrees_alone(tmp_path, offline):
    assert offline("seal", "keygen", "--out", str(tmp_path), "--preset", "mailu/front").code == 0
    assert {file.name for file in tmp_path.iterdir()} == {"master", "front"}
    assert opens(tmp_path / "front") == set(roots("mailu/front"))
    assert offline("seal", "keygen", "--out", str(tmp_path), "--preset", "mailu").code == 0
    assert opens(tmp_path / "certs-source") == {"certs"}
    assert opens(tmp_path / "admin") == {"data", "dkim"}


def test_one_keyring_for_a_whole_host_opens_what_all_its_services_open(tmp_path, offline):
    words = ("--preset", "mailu/front", "--preset", "mailu/admin", "--subtree", "own", "--one", "mail-1")
    assert offline("seal", "keygen", "--out", str(tmp_path), *words).code == 0
    assert {file.name for file in tmp_path.iterdir()} == {"master", "mail-1"}
    assert opens(tmp_path / "mail-1") == {"own", *roots("mailu/front"), *roots("mailu/admin")}
    assert offline("seal", "keygen", "--out", str(tmp_path / "k"), *words[:-1], "master").code == 2


def test_a_keyring_that_misses_a_key_is_completed(tmp_path, offline):
    out = ("--out", str(tmp_path))
    offline("seal", "keygen", *out, "--subtree", "certs")
    behind = (tmp_path / "certs").read_bytes()
    offline("seal", "keygen", *out, "--subtree", "certs/inner")
    (tmp_path / "certs").write_bytes(behind)
    assert offline("seal", "keygen", *out).code == 0
    assert opens(tmp_path / "certs") == {"certs", "certs/inner"}


def test_keyrings_without_their_master_are_never_given_another(tmp_path, offline):
    offline("seal", "keygen", "--out", str(tmp_path), "--subtree", "certs")
    (tmp_path / "master").rename(tmp_path.parent / "elsewhere")
    done = offline("seal", "keygen", "--out", str(tmp_path), "--subtree", "dkim")
    assert (done.code, (tmp_path / "master").exists()) == (5, False)
    assert "master" in done.err


def test_a_keyring_of_another_master_is_never_overwritten(tmp_path, offline):
    for name in "ab":
        offline("seal", "keygen", "--out", str(tmp_path / name), "--subtree", "certs")
    strange = (tmp_path / "b/certs").read_bytes()
    (tmp_path / "a/certs").write_bytes(strange)
    assert offline("seal", "keygen", "--out", str(tmp_path / "a"), "--subtree", "certs").code == 5
    assert (tmp_path / "a/certs").read_bytes() == strange


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, ("--subtree", "a/b", "--subtree", "a-b")),
        (2, ("--subtree", "master")),
        (2, ("--subtree", "/")),
        (2, ("--subtree", "front", "--preset", "mailu/front")),
        (2, ("--preset", "mailu/fornt")),
        (5, ("--subtree", "../x")),
    ],
)
def test_what_cannot_be_a_keyring_is_refused(tmp_path, offline, code, words):
    done = offline("seal", "keygen", "--out", str(tmp_path / "k"), *words)
    assert (done.code, (tmp_path / "k").exists()) == (code, False)


def test_a_folder_of_certificates_is_no_folder_of_keyrings(tmp_path, offline):
    (tmp_path / "tls/front").mkdir(parents=True)
    done = offline("seal", "keygen", "--out", str(tmp_path / "tls"), "--preset", "mailu/front")
    assert done.code == 5
    assert f"{tmp_path}/tls/front: is there and no keyring" in done.err
    assert not (tmp_path / "tls/master").exists()


# rotate and status


def statuses(sealed):
    found = sealed("seal", "status", "--json").json()
    return found, {key["id"]: key for key in found["keys"]}


def test_a_plain_store_is_sealed_in_place_and_back(run, sealed, kv, kv_root):
    run("bootstrap", "--preset", "mailu/front")
    run("put", "certs/a.pem", stdin=b"plaintext one")
    run("put", "certs/a.pem", stdin=b"plaintext two")
    run("put", "certs/big.pem", stdin=BIG)
    run("put", "certs/gone.pem", stdin=b"plaintext three")
    run("rm", "certs/gone.pem")
    before = run("ls", "-R", "--json").json()
    history = run("history", "certs/a.pem", "--json").json()
    assert sealed("seal", "status", "--json").json()["plain"]["files"] > 0

    done = sealed("seal", "rotate")
    assert done.code == 0, done.err
    assert "new key" not in done.err  # its first key is as good as new
    values = b"".join(dump(kv, kv_root).values())
    assert b"plaintext" not in values
    assert BIG[:64] not in values
    assert b"sha256" not in values
    assert sealed("get", "certs/a.pem").out == b"plaintext two"
    assert sealed("get", "certs/big.pem").out == BIG
    found, _ = statuses(sealed)
    assert (found["due"], sum(found["plain"].values())) == (0, 0)
    after = sealed("ls", "-R", "--json").json()
    keep = ("path", "sha256", "size", "mode", "write_id", "time", "replica")
    assert [{key: each.get(key) for key in keep} for each in after] == [
        {key: each.get(key) for key in keep} for each in before
    ]
    assert [each["write_id"] for each in sealed("history", "certs/a.pem", "--json").json()] == [
        each["write_id"] for each in history
    ]

    assert sealed("seal", "rotate", "--unseal").code == 0
    assert run("get", "certs/a.pem").out == b"plaintext two"
    assert run("get", "certs/big.pem").out == BIG
    assert b'"v":2' not in b"".join(dump(kv, kv_root).values())


def test_a_rotation_reseals_everything_with_a_new_key_and_the_old_one_can_go(sealed, keys, run):
    for number in range(3):
        sealed("put", "certs/a.pem", stdin=b"content %d" % number)
    sealed("put", "dkim/big.key", stdin=BIG)
    _, before = statuses(sealed)
    used = {key for key, each in before.items() if each["needed"]}
    done = sealed("seal", "rotate")
    assert (done.code, "new key" in done.err) == (0, True)
    found, after = statuses(sealed)
    assert found["due"] == 0
    assert {after[key]["state"] for key in used} == {"not needed"}
    assert sealed("get", "certs/a.pem").out == b"content 2"
    assert run("get", "certs/a.pem", "--seal-keyring", str(keys / "certs")).out == b"content 2"
    assert sealed("get", "dkim/big.key").out == BIG
    assert sealed("diff", "certs/a.pem").code == 1

    assert sealed("seal", "forget").code == 0
    assert len(ring(keys / "master").secrets) == 1
    assert not used & {key.id for key in ring(keys / "certs").keys}
    assert sealed("get", "dkim/big.key").out == BIG
    assert sealed("seal", "forget").code == 0


def test_a_key_that_is_needed_still_is_never_dropped(sealed, keys, kv, kv_root):
    sealed("put", "certs/a.pem", stdin=b"one")
    sealed("put", "certs/b.pem", stdin=b"two")
    key = f"{kv_root}/files/certs/b.pem".encode()
    item = kv.range(key).items[0]
    kv.txn((ModRevision(key, item.mod_revision),), (Put(key, item.value[:-1]),))  # which cannot be sealed again
    assert sealed("seal", "rotate").code == 1
    done = sealed("seal", "forget")
    assert (done.code, "nothing was dropped" in done.err) == (0, True)
    assert len(ring(keys / "master").secrets) == 2


def test_a_rotation_that_made_no_key_says_so_and_the_next_one_makes_it(sealed):
    sealed("put", "certs/a", stdin=b"a")
    assert sealed("put", "certs/stray", "--seal", "off", stdin=b"plain").code == 0
    first = sealed("seal", "rotate", "--anyway")
    assert "no key was made" in first.err
    again = sealed("seal", "rotate", "--anyway")
    assert "a new key is in" in again.err
    assert "no key was made" not in again.err


def test_a_key_that_nothing_is_sealed_with_yet_is_the_newest_one_still(sealed, keys):
    before = (keys / "master").read_bytes()
    assert "no key was made" in sealed("seal", "rotate", "--anyway").err
    assert (keys / "master").read_bytes() == before


def test_a_master_that_is_a_link_is_not_replaced(run, keys, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/master").symlink_to(keys / "master")
    before = (keys / "master").read_bytes()
    done = run("seal", "rotate", "--seal-keyring", str(tmp_path / "linked/master"))
    assert (done.code, "is a link" in done.err) == (2, True)
    assert (keys / "master").read_bytes() == before


def test_rotate_needs_the_master(run, keys):
    assert run("seal", "rotate").code == 2
    done = run("seal", "rotate", "--seal-keyring", str(keys / "certs"))
    assert (done.code, "no master" in done.err) == (5, True)


def test_rotate_that_finds_nothing_to_open_names_it_and_makes_a_key_all_the_same(sealed, kv, kv_root, keys):
    sealed("put", "certs/a.pem", stdin=b"one")
    key = f"{kv_root}/files/certs/a.pem".encode()
    item = kv.range(key).items[0]
    kv.txn((ModRevision(key, item.mod_revision),), (Put(key, item.value[:-1]),))
    done = sealed("seal", "rotate")
    assert (done.code, "new key" in done.err) == (1, True)
    assert "certs/a.pem: left as it is: it does not open" in done.err


def test_rotate_is_told_which_live_replicas_lack_the_new_key(sealed, keys, kv, kv_root, monkeypatch):
    monkeypatch.setattr("configstore.cli.seal_rotate.PATIENCE", 0.0)
    sealed("put", "certs/a.pem", stdin=b"one")
    report = Report(
        mapping="certs", replica="front-1", host="h", session="s", store="certs", state=MappingState.READY
    )
    kv.txn((), (Put(Keys(kv_root).replica("certs", "front-1"), encode(report)),))
    done = sealed("seal", "rotate")
    assert (done.code, "certs: front-1 on h" in done.err, str(keys / "certs") in done.err) == (5, True, True)
    assert len(ring(keys / "master").secrets) == 2
    assert sealed("seal", "status", "--json").json()["lacking"][0]["replica"] == "front-1"
    done = sealed("seal", "rotate", "--anyway")
    assert (done.code, "new key" in done.err) == (0, False)
    assert sealed("seal", "forget").code == 5
    assert sealed("seal", "forget", "--anyway").code == 0


def test_status_without_a_keyring_knows_ids_alone(sealed, run):
    sealed("put", "certs/a.pem", stdin=b"one")
    run("put", "data/instance", stdin=b"plain")
    done = run("seal", "status", "--json")
    (key,) = done.json()["keys"]
    assert (key["subtree"], key["files"], done.json()["plain"]["files"]) == (None, 1, 1)
    assert "--seal-keyring" in run("seal", "status").err
    assert "plain: 1;" in sealed("seal", "status").err
    assert "seal rotate" in sealed("seal", "status").err


def test_secrets_are_in_no_output(sealed, keys):
    sealed("put", "certs/a.pem", stdin=b"one")
    secret = ring(keys / "master").secrets[0].secret.hex()
    said = [sealed("seal", "status"), sealed("seal", "status", "--json"), sealed("seal", "rotate", "--json")]
    assert not any(secret in done.err + done.out.decode() for done in said)


# The other commands, without a key and with one


@pytest.fixture
def locked(sealed, run, tree):
    """Return `run` against a store with a sealed file, large and small, a link, a history and a conflict."""
    for content in (b"secret one", b"secret two"):
        sealed("put", "certs/a.pem", stdin=content)
    sealed("put", "certs/big.pem", stdin=BIG)
    keyring = ring(sealed.keys / "master").keyring()
    envelopes = Envelopes(tree.keys.root, keyring=keyring, policy=lambda _: Policy.REQUIRED)
    writing = a_tree(tree.kv, tree.keys.root, envelopes=envelopes)
    link = a_link("secret-target")
    writing.commit([a_write("certs/link", link)], retention=600)
    lost = a_file(b"lost")
    writing.keep_conflict("certs/a.pem", lost, b"lost", retention=600)
    return run


@pytest.mark.parametrize(
    "words",
    [
        ("get", "certs/a.pem"),
        ("get", "certs/link"),
        ("put", "certs/a.pem"),
        ("put", "certs/link"),
        ("put", "certs/new.pem"),
        ("put", "certs/deep/new.pem"),
        ("diff", "certs/a.pem"),
        ("export", "certs", "OUT"),
        ("import", "IN", "certs"),
        ("conflicts", "certs/a.pem", "--show", "ID"),
        ("resolve", "certs/a.pem", "--take", "ID"),
        ("restore", "certs/a.pem", "--revision", "FIRST"),
    ],
)
def test_without_a_key_what_needs_one_is_refused(locked, tmp_path, words):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.pem").write_bytes(b"x")
    side = locked("conflicts", "--json").json()[0]["id"]
    first = locked("history", "certs/a.pem", "--json").json()[-1]["revision"]
    placed = {"IN": str(tmp_path / "in"), "OUT": str(tmp_path / "out"), "ID": side, "FIRST": str(first)}
    before = locked("ls", "-R", "--json").out
    done = locked(*(placed.get(word, word) for word in words), stdin=b"plain")
    assert done.code == 5, done.err
    assert "key" in done.err
    assert b"secret" not in done.out
    assert locked("ls", "-R", "--json").out == before
    assert not (tmp_path / "out").exists()


def test_without_a_key_everything_can_be_listed_and_nothing_shows(locked, sealed):
    key = next(iter(ring(sealed.keys / "certs").keys)).id
    for words in (
        ("ls", "-lR"),
        ("ls", "-R", "--json"),
        ("stat", "certs/link"),
        ("history", "certs/a.pem"),
        ("conflicts",),
    ):
        done = locked(*words)
        assert (done.code, b"secret-target" in done.out) == (0, False)
    assert key.encode() in locked("ls", "-lR").out
    found = locked("stat", "certs/a.pem", "--json").json()
    assert (found["sealed"], found["sha256"], found["size"]) == (key, None, 10)
    assert b"no keyring here has it" in locked("stat", "certs/a.pem").out
    assert len(locked("history", "certs/a.pem", "--json").json()) == 2


def test_without_a_key_directories_are_made_and_everything_is_removed(locked, sealed, kv, kv_root):
    assert locked("mkdir", "certs/new").code == 0
    assert locked("rm", "certs/big.pem").code == 0
    assert locked("rm", "certs/a.pem").code == 0
    assert locked("resolve", "certs/a.pem", "--take", "store").code == 0
    gone = locked("stat", "certs/big.pem", "--json").json()
    assert (gone["kind"], gone["sha256"], gone["sealed"]) == ("gone", None, None)
    chunks = kv.range(f"{kv_root}/chunks/".encode(), f"{kv_root}/chunks0".encode()).items
    assert chunks
    assert all(item.lease for item in chunks)
    assert sealed("ls", "certs").out.split() == [b"link", b"new/"]


def test_a_plain_record_is_believed_where_the_policy_accepts_it(run, sealed):
    run("put", "certs/a.pem", stdin=b"forged")
    done = sealed("get", "certs/a.pem")
    assert (done.code, "plain" in done.err) == (5, True)
    assert sealed("get", "certs/a.pem", "--seal", "accept").out == b"forged"
    assert sealed("put", "certs/a.pem", stdin=b"sealed").code == 0
    assert sealed("get", "certs/a.pem").out == b"sealed"


def test_with_the_keyring_everything_works_as_before(locked, sealed, tmp_path):
    side = sealed("conflicts", "--json").json()[0]["id"]
    assert sealed("conflicts", "certs/a.pem", "--show", side).out == b"lost"
    difference = sealed("diff", "certs/a.pem")
    assert (difference.code, b"-secret one" in difference.out) == (1, True)
    first = sealed("history", "certs/a.pem", "--json").json()[-1]["revision"]
    assert sealed("restore", "certs/a.pem", "--revision", str(first)).code == 0
    assert sealed("get", "certs/a.pem").out == b"secret one"
    assert sealed("resolve", "certs/a.pem", "--take", side).code == 0
    assert sealed("get", "certs/a.pem").out == b"lost"
    assert sealed("export", "certs", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out/big.pem").read_bytes() == BIG
    (tmp_path / "out/more.pem").write_bytes(b"more")
    assert sealed("import", str(tmp_path / "out"), "certs").code == 0
    assert sealed("get", "certs/more.pem").out == b"more"


def test_of_binary_content_that_is_sealed_no_digest_is_shown(sealed):
    for content in (b"\xff\x00one", b"\xff\x00two"):
        sealed("put", "certs/a.der", stdin=content)
    done = sealed("diff", "certs/a.der")
    assert (done.code, b"SHA-256" in done.out) == (1, False)
    assert b"other content" in done.out


def test_a_diff_does_not_see_that_a_record_was_sealed_again(sealed):
    for content in (b"one\n", b"two\n"):
        sealed("put", "certs/a.pem", stdin=content)
    before = sealed("diff", "certs/a.pem").out
    assert sealed("seal", "rotate").code == 0
    assert [line for line in sealed("diff", "certs/a.pem").out.splitlines() if line[:1] in b"+-"][2:] == [
        line for line in before.splitlines() if line[:1] in b"+-"
    ][2:]


def test_after_real_use_a_dump_of_the_store_shows_nothing(locked, sealed, kv, kv_root, tmp_path):
    sealed("bootstrap", "--preset", "mailu/front")
    sealed("put", "certs/same.pem", stdin=BIG)
    sealed("rm", "certs/same.pem")
    sealed("restore", "certs/same.pem", "--at", "0s")
    sealed("mkdir", "certs/d")
    sealed("seal", "rotate")
    found = dump(kv, kv_root)
    shown = b"\n".join([*found, *found.values()])
    for content in (b"secret one", b"secret two", b"lost", BIG, b"secret-target"):
        digest = hashlib.sha256(content)
        assert content[:64] not in shown
        assert digest.hexdigest().encode() not in shown
        assert digest.digest() not in shown
    for start in range(0, len(BIG), CHUNK_SIZE):
        assert sha256(BIG[start : start + CHUNK_SIZE]).encode() not in shown
    bodies = [each.partition(b"\n")[2] for each in found.values()]
    assert len(set(bodies) - {b""}) == len([each for each in bodies if each])
    names = [key.rpartition(b"//")[2] for key in found if b"/chunks/" in key]
    assert len(set(names)) == len(names)
