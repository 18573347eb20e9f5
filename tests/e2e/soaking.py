"""Users, observers and faults of the soak, and the replicas on which it is run."""

import contextlib
import random
import signal
import threading
import time
from collections import Counter

from configstore.client import Sidecar
from configstore.errors import CompactedError, StoreUnavailableError
from configstore.model.path import ROOT, StorePath
from configstore.model.record import Kind, sha256
from configstore.store.conflicts import losers
from configstore.store.values import Stored
from tests.harness.named import a_tree, make_root
from tests.harness.replica import Replica
from tests.harness.servers import Proxy, cluster, connect
from tests.harness.waiting import freeze, wait_until

SUBTREES = ("data", "own", "pairs", "contended")
"""What all users write; what each path's only user writes; pairs of files with one user each; a pair of all users.

Each is a mapping, so that no set spans two of them: of a set that loses a conflict, all loses.
"""

SHARED = [f"shared/{number}" for number in range(5)]
PAIR = ("cert", "key")
QUIET = 0.25
"""Seconds of quiet that close a set of `pairs`."""


class Soaked(Replica):
    """A replica of all subtrees, each in a directory of its name."""

    def mappings(self, policy):
        found = []
        for name in SUBTREES:
            (self.folder / name).mkdir(exist_ok=True)
            settle = f'settle = "{QUIET}s"' if name in {"pairs", "contended"} else ""
            found.append(f'[[mapping]]\nname = "{name}"\npath = "{self.folder / name}"\n{settle}\n{policy}\n')
        return "\n".join(found)

    def figure(self, name):
        """Return a figure's sum over all mappings."""
        lines = self.ask("/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"configstore_{name}{{"))


class User(threading.Thread):
    """Writes files of its own, and files that all users write, the way programs do."""

    def __init__(self, replica, seed):
        super().__init__(name=f"user:{replica.name}", daemon=True)
        self.replica, self.chance, self.stop = replica, random.Random(seed), threading.Event()
        self.own = {f"own/{replica.name}/{number}": None for number in range(20)}
        self.done = Counter()

    def run(self):
        for name in ("data/shared", f"own/{self.replica.name}"):
            (self.replica.folder / name).mkdir(exist_ok=True)
        shared = [f"data/{name}" for name in SHARED]
        while not self.stop.wait(self.chance.uniform(0.002, 0.05)):
            name = self.chance.choice([*self.own, *shared])
            how = self.chance.choice(["in place", "rename", "rename", "delete"])
            with contextlib.suppress(FileNotFoundError):  # a directory that was deleted elsewhere
                self.act(name, how)
                self.done[how] += 1

    def act(self, name, how):
        path = self.replica.folder / name
        content = f"{self.replica.name} {sum(self.done.values())} ".encode() * self.chance.choice([1, 200, 8000])
        if how == "delete":
            if name in self.own:
                path.unlink(missing_ok=True)
                self.own[name] = None
            return
        if how == "in place":
            path.write_bytes(content)
        else:
            hidden = path.with_name(f".{path.name}.tmp")
            hidden.write_bytes(content)
            hidden.rename(path)
        if name in self.own:
            self.own[name] = content


class PairUser(threading.Thread):
    """Writes both files of a pair, one right after the other, and waits till that set is surely closed.

    own: the pair that nobody else writes; each third time it is the one that all users write. slow: digests of
    sets between whose files the machine was so busy that they may rightly have become two.
    """

    def __init__(self, replica, seed):
        super().__init__(name=f"pairs:{replica.name}", daemon=True)
        self.replica, self.chance, self.stop = replica, random.Random(seed), threading.Event()
        self.own = f"pairs/{replica.name}"
        self.number = 0
        self.slow = set()

    def run(self):
        while not self.stop.wait(self.chance.uniform(2 * QUIET, 6 * QUIET)):
            self.number += 1
            folder = self.chance.choice([self.own, self.own, "contended/all"])
            size = self.chance.choice([1, 1, 1, 1, 1, 20_000])  # beyond what lies in a record
            content = f"{self.replica.name} {self.number} ".encode() * size
            begun = time.monotonic()
            for name in PAIR:
                path = self.replica.folder / folder / name
                path.parent.mkdir(exist_ok=True)
                hidden = path.with_name(f".{name}.tmp")
                hidden.write_bytes(content)
                hidden.rename(path)
            if time.monotonic() - begun > QUIET / 2:
                self.slow.add(sha256(content))


def label(content):
    """Return which pair a content belongs to."""
    return b" ".join(content.split(b" ", 2)[:2]).decode()


class PairObserver(threading.Thread):
    """Looks at the pairs of a replica all the time. longest: seconds for which one was mixed.

    While its user writes, a pair is mixed for a moment; while its sidecar is killed or frozen in the middle of
    placing one, until it is back.
    """

    def __init__(self, replica):
        super().__init__(name=f"observer:{replica.name}", daemon=True)
        self.replica, self.stop = replica, threading.Event()
        self.longest = 0.0
        self._since = {}

    def run(self):
        while not self.stop.wait(0.005):
            now = time.monotonic()
            for folder in self._pairs():
                if self._is_mixed(folder):
                    self._since.setdefault(folder, now)
                    self.longest = max(self.longest, now - self._since[folder])
                else:
                    self._since.pop(folder, None)

    def mixed(self):
        """Return the pairs that are mixed now."""
        return [folder.name for folder in self._pairs() if self._is_mixed(folder)]

    def _pairs(self):
        return [pair for name in ("pairs", "contended") for pair in (self.replica.folder / name).iterdir()]

    def _is_mixed(self, folder):
        try:
            first, second, again = (label((folder / name).read_bytes()) for name in (*PAIR, PAIR[0]))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return first == again != second


class Ledger(threading.Thread):
    """Follows the store and remembers every value that it ever accepted, and each set that came in two parts."""

    def __init__(self, kv):
        super().__init__(name="ledger", daemon=True)
        self.accepted, self.torn, self.tree, self.seen = set(), [], a_tree(kv), 0
        self._pairs, self._written, self._revision = {}, set(), 0
        self.watch = kv.watch(*self.tree.keys.files_below(ROOT), start_revision=1)

    def run(self):
        for batch in self.watch:
            for event in batch.events:
                if event.item.mod_revision != self._revision:
                    self._judge()
                self._revision = event.item.mod_revision
                found = self.tree.decode_item(event.item)
                assert isinstance(found, Stored), found
                if found.entry.kind is Kind.FILE:
                    self.accepted.add((found.path, found.entry.sha256))
                    self._note(found)
            self._judge()
            self.seen = batch.revision

    def _note(self, found):
        folder, _, name = found.path.rpartition("/")
        if folder.startswith(("pairs/", "contended/")):
            self._pairs.setdefault(folder, {})[name] = found
            self._written.add(folder)

    def _judge(self):
        """Remember a pair that the last transaction wrote a half of, once both are there."""
        for folder in self._written:
            pair = self._pairs[folder]
            if len(pair) == len(PAIR) and len({found.mod_revision for found in pair.values()}) > 1:
                self.torn.append((folder, *sorted((at.mod_revision, at.entry.sha256) for at in pair.values())))
        self._written.clear()


class Trouble:
    """Kills, freezes and cuts at random what is there."""

    def __init__(self, chance, members, replicas, proxies, ledger):
        self.chance, self.members, self.replicas, self.proxies = chance, members, replicas, proxies
        self.ledger = ledger
        self.done = Counter()

    def make(self):
        """Spoil something; returns how it is mended."""
        kinds = [self.kill_sidecar, self.kill_sidecar, self.kill_etcd, self.freeze_etcd, self.freeze_sidecar]
        act = self.chance.choice(
            [*kinds, self.compact, self.lose_answers, self.lose_answers, self.stall, self.cut]
        )
        self.done[act.__name__.replace("_", " ")] += 1
        return act()

    def kill_sidecar(self):
        replica = self.chance.choice(self.replicas)
        replica.end(signal.SIGKILL)
        return replica.start

    def kill_etcd(self):
        member = self.chance.choice(self.members)
        member.kill()
        return lambda: member.start(wait=False)

    def freeze_etcd(self):
        return self._freeze(self.chance.choice(self.members).process)

    def freeze_sidecar(self):
        return self._freeze(self.chance.choice(self.replicas).process)

    def _freeze(self, process):
        freeze(process)
        return lambda: process.send_signal(signal.SIGCONT)

    def compact(self):
        with (
            connect(*(each.endpoint for each in self.members)) as kv,
            contextlib.suppress(CompactedError, StoreUnavailableError),  # a member may be away just then
        ):
            kv.compact(min(kv.status().revision - 100, self.ledger.seen))
        return lambda: None

    def lose_answers(self):
        return self._on_the_way(Proxy.lose_answers)

    def stall(self):
        return self._on_the_way(Proxy.freeze)

    def cut(self):
        return self._on_the_way(Proxy.cut)

    def _on_the_way(self, spoil):
        """Spoil one replica's way to all members, or to some."""
        ways = self.chance.choice(list(self.proxies.values()))
        chosen = self.chance.choice([ways, ways, self.chance.sample(ways, 1)])
        for proxy in chosen:
            spoil(proxy)
        return lambda: [proxy.heal() for proxy in chosen]


@contextlib.contextmanager
def three_replicas(base, binary, policy, kind=Replica, subtrees=("data",), *, proxied=False):
    """Run three ready replicas, each preferring another member of a cluster of three.

    proxied: each reaches each member by a proxy of its own. Yields a client of the store, the members, the
    replicas, and their proxies by name.
    """
    with contextlib.ExitStack() as stack:
        members = stack.enter_context(cluster(base / "cluster", binary))
        endpoints = [each.endpoint for each in members]
        kv = stack.enter_context(connect(*endpoints))
        for subtree in subtrees:
            make_root(kv, subtree)
        replicas, proxies = [], {}
        for place, name in enumerate(("one", "two", "three")):
            order = endpoints[place:] + endpoints[:place]
            ports = [int(each.rpartition(":")[2]) for each in order]
            proxies[name] = [stack.enter_context(Proxy(port)) for port in ports] if proxied else []
            order = [proxy.endpoint for proxy in proxies[name]] or order
            replicas.append(stack.enter_context(kind(name, base, order, "/configstore", policy)).start())
        yield kv, members, [each.ready() for each in replicas], proxies


def calm(replicas):
    """Tell whether all replicas show the same and wait for nothing."""
    trees = [each.tree() for each in replicas]
    return trees[0] == trees[1] == trees[2] and all(map(rests, replicas))


def rests(replica):
    """Tell whether a replica has nothing to do; that a set is of two hands is still said when all is done."""
    mappings = Sidecar(str(replica.shared / "control.sock")).ask("GET", "/v1/status")["mappings"]
    problems = [problem["reason"] for each in mappings for problem in each["problems"]]
    waits = any(each["pending"] or each["waiting_for"] or each["halted"] for each in mappings)
    return not waits and all(reason.startswith("another replica's version won") for reason in problems)


def conflicts_below(tree, directory):
    return [found.path for found in losers(tree, StorePath(directory))]


def end_of(ledger, kv):
    """Wait until the ledger has seen all that was written."""
    pages = kv.range(*ledger.tree.keys.files_below(ROOT), keys_only=True)
    last = max(item.mod_revision for item in pages.items)
    wait_until(lambda: ledger.seen >= last, 30, what="the ledger to see the end")
    ledger.watch.close()
