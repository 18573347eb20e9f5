"""A container of the shape of Mailu's images, without an engine: a root of its own over this machine's programs.

What matters of the shape, by Mailu's Dockerfiles (core/base, core/nginx, optional/fetchmail): certbot and
fetchmail are packages of the system, in /usr/bin; since 2.0 there is a venv at /app/venv without site packages of
the system, and its bin comes first in PATH; nothing lies in /usr/local/bin. Needs root.
"""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any

SYSTEMS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What an engine sets where an image sets none, as Mailu's images up to 1.9 do."""

RELEASES = {"1.9": False, "2024.06": True}
"""Whether the images of a release have a venv."""

_SCRIPT = """
set -e
mount -t tmpfs -o mode=0755 tmpfs "$1"
cd "$1"; shift
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" root
for place in /proc /dev; do mount --rbind "$place" "root$place"; done
[ $$ != 1 ] || mount -t proc proc root/proc
[ "$(readlink /proc/self/ns/net)" = "$(readlink /proc/"$OUTSIDE"/ns/net)" ] || ip link set lo up
mount -t tmpfs -o mode=0755 tmpfs root/usr/local/bin
rm -rf root/app root/certs root/acme root/data root/run/configstore
while [ "$1" != -- ]; do
  mkdir -p "root$(dirname "$2")"
  if [ -d "$1" ]; then mkdir -p "root$2"; else : >"root$2"; fi
  mount --rbind "$1" "root$2"
  shift 2
done
shift
[ "$1" = no-venv ] || chroot root /usr/bin/python3 -m venv --without-pip /app/venv
shift
exec chroot root "$@"
"""


class Image:
    """Runs commands in roots of this shape; each has one of its own, and what is mounted there is shared.

    mounts: the folders and files of this machine, by their place in the container.
    """

    def __init__(self, base: Path, *, venv: bool, mounts: dict[str, Path]) -> None:
        self.base, self.venv = base, venv
        self.path = ("/app/venv/bin:" if venv else "") + SYSTEMS_PATH
        self.mounts = dict(mounts)

    def start(
        self,
        *command: str,
        namespaces: tuple[str, ...] = (),
        stdout: int | IO = subprocess.PIPE,
        stderr: int | IO = subprocess.PIPE,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Start a command; nothing of this process's environment reaches it.

        namespaces: more of them, as options of `unshare`.
        """
        folder = tempfile.mkdtemp(prefix="root-", dir=self.base)
        places = [word for target, source in self.mounts.items() for word in (str(source), target)]
        return subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", *namespaces, "sh", "-c", _SCRIPT, "-", folder, *places,
             "--", "venv" if self.venv else "no-venv", *command],
            env={"PATH": self.path, "HOME": "/root", "OUTSIDE": str(os.getpid()), **environment},
            stdout=stdout, stderr=stderr, text=True,
        )  # fmt: skip

    def run(self, *command: str, timeout: float = 120, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*command, **how)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def script(path: Path, text: str) -> Path:
    """Write an executable file."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def command_of_compose(service: str, file: Path) -> list[str]:
    """Return what a file of docs/deploy/compose has a service start, behind the gate."""
    import yaml  # noqa: PLC0415

    command = yaml.safe_load(file.read_text())["services"][service]["command"]
    assert command[0].endswith("/gate")
    return command[command.index("--") + 1 :]


def mounted_by_compose(service: str, file: Path, checkout: Path) -> dict[str, Path]:
    """Return what a file of docs/deploy/compose mounts of the checkout in a service, by its place there."""
    import yaml  # noqa: PLC0415

    found = {}
    for one in yaml.safe_load(file.read_text())["services"][service]["volumes"]:
        source, _, place = one.removesuffix(":ro").rpartition(":")
        if source.startswith("${CONFIGSTORE"):
            found[place] = checkout / source.partition("}/")[2]
            assert os.access(found[place], os.X_OK), found[place]
    return found
