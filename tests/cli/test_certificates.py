"""`check-certificates`: what a server can use passes, and what it cannot is named."""

import base64
import datetime as dt
import shutil

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from configstore import certificates
from tests.harness.certificates import Authority, pair

CERTIFICATE, KEY = pair("mail.example.org")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "certs"
    made.mkdir()
    return made


@pytest.fixture
def check(offline, folder, monkeypatch):
    """Return a function that checks the folder, and returns what is wrong with it."""
    for name in ("TLS_CERT_FILENAME", "TLS_KEYPAIR_FILENAME"):
        monkeypatch.delenv(name, raising=False)

    def run(*options):
        done = offline("check-certificates", *options, str(folder))
        assert done.code == (5 if done.err else 0)
        assert not done.out
        return done.err.removeprefix("configstore: ").strip()

    return run


def put(folder, pem, cert="cert.pem", key="key.pem", chain=()):
    (folder / cert).parent.mkdir(parents=True, exist_ok=True)
    (folder / cert).write_bytes(pem.cert.read_bytes() + b"".join(path.read_bytes() for path in chain))
    shutil.copy(pem.key, folder / key)


@pytest.mark.parametrize(
    ("cert", "key"),
    [("cert.pem", "key.pem"), ("tls.crt", "tls.key"), ("mail/fullchain.cer", "mail/mail.example.org.key")],
)
def test_a_pair_with_its_chain_passes_under_any_name(check, folder, authority, cert, key):
    put(folder, authority.issue("mail"), cert, key, chain=[authority.cacert])
    shutil.copy(authority.cacert, folder / "ca.crt")
    assert check() == ""


def test_an_empty_folder_passes(check):
    assert check() == ""


def test_a_key_of_another_certificate_is_named(check, folder, authority):
    put(folder, authority.issue("mail"))
    shutil.copy(authority.issue("other").key, folder / "key.pem")
    assert check() == "key.pem: is not the key of any certificate beside it (cert.pem)"
    assert check("--key", "key.pem") == "key.pem: is not the key of cert.pem"


def test_a_pair_of_which_half_is_missing_is_named(check, folder, authority):
    put(folder, authority.issue("mail"))
    (folder / "key.pem").unlink()
    assert check() == "cert.pem: its key is not there"
    assert check("--cert", "cert.pem") == "key.pem: is not there"
    put(folder, authority.issue("mail"))
    (folder / "cert.pem").unlink()
    assert check() == "key.pem: is not the key of any certificate beside it (there is none)"


def test_a_chain_out_of_order_is_named(check, folder, authority):
    mail = authority.issue("mail")
    put(folder, mail, chain=[Authority(folder.parent / "other", "another").cacert])
    assert check().startswith("cert.pem: CN=another follows CN=mail, which it did not sign")
    (folder / "cert.pem").write_bytes(authority.cacert.read_bytes() + mail.cert.read_bytes())
    assert check() == "key.pem: is not the key of any certificate beside it (there is none)"


def test_an_expired_certificate_is_named_and_passes_when_that_is_asked_for(check, folder, authority):
    put(folder, authority.issue("mail", days=-1))
    assert check().startswith("cert.pem: CN=mail expired on ")
    assert check("--expired") == ""
    shutil.copy(authority.issue("other").key, folder / "key.pem")
    assert "is not the key" in check("--expired")


@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not PEM"),
        (b"no PEM\n", "is not PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "a key that cannot be read"),
    ],
    ids=["empty", "text", "certificate", "key"],
)
def test_what_is_none_is_named(check, folder, authority, name, content, words):
    put(folder, authority.issue("mail"))
    (folder / name).write_bytes(content)
    assert f"{name}: " in check()
    assert words in check()


def test_an_encrypted_key_is_named(check, folder, authority):
    put(folder, authority.issue("mail"))
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    how = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, how))
    assert check().startswith("key.pem: holds a key that is encrypted")


def test_a_pair_that_mailu_is_told_to_use_is_all_that_is_looked_at(check, folder, authority, monkeypatch):
    put(folder, authority.issue("old", days=-1), "old.pem", "old.key")
    put(folder, authority.issue("mail"), "sub/fullchain.cer", "sub/mail.key")
    assert "old.pem" in check()
    monkeypatch.setenv("TLS_CERT_FILENAME", "sub/fullchain.cer")
    monkeypatch.setenv("TLS_KEYPAIR_FILENAME", "sub/mail.key")
    assert check() == ""
    (folder / "sub/mail.key").unlink()
    assert check() == "sub/mail.key: is not there"


def test_what_somebody_left_without_its_key_hinders_nothing(check, folder, authority):
    put(folder, authority.issue("mail"))
    shutil.copy(authority.issue("old", days=-1).cert, folder / "cert-old.pem")
    (folder / "dhparam.pem").write_bytes(b"-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n")
    assert check() == ""


def test_certbots_own_tree_is_not_judged(check, folder, authority):
    put(
        folder,
        authority.issue("mail", days=-1),
        "letsencrypt/archive/mailu/cert1.pem",
        "letsencrypt/archive/mailu/privkey1.pem",
    )
    assert check() == ""


def test_without_the_library_it_says_what_to_install(offline, folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "configstore.certificates", None)
    monkeypatch.delattr("configstore.certificates", raising=False)
    done = offline("check-certificates", str(folder))
    assert (done.code, "mailu-configstore[certificates]" in done.err) == (2, True)


BLOCKS = st.sampled_from(
    [b"CERTIFICATE", b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY", b"ENCRYPTED PRIVATE KEY"]
)


def block(name, content):
    return b"-----BEGIN %s-----\n%s\n-----END %s-----\n" % (name, base64.b64encode(content), name)


DER = st.binary(max_size=200)


@given(
    st.dictionaries(
        st.sampled_from(["cert.pem", "key.pem", "a/tls.crt", "a/tls.key"]),
        st.one_of(
            DER,
            st.builds(block, BLOCKS, DER),
            st.builds(bytes.join, st.just(b""), st.lists(st.builds(block, BLOCKS, DER))),
        ),
    ),
    st.sampled_from([None, ("cert.pem", "key.pem"), ("x", "y")]),
)
def test_any_bytes_are_judged_in_words(files, pair):
    found = certificates.problems(files, pair, dt.datetime.now(dt.UTC))
    assert all(reason.partition(": ")[2] for reason in found)


@pytest.mark.filterwarnings("ignore:.*:cryptography.utils.CryptographyDeprecationWarning")
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_bytes_of_a_pair_may_be_others(data):
    files = {}
    for path, of, name in (("cert.pem", CERTIFICATE, b"CERTIFICATE"), ("key.pem", KEY, b"PRIVATE KEY")):
        content = bytearray(base64.b64decode("".join(of.splitlines()[1:-1])))
        for _ in range(data.draw(st.integers(0, 2))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        files[path] = block(name, content)
    for wanted in (None, ("cert.pem", "key.pem")):
        certificates.problems(files, wanted, dt.datetime.now(dt.UTC))


def test_a_file_for_a_folder_is_an_error(offline, tmp_path):
    (tmp_path / "file").touch()
    assert offline("check-certificates", str(tmp_path / "file")).code == 1
