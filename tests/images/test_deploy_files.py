"""What can be said of the files of docs/deploy without an engine: schemas, linters, making certificates."""

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

from tests.images.conftest import PROJECT
from tests.images.engine import FETCHED

COMPOSE, SWARM = PROJECT / "docs/deploy/compose", PROJECT / "docs/deploy/swarm"


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


@pytest.mark.parametrize("folder", [COMPOSE, SWARM], ids=["compose", "swarm"])
def test_the_yaml_is_clean(folder):
    assert_passes("yamllint", "--strict", "-c", str(PROJECT / ".yamllint"), str(folder))


def test_the_files_have_the_shape_of_the_compose_specification():
    files = [str(file) for folder in (COMPOSE, SWARM) for file in folder.glob("*.yml")]
    assert_passes("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files)


def services(folder: Path) -> tuple[dict[str, dict], dict[str, dict | None]]:
    """Return all services and all volumes of a folder's files; a service has what it takes over, too."""
    everything = [yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.yml"))]
    found = {name: each for one in everything for name, each in one["services"].items() if len(each) > 1}
    for each in found.values():
        if "extends" in each:
            common = found[each["extends"]["service"]]
            each.update({**common, **each, "volumes": [*common["volumes"], *each.get("volumes", ())]})
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
    ours = [found[name] for name in found if name.endswith("sidecar") or name in ("configstore", "etcd", "member")]
    assert len(ours) == 9 + 1 + 2
    for each in ours:
        assert each["read_only"] is True
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]


def test_the_shell_scripts_are_executable_and_parse():
    for script in (COMPOSE / name for name in ("make-certs", "front-start", "on-change-start")):
        assert os.access(script, os.X_OK)
        assert_passes("sh", "-n", str(script))


def test_the_stack_is_one_that_swarm_takes(tmp_path):
    client = FETCHED / "tools/usr/bin/docker"
    if not client.exists():
        words = "no docker client that knows `stack config`: tests/get-engine .venv/engine"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(words)
    shutil.copy(SWARM / "stack.yml", tmp_path)
    (tmp_path / "mailu.env").write_text("TLS_FLAVOR=letsencrypt\n")
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CONFIGSTORE_IMAGE": "x/configstore:1",
                 "FETCHMAIL_GID": "1000"}  # fmt: skip
    done = run(str(client), "stack", "config", "-c", "stack.yml", cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stderr
    assert "Ignoring" not in done.stderr
    assert "node.labels.mailu.storage == smtp" in done.stdout


def test_keys_are_their_owners_alone_and_a_second_run_keeps_the_authority(tmp_path):
    tls = tmp_path / "tls"
    assert_passes(str(COMPOSE / "make-certs"), str(tls), "etcd-1.example.org", "192.0.2.7", "fd00::7")
    assert {str(file.relative_to(tls)) for file in tls.rglob("*") if file.is_file()} == {
        "ca.pem", "ca.key", "peer-ca.pem", "peer-ca.key",
        "server/peer-ca.pem", "server/peer.pem", "server/peer.key",
        *(f"{who}/{name}" for who in ("server", "client", "operator")
          for name in ("ca.pem", f"{who}.pem", f"{who}.key")),
    }  # fmt: skip
    for key in tls.rglob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    server, client = tls / "server/server.pem", tls / "client/client.pem"
    for member in (server, tls / "server/peer.pem"):
        text = run("openssl", "x509", "-in", str(member), "-noout", "-ext", "subjectAltName").stdout
        assert "DNS:etcd-1.example.org" in text
        assert "IP Address:192.0.2.7" in text
        assert "IP Address:FD00:0:0:0:0:0:0:7" in text
        assert "localhost" not in text
    authority, before = (tls / "ca.pem").read_bytes(), client.read_bytes()
    assert_passes(str(COMPOSE / "make-certs"), str(tls), "etcd-1.example.org")
    assert (tls / "ca.pem").read_bytes() == authority
    assert client.read_bytes() != before
    for folder in (server.parent, client.parent):
        assert (folder / "ca.pem").read_bytes() == authority
    assert_passes("openssl", "verify", "-CAfile", str(tls / "ca.pem"), str(client), str(server))


def test_what_was_made_is_listed_with_its_end(tmp_path):
    said = run(str(COMPOSE / "make-certs"), str(tmp_path / "tls"), "etcd-1", "192.0.2.7").stdout
    rows = dict(re.findall(r"^(\S+\.pem) +until (.*)$", said, re.MULTILINE))
    made = {str(file.relative_to(tmp_path / "tls")) for file in (tmp_path / "tls").rglob("*.pem")}
    assert rows.keys() == {name for name in made if not re.search(r"/(peer-)?ca\.pem$", name)}
    for name, row in rows.items():
        until = run("openssl", "x509", "-in", str(tmp_path / "tls" / name), "-noout", "-enddate").stdout
        assert row.startswith(until.strip().removeprefix("notAfter="))
    for name in ("server/server.pem", "server/peer.pem"):
        assert "DNS:etcd-1,IP:192.0.2.7" in rows[name]
    assert rows["operator/operator.pem"].endswith(" root")


def test_every_sidecar_says_in_status_which_host_and_service_it_is():
    found, _ = services(COMPOSE)
    for name in (name for name in found if name.endswith("-sidecar")):
        assert found[name]["hostname"] == f"${{CONFIGSTORE_HOST:-mailu}}-{name.removesuffix('-sidecar')}"
    found, _ = services(SWARM)
    for name in (name for name in found if name.endswith("-sidecar")):
        assert found[name]["hostname"] == f"{{{{.Node.Hostname}}}}-{name.removesuffix('-sidecar')}"


@pytest.mark.parametrize(
    ("left", "key"),
    [
        ("ca.pem", "ca.key"),
        ("client/ca.pem", "ca.key"),
        ("peer-ca.pem", "peer-ca.key"),
        ("server/peer-ca.pem", "peer-ca.key"),
    ],
)
def test_no_second_authority_is_made_while_the_key_of_the_first_is_elsewhere(tmp_path, left, key):
    tls, safe = tmp_path / "tls", tmp_path / "ca.key"
    assert_passes(str(COMPOSE / "make-certs"), str(tls))
    shutil.move(tls / "ca.key", safe)
    for file in [file for file in tls.rglob("*") if file.is_file() and file != tls / left]:
        file.unlink()
    before = (tls / left).read_bytes()
    refused = run(str(COMPOSE / "make-certs"), str(tls))
    assert refused.returncode == 1
    assert f"put {key} back, or use another folder" in refused.stderr
    assert [file for file in tls.rglob("*") if file.is_file()] == [tls / left]
    assert (tls / left).read_bytes() == before


def test_the_authority_goes_on_when_its_key_is_back(tmp_path):
    tls = tmp_path / "tls"
    assert_passes(str(COMPOSE / "make-certs"), str(tls))
    authority = (tls / "ca.pem").read_bytes()
    shutil.move(tls / "ca.key", tmp_path / "ca.key")
    assert run(str(COMPOSE / "make-certs"), str(tls)).returncode == 1
    shutil.move(tmp_path / "ca.key", tls / "ca.key")
    assert_passes(str(COMPOSE / "make-certs"), str(tls))
    assert (tls / "ca.pem").read_bytes() == authority
