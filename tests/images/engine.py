"""A Docker engine of the tests' own: its data, its socket and its networks, and nothing of the machine's."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.harness.waiting import wait_until

FETCHED = Path(__file__).parents[2] / ".venv/engine"
BASE = "python:3.13-slim-trixie"
ETCD = "quay.io/coreos/etcd:v3.6.14"
MAILU = ("nginx", "admin", "dovecot", "postfix", "rspamd", "fetchmail", "webmail")
# The engine's own client; a newer one on PATH may lack buildx.
DOCKER = "/usr/bin/docker"


def lacking() -> str:
    """Return what is not there, or nothing."""
    if os.geteuid() != 0:
        return "root"
    wanted = (Path("/usr/sbin/dockerd"), Path(DOCKER), FETCHED / "tools/ready", FETCHED / "base.tar")
    return ", ".join(str(path) for path in wanted if not path.exists())


class Engine:
    """A running engine that has the images which the files of docs/deploy ask for, except ours."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="engine-", dir="/tmp"))
        plugins = self.folder / "config/cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(FETCHED / "tools/usr/libexec/docker/cli-plugins/docker-compose")
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
            "DOCKER_HOST": f"unix://{self.folder}/socket",
            "DOCKER_CONFIG": str(self.folder / "config"),
            "DOCKER_BUILDKIT": "1",
        }
        self._log = (self.folder / "log").open("wb")
        self._daemon = self._launched()

    def _launched(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["dockerd", "-H", f"unix://{self.folder}/socket", "--data-root", f"{self.folder}/data",
             "--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/pid",
             "--storage-driver", "overlay2",
             "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"],
            env=self.environment, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def start(self) -> None:
        """Wait until it answers, and give it the images that cannot be fetched."""
        wait_until(self._answers, 30, what=f"dockerd: {self.folder}/log")
        path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self("import", "-c", path, str(FETCHED / "base.tar"), BASE)
        with tempfile.TemporaryDirectory() as folder:
            for program in ("etcd", "etcdctl", "etcdutl"):
                shutil.copy(FETCHED / "tools/usr/bin" / program, folder)
            recipe = f'FROM {BASE}\nCOPY etcd etcdctl etcdutl /usr/local/bin/\nCMD ["etcd"]\n'
            Path(folder, "Dockerfile").write_text(recipe)
            self("build", "-q", "-t", ETCD, folder)
        tags = [word for name in MAILU for word in ("-t", f"ghcr.io/mailu/{name}:2024.06")]
        self("build", "-q", "--network=none", *tags, str(Path(__file__).parent / "standin"))

    def restart(self) -> None:
        """End it as a reboot does, with all containers, and start it again: only `restart: always` counts."""
        self._daemon.terminate()
        self._daemon.wait(60)
        self._daemon = self._launched()
        wait_until(self._answers, 30, what=f"dockerd: {self.folder}/log")

    def __call__(self, *arguments: str, timeout: float = 120, env: dict[str, str] | None = None) -> str:
        """Run `docker ARGUMENTS` and return what it says; fails the test when it fails."""
        done = self.run(*arguments, timeout=timeout, env=env)
        said = f"docker {' '.join(arguments)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == 0, said
        return done.stdout.strip()

    def run(
        self, *arguments: str, timeout: float = 120, env: dict[str, str] | None = None, binary: str = DOCKER
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS`, whatever comes of it."""
        command = [binary, *arguments]
        environment = self.environment | (env or {})
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def inspect(self, name: str) -> dict:
        """Return what the engine knows of a container or an image."""
        return json.loads(self("inspect", name))[0]

    def kill_process(self, container: str) -> None:
        """SIGKILL a container's first process as a crash would; `docker kill` would also stop its restarts."""
        os.kill(self.inspect(container)["State"]["Pid"], signal.SIGKILL)

    def _answers(self) -> bool:
        assert self._daemon.poll() is None, Path(self._log.name).read_text()[-2000:]
        return self.run("version").returncode == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove all containers and volumes, end the engine, and leave nothing mounted."""
        try:
            if containers := self.run("ps", "-aq").stdout.split():
                self.run("rm", "-f", "-v", *containers)
            self.run("volume", "prune", "-f")
            self.run("network", "prune", "-f")
        finally:
            self._daemon.terminate()
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._daemon.pid, signal.SIGKILL)
                self._daemon.wait()
            self._log.close()
            for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
                if (place := line.split()[1]).startswith(f"{self.folder}/"):
                    subprocess.run(["umount", "--lazy", place], check=False)
            shutil.rmtree(self.folder)
