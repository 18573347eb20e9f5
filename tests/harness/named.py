"""Named values that many tests need: entries, trees, and what is put into a store by hand."""

import itertools

from configstore.model.keys import DEFAULT_ROOT, Keys
from configstore.model.path import StorePath
from configstore.model.record import Entry, Kind, sha256
from configstore.store.tree import Tree
from configstore.store.values import Write, Writer

_ids = itertools.count()

GONE = Entry(kind=Kind.GONE)


def a_file(content, mode=0o600, **fields):
    """Return the entry of a file with a content, bytes or text."""
    content = content.encode() if isinstance(content, str) else content
    return Entry(kind=Kind.FILE, mode=mode, size=len(content), sha256=sha256(content), **fields)


def a_dir(mode=0o755, **fields):
    return Entry(kind=Kind.DIR, mode=mode, **fields)


def a_link(target="one", **fields):
    return Entry(kind=Kind.SYMLINK, target=target, **fields)


def gone(content):
    """Return the entry of a tombstone that says what was deleted."""
    return Entry(kind=Kind.GONE, size=len(content), sha256=sha256(content))


def a_tree(kv, root=DEFAULT_ROOT, *, replica="r", host="h", now="", **options):
    """Return a tree whose writes have ids that no other write of this process has."""
    writer = Writer(replica=replica, host=host, now=lambda: now, new_id=lambda: f"{replica}-{next(_ids)}")
    return Tree(kv, Keys(root), writer, **options)


def mod_revision(tree, path):
    """Return the revision of what lies under a path's key, readable or not; 0 for nothing."""
    items = tree.kv.range(tree.keys.file(StorePath(path))).items
    return items[0].mod_revision if items else 0


def a_write(path, what, expected=0, **fields):
    """Return a write over what has the revision `expected`.

    what: a file's content, an entry without content, or both.
    """
    if isinstance(what, bytes):
        what = a_file(what), what
    entry, content = what if isinstance(what, tuple) else (what, None)
    return Write(path=StorePath(path), entry=entry, content=content, expected=expected, **fields)


def put(tree, contents, *, retention=3600, **how):
    """Commit files (by their contents), or entries without content, as one set; returns their revision."""
    writes = [a_write(path, what, mod_revision(tree, path)) for path, what in contents.items()]
    outcome = tree.commit(writes, retention=retention, **how)
    assert outcome.complete
    return max(outcome.done.values())


def files_in(tree, subtree="data"):
    """Return the contents of a subtree's files in the store, by their paths in it."""
    found = tree.list(subtree).records.items()
    return {
        path[len(subtree) + 1 :]: tree.content(each) for path, each in found if path != subtree and not each.gone
    }


def make_root(kv, path="data"):
    """Make a mapping's root, as `configstore mkdir` does."""
    put(a_tree(kv), {path: a_dir()})
