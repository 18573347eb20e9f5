"""Real sidecars whose keyrings are replaced, lost, or another's: what opens is used, what does not is named."""

import os

import pytest

from configstore.model.path import StorePath
from configstore.model.seal import dump
from tests.e2e.conftest import equal
from tests.harness.keyrings import (
    DATA,
    FIRST,
    FOREIGN,
    FOURTH,
    SECOND,
    THIRD,
    everything,
    master,
    raw,
    ring,
    save,
    sealed_tree,
    table,
)
from tests.harness.named import GONE, a_dir, a_link, put
from tests.harness.waiting import wait_until

SOON = 40.0
"""Four times the 10 s of the contract."""

OTHER = StorePath("other")
KEY = {secret: secret.key(DATA).id for secret in (FIRST, SECOND, THIRD, FOURTH, FOREIGN)}


def says(one, *words):
    """Wait until `/readyz` says some words, and return its status."""
    wait_until(lambda: all(word in one.ask("/readyz")[1] for word in words), SOON, what=str(words))
    return one.ask("/readyz")[0]


def reads(one, name, content):
    """Wait until a file holds something."""
    path = one.folder / name
    wait_until(lambda: path.exists() and path.read_bytes() == content, SOON, what=f"{name}: {one.words()}")


def by_rename(path, keyring):
    save(path, keyring)


def in_place(path, keyring):
    path.write_bytes(dump(keyring))


def by_a_link(path, keyring):
    """Replace it as Kubernetes does: the file is a link through `..data`, which changes to another directory."""
    folder = path.parent / f"..{os.urandom(4).hex()}"
    folder.mkdir()
    (folder / path.name).write_bytes(dump(keyring))
    new = path.parent / "..data.new"
    new.symlink_to(folder.name)
    new.rename(path.parent / "..data")
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(f"..data/{path.name}")


def test_a_keyring_that_is_replaced_by_whatever_means_opens_what_did_not_open_before(
    replica, kv, kv_root, tmp_path
):
    keyring = tmp_path / "secrets/keyring"
    keyring.parent.mkdir()
    save(keyring, ring(FIRST))
    one = replica("one", more=table(keyring)).start().ready()
    held = [FIRST]
    for replace, secret in ((by_rename, SECOND), (in_place, THIRD), (by_a_link, FOURTH)):
        held.insert(0, secret)
        put(
            sealed_tree(kv, kv_root, ring(*held)),
            {f"data/{replace.__name__}": b"new", "data/each": KEY[secret].encode()},
        )
        assert says(one, "degraded", KEY[secret], "bring the keyring that has it") == 200
        assert not (one.folder / replace.__name__).exists()
        replace(keyring, ring(*held))
        reads(one, replace.__name__, b"new")
        reads(one, "each", KEY[secret].encode())
        wait_until(lambda: one.metric("unopened") == 0, SOON)
        assert one.process.poll() is None
    (one.folder / "mine").write_bytes(b"local")
    wait_until(lambda: KEY[FOURTH].encode() in raw(kv, kv_root, "data/mine"))


def test_of_a_keyring_that_is_gone_or_broken_the_last_good_one_goes_on_and_it_is_said_once(
    replica, kv, kv_root, tmp_path, configstore
):
    keyring = save(tmp_path / "keyring", ring(FIRST))
    one = replica("one", more=table(keyring)).start().ready()
    tree = sealed_tree(kv, kv_root, ring(FIRST))
    unreadable = lambda: "\nconfigstore_keyring_unreadable 1\n" in one.ask("/metrics")[1]  # noqa: E731
    keyring.unlink()
    assert says(one, str(keyring), "No such file", "the one that was read last is used") == 200
    assert unreadable()
    wait_until(lambda: str(keyring) in configstore("status").decode(), SOON)
    put(tree, {"data/a": b"still read"})
    reads(one, "a", b"still read")
    keyring.write_bytes(b'{"keyring": 1, "secr')
    assert says(one, "no keyring: malformed JSON") == 200
    put(tree, {"data/a": b"still read, too"})
    reads(one, "a", b"still read, too")
    save(keyring, ring(FIRST))
    wait_until(lambda: not unreadable(), SOON)
    assert "keyring" not in one.ask("/readyz")[1]
    said = [line["reason"] for line in one.lines() if line["message"] == "the keyring cannot be read"]
    assert len(said) == 2


@pytest.mark.parametrize("verb", ["init", "plan", "run"])
def test_at_the_start_a_keyring_that_cannot_be_used_is_a_fault_of_the_settings_that_names_it(
    replica, tmp_path, verb
):
    one = replica("one", more=table(tmp_path / "gone"))
    done = one.command(verb)
    assert done.returncode == 2
    assert str(tmp_path / "gone") in done.stderr


SEALED, PLAIN = "data/sealed", "data/plain"


@pytest.fixture
def mixed(kv, kv_root, replica, tmp_path, configstore):
    """Return a store with sealed and plain records, and a function that makes a sidecar with a keyring."""
    tree = sealed_tree(kv, kv_root, ring(FIRST))
    plain = sealed_tree(kv, kv_root, None)

    def make(keyring, policy):
        settings = (
            table(save(tmp_path / "keyring", keyring), policy) if keyring else f'[seal]\npolicy = "{policy}"\n'
        )
        return replica("one", more=settings)

    configstore("mkdir", "data")
    put(tree, {SEALED: b"s"})
    put(plain, {"data/folder": a_dir()})
    put(plain, {"data/gone": b"g"})
    put(plain, {"data/gone": GONE})
    return plain, make


CASES = {  # policy, keyring, plain records there; what init says, and what it places
    "required": ("required", ring(FIRST), False, 0, (), {"folder", "sealed"}),
    "required, with plain ones": (
        "required",
        ring(FIRST),
        True,
        5,
        ("plain: it is plain", "link: it is plain"),
        {"folder", "sealed"},
    ),
    "accept": ("accept", ring(FIRST), True, 0, (), {"folder", "sealed", "plain", "link"}),
    "off with the keyring": ("off", ring(FIRST), True, 0, (), {"folder", "sealed", "plain", "link"}),
    "off without": (
        "off",
        None,
        True,
        5,
        ("sealed: it is sealed with the key", KEY[FIRST]),
        {"folder", "plain", "link"},
    ),
    "another key": (
        "required",
        ring(SECOND),
        False,
        5,
        ("sealed: it is sealed with the key", KEY[FIRST]),
        {"folder"},
    ),
    "another store's": ("accept", ring(FOREIGN), False, 5, (KEY[FIRST],), {"folder"}),
    "another subtree's": (
        "required",
        ring(FIRST, subtrees=(OTHER,)),
        False,
        5,
        (KEY[FIRST], "no key of a subtree around"),
        {"folder"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_init_places_what_the_policy_lets_in_and_names_the_rest_with_exit_code_5(mixed, case):
    plain, make = mixed
    policy, keyring, with_plain, code, words, placed = CASES[case]
    if with_plain:
        put(plain, {PLAIN: b"p"})
        put(plain, {"data/link": a_link("plain")})
    one = make(keyring, policy)
    done = one.command("init", "--timeout", "20s")
    assert done.returncode == code, done.stderr
    assert not [word for word in words if word not in done.stderr]
    assert set(one.tree()) == placed


def test_what_cannot_be_sealed_stays_here_and_the_mapping_is_never_ready(replica, kv, kv_root, tmp_path):
    keyring = save(tmp_path / "keyring", ring(FIRST, subtrees=(OTHER,)))
    one = replica("one", more=table(keyring)).start()
    (one.folder / "secret").write_bytes(b"not to be seen")
    assert says(one, "cannot be sealed", "seal keygen") == 503
    wait_until(lambda: any(line.get("path") == "secret" for line in one.lines()), SOON)
    assert b"not to be seen" not in everything(kv, kv_root)
    save(keyring, ring(FIRST))
    one.ready()
    wait_until(lambda: KEY[FIRST].encode() in raw(kv, kv_root, "data/secret"), SOON)
    assert b"not to be seen" not in everything(kv, kv_root)


def test_what_went_plain_under_required_is_not_taken_though_it_was_ready(replica, kv, kv_root, tmp_path):
    one = replica("one", more=table(save(tmp_path / "keyring", ring(FIRST)))).start().ready()
    (one.folder / "a").write_bytes(b"mine")
    wait_until(lambda: KEY[FIRST].encode() in raw(kv, kv_root, "data/a"))
    put(sealed_tree(kv, kv_root, None), {"data/b": b"planted"})
    assert says(one, "degraded", "b: it is plain") == 200
    assert set(one.tree()) == {"a"}


def test_two_generations_of_keys_heal_when_both_have_both_and_nothing_is_lost(
    replica, kv, kv_root, tmp_path, configstore
):
    """One writes with a new key while the other cannot open it yet: it says so, and goes on with the rest."""
    rings = [save(tmp_path / f"keyring-{name}", ring(FIRST)) for name in ("old", "new")]
    old, new = (replica(path.name[8:], more=table(path)).start() for path in rings)
    old.ready(), new.ready()
    (old.folder / "shared").write_bytes(b"before")
    (old.folder / "quiet").write_bytes(b"before")
    wait_until(lambda: set(equal(old, new)) == {"shared", "quiet"})
    save(rings[1], ring(SECOND, FIRST))
    wait_until(lambda: KEY[SECOND] in new.words(), SOON)
    (new.folder / "shared").write_bytes(b"of the new key")
    (new.folder / "quiet").write_bytes(b"of the new key")
    assert says(old, "degraded", KEY[SECOND]) == 200
    wait_until(lambda: "lacks the key" in configstore("status").decode(), SOON)
    (old.folder / "shared").write_bytes(b"edited meanwhile")
    (old.folder / "other").write_bytes(b"of the old key")
    reads(new, "other", b"of the old key")
    assert (old.folder / "quiet").read_bytes() == b"before"
    save(rings[0], ring(SECOND, FIRST))
    wait_until(
        lambda: set(equal(old, new, SOON)) == {"shared", "quiet", "other"} and old.metric("unopened") == 0, SOON
    )
    reads(old, "quiet", b"of the new key")
    assert (old.folder / "shared").read_bytes() == b"of the new key"
    tree = sealed_tree(kv, kv_root, ring(SECOND, FIRST))
    wait_until(lambda: b"conflicts/data/shared//" in everything(kv, kv_root))
    assert b"edited meanwhile" not in everything(kv, kv_root)
    assert tree.read(StorePath("data/shared")).record.seal.key == KEY[SECOND]


def test_a_keyring_that_was_changed_for_another_says_at_once_what_it_does_not_open(replica, tmp_path, kv, kv_root):
    """Not at the next start alone; what is here stays, and nothing is written over what it cannot read."""
    keyring = save(tmp_path / "keyring", ring(FIRST))
    one = replica("one", more=table(keyring)).start().ready()
    (one.folder / "a").write_bytes(b"mine")
    wait_until(lambda: KEY[FIRST].encode() in raw(kv, kv_root, "data/a"))
    before = raw(kv, kv_root, "data/a")
    save(keyring, ring(FOREIGN))
    assert says(one, "degraded", KEY[FIRST]) == 200
    (one.folder / "a").write_bytes(b"mine, edited")
    one.end()
    assert raw(kv, kv_root, "data/a") == before
    one.start()
    assert says(one, "not ready", KEY[FIRST]) == 503
    healthy = one.command("health")
    assert (healthy.returncode, KEY[FIRST] in healthy.stdout) == (1, True)
    save(keyring, ring(FIRST))
    one.ready()
    wait_until(lambda: raw(kv, kv_root, "data/a") != before, SOON)
    assert (one.folder / "a").read_bytes() == b"mine, edited"


def test_a_master_in_a_sidecar_works_and_is_complained_of(replica, tmp_path, configstore):
    one = replica("one", more=table(save(tmp_path / "master", master(FIRST)))).start().ready()
    assert says(one, "is a master, which opens the whole store") == 200
    assert any("is a master" in line["message"] for line in one.lines())
    wait_until(lambda: "is a master" in configstore("status").decode(), SOON)
    (one.folder / "a").write_bytes(b"mine")
    wait_until(lambda: one.metric("paths") == 1)
