"""What the certificates are handed over as: each format, read by who takes it."""

import base64
import datetime as dt
import os
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from configstore.access.certificates import ensure
from configstore.access.formats import Format, etcd_flags, write
from configstore.errors import RefusedError, UsageError

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
SERVICES = {"front": "mailu-front", "admin": "mailu-admin"}

# Stands in for `docker`: a folder has the secrets, as a swarm has them, which never changes one.
DOCKER = r"""#!/bin/sh
cd "$SWARM"
case "$1 $2" in
"secret ls") ls ;;
"secret create") [ ! -e "$3" ] || exit 1; cp "$OLDPWD/$4" "$3" ;;
*) exit 2 ;;
esac
"""


@pytest.fixture
def tls(tmp_path):
    ensure(str(tmp_path / "tls"), SERVICES, now=NOW)
    return tmp_path / "tls"


@pytest.fixture
def create(tmp_path, tls):
    """Run what was written for Swarm; return the secrets that there are then."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin/docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    swarm = tmp_path / "swarm"
    swarm.mkdir()
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SWARM": str(swarm)}

    def run():
        subprocess.run(["sh", "tls/swarm/secrets.sh"], check=True, cwd=tmp_path, env=environment, timeout=60)
        return {path.name: path.read_bytes() for path in swarm.iterdir()}

    return run


def test_files_need_nothing_more(tls):
    assert write(str(tls), SERVICES, Format.FILES) == []


def test_etcd_is_told_of_both_authorities_and_to_ask_for_certificates(tls):
    assert etcd_flags("/tls/") == [
        "--cert-file=/tls/server/server.pem",
        "--key-file=/tls/server/server.key",
        "--trusted-ca-file=/tls/server/ca.pem",
        "--peer-cert-file=/tls/server/peer.pem",
        "--peer-key-file=/tls/server/peer.key",
        "--peer-trusted-ca-file=/tls/server/peer-ca.pem",
        "--client-cert-auth",
        "--peer-client-cert-auth",
    ]
    for flag in etcd_flags(str(tls))[:6]:
        assert os.path.exists(flag.partition("=")[2])


def stack(tls):
    return {
        name: each["name"]
        for name, each in yaml.safe_load((tls / "swarm/secrets.yml").read_text())["secrets"].items()
    }


def test_a_stack_finds_its_secrets_by_the_names_of_the_files(tls, create):
    paths = write(str(tls), SERVICES, Format.SWARM)
    assert [os.path.relpath(path, tls) for path in paths] == ["swarm/secrets.sh", "swarm/secrets.yml"]
    made = create()
    named = stack(tls)
    assert set(named.values()) == set(made)
    assert {name: made[named[name]] for name in named} == {
        "etcd-ca.pem": (tls / "ca.pem").read_bytes(),
        "etcd-peer-ca.pem": (tls / "peer-ca.pem").read_bytes(),
        **{f"etcd-{file}": (tls / "server" / file).read_bytes()
           for file in ("server.pem", "server.key", "peer.pem", "peer.key")},
        **{file: (tls / folder / file).read_bytes()
           for folder, user in SERVICES.items() for file in (f"{user}.pem", f"{user}.key")},
    }  # fmt: skip
    assert not any("operator" in name for name in made), "a person's is no service's"


def test_the_same_files_make_the_same_secrets_and_a_new_certificate_new_ones(tls, create):
    write(str(tls), SERVICES, Format.SWARM)
    before, named = create(), stack(tls)
    write(str(tls), SERVICES, Format.SWARM)
    assert create() == before
    (tls / "front/mailu-front.pem").unlink()
    (tls / "front/mailu-front.key").unlink()
    ensure(str(tls), SERVICES, now=NOW)
    write(str(tls), SERVICES, Format.SWARM)
    after = create()
    assert {name for name in named if stack(tls)[name] != named[name]} == {"mailu-front.pem", "mailu-front.key"}
    assert before.items() < after.items(), "those before are still there for who uses them"


def test_a_secret_of_swarm_has_a_name_that_docker_takes(tls):
    long = {"front": "m" * 60}
    ensure(str(tls), long, now=NOW)
    with pytest.raises(UsageError, match="longer than the 64 letters"):
        write(str(tls), long, Format.SWARM)


def secret(path):
    found = yaml.safe_load(Path(path).read_text())
    assert (found["apiVersion"], found["kind"]) == ("v1", "Secret")
    return found["metadata"]["name"], {key: base64.b64decode(value) for key, value in found["data"].items()}


def test_each_pod_has_a_secret_with_what_is_its_own(tls):
    paths = write(str(tls), SERVICES, Format.KUBERNETES)
    assert dict(map(secret, paths)) == {
        "etcd-server": {
            "ca.crt": (tls / "ca.pem").read_bytes(),
            "tls.crt": (tls / "server/server.pem").read_bytes(),
            "tls.key": (tls / "server/server.key").read_bytes(),
            "peer-ca.crt": (tls / "peer-ca.pem").read_bytes(),
            "peer.crt": (tls / "server/peer.pem").read_bytes(),
            "peer.key": (tls / "server/peer.key").read_bytes(),
        },
        **{
            f"configstore-etcd-{folder}": {
                "ca.crt": (tls / "ca.pem").read_bytes(),
                "tls.crt": (tls / folder / f"{user}.pem").read_bytes(),
                "tls.key": (tls / folder / f"{user}.key").read_bytes(),
            }
            for folder, user in SERVICES.items()
        },
    }


@pytest.mark.parametrize("which", [Format.SWARM, Format.KUBERNETES])
def test_what_is_written_is_of_its_owner_alone_from_its_first_instant(tls, which):
    umask = os.umask(0)
    try:
        paths = write(str(tls), SERVICES, which)
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in paths} == {0o600}
    assert stat.S_IMODE((tls / which).stat().st_mode) == 0o700


def test_a_keyring_is_handed_over_with_the_certificate_beside_it(tls, create):
    (tls / "front/keyring").write_bytes(b"keys of front")
    (tls / "operator/keyring").write_bytes(b"the master")
    found = dict(map(secret, write(str(tls), SERVICES, Format.KUBERNETES)))
    assert found["configstore-etcd-front"]["keyring"] == b"keys of front"
    assert "keyring" not in found["configstore-etcd-admin"]
    write(str(tls), SERVICES, Format.SWARM)
    made = create()
    assert made[stack(tls)["front.keyring"]] == b"keys of front"
    assert b"the master" not in (*made.values(), *(each for one in found.values() for each in one.values()))
    assert yaml.safe_load((tls / "swarm/secrets.yml").read_text())["services"] == {
        "front-sidecar": {
            "environment": {"CONFIGSTORE_SEAL_KEYRING": "/run/secrets/front.keyring"},
            "secrets": [{"source": "front.keyring", "target": "front.keyring", "mode": 0o400}],
        }
    }


@pytest.mark.parametrize("which", [Format.SWARM, Format.KUBERNETES])
def test_what_is_not_there_is_said(tls, which):
    (tls / "front/mailu-front.key").unlink()
    with pytest.raises(RefusedError, match=r"mailu-front\.key: is not there"):
        write(str(tls), SERVICES, which)
