"""The real program, killed before each system call that renames, unlinks or links: no half of anything is left.

strace delivers the SIGKILL. A set of every sort is pulled; after each kill what lies there is looked at, and the
next start must finish it, etcd or no etcd.
"""

import itertools
import os
import shutil
import subprocess
import sys

import pytest

from configstore.embedded import free_ports
from configstore.model.record import Kind
from tests.harness.named import GONE, a_dir, a_link, a_tree, a_write
from tests.harness.programs import missing
from tests.harness.replica import ENVIRONMENT, Replica
from tests.harness.servers import connect
from tests.harness.trees import tree

CALLS = "renameat2,rename,renameat,unlink,unlinkat,link,linkat,symlink,symlinkat,rmdir,mkdir,mkdirat"


@pytest.fixture
def strace():
    found = shutil.which("strace")
    return found or missing("strace", "apt-get install strace")


def state(number):
    """Return the set number n: two files that belong together, and things that come, go and change their kind."""
    files = {"cert": b"%d" % number, "key": b"%d" % number}
    if number % 2:
        return files | {"link": "cert", "new": b"new", "kind": None, "kind/inner": b"inner"}
    return files | {"link": "key", "d": None, "d/x": b"x", "kind": b"a file"}


def what_of(content):
    """Return what a state's value stands for: a directory, a link or a file."""
    return a_dir() if content is None else a_link(content) if isinstance(content, str) else content


def put(store, number):
    """Bring the store from one state to the next, in one transaction."""
    now = {path: found for path, found in store.list("data").records.items() if path != "data"}
    wanted = {f"data/{name}": content for name, content in state(number).items()}
    writes = [
        a_write(path, what_of(content), now[path].mod_revision if path in now else 0)
        for path, content in wanted.items()
    ]
    gone = [found for path, found in now.items() if path not in wanted and not found.gone]
    writes += [
        a_write(found.path, GONE, found.mod_revision)
        for found in sorted(gone, key=lambda found: -found.path.count("/"))
    ]
    outcome = store.commit(writes, retention=60)
    assert outcome.complete
    assert len(set(outcome.done.values())) == 1


def look(folder):
    """Return what lies there by path: content, a link's target, or None for a directory."""
    found = {}
    for path, what in tree(folder).items():
        if what is not None:
            here = folder / path
            found[path] = (
                what[2] if what[0] == Kind.SYMLINK else here.read_bytes() if what[0] == Kind.FILE else None
            )
    return found


def check_whole(found, number):
    """Fail when something is neither of the state before nor of the one after."""
    before, after = state(number - 1), state(number)
    for path, content in found.items():
        fine = [wanted[path] for wanted in (before, after) if path in wanted]
        assert content in fine, f"{path} is neither old nor new: {content!r}"
    for path in before.keys() & after.keys():
        assert path in found or path == "kind", f"{path} is gone"


class Sweep:
    """A replica that is killed in the middle of a set, time and again."""

    def __init__(self, strace, store, replica):
        self.strace, self.store, self.replica, self.number = strace, store, replica, 0
        nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
        self.away = Replica("away", replica.folder.parent, [nobody], store.keys.root)
        text = self.away.settings.read_text().replace(str(self.away.folder), str(replica.folder))
        self.away.settings.write_text(text.replace('timeout = "3s"', 'timeout = "50ms"'))
        put(store, 0)
        assert replica.command("init").returncode == 0

    def init(self, *options):
        """Bring the next set into the store and pull it under strace; returns the exit code."""
        self.number += 1
        put(self.store, self.number)
        init = [sys.executable, "-B", "-m", "sidecar", "init", "--config", str(self.replica.settings)]
        command = [self.strace, "-f", "-qq", *options, *init]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60, check=False).returncode

    def calls(self, trace):
        """Return which calls a pull makes."""
        assert self.init("-o", str(trace), "-e", f"trace={CALLS}") == 0
        return sorted({line.split()[1].partition("(")[0] for line in trace.read_text().splitlines()})

    def kill(self, call, step):
        """Kill it at the n-th call of a kind, let the next start finish; returns whether there was such a call."""
        trace = ["-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={step}"]
        killed = self.init(*trace) != 0
        check_whole(look(self.replica.folder), self.number)
        assert self.away.command("init", "--timeout", "0s").returncode == 4
        found = look(self.replica.folder)
        assert found["cert"] == found["key"], f"killed at {call} {step}, the next start left a torn set"
        again = self.replica.command("init")
        assert again.returncode == 0, again.stderr
        assert look(self.replica.folder) == state(self.number)
        assert os.listdir(self.replica.folder / ".configstore/staging") == []
        return killed


def test_a_kill_at_any_call_leaves_no_half_of_a_set(strace, etcd, kv_root, tmp_path):
    with connect(etcd.endpoint) as kv:
        store = a_tree(kv, kv_root)
        store.commit([a_write("data", a_dir())], retention=60)
        sweep = Sweep(strace, store, Replica("one", tmp_path, [etcd.endpoint], kv_root))
        kills = {}
        for call in sweep.calls(tmp_path / "trace"):
            kills[call] = next(step for step in itertools.count(1) if not sweep.kill(call, step)) - 1
    assert kills["renameat2"] >= 5, kills
    assert sum(kills.values()) >= 10, kills
