"""Replicas of the real engine over the store in memory, driven step by step in one thread.

Files and inotify are real; clock, store and network are not. Something happens at the n-th call of a kind: the
store refuses it, loses its answer or gets it only later; the process dies there; a user acts at just that moment,
or another replica makes a whole cycle. News of the store, and of the kernel, can be late; compactions, restored
snapshots and raw deletes come between. After a crash, or a wipe of its directory, a replica starts again as a new
process would.
"""

import contextlib
import itertools
from pathlib import Path

from configstore.errors import CompactedError, StoreError
from configstore.model.path import StorePath
from configstore.model.record import Kind, Origin, Record, RecordError, decode, sha256
from configstore.model.replica import Request, Take, Verb
from configstore.model.seal import Policy, SealedKind
from configstore.store.api import Delete, Exists, Put
from configstore.store.envelope import Envelopes
from configstore.store.history import versions_below
from tests.harness.keyrings import FIRST, ring
from tests.harness.named import a_dir, a_file, a_tree, a_write
from tests.harness.trees import look, tree
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv
from tests.simulation.edges import KEYS, SUBTREE
from tests.simulation.faults import Fault
from tests.simulation.replica import PAIR, RETENTIONS, Replica

__all__ = ["KEYS", "PAIR", "SUBTREE", "Fault", "Replica", "World"]

RETENTION = max(RETENTIONS)


class World:
    """One store and some replicas. `now` is the engines' clock, in seconds; `age` the store's.

    sealed: everything is stored sealed, and nothing plain is believed.
    """

    def __init__(self, base: Path, count=2, policies=({},), *, sealed=False):
        policy = Policy.REQUIRED if sealed else Policy.OFF
        self.envelopes = Envelopes(KEYS.root, keyring=ring(FIRST) if sealed else None, policy=lambda _: policy)
        self.base, self.now, self.age = base, 1000.0, 0.0
        self.ids = itertools.count()
        self.store = MemoryStore(clock=lambda: self.age)
        self.kv = MemoryKv(self.store)
        self.delayed = []  # transactions under way whose senders gave up
        self.accepted = set()  # (path, digest) of every value that the store ever held
        self.was_current = {}  # by path: the write ids that were its current record, in order
        self.deleted = set()  # what a user deleted or moved away
        self.pairs = {}  # by digest: the number of the pair to which a content belongs
        self.tree = a_tree(self.kv, replica="hand", envelopes=self.envelopes)
        self.tree.commit([a_write(SUBTREE, a_dir())], retention=RETENTION)
        self.snapshot = self.store.snapshot()
        self.restored = self.chosen = False
        self.replicas = [
            Replica(self, f"r{number}", **policies[number % len(policies)]) for number in range(count)
        ]

    def records(self, kind):
        """Return what lies below `files`, `past` or `conflicts`: path and record, in order."""
        prefix = f"/configstore/{kind}/".encode()
        place = SealedKind.CONFLICT if kind == "conflicts" else SealedKind.RECORD
        found = []
        for item in self.kv.range(prefix, prefix[:-1] + b"0").items:
            path = StorePath(item.key[len(prefix) :].decode().partition("//")[0])
            with contextlib.suppress(RecordError):
                found.append((path, self.envelopes.decode(path, item.value, place)))
        return found

    def known(self):
        """Return the digests of all contents that can be had back."""
        return {record.entry.sha256 for kind in ("files", "past", "conflicts") for _, record in self.records(kind)}

    def note_accepted(self):
        """Remember every value that the store holds now; none that was superseded may be among them."""
        for path, record in self.records("files"):
            if record.entry.kind is Kind.FILE:
                self.accepted.add((path, record.entry.sha256))
            ids, now = self.was_current.setdefault(path, []), record.origin.write_id
            assert now not in ids[:-1], f"{path}: a superseded value is current again\n{self.describe()}"
            if ids[-1:] != [now]:
                ids.append(now)
        self.check_stored_pair()

    def agrees(self, replica, name):
        """Tell whether a file is just what the store holds."""
        found, path = look(replica.folder / name), f"{SUBTREE}/{name}"
        held = {at: record.entry.sha256 for at, record in self.records("files")}
        return found is not None and held.get(path) == found[2]

    def delay(self, compares, operations):
        """Take a transaction that is on its way, with what it was meant to replace."""
        self.delayed.append((compares, operations, self.mod_revisions(operations)))

    def mod_revisions(self, operations):
        """Return the revisions of the records that operations write."""
        prefix = KEYS.file("")
        keys = [each.key for each in operations if isinstance(each, Put) and each.key.startswith(prefix)]
        return {key: [item.mod_revision for item in self.kv.range(key).items] for key in keys}

    def land(self):
        """Let what was on its way arrive. It may not overwrite what came in meanwhile."""
        delayed, self.delayed = self.delayed, []
        for compares, operations, meant in delayed:
            found = self.mod_revisions(operations)
            with contextlib.suppress(StoreError, ValueError):
                landed = self.store.commit(compares, operations, ()).succeeded
                assert not landed or found == meant, f"a timed-out write overwrote a newer one\n{self.describe()}"
        self.note_accepted()

    def compact(self):
        """Forget what was superseded."""
        with contextlib.suppress(CompactedError):
            self.store.compact(self.store.revision)

    def back_up(self):
        """Take a snapshot for `restore`."""
        self.snapshot = self.store.snapshot()

    def restore(self):
        """Put the store back to its snapshot; what was accepted since counts no longer."""
        self.store.restore(self.snapshot)
        self.restored = True
        self.delayed.clear()
        self.accepted.clear()
        self.was_current.clear()
        for replica in self.replicas:
            replica.feed.reconnected = True

    def vanish(self, name):
        """Remove a record without a tombstone, as a person with etcdctl may; its history stays."""
        key = KEYS.file(f"{SUBTREE}/{name}")
        found = self.kv.range(key).items
        if found:
            past = KEYS.past(f"{SUBTREE}/{name}", found[0].mod_revision)
            self.kv.txn((Exists(key),), (Delete(key), Put(past, found[0].value)))  # so that no value is missed

    def expire_tombstones(self):
        """Remove what lies in the store for a while only, as etcd does: tombstones, and nothing else."""
        for item in [item for item in self.kv.range(*KEYS.files_below("")).items if item.lease]:
            assert decode(item.value).entry.kind is Kind.GONE, f"{item.key} would expire"
            self.kv.txn((Exists(item.key),), (Delete(item.key),))

    def put_by_hand(self, name, content):
        """Write a record as a person with etcdctl may: nothing is compared, and what was there is not kept."""
        path = f"{SUBTREE}/{name}"
        key = KEYS.file(path)
        for item in self.kv.range(key).items:
            self.accepted.discard((path, self.envelopes.decode(path, item.value).entry.sha256))
        entry = a_file(content)
        origin = Origin(write_id=f"w{next(self.ids)}", replica="", host="", time="")
        record = Record(entry=entry, origin=origin, content=content)
        self.kv.txn((), (Put(key, self.envelopes.writing(path).encode(record)),))

    def check_pair(self, replica):
        """Fail when a replica shows halves of two sets, though its user is not in the middle of writing one."""
        found = replica.shown_pair()
        assert len(found) <= 1 or replica.user.half_way, (
            f"{replica.name} shows a torn set: {found}\n{self.describe()}"
        )

    def check_stored_pair(self):
        """Fail when the store holds halves of two sets, or replaced a set in several transactions."""
        found = [self.tree.read(f"{SUBTREE}/{name}") for name in PAIR]
        numbers = {self.pairs.get(each.entry.sha256) for each in found if each}
        assert len(numbers) <= 1, f"the store holds a torn set: {numbers}\n{self.describe()}"
        replaced = all(each and each.record.origin.supersedes for each in found)
        revisions = {each.mod_revision for each in found if each}
        assert not replaced or len(revisions) <= 1, f"the store replaced a set in parts\n{self.describe()}"

    def check_kept(self):
        """Fail when something that is kept is not whole; also once the shortest retention is over."""
        for _ in range(2):
            for versions in versions_below(self.tree, StorePath(SUBTREE)).values():
                for version in versions.known:
                    if version.entry.kind is Kind.FILE:
                        assert sha256(self.tree.content(version)) == version.entry.sha256
            self.age += 2 * min(RETENTIONS)
            self.store.expire_due()

    def heal(self, take=Take.STORE, rounds=30, *, still=1):
        """Let everybody work without faults, and a person choose, until nothing is left to do.

        still: for so many rounds nothing must happen any more.
        """
        for replica in self.replicas:
            replica.user.leave()
            replica.unreadable.clear()
            replica.away = replica.watch.late = False
        self.land()
        quiet = 0
        for _ in range(rounds):
            revision, trees = self.store.revision, [tree(replica.folder) for replica in self.replicas]
            for replica in self.replicas:
                self.choose(replica, take)
                self.now += 61.0
                replica.cycle()
                self.now += 61.0
                replica.cycle()
                self.note_accepted()
            same = trees == [tree(replica.folder) for replica in self.replicas]
            idle = not any(replica.busy() for replica in self.replicas)
            quiet = quiet + 1 if same and idle and revision == self.store.revision else 0
            if quiet == still:
                return
        raise AssertionError(f"never became quiet; {self.describe()}")

    def choose(self, replica, take):
        """End a halt and anomalies as a person does."""
        status = replica.mirror.engine.status
        wanted = {"verb": Verb.RESUME, "by": "ann@h", "mapping": SUBTREE}
        if status.halted:
            self.check_halt(replica, status.halted)
            self.chosen = True
            replica.mirror.request(Request(id="halt", take=take, reason=status.halted, **wanted))
        elif replica.problems():
            replica.mirror.request(Request(id="vanished", take=Take.LOCAL, **wanted))

    def check_halt(self, replica, reason):
        """Fail when a replica halted without a reason."""
        assert self.restored, f"{replica.name} halted without a reason: {reason}\n{self.describe()}"

    def describe(self):
        """Return what lies where, for a failing example."""
        lines = [
            f"{path}: {record.entry.kind} {(record.content or b'')[:40]}" for path, record in self.records("files")
        ]
        lines += [f"lost {path}: {(record.content or b'')[:40]}" for path, record in self.records("conflicts")]
        lines += [
            f"{replica.name}: {tree(replica.folder)} {replica.mirror.engine.status}" for replica in self.replicas
        ]
        return "\n".join(lines)

    def close(self):
        """End all replicas."""
        for replica in self.replicas:
            replica.user.leave()
            replica.end()
