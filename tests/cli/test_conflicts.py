"""`conflicts` and `resolve`: the losing sides, and a person's choice about them."""

import pytest

from configstore.store.api import CreateRevision, Delete, Exists, Put
from configstore.store.retention import MAX_CONFLICTS
from tests.harness.named import a_file

MONTH = 30 * 86400
LARGE = bytes(range(256)) * 5000


@pytest.fixture
def lose(tree):
    """Return a function that has a path's content lose a conflict, and returns its id."""

    def lose(path, content, mode=0o640):
        return tree.keep_conflict(path, a_file(content, mode), content, retention=MONTH)

    return lose


def left(tree):
    start = tree.keys.conflict_root()
    return [item.key for item in tree.kv.range(start, start[:-1] + b"0").items]


def test_conflicts_are_listed_by_path_with_who_and_when(run, lose):
    first, second, other = lose("d/a", b"1"), lose("d/a", b"22"), lose("b", b"3")
    header, *rows = (line.split() for line in run("conflicts").out.decode().splitlines())
    assert header == ["ID", "KIND", "SIZE", "CHANGED", "BY", "PATH"]
    assert [(row[0], row[2], row[-1]) for row in rows] == [
        (other, "1", "b"),
        (first, "1", "d/a"),
        (second, "2", "d/a"),
    ]
    assert "r1@h1" in rows[0]
    assert [row["id"] for row in run("conflicts", "d", "--json").json()] == [first, second]


def test_no_conflict_is_said_and_is_no_failure(run, lose):
    done = run("conflicts")
    assert (done.code, done.out, "no conflicts" in done.err) == (0, b"", True)
    lose("a", b"1")
    assert run("conflicts", "b", "--json").json() == []


@pytest.mark.parametrize("content", [b"lost", b"", LARGE], ids=["small", "empty", "in chunks"])
def test_a_losing_side_can_be_looked_at_and_taken(run, tree, lose, content):
    run("put", "a", stdin=b"winner")
    name, other = lose("a", content), lose("a", b"another loser")
    winner = tree.read("a").mod_revision
    assert run("conflicts", "a", "--show", name).out == content
    assert run("resolve", "a", "--take", name).code == 0
    found = tree.read("a")
    assert (found.entry.mode, tree.content(found)) == (0o640, content)
    assert run("get", "a", "--revision", str(winner)).out == b"winner"
    assert left(tree) == [tree.keys.conflict("a", other)]


def test_taking_the_store_drops_all_losing_sides_of_that_path_alone(run, tree, lose):
    run("put", "a", stdin=b"winner")
    before = tree.read("a").mod_revision
    lose("a", b"1")
    lose("a", LARGE)
    other = lose("a/b", b"3")
    assert run("resolve", "a", "--take", "store").code == 0
    assert left(tree) == [tree.keys.conflict("a/b", other)]
    assert tree.read("a").mod_revision == before


def test_a_choice_that_there_is_not_changes_nothing(run, tree, lose):
    assert run("resolve", "a", "--take", "store").code == 1
    lose("a", b"1")
    done = run("resolve", "a", "--take", "nobody")
    assert (done.code, "has no conflict nobody" in done.err) == (1, True)
    assert run("conflicts", "a", "--show", "nobody").code == 1
    assert run("resolve", "a").code == 2
    assert run("resolve", "../a", "--take", "store").code == 5
    assert len(left(tree)) == 1


def test_a_file_does_not_replace_a_directory_with_something_in_it(run, tree, lose):
    run("put", "a/b", stdin=b"below")
    name = lose("a", b"1")
    done = run("resolve", "a", "--take", name)
    assert (done.code, "directory with something in it" in done.err) == (3, True)
    assert tree.read("a") is None
    assert len(left(tree)) == 1


def test_a_losing_side_stays_when_somebody_writes_meanwhile(run, tree, lose, monkeypatch):
    run("put", "a", stdin=b"winner")
    name = lose("a", b"1")
    monkeypatch.setattr("configstore.store.tree.Tree.look", lambda tree, path: None)
    assert run("resolve", "a", "--take", name).code == 3
    assert tree.content(tree.read("a")) == b"winner"
    assert len(left(tree)) == 1


def test_a_piece_that_is_gone_is_an_error_and_no_half_file(run, tree, lose):
    name = lose("a", LARGE)
    piece = next(key for key in left(tree) if key.count(b"//") == 2)
    assert tree.kv.txn((Exists(piece),), (Delete(piece),)).succeeded
    done = run("conflicts", "a", "--show", name)
    assert (done.out, "not whole any more" in done.err) == (b"", True)
    assert run("resolve", "a", "--take", name).code != 0
    assert tree.read("a") is None


def test_what_is_no_record_is_not_listed(run, tree):
    key = tree.keys.conflict("b", "x")
    tree.kv.txn((CreateRevision(key, 0),), (Put(key, b"junk"),))
    assert run("conflicts", "b", "--json").json() == []


def test_it_is_said_where_the_oldest_losing_side_has_to_go(run, lose):
    for number in range(MAX_CONFLICTS):
        lose("a", b"%d" % number)
    lose("b", b"1")
    done = run("conflicts")
    assert (done.code, "a: 20 losing sides, the most" in done.err, "b:" in done.err) == (0, True, False)
    assert run("resolve", "a", "--take", "store").code == 0
    assert "losing sides" not in run("conflicts").err
