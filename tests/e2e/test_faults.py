"""What `configstore status` says of everything that can go wrong, each fault made for real.

Those that can be are made together, in mappings of one sidecar, so that all of it is told on one screen.
"""

import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from configstore.embedded import EmbeddedEtcd
from configstore.model.keys import Keys
from configstore.model.lease import QueueEntry, encode
from configstore.model.path import StorePath
from configstore.model.replica import MappingState, Report
from configstore.store.api import Delete, Exists, Put
from configstore.store.store import Store
from sidecar.presence.presence import Presence
from tests.e2e.faults import SOON, says
from tests.harness import zygote
from tests.harness.keyrings import FIRST, SECOND, master, ring, save, table
from tests.harness.named import a_dir, a_tree, put
from tests.harness.replica import Replica
from tests.harness.servers import cluster, connect, run_etcdctl
from tests.harness.waiting import freeze, wait_until


def shown(configstore, *names):
    """Wait until `status` names all of some faults with their mends."""
    text = ""

    def missing():
        nonlocal text
        text = configstore("status", "--all").decode()
        return [name for name in names if not says(name, text)]

    try:
        wait_until(lambda: missing() == [], SOON)
    except AssertionError:
        raise AssertionError(f"not named: {missing()}\n{text}") from None


MAPPINGS = {
    "files": "",
    "pulls": 'direction = "pull"',
    "pushes": 'direction = "push"',
    "leased": 'lease = "certs"',
    "checked": """check = ["sh", "-c", "echo the reason of the check; exit 3"]""",
    "hooked": """on_change = ["sh", "-c", "echo the reason of the hook; exit 3"]""",
    "emptied": "",
    "small": "",
    "vanished": "",
    "rootless": "required = false",
    "deleted": "required = false",
    "taken": "required = false",
    "nowhere": "required = false",
}


@pytest.fixture
def many(tmp_path, etcd, kv_root, configstore):
    """One sidecar with all these mappings, each with two files in the store."""
    with connect(etcd.endpoint) as kv:
        for name in MAPPINGS.keys() - {"rootless", "taken"}:
            put(a_tree(kv, kv_root), {name: a_dir()})
        for name in ("pulls", "leased", "emptied", "vanished"):
            put(a_tree(kv, kv_root), {f"{name}/a": b"1", f"{name}/b": b"1"})
        put(a_tree(kv, kv_root), {"taken": b"a file"})
    folders = {name: tmp_path / "m" / name for name in MAPPINGS} | {"nowhere": tmp_path / "m/none/here/a"}
    text = "".join(
        f'[[mapping]]\nname = "{name}"\npath = "{folders[name]}"\n{policy}\n'
        for name, policy in MAPPINGS.items()
        if name != "files"
    )
    (tmp_path / "m").mkdir()
    for name in MAPPINGS.keys() - {"nowhere"}:
        (tmp_path / "m" / name).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "test", tmp_path / "m/small"], check=True)
    one = Replica("one", tmp_path, [etcd.endpoint], kv_root, "", text)
    one.settings.write_text(
        one.settings.read_text()
        .replace('name = "data"', 'name = "files"')
        .replace(f'path = "{one.folder}"', f'path = "{tmp_path}/m/files"')
    )
    with one:
        one.start()
        yield one, tmp_path / "m"
    for folder in ("small", "files/mounted"):
        subprocess.run(["umount", "-l", tmp_path / "m" / folder], check=False, capture_output=True)


def test_all_that_can_be_wrong_with_paths_and_mappings(many, configstore, kv, kv_root, tmp_path):
    _, here = many
    keys = Keys(kv_root)
    wait_until(
        lambda: all((here / name / "b").exists() for name in ("pulls", "leased", "emptied", "vanished")), SOON
    )
    (here / "pushes/mine").write_text("ours")
    wait_until(lambda: b"mine" in configstore("ls", "pushes"), SOON)
    files = here / "files"
    open_file = (files / "open").open("w")
    open_file.write("half")
    open_file.flush()
    with open_file:
        (tmp_path / "outside").write_text("x")
        os.link(tmp_path / "outside", files / "linked")
        os.mkfifo(files / "pipe")
        (files / "absolute").symlink_to("/etc/passwd")
        (tmp_path / "elsewhere").write_text("x")
        put(a_tree(kv, kv_root), {"files/mounted": b"1", "files/beside": b"1"})
        with open(os.fsencode(files) + b"/caf\xe9", "w") as file:
            file.write("x")
        (here / "pulls/a").write_bytes(b"ours")
        (here / "pulls/made").write_bytes(b"ours")
        put(a_tree(kv, kv_root), {"pushes/mine": b"theirs"})
        (here / "leased/a").write_bytes(b"ours")
        put(a_tree(kv, kv_root), {"checked/a": b"bad"})
        put(a_tree(kv, kv_root), {"hooked/a": b"new"})
        for name in ("a", "b"):
            (here / "emptied" / name).unlink()
        put(a_tree(kv, kv_root), {"small/large": os.urandom(200_000)})
        kv.txn((), (Delete(keys.file("vanished/a")),))
        configstore("rm", "-r", "deleted", "--yes")
        record = kv.range(keys.file("vanished/b")).items[0]
        kv.txn((), (
            Put(record.key, record.value.replace(b'"v":1', b'"v":9', 1)),
            Put(keys.file("vanished/garbage"), b"no header"),
            Put(keys.replica("files", "x"), b"no report"),
            Put(keys.lease_queue("stuck") + b"/by hand", b""),
            Put(keys.lease_queue("slow") + b"/1", encode(
                QueueEntry(replica="r", host="h", command="certbot", time="2026-01-01T00:00:00+00:00")),
                kv.lease_grant(600)),
        ))  # fmt: skip
        wait_until((files / "mounted").exists, SOON)
        subprocess.run(["mount", "--bind", tmp_path / "elsewhere", files / "mounted"], check=True)
        put(a_tree(kv, kv_root), {"files/mounted": b"2"})
        shown(
            configstore,
            "an open file", "a hard link", "a FIFO", "a link out of the directory", "a name that is no text",
            "a file mounted by itself", "an edit where only pulls are", "a file made where only pulls are",
            "an edit in the store where only pushes are", "an edit without the lease", "a check that fails",
            "a hook that fails", "a mass delete", "no space here", "a vanished record", "a deleted subtree",
            "no subtree", "a file in a subtree's place", "a record of a later version", "an unreadable record",
            "an unreadable report", "a lease held long", "a lease that nothing ends",
            "a directory that cannot be had",
        )  # fmt: skip


class Telling:
    """A sidecar as the store sees it, of another version and with another clock."""

    def __init__(self, endpoint, root):
        self.kv = connect(endpoint)
        self.presence = Presence(Store(self.kv, Keys(root)), self.reports, [].append)

    def reports(self, session):
        time = (datetime.now(UTC) + timedelta(minutes=5)).isoformat(timespec="milliseconds")
        return [
            Report(mapping="data", replica="old", host="node-9", session=session, store=StorePath("data"),
                   state=MappingState.READY, ready=True, complete=True, version="0.0.9", time=time)
        ]  # fmt: skip

    def __enter__(self):
        self.presence.start()
        return self

    def __exit__(self, *_):
        self.presence.close()
        self.kv.close()


def limited(name, value):
    """Return a command that runs another with a lower limit of the kernel's, which counts by user namespace."""
    return (
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        f'echo {value} > /proc/sys/user/{name} && exec "$@"',
        "sh",
    )


def test_all_that_can_be_wrong_with_replicas(replica, etcd, kv_root, configstore):
    killed, frozen, same, again, polling, blind, unleased = (
        replica(name) for name in ("killed", "frozen", "same", "again", "polling", "blind", "unleased")
    )
    again.name = "same"
    polling.under = limited("max_inotify_instances", 0)
    blind.under = limited("max_inotify_watches", 2)
    unleased.under = ("setpriv", "--bounding-set=-lease")
    for name in "abc":
        (blind.folder / name).mkdir()
    (unleased.folder / "x").write_bytes(b"x")
    os.chown(unleased.folder / "x", 1234, 1234)
    with Telling(etcd.endpoint, kv_root):
        for each in (killed, frozen, same, again, polling, blind, unleased):
            each.start()
        for each in (killed, frozen):
            each.ready()
            wait_until(lambda each=each: each.name.encode() in configstore("replicas"), SOON)
        killed.end(signal.SIGKILL)
        freeze(frozen.process)
        shown(
            configstore,
            "a frozen sidecar", "two of one id", "an older version", "a wrong clock", "no inotify",
            "too few watches", "no capability LEASE",
        )  # fmt: skip
        # Its session ends a minute after its death, and until then it is one that does not answer.
        key = Keys(kv_root).replica("data", "killed")
        with connect(etcd.endpoint) as kv:
            kv.txn((Exists(key),), (Delete(key),))
        shown(configstore, "a killed sidecar")
        configstore("replicas", "forget", "killed")


def test_a_conflict_and_a_set_that_cannot_be_placed(replica, configstore, kv, kv_root):
    one = replica("one").start().ready()
    put(a_tree(kv, kv_root), {"data/a": b"1"})
    wait_until((one.folder / "a").exists, SOON)
    freeze(one.process)
    (one.folder / "a").write_bytes(b"here")
    put(a_tree(kv, kv_root), {"data/a": b"there"})
    one.process.send_signal(signal.SIGCONT)
    wait_until(lambda: (one.folder / "a").read_bytes() == b"there", SOON)
    with (one.folder / "a").open("ab") as file:
        file.write(b"+")
        file.flush()
        put(a_tree(kv, kv_root), {"data/a": b"2", "data/b": b"2"})
        shown(configstore, "a conflict", "a member of a set that cannot be placed")


def test_all_that_can_be_wrong_with_keys(replica, configstore, kv, kv_root, tmp_path):
    rings = {
        "lacking": ring(FIRST),
        "leading": ring(SECOND, FIRST),
        "masterly": master(SECOND, FIRST),
        "elsewhere": ring(FIRST, subtrees=(StorePath("other"),)),
    }
    made = [replica(name, more=table(save(tmp_path / f"{name}.keys", each))) for name, each in rings.items()]
    for one in made:
        one.start()
    for one in made[:3]:
        one.ready()  # what it has read is what is taken away
    (made[1].folder / "new").write_bytes(b"with the new key")
    (tmp_path / "lacking.keys").unlink()
    key = Keys(kv_root).file(StorePath("data/new"))
    wait_until(lambda: kv.range(key).items, SOON)
    put(a_tree(kv, kv_root), {"data/planted": b"plain"})
    kv.txn((), (Put(Keys(kv_root).file(StorePath("data/moved")), kv.range(key).items[0].value),))
    shown(
        configstore,
        "a key that is missing", "a plain record", "a record that was changed or moved", "a keyring that is gone",
        "a keyring of other subtrees", "a master in a sidecar", "a replica without a key",
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Return a function that runs the command against an etcd, and returns all that it prints."""

    def run(endpoints, *words, **environment):
        command = ["--endpoints", ",".join(endpoints), *words]
        done = zygote.run_text("configstore", command, os.environ | environment)
        return done.stdout + done.stderr

    return run


def test_members_that_are_down(run, tmp_path, binary_named):
    with cluster(tmp_path, binary_named("debian")) as members:
        endpoints = [member.endpoint for member in members]
        members[0].kill()
        wait_until(lambda: says("a member is down", run(endpoints, "status")), SOON)
        members[1].kill()
        wait_until(lambda: says("no quorum", run(endpoints, "status")), SOON)


def test_a_sidecar_without_rights(run, tmp_path, binary_named):
    with EmbeddedEtcd(binary=binary_named("debian"), folder=tmp_path / "etcd") as etcd:
        run([etcd.endpoint], "mkdir", "data")
        for words in (
            ("user", "add", "root:root"), ("user", "grant-role", "root", "root"), ("user", "add", "svc:svc"),
            ("role", "add", "part"), ("user", "grant-role", "svc", "part"),
            ("role", "grant-permission", "part", "readwrite", "/configstore/replicas/", "--prefix"),
            ("role", "grant-permission", "part", "read", "/configstore/asks/", "--prefix"),
            ("auth", "enable"),
        ):  # fmt: skip
            run_etcdctl(etcd.endpoint, *words)
        with Replica("one", tmp_path, [etcd.endpoint], "/configstore") as one:
            one.environment = {**one.environment, "CONFIGSTORE_USER": "svc", "CONFIGSTORE_PASSWORD": "svc"}
            one.start()
            person = {"CONFIGSTORE_USER": "root", "CONFIGSTORE_PASSWORD": "root"}
            wait_until(lambda: says("a sidecar without rights", run([etcd.endpoint], "status", **person)), SOON)
        nobody = {"CONFIGSTORE_USER": "svc", "CONFIGSTORE_PASSWORD": "svc"}
        wait_until(lambda: says("a person without rights", run([etcd.endpoint], "status", **nobody)), SOON)
