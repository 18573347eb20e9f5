"""One sidecar for all services of a host: two such hosts, and what befalls one service alone."""

import json
import os
import secrets
import shutil

import pytest

from configstore.client import ClientError
from tests.harness.host import Host
from tests.harness.waiting import wait_until


@pytest.fixture
def host(etcd, kv_root, tmp_path, configstore):
    """Return a function that makes a host; the store has all subtrees."""
    configstore("bootstrap", "--preset", "mailu")
    made = []

    def make(name):
        made.append(Host(name, etcd.endpoint, kv_root, tmp_path))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


OVERRIDES = {"nginx": "front", "dovecot": "imap", "postfix": "smtp", "rspamd": "antispam", "roundcube": "webmail"}


def bring_overrides(configstore, folder, services):
    """Put a file into the store for each of these services, all at once."""
    for program, service in OVERRIDES.items():
        if service in services:
            (folder / program).mkdir(parents=True)
            (folder / program / "own.conf").write_text(program)
    configstore("import", str(folder), "overrides")


def arrives(path, content):
    wait_until(lambda: path.exists() and path.read_text() == content, 30, what=f"{path} to hold {content!r}")


def test_two_hosts_exchange_the_files_of_all_services_each_through_its_own_socket(host, configstore, tmp_path):
    one, two = host("one").start(), host("two").start()
    one.ready(), two.ready()
    for path, service, name in (
        ("/data/instance", "admin", "instance"),
        ("/dkim/example.org.dkim.key", "admin", "dkim"),
        ("/acme/token", "front", "acme"),
        ("/data/gpg/user/pubring.kbx", "webmail", "gpg"),
        ("/data/SALT.php", "webmail", "rainloop-salt"),
        ("/data/_data_/_default_/storage/example.org/user/settings", "webmail", "rainloop"),
    ):
        written = one.folder(service, path)
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(name)
        arrives(two.folder(service, path), name)
    bring_overrides(configstore, tmp_path / "overrides", OVERRIDES.values())
    for name, service in OVERRIDES.items():
        for each in (one, two):
            arrives(each.folder(service, "/overrides/own.conf"), name)
            assert sorted(os.listdir(each.folder(service, "/overrides"))) == [".configstore", "own.conf"]
    assert not one.folder("admin", "/overrides").exists()

    # Two leases at once in one process, each by the socket of its service.
    for service, lease, path in (
        ("fetchmail", "fetchmail", "/data/fetchids"),
        ("front", "letsencrypt", "/certs/letsencrypt/live/README"),
    ):
        changed = one.folder(service, path)
        script = f"mkdir -p {changed.parent} && echo {lease} > {changed}"
        done = one.client(service, "hold", lease, "--", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        arrives(two.folder(service, path), f"{lease}\n")

    # What is behind a socket is its service's, and nothing else.
    assert {each["mapping"] for each in one.control("front").ask("GET", "/v1/status")["mappings"]} == {
        "certs", "letsencrypt", "overrides-nginx", "acme",
    }  # fmt: skip
    assert one.client("front", "hold", "fetchmail", "--", "true").returncode == 2
    with pytest.raises(ClientError, match="no mapping 'dkim' here"):
        one.control("front").ask("POST", "/v1/flush", {"mapping": "dkim"})
    found = json.loads(configstore("status", "--json"))
    assert {each["mapping"] for each in found["mappings"]} >= {"dkim", "fetchmail", "overrides-roundcube"}


def test_what_befalls_one_service_holds_up_no_other(host, configstore, tmp_path, on_tmpfs):
    """A directory that is none, a full tmpfs, a hook that takes long, a socket that cannot be made: each alone."""
    one = host("one")
    on_tmpfs(one.folder("webmail", "/data/gpg"), "size=128k")
    configstore("put", "webmail/gpg/user/pubring.kbx", content=secrets.token_bytes(300_000))
    shutil.rmtree(one.folder("imap", "/overrides"))
    one.folder("imap", "/overrides").write_text("no directory")
    begun = tmp_path / "begun"
    one.set("overrides-postfix", on_change=f"sh -c 'touch {begun}; while [ -e {begun} ]; do sleep 0.1; done'")
    (one.shared / "antispam").chmod(0o777)
    one.start().ready("front").ready("antispam")
    assert (one.says("imap")[0], one.says("webmail")[0], one.says()[0]) == (503, 503, 503)
    words = "gpg (webmail): not ready: incomplete: 1 problems, such as user/pubring.kbx"
    wait_until(lambda: words in one.says()[1], 20, what=words)
    assert "overrides-dovecot (imap): not ready" in one.says()[1]
    assert "antispam: no control socket" in one.says()[1]
    wait_until(begun.exists, 20, what="the slow hook")
    bring_overrides(configstore, tmp_path / "overrides", {"smtp", "front", "antispam"})
    for name, service in (("postfix", "smtp"), ("nginx", "front"), ("rspamd", "antispam")):
        arrives(one.folder(service, "/overrides/own.conf"), name)
    assert one.client("front", "flush", "acme").returncode == 0

    begun.unlink()

    # Mended, it goes on by itself.
    (one.shared / "antispam").chmod(0o700)
    one.folder("imap", "/overrides").unlink()
    one.folder("imap", "/overrides").mkdir()
    configstore("put", "webmail/gpg/user/pubring.kbx", content=b"small")
    one.ready()
    wait_until((one.shared / "antispam/control.sock").exists, 20, what="the socket of antispam")
    assert one.client("antispam", "flush", "overrides-rspamd").returncode == 0
