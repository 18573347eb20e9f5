"""docs/deploy/compose on a real engine: one host whole, and three hosts that share an etcd of three members.

Mailu's own images are stood in for; the files are those that an operator lays over Mailu's. A host is a compose
project, with volumes, sidecars and containers of its own.
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.images.conftest import PROJECT
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.timeout(300)]

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

    def configstore(self, *arguments: str) -> str:
        """Run the command as an operator does."""
        return self.compose("run", "--rm", "-T", "configstore", *arguments)

    def moving(self, *arguments: str) -> str:
        """Run the command with this host's folder as /mailu, as the README moves files in and out."""
        return self.compose("run", "--rm", "-T", "-v", f"{self.folder}:/mailu", "configstore", *arguments)

    def stored(self, path: str) -> str:
        """Return a file's content in the store; empty when it is not there."""
        sidecar = self.container("admin-sidecar")
        return self.engine.run("exec", sidecar, "configstore", "get", path).stdout.strip()

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


def make_certs(folder: Path, *names: str) -> Path:
    subprocess.run([str(DEPLOY / "make-certs"), str(folder), *names], check=True, capture_output=True, timeout=30)
    return folder


def follow(hosts: list[Host], keys: dict[str, str]) -> None:
    """Wait until every host's admin sees exactly these keys."""
    for host in hosts:
        wait_until(lambda host=host: host.keys() == keys, 30, what=f"{sorted(keys)} on {host.name}")


def sidecar_up_and_services_wait(host: Host) -> None:
    """Wait for admin's sidecar, and see that no service was started before there is anything to mirror."""
    wait_until(lambda: host.engine.run("exec", host.container("admin-sidecar"), "true").returncode == 0, 30)
    for service in SERVICES:
        seen = host.engine.run("inspect", "-f", "{{.State.Status}}", host.container(service))
        assert seen.stdout.strip() in ("", "created"), service


@pytest.fixture
def one_host(engine, image, tmp_path):
    """Return a host with all services and sidecars, and one etcd; nothing is up yet."""
    files = [DEPLOY / name for name in ("configstore.yml", "fetchmail.yml", "webmail.yml", "etcd.yml")]
    host = Host(engine, "one", tmp_path, make_certs(tmp_path / "tls"), HERE / "mailu.yml", *files)
    (host.folder / "data").mkdir()
    (host.folder / "data/main.db").write_text("accounts")
    yield host
    host.down()


@pytest.fixture
def hosts(engine, image, tmp_path):
    """Return three hosts with admin and its sidecar up, and a fourth project with their etcd's members."""
    tls = make_certs(tmp_path / "tls", "etcd", "etcd-2", "etcd-3")
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
        yield store, *three
    finally:
        for host in (*three, store):
            host.down()
        engine("network", "rm", "hosts")


def test_one_host_starts_gated_and_moves_in(one_host):
    """No service starts on an empty mirror; then all do, with what moved in, and main.db is where it was."""
    (one_host.folder / "dkim").mkdir()
    (one_host.folder / "dkim/moved.org.dkim.key").write_text("moved\n")
    one_host.compose("up", "-d", "--wait", "etcd")
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(one_host.compose, "up", "-d")
        sidecar_up_and_services_wait(one_host)
        one_host.configstore("bootstrap", "--preset", "mailu")
        one_host.moving("import", "/mailu", "/", "--preset", "mailu")
        starting.result(120)
    for service in SERVICES:
        wait_until(lambda service=service: one_host.running(service), 40, what=service)
        assert one_host.running(f"{service}-sidecar")
    assert (one_host.folder / "data/main.db").read_text() == "accounts"
    assert one_host.keys() == {"moved.org.dkim.key": "moved"}

    one_host.write_key("example.org", "key")
    one_host.sh("admin", "echo 42 > /data/instance")
    script = "mkdir -p /data/gpg/u@example.org && echo ring > /data/gpg/u@example.org/pubring.kbx"
    one_host.engine("exec", "-u0", one_host.container("webmail"), "sh", "-c", script)
    wanted = {
        "data/instance": "42",
        "dkim/example.org.dkim.key": "key",
        "webmail/gpg/u@example.org/pubring.kbx": "ring",
    }
    for path, content in wanted.items():
        wait_until(lambda path=path, content=content: one_host.stored(path) == content, 20, what=path)
    assert not (one_host.folder / "webmail/gpg/u@example.org").exists()
    one_host.moving("export", "/", "/mailu", "--preset", "mailu")
    assert (one_host.folder / "dkim/example.org.dkim.key").read_text() == "key\n"
    assert (one_host.folder / "webmail/gpg/u@example.org/pubring.kbx").read_text() == "ring\n"
    assert (one_host.folder / "data/main.db").read_text() == "accounts"
    assert one_host.sh("fetchmail", "ls /run/configstore").split() == ["configstore-client", "control.sock"]


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
    follow(three, keys)

    # A single delete is a delete.
    h3.sh("admin", "rm /dkim/first.dkim.key")
    del keys["first.dkim.key"]
    follow(three, keys)
    assert h1.configstore("conflicts") == ""
    wait_until(lambda: store.running("etcd"), 40)
