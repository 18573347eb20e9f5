"""`rm` of much: asked about, one deletion however many transactions it takes, and nothing of it without a yes."""

import io
import sys

import pytest

from configstore.cli import main
from tests.harness.named import a_dir, a_write


@pytest.fixture
def fill(tree):
    """Return a function that puts paths into the store."""

    def fill(*paths):
        entry = a_dir()
        assert tree.commit([a_write(path, entry) for path in paths], retention=60).complete

    return fill


def numbered(directory, count):
    return [f"{directory}/{number}" for number in range(count)]


def living(tree):
    return {path for path, found in tree.list("").records.items() if not found.gone}


def test_removing_most_of_a_subtree_is_refused_where_nobody_can_be_asked(run, tree, fill):
    fill("data", *numbered("data/d", 20))
    before = living(tree)
    done = run("rm", "-r", "data/d")
    assert (done.code, "20 of the 21 of data" in done.err, "--yes" in done.err) == (5, True, True), done.err
    assert "nothing was removed" in done.err
    assert living(tree) == before


def test_all_tombstones_of_one_rm_tell_of_one_confirmed_deletion(run, tree, fill):
    fill("data", *numbered("data/d", 150))
    done = run("rm", "-r", "--yes", "data/d")
    assert (done.code, "removed 150" in done.err) == (0, True)
    found = [each for each in tree.list("data").records.values() if each.gone]
    (deletion,) = {each.record.origin.deletion for each in found}
    assert (deletion.count, deletion.confirmed, len(found)) == (150, True, 150)
    assert len({each.mod_revision for each in found}) == 3


def test_two_deletions_have_two_identities(run, tree, fill):
    fill("a", "b")
    for path in "ab":
        assert run("rm", "-r", path).code == 0
    one, two = (tree.read(path).record.origin.deletion for path in "ab")
    assert (one.count, two.count, one.confirmed, two.confirmed) == (1, 1, True, True)
    assert one.id != two.id


def test_a_directory_goes_after_what_lies_in_it(run, tree, fill):
    fill("data", "data/d", *numbered("data/d", 150))
    assert run("rm", "-r", "--yes", "data").code == 0
    found = tree.list("").records
    assert found["data"].mod_revision == max(each.mod_revision for each in found.values())
    assert found["data/d"].mod_revision >= max(found[path].mod_revision for path in numbered("data/d", 150))


@pytest.mark.parametrize(
    ("doomed", "beside", "path", "asks"),
    [
        (numbered("data/d", 10), [], "data/d", None),
        (numbered("data/d", 11), ["data/x"], "data/d", "11 of the 12 of data"),
        (numbered("data/d", 11), numbered("data/x", 11), "data/d", None),
        (numbered("data/d", 11), numbered("data/x", 10), "data/d", "11 of the 21 of data"),
        (numbered("data/d", 11), numbered("other", 100), "data/d", "11 of the 11 of data"),
        # a mapping below, above, and beside what is removed
        (numbered("overrides/nginx", 11), numbered("overrides/dovecot", 99), "overrides/nginx",
         "of overrides/nginx"),
        (numbered("overrides/nginx/d", 11), numbered("overrides/dovecot", 99), "overrides/nginx/d",
         "of overrides/nginx"),
        (numbered("overrides/own/d", 11), numbered("overrides/dovecot", 99), "overrides/own/d", None),
        (numbered("webmail/rainloop/_data_/_default_/storage", 11), numbered("webmail/gpg", 99),
         "webmail/rainloop/_data_", "of webmail/rainloop"),
    ],
)  # fmt: skip
def test_more_than_ten_that_are_more_than_half_of_a_subtree_are_asked_about(
    run, tree, fill, doomed, beside, path, asks
):
    fill(*doomed, *beside)
    done = run("rm", "-r", path)
    assert done.code == (5 if asks else 0), done.err
    assert asks is None or asks in done.err
    assert living(tree) == ({*doomed, *beside} if asks else set(beside))


class Terminal(io.StringIO):
    """Somebody at a keyboard."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 5), ("\n", 5), ("", 5)])
def test_on_a_terminal_a_person_is_asked(run, tree, fill, monkeypatch, capfdbinary, answer, code):
    fill(*numbered("data/d", 20))
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["rm", "-r", "data/d"]) == code
    asked = capfdbinary.readouterr().err
    assert b"20 paths would be removed, among them 20 of the 20 of data" in asked
    assert living(tree) == (set() if code == 0 else set(numbered("data/d", 20)))


def test_nobody_at_all_is_nobody_to_be_asked(run, tree, fill, monkeypatch):
    fill(*numbered("data/d", 20))
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["rm", "-r", "data/d"]) == 5
    assert len(living(tree)) == 20


def test_what_a_restore_deletes_is_one_deletion_that_replicas_judge_themselves(run, tree, fill):
    fill("data")
    revision = tree.read("data").mod_revision
    fill(*numbered("data/d", 20))
    assert run("restore", "data", "-r", "--revision", str(revision)).code == 0
    found = [each for each in tree.list("data").records.values() if each.gone]
    (deletion,) = {each.record.origin.deletion for each in found}
    assert (deletion.count, deletion.confirmed, len(found)) == (20, False, 20)
