"""The certificates of an installation: what is made, kept, renewed and refused, and that real TLS takes them."""

import datetime as dt
import fcntl
import itertools
import os
import stat

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from configstore.access import layout
from configstore.access.certificates import AuthorityFiles, AuthorityState, ensure
from configstore.errors import RefusedError, UsageError

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
SERVICES = {"front": "mailu-front", "admin": "mailu-admin"}
LEAVES = ("server", "peer", "operator", "mailu-front", "mailu-admin")


def days(count):
    return dt.timedelta(days=count)


@pytest.fixture
def tls(tmp_path):
    return tmp_path / "tls"


def make(tls, now=NOW, services=SERVICES, **options):
    return {each.name: each for each in ensure(str(tls), services, now=now, **options)}


def states(found):
    return {each.state for each in found.values()}


def load(path):
    with open(path, "rb") as file:
        return x509.load_pem_x509_certificate(file.read())


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind).value


def names(certificate):
    found = extension(certificate, x509.SubjectAlternativeName)
    return {
        *found.get_values_for_type(x509.DNSName),
        *map(str, found.get_values_for_type(x509.IPAddress)),
    }


def tree(tls):
    return {path.relative_to(tls): path.read_bytes() for path in tls.rglob("*") if path.is_file()}


def test_everything_is_made_where_it_is_looked_for(tls):
    found = make(tls)
    assert states(found) == {AuthorityState.MADE}
    assert list(found) == ["ca", "peer-ca", *LEAVES]
    assert {str(path) for path in tree(tls)} == {
        "ca.pem", "ca.key", "peer-ca.pem", "peer-ca.key",
        "server/server.pem", "server/server.key", "server/ca.pem",
        "server/peer.pem", "server/peer.key", "server/peer-ca.pem",
        "operator/operator.pem", "operator/operator.key", "operator/ca.pem",
        "front/mailu-front.pem", "front/mailu-front.key", "front/ca.pem",
        "admin/mailu-admin.pem", "admin/mailu-admin.key", "admin/ca.pem",
    }  # fmt: skip
    for name in LEAVES:
        made = found[name]
        assert os.path.exists(made.path)
        assert load(made.path).not_valid_after_utc == made.end == NOW + days(825)
    front = layout.client_files(str(tls), "front", "mailu-front")
    assert front.cert == found["mailu-front"].path
    assert layout.operator_files(str(tls)).cert == found["operator"].path


def test_the_common_name_is_the_user_and_no_member_is_one(tls):
    found = make(tls)
    users = {name: load(found[name].path).subject.rfc4514_string() for name in LEAVES}
    assert users == {
        "server": "CN=etcd",
        "peer": "CN=etcd-peer",
        "operator": "CN=root",
        "mailu-front": "CN=mailu-front",
        "mailu-admin": "CN=mailu-admin",
    }


def test_where_etcd_is_reached_comes_to_the_servers_names_and_to_no_members(tls):
    first = make(tls)
    default = {"etcd", "localhost", "127.0.0.1", "::1"}
    assert names(load(first["server"].path)) == names(load(first["peer"].path)) == default
    found = make(tls, reached_at=["etcd.example.org", "localhost"])
    assert names(load(found["server"].path)) == default | {"etcd.example.org"}
    assert (found["server"].state, found["peer"].state) == (AuthorityState.RENEWED, AuthorityState.KEPT)
    assert make(tls)["server"].state is AuthorityState.KEPT


def test_each_certificate_may_do_what_it_is_for_and_no_more(tls):
    found = make(tls, server_names=["etcd-1", "192.0.2.11", "fd00::7", "*.etcd.mailu.svc"])
    server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    uses = {name: set(extension(load(found[name].path), x509.ExtendedKeyUsage)) for name in LEAVES}
    assert uses == {"server": {server, client}, "peer": {server, client}} | {name: {client} for name in LEAVES[2:]}
    for name in ("server", "peer"):
        assert names(load(found[name].path)) == {"etcd-1", "192.0.2.11", "fd00::7", "*.etcd.mailu.svc"}
    for name in LEAVES:
        certificate = load(found[name].path)
        assert not extension(certificate, x509.BasicConstraints).ca
        assert extension(certificate, x509.KeyUsage).digital_signature
        assert not extension(certificate, x509.KeyUsage).key_cert_sign
    for name in ("ca", "peer-ca"):
        authority = load(found[name].path)
        assert extension(authority, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
        assert extension(authority, x509.KeyUsage).key_cert_sign
        assert authority.not_valid_after_utc == NOW + days(3650)


def test_clients_and_members_are_of_different_authorities(tls):
    found = make(tls)
    clients, peers = load(found["ca"].path), load(found["peer-ca"].path)
    assert clients.subject != peers.subject
    for name in LEAVES:
        mine, other = (peers, clients) if name == "peer" else (clients, peers)
        load(found[name].path).verify_directly_issued_by(mine)
        with pytest.raises(ValueError, match="does not match"):
            load(found[name].path).verify_directly_issued_by(other)


def test_keys_fit_and_are_of_their_owner_alone(tls):
    umask = os.umask(0)
    try:
        found = make(tls)
    finally:
        os.umask(umask)
    for folder in (tls, *(tls / name for name in ("server", "operator", *SERVICES))):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    keys = sorted(tls.rglob("*.key"))
    assert len(keys) == 7
    for file in keys:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        key = load_pem_private_key(file.read_bytes(), None)
        assert isinstance(key.curve, ec.SECP256R1)
        assert key.public_key() == load(file.with_suffix(".pem")).public_key()
    assert stat.S_IMODE(os.stat(found["mailu-front"].path).st_mode) == 0o644


def test_no_key_can_be_read_by_others_for_an_instant(tls, monkeypatch):
    """With its mode as it is made: whatever is set afterwards comes too late."""
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    umask = os.umask(0)
    try:
        make(tls)
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tls.rglob("*") if file.is_file()} == {0o600}


def test_a_second_call_changes_nothing(tls):
    make(tls, server_names=["etcd-1"])
    before = tree(tls)
    again = make(tls, now=NOW + days(500))
    assert states(again) == {AuthorityState.KEPT}
    assert tree(tls) == before
    assert names(load(again["server"].path)) == {"etcd-1"}, "they need not be said again"


def test_a_dry_run_says_the_same_and_writes_nothing(tls):
    planned = make(tls, dry_run=True)
    assert not tls.exists()
    assert states(planned) == {AuthorityState.MADE}
    made = make(tls)
    assert {name: (each.path, each.end) for name, each in planned.items()} == {
        name: (each.path, each.end) for name, each in made.items()
    }
    before = tree(tls)
    assert make(tls, now=NOW + days(600), dry_run=True)["server"].state is AuthorityState.RENEWED
    make(tls, now=NOW + days(600), roll_over=True, dry_run=True)
    assert tree(tls) == before


def test_what_is_missing_is_made_and_the_rest_is_kept(tls):
    make(tls, services={"front": "mailu-front"})
    found = make(tls)
    assert [name for name, each in found.items() if each.state is AuthorityState.MADE] == ["mailu-admin"]


def test_in_the_last_third_a_certificate_is_renewed_for_the_same_key(tls):
    make(tls)
    before = tree(tls)
    found = make(tls, now=NOW + days(560))
    assert {name for name, each in found.items() if each.state is AuthorityState.RENEWED} == set(LEAVES)
    assert found["mailu-front"].end == NOW + days(560 + 825)
    assert "ends on 2032-04-05" in found["mailu-front"].why
    changed = {str(path) for path, content in tree(tls).items() if content != before[path]}
    assert changed == {"server/server.pem", "server/peer.pem", "operator/operator.pem",
                       "front/mailu-front.pem", "admin/mailu-admin.pem"}  # fmt: skip


def test_other_names_renew_what_members_show(tls):
    make(tls, server_names=["etcd-1"])
    found = make(tls, server_names=["etcd-1", "etcd-2"])
    assert {name for name, each in found.items() if each.state is AuthorityState.RENEWED} == {"server", "peer"}
    assert names(load(found["server"].path)) == {"etcd-1", "etcd-2"}


def test_an_authority_near_its_end_is_renewed_so_that_old_and_new_know_each_other(tls):
    old = load(make(tls)["ca"].path)
    late = NOW + days(3000)
    found = make(tls, now=late)
    new = load(found["ca"].path)
    assert found["ca"].state is AuthorityState.RENEWED
    assert "restart the members of etcd" in found["ca"].why
    assert new.not_valid_after_utc == late + days(3650)
    for authority in (old, new):
        load(found["mailu-front"].path).verify_directly_issued_by(authority)
    assert (tls / "front/ca.pem").read_bytes() == (tls / "ca.pem").read_bytes()


def test_nothing_outlives_its_authority(tls, tmp_path):
    make(tls)
    given = AuthorityFiles(str(tls / "ca.pem"), str(tls / "ca.key"))
    late = NOW + days(3500)
    found = make(tmp_path / "other", now=late, given=given)
    assert found["mailu-front"].end == NOW + days(3650)
    assert "yours to renew" in found["ca"].why


def test_another_key_comes_in_three_steps_in_each_of_which_neighbours_know_each_other(tls):
    """A folder of one step beside one of the step after it, whichever of both has the server's or the client's."""

    def trusted():
        return x509.load_pem_x509_certificates((tls / "front/ca.pem").read_bytes())

    def knows(bundle, certificate):
        return any(each.public_key() == signer.public_key() for each in bundle for signer in signers(certificate))

    def signers(certificate):
        for each in every:
            try:
                certificate.verify_directly_issued_by(each)
            except (ValueError, TypeError, InvalidSignature):
                continue
            yield each

    make(tls)
    steps = [(trusted(), load(tls / "front/mailu-front.pem"))]
    for number in (1, 2, 3):
        found = make(tls, roll_over=True)
        assert f"step {number} of 3" in found["ca"].why
        assert f"step {number} of 3" in found["peer-ca"].why
        steps.append((trusted(), load(found["mailu-front"].path)))
    every = [each for bundle, _ in steps for each in bundle]
    assert [len(bundle) for bundle, _ in steps] == [1, 2, 2, 1]
    for one, other in itertools.pairwise(steps):
        assert knows(one[0], other[1])
        assert knows(other[0], one[1])
    assert not knows(steps[-1][0], steps[0][1]), "what the first one signed is worth nothing any more"
    assert steps[0][1].public_key() == steps[-1][1].public_key()
    assert states(make(tls)) == {AuthorityState.KEPT}
    assert not list(tls.glob("*.old.key"))


def test_an_authority_of_the_operators_own_signs_and_its_key_stays_where_it_is(tls, tmp_path):
    own = tmp_path / "own"
    make(own)
    given = AuthorityFiles(str(own / "ca.pem"), str(own / "ca.key"))
    found = make(tls, given=given)
    assert "it must sign nothing else" in found["ca"].why
    assert not (tls / "ca.key").exists()
    assert (tls / "front/ca.pem").read_bytes() == (own / "ca.pem").read_bytes()
    load(found["mailu-front"].path).verify_directly_issued_by(load(own / "ca.pem"))
    load(found["server"].path).verify_directly_issued_by(load(own / "ca.pem"))
    with pytest.raises(ValueError, match="does not match"):
        load(found["peer"].path).verify_directly_issued_by(load(own / "ca.pem"))
    assert states(make(tls, given=given)) == {AuthorityState.KEPT}
    with pytest.raises(RefusedError, match=r"ca\.key, is not there: put it back"):
        make(tls)


def test_an_authority_is_followed_by_another_one_only_beside_it(tls, tmp_path):
    for name in ("one", "two"):
        make(tmp_path / name)
    one, two = (
        AuthorityFiles(str(tmp_path / name / "ca.pem"), str(tmp_path / name / "ca.key")) for name in ("one", "two")
    )
    make(tls, given=one)
    with pytest.raises(RefusedError, match=r"of another authority.*add it to"):
        make(tls, given=two)
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "two/ca.pem").read_bytes() + (tmp_path / "one/ca.pem").read_bytes())
    found = make(tls, given=AuthorityFiles(str(both), two.key))
    assert found["mailu-front"].state is AuthorityState.RENEWED
    assert (tls / "front/ca.pem").read_bytes() == both.read_bytes()


BAD_NAMES = [
    {"a/b": "mailu-a"}, {"..": "mailu-a"}, {"": "mailu-a"}, {"Front": "mailu-a"}, {"a" * 41: "mailu-a"},
    {"server": "mailu-server"}, {"operator": "mailu-operator"}, {"ca": "mailu-ca"},
    {"front": "root"}, {"front": "etcd"}, {"front": "a/b"}, {"front": "../a"}, {"front": ""},
    {"front": "mailu", "admin": "mailu"},
]  # fmt: skip


@pytest.mark.parametrize("services", BAD_NAMES, ids=repr)
def test_a_bad_name_is_said_before_anything_is_made(tls, services):
    with pytest.raises(UsageError, match=r"service|user"):
        make(tls, services=services)
    assert not tls.exists()


@pytest.mark.parametrize(
    "name", ["", "a/b", "300.1.2.3", "etcd:2379", "https://etcd", "a..b", "-a", "*", "ä.example"]
)
def test_a_bad_server_name_is_said_before_anything_is_made(tls, name):
    with pytest.raises(UsageError, match="expected a host's name or an address"):
        make(tls, server_names=[name])
    assert not tls.exists()


def unlink(name):
    return lambda tls: (tls / name).unlink()


def copy(source, target):
    return lambda tls: (tls / target).write_bytes((tls / source).read_bytes())


def write(name, text):
    return lambda tls: (tls / name).write_text(text)


def link(name):
    def swap(tls):
        (tls / name).rename(tls / "moved")
        (tls / name).symlink_to(tls / "moved")

    return swap


SPOILT = {
    "the authority's key is lost": (
        unlink("ca.key"),
        r"ca\.pem: the key of that authority, .*ca\.key, is not there",
    ),
    "the peers' key is lost": (unlink("peer-ca.key"), r"peer-ca\.key, is not there: put it back"),
    "the authority's key is another's": (copy("peer-ca.key", "ca.key"), r"ca\.key: is not the key of ca\.pem"),
    "the authority is none": (
        lambda tls: (copy("front/mailu-front.pem", "ca.pem")(tls), copy("front/mailu-front.key", "ca.key")(tls)),
        r"ca\.pem: is not the certificate of an authority",
    ),
    "a service's key is lost": (
        unlink("front/mailu-front.key"),
        r"mailu-front\.key: is not there, while its cert",
    ),
    "a service's key is another's": (
        copy("admin/mailu-admin.key", "front/mailu-front.key"),
        r"mailu-front\.key: is not the key of mailu-front\.pem",
    ),
    "a service's pair is another's": (
        lambda tls: [copy(f"admin/mailu-admin.{end}", f"front/mailu-front.{end}")(tls) for end in ("pem", "key")],
        r"mailu-front\.pem: is of 'mailu-admin', not of 'mailu-front'",
    ),
    "a key is no key": (write("front/mailu-front.key", "nothing"), r"holds no private key that can be read"),
    "a certificate is none": (write("front/mailu-front.pem", "nothing"), r"holds no certificate that can be read"),
    "a key is a link": (link("front/mailu-front.key"), r"mailu-front\.key: Too many levels of symbolic links"),
    "a folder is a link": (link("front"), r"front: Not a directory"),
    "a folder is a file": (
        lambda tls: ((tls / "front").rename(tls / "moved"), (tls / "front").touch()),
        r"front: Not a directory",
    ),
    "others may write": (lambda tls: (tls / "front").chmod(0o777), "front: others may write there: chmod go-w"),
    "others may write to all": (lambda tls: tls.chmod(0o770), "others may write there: chmod go-w"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_not_as_it_should_be_is_refused_and_nothing_changes(tls, how):
    make(tls)
    spoil, words = SPOILT[how]
    spoil(tls)
    before = tree(tls)
    with pytest.raises(RefusedError, match=words):
        make(tls, now=NOW + days(700))
    assert tree(tls) == before


def test_a_run_that_was_killed_is_finished_with_the_keys_that_it_made(tls):
    make(tls)
    keys = {path: content for path, content in tree(tls).items() if path.suffix == ".key"}
    for file in tls.rglob("*.pem"):
        file.unlink()
    assert states(make(tls)) == {AuthorityState.MADE}
    assert {path: content for path, content in tree(tls).items() if path.suffix == ".key"} == keys


def test_two_at_once_do_not_make_two_authorities(tls):
    make(tls)
    fd = os.open(tls, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="another command is at work there"):
            make(tls)
    finally:
        os.close(fd)


def test_a_key_that_others_may_read_is_told(tls):
    make(tls)
    (tls / "front/mailu-front.key").chmod(0o640)
    (tls / "ca.key").chmod(0o644)
    found = make(tls)
    assert "can be read by others: chmod 600" in found["mailu-front"].why
    assert "can be read by others: chmod 600" in found["ca"].why


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_is_renewed_belongs_to_whom_its_folder_was_given(tls):
    make(tls)
    for path in (tls / "front", *(tls / "front").iterdir()):
        os.chown(path, 100, 1000)
    make(tls, now=NOW + days(700))
    (tls / "front/mailu-front.key").unlink()
    (tls / "front/mailu-front.pem").unlink()
    make(tls, now=NOW + days(700))
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (tls / "front").iterdir()} == {(100, 1000)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another's directory")
def test_the_directory_of_somebody_else_is_refused(tls):
    tls.mkdir()
    os.chown(tls, 100, 1000)
    with pytest.raises(RefusedError, match="belongs to user 100"):
        make(tls)


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("absent.pem", "ca.key", r"absent\.pem: No such file"),
        ("ca.pem", "peer-ca.key", "is not the key of --ca-cert"),
        ("front/mailu-front.pem", "front/mailu-front.key", "is not the certificate of an authority"),
        ("ca.key", "ca.key", "holds no certificate that can be read"),
        ("ca.pem", "ca.pem", "holds no private key that can be read"),
    ],
)
def test_a_given_authority_that_cannot_sign_is_said(tls, tmp_path, cert, key, words):
    own = tmp_path / "own"
    make(own)
    with pytest.raises(UsageError, match=words):
        make(tls, given=AuthorityFiles(str(own / cert), str(own / key)))


def test_a_given_authority_whose_time_is_over_is_said(tls, tmp_path):
    own = tmp_path / "own"
    make(own)
    with pytest.raises(UsageError, match="expired on 2039-12-30"):
        make(tls, now=NOW + days(3651), given=AuthorityFiles(str(own / "ca.pem"), str(own / "ca.key")))


def test_an_authority_of_its_own_is_not_left_for_a_given_one(tls, tmp_path):
    own = tmp_path / "own"
    make(own)
    make(tls)
    with pytest.raises(RefusedError, match="an authority of its own is there"):
        make(tls, given=AuthorityFiles(str(own / "ca.pem"), str(own / "ca.key")))
