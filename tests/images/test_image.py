"""The image: small, unprivileged, reproducible, and quick to stop."""

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.harness.waiting import wait_until
from tests.images.conftest import PROJECT
from tests.images.engine import BASE, ETCD

pytestmark = pytest.mark.xdist_group("engine")

# 13 of it are for certificates and 6 for the page, which no sidecar loads; 4 for sealing.
OWN_LAYERS_LIMIT = 61 * 2**20
LOCKED_DOWN = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=shelf")


def in_image(engine, image, script, *options):
    """Run a shell script as root in a container of the image and return its output."""
    return engine("run", "--rm", "--network=none", "--user=0", *options, "--entrypoint=sh", image, "-c", script)


@pytest.fixture(scope="module")
def shelf(engine, image):
    """Return the options of a container that reaches an etcd of its own and has a tmpfs volume at /dkim."""
    engine("network", "create", "shelf")
    engine("run", "-d", "--name=shelf-etcd", "--network=shelf", "--network-alias=etcd", ETCD, "etcd",
           "--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://etcd:2379")  # fmt: skip
    engine(
        "volume", "create", "--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=size=4m,uid=1000,gid=1000", "shelf"
    )
    options = (*LOCKED_DOWN, "-eCONFIGSTORE_ENDPOINTS=http://etcd:2379", "-eCONFIGSTORE_PRESET=mailu/antispam",
               "-eCONFIGSTORE_MAPPING_OVERRIDES_RSPAMD_DIRECTION=both", "-v=shelf:/overrides")  # fmt: skip
    yield options
    engine("rm", "-f", "-v", "shelf-etcd")
    engine("volume", "rm", "shelf")
    engine("network", "rm", "shelf")


def test_it_adds_little_to_its_base_in_one_layer(engine, image):
    ours, base = engine.inspect(image), engine.inspect(BASE)
    assert len(ours["RootFS"]["Layers"]) == len(base["RootFS"]["Layers"]) + 1
    assert ours["Size"] - base["Size"] < OWN_LAYERS_LIMIT


def test_it_is_nobody_special_and_says_what_it_is(engine, image):
    config = engine.inspect(image)["Config"]
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["configstore-sidecar"]
    assert config["Cmd"] == ["run"]
    assert config["Healthcheck"]["Test"] == ["CMD", "configstore-sidecar", "health"]
    version = re.search(r'^version = "(.*)"', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert config["Labels"]["org.opencontainers.image.version"] == version
    assert config["Labels"]["org.opencontainers.image.title"] == "configstore"


def test_it_installs_exactly_what_the_lock_pins(engine, image):
    listing = in_image(
        engine, image, "python3 -c 'import importlib.metadata as m\n"
        "for d in m.distributions(): print(d.name.lower(), d.version)'",
    )  # fmt: skip
    pinned = dict(re.findall(r"^(\S+)==(\S+) ", (PROJECT / "requirements.lock").read_text(), re.MULTILINE))
    installed = dict(line.split() for line in listing.replace("_", "-").splitlines())
    installed.pop("mailu-configstore")
    assert installed.items() <= pinned.items()
    assert set(pinned) - set(installed) <= {"setuptools"}


def test_it_brings_no_installer_and_no_test_of_others(engine, image):
    wanted = " -o ".join(f"-name '{name}'" for name in ("pip*", "setuptools", "setuptools-*", "test*"))
    found = in_image(engine, image, f"find /opt/configstore -type d '(' {wanted} ')'")
    assert found == ""
    assert engine.run("run", "--rm", "--network=none", "--entrypoint=python3", image, "-m", "pip").returncode == 1


def test_its_byte_code_serves_as_it_is(engine, image):
    """Nothing is compiled at a start: no module is loaded from its source."""
    loaded = "python3 -v -c 'import sidecar.daemon.commands, configstore.cli' 2>&1 | grep"
    script = f"{loaded} -c 'code object from'; {loaded} 'code object from' | grep -v '\\.pyc' || true"
    compiled = in_image(engine, image, script).splitlines()
    assert int(compiled[0]) > 100
    assert compiled[1:] == []


def test_the_pip_configuration_is_in_no_layer(engine, image, tmp_path):
    archive = tmp_path / "image.tar"
    engine("save", "-o", str(archive), image)
    for mark in ("mark-of-the-pip-configuration", "mark-of-the-authorities"):
        assert subprocess.run(["grep", "-q", mark, str(archive)], check=False).returncode == 1
    assert subprocess.run(["grep", "-q", "configstore-sidecar", str(archive)], check=False).returncode == 0
    assert "mark-of-the" not in engine("history", "--no-trunc", image)


def test_two_builds_are_equal_to_the_bit(engine, image, pip_secrets):
    engine("build", "-q", "--no-cache", "--network=host", *pip_secrets, "-t", "again", str(PROJECT), timeout=300)
    assert engine.inspect("again")["RootFS"]["Layers"] == engine.inspect(image)["RootFS"]["Layers"]


def test_it_builds_without_a_pip_configuration(engine, tmp_path):
    """The base then needs to trust by itself whoever signs for the index: here the machine's authorities."""
    authorities = "/etc/ssl/certs/ca-certificates.crt"
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nCOPY ca.pem {authorities}\nENV PIP_CERT={authorities}\n")
    (tmp_path / "ca.pem").write_bytes(Path(authorities).read_bytes())
    engine("build", "-q", "-t", "trusting", str(tmp_path))
    options = ["--no-cache", "--network=host", "--build-arg=PYTHON=trusting"]
    engine("build", "-q", *options, "-t", "plain", str(PROJECT), timeout=300)
    assert "configstore-sidecar" in engine("run", "--rm", "--network=none", "plain", "--version")


def test_init_fails_closed_then_the_command_makes_the_subtree_and_init_fills(engine, image, shelf):
    early = engine.run("run", "--rm", *shelf, image, "init", "--timeout", "2s")
    assert early.returncode != 0
    assert "overrides" in early.stderr
    engine("run", "--rm", *shelf, "--entrypoint=configstore", image, "bootstrap", "--preset", "mailu/antispam")
    engine("run", "--rm", *shelf, image, "init", "--timeout", "20s")
    assert "nothing" in engine("run", "--rm", *shelf, image, "plan").lower()


def test_it_runs_locked_down_becomes_healthy_mirrors_and_ends_at_once(engine, image, shelf):
    engine("run", "--rm", *shelf, "--entrypoint=configstore", image, "bootstrap", "--preset", "mailu/antispam")
    engine("run", "-d", "--name=mirror", *shelf, "--tmpfs=/run/configstore:uid=1000,mode=0700",
           "-v=shelf-state:/var/lib/configstore", "--health-interval=1s", image)  # fmt: skip
    try:
        wait_until(lambda: engine.inspect("mirror")["State"]["Health"]["Status"] == "healthy", 40)
        engine("exec", "mirror", "sh", "-c", "echo 'text' > /overrides/a.conf")
        get = ("run", "--rm", *shelf, "--entrypoint=configstore", image, "get", "overrides/rspamd/a.conf")
        wait_until(lambda: engine.run(*get).stdout == "text\n", 20)
        assert engine("exec", "mirror", "ls", "/var/lib/configstore").startswith("overrides-rspamd-")
        begun = time.monotonic()
        engine("stop", "--time=20", "mirror")
        assert time.monotonic() - begun < 5
        assert engine.inspect("mirror")["State"]["ExitCode"] == 0
    finally:
        engine("rm", "-f", "-v", "mirror")
        engine("volume", "rm", "shelf-state")
