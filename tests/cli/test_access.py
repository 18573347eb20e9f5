"""`configstore access`, at a real etcd with TLS: from nothing to users, their verification, and away again."""

import json
import re
import shlex
import threading
from pathlib import Path

import pytest

from configstore.cli import main
from configstore.cli.access_whom import SWITCH
from configstore.embedded import EmbeddedEtcd
from configstore.errors import PermissionDeniedError, StoreError
from configstore.model.grants import Grant, Right
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.replica import MappingState, Report, encode
from configstore.store.api import Delete, Put
from configstore.store.permissions import may
from tests.e2e.faults import FAULTS
from tests.harness.protected import Protected, client_flags, make_certificates
from tests.harness.waiting import wait_until

HERE = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("access")
KEYS = Keys()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Return a folder with everybody's certificates."""
    folder = tmp_path_factory.mktemp("access") / "tls"
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def server(tls, binary_named):
    """Return an etcd that wants certificates."""
    with EmbeddedEtcd(binary=binary_named("wheel"), tls_arguments=client_flags(tls)) as server:
        yield server


@pytest.fixture
def store(server, tls):
    """Return it without users and without keys."""
    found = Protected(server, tls)
    yield found
    with found.kv("root") as kv:
        if kv.accounts.enabled():
            kv.accounts.disable()
        for name in kv.accounts.users():
            kv.accounts.delete_user(name)
        for name in kv.accounts.roles():
            kv.accounts.delete_role(name)
        for item in kv.range(b"\0", b"\0", keys_only=True).items:
            kv.txn((), (Delete(item.key),))


@pytest.fixture
def access(store, capsys, monkeypatch):
    """Return a function that runs `access` in this process, as whom --out says; it returns what it prints."""
    monkeypatch.setenv("CONFIGSTORE_ENDPOINTS", store.endpoint)

    def run(*words, code=0, out=True):
        capsys.readouterr()
        found = main(["access", *words, *(("--out", str(store.tls)) if out else ())])
        said = capsys.readouterr()
        assert found == code, (words, said)
        return said

    return run


@pytest.fixture
def accounts(store):
    with store.kv("root") as kv:
        yield kv.accounts


def test_the_plan_is_a_table_of_services_ranges_and_rights(access, capsys):
    said = access("plan", "--preset", "mailu/imap", out=False)
    rows = [line.split(maxsplit=2) for line in said.out.splitlines()]
    assert rows[0] == ["SERVICE", "RIGHT", "KEYS BELOW /configstore/"]
    assert ["imap", "read", "files/overrides/dovecot, files/overrides/dovecot/*"] in rows
    assert "nothing limits how much" in said.err
    found = json.loads(access("plan", "--preset", "mailu/imap", "--json", "--root", "/r", out=False).out)
    assert {
        "service": "imap",
        "user": "mailu-imap",
        "right": "readwrite",
        "start": "/r/conflicts/overrides/dovecot/",
        "end": "/r/conflicts/overrides/dovecot0",
    } in found


def test_a_dry_run_changes_nothing(access, accounts, store):
    said = access("apply", "--preset", "mailu/imap", "--dry-run").out
    assert "mailu-imap: grant read files/overrides/dovecot, files/overrides/dovecot/*" in said
    assert "switch access control on" in said
    assert (accounts.users(), accounts.roles(), accounts.enabled()) == ({}, {}, False)


def test_apply_makes_users_and_switches_access_control_on_last(access, accounts):
    said = access("apply", "--preset", "mailu/imap", "--preset", "mailu/smtp").out
    assert "access control is on" in said.splitlines()[-1]
    assert accounts.enabled()
    assert accounts.users() == {"root": ("root",), "mailu-imap": ("mailu-imap",), "mailu-smtp": ("mailu-smtp",)}
    again = access("apply", "--preset", "mailu/imap", "--preset", "mailu/smtp").out
    assert "all 2 are as planned" in again
    assert "exactly the rights" in access("verify", "--preset", "mailu/imap").out


def test_it_goes_on_after_access_control_is_on_and_takes_what_is_too_much(access, accounts):
    access("apply", "--preset", "mailu/imap")
    accounts.grant("mailu-imap", Grant(b"/x", b"/y", Right.READ))
    done = json.loads(access("apply", "--preset", "mailu/imap", "--preset", "mailu/smtp", "--json").out)
    assert {"user": "mailu-imap", "do": "revoke", "right": "read", "keys": "/x … /y"} in done["changes"]
    assert "mailu-smtp" in accounts.users()
    assert done["access_control"] is True


def test_users_alone_are_made_where_access_control_is_to_stay_off(access, accounts):
    said = access("apply", "--preset", "mailu/imap", "--without-auth")
    assert "access control is off" in said.err
    assert "mailu-imap" in accounts.users()
    assert not accounts.enabled()


def test_what_differs_is_told_by_service(access, accounts):
    access("apply", "--preset", "mailu/imap", "--preset", "mailu/smtp", "--preset", "mailu/antispam")
    accounts.grant("mailu-imap", Grant(b"/configstore/requests/", b"/configstore/requests0", Right.READWRITE))
    accounts.revoke("mailu-smtp", Grant(b"/configstore/asks/", b"/configstore/asks0", Right.READWRITE))
    named = ("--preset", "mailu/imap", "--preset", "mailu/smtp", "--preset", "mailu/antispam")
    rows = json.loads(access("verify", *named, "--json", code=1).out)
    assert {row["service"] for row in rows} == {"imap", "smtp"}
    found = {(row["service"], row["found"], row["keys"]) for row in rows}
    assert ("imap", "has readwrite and should not", "requests/*") in found
    assert ("smtp", "lacks readwrite", "asks/*") in found
    access("apply", *named)
    access("verify", *named)


def test_it_is_told_that_access_control_is_off_and_who_else_there_is(access, accounts):
    access("apply", "--preset", "mailu/imap", "--without-auth")
    accounts.add_user("configstore")
    accounts.add_role("service")
    accounts.grant("service", Grant(b"/configstore/files/", b"/configstore/files0", Right.READWRITE))
    accounts.give_role("configstore", "service")
    said = access("verify", "--preset", "mailu/imap", code=1)
    assert "access control is off" in said.out
    assert "configstore access revoke configstore" in said.err


def test_a_service_with_anothers_certificate_is_found_out(access, store, tls):
    access("apply", "--preset", "mailu/imap", "--preset", "mailu/smtp")
    with store.kv("imap") as kv:
        assert may(kv, Grant(*KEYS.files_at(StorePath("overrides/dovecot")), Right.READ))
        assert not may(kv, Grant(*KEYS.files_at(StorePath("overrides/postfix")), Right.READ))
        assert not may(kv, Grant(*KEYS.files_at(StorePath("overrides/dovecot")), Right.READWRITE))


def test_a_service_cannot_look_at_users_and_is_told_what_to_show(access, store, capsys):
    access("apply", "--preset", "mailu/imap")
    files = store.files("imap")
    options = ("--cacert", files.cacert, "--cert", files.cert, "--key", files.key)
    assert "use the operator's certificate" in access("verify", *options, out=False, code=5).err


def test_over_plain_http_nothing_is_made(access, etcd, monkeypatch):
    monkeypatch.setenv("CONFIGSTORE_ENDPOINTS", etcd.endpoint)
    said = access("apply", "--preset", "mailu/imap", code=5)
    assert "is not TLS" in said.err
    assert "--client-cert-auth" in said.err


def test_where_nobody_named_an_etcd_the_files_are_made_and_what_to_do_is_said(access, tmp_path, monkeypatch):
    monkeypatch.delenv("CONFIGSTORE_ENDPOINTS")
    out = tmp_path / "new"
    said = access("apply", "--preset", "mailu/imap", "--out", str(out), out=False)
    assert (out / "imap/mailu-imap.key").exists()
    assert f"--trusted-ca-file={out}/server/ca.pem" in said.err
    assert "add --endpoints URL" in said.err


def test_before_there_are_certificates_a_dry_run_asks_no_etcd(access, tmp_path):
    said = access("apply", "--preset", "mailu/imap", "--out", str(tmp_path / "new"), "--dry-run", out=False)
    assert "not made yet, so etcd was not asked" in said.err
    assert not (tmp_path / "new").exists()


def test_certificates_are_handed_over_as_a_deployment_takes_them(access, tmp_path, monkeypatch):
    monkeypatch.delenv("CONFIGSTORE_ENDPOINTS")
    words = ("apply", "--preset", "mailu/imap", "--out", str(tmp_path / "new"))
    said = access(*words, "--format", "kubernetes", out=False).out
    assert f"{tmp_path}/new/kubernetes/configstore-etcd-imap.yaml" in said.splitlines()
    done = json.loads(access(*words, "--format", "swarm", "--json", out=False).out)
    assert all(path.startswith(f"{tmp_path}/new/swarm/") for path in done["files"])
    assert done["files"]
    assert {each["user"] for each in done["certificates"]} >= {"root", "etcd", "mailu-imap"}
    assert (done["changes"], done["access_control"]) == ([], None)


def test_what_failed_prints_no_json(access, tmp_path, monkeypatch):
    monkeypatch.setenv("CONFIGSTORE_ENDPOINTS", "https://127.0.0.1:1")
    words = ("apply", "--preset", "mailu/imap", "--out", str(tmp_path / "new"), "--timeout", "300ms", "--json")
    access(*words, out=False)  # before there are certificates, none that answers is no failure
    assert access(*words, out=False, code=4).out == ""


def test_where_etcd_does_not_answer_the_files_are_made_and_what_to_do_is_said(access, tmp_path, monkeypatch):
    monkeypatch.setenv("CONFIGSTORE_ENDPOINTS", "https://127.0.0.1:1")
    out = tmp_path / "new"
    words = ("apply", "--preset", "mailu/imap", "--out", str(out), "--timeout", "300ms")
    said = access(*words, out=False)
    assert (out / "imap/mailu-imap.key").exists()
    assert "--client-cert-auth" in said.err
    assert "run this again" in said.err
    assert "UNAVAILABLE" in access(*words, out=False, code=4).err


def test_access_control_is_taken_back_where_etcd_does_not_know_us_by_certificates(tls, binary_named, access,
                                                                                  monkeypatch):  # fmt: skip
    arguments = [flag for flag in client_flags(tls) if "client-cert-auth" not in flag]
    with EmbeddedEtcd(binary=binary_named("wheel"), tls_arguments=arguments) as server:
        monkeypatch.setenv("CONFIGSTORE_ENDPOINTS", server.endpoint)
        said = access("apply", "--preset", "mailu/imap", code=5)
        assert "switched on, and off again" in said.err
        assert "--client-cert-auth" in said.err
        with Protected(server, tls).kv("root") as kv:
            assert not kv.accounts.enabled()
            assert SWITCH not in kv.accounts.users()


def test_access_control_is_taken_back_where_a_service_cannot_do_its_part(access, accounts, monkeypatch):
    access("apply", "--preset", "mailu/imap", "--without-auth")
    asked = []

    def fails(kv, grant):
        asked.append(grant)
        return len(asked) < 3

    monkeypatch.setattr("configstore.cli.access_whom.may", fails)
    said = access("apply", "--preset", "mailu/imap", code=5)
    assert "imap: its certificate lacks the right" in said.err
    assert not accounts.enabled()
    assert SWITCH not in accounts.users()


def test_what_a_killed_call_left_is_taken_away(access, accounts):
    access("apply", "--preset", "mailu/imap")
    accounts.add_user(SWITCH, "password")
    accounts.give_role(SWITCH, "root")
    assert "was killed" in access("verify", "--preset", "mailu/imap", code=1).out
    access("apply", "--preset", "mailu/imap")
    assert SWITCH not in accounts.users()


def put(store, path, kind="file"):
    with store.kv("root") as kv:
        header = f'{{"v":1,"kind":"{kind}","write_id":"w","replica":"r","host":"h","time":""}}\n'
        kv.txn((), (Put(KEYS.file(StorePath(path)), header.encode()),))


def test_a_neighbour_in_the_store_is_refused_and_named(access, store, accounts):
    put(store, "overrides/dovecot-old/dovecot.conf")
    said = access("apply", "--preset", "mailu/imap", code=5)
    assert "overrides/dovecot-old, which lies beside it" in said.err
    assert accounts.users() == {}
    with store.kv("root") as kv:
        kv.txn((), (Delete(KEYS.file(StorePath("overrides/dovecot-old/dovecot.conf"))),))
    access("apply", "--preset", "mailu/imap")
    put(store, "overrides/dovecot-old/dovecot.conf")
    assert "overrides/dovecot-old" in access("verify", "--preset", "mailu/imap", code=1).out


def test_a_neighbour_among_the_mappings_is_refused_before_anything_is_made(access, tmp_path, accounts):
    file = tmp_path / "web.toml"
    file.write_text(
        '[[mapping]]\nname = "a"\npath = "/a"\ndirection = "pull"\n[[mapping]]\nname = "a-x"\npath = "/b"\n'
    )
    access("plan", "--config", str(file), out=False)  # both are its own, at no lesser right
    file.write_text(
        '[[mapping]]\nname = "a"\npath = "/a"\n[[mapping]]\nname = "a-x"\npath = "/b"\ndirection = "pull"\n'
    )
    assert "would include a-x" in access("apply", "--config", str(file), code=5).err
    assert accounts.users() == {}


def live_replica(kv):
    report = Report(mapping="certs", replica="r", host="mail-1", session="s", store=StorePath("certs"),
                    state=MappingState.READY)  # fmt: skip
    kv.txn((), (Put(KEYS.replica("certs", "r"), encode(report)),))


def test_who_is_connected_is_not_shut_out_unasked(access, store, accounts):
    with store.kv("root") as kv:
        live_replica(kv)
    said = access("apply", "--preset", "mailu/imap", code=5)
    assert "certs on mail-1" in said.err
    assert "--without-auth" in said.err
    assert (accounts.users(), accounts.enabled()) == ({}, False)
    access("apply", "--preset", "mailu/imap", "--yes")
    assert accounts.enabled()


def test_revoke_ends_a_services_rights_and_says_what_goes_on(access, store, accounts, server):
    access("apply", "--preset", "mailu/fetchmail")
    with store.kv("fetchmail") as kv, store.kv("root") as root:
        files = KEYS.files_at(StorePath("fetchmail"))
        lease = kv.lease_grant(60)
        kv.txn((), (Put(KEYS.lease_queue("fetchmail") + f"/{lease:x}".encode(), b"", lease),))
        seen = []
        watch = kv.watch(*files, start_revision=1)
        threading.Thread(target=_follow, args=(watch, seen), daemon=True).start()
        wait_until(lambda: seen, what="the watch to be there")
        said = access("revoke", "fetchmail")
        assert "mailu-fetchmail: its user is gone and its role" in said.out
        assert "configstore leases break fetchmail" in said.err
        assert "a watch that it opened goes on" in said.err
        assert "--client-crl-file" in said.err
        assert accounts.users() == {"root": ("root",)}
        assert "mailu-fetchmail" not in accounts.roles()
        with pytest.raises(PermissionDeniedError):
            kv.range(files[0])
        root.txn((), (Put(files[0], b"after"),))
        wait_until(lambda: b"after" in seen, what="the old watch, which goes on")
        assert kv.lease_keepalive(lease) > 0, "and so do its leases"
        server.restart()
        with store.kv("root") as again:
            again.txn((), (Put(files[0], b"after the restart"),))
        wait_until(lambda: "refused" in seen, 30, what="the watch to be refused")
        assert b"after the restart" not in seen
    assert "no such user" in access("revoke", "fetchmail", code=1).err
    assert "root: is the operator's" in access("revoke", "root", code=5).err


def _follow(watch, seen):
    try:
        for batch in watch:
            seen += [event.item.value for event in batch.events] or ["alive"]
    except StoreError:
        seen.append("refused")


def test_the_commands_of_the_page_work_as_they_stand_there(access, store, tls, accounts):
    (block,) = re.findall(r"```sh\n(.*?)```", (HERE / "docs/rights.md").read_text(), re.DOTALL)
    block = block.replace("./etcd-tls", str(tls)).replace("https://etcd.example.org:2379", store.endpoint)
    for line in block.replace("etcd.example.org", "127.0.0.1").splitlines():
        words = shlex.split(line, comments=True)
        assert words[:2] == ["configstore", "access"]
        access(*words[2:], out=False)
    assert accounts.enabled()


@pytest.fixture
def doctor(store, capsys, monkeypatch):
    """Return a function that runs the doctor in this process, as a service; it returns what it prints."""
    monkeypatch.setenv("CONFIGSTORE_ENDPOINTS", store.endpoint)

    def run(who, *words, code=0):
        files = store.files(who)
        capsys.readouterr()
        found = main(["doctor", *words, "--cacert", files.cacert, "--cert", files.cert, "--key", files.key])
        said = capsys.readouterr().out
        assert found == code, said
        return said

    return run


def test_the_doctor_judges_rights_by_mapping(access, doctor, accounts, monkeypatch):
    access("apply", "--preset", "mailu/front", "--preset", "mailu/antispam")
    said = doctor("front", "--preset", "mailu/front,mailu/acme")
    assert "service front: all that its mappings need (certs, letsencrypt, overrides-nginx, acme)" in said
    monkeypatch.setenv("CONFIGSTORE_PRESET", "mailu/antispam,mailu/antispam-daily")
    assert "service antispam: all that its mappings need" in doctor("antispam")
    start, end = KEYS.files_at(StorePath("overrides/rspamd"))
    accounts.revoke("mailu-antispam", Grant(start, end, Right.READ))
    said = doctor("antispam", code=5)
    fault = FAULTS["a mapping without a right"]
    assert f"mapping overrides-rspamd {fault.cause} read files/overrides/rspamd" in said
    assert f"{fault.mend} --preset mailu/antispam,mailu/antispam-daily`" in said
    assert "antispam-daily lacks" not in said
    access("apply", "--preset", "mailu/antispam")
    assert "all that its mappings need" in doctor("antispam")


def test_the_doctor_tells_of_a_right_that_is_a_persons(access, doctor, accounts):
    access("apply", "--preset", "mailu/imap")
    accounts.grant("mailu-imap", Grant(*KEYS.requests(), Right.READWRITE))
    fault = FAULTS["a right that is a person's"]
    said = doctor("imap", "--preset", "mailu/imap")
    assert fault.cause in said
    assert fault.mend in said


def test_the_doctor_of_a_person_tries_what_a_person_needs(access, doctor, store):
    access("apply", "--preset", "mailu/imap")
    said = doctor("root", "--preset", "mailu/imap")
    assert "read, grant a lease, renew a lease, write, watch, delete: all allowed" in said
    assert "access control is on" in said


def test_the_doctor_reads_a_sidecars_settings(access, doctor, store, tmp_path):
    file = tmp_path / "imap.toml"
    file.write_text(
        f'[store]\nendpoints = ["{store.endpoint}"]\n[[mapping]]\nname = "m"\nstore = "overrides/dovecot"\n'
        'path = "/x"\n'
    )
    access("apply", "--config", str(file))
    assert "service imap: all that its mappings need (m)" in doctor("imap", "--config", str(file))


def test_the_doctor_is_told_whose_name_a_service_is(capsys, monkeypatch):
    monkeypatch.delenv("CONFIGSTORE_PRESET", raising=False)
    assert main(["doctor", "--service", "host"]) == 2
    assert "say which by --config" in capsys.readouterr().err


def test_a_role_that_others_have_too_stays_when_a_user_is_revoked(access, accounts):
    accounts.add_role("shared")
    for user in ("shared", "alice"):
        accounts.add_user(user)
        accounts.give_role(user, "shared")
    said = access("revoke", "shared")
    assert "others have it, too: alice" in said.err
    assert "shared" in accounts.roles()
    assert accounts.users()["alice"] == ("shared",)
    accounts.delete_user("alice")
    accounts.delete_role("shared")


def test_no_step_to_another_authority_is_taken_before_etcd_answers(access, tmp_path, monkeypatch):
    out = str(tmp_path / "new")
    words = ("apply", "--preset", "mailu/imap", "--out", out, "--timeout", "300ms")
    monkeypatch.setenv("CONFIGSTORE_ENDPOINTS", "https://127.0.0.1:1")
    access(*words, out=False)
    before = sorted((tmp_path / "new").iterdir())
    access(*words, "--roll-over", out=False, code=4)
    assert sorted((tmp_path / "new").iterdir()) == before


def test_a_new_folder_for_an_etcd_that_runs_with_another_is_told(access, tmp_path):
    said = access("apply", "--preset", "mailu/imap", "--out", str(tmp_path / "wrong"), out=False, code=4)
    assert "is --out the right folder?" in said.err


def test_revoke_takes_any_other_user_away(access, accounts):
    access("apply", "--preset", "mailu/imap", "--without-auth")
    accounts.add_user("configstore")
    accounts.add_role("service")
    accounts.give_role("configstore", "service")
    done = json.loads(access("revoke", "configstore", "--json").out)
    assert done == {"user": "configstore", "roles": ["service"], "leases": []}
    assert "configstore" not in accounts.users()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("apply", "--ca-cert", "x"), "type both or neither"),
        (("apply", "--service", "x"), "say which by --config"),
        (("apply", "--preset", "mailu/x"), "unknown"),
        (("verify", "--config", "/nowhere"), "No such file"),
    ],
)
def test_what_is_wrong_is_said(access, words, why):
    assert why in access(*words, code=2).err


def test_options_about_certificates_need_their_directory(access):
    assert "--out DIR" in access("apply", "--etcd-name", "x", out=False, code=2).err
