"""The check sees a set in memory, apart from the mirrored directory, before it is applied or published."""

import os
import stat
from types import SimpleNamespace

import pytest

from configstore.errors import RefusedError
from configstore.mapping_settings import AS_IT_IS, OwnerOverride
from configstore.model.path import StorePath
from sidecar.cycle.parts import MappingParts
from sidecar.cycle.pull import Puller
from sidecar.planner.outcome import CycleOutcome
from sidecar.planner.plan import Pull, Push
from sidecar.planner.sides import LocalEntry, RemoteEntry
from sidecar.programs import preview
from sidecar.programs.check import RECHECK, RETRY, Check
from sidecar.programs.preview import showing
from tests.harness.named import GONE, a_dir, a_link
from tests.sidecar.local.named import NOBODY, a_file, a_mapping

SHOW = ("sh", "-c", 'find "$1" -mindepth 1 -printf "%P %m %U\n" | sort; exit 1', "-", "{}")


def a_local(entry):
    return LocalEntry(entry=entry, signature=None)


def asked(check, local, contents):
    push = Push(path=StorePath("a"), entry=GONE, local=None, expected=1)
    return check.refuses_to_publish([push], local, contents)


def test_it_sees_files_directories_and_links_for_its_user_alone(caplog):
    entries = {"d": a_dir(), "d/a": a_file("x"), "l": a_link("d/a")}
    local = {StorePath(path): a_local(entry) for path, entry in entries.items()}
    check = Check(a_mapping("/nowhere", check=SHOW, run_as=OwnerOverride(uid=NOBODY, gid=NOBODY)))
    assert "ended with exit code 1" in asked(check, local, lambda *_: [b"x"])
    (record,) = caplog.records
    assert record.output.split("\\n") == [f"d 700 {NOBODY}", f"d/a 600 {NOBODY}", "l 777 0"]


def test_it_never_looks_into_the_mirrored_directory(tmp_path):
    (tmp_path / "a").write_text("what the application put there meanwhile")
    check = Check(a_mapping(tmp_path, check=("grep", "-q", "as it was read", "{}/a")))
    local = {StorePath("a"): a_local(a_file("as it was read"))}
    assert asked(check, local, lambda *_: [b"as it was read"]) is None


@pytest.mark.parametrize(("end", "pause"), [("exit 1", RECHECK), ("kill -ABRT $$", RETRY)])
def test_a_check_that_was_killed_is_run_again_soon_and_one_that_refused_is_not(tmp_path, end, pause):
    now = 0.0
    script = f"echo x >> {tmp_path}/runs; {end}"
    check = Check(a_mapping("/nowhere", check=("sh", "-c", script)), clock=lambda: now)
    local = {StorePath("a"): a_local(a_file("x"))}
    for now, runs in ((0.0, 1), (pause - 1, 1), (pause + 1, 2)):  # noqa: B007 - the clock reads it
        assert "refused by the check" in asked(check, local, lambda *_: [b"x"])
        assert len((tmp_path / "runs").read_text().splitlines()) == runs


def test_what_is_too_much_to_be_shown_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(preview, "MAX_SIZE", 10)
    check = Check(a_mapping("/nowhere", check=("true",)))
    local = {StorePath(name): a_local(a_file("123456")) for name in "ab"}
    assert asked(check, local, lambda *_: [b"123456"]) == (
        "cannot be checked: what the check must see has more than 10 bytes"
    )


def test_it_lies_in_memory_or_nowhere(tmp_path, tmpfs):
    disk, memory = tmp_path / "disk", tmpfs(tmp_path / "memory")
    disk.mkdir()
    with showing(AS_IT_IS, [str(disk), str(memory)]) as shown:
        assert shown.path.startswith(str(memory))
        assert stat.S_IMODE(os.stat(shown.path).st_mode) == 0o700
    assert os.listdir(memory) == []
    with pytest.raises(RefusedError, match="mount a tmpfs at /tmp"), showing(AS_IT_IS, [str(disk)]):
        pass


def test_what_a_killed_process_left_is_removed_and_what_another_one_shows_is_not(tmp_path, tmpfs):
    memory = str(tmpfs(tmp_path / "memory"))
    with showing(AS_IT_IS, [memory]) as others:
        os.mkdir(f"{memory}/configstore-check-left")
        with open(f"{memory}/configstore-check-left/key", "w", encoding="ascii") as file:
            file.write("SECRET")
        with showing(AS_IT_IS, [memory]) as shown:
            assert set(os.listdir(memory)) == {os.path.basename(each.path) for each in (others, shown)}


def test_a_link_that_leads_out_is_refused_and_nothing_is_laid_behind_it(tmp_path):
    check = Check(a_mapping("/nowhere", check=("true",)))
    (tmp_path / "evil").mkdir()
    local = {StorePath("d"): a_local(a_link(str(tmp_path / "evil"))), StorePath("d/x"): a_local(a_file("x"))}
    assert "cannot be checked: d: a symlink with an absolute target" in asked(check, local, lambda *_: [b"x"])
    assert os.listdir(tmp_path / "evil") == []


def test_a_link_in_the_way_of_a_file_is_a_reason(tmp_path):
    check = Check(a_mapping("/nowhere", check=("true",)))
    local = {
        StorePath("d"): a_local(a_link("e")),
        StorePath("d/x"): a_local(a_file("x")),
        StorePath("e"): a_local(a_dir()),
    }
    assert "cannot be laid into memory" in asked(check, local, lambda *_: [b"x"])


def test_however_deep_it_is_it_is_shown_and_gone_again(tmp_path, tmpfs):
    memory = str(tmpfs(tmp_path / "memory"))
    with showing(AS_IT_IS, [memory]) as shown:
        shown.file(StorePath("/".join(["d"] * 1020)), [b"x"])
    assert os.listdir(memory) == []


@pytest.mark.parametrize(("check", "parts"), [(("true",), [1200]), ((), [500, 500, 200])])
def test_what_is_placed_is_cut_into_parts_only_where_nobody_checks_the_whole(check, parts):
    """A part may be refused for want of the rest, which would never be placed either."""
    placed = []

    class Placing(Puller):
        def _pull(self, pulls, done):
            placed.append(len(pulls))

    mapping = a_mapping("/nowhere", check=check)
    contents = SimpleNamespace(contents=SimpleNamespace(clear=lambda: None))
    others = dict.fromkeys(("tree", "baseline", "scanner", "applier"))
    parts_of = MappingParts(mapping=mapping, remote=contents, check=Check(mapping), **others)
    pulls = [
        Pull(path=StorePath(f"{at}"), remote=RemoteEntry(entry=a_file("x"), mod_revision=at), local=None)
        for at in range(1, 1201)
    ]
    Placing(parts_of, keeper=None).pull(pulls, CycleOutcome())
    assert placed == parts
