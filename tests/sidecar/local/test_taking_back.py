"""A set that cannot be placed as a whole is taken back as a whole, and no edit is lost by it."""

import errno
import os
import stat
import subprocess

import pytest

from configstore.files.reading import signature
from sidecar.local import rename
from sidecar.planner.sides import LocalEntry
from tests.harness.named import GONE, a_dir
from tests.sidecar.local.named import as_nobody

FIVE = ("a", "b", "c", "d", "e")


def forge(here, name, content):
    """Change a file as a memory map may: what is known of it looks as it did, but for the content."""
    (here.path / name).write_text(content)
    now = signature((here.path / name).stat())
    here.known[name] = LocalEntry(entry=here.known[name].entry, signature=now)


def read(here, *names):
    return [(here.path / name).read_text() for name in names]


@pytest.fixture
def failing(monkeypatch):
    """Return a function to have the rename to one name fail."""
    real = rename.renameat2

    def hook(name, error, *, before=lambda: None):
        def hooked(source, old, target, new, flags):
            if new == name:
                before()
                raise OSError(error, os.strerror(error))
            real(source, old, target, new, flags)

        monkeypatch.setattr(rename, "renameat2", hooked)

    return hook


@pytest.mark.parametrize(("error", "words"), [(errno.EBUSY, "mounted on it"), (errno.ENOSPC, "no space left")])
def test_a_set_whose_third_rename_fails_is_taken_back(here, failing, error, words):
    here.apply(*[here.file(name, "old") for name in FIVE if name != "b"], here.file("doomed", "old"))
    changes = [here.file(name, "new") for name in FIVE]
    failing("c", error)
    applied = here.apply(*changes, here.change("doomed", GONE), here.file("alone", "new", group=2))
    assert applied.done.keys() == {"alone"}
    assert words in applied.problems["c"].reason
    for name in ("a", "b", "d", "e", "doomed"):
        assert applied.problems[name].reason.startswith("held back: c,")
    assert read(here, "a", "c", "d", "e", "doomed") == ["old"] * 5
    assert not (here.path / "b").exists()
    assert here.staged() == []


def test_what_the_application_wrote_to_a_file_before_it_is_taken_back_stays(here, failing):
    here.apply(*[here.file(name, "old") for name in FIVE])
    failing("c", errno.EBUSY, before=lambda: (here.path / "a").write_text("the application's"))
    applied = here.apply(*[here.file(name, "new") for name in FIVE])
    assert not applied.done
    assert (
        "a" in applied.stale
    )  # so that it is an edit of what lay there before, as one of all of the set would be
    assert read(here, *FIVE) == ["the application's", "old", "old", "old", "old"]
    assert here.staged() == []
    assert here.scan("").changed.keys() >= {"a"}


def test_a_placed_file_that_the_application_writes_to_is_not_taken_back_from_under_it(here, failing):
    here.apply(*[here.file(name, "old") for name in FIVE])
    opened = []
    failing("c", errno.EBUSY, before=lambda: opened.append((here.path / "a").open("r+")))
    applied = here.apply(*[here.file(name, "new") for name in FIVE])
    with opened[0] as writer:
        writer.write("the application's")
    assert not applied.done
    assert "a" in applied.stale
    assert read(here, *FIVE) == ["the application's", "old", "old", "old", "old"]


def test_directories_of_a_set_that_is_taken_back_go_as_well(here, failing):
    here.apply(here.change("kept", a_dir(0o755)), here.file("file", "old"))
    failing("file", errno.EBUSY)
    here.apply(
        here.change("kept", a_dir(0o700)),
        here.change("new", a_dir()),
        here.file("new/one", "new"),
        here.file("file", "new"),
    )
    assert sorted(os.listdir(here.path)) == [".configstore", "file", "kept"]
    assert stat.S_IMODE((here.path / "kept").stat().st_mode) == 0o755


@pytest.mark.parametrize("wanted", ["replaced", "removed"])
def test_an_edit_that_left_no_trace_is_put_back_with_all_of_its_set(here, wanted):
    here.apply(here.file("one", "old"), here.file("db", "before"))
    forge(here, "db", "EDITED")
    change = here.file("db", "new") if wanted == "replaced" else here.change("db", GONE)
    applied = here.apply(here.file("one", "new"), here.file("created", "new"), change)
    assert applied.stale == {"one", "created", "db"}
    assert applied.done == {}
    assert read(here, "one", "db") == ["old", "EDITED"]
    assert sorted(os.listdir(here.path)) == [".configstore", "db", "one"]
    assert here.staged() == []


def test_an_edit_that_left_no_trace_is_put_back_where_a_directory_was_to_be(here):
    here.apply(here.file("db", "before"))
    forge(here, "db", "EDITED")
    assert here.apply(here.change("db", a_dir())).stale == {"db"}
    assert read(here, "db") == ["EDITED"]


@pytest.mark.parametrize("wanted", ["replaced", "removed"])
def test_a_file_that_is_open_for_writing_is_put_back_with_all_of_its_set(here, wanted):
    here.apply(here.file("one", "old"), here.file("db", "before"))
    change = here.file("db", "new") if wanted == "replaced" else here.change("db", GONE)
    with (here.path / "db").open("r+") as writer:
        assert here.apply(here.file("one", "new"), change).stale == {"one", "db"}
        writer.write("EDITED")
    assert read(here, "one", "db") == ["old", "EDITED"]


def test_a_file_that_may_not_be_read_is_replaced_all_the_same(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs)
        here.apply(here.file("key", "old", 0o200))
        assert here.apply(here.file("key", "new", 0o600)).done.keys() == {"key"}


def test_a_file_on_which_another_is_mounted_is_a_problem_and_nothing_of_its_set_is_placed(
    mirrored, tmpfs, monkeypatch
):
    top = tmpfs()
    here = mirrored(top / "top")
    here.apply(here.file("one", "old"), here.file("bound", "old"))
    (top / "elsewhere").write_text("old")
    subprocess.run(["mount", "--bind", top / "elsewhere", here.path / "bound"], check=True)
    here.scan()
    renames = []
    monkeypatch.setattr(rename, "renameat2", lambda *args: renames.append(args))
    try:
        applied = here.apply(here.file("one", "new"), here.file("bound", "new"))
    finally:
        subprocess.run(["umount", here.path / "bound"], check=True)
    assert "mounted on it" in applied.problems["bound"].reason
    assert applied.problems["one"].reason.startswith("held back: bound")
    assert renames == []


# Bits of directories that never travel


@pytest.mark.parametrize("bits", [0o2000, 0o1000, 0o3000], ids=oct)
@pytest.mark.parametrize("mode", [0o775, 0o750], ids=oct)
def test_the_setgid_and_sticky_bits_of_a_directory_stay(here, bits, mode):
    (here.path / "shared").mkdir()
    (here.path / "shared").chmod(0o775 | bits)
    here.scan()
    applied = here.apply(here.change("shared", a_dir(mode)), here.file("shared/file", "x"))
    assert stat.S_IMODE((here.path / "shared").stat().st_mode) == mode | bits
    assert applied.done["shared"].entry.mode == mode
    assert here.scan().changed == {}


def test_a_setgid_bit_set_here_is_no_change_of_the_entry(here):
    here.apply(here.change("shared", a_dir(0o775)))
    before = here.known["shared"].entry
    (here.path / "shared").chmod(0o2775)
    here.scan()
    assert here.known["shared"].entry == before


def test_a_directory_made_on_the_way_inherits_the_setgid_bit(here):
    (here.path / "shared").mkdir()
    (here.path / "shared").chmod(0o2775)
    here.scan()
    here.apply(here.file("shared/sub/file", "x"))
    assert stat.S_IMODE((here.path / "shared" / "sub").stat().st_mode) == 0o2755
