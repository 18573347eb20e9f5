"""What can be said of the files of docs/deploy without an engine: schemas, linters, whose certificate is where."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from configstore.access import formats
from tests.harness.certificates import SERVICES, deployed
from tests.harness.programs import missing
from tests.images.conftest import PROJECT
from tests.images.engine import FETCHED

OURS = ("configstore", "etcd", "etcdctl", "member", "operator")
COMPOSE, SWARM, HOST = (PROJECT / "docs/deploy" / name for name in ("compose", "swarm", "host"))


def run(*command: str, **options) -> subprocess.CompletedProcess[str]:
    beside = str(Path(sys.executable).parent / command[0])
    command = (beside if os.path.exists(beside) else command[0], *command[1:])
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def assert_passes(*command: str, **options) -> None:
    done = run(*command, **options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_the_dockerfile_has_nothing_to_complain_of():
    assert_passes("hadolint", str(PROJECT / "Dockerfile"))


def test_the_lock_pins_every_dependency_with_hashes():
    lock = (PROJECT / "requirements.lock").read_text()
    pinned = set(re.findall(r"^(\S+)==\S+ (?:; .+ )?\\\n    --hash=sha256:", lock, re.MULTILINE))
    assert len(pinned) == len(re.findall(r"^\S", lock, re.MULTILINE))
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["certificates"]
    assert {re.match(r"[\w-]+", requirement)[0] for requirement in wanted} <= pinned


@pytest.mark.parametrize("folder", [COMPOSE, SWARM, HOST], ids=["compose", "swarm", "host"])
def test_the_yaml_is_clean(folder):
    assert_passes("yamllint", "--strict", "-c", str(PROJECT / ".yamllint"), str(folder))


def test_the_files_have_the_shape_of_the_compose_specification():
    files = [str(file) for folder in (COMPOSE, SWARM, HOST) for file in folder.glob("*.yml")]
    assert_passes("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files)


def services(folder: Path) -> tuple[dict[str, dict], dict[str, dict | None]]:
    """Return all services and all volumes of a folder's files; a service has what it takes over, too."""
    everything = [yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.yml"))]
    found = {name: each for one in everything for name, each in one["services"].items() if len(each) > 1}
    for each in found.values():
        if "extends" in each:
            common = found[each["extends"]["service"]]
            environment = {**common["environment"], **each.get("environment", {})}
            volumes = [*common["volumes"], *each.get("volumes", ())]
            each.update({**common, **each, "environment": environment, "volumes": volumes})
    return found, {name: each for one in everything for name, each in one.get("volumes", {}).items()}


def mounts(service: dict) -> dict[str, object]:
    """Return what is mounted in a service, by its path there."""
    words = [one.rsplit(":", 2) if isinstance(one, str) else one for one in service.get("volumes", ())]
    return {one["target"]: one for one in words if isinstance(one, dict)} | {
        one[1]: one[0] for one in words if isinstance(one, list)
    }


@pytest.mark.parametrize("folder", [COMPOSE, SWARM], ids=["compose", "swarm"])
def test_what_a_sidecar_remembers_outlives_it_and_no_application_mounts_it(folder):
    found, volumes = services(folder)
    sidecars = {name for name in found if name.endswith("-sidecar")}
    assert len(sidecars) == {COMPOSE: 8, SWARM: 7}[folder]
    for name in sidecars:
        inside = mounts(found[name])
        assert inside["/var/lib/configstore"] == name.replace("-sidecar", "-state")
        assert inside["/tmp"]["type"] == "tmpfs"
        assert not volumes[inside["/var/lib/configstore"]], "a tmpfs ends with its last container"
    for name in found.keys() - sidecars:
        assert not [one for one in mounts(found[name]).values() if str(one).endswith("-state")]


def test_what_is_ours_has_no_capability_of_its_own_and_gains_no_privileges():
    found, _ = services(COMPOSE)
    ours = [found[name] for name in found if name.endswith("sidecar") or name in OURS]
    assert len(ours) == 9 + len(OURS)
    for each in ours:
        assert each["read_only"] is True
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]


def test_the_shell_scripts_are_executable_and_parse():
    for script in (COMPOSE / name for name in ("front-start", "on-change-start", "../place-keyrings")):
        assert os.access(script, os.X_OK)
        assert_passes("sh", "-n", str(script))


def test_the_stack_is_one_that_swarm_takes(tmp_path):
    client = FETCHED / "tools/usr/bin/docker"
    if not client.exists():
        missing("a docker client that knows `stack config`", "tests/get-engine .venv/engine")
    shutil.copy(SWARM / "stack.yml", tmp_path)
    tls = deployed(tmp_path / "tls", "etcd-1")
    (tls / "front/keyring").write_text("keys of front")
    formats.write(str(tls), SERVICES, formats.Format.SWARM)
    (tmp_path / "mailu.env").write_text("TLS_FLAVOR=letsencrypt\n")
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CONFIGSTORE_IMAGE": "x/configstore:1",
                 "FETCHMAIL_GID": "1000"}  # fmt: skip
    done = run(
        str(client),
        "stack",
        "config",
        "-c",
        "stack.yml",
        "-c",
        "tls/swarm/secrets.yml",
        cwd=tmp_path,
        env=variables,
    )
    assert done.returncode == 0, done.stderr
    assert "Ignoring" not in done.stderr
    assert "node.labels.mailu.storage == smtp" in done.stdout
    front = yaml.safe_load(done.stdout)["services"]["front-sidecar"]
    assert {one["source"] for one in front["secrets"]} == {
        "etcd-ca.pem", "mailu-front.pem", "mailu-front.key", "front.keyring",
    }  # fmt: skip
    assert front["environment"]["CONFIGSTORE_SEAL_KEYRING"] == "/run/secrets/front.keyring"


def of_service(sidecar: str) -> str:
    """Return the service whose certificate a sidecar shows, by the sidecar's name."""
    return {"certs": "certs-source"}.get(sidecar.removesuffix("-sidecar"), sidecar.removesuffix("-sidecar"))


def test_each_sidecar_of_compose_shows_the_certificate_of_its_service_and_no_application_has_any():
    found, _ = services(COMPOSE)
    folders = {}
    for name, each in found.items():
        mounted = mounts(each).get("/run/configstore-tls")
        if isinstance(mounted, dict):
            assert mounted["read_only"] is True
            assert mounted["bind"] == {"create_host_path": False}
            folders[name] = mounted["source"].rpartition("/")[2]
            files = {each["environment"][f"CONFIGSTORE_{one}"] for one in ("CERT", "KEY")}
            shown = "operator" if name == "configstore" else SERVICES[folders[name]]
            assert files == {f"/run/configstore-tls/{shown}.{end}" for end in ("pem", "key")}
    assert folders.pop("configstore") == "operator", "a person's"
    sidecars = {name for name in found if name.endswith("-sidecar")}
    assert folders == {name: of_service(name) for name in sidecars}
    assert set(folders.values()) == set(SERVICES)


def test_a_keyring_is_named_where_it_was_put_and_not_at_all_where_there_is_none():
    found, _ = services(COMPOSE)
    for name in (name for name in found if name.endswith("-sidecar") or name == "configstore"):
        assert found[name]["environment"]["CONFIGSTORE_SEAL_KEYRING"] is None, "as in .env, or not set"
    assert "\n# CONFIGSTORE_SEAL_KEYRING=/run/configstore-tls/keyring\n" in (COMPOSE / "env.example").read_text()
    assert "/tls/keyring" in (SWARM / "README.md").read_text()


def test_each_sidecar_of_the_stack_shows_the_certificate_of_its_service_and_no_application_has_any():
    found, _ = services(SWARM)
    for name, each in found.items():
        if name.startswith("etcd"):
            assert all(secret.startswith("etcd-") for secret in each["secrets"])
            continue
        if not name.endswith("-sidecar"):
            assert "secrets" not in each
            continue
        user = SERVICES[of_service(name)]
        assert each["secrets"] == ["etcd-ca.pem", f"{user}.pem", f"{user}.key"]
        assert each["environment"]["CONFIGSTORE_CERT"] == f"/run/secrets/{user}.pem"
        assert each["environment"]["CONFIGSTORE_KEY"] == f"/run/secrets/{user}.key"


def test_keyrings_come_beside_the_certificates_of_their_services(tmp_path):
    tls, keys = deployed(tmp_path / "tls", "etcd"), tmp_path / "keys"
    place = str(COMPOSE.parent / "place-keyrings")
    assert run(place, str(tmp_path), str(tls)).returncode == 1, "a folder without keyrings"
    keys.mkdir()
    for name in ("master", "front", "unknown"):
        (keys / name).write_text(f"keys of {name}")
    said = run(place, str(keys), str(tls))
    assert said.returncode == 0, said.stderr
    assert "unknown is not there, so nobody gets" in said.stderr
    found = {str(file.relative_to(tls)): file.read_text() for file in tls.rglob("*keyring*")}
    assert found == {"front/keyring": "keys of front", "operator/keyring": "keys of master"}
    (tmp_path / "victim").write_text("of root")
    (tls / "front/.keyring.new").symlink_to(tmp_path / "victim")
    (tls / "front/keyring").unlink()
    (tls / "front/keyring").symlink_to(tmp_path / "victim")
    assert_passes(place, str(keys), str(tls))
    assert (tmp_path / "victim").read_text() == "of root", "a link that a service laid there is not followed"
    (tls / "front/.keyring.new").unlink()
    (keys / "front").write_text("new keys of front")
    before = (tls / "front/keyring").stat().st_ino
    assert_passes(place, str(keys), str(tls))
    after = (tls / "front/keyring").stat()
    assert (tls / "front/keyring").read_text() == "new keys of front"
    assert after.st_ino != before, "replaced whole, so that nobody reads half of it"
    assert stat.S_IMODE(after.st_mode) == 0o600


def test_every_sidecar_says_in_status_which_host_and_service_it_is():
    found, _ = services(COMPOSE)
    for name in (name for name in found if name.endswith("-sidecar")):
        assert found[name]["hostname"] == f"${{CONFIGSTORE_HOST:-mailu}}-{name.removesuffix('-sidecar')}"
    found, _ = services(SWARM)
    for name in (name for name in found if name.endswith("-sidecar")):
        assert found[name]["hostname"] == f"{{{{.Node.Hostname}}}}-{name.removesuffix('-sidecar')}"
