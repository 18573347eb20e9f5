"""A mirror of a real directory over the reference store, told by the test what the store does."""

from typing import Self

import msgspec

from sidecar.cycle.mirror import Mirror
from sidecar.mapping import Mapping
from tests.harness.named import a_dir, a_tree, files_in, put
from tests.harness.trees import tree as look_at_all
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv
from tests.simulation.edges import Watch


class Following:
    """A mirror and the feed by which it is told what the store does. Its directory is made if need be.

    now: the mirror's clock, in seconds. local_watch: what tells it of changes here; None: it looks at everything.
    """

    since = None

    def __init__(
        self, folder, store=None, *, subtree="data", patience=10.0, state=lambda *_: None, local_watch=None
    ):
        self.subtree, self.state, self.local_watch = subtree, state, local_watch
        self.folder, self.store, self.now = folder, store or MemoryStore(clock=lambda: 0.0), 1000.0
        folder.mkdir(exist_ok=True)
        self.tree = a_tree(MemoryKv(self.store), patience=patience)
        self.begin()

    def begin(self):
        mapping = Mapping(name="data", store=self.subtree, path=str(self.folder))
        self.error = None
        self.mirror = Mirror(
            mapping,
            self.tree,
            feed=self,
            clock=lambda: self.now,
            state=self.state,
            local_watch=self._begin_watch if self.local_watch else None,
        )
        self.engine = self.mirror.engine
        self.news = []
        self.list_again()

    def _begin_watch(self):
        self.watch = self.local_watch()
        return self.watch

    def begin_anew(self):
        self.mirror.close()
        self.begin()

    def connect_to(self, store):
        """The watch is cut, and another store answers from now on."""
        self.answer_from(store)
        self.follow()

    def answer_from(self, store):
        self.store = store
        self.tree.kv.store = store

    def follow(self):
        """Bring what the watch sees from where it was, as after a reconnect."""
        start, end = self.tree.keys.files_at(self.subtree)
        seen = self.engine.remote.revision
        watch = self.tree.kv.watch(start, end, start_revision=seen + 1)
        batches = iter(watch)
        self.news.append(next(batches))
        if self.store.revision > seen and self.store.since(start, end, watch.next):
            self.news.append(next(batches))
        watch.close()

    def drain(self):
        news, self.news = self.news, []
        return news

    def list_again(self):
        known = self.engine.remote.highest
        self.news.append(msgspec.structs.replace(self.tree.list(self.subtree), known=known))

    def cycle(self, seconds=61.0):
        self.now += seconds
        self.engine.cycle()
        return self.engine.status

    def put(self, name, what):
        """Write a file, by its content, or an entry to the store."""
        put(self.tree, {f"{self.subtree}/{name}".strip("/"): what}, retention=60)

    def agree(self, **contents):
        """Have the store hold the subtree with some files, and the directory as well."""
        if self.subtree not in self.tree.list(self.subtree).records:
            self.put("", a_dir())
        for name, content in contents.items():
            self.put(name, content)
        self.list_again()
        return self.cycle()

    def contents(self):
        """Return the contents of the files here."""
        return {name: (self.folder / name).read_bytes() for name in look_at_all(self.folder)}

    def stored(self):
        """Return the contents of the files in the store."""
        return files_in(self.tree, self.subtree)

    def send(self):
        """Let some windows pass."""
        for _ in range(3):
            self.cycle(0.5)

    def close(self):
        self.mirror.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_):
        self.close()


def watched(folder):
    """Return a replica that is told by inotify of what is done in its directory, and not asked to look."""
    return Following(folder, local_watch=Watch)
