"""A service's certificate where it is worth nothing: at the peer port of every cluster."""

import datetime as dt
import json
import os
import ssl
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml

from configstore.access.certificates import ensure
from configstore.embedded import LOOPBACK, free_ports, wheel_binary
from tests.harness.servers import debian_binary
from tests.harness.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "docs/deploy"

SERVICES = {"front": "mailu-front"}

REFUSED = r"(?i)certificate|reset|closed|EOF|broken pipe"
"""How the end of a connection reads that was ended for what was shown."""


def of_compose() -> dict[str, str]:
    """Return the settings of a member as several hosts with compose have it."""
    files = {"etcd-member.yml": "member", "etcd-cluster.yml": "etcd"}
    found = {}
    for file, service in files.items():
        found |= yaml.safe_load((DEPLOY / "compose" / file).read_text())["services"][service]["environment"]
    return {name: value.replace("/run/etcd-tls/", "TLS/") for name, value in found.items()}


def of_swarm() -> dict[str, str]:
    """Return the settings of a member of the stack."""
    stack = yaml.safe_load((DEPLOY / "swarm/stack.yml").read_text())
    member = stack["services"]["etcd-1"]
    found = member["environment"]
    for secret in member["secrets"]:
        file = secret.removeprefix("etcd-")
        found = {
            name: f"TLS/{file}" if value == f"/run/secrets/{secret}" else value for name, value in found.items()
        }
    return found


def of_kubernetes() -> dict[str, str]:
    """Return the settings of a member of the StatefulSet; its Secret has other names for the same files."""
    workload = yaml.safe_load((DEPLOY / "kubernetes/etcd/statefulset.yaml").read_text())
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    found = {each["name"]: each.get("value", "etcd-0") for each in container["env"]}
    for name, value in found.items():
        file = value.removeprefix("/etc/etcd/").replace(".crt", ".pem").replace("tls.", "server.")
        found[name] = f"TLS/{file}" if value.startswith("/etc/etcd/") else value
    return found


@pytest.fixture(params=[of_compose, of_swarm, of_kubernetes], ids=["compose", "swarm", "kubernetes"])
def member(request, tmp_path):
    """Start one real member with a shipped cluster's settings for TLS; return its ports and its certificates."""
    tls = tmp_path / "tls"
    ensure(str(tls), SERVICES, server_names=[LOOPBACK], now=dt.datetime.now(dt.UTC))
    client, peer = (f"https://{LOOPBACK}:{port}" for port in free_ports(2))
    shipped = {
        name: value.replace("TLS/", f"{tls}/server/")
        for name, value in request.param().items()
        if name.endswith(("_FILE", "_CERT_AUTH")) and name.startswith("ETCD_")
    }
    environment = {
        **shipped,
        "PATH": os.environ["PATH"],
        "ETCD_UNSUPPORTED_ARCH": os.environ.get("ETCD_UNSUPPORTED_ARCH", ""),
        "ETCD_NAME": "a",
        "ETCD_DATA_DIR": str(tmp_path / "data"),
        "ETCD_INITIAL_CLUSTER": f"a={peer}",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer,
        "ETCD_LISTEN_PEER_URLS": peer,
        "ETCD_ADVERTISE_CLIENT_URLS": client,
        "ETCD_LISTEN_CLIENT_URLS": client,
    }
    log = tmp_path / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [str(debian_binary() or wheel_binary())], env={k: v for k, v in environment.items() if v}, stderr=said
        )
    try:
        wait_until(lambda: b"ready to serve client requests" in log.read_bytes(), 30, what="a member that serves")
        yield client, peer, tls
    finally:
        process.kill()
        process.wait()


def ask(url: str, tls: Path, who: str | None, authority: str | None = None) -> object:
    """Return what a member answers at a URL to who shows a certificate; raises OSError when it does not talk.

    authority: whom the member is to be known by; None asks anybody, as a thief does.
    """
    context = ssl.create_default_context(cafile=authority and tls / "server" / f"{authority}.pem")
    if not authority:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if who:
        context.load_cert_chain(tls / f"{who}.pem", tls / f"{who}.key")
    with urllib.request.urlopen(url, context=context, timeout=10) as answer:
        return json.load(answer)


def test_a_services_certificate_is_worthless_at_the_peer_port(member):
    client, peer, tls = member
    for stolen in ("front/mailu-front", "operator/operator", "server/server", None):
        with pytest.raises(OSError, match=REFUSED):
            ask(f"{peer}/members", tls, stolen)
    (alone,) = ask(f"{peer}/members", tls, "server/peer", "peer-ca")
    assert alone["name"] == "a"
    assert ask(f"{client}/version", tls, "front/mailu-front", "ca"), "at the client port it is good"
    with pytest.raises(OSError, match=REFUSED):
        ask(f"{client}/version", tls, "server/peer")
