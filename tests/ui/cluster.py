"""Three real sidecars with faults for the page: one halted, one that lost conflicts, one frozen; private files."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from configstore.model.record import Kind
from configstore.store.api import Kv
from configstore.store.conflicts import all_sides
from configstore.store.tree import Tree
from tests.harness.named import GONE, a_dir, a_file, a_tree, put
from tests.harness.replica import ENVIRONMENT, Replica
from tests.harness.servers import connect
from tests.harness.waiting import wait_until

SECRET = "hunter2-never-sent"
"""Stands in every private file's content, and nowhere else."""

OPEN = "banner = welcome"
"""Stands in a file that everybody may read."""


class Three(Replica):
    """A sidecar with three mappings in folders of its own."""

    def mappings(self, policy: str) -> str:
        """Return the settings of its mappings."""
        return "\n".join(
            f'[[mapping]]\nname = "{name}"\nstore = "{store}"\npath = "{self.folder}/{name}"\n{policy}'
            for name, store in (("overrides", "overrides"), ("dkim", "dkim"), ("certs", "certs"))
        )

    def read(self, path: str) -> str:
        """Return a mirrored file's text; nothing while it is not there."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / path).read_text()
        return ""


@dataclass
class Cluster:
    """What runs: `one` is halted in overrides, `two` lost conflicts there, `three` is frozen.

    tree: for quick looks.
    """

    endpoint: str
    root: str
    tree: Tree
    replicas: dict[str, Three] = field(default_factory=dict)

    def put(self, path: str, text: str, mode: int = 0o644, kind: Kind = Kind.FILE) -> int:
        """Write a path as a command does, without the time that a process takes; returns its revision."""
        content = text.encode()
        what = {Kind.FILE: (a_file(content, mode), content), Kind.DIR: a_dir(mode), Kind.GONE: GONE}[kind]
        return put(self.tree, {path: what})

    def get(self, path: str) -> str:
        """Return a file's content."""
        return self.tree.content(self.tree.read(path)).decode()

    def revision(self, path: str) -> int:
        """Return a path's revision, 0 for none."""
        found = self.tree.read(path)
        return found.mod_revision if found else 0


def tree_of(kv: Kv, root: str, **options: object) -> Tree:
    """Return a tree that writes as the command does."""
    return a_tree(kv, root, replica="cli", host="mail-1", now="2026-11-24T03:00:00Z", **options)


@contextlib.contextmanager
def cluster(endpoint: str, root: str, folder: Path) -> Iterator[Cluster]:
    """Run three replicas until every fault has shown."""
    with contextlib.ExitStack() as stack:
        found = Cluster(endpoint, root, tree_of(stack.enter_context(connect(endpoint)), root))
        for name in ("overrides", "dkim", "certs"):
            found.put(name, "", 0o755, Kind.DIR)
        for name in ("one", "two", "three"):
            replica = Three(name, folder, [endpoint], root)
            for mapping in ("overrides", "dkim", "certs"):
                (replica.folder / mapping).mkdir()
            found.replicas[name] = replica
            stack.callback(replica.__exit__)
            replica.start()
        one, two, three = (found.replicas[name].ready() for name in ("one", "two", "three"))
        _lay(one.folder)
        every = [each.folder for each in (one, two, three)]
        wait_until(
            lambda: all((each / "overrides/many/29").exists() for each in every), 30, what="files everywhere"
        )
        wait_until(lambda: all((each / "dkim/example.org.dkim.key").exists() for each in every), 30)
        (one.folder / "overrides/postfix.cf").write_text(f"{OPEN} to all\nmaxsize = 10\n")
        wait_until(lambda: "to all" in two.read("overrides/postfix.cf"), 30)
        _conflict(found, one, two)
        three.process.send_signal(signal.SIGSTOP)
        stack.callback(three.process.send_signal, signal.SIGCONT)
        delete_many(one)
        yield found


def delete_many(replica: Three) -> None:
    """Have a replica halt."""
    for number in range(30):
        (replica.folder / f"overrides/many/{number}").unlink()
    wait_until(lambda: "refused to delete" in replica.ask("/readyz")[1], 30, what="a halt")


def _lay(folder: Path) -> None:
    """Write what the replicas mirror: what everybody may read, and what nobody but the owner may."""
    (folder / "overrides/many").mkdir()
    for number in range(30):
        (folder / f"overrides/many/{number}").write_text("x")
    (folder / "overrides/postfix.cf").write_text(f"{OPEN}\nmaxsize = 10\n")
    (folder / "overrides/logo.bin").write_bytes(bytes(range(256)) * 8)
    for name in ("dkim/example.org.dkim.key", "overrides/sasl.txt"):
        with open(os.open(folder / name, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{SECRET} 1\n")
    (folder / "overrides/open.key").write_text(f"{SECRET} 2\n")  # everybody may read it, and yet it is a key
    (folder / "certs/cert.pem").write_text("certificate\n")


def _conflict(found: Cluster, one: Three, two: Three) -> None:
    """Have `two` lose conflicts about a file for everybody, and about a private one."""
    edits = (("overrides/main.conf", "one says 1\nboth\n", "two says 2\nboth\n", 0o644),)
    edits += (("overrides/sasl.txt", f"{SECRET} 3\n", f"{SECRET} 4\n", 0o600),)
    two.process.send_signal(signal.SIGSTOP)
    for path, ours, theirs, mode in edits:
        for folder, text in ((one.folder, ours), (two.folder, theirs)):
            with open(os.open(folder / path, os.O_CREAT | os.O_WRONLY, mode), "w", encoding="utf-8") as file:
                file.write(text)
    wait_until(lambda: found.revision("overrides/main.conf"), 30)
    wait_until(lambda: found.get("overrides/sasl.txt").endswith("3\n"), 30)
    two.process.send_signal(signal.SIGCONT)
    wait_until(lambda: len(all_sides(found.tree, "overrides")) == 2, 30, what="two losing sides")


class Ui:
    """A running `configstore ui`: its address, and what its token opens."""

    def __init__(self, found: Cluster, *options: str, endpoint: str = "", **variables: str) -> None:
        command = [sys.executable, "-m", "configstore", "--endpoints", endpoint or found.endpoint, "--root"]
        self.process = subprocess.Popen(
            [*command, found.root, "ui", "--no-browser", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT | variables,
            text=True,
        )
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()
        assert self.url, self.process.communicate()[1]
        parts = urllib.parse.urlsplit(self.url)
        self.port = parts.port
        self.origin = f"{parts.scheme}://{parts.netloc}"

    def end(self) -> int:
        """Stop it as Ctrl-C does, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=20)
        return self.process.returncode
