"""`doctor` against real etcd: what is well, and each way in which it is not."""

import os
import re
import ssl
import time

import pytest

from configstore.doctor import http_probe
from configstore.doctor.facts import Refusal
from configstore.doctor.trials import try_rights
from configstore.embedded import LOOPBACK, EmbeddedEtcd, free_ports
from configstore.errors import NoSpaceError, StoreUnavailableError
from configstore.expiry import validity_of
from configstore.model.keys import Keys, prefix_end
from configstore.model.path import StorePath
from configstore.model.replica import MappingState, Report, encode
from configstore.settings import StoreSettings
from configstore.store.api import Put
from tests.e2e.faults import says
from tests.harness.certificates import Authority
from tests.harness.keyrings import FIRST, ring, save, sealed_tree
from tests.harness.named import put
from tests.harness.servers import cluster, connect, run_etcdctl
from tests.harness.waiting import wait_until

PASSWORD = "correct horse"  # of a server that lives for one test


@pytest.fixture
def doctor(run, kv_root, tmp_path):
    """Return a function that examines endpoints: the exit code and the rows, by check."""

    def examine(*endpoints, words=(), **settings):
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        done = run("doctor", "--json", f"--endpoints={','.join(endpoints)}", *options, *words)
        assert not done.err
        assert PASSWORD not in done.out.decode()
        rows = {}
        for row in done.json():
            assert row["mend"] or row["state"] != "fail"
            rows.setdefault(row["check"], []).append(row)
        return done.code, rows

    return examine


def states(rows, check):
    return [row["state"] for row in rows[check]]


def said(rows, check):
    return " ".join(f"{row['found']} {row['mend'] or ''}" for row in rows[check])


def left(kv, root):
    prefix = f"{root}/doctor/".encode()
    return kv.range(prefix, prefix_end(prefix)).items


def test_a_well_etcd_of_each_version_gives_warnings_about_its_version_alone(own_etcd, doctor, run, kv_root):
    assert run("mkdir", "dkim", f"--endpoints={own_etcd.endpoint}").code == 0
    code, rows = doctor(own_etcd.endpoint)
    assert code == 0
    assert {check for check in rows if set(states(rows, check)) != {"ok"}} == {"version"}
    assert "2048.0 MiB" in said(rows, "space")
    assert "read, grant a lease, renew a lease, write, watch, delete: all allowed" in said(rows, "rights")
    assert "readable (1), in dkim" in said(rows, "store")
    assert "too young" in said(rows, "compaction")
    with connect(own_etcd.endpoint) as kv:
        assert not left(kv, kv_root)
        kv.compact(kv.status().revision)
    _, rows = doctor(own_etcd.endpoint)
    assert "up to revision" in said(rows, "compaction")


def test_nothing_is_left_of_a_trial_that_is_cut_off_in_its_middle(kv, kv_root, monkeypatch):
    def unreachable(*_, **__):
        raise StoreUnavailableError("gone")

    monkeypatch.setattr(kv, "watch", unreachable)
    with pytest.raises(StoreUnavailableError):
        try_rights(kv, Keys(kv_root).trial("x"))
    assert not left(kv, kv_root)


def test_the_table_shows_a_mend_below_what_it_mends(run):
    done = run("doctor")
    lines = done.out.decode().splitlines()
    assert done.code == 0
    assert lines[0].split() == ["CHECK", "STATE", "FOUND"]
    states = re.findall(r"^\S.*? (warn|ok) ", "\n".join(lines[1:-1]), re.MULTILINE)
    assert states == sorted(states, reverse=True)  # the warnings first
    warnings = [row["state"] for row in run("doctor", "--json").json()].count("warn")
    assert lines[-1].startswith(f"{warnings} problems: 0 failed, {warnings} warnings; ")
    versions = [number for number, line in enumerate(lines) if line.startswith("version ")]
    assert lines[versions[-1] + 1].strip() == "→ upgrade to 3.6.14 or later"
    assert sum("→ upgrade" in line for line in lines) == 1


def test_nobody_answers_and_it_is_over_in_time(doctor):
    begun = time.monotonic()
    code, rows = doctor(*(f"http://{LOOPBACK}:{port}" for port in free_ports(2)), timeout="1s")
    assert time.monotonic() - begun < 8  # of the 10 that one call may take unless told otherwise
    assert (code, states(rows, "endpoint")) == (4, ["fail", "fail"])
    assert "not asked" in said(rows, "etcd")


def test_unusable_options_end_it_like_any_command(run):
    assert run("doctor", "--endpoints=nonsense").code == 2
    done = run("doctor", f"--endpoints=https://{LOOPBACK}:1", "--cacert=/absent.pem")
    assert (done.code, "absent.pem" in done.err, done.out) == (2, True, b"")


@pytest.mark.parametrize("version", ["wheel", "debian"])
def test_used_up_space_fails_with_the_way_out(doctor, tmp_path, binary_named, version):
    quota = ("--quota-backend-bytes=1000000",)
    with EmbeddedEtcd(binary=binary_named(version), folder=tmp_path / "e", arguments=quota) as server:
        with connect(server.endpoint) as kv:

            def full():
                try:
                    kv.txn([], [Put(b"b", b"x" * 400_000)])
                except NoSpaceError:
                    return True
                return False

            wait_until(full)
        code, rows = doctor(server.endpoint)
    assert (code, states(rows, "alarms")) == (5, ["fail"])
    assert "alarm disarm" in said(rows, "alarms")
    assert states(rows, "space") == ["warn"]
    assert "database space exceeded" in said(rows, "rights")


@pytest.fixture(params=["wheel", "debian"])
def guarded(request, binary_named, kv_root):
    """An etcd with access control: below the root key `ann` may do all, `bob` may read, `eve` nothing."""
    with EmbeddedEtcd(binary=binary_named(request.param)) as server:
        for arguments in (
            ("user", "add", "root:root"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "all"),
            ("role", "grant-permission", "all", "readwrite", f"{kv_root}/", "--prefix"),
            ("role", "add", "reading"),
            ("role", "grant-permission", "reading", "read", f"{kv_root}/", "--prefix"),
            *(("user", "add", f"{name}:{PASSWORD}") for name in ("ann", "bob", "eve")),
            ("user", "grant-role", "ann", "all"),
            ("user", "grant-role", "bob", "reading"),
            ("auth", "enable"),
        ):
            run_etcdctl(server.endpoint, *arguments)
        yield server


def test_rights_are_tried_and_what_is_missing_is_named(doctor, guarded, kv_root, tmp_path, monkeypatch):
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    secret = {"password_file": password}

    code, rows = doctor(guarded.endpoint, user="ann", **secret)
    assert (code, states(rows, "rights"), states(rows, "credentials")) == (0, ["ok"], ["ok"])

    code, rows = doctor(guarded.endpoint, user="bob", **secret)
    assert code == 5
    assert rows["rights"][0]["found"].startswith("write: ")
    assert f"grant-permission ROLE readwrite {kv_root}/ --prefix" in rows["rights"][0]["mend"]
    assert states(rows, "compaction") == ["ok"]

    code, rows = doctor(guarded.endpoint, user="eve", **secret)
    assert (code, states(rows, "credentials"), states(rows, "store")) == (5, ["ok"], ["fail"])
    assert states(rows, "compaction") == ["warn"]

    code, rows = doctor(guarded.endpoint)
    assert (code, states(rows, "credentials"), states(rows, "endpoint")) == (5, ["fail"], ["ok"])
    assert "rights" not in rows

    password.write_text("wrong\n")
    code, rows = doctor(guarded.endpoint, user="ann", **secret)
    assert (code, states(rows, "credentials")) == (5, ["fail"])
    assert "authentication failed" in said(rows, "credentials")

    with connect(guarded.endpoint, user="ann", password=PASSWORD) as kv:
        assert not left(kv, kv_root)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def tls_etcd(pem, *more, binary=None):
    return EmbeddedEtcd(binary=binary, tls_arguments=(f"--cert-file={pem.cert}", f"--key-file={pem.key}", *more))


@pytest.mark.parametrize("version", ["wheel", "debian"])
def test_certificates_are_read_and_clock_and_quota_are_had_over_tls(doctor, run, authority, binary_named, version):
    mutual = ("--client-cert-auth", f"--trusted-ca-file={authority.cacert}")
    pem, client = authority.issue("soon", days=10, age=80), authority.issue("client", days=40, age=80)
    with tls_etcd(pem, *mutual, binary=binary_named(version)) as server:
        tls = {"cacert": authority.cacert, "cert": client.cert, "key": client.key}
        code, rows = doctor(server.endpoint, **tls)
        assert (code, states(rows, "tls"), states(rows, "client certificate")) == (0, ["warn"], ["ok"])
        assert "days left: 9" in said(rows, "tls")
        assert (states(rows, "clock"), states(rows, "space")) == (["ok"], ["ok"])
        options = [f"--{name}={value}" for name, value in tls.items()]
        told = run("status", f"--endpoints={server.endpoint}", *options).out.decode()
        assert says("a certificate about to end", told), told

        code, rows = doctor(server.endpoint, cacert=authority.cacert)
        assert (code, states(rows, "tls")) == (2, ["fail"])
        assert "--trusted-ca-file" in said(rows, "tls")


def test_a_certificate_that_does_not_fit_says_why_and_what_to_do(doctor, run, authority, tmp_path):
    stranger = Authority(tmp_path / "stranger", "stranger")
    named = authority.issue("named", addresses=(), hosts=("etcd.test",), age=300)
    with tls_etcd(named) as server:
        code, rows = doctor(server.endpoint, cacert=stranger.cacert)
        assert (code, "not trusted" in said(rows, "tls")) == (2, True)
        done = run("status", f"--endpoints={server.endpoint}", f"--cacert={stranger.cacert}")
        assert (done.code, says("another authority", done.out.decode())) == (4, True), done.out
        code, rows = doctor(server.endpoint, cacert=authority.cacert)
        assert (code, "it is for etcd.test" in said(rows, "tls")) == (2, True)
        assert "server_name" in said(rows, "tls")
        code, rows = doctor(server.endpoint, cacert=authority.cacert, server_name="etcd.test")
        assert (code, states(rows, "tls"), states(rows, "clock")) == (0, ["warn"], ["ok"])
        code, rows = doctor(server.endpoint.replace("https:", "http:"))
        assert (code, "http or https" in said(rows, "endpoint")) == (4, True)
        garbage = tmp_path / "garbage.pem"
        garbage.write_text("nothing")
        code, rows = doctor(server.endpoint, cacert=garbage, timeout="3s")
        assert (code, "PEM" in said(rows, "tls")) == (2, True)


def test_expired_certificates_and_plain_http_are_told_apart(doctor, authority, etcd):
    with tls_etcd(authority.issue("expired", days=-2)) as server:
        code, rows = doctor(server.endpoint, cacert=authority.cacert, timeout="60s")
        assert (code, "has expired" in said(rows, "tls")) == (2, True)
    for _ in range(20):  # etcd answers the handshake with its end, at times with a reset
        seen = http_probe.probe(etcd.endpoint.replace("http:", "https:"), StoreSettings(), patience=30)
        assert seen.refusal is Refusal.PLAIN
    code, rows = doctor(etcd.endpoint.replace("http:", "https:"), timeout="60s")
    assert (code, "http:// in the endpoint" in said(rows, "tls")) == (2, True)


def test_the_end_of_a_certificate_is_read_from_its_file(authority, tmp_path):
    for days in (40, 40 * 365):  # from 2050 on it is written with four digits
        pem = authority.issue("dated", days=days).cert.read_bytes()
        assert abs(validity_of(pem).end - time.time() - days * 86400) < 60
    assert validity_of(b"") is None
    assert validity_of(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") is None
    assert validity_of(b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----\n") is None


@pytest.mark.parametrize("version", ["wheel", "debian"])
def test_a_dead_member_is_a_warning_and_a_lost_quorum_a_failure(doctor, tmp_path, binary_named, version):
    with cluster(tmp_path, binary_named(version)) as members:
        endpoints = [member.endpoint for member in members]
        code, rows = doctor(*endpoints)
        assert (code, states(rows, "members")) == (0, ["ok"])
        assert "3 members of one cluster" in said(rows, "members")
        members[0].kill()
        code, rows = doctor(*endpoints, timeout="6s")
        assert (code, states(rows, "endpoint")) == (0, ["warn", "ok", "ok"])
        assert states(rows, "rights") == ["ok"]
        members[1].kill()
        begun = time.monotonic()
        code, rows = doctor(*endpoints, timeout="6s")
        assert time.monotonic() - begun < 15
        assert (code, states(rows, "endpoint")) == (4, ["warn", "warn", "ok"])
        assert states(rows, "members") == ["fail"]
        assert "more than half" in said(rows, "members")


def test_different_clusters_are_told(doctor, etcd_wheel, etcd_debian):
    code, rows = doctor(etcd_wheel.endpoint, etcd_debian.endpoint)
    assert (code, states(rows, "members")) == (1, ["fail"])


def test_an_unreadable_record_is_named(doctor, etcd, kv, kv_root):
    kv.txn([], [Put(f"{kv_root}/files/dkim/x".encode(), b"no record")])
    code, rows = doctor(etcd.endpoint)
    assert (code, states(rows, "store")) == (1, ["fail"])
    assert "dkim/x" in said(rows, "store")


def test_a_replica_is_counted_once_however_many_mappings_it_has(doctor, etcd, kv, kv_root):
    keys = Keys(kv_root)
    for replica, mapping in (("one", "certs"), ("one", "dkim"), ("two", "certs")):
        report = Report(mapping=mapping, replica=replica, host="h", session="s", store=StorePath(mapping),
                        state=MappingState.READY, ready=True, complete=True)  # fmt: skip
        kv.txn((), (Put(keys.replica(mapping, replica), encode(report)),))
    _, rows = doctor(etcd.endpoint, root=kv_root)
    assert said(rows, "replicas").strip() == "2 live and ready"


def test_directories_are_looked_at_as_this_user(doctor, etcd, tmp_path, monkeypatch):
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    monkeypatch.setattr("configstore.doctor.machine._has", lambda _: True)
    code, rows = doctor(etcd.endpoint, words=[str(tmp_path), str(tmp_path / "absent"), str(sticky)])
    assert (code, states(rows, "directory")) == (1, ["ok", "fail", "ok"])
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr("configstore.doctor.machine._has", lambda _: False)
    code, rows = doctor(etcd.endpoint, words=[str(sticky)])
    assert (code, states(rows, "directory")) == (0, ["warn"])


def refused(reason, words):
    error = ssl.SSLError(1, words)
    error.reason = reason
    return http_probe.refusal_of(error)


@pytest.mark.parametrize(
    ("reason", "words", "refusal"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "[SSL: …] tlsv13 alert certificate required", Refusal.CLIENT),
        (None, "[SSL] tlsv13 alert certificate required (_ssl.c:2706)", Refusal.CLIENT),
        (None, "[SSL] tlsv1 alert unknown ca (_ssl.c:2706)", Refusal.CLIENT),
        (None, "[SSL] wrong version number (_ssl.c:1006)", Refusal.PLAIN),
        (None, "[SSL] internal error (_ssl.c:1006)", Refusal.OTHER),
    ],
)
def test_a_refusal_is_recognised_though_python_has_no_name_for_it(reason, words, refusal):
    assert refused(reason, words) is refusal


def test_an_end_right_after_the_handshake_is_a_missing_client_certificate():
    gone = ConnectionResetError(104, "Connection reset by peer")
    found = http_probe.ended(gone, 1.0, client=False)
    assert found.refusal is Refusal.CLIENT
    assert "no client certificate is set" in found.detail
    assert http_probe.ended(gone, 1.0, client=True).refusal is None
    assert http_probe.ended(gone, None, client=False).refusal is None


def test_no_more_is_asked_of_a_certificate_than_grpc_does():
    assert not http_probe.context_of(StoreSettings()).verify_flags & ssl.VERIFY_X509_STRICT


def test_many_findings_of_a_kind_share_a_line_and_failures_come_first(run, tmp_path, etcd):
    many = [str(tmp_path / f"absent-{number}") for number in range(5)]
    done = run("doctor", *many)
    lines = done.out.decode().splitlines()
    assert [line.split()[1] for line in lines[1:3]] == ["fail", "fail"]
    assert lines[3].split(maxsplit=2) == ["directory", "fail", "and 3 more of the kind; `--json` has them all"]
    assert lines[4].strip() == "→ make it, or mount it, for the user who runs this"
    assert re.match(r"[0-9]+ problems: 5 failed, [0-9]+ warnings?; [0-9]+ ok", lines[-1])
    assert done.code == 1


def test_room_and_watches_of_a_directory_are_looked_at(doctor, etcd, tmp_path):
    _, rows = doctor(etcd.endpoint, words=[str(tmp_path)])
    assert "are free" in said(rows, "room")
    assert "1 folders" in said(rows, "inotify")


def test_a_keyring_is_judged_for_the_mappings_that_are_named(etcd, doctor, kv, kv_root, tmp_path):
    keyring = save(tmp_path / "keyring", ring(FIRST))
    put(sealed_tree(kv, kv_root, ring(FIRST)), {"data/a": b"sealed"})
    (tmp_path / "s.toml").write_text(f'[seal]\nkeyring = "{keyring}"\n[[mapping]]\nname = "data"\npath = "/d"\n')
    code, rows = doctor(etcd.endpoint, root=kv_root, config=tmp_path / "s.toml")
    assert (code, set(states(rows, "keyring"))) == (0, {"ok"})
    code, rows = doctor(etcd.endpoint, root=kv_root, words=("--preset", "mailu/front"), seal_keyring=keyring)
    assert code == 5
    assert "the keyring has no key of certs" in said(rows, "keyring")
    keyring.unlink()
    code, rows = doctor(etcd.endpoint, root=kv_root, config=tmp_path / "s.toml")
    assert code == 2
    assert f"{keyring}: No such file" in said(rows, "keyring")
    code, rows = doctor(etcd.endpoint, root=kv_root)
    assert (code, states(rows, "store")) == (0, ["ok"])
    assert "1 of them are sealed" in said(rows, "store")
    assert "keyring" not in rows
