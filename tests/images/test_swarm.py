"""docs/deploy/swarm on a real swarm of one node: a service waits for its mirror; a task's end loses nothing."""

import json
import shutil
import subprocess

import pytest
import yaml

from tests.images.conftest import PROJECT
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("engine")

MEMBERS = ("etcd-1", "etcd-2", "etcd-3")
SERVICES = (*MEMBERS, "admin", "admin-sidecar", "smtp", "smtp-sidecar")


@pytest.fixture
def stack(engine, image, tmp_path):
    """Return a function from a service to its running container; a part of the stack is up, all on one node."""
    for folder in ("deploy", "letsencrypt", "fetchmail", "starts"):
        shutil.copytree(PROJECT / "docs" / folder, tmp_path / folder)
    here = tmp_path / "deploy/swarm"
    subprocess.run(
        ["../compose/make-certs", "tls", *MEMBERS], cwd=here, check=True, capture_output=True, timeout=30
    )
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
        engine("stack", "deploy", "--resolve-image=never", "-c", str(here / "part.yml"), "mailu", env=variables)

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


@pytest.mark.timeout(240)
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
