"""docs/deploy/kubernetes/README.md, typed from a fresh clone to a Mailu that has moved in, and back.

The cluster is stood in for (cluster.py): etcd, helm, kustomize, init containers and sidecars are real, the pods of
Mailu are folders.
"""

import json
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.harness.guides import BACKUP, Shell, blocks, chooses_what_lies_here, section, step
from tests.harness.programs import missing
from tests.harness.waiting import wait_until
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.conftest import DEPLOY, TOOLS

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.timeout(600)]

GUIDE = DEPLOY / "README.md"
PODS = {
    "mailu-admin": {"dkim/a.org.dkim.key": "a", "dkim/gone.org.dkim.key": "gone", "data/instance": "42",
                    "data/main.db": "accounts"},
    "mailu-dovecot": {"overrides/dovecot.conf": "dovecot"},
    "mailu-postfix": {"overrides/postfix.cf": "postfix"},
    "mailu-rspamd": {"overrides/options.inc": "rspamd"},
    "mailu-fetchmail": {"data/fetchids": "ids"},
    "mailu-webmail": {"data/roundcube.db": "book"},
    "mailu-front": {"certs/cert.pem": "certificate", "certs/key.pem": "key"},
}  # fmt: skip
"""What lies in the pods of the chart before."""

PATCHED = ("mailu-admin", "mailu-dovecot", "mailu-postfix", "mailu-rspamd", "mailu-fetchmail")


@pytest.fixture
def cluster():
    """Return a cluster in which the chart's pods run as they come."""
    for program in ("kubectl", "helm-3"):
        if not (TOOLS / program).exists():
            missing(program, "tests/get-kubernetes .venv/kubernetes")
    if os.geteuid() != 0:
        missing("root, for names of the test's own,", "run the tests as root")
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))  # a socket's path is short
    own = Cluster(folder, f"127.{random.randint(1, 254)}.{random.randint(1, 254)}")
    for pod, files in PODS.items():
        for path, content in files.items():
            file = own.mounted(pod, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{content}\n")
    yield own
    own.stop()
    shutil.rmtree(folder)


@pytest.fixture
def shell(cluster, clone, tmp_path):
    """Return a shell in a fresh clone, with a home of its own and the cluster's kubectl and helm."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONFIGSTORE_", "ETCDCTL_"))}
    path = f"{cluster.programs}:{os.environ['PATH']}"

    def here(line):
        if "--etcd-name" in line:
            line += " --etcd-name 127.0.0.1"  # from there members call each other here, and they look at it
        return line.replace("/backup", f"{tmp_path}/backup")

    environment = {**kept, "HOME": str(home), "PATH": path, "PYTHONPATH": str(GUIDE.parents[3])}
    return Shell(clone, environment, here, cluster.inside)


def files(folder):
    return {path.name: path.read_text().strip() for path in folder.iterdir() if path.is_file()}


def typed(number):
    return blocks(step(GUIDE, "From zero", number))


def loses_etcd_and_restores_it(shell, dkim):
    """Follow the page on backups: a backup, a change, all members lost, until all is ready with that change."""
    shell.type("cd ~/mailu-private", *blocks(section(BACKUP, "Make one: Kubernetes")))
    (dkim / "after.org.dkim.key").write_text("after\n")
    get = "configstore get dkim/after.org.dkim.key"
    wait_until(lambda: shell.attempt([get]).stdout == "after\n", 20, what="a key after the backup")

    shell.type("cd ~/mailu-on-kubernetes", *blocks(section(BACKUP, "A lost etcd: Kubernetes")))
    wait_until(lambda: shell.attempt(["configstore ls"]).returncode == 0, 60, what="the restored members")
    assert shell.attempt([get]).returncode == 1

    chooses_what_lies_here(shell, get)


@pytest.mark.guides
def test_mailu_moves_in_by_the_guide_and_out_again(cluster, shell, tmp_path):
    home = tmp_path / "home"
    shell.type(*typed(1))
    shell.type(*typed(2))
    shell.type(*typed(3))
    assert ("Job", "configstore-bootstrap") not in cluster.applied(), "roots come after the files"
    shell.type(*typed(4))

    copy, moves = typed(5)
    said = shell.attempt(copy.splitlines()).stderr
    not_there = {"overrides/roundcube", "overrides/nginx"}
    assert {line.split()[0] for line in said.splitlines() if "is not taken" in line} == not_there
    shell.type(copy)
    moves = moves.splitlines()
    forward = next(number for number, line in enumerate(moves) if "port-forward" in line)
    imports = [number for number, line in enumerate(moves) if line.startswith("configstore import")]
    (roots,) = [number for number, line in enumerate(moves) if line.startswith("configstore bootstrap")]
    shell.type(*moves[:forward])
    hurried = shell.attempt([moves[roots]])
    assert (hurried.returncode, "configstore import mailu / --preset mailu" in hurried.stderr) == (5, True)
    shell.type(*moves[: imports[0]], *moves[imports[0] :])

    values = home / "mailu-on-kubernetes/values.yaml"
    values.write_text("overrides: true\n")
    shell.type(typed(6)[0])
    for pod in PATCHED:
        cluster.start_pod(pod)
    for pod in ("mailu-webmail", "mailu-front"):
        assert "initContainers" not in cluster.applied()["Deployment", pod]["spec"]["template"]["spec"]
    shell.type(*typed(7))
    assert not (home / "mailu-private/mailu").exists()

    for pod, path in (("mailu-admin", "dkim"), ("mailu-dovecot", "overrides"), ("mailu-postfix", "overrides"),
                      ("mailu-rspamd", "overrides"), ("mailu-fetchmail", "data")):  # fmt: skip
        before = {name.rpartition("/")[2]: content for name, content in PODS[pod].items() if name.startswith(path)}
        assert files(cluster.mounted(pod, path)) == before, pod
    assert files(cluster.mounted("mailu-admin", "data")) == {"instance": "42", "main.db": "accounts"}

    ours = "configstore"
    mappings = {"dkim", "instance", "overrides-dovecot", "overrides-postfix", "overrides-rspamd", "fetchmail"}
    wait_until(lambda: _replicas(shell, ours) >= mappings, 60, what="a replica of each mapping")
    wait_until(lambda: _is_well(shell, ours), 120, what="a status without complaint")
    look, file = blocks(section(GUIDE, "See that it works"))
    shell.type(look, "kill %1")
    put, cat, remove = file.splitlines()
    shell.type(put)
    wait_until(lambda: shell.attempt([cat]).stdout == "seen\n", 20, what="the file in the pod")
    shell.type(remove)

    dkim = cluster.mounted("mailu-admin", "dkim")
    loses_etcd_and_restores_it(shell, dkim)
    (dkim / "new.org.dkim.key").write_text("new\n")
    (dkim / "gone.org.dkim.key").unlink()
    wait_until(
        lambda: _stored(shell, ours) == {"a.org.dkim.key", "new.org.dkim.key", "after.org.dkim.key"},
        20,
        what="admin's changes",
    )

    out, give = blocks(section(GUIDE, "And back"))
    shell.type(out)
    assert not [one for one in cluster.applied().values() if "initContainers" in json.dumps(one)]
    of_the_chart = dkim.with_name("dkim-of-the-chart")
    cluster.stop_pods()
    for pod, path in (("mailu-admin", "dkim"), ("mailu-fetchmail", "data")):
        cluster.mounted(pod, path).rename(cluster.mounted(pod, f"{path}-of-memory"))
        of_the_chart = cluster.mounted(pod, f"{path}-of-the-chart")
        of_the_chart.rename(cluster.mounted(pod, path))
    shell.type(*(line for line in give.splitlines() if "webmail" not in line))
    assert files(dkim) == {
        "a.org.dkim.key": "a",
        "new.org.dkim.key": "new",
        "after.org.dkim.key": "after",
        "gone.org.dkim.key": "gone",
    }
    assert files(cluster.mounted("mailu-fetchmail", "data")) == {"fetchids": "ids"}


def _replicas(shell, ours):
    return {one["mapping"] for one in json.loads(shell.type(f"{ours} replicas --json"))}


def _is_well(shell, ours):
    """Tell whether status has nothing to complain of; a replica that was killed is forgotten after a minute."""
    done = shell.attempt([f"{ours} status"])
    print(done.stdout)  # shown when it never is
    return done.returncode == 0


def _stored(shell, ours):
    return set(shell.type(f"{ours} ls dkim").split())
