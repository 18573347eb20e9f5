"""A namespace of its own for all that is measured: the machine's folders, ports and processes stay as they are.

The packages that tests/get-peers unpacked lie over /usr, /etc and /var there; the network is a loopback device
with one address for each of the two "hosts"; when the first process in it ends, whyever, all others are killed.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

HOSTS = {"peer-one": "10.123.0.1", "peer-two": "10.123.0.2"}
"""Addresses of the namespace's own loopback device: GlusterFS refuses 127.0.0.1 for a brick."""

SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 0x1


def inside(arguments: list[str]) -> int:
    """Run this Python in a new namespace; returns its exit code. Exits in words where there can be none."""
    if not shutil.which("unshare"):
        raise SystemExit("bench-peers: needs `unshare` (Debian: apt-get install util-linux)")
    user = ["--user", "--map-root-user"] if os.getuid() else []
    common = ["unshare", *user, "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    probe = subprocess.run([*common, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        raise SystemExit(
            f"bench-peers: no namespace can be made here: {probe.stderr.strip()}; run it as root, in a container "
            "with --privileged, or where user namespaces are allowed (sysctl kernel.unprivileged_userns_clone)"
        )
    return subprocess.run([*common, sys.executable, *arguments], check=False).returncode


def prepare(packages: Path, scratch: Path) -> None:
    """Lay the packages over the system's folders and bring the loopback device up: in a namespace only."""
    for top in ("usr", "etc", "var"):
        (packages / top).mkdir(parents=True, exist_ok=True)
        upper, work = scratch / f"{top}-upper", scratch / f"{top}-work"
        upper.mkdir()
        work.mkdir()
        lower = f"lowerdir={packages / top}:/{top}"
        writable = "" if top == "usr" else f",upperdir={upper},workdir={work}"
        _mount("overlay", f"/{top}", lower + writable)
    _mount("tmpfs", "/run", "")
    for number, address in enumerate(["127.0.0.1", *HOSTS.values()]):
        _address(f"lo:{number}" if number else "lo", address)
    names = "".join(f"{address} {name}\n" for name, address in HOSTS.items())
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n{names}127.0.0.1 {socket.gethostname()}\n")
    for folder in ("/var/lib/glusterd", "/var/log/glusterfs", "/run/gluster"):
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)


def _mount(kind: str, where: str, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(kind.encode(), where.encode(), kind.encode(), 0, options.encode()):
        error = ctypes.get_errno()
        raise SystemExit(f"bench-peers: cannot mount {kind} on {where}: {os.strerror(error)}")


def _address(device: str, address: str) -> None:
    name = device.encode().ljust(16, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        with contextlib.suppress(FileExistsError):
            fcntl.ioctl(
                one, SIOCSIFADDR, name + struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            )
        fcntl.ioctl(one, SIOCSIFFLAGS, b"lo".ljust(16, b"\0") + struct.pack("H14x", IFF_UP))
