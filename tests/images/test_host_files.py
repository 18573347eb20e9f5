"""The files of docs/deploy/host, without an engine: a service has its own directories and socket, and no more."""

import datetime as dt
import os
import re
import shutil

import pytest
import yaml

from configstore.access import formats
from configstore.access.certificates import ensure
from configstore.presets import combined
from sidecar.config.settings import load_config
from tests.harness.programs import missing
from tests.images.conftest import PROJECT
from tests.images.engine import FETCHED
from tests.images.test_deploy_files import COMPOSE, HOST, SWARM, mounts, run, services

EVERY = "mailu"
CONTROL = "/run/configstore"


def compose():
    """Return services and volumes of all files for compose, laid over each other."""
    files = [yaml.safe_load((HOST / f"{name}.yml").read_text()) for name in ("compose", "webmail", "fetchmail")]
    found, volumes = {}, {}
    for one in files:
        for name, each in one["services"].items():
            known = found.setdefault(name, {"volumes": [], "environment": {}})
            known["volumes"] += [plain(one) for one in each.get("volumes", ())]
            known["environment"] |= each.get("environment", {})
            known |= {key: value for key, value in each.items() if key not in known}
        volumes |= one["volumes"]
    return found, volumes


def stack():
    """Return services and volumes of the stack."""
    one = yaml.safe_load((HOST / "stack.yml").read_text())
    return one["services"], one["volumes"]


def plain(value):
    """Return a value with the defaults of its variables, and without what is said where one is missing."""
    if not isinstance(value, str):
        return value
    value = value.replace("${FETCHMAIL_GID:?the number of the group fetchmail in its container}", "101")
    value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    return re.sub(r"\$\{(\w+):\?[^}]*\}", r"${\1}", value)


def config(sidecar):
    """Return the settings of a sidecar, as it reads them."""
    environ = {
        key: plain(value)
        for key, value in sidecar["environment"].items()
        if key in {"CONFIGSTORE_PRESET", "CONFIGSTORE_LOCAL", "CONFIGSTORE_CONTROL_GROUPS"}
    }
    return load_config(file=None, environ=environ, options={})


@pytest.mark.parametrize("files", [compose, stack], ids=["compose", "swarm"])
def test_each_service_mounts_what_the_sidecar_mirrors_for_it_and_nothing_else(files):
    found, volumes = files()
    sidecar = found["host-sidecar"]
    settings, inside = config(sidecar), mounts(sidecar)
    there = {each.mapping.name: each.mapping.path for each in combined.mappings_of(combined.names_in(EVERY))}
    assert {mapping.name for mapping in settings.mappings} == there.keys()
    for mapping in settings.mappings:
        application = mounts(found[mapping.service])
        if not mapping.path.startswith("/mirror/"):
            assert mapping.path.startswith("/tmp/"), "the sidecar's own, in memory"
        elif mapping.path in inside:
            # admin's and webmail's /data is mounted by Mailu's own file already.
            expected = application.get(there[mapping.name]) or f"/mailu/{_HOSTS[mapping.service]}"
            assert inside[mapping.path] == expected
        else:
            assert mapping.within, f"{mapping.name}: neither mounted nor within what is"
    for service in settings.services:
        assert inside[f"{CONTROL}/{service}"] == mounts(found[service])[CONTROL] == f"{service}-control"
    assert inside["/var/lib/configstore"] == "host-state"
    assert not volumes["host-state"], "a tmpfs ends with its last container"
    assert settings.group_of("fetchmail") == 101
    assert settings.group_of("front") is None


_HOSTS = {"admin": "data", "webmail": "webmail"}


@pytest.mark.parametrize("files", [compose, stack], ids=["compose", "swarm"])
def test_no_service_mounts_another_ones_folder_socket_or_certificate(files):
    found, _ = files()
    sidecar = mounts(found["host-sidecar"])
    of = {source: path.split("/")[2] for path, source in sidecar.items() if path.startswith("/mirror/")}
    of |= {f"{service}-control": service for service in config(found["host-sidecar"]).services}
    for name, each in found.items():
        if name in {"host-sidecar", "configstore"}:
            continue
        for source in mounts(each).values():
            assert of.get(source, name) == name
            assert source != "host-state"
        assert "secrets" not in each or name.startswith("etcd")


def test_a_service_of_compose_waits_at_its_gate_for_its_own_files_and_not_for_the_whole_sidecar():
    found, _ = compose()
    for service in config(found["host-sidecar"]).services:
        assert found[service]["depends_on"] == {"host-sidecar": {"condition": "service_started"}}
        assert found[service]["command"][:2] == ["/usr/local/lib/configstore/gate", "--"]


def test_but_for_the_sidecars_it_is_what_the_guides_have():
    found, _ = compose()
    guides, _ = services(COMPOSE)
    there, volumes = stack()
    swarm, before = services(SWARM)
    for name in config(found["host-sidecar"]).services:
        assert found[name]["command"] == guides[name]["command"]
        assert found[name]["volumes"] == [plain(one) for one in guides[name]["volumes"]]
    one, other = (yaml.safe_load((folder / "etcd.yml").read_text()) for folder in (HOST, COMPOSE))
    assert one["services"].keys() - {"host-sidecar"} == {"etcd", "etcdctl", "configstore"}
    assert all(one["services"][name] == other["services"][name] for name in ("etcd", "etcdctl", "configstore"))
    assert one["services"]["host-sidecar"] == other["services"]["admin-sidecar"]
    assert one["volumes"] == other["volumes"]
    command = yaml.safe_load((HOST / "compose.yml").read_text())["services"]["configstore"]
    assert command == yaml.safe_load((COMPOSE / "configstore.yml").read_text())["services"]["configstore"]
    assert {name: each for name, each in there.items() if name != "host-sidecar"} == {
        name: each for name, each in swarm.items() if not name.endswith("-sidecar")
    }
    assert volumes.keys() - {"host-state"} == {name for name in before if not name.endswith("-state")}
    tail = (HOST / "stack.yml").read_text().partition("\nconfigs:")[2]
    assert tail == (SWARM / "stack.yml").read_text().partition("\nconfigs:")[2]


def test_swarm_ends_the_sidecar_only_when_it_does_not_work_at_all():
    there, _ = stack()
    assert there["host-sidecar"]["healthcheck"]["test"] == ["CMD", "configstore-sidecar", "health", "--live"]
    assert there["host-sidecar"]["cap_drop"] == ["ALL"]
    assert there["host-sidecar"]["read_only"]


def tool(path):
    """Return a program of the engine's, which must be there in CI."""
    if not (FETCHED / path).exists():
        missing(path, "tests/get-engine .venv/engine")
    return str(FETCHED / path)


def test_compose_takes_the_files_laid_over_mailus(tmp_path):
    shutil.copy(PROJECT / "tests/images/mailu.yml", tmp_path / "docker-compose.yml")
    names = [str(HOST / f"{name}.yml") for name in ("compose", "etcd", "webmail", "fetchmail")]
    files = [word for file in ("docker-compose.yml", *names) for word in ("-f", file)]
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CONFIGSTORE": str(PROJECT),
                 "MAILU_ROOT": str(tmp_path), "FETCHMAIL_GID": "101"}  # fmt: skip
    program = tool("tools/usr/libexec/docker/cli-plugins/docker-compose")
    done = run(program, *files, "config", cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]
    assert {name for name in found if name.endswith("-sidecar")} == {"host-sidecar"}
    groups = found["host-sidecar"]["environment"]["CONFIGSTORE_CONTROL_GROUPS"]
    assert groups == "fetchmail:101"


def test_swarm_takes_the_stack_with_the_secrets_of_one_sidecar(tmp_path):
    shutil.copy(HOST / "stack.yml", tmp_path)
    tls = tmp_path / "tls"
    ensure(str(tls), {"host": "mailu-host"}, server_names=["etcd-1"], now=dt.datetime.now(dt.UTC))
    (tls / "host/keyring").write_text("keys of all")
    formats.write(str(tls), {"host": "mailu-host"}, formats.Format.SWARM)
    (tmp_path / "mailu.env").write_text("TLS_FLAVOR=letsencrypt\n")
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CONFIGSTORE_IMAGE": "x/configstore:1",
                 "FETCHMAIL_GID": "1000"}  # fmt: skip
    command = ("stack", "config", "-c", "stack.yml", "-c", "tls/swarm/secrets.yml")
    done = run(tool("tools/usr/bin/docker"), *command, cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stderr
    assert "Ignoring" not in done.stderr
    sidecar = yaml.safe_load(done.stdout)["services"]["host-sidecar"]
    assert {one["source"] for one in sidecar["secrets"]} == {
        "etcd-ca.pem", "mailu-host.pem", "mailu-host.key", "host.keyring",
    }  # fmt: skip
    assert sidecar["environment"]["CONFIGSTORE_SEAL_KEYRING"] == "/run/secrets/host.keyring"
