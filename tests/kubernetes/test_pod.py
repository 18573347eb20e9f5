"""A pod of the overlay, run by a real engine: init container, sidecar and application share memory; etcd is real.

podman knows no native sidecars, so it is the ordinary form. Its memory volumes are not shared, so the volume is a
tmpfs of the test's own, with the sticky folders that a kubelet makes of a subPath.
"""

import json
import os
import re
import signal
import subprocess
import urllib.request
from contextlib import suppress

import pytest

from configstore.embedded import LOOPBACK, free_ports
from tests.harness.waiting import wait_until
from tests.kubernetes.conftest import IMAGE

pytestmark = pytest.mark.xdist_group("kubernetes")

APPLICATION = """\
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
pathlib.Path("/data/seen").write_text(" ".join(sorted(os.listdir("/dkim"))))
while True:
    signal.pause()
"""
"""admin's stand-in: notes what lies there when it starts, as an unprivileged user, and waits."""

KEY = b"-----BEGIN PRIVATE KEY-----\nwritten by hand\n-----END PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def configstore(etcd):
    """Return a function that runs the command against etcd in a root of this module's own."""

    def run(*arguments, stdin=b""):
        command = [".venv/bin/configstore", "--endpoints", etcd.endpoint, "--root", "/pod", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=90, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr.decode()}"
        return done.stdout

    run("bootstrap", "--preset", "mailu")
    run("put", "dkim/example.org.dkim.key", "-", "--mode", "0644", stdin=KEY)
    return run


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """Return a folder that is a tmpfs."""
    folder = tmp_path_factory.mktemp("memory")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=1777", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def for_podman(resources, memory, settings):
    """Return the admin pod of an overlay as podman can run it, and its settings."""
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in resources}
    config = by_name["ConfigMap", "configstore"]
    config["data"] = settings
    template = by_name["Deployment", "mailu-admin"]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "admin"}}
    # Not Always: podman 4.3 would restart the init container too, for ever.
    spec = pod["spec"] = {**template["spec"], "hostNetwork": True, "restartPolicy": "OnFailure"}
    volumes = {}
    for container in spec["initContainers"] + spec["containers"]:
        for unknown in ("startupProbe", "livenessProbe", "ports"):
            container.pop(unknown, None)
        container["image"] = IMAGE
        for mount in container.get("volumeMounts", ()):
            name = mount["name"] + "-" + mount.pop("subPath", "whole")
            folder = memory / name
            folder.mkdir(exist_ok=True)
            folder.chmod(0o1777)
            volumes[name] = {"name": name, "hostPath": {"path": str(folder), "type": "Directory"}}
            mount["name"] = name
    spec["volumes"] = list(volumes.values())
    application = next(one for one in spec["containers"] if one["name"] == "admin")
    application["command"] = ["python3", "-c", APPLICATION]
    application["securityContext"] = {"runAsUser": 1000, "runAsGroup": 1000}
    return "\n---\n".join(json.dumps(one) for one in (config, pod))


@pytest.fixture(scope="module")
def pod(podman, build, memory, configstore, etcd, tmp_path_factory):
    """Start the pod, and return a function that runs Python in its application's container."""
    resources = build(form="ordinary")
    (port,) = free_ports(1)
    settings = {
        "CONFIGSTORE_ENDPOINTS": etcd.endpoint,
        "CONFIGSTORE_ROOT": "/pod",
        "CONFIGSTORE_HEALTH_LISTEN": f"{LOOPBACK}:{port}",
        "CONFIGSTORE_MAPPING_DKIM_DELETE_SETTLE": "50ms",
    }
    file = tmp_path_factory.mktemp("pod") / "pod.yaml"
    file.write_text(for_podman(resources, memory, settings))
    try:
        podman("kube", "play", str(file))
    except AssertionError:
        print(podman("pod", "logs", "admin", check=False))
        raise

    def python(code):
        return podman("exec", "admin-admin", "python3", "-c", code)

    python.ready = lambda: _status(f"http://{LOOPBACK}:{port}/readyz") == 200
    wait_until(python.ready, 30, what="the sidecar is ready")
    yield python
    podman("kube", "down", str(file), check=False)


def _status(url):
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status
    return None


def test_the_init_container_fills_the_mirror_before_the_application_starts(pod, memory):
    seen = wait_until((memory / "data-admin/seen").read_text, what="the application has started")
    assert "example.org.dkim.key" in seen.split()
    assert pod("print(open('/dkim/example.org.dkim.key').read(), end='')").encode() == KEY


def test_a_key_written_in_the_pod_reaches_the_store_and_a_change_comes_back(pod, configstore):
    pod("open('/dkim/example.net.dkim.key', 'w').write('one')")
    read = "print(open('/dkim/example.net.dkim.key').read(), end='')"
    names = wait_until(lambda: re.findall(rb"example.net\S*", configstore("ls", "dkim")))
    assert configstore("get", f"dkim/{names[0].decode()}") == b"one"

    configstore("put", "dkim/example.net.dkim.key", "-", stdin=b"two")
    wait_until(lambda: pod(read) == "two", what="the change is in the pod")
    owner = pod("import os; print(os.stat('/dkim/example.net.dkim.key').st_uid)")
    assert owner.strip() == "1000", "a file that another user owns cannot be written again by the application"


def test_the_application_replaces_a_file_by_rename_in_the_sticky_directory(pod, configstore):
    pod("import os; open('/dkim/new', 'w').write('three'); os.rename('/dkim/new', '/dkim/example.net.dkim.key')")
    wait_until(lambda: configstore("get", "dkim/example.net.dkim.key") == b"three")


def test_a_sidecar_that_is_killed_comes_back_with_every_file_intact(pod, podman, memory, configstore):
    before = podman.state("admin-configstore")
    os.kill(before["Pid"], signal.SIGKILL)
    wait_until(lambda: podman.state("admin-configstore")["Pid"] not in (0, before["Pid"]), 30)
    wait_until(pod.ready, 30, what="the restarted sidecar is ready")
    assert (memory / "configstore-dkim/example.org.dkim.key").read_bytes() == KEY
    assert podman.state("admin-admin")["Running"]

    configstore("put", "dkim/after.dkim.key", "-", stdin=b"after")
    wait_until(lambda: "after.dkim.key" in pod("import os; print(os.listdir('/dkim'))"))


def test_the_sidecar_has_four_capabilities_and_a_read_only_root(pod, podman):
    inspected = json.loads(podman("container", "inspect", "admin-configstore"))[0]
    assert sorted(inspected["EffectiveCaps"]) == ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_LEASE"]
    assert inspected["HostConfig"]["ReadonlyRootfs"]


@pytest.mark.parametrize("component", ["front", "fetchmail", "webmail"])
def test_init_completes_in_empty_sticky_folders(podman, build, memory, configstore, etcd, component):
    resources = {(one["kind"], one["metadata"]["name"]): one for one in build()}
    spec = resources["Deployment", f"mailu-{component}"]["spec"]["template"]["spec"]
    init = spec["initContainers"][0]
    security = init["securityContext"]
    command = ["run", "--rm", "--network=host", "--read-only", f"--user={security['runAsUser']}", "--cap-drop=all"]
    command += [f"--cap-add={','.join(security['capabilities']['add'])}"]
    for mount in init["volumeMounts"]:
        if mount["name"] in ("configstore", "configstore-state"):
            folder = memory / f"{component}-{mount.get('subPath', 'state')}"
            folder.mkdir()
            folder.chmod(0o1777)
            command.append(f"--volume={folder}:{mount['mountPath']}")
    command += [f"--env={one['name']}={one['value']}" for one in init["env"]]
    command += [f"--env=CONFIGSTORE_ENDPOINTS={etcd.endpoint}", "--env=CONFIGSTORE_ROOT=/pod"]
    podman(*command, IMAGE, *init["args"])
