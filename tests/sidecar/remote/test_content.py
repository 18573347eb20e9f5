"""Content that is read ahead of its placing: in few calls, and no record twice."""

import pytest

from configstore.model.path import StorePath
from configstore.model.record import Entry, Kind, Origin, Record
from configstore.store.api import MAX_OPERATIONS
from configstore.store.values import Stored
from sidecar.mapping import Mapping
from sidecar.planner.sides import RemoteEntry
from sidecar.remote import content
from sidecar.remote.content import Contents

SIZE = 50_000
ENTRY = Entry(kind=Kind.FILE, mode=0o600, size=SIZE)
REMOTE = RemoteEntry(entry=ENTRY, mod_revision=7)
ORIGIN = Origin(write_id="w", replica="r", host="h", time="now")


def stored(path, size=SIZE):
    record = Record(entry=ENTRY, origin=ORIGIN, content=b"x" * size)
    return Stored(path=path, record=record, mod_revision=7, version=1)


class Tree:
    """Gives every record, and counts the calls."""

    def __init__(self):
        self.calls = []
        self.size = SIZE

    def read_many(self, paths):
        self.calls.append(len(paths))
        return [stored(path, self.size) for path in paths]

    def read(self, path):
        pytest.fail(f"{path} is read alone")


@pytest.fixture
def tree():
    return Tree()


@pytest.fixture
def contents(tree):
    return Contents(tree, Mapping(name="m", store=StorePath("m"), path="/m"))


def names(count):
    return [StorePath(f"{number:04}") for number in range(count)]


def test_what_came_with_the_listing_is_not_pushed_out_by_what_is_read_ahead(contents, tree):
    paths = names(200)  # 10 MB, of which the last 4 MB are known from the listing
    known = paths[-(content.LIMIT // SIZE) :]
    for path in known:
        contents.note(path, stored(f"m/{path}"))
    contents.expect(dict.fromkeys(paths, SIZE))
    assert all(contents.find(path, REMOTE) for path in paths)
    assert sum(tree.calls) <= len(paths) - len(known) + content._AHEAD // SIZE


def test_as_many_are_read_at_once_as_a_call_takes_and_no_more_than_some_bytes(contents, tree):
    contents.expect(dict.fromkeys(names(100), SIZE))
    assert all(contents.find(path, REMOTE) for path in names(100))
    assert tree.calls == [content._AHEAD // SIZE] * 5
    tree.calls.clear()
    contents.clear()
    tree.size = 10
    contents.expect(dict.fromkeys(names(300), tree.size))
    contents.find(names(1)[0], REMOTE)
    assert tree.calls == [MAX_OPERATIONS]
