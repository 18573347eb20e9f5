"""docs/deploy/swarm on a real swarm of one node: a service waits for its mirror; a task's end loses nothing."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from configstore.access import formats
from tests.harness.certificates import SERVICES as CERTIFIED
from tests.harness.certificates import deployed, pair
from tests.harness.guides import BACKUP, Shell, blocks, chooses_what_lies_here, section
from tests.harness.waiting import wait_until
from tests.images.conftest import PROJECT

pytestmark = pytest.mark.xdist_group("engine")

MEMBERS = ("etcd-1", "etcd-2", "etcd-3")
SERVICES = (*MEMBERS, "admin", "admin-sidecar", "smtp", "smtp-sidecar")


@pytest.fixture
def stack(engine, image, tmp_path):
    """Return a function from a service to its running container; a part of the stack is up, all on one node."""
    for folder in ("deploy", "letsencrypt", "fetchmail", "starts"):
        shutil.copytree(PROJECT / "docs" / folder, tmp_path / folder)
    here = tmp_path / "deploy/swarm"
    formats.write(str(deployed(here / "tls", *MEMBERS)), CERTIFIED, formats.Format.SWARM)
    (here / "mailu.env").write_text("DB_FLAVOR=postgresql\n")
    whole = yaml.safe_load((here / "stack.yml").read_text())
    whole["services"] = {name: whole["services"][name] for name in SERVICES}
    for member in MEMBERS:
        whole["services"][member]["deploy"]["placement"] = {"constraints": ["node.labels.mailu.etcd == 1"]}
    (here / "part.yml").write_text(json.dumps(whole))
    engine("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1")
    try:
        labels = ("mailu.etcd=1", "mailu.app=true", "mailu.storage=smtp")
        node = engine("node", "ls", "-q")
        engine("node", "update", *(f"--label-add={label}" for label in labels), node)
        variables = {"CONFIGSTORE_IMAGE": image, "FETCHMAIL_GID": "1000"}
        subprocess.run(["sh", "tls/swarm/secrets.sh"], cwd=here, env=engine.environment, check=True, timeout=60)
        files = [word for file in ("part.yml", "tls/swarm/secrets.yml") for word in ("-c", str(here / file))]
        engine("stack", "deploy", "--resolve-image=never", *files, "mailu", env=variables)

        def container(service):
            return wait_until(
                lambda: engine("ps", "-q", "--filter", f"label=com.docker.swarm.service.name=mailu_{service}"),
                60,
                what=service,
            )

        yield container
        engine("stack", "rm", "mailu")
        wait_until(lambda: not engine("ps", "-aq", "--filter", "name=mailu_"), 60, what="an empty stack")
    finally:
        engine("swarm", "leave", "--force")


def test_a_service_waits_for_the_sidecar_of_its_node_and_its_next_task_finds_its_files(engine, stack):
    def in_sidecar(*command):
        return engine.run("exec", stack("admin-sidecar"), *command)

    def started(container):
        return engine.run("exec", container, "test", "-e", "/started").returncode == 0

    def says_why():
        return "no subtree" in in_sidecar("configstore-sidecar", "health").stdout

    wait_until(says_why, 60, what="a sidecar without its subtree")
    admin = stack("admin")
    assert not started(admin)
    assert "waiting for the mirror of dkim, instance" in engine.run("logs", admin).stderr
    bootstrap = ("configstore", "bootstrap", "--preset", "mailu")
    wait_until(lambda: in_sidecar(*bootstrap).returncode == 0, 60, what="bootstrap")
    wait_until(lambda: started(stack("admin")), 120, what="admin behind its gate, and its turn to start")
    admin = stack("admin")
    health = engine.inspect(admin)["Config"]["Healthcheck"]
    assert health["Test"] == ["CMD", "test", "-e", "/started"], "the image's own check is not kept"
    assert health["StartPeriod"] == 15 * 60 * 10**9
    engine("exec", "-u", "100:1000", admin, "sh", "-c", "umask 077; echo key > /dkim/example.org.dkim.key")
    get = ("configstore", "get", "dkim/example.org.dkim.key")
    wait_until(lambda: in_sidecar(*get).stdout == "key\n", 20, what="the key in the store")

    for service in ("admin-sidecar", "admin"):
        engine.kill_process(stack(service))
    wait_until(lambda: stack("admin") != admin and started(stack("admin")), 120)
    assert engine("exec", stack("admin"), "cat", "/dkim/example.org.dkim.key") == "key"


GUIDE = PROJECT / "docs/deploy/swarm/README.md"
REPLICATED = ("front", "admin", "antispam", "webmail", "fetchmail")
BESIDE = (*REPLICATED, "smtp", "imap")
CERTIFICATE, KEY = pair("mail.example.org")
MAILU = {
    "data/instance": "42",
    "data/fetchmail/fetchids": "ids",
    "certs/cert.pem": CERTIFICATE,
    "certs/key.pem": KEY,
    "dkim/moved.org.dkim.key": "moved",
    "overrides/nginx/proxy.conf": "nginx",
    "overrides/dovecot/dovecot.conf": "dovecot",
    "overrides/postfix/postfix.cf": "postfix",
    "overrides/rspamd/options.inc": "rspamd",
    "webmail/gpg/u@example.org/pubring.kbx": "ring",
}
FOUND = {
    "front": {"/certs/cert.pem", "/certs/key.pem", "/overrides/proxy.conf"},
    "admin": {"/data/instance", "/dkim/moved.org.dkim.key"},
    "imap": {"/overrides/dovecot.conf"},
    "smtp": {"/overrides/postfix.cf"},
    "antispam": {"/overrides/options.inc"},
    "fetchmail": {"/data/fetchids"},
    "webmail": {"/data/gpg/u@example.org/pubring.kbx"},
}
"""What each service must find at its first start."""


def typed(heading: str) -> list[str]:
    """Return the lines that the guide shows in a section, in their order."""
    return [line for block in blocks(section(GUIDE, heading)) for line in block.splitlines() if line]


class Node:
    """A shell on the only node of a swarm, in a fresh clone, in which the guide is typed."""

    def __init__(self, engine, image, clone, folder) -> None:
        self.engine, self.image, self.folder = engine, image, folder
        self.clone = folder / "clone"
        shutil.copytree(clone, self.clone, symlinks=True)
        self._fit_to_one_node(self.clone / "docs/deploy/swarm/stack.yml")
        self.shell = Shell(self.clone, engine.environment, self.here)

    def _fit_to_one_node(self, stack) -> None:
        """Take out what one node without a registry cannot have: three replicas, ports of the machine, redis."""
        whole = yaml.safe_load(stack.read_text())
        del whole["services"]["redis"], whole["services"]["front"]["ports"]
        for name, service in whole["services"].items():
            if name in MEMBERS:  # a node has one value of a label, the last
                service["deploy"]["placement"]["constraints"] = ["node.labels.mailu.etcd == 3"]
            elif service["deploy"].get("replicas"):
                service["deploy"]["replicas"] = 1
        stack.write_text(json.dumps(whole))

    def here(self, line: str) -> str:
        """Return a line with this test's names and folders."""
        line = re.sub(r"\bnode-[123]$", self.engine("node", "ls", "-q"), line)
        if line.startswith("docker node update"):  # the engine's own updates of its only node may come between
            line = f"until {line}; do sleep 1; done"
        line = line.replace("registry.example.org/configstore:0.2.0", self.image)
        line = line.replace("stack deploy", "stack deploy --resolve-image=never")
        line = line.replace("/mailu-back", f"{self.folder}/mailu-back").replace("/backup", f"{self.folder}/backup")
        return line.replace("-v /mailu:", f"-v {self.folder}/mailu:")

    def container(self, service: str) -> str:
        """Return the running container of a service; empty when there is none."""
        return self.engine("ps", "-q", "--filter", f"label=com.docker.swarm.service.name=mailu_{service}")

    def started(self, service: str) -> list[str]:
        """Return what a service found at its first start; nothing when it waits at its gate."""
        said = self.engine.run("exec", self.container(service), "head", "-n1", "/starts")
        return json.loads(said.stdout) if said.returncode == 0 and said.stdout else []

    def waits(self, service: str) -> bool:
        """Say whether a service stands at its gate."""
        container = self.container(service)
        return bool(container) and "gate: waiting for" in self.engine.run("logs", container).stderr

    def all_have(self, count: int, services) -> bool:
        """Say whether services have so many running tasks."""
        rows = self.engine("service", "ls", "--format", "{{.Name}} {{.Replicas}}").splitlines()
        running = dict(row.split(" ")[:2] for row in rows)
        return all(running.get(f"mailu_{name}", "").startswith(f"{count}/") for name in services)


@pytest.fixture
def node(engine, image, clone, tmp_path):
    """Return a shell on a new swarm, with a host's /mailu; the stack and the swarm are gone afterwards."""
    for path, content in MAILU.items():
        (tmp_path / "mailu" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mailu" / path).write_text(f"{content}\n")
    engine("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1")
    try:
        yield Node(engine, image, clone, tmp_path)
        engine("stack", "rm", "mailu")
        wait_until(lambda: not engine("ps", "-aq", "--filter", "name=mailu_"), 90, what="an empty stack")
        wait_until(lambda: _volumes_are_gone(engine), 60, what="no volumes")
    finally:
        engine("swarm", "leave", "--force")


def _volumes_are_gone(engine):
    volumes = engine("volume", "ls", "-q", "--filter", "name=mailu_").split()
    return not volumes or engine.run("volume", "rm", *volumes).returncode == 0


def where(lines: list[str], begins: str) -> int:
    """Return the place of the first line that begins so."""
    return next(number for number, line in enumerate(lines) if line.startswith(begins))


def loses_etcd_and_restores_it(node):
    """Follow the page on backups: a backup, a change, all members lost, until all is ready with that change."""
    shell = node.shell
    shell.type(*blocks(section(BACKUP, "Make one: Swarm")))
    node.engine(
        "exec", "-u", "100:1000", node.container("admin"), "sh", "-c", "echo after >/dkim/after.org.dkim.key"
    )
    get = "configstore get dkim/after.org.dkim.key"
    wait_until(lambda: shell.attempt([get]).stdout == "after\n", 20, what="a key after the backup")

    stop, restore, start = blocks(section(BACKUP, "A lost etcd: Swarm"))
    shell.type(stop)
    for member in "123":
        shell.type(restore.replace("n=1\n", f"n={member}\n"))
    shell.type(start)
    wait_until(lambda: shell.attempt(["configstore ls"]).returncode == 0, 60, what="the restored members")
    assert shell.attempt([get]).returncode == 1

    chooses_what_lies_here(shell, get)


@pytest.mark.guides
@pytest.mark.timeout(900)
def test_a_host_moves_into_a_swarm_by_the_guide_and_out_again(node):
    shell, lines = node.shell, typed("Set up")
    etcd, tls = where(lines, "docker service ls"), where(lines, "cd docs/deploy/swarm")
    settings = where(lines, "export FETCHMAIL_GID")
    function, imports = where(lines, "configstore() {"), where(lines, "configstore import")
    labels = where(lines, "docker node update --label-add mailu.app")

    shell.type("export CONFIGSTORE_IMAGE=configstore")  # it is built already, and there is no registry
    shell.type(*lines[tls:settings])
    (node.clone / "docs/deploy/swarm/mailu.env").write_text("DB_FLAVOR=postgresql\n")
    shell.type(*lines[settings : etcd + 1])
    wait_until(lambda: node.all_have(1, MEMBERS), 90, what="etcd")

    # A hurried operator: roots before files are refused, and services that begin too early wait.
    shell.type(*lines[function:imports])
    hurried = shell.attempt(["configstore bootstrap --preset mailu"])
    assert hurried.returncode == 5, hurried.stderr
    assert "`configstore import /mailu / --preset mailu`" in hurried.stderr
    shell.type(*lines[labels:])
    for name in BESIDE:
        wait_until(lambda name=name: node.waits(name), 90, what=f"{name} at its gate")
    assert not [name for name in BESIDE if node.started(name)]

    shell.type(*lines[imports:labels])
    for name, needed in FOUND.items():
        found = wait_until(lambda name=name: node.started(name), 120, what=name)
        assert needed <= set(found), name

    status = ["configstore status"]
    wait_until(lambda: shell.attempt(status).returncode == 0, 90, what="a status without complaint")
    see = typed("See that it works")
    shell.type(*see[:3])
    wait_until(lambda: shell.attempt([see[3]]).stdout == "seen\n", 20, what="the file in front")
    shell.type(*see[4:])
    replicas = json.loads(shell.type("configstore replicas --json"))
    assert {one["host"] for one in replicas} == {f"{os.uname().nodename}-{name}" for name in BESIDE}

    loses_etcd_and_restores_it(node)

    changes = "umask 077; echo key >/dkim/new.org.dkim.key; rm /dkim/moved.org.dkim.key"
    node.engine("exec", "-u", "100:1000", node.container("admin"), "sh", "-c", changes)
    back = typed("Going back")
    shell.type(back[0])
    wait_until(lambda: node.all_have(0, REPLICATED), 60, what="no services")
    kept = "configstore ls dkim"
    wait_until(
        lambda: shell.type(kept).split() == ["after.org.dkim.key", "new.org.dkim.key"],
        30,
        what="admin's last changes",
    )
    shell.type(*back[1 : where(back, "docker stack rm")])
    out = node.folder / "mailu-back"
    assert {path.name for path in (out / "dkim").iterdir()} == {"new.org.dkim.key", "after.org.dkim.key"}
    assert (out / "certs/key.pem").read_text() == f"{KEY}\n"
    assert (out / "webmail/gpg/u@example.org/pubring.kbx").read_text() == "ring\n"
