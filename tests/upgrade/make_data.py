"""Makes `data/store.jsonl` and `data/replicas.tar.xz` by 0.1.0: `python -m tests.upgrade.make_data`, as root."""

import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.harness.servers import connect
from tests.harness.trees import tree
from tests.harness.waiting import freeze, wait_until
from tests.upgrade.kept import (
    FINAL,
    LARGE,
    LARGER,
    LOST,
    REPLICAS,
    ROOT,
    STORE,
    USER,
    VERSIONS,
    empty_etcd,
    history,
)  # fmt: skip
from tests.upgrade.versions import Command, Upgradable, unpacked


def write(folder: Path, name: str, content: bytes, mode: int = 0o644, user: int = 0, group: int = 0) -> None:
    """Write a file as programs do that mind others: beside it, then renamed over it."""
    new = folder / f".{os.path.basename(name)}.new"
    new.write_bytes(content)
    new.chmod(mode)
    os.chown(new, user, group)
    new.rename(folder / name)


def equal(one: Upgradable, two: Upgradable, command: Command) -> None:
    """Wait until both replicas and the store hold the same."""
    command("flush", "data")
    wait_until(lambda: one.tree() == two.tree(), what="equal trees")
    wait_until(lambda: not any((each.private / "intent").stat().st_size for each in (one, two)), what="agreement")


def fill(one: Upgradable, two: Upgradable, command: Command) -> None:
    """Have every kind of record come to be."""
    (one.folder / "long").mkdir(mode=0o750)
    os.chown(one.folder / "long", USER, USER)
    for name, (kind, mode, (user, group), content) in FINAL.items():
        if kind == "file" and name not in {"app.ini", "disputed", "later", "long/large"}:
            write(one.folder, name, content, mode, user, group)
        elif kind == "symlink":
            (one.folder / name).symlink_to(content.decode())
    for content, large in zip(VERSIONS[:2], (LARGE, LARGER), strict=True):
        write(one.folder, "app.ini", content, 0o640, USER, USER)
        write(one.folder / "long", "large", large)
        equal(one, two, command)
    for name in ("removed", "removed-later"):
        write(two.folder, name, b"soon gone\n")
    write(two.folder, "disputed", b"what both had\n")
    equal(one, two, command)
    (two.folder / "removed").unlink()
    equal(one, two, command)


def dispute(one: Upgradable, two: Upgradable, command: Command) -> None:
    """Have both change one path at once."""
    freeze(two.process)
    write(one.folder, "disputed", FINAL["disputed"][3])
    wait_until(lambda: command("get", "data/disputed") == FINAL["disputed"][3], what="one has written")
    write(two.folder, "disputed", LOST)
    two.process.send_signal(signal.SIGCONT)
    wait_until(lambda: (two.folder / "disputed").read_bytes() == FINAL["disputed"][3], what="two has lost")
    equal(one, two, command)


def go_on(one: Upgradable, command: Command) -> None:
    """Change what the other replica will not hear of."""
    write(one.folder, "app.ini", VERSIONS[2], 0o640, USER, USER)
    write(one.folder, "later", FINAL["later"][3])
    (one.folder / "removed-later").unlink()
    wait_until(lambda: b"removed-later" not in command("ls", "data"), what="one has deleted")
    wait_until(lambda: command("get", "data/later", code=None) == FINAL["later"][3], what="one has written")
    wait_until(lambda: command("get", "data/app.ini") == VERSIONS[2], what="one has changed it")


def main() -> None:
    """Make both files anew."""
    if os.geteuid():
        sys.exit("make_data: the files have owners: run it as root")
    os.umask(0o022)
    with unpacked() as old, tempfile.TemporaryDirectory() as name, empty_etcd(Path(name, "etcd")) as etcd:
        folder = Path(name)
        Upgradable.old = old
        command = Command(etcd.endpoint, ROOT, old)
        command("mkdir", "data")
        with (
            Upgradable("one", folder, [etcd.endpoint], ROOT) as one,
            Upgradable("two", folder, [etcd.endpoint], ROOT) as two,
        ):
            for each in (one, two):
                each.run_by("0.1.0").start().ready()
            fill(one, two, command)
            dispute(one, two, command)
            two.end(signal.SIGKILL)
            go_on(one, command)
            words = ["run", "--lease", "letsencrypt", "--", "sh", "-c", "echo begun; exec sleep 600"]
            holder = subprocess.Popen(
                [sys.executable, "-m", "configstore", "--endpoints", etcd.endpoint, "--root", ROOT, *words],
                env=old, stdout=subprocess.PIPE,
            )  # fmt: skip
            assert holder.stdout
            assert holder.stdout.readline() == b"begun\n"
            holder.kill()
            holder.wait()
            one.end(signal.SIGKILL)
            assert set(tree(one.folder)) == set(FINAL)
            with connect(etcd.endpoint) as kv:
                STORE.write_text("\n".join(history(kv, etcd.endpoint)) + "\n")
            with tarfile.open(REPLICAS, "w:xz") as archive:
                for each in (one, two):
                    archive.add(each.folder, each.name)


if __name__ == "__main__":
    main()
