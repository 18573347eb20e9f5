"""Certificates from where people have them: whoever fills the folder, every front gets whole pairs and reloads."""

import json
import os
import shutil
import subprocess

import pytest

from tests.harness.certificates import Authority
from tests.harness.waiting import wait_until
from tests.real.certwatcher import CertWatcher


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def fronts(service, tmp_path):
    """Return two fronts that tell Mailu's program of each set."""
    seen = tmp_path / "seen"
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\necho "$CONFIGSTORE_PATH" >> {seen}\n')
    hook.chmod(0o755)
    made = [service(name, "mailu/front", lambda _: {"certs": f'on_change = ["{hook}"]'}).start() for name in "ab"]
    for each in made:
        each.ready()
        each.seen = lambda each=each: seen.exists() and str(each.at("/certs")) in seen.read_text().splitlines()
    return made


@pytest.fixture
def watched():
    """Return a function that starts Mailu's watcher of one pair in each front."""
    started = []

    def start(fronts, cert, key):
        started.extend(CertWatcher(each.at(f"/certs/{cert}"), each.at(f"/certs/{key}")) for each in fronts)
        return started[-len(fronts) :]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def read_only():
    """Return a function that shows a folder elsewhere, where nobody can write to it."""
    mounted = []

    def mount(folder, path):
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", str(folder), str(path)], check=True)
        mounted.append(path)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def everywhere(fronts, cert, key, pem, chain=b""):
    """Wait until every front has a pair."""
    wanted = (pem.cert.read_bytes() + chain, pem.key.read_bytes())

    def arrived():
        pairs = [(each.at(f"/certs/{cert}"), each.at(f"/certs/{key}")) for each in fronts]
        return all(one.exists() and two.exists() for one, two in pairs) and all(
            (one.read_bytes(), two.read_bytes()) == wanted for one, two in pairs
        )

    wait_until(arrived, 40, what="the pair in every front")


def served(watchers, pem, chain=b""):
    """Wait until nginx of every front was given a pair."""
    wanted = (pem.cert.read_bytes() + chain, pem.key.read_bytes())
    wait_until(lambda: all(each.served == wanted for each in watchers), 40, what="the pair served by every front")


def problem(source, words):
    """Wait until a source names a problem of its pair."""
    wait_until(lambda: words in source.ask("/readyz")[1], 40, what=words)


def dump(pem, output):
    """Do as traefik-certdumper's `mv` from another file system: a file is removed, and written anew in place."""
    for content, name in ((pem.cert, "cert.pem"), (pem.key, "key.pem")):
        (output / name).unlink(missing_ok=True)
        (output / name).write_bytes(content.read_bytes())


def test_what_traefik_certdumper_dumps_is_in_every_front_as_a_pair(service, fronts, authority, watched):
    source = service("dumper", "mailu/certs-source").start().ready()
    first, second = authority.issue("first"), authority.issue("second")
    dump(first, source.at("/source"))
    everywhere(fronts, "cert.pem", "key.pem", first)
    watchers = watched(fronts, "cert.pem", "key.pem")
    served(watchers, first)
    dump(second, source.at("/source"))
    everywhere(fronts, "cert.pem", "key.pem", second)
    served(watchers, second)
    assert all(each.configured > 1 for each in watchers)  # by a rename: an edit in place is no such event
    wait_until(lambda: all(each.seen() for each in fronts), 20)


class Secret:
    """A projected Secret, changed as the kubelet changes it: all that shows is the target of one link."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder, self.number = folder, 0

    def put(self, **files):
        before = self.number
        self.number += 1
        stamp = self.folder / f"..2026_07_{self.number:02}"
        stamp.mkdir()
        for name, content in files.items():
            (stamp / name.replace("_", ".")).write_bytes(content)
        (self.folder / "..data_tmp").symlink_to(stamp.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        for name in os.listdir(stamp):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        for name in os.listdir(self.folder):
            if not name.startswith("..") and not (stamp / name).exists():
                (self.folder / name).unlink()
        if before:
            shutil.rmtree(self.folder / f"..2026_07_{before:02}")

    def issue(self, pem, authority):
        self.put(tls_crt=pem.cert.read_bytes(), tls_key=pem.key.read_bytes(), ca_crt=authority.cacert.read_bytes())


def test_what_cert_manager_puts_into_a_secret_is_in_every_front_and_nothing_else_of_it(
    service, fronts, authority, configstore, tmp_path, read_only
):
    secret = Secret(tmp_path / "secret")
    first, second = authority.issue("first"), authority.issue("second")
    secret.issue(first, authority)
    source = service("source", "mailu/certs-source")
    read_only(secret.folder, source.at("/source"))
    source.start().ready()
    everywhere(fronts, "tls.crt", "tls.key", first)
    secret.issue(second, authority)
    everywhere(fronts, "tls.crt", "tls.key", second)
    assert configstore("ls", "-R", "certs").split() == [b"ca.crt", b"letsencrypt/", b"tls.crt", b"tls.key"]
    stats = [json.loads(configstore("stat", f"certs/{name}", "--json")) for name in ("tls.crt", "tls.key")]
    assert len({each["revision"] for each in stats}) == 1  # one transaction
    assert ".configstore" not in os.listdir(secret.folder)


def test_a_secret_of_a_bad_pair_is_named_and_the_old_one_stays(service, fronts, authority, tmp_path, read_only):
    secret = Secret(tmp_path / "secret")
    good = authority.issue("good")
    secret.issue(good, authority)
    source = service("source", "mailu/certs-source")
    read_only(secret.folder, source.at("/source"))
    source.start().ready()
    everywhere(fronts, "tls.crt", "tls.key", good)
    secret.put(tls_crt=authority.issue("one").cert.read_bytes(), tls_key=authority.issue("two").key.read_bytes())
    problem(source, "tls.key: is not the key of any certificate beside it")
    everywhere(fronts, "tls.crt", "tls.key", good)
    secret.issue(better := authority.issue("better"), authority)
    everywhere(fronts, "tls.crt", "tls.key", better)


def test_a_source_that_is_restarted_takes_up_what_changed_meanwhile_and_deletes_nothing(
    service, fronts, authority, configstore, tmp_path, read_only
):
    secret = Secret(tmp_path / "secret")
    secret.issue(authority.issue("first"), authority)
    source = service("source", "mailu/certs-source")
    read_only(secret.folder, source.at("/source"))
    source.start().ready()
    wait_until(lambda: b"tls.key" in configstore("ls", "certs"), 20)
    source.end()
    secret.issue(second := authority.issue("second"), authority)
    (secret.folder / "ca.crt").unlink()
    source.start().ready()
    everywhere(fronts, "tls.crt", "tls.key", second)
    assert source.end() == 0  # and so nothing is left to be sent
    assert b"ca.crt" in configstore("ls", "certs")  # what it does not know it once had is not deleted


class Certbot:
    """certbot's folder on the host, renewed as certbot does it: new files in archive, then the links."""

    def __init__(self, folder, name):
        self.archive, self.live, self.number = folder / "archive" / name, folder / "live" / name, 0
        for each in (self.archive, self.live):
            each.mkdir(parents=True)

    def renew(self, pem, authority):
        self.number += 1
        chain = authority.cacert.read_bytes()
        contents = {
            "cert": pem.cert.read_bytes(),
            "privkey": pem.key.read_bytes(),
            "chain": chain,
            "fullchain": pem.cert.read_bytes() + chain,
        }
        for name, content in contents.items():
            (self.archive / f"{name}{self.number}.pem").write_bytes(content)
        for name in contents:
            (self.live / f"{name}.pem").unlink(missing_ok=True)
            (self.live / f"{name}.pem").symlink_to(f"../../archive/mail.example.org/{name}{self.number}.pem")


def test_what_certbot_on_the_host_renews_is_in_every_front_in_a_subfolder(service, fronts, authority, watched):
    only = '["/live/mail.example.org/fullchain.pem", "/live/mail.example.org/privkey.pem"]'
    source = service("host", "mailu/certs-source", lambda _: {"certs": f"include = {only}"})
    certbot = Certbot(source.at("/source"), "mail.example.org")
    names = "live/mail.example.org/fullchain.pem", "live/mail.example.org/privkey.pem"
    certbot.renew(first := authority.issue("first"), authority)
    source.start().ready()
    chain = authority.cacert.read_bytes()
    everywhere(fronts, *names, first, chain)
    watchers = watched(fronts, *names)
    certbot.renew(second := authority.issue("second"), authority)
    everywhere(fronts, *names, second, chain)
    served(watchers, second, chain)
    assert [each.at("/certs/live/mail.example.org").stat().st_mode & 0o777 for each in fronts] == [0o755, 0o755]


@pytest.mark.parametrize(
    ("cert", "key"), [("cert.pem", "key.pem"), ("mail/fullchain.cer", "mail/mail.example.org.key")]
)
def test_what_a_person_puts_there_is_published_once_it_is_a_pair(
    service, fronts, authority, configstore, cert, key
):
    source = service("person", "mailu/certs-source").start().ready()
    folder = source.at("/source")
    (folder / cert).parent.mkdir(exist_ok=True)
    good, other, old = authority.issue("good"), authority.issue("other"), authority.issue("old", days=-1)
    (folder / cert).write_bytes(good.cert.read_bytes())
    problem(source, f"{cert}: its key is not there")
    (folder / key).write_bytes(good.key.read_bytes())
    everywhere(fronts, cert, key, good)
    for bad, words in ((other, "is not the key of any"), (old, "expired on")):
        (folder / cert).write_bytes(bad.cert.read_bytes())
        problem(source, words if bad is other else "is not the key of any")
        if bad is old:
            (folder / key).write_bytes(bad.key.read_bytes())
            problem(source, words)
    everywhere(fronts, cert, key, good)
    (folder / cert).write_bytes(other.cert.read_bytes())
    (folder / key).write_bytes(other.key.read_bytes())
    everywhere(fronts, cert, key, other)


def test_a_mixed_pair_that_lies_in_the_store_reaches_no_front(fronts, authority, configstore, tmp_path):
    good, other = authority.issue("good"), authority.issue("other")
    folder = tmp_path / "in"
    folder.mkdir()
    dump(good, folder)
    configstore("import", str(folder), "certs")
    everywhere(fronts, "cert.pem", "key.pem", good)
    configstore("put", "certs/cert.pem", str(other.cert))
    for each in fronts:
        problem(each, "key.pem: is not the key of any certificate beside it")
    everywhere(fronts, "cert.pem", "key.pem", good)
    configstore("put", "certs/key.pem", str(other.key))
    everywhere(fronts, "cert.pem", "key.pem", other)


def test_a_front_that_starts_with_a_certificate_whose_time_is_over_serves_it_all_the_same(
    service, authority, configstore, tmp_path
):
    folder = tmp_path / "in"
    folder.mkdir()
    dump(old := authority.issue("old", days=-1), folder)
    configstore("bootstrap", "--preset", "mailu/front")
    configstore("import", str(folder), "certs")
    front = service("front", "mailu/front").start().ready()
    everywhere([front], "cert.pem", "key.pem", old)


def test_a_read_only_folder_needs_a_place_for_what_is_remembered(service, authority, tmp_path, read_only):
    secret = Secret(tmp_path / "secret")
    secret.issue(authority.issue("first"), authority)
    source = service("source", "mailu/certs-source")
    read_only(secret.folder, source.at("/source"))
    source.environment = source.environment | {"CONFIGSTORE_STATE": "mount"}
    source.start()
    problem(source, "is read-only, and what is remembered would lie in it")


def test_only_a_folder_that_is_never_written_to_may_be_read_only(service, tmp_path, read_only):
    folder = tmp_path / "folder"
    folder.mkdir()
    admin = service("admin", "mailu/admin")
    read_only(folder, admin.at("/dkim"))
    admin.start()
    problem(admin, "it is read-only: mount it writable for the sidecar")


def test_a_front_that_starts_with_a_mixed_pair_in_the_store_says_why_it_waits(service, authority, configstore):
    configstore("bootstrap", "--preset", "mailu/front")
    configstore("put", "certs/cert.pem", str(authority.issue("one").cert))
    configstore("put", "certs/key.pem", str(authority.issue("two").key))
    front = service("front", "mailu/front")
    done = front.command("init", "--timeout", "5s")
    assert done.returncode == 1
    assert "key.pem: is not the key of any certificate beside it" in done.stderr
    front.start()
    problem(front, "key.pem: is not the key of any certificate beside it")
    assert front.ask("/readyz")[0] == 503
