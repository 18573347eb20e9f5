"""`seal`: keygen, status, rotate and forget."""

import json
import os
import stat

import pytest

from configstore.model.seal import parse
from configstore.presets import roots

BIG = bytes(range(256)) * 5000


@pytest.fixture
def keys(tmp_path, run):
    """Return the folder of a master with keyrings of `certs` and `dkim`."""
    folder = tmp_path / "keys"
    assert run("seal", "keygen", "--out", str(folder), "--subtree", "certs", "--subtree", "dkim").code == 0
    return folder


@pytest.fixture
def sealed(run, keys):
    """Return a function that runs the command with the master as its keyring."""

    def run_sealed(*words, stdin=b""):
        return run(*words, "--seal-keyring", str(keys / "master"), stdin=stdin)

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


def test_rotate_needs_the_master(run, keys):
    assert run("seal", "rotate").code == 2
    done = run("seal", "rotate", "--seal-keyring", str(keys / "certs"))
    assert (done.code, "no master" in done.err) == (5, True)
