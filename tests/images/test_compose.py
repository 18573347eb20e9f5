"""docs/deploy/compose on a real engine: a host by the guide, and three hosts that share an etcd of three members.

Mailu's own images are stood in for; the files are those that an operator lays over Mailu's. A host is a compose
project, with volumes, sidecars and containers of its own.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.harness.certificates import deployed, pair
from tests.harness.guides import BACKUP, Shell, blocks, choice, halts, section
from tests.harness.waiting import wait_until
from tests.images.conftest import PROJECT

pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.timeout(600)]

DEPLOY = PROJECT / "docs/deploy/compose"
HERE = Path(__file__).parent
SERVICES = ("front", "admin", "imap", "smtp", "antispam", "fetchmail", "webmail")


class Host:
    """One compose project in a folder of its own."""

    def __init__(self, engine, name: str, folder: Path, tls: Path, *files: Path, **variables: str) -> None:
        self.engine, self.name = engine, name
        self.files = [word for file in files for word in ("-f", str(file))]
        self.folder = folder / name
        self.folder.mkdir()
        self.variables = {"CONFIGSTORE": str(PROJECT), "CONFIGSTORE_TLS": str(tls), "FETCHMAIL_GID": "1000",
                          "MAILU_ROOT": str(self.folder), **variables}  # fmt: skip

    def compose(self, *arguments: str, timeout: float = 150) -> str:
        """Run `docker compose ARGUMENTS` in this project."""
        options = ("--project-directory", str(self.folder), "-p", self.name, *self.files)
        return self.engine("compose", *options, *arguments, timeout=timeout, env=self.variables)

    def attempt(self, *arguments: str) -> str:
        """Run `docker compose ARGUMENTS` in this project and return what it prints, whatever comes of it."""
        options = ("--project-directory", str(self.folder), "-p", self.name, *self.files)
        return self.engine.run("compose", *options, *arguments, env=self.variables).stdout.strip()

    def configstore(self, *arguments: str) -> str:
        """Run the command as an operator does."""
        return self.compose("run", "--rm", "-T", "configstore", *arguments)

    def stored(self, path: str) -> str:
        """Return a file's content in the store; empty when it is not there."""
        return self.attempt("run", "--rm", "-T", "--no-deps", "configstore", "get", path)

    def container(self, service: str) -> str:
        """Return the name of a service's container."""
        return f"{self.name}-{service}-1"

    def sh(self, service: str, script: str) -> str:
        """Run a shell script in a service's container, as the user that Mailu's services write as."""
        return self.engine("exec", "-u", "100:1000", self.container(service), "sh", "-c", script)

    def write_key(self, name: str, content: str) -> None:
        """Write a key as Mailu's admin does: in place."""
        self.sh("admin", f"umask 077; echo '{content}' > /dkim/{name}.dkim.key")

    def keys(self) -> dict[str, str]:
        """Return what admin sees in /dkim."""
        words = self.sh("admin", "cd /dkim && for f in *.key; do [ -e $f ] && echo $f $(cat $f); done; true")
        return dict(line.split(" ", 1) for line in words.splitlines() if " " in line)

    def running(self, service: str) -> bool:
        """Say whether a service's container runs and is healthy."""
        state = self.engine.inspect(self.container(service))["State"]
        return state["Status"] == "running" and state["Health"]["Status"] == "healthy"

    def down(self) -> None:
        """Remove everything of it."""
        self.compose("--profile", "tools", "down", "-v", "--timeout", "5")


def follow(hosts: list[Host], keys: dict[str, str]) -> None:
    """Wait until every host's admin sees exactly these keys."""
    for host in hosts:
        wait_until(lambda host=host: host.keys() == keys, 30, what=f"{sorted(keys)} on {host.name}")


GUIDE = (DEPLOY / "README.md").read_text()


def typed(section: str) -> list[str]:
    """Return the commands that the guide shows in a section, in their order."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert text, section
    return re.findall(r"^ {4,}(\S.*)", re.sub(r"```.*?```", "", text[1], flags=re.DOTALL), re.MULTILINE)


class GuidedHost(Host):
    """A host with Mailu's own files, in a folder that stands for /mailu, and what an operator types there."""

    def __init__(self, engine, folder: Path, clone: Path) -> None:
        super().__init__(engine, "mailu", folder, folder)
        self.clone = clone
        shutil.copy(HERE / "mailu.yml", self.folder / "docker-compose.yml")
        (self.folder / ".env").write_text(f"MAILU_ROOT={self.folder}\n")

    def compose(self, *arguments: str, timeout: float = 150) -> str:
        """Run `docker compose ARGUMENTS` in the folder; .env says with which files."""
        return self.type(f"docker compose {' '.join(arguments)}", timeout)

    def attempt(self, *arguments: str) -> str:
        """Run `docker compose ARGUMENTS` in the folder and return what it prints, whatever comes of it."""
        return self.try_line(f"docker compose {' '.join(arguments)}").stdout.strip()

    def here(self, line: str) -> str:
        """Return a line with this host's folders; what `configstore` is told are those of its container."""
        command, configstore, arguments = line.partition(" configstore import ")
        if not configstore:
            command, configstore, arguments = line.partition(" configstore export ")
        command = re.sub(r"(?<![\w:])/mailu\b", str(self.folder), command)
        line = (command + configstore + arguments).replace("/opt/configstore", str(self.clone))
        return line.replace("/backup", f"{self.folder}-backup")

    def try_line(self, line: str, timeout: float = 150) -> subprocess.CompletedProcess[str]:
        """Type a line in the folder of Mailu, whatever comes of it."""
        return subprocess.run(["bash", "-c", self.here(line)], cwd=self.folder, env=self.engine.environment,
                              capture_output=True, text=True, timeout=timeout, check=False)  # fmt: skip

    def type(self, line: str, timeout: float = 150) -> str:
        """Type a line in the folder of Mailu; fails the test when it fails."""
        if line.endswith("configstore status"):  # of a container that was killed it speaks for a minute
            wait_until(lambda: self.try_line(line).returncode == 0, 150, what=line)
        done = self.try_line(line, timeout)
        assert done.returncode == 0, f"{self.here(line)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def moves_in(self, until: str = "") -> None:
        """Follow the guide from its first step to its last, or up to the line that begins with `until`."""
        for line in self.steps(before=until):
            if line == "docker compose build configstore":
                continue  # it is built already, with what the tests' machine needs for it
            settings = self.folder / ".env"
            if line.startswith("sed "):
                settings.write_text("")
            self.type(line)
            if line.startswith("sed "):  # where the clone lies is said there, once
                text = settings.read_text()
                assert text.count("/opt/configstore\n") == 1
                settings.write_text(text.replace("/opt/configstore", str(self.clone)))

    def steps(self, before: str = "", since: str = "") -> list[str]:
        """Return the commands of the set-up, or a part of them."""
        lines = typed("Set up")
        first = next(n for n, line in enumerate(lines) if line.startswith(since))
        last = next(n for n, line in enumerate(lines) if line.startswith(before)) if before else len(lines)
        return lines[first:last]

    def moves_out(self) -> None:
        """Follow the guide back, up to the first thing that cannot be undone."""
        lines = typed("Going back")
        for line in lines[: lines.index("docker compose up -d") + 1]:
            self.type(line)
        self.compose("up", "-d", "--wait")

    def deletes_the_rest(self) -> None:
        """Follow the guide to its end."""
        lines = typed("Going back")
        for line in lines[lines.index("docker compose up -d") + 1 :]:
            self.type(line)

    def sees_that_it_works(self) -> str:
        """Do what the guide ends with, and return what front saw of the file that was put into the store."""
        seen = ""
        for line in typed("See that it works"):
            if " cat " in line:
                seen = wait_until(lambda line=line: self.try_line(line).stdout.strip(), 20)
            else:
                self.type(line)
        return seen

    def starts(self, service: str) -> list[list[str]]:
        """Return what a service found at each start of its container."""
        said = self.engine.run("exec", self.container(service), "cat", "/starts")
        return [json.loads(line) for line in said.stdout.splitlines()]

    def all_run(self) -> None:
        """Wait until all services and all sidecars run and are healthy."""
        for service in (*SERVICES, *(f"{service}-sidecar" for service in SERVICES)):
            wait_until(lambda service=service: self.running(service), 40, what=service)

    def down(self) -> None:
        """Remove everything of it, whatever .env says now."""
        ours = ("--filter", "label=com.docker.compose.project=mailu", "-q")
        for what, remove in (("ps -a", "rm -f"), ("volume ls", "volume rm"), ("network ls", "network rm")):
            if found := self.engine(*what.split(), *ours).split():
                self.engine(*remove.split(), *found)


CERTIFICATE, KEY = pair("mail.example.org")
MAILU = {
    "data/main.db": "accounts",
    "data/instance": "42",
    "data/fetchmail/fetchids": "ids",
    "certs/cert.pem": CERTIFICATE,
    "certs/key.pem": KEY,
    "dkim/moved.org.dkim.key": "moved",
    "overrides/nginx/proxy.conf": "nginx",
    "overrides/dovecot/dovecot.conf": "dovecot",
    "overrides/postfix/postfix.cf": "postfix",
    "overrides/rspamd/options.inc": "rspamd",
    "overrides/roundcube/more.inc.php": "roundcube",
    "webmail/roundcube.db": "address book",
    "webmail/gpg/u@example.org/pubring.kbx": "ring",
}
NEEDED = {
    "front": {"/certs/cert.pem", "/certs/key.pem", "/overrides/proxy.conf"},
    "admin": {"/data/main.db", "/data/instance", "/dkim/moved.org.dkim.key"},
    "imap": {"/overrides/dovecot.conf"},
    "smtp": {"/overrides/postfix.cf"},
    "antispam": {"/overrides/options.inc"},
    "fetchmail": {"/data/fetchids"},
    "webmail": {"/data/roundcube.db", "/data/gpg/u@example.org/pubring.kbx", "/overrides/more.inc.php"},
}
"""What each service must find at each start."""


@contextlib.contextmanager
def mailu_on(host):
    """Have Mailu run on a host, without configstore as yet."""
    for path, content in MAILU.items():
        (host.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (host.folder / path).write_text(f"{content}\n")
    try:
        host.compose("up", "-d")
        yield host
    finally:
        host.down()


@pytest.fixture
def guided(engine, image, clone, tmp_path):
    """Return a host that follows the guide."""
    with mailu_on(GuidedHost(engine, tmp_path, clone)) as host:
        yield host


@pytest.fixture
def hosts(engine, image, tmp_path):
    """Return three hosts with admin and its sidecar up, and a fourth project with their etcd's members."""
    tls = deployed(tmp_path / "tls", "etcd", "etcd-2", "etcd-3")
    engine("network", "create", "hosts")
    endpoints = ",".join(f"https://{name}:2379" for name in ("etcd", "etcd-2", "etcd-3"))
    store = Host(engine, "store", tmp_path, tls, HERE / "cluster.yml")
    files = (HERE / "mailu.yml", DEPLOY / "configstore.yml", HERE / "hosts.yml")
    three = [
        Host(engine, name, tmp_path, tls, *files, CONFIGSTORE_ENDPOINTS=endpoints) for name in ("h1", "h2", "h3")
    ]
    try:
        store.compose("up", "-d", "--wait")
        three[0].configstore("bootstrap", "--preset", "mailu")
        for host in three:
            host.compose("up", "-d", "admin")
        for host in three:  # they start one after another
            wait_until(lambda host=host: host.running("admin"), 120, what=host.name)
        yield store, *three
    finally:
        for host in (*three, store):
            host.down()
        engine("network", "rm", "hosts")


def never_without_files(host: GuidedHost, starts: int) -> None:
    """Wait until all services were started so often, and see that each found what it needs each time."""
    for service, needed in NEEDED.items():
        found = wait_until(
            lambda service=service: len(host.starts(service)) >= starts and host.starts(service), 120, what=service
        )
        assert len(found) == starts
        for files in found:
            assert needed <= set(files), service


def wrappers_are_found(host: GuidedHost) -> None:
    """See that what Mailu calls runs under a lease, in an image of its shape."""
    front = host.container("front")
    said = host.engine("exec", front, "certbot", "-n", "certonly", "--standalone", "--http-01-port", "8008")
    hooks = "/usr/local/lib/configstore"
    assert said == (
        "letsencrypt /usr/bin/certbot -n certonly --manual --preferred-challenges http"
        f" --manual-auth-hook {hooks}/auth-hook --manual-cleanup-hook {hooks}/cleanup-hook"
    )
    assert host.engine("exec", host.container("fetchmail"), "sh", "-c", "command -v fetchmail") == (
        "/usr/local/bin/fetchmail"
    )
    crontab = host.engine("exec", host.container("antispam"), "cat", "/etc/crontabs/root")
    assert "hold antispam-daily" in crontab
    held = host.configstore("leases")
    assert "fetchmail" in held, held
    for name in ("admin-start", "webmail-start"):
        command = ("/run/configstore/configstore-client", "hold", name, "--no-wait", "--", "true")
        host.engine("exec", host.container(name.removesuffix("-start")), *command)


@pytest.mark.guides
@pytest.mark.timeout(600)
def test_one_host_moves_in_restarts_and_moves_out_and_in_again_by_the_guide(guided):
    """All is done as the guide says it, around a restart of the engine, and no file is ever missing."""
    host, engine = guided, guided.engine
    host.moves_in()
    host.all_run()
    never_without_files(host, starts=1)
    assert host.sees_that_it_works() == "seen"
    name = os.uname().nodename
    shown = host.compose("run", "--rm", "-T", "--no-deps", "configstore", "replicas", "--json")
    assert {one["host"] for one in json.loads(shown)} == {f"{name}-{service}" for service in SERVICES}
    assert host.sh("fetchmail", "ls /run/configstore").split() == ["configstore-client", "control.sock"]
    wrappers_are_found(host)

    engine.restart()
    never_without_files(host, starts=2)
    host.all_run()

    # What the services write is stored, and what admin writes at its very end, too.
    host.write_key("example.org", "key")
    script = "mkdir -p /data/gpg/v@example.org && echo new >/data/gpg/v@example.org/pubring.kbx"
    engine("exec", "-u0", host.container("webmail"), "sh", "-c", script)
    for path, content in {
        "dkim/example.org.dkim.key": "key",
        "webmail/gpg/v@example.org/pubring.kbx": "new",
    }.items():
        wait_until(lambda path=path, content=content: host.stored(path) == content, 20, what=path)
    assert not (host.folder / "webmail/gpg/v@example.org").exists()
    host.sh("admin", "rm /dkim/moved.org.dkim.key")
    wait_until(lambda: not host.stored("dkim/moved.org.dkim.key"), 20, what="a key's delete in the store")
    engine("exec", host.container("admin"), "sh", "-c", "echo /dkim/last.org.dkim.key >/at-the-end")
    host.moves_out()
    assert {path.name for path in (host.folder / "dkim").iterdir()} == {
        "example.org.dkim.key",
        "last.org.dkim.key",
    }
    assert (host.folder / "dkim/last.org.dkim.key").read_text() == "last\n"
    assert (host.folder / "webmail/gpg/v@example.org/pubring.kbx").read_text() == "new\n"
    assert (host.folder / "data/main.db").read_text() == "accounts\n"
    assert not list(host.folder.glob("**/.configstore"))
    host.deletes_the_rest()
    assert not engine("volume", "ls", "-q", "--filter", "label=com.docker.compose.project=mailu")
    assert not (host.folder / "configstore-tls").exists()

    # In again, with a new etcd. Who makes the roots before the import is refused; who starts all before there is a
    # subtree is held back, and loses nothing by it.
    host.moves_in(until="docker compose run --rm configstore import")
    hurried = host.try_line("docker compose run --rm configstore bootstrap --preset mailu")
    assert hurried.returncode == 5, hurried.stderr
    assert "configstore import /mailu / --preset mailu" in hurried.stderr
    early = subprocess.Popen(["docker", "compose", "up", "-d"], cwd=host.folder, env=engine.environment,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)  # fmt: skip
    wait_until(lambda: engine.run("exec", host.container("admin-sidecar"), "true").returncode == 0, 30)
    os.killpg(early.pid, signal.SIGKILL)  # it waits for sidecars to get healthy, and would until it gives up
    early.wait(30)
    for service in SERVICES:
        seen = engine.run("inspect", "-f", "{{.State.Status}}", host.container(service))
        assert seen.stdout.strip() in ("", "created"), service
    for line in host.steps(since="docker compose run --rm configstore import"):
        host.type(line)
    host.all_run()
    assert host.keys() == {"example.org.dkim.key": "key", "last.org.dkim.key": "last"}


@pytest.mark.guides
def test_a_lost_etcd_is_restored_by_the_page_to_its_end(guided):
    """A backup, changes after it, a lost etcd: by the page until all is ready, with those changes in the store."""
    host, engine = guided, guided.engine
    host.moves_in()
    host.all_run()
    host.write_key("before.org", "before")
    wait_until(lambda: host.stored("dkim/before.org.dkim.key") == "before", 20, what="a key before the backup")
    for block in blocks(section(BACKUP, "Make one: compose")):
        host.type(block)
    host.write_key("after.org", "after")
    wait_until(lambda: host.stored("dkim/after.org.dkim.key") == "after", 20, what="a key after the backup")

    restore, tidy = blocks(section(BACKUP, "A lost etcd: compose"))
    host.type(f"set -e\n{restore}")
    assert host.stored("dkim/after.org.dkim.key") == ""
    assert host.stored("dkim/before.org.dkim.key") == "before"
    ours = "docker compose run --rm -T --no-deps configstore"

    def halted():
        said = host.try_line(f"{ours} status")
        return halts(said.stdout + said.stderr)

    wait_until(lambda: "dkim" in halted(), 60, what="a choice for dkim")
    deadline = time.monotonic() + 120
    while mappings := halted():  # further ones may have been noticed since
        assert time.monotonic() < deadline, mappings
        for mapping in sorted(mappings):
            host.try_line(choice("local").replace("configstore", ours, 1).replace("MAPPING", mapping))
    wait_until(lambda: host.stored("dkim/after.org.dkim.key") == "after", 30, what="the key pushed again")
    host.type("docker compose up -d")
    host.all_run()
    wait_until(lambda: host.try_line(f"{ours} status").returncode == 0, 60, what="a status without complaint")
    assert host.keys()["after.org.dkim.key"] == "after"
    host.type(tidy)

    tree = next(host.folder.parent.glob("mailu-backup/tree-*"))
    assert (tree / "dkim/before.org.dkim.key").read_text() == "before\n"
    assert engine.inspect(host.container("etcd"))["State"]["Status"] == "running"


@pytest.mark.guides
def test_certificates_and_overrides_are_followed_as_the_guide_says(guided):
    host, engine = guided, guided.engine
    fenced = re.search(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    (host.folder / "own.yml").write_text(fenced[1])
    host.moves_in(until="docker compose up -d --wait etcd")
    settings = host.folder / ".env"
    settings.write_text(re.sub(r"^(COMPOSE_FILE=.*)$", r"\1:own.yml", settings.read_text(), flags=re.MULTILINE))
    for line in host.steps(since="docker compose up -d --wait etcd"):
        host.type(line)
    host.all_run()

    # Somebody's own certificates.
    renewed, key = pair("mail.example.org")
    (host.folder / "certs/cert.pem").write_text(renewed)
    (host.folder / "certs/key.pem").write_text(key)
    for line in typed("Certificates that others renew"):
        host.type(line)
    wait_until(lambda: host.sh("front", "cat /certs/cert.pem") == renewed.strip(), 20, what="a certificate")

    # An override that Dovecot is told of.
    imap = host.container("imap")
    wait_until(lambda: "on-change" in engine("exec", imap, "sh", "-c", "cat /proc/[0-9]*/cmdline"), 20)
    changed = host.folder / "changed/dovecot.conf"
    changed.parent.mkdir()
    changed.write_text("changed\n")
    host.type(f"docker compose run --rm -T -v {changed.parent}:/in:ro configstore import /in overrides/dovecot")
    wait_until(lambda: engine.run("exec", imap, "cat", "/doveadm.log").stdout == "reload\n", 20, what="a reload")

    # Certificates of etcd, renewed without a restart of anybody.
    tls, sidecar = host.folder / "configstore-tls", host.container("admin-sidecar")
    running = engine.inspect(host.container("etcd"))["State"]["Pid"], engine.inspect(sidecar)["State"]["Pid"]
    before = {file: (tls / file).read_text() for file in ("admin/mailu-admin.pem", "server/server.pem")}
    for file in before:
        (tls / file).unlink()
    host.type(next(line for line in host.steps() if line.startswith("docker run") and "access apply" in line))
    assert not [file for file, content in before.items() if (tls / file).read_text() == content]
    said = engine("exec", sidecar, "cat", "/run/configstore-tls/mailu-admin.pem")
    assert said == (tls / "admin/mailu-admin.pem").read_text().strip()
    shown = "import ssl; print(ssl.get_server_certificate(('etcd', 2379)))"
    assert engine("exec", sidecar, "python3", "-c", shown) == (tls / "server/server.pem").read_text().strip()
    host.write_key("after.org", "after")
    wait_until(lambda: host.stored("dkim/after.org.dkim.key") == "after", 20, what="a key under new certificates")
    assert running == (
        engine.inspect(host.container("etcd"))["State"]["Pid"], engine.inspect(sidecar)["State"]["Pid"]
    )  # fmt: skip


@pytest.mark.guides
def test_three_members_on_three_addresses_are_one_cluster(engine, image, tmp_path):
    """docs/deploy/compose/etcd-cluster.yml: a host each; here each has one loopback address of this machine."""
    net = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}"
    addresses = [f"{net}.{last}" for last in (11, 12, 13)]
    # From one loopback address to another, the kernel calls from 127.0.0.1; members check where a peer comes from.
    tls = deployed(tmp_path / "tls", *addresses, "127.0.0.1")
    (tls / "ca.key").unlink()
    members = ",".join(f"{address}=https://{address}:2380" for address in addresses)
    hosts = [
        Host(engine, f"member{number}", tmp_path, tls, DEPLOY / "etcd-cluster.yml", ETCD_ADDRESS=address,
             ETCD_MEMBERS=members)
        for number, address in enumerate(addresses)
    ]  # fmt: skip
    try:
        for host in hosts:
            host.compose("up", "-d", "etcd")
        first, second, third = hosts
        ask = ("exec", "-T", "etcd", "etcdctl")
        health = (*ask, "endpoint", "health", "--cluster", "-w", "json")
        for host in hosts:
            host.compose("up", "-d", "--wait", "etcd")
        assert len(json.loads(first.compose(*health))) == 3
        first.compose(*ask, "put", "a", "b")
        first.compose("stop", "etcd")
        assert third.compose(*ask, "get", "--print-value-only", "a") == "b"
        second.compose(*ask, "put", "a", "c")
        first.compose("start", "etcd")
        wait_until(lambda: first.running("etcd"), 40)
        assert first.compose(*ask, "get", "--print-value-only", "a") == "c"

        # The first is lost for good, and replaced.
        first.down()
        listed = json.loads(second.compose(*ask, "member", "list", "-w", "json"))["members"]
        lost = next(f"{member['ID']:x}" for member in listed if member["name"] == addresses[0])
        second.compose(*ask, "member", "remove", lost)
        second.compose(*ask, "member", "add", addresses[0], f"--peer-urls=https://{addresses[0]}:2380")
        first.variables["ETCD_CLUSTER_STATE"] = "existing"
        first.compose("up", "-d", "--wait", "etcd")
        assert first.compose(*ask, "get", "--print-value-only", "a") == "c"
        assert len(json.loads(third.compose(*health))) == 3

        # All are lost, and restored by the page on backups.
        (tmp_path / "backup").mkdir()
        saved = ("run", "--rm", "-T", "--no-deps", "-v", f"{tmp_path}/backup:/backup", "--entrypoint", "etcdctl")
        first.compose(*saved, "etcd", "snapshot", "save", "/backup/etcd-2026-11-24.db")
        second.compose(*ask, "put", "a", "after the backup")
        for host in hosts:
            host.compose("stop", "etcd")
        (restore,) = blocks(section(BACKUP, "A lost etcd: several hosts with compose"))
        for host in hosts:
            settings = [f"{name}={host.variables[name]}" for name in ("ETCD_ADDRESS", "ETCD_MEMBERS")]
            (host.folder / ".env").write_text("\n".join([*settings, ""]))
            environment = {"COMPOSE_FILE": str(DEPLOY / "etcd-cluster.yml"), "COMPOSE_PROJECT_NAME": host.name}
            environment |= engine.environment | host.variables | {"ETCD_CLUSTER_STATE": "new"}
            Shell(host.folder, environment, lambda line, host=host: line.replace("mailu_etcd", f"{host.name}_etcd")
                  .replace("/backup", f"{tmp_path}/backup")).type(restore)  # fmt: skip
        wait_until(lambda: first.attempt(*ask, "get", "--print-value-only", "a") == "c", 60, what="what was saved")
        assert len(json.loads(third.compose(*health))) == 3
    finally:
        for host in hosts:
            host.down()


def test_a_key_of_one_host_is_on_all_whatever_dies(hosts):
    store, h1, h2, h3 = hosts
    engine, three = store.engine, [h1, h2, h3]
    keys = {}

    def write(host, name):
        host.write_key(name, f"{name} of {host.name}")
        keys[f"{name}.dkim.key"] = f"{name} of {host.name}"

    write(h1, "first")
    write(h2, "second")
    follow(three, keys)

    # A sidecar crashes; its host is written to meanwhile, and another too.
    engine.kill_process(h2.container("admin-sidecar"))
    write(h2, "beside-a-dead-sidecar")
    write(h3, "far-from-a-dead-sidecar")
    follow(three, keys)
    assert engine.inspect(h2.container("admin-sidecar"))["RestartCount"] >= 1

    # A member of etcd stays dead.
    engine("kill", store.container("etcd"))
    write(h3, "without-a-member")
    follow(three, keys)
    engine("start", store.container("etcd"))

    # A host loses its containers and with them its tmpfs.
    h3.compose("rm", "-s", "-f", "admin", "admin-sidecar")
    write(h1, "without-a-host")
    h3.compose("up", "-d", "admin")
    assert h3.keys() == keys
    wait_until(lambda: h3.running("admin"), 120, what="its admin, whose turn it is to start")
    follow(three, keys)

    # A single delete is a delete.
    h3.sh("admin", "rm /dkim/first.dkim.key")
    del keys["first.dkim.key"]
    follow(three, keys)
    assert h1.configstore("conflicts") == ""
    wait_until(lambda: store.running("etcd"), 40)
