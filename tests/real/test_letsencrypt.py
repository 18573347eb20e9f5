"""Certificates for two fronts behind a balancer: one order, and the same certificate on each."""

import contextlib
import importlib.machinery
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from tests.harness.certificates import Authority
from tests.harness.replica import ENVIRONMENT
from tests.harness.waiting import freeze, wait_until
from tests.real.acme import HERE, NAME, Balancer, Front, Pebble, certbot, seen_as
from tests.real.image import RELEASES, Image, mounted_by_compose, script

POLICY = (
    'lease = "letsencrypt"\nsettle = "250ms"\n'
    'exclude = [".certbot.lock", "*.new", "previous_*", "*-chain.pem", "/work", "/logs"]'
)
HOOKS = HERE / "docs/letsencrypt"
FIRST = ["certonly", "--keep-until-expiring", "--agree-tos", "--register-unsafely-without-email"]
FIRST += ["--cert-name", "mailu", "-d", NAME, "--key-type", "rsa", "--rsa-key-size", "2048"]
FIRST += ["--manual", "--preferred-challenges", "http"]
FIRST += ["--manual-auth-hook", str(HOOKS / "auth-hook"), "--manual-cleanup-hook", str(HOOKS / "cleanup-hook")]

LETSENCRYPT = f"""#!/usr/bin/env python3
# The two calls of Mailu's core/nginx/letsencrypt.py (2024.06), once.
import subprocess
asked = ["-n", "--agree-tos", "-d", "{NAME}", "--expand", "--allow-subset-of-names", "-m", "postmaster@{NAME}"]
kept = ["--preferred-challenges", "http", "--http-01-port", "8008", "--keep-until-expiring"]
kept += ["--allow-subset-of-names", "--renew-with-new-domains", "--config-dir", "/certs/letsencrypt"]
for name, key in (("mailu", "rsa"), ("mailu-ecdsa", "ecdsa")):
    command = ["certbot", *asked, "certonly", "--standalone", "--cert-name", name, "--key-type", key, *kept]
    subprocess.call([*command, "--post-hook", "/config.py"])
"""


class Site:
    """A replica with its front, and certbot beside it."""

    def __init__(self, name, replica, base):
        self.acme = base / f"acme-{name}"
        self.acme.mkdir()
        more = f'[[mapping]]\nname = "acme"\npath = "{self.acme}"\nsettle = "0ms"\n'
        self.replica = replica(name, POLICY, more)
        self.base, self.name, self.follower = base, name, None
        self.replica.folder.chmod(0o755)
        self.front = Front(base / f"front-{name}", self.replica.folder, self.acme)

    def command(self, pebble, *arguments):
        """Return certbot's command, which sees this replica's directory where every container has it."""
        common = self.base / "common"
        common.mkdir(exist_ok=True)
        (common / "certs").mkdir(exist_ok=True)
        command = certbot(common, pebble, *arguments)
        command[command.index("--work-dir") + 1] = str(self.base / f"work-{self.name}")
        command[command.index("--logs-dir") + 1] = str(self.base / f"logs-{self.name}")
        return seen_as(self.replica.folder, common / "certs", command)

    def environment(self, pebble):
        """Return what certbot and its hooks are told."""
        return ENVIRONMENT | {
            "CONFIGSTORE_CLIENT": str(self.replica.shared / "configstore-client"),
            "CONFIGSTORE_ACME_PATH": str(self.acme),
            "REQUESTS_CA_BUNDLE": str(pebble.bundle),
        }

    def certbot(self, pebble, *arguments, ttl="6"):
        """Start certbot under the lease."""
        command = self.command(pebble, *arguments)
        return self.replica.client(
            "hold", "letsencrypt", "--ttl", ttl, "--", *command, env=self.environment(pebble)
        )

    def in_mailus_front(self, base, authority, *, venv):
        """Return a container of front's shape, with what compose mounts there, and a letsencrypt.py as Mailu's."""
        shown = mounted_by_compose("front", HERE / "docs/deploy/compose/configstore.yml", HERE)
        config = script(base / f"config-{self.name}.py", f"#!/bin/sh\nexec {shlex.join(self.front.reload)}\n")
        ini = base / "cli.ini"
        ini.write_text(f"server = {authority.directory}\n")
        return Image(
            base,
            venv=venv,
            mounts=shown
            | {
                "/certs/letsencrypt": self.replica.folder,
                "/acme": self.acme,
                "/run/configstore": self.replica.shared,
                "/config.py": config,
                "/letsencrypt.py": script(base / "letsencrypt.py", LETSENCRYPT),
                "/etc/letsencrypt/cli.ini": ini,
                str(self.base): self.base,
            },
        )

    def follow(self):
        """Start what reloads the front when another one has renewed."""
        descriptors = Path(f"/proc/{self.replica.process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        self.follower = self.replica.client("on-change", "data", "--", *self.front.reload)
        wait_until(lambda: len(list(descriptors.iterdir())) > before, what="the follower to be connected")

    def close(self):
        """End that again."""
        if self.follower:
            self.follower.terminate()
            self.follower.communicate(timeout=90)


@pytest.fixture
def sites(replica, configstore, tmp_path):
    """Return two running sites."""
    configstore("mkdir", "acme")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    made = [Site(name, replica, tmp_path) for name in ("one", "two")]
    with contextlib.ExitStack() as stack:
        for site in made:
            site.replica.start().ready()
            stack.enter_context(site.front)
            stack.callback(site.close)
        yield made


@pytest.fixture
def pebble(sites, tmp_path):
    """Return the authority, which meets the fronts in turn."""
    with contextlib.closing(Balancer()) as balancer:
        balancer.ports = [site.front.http for site in sites]
        with Pebble(tmp_path / "pebble", balancer.port) as authority:
            yield authority


def ended(process):
    """Return exit code and all that was said."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def serial_in(path):
    """Return the serial of a certificate's file."""
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def issue(sites, pebble):
    """Get the first certificate and have both fronts show it; returns its serial."""
    code, said = ended(sites[0].certbot(pebble, *FIRST))
    assert code == 0, said
    for site in sites:
        wait_until((site.replica.folder / "live/mailu/fullchain.pem").exists)
        subprocess.run(site.front.reload, check=True)
    (serial,) = {wait_until(site.front.serial) for site in sites}
    return serial


def test_all_replicas_at_once_make_one_order_and_show_one_certificate(sites, pebble):
    _, two = sites
    for process in [site.certbot(pebble, *FIRST) for site in sites]:
        code, said = ended(process)
        assert code == 0, said
    assert (pebble.orders(), pebble.issued()) == (1, 1)
    for site in sites:
        live = site.replica.folder / "live/mailu"
        assert os.readlink(live / "privkey.pem") == "../../archive/mailu/privkey1.pem"
        assert (live / "privkey.pem").stat().st_mode & 0o777 == 0o600
        subprocess.run(site.front.reload, check=True)
    assert len({wait_until(site.front.serial) for site in sites}) == 1
    code, said = ended(two.certbot(pebble, "renew"))
    assert "not due for renewal" in said.replace("not yet due", "not due")
    assert pebble.orders() == 1


def test_a_raced_renewal_makes_one_order_and_followers_reload(sites, pebble, tmp_path):
    before = issue(sites, pebble)
    one, two = sites
    due = Authority(tmp_path / "other").issue(NAME)  # ends within a day, so certbot finds it due
    script = 'cd "$3/archive/mailu" && cp "$1" fullchain1.pem && cp "$1" cert1.pem && cp "$2" privkey1.pem'
    aging = ["sh", "-c", script, "-", str(due.cert), str(due.key), str(one.replica.folder)]
    assert ended(one.replica.client("hold", "letsencrypt", "--", *aging))[0] == 0
    same = one.replica.folder / "archive/mailu/cert1.pem"
    wait_until(lambda: (two.replica.folder / "archive/mailu/cert1.pem").read_bytes() == same.read_bytes())
    for site in sites:
        site.follow()
    seen = set()
    racing = [site.certbot(pebble, "renew", "--no-random-sleep-on-renew") for site in sites]
    while any(process.poll() is None for process in racing):
        seen |= {site.front.serial() for site in sites}
    for process in racing:
        code, said = ended(process)
        assert code == 0, said
    assert (pebble.orders(), pebble.issued()) == (2, 2)
    for site in sites:
        assert os.readlink(site.replica.folder / "live/mailu/privkey.pem").endswith("privkey2.pem")
    old = {before, serial_in(due.cert)}
    new = serial_in(one.replica.folder / "archive/mailu/cert2.pem")
    # A worker that nginx is ending may still take a connection: each question is asked until the answer is new.
    wait_until(lambda: any(site.front.serial() == new for site in sites), what="the follower to reload by itself")
    for site in sites:  # the holder's own front is reloaded by certbot's hook in real life
        subprocess.run(site.front.reload, check=True)
    for site in sites:
        wait_until(lambda site=site: site.front.serial() == new, what="each front to show the new certificate")
    assert seen <= old | {new}


def test_a_holder_killed_in_the_middle_of_an_order_is_followed_by_one_that_finishes(sites, pebble):
    one, two = sites
    freeze(two.replica.process)  # so that the token is never applied everywhere
    hanging = one.certbot(pebble, *FIRST, ttl="4")
    tokens = one.acme / ".well-known/acme-challenge"
    wait_until(lambda: tokens.is_dir() and list(tokens.iterdir()), 60)
    hanging.kill()
    hanging.communicate()
    one.replica.end(signal.SIGKILL)
    shutil.rmtree(one.replica.folder)
    one.replica.folder.mkdir(mode=0o755)
    two.replica.process.send_signal(signal.SIGCONT)
    one.replica.start().ready()
    code, said = ended(two.certbot(pebble, *FIRST))
    assert code == 0, said
    assert "did not report its end" in said
    assert pebble.issued() == 1
    wait_until((one.replica.folder / "live/mailu/privkey.pem").exists)


def letsencrypt(image, authority, **environment):
    """Start letsencrypt.py in a container."""
    bundle = {"REQUESTS_CA_BUNDLE": str(authority.bundle)} if authority else {}
    return image.start("/letsencrypt.py", **bundle, **environment)


@pytest.mark.parametrize("venv", RELEASES.values(), ids=RELEASES)
def test_mailus_own_calls_in_two_fronts_make_one_order_for_each_kind_of_key(sites, pebble, roots, venv):
    fronts = [site.in_mailus_front(roots, pebble, venv=venv) for site in sites]
    for site in sites:
        site.follow()
    processes = [letsencrypt(front, pebble) for front in fronts]
    said = [ended(process)[1] for process in processes]
    assert (pebble.orders(), pebble.issued()) == (2, 2), said
    for site in sites:
        for name in ("mailu", "mailu-ecdsa"):
            private = f"../../archive/{name}/privkey1.pem"
            assert os.readlink(site.replica.folder / "live" / name / "privkey.pem") == private
    issued = serial_in(sites[0].replica.folder / "live/mailu/fullchain.pem")
    for site in sites:  # one by certbot's post-hook, the other by on-change
        wait_until(lambda site=site: site.front.serial() == issued, what="/config.py to run in each front")
    assert not any(tokens(site) for site in sites), "cleanup-hook has left a token"


def tokens(site):
    """Return the tokens of challenges that lie in a webroot."""
    return [path for path in (site.acme / ".well-known/acme-challenge").glob("*") if path.is_file()]


@pytest.mark.parametrize("venv", RELEASES.values(), ids=RELEASES)
def test_certbot_is_found_where_the_wrapper_lies_and_is_the_systems(roots, venv):
    image = Image(roots, venv=venv, mounts={"/usr/local/bin/certbot": HOOKS / "certbot"})
    assert image.run("sh", "-c", "command -v certbot").stdout == "/usr/local/bin/certbot\n"
    assert image.run("sh", "-c", "exec python3 -c 'import certbot'").returncode == (1 if venv else 0)
    client = script(roots / "client", '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    image.mounts["/run/configstore/configstore-client"] = client
    assert image.run("certbot", "--version").stdout == image.run("/usr/bin/certbot", "--version").stdout != ""


def test_the_log_of_front_says_that_no_sidecar_answered(roots):
    letsencrypt_py = script(roots / "letsencrypt.py", LETSENCRYPT)
    mounts = {"/usr/local/bin/certbot": HOOKS / "certbot", "/letsencrypt.py": letsencrypt_py}
    front = Image(roots, venv=True, mounts=mounts)
    said = ended(letsencrypt(front, None, CONFIGSTORE_ACME_WAIT="0"))[1]
    assert "/run/configstore/configstore-client: No such file or directory; is the sidecar running" in said
    assert said.count("no certificate was asked for") == len(("rsa", "ecdsa"))


def test_a_lease_that_does_not_come_free_is_told_after_a_finite_wait(sites, roots, pebble):
    one, two = sites
    busy = one.replica.client("hold", "letsencrypt", "--", "sh", "-c", "echo held; exec sleep 1000")
    assert busy.stdout.readline() == "held\n"
    said = ended(letsencrypt(two.in_mailus_front(roots, pebble, venv=True), pebble, CONFIGSTORE_ACME_WAIT="1"))[1]
    assert "lease letsencrypt is held by one" in said
    assert "no certificate was asked for" in said
    assert pebble.orders() == 0
    busy.terminate()
    busy.communicate()


def test_the_wrapper_replaces_the_standalone_server_by_the_hooks():
    loader = importlib.machinery.SourceFileLoader("wrapper", str(HOOKS / "certbot"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("wrapper", loader))
    loader.exec_module(module)
    mailus = ["-n", "--agree-tos", "certonly", "--standalone", "--http-01-port", "8008", "--cert-name", "mailu"]
    assert module.rewritten(mailus) == [
        "-n", "--agree-tos", "certonly", "--manual", "--preferred-challenges", "http", "--manual-auth-hook",
        "/usr/local/lib/configstore/auth-hook", "--manual-cleanup-hook", "/usr/local/lib/configstore/cleanup-hook",
        "--cert-name", "mailu",
    ]  # fmt: skip
    assert module.rewritten(["--http-01-port=8008", "renew"]) == ["renew"]
