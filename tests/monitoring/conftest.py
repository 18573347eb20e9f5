"""Fixtures: what docs/monitoring holds, a live sidecar's metrics, and promtool."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from configstore.embedded import EmbeddedEtcd
from tests.harness import zygote
from tests.harness.certificates import Authority
from tests.harness.programs import missing
from tests.harness.replica import ENVIRONMENT, Replica
from tests.harness.waiting import wait_until

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/monitoring"
SERIES = re.compile(r"\bconfigstore_[a-z_]+")


@pytest.fixture(scope="session")
def rules():
    """Return the alerts, each as a dict."""
    (group,) = yaml.safe_load((PAGES / "rules.yml").read_text())["groups"]
    return group["rules"]


@pytest.fixture(scope="session")
def promtool():
    """Return a function that runs promtool; it is left out where that is missing, but in CI it fails."""
    ours = ROOT / ".venv/prometheus/promtool"
    found = str(ours) if ours.exists() else shutil.which("promtool")
    if not found:
        missing("promtool", "tests/get-prometheus .venv/prometheus (Debian's package prometheus)")

    def run(*arguments, content=""):
        done = subprocess.run(
            [found, *map(str, arguments)], input=content, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def live(tmp_path_factory):
    """Return all that a sidecar's `/metrics` tells: over TLS, with a lease, after a set was sent."""
    folder = tmp_path_factory.mktemp("live")
    authority = Authority(folder / "certificates")
    server, client = authority.issue("server"), authority.issue("client")
    tls = (f"--cert-file={server.cert}", f"--key-file={server.key}")
    mutual = ("--client-cert-auth", f"--trusted-ca-file={authority.cacert}")
    with EmbeddedEtcd(tls_arguments=(*tls, *mutual)) as etcd:
        variables = {
            "CONFIGSTORE_ENDPOINTS": etcd.endpoint,
            "CONFIGSTORE_CACERT": str(authority.cacert),
            "CONFIGSTORE_CERT": str(client.cert),
            "CONFIGSTORE_KEY": str(client.key),
        }
        (folder / "guarded").mkdir()
        guarded = f'[[mapping]]\nname = "guarded"\npath = "{folder}/guarded"\nlease = "certbot"\n'
        with Replica("one", folder, [etcd.endpoint], "/configstore", more=guarded) as replica:
            replica.environment = ENVIRONMENT | variables
            for subtree in ("data", "guarded"):
                zygote.run("configstore", ["mkdir", subtree], replica.environment).check_returncode()
            replica.start().ready()
            (replica.folder / "file").write_text("content")
            name = "set_latency_seconds_count"
            wait_until(lambda: replica.metric(name), what=replica.words())
            wait_until(lambda: "configstore_conflicts{" in replica.ask("/metrics")[1])
            yield replica.ask("/metrics")[1]
