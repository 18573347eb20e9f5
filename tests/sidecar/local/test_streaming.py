"""Contents go from source to disk, and from disk to the store, piece by piece."""

import hashlib
import os
import tracemalloc
from contextlib import contextmanager

import msgspec
import pytest

from configstore.errors import StoreUnavailableError
from configstore.model.path import StorePath
from configstore.model.record import CHUNK_SIZE, Entry, Kind
from sidecar.local.change import ContentUnavailableError, LocalChange, SupersededError
from sidecar.local.scan import Changed
from tests.sidecar.local.named import write

PIECES = 12  # of one file


@contextmanager
def memory_for(pieces):
    """Have what follows hold no more than so many pieces at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < pieces * CHUNK_SIZE
    finally:
        tracemalloc.stop()


def large(number):
    """Return a source of a large content of its own."""

    def pieces():
        for piece in range(PIECES):
            yield bytes([number, piece]) * (CHUNK_SIZE // 2)

    return pieces


def a_large_file(source):
    digest = hashlib.sha256()
    for piece in source():
        digest.update(piece)
    return Entry(kind=Kind.FILE, mode=0o600, size=PIECES * CHUNK_SIZE, sha256=digest.hexdigest())


def test_a_set_of_many_large_files_needs_the_memory_of_a_few_pieces(here):
    changes = [
        LocalChange(
            path=StorePath(f"f{n}"), expected=None, desired=a_large_file(large(n)), content=large(n), group=1
        )
        for n in range(8)
    ]
    with memory_for(6):
        assert len(here.apply(*changes).done) == 8
        assert here.scan(rehash=True).changed == {}
        for path, known in here.known.items():
            assert sum(len(piece) for piece in here.scanner.pieces(path, known.entry)) == PIECES * CHUNK_SIZE


def test_content_that_changes_while_it_is_pushed_is_refused_at_its_end(here):
    (here.path / "file").write_bytes(b"a" * 2 * CHUNK_SIZE)
    here.scan()
    pieces = here.scanner.pieces(StorePath("file"), here.known["file"].entry)
    assert next(pieces) == b"a" * CHUNK_SIZE
    write(here.path / "file", "b")
    with (here.path / "other").open("wb") as other:
        other.write(b"a" * 2 * CHUNK_SIZE)
    assert next(pieces) == b"a" * CHUNK_SIZE  # who was renamed away is read to its end, and then
    with pytest.raises(Changed):
        next(pieces)


def failing(error):
    def pieces():
        yield b"the first piece"
        raise error

    return pieces


def a_set_with(here, error):
    here.apply(here.file("cert", "old"), here.file("key", "old"))
    bad = msgspec.structs.replace(here.file("key", "new"), content=failing(error))
    return here.file("cert", "new"), bad, here.file("else", "new", group=2)


def untouched(here):
    assert [(here.path / name).read_text() for name in ("cert", "key")] == ["old", "old"]
    assert here.staged() == []


def test_a_set_of_which_the_store_holds_another_version_by_now_is_stale(here):
    applied = here.apply(*a_set_with(here, SupersededError()))
    assert (applied.stale, applied.problems, applied.done.keys()) == ({"cert", "key"}, {}, {"else"})
    untouched(here)


def test_a_set_of_which_a_content_is_withheld_is_held_back(here):
    applied = here.apply(*a_set_with(here, ContentUnavailableError("sealed with a key that is not here")))
    assert applied.problems["key"].reason == "sealed with a key that is not here"
    assert applied.problems["cert"].reason.startswith("held back: key")
    assert applied.done.keys() == {"else"}
    untouched(here)


def test_nothing_is_placed_when_the_store_goes_away_meanwhile(here):
    changes = a_set_with(here, StoreUnavailableError("no answer"))
    with pytest.raises(StoreUnavailableError):
        here.apply(*changes)
    assert not (here.path / "else").exists()
    untouched(here)


def test_a_content_that_is_not_its_records_is_never_placed(here):
    here.apply(here.file("key", "old"))
    wrong = msgspec.structs.replace(here.file("key", "new"), content=lambda: [b"something else"])
    assert "does not match" in here.apply(wrong).problems["key"].reason
    assert (here.path / "key").read_text() == "old"
    assert os.listdir(here.root.staging_fd) == []
