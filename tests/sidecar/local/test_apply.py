"""Applying sets: staged out of sight, placed back to back, refused where something else lies."""

import os
import stat
import threading
from contextlib import closing

import pytest

from configstore.files.entries import Entries
from configstore.model.path import StorePath
from configstore.model.record import Kind
from configstore.model.selection import Symlinks
from sidecar.local import rename, set_steps
from sidecar.local.apply import Applier
from sidecar.local.directories import Directories
from tests.harness.named import GONE, a_dir, a_link
from tests.sidecar.local.named import (
    NOBODY,
    a_file,
    as_nobody,
    modes_below,
    no_descriptors_left,
    open_descriptors,
    write,
)


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def needs_root():
    if os.geteuid() != 0:
        pytest.fail("this test gives files to other users, which needs root", pytrace=False)


@pytest.fixture
def renamed(monkeypatch):
    """Return a function to have something called before or after every rename into place."""
    real = rename.renameat2

    def hook(before=lambda _: None, after=lambda _: None):
        def hooked(source, name, target, new_name, flags):
            before(new_name)
            real(source, name, target, new_name, flags)
            after(new_name)

        monkeypatch.setattr(rename, "renameat2", hooked)

    return hook


@pytest.fixture
def meanwhile(monkeypatch):
    """Return a function to have something done when all is ready and nothing is placed yet.

    before: the step of a set that is kept waiting for it; `put_in_place`, or `_in_the_way` before directories.
    """

    def hook(act, before="put_in_place"):
        step = getattr(set_steps.SetSteps, before)

        def hooked(one):
            act()
            return step(one)

        monkeypatch.setattr(set_steps.SetSteps, before, hooked)

    return hook


# Placing


def test_a_set_is_placed(here):
    applied = here.apply(
        here.change("certs", a_dir(0o750)),
        here.file("certs/key.pem", "secret", 0o600),
        here.file("certs/cert.pem", "public", 0o644),
        here.change("certs/live", a_link("cert.pem")),
    )
    assert applied.done.keys() == {"certs", "certs/key.pem", "certs/cert.pem", "certs/live"}
    assert not applied.problems
    assert not applied.stale
    assert (here.path / "certs" / "key.pem").read_text() == "secret"
    assert (here.path / "certs" / "live").read_text() == "public"
    assert [mode(here.path / path) for path in ("certs", "certs/key.pem", "certs/cert.pem")] == [
        0o750,
        0o600,
        0o644,
    ]
    assert here.staged() == []


def test_what_was_applied_is_no_news_for_a_scan(here):
    here.apply(
        here.change("certs", a_dir()),
        here.file("certs/file", "content"),
        here.change("certs/link", a_link("file")),
        here.file("deep/er/file", "content"),
    )
    assert here.scan().changed.keys() == {"deep", "deep/er"}  # which had no record
    here.apply(
        here.file("certs/file", "new content"), here.change("certs/link", GONE), here.change("certs", a_dir(0o700))
    )
    assert here.scan().changed == {}


def test_a_set_is_placed_in_the_mappings_order(mirrored, renamed):
    here = mirrored(order=("/archive", "/live", "/renewal"))
    placed = []
    renamed(before=placed.append)
    here.apply(
        here.file("renewal/conf", "r"),
        here.file("else", "e"),
        here.change("live/link", a_link("../archive/key")),
        here.file("archive/key", "k"),
    )
    assert [name for name in placed if name not in {"archive", "live", "renewal"}] == [
        "key",
        "link",
        "conf",
        "else",
    ]


def test_a_file_is_replaced_and_its_old_content_stays_with_who_reads_it(here):
    here.apply(here.file("file", "old"))
    with (here.path / "file").open() as reader:
        here.apply(here.file("file", "new"))
        assert reader.read() == "old"
    assert (here.path / "file").read_text() == "new"


def test_missing_directories_are_made_with_the_mappings_mode(mirrored):
    here = mirrored(dir_mode=0o710)
    here.apply(here.file("a/b/file", "content"))
    assert (here.path / "a" / "b" / "file").read_text() == "content"
    assert [mode(here.path / "a"), mode(here.path / "a" / "b")] == [0o710, 0o710]


def test_missing_directories_belong_to_whom_their_parent_does(here):
    needs_root()
    os.chown(here.path, NOBODY, NOBODY)
    here.apply(here.file("a/b/file", "content"))
    for path in ("a", "a/b", "a/b/file"):
        assert ((here.path / path).stat().st_uid, (here.path / path).stat().st_gid) == (NOBODY, NOBODY)
    assert here.scan().changed.keys() == {"a", "a/b"}


def test_a_directory_far_down_is_reached(here):
    deep = "/".join("d" * 300)
    assert here.apply(here.file(f"{deep}/file", "content")).done.keys() == {f"{deep}/file"}


def test_more_directories_than_are_held_open_are_served(here):
    changes = [here.file(f"d{number}/file", f"{number}") for number in range(300)]
    with no_descriptors_left(150):
        assert len(here.apply(*changes).done) == 300


def test_what_the_applier_puts_in_place_is_told(here):
    noted = []
    here.applier = Applier(here.root, here.mapping, here.journal, noted.append)
    here.apply(here.change("a", a_dir()), here.file("a/file", "content"))
    here.apply(here.change("a/file", GONE))
    assert sorted(noted) == ["a", "a/file"]


# Secrets, owners, modes


def test_a_file_has_its_owner_and_mode_before_anybody_can_see_it(here, renamed):
    needs_root()
    seen = {}

    def look(target):
        (name,) = here.staged()
        status = os.stat(name, dir_fd=here.root.staging_fd)
        seen[target] = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)

    renamed(before=look)
    here.apply(here.file("key", "secret", 0o440, uid=NOBODY, gid=4321))
    assert seen == {"key": (0o440, NOBODY, 4321)}


def test_a_file_is_closed_to_others_from_its_birth(here, monkeypatch):
    modes = []
    create, umask = os.open, os.umask(0)

    def watched(path, flags, *args, **fds):
        descriptor = create(path, flags, *args, **fds)
        if flags & os.O_CREAT:
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    try:
        here.apply(here.file("key", "secret", 0o644))
    finally:
        os.umask(umask)
    assert modes == [0o600, 0o600]  # the journal and the file
    assert mode(here.path / "key") == 0o644


def test_setuid_bits_from_the_store_are_dropped(here):
    here.apply(here.file("tool", "content", 0o6755), here.change("dir", a_dir(0o3777)))
    assert [mode(here.path / "tool"), mode(here.path / "dir")] == [0o755, 0o777]


def test_a_directory_is_narrowed_before_a_secret_is_laid_into_it(here, renamed):
    here.apply(here.change("a", a_dir(0o755)))
    seen = {}
    renamed(before=lambda target: seen.update({target: mode(here.path / "a")}))
    here.apply(here.change("a", a_dir(0o700)), here.file("a/key", "secret", 0o644))
    assert seen == {"key": 0o700}


def test_a_directory_is_opened_to_others_only_when_all_is_in_it(here, renamed):
    here.apply(here.change("old", a_dir(0o700)))
    seen = {}
    renamed(after=lambda target: seen.update({target: [mode(path) for path in here.path.glob("[no]*")]}))
    here.apply(
        here.change("old", a_dir(0o755)),
        here.file("old/file", "content"),
        here.change("new", a_dir(0o755)),
        here.file("new/other", "content"),
    )
    assert seen["other"] == seen["file"] == [0o700, 0o700]
    assert [mode(here.path / "old"), mode(here.path / "new")] == [0o755, 0o755]


def test_an_owner_the_record_leaves_open_is_the_one_it_had(here):
    needs_root()
    write(here.path / "file", "old")
    os.chown(here.path / "file", NOBODY, 4321)
    here.scan()
    here.apply(here.file("file", "new", uid=1234))
    assert ((here.path / "file").stat().st_uid, (here.path / "file").stat().st_gid) == (1234, 4321)
    here.apply(here.file("file", "newer"))
    assert ((here.path / "file").stat().st_uid, (here.path / "file").stat().st_gid) == (1234, 4321)
    assert here.scan().changed == {}


def test_an_owner_that_may_not_be_set_is_a_problem_with_the_mend(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs)
        here.apply(here.file("file", "old"))
        applied = here.apply(here.file("file", "new", uid=0), here.file("other", "new", group=2))
    assert applied.problems.keys() == {"file"}
    assert 'owner = "1000:1000"' in applied.problems["file"].reason
    assert (here.path / "file").read_text() == "old"
    assert applied.done.keys() == {"other"}
    assert here.staged() == []


def test_a_directory_changes_its_owner(here):
    needs_root()
    here.apply(here.change("a", a_dir(0o755)))
    applied = here.apply(here.change("a", a_dir(0o755, uid=NOBODY, gid=4321)))
    assert (applied.done["a"].entry.uid, applied.done["a"].entry.gid) == (NOBODY, 4321)
    assert here.scan().changed == {}


def test_a_directory_whose_owner_may_not_be_set_stays_as_it_is(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs)
        here.apply(here.change("a", a_dir(0o755)))
        applied = here.apply(here.change("a", a_dir(0o700, uid=0)), here.file("a/file", "x"))
        assert here.scan().changed == {}
    assert applied.problems.keys() == {"a", "a/file"}


def test_a_links_owner_hinders_nothing(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs)
        assert here.apply(here.change("link", a_link("file", uid=0))).done.keys() == {"link"}


@pytest.mark.parametrize("closed", [0o500, 0o555, 0o400, 0o000], ids=oct)
def test_a_directory_that_shall_not_be_written_to_still_gets_its_content(mirrored, theirs, closed):
    with as_nobody():
        here = mirrored(theirs)
        applied = here.apply(
            here.change("a", a_dir(closed)), here.file("a/file", "content"), here.change("a/b", a_dir(closed)),
            here.file("a/b/file", "content"),
        )  # fmt: skip
    assert not applied.problems
    assert applied.done.keys() == {"a", "a/file", "a/b", "a/b/file"}
    assert modes_below(here.path) == {
        ".configstore": 0o700,
        ".configstore/staging": 0o700,
        "a": closed,
        "a/b": closed,
    }
    assert (here.path / "a" / "b" / "file").read_text() == "content"


def test_a_directory_that_is_not_written_to_by_others_still_changes(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs)
        here.apply(here.change("a", a_dir(0o500)), here.file("a/file", "old"), here.file("a/gone", "old"))
        applied = here.apply(
            here.file("a/file", "new"), here.change("a/gone", GONE), here.file("a/b/new", "new"),
        )  # fmt: skip
        assert not applied.problems
        assert here.scan().changed.keys() == {"a/b"}
    assert mode(here.path / "a") == 0o500
    assert sorted(os.listdir(here.path / "a")) == ["b", "file"]


def test_a_directory_that_is_not_written_to_is_removed_with_its_content(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs)
        here.apply(here.change("a", a_dir(0o500)), here.file("a/file", "content"))
        applied = here.apply(here.change("a", GONE), here.change("a/file", GONE))
    assert applied.done == {"a": None, "a/file": None}
    assert not (here.path / "a").exists()


def test_implicit_directories_may_be_closed_by_the_mapping(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs, dir_mode=0o500)
        assert not here.apply(here.file("a/b/one", "content"), here.file("a/two", "content")).problems
    assert [mode(here.path / "a"), mode(here.path / "a" / "b")] == [0o500, 0o500]


def test_many_directories_may_be_closed_by_the_mapping(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs, dir_mode=0o400)
        assert not here.apply(*[here.file(f"a/d{number}/file", "content") for number in range(200)]).problems
    modes = modes_below(here.path)
    assert {modes["a"], *(modes[f"a/d{number}"] for number in range(200))} == {0o400}


# What something else lies in the place of


@pytest.mark.parametrize("change", ["edit", "replace", "mode", "delete", "symlink", "directory"])
def test_what_changed_since_the_plan_is_stale_and_untouched(here, change):
    here.apply(here.file("file", "known"))
    file = here.path / "file"
    if change == "edit":
        file.write_text("EDITED")
    elif change == "replace":
        write(file, "known", mode=0o640)
    elif change == "mode":
        file.chmod(0o600)
    else:
        file.unlink()
        if change == "symlink":
            file.symlink_to("elsewhere")
        elif change == "directory":
            file.mkdir()
    before = file.lstat() if os.path.lexists(file) else None
    applied = here.apply(here.file("file", "from the store"))
    assert applied.stale == {"file"}
    assert applied.done == {}
    assert (file.lstat() if os.path.lexists(file) else None) == before
    assert here.staged() == []


def test_what_lies_where_nothing_was_known_is_stale(here):
    write(here.path / "file", "the application's")
    (here.path / "dir").mkdir(mode=0o700)
    (here.path / "link").symlink_to("file")
    applied = here.apply(
        here.file("file", "x"), here.change("dir", a_dir(), group=2), here.file("link", "x", group=3)
    )
    assert applied.stale == {"file", "dir", "link"}
    assert (here.path / "file").read_text() == "the application's"
    assert mode(here.path / "dir") == 0o700


def test_a_doomed_file_that_was_edited_lives(here):
    here.apply(here.file("file", "known"))
    (here.path / "file").write_text("EDITED")
    assert here.apply(here.change("file", GONE)).stale == {"file"}
    assert (here.path / "file").read_text() == "EDITED"


def test_an_edit_while_the_set_is_made_ready_is_not_overwritten(here, meanwhile):
    here.apply(here.file("one", "known"), here.file("two", "known"))
    meanwhile(lambda: (here.path / "two").write_text("EDITED"))
    applied = here.apply(here.file("one", "new"), here.file("two", "new"))
    assert applied.done == {}
    assert applied.stale == {"one", "two"}
    assert ((here.path / "one").read_text(), (here.path / "two").read_text()) == ("known", "EDITED")


def test_a_directory_made_while_the_set_is_made_ready_is_left_alone(here, meanwhile):
    meanwhile(lambda: (here.path / "a").mkdir(mode=0o711), before="_in_the_way")
    applied = here.apply(here.change("a", a_dir(0o755)), here.file("a/file", "x"))
    assert applied.stale == {"a", "a/file"}
    assert mode(here.path / "a") == 0o711
    assert here.staged() == []


def test_a_deletion_waits_when_its_set_could_not_be_placed_whole(here, meanwhile):
    here.apply(here.file("old", "known"), here.file("file", "known"))
    meanwhile(lambda: (here.path / "file").write_text("EDITED"))
    applied = here.apply(here.change("old", GONE), here.file("file", "new"))
    assert applied.stale == {"file", "old"}
    assert (here.path / "old").read_text() == "known"


def test_a_doomed_file_that_is_edited_meanwhile_lives(here, meanwhile):
    here.apply(here.file("file", "known"))
    meanwhile(lambda: (here.path / "file").write_text("EDITED"))
    assert here.apply(here.change("file", GONE)).stale == {"file"}
    assert (here.path / "file").read_text() == "EDITED"


def test_an_edit_right_after_the_rename_is_not_overwritten_by_the_next_set(here, renamed):
    renamed(after=lambda target: (here.path / target).write_text("the application's"))
    here.apply(here.file("file", "placed"))
    assert here.apply(here.file("file", "placed again")).stale == {"file"}
    assert (here.path / "file").read_text() == "the application's"


def test_an_edit_right_after_the_rename_is_found_by_the_next_scan(here, renamed):
    def edit(target):
        with open(here.path / target, "r+") as file:
            file.write("EDITED")

    renamed(after=edit)
    here.apply(here.file("in place", "placed"))
    assert here.scan().changed["in place"].entry.sha256 == a_file("EDITED").sha256


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_what_came_right_after_the_rename_is_found_by_the_next_scan(here, renamed, change):
    def act(target):
        if target == "file":
            (here.path / target).unlink()
            if change == "replaced":
                (here.path / target).write_text("OTHERS")

    renamed(after=act)
    assert here.apply(here.file("file", "placed")).done.keys() == {"file"}
    found = here.scan().changed["file"]
    assert found is None if change == "deleted" else found.entry.sha256 == a_file("OTHERS").sha256


# Groups


@pytest.mark.parametrize("order", [1, -1])
def test_a_set_is_held_back_when_one_member_cannot_be_placed(here, order):
    here.apply(here.file("file", "old"), here.file("doomed", "old"), here.change("dir", a_dir(0o755)))
    changes = [
        here.file("file", "new"),
        here.file("new", "new"),
        here.change("doomed", GONE),
        here.change("dir", a_dir(0o700)),
        here.change("newdir", a_dir()),
        here.change("bad", a_link("/etc/passwd")),
        here.file("alone", "new", group=2),
    ]
    applied = here.apply(*changes[::order])
    assert applied.done.keys() == {"alone"}
    assert "absolute target" in applied.problems["bad"].reason
    for path in ("file", "new", "doomed", "dir", "newdir"):
        assert applied.problems[path].reason.startswith("held back: bad,")
    assert (here.path / "file").read_text() == "old"
    assert mode(here.path / "dir") == 0o755
    assert sorted(os.listdir(here.path)) == [".configstore", "alone", "dir", "doomed", "file"]
    assert here.staged() == []


def test_a_set_with_a_stale_member_is_stale(here):
    here.apply(here.file("one", "old"), here.file("two", "old"))
    (here.path / "two").write_text("EDITED")
    applied = here.apply(here.file("one", "new"), here.file("two", "new"), here.file("three", "new"))
    assert applied.stale == {"one", "two", "three"}
    assert applied.problems == {}
    assert (here.path / "one").read_text() == "old"


def test_renames_are_back_to_back(here, monkeypatch):
    made = [here.file(f"d{number % 6}/file{number}", f"{number}") for number in range(60)]
    steps = []

    def watch(owner, name):
        real = getattr(owner, name)

        def watched(*args, **options):
            steps.append(name)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, watched)

    for name in ("open", "write", "mkdir", "fchmod", "chown", "fstat"):
        watch(os, name)
    watch(rename, "renameat2")
    watch(Entries, "make")
    here.applier = Applier(here.root, here.mapping, here.journal, lambda _: steps.append("note"))
    assert len(here.apply(*made).done) == 60
    first = steps.index("renameat2")
    assert steps[first : first + 60] == ["renameat2"] * 60
    assert "note" in steps[first:]


def test_directories_come_before_files_and_files_before_links(here, renamed):
    order = []
    renamed(after=order.append)
    here.apply(
        here.change("link", a_link("new/file")), here.file("new/file", "content"), here.change("new", a_dir())
    )
    assert order == ["new", "file", "link"]


def test_no_reader_ever_sees_half_a_file(here):
    versions = {letter: letter * 200_000 for letter in "abcdef"}
    here.apply(here.file("file", versions["a"]))
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            content = (here.path / "file").read_text()
            seen.add((content[:1], content == versions[content[:1]]))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        assert here.apply(here.file("file", versions["abcdef"[number % 6]])).done
    stop.set()
    reader.join()
    assert {whole for _, whole in seen} == {True}


# Kinds


KINDS = {
    "file": a_file("content"),
    "link": a_link("elsewhere"),
    "dir": a_dir(0o750),
}


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_every_kind_becomes_every_other(here, before, after):
    def change(kind):
        return here.change("a/path", KINDS[kind], "content" if kind == "file" else None)

    here.apply(change(before))
    applied = here.apply(change(after))
    assert applied.done.keys() == {"a/path"}
    assert applied.done["a/path"].entry.kind is KINDS[after].kind
    here.scan()
    assert here.known["a/path"].entry.same_content(KINDS[after])


def test_a_directory_with_content_becomes_a_file(here):
    here.apply(here.change("a", a_dir()), here.file("a/b/file", "content"))
    here.scan()
    applied = here.apply(here.file("a", "a file"), here.change("a/b/file", GONE), here.change("a/b", GONE))
    assert applied.done.keys() == {"a", "a/b", "a/b/file"}
    assert (here.path / "a").read_text() == "a file"


def test_a_file_becomes_a_directory_with_content(here):
    here.apply(here.file("a", "a file"))
    applied = here.apply(here.change("a", a_dir()), here.file("a/b/file", "content"))
    assert applied.done.keys() == {"a", "a/b/file"}
    assert (here.path / "a" / "b" / "file").read_text() == "content"


def test_a_symlink_becomes_a_directory_with_content(here):
    (here.path.parent / "outside").mkdir()
    (here.path / "b").mkdir()
    here.apply(here.change("a", a_link("b")))
    applied = here.apply(here.change("a", a_dir()), here.file("a/file", "content"))
    assert applied.done.keys() == {"a", "a/file"}
    assert os.listdir(here.path / "b") == []


def test_a_directory_that_holds_more_than_is_known_does_not_become_a_file(here):
    here.apply(here.change("a", a_dir()), here.file("a/file", "content"))
    write(here.path / "a" / "unknown", "the application's")
    applied = here.apply(here.file("a", "a file"), here.change("a/file", GONE))
    assert "still holds files" in applied.problems["a"].reason
    assert (here.path / "a" / "unknown").read_text() == "the application's"


def test_a_directory_stays_whole_when_the_file_in_its_place_has_no_space(mirrored, tmpfs):
    here = mirrored(tmpfs(size="64k"))
    here.apply(here.change("a", a_dir()), here.file("a/file", "content"))
    applied = here.apply(here.file("a", "x" * 200_000), here.change("a/file", GONE))
    assert applied.problems.keys() == {"a", "a/file"}
    assert (here.path / "a" / "file").read_text() == "content"


# Removing


def test_files_and_directories_are_removed(here):
    here.apply(here.change("a", a_dir()), here.file("a/file", "x"), here.change("a/link", a_link("file")))
    applied = here.apply(here.change("a", GONE), here.change("a/file", GONE), here.change("a/link", GONE))
    assert applied.done == {"a": None, "a/file": None, "a/link": None}
    assert os.listdir(here.path) == [".configstore"]


def test_what_is_gone_already_is_removed(here):
    here.apply(here.change("a", a_dir()), here.file("a/file", "x"))
    (here.path / "a").rename(here.path.parent / "away")
    applied = here.apply(here.change("a", GONE), here.change("a/file", GONE), here.change("never", GONE))
    assert applied.done == {"a": None, "a/file": None, "never": None}
    assert (here.path.parent / "away" / "file").exists()


def test_a_directory_that_is_not_empty_stays_and_is_a_problem(here):
    here.apply(here.change("a", a_dir()), here.file("a/file", "x"))
    write(here.path / "a" / "unknown", "the application's")
    applied = here.apply(here.change("a", GONE), here.change("a/file", GONE))
    assert "still holds files" in applied.problems["a"].reason
    assert applied.done == {"a/file": None}
    assert (here.path / "a" / "unknown").read_text() == "the application's"


def test_a_link_is_removed_and_not_what_it_points_to(here):
    write(here.path / "dir" / "file", "content")
    (here.path / "link").symlink_to("dir")
    here.scan()
    assert here.apply(here.change("link", GONE)).done == {"link": None}
    assert (here.path / "dir" / "file").exists()


# Ways out


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../outside"])
def test_a_link_that_leads_out_is_refused(here, target):
    applied = here.apply(here.change("link", a_link(target)))
    assert applied.problems.keys() == {"link"}
    assert not os.path.lexists(here.path / "link")
    assert here.staged() == []


@pytest.mark.parametrize("policy", [Symlinks.REFUSE, Symlinks.RESOLVE])
def test_a_link_is_refused_where_the_mapping_has_none(mirrored, policy):
    here = mirrored(symlinks=policy)
    assert f'symlinks = "{policy}"' in here.apply(here.change("link", a_link("file"))).problems["link"].reason


def test_nothing_is_written_through_a_symlinked_directory(here):
    outside = here.path.parent / "outside"
    outside.mkdir()
    (here.path / "a").symlink_to("../outside")
    applied = here.apply(here.file("a/file", "x"), here.file("a/b/c/file", "x", group=2))
    assert applied.problems.keys() == {"a/file", "a/b/c/file"}
    assert "symlink lies where a directory must be" in applied.problems["a/file"].reason
    assert list(outside.iterdir()) == []


def test_nothing_is_removed_through_a_symlinked_directory(here):
    here.apply(here.change("a", a_dir()), here.file("a/file", "x"))
    outside = here.path.parent / "outside"
    (here.path / "a").rename(outside)
    (here.path / "a").symlink_to("../outside")
    here.apply(here.change("a/file", GONE))
    assert (outside / "file").read_text() == "x"


@pytest.mark.parametrize("known", [True, False])
def test_a_symlink_swapped_in_at_the_last_moment_leads_nowhere(here, meanwhile, known):
    outside = here.path.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    if known:
        here.apply(here.change("a", a_dir()), here.file("a/file", "old"))

    def swap():
        (here.path / "a").rename(here.path / "aside")
        (here.path / "a").symlink_to("../outside")

    meanwhile(swap)
    here.apply(here.file("a/file", "new"), here.file("a/b/file", "new"))
    assert (outside / "file").read_text() == "precious"
    assert os.listdir(outside) == ["file"]


def test_nothing_is_written_into_another_mount(here, tmpfs):
    (here.path / "a").mkdir()
    here.scan()
    mounted = tmpfs(here.path / "a")
    applied = here.apply(here.file("a/file", "x"))
    assert "another file system" in applied.problems["a/file"].reason
    assert list(mounted.iterdir()) == []


# What runs out


def test_no_space_leaves_the_old_file_whole(mirrored, tmpfs):
    here = mirrored(tmpfs(size="128k"))
    here.apply(here.file("big", "old" * 10_000))
    big = here.file("big", "new" * 60_000)
    applied = here.apply(big, here.file("small", "new"), here.file("other", "new", group=2))
    assert "no space left" in applied.problems["big"].reason
    assert applied.problems["small"].reason.startswith("held back")
    assert applied.done.keys() == {"other"}
    assert (here.path / "big").read_text() == "old" * 10_000
    assert here.staged() == []
    assert here.apply(here.file("big", "new")).done.keys() == {"big"}


@pytest.mark.parametrize("spare", range(5))
def test_no_descriptors_left_leaves_the_old_files_whole(here, spare):
    here.apply(here.change("a", a_dir()), here.file("a/file", "old"), here.file("b/file", "old"))
    before = open_descriptors()
    with no_descriptors_left(spare):
        applied = here.apply(here.file("a/file", "new"), here.file("b/file", "new"), here.file("c/file", "new"))
    assert open_descriptors() == before
    assert here.staged() == []
    assert {problem.reason for problem in applied.problems.values()} or applied.done
    for path in ("a/file", "b/file"):
        assert (here.path / path).read_text() == ("new" if path in applied.done else "old")
    assert len(applied.done) in {0, 3}
    here.scan()
    assert not here.apply(here.file("a/file", "newest"), here.file("c/file", "newest")).problems


def test_a_directory_that_may_not_be_written_to_is_a_problem(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs)
        (here.path / "a").mkdir()
    if os.geteuid() == 0:
        os.chown(here.path / "a", 0, 0)
        (here.path / "a").chmod(0o755)
        with as_nobody():
            here.scan()
            applied = here.apply(here.file("a/file", "x"), here.file("file", "x", group=2))
        assert "no permission" in applied.problems["a/file"].reason
        assert applied.done.keys() == {"file"}
    else:
        needs_root()


def test_sets_leak_no_descriptors(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs)
        here.apply(here.change("closed", a_dir(0o500)), here.file("closed/file", "x"))
        (here.path / "link").symlink_to("closed")
        before = open_descriptors()
        for number in range(4):
            here.apply(
                here.file("a/file", f"{number}"),
                here.file("closed/file", f"{number}", group=2),
                here.file("link/file", "x", group=3),
                here.file("owned", "x", uid=0, group=4),
                here.change("bad", a_link("/"), group=5),
                here.change("a" if number % 2 else "b", a_dir(), group=6),
            )
            with no_descriptors_left(3):
                here.apply(here.file("a/file", "again"), here.file("c/d/e/file", "x"))
        assert open_descriptors() == before


def test_a_change_never_shows_its_content(here):
    assert "secret" not in repr(here.file("key", "secret"))
    assert here.file("key", "secret").desired.kind is Kind.FILE


def test_an_edit_just_before_the_rename_is_never_overwritten(here, renamed):
    here.apply(here.file("file", "old"))
    renamed(before=lambda _: (here.path / "file").write_text("the application's"))
    assert here.apply(here.file("file", "new")).stale == {"file"}
    assert (here.path / "file").read_text() == "the application's"
    assert here.staged() == []


def test_a_file_made_just_before_the_rename_is_never_overwritten(here, renamed):
    renamed(before=lambda _: (here.path / "file").write_text("the application's"))
    assert here.apply(here.file("file", "new")).stale == {"file"}
    assert (here.path / "file").read_text() == "the application's"


def test_an_edit_just_before_a_removal_is_never_lost(here, monkeypatch):
    here.apply(here.file("file", "old"))
    real = os.rename

    def edited(*arguments, **options):
        (here.path / "file").write_text("the application's")
        real(*arguments, **options)

    monkeypatch.setattr(os, "rename", edited)
    assert here.apply(here.change("file", GONE)).stale == {"file"}
    assert (here.path / "file").read_text() == "the application's"


def test_without_renameat2_a_plain_rename_does(here, monkeypatch):
    monkeypatch.setattr(rename, "_libc", object())
    assert here.apply(here.file("file", "old")).done.keys() == {"file"}
    assert here.apply(here.file("file", "new")).done.keys() == {"file"}
    assert (here.path / "file").read_text() == "new"


def test_a_directory_put_in_the_place_of_a_known_one_gets_neither_mode_nor_owner(here, monkeypatch):
    here.apply(here.change("d", a_dir(0o700)))
    here.scan()
    real = Directories.open

    def swapped(self, path):
        if path == "d" and not (here.path / "aside").exists():
            (here.path / "d").rename(here.path / "aside")
            (here.path / "d").mkdir(mode=0o700)
        return real(self, path)

    monkeypatch.setattr(Directories, "open", swapped)
    applied = here.apply(here.change("d", a_dir(0o755, uid=NOBODY, gid=NOBODY)))
    assert applied.stale == {"d"}
    found = (here.path / "d").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o700, os.geteuid())


def test_a_directory_that_changes_while_a_set_is_placed_gets_none_of_it(here, monkeypatch):
    here.apply(here.change("d", a_dir()), here.file("d/a", "old"))
    here.scan()
    with closing(Directories(here.root, None, here.journal)) as directories:
        directories.open(StorePath("d"))
        for number in range(200):
            (here.path / f"x{number}").mkdir()
            directories.open(StorePath(f"x{number}"))
        (here.path / "d").rename(here.path / "aside")
        (here.path / "d").mkdir()
        with pytest.raises(OSError, match="Stale file handle"):
            directories.open(StorePath("d"))
