"""A session's engine, and the project's image built on it."""

import subprocess
from pathlib import Path

import pytest

from tests.harness.programs import missing
from tests.images.engine import Engine, lacking

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def engine():
    """Return a running Docker engine; skips where none can be had, but fails in CI."""
    if absent := lacking():
        missing(f"for a Docker engine, {absent}", "as root on Debian: tests/get-engine .venv/engine")
    with Engine() as running:
        running.start()
        yield running


@pytest.fixture(scope="session")
def pip_secrets(tmp_path_factory):
    """Return options that hand the machine's pip configuration and authorities to a build, each with a mark."""
    folder = tmp_path_factory.mktemp("pip")
    lines = ["# mark-of-the-pip-configuration", "[global]", "cert = /run/secrets/ca.pem"]
    kept = {"global.index-url": "index-url"}
    listed = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        if key in kept:
            lines.append(f"{kept[key]} = {value.strip(chr(39))}")
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    authorities = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    (folder / "ca.pem").write_text(f"# mark-of-the-authorities\n{authorities}")
    return ("--secret", f"id=pip,src={folder}/pip.conf", "--secret", f"id=ca,src={folder}/ca.pem")


@pytest.fixture(scope="session")
def image(engine, pip_secrets):
    """Return the name of the project's image, built with a pip configuration as secrets."""
    engine("build", "-q", "--network=host", *pip_secrets, "-t", "configstore", str(PROJECT), timeout=300)
    return "configstore"
