"""Where lies what a sidecar remembers: out of reach, a place for each mapping, worth nothing for another mount."""

import os
import shutil
import stat

import msgspec
import pytest

from configstore.errors import RefusedError
from sidecar.state.baseline import FILE, Baseline, Identity
from sidecar.state.directory import IN_MOUNT, StateDirectory
from tests.harness.following import Following
from tests.harness.named import a_dir
from tests.memory_store.state import MemoryStore
from tests.sidecar.local.named import NOBODY


@pytest.fixture
def state(tmp_path):
    made = StateDirectory(str(tmp_path / "state"))
    yield made
    made.close()


@pytest.fixture
def following(tmp_path, state):
    """Return a function that starts a mirror of a directory, over one store."""
    store, started = MemoryStore(), []

    def start(name="top", **how):
        started.append(Following(tmp_path / name, store, **{"state": state.open, **how}))
        return started[-1]

    yield start
    for each in started:
        each.close()


def in_the_store(following, *names):
    following.put("", a_dir())
    for name in names:
        following.put(name, name.encode())
    following.list_again()


def conflicts(following):
    keys = following.tree.keys.conflict_root()
    return [item.key for item in following.tree.kv.range(keys, keys + b"\xff").items]


# The place


def test_it_is_made_for_us_alone(state, tmp_path):
    state.open("data", "/data").close()
    modes = {stat.S_IMODE(each.stat().st_mode) for each in [tmp_path / "state", *(tmp_path / "state").iterdir()]}
    assert modes == {0o700}


def test_two_mirrors_of_one_directory_do_not_share_it(state):
    first = state.open("data", "/data")
    with pytest.raises(RefusedError, match="give each a CONFIGSTORE_STATE of its own"):
        state.open("data", "/data")
    state.open("data", "/elsewhere").close()
    first.close()
    state.open("data", "/data").close()


def test_one_that_was_asked_for_and_cannot_be_had_is_refused_with_the_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match="is not a directory"):
        StateDirectory(str(tmp_path / "file"))
    with pytest.raises(RefusedError, match="mount a volume here that no application mounts"):
        StateDirectory(str(tmp_path / "none" / "state"))


def test_another_users_is_refused(tmp_path, monkeypatch):
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    with pytest.raises(RefusedError, match=f"belongs to uid 0, and this sidecar runs as uid {NOBODY}"):
        StateDirectory(str(tmp_path / "state"))


def test_the_default_gives_way_to_the_mount_and_a_root_sidecar_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.state.directory.DEFAULT", str(tmp_path / "none" / "state"))
    made = StateDirectory(None)
    assert made.open("data", "/data") is None
    assert "in the application's reach" in made.limitation
    assert StateDirectory(IN_MOUNT).limitation is None


def test_a_preview_makes_nothing(tmp_path):
    found = StateDirectory(str(tmp_path / "state"), prepare=False)
    assert found.open("data", "/data") is None
    assert not (tmp_path / "state").exists()


# What it is worth


def test_it_outlives_the_process(following):
    one = following()
    in_the_store(one, "a")
    one.cycle()
    one.close()
    (one.folder / "a").unlink()  # while nobody was here: a delete, since both had agreed on it
    one.begin()
    assert set(one.engine.sides.baseline) == {"a"}
    assert not (one.folder / ".configstore" / FILE).exists()


@pytest.mark.parametrize("what", ["everything", "only the mark"])
def test_it_dies_with_the_mount(following, what):
    one = following()
    in_the_store(one, "a", "b")
    one.cycle()
    one.close()
    for path in [one.folder] if what == "everything" else [one.folder / ".configstore", one.folder / "a"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    one.folder.mkdir(exist_ok=True)
    one.begin()
    assert not one.engine.sides.baseline
    one.cycle()
    assert one.contents() == {"a": b"a", "b": b"b"}  # pulled, not deleted


def test_that_of_another_mount_with_a_mark_of_its_own_counts_for_nothing(following):
    one = following()
    in_the_store(one, "a")
    one.cycle()
    one.close()
    (one.folder / ".configstore/configstore-mark").write_text("0" * 32)
    one.begin()
    assert not one.engine.sides.baseline


def test_a_journal_of_another_mount_counts_for_nothing(following, state, tmp_path):
    one = following()
    in_the_store(one, "a")
    one.cycle()
    one.close()
    place = next((tmp_path / "state").iterdir())
    line = {"type": "remove", "path": "a", "name": "0", "group": 1, "expected": {"signature": [0] * 7}}
    (place / "intent").write_bytes(msgspec.json.encode(line) + b"\n")
    shutil.rmtree(one.folder / ".configstore")
    (one.folder / ".configstore/staging").mkdir(parents=True)
    (one.folder / ".configstore/staging/0").write_text("another mount's")
    (one.folder / "a").unlink()
    one.begin()
    assert (place / "intent").read_bytes() == b""
    assert not (one.folder / "a").exists()
    one.cycle()
    assert (one.folder / "a").read_bytes() == b"a"


# What lies in the mount from before


def as_before(one):
    """Lay what is remembered into the mount, as versions did that had no place of their own; returns its file."""
    identity = {"root": "/configstore", "store": "data", "cluster_id": one.engine.sides.cluster_id, "v": 2}
    lines = [identity, *one.engine.sides.baseline.items()]
    one.close()
    (one.folder / ".configstore/configstore-mark").unlink()
    file = one.folder / ".configstore" / FILE
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    file.chmod(0o600)
    return file


def test_it_is_taken_over_once_and_an_edit_made_meanwhile_is_no_conflict(following, tmp_path):
    one = following()
    in_the_store(one, "a", "b", "c")
    one.cycle()
    file = as_before(one)
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").mkdir()
    (one.folder / "a").write_bytes(b"edited")
    (one.folder / "b").unlink()
    state = StateDirectory(str(tmp_path / "state"))
    one.state = state.open
    one.begin()
    for _ in range(3):
        one.cycle()
    assert one.tree.content(one.tree.read("data/a")) == b"edited"
    assert one.tree.read("data/b").gone
    assert conflicts(one) == []
    assert not file.exists()
    state.close()


@pytest.mark.parametrize("spoil", ["mode of the file", "mode of the directory", "another name", "another's"])
def test_it_is_not_taken_over_when_somebody_else_could_have_written_it(following, spoil):
    one = following(state=lambda *_: None)
    in_the_store(one, "a")
    one.cycle()
    file = as_before(one)
    if spoil == "mode of the file":
        file.chmod(0o620)
    elif spoil == "mode of the directory":
        file.parent.chmod(0o770)
    elif spoil == "another name":
        os.link(file, one.folder / "link")
    else:
        os.chown(file, NOBODY, NOBODY)
    one.begin()
    assert not one.engine.sides.baseline


def test_it_is_not_taken_over_a_second_time(following):
    one = following()
    in_the_store(one, "a")
    one.cycle()
    file = as_before(one)
    (one.folder / "a").unlink()
    one.begin()  # its place has been there before, so whoever wrote this was not an earlier version
    assert not one.engine.sides.baseline
    one.cycle()
    assert one.contents() == {"a": b"a"}
    assert file.exists()


def test_a_place_of_another_users_is_refused(state, tmp_path):
    state.open("data", "/data").close()
    (place,) = (tmp_path / "state").iterdir()
    os.chown(place, NOBODY, NOBODY)
    with pytest.raises(RefusedError, match="remove it; everything is compared anew then"):
        state.open("data", "/data")


def test_paths_in_it_that_are_none_make_it_worth_nothing(tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY)
    identity = Identity(root="/configstore", store="data", mark="m")
    for path in ("../../etc/shadow", "/etc/shadow", "a/.configstore/x", ""):
        lines = [identity, ("good", None), (path, None)]
        (tmp_path / FILE).write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        assert Baseline(directory, identity, exclusive=False, read_only=True).is_new
    os.close(directory)
