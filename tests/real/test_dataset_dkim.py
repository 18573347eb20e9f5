"""DKIM keys: admin writes them as it does, and a real rspamd signs with what another replica has mirrored."""

import json
import os
import subprocess
import urllib.request
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from configstore.embedded import LOOPBACK, free_ports
from tests.harness.waiting import wait_until
from tests.real.acme import answers, program

KEY = "example.org.dkim.key"
MAIL = (
    b"From: user@example.org\r\nTo: other@example.net\r\nSubject: signed\r\nMessage-ID: <1@example.org>\r\n"
    b"Date: Tue, 24 Nov 2026 12:00:00 +0000\r\n\r\nHello.\r\n"
)


@pytest.fixture(scope="module")
def key():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = b"v=DKIM1; k=rsa; p=" + b"".join(public.splitlines()[1:-1])
    return pem, record


@pytest.fixture
def pair(service):
    """Return admin, and an rspamd that reads the keys itself."""
    admin, rspamd = service("admin", "mailu/admin"), service("rspamd", "mailu/rspamd")
    for each in (admin, rspamd):
        each.start()
    return admin.ready(), rspamd.ready()


RSPAMD = """
options {{
  pidfile = "{folder}/pid";
  filters = "dkim";
  dns {{ nameserver = ["{host}:1"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "file"; filename = "{folder}/log"; }}
worker "normal" {{ bind_socket = "{host}:{port}"; count = 1; }}
modules {{ path = "/usr/share/rspamd/plugins/dkim_signing.lua"; }}
dkim_signing {{
  path = "{keys}/$domain.dkim.key";
  selector = "dkim";
  sign_local = true;
  use_domain = "header";
  use_esld = false;
  allow_username_mismatch = true;
}}
"""


class Rspamd:
    """rspamd with one worker that answers over HTTP, and the module that signs."""

    def __init__(self, folder, keys):
        folder.mkdir()
        self.folder, self.port = folder, free_ports(1)[0]
        where = {"folder": folder, "host": LOOPBACK, "port": self.port, "keys": keys}
        (folder / "rspamd.conf").write_text(RSPAMD.format(**where))

    def __enter__(self):
        variables = [f"--var={name}={self.folder}" for name in ("DBDIR", "RUNDIR", "LOGDIR")]
        command = [program("rspamd"), "--no-fork", "--insecure", "--config", str(self.folder / "rspamd.conf")]
        with (self.folder / "said").open("wb") as said:
            self.process = subprocess.Popen([*command, *variables], stdout=said, stderr=said)
        wait_until(lambda: answers(self.port), 30, what=f"rspamd to answer: {self.said()}")
        return self

    def said(self):
        return "".join(
            path.read_text()[-1500:] for name in ("said", "log") if (path := self.folder / name).exists()
        )

    def signed(self, mail):
        """Return a mail with the signature that rspamd makes for it, None for none."""
        request = urllib.request.Request(
            f"http://{LOOPBACK}:{self.port}/checkv2",
            data=mail,
            headers={"IP": LOOPBACK, "From": "user@example.org", "Rcpt": "other@example.net"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            signature = json.load(answer).get("dkim-signature")
        return f"DKIM-Signature: {signature}\r\n".encode() + mail if signature else None

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(90)


def test_rspamd_signs_with_a_key_that_admin_made_elsewhere(pair, key, tmp_path):
    admin, reader = pair
    pem, record = key
    for folder in (tmp_path, *tmp_path.parents[:2], reader.folder):
        folder.chmod(0o755)
    with Rspamd(tmp_path / "rspamd-files", reader.at("/dkim")) as rspamd:
        assert rspamd.signed(MAIL) is None
        admin.at(f"/dkim/{KEY}").write_bytes(pem)  # in place, as admin does, and read for each message
        wait_until(lambda: reader.at(f"/dkim/{KEY}").exists())
        mail = rspamd.signed(MAIL)
        assert mail is not None, rspamd.said()
        assert dkim.verify(mail, dnsfunc=lambda name, timeout=5: record if b"dkim._domainkey" in name else None)


def test_a_reader_sees_no_empty_and_no_half_key(pair, key, configstore):
    admin, reader = pair
    pem, _ = key
    with admin.at(f"/dkim/{KEY}").open("wb") as file:
        wait_until(lambda: admin.mapping_metric("dkim", "problems") + admin.mapping_metric("dkim", "pending") > 0)
        file.write(pem[:100])
        file.flush()
        assert not reader.at(f"/dkim/{KEY}").exists()
        file.write(pem[100:])
    wait_until(lambda: reader.at(f"/dkim/{KEY}").exists())
    assert reader.at(f"/dkim/{KEY}").read_bytes() == pem
    history = json.loads(configstore("history", f"dkim/{KEY}", "--json"))
    assert [each["size"] for each in history] == [len(pem)]


def test_an_empty_key_is_never_pushed(pair, configstore):
    admin, reader = pair
    admin.at(f"/dkim/{KEY}").touch()
    wait_until(lambda: admin.mapping_metric("dkim", "problems") == 1)
    admin.at("/dkim/other.org.dkim.key").write_bytes(b"a key")
    wait_until(lambda: reader.at("/dkim/other.org.dkim.key").exists())
    assert sorted(os.listdir(reader.at("/dkim"))) == [".configstore", "other.org.dkim.key"]
    assert KEY.encode() not in configstore("ls", "dkim")


def test_admin_does_not_start_on_a_store_without_keys(service, configstore):
    admin = service("admin", "mailu/admin")
    configstore("rm", "-r", "dkim")
    done = admin.command("init", "--timeout", "20s")
    assert done.returncode == 1
    assert "configstore mkdir dkim" in done.stderr


def test_a_domains_key_stays_private_on_every_replica(pair):
    admin, reader = pair
    path = Path(admin.at("/dkim"), KEY)
    path.write_bytes(b"a key")
    path.chmod(0o600)
    wait_until(
        lambda: reader.at(f"/dkim/{KEY}").exists() and reader.at(f"/dkim/{KEY}").stat().st_mode & 0o777 == 0o600
    )
