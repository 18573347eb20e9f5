"""Keys, keyrings and the form of what is sealed."""

import pytest

from configstore.model.path import ROOT, StorePath
from configstore.model.seal import (
    KeyringError,
    Master,
    SealedKind,
    Secret,
    bound_to,
    dump,
    parse,
    piece_name,
)

CERTS, INNER, DKIM = StorePath("certs"), StorePath("certs/letsencrypt"), StorePath("dkim")
OLD, NEW = Secret(secret=b"o" * 32, made="2026-01-01"), Secret(secret=b"n" * 32, made="2026-06-01")
MASTER = Master(secrets=(NEW, OLD), subtrees=(CERTS, INNER, DKIM))


def test_a_path_is_sealed_with_the_newest_key_of_the_innermost_subtree():
    ring = MASTER.keyring()
    assert ring.for_writing(StorePath("certs/letsencrypt/live")) == NEW.key(INNER)
    assert ring.for_writing(StorePath("certs/cert.pem")) == NEW.key(CERTS)
    assert ring.for_writing(StorePath("certs-x/cert.pem")) == NEW.key(ROOT)


def test_a_keyring_of_a_subtree_has_no_key_for_another():
    ring = MASTER.keyring_of([CERTS])
    assert ring.for_writing(StorePath("dkim/a.key")) is None
    assert {key.subtree for key in ring.keys} == {CERTS}


def test_a_keyring_fits_a_subtree_when_it_has_a_key_around_it_or_in_it():
    inner, other = MASTER.keyring_of([INNER]), MASTER.keyring_of([DKIM])
    assert [ring.fits(CERTS) for ring in (MASTER.keyring(), inner, other)] == [True, True, False]
    assert other.fits(ROOT)
    assert MASTER.keyring_of([ROOT]).fits(CERTS)


def test_of_the_keys_of_a_subtree_the_one_comes_first_that_it_is_sealed_with():
    ring = MASTER.keyring_of([ROOT, CERTS, INNER, DKIM])
    assert ring.of(CERTS)[0] == NEW.key(CERTS)
    assert {key.subtree for key in ring.of(CERTS)} == {ROOT, CERTS, INNER}
    assert ring.of(ROOT)[0] == NEW.key(ROOT)
    assert len(ring.of(ROOT)) == len(ring.keys)


def test_an_older_print_of_the_master_opens_what_got_a_key_of_its_own_since():
    for print_of in (Master(secrets=(OLD,)), Master(secrets=(NEW, OLD), subtrees=(CERTS,))):
        key = OLD.key(INNER)
        assert print_of.keyring().find(key.id, StorePath("certs/letsencrypt/live/x")) == key
        assert print_of.keyring().find(key.id, StorePath("certs/x")) is None


def test_keys_of_subtrees_generations_and_uses_differ():
    keys = [secret.key(subtree) for secret in (NEW, OLD) for subtree in (ROOT, CERTS, INNER, DKIM)]
    made = [each for key in keys for each in (key.secret, key.cipher, key.naming, key.id.encode())]
    assert len(set(made)) == len(made)


def test_a_key_proves_nothing_outside_its_subtree():
    ring, key = MASTER.keyring(), NEW.key(CERTS)
    assert ring.find(key.id, StorePath("certs/a")) == key
    assert ring.find(key.id, StorePath("dkim/a")) is None
    assert ring.find("0" * 16, StorePath("certs/a")) is None


@pytest.mark.parametrize("ring", [MASTER, MASTER.keyring_of([CERTS, DKIM])])
def test_a_keyring_is_read_as_it_was_written(ring):
    assert parse(dump(ring)) == ring


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nMIIsecret\n",
        b'{"keyring":1}',
        b'{"keyring":2,"secrets":[{"secret":"' + b"aa" * 32 + b'"}]}',
        b'{"keyring":1,"secrets":[{"secret":"' + b"aa" * 31 + b'"}]}',
        b'{"keyring":1,"secrets":[{"secret":"' + b"zz" * 32 + b'"}]}',
        b'{"keyring":1,"secrets":[{"secret":"' + b"aa" * 32 + b'"}],"subtrees":["../x"]}',
        b'{"keyring":1,"keys":[{"subtree":"certs","id":"0123456789abcdef","secret":"' + b"aa" * 32 + b'"}]}',
        b'{"keyring":1,"keys":[],"keys":[{"subtree":"certs","secret":"' + b"aa" * 32 + b'"}]}',
    ],
)
def test_what_is_no_keyring_is_refused_without_quoting_it(text):
    with pytest.raises(KeyringError) as refused:
        parse(text)
    assert "aaaa" not in str(refused.value)
    assert "MII" not in str(refused.value)


def test_no_secret_is_in_any_text_about_a_key():
    for value in (NEW, NEW.key(CERTS), MASTER, MASTER.keyring()):
        assert NEW.secret.hex() not in repr(value)
        assert "nnnn" not in repr(value)
        assert repr(NEW.key(CERTS).secret) not in repr(value)


def test_names_of_pieces_are_equal_for_equal_pieces_of_one_path_and_key_alone():
    key, other = NEW.key(CERTS), OLD.key(CERTS)
    a, b = StorePath("certs/a"), StorePath("certs/b")
    assert piece_name(key, SealedKind.RECORD, "/r", a, b"x") == piece_name(key, SealedKind.RECORD, "/r", a, b"x")
    named = {
        (key, SealedKind.RECORD, "/r", a, b"x"),
        (other, SealedKind.RECORD, "/r", a, b"x"),
        (key, SealedKind.CONFLICT, "/r", a, b"x"),
        (key, SealedKind.RECORD, "/other", a, b"x"),
        (key, SealedKind.RECORD, "/r", b, b"x"),
        (key, SealedKind.RECORD, "/r", a, b"y"),
    }
    assert len({piece_name(*each) for each in named}) == len(named)


def test_no_two_places_have_the_same_associated_data():
    places = [
        (SealedKind.RECORD, "/a", StorePath("b/c"), b"x"),
        (SealedKind.CONFLICT, "/a", StorePath("b/c"), b"x"),
        (SealedKind.RECORD, "/a/b", StorePath("c"), b"x"),
        (SealedKind.RECORD, "/a", StorePath("b"), b"c\0x"),
        (SealedKind.RECORD, "/a", StorePath("b/c"), b"y"),
    ]
    assert len({bound_to(*place) for place in places}) == len(places)


def test_a_key_is_the_same_in_every_release():
    """What was sealed once must open for ever: these values may never change."""
    key = Secret(secret=bytes(range(32))).key(CERTS)
    assert key.secret.hex() == "cfa7fcc408704c601dbae586e26ad780be7d3c4bd490e173e6e64f15896ffdfe"
    assert key.id == "ae026c3c1a1da698"
    assert key.cipher.hex() == "c65142dbf8bcca2d63175e2cb16de1a03c54209099ba161c8738bac618d51176"
    assert key.naming.hex() == "fc18565abc17f0caae3a3bdc9fee77f1c40777793689b6d13c5185e92f497000"
