"""The sidecar of a node in Kubernetes: each service finds there what its own pod's sidecar would bring."""

import subprocess

import pytest
import yaml

from configstore.presets import combined
from sidecar.config.settings import load_config

pytestmark = pytest.mark.xdist_group("kubernetes")

SERVED = {"front": "front", "dovecot": "imap", "postfix": "smtp", "rspamd": "antispam", "fetchmail": "fetchmail"}
"""The chart's components whose files the node's sidecar mirrors, and their services."""

PATHS = {"/run/configstore-host/mirror": "/mirror", "/run/configstore-host/control": "/run/configstore"}


@pytest.fixture(scope="module")
def built(build):
    """Return all resources, with the node's sidecar among them."""
    return build(more=("webmail", "front", "letsencrypt", "host-sidecar"))


@pytest.fixture(scope="module")
def sidecar(built):
    """Return the node's sidecar: its pod's spec, and its only container."""
    (found,) = (
        one for one in built if one["kind"] == "DaemonSet" and one["metadata"]["name"] == "configstore-host"
    )
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return found["spec"]["template"]["spec"], container


@pytest.fixture(scope="module")
def pods(built):
    """Return the pod specs of the chart's workloads by component."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["spec"]
        for one in built
        if one["kind"] in ("Deployment", "DaemonSet") and one["metadata"]["name"] != "configstore-host"
    }


def settings(container):
    environ = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    return load_config(file=None, environ=environ, options={})


def on_node(spec, container):
    """Return where each directory of a container lies on the node."""
    paths = {one["name"]: one["hostPath"]["path"] for one in spec["volumes"] if "hostPath" in one}
    return {
        f"{paths[one['name']]}/{one.get('subPath', '')}".rstrip("/"): one["mountPath"]
        for one in container["volumeMounts"]
        if one["name"] in paths
    }


def test_it_is_valid_on_several_versions(built, tmp_path):
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(built))
    for version in ("1.29", "1.34"):
        command = [".venv/bin/kubernetes-validate", "--strict", "-k", version, str(tmp_path / "all.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("component", SERVED)
def test_a_service_has_its_directories_from_the_nodes_sidecar_and_no_others(sidecar, pods, component):
    spec, config = pods[component], settings(sidecar[1])
    mirrored = {
        f"/run/configstore-host{mapping.path}": mapping
        for mapping in config.mappings
        if mapping.service == SERVED[component] and mapping.path.startswith("/mirror/")
    }
    (application,) = (one for one in spec["containers"] if one["name"] == component)
    found = on_node(spec, application)
    inside = {each.mapping.name: each.mapping.path for each in combined.mappings_of(combined.names_in("mailu"))}
    nested = {path for path, mapping in mirrored.items() if mapping.within}
    assert {path: inside[mirrored[path].name] for path in mirrored.keys() - nested}.items() <= found.items()
    assert all(path.split("/")[4] == SERVED[component] for path in found)


@pytest.mark.parametrize("component", SERVED)
def test_a_service_waits_at_its_own_socket_and_holds_no_certificate(pods, component):
    spec = pods[component]
    assert [one["name"] for one in spec["initContainers"]] == ["configstore-wait"]
    (waiting,) = spec["initContainers"]
    control = f"/run/configstore-host/control/{SERVED[component]}"
    assert on_node(spec, waiting) == {control: "/run/configstore"}
    assert waiting["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not any("secret" in one and "etcd" in one["secret"]["secretName"] for one in spec["volumes"])


def test_what_lies_in_a_volume_claim_keeps_the_pods_own_sidecar(pods):
    for component in ("admin", "webmail"):
        assert "configstore" in {one["name"] for one in pods[component]["initContainers"]}


def test_the_sidecar_has_four_capabilities_and_a_memory_that_no_application_mounts(sidecar, pods):
    spec, container = sidecar
    assert container["securityContext"]["capabilities"]["add"] == ["CHOWN", "DAC_OVERRIDE", "FOWNER", "LEASE"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not spec["automountServiceAccountToken"]
    assert on_node(spec, container) == PATHS | {"/var/lib/configstore-host": "/var/lib/configstore"}
    for pod in pods.values():
        assert "/var/lib/configstore-host" not in {one.get("hostPath", {}).get("path") for one in pod["volumes"]}
    assert "httpGet" in container["livenessProbe"]
    assert "readinessProbe" not in container
