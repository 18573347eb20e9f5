"""A mirror of a real directory over the reference store, told by the test what the store does."""

import msgspec

from configstore.model.keys import Keys
from configstore.model.record import Entry, Kind, sha256
from configstore.store.tree import Tree
from configstore.store.values import Write, Writer
from sidecar.cycle.mirror import Mirror
from sidecar.mapping import Mapping
from tests.harness.trees import tree as files_in
from tests.memory_store.store import MemoryKv


class Following:
    """A mirror and the feed by which it is told what the store does."""

    since = None

    def __init__(self, folder, store, *, subtree="data", patience=10.0, state=lambda *_: None):
        self.subtree, self.state = subtree, state
        self.folder, self.store, self.now = folder, store, 1000.0
        ids = iter(range(1000))
        writer = Writer(replica="r", host="h", now=lambda: "", new_id=lambda: f"w{next(ids)}-{id(self)}")
        self.tree = Tree(MemoryKv(store), Keys(), writer, patience=patience)
        self.begin()

    def begin(self):
        mapping = Mapping(name="data", store=self.subtree, path=str(self.folder))
        self.error = None
        self.mirror = Mirror(mapping, self.tree, feed=self, clock=lambda: self.now, state=self.state)
        self.engine = self.mirror.engine
        self.news = []
        self.list_again()

    def begin_anew(self):
        self.mirror.close()
        self.begin()

    def connect_to(self, store):
        """The watch is cut, and another store answers from now on."""
        self.answer_from(store)
        self.follow()

    def answer_from(self, store):
        self.store = store
        self.tree.kv = self.tree._chunks._kv = MemoryKv(store)

    def follow(self):
        """Bring what the watch sees from where it was, as after a reconnect."""
        start, end = self.tree.keys.files_at(self.subtree)
        watch = self.tree.kv.watch(start, end, start_revision=self.engine._remote.revision + 1)
        batches = iter(watch)
        self.news.append(next(batches))
        if self.store.revision > self.engine._remote.revision and self.store.since(start, end, watch._next):
            self.news.append(next(batches))
        watch.close()

    def drain(self):
        news, self.news = self.news, []
        return news

    def list_again(self):
        known = self.engine._remote.highest
        self.news.append(msgspec.structs.replace(self.tree.list(self.subtree), known=known))

    def cycle(self, seconds=61.0):
        self.now += seconds
        self.engine.cycle()
        return self.engine.status

    def put(self, name, content, kind=Kind.FILE):
        path = f"{self.subtree}/{name}".strip("/")
        found = self.tree.read(path)
        write = Write(path=path, entry=an_entry(kind, content), content=content if kind is Kind.FILE else None)
        self.tree.commit([Write(path=path, entry=write.entry, content=write.content,
                                expected=found.mod_revision if found else 0)], retention=60)  # fmt: skip

    def contents(self):
        return {name: (self.folder / name).read_bytes() for name in files_in(self.folder)}

    def close(self):
        self.mirror.close()


def an_entry(kind, content):
    if kind is Kind.DIR:
        return Entry(kind=kind, mode=0o755)
    return Entry(kind=kind, mode=0o600, size=len(content), sha256=sha256(content))
