"""A stand-in for a cluster, to type the guide against: what `kubectl` and `helm` do there, done to folders.

A pod is a folder with a folder for each path that its container mounts. What is applied is rendered by the real
kubectl and helm, and kept; etcd is real, with the files of its Secret, and so are `init` and the pods' sidecars.
"""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from configstore import presets
from configstore.embedded import wheel_binary
from tests.harness.waiting import wait_until
from tests.kubernetes.conftest import CHART, ROOT, TOOLS

MEMBERS = 3


class Cluster:
    """A namespace in a folder, `net` being its network: the first three bytes of loopback addresses."""

    def __init__(self, folder: Path, net: str = "") -> None:
        """Make it, or find it again where it was made before (without `net`)."""
        self.folder, self.programs = folder, folder / "bin"
        self.processes: list[subprocess.Popen[bytes]] = []
        if net:
            self._make(net)
        self.net = (folder / "net").read_text()

    def _make(self, net: str) -> None:
        self.programs.mkdir(parents=True)
        (self.folder / "net").write_text(net)
        addresses = [f"{net}.{11 + member} etcd-{member}.etcd" for member in range(MEMBERS)]
        # Where a port-forward ends as well: it is the first member's.
        (self.folder / "hosts").write_text("\n".join([f"{net}.11 localhost", *addresses, ""]))
        for name in ("kubectl", "helm"):
            script = f'#!/bin/sh\nexec {sys.executable} -m tests.kubernetes.cluster {self.folder} {name} "$@"\n'
            (self.programs / name).write_text(script)
            (self.programs / name).chmod(0o755)
        etcd = wheel_binary()
        for name in ("configstore", "configstore-sidecar"):
            (self.programs / name).symlink_to(ROOT / ".venv/bin" / name)
        for name in ("etcdctl", "etcdutl"):
            (self.programs / name).symlink_to(etcd.with_name(name))

    @property
    def inside(self) -> list[str]:
        """Return what runs a command where the cluster's names are known: for it alone /etc/hosts is another."""
        script = f'mount --bind {self.folder}/hosts /etc/hosts && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh"]

    # --- what the programs leave for the test, and find again at their next call

    def keep(self, text: str) -> None:
        """Add resources to those that are applied."""
        kept = self.folder / "applied.json"
        before = json.loads(kept.read_text()) if kept.exists() else []
        kept.write_text(json.dumps([*before, *[one for one in yaml.safe_load_all(text) if one]]))

    def applied(self) -> dict[tuple[str, str], dict]:
        """Return what is applied, by kind and name; the later wins."""
        kept = self.folder / "applied.json"
        found = json.loads(kept.read_text()) if kept.exists() else []
        return {(one["kind"], one["metadata"]["name"]): one for one in found}

    def secret(self, name: str) -> Path:
        """Return the folder of a Secret's or ConfigMap's files."""
        return self.folder / "files" / name

    def mounted(self, pod: str, path: str) -> Path:
        """Return the folder that stands for a path of a pod."""
        return self.folder / "pods" / pod.rpartition("/")[2] / path.lstrip("/")

    # --- what runs in it

    def scale(self, replicas: int) -> None:
        """Start or stop all members of etcd, each with what the StatefulSet says and the files of its Secret."""
        for pid_file in sorted(self.folder.glob("etcd-*.pid")):
            process = int(pid_file.read_text())
            os.kill(process, signal.SIGTERM)
            wait_until(lambda process=process: not _lives(process), 30, what="a member's end")
            pid_file.unlink()
        (container,) = self.applied()["StatefulSet", "etcd"]["spec"]["template"]["spec"]["containers"]
        for member in range(replicas):
            name = f"etcd-{member}"
            environment = {"PATH": os.environ["PATH"]}
            for one in container["env"]:
                value = one.get("value", name).replace("$(ETCD_NAME)", name)
                value = value.replace("0.0.0.0", f"{self.net}.{11 + member}")
                value = value.replace("/etc/etcd/", f"{self.secret('etcd-server')}/")
                environment[one["name"]] = value.replace("/var/lib/etcd/", f"{self.claim(name)}/")
            with (self.folder / f"{name}.log").open("ab") as log:
                process = subprocess.Popen(
                    [*self.inside, wheel_binary()],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            (self.folder / f"{name}.pid").write_text(str(process.pid))

    def claim(self, member: str) -> Path:
        """Return the folder of a member's claim."""
        folder = self.folder / "claims" / f"data-{member}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def client(self, secret: str) -> dict[str, str]:
        """Return the variables with which a pod reaches etcd: the ConfigMap's, with the Secret's files here."""
        data = self.applied()["ConfigMap", "configstore"]["data"]
        files = self.secret(secret)
        return {
            name: value.replace("/etc/configstore-etcd", str(files))
            for name, value in data.items()
            if name in ("CONFIGSTORE_ENDPOINTS", "CONFIGSTORE_CACERT", "CONFIGSTORE_CERT", "CONFIGSTORE_KEY")
        }

    def settings(self, pod: str) -> dict[str, str]:
        """Return the variables of a pod's sidecar, with the folders here for the paths there."""
        template = self.applied()["Deployment", pod]["spec"]["template"]["spec"]
        sidecar = next(one for one in template["initContainers"] if one["name"] == "configstore")
        data = dict(self.applied()["ConfigMap", "configstore"]["data"])
        data |= {one["name"]: one["value"] for one in sidecar["env"]}
        data.pop("CONFIGSTORE_CONTROL_GROUP", None)  # a group of Mailu's image
        own = self.folder / "sidecars" / pod
        (own / "run").mkdir(parents=True, mode=0o700, exist_ok=True)
        (volume,) = [one for one in template["volumes"] if one["name"] == "configstore-etcd"]
        data |= self.client(volume["secret"]["secretName"])
        data |= {
            "CONFIGSTORE_HEALTH_LISTEN": "none", "CONFIGSTORE_STATE": str(own / "state"),
            "CONFIGSTORE_CONTROL_SOCKET": str(own / "run/control.sock"),
        }  # fmt: skip
        for preset in data["CONFIGSTORE_PRESET"].split(","):
            for mapping in presets.load(preset):
                name = re.sub(r"[^A-Z0-9]", "_", mapping.name.upper())
                own_path = mapping.path.startswith("/tmp/")  # the sidecar's own, and of no volume
                folder = own / mapping.path[1:] if own_path else self.mounted(pod, mapping.path)
                folder.parent.mkdir(parents=True, exist_ok=True)
                data[f"CONFIGSTORE_MAPPING_{name}_PATH"] = str(folder)
        return data

    def start_pod(self, pod: str) -> None:
        """Do what the kubelet does with a patched pod: an empty memory volume, `init`, then the sidecar."""
        template = self.applied()["Deployment", pod]["spec"]["template"]["spec"]
        init, sidecar = template["initContainers"]
        assert (init["name"], sidecar["name"]) == ("configstore-init", "configstore")
        for mount in init["volumeMounts"]:
            if mount["name"] == "configstore":
                folder = self.mounted(pod, mount["mountPath"])
                if folder.exists():
                    folder.rename(folder.with_name(f"{folder.name}-of-the-chart"))
                folder.mkdir(parents=True, mode=0o777)
        environment = {**_bare(), **self.settings(pod)}
        program = ROOT / ".venv/bin/configstore-sidecar"
        command = [*self.inside, program, *init["args"]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)
        assert done.returncode == 0, f"{pod}: {done.stderr}"
        with (self.folder / f"{pod}.log").open("wb") as log:
            command = [*self.inside, program, *sidecar["args"]]
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def stop_pods(self) -> None:
        """End all sidecars, as a new version of the pods without them does."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(30)
        self.processes = []

    def stop(self) -> None:
        """End everything."""
        self.stop_pods()
        if ("StatefulSet", "etcd") in self.applied():
            self.scale(0)

    def reachable(self) -> bool:
        """Say whether etcd answers, be it that admin may not list everything."""
        environment = {**_bare(), **self.client("configstore-etcd-admin")}
        command = [*self.inside, ROOT / ".venv/bin/configstore", "ls"]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
        return done.returncode in (0, 5)


def _lives(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def _bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("CONFIGSTORE_", "ETCDCTL_"))}


# --- the programs


def kubectl(cluster: Cluster, words: list[str]) -> int:
    """Do what kubectl is asked to do."""
    if words[:2] == ["-n", "mailu"]:
        words = words[2:]
    match words:
        case ["create", "secret", "generic", name, *files] | ["create", "configmap", name, *files]:
            return _create(cluster, name, files)
        case ["apply", "-f", folder] if folder != "-":
            for file in sorted(Path(folder).glob("*.yaml")):
                _secret(cluster, yaml.safe_load(file.read_text()))
        case ["apply", "-k", folder]:
            done = subprocess.run(
                [TOOLS / "kubectl", "kustomize", folder], capture_output=True, text=True, check=True
            )
            cluster.keep(done.stdout)
        case ["rollout", "status", "statefulset/etcd", *_]:
            assert ("StatefulSet", "etcd") in cluster.applied()
            wait_until(cluster.reachable, 60, what="etcd")
        case ["scale", "statefulset", "etcd", replicas]:
            cluster.scale(int(replicas.removeprefix("--replicas=")))
        case ["apply", "-f", "-"]:
            cluster.keep(sys.stdin.read())
        case ["wait", "--for=condition=Ready", pod, *_]:
            assert ("Pod", pod.removeprefix("pod/")) in cluster.applied()
        case ["delete", "pod", pod]:
            assert ("Pod", pod) in cluster.applied()
        case ["exec", "-i", pod, "--", *command] if pod.startswith("etcd-restore-"):
            claim = str(cluster.claim(f"etcd-{pod[-1]}"))
            return subprocess.run(
                [word.replace("/var/lib/etcd", claim) for word in command], check=False
            ).returncode
        case ["port-forward", "etcd-0", _]:
            os.execvp("sleep", ["sleep", "600"])
        case ["get", "pods"]:
            print("\n".join(sorted(name for kind, name in cluster.applied() if kind == "Deployment")))
        case ["exec", *rest]:
            return _exec(cluster, rest)
        case _:
            raise SystemExit(f"kubectl {words}: not stood in for")
    return 0


def _secret(cluster: Cluster, one: dict) -> None:
    assert one["kind"] == "Secret"
    folder = cluster.secret(one["metadata"]["name"])
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in one["data"].items():
        (folder / key).write_bytes(base64.b64decode(value))


def _create(cluster: Cluster, name: str, files: list[str]) -> int:
    folder = cluster.secret(name)
    folder.mkdir(parents=True)
    for one in files:
        key, separator, path = one.removeprefix("--from-file=").rpartition("=")
        for source in [Path(path)] if separator or not Path(path).is_dir() else sorted(Path(path).iterdir()):
            (folder / (key or source.name)).write_bytes(source.read_bytes())
    return 0


def _exec(cluster: Cluster, words: list[str]) -> int:
    separator = words.index("--")
    options, command = words[:separator], words[separator + 1 :]
    pod = next(one for one in options if one.startswith(("deploy/", "daemonset/"))).rpartition("/")[2]
    environment = _bare()
    if "-c" in options and options[options.index("-c") + 1] == "configstore":
        environment |= {name: value for name, value in cluster.settings(pod).items() if "MAPPING" not in name}
        command = [str(cluster.programs / command[0]), *command[1:]]
    else:
        folders = ("/overrides", "/dkim", "/data", "/certs")
        command = [str(cluster.mounted(pod, word)) if word.startswith(folders) else word for word in command]
    return subprocess.run(command, env=environment, check=False).returncode


def helm(cluster: Cluster, words: list[str]) -> int:
    """Render what helm would install, with Helm 3, and keep it; the chart of Mailu is its stand-in."""
    assert words[0] == "upgrade"
    words = ["template", *(word for word in words[1:] if word != "--install")]
    words = [str(CHART) if word == "mailu/mailu" else word for word in words]
    environment = {**os.environ, "HELM_BIN": str(TOOLS / "helm-3"), "PATH": f"{TOOLS}:{os.environ['PATH']}"}
    done = subprocess.run([TOOLS / "helm-3", *words], capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0:
        cluster.keep(done.stdout)
        if ("StatefulSet", "etcd") in cluster.applied() and not list(cluster.folder.glob("etcd-*.pid")):
            cluster.scale(MEMBERS)
    else:
        print(done.stderr, file=sys.stderr)
    return done.returncode


def main() -> int:
    """Be `kubectl` or `helm`: FOLDER PROGRAM ARGUMENTS…."""
    folder, program, *words = sys.argv[1:]
    cluster = Cluster(Path(folder))
    return {"kubectl": kubectl, "helm": helm}[program](cluster, words)


if __name__ == "__main__":
    sys.exit(main())
