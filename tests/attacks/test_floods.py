"""However much lies in the store, a sidecar's memory stays within bounds, and the rest is mirrored."""

import hashlib

import pytest

from configstore.model.record import CHUNK_SIZE, Deletion, Entry, Kind, Origin, Record, encode, sha256
from configstore.store.api import Put, range_all
from tests.harness.named import a_file
from tests.harness.waiting import wait_until

MOST = 96
"""MiB that a sidecar may have had at its peak; it begins with some 50."""


def origin(name, **more):
    return Origin(write_id=name, replica="r", host="h", time="2026-01-01T00:00:00.000+00:00", **more)


def peak(replica):
    """Return the most memory that a replica's process has had, in MiB."""
    with open(f"/proc/{replica.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))


@pytest.fixture
def below(kv, kv_root):
    """Return a function that puts values below the subtree, a few at a time."""

    def fill(values, *, where="files", at_once=1):
        values = iter(values)
        while operations := [
            Put(f"{kv_root}/{where}/data/{name}".encode(), value)
            for _, (name, value) in zip(range(at_once), values, strict=False)
        ]:
            kv.txn((), operations)

    return fill


def starts_and_mirrors(one, configstore):
    one.anew = True  # its memory is looked at
    one.start()
    configstore("put", "data/good", content=b"1")
    wait_until((one.folder / "good").exists, 60, what=one.words())
    print(f"peak {peak(one)} MiB")
    assert peak(one) <= MOST
    return one


def test_values_too_large_for_one_answer_come_in_smaller_pages(kv, kv_root, below):
    below((f"{number:03}", b"x" * 1_400_000) for number in range(30))
    prefix = f"{kv_root}/files/data/".encode()
    pages = list(range_all(kv, prefix, prefix + b"\xff"))
    assert sum(len(page.items) for page in pages) == 30
    assert len(pages) > 1


@pytest.mark.parametrize("kind", ["junk", "records"])
def test_large_values_cost_little(replica, configstore, below, kind):
    content = b"x" * 1_400_000
    entry = a_file(content)
    value = content if kind == "junk" else encode(Record(entry=entry, origin=origin("w"), content=content))
    below((f"{number:03}", value) for number in range(100))
    one = starts_and_mirrors(replica("one", "max_delete = 1.0"), configstore)
    if kind == "records":
        wait_until(lambda: len(list(one.folder.glob("0*"))) == 100, 60, what=one.words())
        assert peak(one) <= MOST


def test_pieces_that_repeat_cost_one_piece(replica, configstore, below):
    piece, times = b"A" * CHUNK_SIZE, 60
    whole = hashlib.sha256(piece * times).hexdigest()
    entry = Entry(kind=Kind.FILE, mode=0o600, size=times * CHUNK_SIZE, sha256=whole)
    value = encode(Record(entry=entry, origin=origin("w"), chunks=(sha256(piece),) * times))
    below(((f"{name}//{sha256(piece)}", piece) for name in "abc"), where="chunks")
    below((name, value) for name in "abc")
    one = starts_and_mirrors(replica("one"), configstore)
    wait_until(lambda: all((one.folder / name).exists() for name in "abc"), 60, what=one.words())
    assert peak(one) <= MOST


def test_very_many_tombstones_cost_little(replica, configstore, below):
    def graves():
        for number in range(20_000):
            deletion = Deletion(id=f"{number // 1000}", count=1000)
            entry = Entry(kind=Kind.GONE, size=1700, sha256=sha256(b"%d" % number))
            name = f"d{number % 100}/file-{number}.key"
            yield name, encode(Record(entry=entry, origin=origin(f"{number:024}", deletion=deletion)))

    below(graves(), at_once=100)
    starts_and_mirrors(replica("one"), configstore)
