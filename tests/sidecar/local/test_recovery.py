"""A crash in the middle of a set: at whichever step, the next start finishes the set or leaves it whole."""

import os
import stat

import msgspec
import pytest

from configstore.model.path import StorePath
from configstore.model.signature import Signature
from sidecar.local import rename
from sidecar.local.fingerprint import Fingerprint, fingerprint_of
from sidecar.local.journal import FILE, Journal, Removing
from sidecar.planner.sides import RemoteEntry
from tests.harness.named import GONE, a_link
from tests.harness.trees import tree
from tests.sidecar.local.named import Mirrored, a_file


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def here(tmp_path):
    mirrored = Mirrored(tmp_path / "top")
    yield mirrored
    mirrored.close()


class Steps:
    """Counts the steps that change a directory; the process ends before or after the n-th."""

    def __init__(self, monkeypatch, crash_at=None, *, after=False, meanwhile=lambda: None):
        self.done, self.crash_at, self.after, self.meanwhile = 0, crash_at, after, meanwhile
        for owner, name in [(rename, "renameat2"), (os, "rename"), (os, "unlink"), (os, "rmdir"), (os, "link")]:
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, real):
        def step(*arguments, **options):
            self.done += 1
            if self.done == self.crash_at and not self.after:
                raise Crash
            if self.done == self.crash_at:
                self.meanwhile()
            real(*arguments, **options)
            if self.done == self.crash_at:
                raise Crash

        return step


def a_mixed_set(here):
    """Make a state, and return changes of every sort to it."""
    here.apply(
        here.file("cert", "old cert"),
        here.file("key", "old key", 0o600),
        here.file("gone", "deleted by the set"),
        here.file("link", "a file that becomes a link"),
    )
    here.scan()
    here.apply()
    return (
        here.file("cert", "new cert"),
        here.file("key", "new key", 0o600),
        here.file("new/one", "created"),
        here.change("gone", GONE),
        here.change("link", a_link("cert")),
    )


def contents(path):
    return {name: found for name, found in tree(path).items() if found[0] != "dir"}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_set_is_finished_wherever_the_crash_struck(tmp_path, after):
    step, seen = 0, set()
    while True:
        step += 1
        here = Mirrored(tmp_path / f"top{step}")
        changes = a_mixed_set(here)
        old = contents(here.path)
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, step, after=after)
            try:
                here.apply(*changes)
            except Crash:
                pass
            else:
                break
        here.begin_anew()
        found = contents(here.path)
        placed = {name: found[name] for name in found if name != "gone"}
        seen.add("old" if found == old else "new" if "new/one" in placed else "mixed")
        assert {os.fsdecode(name) for name in here.staged()} == set()
        assert (here.path / ".configstore" / FILE).stat().st_size == 0
        if found != old:
            assert (here.path / "cert").read_text() == "new cert"
            assert (here.path / "key").read_text() == "new key"
            assert os.readlink(here.path / "link") == "cert"
        here.close()
    assert steps.done >= 6
    assert seen <= {"old", "new"}
    assert "new" in seen


def test_a_finished_set_is_agreed_on(here, monkeypatch):
    old = here.file("cert", "old")
    here.apply(old)
    change = here.file("cert", "new")
    remote = RemoteEntry(entry=a_file("new"), mod_revision=7)
    crashing = msgspec.structs.replace(change, remote=remote)
    with monkeypatch.context() as patch:
        Steps(patch, 1)
        with pytest.raises(Crash):
            here.apply(crashing)
    agreed = here.begin_anew()
    assert (here.path / "cert").read_text() == "new"
    assert agreed["cert"].mod_revision == 7
    assert agreed["cert"].local.sha256 == a_file("new").sha256
    assert agreed["cert"].ino == (here.path / "cert").stat().st_ino


def test_an_edit_made_after_the_crash_is_one_of_what_the_store_holds(here, monkeypatch):
    remote = RemoteEntry(entry=a_file("new"), mod_revision=7)
    with monkeypatch.context() as patch:
        Steps(patch, 1, after=True)
        with pytest.raises(Crash):
            here.apply(msgspec.structs.replace(here.file("cert", "new"), remote=remote))
    (here.path / "cert").write_text("edited while nobody was here")
    agreed = here.begin_anew()
    assert (here.path / "cert").read_text() == "edited while nobody was here"
    assert agreed["cert"].mod_revision == 7
    assert agreed["cert"].local.sha256 == a_file("new").sha256


def test_an_edit_that_came_out_in_exchange_goes_back(here, monkeypatch):
    here.apply(here.file("cert", "old"))
    change = here.file("cert", "new")
    with monkeypatch.context() as patch:
        Steps(patch, 1, after=True, meanwhile=lambda: (here.path / "cert").write_text("edited at the last moment"))
        with pytest.raises(Crash):
            here.apply(change)
    assert (here.path / "cert").read_text() == "new"
    assert here.begin_anew() == {}
    assert (here.path / "cert").read_text() == "edited at the last moment"


def test_an_edit_that_was_moved_aside_for_a_delete_goes_back(here, monkeypatch):
    here.apply(here.file("cert", "old"))
    change = here.change("cert", GONE)
    with monkeypatch.context() as patch:
        Steps(patch, 1, after=True, meanwhile=lambda: (here.path / "cert").write_text("edited at the last moment"))
        with pytest.raises(Crash):
            here.apply(change)
    assert not (here.path / "cert").exists()
    here.begin_anew()
    assert (here.path / "cert").read_text() == "edited at the last moment"


def test_what_was_edited_after_the_crash_is_left_alone_with_all_of_its_set(here, monkeypatch):
    here.apply(here.file("cert", "old"), here.file("key", "old"))
    with monkeypatch.context() as patch:
        Steps(patch, 1)
        with pytest.raises(Crash):
            here.apply(here.file("cert", "new"), here.file("key", "new"))
    (here.path / "key").write_text("edited while nobody was here")
    assert here.begin_anew() == {}
    assert (here.path / "cert").read_text() == "old"
    assert (here.path / "key").read_text() == "edited while nobody was here"


def test_a_set_that_was_edited_as_a_whole_after_the_crash_is_agreed_on_in_no_part(here, monkeypatch):
    """Else one member were an edit of what the store holds, which is sent, and the other one a conflict."""
    here.apply(here.file("cert", "old"), here.file("key", "old"))
    remote = RemoteEntry(entry=a_file("new"), mod_revision=7)
    changes = [msgspec.structs.replace(here.file(name, "new"), remote=remote) for name in ("cert", "key")]
    with monkeypatch.context() as patch:
        Steps(patch, 1, after=True)
        with pytest.raises(Crash):
            here.apply(*changes)
    assert (here.path / "cert").read_text() == "new"
    for name in ("cert", "key"):
        (here.path / name).write_text("edited while nobody was here")
    assert here.begin_anew() == {}
    for name in ("cert", "key"):
        assert (here.path / name).read_text() == "edited while nobody was here"


def test_a_directory_made_writable_for_a_set_is_closed_again(tmp_path, monkeypatch):
    here = Mirrored(tmp_path / "top")
    here.apply(here.file("d/a", "old"))
    os.chmod(here.path / "d", 0o500)
    here.scan()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # as for another user than root
    with monkeypatch.context() as patch:
        Steps(patch, 1)
        with pytest.raises(Crash):
            here.apply(here.file("d/a", "new"))
    assert stat.S_IMODE((here.path / "d").stat().st_mode) == 0o700
    here.begin_anew()
    assert stat.S_IMODE((here.path / "d").stat().st_mode) == 0o500
    assert (here.path / "d/a").read_text() == "new"
    here.close()


@pytest.mark.parametrize("junk", [b"\0\xff", b'{"type":"place"}\n', b'{"type":"remove","path":"a"', b"[]\n"])
def test_a_torn_or_foreign_journal_is_worth_nothing(here, junk):
    here.apply(here.file("a", "kept"))
    (here.path / ".configstore" / FILE).write_bytes(junk)
    (here.path / ".configstore/staging/0").write_text("left over")
    assert here.begin_anew() == {}
    assert contents(here.path) == {"a": tree(here.path)["a"]}
    assert here.staged() == []


def test_the_journal_is_for_us_alone_and_empty_after_each_set(here):
    here.apply(here.file("a", "one"))
    found = (here.path / ".configstore" / FILE).stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size == 0


def test_without_room_for_the_intents_nothing_is_placed(here, monkeypatch):
    here.apply(here.file("a", "old"))

    def full(self, *intents):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Journal, "note", full)
    applied = here.apply(here.file("a", "new"))
    assert "no space left" in applied.problems["a"].reason
    assert (here.path / "a").read_text() == "old"
    assert here.staged() == []


def test_a_half_written_intent_leaves_the_ones_before_it(tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY)
    journal = Journal(directory)
    first = Removing(
        path=StorePath("a"), name="0", expected=Fingerprint(signature=Signature(1, 2, 3, 4, 5, 6, 7)), group=1
    )
    journal.note(first)
    with open(tmp_path / FILE, "ab") as log:
        log.write(b'{"type":"remove"')
    assert journal.read() == [first]
    journal.close()
    os.close(directory)


@pytest.mark.parametrize("known", [True, False], ids=["replaced", "new"])
def test_a_set_that_cannot_be_finished_goes_back_as_a_whole(here, monkeypatch, known):
    if known:
        here.apply(here.file("cert", "old"))
    here.apply(here.file("key", "old"))
    with monkeypatch.context() as patch:
        Steps(patch, 1, after=True)
        with pytest.raises(Crash):
            here.apply(here.file("cert", "new"), here.file("key", "new"))
    assert (here.path / "cert").read_text() == "new"
    (here.path / "key").write_text("edited while nobody was here")
    assert here.begin_anew() == {}
    assert contents(here.path).keys() == ({"cert", "key"} if known else {"key"})
    assert not known or (here.path / "cert").read_text() == "old"
    assert (here.path / "key").read_text() == "edited while nobody was here"


def without_a_trace(here, name, content):
    """Change a file as a memory map may: neither its size nor its times tell of it."""
    before = (here.path / name).stat()
    with (here.path / name).open("r+") as file:
        file.write(content)
    os.utime(here.path / name, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", ["new", GONE], ids=["replaced", "removed"])
def test_an_edit_without_a_trace_that_came_out_goes_back(here, monkeypatch, change):
    here.apply(here.file("cert", "old"), here.file("key", "old"))
    wanted = here.change("key", GONE) if change is GONE else here.file("key", change)
    with monkeypatch.context() as patch:
        Steps(patch, 2, after=True, meanwhile=lambda: without_a_trace(here, "key", "OLD"))
        with pytest.raises(Crash):
            here.apply(here.file("cert", "new"), wanted)
    assert here.begin_anew() == {}
    assert (here.path / "key").read_text() == "OLD"
    assert (here.path / "cert").read_text() == "old"


def test_a_set_that_is_taken_back_is_taken_back_wherever_the_crash_struck(tmp_path):
    step = 0
    while True:
        step += 1
        here = Mirrored(tmp_path / f"top{step}")
        here.apply(*[here.file(name, "old") for name in ("a", "b", "c")])
        changes = [here.file(name, "new") for name in ("a", "b", "c", "d")]
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, step, after=True)
            real = rename.renameat2

            def edited(source, name, target, new_name, flags, *, here=here, real=real):
                if new_name == "c" and (here.path / "c").read_text() == "old":
                    without_a_trace(here, "c", "OLD")
                real(source, name, target, new_name, flags)

            patch.setattr(rename, "renameat2", edited)
            try:
                assert here.apply(*changes).stale == {"a", "b", "c", "d"}
            except Crash:
                here.begin_anew()
        found = {name: (here.path / name).read_text() for name in contents(here.path)}
        here.close()
        if found != {"a": "old", "b": "old", "c": "OLD"}:
            assert step <= 2, found  # the edit was not made yet, and the set could be finished
            assert set(found.values()) == {"new"}
        if step > steps.done:
            break
    assert step > 6


def test_a_name_outside_the_staging_directory_is_never_acted_on(here):
    here.apply(here.file("a", "kept"))
    intent = Removing(
        path=StorePath("b"), name="../../a", expected=fingerprint_of(here.known["a"]), group=1
    )  # the constructor takes it, reading does not
    (here.path / ".configstore" / FILE).write_bytes(msgspec.json.encode(intent) + b"\n")
    here.begin_anew()
    assert (here.path / "a").read_text() == "kept"
