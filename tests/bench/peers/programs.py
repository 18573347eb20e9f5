"""The programs that are measured, each in the quickest configuration that its own documentation offers."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from configstore.embedded import EmbeddedEtcd, free_ports
from tests.bench.outside import Program, settings
from tests.bench.peers.namespace import HOSTS
from tests.bench.peers.place import AbsentError, Place, Running
from tests.harness.waiting import wait_until

SET = 60
"""Files of a set."""


@dataclass(frozen=True)
class Peer:
    """A program, what it needs, and how it is run."""

    name: str
    start: Callable[[Place], AbstractContextManager[Running]]
    needs: tuple[str, ...] = ()
    package: str = ""
    version: tuple[str, ...] = ()

    @property
    def how(self) -> str:
        """How it is run, and what it cannot do."""
        return HOW[self.name]

    def missing(self) -> str:
        """Return what cannot be found, in words; "" when all is there."""
        absent = [program for program in self.needs if not shutil.which(program)]
        if not absent:
            return ""
        where = f"Debian: {self.package}" if self.package else "not packaged by Debian; put it on PATH"
        return f"no `{'`, `'.join(absent)}` here ({where})"

    def says(self) -> str:
        """Return the version that the program reports."""
        if not self.version:
            return ""
        shown = subprocess.run(self.version, capture_output=True, text=True, check=False, timeout=20)
        found = re.search(r"\d+(\.\d+)+", shown.stdout + shown.stderr)
        return found[0] if found else ""


@contextlib.contextmanager
def _configstore(place: Place, mapping: tuple[str, ...]) -> Iterator[Running]:
    program = Program()
    with contextlib.ExitStack() as stack:
        with place.marked("server"):
            etcd = stack.enter_context(EmbeddedEtcd(folder=place.state / "etcd"))
        program.configstore(etcd.endpoint, "mkdir", "tree")
        with place.marked("hosts"):
            directories = []
            for name in ("one", "two"):
                file, directory = settings(place.files, name, "tree", etcd.endpoint, mapping)
                stack.enter_context(program.sidecar(file, place.state / "log"))
                directories.append(directory)
        yield Running(directories[0], directories[1], place.scratch)


def configstore(place: Place) -> AbstractContextManager[Running]:
    """Two sidecars and an etcd, nothing set."""
    return _configstore(place, ())


def configstore_at_once(place: Place) -> AbstractContextManager[Running]:
    """Two sidecars and an etcd; a set is closed as soon as nobody writes."""
    return _configstore(place, ('settle = "0ms"',))


SEND = """
inotifywait -m -q -e close_write -e moved_to --format %f "$1" | while IFS= read -r name; do
  base64 -w0 "$1/$name" | etcdctl put "/files/$name" >/dev/null
done
"""
RECEIVE = """
etcdctl watch --prefix /files/ | while IFS= read -r kind; do
  IFS= read -r key; IFS= read -r value
  [ "$kind" = PUT ] || continue
  base64 -d <<<"$value" >"$2/new" && mv "$2/new" "$1/${key#/files/}"
done
"""


@contextlib.contextmanager
def etcdctl(place: Place) -> Iterator[Running]:
    """Two loops of shell around etcdctl and inotifywait."""
    received = place.files / "received"
    received.mkdir()
    with place.marked("server"):
        etcd = EmbeddedEtcd(folder=place.state / "etcd")
        etcd.__enter__()
    try:
        variables = {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": etcd.endpoint}
        place.start(["bash", "-c", RECEIVE, "receive", place.target, received], **variables)
        place.start(["bash", "-c", SEND, "send", place.source], **variables)
        yield place.running()
    finally:
        place.stop()
        etcd.__exit__(None, None, None)


@contextlib.contextmanager
def confd(place: Place) -> Iterator[Running]:
    """Write templates from etcd, as confd watches it; the way there is the loop of `etcdctl` above."""
    names = ["edited", *(f"set-{number:02d}" for number in range(SET))]
    for folder in ("conf.d", "templates"):
        (place.state / folder).mkdir()
    for name in names:
        (place.state / "templates" / name).write_text(f'{{{{base64Decode (getv "/files/{name}")}}}}')
        (place.state / "conf.d" / f"{name}.toml").write_text(
            f'[template]\nsrc = "{name}"\ndest = "{place.target}/{name}"\nkeys = ["/files/{name}"]\n'
        )
    with place.marked("server"):
        etcd = EmbeddedEtcd(folder=place.state / "etcd")
        etcd.__enter__()
    try:
        variables = {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": etcd.endpoint}
        for name in names:
            place.run(["etcdctl", "put", f"/files/{name}", "MA=="], **variables)
        command = ["confd", "-backend", "etcdv3", "-node", etcd.endpoint, "-watch", "-log-level", "warn"]
        place.start([*command, "-confdir", place.state])
        place.start(["bash", "-c", SEND, "send", place.source], **variables)
        yield Running(place.source, place.target, place.scratch, fixed=True)
    finally:
        place.stop()
        etcd.__exit__(None, None, None)


@contextlib.contextmanager
def lsyncd(place: Place) -> Iterator[Running]:
    """Have lsyncd on one host call rsync, and an rsync daemon on the other."""
    (port,) = free_ports(1)
    (place.state / "rsyncd.conf").write_text(
        f"use chroot = no\nreverse lookup = no\n[tree]\npath = {place.target}\nread only = no\nuid = 0\ngid = 0\n"
    )
    (place.state / "lsyncd.lua").write_text(
        f'settings {{ nodaemon = true, statusFile = "{place.state}/status" }}\n'
        f'sync {{ default.rsync, source = "{place.source}", target = "rsync://127.0.0.1:{port}/tree", delay = 0,\n'
        '  rsync = { archive = true, whole_file = true, _extra = { "--delay-updates", "--modify-window=-1" } } }\n'
    )
    place.start(["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}",
                 f"--config={place.state}/rsyncd.conf"])  # fmt: skip
    place.start(["lsyncd", place.state / "lsyncd.lua"])
    try:
        yield place.running()
    finally:
        place.stop()


# The first name is waited for, then all that is there already is taken along: one call for what came together.
GATHER = r"""
inotifywait -m -q -r --exclude '/\.[^/]*$' -e close_write -e moved_to --format %w%f "$1" |
while IFS= read -r file; do
  files=("$file")
  sleep 0.005
  while read -t 0 && IFS= read -r file; do files+=("$file"); [ ${#files[@]} -lt 500 ] || break; done
  %s
done
"""


@contextlib.contextmanager
def csync2(place: Place) -> Iterator[Running]:
    """Have inotifywait call `csync2 -x` on one host; csync2 listens on the other."""
    config = Path("/etc/csync2.cfg")
    key = place.state / "key"
    place.run(["csync2", "-k", key])
    one, two = HOSTS
    config.write_text(
        f"nossl * *;\ngroup tree {{ host {one} {two}; key {key}; include %tree%; auto younger; }}\n"
        f"prefix tree {{ on {one}: {place.source}; on {two}: {place.target}; }}\n"
    )
    for name in HOSTS:
        (place.state / name).mkdir()
    place.start(["csync2", "-A", "-ii", "-N", two, "-D", place.state / two])
    command = ["csync2", "-A", "-N", one, "-D", place.state / one]
    # Not `-x FILES`: with a prefix it sends none of them.
    both = '"${@:2}" -c "${files[@]}" && "${@:2}" -u'
    place.start(["bash", "-c", GATHER.replace("%s", both), "gather", place.source, *command])
    try:
        yield place.running()
    finally:
        place.stop()


@contextlib.contextmanager
def syncthing(place: Place) -> Iterator[Running]:
    """Run two syncthings that know each other's address."""
    ports = free_ports(4)
    homes, identities = [], []
    for name in ("one", "two"):
        home = place.state / name
        place.run(["syncthing", "generate", f"--home={home}", "--no-default-folder", "--skip-port-probing"])
        homes.append(home)
        identities.append(place.run(["syncthing", f"--home={home}", "--device-id"]).strip())
    options = {
        "globalAnnounceEnabled": "false", "localAnnounceEnabled": "false", "relaysEnabled": "false",
        "natEnabled": "false", "urAccepted": "-1", "crashReportingEnabled": "false", "autoUpgradeIntervalH": "0",
        "startBrowser": "false", "reconnectionIntervalS": "1", "setLowPriority": "false",
    }  # fmt: skip
    chosen = "".join(f"<{name}>{value}</{name}>" for name, value in options.items())
    devices = "".join(
        f'<device id="{identity}" name="{number}"><address>tcp://127.0.0.1:{ports[number]}</address></device>'
        for number, identity in enumerate(identities)
    )
    members = "".join(f'<device id="{identity}"></device>' for identity in identities)
    for number, (home, folder) in enumerate(zip(homes, (place.source, place.target), strict=True)):
        (folder / ".stfolder").mkdir()
        version = re.search(r'<configuration version="(\d+)"', (home / "config.xml").read_text())
        (home / "config.xml").write_text(
            f'<configuration version="{version[1] if version else 36}">'
            f'<folder id="tree" path="{folder}" type="sendreceive" rescanIntervalS="3600" fsWatcherEnabled="true" '
            f'fsWatcherDelayS="1">{members}</folder>{devices}'
            f'<gui enabled="true"><address>127.0.0.1:{ports[2 + number]}</address><apikey>k</apikey></gui>'
            f"<options><listenAddress>tcp://127.0.0.1:{ports[number]}</listenAddress>{chosen}</options></configuration>"
        )
        place.start(["syncthing", "serve", f"--home={home}", "--no-browser", "--no-restart", "--no-upgrade"],
                    HOME=str(home))  # fmt: skip
    try:
        yield place.running()
    finally:
        place.stop()


@contextlib.contextmanager
def unison(place: Place) -> Iterator[Running]:
    """Run a unison that serves on one host, and one that watches, or is started by inotifywait, on the other."""
    (port,) = free_ports(1)
    folders = [place.state / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    place.start(
        ["unison", "-socket", str(port), "-listen", "127.0.0.1"], UNISON=str(folders[1]), HOME=str(folders[1])
    )
    command = ["unison", place.source, f"socket://127.0.0.1:{port}/{place.target}", "-batch", "-silent", "-times",
               "-fastcheck=true", "-confirmbigdel=false", "-prefer=newer", "-ui=text"]  # fmt: skip
    home = {"UNISON": str(folders[0]), "HOME": str(folders[0])}
    time.sleep(0.3)
    place.run(command, **home)
    if shutil.which("unison-fsmonitor"):
        place.start([*command, "-repeat=watch"], **home)
    else:
        place.start(
            ["bash", "-c", GATHER.replace("%s", '"${@:2}" || "${@:2}"'), "gather", place.source, *command], **home
        )
    try:
        yield place.running()
    finally:
        place.stop()


@contextlib.contextmanager
def glusterfs(place: Place) -> Iterator[Running]:
    """Run a replicated volume of two bricks, mounted twice, without caches of attributes and names."""
    if not os.path.exists("/dev/fuse"):
        raise AbsentError("no /dev/fuse here, and a volume is mounted by it")
    with place.marked("hosts"):
        place.start(["glusterd", "-N"])
        gluster = ["gluster", "--mode=script"]

        def answers() -> bool:
            place.alive()
            return subprocess.run([*gluster, "pool", "list"], capture_output=True, check=False).returncode == 0

        wait_until(answers, 30, what="glusterd")
        bricks = [f"{address}:{place.state}/{name}" for name, address in HOSTS.items()]
        place.run([*gluster, "volume", "create", "tree", "replica", "2", *bricks, "force"])
        for cache in ("quick-read", "io-cache", "stat-prefetch", "readdir-ahead", "open-behind"):
            place.run([*gluster, "volume", "set", "tree", f"performance.{cache}", "off"])
        place.run([*gluster, "volume", "start", "tree"])
        mounts = [place.files / name for name in HOSTS]
        for mount, address in zip(mounts, HOSTS.values(), strict=True):
            mount.mkdir()
            place.run(["glusterfs", f"--volfile-server={address}", "--volfile-id=tree", "--attribute-timeout=0",
                       "--entry-timeout=0", "--negative-timeout=0", mount])  # fmt: skip
        wait_until(lambda: all(os.path.ismount(mount) for mount in mounts), 20, what="the mounts")
    for name in ("tree", "scratch"):
        (mounts[0] / name).mkdir()
    try:
        yield Running(mounts[0] / "tree", mounts[1] / "tree", mounts[0] / "scratch", events=False)
    finally:
        for mount in mounts:
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        place.stop()


HOW = {
    "configstore": "two sidecars and an etcd, nothing set: a set is closed by 20 ms of quiet (`settle`)",
    "configstore, settle 0": 'the same with `settle = "0ms"`: what a program that replaces single files wants',
    "etcdctl scripts": (
        "`inotifywait` | `etcdctl put` one way, `etcdctl watch` | `mv` the other, in bash; base64, "
        "since etcdctl prints a line. No deletions, no start-up, no lost connection is thought of"
    ),
    "confd": (
        "`-watch` on etcdv3, a template for each file that was named beforehand; `inotifywait` | "
        "`etcdctl put` as above. Debian has no package: it is the one on PATH. New files are not its trade"
    ),
    "lsyncd": (
        "`delay = 0`, `default.rsync` to an rsync daemon, `--delay-updates`; `--modify-window=-1`, "
        "without which an edit of the same size within the same second is lost. One way only"
    ),
    "csync2": (
        "`csync2 -c FILES` and `-u` with the names that `inotifywait` tells, a listener on the other "
        "side, no TLS, the database asynchronous (`-A`). It watches nothing itself"
    ),
    "syncthing": "`fsWatcherDelayS=1`, the least whole number; no discovery, no relays; TLS, as always",
    "unison": (
        "a server by socket; `-repeat watch` where there is a `unison-fsmonitor`, which Debian does not "
        "package: else started anew by `inotifywait`, which sees one side only"
    ),
    "GlusterFS": (
        "a replicated volume of two bricks, mounted twice by FUSE, its caches off. It is no mirror: a "
        "write returns when both bricks have it, and each read goes through it. No inotify from the "
        "other host: arrival is seen by looking"
    ),
}

US = (sys.executable, "-m", "configstore", "--version")

PEERS = (
    Peer("configstore", configstore, version=US),
    Peer("configstore, settle 0", configstore_at_once, version=US),
    Peer("etcdctl scripts", etcdctl, ("etcdctl", "inotifywait", "bash", "base64"), "etcd-client inotify-tools",
         ("etcdctl", "version")),
    Peer("confd", confd, ("confd", "etcdctl", "inotifywait"), "", ("confd", "-version")),
    Peer("lsyncd", lsyncd, ("lsyncd", "rsync"), "lsyncd rsync", ("lsyncd", "--version")),
    Peer("csync2", csync2, ("csync2", "inotifywait"), "csync2 inotify-tools", ("csync2",)),
    Peer("syncthing", syncthing, ("syncthing",), "syncthing", ("syncthing", "--version")),
    Peer("unison", unison, ("unison", "inotifywait"), "unison inotify-tools", ("unison", "-version")),
    Peer("GlusterFS", glusterfs, ("glusterd", "gluster", "glusterfs"), "glusterfs-server glusterfs-client",
         ("glusterfs", "--version")),
)  # fmt: skip


def dump(value: object) -> str:
    """Return readable JSON."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
