"""Certificates: put there by hand as a set, and certbot's own tree with its links."""

import os
import shutil
import subprocess

import pytest

from tests.harness.certificates import Authority
from tests.harness.waiting import wait_until
from tests.real.acme import program, seen_as


@pytest.fixture
def front(service):
    """Return a front."""
    return service("front", "mailu/front").start().ready()


class CertWatcher:
    """What Mailu's front does each second: it looks for files that were replaced, by their inode."""

    def __init__(self, *paths):
        self.paths = paths
        self.seen = self.look()

    def look(self):
        return [os.stat(path).st_ino if os.path.exists(path) else None for path in self.paths]

    def noticed(self):
        """Tell whether every file was replaced by another since the last time."""
        now = self.look()
        if any(new in {None, old} for new, old in zip(now, self.seen, strict=True)):
            return False
        self.seen = now
        return True


@pytest.fixture
def put_in(configstore, tmp_path):
    """Return a function that puts a new pair into the store; it returns both files' content."""
    authority, folder = Authority(tmp_path / "authority"), tmp_path / "new"

    def put(name):
        pem = authority.issue(name)
        folder.mkdir(exist_ok=True)
        for of, to in ((pem.cert, "cert.pem"), (pem.key, "key.pem")):
            shutil.copy(of, folder / to)
        (folder / "key.pem").chmod(0o600)
        configstore("import", str(folder), "certs")
        return pem.cert.read_text() + pem.key.read_text()

    return put


def test_a_pair_put_by_hand_arrives_together_and_by_rename(service, put_in, tmp_path):
    seen = tmp_path / "seen"
    hook = tmp_path / "hook"
    hook.write_text('#!/bin/sh\ncat "$1/cert.pem" "$1/key.pem" >> "$2"\n')
    hook.chmod(0o755)
    made = service(
        "front", "mailu/front", lambda at: {"certs": f'on_change = ["{hook}", "{at("/certs")}", "{seen}"]'}
    )
    first = put_in("first")
    made.start().ready()
    cert, key = made.at("/certs/cert.pem"), made.at("/certs/key.pem")
    wait_until(lambda: cert.exists() and key.exists())
    watcher = CertWatcher(cert, key)
    second = put_in("second")
    wait_until(watcher.noticed)
    assert key.stat().st_mode & 0o777 == 0o600
    wait_until(lambda: seen.exists() and seen.read_text().endswith(second))
    assert not seen.read_text().replace(first, "").replace(second, "")


def test_what_front_makes_for_itself_stays(front, put_in, configstore):
    front.at("/certs/mine.pem").write_text("made where certificates are only read")
    put_in("first")
    wait_until(lambda: front.at("/certs/cert.pem").exists())
    assert configstore("ls", "certs") == b"cert.pem\nkey.pem\nletsencrypt/\n"
    assert front.at("/certs/mine.pem").exists()


def certbots_tree(folder, common):
    """Lay what certbot leaves after an order, a renewal under way included; it knows the folder as `common`."""
    (folder / "live/mailu").mkdir(parents=True, mode=0o700)
    (folder / "archive/mailu").mkdir(parents=True)
    account = folder / "accounts/acme/directory/0a1b"
    account.mkdir(parents=True)
    (account / "private_key.json").write_text("{}")
    (account / "private_key.json").chmod(0o400)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mail.example.test",
         "-addext", "subjectAltName=DNS:mail.example.test",
         "-keyout", folder / "archive/mailu/privkey1.pem", "-out", folder / "archive/mailu/cert1.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    certificate = (folder / "archive/mailu/cert1.pem").read_text()
    (folder / "archive/mailu/chain1.pem").write_text(certificate)
    (folder / "archive/mailu/fullchain1.pem").write_text(2 * certificate)
    for name in ("cert", "chain", "fullchain", "privkey"):
        (folder / f"live/mailu/{name}.pem").symlink_to(f"../../archive/mailu/{name}1.pem")
    (folder / "renewal").mkdir()
    lines = [
        f"{name} = /etc/letsencrypt/live/mailu/{name}.pem" for name in ("cert", "privkey", "chain", "fullchain")
    ]
    lines = [line.replace("/etc/letsencrypt", str(folder)) for line in lines]
    options = [
        "[renewalparams]",
        "authenticator = manual",
        "server = https://acme.invalid/directory",
        "account = 0a1b",
    ]
    text = "\n".join(["version = 2.1.0", f"archive_dir = {common}/archive/mailu", *lines, *options])
    (folder / "renewal/mailu.conf").write_text(text)
    for name in (
        ".certbot.lock",
        "renewal/mailu.conf.new",
        "live/mailu/previous_cert.pem",
        "live/mailu/nginx-chain.pem",
    ):
        (folder / name).write_text("")


def test_certbots_tree_arrives_whole_and_certbot_recognises_it(service, configstore, tmp_path):
    common = tmp_path / "common"  # where every container has it
    common.mkdir()
    certbots_tree(tmp_path / "host/certs/letsencrypt", common)
    configstore("import", str(tmp_path / "host"), "/", "--preset", "mailu/front")
    made = service("front", "mailu/front").start().ready()
    there = made.at("/certs/letsencrypt")
    wait_until((there / "live/mailu/privkey.pem").exists)
    assert os.readlink(there / "live/mailu/privkey.pem") == "../../archive/mailu/privkey1.pem"
    assert (there / "accounts/acme/directory/0a1b/private_key.json").stat().st_mode & 0o777 == 0o400
    assert (there / "live/mailu").stat().st_mode & 0o777 == 0o700
    assert (there / "archive/mailu/privkey1.pem").stat().st_mode & 0o777 == 0o600
    for name in (
        ".certbot.lock",
        "renewal/mailu.conf.new",
        "live/mailu/previous_cert.pem",
        "live/mailu/nginx-chain.pem",
    ):
        assert not (there / name).exists()
    work = ["--work-dir", str(tmp_path / "work"), "--logs-dir", str(tmp_path / "logs")]
    command = [program("certbot"), "certificates", "--config-dir", str(common), *work]
    done = subprocess.run(seen_as(there, common, command), capture_output=True, text=True, check=True)
    assert "Certificate Name: mailu" in done.stdout
    assert "mail.example.test" in done.stdout


def test_without_the_lease_nothing_of_certbots_is_pushed(front, configstore):
    (front.at("/certs/letsencrypt") / "renewal").mkdir()
    (front.at("/certs/letsencrypt") / "renewal/mailu.conf").write_text("mine")
    wait_until(lambda: front.mapping_metric("letsencrypt", "problems") > 0)
    assert configstore("ls", "-R", "certs/letsencrypt") == b""
