"""What does not fit into the directory is known before any of it is fetched. Over the reference store."""

import pytest

from sidecar.local.apply import Applier
from tests.harness.following import Following
from tests.harness.named import a_write, mod_revision


@pytest.fixture
def following(tmp_path):
    with Following(tmp_path / "r") as replica:
        replica.agree(key=b"old")
        yield replica


def commit(following, contents):
    """Commit files as one set."""
    paths = {f"{following.subtree}/{name}": content for name, content in contents.items()}
    tree = following.tree
    writes = [a_write(path, content, mod_revision(tree, path), set=1) for path, content in paths.items()]
    assert tree.commit(writes, retention=60).complete


def test_a_set_that_claims_more_than_is_free_is_a_problem_and_the_rest_goes_on(following, monkeypatch):
    monkeypatch.setattr(Applier, "room", lambda _: 50_000)
    fetched = []
    pieces = following.tree.pieces
    monkeypatch.setattr(following.tree, "pieces", lambda found: fetched.append(found.path) or pieces(found))
    commit(following, {"key": b"new", "large": b"x" * 60_000})
    commit(following, {"other": b"fits"})
    following.follow()
    following.cycle()
    status = following.cycle()
    reasons = {problem.path: problem.reason for problem in status.problems}
    assert reasons["large"].startswith(
        "no space left for it: 60003 bytes are to be placed, and 50000 are free here"
    )
    assert "held back, since large" in reasons["key"]
    assert following.contents() == {"key": b"old", "other": b"fits"}
    assert fetched == ["data/other"]
    monkeypatch.undo()
    following.cycle()
    assert following.contents().keys() == {"key", "large", "other"}
    assert not following.cycle().problems


def test_a_file_system_without_a_limit_has_room(following, monkeypatch):
    class Unlimited:
        f_blocks = f_bavail = 0
        f_frsize = 4096

    monkeypatch.setattr("sidecar.local.apply.os.fstatvfs", lambda _: Unlimited)
    commit(following, {"key": b"new"})
    following.follow()
    following.cycle()
    assert following.contents() == {"key": b"new"}
