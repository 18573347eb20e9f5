"""Commands whose answers from the store are lost: what was written is told as written, and never written twice."""

import collections

import pytest

from configstore.errors import NoSpaceError, StoreClosedError, StoreUnavailableError
from configstore.model.record import sha256
from configstore.store.etcd.client import EtcdKv
from tests.harness.named import GONE, a_file, a_write, put

MONTH = 30 * 86400
LOST = "the answer was lost"


@pytest.fixture
def faults(monkeypatch, tree):
    """What befalls the next transactions of a command that write records, one each; the last one all that follow.

    A fault is given `make`, which makes the transaction.
    """
    waiting = collections.deque()
    real = EtcdKv.txn

    def txn(self, compares, operations, **how):
        def make():
            return real(self, compares, operations, **how)

        if self is tree.kv or not waiting or not any(b"/files/" in each.key for each in operations):
            return make()
        return (waiting.popleft() if len(waiting) > 1 else waiting[0])(make)

    monkeypatch.setattr(EtcdKv, "txn", txn)
    return waiting


def passes(make):
    return make()


def answer_lost(make):
    make()
    raise StoreUnavailableError(LOST)


def request_lost(make):
    raise StoreUnavailableError(LOST)


def landed_before_the_end(make):
    """The last that is heard of the store, which is not asked again."""
    make()
    raise StoreClosedError(LOST)


def lost_at_the_end(make):
    raise StoreClosedError(LOST)


def no_space(make):
    raise NoSpaceError("no space is left in etcd")


@pytest.fixture
def overtaken(tree):
    """Return what makes a fault after which somebody else writes to a path."""

    def overtaken(fault, path, content=b"NEWER", retention=MONTH):
        def befall(make):
            try:
                return fault(make)
            finally:
                put(tree, {path: GONE if content is None else content}, retention=retention)

        return befall

    return overtaken


@pytest.mark.parametrize("guard", [(), ("--if-revision", "N"), ("--create",)])
def test_put_never_writes_over_a_newer_one_after_its_own_landed(run, tree, faults, overtaken, guard):
    if guard != ("--create",):
        run("put", "a", stdin=b"BEFORE")
    guard = [str(tree.read("a").mod_revision) if word == "N" else word for word in guard]
    faults.extend([overtaken(answer_lost, "a"), passes])
    done = run("put", "a", *guard, stdin=b"MINE")
    assert (done.code, "4 bytes at revision" in done.err) == (0, True)
    assert tree.content(tree.read("a")) == b"NEWER"
    assert run("history", "a", "--json").json()[1]["sha256"] == sha256(b"MINE")


def test_put_writes_again_what_never_landed(run, tree, faults, overtaken):
    run("put", "a", stdin=b"BEFORE")
    faults.extend([overtaken(request_lost, "a"), passes])
    assert run("put", "a", stdin=b"MINE").code == 0
    assert tree.content(tree.read("a")) == b"MINE"


def test_a_guarded_put_that_never_landed_says_that_nothing_was_written(run, tree, faults, overtaken):
    run("put", "a", stdin=b"BEFORE")
    faults.extend([overtaken(request_lost, "a"), passes])
    done = run("put", "a", "--if-revision", str(tree.read("a").mod_revision), stdin=b"MINE")
    assert (done.code, "nothing was written" in done.err) == (3, True)


@pytest.mark.parametrize("fault", [landed_before_the_end, lost_at_the_end])
def test_put_does_not_say_that_nothing_was_written_when_nobody_knows(run, faults, fault):
    faults.append(fault)
    done = run("put", "a", stdin=b"MINE")
    assert (done.code, "a: may have been written, or not" in done.err, LOST in done.err) == (4, True, True)
    assert "nothing" not in done.err


@pytest.mark.parametrize("guard", [(), ("--create",)])
def test_put_does_not_write_over_a_newer_one_when_its_own_trace_is_lost(run, tree, faults, overtaken, guard):
    faults.extend([overtaken(answer_lost, "a", retention=0), passes])
    done = run("put", "a", *guard, stdin=b"MINE")
    assert (done.code, "may have been written" in done.err, "nothing" in done.err) == (4, True, False)
    assert tree.content(tree.read("a")) == b"NEWER"


def test_mkdir_does_not_bring_back_a_directory_that_was_removed_after_it_was_made(run, tree, faults):
    def removed(make):
        made = make()
        tree.commit([a_write("d", GONE, made.revision)], retention=MONTH)
        raise StoreUnavailableError(LOST)

    faults.extend([removed, passes])
    done = run("mkdir", "d")
    assert (done.code, "made at revision" in done.err) == (0, True)
    assert tree.read("d").gone


def test_rm_whose_answer_was_lost_is_done_though_somebody_made_the_path_again(run, tree, faults, overtaken):
    run("put", "a", stdin=b"1")
    faults.extend([overtaken(answer_lost, "a"), passes])
    done = run("rm", "a")
    assert (done.code, "removed 1" in done.err) == (0, True)
    assert tree.content(tree.read("a")) == b"NEWER"


def test_restore_whose_answer_was_lost_is_done_though_it_was_written_over_since(run, tree, faults, overtaken):
    run("put", "a", stdin=b"1")
    first = tree.read("a").mod_revision
    run("put", "a", stdin=b"2")
    faults.extend([overtaken(answer_lost, "a"), passes])
    assert run("restore", "a", "--revision", str(first)).code == 0
    assert tree.content(tree.read("a")) == b"NEWER"


def test_resolve_whose_answer_was_lost_is_done_though_it_was_written_over_since(run, tree, faults, overtaken):
    run("put", "a", stdin=b"1")
    entry = a_file(b"LOST")
    name = tree.keep_conflict("a", entry, b"LOST", retention=MONTH)
    faults.extend([overtaken(answer_lost, "a"), passes])
    assert run("resolve", "a", "--take", name).code == 0
    assert tree.content(tree.read("a")) == b"NEWER"
    assert run("conflicts", "a", "--json").json() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mkdir", "d"], "d: may have been made, or not"),
        (["rm", "a"], "a: may have been removed, or not"),
        (["restore", "a", "--revision", "N"], "a: may have been restored, or not"),
    ],
)
def test_an_outage_leaves_open_what_became_of_a_path_and_says_so(run, tree, faults, words, said):
    run("put", "a", stdin=b"1")
    first = tree.read("a").mod_revision
    run("put", "a", stdin=b"2")
    faults.append(landed_before_the_end)
    done = run(*(str(first) if word == "N" else word for word in words))
    assert (done.code, said in done.err, "nothing" in done.err) == (4, True, False)


@pytest.fixture
def many(run, tmp_path, tree):
    """Put more paths into the store than one transaction removes, and return how many."""
    (tmp_path / "many").mkdir()
    for number in range(150):
        (tmp_path / "many" / f"{number:03}").write_bytes(b"x")
    assert run("import", str(tmp_path / "many"), "d").code == 0
    return len(tree.list("d").records)


def gone(tree):
    return sum(found.gone for found in tree.list("d").records.values())


@pytest.mark.parametrize(
    ("fault", "code", "more"),
    [
        (no_space, 5, ""),
        (lost_at_the_end, 4, ", and 64 more may have been"),
        (landed_before_the_end, 4, ", and 64 more may have been"),
    ],
)
def test_rm_says_how_many_went_when_a_later_transaction_fails(run, tree, faults, many, fault, code, more):
    faults.extend([passes, fault])
    done = run("rm", "-r", "--yes", "d")
    assert (done.code, f"64 of {many} paths were removed{more}:" in done.err) == (code, True), done.err
    assert gone(tree) == (128 if fault is landed_before_the_end else 64)


def test_rm_says_how_many_went_when_somebody_writes_in_the_middle(run, tree, faults, many, overtaken):
    faults.extend([overtaken(passes, "d/149"), passes])
    done = run("rm", "-r", "--yes", "d")
    assert (done.code, f"(d/149); {gone(tree)} of {many} paths were removed" in done.err) == (3, True), done.err
    assert gone(tree) == 128


def test_import_says_how_far_it_came(run, tree, faults, tmp_path):
    (tmp_path / "d").mkdir()
    for number in range(1200):
        (tmp_path / "d" / f"{number:04}").write_bytes(b"x")
    faults.extend([passes] * 8 + [lost_at_the_end])
    done = run("import", str(tmp_path / "d"), "d")
    there = len(tree.list("d").records)
    assert (done.code, there) == (4, 1000), done.err
    assert f"{there} paths were written before" in done.err
    assert "0 of 201 paths were written, and 127 more may have been" in done.err


def test_import_does_not_say_that_nothing_was_written_after_a_part_was(run, tree, faults, tmp_path, overtaken):
    (tmp_path / "in").mkdir()
    for number in range(1200):
        (tmp_path / "in" / f"{number:04}").write_bytes(b"x")
    faults.extend([passes] * 8 + [overtaken(overtaken(passes, "d/1150/below"), "d/1199"), passes])
    done = run("import", str(tmp_path / "in"), "d")
    assert done.code == 3
    assert "d/1150: is a dir in the store and a file here" in done.err
    assert "nothing was written" not in done.err
    assert "paths were written before" in done.err
