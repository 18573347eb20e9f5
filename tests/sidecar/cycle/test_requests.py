"""A person's choice ends a halt, and only the halt that the person looked at. Over the reference store."""

import itertools

import pytest

from configstore.model.replica import Request, Take, Verb
from configstore.store.api import Delete, Exists
from tests.harness.following import Following
from tests.harness.named import GONE, a_dir

_ids = itertools.count()
MANY = [f"{number:02}" for number in range(20)]


@pytest.fixture
def following(tmp_path):
    """Return a replica that agrees with its store on twenty files."""
    with Following(tmp_path / "r") as replica:
        replica.put("", a_dir())
        replica.empty = replica.store.snapshot()
        replica.agree(**{name: name.encode() for name in MANY})
        assert replica.contents().keys() == set(MANY)
        yield replica


def choose(following, take, reason=None, path=None):
    """Choose a side about what the replica is halted by, or about `reason`."""
    about = following.engine.status.halted if reason is None else reason
    wanted = {"id": f"i{next(_ids)}", "verb": Verb.RESUME, "by": "ann@h\x1b[2J", "mapping": "data"}
    following.mirror.request(Request(**wanted, take=Take(take), reason=about, path=path))


def delete_here(following):
    for name in MANY:
        (following.folder / name).unlink(missing_ok=True)
    following.cycle()  # sees it, and lets the mapping become quiet
    assert "refused to delete 20 of 20 paths in the store" in following.cycle().halted


def delete_there(following):
    for name in MANY:
        following.put(name, GONE)
    following.follow()
    assert "refused to delete 20 of 20 paths in this replica" in following.cycle().halted


@pytest.mark.parametrize("delete", [delete_here, delete_there])
@pytest.mark.parametrize("take", ["local", "store"])
def test_a_mass_delete_ends_as_chosen(following, delete, take):
    delete(following)
    assert len(following.stored() if delete is delete_here else following.contents()) == 20
    choose(following, take)
    assert following.cycle().halted is None
    following.follow()
    status = following.cycle()
    allowed = (take == "local") == (delete is delete_here)
    assert following.contents() == following.stored()
    assert len(following.contents()) == (0 if allowed else 20)
    assert (status.halted, status.problems, status.pending) == (None, (), 0)


def test_a_choice_about_another_halt_is_not_taken(following):
    delete_here(following)
    choose(following, "local", "refused to delete 19 of 20 paths in the store")
    assert following.cycle().halted
    assert len(following.stored()) == 20


def test_a_choice_does_not_outlive_its_cycle(following):
    delete_here(following)
    reason = following.engine.status.halted
    following.list_again()
    for name in MANY:
        (following.folder / name).write_bytes(name.encode())
    assert following.cycle().halted is None
    choose(following, "local", reason)
    following.cycle()
    delete_here(following)
    assert len(following.stored()) == 20


def test_a_restored_store_wins_by_choice_and_what_was_here_is_kept(following):
    before = following.store.snapshot()
    following.put("00", b"newer")
    following.follow()
    following.cycle()
    (following.folder / "mine").write_bytes(b"made here")
    following.store.restore(before)
    following.list_again()
    assert "restored snapshot?" in following.cycle().halted
    choose(following, "store")
    following.cycle()
    for _ in range(3):
        status = following.cycle()
    assert (status.halted, status.ready, status.problems) == (None, True, ())
    assert following.contents()["00"] == b"00"
    assert following.contents() == following.stored()
    assert following.stored()["mine"] == b"made here"
    kept = following.tree.kv.range(b"/configstore/conflicts/", b"/configstore/conflicts0").items
    assert [item.value.partition(b"\n")[2] for item in kept] == [b"newer"]


def test_the_files_here_win_over_a_restored_store_by_choice_and_what_was_there_is_kept(following):
    following.store.restore(following.empty)
    following.put("00", b"of the restored store")
    following.put("other", b"of the restored store")
    following.list_again()
    assert following.cycle().halted
    choose(following, "local")
    following.cycle()
    for _ in range(3):
        status = following.cycle()
    assert (status.halted, status.ready, status.problems) == (None, True, ())
    assert following.contents() == following.stored()
    assert following.stored() == {name: name.encode() for name in MANY} | {"other": b"of the restored store"}
    past = following.tree.kv.range(b"/configstore/past/data/00//", b"/configstore/past/data/00/0").items
    assert past[-1].value.endswith(b"of the restored store")


def vanish(following, *names):
    for name in names:
        key = following.tree.keys.file(f"data/{name}")
        following.tree.kv.txn((Exists(key),), (Delete(key),))
    following.follow()
    status = following.cycle(1.0)
    assert {problem.path for problem in status.problems} == set(names)


def test_a_problem_stays_until_its_own_path_is_fine(following):
    vanish(following, "00")
    vanish(following, "00", "01")
    (following.folder / "new").write_bytes(b"x")
    assert [problem.path for problem in following.cycle().problems] == ["00", "01"]
    following.put("00", b"again")
    following.follow()
    assert [problem.path for problem in following.cycle(1.0).problems] == ["01"]


def test_one_vanished_record_is_written_again_by_choice(following):
    vanish(following, "00", "01")
    choose(following, "local", "", "00")
    status = following.cycle()
    assert [problem.path for problem in status.problems] == ["01"]
    assert following.stored()["00"] == b"00"


def test_all_vanished_records_are_written_again_by_choice(following):
    vanish(following, *MANY)
    choose(following, "local", "")
    assert following.cycle().problems == ()
    assert following.stored().keys() == set(MANY)


def test_vanished_records_become_tombstones_by_choice(following):
    vanish(following, "00", "01")
    choose(following, "store", "")
    following.cycle()
    status = following.cycle()
    assert (status.problems, status.halted) == ((), None)
    assert following.contents().keys() == set(MANY) - {"00", "01"}
    assert following.tree.read("data/00").gone


def test_a_choice_is_kept_and_logged_with_who_made_it_once_it_is_carried_out(following, caplog):
    delete_here(following)
    choose(following, "store", "refused to delete 19 of 20 paths in the store")
    assert following.cycle().last_choice is None
    choose(following, "store")
    said = following.cycle().last_choice
    assert said.startswith("resume --take store, by ann@h\\x1b[2J, 20")
    following.follow()
    assert following.cycle().last_choice == said
    (line,) = [each for each in caplog.records if "by a person's choice" in each.message]
    assert line.by == "ann@h\\x1b[2J"


@pytest.mark.parametrize(("path", "what"), [(None, "resume"), (MANY[0], f"resolve {MANY[0]}")])
def test_a_choice_about_a_vanished_record_is_kept_too(following, path, what):
    key = following.tree.keys.file(f"data/{MANY[0]}")
    following.tree.kv.txn((Exists(key),), (Delete(key),))
    following.follow()
    following.cycle()
    choose(following, "local", "", path)
    assert following.cycle().last_choice.startswith(f"{what} --take local, by ann@h")
