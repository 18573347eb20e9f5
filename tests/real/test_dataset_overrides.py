"""Overrides: people write them to the store, and the real programs take them."""

import contextlib
import json
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from configstore.embedded import LOOPBACK, free_ports
from tests.harness.waiting import wait_until
from tests.real.acme import NGINX, answers, program
from tests.real.mail import Mailboxes

CHECK = """#!/bin/sh
sed "s#{overrides}#$1#; s#listen.*;#listen unix:{folder}/check.sock;#" {folder}/nginx.conf > {folder}/check.conf
exec {nginx} -t -q -c {folder}/check.conf
"""


class Nginx:
    """nginx that includes a replica's overrides."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder, self.port = folder, free_ports(1)[0]
        self.check, self.reload = folder / "check", folder / "reload"

    def hooks(self, at):
        """Return the settings by which the sidecar tests and tells it."""
        overrides = at("/overrides")
        where = {"folder": self.folder, "overrides": overrides}
        text = NGINX.format(host=LOOPBACK, http=self.port, locations=f"include {overrides}/*.conf;", **where)
        (self.folder / "nginx.conf").write_text(text)
        self.check.write_text(CHECK.format(nginx=program("nginx"), **where))
        self.reload.write_text(f'#!/bin/sh\nexec kill -HUP "$(cat {self.folder}/pid)"\n')
        for path in (self.check, self.reload):
            path.chmod(0o755)
        return {"overrides-nginx": f'check = ["{self.check}", "{{}}"]\non_change = ["{self.reload}"]'}

    def answer(self):
        """Return what it serves."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/", timeout=5) as found:
                return found.read().decode()
        except urllib.error.HTTPError as found:
            with found:
                return str(found.code)

    @contextlib.contextmanager
    def running(self):
        process = subprocess.Popen([program("nginx"), "-c", str(self.folder / "nginx.conf")])
        try:
            wait_until(lambda: answers(self.port), 20)
            yield
        finally:
            process.terminate()
            process.wait(90)


def test_nginx_takes_an_override_and_a_bad_one_never_reaches_it(service, configstore, tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    nginx = Nginx(tmp_path / "nginx")
    configstore("bootstrap", "--preset", "mailu/front")
    configstore("put", "overrides/nginx/site.conf", content=b'location / { return 200 "first"; }\n')
    front = service("front", "mailu/front", nginx.hooks)
    assert front.command("init").returncode == 0
    with nginx.running():
        front.start().ready()
        assert nginx.answer() == "first"
        configstore("put", "overrides/nginx/site.conf", content=b'location / { return 200 "second"; }\n')
        wait_until(lambda: nginx.answer() == "second")
        configstore("put", "overrides/nginx/site.conf", content=b"location / { retrun 200; }\n")
        wait_until(lambda: front.mapping_metric("overrides-nginx", "problems") > 0)
        assert front.at("/overrides/site.conf").read_text().startswith('location / { return 200 "second"')
        configstore("put", "overrides/nginx/site.conf", content=b'location / { return 200 "third"; }\n')
        wait_until(lambda: nginx.answer() == "third")


class Dovecot(Mailboxes):
    """Dovecot that includes a replica's override, as Mailu's does."""

    def __init__(self, override):
        super().__init__()
        self.override = override

    def configuration(self):
        return super().configuration() + f"!include_try {self.override}\n"

    def greeting(self):
        """Return its first line to a client, "" for none."""
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), 5) as connection:
            return connection.recv(200).decode()
        return ""


def test_dovecot_takes_an_override_at_its_reload(service, configstore, tmp_path):
    imap = service("imap", "mailu/imap")
    for folder in (tmp_path, *tmp_path.parents[:2], imap.folder):
        folder.chmod(0o755)
    configstore("put", "overrides/dovecot/dovecot.conf", content=b"login_greeting = first\n")
    imap.start().ready()
    override = imap.at("/overrides/dovecot.conf")
    wait_until(override.exists)
    assert override.stat().st_mode & 0o777 == 0o644
    with Dovecot(override) as dovecot:
        assert "first" in dovecot.greeting()
        configstore("put", "overrides/dovecot/dovecot.conf", content=b"login_greeting = second\n")
        wait_until(lambda: b"second" in override.read_bytes())
        command = [program("doveadm"), "-c", str(dovecot.folder / "dovecot.conf"), "reload"]
        subprocess.run(command, check=True, capture_output=True)
        wait_until(lambda: "second" in dovecot.greeting(), 20)


def test_the_proxy_of_dovecot_gets_its_override(service, configstore, tmp_path):
    """Front has a Dovecot of its own, whose override lies among those of nginx; /config.py tells both."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    configstore("bootstrap", "--preset", "mailu/front")
    configstore("put", "overrides/nginx/dovecot/proxy.conf", content=b"login_greeting = first\n")
    configstore("put", "overrides/nginx/site.conf", content=b'location / { return 200 "first"; }\n')
    config, nginx = tmp_path / "config.py", Nginx(tmp_path / "nginx")
    hooks = {"overrides-nginx": f'on_change = ["{config}"]'}
    front = service("front", "mailu/front", lambda at: nginx.hooks(at) and hooks)
    front.folder.chmod(0o755)
    assert front.command("init").returncode == 0
    override = front.at("/overrides/dovecot/proxy.conf")
    assert (override.stat().st_mode & 0o777, override.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    with Dovecot(override) as proxy, nginx.running():
        doveadm = f"{program('doveadm')} -c {proxy.folder / 'dovecot.conf'} reload"
        config.write_text(f"#!/bin/sh\n{nginx.reload} && exec {doveadm}\n")
        config.chmod(0o755)
        front.start().ready()
        assert (nginx.answer(), "first" in proxy.greeting()) == ("first", True)
        configstore("put", "overrides/nginx/dovecot/proxy.conf", content=b"login_greeting = second\n")
        configstore("put", "overrides/nginx/site.conf", content=b'location / { return 200 "second"; }\n')
        wait_until(lambda: "second" in proxy.greeting(), 20)
        wait_until(lambda: nginx.answer() == "second", 20)


@pytest.mark.parametrize(
    ("preset", "mapping", "name"),
    [
        ("mailu/smtp", "overrides-postfix", "postfix.cf"),
        ("mailu/antispam", "overrides-rspamd", "maps/local_bl.map"),
        ("mailu/webmail", "overrides-roundcube", "plugins/extra.inc.php"),
    ],
)
def test_an_override_reaches_its_service_readable_by_all(service, configstore, preset, mapping, name):
    made = service("one", preset)
    configstore("put", f"overrides/{mapping.removeprefix('overrides-')}/{name}", content=b"# setting\n")
    made.start().ready()
    there = made.at(f"/overrides/{name}")
    wait_until(there.exists)
    assert there.stat().st_mode & 0o777 == 0o644
    if "/" in name:
        assert there.parent.stat().st_mode & 0o777 == 0o755
    there.write_bytes(b"edited in the container")  # where overrides are only read
    wait_until(lambda: made.mapping_metric(mapping, "problems") == 1)
    history = json.loads(
        configstore("history", f"overrides/{mapping.removeprefix('overrides-')}/{name}", "--json")
    )
    assert len(history) == 1
