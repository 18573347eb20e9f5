"""docs/upgrading.md with compose on a real engine: a host of 0.1.0, set up by its guide, to today and back.

The files and the image of 0.1.0 are made of what tests/upgrade/data keeps.
"""

import re
import shutil
import tarfile
import zipfile

import pytest

from tests.harness.guides import blocks, section
from tests.harness.waiting import wait_until
from tests.images.conftest import PROJECT
from tests.images.test_compose import MAILU, SERVICES, GuidedHost
from tests.upgrade.versions import DATA, WHEEL

pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.guides, pytest.mark.timeout(1800)]

PAGE = PROJECT / "docs/upgrading.md"
GIVE = "docker compose run --rm -T --no-deps -v $PWD/configstore-tls:/tls configstore"


class UpgradedHost(GuidedHost):
    """A host whose checkout and image change."""

    def has(self, files, image: str) -> None:
        """Have the checkout hold other files, and the image be another one, as `git` and a build do."""
        shutil.rmtree(self.clone, ignore_errors=True)
        shutil.copytree(files, self.clone, symlinks=True)
        self.engine("tag", image, "configstore")

    def begins(self) -> None:
        """Follow the guide of 0.1.0."""
        compose = self.clone / "docs/deploy/compose"
        text = (compose / "env.example").read_text().replace("/opt/configstore", str(self.clone))
        files = next(line for line in text.splitlines() if "fetchmail.yml" in line)
        kept = [line for line in text.splitlines() if "COMPOSE_FILE" not in line]
        lines = [*kept, files.lstrip("# "), "FETCHMAIL_GID=1000"]
        (self.folder / ".env").write_text("\n".join(lines).replace("=/mailu", f"={self.folder}") + "\n")
        guide = (compose / "README.md").read_text()
        for line in re.findall(r"^ {7}(\S.*)", section_of(guide, "Set up"), re.MULTILINE):
            if not line.startswith(("cat ", "docker run", "docker compose build")) and "status" not in line:
                self.type(line, timeout=300)
        self.all_run()

    def is_well(self) -> None:
        """Wait until status has nothing to say."""
        line = "docker compose run --rm -T --no-deps configstore status"
        wait_until(lambda: self.try_line(line).returncode == 0, 120, what=lambda: self.try_line(line).stdout)

    def sends(self, name: str) -> None:
        """Write a key where admin writes them, and wait until the store has it."""
        self.write_key(name, name)
        wait_until(lambda: self.stored(f"dkim/{name}.dkim.key") == name, 30, what=name)


def section_of(text: str, heading: str) -> str:
    """Return the text below a heading of the second level."""
    return re.search(rf"^## {heading}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture(scope="module")
def old(engine, pip_secrets, tmp_path_factory):
    """Return a folder with what 0.1.0 had of files, and make its image, `configstore:0.1`."""
    folder = tmp_path_factory.mktemp("0.1.0")
    with tarfile.open(DATA / "deploy-0.1.0.tar.xz") as files:
        files.extractall(folder, filter="data")
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(folder)
    engine("build", "-q", "--network=host", *pip_secrets, "-t", "configstore:0.1", str(folder), timeout=600)
    return folder


@pytest.fixture
def host(engine, image, old, clone, tmp_path):
    """Return a host that runs 0.1.0."""
    engine("tag", image, "configstore:today")
    found = UpgradedHost(engine, tmp_path, tmp_path / "checkout")
    for path, content in MAILU.items():
        (found.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (found.folder / path).write_text(f"{content}\n")
    try:
        found.compose("up", "-d")
        found.has(old, "configstore:0.1")
        found.begins()
        yield found
    finally:
        found.down()
        engine("tag", "configstore:today", image)


def test_a_host_of_0_1_0_is_upgraded_by_the_page_and_goes_back(host, clone, old):
    host.sends("of-0.1.org")
    host.has(clone, "configstore:today")
    host.write_key("meanwhile.org", "meanwhile.org")
    upgrade, webmail = blocks(section(PAGE, "Compose"))
    for line in upgrade.splitlines():
        if line.startswith("for "):
            host.type(webmail)
        if not line.startswith(("git ", "docker compose build")) and not line.endswith("status"):
            host.type(line.replace("antispam;", "antispam fetchmail webmail;"), timeout=300)
    host.all_run()
    host.is_well()
    host.sends("of-today.org")
    for words in re.findall(
        r"`configstore (access .*) --out DIR`", section(PAGE, "From one certificate to one for each service")
    ):
        done = host.try_line(
            f"{GIVE} {words} --out /tls --yes" if "apply" in words else f"{GIVE} {words} --out /tls"
        )
        assert done.returncode == (1 if "verify" in words else 0), done.stderr  # access control is off at first
    assert host.try_line(f"{GIVE} access verify --preset mailu --out /tls").returncode == 0
    host.sends("with-rights.org")

    user, files = blocks(section(PAGE, "Going back"))
    for line in user.splitlines():
        host.type(line)
    host.has(old, "configstore:0.1")
    host.type(files.splitlines()[-1], timeout=300)
    host.all_run()
    host.sends("of-0.1-again.org")
    names = {"moved", "of-0.1", "meanwhile", "of-today", "with-rights", "of-0.1-again"}
    assert host.keys().keys() == {f"{name}.org.dkim.key" for name in names}
    assert all(host.running(f"{service}-sidecar") for service in SERVICES)
